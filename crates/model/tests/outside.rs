//! Routers' ways outside: what is reached, who announces it, and what may be sent from it.

#![allow(clippy::unwrap_used, reason = "a test")]

mod world;

use std::{collections::BTreeSet, net::IpAddr};

use hextet_model::{
    intent::{Change, FloatingIp, GatewayHost, Router, TunnelEndpoint},
    neutron::{FixedIp, Network, NetworkType, Port},
    plan::{OUTSIDE_METRIC, Planner, plan},
    state::{Key, Netns, Object, RouteKind, Value},
};
use hextet_types::{HostId, Prefix};
use world::{
    config, fixed, floating_id, ip, network, network_id, port, port_id, prefix,
    routers::{add_gateway, add_interface, router, router_id},
    subnet,
};

const GATEWAY: &str = "198.51.100.1";
const FLOATING: &str = "198.51.100.7";

fn both(station: u8) -> Vec<FixedIp> {
    vec![
        fixed(0, &format!("2001:db8:1::{station:x}")),
        fixed(1, &format!("10.1.0.{station}")),
    ]
}

fn station(n: u8) -> Port {
    port(n, both(n), &[])
}

fn put(router: &Router) -> Change {
    Change::PutRouter(Box::new(router.clone()))
}

/// On network 0, with a gateway on network 1; who translates is compute-1, which is this host, or another.
fn edge(n: u8, host: &str, published: &[&str]) -> Router {
    let mut router = router(n);
    add_interface(&mut router, 0, network_id(0), both(1));
    let outside = vec![fixed(2, GATEWAY), fixed(2, "2001:db8:e::1")];
    add_gateway(&mut router, 0, network_id(1), outside, true);
    router.published = published.iter().map(|text| prefix(text)).collect();
    router.gateway_host = Some(GatewayHost {
        host: host.parse().unwrap(),
        segment: 900,
        generation: 1,
    });
    router
}

fn floating(n: u8, outside: &str, inside: &str) -> Change {
    Change::PutFloatingIp(Box::new(FloatingIp {
        id: floating_id(n),
        router_id: router_id(2),
        floating_ip_address: outside.parse().unwrap(),
        network_id: network_id(0),
        fixed_ip_address: inside.parse().unwrap(),
        qos_policy_id: None,
    }))
}

/// A private network 0 with port 10, and network 1 outside; two hosts.
fn cloud() -> Vec<Change> {
    let private = Network {
        network_type: NetworkType::Vxlan,
        segmentation_id: Some(700),
        ..network(0)
    };
    let host = |number: u32| {
        let address = ip(&format!("2001:db8:f::{number}"));
        let host: HostId = format!("compute-{number}").parse().unwrap();
        Change::PutHost(host, TunnelEndpoint { number, address })
    };
    vec![
        host(1),
        host(2),
        Change::PutNetwork(Box::new(private)),
        Change::PutNetwork(Box::new(network(1))),
        Change::PutSubnet(Box::new(subnet(0))),
        Change::PutSubnet(Box::new(subnet(1))),
        Change::PutPort(Box::new(station(10))),
    ]
}

fn planner(changes: impl IntoIterator<Item = Change>) -> Planner {
    let mut planner = Planner::new(config());
    planner.apply_all(cloud());
    planner.apply_all(changes);
    assert_eq!(planner.state(), &plan(planner.intent(), &config()));
    planner
}

/// What the host announces, all of it by routes to routers.
fn announced(planner: &Planner) -> BTreeSet<IpAddr> {
    let state = planner.state();
    let routes = state.objects.values().filter_map(|object| match object {
        Object::Route(r) if r.key.netns == Netns::Main && r.key.metric == OUTSIDE_METRIC => Some(r),
        _ => None,
    });
    for route in routes {
        let RouteKind::Unicast(hops) = &route.kind else {
            panic!("{route:?}")
        };
        assert!(hops[0].link.as_str().starts_with("hr-"), "{route:?}");
        assert!(state.announce.contains_key(&route.key.prefix), "{route:?}");
    }
    let prefixes: Vec<Prefix> = state.announce.keys().copied().collect();
    prefixes.into_iter().map(|p| p.addr()).collect()
}

/// What routers may send from.
fn senders(planner: &Planner) -> BTreeSet<IpAddr> {
    let keys = planner.state().objects.keys();
    let elements = keys.filter_map(|key| match key {
        Key::Element(Netns::Main, set, key) if set.0.starts_with("outside") => Some(key),
        _ => None,
    });
    elements
        .filter_map(|key| match key.last() {
            Some(Value::Addr(addr)) => Some(*addr),
            _ => None,
        })
        .collect()
}

fn ips(texts: &[&str]) -> BTreeSet<IpAddr> {
    texts.iter().map(|text| ip(text)).collect()
}

#[test]
fn what_is_published_is_announced_where_its_port_is() {
    let published = ["2001:db8:1::/64", "10.1.0.10/32"];
    let mut planner = planner([put(&edge(2, "compute-2", &published))]);
    assert_eq!(announced(&planner), ips(&["2001:db8:1::a", "10.1.0.10"]));
    let own = ["2001:db8:1::1", GATEWAY, "2001:db8:e::1"];
    let local = ["2001:db8:1::a", "10.1.0.10"];
    assert_eq!(senders(&planner), ips(&[&own[..], &local].concat()));
    planner.apply(Change::PutPort(Box::new(station(11))));
    assert_eq!(
        announced(&planner),
        ips(&["2001:db8:1::a", "2001:db8:1::b", "10.1.0.10"])
    );
    let mut down = station(10);
    down.admin_state_up = false;
    planner.apply(Change::PutPort(Box::new(down)));
    planner.apply(Change::RemovePort(port_id(11)));
    assert_eq!(announced(&planner), ips(&[]));
    planner.apply(Change::PutPort(Box::new(station(10))));
    planner.apply(put(&edge(2, "compute-2", &["10.1.0.0/24"])));
    assert_eq!(announced(&planner), ips(&["10.1.0.10"]));
    assert_eq!(planner.state(), &plan(planner.intent(), &config()));
}

