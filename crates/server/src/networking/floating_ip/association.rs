//! Which port a floating IP stands for, and which router translates.

use std::{
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
};

use hextet_api::{
    error::{ApiError, Result},
    resources,
};
use hextet_model::neutron::{FixedIp, FloatingIp, Port};
use hextet_types::{Family, NetworkId, PortId, RouterId};

use super::super::{entity::Entity, port::internal::is_of_router};
use crate::{
    keys,
    state::{NAT44_OWNER, table::Row},
    write::Write,
};

/// A request for a floating IP that cannot be fulfilled.
pub fn bad(reason: String) -> ApiError {
    let message = format!("Bad floatingip request: {reason}.");
    ApiError::new(400, "BadRequest", message)
}

/// Lets a floating IP that stands for nothing stand for one of a port's addresses.
///
/// # Errors
///
/// 404: no such port, or no router from it to the external network. 400: an address that the port
/// does not have, or that is not chosen. 409: another floating IP of that network stands for it.
pub fn associate(
    write: &mut Write<'_>,
    fip: &mut FloatingIp,
    port_id: PortId,
    wanted: Option<IpAddr>,
) -> Result<()> {
    let row = port_for(write, port_id, fip)?;
    let port = &row.value;
    let (fixed, address) = choose(port, wanted)?;
    check_alone(write, fip, port_id, address)?;
    let router = router_for(write, port, fixed, fip.floating_network_id)?;
    let key = keys::association(port_id, fip.floating_network_id, address);
    if !write.claim(key, fip.id.to_string()) {
        return Err(already(fip, port_id, address));
    }
    write.mark(keys::router_use(router, fip.id.0));
    fip.port_id = Some(port_id);
    fip.fixed_ip_address = Some(address);
    fip.router_id = Some(router);
    Ok(())
}

/// Takes a floating IP off what it stands for.
pub fn give_up(write: &mut Write<'_>, fip: &mut FloatingIp) {
    if let (Some(port), Some(address)) = (fip.port_id.take(), fip.fixed_ip_address.take()) {
        write.release(keys::association(port, fip.floating_network_id, address));
    }
    if let Some(router) = fip.router_id.take() {
        write.release(keys::router_use(router, fip.id.0));
    }
}

/// A port of the floating IP's project that can have one.
fn port_for<'s>(write: &mut Write<'s>, id: PortId, fip: &FloatingIp) -> Result<&'s Row<Port>> {
    let row = write.state.ports.row(&id);
    let row = row.filter(|r| r.value.is_visible(write.state, write.caller));
    let row = row.ok_or_else(|| resources::PORT.missing(id))?;
    let port = &row.value;
    if port.standard.project_id != fip.standard.project_id && !write.caller.admin {
        return Err(bad(format!(
            "Cannot process floating IP association with Port {id}, since that port is owned by a \
             different project"
        )));
    }
    let owner = port.device_owner.as_str();
    if is_of_router(owner) || [NAT44_OWNER, "network:dhcp"].contains(&owner) {
        return Err(bad(format!(
            "Port {id} is unable to be assigned a floating IP"
        )));
    }
    if write.state.layer3.forwardings_to(id).next().is_some() {
        return Err(ApiError::new(
            400,
            "PortHasPortForwarding",
            format!(
                "Cannot associate floating IP to port {id} because it already has a Port \
                 Forwarding binding."
            ),
        ));
    }
    write.unchanged(port.key(), row.mod_revision);
    write.quiet(keys::port_uses(id));
    Ok(row)
}

fn choose(port: &Port, wanted: Option<IpAddr>) -> Result<(FixedIp, Ipv4Addr)> {
    let ipv4 = port.fixed_ips.iter().filter_map(|f| match f.ip_address {
        IpAddr::V4(a) => Some((*f, a)),
        IpAddr::V6(_) => None,
    });
    let all: Vec<_> = ipv4.collect();
    match (wanted, all.as_slice()) {
        (Some(wanted), _) if Family::of(wanted) != Family::V4 => Err(bad(format!(
            "Cannot process floating IP association with {wanted}, since that is not an IPv4 \
             address"
        ))),
        (Some(wanted), all) => {
            let found = all.iter().find(|(f, _)| f.ip_address == wanted);
            found
                .copied()
                .ok_or_else(|| bad(format!("Port {} does not have fixed ip {wanted}", port.id)))
        }
        (None, [one]) => Ok(*one),
        (None, []) => Err(bad(format!(
            "Cannot add floating IP to port {} that has no fixed IPv4 addresses",
            port.id
        ))),
        (None, _) => Err(bad(format!(
            "Port {} has multiple fixed IPv4 addresses.  Must provide a specific IPv4 address when \
             assigning a floating IP",
            port.id
        ))),
    }
}

fn check_alone(write: &Write<'_>, fip: &FloatingIp, port: PortId, address: Ipv4Addr) -> Result<()> {
    let mut others = write.state.layer3.floating_ips_of(port);
    let same = |other: &FloatingIp| {
        other.id != fip.id
            && other.floating_network_id == fip.floating_network_id
            && other.fixed_ip_address == Some(address)
    };
    match others.any(|row| same(&row.value)) {
        true => Err(already(fip, port, address)),
        false => Ok(()),
    }
}

/// The error for a second floating IP of one network for one address.
pub fn already(fip: &FloatingIp, port: PortId, address: impl std::fmt::Display) -> ApiError {
    ApiError::conflict(
        "FloatingIPPortAlreadyAssociated",
        format!(
            "Cannot associate floating IP {} ({}) with port {port} using fixed IP {address}, as \
             that fixed IP already has a floating IP on external network {}.",
            fip.floating_ip_address, fip.id, fip.floating_network_id
        ),
    )
}

/// The router that has an interface on the address's subnet and a gateway on the external network:
/// the one that the subnet's clients are told of, if there are several.
///
/// # Errors
///
/// 404 `ExternalGatewayForFloatingIPNotFound`.
pub fn router_for(
    write: &mut Write<'_>,
    port: &Port,
    fixed: FixedIp,
    external: NetworkId,
) -> Result<RouterId> {
    let state = write.state;
    let gateway = state
        .subnets
        .get(&fixed.subnet_id)
        .and_then(|s| s.gateway_ip);
    let interfaces = state.layer3.interfaces_by_network.get(&port.network_id);
    let interfaces = interfaces.filter_map(|id| state.ports.get(id));
    let leads_out = |interface: &Arc<Port>| {
        let on = |f: &&FixedIp| f.subnet_id == fixed.subnet_id;
        let address = interface.fixed_ips.iter().find(on)?.ip_address;
        let id: RouterId = interface.device_id.parse().ok()?;
        let row = state.layer3.routers.row(&id)?;
        let out = row.value.gateways.iter().any(|g| g.network_id == external);
        out.then_some((Some(address) != gateway, row))
    };
    let Some((_, row)) = interfaces
        .filter_map(leads_out)
        .min_by_key(|(other, row)| (*other, row.value.id))
    else {
        return Err(ApiError::new(
            404,
            "ExternalGatewayForFloatingIPNotFound",
            format!(
                "External network {external} is not reachable from subnet {}.  Therefore, cannot \
                 associate Port {} with a Floating IP.",
                fixed.subnet_id, port.id
            ),
        ));
    };
    write.unchanged(row.value.key(), row.mod_revision);
    Ok(row.value.id)
}
