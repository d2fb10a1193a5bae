//! Port forwardings of floating IPs: which may stand beside each other.

pub mod serve;

use std::{
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
};

use hextet_api::{
    error::{ApiError, Result},
    request::Input,
    resources,
};
use hextet_model::neutron::{FixedIp, FloatingIp, Port, PortForwarding, PortRange};
use hextet_types::{FloatingIpId, PortForwardingId, PortId, RouterId};
use serde_json::{Value, json};
use uuid::Uuid;

use super::{
    super::{entity::Entity, port::internal::is_of_router},
    association::{already, router_for},
    put,
};
use crate::{keys, state::table::Row, write::Write};

/// Port forwardings of one floating IP.
pub const MAX_FORWARDINGS: usize = 100;

fn bad(reason: String) -> ApiError {
    let message = format!("Bad port_forwarding request: {reason}.");
    ApiError::new(400, "BadRequest", message)
}

/// What a floating IP tells of each.
pub fn brief(forwarding: &PortForwarding) -> Value {
    json!({
        "id": forwarding.id,
        "protocol": forwarding.protocol,
        "external_port": forwarding.external_port_range.single(),
        "external_port_range": forwarding.external_port_range,
        "internal_port": forwarding.internal_port_range.single(),
        "internal_port_range": forwarding.internal_port_range,
        "internal_ip_address": forwarding.internal_ip_address,
        "internal_port_id": forwarding.internal_port_id,
    })
}

/// Makes all of a request.
///
/// # Errors
///
/// 400: ports that others lead to or come from, ranges that do not fit, a port that is not reached.
/// 404: no such port. 409: the floating IP or the port is associated, or has too many.
pub fn create(
    write: &mut Write<'_>,
    row: &Row<FloatingIp>,
    inputs: &[Input],
) -> Result<Vec<Arc<PortForwarding>>> {
    let mut fip = row.value.as_ref().clone();
    let mut made: Vec<Arc<PortForwarding>> = Vec::new();
    for input in inputs {
        let port_id = input.take("internal_port_id")?;
        let (port, address) = target(write, port_id, input.get("internal_ip_address")?)?;
        let forwarding = PortForwarding {
            id: PortForwardingId(Uuid::new_v4()),
            project_id: fip.standard.project_id.clone(),
            description: input.take("description")?,
            floatingip_id: fip.id,
            protocol: input.take("protocol")?,
            external_port_range: range(input, "external")?.ok_or_else(|| missing("external"))?,
            internal_port_id: port_id,
            internal_ip_address: address,
            internal_port_range: range(input, "internal")?.ok_or_else(|| missing("internal"))?,
            revision_number: 1,
        };
        if fip.port_id.is_some() {
            return Err(already(&fip, port_id, address));
        }
        check(write, &forwarding, &made)?;
        fip.router_id = Some(reach(write, &fip, &port, address)?);
        mark(write, &forwarding, fip.router_id);
        write.create(key(&forwarding), &forwarding)?;
        made.push(Arc::new(forwarding));
    }
    let there = write.state.layer3.forwardings_of(fip.id).count();
    if there + made.len() > MAX_FORWARDINGS {
        return Err(ApiError::conflict(
            "OverQuota",
            format!("a floating IP has at most {MAX_FORWARDINGS} port forwardings"),
        ));
    }
    put(write, row, fip)?;
    Ok(made)
}

