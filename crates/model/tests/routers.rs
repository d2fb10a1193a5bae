//! Routers between private networks: each is planned into a namespace of its own, and packets go where the cloud
//! says they go.

#![allow(clippy::unwrap_used, reason = "a test")]

mod world;

use std::{collections::BTreeSet, net::IpAddr};

use hextet_model::{
    intent::{Change, Intent, Router, TunnelEndpoint},
    neutron::{FixedIp, HostRoute, Network, NetworkType, Port, Subnet},
    plan::{Planner, plan},
    state::{HostState, Key, Netns, Object},
};
use hextet_types::{HostId, NetworkId, PortId, SubnetId};
use proptest::{collection::vec, option, prelude::*, sample::select};
use uuid::Uuid;
use world::{
    config, ip, mac, network, network_id, prefix,
    routers::{End, Judge, Walk, add_interface, beyond, router, router_id},
    subnet,
};

/// Subnet 0 of a network is of IPv6, 1 of IPv4.
fn subnet_id(network: u8, kind: u8) -> SubnetId {
    SubnetId(Uuid::from_u128(0x2200 + u128::from(2 * network + kind)))
}

fn addr(network: u8, kind: u8, station: u8) -> IpAddr {
    ip(&match kind {
        0 => format!("fd00:{network}::{station:x}"),
        _ => format!("10.{network}.0.{station}"),
    })
}

fn fixed(network: u8, kind: u8, station: u8) -> FixedIp {
    FixedIp {
        subnet_id: subnet_id(network, kind),
        ip_address: addr(network, kind, station),
    }
}

fn both(network: u8, station: u8) -> Vec<FixedIp> {
    [0, 1].map(|kind| fixed(network, kind, station)).into()
}

fn private(n: u8) -> Network {
    Network {
        network_type: NetworkType::Vxlan,
        segmentation_id: Some(700 + u32::from(n)),
        ..network(n)
    }
}

fn private_subnet(n: u8, kind: u8) -> Subnet {
    let cidr = match kind {
        0 => format!("fd00:{n}::/64"),
        _ => format!("10.{n}.0.0/24"),
    };
    Subnet {
        id: subnet_id(n, kind),
        network_id: network_id(n),
        cidr: prefix(&cidr),
        gateway_ip: Some(addr(n, kind, 1)),
        ..subnet(kind)
    }
}

fn port_id(network: u8, station: u8) -> PortId {
    PortId(Uuid::from_u128(
        u128::from(network) << 104 | u128::from(station) << 96,
    ))
}

fn port(network: u8, station: u8) -> Port {
    Port {
        id: port_id(network, station),
        network_id: network_id(network),
        mac_address: mac(station.wrapping_add(16 * network)),
        fixed_ips: both(network, station),
        ..world::port(9, Vec::new(), &[])
    }
}

/// Networks 1 to 3, each with a port 10 here and 20 on another host.
fn networks() -> Vec<Change> {
    let there: HostId = "compute-9".parse().unwrap();
    let at = |number| TunnelEndpoint {
        number,
        address: ip(&format!("2001:db8:f::{number}")),
    };
    let mut changes = vec![
        Change::PutHost(config().host, at(1)),
        Change::PutHost(there.clone(), at(9)),
    ];
    for n in 1..4 {
        changes.push(Change::PutNetwork(Box::new(private(n))));
        let subnets = [0, 1].map(|kind| Change::PutSubnet(Box::new(private_subnet(n, kind))));
        changes.extend(subnets);
        changes.push(Change::PutPort(Box::new(port(n, 10))));
        let remotes = [0, 1].map(|kind| (addr(n, kind, 20), there.clone()));
        changes.push(Change::PutRemotes(network_id(n), remotes.into()));
    }
    changes
}

/// A router with the gateway addresses of these networks.
fn between(n: u8, networks: &[u8]) -> Router {
    let mut router = router(n);
    for (i, network) in (0..).zip(networks) {
        add_interface(&mut router, i, network_id(*network), both(*network, 1));
    }
    router
}

fn put(router: &Router) -> Change {
    Change::PutRouter(Box::new(router.clone()))
}

