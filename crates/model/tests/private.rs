//! Private networks: each is planned into a namespace of its own, as if it were alone on its host.

#![allow(clippy::unwrap_used, reason = "a test")]

mod world;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv6Addr},
};

use hextet_model::{
    explain::{Endpoint, Explanation, Outcome, Payload, Query, Reason, Step, explain},
    intent::{Change, Joined, RoutingDomain, TunnelEndpoint},
    neutron::{Direction, Network, NetworkType, Port, SecurityGroupRule, Subnet},
    plan::{Planner, REMOTE_METRIC, plan},
    state::{
        Audience, CtState, HostState, Key, Listener, Netns, Object, Speaker, Value, table_text,
    },
};
use hextet_types::{Family, HostId, PortId, SubnetId};
use uuid::Uuid;
use world::{config, fixed, group, group_id, ip, mac, network, network_id, port, port_id, subnet};

fn private(n: u8) -> Network {
    Network {
        network_type: NetworkType::Vxlan,
        ..network(n)
    }
}

/// A network with a subnet of each family and a port; all that differs from another's is who it is.
fn tenant(n: u8) -> [Change; 4] {
    let subnets = [0, 1].map(|kind| Subnet {
        id: SubnetId(Uuid::from_u128(0x2100 + u128::from(2 * n + kind))),
        network_id: network_id(n),
        ..subnet(kind)
    });
    let addresses = ["2001:db8:1::a", "10.1.0.10"];
    let mut fixed_ips = addresses.map(|addr| fixed(0, addr));
    for (fixed, subnet) in fixed_ips.iter_mut().zip(&subnets) {
        fixed.subnet_id = subnet.id;
    }
    let port = Port {
        network_id: network_id(n),
        id: PortId(Uuid::from_u128((u128::from(n) + 9) << 96)),
        ..port(9, fixed_ips.into(), &[0])
    };
    let [first, second] = subnets.map(|s| Change::PutSubnet(Box::new(s)));
    [
        Change::PutNetwork(Box::new(private(n))),
        first,
        second,
        Change::PutPort(Box::new(port)),
    ]
}

fn state(changes: impl IntoIterator<Item = Change>) -> HostState {
    let mut planner = Planner::new(config());
    planner.apply_all(changes);
    assert_eq!(planner.state(), &plan(planner.intent(), &config()));
    planner.state().clone()
}

fn kinds(state: &HostState, netns: &Netns) -> BTreeSet<&'static str> {
    let here = state.objects.values().filter(|o| o.key().netns() == netns);
    here.map(|object| match object {
        Object::Namespace(_) => "namespace",
        Object::Veth(_) => "veth",
        Object::Patch(_) => "patch",
        Object::Link(_) => "link",
        Object::EdgeProgram(_) => "program",
        Object::Source(_) => "source",
        Object::Neighbour(_) => "neighbour",
        Object::Route(_) => "route",
        Object::Chain(..) => "chain",
        _ => "other",
    })
    .collect()
}

#[test]
fn the_same_addresses_in_two_networks_stay_apart() {
    let all = group(0, []);
    let changes = [Change::PutGroup(Box::new(all))];
    let state = state(changes.into_iter().chain(tenant(0)).chain(tenant(1)));
    let places: BTreeSet<Netns> = state
        .objects
        .keys()
        .map(|key| key.netns().clone())
        .collect();
    assert_eq!(places.len(), 3, "{places:?}");
    for netns in places.iter().filter(|netns| **netns != Netns::Main) {
        let expected = ["chain", "neighbour", "other", "program", "route", "source"];
        assert!(
            kinds(&state, netns).is_superset(&expected.into()),
            "{netns}"
        );
        let route = state.objects.keys().filter(|key| {
            matches!(key, Key::Route(route) if route.netns == *netns
                && route.prefix.addr() == ip("10.1.0.10"))
        });
        assert_eq!(route.count(), 1, "{netns}");
    }
    assert!(
        state.announce.is_empty(),
        "private addresses are told to nobody"
    );
}

