//! Ports that routers and floating IPs have on networks: made, changed and deleted with them, and
//! not by the port API. They count against no quota but that of what they belong to.

use std::sync::Arc;

use hextet_api::{
    error::{ApiError, Result},
    request::Input,
};
use hextet_model::neutron::{
    Binding, FixedIp, FloatingIp, Network, Port, Router, Standard, Status,
};
use hextet_types::{PortId, ProjectId};
use uuid::Uuid;

use super::{
    super::{allocate::Place, entity::Entity},
    mac::new_mac,
    remove,
};
use crate::{
    state::{State, table::Row},
    write::Write,
};

/// What such a port is for.
pub struct Purpose {
    /// Its owner; empty where tenants need not know of it.
    pub project: ProjectId,
    /// `device_owner`.
    pub owner: &'static str,
    /// The router or floating IP.
    pub device: Uuid,
}

/// Whether ports of that `device_owner` are a router's or a floating IP's.
pub fn is_of_router(owner: &str) -> bool {
    [
        Router::INTERFACE_OWNER,
        Router::GATEWAY_OWNER,
        FloatingIp::OWNER,
    ]
    .contains(&owner)
}

/// Whether the port is a router's or a floating IP's that is there.
fn is_held(state: &State, port: &Port) -> bool {
    let (device, layer3) = (port.device_id.as_str(), &state.layer3);
    match port.device_owner.as_str() {
        Router::INTERFACE_OWNER | Router::GATEWAY_OWNER => {
            let id = device.parse().ok();
            id.is_some_and(|id| layer3.routers.get(&id).is_some())
        }
        FloatingIp::OWNER => {
            let id = device.parse().ok();
            id.is_some_and(|id| layer3.floating_ips.get(&id).is_some())
        }
        _ => false,
    }
}

/// No request makes a port pass for a router's or a floating IP's.
///
/// # Errors
///
/// 403.
pub fn check_forged(state: &State, port: &Port, verb: &str) -> Result<()> {
    if port.device_owner == Router::INTERFACE_OWNER || is_held(state, port) {
        return Err(ApiError::forbidden(format!("{verb}_port:device_owner")));
    }
    Ok(())
}

/// # Errors
///
/// 409 `ServicePortInUse`.
pub fn check_delete(state: &State, port: &Port) -> Result<()> {
    if is_held(state, port) {
        return Err(in_use(port, "deleted"));
    }
    Ok(())
}

/// Only what concerns people can be changed; and a router's interface can have other addresses, out
/// of the same subnets.
///
/// # Errors
///
/// 409 `ServicePortInUse`.
pub fn check_change(state: &State, port: &Port, input: &Input) -> Result<()> {
    let open = ["name", "description", "admin_state_up", "fixed_ips"];
    let open = match port.device_owner.as_str() {
        Router::INTERFACE_OWNER => &open[..],
        _ => &open[..3],
    };
    if is_held(state, port) && input.names_other_than(open) {
        return Err(in_use(port, "changed"));
    }
    Ok(())
}

fn in_use(port: &Port, what: &str) -> ApiError {
    ApiError::conflict(
        "ServicePortInUse",
        format!(
            "Port {} cannot be {what} directly via the port API: has device owner {}.",
            port.id, port.device_owner
        ),
    )
}

/// Makes one, with the addresses that `allocate` claims for it.
///
/// # Errors
///
/// What `allocate` refuses; 503 when there is no free Ethernet address.
pub fn create(
    write: &mut Write<'_>,
    network: &Network,
    purpose: Purpose,
    allocate: impl FnOnce(&mut Write<'_>, Place<'_>) -> Result<Vec<FixedIp>>,
) -> Result<Arc<Port>> {
    let mac_address = new_mac(write, network.id)?;
    let place = Place {
        network,
        mac: mac_address,
        owner: purpose.owner,
        only_wanted: false,
    };
    let fixed_ips = allocate(write, place)?;
    let port = Port {
        id: PortId(Uuid::new_v4()),
        standard: Standard {
            project_id: purpose.project,
            name: String::new(),
            description: String::new(),
            tags: Vec::new(),
            revision_number: 1,
            created_at: write.now,
            updated_at: write.now,
        },
        network_id: network.id,
        mac_address,
        fixed_ips,
        device_id: purpose.device.to_string(),
        device_owner: purpose.owner.to_owned(),
        admin_state_up: true,
        status: Status::Active,
        security_groups: Vec::new(),
        port_security_enabled: false,
        allowed_address_pairs: Vec::new(),
        extra_dhcp_opts: Vec::new(),
        dns_name: String::new(),
        metadata: None,
        exposed: Vec::new(),
        delegated_prefixes: Vec::new(),
        qos_policy_id: None,
        binding: Binding::default(),
    };
    write.create(port.key(), &port)?;
    Ok(Arc::new(port))
}

/// Puts one that this write changes.
///
/// # Errors
///
/// It cannot be encoded.
pub fn change(
    write: &mut Write<'_>,
    old: &Row<Port>,
    edit: impl FnOnce(&mut Port),
) -> Result<Arc<Port>> {
    let mut port = old.value.as_ref().clone();
    edit(&mut port);
    port.standard.revision_number += 1;
    port.standard.updated_at = write.now;
    write.replace(port.key(), old.mod_revision, &port)?;
    Ok(Arc::new(port))
}

/// Deletes the one of that identifier, with its claims.
pub fn delete(write: &mut Write<'_>, id: PortId) {
    if let Some(row) = write.state.ports.row(&id) {
        remove(write, row);
    }
}