fn via(to: &str, nexthop: IpAddr) -> HostRoute {
    HostRoute {
        destination: prefix(to),
        nexthop,
    }
}

fn planner(changes: impl IntoIterator<Item = Change>) -> Planner {
    let mut planner = Planner::new(config());
    planner.apply_all(networks());
    planner.apply_all(changes);
    assert_eq!(planner.state(), &plan(planner.intent(), &config()));
    planner
}

/// Where what the port 10 of a network sends may end up, by the plan; the judge has to agree.
fn ends(planner: &Planner, network: u8, to: IpAddr) -> BTreeSet<End> {
    let walk = Walk {
        state: planner.state(),
        intent: planner.intent(),
    };
    let sender = &planner.intent().ports[&port_id(network, 10)];
    let netns = netns_of(planner.state(), sender);
    let ends = walk.ends(&netns, &sender.if_name(), to);
    let judged = Judge(planner.intent()).ends(sender.network_id, to);
    assert_eq!(ends, judged, "from network {network} to {to}");
    ends
}

fn netns_of(state: &HostState, port: &Port) -> Netns {
    let mut patches = state.objects.values();
    let found = patches.find_map(|o| match o {
        Object::Patch(patch) if patch.tap == port.if_name() => Some(patch.netns.clone()),
        _ => None,
    });
    found.unwrap()
}

fn there() -> End {
    End::Host("compute-9".parse().unwrap())
}

fn rules(planner: &Planner) -> usize {
    let keys = planner.state().objects.keys();
    keys.filter(|key| matches!(key, Key::Rule(..))).count()
}

#[test]
fn a_router_joins_its_networks_and_no_others() {
    let planner = planner([put(&between(2, &[1, 2]))]);
    for kind in [0, 1] {
        let to = |network, station| ends(&planner, 1, addr(network, kind, station));
        assert_eq!(to(1, 10), [End::Port(port_id(1, 10))].into());
        assert_eq!(to(2, 10), [End::Port(port_id(2, 10))].into());
        assert_eq!(to(2, 20), [there()].into());
        assert_eq!(to(1, 1), [End::Router(router_id(2))].into());
        assert_eq!(to(2, 1), [End::Router(router_id(2))].into());
        assert_eq!(to(3, 10), [End::Lost].into());
        assert_eq!(to(2, 99), [End::Lost].into(), "an address of nobody");
    }
    assert_eq!(rules(&planner), 0, "rules cost all packets");
}

#[test]
fn attaching_and_detaching_touches_no_port() {
    let mut planner = planner([put(&between(2, &[1]))]);
    let before = planner.state().clone();
    for change in [put(&between(2, &[1, 2])), put(&between(2, &[1]))] {
        let changed = planner.apply(change);
        assert!(!changed.objects.is_empty());
        assert!(changed.recheck.is_empty() && changed.responders.is_empty());
        for key in &changed.objects {
            let link = key.link().map_or("hr-", |(_, link)| link.as_str());
            assert!(
                link.starts_with("hr-") || link.starts_with("hx-"),
                "{key:?}"
            );
            let made = matches!(
                key,
                Key::Veth(..)
                    | Key::EdgeProgram(..)
                    | Key::Neighbour(..)
                    | Key::Route(_)
                    | Key::Address(..)
            );
            assert!(made, "{key:?}");
        }
    }
    assert_eq!(planner.state(), &before);
}

#[test]
fn a_router_that_is_gone_leaves_no_trace() {
    let mut planner = planner([]);
    let before = planner.state().clone();
    planner.apply(put(&between(2, &[1, 2, 3])));
    assert_ne!(planner.state(), &before);
    planner.apply(Change::RemoveRouter(router_id(2)));
    assert_eq!(planner.state(), &before);
}

#[test]
fn a_router_that_is_down_keeps_its_links_and_answers_nothing() {
    let mut down = between(2, &[1, 2]);
    down.router.admin_state_up = false;
    let down = planner([put(&down)]);
    let up = planner([put(&between(2, &[1, 2]))]);
    for kind in [0, 1] {
        for (network, station) in [(2, 10), (1, 1), (2, 1)] {
            let to = addr(network, kind, station);
            assert_eq!(ends(&down, 1, to), [End::Lost].into(), "{to}");
        }
    }
    let links = |planner: &Planner| -> BTreeSet<Key> {
        let keys = planner.state().objects.keys().cloned();
        keys.filter(|key| matches!(key, Key::Veth(..) | Key::Namespace(_)))
            .collect()
    };
    assert_eq!(links(&up), links(&down));
}

