//! A small host's whole plan, to be read.

#![allow(clippy::unwrap_used, reason = "a test")]

mod world;

use std::fmt::Write as _;

use hextet_model::{
    intent::{Change, RoutingDomain},
    neutron::{AddressPair, Direction, Protocol, SecurityGroupRule},
    plan::Planner,
    state::{HostState, Netns, Object, table_text},
};
use hextet_types::Family;
use world::{config, fixed, group, group_id, ip, mac, nat44, network, port, prefix, rule, subnet};

fn web_and_ping() -> Vec<SecurityGroupRule> {
    let tcp = |family, first, last| SecurityGroupRule {
        protocol: Some(Protocol::TCP),
        port_range_min: Some(first),
        port_range_max: Some(last),
        ..rule(0, Direction::Ingress, family)
    };
    vec![
        tcp(Family::V6, 443, 443),
        tcp(Family::V4, 8000, 8010),
        SecurityGroupRule {
            remote_ip_prefix: Some(prefix("10.0.0.0/8")),
            ..tcp(Family::V4, 22, 22)
        },
        SecurityGroupRule {
            protocol: Some(Protocol::ICMP),
            port_range_min: Some(128),
            ..rule(0, Direction::Ingress, Family::V6)
        },
        SecurityGroupRule {
            remote_group_id: Some(group_id(1)),
            ..rule(0, Direction::Ingress, Family::V6)
        },
        rule(0, Direction::Egress, Family::V4),
        rule(0, Direction::Egress, Family::V6),
    ]
}

/// Two workloads of an NREC-like cloud: one with public IPv6 and translated IPv4, and a router with
/// port security off.
fn small_host() -> Planner {
    let mut config = config();
    config.blackhole_inside = true;
    let mut private = subnet(1);
    private.nat44 = Some(nat44(1000));
    let mut first = port(
        1,
        vec![fixed(0, "2001:db8:1::a"), fixed(1, "10.1.0.10")],
        &[0],
    );
    first.allowed_address_pairs = vec![AddressPair {
        ip_address: prefix("2001:db8:9::/48"),
        mac_address: mac(1),
    }];
    let mut second = port(2, vec![fixed(2, "192.0.2.1")], &[]);
    second.port_security_enabled = false;
    let mut planner = Planner::new(config);
    planner.apply_all([
        Change::PutNetwork(Box::new(network(0))),
        Change::PutSubnet(Box::new(subnet(0))),
        Change::PutSubnet(Box::new(private)),
        Change::PutSubnet(Box::new(subnet(2))),
        Change::SetNat44Sources(
            world::subnet_id(1),
            [ip("192.0.2.8"), ip("192.0.2.11")].into(),
        ),
        Change::AddMembers(
            group_id(1),
            RoutingDomain::Routed,
            [ip("2001:db8:1::b"), ip("10.1.0.11")].into(),
        ),
        Change::PutGroup(Box::new(group(0, web_and_ping()))),
        Change::PutPort(Box::new(first)),
        Change::PutPort(Box::new(second)),
    ]);
    planner
}

fn beside_the_table(state: &HostState) -> String {
    let mut text = String::new();
    let objects = state.objects.values().filter(|object| {
        !matches!(
            object,
            Object::Limiter(..) | Object::Set(..) | Object::Chain(..) | Object::Element(..)
        )
    });
    for object in objects {
        let _ = writeln!(text, "{}", serde_json::to_string(object).unwrap());
    }
    for (prefix, announcement) in &state.announce {
        let _ = writeln!(text, "announce {prefix} {:?}", announcement.scope);
    }
    for responder in state.responders.values() {
        let _ = writeln!(text, "{}", serde_json::to_string(responder).unwrap());
    }
    text
}

#[test]
fn the_rules_of_a_small_host() {
    let planner = small_host();
    let table = table_text(planner.state().objects.values(), &Netns::Main);
    insta::assert_snapshot!(table);
}

#[test]
fn everything_else_of_a_small_host() {
    insta::assert_snapshot!(beside_the_table(small_host().state()));
}
