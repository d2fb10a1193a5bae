//! Routers: what they connect, and when that may change.

pub mod actions;
mod attached;
mod gateways;
mod interfaces;
mod routes;

use std::{net::IpAddr, sync::Arc};

use bytes::Bytes;
use hextet_api::{
    describe::Resource,
    error::{ApiError, Result},
    query::Query,
    request::{Caller, Input},
    resources,
};
use hextet_model::neutron::{FixedIp, Port, Router, Standard, Status};
use hextet_types::{Family, HostId, ProjectId, RouterId, SubnetId};
use serde_json::{Value, json};
use uuid::Uuid;

use super::{
    catalogue::ZONE,
    entity::{Entity, standard_value, wanted_ids},
    network::zone_hints,
    subnet::pool::scope_of,
};
use crate::{
    agents::gateway,
    keys,
    state::{State, table::Row},
    write::Write,
};
use attached::Attached;
use gateways::Wish;

/// What is shown of a router that others say.
pub struct Around {
    /// The addresses of its gateways, one by one.
    addresses: Vec<Vec<FixedIp>>,
    gateway_host: Option<HostId>,
}

impl Entity for Router {
    const RESOURCE: &'static Resource = &resources::ROUTER;
    type Extra = Around;

    fn id(&self) -> Uuid {
        self.id.0
    }

    fn project(&self) -> &ProjectId {
        &self.standard.project_id
    }

    fn revision(&self) -> u64 {
        self.standard.revision_number
    }

    fn key(&self) -> Bytes {
        keys::router(self.id)
    }

    fn standard_mut(&mut self) -> Option<&mut Standard> {
        Some(&mut self.standard)
    }

