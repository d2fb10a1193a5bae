//! What a host's uplink has: pure.
//!
//! The best that workloads can have is a prefix that is routed to the host; then comes the prefix of the link itself, where
//! the host answers for each address; IPv4 is translated to the host's own address in any case.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use hextet_kernel::host::{Host, OwnAddress};
use hextet_types::{Family, IfName, Prefix};
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Prefixes of the link out of which addresses can be taken.
const LENGTHS: std::ops::RangeInclusive<u8> = 64..=120;

/// What somebody asks for besides what is found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Asked {
    /// The uplink.
    pub link: Option<IfName>,
    /// Only out of this part of the link's prefix.
    pub cut: Option<Prefix>,
    /// This prefix is routed to the host.
    pub routed: Option<Prefix>,
    /// Ask nobody for a prefix (DHCPv6).
    pub no_delegation: bool,
}

impl Asked {
    /// Whether prefixes are asked for (RFC 8415 §6.3).
    pub fn delegation(&self) -> bool {
        self.routed.is_none() && !self.no_delegation
    }
}

/// An uplink as it was understood.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Uplink {
    /// The link.
    pub link: IfName,
    /// Its MTU, in octets.
    pub mtu: u16,
    /// The prefixes of the link, those in use first.
    pub on_link: Vec<OnLink>,
    /// What is routed to the host, the best first.
    pub routed: Vec<Routed>,
    /// The host's own IPv4 address that others see, and the link by which IPv4 leaves.
    pub v4: Option<OwnV4>,
    /// Prefixes of IPv4 that are used here for something.
    #[serde(skip)]
    pub taken_v4: Vec<Prefix>,
}

/// A prefix that is routed to the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Routed {
    /// The prefix.
    pub prefix: Prefix,
    /// By DHCPv6, rather than by hand.
    pub delegated: bool,
}

/// A prefix of the link.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct OnLink {
    /// The prefix, or the part that was asked for.
    pub prefix: Prefix,
    /// Whether workloads can form their addresses from it themselves (RFC 4862), and hear of it by a router outside.
    pub by_router: bool,
    /// Whether new connections are to use it.
    pub preferred: bool,
    /// The host's default router.
    pub gateway: Option<Ipv6Addr>,
    /// The host's own addresses in it.
    pub own: Vec<Ipv6Addr>,
}

/// IPv4 as the host has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct OwnV4 {
    /// The address.
    pub addr: Ipv4Addr,
    /// The link that the default route leads by.
    pub link: IfName,
}

/// Why no uplink is understood.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum UplinkError {
    /// No default route.
    #[error(
        "this host has no default route, so nothing says which link leads outside: name it by --uplink"
    )]
    NoDefaultRoute,
    /// Not there, or down.
    #[error("there is no link {0} that is up: 'ip link' shows those that are")]
    NoLink(IfName),
    /// A cut in nobody's prefix.
    #[error(
        "--prefix {cut} does not lie in a prefix of {link}, which has {}; take a part of one of those, from /64 to /120",
        words(.has)
    )]
    NotOnLink {
        /// What was asked for.
        cut: Prefix,
        /// Where.
        link: IfName,
        /// What there is.
        has: Vec<Prefix>,
    },
    /// A cut of another size.
    #[error("--prefix {0}: a part of a link's prefix is from /64 to /120")]
    CutLength(Prefix),
    /// A routed prefix that no subnet can be made of.
    #[error("--routed {0}: a prefix that is routed here is IPv6, a /64 or more of them")]
    Routed(Prefix),
    /// Nothing to work with.
    #[error(
        "{0} has neither an IPv6 prefix nor an IPv4 address: wait for its configuration, or add an address"
    )]
    Nothing(IfName),
}

fn words(prefixes: &[Prefix]) -> String {
    match prefixes {
        [] => "none".to_owned(),
        _ => prefixes
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
            .join(", "),
    }
}

