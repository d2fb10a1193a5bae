//! Metering labels: what passes a router's way outside on this host, counted by their rules.
//!
//! Each label has a counter of its own for each direction, which stands while rules come and go, and a chain that ends
//! at the first rule that matches, so that no packet counts twice. What it leaves out comes first. Rules of one kind (by
//! prefixes of the same lengths) are one look into a set, whatever their number.
//!
//! It hangs where sources are not translated yet and destinations no longer are, behind the chains that drop. A packet
//! passes the link outside on one host alone: what a gateway host translates for others comes to it by the router's
//! tunnel, and counts there.

use std::collections::{BTreeMap, BTreeSet};

use hextet_types::{Family, MeteringLabelId, Prefix};

use super::{
    group::DIRECTIONS,
    names,
    nft::{self, ACCEPT, RETURN, rule},
    router::outside,
};
use crate::{
    intent::{MeterRule, Router},
    neutron::Direction,
    state::{Field, Hook, KeyPart, KeyType, Netns, NftRule, Object, Statement, Value},
};

/// Labels of one router: each costs each packet a few looks. Of more, the first.
const MAX_METERS: usize = 256;
const CHAIN: &str = "meters";

/// What rules of one kind look at.
type Kind = (Family, Option<u8>, Option<u8>);

/// All of it, of a router that is up.
pub fn meters(router: &Router) -> Vec<Object> {
    let mut objects = Vec::new();
    let mut forward = Vec::new();
    for direction in DIRECTIONS {
        let mut jumps = Vec::new();
        for (label, rules) in router.meters.iter().take(MAX_METERS) {
            let rules = rules.iter().filter(|rule| rule.direction == direction);
            let (not, is): (Vec<_>, Vec<_>) = rules.partition(|rule| rule.excluded);
            if !is.is_empty() {
                let name = names::meter_chain(*label, direction);
                jumps.push(rule([nft::jump(name)]));
                objects.extend(label_objects(router, (*label, direction), &not, &is));
            }
        }
        let at = match direction {
            Direction::Egress => Field::OifName,
            Direction::Ingress => Field::IifName,
        };
        if let Some(link) = outside::link().filter(|_| !jumps.is_empty()) {
            let all = format!("meters-{}", names::letter(direction));
            let passes = nft::compare(at, Value::IfName(link));
            forward.push(rule([passes, nft::jump(all.as_str())]));
            objects.push(nft::chain(all.as_str(), jumps));
        }
    }
    if !forward.is_empty() {
        forward.push(rule([ACCEPT]));
        objects.push(nft::base_chain(CHAIN, Hook::Forward, nft::METERS, forward));
    }
    objects
}

/// A label's counter, chain and sets for a direction.
fn label_objects(
    router: &Router,
    (label, direction): (MeteringLabelId, Direction),
    not: &[&MeterRule],
    is: &[&MeterRule],
) -> Vec<Object> {
    let counter = names::meter(label, router.router.id, direction);
    let mut objects = vec![Object::Counter(Netns::Main, counter.clone())];
    let mut chain: Vec<NftRule> = Vec::new();
    for (excluded, rules) in [(true, not), (false, is)] {
        for (kind, members) in by_kind(rules) {
            let mut statements = Vec::new();
            let key = key_of(kind);
            match key.is_empty() {
                true => statements.push(nft::compare(Field::NfProto, Value::Family(kind.0))),
                false => {
                    let set = names::meter_set(label, direction, excluded, kind);
                    let types: Vec<KeyType> = key.iter().map(|_| KeyType::Addr(kind.0)).collect();
                    objects.push(nft::set(set.clone(), types));
                    let elements = members.iter().map(|member| {
                        let values: Vec<Value> =
                            member.iter().map(|p| Value::Addr(p.addr())).collect();
                        nft::element(set.clone(), values)
                    });
                    objects.extend(elements);
                    statements.push(nft::found(key, set, false));
                }
            }
            if !excluded {
                statements.push(Statement::Count(counter.clone()));
            }
            statements.push(RETURN);
            chain.push(rule(statements));
        }
    }
    objects.push(nft::chain(names::meter_chain(label, direction), chain));
    objects
}

/// Each kind with the prefixes that its rules name; a prefix of all addresses of a family says no more than the family.
fn by_kind(rules: &[&MeterRule]) -> BTreeMap<Kind, BTreeSet<Vec<Prefix>>> {
    let mut kinds: BTreeMap<Kind, BTreeSet<Vec<Prefix>>> = BTreeMap::new();
    for rule in rules {
        let both = [rule.source, rule.destination];
        let Some(family) = both.iter().flatten().map(|p| p.family()).next() else {
            continue;
        };
        let ends = both.map(|end| end.filter(|prefix| !prefix.is_default()));
        let [source, destination] = ends.map(|end| end.map(Prefix::len));
        let named = kinds.entry((family, source, destination)).or_default();
        named.insert(ends.into_iter().flatten().collect());
    }
    kinds
}

fn key_of((family, source, destination): Kind) -> Vec<KeyPart> {
    let ends = [
        (Field::Saddr(family), source),
        (Field::Daddr(family), destination),
    ];
    let parts = ends.into_iter().filter_map(|(field, len)| {
        let len = len?;
        Some(nft::address_part(field, family, len))
    });
    parts.collect()
}

#[cfg(test)]
mod tests;
