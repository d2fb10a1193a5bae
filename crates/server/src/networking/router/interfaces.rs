//! A router's places on networks: by subnet it takes the address that clients are told as their
//! router, by port it takes the port as it is.

use std::sync::Arc;

use hextet_api::{
    error::{ApiError, Result},
    resources,
};
use hextet_model::neutron::{Network, NetworkType, Port, RbacAction, Router, Subnet};
use hextet_types::{Family, NetworkId, PortId, RouterId, SubnetId};
use serde_json::{Value, json};

use super::{Attached, any_ipv6, bad, put};
use crate::{
    keys,
    networking::{
        allocate::{is_automatic, take_gateway},
        entity::Entity,
        network::is_network_owner,
        port::internal::{self, Purpose},
        serve::{changeable, visible},
    },
    state::{State, table::Row},
    write::Write,
};

/// What a request names.
#[derive(Clone, Copy, Debug)]
pub(super) struct Named {
    pub subnet: Option<SubnetId>,
    pub port: Option<PortId>,
}

/// What is answered: the interface's port, and the subnets that it is about.
pub(super) struct Interface {
    router: RouterId,
    port: Arc<Port>,
    subnets: Vec<SubnetId>,
}

impl Interface {
    /// As clients are told; the single subnet is the last one when it is added, else the first.
    pub fn show(&self, added: bool) -> Value {
        let subnet = match added {
            true => self.subnets.last(),
            false => self.subnets.first(),
        };
        let project = &self.port.standard.project_id;
        json!({
            "id": self.router,
            "project_id": project,
            "tenant_id": project,
            "port_id": self.port.id,
            "network_id": self.port.network_id,
            "subnet_id": subnet,
            "subnet_ids": self.subnets,
        })
    }
}

/// Puts a router on a subnet, or on those of a port.
///
/// # Errors
///
/// 400: it cannot be there. 404: no such subnet or port. 409: the port or the address is in use.
pub(super) fn add(write: &mut Write<'_>, row: &Row<Router>, named: Named) -> Result<Interface> {
    let mut attached = Attached::of(write.state, &row.value);
    let (port, subnets) = match (named.subnet, named.port) {
        (Some(_), Some(_)) => return Err(bad("Cannot specify both subnet-id and port-id")),
        (Some(subnet), None) => by_subnet(write, &row.value, &attached, subnet)?,
        (None, Some(port)) => by_port(write, &row.value, &attached, port)?,
        (None, None) => return Err(bad("Either subnet_id or port_id must be specified")),
    };
    attached.interfaces.retain(|p| p.id != port.id);
    attached.interfaces.push(Arc::clone(&port));
    put(write, row, row.value.as_ref().clone(), &attached)?;
    Ok(Interface {
        router: row.value.id,
        port,
        subnets,
    })
}

type Placed = (Arc<Port>, Vec<SubnetId>);

fn by_subnet(
    write: &mut Write<'_>,
    router: &Router,
    attached: &Attached,
    id: SubnetId,
) -> Result<Placed> {
    let state = write.state;
    let row = visible::<Subnet>(state, write.caller, &id.to_string())?;
    let subnet = &row.value;
    let Some(gateway) = subnet.gateway_ip else {
        return Err(bad("Subnet for router interface must have a gateway IP"));
    };
    check_lent(write, subnet)?;
    check_mode(subnet)?;
    let network = private(state, subnet.network_id)?;
    attached.check_apart(state, std::slice::from_ref(subnet), false)?;
    write.unchanged(subnet.key(), row.mod_revision);
    let same = |p: &&Arc<Port>| p.network_id == network.id && any_ipv6(&p.fixed_ips);
    let shared = attached.interfaces.iter().find(same);
    let shared = shared.filter(|_| subnet.family() == Family::V6);
    if let Some(there) = shared.and_then(|p| state.ports.row(&p.id)) {
        let fixed = take_gateway(write, network, subnet, gateway)?;
        let port = internal::change(write, there, |port| port.fixed_ips.push(fixed))?;
        return Ok((port, vec![id]));
    }
    let purpose = Purpose {
        project: router.standard.project_id.clone(),
        owner: Router::INTERFACE_OWNER,
        device: router.id.0,
    };
    let port = internal::create(write, network, purpose, |write, _| {
        Ok(vec![take_gateway(write, network, subnet, gateway)?])
    })?;
    Ok((port, vec![id]))
}

