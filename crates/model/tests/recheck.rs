//! Which flows a change asks to look at again: those that something closed may have carried.

#![allow(clippy::unwrap_used, reason = "a test")]

mod world;

use std::collections::BTreeSet;

use hextet_model::{
    intent::{Change, Group, RoutingDomain},
    neutron::{AddressPair, Direction, Port, Protocol, SecurityGroupRule},
    plan::Planner,
    state::{Netns, Object},
};
use hextet_types::Family;
use proptest::{collection::vec, prelude::*};
use world::{
    any_config, config, fixed, group, group_id, ip, mac, network, port, port_id, prefix, rule,
    some_change, subnet,
};

fn tcp(port: u16) -> SecurityGroupRule {
    SecurityGroupRule {
        protocol: Some(Protocol::TCP),
        port_range_min: Some(port),
        port_range_max: Some(port),
        ..rule(0, Direction::Ingress, Family::V4)
    }
}

fn first_port() -> Port {
    let mut port = port(
        1,
        vec![fixed(0, "2001:db8:1::a"), fixed(1, "10.1.0.10")],
        &[0, 1],
    );
    port.allowed_address_pairs = ["10.1.0.99/32", "10.9.0.0/16"]
        .map(|p| AddressPair {
            ip_address: prefix(p),
            mac_address: mac(1),
        })
        .into();
    port
}

fn planner() -> Planner {
    let mut planner = Planner::new(config());
    let second = port(2, vec![fixed(1, "10.1.0.11")], &[1, 2]);
    let from_members = SecurityGroupRule {
        remote_group_id: Some(group_id(3)),
        ..tcp(8080)
    };
    planner.apply_all([
        Change::PutNetwork(Box::new(network(0))),
        Change::PutSubnet(Box::new(subnet(0))),
        Change::PutSubnet(Box::new(subnet(1))),
        Change::PutGroup(Box::new(group(0, [tcp(22)]))),
        Change::PutGroup(Box::new(group(1, [tcp(80), tcp(443)]))),
        Change::PutGroup(Box::new(group(2, [from_members]))),
        Change::AddMembers(
            group_id(3),
            RoutingDomain::Routed,
            [ip("10.1.0.77"), ip("10.1.0.78")].into(),
        ),
        Change::SetNat44Sources(
            world::subnet_id(1),
            [ip("192.0.2.8"), ip("192.0.2.9")].into(),
        ),
        Change::PutPort(Box::new(first_port())),
        Change::PutPort(Box::new(second)),
    ]);
    planner
}

const BOTH_V4: [&str; 3] = ["10.1.0.10", "10.1.0.99", "10.1.0.11"];
const FIRST: [&str; 3] = ["2001:db8:1::a", "10.1.0.10", "10.1.0.99"];
const BOTH: [&str; 4] = ["2001:db8:1::a", "10.1.0.10", "10.1.0.99", "10.1.0.11"];

fn put_port(change: impl FnOnce(&mut Port)) -> Change {
    let mut port = first_port();
    change(&mut port);
    Change::PutPort(Box::new(port))
}

fn put_group(rules: impl IntoIterator<Item = SecurityGroupRule>) -> Change {
    Change::PutGroup(Box::new(group(1, rules)))
}

fn stateless(group: Group) -> Change {
    let mut group = group;
    group.group.stateful = false;
    Change::PutGroup(Box::new(group))
}

#[test]
fn closing_asks_and_opening_does_not() {
    let down = {
        let mut network = network(0);
        network.admin_state_up = false;
        Change::PutNetwork(Box::new(network))
    };
    let cases: Vec<(&str, Change, &[&str])> = vec![
        ("the same again", put_port(|_| {}), &[]),
        (
            "a port's group added",
            put_port(|p| p.security_groups.push(group_id(2))),
            &[],
        ),
        (
            "a port's group removed",
            put_port(|p| p.security_groups.truncate(1)),
            &FIRST,
        ),
        (
            "a pair removed",
            put_port(|p| p.allowed_address_pairs.truncate(1)),
            &FIRST,
        ),
        (
            "an address removed",
            put_port(|p| p.fixed_ips.truncate(1)),
            &FIRST,
        ),
        (
            "security off",
            put_port(|p| p.port_security_enabled = false),
            &[],
        ),
        ("admin down", put_port(|p| p.admin_state_up = false), &FIRST),
        ("another MAC", put_port(|p| p.mac_address = mac(9)), &FIRST),
        ("a port removed", Change::RemovePort(port_id(1)), &FIRST),
        ("a rule added", put_group([tcp(80), tcp(443), tcp(25)]), &[]),
        ("a rule removed", put_group([tcp(80)]), &BOTH_V4),
        ("a rule replaced", put_group([tcp(80), tcp(444)]), &BOTH_V4),
        (
            "a group of one family removed",
            Change::RemoveGroup(group_id(1)),
            &BOTH_V4,
        ),
        (
            "a group stateless",
            stateless(group(1, [tcp(80), tcp(443)])),
            &BOTH,
        ),
        ("a network down", down, &BOTH),
        (
            "a member added",
            Change::AddMembers(group_id(3), RoutingDomain::Routed, [ip("10.1.0.79")].into()),
            &[],
        ),
        (
            "a member removed",
            Change::RemoveMembers(group_id(3), RoutingDomain::Routed, [ip("10.1.0.77")].into()),
            &["10.1.0.77"],
        ),
        (
            "a source removed",
            Change::SetNat44Sources(world::subnet_id(1), [ip("192.0.2.9")].into()),
            &["192.0.2.8"],
        ),
    ];
    for (what, change, expected) in cases {
        let expected: BTreeSet<_> = expected.iter().map(|a| (Netns::Main, ip(a))).collect();
        assert_eq!(planner().apply(change).recheck, expected, "{what}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 30, ..ProptestConfig::default() })]

    /// So that all connections from one address to one port share a verdict.
    #[test]
    fn no_rule_looks_at_a_client_s_port(
        config in any_config(),
        changes in vec(some_change(), 100),
    ) {
        let mut planner = Planner::new(config);
        planner.apply_all(changes);
        let chains = planner.state().objects.values().filter_map(|object| match object {
            Object::Chain(_, chain) => Some(chain),
            _ => None,
        });
        for chain in chains {
            let said = format!("{:?}", chain.rules);
            prop_assert!(!said.contains("Sport"), "{said}");
        }
    }
}

#[test]
fn security_on_asks() {
    let mut planner = planner();
    planner.apply(put_port(|p| p.port_security_enabled = false));
    assert!(!planner.apply(put_port(|_| {})).recheck.is_empty());
}