impl Uplink {
    /// Understands what a host has, and has been delegated.
    ///
    /// # Errors
    ///
    /// There is no uplink, or what was asked for does not fit it.
    pub fn understand(
        host: &Host,
        asked: &Asked,
        delegated: &[Prefix],
    ) -> Result<Uplink, UplinkError> {
        let link = find_link(host, asked)?;
        let by_hand = asked.routed.map(check_routed).transpose()?;
        let routed = |delegated| move |prefix| Routed { prefix, delegated };
        let by_hand = by_hand.into_iter().map(routed(false));
        let routed: Vec<Routed> = by_hand
            .chain(delegated.iter().copied().map(routed(true)))
            .collect();
        let mut on_link = prefixes(host, link.index);
        if let Some(cut) = asked.cut {
            on_link = cut_out(on_link, cut, &link.name)?;
        }
        let v4 = own_v4(host);
        if on_link.is_empty() && v4.is_none() && routed.is_empty() {
            return Err(UplinkError::Nothing(link.name.clone()));
        }
        Ok(Uplink {
            link: link.name.clone(),
            mtu: u16::try_from(link.mtu).unwrap_or(u16::MAX),
            on_link,
            routed,
            v4,
            taken_v4: taken_v4(host),
        })
    }

    /// Links by which packets leave besides the uplink.
    pub fn other_links(&self) -> impl Iterator<Item = &IfName> {
        let v4 = self.v4.iter().map(|v4| &v4.link);
        v4.filter(|link| **link != self.link)
    }
}

/// The uplink: what was asked for, or else that of the default route.
pub(crate) fn find_link<'a>(
    host: &'a Host,
    asked: &Asked,
) -> Result<&'a hextet_kernel::links::Found, UplinkError> {
    if let Some(name) = &asked.link {
        let found = host.links.iter().find(|l| l.name == *name && l.up);
        return found.ok_or_else(|| UplinkError::NoLink(name.clone()));
    }
    let of = |family| host.default_route(family).map(|route| route.link);
    let index = of(Family::V6).or_else(|| of(Family::V4));
    let found = index.and_then(|index| host.link(index));
    found.ok_or(UplinkError::NoDefaultRoute)
}

fn check_routed(prefix: Prefix) -> Result<Prefix, UplinkError> {
    let fits = prefix.family() == Family::V6 && (16..=64).contains(&prefix.len());
    match fits {
        true => Ok(prefix),
        false => Err(UplinkError::Routed(prefix)),
    }
}

/// Global unicast or unique local (RFC 4291 §2.5, RFC 4193).
fn is_for_workloads(addr: Ipv6Addr) -> bool {
    addr.octets()[0] >> 5 == 1 || addr.octets()[0] & 0xfe == 0xfc
}

fn prefixes(host: &Host, link: u32) -> Vec<OnLink> {
    let default = host.default_route(Family::V6);
    let gateway = default.filter(|route| route.link == link);
    let gateway = gateway.and_then(|route| match route.gateway {
        Some(IpAddr::V6(gateway)) => Some(gateway),
        _ => None,
    });
    let mut all: Vec<OnLink> = Vec::new();
    for own in host.addresses.iter().filter(|a| a.index == link && !a.ours) {
        let Some((addr, prefix)) = prefix_of(own) else {
            continue;
        };
        let is_preferred = own.standing.preferred_secs != Some(0);
        match all.iter_mut().find(|known| known.prefix == prefix) {
            Some(known) => {
                known.own.push(addr);
                known.preferred |= is_preferred;
                known.by_router |= !own.standing.permanent;
            }
            None => all.push(OnLink {
                prefix,
                by_router: !own.standing.permanent,
                preferred: is_preferred,
                gateway,
                own: vec![addr],
            }),
        }
    }
    // Those in use first, the world's before one's own, and otherwise by number, so that the order stays.
    all.sort_by_key(|p| (!p.preferred, is_local(p.prefix), p.prefix));
    all
}

fn is_local(prefix: Prefix) -> bool {
    matches!(prefix.addr(), IpAddr::V6(v6) if v6.octets()[0] & 0xfe == 0xfc)
}