/// A network that a router can be put on.
///
/// # Errors
///
/// 400: it is routed.
fn private(state: &State, id: NetworkId) -> Result<&Arc<Network>> {
    let network = state.networks.get(&id);
    let network = network.ok_or_else(|| resources::NETWORK.missing(id))?;
    if network.network_type == NetworkType::Vxlan {
        return Ok(network);
    }
    Err(bad(format!(
        "Network {id} is routed: it reaches other routed networks and the outside without a router. Routers \
         connect private networks (provider:network_type vxlan)"
    )))
}

/// On somebody else's subnet a router is only put where its network is shared with just this
/// project.
fn check_lent(write: &Write<'_>, subnet: &Subnet) -> Result<()> {
    let caller = write.caller;
    let action = RbacAction::AccessAsShared;
    let grants = &write.state.grants;
    let network = write.state.networks.get(&subnet.network_id);
    let own = caller.admin
        || subnet.standard.project_id == caller.project
        || network.is_some_and(|n| is_network_owner(n, caller));
    if own || grants.names(subnet.network_id.0, action, &caller.project) {
        return Ok(());
    }
    Err(bad(format!(
        "Cannot add interface to router because subnet {} is not owned by project making the \
         request",
        subnet.id
    )))
}

/// Where another router tells the prefix, ours is not the subnet's.
fn check_mode(subnet: &Subnet) -> Result<()> {
    if subnet.ipv6_ra_mode.is_none() && subnet.ipv6_address_mode.is_some() && is_automatic(subnet) {
        return Err(bad(format!(
            "IPv6 subnet {} configured to receive RAs from an external router cannot be added to \
             Neutron Router",
            subnet.id
        )));
    }
    Ok(())
}

fn by_port(
    write: &mut Write<'_>,
    router: &Router,
    attached: &Attached,
    id: PortId,
) -> Result<Placed> {
    let state = write.state;
    let row = changeable::<Port>(state, write.caller, &id.to_string(), "update")?;
    let port = &row.value;
    let used = !port.device_id.is_empty() || port.binding.host_id.is_some();
    if used {
        return Err(ApiError::conflict(
            "PortInUse",
            format!(
                "Unable to complete operation on port {id} for network {}. Port already has an \
                 attached device {}.",
                port.network_id, port.device_id
            ),
        ));
    }
    private(state, port.network_id)?;
    if port.fixed_ips.is_empty() {
        return Err(bad("Router port must have at least one fixed IP"));
    }
    let ids: Vec<SubnetId> = port.fixed_ips.iter().map(|f| f.subnet_id).collect();
    let subnets: Vec<_> = ids
        .iter()
        .filter_map(|id| state.subnets.get(id).cloned())
        .collect();
    for subnet in &subnets {
        check_mode(subnet)?;
    }
    let mate = |p: &&Arc<Port>| p.network_id == port.network_id && any_ipv6(&p.fixed_ips);
    if let Some(mate) = attached.interfaces.iter().find(mate)
        && any_ipv6(&port.fixed_ips)
    {
        return Err(bad(format!(
            "Router already contains IPv6 port {} belonging to network id {}. Only one IPv6 port \
             from the same network subnet can be connected to a router.",
            mate.id, mate.network_id
        )));
    }
    attached.check_apart(state, &subnets, false)?;
    if subnets.iter().filter(|s| s.family() == Family::V4).count() > 1 {
        return Err(bad("Cannot have multiple IPv4 subnets on router port"));
    }
    let used_by = state.layer3.floating_ips_of(id).next().is_some()
        || state.layer3.forwardings_to(id).next().is_some()
        || state.layer3.proxies_of(id).next().is_some();
    if used_by {
        return Err(bad(format!(
            "port {id} has a floating IP, port forwardings or NDP proxies; take them away first"
        )));
    }
    write.quiet(keys::port_uses(id));
    let device = router.id.to_string();
    let port = internal::change(write, row, |port| {
        port.device_id = device;
        Router::INTERFACE_OWNER.clone_into(&mut port.device_owner);
    })?;
    Ok((port, ids))
}

