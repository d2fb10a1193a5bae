//! What a change costs does not depend on how much there is besides: counted in units of the plan that
//! are computed again, and in objects that change.

#![allow(clippy::unwrap_used, reason = "a test")]

mod world;

use std::collections::BTreeSet;

use hextet_model::{
    intent::{Change, RoutingDomain},
    neutron::{Direction, Port, Protocol, SecurityGroupRule},
    plan::Planner,
    state::{Changed, Key},
};
use hextet_types::{Family, Mac, PortId};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use uuid::Uuid;
use world::{config, fixed, group, group_id, network, rule, subnet};

fn numbered_port(n: u16) -> Port {
    let [high, low] = n.to_be_bytes();
    let v6 = Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 1, n);
    let mut port = world::port(0, vec![fixed(0, &v6.to_string())], &[0, 1]);
    port.id = PortId(Uuid::from_u128(u128::from(n) << 96));
    port.mac_address = Mac::new([0xfa, 0x16, 0x3e, 1, high, low]);
    port.fixed_ips
        .push(fixed(1, &Ipv4Addr::new(10, 1, high, low).to_string()));
    port
}

fn member(n: u16) -> IpAddr {
    IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 2, 0, 0, 0, 0, n))
}

fn web(n: u16) -> SecurityGroupRule {
    SecurityGroupRule {
        protocol: Some(Protocol::TCP),
        port_range_min: Some(n),
        port_range_max: Some(n),
        ..rule(0, Direction::Ingress, Family::V6)
    }
}

fn from_group(n: u8) -> SecurityGroupRule {
    SecurityGroupRule {
        remote_group_id: Some(group_id(n)),
        ..rule(0, Direction::Ingress, Family::V6)
    }
}

/// A host with so many ports, all in two groups, one of which has a remote group with so many members.
fn host(ports: u16, members: u16) -> Planner {
    let mut planner = Planner::new(config());
    let mut changes = vec![
        Change::PutNetwork(Box::new(network(0))),
        Change::PutSubnet(Box::new(subnet(0))),
        Change::PutSubnet(Box::new(subnet(1))),
        Change::PutGroup(Box::new(group(0, [from_group(2)]))),
        Change::PutGroup(Box::new(group(1, (1..20).map(web)))),
        Change::AddMembers(
            group_id(2),
            RoutingDomain::Routed,
            (0..members).map(member).collect(),
        ),
    ];
    changes.extend((0..ports).map(|n| Change::PutPort(Box::new(numbered_port(n)))));
    planner.apply_all(changes);
    planner
}

fn cost(planner: &mut Planner, change: Change) -> (u64, Changed) {
    let before = planner.units_computed();
    let changed = planner.apply(change);
    (planner.units_computed() - before, changed)
}

/// Units computed by each of some typical changes.
fn costs(ports: u16, members: u16) -> Vec<u64> {
    let mut planner = host(ports, members);
    let gone = BTreeSet::from([member(1)]);
    let mut costs = Vec::new();
    for change in [
        Change::PutPort(Box::new(numbered_port(20_000))),
        Change::RemovePort(numbered_port(1).id),
        Change::AddMembers(group_id(2), RoutingDomain::Routed, [member(20_000)].into()),
        Change::RemoveMembers(group_id(2), RoutingDomain::Routed, gone),
        Change::PutGroup(Box::new(group(1, (1..21).map(web)))),
    ] {
        let (units, changed) = cost(&mut planner, change.clone());
        assert!(
            changed.objects.len() <= 16,
            "{change:?}: {:?}",
            changed.objects
        );
        assert!(!changed.objects.is_empty(), "{change:?} does nothing");
        costs.push(units);
    }
    costs
}

#[test]
fn the_cost_of_a_change_does_not_grow() {
    let small = costs(3, 3);
    assert_eq!(costs(10_000, 10_000), small);
    assert!(small.iter().all(|units| *units <= 4), "{small:?}");
}

#[test]
fn one_member_more_is_one_element() {
    let mut planner = host(2, 10_000);
    let (units, changed) = cost(
        &mut planner,
        Change::AddMembers(group_id(2), RoutingDomain::Routed, [member(20_000)].into()),
    );
    assert_eq!(units, 1);
    let keys: Vec<_> = changed.objects.iter().collect();
    assert!(matches!(keys.as_slice(), [Key::Element(..)]), "{keys:?}");
    assert!(changed.recheck.is_empty(), "nothing was closed");
}

#[test]
fn one_rule_more_of_a_known_shape_is_one_element() {
    let mut planner = host(100, 2);
    let (_, changed) = cost(
        &mut planner,
        Change::PutGroup(Box::new(group(1, (1..21).map(web)))),
    );
    let keys: Vec<_> = changed.objects.iter().collect();
    assert!(matches!(keys.as_slice(), [Key::Element(..)]), "{keys:?}");
}

#[test]
fn one_port_more_changes_no_chain() {
    let mut planner = host(100, 2);
    let (_, changed) = cost(&mut planner, Change::PutPort(Box::new(numbered_port(200))));
    let chains = changed
        .objects
        .iter()
        .filter(|key| matches!(key, Key::Chain(..) | Key::Set(..)));
    assert_eq!(chains.count(), 0);
    assert_eq!(changed.announce.len(), 2);
}

#[test]
fn what_planning_does_not_look_at_costs_nothing() {
    let mut planner = host(100, 2);
    let mut renamed = subnet(0);
    renamed.standard.name = "other".to_owned();
    let (units, changed) = cost(&mut planner, Change::PutSubnet(Box::new(renamed)));
    assert_eq!((units, changed), (0, Changed::default()));
}
