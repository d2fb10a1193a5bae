//! What ports get, and lose, that are there when a subnet comes or goes: in transactions of a bounded size.

use std::{collections::BTreeSet, sync::Arc};

use hextet_api::{
    error::{ApiError, Result},
    request::Caller,
};
use hextet_model::neutron::{Port, Router, Subnet};
use hextet_types::{Family, NetworkId, PortId, ProjectId};

use super::{automatic_address, claim, is_automatic, is_for, subnets_of, take_free};
use crate::{cloud::Cloud, keys, networking::entity::Entity, write::Write};

/// Ports changed in one transaction when a subnet comes or goes.
const CHUNK: usize = 500;
/// Rounds after which a subnet that keeps getting ports is given up on.
const ROUNDS: usize = 1_000;

fn nobody() -> Caller {
    Caller {
        project: ProjectId(String::new()),
        admin: true,
        member: true,
    }
}

/// Gives every port of the network an address of each subnet whose addresses follow from the
/// Ethernet address. May run at any time; does nothing where nothing lacks.
///
/// # Errors
///
/// The store fails.
pub async fn attach_automatic(cloud: &Cloud, network: NetworkId) -> Result<()> {
    change_in_chunks(cloud, |write| {
        let state = write.state;
        let subnets: Vec<_> = subnets_of(write, network)
            .into_iter()
            .filter(|s| is_automatic(s))
            .collect();
        let lacks = |port: &Port| {
            !port.device_owner.starts_with("network:")
                && subnets.iter().any(|s| {
                    is_for(s, &port.device_owner)
                        && !port.fixed_ips.iter().any(|f| f.subnet_id == s.id)
                })
        };
        let chunk = chunk_of(write, network, lacks);
        for id in &chunk {
            let Some(row) = state.ports.row(id) else {
                continue;
            };
            let mut port = row.value.as_ref().clone();
            for subnet in subnets
                .iter()
                .filter(|s| is_for(s, &row.value.device_owner))
            {
                let has = port.fixed_ips.iter().any(|f| f.subnet_id == subnet.id);
                if let Some(fixed) = automatic_address(subnet, port.mac_address).filter(|_| !has) {
                    // A foreign port has asked for just this address: it was there first.
                    if claim(write, subnet, fixed) {
                        port.fixed_ips.push(fixed);
                    }
                }
            }
            if port.fixed_ips.len() > row.value.fixed_ips.len() {
                touch(write, &mut port);
                write.replace(port.key(), row.mod_revision, &port)?;
            }
        }
        Ok(())
    })
    .await
}

/// Gives every port that has IPv6 addresses alone one of the subnet, which is the network's first one of IPv4, as
/// far as there are any. Deviation: Neutron leaves such ports without.
///
/// # Errors
///
/// The store fails; then some ports may have got theirs.
pub async fn attach_ipv4(cloud: &Cloud, subnet: &Arc<Subnet>) -> Result<()> {
    change_in_chunks(cloud, |write| {
        let state = write.state;
        let lacks = |port: &Port| {
            !port.device_owner.starts_with("network:")
                && is_for(subnet, &port.device_owner)
                && port.addresses(Family::V6).next().is_some()
                && port.addresses(Family::V4).next().is_none()
        };
        for id in chunk_of(write, subnet.network_id, lacks) {
            let Some(row) = state.ports.row(&id) else {
                continue;
            };
            let Some(fixed) = take_free(write, subnet) else {
                tracing::warn!(subnet = %subnet.id, port = %id, "no IPv4 address is left for it");
                break;
            };
            let mut port = row.value.as_ref().clone();
            port.fixed_ips.push(fixed);
            touch(write, &mut port);
            write.replace(port.key(), row.mod_revision, &port)?;
        }
        Ok(())
    })
    .await
}

/// Takes the subnet's addresses from ports that have them only because of their Ethernet address.
///
/// # Errors
///
/// The store fails.
pub async fn detach_automatic(cloud: &Cloud, subnet: &Subnet) -> Result<()> {
    change_in_chunks(cloud, |write| {
        let state = write.state;
        // A router's interface keeps the subnet from going.
        let has = |port: &Port| {
            port.device_owner != Router::INTERFACE_OWNER
                && port.fixed_ips.iter().any(|f| f.subnet_id == subnet.id)
        };
        for id in chunk_of(write, subnet.network_id, has) {
            let Some(row) = state.ports.row(&id) else {
                continue;
            };
            let mut port = row.value.as_ref().clone();
            port.fixed_ips.retain(|f| f.subnet_id != subnet.id);
            for gone in row
                .value
                .fixed_ips
                .iter()
                .filter(|f| f.subnet_id == subnet.id)
            {
                write.release(keys::address(gone.subnet_id, gone.ip_address));
            }
            touch(write, &mut port);
            write.replace(port.key(), row.mod_revision, &port)?;
        }
        Ok(())
    })
    .await
}

pub(super) fn touch(write: &Write<'_>, port: &mut Port) {
    port.standard.revision_number += 1;
    port.standard.updated_at = write.now;
}

pub(super) fn chunk_of(
    write: &Write<'_>,
    network: NetworkId,
    of: impl Fn(&Port) -> bool,
) -> BTreeSet<PortId> {
    let ids = write.state.ports_by_network.get(&network);
    let ports = ids.filter_map(|id| write.state.ports.get(id));
    ports.filter(|p| of(p)).map(|p| p.id).take(CHUNK).collect()
}

/// Repeats a write until it finds nothing more to change.
pub(super) async fn change_in_chunks(
    cloud: &Cloud,
    change: impl Fn(&mut Write<'_>) -> Result<()>,
) -> Result<()> {
    for _ in 0..ROUNDS {
        let before = cloud.state().revision;
        let decide = |write: &mut Write<'_>| {
            change(write)?;
            Ok(write.changes_something())
        };
        if !cloud.write(&nobody(), decide).await? {
            return Ok(());
        }
        tracing::debug!(before, "changed a chunk of ports");
    }
    Err(ApiError::unavailable("ports keep coming; try again"))
}
