//! NAT44: private IPv4 leaves the cloud with one of the host's addresses: those that it has out of a pool, or, without a pool, that of
//! the link which it leaves by.
//!
//! What stays inside the cloud is never translated. A subnet's translation has a chain of its own; where
//! the host has no source address for it, what would leave is dropped, so that private addresses never
//! travel. No port has so many connections, to all or to one destination, that none are left for others.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr},
};

use hextet_types::{Family, SubnetId};

use super::{
    base, flood,
    index::Name,
    names,
    nft::{self, ACCEPT, DROP, RETURN, because, rule},
    place::Place,
    unit::View,
    why,
};
use crate::{
    neutron::Subnet,
    state::{
        CtState, DynOp, Field, Hook, KeyPart, KeyType, NatRange, NftRule, Object, Statement, Value,
        Verdict,
    },
};

/// Ports whose connections are counted at once, for each subnet.
const MAX_CLIENTS: u32 = 65_536;
/// Connections of one port to one destination. A source address has 64,512 ports for each, which it takes
/// 63 that work together to use up.
const SHARE: u32 = 1024;
/// Pairs of a port and a destination that are counted at once: as many as the kernel's table has
/// connections, unless told otherwise.
const MAX_SHARES: u32 = 262_144;
/// Where a host's sources are not consecutive, the last bits of a client's address choose among them.
const BUCKETS: u8 = 16;

/// The chain that every new connection passes on its way out, where anything is translated, and the guards
/// against what would leave untranslated and what would come in; where ports are. Without it the kernel has no hooks of NAT.
pub fn translation(view: View<'_>) -> Vec<Object> {
    let subnets: Vec<&Subnet> = view.subnets().filter(|s| translated(view, s)).collect();
    let uplink = nft::name_in(Field::OifName, names::UPLINKS);
    let mut rules: Vec<NftRule> = view.index.names().filter_map(inside_rule).collect();
    rules.extend(subnets.iter().map(|subnet| {
        rule([
            uplink.clone(),
            is_from(subnet),
            nft::goto(names::nat_chain(subnet.id)),
        ])
    }));
    let private = subnets.iter().map(|subnet| is_from(subnet));
    let mut objects = flood::limit(view.config);
    if !subnets.is_empty() {
        objects.push(nft::base_chain(
            "postrouting",
            Hook::Postrouting,
            nft::SRCNAT,
            rules,
        ));
    }
    objects.extend([
        base::invalid(private),
        nft::chain(base::PRIVATE, private_guard(view, &subnets)),
    ]);
    objects
}

/// Private addresses are reached from within the cloud alone, even by one who has a route to them.
fn private_guard(view: View<'_>, subnets: &[&Subnet]) -> Vec<NftRule> {
    if subnets.is_empty() {
        return Vec::new();
    }
    let saddr = |len| nft::address_part(Field::Saddr(Family::V4), Family::V4, len);
    let link_local = Value::Addr(IpAddr::V4(Ipv4Addr::new(169, 254, 0, 0)));
    let exposed = view.index.is_named(&Name::Exposing);
    let exposed = exposed.then(|| rule([nft::is_translated(), RETURN]));
    let mut rules = vec![
        rule([nft::state_in(&[CtState::Established]), RETURN]),
        rule([nft::compare(saddr(16), link_local), RETURN]),
    ];
    rules.extend(exposed);
    rules.extend(view.index.names().filter_map(|name| match name {
        Name::InsideLen(len) => {
            let inside = nft::found(vec![saddr(*len)], names::inside(*len), false);
            Some(rule([inside, RETURN]))
        }
        _ => None,
    }));
    rules.extend(subnets.iter().map(|subnet| {
        let to_it = is_in(subnet, Field::Daddr(Family::V4));
        because([to_it, Statement::Counter, DROP], why::PRIVATE)
    }));
    rules
}

/// Only routed networks are translated by each host; others by their routers.
fn translated(view: View<'_>, subnet: &Subnet) -> bool {
    view.place == Place::Main && subnet.family() == Family::V4 && subnet.nat44.is_some()
}

fn inside_rule(name: &Name) -> Option<NftRule> {
    let Name::InsideLen(len) = name else {
        return None;
    };
    let daddr = nft::address_part(Field::Daddr(Family::V4), Family::V4, *len);
    let inside = nft::found(vec![daddr], names::inside(*len), false);
    Some(because([inside, ACCEPT], "stays inside the cloud"))
}

fn is_from(subnet: &Subnet) -> Statement {
    is_in(subnet, Field::Saddr(Family::V4))
}

fn is_in(subnet: &Subnet, field: Field) -> Statement {
    let part = nft::address_part(field, Family::V4, subnet.cidr.len());
    nft::compare(part, Value::Addr(subnet.cidr.addr()))
}