#[test]
fn connections_are_asked_for_where_ports_are_and_nowhere_else() {
    let routed = [
        Change::PutNetwork(Box::new(network(2))),
        Change::PutPort(Box::new(Port {
            network_id: network_id(2),
            ..port(3, Vec::new(), &[])
        })),
    ];
    let asks = |state: &HostState, netns: &Netns| {
        let text = table_text(state.objects.values(), netns);
        text.contains("ct state") || text.contains("ct status") || text.contains("ct count")
    };
    let inside = |state: &HostState| {
        let all = state.objects.keys().map(|key| key.netns().clone());
        all.max().unwrap()
    };
    let mut planner = Planner::new(config());
    planner.apply(Change::PutHost(config().host, endpoint(1)));
    assert!(!asks(planner.state(), &Netns::Main), "an empty host");
    planner.apply_all(tenant(0));
    assert!(!asks(planner.state(), &Netns::Main), "private ports alone");
    assert!(asks(planner.state(), &inside(planner.state())));
    planner.apply_all(routed);
    assert!(asks(planner.state(), &Netns::Main), "a routed port");
    planner.apply(Change::RemovePort(port_id(3)));
    assert!(!asks(planner.state(), &Netns::Main), "none any more");
}

#[test]
fn of_a_private_port_only_the_link_is_in_the_main_namespace() {
    let empty = state([]);
    let state = state(tenant(0));
    let new = |key: &&Key| !empty.objects.contains_key(key);
    let main = state
        .objects
        .keys()
        .filter(new)
        .filter(|key| *key.netns() == Netns::Main);
    for key in main {
        let joint = matches!(
            key,
            Key::Namespace(_) | Key::Link(..) | Key::Veth(..) | Key::Patch(_)
        );
        assert!(joint, "{key:?}");
    }
    let patches = state.objects.keys().filter(|k| matches!(k, Key::Patch(_)));
    assert_eq!(patches.count(), 1);
    assert_eq!(state.responders.len(), 1);
}

#[test]
fn what_nobody_uses_any_more_is_gone_without_a_trace() {
    let mut planner = Planner::new(config());
    let before = planner.state().clone();
    planner.apply_all(tenant(0));
    let port = *planner.intent().ports.keys().next().unwrap();
    planner.apply_all([
        Change::RemovePort(port),
        Change::RemoveSubnet(SubnetId(Uuid::from_u128(0x2100))),
        Change::RemoveSubnet(SubnetId(Uuid::from_u128(0x2101))),
        Change::RemoveNetwork(network_id(0)),
    ]);
    assert_eq!(planner.state(), &before);
}

#[test]
fn a_group_has_chains_where_its_ports_are_and_nowhere_else() {
    let routed = port(1, vec![fixed(1, "10.1.0.11")], &[1]);
    let changes = [
        Change::PutGroup(Box::new(group(0, []))),
        Change::PutGroup(Box::new(group(1, []))),
        Change::PutNetwork(Box::new(network(1))),
        Change::PutSubnet(Box::new(Subnet {
            network_id: network_id(1),
            ..subnet(1)
        })),
        Change::PutPort(Box::new(Port {
            network_id: network_id(1),
            ..routed
        })),
    ];
    let state = state(changes.into_iter().chain(tenant(0)));
    let chains = |netns: &dyn Fn(&Netns) -> bool, n: u8| {
        let suffix = group_id(n).0.simple().to_string();
        let here = state.objects.keys().filter(
            |key| matches!(key, Key::Chain(ns, name) if netns(ns) && name.0.ends_with(&suffix)),
        );
        here.count()
    };
    let main = |netns: &Netns| *netns == Netns::Main;
    let private = |netns: &Netns| *netns != Netns::Main;
    assert_eq!((chains(&main, 0), chains(&private, 0)), (0, 2));
    assert_eq!((chains(&main, 1), chains(&private, 1)), (2, 0));
}

