//! What follows from what was seen: pure.

use crate::{
    finding::{Code, Finding},
    firewall,
    observation::{Answered, Link, Neighbours, Observations, Router},
};

/// From so much on a table of neighbours is nearly full.
const NEARLY: (usize, usize) = (8, 10);
/// The length of prefixes that hosts form addresses from (RFC 4862 §5.5.3, RFC 2464 §4).
const SLAAC_LENGTH: u8 = 64;
/// The least that a link of IPv6 carries (RFC 8200 §5).
const LEAST_MTU: u32 = 1_280;

/// All findings, the worst first.
pub fn findings(seen: &Observations) -> Vec<Finding> {
    let mut found: Vec<Finding> = seen.links.iter().flat_map(of_link).collect();
    found.extend(firewall::findings(&seen.chains));
    found.extend(seen.neighbours.iter().filter_map(crowded));
    found.extend(seen.asked.iter().filter_map(of_answer));
    found.extend(several_ways(&seen.links));
    found.sort_by_key(|f| (std::cmp::Reverse(f.severity), f.code, f.subject.clone()));
    found
}

fn of_link(link: &Link) -> Vec<Finding> {
    let mut found = duplicates(link);
    found.extend(forgets_routers(link));
    if let Some(routers) = &link.routers {
        found.extend(nobody_heard(link, routers));
        found.extend(disagreement(link, routers));
        found.extend(routers.iter().flat_map(|r| unfollowable(link, r)));
    }
    found
}

fn duplicates(link: &Link) -> Vec<Finding> {
    let all = link.addresses.iter().filter(|a| a.duplicate);
    let found = all.map(|own| {
        Finding::fault(Code::DuplicateAddress, format!("{} on {}", own.addr, link.name))
            .seen("duplicate address detection failed (dadfailed): another machine on the link answers for it")
            .remedy(format!(
                "find it by its Ethernet address: 'ndisc6 {} {}' from another machine on the link; take the address from one of the \
                 two, then 'ip addr del' and 'ip addr add' it here",
                own.addr, link.name
            ))
    });
    found.collect()
}

/// Linux goes by router advertisements while it forwards only where `accept_ra` is 2.
fn forgets_routers(link: &Link) -> Option<Finding> {
    let has_by_router = link.default_v6.is_some_and(|by| by.0)
        || link
            .addresses
            .iter()
            .any(|a| a.addr.is_ipv6() && !a.by_hand);
    let forgets = link.forwarding != 0 && link.accept_ra == 1 && link.disable_ipv6 == 0;
    let is_alone = link.default_v6.is_none_or(|by| by.0);
    (forgets && (has_by_router || is_alone && hears(link))).then(|| {
        Finding::fault(Code::ForwardingWithAcceptRa, &link.name)
            .seen(format!(
                "net.ipv6.conf.{0}.forwarding = {1} and accept_ra = 1: what routers said runs out, and with it the way out",
                link.name, link.forwarding
            ))
            .remedy(format!(
                "sysctl -w net.ipv6.conf.{}.accept_ra=2 (hextet sets it on its uplinks itself)",
                link.name
            ))
    })
}

fn hears(link: &Link) -> bool {
    let routers = link.routers.iter().flatten();
    routers.into_iter().any(|r| r.lifetime_secs > 0)
}

fn nobody_heard(link: &Link, routers: &[Router]) -> Option<Finding> {
    let waits = link.accept_ra == 2 || link.accept_ra == 1 && link.forwarding == 0;
    let has_own = link.default_v6.is_some_and(|by| !by.0);
    // Who has IPv6 by hand, or nothing of it, waits for nobody.
    let is_meant = link.default_v6.is_some_and(|by| by.0)
        || link
            .addresses
            .iter()
            .any(|a| a.addr.is_ipv6() && !a.by_hand);
    (routers.is_empty() && waits && is_meant && !has_own && link.disable_ipv6 == 0).then(|| {
        Finding::fault(Code::NoRouterAdvertisement, &link.name)
            .seen("the host goes by routers' advertisements, and no router answers its solicitations")
            .remedy(
                "is the router's radvd (or `ipv6 nd`) running on this link, and does no switch drop ICMPv6 type 134 (RA guard)? \
                 'rdisc6 LINK' asks from another machine",
            )
    })
}

