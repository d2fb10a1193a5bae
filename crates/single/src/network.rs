//! The networks that follow from an uplink: pure.
//!
//! `on-link` has the link's own prefixes, and the host answers for each address; `routed` has a prefix that is routed to the
//! host. Each has private IPv4 besides, which leaves with the host's own address.

use std::net::{IpAddr, Ipv6Addr};

use hextet_types::{Family, Prefix};
use serde_json::{Value, json};

use crate::{
    places::PHYSICAL,
    uplink::{OnLink, Uplink},
};

/// The network of the link's own prefixes.
pub const ON_LINK: &str = "on-link";
/// The network of what is routed to the host.
pub const ROUTED: &str = "routed";
/// Workloads that anybody may reach are in this security group.
pub const OPEN: &str = "open";

/// A link has no more prefixes than that, so one beyond them is free.
const MOST_LINKS: usize = 1_024;

/// A network that there has to be.
#[derive(Clone, Debug, PartialEq)]
pub struct Network {
    /// Its name.
    pub name: &'static str,
    /// What it is made with.
    pub attributes: Value,
    /// Its IPv6 subnets: by prefix, what each is made with.
    pub v6: Vec<(Prefix, Value)>,
    /// What its IPv4 subnet is made with, if it has none.
    pub v4: Option<Value>,
}

/// The networks, the best first.
pub fn wanted(uplink: &Uplink) -> Vec<Network> {
    let mut free = free_v4(uplink);
    let mut v4 = |name| {
        let cidr = uplink.v4.as_ref().and_then(|_| free.next())?;
        Some(
            json!({"name": format!("{name}-ipv4"), "ip_version": 4, "cidr": cidr, "hextet:nat44": {}}),
        )
    };
    let mut all = Vec::new();
    let routed = uplink
        .routed
        .iter()
        .filter_map(|r| routed(r.prefix, uplink));
    let mut routed: Vec<(Prefix, Value)> = routed.collect();
    let larger = uplink.routed.iter().filter(|r| r.prefix.len() < 64);
    routed.extend(larger.map(|r| delegation(r.prefix)));
    if !routed.is_empty() {
        all.push(Network {
            name: ROUTED,
            attributes: json!({"name": ROUTED, "shared": true, "provider:network_type": "routed"}),
            v6: routed,
            v4: v4(ROUTED),
        });
    }
    if !uplink.on_link.is_empty() || all.is_empty() {
        all.push(Network {
            name: ON_LINK,
            attributes: json!({"name": ON_LINK, "shared": true, "provider:network_type": "flat",
                "provider:physical_network": PHYSICAL}),
            v6: uplink.on_link.iter().map(on_link).collect(),
            v4: v4(ON_LINK),
        });
    }
    all
}

/// The first /64 of a prefix that is routed to the host, but not that of a link.
fn routed(prefix: Prefix, uplink: &Uplink) -> Option<(Prefix, Value)> {
    let is_free = |p: &Prefix| {
        !uplink
            .on_link
            .iter()
            .any(|on_link| on_link.prefix.overlaps(*p))
    };
    let first = parts(prefix).take(MOST_LINKS).find(is_free)?;
    let attributes = json!({"name": format!("routed-{first}"), "ip_version": 6, "cidr": first,
        "ipv6_ra_mode": "slaac", "ipv6_address_mode": "slaac"});
    Some((first, attributes))
}

/// Of what is left of a prefix each workload gets a /64 of its own.
fn delegation(prefix: Prefix) -> (Prefix, Value) {
    let attributes = json!({"name": format!("delegation-{prefix}"), "ip_version": 6, "cidr": prefix,
        "hextet:delegation": {"prefixlen": 64}});
    (prefix, attributes)
}

/// The /64s of a prefix, in order.
fn parts(prefix: Prefix) -> impl Iterator<Item = Prefix> {
    let first = match prefix.addr() {
        IpAddr::V6(addr) => u128::from(addr),
        IpAddr::V4(_) => 0,
    };
    let several = 1u128 << (64 - u32::from(prefix.len()).min(64));
    let nth = move |n| Prefix::new(Ipv6Addr::from(first + (n << 64)).into(), 64).ok();
    (0..several).filter_map(nth)
}

fn on_link(on_link: &OnLink) -> (Prefix, Value) {
    let prefix = on_link.prefix;
    let mut attributes = json!({"name": format!("on-link-{prefix}"), "ip_version": 6, "cidr": prefix,
        "gateway_ip": on_link.gateway});
    match (prefix.len(), on_link.by_router) {
        (64, true) => attributes["ipv6_address_mode"] = json!("slaac"),
        (64, false) => {
            attributes["ipv6_ra_mode"] = json!("slaac");
            attributes["ipv6_address_mode"] = json!("slaac");
        }
        _ => {
            attributes["ipv6_ra_mode"] = json!("dhcpv6-stateful");
            attributes["ipv6_address_mode"] = json!("dhcpv6-stateful");
            attributes["allocation_pools"] = pools(on_link);
        }
    }
    (prefix, attributes)
}