fn prefix_of(own: &OwnAddress) -> Option<(Ipv6Addr, Prefix)> {
    let IpAddr::V6(addr) = own.addr else {
        return None;
    };
    let usable = is_for_workloads(addr) && LENGTHS.contains(&own.prefix_len);
    let mask = u128::MAX << (128 - u32::from(own.prefix_len).min(127));
    let first = Ipv6Addr::from(u128::from(addr) & mask);
    let prefix = Prefix::new(first.into(), own.prefix_len).ok();
    Some((addr, prefix.filter(|_| usable)?))
}

fn cut_out(on_link: Vec<OnLink>, cut: Prefix, link: &IfName) -> Result<Vec<OnLink>, UplinkError> {
    if cut.family() != Family::V6 || !LENGTHS.contains(&cut.len()) {
        return Err(UplinkError::CutLength(cut));
    }
    let has = on_link.iter().map(|p| p.prefix).collect();
    let of = on_link.into_iter().find(|p| p.prefix.covers(cut));
    let of = of.ok_or(UplinkError::NotOnLink {
        cut,
        link: link.clone(),
        has,
    })?;
    let is_whole = of.prefix == cut;
    Ok(vec![OnLink {
        prefix: cut,
        by_router: of.by_router && is_whole,
        ..of
    }])
}

fn own_v4(host: &Host) -> Option<OwnV4> {
    let route = host.default_route(Family::V4)?;
    let link = host.link(route.link)?;
    let addr = host.addresses.iter().find_map(|own| match own.addr {
        IpAddr::V4(addr) if own.index == route.link && !own.ours => Some(addr),
        _ => None,
    })?;
    Some(OwnV4 {
        addr,
        link: link.name.clone(),
    })
}

fn taken_v4(host: &Host) -> Vec<Prefix> {
    let routes = host.routes.iter().map(|route| route.prefix);
    let routes = routes.filter(|p| p.family() == Family::V4 && !p.is_default());
    let own = host.addresses.iter().filter(|a| a.addr.is_ipv4());
    routes.chain(own.map(|a| Prefix::host(a.addr))).collect()
}

#[cfg(test)]
mod tests {
    use hextet_kernel::host::{HostRoute, Standing};

    use super::*;

    fn link(index: u32, name: &str) -> hextet_kernel::links::Found {
        hextet_kernel::links::Found {
            index,
            name: name.parse().unwrap(),
            mac: None,
            mtu: 1500,
            up: true,
            running: true,
            generates_addresses: true,
            stats: None,
            group: 0,
            alias: None,
            of: None,
            of_netns: None,
            kind: Default::default(),
        }
    }

    fn own(index: u32, text: &str, standing: Standing) -> OwnAddress {
        let (addr, len) = text.split_once('/').unwrap();
        OwnAddress {
            index,
            addr: addr.parse().unwrap(),
            prefix_len: len.parse().unwrap(),
            ours: false,
            standing,
        }
    }

    fn by_hand() -> Standing {
        Standing {
            permanent: true,
            ..Standing::default()
        }
    }

    fn by_router(preferred: u32) -> Standing {
        Standing {
            preferred_secs: Some(preferred),
            valid_secs: Some(7_200),
            ..Standing::default()
        }
    }

    fn default_route(link: u32, gateway: &str) -> HostRoute {
        let gateway: IpAddr = gateway.parse().unwrap();
        HostRoute {
            prefix: Prefix::default_route(Family::of(gateway)),
            gateway: Some(gateway),
            link,
            metric: 1024,
            by_router: false,
        }
    }

    /// A rented machine: one address of a /64 and one of IPv4, both by hand.
    fn rented() -> Host {
        Host {
            links: vec![link(1, "lo"), link(2, "eth0")],
            addresses: vec![
                own(1, "::1/128", by_hand()),
                own(2, "fe80::2/64", by_hand()),
                own(2, "2001:db8:0:1::2/64", by_hand()),
                own(2, "192.0.2.2/24", by_hand()),
            ],
            routes: vec![default_route(2, "fe80::1"), default_route(2, "192.0.2.1")],
        }
    }