/// Who is a member in one network is nobody in another, whatever its address.
#[test]
fn members_of_one_network_are_none_of_another() {
    let rule = SecurityGroupRule {
        remote_group_id: Some(group_id(1)),
        ..world::rule(0, Direction::Ingress, Family::V4)
    };
    let member = ip("10.1.0.77");
    let here = RoutingDomain::Network(network_id(0));
    let changes = || {
        let members = Change::AddMembers(group_id(1), here, [member].into());
        [
            Change::PutGroup(Box::new(group(0, [rule.clone()]))),
            members,
        ]
    };
    let state = state(tenant(0).into_iter().chain(tenant(1)).chain(changes()));
    let with_member = state.objects.values().filter(|object| match object {
        Object::Element(_, element) => element.key.contains(&Value::Addr(member)),
        _ => false,
    });
    let places: Vec<_> = with_member.map(|o| o.key().netns().clone()).collect();
    let named = Netns::Named(hextet_model::plan::namespace(network_id(0)));
    assert_eq!(places, [named]);
}

/// The network's number on the wire.
const SEGMENT: u32 = 77;

fn endpoint(number: u16) -> TunnelEndpoint {
    TunnelEndpoint {
        number: number.into(),
        address: IpAddr::from(Ipv6Addr::new(0x2001, 0xdb8, 0xf, 0, 0, 0, 0, number)),
    }
}

/// A network with a port here, and addresses on another host.
fn with_remotes(there: &HostId, remotes: &[&str]) -> Vec<Change> {
    let mut changes = tenant(0).to_vec();
    changes[0] = Change::PutNetwork(Box::new(Network {
        segmentation_id: Some(SEGMENT),
        ..private(0)
    }));
    let remotes = remotes.iter().map(|addr| (ip(addr), there.clone()));
    changes.extend([
        Change::PutHost(config().host, endpoint(1)),
        Change::PutHost(there.clone(), endpoint(9)),
        Change::PutRemotes(network_id(0), remotes.collect()),
    ]);
    changes
}

#[test]
fn ports_on_other_hosts_are_reached_by_a_route_for_each_and_a_neighbour_for_each_host() {
    let there: HostId = "compute-9".parse().unwrap();
    let state = state(with_remotes(
        &there,
        &["2001:db8:1::b", "10.1.0.11", "10.1.0.12"],
    ));
    let objects = || state.objects.values();
    let routes =
        objects().filter(|o| matches!(o, Object::Route(r) if r.key.metric == REMOTE_METRIC));
    assert_eq!(routes.count(), 3);
    let via = ip("fe80::468:78ff:fe00:9");
    let neighbours = objects().filter(|o| matches!(o, Object::Neighbour(n) if n.addr == via));
    assert_eq!(neighbours.count(), 1);
    let entries = objects().filter(|o| matches!(o, Object::Fdb(f) if f.dst == endpoint(9).address));
    assert_eq!(entries.count(), 1);
    let device = objects().find_map(|o| match o {
        Object::Vxlan(vxlan) => Some(vxlan),
        _ => None,
    });
    let device = device.unwrap();
    assert_eq!((device.vni, device.local), (SEGMENT, endpoint(1).address));
    assert_eq!(
        device.mac.link_local(),
        "fe80::468:78ff:fe00:1".parse::<Ipv6Addr>().unwrap()
    );
}

/// What becomes of a TCP connection from the one port that is here.
fn explained(planner: &Planner, to: &str) -> Explanation {
    let query = Query {
        from: Endpoint::Port(*planner.intent().ports.keys().next().unwrap()),
        source: None,
        mac: None,
        to: ip(to),
        via: None,
        payload: Payload::Ports {
            protocol: 6,
            source: 49_152,
            destination: 22,
        },
        connection: CtState::New,
    };
    explain(planner, &query).unwrap()
}