/// Changes one.
///
/// # Errors
///
/// As [`create`].
pub fn update(
    write: &mut Write<'_>,
    row: &Row<FloatingIp>,
    old: &Row<PortForwarding>,
    input: &Input,
) -> Result<Arc<PortForwarding>> {
    let mut forwarding = old.value.as_ref().clone();
    input.put("description", &mut forwarding.description)?;
    input.put("protocol", &mut forwarding.protocol)?;
    input.put("internal_port_id", &mut forwarding.internal_port_id)?;
    forwarding.external_port_range =
        range(input, "external")?.unwrap_or(forwarding.external_port_range);
    forwarding.internal_port_range =
        range(input, "internal")?.unwrap_or(forwarding.internal_port_range);
    let moves = forwarding.internal_port_id != old.value.internal_port_id;
    let wanted = match input.get("internal_ip_address")? {
        None if !moves => Some(forwarding.internal_ip_address.into()),
        wanted => wanted,
    };
    let (port, address) = target(write, forwarding.internal_port_id, wanted)?;
    forwarding.internal_ip_address = address;
    forwarding.revision_number += 1;
    check(write, &forwarding, &[])?;
    let router = reach(write, &row.value, &port, address)?;
    if moves {
        write.release(keys::forwarded(old.value.internal_port_id, old.value.id));
    }
    mark(write, &forwarding, Some(router));
    write.replace(key(&forwarding), old.mod_revision, &forwarding)?;
    put(write, row, row.value.as_ref().clone())?;
    Ok(Arc::new(forwarding))
}

/// Deletes one; [`follow`] has to come behind it.
pub fn remove(write: &mut Write<'_>, old: &Row<PortForwarding>) {
    let forwarding = &old.value;
    write.release(keys::forwarded(forwarding.internal_port_id, forwarding.id));
    write.remove(key(forwarding), old.mod_revision);
}

/// Brings a floating IP in line with the port forwardings that this write leaves it: without any, no
/// router translates it.
///
/// # Errors
///
/// It cannot be encoded.
pub fn follow(write: &mut Write<'_>, id: FloatingIpId) -> Result<()> {
    let state = write.state;
    let Some(row) = state.layer3.floating_ips.row(&id) else {
        return Ok(());
    };
    let mut fip = row.value.as_ref().clone();
    let mut all = state.layer3.forwardings_of(id);
    if all.all(|f| write.has_released(&key(f)))
        && let Some(router) = fip.router_id.take()
    {
        write.release(keys::router_use(router, id.0));
    }
    put(write, row, fip)
}

fn key(forwarding: &PortForwarding) -> bytes::Bytes {
    keys::port_forwarding(forwarding.floatingip_id, forwarding.id)
}

fn mark(write: &mut Write<'_>, forwarding: &PortForwarding, router: Option<RouterId>) {
    write.mark(keys::forwarded(forwarding.internal_port_id, forwarding.id));
    if let Some(router) = router {
        write.mark(keys::router_use(router, forwarding.floatingip_id.0));
    }
}

/// The ports of one side, by whichever of its two attributes names them.
fn range(input: &Input, side: &str) -> Result<Option<PortRange>> {
    let (one, many) = (format!("{side}_port"), format!("{side}_port_range"));
    let single: Option<u16> = input.get(&one)?;
    let single = single.and_then(|port| PortRange::new(port, port));
    match (single, input.get(&many)?) {
        (Some(a), Some(b)) if a != b => Err(bad(format!(
            "{one} and {many} are two names of one thing, and differ: {a} and {b}"
        ))),
        (a, b) => Ok(a.or(b)),
    }
}

fn missing(side: &str) -> ApiError {
    bad(format!(
        "either {side}_port or {side}_port_range is required"
    ))
}

/// The port, and which of its addresses.
fn target(
    write: &mut Write<'_>,
    id: PortId,
    wanted: Option<IpAddr>,
) -> Result<(Arc<Port>, Ipv4Addr)> {
    let row = write.state.ports.row(&id);
    let row = row.filter(|r| r.value.is_visible(write.state, write.caller));
    let row = row.ok_or_else(|| resources::PORT.missing(id))?;
    write.unchanged(row.value.key(), row.mod_revision);
    let port = Arc::clone(&row.value);
    let ipv4 = port.fixed_ips.iter().filter_map(|f| match f.ip_address {
        IpAddr::V4(a) => Some(a),
        IpAddr::V6(_) => None,
    });
    let all: Vec<_> = ipv4.collect();
    let found = match wanted {
        None => all.first(),
        Some(wanted) => all.iter().find(|a| IpAddr::V4(**a) == wanted),
    };
    match (found, wanted) {
        (Some(_), _) if is_of_router(&port.device_owner) => Err(bad(format!(
            "port {id} is a router's or a floating IP's; name a port of a workload"
        ))),
        (Some(address), _) => Ok((Arc::clone(&port), *address)),
        (None, None) => Err(bad(format!(
            "Requested internal port {id} must allocate an IPv4 address at least"
        ))),
        (None, Some(wanted)) => Err(bad(format!(
            "Requested internal IP address {wanted} is not suitable for internal neutron port \
             {id}, as its fixed_ips are {}",
            json!(port.fixed_ips)
        ))),
    }
}

