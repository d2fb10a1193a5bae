//! Next hops that workloads choose by their Ethernet address.

#![allow(clippy::unwrap_used, reason = "a test")]

mod world;

use std::{collections::BTreeSet, net::IpAddr};

use hextet_model::{
    explain::{Endpoint, Explanation, Outcome, Payload, Query, Reason, explain},
    intent::{Change, RemotePort, TunnelEndpoint},
    neutron::{AddressPair, Network, NetworkType, Port, Subnet},
    plan::{Planner, plan},
    state::{
        CtState, EdgeProgram, Fdb, Hop, HopEntry, HostState, Neighbour, NextHop, Object, Route,
        RouteKind, Rule, RuleAction, marks,
    },
};
use hextet_types::{HostId, IfName, Mac, PortId};
use uuid::Uuid;
use world::{config, fixed, ip, network, network_id, port, subnet};

const THERE: &str = "2001:db8:f::2";

fn private() -> Network {
    Network {
        network_type: NetworkType::Vxlan,
        segmentation_id: Some(7),
        ..network(0)
    }
}

fn guest(n: u8) -> Port {
    let addr = format!("10.1.0.{n}");
    Port {
        network_id: network_id(0),
        id: PortId(Uuid::from_u128(u128::from(n) << 96)),
        mac_address: mac(n),
        ..port(n, vec![fixed(1, &addr)], &[])
    }
}

fn mac(n: u8) -> Mac {
    Mac::new([0xfa, 0x16, 0x3e, 0, 0, n])
}

fn router_like(n: u8) -> Port {
    Port {
        port_security_enabled: false,
        ..guest(n)
    }
}

fn endpoint(number: u32, address: &str) -> TunnelEndpoint {
    TunnelEndpoint {
        number,
        address: ip(address),
    }
}

/// A network that reaches to another host.
fn begun() -> Planner {
    let mut planner = Planner::new(config());
    let subnets = [0, 1].map(|n| Subnet {
        network_id: network_id(0),
        ..subnet(n)
    });
    let there: HostId = "there".parse().unwrap();
    planner.apply_all([
        Change::PutNetwork(Box::new(private())),
        Change::PutHost(config().host, endpoint(1, "2001:db8:f::1")),
        Change::PutHost(there, endpoint(2, THERE)),
    ]);
    planner.apply_all(subnets.map(|s| Change::PutSubnet(Box::new(s))));
    planner
}

fn step(planner: &mut Planner, change: Change) {
    planner.apply(change);
    assert_eq!(planner.state(), &plan(planner.intent(), &config()));
}

fn hops(state: &HostState) -> BTreeSet<(IfName, String)> {
    let hops = state.objects.values().filter_map(|object| match object {
        Object::Hop(Hop { link, entry, .. }) => Some((link.clone(), format!("{entry:?}"))),
        _ => None,
    });
    hops.collect()
}

/// Where the mark of that next hop leads, in both families.
fn ways(state: &HostState, of: Mac) -> BTreeSet<(IpAddr, NextHop)> {
    let number = state.objects.values().find_map(|object| match object {
        Object::Hop(Hop {
            entry: HopEntry::Way { mac, mark },
            ..
        }) if *mac == of => Some(*mark),
        _ => None,
    });
    let number = number.unwrap();
    assert!(number != 0 && number & !marks::HOP_MASK == 0);
    let tables = state.objects.values().filter_map(|object| match object {
        Object::Rule(Rule {
            fwmark: Some(mark),
            family,
            action: RuleAction::Table(table),
            ..
        }) if *mark == (number, marks::HOP_MASK) => Some((*family, *table)),
        _ => None,
    });
    let tables: Vec<_> = tables.collect();
    let routes = state.objects.values().filter_map(|object| match object {
        Object::Route(Route {
            key,
            kind: RouteKind::Unicast(hops),
            ..
        }) if tables.contains(&(key.prefix.family(), key.table)) => {
            assert!(key.prefix.is_default());
            Some((key.prefix.addr(), hops[0].clone()))
        }
        _ => None,
    });
    routes.collect()
}

fn both(via: IpAddr, link: &str) -> BTreeSet<(IpAddr, NextHop)> {
    let hop = NextHop {
        via: Some(via),
        link: link.parse().unwrap(),
    };
    ["0.0.0.0", "::"].map(|to| (ip(to), hop.clone())).into()
}