#[test]
fn explanations_stay_within_the_network_and_name_the_other_host() {
    let there: HostId = "compute-9".parse().unwrap();
    let mut planner = Planner::new(config());
    planner.apply_all(with_remotes(&there, &["2001:db8:1::b", "10.1.0.11"]));
    planner.apply(Change::PutGroup(Box::new(group(0, []))));
    let refused = explained(&planner, "10.1.0.11");
    let no_rule = Outcome::Dropped(Reason::EgressNotAllowed);
    assert_eq!(refused.verdict, no_rule, "{refused}");

    let port = planner.intent().ports.values().next().unwrap().clone();
    let open = Port {
        port_security_enabled: false,
        security_groups: Vec::new(),
        ..port
    };
    planner.apply(Change::PutPort(Box::new(open)));
    let tunnels = Step::Tunnels {
        vni: SEGMENT,
        to: endpoint(9).address,
        host: Some(there),
    };
    for addr in ["2001:db8:1::b", "10.1.0.11"] {
        let sent = explained(&planner, addr);
        assert!(sent.steps.contains(&tunnels), "{sent}");
        let leaves = matches!(
            sent.verdict,
            Outcome::Leaves {
                translated: None,
                ..
            }
        );
        assert!(leaves, "{sent}");
        assert!(
            matches!(&sent.steps[1], Step::Enters(name) if name.starts_with("hx-")),
            "{sent}"
        );
    }
    // Another network's port has that address; this one's way there is none.
    let mut elsewhere = tenant(1);
    if let Change::PutPort(port) = &mut elsewhere[3] {
        port.fixed_ips[1].ip_address = ip("10.1.0.99");
    }
    planner.apply_all(elsewhere);
    for addr in ["10.1.0.99", "192.0.2.1", "2001:db8::7"] {
        let lost = explained(&planner, addr);
        assert_eq!(lost.verdict, Outcome::Dropped(Reason::NoRoute), "{lost}");
    }
}

#[test]
fn tunnel_packets_are_taken_from_known_hosts_and_for_ports_elsewhere() {
    let there: HostId = "compute-9".parse().unwrap();
    let mut planner = Planner::new(config());
    let main = Netns::Main;
    let before = table_text(planner.state().objects.values(), &main);
    assert!(!before.contains("4789"), "{before}");
    planner.apply_all(with_remotes(&there, &["10.1.0.11"]));
    let text = table_text(planner.state().objects.values(), &main);
    assert!(
        text.contains("th dport == 4789 goto plain-tunnels"),
        "{text}"
    );
    assert!(text.contains("th dport == 4789 goto tunnels"), "{text}");
    let own = endpoint(1).address;
    let plain = format!("ip6 daddr == {own} ip6 saddr @endpoints6 ip6 nexthdr == 17 notrack");
    assert!(text.contains(&plain), "{text}");
    assert!(
        text.contains(&format!(
            "ip6 daddr == {own} ip6 saddr @endpoints6 meta mark set"
        )),
        "{text}"
    );
    let elements = |state: &HostState, set: &str| -> Vec<String> {
        let all = state.objects.values().filter_map(|object| match object {
            Object::Element(_, element) if element.set.0 == set => Some(&element.key),
            _ => None,
        });
        all.map(|key| key[0].to_string()).collect()
    };
    let known = [endpoint(9).address.to_string()];
    assert_eq!(elements(planner.state(), "endpoints6"), known);
    assert_eq!(elements(planner.state(), "locals4"), ["10.1.0.10"]);
    assert_eq!(elements(planner.state(), "locals6"), ["2001:db8:1::a"]);
    // Two hosts that claim one endpoint do not make it twice.
    let twin: HostId = "compute-8".parse().unwrap();
    planner.apply(Change::PutHost(twin, endpoint(9)));
    assert_eq!(elements(planner.state(), "endpoints6"), known);
    assert_eq!(planner.state(), &plan(planner.intent(), &config()));
    planner.apply(Change::RemoveHost(config().host));
    let after = table_text(planner.state().objects.values(), &main);
    assert!(!after.contains("4789"), "{after}");
}

/// What differs between two states: what the first lacks, and what the second does.
fn difference(first: &HostState, second: &HostState) -> [Vec<Key>; 2] {
    let lacks = |a: &HostState, b: &HostState| {
        let objects = b.objects.iter();
        let other = objects.filter(|(key, object)| a.objects.get(key) != Some(*object));
        other.map(|(key, _)| key.clone()).collect()
    };
    [lacks(first, second), lacks(second, first)]
}