/// The ranges fit each other, and lead neither from nor to where others do.
fn check(
    write: &mut Write<'_>,
    forwarding: &PortForwarding,
    made: &[Arc<PortForwarding>],
) -> Result<()> {
    let state = write.state;
    let internal = forwarding.internal_port_range.count();
    if internal > 1 && internal != forwarding.external_port_range.count() {
        return Err(bad(
            "Invalid ranges of internal and/or external ports. The relation between internal and \
             external ports must be N-N or 1-N"
                .into(),
        ));
    }
    check_unassociated(write, forwarding)?;
    let port = forwarding.internal_port_id;
    let alike =
        |f: &&Arc<PortForwarding>| f.id != forwarding.id && f.protocol == forwarding.protocol;
    let inside = state.layer3.forwardings_to(port).chain(made).filter(alike);
    let same_address = |f: &&Arc<PortForwarding>| {
        f.internal_port_id == port && f.internal_ip_address == forwarding.internal_ip_address
    };
    let own = forwarding.internal_port_range;
    let mut ranges = inside.filter(same_address).map(|f| f.internal_port_range);
    if let Some(other) = ranges.find(|r| r.overlaps(own)) {
        return Err(collision("internal_port_range", other, own));
    }
    let fip = forwarding.floatingip_id;
    let outside = state.layer3.forwardings_of(fip).chain(made).filter(alike);
    let own = forwarding.external_port_range;
    let mut ranges = outside.map(|f| f.external_port_range);
    if let Some(other) = ranges.find(|r| r.overlaps(own)) {
        return Err(collision("external_port_range", other, own));
    }
    write.quiet(keys::port_uses(port));
    write.quiet(keys::forwardings_of(fip));
    Ok(())
}

fn collision(which: &str, there: PortRange, asked: PortRange) -> ApiError {
    bad(format!(
        "There is a port collision with the {which}. The following ranges collide: {there} and \
         {asked}"
    ))
}

fn check_unassociated(write: &Write<'_>, forwarding: &PortForwarding) -> Result<()> {
    let port = forwarding.internal_port_id;
    let Some(row) = write.state.layer3.floating_ips_of(port).next() else {
        return Ok(());
    };
    Err(ApiError::conflict(
        "PortHasBindingFloatingIP",
        format!(
            "Cannot create port forwarding to floating IP {} ({}) with port {port} using fixed IP \
             {}, as that port already has a binding floating IP.",
            row.value.floating_ip_address, row.value.id, forwarding.internal_ip_address
        ),
    ))
}

/// The router between them: all port forwardings of a floating IP have the same.
fn reach(
    write: &mut Write<'_>,
    fip: &FloatingIp,
    port: &Port,
    address: Ipv4Addr,
) -> Result<RouterId> {
    let fixed = port.fixed_ips.iter().find(|f| f.ip_address == address);
    let fixed: FixedIp = *fixed.ok_or_else(|| resources::PORT.missing(port.id))?;
    let found = router_for(write, port, fixed, fip.floating_network_id).map_err(|_| {
        bad(format!(
            "External network {} is not reachable from subnet {}. Cannot set Port forwarding for \
             port {} with Floating IP {}",
            fip.floating_network_id, fixed.subnet_id, port.id, fip.id
        ))
    })?;
    match fip.router_id.filter(|r| *r != found) {
        None => Ok(found),
        Some(router) => Err(bad(format!(
            "The Floating IP {} had been set on router {router}, the internal Neutron port {} can \
             not reach it",
            fip.id, port.id
        ))),
    }
}