#[test]
fn a_port_that_may_carry_others_packets_is_offered_to_all_but_itself() {
    let mut planner = begun();
    step(&mut planner, Change::PutPort(Box::new(guest(1))));
    step(&mut planner, Change::PutPort(Box::new(guest(2))));
    let without = planner.state().clone();
    assert_eq!(hops(&without), BTreeSet::new(), "nobody may carry");
    let rules = |state: &HostState| {
        let rules = state.objects.values();
        rules.filter(|o| matches!(o, Object::Rule(_))).count()
    };
    let before = rules(&without);

    step(&mut planner, Change::PutPort(Box::new(router_like(2))));
    let state = planner.state();
    let link = guest(1).if_name();
    let own = guest(2).if_name();
    let told: BTreeSet<IfName> = hops(state).into_iter().map(|(link, _)| link).collect();
    assert_eq!(told, [link.clone(), "vxlan".parse().unwrap()].into());
    let answer = HopEntry::Answer {
        addr: ip("10.1.0.2"),
        mac: mac(2),
    };
    assert!(hops(state).contains(&(link, format!("{answer:?}"))));
    let via = IpAddr::V6(mac(2).link_local());
    assert_eq!(ways(state, mac(2)), both(via, own.as_str()));
    assert_eq!(rules(state), before + 2);
    let program = |o: &&Object| matches!(o, Object::EdgeProgram(EdgeProgram { link, .. }) if link.as_str() == "vxlan");
    assert_eq!(state.objects.values().filter(program).count(), 1);

    step(&mut planner, Change::PutPort(Box::new(guest(3))));
    let late = guest(3).if_name();
    assert!(hops(planner.state()).iter().any(|(on, _)| *on == late));
    step(&mut planner, Change::RemovePort(guest(3).id));
    step(&mut planner, Change::PutPort(Box::new(guest(2))));
    assert_eq!(*planner.state(), without);
}

#[test]
fn wide_pairs_make_a_next_hop_and_single_addresses_do_not() {
    for (pair, is_one) in [("192.0.2.0/24", true), ("192.0.2.9/32", false)] {
        let mut planner = begun();
        step(&mut planner, Change::PutPort(Box::new(guest(1))));
        let pairs = vec![AddressPair {
            ip_address: pair.parse().unwrap(),
            mac_address: mac(2),
        }];
        let with = Port {
            allowed_address_pairs: pairs,
            ..guest(2)
        };
        step(&mut planner, Change::PutPort(Box::new(with)));
        assert_eq!(!hops(planner.state()).is_empty(), is_one, "{pair}");
    }
}

#[test]
fn one_on_another_host_is_reached_by_its_own_ethernet_address() {
    let mut planner = begun();
    step(&mut planner, Change::PutPort(Box::new(guest(1))));
    let without = planner.state().clone();
    let there: HostId = "there".parse().unwrap();
    let remote = RemotePort::of(&router_like(2), &there).unwrap();
    step(
        &mut planner,
        Change::PutRemotePort(Box::new(remote.clone())),
    );
    let state = planner.state();
    let via = IpAddr::V6(mac(2).link_local());
    assert_eq!(ways(state, mac(2)), both(via, "vxlan"));
    let known = |object: &&Object| match object {
        Object::Fdb(Fdb { mac: is, dst, .. }) => *is == mac(2) && *dst == ip(THERE),
        Object::Neighbour(Neighbour { mac: is, addr, .. }) => *is == mac(2) && *addr == via,
        _ => false,
    };
    assert_eq!(state.objects.values().filter(known).count(), 2);
    let program = |o: &&Object| matches!(o, Object::EdgeProgram(EdgeProgram { link, .. }) if link.as_str() == "vxlan");
    assert_eq!(state.objects.values().filter(program).count(), 1);

    let posing = RemotePort {
        mac_address: Mac::new([0x06, 0x68, 0x78, 0, 0, 2]),
        ..remote.clone()
    };
    step(&mut planner, Change::PutRemotePort(Box::new(posing)));
    assert_eq!(hops(planner.state()), BTreeSet::new(), "a host's own");
    step(&mut planner, Change::PutRemotePort(Box::new(remote)));
    step(&mut planner, Change::RemoveHost(there));
    assert_eq!(hops(planner.state()), BTreeSet::new(), "nobody knows where");
    step(&mut planner, Change::RemoveRemotePort(guest(2).id));
    let there: HostId = "there".parse().unwrap();
    step(&mut planner, Change::PutHost(there, endpoint(2, THERE)));
    assert_eq!(*planner.state(), without);
}