#[test]
fn what_comes_from_the_router_takes_its_extra_routes() {
    let mut router = between(2, &[1, 2]);
    // By way of a port here, one on another host, both of them, and nobody.
    let hops = [addr(2, 1, 10), addr(2, 1, 20)];
    router.router.routes = vec![
        via("192.0.2.0/28", hops[0]),
        via("192.0.2.16/28", hops[1]),
        via("192.0.2.32/28", hops[0]),
        via("192.0.2.32/28", hops[1]),
        via("192.0.2.48/28", addr(2, 1, 99)),
        via("0.0.0.0/0", hops[0]),
        via("2001:db8:9::/48", addr(2, 0, 10)),
    ];
    let planner = planner([put(&router)]);
    let port = End::Port(port_id(2, 10));
    for from in [1, 2] {
        let to = |text| ends(&planner, from, ip(text));
        assert_eq!(to("192.0.2.1"), [port.clone()].into());
        assert_eq!(to("192.0.2.17"), [there()].into());
        assert_eq!(to("192.0.2.33"), [port.clone(), there()].into());
        assert_eq!(to("192.0.2.49"), [End::Lost].into());
        assert_eq!(to("203.0.113.1"), [port.clone()].into());
        assert_eq!(to("2001:db8:9::1"), [port.clone()].into());
        assert_eq!(
            to("10.2.0.20"),
            [there()].into(),
            "the default route is the last"
        );
        assert_eq!(to("10.2.0.99"), [End::Lost].into());
    }
    assert_eq!(
        rules(&planner),
        2,
        "one for each family, where they are needed"
    );
}

#[test]
fn routers_on_one_network_lead_to_each_other() {
    let mut first = between(2, &[1, 2]);
    let mut second = between(3, &[3]);
    add_interface(&mut second, 7, network_id(2), both(2, 2));
    first.router.routes = vec![via("10.3.0.0/24", addr(2, 1, 2))];
    second.router.routes = vec![via("10.1.0.0/24", addr(2, 1, 1))];
    let planner = planner([put(&first), put(&second)]);
    let to = |from, to| ends(&planner, from, addr(to, 1, 10));
    assert_eq!(to(1, 3), [End::Port(port_id(3, 10))].into());
    assert_eq!(to(3, 1), [End::Port(port_id(1, 10))].into());
    assert_eq!(to(2, 3), [End::Port(port_id(3, 10))].into());
    assert_eq!(ends(&planner, 1, addr(3, 0, 10)), [End::Lost].into());
}

#[test]
fn other_subnets_of_two_routers_of_a_network_may_overlap() {
    // Network 3 has the prefixes of network 2, and another router leads there.
    let second = between(3, &[]);
    let mut overlapping = Vec::new();
    for kind in [0, 1] {
        overlapping.push(Change::PutSubnet(Box::new(Subnet {
            cidr: private_subnet(2, kind).cidr,
            gateway_ip: Some(addr(2, kind, 1)),
            ..private_subnet(3, kind)
        })));
    }
    let of_three = |station| {
        let mut fixed_ips = both(2, station);
        for (kind, fixed) in (0..).zip(&mut fixed_ips) {
            fixed.subnet_id = subnet_id(3, kind);
        }
        fixed_ips
    };
    overlapping.push(Change::PutPort(Box::new(Port {
        fixed_ips: of_three(10),
        ..port(3, 10)
    })));
    let mut second = second;
    add_interface(&mut second, 0, network_id(3), of_three(1));
    add_interface(&mut second, 1, network_id(1), both(1, 2));
    overlapping.extend([put(&between(2, &[1, 2])), put(&second)]);
    let planner = planner(overlapping);
    for kind in [0, 1] {
        let to = |from, network| ends(&planner, from, addr(network, kind, 10));
        assert_eq!(to(1, 2), [End::Port(port_id(2, 10))].into());
        assert_eq!(to(3, 2), [End::Port(port_id(3, 10))].into());
        assert_eq!(to(3, 1), [End::Port(port_id(1, 10))].into());
        assert_eq!(to(2, 1), [End::Port(port_id(1, 10))].into());
    }
}