#[test]
fn the_gateway_host_announces_the_gateways() {
    let here = planner([put(&edge(2, "compute-1", &[]))]);
    assert_eq!(announced(&here), ips(&[GATEWAY, "2001:db8:e::1"]));
    let there = planner([put(&edge(2, "compute-2", &[]))]);
    assert_eq!(announced(&there), ips(&[]));
    let mut down = edge(2, "compute-1", &[]);
    down.router.admin_state_up = false;
    assert_eq!(announced(&planner([put(&down)])), ips(&[]));
    let mut closed = edge(2, "compute-1", &["10.1.0.0/24"]);
    closed
        .gateways
        .values_mut()
        .for_each(|g| g.admin_state_up = false);
    let closed = planner([put(&closed)]);
    assert_eq!(announced(&closed), ips(&[]));
    assert_eq!(senders(&closed), ips(&[]));
}

#[test]
fn a_floating_ip_is_announced_as_long_as_its_port_is_there() {
    let way = put(&edge(2, "compute-2", &[]));
    let mut planner = planner([floating(1, FLOATING, "10.1.0.10"), way.clone()]);
    assert_eq!(announced(&planner), ips(&[FLOATING]));
    planner.apply(Change::RemovePort(port_id(10)));
    assert_eq!(announced(&planner), ips(&[]));
    planner.apply(Change::PutPort(Box::new(station(10))));
    assert_eq!(announced(&planner), ips(&[FLOATING]));
    planner.apply(floating(1, FLOATING, "10.1.0.11"));
    assert_eq!(announced(&planner), ips(&[]), "for an address of nobody");
    planner.apply(Change::PutPort(Box::new(station(11))));
    assert_eq!(announced(&planner), ips(&[FLOATING]));
    planner.apply(Change::RemoveRouter(router_id(2)));
    assert_eq!(announced(&planner), ips(&[]));
    planner.apply(way);
    assert_eq!(announced(&planner), ips(&[FLOATING]));
    planner.apply(Change::RemoveFloatingIp(floating_id(1)));
    assert_eq!(announced(&planner), ips(&[]));
    assert_eq!(planner.state(), &plan(planner.intent(), &config()));
}

#[test]
fn an_address_of_a_routed_port_is_never_a_routers() {
    let mut routed = port(12, vec![fixed(2, FLOATING)], &[]);
    routed.network_id = network_id(1);
    let outside = hextet_model::neutron::Subnet {
        cidr: prefix("198.51.100.0/24"),
        ..subnet(2)
    };
    let mut planner = planner([
        Change::PutSubnet(Box::new(outside)),
        put(&edge(2, "compute-2", &[])),
        floating(1, FLOATING, "10.1.0.10"),
        Change::PutPort(Box::new(routed)),
    ]);
    assert!(!senders(&planner).contains(&ip(FLOATING)));
    planner.apply(Change::RemovePort(port_id(12)));
    assert_eq!(announced(&planner), ips(&[FLOATING]));
    assert_eq!(planner.state(), &plan(planner.intent(), &config()));
}

#[test]
fn a_way_that_is_gone_leaves_no_trace() {
    let mut planner = planner([]);
    let before = planner.state().clone();
    let published = ["2001:db8:1::/64", "10.1.0.0/24"];
    planner.apply(put(&edge(2, "compute-2", &published)));
    planner.apply(floating(1, FLOATING, "10.1.0.10"));
    assert_ne!(planner.state(), &before);
    planner.apply(Change::RemoveFloatingIp(floating_id(1)));
    planner.apply(Change::RemoveRouter(router_id(2)));
    assert_eq!(planner.state(), &before);
}

#[test]
fn a_router_without_a_gateway_has_no_rules_and_no_way() {
    let mut inner = edge(2, "compute-1", &["2001:db8:1::/64"]);
    inner.gateways.clear();
    let planner = planner([put(&inner)]);
    assert_eq!(announced(&planner), ips(&[]));
    let of_router =
        |key: &&Key| matches!(key.netns(), Netns::Named(name) if name.starts_with("hr-"));
    let mut keys = planner.state().objects.keys().filter(of_router);
    assert!(keys.all(|key| !matches!(key, Key::Chain(..) | Key::Veth(..) | Key::Vxlan(..))));
}

/// Units that a change computes, where so many ports are behind the router.
fn cost(ports: u8, change: &Change) -> u64 {
    let mut planner = planner([put(&edge(2, "compute-2", &["2001:db8:1::/64"]))]);
    planner.apply_all((100..100 + ports).map(|n| Change::PutPort(Box::new(station(n)))));
    let before = planner.units_computed();
    planner.apply(change.clone());
    planner.units_computed() - before
}

#[test]
fn what_a_floating_ip_or_a_port_costs_does_not_grow_with_the_ports() {
    let port = Change::PutPort(Box::new(station(90)));
    for change in [floating(1, FLOATING, "10.1.0.10"), port] {
        assert_eq!(cost(2, &change), cost(100, &change), "{change:?}");
    }
}