#[test]
fn there_are_so_many_and_no_more() {
    let mut planner = begun();
    step(&mut planner, Change::PutPort(Box::new(guest(1))));
    let all = (2..=40).map(|n| Change::PutPort(Box::new(router_like(n))));
    planner.apply_all(all);
    let ways = |object: &Object| match object {
        Object::Hop(Hop {
            link,
            entry: HopEntry::Way { mac, .. },
            ..
        }) if *link == guest(1).if_name() => Some(*mac),
        _ => None,
    };
    let chosen: BTreeSet<Mac> = planner.state().objects.values().filter_map(ways).collect();
    assert_eq!(chosen, (2..34).map(mac).collect());
}

#[test]
fn an_address_that_several_may_use_leads_to_its_holder() {
    let shared = ip("10.1.0.100");
    let with_pair = |n: u8| Port {
        allowed_address_pairs: vec![AddressPair {
            ip_address: "10.1.0.100/32".parse().unwrap(),
            mac_address: mac(n),
        }],
        ..guest(n)
    };
    let way = |planner: &Planner| {
        let routes = planner
            .state()
            .objects
            .values()
            .filter_map(|object| match object {
                Object::Route(Route {
                    key,
                    kind: RouteKind::Unicast(hops),
                    ..
                }) if key.prefix.addr() == shared => Some(hops[0].link.clone()),
                _ => None,
            });
        routes.collect::<Vec<_>>()
    };
    let links = [1, 2].map(|n| vec![guest(n).if_name()]);
    let mut planner = begun();
    for n in [1, 2] {
        step(&mut planner, Change::PutPort(Box::new(with_pair(n))));
        assert_eq!(way(&planner), links[0], "the first claimant");
    }
    let holder = |n: u8| Change::PutHolder(network_id(0), shared, guest(n).id);
    for (n, links) in [2, 1, 2].into_iter().zip([&links[1], &links[0], &links[1]]) {
        step(&mut planner, holder(n));
        assert_eq!(way(&planner), *links);
    }
    let there: HostId = "there".parse().unwrap();
    let remote = [(shared, there)].into();
    step(&mut planner, Change::PutRemotes(network_id(0), remote));
    assert_eq!(way(&planner), ["vxlan".parse().unwrap()], "it is elsewhere");
    let gone = [shared].into();
    step(&mut planner, Change::RemoveRemotes(network_id(0), gone));
    assert_eq!(way(&planner), links[1]);
    // Who may use it no longer is not believed any more.
    step(&mut planner, Change::PutPort(Box::new(guest(2))));
    assert_eq!(way(&planner), links[0]);
    step(&mut planner, holder(1));
    step(&mut planner, Change::RemoveHolder(network_id(0), shared));
    assert_eq!(way(&planner), links[0]);
    step(&mut planner, Change::RemovePort(guest(1).id));
    assert!(way(&planner).is_empty());
    step(&mut planner, Change::PutPort(Box::new(with_pair(2))));
    assert_eq!(way(&planner), links[1]);

    // One out of a prefix has no neighbour of its own.
    let wide = Port {
        allowed_address_pairs: vec![AddressPair {
            ip_address: "10.1.0.96/28".parse().unwrap(),
            mac_address: mac(3),
        }],
        ..guest(3)
    };
    step(&mut planner, Change::PutPort(Box::new(wide)));
    assert_eq!(way(&planner), links[1], "nobody has said that it has it");
    step(&mut planner, holder(3));
    assert_eq!(way(&planner), vec![guest(3).if_name()]);
    step(&mut planner, Change::PutPort(Box::new(guest(3))));
    assert_eq!(way(&planner), links[1]);
}

#[test]
fn who_may_share_addresses_hears_vrrp_here_and_on_another_host() {
    let mut planner = begun();
    step(&mut planner, Change::PutPort(Box::new(router_like(1))));
    let receivers = |planner: &Planner| {
        let objects = planner.state().objects.values();
        let all = objects.filter_map(|object| match object {
            Object::Receiver(r) if r.any_source => {
                Some((r.link.clone(), r.from, r.family, r.to.clone(), r.host))
            }
            _ => None,
        });
        all.collect::<BTreeSet<_>>()
    };
    assert_eq!(receivers(&planner), BTreeSet::new(), "it is alone");
    step(&mut planner, Change::PutPort(Box::new(router_like(2))));
    let [one, two] = [1, 2].map(|n| guest(n).if_name());
    let vxlan: IfName = "vxlan".parse().unwrap();
    let mut expected = BTreeSet::new();
    for family in hextet_types::Family::BOTH {
        expected.insert((one.clone(), mac(1), family, two.clone(), None));
        expected.insert((two.clone(), mac(2), family, one.clone(), None));
    }
    assert_eq!(receivers(&planner), expected);
    let there: HostId = "there".parse().unwrap();
    let remote = RemotePort::of(&router_like(3), &there).unwrap();
    step(&mut planner, Change::PutRemotePort(Box::new(remote)));
    for family in hextet_types::Family::BOTH {
        for (link, n) in [(&one, 1), (&two, 2)] {
            expected.insert((link.clone(), mac(n), family, vxlan.clone(), Some(2)));
            expected.insert((vxlan.clone(), mac(3), family, link.clone(), None));
        }
    }
    assert_eq!(receivers(&planner), expected);
    step(&mut planner, Change::RemoveHost(there));
    step(&mut planner, Change::RemoveRemotePort(guest(3).id));
    step(&mut planner, Change::PutPort(Box::new(guest(2))));
    assert_eq!(receivers(&planner), BTreeSet::new());
}