#[test]
fn what_a_subnet_tells_its_ports_goes_there() {
    let told = Subnet {
        host_routes: vec![
            via("192.0.2.0/24", addr(1, 1, 20)),
            via("0.0.0.0/0", addr(1, 1, 20)),
        ],
        ..private_subnet(1, 1)
    };
    let planner = planner([Change::PutSubnet(Box::new(told)), put(&between(2, &[1, 2]))]);
    assert_eq!(ends(&planner, 1, ip("192.0.2.7")), [there()].into());
    assert_eq!(ends(&planner, 2, ip("192.0.2.7")), [End::Lost].into());
    assert_eq!(ends(&planner, 1, ip("203.0.113.1")), [End::Lost].into());
}

#[test]
fn a_next_hop_is_followed_where_it_goes() {
    let mut router = between(2, &[1, 2]);
    let (to, somewhere) = beyond("192.0.2.0/24");
    router.router.routes = vec![via(&to.to_string(), addr(2, 1, 30))];
    let mut planner = planner([put(&router)]);
    assert_eq!(ends(&planner, 1, somewhere), [End::Lost].into());
    planner.apply(Change::PutPort(Box::new(port(2, 30))));
    assert_eq!(
        ends(&planner, 1, somewhere),
        [End::Port(port_id(2, 30))].into()
    );
    planner.apply(Change::RemovePort(port_id(2, 30)));
    let host: HostId = "compute-9".parse().unwrap();
    planner.apply(Change::PutRemotes(
        network_id(2),
        [(addr(2, 1, 30), host)].into(),
    ));
    assert_eq!(ends(&planner, 1, somewhere), [there()].into());
    assert_eq!(planner.state(), &plan(planner.intent(), &config()));
}

#[test]
fn of_two_routers_that_would_share_a_namespace_one_stands() {
    let mut planner = planner([put(&between(1, &[2, 3])), put(&between(0, &[1, 2]))]);
    let alone = self::planner([put(&between(0, &[1, 2]))]);
    assert_eq!(planner.state(), alone.state());
    planner.apply(Change::RemoveRouter(router_id(0)));
    assert_eq!(planner.state(), &plan(planner.intent(), &config()));
    assert_eq!(
        ends(&planner, 3, addr(2, 1, 10)),
        [End::Port(port_id(2, 10))].into()
    );
}

#[test]
fn what_makes_no_sense_leads_nowhere() {
    // On a network that nobody knows, on one that is no private one, and twice on one subnet.
    let mut router = between(2, &[1, 9]);
    add_interface(&mut router, 5, network_id(1), both(1, 2));
    add_interface(&mut router, 6, network_id(8), both(8, 1));
    router.router.routes = vec![
        via("192.0.2.0/24", addr(9, 1, 5)),
        via("192.0.2.0/24", addr(1, 1, 1)),
        via("2001:db8::/32", addr(1, 1, 10)),
        via("198.51.100.0/24", ip("169.254.0.1")),
    ];
    let planner = planner([Change::PutNetwork(Box::new(network(8))), put(&router)]);
    assert_eq!(rules(&planner), 0);
    let pairs = planner.state().objects.keys();
    let to_router =
        pairs.filter(|k| matches!(k, Key::Veth(_, name) if name.as_str().starts_with("hr-")));
    assert_eq!(to_router.count(), 1);
    for to in ["192.0.2.1", "2001:db8::1", "198.51.100.1"] {
        assert_eq!(ends(&planner, 1, ip(to)), [End::Lost].into(), "{to}");
    }
    for station in [1, 2] {
        let to = addr(1, 1, station);
        assert_eq!(ends(&planner, 1, to), [End::Router(router_id(2))].into());
    }
}

/// Units that a change computes, where so many ports are on a router's network.
fn cost(ports: u8, change: impl Fn(u8) -> Change) -> u64 {
    let mut router = between(2, &[1, 2]);
    router.router.routes = vec![via("192.0.2.0/24", addr(1, 1, 20))];
    let mut planner = planner([put(&router)]);
    planner.apply_all((100..100 + ports).map(|n| Change::PutPort(Box::new(port(1, n)))));
    let before = planner.units_computed();
    planner.apply(change(ports));
    planner.units_computed() - before
}

