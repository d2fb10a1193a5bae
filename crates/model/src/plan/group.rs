//! Security groups: a chain for each group and direction, shared by all ports that have it.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use hextet_types::{Family, SecurityGroupId};

use super::{
    index::Name,
    names,
    nft::{self, because},
    rules::{self, Match, Service, Shape},
    unit::View,
};
use crate::{
    intent::Group,
    neutron::Direction,
    state::{Field, KeyType, NftRule, Object, SetName, Value},
};

pub const DIRECTIONS: [Direction; 2] = [Direction::Ingress, Direction::Egress];

/// Where a packet goes that a group allows: one from a port is then judged for the port that it goes to.
pub const fn allowed(direction: Direction) -> &'static str {
    match direction {
        Direction::Egress => super::base::TO_PORT,
        Direction::Ingress => super::base::ADMIT,
    }
}

/// A group's chains, where ports name it. One that nobody has described yet allows nothing.
pub fn group(view: View<'_>, id: SecurityGroupId) -> Vec<Object> {
    if !view.index.is_named(&Name::Group(id)) {
        return Vec::new();
    }
    let group = view.intent.groups.get(&id);
    let mut objects = Vec::new();
    for direction in DIRECTIONS {
        let shapes = group.map_or_else(BTreeMap::new, |g| shapes(g, direction));
        let rules = shapes
            .keys()
            .map(|shape| shape_rule(id, direction, shape))
            .collect();
        objects.push(nft::chain(names::group_chain(id, direction), rules));
        for (shape, keys) in shapes {
            objects.extend(shape_set(id, direction, &shape, keys));
        }
    }
    objects
}

/// All that the group's rules allow in a direction, sorted out by shape.
fn shapes(group: &Group, direction: Direction) -> BTreeMap<Shape, BTreeSet<Vec<Value>>> {
    let mut shapes: BTreeMap<Shape, BTreeSet<Vec<Value>>> = BTreeMap::new();
    let rules = group
        .rules
        .values()
        .filter(|rule| rule.direction == direction);
    for Match { shape, key } in rules.flat_map(|rule| rules::matches(group, rule)) {
        shapes.entry(shape).or_default().insert(key);
    }
    shapes
}

fn shape_rule(id: SecurityGroupId, direction: Direction, shape: &Shape) -> NftRule {
    let family = shape.family;
    let mut statements = vec![nft::compare(Field::NfProto, Value::Family(family))];
    if matches!(shape.service, Service::IcmpType | Service::IcmpCode) {
        statements.push(nft::protocol(rules::icmp_of(family).0));
    }
    let parts = shape.key_parts(direction);
    if !parts.is_empty() {
        statements.push(nft::found(
            parts,
            shape_set_name(id, direction, shape),
            false,
        ));
    }
    if let Some(remote) = shape.remote {
        let other_end = rules::other_end(direction, family).into();
        statements.push(nft::found(
            vec![other_end],
            names::members(remote, family),
            false,
        ));
    }
    statements.push(nft::goto(allowed(direction)));
    because(statements, format!("group {id}"))
}

fn shape_set(
    id: SecurityGroupId,
    direction: Direction,
    shape: &Shape,
    keys: BTreeSet<Vec<Value>>,
) -> Vec<Object> {
    let types = shape.key_types();
    if types.is_empty() {
        return Vec::new();
    }
    let name = shape_set_name(id, direction, shape);
    let elements = keys.into_iter().map(|key| nft::element(name.clone(), key));
    std::iter::once(nft::set(name.clone(), types))
        .chain(elements)
        .collect()
}

fn shape_set_name(id: SecurityGroupId, direction: Direction, shape: &Shape) -> SetName {
    let (letter, digit) = (names::letter(direction), names::digit(shape.family));
    SetName(format!(
        "{letter}{digit}-{}-{}",
        id.0.simple(),
        shape.code()
    ))
}

/// The sets of a remote group's members, one for each family.
pub fn member_sets(view: View<'_>, id: SecurityGroupId) -> Vec<Object> {
    if !view.index.is_named(&Name::Members(id)) {
        return Vec::new();
    }
    let set = |family| nft::set(names::members(id, family), [KeyType::Addr(family)]);
    Family::BOTH.map(set).into()
}

/// One member: one element, however many there are.
pub fn member(view: View<'_>, id: SecurityGroupId, addr: IpAddr) -> Vec<Object> {
    let present = view
        .intent
        .members
        .get(&(id, view.place.domain()))
        .is_some_and(|m| m.contains(&addr));
    if !present || !view.index.is_named(&Name::Members(id)) {
        return Vec::new();
    }
    vec![nft::element(
        names::members(id, Family::of(addr)),
        [Value::Addr(addr)],
    )]
}
