//! NDP proxies: single IPv6 addresses that are reachable from outside by way of a router.

use std::{
    net::{IpAddr, Ipv6Addr},
    sync::Arc,
};

use bytes::Bytes;
use hextet_api::{
    describe::Resource,
    error::{ApiError, Result},
    query::Query,
    request::{Caller, Input},
    resources,
};
use hextet_model::neutron::{FixedIp, NdpProxy, Port, Router, Standard};
use hextet_types::{
    AddressScopeId, Family, NdpProxyId, NetworkId, PortId, ProjectId, RouterId, SubnetId,
};
use serde_json::{Value, json};
use uuid::Uuid;

use super::{
    entity::{Entity, standard_value, wanted_ids},
    serve::visible,
    subnet::pool::scope_of,
};
use crate::{
    keys,
    state::{State, table::Row},
    write::Write,
};

impl Entity for NdpProxy {
    const RESOURCE: &'static Resource = &resources::NDP_PROXY;
    type Extra = ();

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
        keys::ndp_proxy(self.id)
    }

    fn standard_mut(&mut self) -> Option<&mut Standard> {
        Some(&mut self.standard)
    }

    fn find<'s>(state: &'s State, id: &str) -> Option<&'s Row<Self>> {
        state.layer3.proxies.row(&id.parse().ok()?)
    }

    fn candidates(state: &State, query: &Query, _caller: &Caller) -> Vec<Arc<Self>> {
        let layer3 = &state.layer3;
        let all = |ids: &mut dyn Iterator<Item = NdpProxyId>| -> Vec<Arc<Self>> {
            ids.filter_map(|id| layer3.proxies.get(&id))
                .cloned()
                .collect()
        };
        if let Some(ids) = wanted_ids::<NdpProxyId>(query, "id") {
            return all(&mut ids.into_iter());
        }
        if let Some(ports) = wanted_ids::<PortId>(query, "port_id") {
            let of = |p| layer3.proxies_by_port.get(p);
            return all(&mut ports.iter().flat_map(of).copied());
        }
        if let Some(routers) = wanted_ids::<RouterId>(query, "router_id") {
            let of = |r| layer3.proxies_by_router.get(r);
            return all(&mut routers.iter().flat_map(of).copied());
        }
        layer3.proxies.values().cloned().collect()
    }

    fn is_visible(&self, state: &State, caller: &Caller) -> bool {
        self.is_owned(state, caller)
    }

    fn extra(&self, _state: &State) {}

    fn value(&self, _extra: &(), attribute: &str) -> Value {
        match attribute {
            "id" => json!(self.id),
            "router_id" => json!(self.router_id),
            "port_id" => json!(self.port_id),
            "ip_address" => json!(self.ip_address),
            _ => standard_value(&self.standard, attribute),
        }
    }

    fn create(write: &mut Write<'_>, input: &Input) -> Result<Arc<Self>> {
        let (router_id, port_id): (String, String) =
            (input.take("router_id")?, input.take("port_id")?);
        let (state, caller) = (write.state, write.caller);
        let router = visible::<Router>(state, caller, &router_id)?;
        let port = visible::<Port>(state, caller, &port_id)?;
        write.unchanged(router.value.key(), router.mod_revision);
        write.unchanged(port.value.key(), port.mod_revision);
        let (router, port) = (&router.value, &port.value);
        let subnets = router_subnets(state, router, port)?;
        check_scopes_ready(router)?;
        let ip_address = choose(router, port, &subnets, input.get("ip_address")?)?;
        check_scopes(write, router, port)?;
        let proxy = NdpProxy {
            id: NdpProxyId(Uuid::new_v4()),
            standard: write.standard(input)?,
            router_id: router.id,
            port_id: port.id,
            ip_address,
        };
        claim(write, &proxy)?;
        write.mark(keys::router_use(router.id, proxy.id.0));
        write.create(proxy.key(), &proxy)?;
        Ok(Arc::new(proxy))
    }

    fn update(write: &mut Write<'_>, old: &Row<Self>, input: &Input) -> Result<Arc<Self>> {
        let mut proxy = old.value.as_ref().clone();
        write.touch(&mut proxy.standard, input)?;
        write.replace(proxy.key(), old.mod_revision, &proxy)?;
        Ok(Arc::new(proxy))
    }

    fn delete(write: &mut Write<'_>, old: &Row<Self>) -> Result<()> {
        remove(write, old);
        Ok(())
    }
}