/// All of a prefix but the first (RFC 4291 §2.6.1), and what the host and its router have.
fn pools(on_link: &OnLink) -> Value {
    let number = |addr: IpAddr| match addr {
        IpAddr::V6(v6) => u128::from(v6),
        IpAddr::V4(_) => 0,
    };
    let first = number(on_link.prefix.addr()) + 1;
    let last = number(on_link.prefix.last());
    let taken = on_link.own.iter().chain(&on_link.gateway);
    let mut taken: Vec<u128> = taken.map(|a| u128::from(*a)).collect();
    taken.retain(|n| (first..=last).contains(n));
    taken.sort_unstable();
    taken.dedup();
    let (mut pools, mut from) = (Vec::new(), first);
    for n in taken.into_iter().chain([last + 1]) {
        if n > from {
            let (start, end) = (Ipv6Addr::from(from), Ipv6Addr::from(n - 1));
            pools.push(json!({"start": start, "end": end}));
        }
        from = n + 1;
    }
    json!(pools)
}

/// Private prefixes (RFC 1918) that nothing here uses.
fn free_v4(uplink: &Uplink) -> impl Iterator<Item = Prefix> {
    let all = (112..=239u8).filter_map(|n| Prefix::new(IpAddr::from([10, n, 0, 0]), 16).ok());
    all.filter(|p| {
        debug_assert_eq!(p.family(), Family::V4);
        !uplink.taken_v4.iter().any(|taken| taken.overlaps(*p))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::uplink::{OwnV4, Routed};

    fn uplink(prefix: &str, by_router: bool) -> Uplink {
        Uplink {
            link: "eth0".parse().unwrap(),
            mtu: 1500,
            on_link: vec![OnLink {
                prefix: prefix.parse().unwrap(),
                by_router,
                preferred: true,
                gateway: "fe80::1".parse().ok(),
                own: vec!["2001:db8::5".parse().unwrap()],
            }],
            routed: Vec::new(),
            v4: Some(OwnV4 {
                addr: [192, 0, 2, 2].into(),
                link: "eth0".parse().unwrap(),
            }),
            taken_v4: vec!["10.112.3.0/24".parse().unwrap()],
        }
    }

    #[test]
    fn a_router_outside_rules_where_there_is_one() {
        let networks = wanted(&uplink("2001:db8::/64", true));
        let [only] = &networks[..] else {
            panic!("{networks:?}")
        };
        let (_, v6) = &only.v6[0];
        assert_eq!(v6["ipv6_address_mode"], "slaac");
        assert_eq!(v6["ipv6_ra_mode"], Value::Null);
        let networks = wanted(&uplink("2001:db8::/64", false));
        assert_eq!(networks[0].v6[0].1["ipv6_ra_mode"], "slaac");
        assert_eq!(networks[0].v4.as_ref().unwrap()["cidr"], "10.113.0.0/16");
    }

    #[test]
    fn a_cut_s_addresses_are_those_that_nobody_has() {
        let networks = wanted(&uplink("2001:db8::/112", false));
        let (_, v6) = &networks[0].v6[0];
        assert_eq!(v6["ipv6_ra_mode"], "dhcpv6-stateful");
        assert_eq!(
            v6["allocation_pools"],
            json!([
                {"start": "2001:db8::1", "end": "2001:db8::4"},
                {"start": "2001:db8::6", "end": "2001:db8::ffff"},
            ])
        );
    }

    #[test]
    fn what_is_routed_here_is_better() {
        let mut uplink = uplink("2001:db8::/64", true);
        uplink.routed.push(Routed {
            prefix: "2001:db8:100::/56".parse().unwrap(),
            delegated: true,
        });
        let networks = wanted(&uplink);
        let names: Vec<_> = networks.iter().map(|n| n.name).collect();
        assert_eq!(names, [ROUTED, ON_LINK]);
        assert_eq!(networks[0].v6[0].0.to_string(), "2001:db8:100::/64");
        let cidrs = networks
            .iter()
            .map(|n| n.v4.as_ref().unwrap()["cidr"].clone());
        assert_eq!(
            cidrs.collect::<Vec<_>>(),
            ["10.113.0.0/16", "10.114.0.0/16"]
        );
    }

    #[test]
    fn the_link_s_own_part_of_a_routed_prefix_stays_the_link_s() {
        let mut uplink = uplink("2001:db8:100::/64", true);
        for text in ["2001:db8:100::/56", "2001:db8:100::/64"] {
            uplink.routed.push(Routed {
                prefix: text.parse().unwrap(),
                delegated: true,
            });
        }
        let networks = wanted(&uplink);
        let prefixes: Vec<String> = networks[0].v6.iter().map(|(p, _)| p.to_string()).collect();
        assert_eq!(prefixes, ["2001:db8:100:1::/64", "2001:db8:100::/56"]);
    }

    #[test]
    fn without_ipv6_there_is_ipv4_still() {
        let mut uplink = uplink("2001:db8::/64", true);
        uplink.on_link.clear();
        let networks = wanted(&uplink);
        assert!(networks[0].v6.is_empty() && networks[0].v4.is_some());
    }
}