fn disagreement(link: &Link, routers: &[Router]) -> Option<Finding> {
    let defaults: Vec<&Router> = routers.iter().filter(|r| r.lifetime_secs > 0).collect();
    let (first, others) = defaults.split_first()?;
    let (other, what) = others
        .iter()
        .find_map(|other| Some((other, difference(first, other)?)))?;
    let who = |r: &Router| match r.mac {
        Some(mac) => format!("{} ({mac})", r.addr),
        None => r.addr.to_string(),
    };
    let found = Finding::fault(Code::TwoRoutersDisagree, &link.name)
        .seen(format!("{} and {}: {what}", who(first), who(other)))
        .remedy(
            "if one of them is nobody's router, find its port by the Ethernet address and turn on RA guard (RFC 6105) there; \
             otherwise give both the same prefixes, flags and MTU",
        );
    Some(found)
}

fn difference(a: &Router, b: &Router) -> Option<String> {
    if (a.managed, a.other) != (b.managed, b.other) {
        let flags = |r: &Router| format!("M {} O {}", u8::from(r.managed), u8::from(r.other));
        return Some(format!("flags {} and {}", flags(a), flags(b)));
    }
    if a.mtu.is_some() && b.mtu.is_some() && a.mtu != b.mtu {
        let mtu = |r: &Router| r.mtu.unwrap_or_default();
        return Some(format!("MTU {} and {}", mtu(a), mtu(b)));
    }
    let words = |r: &Router| {
        let mut all: Vec<String> = r.prefixes.iter().map(|p| p.prefix.to_string()).collect();
        all.sort();
        match all.is_empty() {
            true => "none".to_owned(),
            false => all.join(" "),
        }
    };
    (words(a) != words(b)).then(|| format!("prefixes {} and {}", words(a), words(b)))
}

fn unfollowable(link: &Link, router: &Router) -> Vec<Finding> {
    let mut why = Vec::new();
    for said in &router.prefixes {
        let prefix = said.prefix;
        if said.autonomous && prefix.len() != SLAAC_LENGTH {
            why.push(format!("{prefix} is for SLAAC (A flag), which takes a /64"));
        }
        if said.preferred_secs > said.valid_secs {
            why.push(format!(
                "{prefix} is preferred for {} s and valid for {} s: hosts ignore it",
                said.preferred_secs, said.valid_secs
            ));
        }
    }
    let any_way = router.managed || router.prefixes.iter().any(|p| p.autonomous);
    if router.lifetime_secs > 0 && !any_way && !router.prefixes.is_empty() {
        why.push(
            "no prefix is for SLAAC (A flag), and addresses are not to be had by DHCPv6 (M flag)"
                .to_owned(),
        );
    }
    if router
        .mtu
        .is_some_and(|mtu| mtu > link.mtu || mtu < LEAST_MTU)
    {
        why.push(format!(
            "MTU {} is said of a link that carries {}",
            router.mtu.unwrap_or_default(),
            link.mtu
        ));
    }
    let found = why.into_iter().map(|why| {
        Finding::warning(
            Code::WrongFlags,
            format!("{} on {}", router.addr, link.name),
        )
        .seen(why)
        .remedy("change that in the router's configuration of this link (radvd.conf, `ipv6 nd`)")
    });
    found.collect()
}