#[test]
fn what_a_change_costs_does_not_grow_with_the_ports() {
    let attached = |_| put(&between(2, &[1, 2, 3]));
    assert_eq!(cost(2, attached), cost(100, attached));
    let new_port = |ports| Change::PutPort(Box::new(port(1, 100 + ports)));
    assert_eq!(cost(2, new_port), cost(100, new_port));
}

#[test]
fn the_journal_holds_routers() {
    let changes = [
        put(&between(2, &[1, 2])),
        Change::RemoveRouter(router_id(2)),
    ];
    for change in changes {
        let text = serde_json::to_string(&change).unwrap();
        assert_eq!(serde_json::from_str::<Change>(&text).unwrap(), change);
    }
}

/// A router: its networks, its routes (a network, where to, a station), and whether it is up.
type Described = (Vec<u8>, Vec<(u8, &'static str, u8)>, bool);

/// Interfaces on networks, with the station number of their addresses; and routes by way of stations.
fn some_routers() -> impl Strategy<Value = Vec<Router>> {
    let station = select(vec![1u8, 2, 10, 20, 30]);
    let route = (
        1u8..4,
        select(vec![
            "192.0.2.0/24",
            "192.0.2.0/28",
            "0.0.0.0/0",
            "10.0.0.0/8",
        ]),
        station,
    );
    let on = prop::sample::subsequence(vec![1u8, 2, 3], 1..=3);
    let one = (on, vec(route, 0..4), prop::bool::weighted(0.9));
    vec(one, 1..4).prop_map(|all| {
        let mut taken = [0; 4];
        let build = |(n, (on, routes, up)): (u8, Described)| {
            let mut made = router(n);
            made.router.admin_state_up = up;
            for network in on {
                let station = &mut taken[usize::from(network)];
                *station += 1;
                add_interface(
                    &mut made,
                    network,
                    network_id(network),
                    both(network, *station),
                );
            }
            let routes = routes.into_iter();
            let routes = routes.map(|(network, to, station)| via(to, addr(network, 1, station)));
            made.router.routes = routes.collect();
            made
        };
        (2..).zip(all).map(build).collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn packets_go_where_the_cloud_says(
        routers in some_routers(),
        told in option::of((1u8..4, select(vec![1u8, 2, 10, 20, 30]))),
    ) {
        let mut planner = Planner::new(config());
        planner.apply_all(networks());
        planner.apply_all(routers.iter().map(put));
        if let Some((network, station)) = told {
            let told = Subnet {
                host_routes: vec![via("192.0.2.0/24", addr(network, 1, station))],
                ..private_subnet(network, 1)
            };
            planner.apply(Change::PutSubnet(Box::new(told)));
        }
        let mut destinations: Vec<IpAddr> = ["192.0.2.1", "192.0.2.129", "203.0.113.1"].map(ip).into();
        for network in 1..4 {
            for kind in [0, 1] {
                destinations.extend([1, 2, 10, 20, 99].map(|n| addr(network, kind, n)));
            }
        }
        for from in 1..4 {
            for to in &destinations {
                ends(&planner, from, *to);
            }
        }
    }
}

/// The intent is no other for what order its parts come in.
#[test]
fn the_order_of_changes_does_not_matter() {
    let mut router = between(2, &[1, 2]);
    router.router.routes = vec![via("192.0.2.0/24", addr(2, 1, 20))];
    let expected = planner([put(&router)]).state().clone();
    let mut backwards = networks();
    backwards.push(put(&router));
    backwards.reverse();
    let mut planner = Planner::new(config());
    for change in backwards {
        planner.apply(change);
    }
    assert_eq!(planner.state(), &expected);
    let ids: Vec<NetworkId> = planner.intent().networks.keys().copied().collect();
    for id in ids {
        planner.apply(Change::RemoveNetwork(id));
    }
    planner.replace(&Intent::default());
    assert_eq!(planner.state(), Planner::new(config()).state());
}