/// Deletes one with its claims.
pub fn remove(write: &mut Write<'_>, old: &Row<NdpProxy>) {
    let proxy = &old.value;
    write.release(keys::proxied(proxy.port_id, proxy.ip_address));
    write.release(keys::router_use(proxy.router_id, proxy.id.0));
    write.remove(proxy.key(), old.mod_revision);
}

fn unreachable(router: &Router, port: &Port) -> ApiError {
    ApiError::conflict(
        "PortUnreachableRouter",
        format!(
            "The port {} cannot reach the router {} by IPv6 subnet.",
            port.id, router.id
        ),
    )
}

/// The subnets of the port's network that the router has interfaces on.
fn router_subnets(state: &State, router: &Router, port: &Port) -> Result<Vec<SubnetId>> {
    let interfaces = state.interfaces_of(router.id);
    let here: Vec<_> = interfaces
        .filter(|row| row.value.network_id == port.network_id)
        .collect();
    if here.is_empty() {
        return Err(unreachable(router, port));
    }
    let fixed = here.iter().flat_map(|row| &row.value.fixed_ips);
    Ok(fixed.map(|f| f.subnet_id).collect())
}

fn check_scopes_ready(router: &Router) -> Result<()> {
    if router.enable_ndp_proxy && !router.gateways.is_empty() {
        return Ok(());
    }
    Err(ApiError::conflict(
        "RouterNDPProxyNotEnable",
        format!(
            "The enable_ndp_proxy parameter of router {} must be set as True while create ndp \
             proxy entry on it.",
            router.id
        ),
    ))
}

fn choose(
    router: &Router,
    port: &Port,
    subnets: &[SubnetId],
    wanted: Option<IpAddr>,
) -> Result<Ipv6Addr> {
    let ipv6 = |f: &FixedIp| match f.ip_address {
        IpAddr::V6(a) => Some((f.subnet_id, a)),
        IpAddr::V4(_) => None,
    };
    let all: Vec<_> = port.fixed_ips.iter().filter_map(ipv6).collect();
    if all.is_empty() {
        let reason = format!(
            "Requested port {} must allocate one IPv6 address at least",
            port.id
        );
        let message = format!("Bad ndp_proxy request: {reason}.");
        return Err(ApiError::new(400, "BadRequest", message));
    }
    let Some(wanted) = wanted else {
        let mut reached = all.iter().filter(|(subnet, _)| subnets.contains(subnet));
        let (_, address) = reached.next().ok_or_else(|| unreachable(router, port))?;
        return Ok(*address);
    };
    let invalid = |reason: String| {
        ApiError::new(
            400,
            "InvalidAddress",
            format!("The address {wanted} is invalid, reason: {reason}."),
        )
    };
    let found = all.iter().find(|(_, a)| IpAddr::V6(*a) == wanted);
    match found {
        None => Err(invalid(format!(
            "This address not belong to the port {}",
            port.id
        ))),
        Some((subnet, _)) if !subnets.contains(subnet) => Err(invalid(format!(
            "This address cannot reach the router {}",
            router.id
        ))),
        Some((_, address)) => Ok(*address),
    }
}

/// Only within one scope packets are forwarded as they are.
fn check_scopes(write: &mut Write<'_>, router: &Router, port: &Port) -> Result<()> {
    let outside = router.gateways.first().map(|g| g.network_id);
    let outside = outside.and_then(|id| scope(write, id));
    let inside = scope(write, port.network_id);
    if outside == inside {
        return Ok(());
    }
    let name = |scope: Option<AddressScopeId>| {
        scope.map_or_else(|| "None".to_owned(), |id| id.to_string())
    };
    Err(ApiError::conflict(
        "AddressScopeConflict",
        format!(
            "The IPv6 address scope {} of external network conflict with internal network's IPv6 \
             address scope {}.",
            name(outside),
            name(inside)
        ),
    ))
}

fn scope(write: &mut Write<'_>, id: NetworkId) -> Option<AddressScopeId> {
    let row = write.state.networks.row(&id)?;
    write.unchanged(row.value.key(), row.mod_revision);
    scope_of(write.state, &row.value, Family::V6)
}

fn claim(write: &mut Write<'_>, proxy: &NdpProxy) -> Result<()> {
    let mut others = write.state.layer3.proxies_of(proxy.port_id);
    let there = others.any(|row| row.value.ip_address == proxy.ip_address);
    let key = keys::proxied(proxy.port_id, proxy.ip_address);
    if !there && write.claim(key, proxy.id.to_string()) {
        return Ok(());
    }
    Err(ApiError::conflict(
        "Conflict",
        format!(
            "there is an NDP proxy for {} of port {} already",
            proxy.ip_address, proxy.port_id
        ),
    ))
}
