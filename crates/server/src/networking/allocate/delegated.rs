//! Which prefixes a port gets for its workload to hand on: a free one of each of its network's subnets that are for delegation.

use std::{net::IpAddr, sync::Arc};

use bytes::Bytes;
use hextet_api::error::Result;
use hextet_model::neutron::{DelegatedPrefix, Port, Subnet};
use hextet_types::{NetworkId, Prefix};
use rand::Rng;

use super::{
    free_between,
    late::{change_in_chunks, chunk_of, touch},
};
use crate::{
    cloud::Cloud,
    keys,
    networking::entity::Entity,
    state::ranges::{address, number},
    write::Write,
};

/// Whether ports of that owner have workloads that could hand something on.
fn is_for(owner: &str) -> bool {
    !owner.starts_with("network:")
}

/// The network's subnets that are for delegation; the write depends on there being no others.
fn subnets_of(write: &mut Write<'_>, network: NetworkId) -> Vec<Arc<Subnet>> {
    write.quiet(keys::subnets_of(network));
    let all = write.state.subnets_of(network);
    all.filter(|s| s.delegation.is_some()).cloned().collect()
}

/// A port's prefixes: those that it has, and a free one of each subnet of which it has none. Where none is free, it goes without.
pub fn delegate(
    write: &mut Write<'_>,
    network: NetworkId,
    owner: &str,
    has: &[DelegatedPrefix],
) -> Vec<DelegatedPrefix> {
    let mut all = has.to_vec();
    if is_for(owner) {
        for subnet in subnets_of(write, network) {
            if !has.iter().any(|d| d.subnet_id == subnet.id) {
                all.extend(take_free(write, &subnet));
            }
        }
    }
    all
}

/// Lets a port's prefixes go.
pub fn release(write: &mut Write<'_>, port: &Port) {
    for gone in &port.delegated_prefixes {
        write.release(keys::address(gone.subnet_id, gone.prefix.addr()));
    }
}

/// Whether a port has any of that prefix out of a subnet for delegation.
pub fn is_taken_within(write: &Write<'_>, subnet: &Subnet, prefix: Prefix) -> bool {
    let Some(delegation) = subnet.delegation else {
        return false;
    };
    let taken = write.state.addresses.get(&subnet.id);
    let mut owners = taken.into_iter().flat_map(|taken| taken.owners.keys());
    owners.any(|first| {
        let delegated = Prefix::new(*first, delegation.prefixlen);
        delegated.is_ok_and(|delegated| delegated.overlaps(prefix))
    })
}

/// From a random place on, as addresses are; and not what another subnet of the network has.
fn take_free(write: &mut Write<'_>, subnet: &Arc<Subnet>) -> Option<DelegatedPrefix> {
    let len = subnet.delegation?.prefixlen;
    let nth = |of: IpAddr| number(of) >> (128 - len);
    let (first, last) = (nth(subnet.cidr.addr()), nth(subnet.cidr.last()));
    let others: Vec<(u128, u128)> = write
        .state
        .subnets_of(subnet.network_id)
        .filter(|other| other.id != subnet.id && other.cidr.overlaps(subnet.cidr))
        .map(|other| (nth(other.cidr.addr()), nth(other.cidr.last())))
        .collect();
    let from = rand::rng().random_range(first..=last);
    let between = |start, end| free_but(write, subnet, &others, (start, end));
    let free = between(from, last).or_else(|| between(first, from))?;
    let prefix = Prefix::new(address(free << (128 - len), subnet.cidr.addr()), len).ok()?;
    let key = keys::address(subnet.id, prefix.addr());
    if !write.claim(key, Bytes::new()) {
        return None;
    }
    write.taken.entry(subnet.id).or_default().insert(free);
    write.exists(subnet.key());
    Some(DelegatedPrefix {
        subnet_id: subnet.id,
        prefix,
    })
}

/// The first number that is free and not within any of the others.
fn free_but(
    write: &Write<'_>,
    subnet: &Subnet,
    others: &[(u128, u128)],
    (mut start, end): (u128, u128),
) -> Option<u128> {
    while start <= end {
        let free = free_between(write, subnet.id, start, end)?;
        let around = others.iter().find(|(a, b)| (*a..=*b).contains(&free));
        match around {
            Some((_, last)) => start = last + 1,
            None => return Some(free),
        }
    }
    None
}

/// Gives every port of the network a prefix of each subnet that is for delegation, as far as there are any.
///
/// # Errors
///
/// The store fails; then some ports may have got theirs.
pub async fn attach_delegated(cloud: &Cloud, network: NetworkId) -> Result<()> {
    change_in_chunks(cloud, |write| {
        let subnets = subnets_of(write, network);
        let lacks = |port: &Port| {
            let has = |s: &Arc<Subnet>| port.delegated_prefixes.iter().any(|d| d.subnet_id == s.id);
            is_for(&port.device_owner) && !subnets.iter().all(has)
        };
        for id in chunk_of(write, network, lacks) {
            let Some(row) = write.state.ports.row(&id) else {
                continue;
            };
            let mut port = row.value.as_ref().clone();
            let has = &row.value.delegated_prefixes;
            port.delegated_prefixes = delegate(write, network, &port.device_owner, has);
            if port.delegated_prefixes.len() == has.len() {
                tracing::warn!(port = %id, %network, "no prefix is left for it");
                break;
            }
            touch(write, &mut port);
            write.replace(port.key(), row.mod_revision, &port)?;
        }
        Ok(())
    })
    .await
}

/// Takes the subnet's prefixes from all ports.
///
/// # Errors
///
/// The store fails.
pub async fn detach_delegated(cloud: &Cloud, subnet: &Subnet) -> Result<()> {
    change_in_chunks(cloud, |write| {
        let of_it = |d: &DelegatedPrefix| d.subnet_id == subnet.id;
        let has = |port: &Port| port.delegated_prefixes.iter().any(of_it);
        for id in chunk_of(write, subnet.network_id, has) {
            let Some(row) = write.state.ports.row(&id) else {
                continue;
            };
            let mut port = row.value.as_ref().clone();
            port.delegated_prefixes.retain(|d| !of_it(d));
            for gone in row.value.delegated_prefixes.iter().filter(|d| of_it(d)) {
                write.release(keys::address(gone.subnet_id, gone.prefix.addr()));
            }
            touch(write, &mut port);
            write.replace(port.key(), row.mod_revision, &port)?;
        }
        Ok(())
    })
    .await
}