/// Everything of it stands, so that it is a matter of routes alone when its addresses come to this host.
#[test]
fn a_standby_has_all_but_the_ways_to_its_addresses() {
    for network_type in [NetworkType::Vxlan, NetworkType::Routed] {
        let mut planner = Planner::new(config());
        let mut changes = tenant(0);
        if let Change::PutNetwork(network) = &mut changes[0] {
            network.network_type = network_type;
        }
        let Change::PutPort(port) = &changes[3] else {
            unreachable!()
        };
        let id = port.id;
        let addresses: BTreeSet<IpAddr> = port.fixed_ips.iter().map(|f| f.ip_address).collect();
        planner.apply_all(changes.clone());
        let active = planner.state().clone();
        let changed = planner.apply(Change::PutStandby(id));
        let standby = planner.state().clone();
        assert_eq!(standby, plan(planner.intent(), &config()));
        let [gained, lost] = difference(&active, &standby);
        assert_eq!(gained, [], "{network_type:?}");
        let routes = lost.iter().filter_map(|key| match key {
            Key::Route(route) => Some(route.prefix.addr()),
            // What comes by a tunnel from an address that lives here is dropped.
            Key::Element(_, set, _) if format!("{set:?}").contains("locals") => None,
            other => panic!("{other:?}"),
        });
        assert_eq!(routes.collect::<BTreeSet<_>>(), addresses);
        assert!(
            changed.recheck.is_empty() && changed.cut.is_empty(),
            "no flow is cut"
        );
        assert_eq!(
            active.announce.len(),
            if network_type == NetworkType::Routed {
                2
            } else {
                0
            }
        );
        assert!(standby.announce.is_empty());
        assert_eq!(active.responders, standby.responders);
        planner.apply(Change::RemoveStandby(id));
        assert_eq!(planner.state(), &active);
        // Told in the server's order: first that it is a standby.
        let mut other = Planner::new(config());
        other.apply(Change::PutStandby(id));
        other.apply_all(changes);
        assert_eq!(other.state(), &standby);
    }
}

/// A network's ports know what is to be known of groups as long as somebody has joined one there.
#[test]
fn who_has_joined_a_group_hears_it_wherever_it_is() {
    let mut planner = Planner::new(config());
    let there: HostId = "compute-9".parse().unwrap();
    let changes = with_remotes(&there, &["2001:db8:1::7"]);
    let Change::PutPort(own) = &changes[3] else {
        unreachable!()
    };
    let own = own.clone();
    planner.apply_all(changes.into_iter().chain(tenant(1)));
    let without = planner.state().clone();
    let of = |planner: &Planner| {
        let objects = planner.state().objects.values().cloned();
        let is = |o: &Object| matches!(o, Object::Speaker(_) | Object::Audience(_));
        objects.filter(is).collect::<Vec<_>>()
    };
    assert_eq!(of(&planner), []);
    let netns = Netns::Named(format!("hx-{:010x}", 0x1000));
    let number = netns.number().unwrap();
    assert_eq!(number, 0x1000);
    let joined = |addr: &str, n| Joined {
        mac: mac(n),
        addr: ip(addr),
    };
    let group = ip("ff02::fb");
    let all = BTreeMap::from([
        (own.id, joined("2001:db8:1::a", 9)),
        (port_id(7), joined("2001:db8:1::7", 7)),
        (port_id(8), joined("10.1.0.8", 8)),
    ]);
    planner.apply(Change::PutAudience(network_id(0), group, all.clone()));
    let listener = |addr, n, here| Listener {
        addr: ip(addr),
        mac: mac(n),
        here,
    };
    let mut listeners = vec![
        listener("2001:db8:1::7", 7, false),
        listener("2001:db8:1::a", 9, true),
    ];
    listeners.sort_by_key(|l| all.iter().find(|(_, j)| j.mac == l.mac).map(|(id, _)| *id));
    let audience = Object::Audience(Audience {
        netns: netns.clone(),
        group,
        listeners,
    });
    let address = "2001:db8:1::a".parse().unwrap();
    let mut expected = Speaker::all(&own.if_name(), number, Some(address));
    let device = "vxlan".parse().unwrap();
    expected.extend(Speaker::all(&device, number, None));
    for speaker in &mut expected {
        speaker.put_into(&netns);
    }
    expected.push(audience);
    assert_eq!(of(&planner), expected);
    assert_eq!(planner.state(), &plan(planner.intent(), &config()));
    // To whom there is no way, nothing is sent.
    let addr = ip("2001:db8:1::7");
    let heard = |planner: &Planner| {
        let objects = of(planner);
        let Some(Object::Audience(audience)) = objects.last() else {
            panic!("{objects:?}")
        };
        audience.listeners.len()
    };
    planner.apply(Change::RemoveRemotes(network_id(0), [addr].into()));
    assert_eq!(heard(&planner), 1);
    planner.apply(Change::PutRemotes(network_id(0), [(addr, there)].into()));
    assert_eq!(heard(&planner), 2);
    planner.apply(Change::RemoveAudience(network_id(0), group));
    assert_eq!(planner.state(), &without);
}