#[test]
fn a_sender_has_so_many_receivers_and_no_more() {
    let mut planner = begun();
    let all = (1..=20).map(|n| Change::PutPort(Box::new(router_like(n))));
    planner.apply_all(all);
    let of_one = |object: &&Object| {
        matches!(object, Object::Receiver(r) if r.link == guest(1).if_name()
            && r.family == hextet_types::Family::V4)
    };
    let receivers = planner.state().objects.values().filter(of_one).count();
    assert_eq!(receivers, usize::from(hextet_model::state::Receiver::MOST));
}

fn asked(planner: &Planner, to: &str, via: Option<&str>, payload: Payload) -> Explanation {
    let query = Query {
        from: Endpoint::Port(guest(1).id),
        source: None,
        mac: None,
        to: ip(to),
        via: via.map(ip),
        payload,
        connection: CtState::New,
    };
    explain(planner, &query).unwrap()
}

/// Three that may carry and share, one of them on another host.
fn carriers() -> Planner {
    let mut planner = begun();
    step(&mut planner, Change::PutPort(Box::new(router_like(1))));
    step(&mut planner, Change::PutPort(Box::new(router_like(2))));
    let there: HostId = "there".parse().unwrap();
    let remote = RemotePort::of(&router_like(3), &there).unwrap();
    step(&mut planner, Change::PutRemotePort(Box::new(remote)));
    planner
}

#[test]
fn explanations_follow_the_next_hop_that_a_port_chooses() {
    let planner = carriers();
    let datagram = Payload::Ports {
        protocol: 17,
        source: 49_152,
        destination: 53,
    };
    let asked = |via| asked(&planner, "192.0.2.77", via, datagram);
    let here = asked(Some("10.1.0.2"));
    let link = guest(2).if_name();
    assert_eq!(here.verdict, Outcome::Delivered { link }, "{here}");
    assert!(here.to_string().contains(&mac(2).to_string()), "{here}");
    let there = asked(Some("10.1.0.3"));
    assert!(matches!(there.verdict, Outcome::Leaves { .. }), "{there}");
    assert!(there.to_string().contains("to host there"), "{there}");
    let gateway = asked(Some("10.1.0.254"));
    assert!(gateway.to_string().contains("the gateway answers"));
    assert_eq!(gateway.verdict, asked(None).verdict, "{gateway}");
    assert!(matches!(gateway.verdict, Outcome::Dropped(_)), "{gateway}");
}

#[test]
fn explanations_tell_who_hears_vrrp() {
    let mut planner = carriers();
    let advert = Payload::Protocol(112);
    let heard = asked(&planner, "224.0.0.18", None, advert);
    let link = guest(2).if_name();
    let copies = [
        format!("copied to {link}"),
        "to host there, for those who share there".to_owned(),
    ];
    for copy in copies {
        assert!(heard.to_string().contains(&copy), "{heard}");
    }
    assert_eq!(heard.verdict, Outcome::Delivered { link });
    let other = asked(&planner, "224.0.0.19", None, advert);
    assert_ne!(other.verdict, heard.verdict, "another group: {other}");
    step(&mut planner, Change::RemovePort(guest(2).id));
    let heard = asked(&planner, "224.0.0.18", None, advert);
    assert!(matches!(heard.verdict, Outcome::Leaves { .. }), "{heard}");
    step(&mut planner, Change::RemoveRemotePort(guest(3).id));
    let nobody = asked(&planner, "224.0.0.18", None, advert);
    assert_eq!(nobody.verdict, Outcome::Dropped(Reason::NotAdmitted));
}
