//! What a plan makes reachable, where it is announced, and how private IPv4 leaves.

#![allow(clippy::unwrap_used, reason = "a test")]

mod world;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use hextet_model::{
    intent::Change,
    plan::{Aggregate, HostConfig, Planner},
    state::{Key, Netns, Object, RouteKind, Scope, Statement, Value, Verdict},
};
use hextet_types::Prefix;
use world::{config, fixed, ip, nat44, network, port, port_id, prefix, subnet, subnet_id};

fn planner(config: HostConfig, sources: &[&str]) -> Planner {
    let mut private = subnet(1);
    private.nat44 = Some(nat44(10));
    let mut planner = Planner::new(config);
    planner.apply_all([
        Change::PutNetwork(Box::new(network(0))),
        Change::PutSubnet(Box::new(subnet(0))),
        Change::PutSubnet(Box::new(private)),
        Change::PutSubnet(Box::new(subnet(2))),
        Change::SetNat44Sources(subnet_id(1), sources.iter().map(|a| ip(a)).collect()),
        Change::PutPort(Box::new(port(
            1,
            vec![fixed(0, "2001:db8:1::a"), fixed(1, "10.1.0.10")],
            &[],
        ))),
        Change::PutPort(Box::new(port(2, vec![fixed(2, "192.0.2.1")], &[]))),
    ]);
    planner
}

fn announced(planner: &Planner) -> BTreeMap<Prefix, Scope> {
    let announce = planner.state().announce.iter();
    announce.map(|(prefix, a)| (*prefix, a.scope)).collect()
}

fn scopes(expected: &[(&str, Scope)]) -> BTreeMap<Prefix, Scope> {
    expected
        .iter()
        .map(|(p, scope)| (prefix(p), *scope))
        .collect()
}

#[test]
fn private_addresses_stay_in_the_fabric() {
    let planner = planner(config(), &["192.0.2.8"]);
    let expected = scopes(&[
        ("2001:db8:1::a/128", Scope::Global),
        ("10.1.0.10/32", Scope::Fabric),
        ("192.0.2.1/32", Scope::Global),
        ("192.0.2.8/32", Scope::Global),
    ]);
    assert_eq!(announced(&planner), expected);
}

#[test]
fn an_aggregate_stands_for_what_lies_in_it() {
    let mut config = config();
    config.aggregates = vec![Aggregate {
        prefix: prefix("192.0.2.0/28"),
        scope: Scope::Global,
    }];
    config.blackhole_inside = true;
    let planner = planner(config, &["192.0.2.8"]);
    let expected = scopes(&[
        ("2001:db8:1::a/128", Scope::Global),
        ("10.1.0.10/32", Scope::Fabric),
        ("192.0.2.0/28", Scope::Global),
    ]);
    assert_eq!(announced(&planner), expected);
    let hole = planner.state().objects.values().any(|object| match object {
        Object::Route(r) => {
            r.key.prefix == prefix("192.0.2.0/28") && r.kind == RouteKind::Blackhole
        }
        _ => false,
    });
    assert!(hole, "what nobody has would loop");
}

/// The first port, or its network, administratively down.
fn downs(planner: &Planner) -> [Change; 2] {
    let mut port = planner.intent().ports[&port_id(1)].clone();
    port.admin_state_up = false;
    let mut network = network(0);
    network.admin_state_up = false;
    [
        Change::PutPort(Box::new(port)),
        Change::PutNetwork(Box::new(network)),
    ]
}

#[test]
fn a_port_that_is_down_is_not_announced_and_keeps_its_link() {
    for change in downs(&planner(config(), &[])) {
        let mut planner = planner(config(), &[]);
        planner.apply(change);
        assert!(!announced(&planner).contains_key(&prefix("10.1.0.10/32")));
        assert!(!announced(&planner).contains_key(&prefix("2001:db8:1::a/128")));
        assert!(!planner.state().responders.contains_key(&port_id(1)));
        let name = planner.intent().ports[&port_id(1)].if_name();
        let objects = &planner.state().objects;
        match &objects[&Key::Link(Netns::Main, name.clone())] {
            Object::Link(link) => assert!(!link.up),
            other => panic!("{other:?}"),
        }
        assert!(objects.contains_key(&Key::EdgeProgram(Netns::Main, name.clone())));
        let of_port = objects.keys().filter(|key| match key {
            Key::Neighbour(_, link, _) => *link == name,
            Key::Source(_, link, ..) => *link == name,
            Key::Element(_, set, key) => {
                set.0.starts_with("sources") && key.contains(&Value::IfName(name.clone()))
            }
            _ => false,
        });
        assert_eq!(of_port.count(), 0);
    }
}

