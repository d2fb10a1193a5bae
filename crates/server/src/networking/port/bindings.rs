//! Bindings of ports on several hosts, as Nova needs them to move a server while it runs: one is active, the
//! others are prepared. The active one is the port's own `binding:*`.

pub mod serve;

use std::{net::IpAddr, sync::Arc};

use hextet_api::{
    error::{ApiError, Result},
    request::Input,
};
use hextet_model::neutron::{Binding, Port, Status};
use hextet_types::{HostId, PortId};
use serde_json::{Map, Value};

use super::{exposed, internal};
use crate::{
    keys,
    networking::entity::Entity,
    state::{
        State,
        bindings::{BindingRecord, migrating_to},
        holders::may_hold,
        table::Row,
    },
    write::Write,
};

/// Of one port; Nova needs two.
const MAX_BINDINGS: usize = 4;

fn missing(port: PortId, host: &str) -> ApiError {
    ApiError::new(
        404,
        "PortBindingNotFound",
        format!("Binding for port {port} for host {host} could not be found."),
    )
}

/// The host of a path, if a port may be bound there at all.
fn parse(port: PortId, host: &str) -> Result<HostId> {
    host.parse().map_err(|_| missing(port, host))
}

/// Only servers move.
fn check_compute(port: &Port) -> Result<()> {
    if port.device_owner.starts_with("compute:") {
        return Ok(());
    }
    Err(ApiError::new(
        400,
        "BadRequest",
        format!(
            "Bad port request: Invalid port {}. Operation only valid on compute ports: its device_owner does \
             not begin with 'compute:'.",
            port.id
        ),
    ))
}

fn profile(input: &Input) -> Result<Map<String, Value>> {
    Ok(input.get("profile")?.unwrap_or_default())
}

/// Makes a binding: the active one of a port that is bound nowhere.
///
/// # Errors
///
/// 400: no host, or no port of a server. 409 `PortBindingAlreadyExists`; too many. 500 `PortBindingError`, as Neutron
/// has it: the host takes no ports of that network.
fn create(write: &mut Write<'_>, row: &Row<Port>, input: &Input) -> Result<HostId> {
    let port = &row.value;
    check_compute(port)?;
    let host: String = input.take("host")?;
    let host: HostId = host.parse().map_err(ApiError::invalid_input)?;
    let active = port.binding.host_id.as_ref();
    let bindings = &write.state.bindings;
    if active == Some(&host) || bindings.row(port.id, &host).is_some() {
        return Err(ApiError::conflict(
            "PortBindingAlreadyExists",
            format!(
                "Binding for port {} on host {host} already exists.",
                port.id
            ),
        ));
    }
    if bindings.of(port.id).count() + usize::from(active.is_some()) >= MAX_BINDINGS {
        return Err(ApiError::conflict(
            "PortBindingLimitExceeded",
            format!(
                "Port {} has {MAX_BINDINGS} bindings, and no port may have more: delete one first.",
                port.id
            ),
        ));
    }
    if !write.state.takes(&host, port.network_id) {
        return Err(ApiError::new(
            500,
            "PortBindingError",
            format!(
                "Binding for port {} on host {host} could not be created or updated: the host takes no ports of \
                 private networks, because its agent tells no tunnel_address.",
                port.id
            ),
        ));
    }
    write.quiet(keys::bindings_of(port.id));
    let record = BindingRecord {
        vnic_type: input.take("vnic_type")?,
        profile: profile(input)?,
        status: Status::Down,
        taken_over: false,
    };
    if active.is_none() {
        let bound = Port {
            binding: record.on(&host),
            ..port.as_ref().clone()
        };
        exposed::follow(write, Some(port), &bound)?;
        internal::change(write, row, |port| {
            port.binding = record.on(&host);
            port.status = Status::Down;
        })?;
    } else {
        write.unchanged(port.key(), row.mod_revision);
        write.create(keys::binding(port.id, &host), &record)?;
    }
    Ok(host)
}

/// Changes what is said of a binding.
///
/// # Errors
///
/// 404: there is none on that host.
fn update(write: &mut Write<'_>, row: &Row<Port>, host: &HostId, input: &Input) -> Result<()> {
    let port = &row.value;
    if port.binding.host_id.as_ref() == Some(host) {
        let mut changed = port.as_ref().clone();
        input.put("vnic_type", &mut changed.binding.vnic_type)?;
        if input.names("profile") {
            changed.binding.profile = profile(input)?;
        }
        follow(write, port, &mut changed)?;
        return internal::change(write, row, |port| *port = changed).map(drop);
    }
    let record = prepared(write.state, port, host)?;
    let mut changed = record.value.as_ref().clone();
    input.put("vnic_type", &mut changed.vnic_type)?;
    if input.names("profile") {
        changed.profile = profile(input)?;
    }
    write.unchanged(port.key(), row.mod_revision);
    write.replace(keys::binding(port.id, host), record.mod_revision, &changed)
}