/// Takes a router off a subnet, or its port away.
///
/// # Errors
///
/// 404: it is not there. 409: somebody depends on it.
pub(super) fn remove(write: &mut Write<'_>, row: &Row<Router>, named: Named) -> Result<Interface> {
    let mut attached = Attached::of(write.state, &row.value);
    let router = &row.value;
    let (port, subnets) = match (named.port, named.subnet) {
        (Some(port), subnet) => whole(&attached, router, port, subnet)?,
        (None, Some(subnet)) => of_subnet(write, &attached, router, subnet)?,
        (None, None) => return Err(bad("Either subnet_id or port_id must be specified")),
    };
    for subnet in &subnets {
        check_unused(write, router, *subnet)?;
    }
    write.quiet(keys::router_uses(router.id));
    attached.interfaces.retain(|p| p.id != port.id);
    let rest = port.fixed_ips.iter().copied();
    let rest: Vec<_> = rest.filter(|f| !subnets.contains(&f.subnet_id)).collect();
    let state = write.state;
    match state.ports.row(&port.id) {
        Some(there) if !rest.is_empty() => {
            for gone in port.fixed_ips.iter().filter(|f| !rest.contains(f)) {
                write.release(keys::address(gone.subnet_id, gone.ip_address));
            }
            let left = internal::change(write, there, |port| port.fixed_ips = rest)?;
            attached.interfaces.push(left);
        }
        _ => internal::delete(write, port.id),
    }
    put(write, row, router.as_ref().clone(), &attached)?;
    Ok(Interface {
        router: router.id,
        port,
        subnets,
    })
}

/// All of a port.
fn whole(
    attached: &Attached,
    router: &Router,
    id: PortId,
    subnet: Option<SubnetId>,
) -> Result<Placed> {
    let port = attached.interfaces.iter().find(|p| p.id == id);
    let port = port.ok_or_else(|| {
        ApiError::new(
            404,
            "RouterInterfaceNotFound",
            format!(
                "Router {} does not have an interface with id {id}",
                router.id
            ),
        )
    })?;
    let subnets: Vec<SubnetId> = port.fixed_ips.iter().map(|f| f.subnet_id).collect();
    match subnet.filter(|s| !subnets.contains(s)) {
        None => Ok((Arc::clone(port), subnets)),
        Some(subnet) => Err(ApiError::conflict(
            "SubnetMismatchForPort",
            format!("Subnet on port {id} does not match the requested subnet {subnet}."),
        )),
    }
}

fn of_subnet(
    write: &Write<'_>,
    attached: &Attached,
    router: &Router,
    id: SubnetId,
) -> Result<Placed> {
    visible::<Subnet>(write.state, write.caller, &id.to_string())?;
    let mut interfaces = attached.interfaces.iter();
    let port = interfaces.find(|p| p.fixed_ips.iter().any(|f| f.subnet_id == id));
    let port = port.ok_or_else(|| {
        ApiError::new(
            404,
            "RouterInterfaceNotFoundForSubnet",
            format!("Router {} has no interface on subnet {id}", router.id),
        )
    })?;
    Ok((Arc::clone(port), vec![id]))
}

fn check_unused(write: &Write<'_>, router: &Router, id: SubnetId) -> Result<()> {
    let state = write.state;
    let Some(subnet) = state.subnets.get(&id) else {
        return Ok(());
    };
    let here = |port: PortId, address: std::net::IpAddr| state.owner(id, address) == Some(port);
    for fip in state.layer3.floating_ips_through(router.id) {
        let own = fip.port_id.zip(fip.fixed_ip_address);
        let forwarded = state.layer3.forwardings_of(fip.id);
        let forwarded = forwarded.map(|f| (f.internal_port_id, f.internal_ip_address));
        if own
            .into_iter()
            .chain(forwarded)
            .any(|(p, a)| here(p, a.into()))
        {
            return Err(required(
                "RouterInterfaceInUseByFloatingIP",
                router,
                id,
                "floating IPs",
            ));
        }
    }
    let mut proxies = state.layer3.proxies_through(router.id);
    if proxies.any(|p| here(p.port_id, p.ip_address.into())) {
        return Err(ApiError::conflict(
            "RouterInterfaceInUseByNDPProxy",
            format!(
                "Unable to remove subnet {id} from router {}, There are one or more ndp proxies \
                 still in use on the subnet.",
                router.id
            ),
        ));
    }
    if router
        .routes
        .iter()
        .any(|r| subnet.cidr.contains(r.nexthop))
    {
        return Err(required(
            "RouterInterfaceInUseByRoute",
            router,
            id,
            "routes",
        ));
    }
    Ok(())
}

fn required(kind: &'static str, router: &Router, subnet: SubnetId, by: &str) -> ApiError {
    ApiError::conflict(
        kind,
        format!(
            "Router interface for subnet {subnet} on router {} cannot be deleted, as it is \
             required by one or more {by}.",
            router.id
        ),
    )
}