#[test]
fn an_address_without_a_known_subnet_is_not_announced() {
    let mut planner = planner(config(), &[]);
    planner.apply(Change::RemoveSubnet(subnet_id(1)));
    assert!(!announced(&planner).contains_key(&prefix("10.1.0.10/32")));
}

#[test]
fn black_holes_only_where_the_uplink_knows_all_others() {
    let holes = |blackhole_inside| -> BTreeSet<Prefix> {
        let mut config = config();
        config.blackhole_inside = blackhole_inside;
        let planner = planner(config, &[]);
        let objects = planner.state().objects.values();
        let routes = objects.filter_map(|object| match object {
            Object::Route(r) if r.kind == RouteKind::Blackhole => Some(r.key.prefix),
            _ => None,
        });
        routes.collect()
    };
    assert_eq!(holes(false), BTreeSet::new());
    let all = ["2001:db8:1::/64", "10.1.0.0/24", "192.0.2.0/28"].map(prefix);
    assert_eq!(holes(true), all.into());
}

/// The source ranges of the private subnet's chains, and for each of the 16 buckets its chain.
fn translation(sources: &[&str]) -> (Vec<(IpAddr, IpAddr)>, Vec<String>) {
    let planner = planner(config(), sources);
    let mut ranges = Vec::new();
    let mut buckets = Vec::new();
    for object in planner.state().objects.values() {
        match object {
            Object::Chain(_, chain) => {
                ranges.extend(chain.rules.iter().flat_map(|r| &r.statements).filter_map(
                    |s| match s {
                        Statement::Snat(range) => Some((range.first, range.last)),
                        _ => None,
                    },
                ));
            }
            Object::Element(_, element) if element.set.0.starts_with("nat44-runs") => {
                if let Some(Verdict::Goto(chain)) = &element.verdict {
                    buckets.push(chain.0.rsplit('-').next().unwrap().to_owned());
                }
            }
            _ => {}
        }
    }
    (ranges, buckets)
}

#[test]
fn consecutive_sources_are_one_range() {
    let (ranges, buckets) = translation(&["192.0.2.8", "192.0.2.9", "192.0.2.10"]);
    assert_eq!(ranges, [(ip("192.0.2.8"), ip("192.0.2.10"))]);
    assert_eq!(buckets, Vec::<String>::new());
}

#[test]
fn scattered_sources_share_the_clients() {
    let (mut ranges, buckets) = translation(&["192.0.2.3", "192.0.2.8", "192.0.2.9"]);
    ranges.sort_unstable();
    let expected = [("192.0.2.3", "192.0.2.3"), ("192.0.2.8", "192.0.2.9")];
    assert_eq!(ranges, expected.map(|(a, b)| (ip(a), ip(b))));
    assert_eq!(buckets.len(), 16);
    let with = |source: &str| buckets.iter().filter(|b| *b == source).count();
    assert_eq!((with("192.0.2.3"), with("192.0.2.8")), (6, 10));
}

#[test]
fn every_scattered_source_is_used() {
    let all: Vec<String> = (0..8).map(|n| format!("192.0.2.{}", n * 2)).collect();
    let all: Vec<&str> = all.iter().map(String::as_str).collect();
    let (ranges, buckets) = translation(&all);
    assert_eq!(ranges.len(), 8);
    assert_eq!(buckets.into_iter().collect::<BTreeSet<_>>().len(), 8);
}

#[test]
fn without_a_source_nothing_is_translated() {
    assert_eq!(translation(&[]), (Vec::new(), Vec::new()));
    assert_eq!(translation(&["2001:db8::1"]), (Vec::new(), Vec::new()));
}