fn prepared<'s>(state: &'s State, port: &Port, host: &HostId) -> Result<&'s Row<BindingRecord>> {
    let record = state.bindings.row(port.id, host);
    record.ok_or_else(|| missing(port.id, host.as_str()))
}

/// Plugs a port on a host that is prepared for it. The former one stays prepared.
///
/// # Errors
///
/// 400: no port of a server. 404: none is prepared there. 409 `PortBindingAlreadyActive`.
fn activate(write: &mut Write<'_>, row: &Row<Port>, host: &HostId) -> Result<()> {
    let port = &row.value;
    check_compute(port)?;
    if port.binding.host_id.as_ref() == Some(host) {
        return Err(ApiError::conflict(
            "PortBindingAlreadyActive",
            format!(
                "Binding for port {} on host {host} is already active.",
                port.id
            ),
        ));
    }
    let record = &prepared(write.state, port, host)?.value;
    if !write.state.takes(host, port.network_id) {
        return Err(missing(port.id, host.as_str()));
    }
    if let Some(former) = &port.binding.host_id {
        let former_record = BindingRecord {
            vnic_type: port.binding.vnic_type,
            profile: port.binding.profile.clone(),
            status: port.status,
            taken_over: false,
        };
        write.create(keys::binding(port.id, former), &former_record)?;
    }
    let mut changed = port.as_ref().clone();
    changed.binding = record.on(host);
    follow(write, port, &mut changed)?;
    internal::change(write, row, |port| *port = changed).map(drop)
}

/// Deletes a binding; with the active one the port is bound nowhere.
///
/// # Errors
///
/// 404: there is none on that host.
fn delete(write: &mut Write<'_>, row: &Row<Port>, host: &HostId) -> Result<()> {
    let port = &row.value;
    if port.binding.host_id.as_ref() == Some(host) {
        let mut changed = port.as_ref().clone();
        changed.binding = Binding::default();
        follow(write, port, &mut changed)?;
        let_go(write, port, Some(&changed));
        return internal::change(write, row, |port| *port = changed).map(drop);
    }
    let record = prepared(write.state, port, host)?;
    write.remove(keys::binding(port.id, host), record.mod_revision);
    Ok(())
}

/// What a port's new binding means for its status, and for hosts that are prepared for it.
///
/// # Errors
///
/// 409 `ExposedInUse`: what it has of its host's own addresses another port has there.
pub fn follow(write: &mut Write<'_>, old: &Port, new: &mut Port) -> Result<()> {
    let moved = new.binding.host_id != old.binding.host_id;
    let elsewhere = migrating_to(new) != migrating_to(old);
    if moved {
        new.status = Status::Down;
    }
    if moved || elsewhere {
        write.quiet(keys::bindings_of(old.id));
        for (host, row) in write.state.bindings.of(old.id) {
            let key = keys::binding(old.id, host);
            if new.binding.host_id.as_ref() == Some(host) {
                new.status = row.value.status;
                write.remove(key, row.mod_revision);
            } else if row.value.taken_over {
                let mut record = row.value.as_ref().clone();
                record.taken_over = false;
                write.replace(key, row.mod_revision, &record)?;
            }
        }
    }
    if !new.admin_state_up {
        new.status = Status::Down;
    }
    exposed::follow(write, Some(old), new)
}

/// A port is deleted.
pub fn remove_all(write: &mut Write<'_>, port: PortId) {
    write.quiet(keys::bindings_of(port));
    for (host, row) in write.state.bindings.of(port) {
        write.remove(keys::binding(port, host), row.mod_revision);
    }
}

/// What a port has besides its own addresses, because its workload has said so, goes with its right to them, with
/// its place, and with itself.
pub fn let_go(write: &mut Write<'_>, old: &Port, new: Option<&Port>) {
    let state = write.state;
    let new = new.filter(|new| new.binding.host_id.is_some());
    if let (None, Some(row)) = (new, state.joins.row(old.id)) {
        write.remove(keys::joined(old.id), row.mod_revision);
    }
    let lost = |address: IpAddr| new.is_none_or(|new| !may_hold(new, address));
    let may_lose = match new {
        Some(new) => new.allowed_address_pairs != old.allowed_address_pairs,
        None => !old.allowed_address_pairs.is_empty(),
    };
    if may_lose {
        write.quiet(keys::holders_of(old.network_id));
    }
    for (network, address) in state.holders.by(old.id) {
        if let Some(row) = state
            .holders
            .row(network, address)
            .filter(|_| lost(address))
        {
            write.remove(keys::holder(network, address), row.mod_revision);
        }
    }
}

/// The port as it stands, for what is shown of a binding.
fn as_it_stands(state: &State, port: PortId) -> Option<Arc<Port>> {
    state.ports.get(&port).cloned()
}