/// Strict reverse path filtering, where answers may leave by another link.
fn several_ways(links: &[Link]) -> Vec<Finding> {
    let ways = links.iter().filter(|l| l.default_v4).count();
    let is_strict = |l: &&Link| ways > 1 && l.default_v4 && l.rp_filter == 1;
    let found = links.iter().filter(is_strict).map(|link| {
        Finding::warning(Code::RpFilter, &link.name)
            .seen(format!(
                "rp_filter = 1 where IPv4 has {ways} default routes: what comes by one of them and would be answered by another is dropped"
            ))
            .remedy(format!("sysctl -w net.ipv4.conf.{}.rp_filter=2", link.name))
    });
    found.collect()
}

fn crowded(of: &Neighbours) -> Option<Finding> {
    (of.held * NEARLY.1 >= of.room * NEARLY.0).then(|| {
        Finding::warning(Code::GcThresh, format!("IPv{} neighbours", of.version))
            .seen(format!("{} of {} are taken", of.held, of.room))
            .remedy(format!(
                "sysctl -w net.ipv{}.neigh.default.gc_thresh3={}; and see whether somebody scans ('ip -{} neigh')",
                of.version,
                of.room * 4,
                of.version
            ))
    })
}

fn of_answer(of: &Answered) -> Option<Finding> {
    if of.unresolved {
        let found = Finding::fault(Code::SilentProxy, format!("{} on {}", of.addr, of.link))
            .seen("it is on the link, and nobody answers solicitations for it")
            .remedy(
                "on the host that is to answer: 'hextet port list' shows whether the port is there and ACTIVE; a proxy of another kind \
                 (ndppd, 'ip neigh add proxy') needs an entry, proxy_ndp and its process; a switch that snoops MLD needs the group",
            );
        return Some(found);
    }
    (of.small && !of.large).then(|| {
        Finding::fault(Code::MtuHole, of.addr)
            .seen(format!(
                "an echo of {LEAST_MTU} octets is answered, one of {} is not, and nobody says 'packet too big'",
                of.mtu
            ))
            .remedy(
                "let ICMPv6 type 2 (ICMP type 3 code 4) pass on the way, or tell the right MTU: the router's advertisements for all, \
                 'ip route change … mtu' for one",
            )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observation::{Address, ByRouter, Chain, Said};

    fn said(prefix: &str) -> Said {
        Said {
            prefix: prefix.parse().unwrap(),
            autonomous: true,
            on_link: true,
            valid_secs: 7200,
            preferred_secs: 3600,
        }
    }

    fn router(addr: &str) -> Router {
        Router {
            addr: addr.parse().unwrap(),
            mac: "02:00:00:00:00:01".parse().ok(),
            lifetime_secs: 1800,
            managed: false,
            other: false,
            mtu: None,
            prefixes: vec![said("2001:db8::/64")],
        }
    }

    /// A host with SLAAC.
    fn healthy() -> Observations {
        let address = |addr: &str| Address {
            addr: addr.parse().unwrap(),
            prefix_len: 64,
            duplicate: false,
            by_hand: false,
        };
        Observations {
            links: vec![Link {
                name: "eth0".parse().unwrap(),
                mtu: 1500,
                addresses: vec![address("2001:db8::5")],
                default_v6: Some(ByRouter(true)),
                default_v4: true,
                forwarding: 0,
                accept_ra: 1,
                disable_ipv6: 0,
                rp_filter: 1,
                routers: Some(vec![router("fe80::1")]),
            }],
            chains: Vec::new(),
            neighbours: vec![Neighbours {
                version: 6,
                held: 3,
                room: 1024,
            }],
            asked: Vec::new(),
        }
    }

    fn codes(change: impl FnOnce(&mut Observations)) -> Vec<&'static str> {
        let mut seen = healthy();
        change(&mut seen);
        let found = findings(&seen);
        assert!(
            found
                .iter()
                .all(|f| !f.evidence.is_empty() && !f.remedy.is_empty())
        );
        found.iter().map(|f| f.code.as_str()).collect()
    }

    #[test]
    fn nothing_is_found_where_all_is_well() {
        assert_eq!(codes(|_| ()), Vec::<&str>::new());
    }

    #[test]
    fn what_a_link_has_wrong_is_found() {
        let duplicate = codes(|o| o.links[0].addresses[0].duplicate = true);
        assert_eq!(duplicate, ["duplicate-address"]);
        let forwards = codes(|o| o.links[0].forwarding = 1);
        assert_eq!(forwards, ["forwarding-with-accept-ra"]);
        let right = codes(|o| (o.links[0].forwarding, o.links[0].accept_ra) = (1, 2));
        assert!(right.is_empty());
        let nobody = codes(|o| o.links[0].routers = Some(Vec::new()));
        assert_eq!(nobody, ["no-router-advertisement"]);
        let by_hand = codes(|o| {
            o.links[0].routers = Some(Vec::new());
            o.links[0].default_v6 = Some(ByRouter(false));
            o.links[0].addresses[0].by_hand = true;
        });
        assert!(by_hand.is_empty());
    }

    #[test]
    fn routers_that_disagree_or_can_t_be_followed_are_found() {
        let with = |change: fn(&mut Router)| {
            codes(|o| {
                let mut other = router("fe80::2");
                change(&mut other);
                o.links[0].routers.as_mut().unwrap().push(other);
            })
        };
        assert!(with(|_| ()).is_empty());
        let disagree = ["two-routers-disagree"];
        assert_eq!(with(|r| r.other = true), disagree);
        assert_eq!(
            with(|r| r.prefixes[0] = said("2001:db8:bad::/64")),
            disagree
        );
        // Who is no default router may say other prefixes.
        assert!(with(|r| (r.lifetime_secs, r.prefixes) = (0, vec![said("fd00::/64")])).is_empty());
        let alone = |change: fn(&mut Router)| {
            codes(|o| change(&mut o.links[0].routers.as_mut().unwrap()[0]))
        };
        let wrong = ["wrong-flags"];
        assert_eq!(alone(|r| r.prefixes[0] = said("2001:db8::/80")), wrong);
        assert_eq!(alone(|r| r.prefixes[0].preferred_secs = 9999), wrong);
        assert_eq!(alone(|r| r.prefixes[0].autonomous = false), wrong);
        assert_eq!(alone(|r| r.mtu = Some(9000)), wrong);
    }

    #[test]
    fn what_is_asked_and_what_is_full_is_found() {
        let answer = |unresolved, large| {
            codes(|o| {
                o.asked.push(Answered {
                    addr: "2001:db8::9".parse().unwrap(),
                    link: "eth0".parse().unwrap(),
                    mtu: 1500,
                    unresolved,
                    small: !unresolved,
                    large,
                });
            })
        };
        assert!(answer(false, true).is_empty());
        assert_eq!(answer(false, false), ["mtu-hole"]);
        assert_eq!(answer(true, false), ["silent-proxy"]);
        assert_eq!(codes(|o| o.neighbours[0].held = 900), ["gc-thresh"]);
        let two_ways = codes(|o| {
            let mut other = o.links[0].clone();
            other.rp_filter = 2;
            o.links.push(other);
        });
        assert_eq!(two_ways, ["rp-filter"]);
    }

    #[test]
    fn rules_of_others_are_found() {
        let chain = |change: fn(&mut Chain)| {
            let mut chain = Chain {
                family: "ip".to_owned(),
                table: "filter".to_owned(),
                name: "FORWARD".to_owned(),
                hook: "forward".to_owned(),
                ..Chain::default()
            };
            change(&mut chain);
            codes(|o| o.chains.push(chain))
        };
        assert!(chain(|_| ()).is_empty());
        assert_eq!(chain(|c| c.drops = true), ["foreign-firewall"]);
        assert!(chain(|c| (c.drops, c.lets_ports) = (true, true)).is_empty());
        assert_eq!(
            chain(|c| (c.family, c.hook, c.drops) = ("inet".to_owned(), "input".to_owned(), true)),
            ["filtered-icmpv6"]
        );
    }
}