    fn find<'s>(state: &'s State, id: &str) -> Option<&'s Row<Self>> {
        state.layer3.routers.row(&id.parse().ok()?)
    }

    fn candidates(state: &State, query: &Query, _caller: &Caller) -> Vec<Arc<Self>> {
        let routers = &state.layer3.routers;
        match wanted_ids::<RouterId>(query, "id") {
            Some(ids) => ids
                .iter()
                .filter_map(|id| routers.get(id))
                .cloned()
                .collect(),
            None => routers.values().cloned().collect(),
        }
    }

    fn is_visible(&self, state: &State, caller: &Caller) -> bool {
        self.is_owned(state, caller)
    }

    fn extra(&self, state: &State) -> Self::Extra {
        let port = |g: &hextet_model::neutron::RouterGateway| state.ports.get(&g.port_id);
        let fixed = |g| port(g).map(|p| p.fixed_ips.clone()).unwrap_or_default();
        let record = state.layer3.gateways.get(&self.id);
        Around {
            addresses: self.gateways.iter().map(fixed).collect(),
            gateway_host: record.and_then(|r| r.host.clone()),
        }
    }

    fn value(&self, around: &Around, attribute: &str) -> Value {
        let gateways = || {
            let both = self.gateways.iter().zip(&around.addresses);
            both.map(|(gateway, addresses)| {
                json!({
                    "network_id": gateway.network_id,
                    "enable_snat": self.enable_snat,
                    "external_fixed_ips": addresses,
                    "qos_policy_id": gateway.qos_policy_id,
                })
            })
        };
        match attribute {
            "id" => json!(self.id),
            "admin_state_up" => json!(self.admin_state_up),
            "status" => json!(Status::Active),
            "external_gateway_info" => json!(gateways().next()),
            "external_gateways" => gateways().collect(),
            "routes" => json!(self.routes),
            "enable_ndp_proxy" => json!(self.enable_ndp_proxy),
            "enable_default_route_ecmp" => json!(self.enable_default_route_ecmp),
            "enable_default_route_bfd" => json!(self.enable_default_route_bfd),
            "availability_zone_hints" => json!(self.availability_zone_hints),
            "availability_zones" => json!([ZONE]),
            "hextet:gateway_host" => json!(around.gateway_host),
            _ => standard_value(&self.standard, attribute),
        }
    }

    fn create(write: &mut Write<'_>, input: &Input) -> Result<Arc<Self>> {
        let mut router = Router {
            id: RouterId(Uuid::new_v4()),
            standard: write.standard(input)?,
            admin_state_up: input.take("admin_state_up")?,
            gateways: Vec::new(),
            enable_snat: true,
            routes: Vec::new(),
            enable_ndp_proxy: input.take("enable_ndp_proxy")?,
            enable_default_route_ecmp: input.take("enable_default_route_ecmp")?,
            enable_default_route_bfd: input.take("enable_default_route_bfd")?,
            availability_zone_hints: zone_hints(input)?,
        };
        let mut attached = Attached::default();
        let wish: Option<Wish> = input.get("external_gateway_info")?;
        if let Some(wish) = &wish {
            gateways::check_allowed(write, wish, "create")?;
            gateways::set_first(write, &mut router, &mut attached, Some(wish))?;
        }
        check_ndp(write, &router, &attached)?;
        let quota = resources::ROUTER.quota.unwrap_or(resources::PUBLIC_IPV4);
        write.use_quota(&router.standard.project_id, quota, 1);
        write.create(router.key(), &router)?;
        Ok(Arc::new(router))
    }

    fn update(write: &mut Write<'_>, old: &Row<Self>, input: &Input) -> Result<Arc<Self>> {
        let mut router = old.value.as_ref().clone();
        let mut attached = Attached::of(write.state, &router);
        input.put("name", &mut router.standard.name)?;
        input.put("description", &mut router.standard.description)?;
        input.put("admin_state_up", &mut router.admin_state_up)?;
        input.put(
            "enable_default_route_ecmp",
            &mut router.enable_default_route_ecmp,
        )?;
        input.put(
            "enable_default_route_bfd",
            &mut router.enable_default_route_bfd,
        )?;
        input.put("enable_ndp_proxy", &mut router.enable_ndp_proxy)?;
        if input.names("external_gateway_info") {
            let wish: Option<Wish> = input.get("external_gateway_info")?;
            if let Some(wish) = &wish {
                gateways::check_allowed(write, wish, "update")?;
            }
            gateways::set_first(write, &mut router, &mut attached, wish.as_ref())?;
            if router.gateways.is_empty() && router.enable_ndp_proxy {
                if input.names("enable_ndp_proxy") {
                    return Err(no_ndp(&router));
                }
                router.enable_ndp_proxy = false;
            }
        }
        if input.names("hextet:gateway_host") {
            let host: Option<String> = input.get("hextet:gateway_host")?;
            let host: Option<HostId> = match host.filter(|h| !h.is_empty()) {
                Some(host) => Some(host.parse().map_err(ApiError::invalid_input)?),
                None => None,
            };
            if let Some(host) = &host {
                gateway::check(write.state, &router, host)?;
            }
            gateway::set(write, old, host.as_ref())?;
        }
        if input.names("routes") {
            router.routes = input.get("routes")?.unwrap_or_default();
        }
        put(write, old, router, &attached)
    }

    fn delete(write: &mut Write<'_>, old: &Row<Self>) -> Result<()> {
        let router = &old.value;
        let ports = write.state.interfaces_of(router.id);
        let ports: Vec<String> = ports.map(|row| row.value.id.to_string()).collect();
        if !ports.is_empty() {
            return Err(ApiError::conflict(
                "RouterInUse",
                format!(
                    "Router {} has ports still attached: {}",
                    router.id,
                    ports.join(", ")
                ),
            ));
        }
        let mut bare = router.as_ref().clone();
        gateways::remove_all(write, &mut bare, &mut Attached::default());
        gateways::check_losses(write, router, &bare)?;
        gateway::release(write, router.id);
        write.remove(router.key(), old.mod_revision);
        Ok(())
    }
}