/// The set of inside prefixes of one length.
pub fn inside_set(view: View<'_>, len: u8) -> Vec<Object> {
    if !view.index.is_named(&Name::InsideLen(len)) {
        return Vec::new();
    }
    vec![nft::set(names::inside(len), [KeyType::Addr(Family::V4)])]
}

/// A subnet's translation: so many connections for each port, then a source address, always the same
/// for one client.
pub fn subnet(view: View<'_>, id: SubnetId) -> Vec<Object> {
    let subnet = view.subnet(id).filter(|s| translated(view, s));
    let Some(nat44) = subnet.and_then(|s| s.nat44) else {
        return Vec::new();
    };
    let runs = view
        .intent
        .nat44_sources
        .get(&id)
        .map_or_else(Vec::new, runs);
    let (mut objects, mut rules) = limits(id, nat44.max_connections_per_port);
    match runs.as_slice() {
        _ if nat44.pool_subnet_id.is_none() => rules.push(rule([Statement::Masquerade])),
        [] => {}
        [range] => rules.push(rule([Statement::Snat(*range)])),
        several => {
            rules.push(rule([Statement::VerdictMap(
                vec![bucket()],
                names::nat_runs(id),
            )]));
            objects.extend(by_bucket(id, several));
        }
    }
    rules.push(because([Statement::Counter, DROP], why::NO_SOURCE));
    objects.push(nft::chain(names::nat_chain(id), rules));
    objects
}

/// The sets and rules that count a port's connections: all, and those to one destination, where there may
/// be more of them than its share of source ports.
fn limits(id: SubnetId, max: u32) -> (Vec<Object>, Vec<NftRule>) {
    let over = |key: Vec<KeyPart>, set, max| {
        let limit = Statement::Dynamic(key, set, DynOp::CtCountOver(max));
        because([limit, Statement::Counter, DROP], why::TOO_MANY)
    };
    let port: KeyPart = Field::IifName.into();
    let all = names::nat_connections(id);
    let mut objects = vec![nft::dynamic_set(
        all.clone(),
        [KeyType::IfName],
        MAX_CLIENTS,
    )];
    let mut rules = vec![over(vec![port.clone()], all, max)];
    if max > SHARE {
        let (to_one, daddr) = (names::nat_shares(id), Field::Daddr(Family::V4).into());
        let key = [KeyType::IfName, KeyType::Addr(Family::V4)];
        objects.push(nft::dynamic_set(to_one.clone(), key, MAX_SHARES));
        rules.push(over(vec![port, daddr], to_one, SHARE));
    }
    (objects, rules)
}

/// Consecutive addresses, as ranges.
fn runs(sources: &BTreeSet<IpAddr>) -> Vec<NatRange> {
    let mut runs: Vec<(u32, u32)> = Vec::new();
    for source in sources {
        let IpAddr::V4(source) = source else { continue };
        let addr = u32::from(*source);
        match runs.last_mut() {
            Some((_, last)) if last.checked_add(1) == Some(addr) => *last = addr,
            _ => runs.push((addr, addr)),
        }
    }
    let addr = |n| IpAddr::V4(Ipv4Addr::from(n));
    let range = |(first, last)| NatRange {
        first: addr(first),
        last: addr(last),
    };
    runs.into_iter().map(range).collect()
}

fn bucket() -> KeyPart {
    KeyPart {
        field: Field::Saddr(Family::V4),
        mask: Some(vec![0, 0, 0, BUCKETS - 1]),
    }
}

/// Each run gets buckets in proportion to its length, counted through all addresses.
fn by_bucket(id: SubnetId, runs: &[NatRange]) -> Vec<Object> {
    let mut objects = vec![nft::verdict_map(
        names::nat_runs(id),
        [KeyType::Addr(Family::V4)],
    )];
    let owners: Vec<&NatRange> = runs
        .iter()
        .flat_map(|run| std::iter::repeat_n(run, length(run)))
        .collect();
    for run in runs {
        let chain = names::nat_run_chain(id, run.first);
        objects.push(nft::chain(chain, vec![rule([Statement::Snat(*run)])]));
    }
    for (n, run) in (0..BUCKETS).zip(owners.iter().cycle()) {
        let key = [Value::Addr(IpAddr::from([0, 0, 0, n]))];
        let to = Verdict::Goto(names::nat_run_chain(id, run.first));
        objects.push(nft::map_element(names::nat_runs(id), key, to));
    }
    objects
}

fn length(run: &NatRange) -> usize {
    match (run.first, run.last) {
        (IpAddr::V4(first), IpAddr::V4(last)) => (u32::from(last).saturating_sub(u32::from(first))
            as usize)
            .saturating_add(1)
            .min(BUCKETS.into()),
        _ => 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_counts_where_a_port_may_have_more_connections() {
        let id = SubnetId(uuid::Uuid::nil());
        let count = |max| {
            let (objects, rules) = limits(id, max);
            (objects.len(), rules.len())
        };
        assert_eq!(count(SHARE), (1, 1));
        assert_eq!(count(SHARE + 1), (2, 2));
    }
}