    #[test]
    fn a_rented_machine_has_its_link_s_prefix() {
        let uplink = Uplink::understand(&rented(), &Asked::default(), &[]).unwrap();
        assert_eq!((uplink.link.as_str(), uplink.mtu), ("eth0", 1500));
        let [only] = &uplink.on_link[..] else {
            panic!("{uplink:?}")
        };
        assert_eq!(only.prefix.to_string(), "2001:db8:0:1::/64");
        assert!(!only.by_router && only.preferred);
        assert_eq!(only.gateway, Some("fe80::1".parse().unwrap()));
        assert_eq!(uplink.v4.unwrap().addr, Ipv4Addr::new(192, 0, 2, 2));
    }

    #[test]
    fn prefixes_in_use_come_first_when_the_provider_renumbers() {
        let mut host = rented();
        host.addresses.retain(|a| a.addr.is_ipv4());
        host.addresses
            .push(own(2, "2001:db8:0:1::2/64", by_router(0)));
        host.addresses
            .push(own(2, "2001:db8:0:2::2/64", by_router(3_600)));
        let uplink = Uplink::understand(&host, &Asked::default(), &[]).unwrap();
        let seen: Vec<_> = uplink
            .on_link
            .iter()
            .map(|p| (p.prefix.to_string(), p.preferred, p.by_router))
            .collect();
        assert_eq!(
            seen,
            [
                ("2001:db8:0:2::/64".to_owned(), true, true),
                ("2001:db8:0:1::/64".to_owned(), false, true),
            ]
        );
    }

    #[test]
    fn a_cut_lies_in_the_link_s_prefix() {
        let cut = |text: &str| Asked {
            cut: Some(text.parse().unwrap()),
            ..Asked::default()
        };
        let uplink = Uplink::understand(&rented(), &cut("2001:db8:0:1::c:0/112"), &[]).unwrap();
        assert_eq!(
            uplink.on_link[0].prefix.to_string(),
            "2001:db8:0:1::c:0/112"
        );
        let error = Uplink::understand(&rented(), &cut("2001:db8:0:2::/112"), &[]).unwrap_err();
        let said = error.to_string();
        assert!(
            said.contains("eth0") && said.contains("2001:db8:0:1::/64"),
            "{said}"
        );
        let error = Uplink::understand(&rented(), &cut("2001:db8::/48"), &[]).unwrap_err();
        assert!(error.to_string().contains("/64 to /120"), "{error}");
    }

    #[test]
    fn what_is_delegated_comes_with_what_is_routed() {
        let delegated = ["2001:db8:100::/56".parse().unwrap()];
        let uplink = Uplink::understand(&rented(), &Asked::default(), &delegated).unwrap();
        let is = |prefix, delegated| Routed { prefix, delegated };
        assert_eq!(uplink.routed, [is(delegated[0], true)]);
        let by_hand = Asked {
            routed: "2001:db8:200::/56".parse().ok(),
            ..Asked::default()
        };
        assert!(!by_hand.delegation() && Asked::default().delegation());
        let uplink = Uplink::understand(&rented(), &by_hand, &[]).unwrap();
        assert_eq!(uplink.routed, [is(by_hand.routed.unwrap(), false)]);
    }

    #[test]
    fn what_lacks_is_named() {
        let mut host = rented();
        let other = Asked {
            link: "eth1".parse().ok(),
            ..Asked::default()
        };
        let error = Uplink::understand(&host, &other, &[]).unwrap_err();
        assert_eq!(error, UplinkError::NoLink("eth1".parse().unwrap()));
        host.routes.clear();
        let error = Uplink::understand(&host, &Asked::default(), &[]).unwrap_err();
        assert!(error.to_string().contains("--uplink"), "{error}");
        host.addresses.clear();
        let eth0 = Asked {
            link: "eth0".parse().ok(),
            ..Asked::default()
        };
        let error = Uplink::understand(&host, &eth0, &[]).unwrap_err();
        assert_eq!(error, UplinkError::Nothing("eth0".parse().unwrap()));
        let routed = Asked {
            routed: "2001:db8::/96".parse().ok(),
            ..eth0
        };
        let error = Uplink::understand(&host, &routed, &[]).unwrap_err();
        assert!(error.to_string().contains("--routed"), "{error}");
    }
}