/// Puts a router as this write has changed it, if what it does can still be done.
///
/// # Errors
///
/// 400: routes that lead nowhere. 409: somebody depends on a gateway that goes; too many routes; NDP
/// proxies without IPv6 outside.
fn put(
    write: &mut Write<'_>,
    old: &Row<Router>,
    mut router: Router,
    attached: &Attached,
) -> Result<Arc<Router>> {
    gateways::check_losses(write, &old.value, &router)?;
    routes::check(write, &old.value, &router, attached)?;
    let gateways_stay = old.value.gateways == router.gateways;
    if router.enable_ndp_proxy && !(old.value.enable_ndp_proxy && gateways_stay) {
        check_ndp(write, &router, attached)?;
    } else if router.enable_ndp_proxy && !router.gateways.is_empty() && !attached.has_ipv6_outside()
    {
        return Err(ApiError::conflict(
            "RouterIPv6GatewayInUse",
            format!(
                "Can't remove the IPv6 subnet from external gateway of router {}, the IPv6 subnet \
                 in use by the router's ndp proxy.",
                router.id
            ),
        ));
    }
    if router.gateways.is_empty() {
        gateway::release(write, router.id);
    }
    router.standard.revision_number += 1;
    router.standard.updated_at = write.now;
    write.replace(router.key(), old.mod_revision, &router)?;
    Ok(Arc::new(router))
}

/// A router's interface has got other addresses: out of the subnets that it is on, and none that its
/// routes lead to.
///
/// # Errors
///
/// 400.
pub fn readdressed(write: &mut Write<'_>, old: &Port, new: &Port) -> Result<()> {
    if new.device_owner != Router::INTERFACE_OWNER {
        return Ok(());
    }
    let subnets = |port: &Port| -> Vec<SubnetId> {
        let mut all: Vec<_> = port.fixed_ips.iter().map(|f| f.subnet_id).collect();
        all.sort_unstable();
        all
    };
    if subnets(old) != subnets(new) {
        return Err(bad(format!(
            "port {} has one address of each subnet that its router is on: add_router_interface \
             and remove_router_interface change these",
            new.id
        )));
    }
    let id = new.device_id.parse::<RouterId>().ok();
    let Some(row) = id.and_then(|id| write.state.layer3.routers.row(&id)) else {
        return Ok(());
    };
    let mut attached = Attached::of(write.state, &row.value);
    attached.interfaces.retain(|p| p.id != new.id);
    attached.interfaces.push(Arc::new(new.clone()));
    put(write, row, row.value.as_ref().clone(), &attached).map(drop)
}

/// NDP proxies need a gateway with IPv6, in an address scope; without any gateway they wait for one, since
/// the `openstack` client asks for the gateway last.
fn check_ndp(write: &Write<'_>, router: &Router, attached: &Attached) -> Result<()> {
    if !router.enable_ndp_proxy || router.gateways.is_empty() {
        return Ok(());
    }
    let scoped = router.gateways.first().is_some_and(|gateway| {
        let network = write.state.networks.get(&gateway.network_id);
        network.is_some_and(|n| scope_of(write.state, n, Family::V6).is_some())
    });
    if scoped && attached.has_ipv6_outside() {
        return Ok(());
    }
    Err(no_ndp(router))
}

fn no_ndp(router: &Router) -> ApiError {
    ApiError::conflict(
        "RouterGatewayNotValid",
        format!(
            "Can not enable ndp proxy on router {}, The router has no external gateway or the \
             external gateway port has no IPv6 address or IPv6 address scope.",
            router.id
        ),
    )
}

/// A request for a router that cannot be fulfilled.
fn bad(reason: impl std::fmt::Display) -> ApiError {
    let message = format!("Bad router request: {reason}.");
    ApiError::new(400, "BadRequest", message)
}

/// Whether one of the addresses is IPv6.
fn any_ipv6(fixed: &[FixedIp]) -> bool {
    fixed.iter().any(|f| matches!(f.ip_address, IpAddr::V6(_)))
}

#[cfg(test)]
mod tests;