#[test]
fn a_group_has_so_many_listeners_and_no_more() {
    let mut planner = Planner::new(config());
    let there: HostId = "compute-9".parse().unwrap();
    let addresses: Vec<String> = (0..100).map(|n| format!("10.1.0.{n}")).collect();
    let addresses: Vec<&str> = addresses.iter().map(String::as_str).collect();
    planner.apply_all(with_remotes(&there, &addresses));
    let one = |n: u8| {
        let addr = IpAddr::from([10, 1, 0, n]);
        (port_id(n), Joined { mac: mac(n), addr })
    };
    let all = (0..100).map(one).collect();
    planner.apply(Change::PutAudience(network_id(0), ip("224.0.0.251"), all));
    let listeners = planner.state().objects.values().find_map(|o| match o {
        Object::Audience(audience) => Some(audience.listeners.len()),
        _ => None,
    });
    assert_eq!(listeners, Some(Audience::MOST));
}

#[test]
fn an_explanation_of_a_group_says_who_hears_it_and_who_does_not() {
    let mut planner = Planner::new(config());
    let changes = tenant(0);
    let Change::PutPort(own) = &changes[3] else {
        unreachable!()
    };
    let own = own.clone();
    let mut rules = group(0, []);
    let rule = |direction, n| {
        let rule = world::rule(n, direction, Family::V4);
        (rule.id, rule)
    };
    rules.rules = [rule(Direction::Egress, 1)].into();
    let other = Port {
        id: PortId(Uuid::from_u128(77 << 96)),
        mac_address: mac(7),
        fixed_ips: vec![fixed(1, "10.1.0.7")],
        ..own.as_ref().clone()
    };
    planner.apply_all(changes.into_iter().chain([
        Change::PutGroup(Box::new(rules.clone())),
        Change::PutPort(Box::new(other.clone())),
    ]));
    let to = ip("239.1.2.3");
    let joined = |port: &Port, addr: &str| {
        let (mac, addr) = (port.mac_address, ip(addr));
        (port.id, Joined { mac, addr })
    };
    let all = [joined(&own, "10.1.0.10"), joined(&other, "10.1.0.7")];
    planner.apply(Change::PutAudience(network_id(0), to, all.into()));
    let asked = |planner: &Planner| {
        let query = Query {
            from: Endpoint::Port(own.id),
            source: None,
            mac: None,
            to,
            via: None,
            payload: Payload::Ports {
                protocol: 17,
                source: 5000,
                destination: 5000,
            },
            connection: CtState::New,
        };
        explain(planner, &query).unwrap()
    };
    let copies = |explanation: &Explanation| {
        let steps = explanation.steps.iter();
        let cast = steps.filter_map(|step| match step {
            Step::Cast { listener } => Some(*listener),
            _ => None,
        });
        cast.collect::<Vec<_>>()
    };
    let refused = asked(&planner);
    assert_eq!(copies(&refused), [ip("10.1.0.7")], "not to itself");
    assert!(
        matches!(refused.verdict, Outcome::Dropped(_)),
        "{refused:?}"
    );
    let ingress = rule(Direction::Ingress, 2);
    rules.rules.insert(ingress.0, ingress.1);
    planner.apply(Change::PutGroup(Box::new(rules)));
    let link = other.if_name();
    assert_eq!(asked(&planner).verdict, Outcome::Delivered { link });
    planner.apply(Change::RemoveAudience(network_id(0), to));
    assert!(copies(&asked(&planner)).is_empty());
}
