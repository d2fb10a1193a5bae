//! Subnets: prefixes that never overlap in one routing domain, their pools, modes and gateways.

mod delegation;
mod extent;
pub mod pool;

use std::{fmt::Display, sync::Arc};

use bytes::Bytes;
use hextet_api::{
    describe::Resource,
    error::{ApiError, Result},
    query::Query,
    request::{Caller, Input},
    resources, value,
};
use hextet_model::intent::RoutingDomain;
use hextet_model::neutron::{
    AllocationPool, Delegation, HostRoute, Ipv6Mode, Nat44, Network, NetworkType, Standard, Subnet,
};
use hextet_types::{Family, NetworkId, Prefix, ProjectId, SubnetId};
use serde_json::{Value, json};
use uuid::Uuid;

pub use extent::can_have;
use extent::{checked_pools, default_gateway, default_pools};
use pool::Source;

use super::{
    allocate::{
        attach_automatic, attach_delegated, attach_ipv4, detach_automatic, detach_delegated,
        is_automatic,
    },
    entity::{Entity, standard_value, wanted_ids},
    network::{is_below_ipv6, is_network_owner, mtu_conflict, usable},
};
use crate::{
    cloud::Cloud,
    keys,
    state::{State, table::Row},
    write::Write,
};

const MAX_NAMESERVERS: usize = 5;
const MAX_HOST_ROUTES: usize = 20;

impl Entity for Subnet {
    const RESOURCE: &'static Resource = &resources::SUBNET;
    /// Whether its network is external.
    type Extra = bool;

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
        keys::subnet(self.network_id, self.id)
    }

    fn standard_mut(&mut self) -> Option<&mut Standard> {
        Some(&mut self.standard)
    }

    fn find<'s>(state: &'s State, id: &str) -> Option<&'s Row<Self>> {
        state.subnets.row(&id.parse().ok()?)
    }

    fn candidates(state: &State, query: &Query, _caller: &Caller) -> Vec<Arc<Self>> {
        if let Some(ids) = wanted_ids(query, "id") {
            return ids
                .iter()
                .filter_map(|id| state.subnets.get(id))
                .cloned()
                .collect();
        }
        match wanted_ids::<NetworkId>(query, "network_id") {
            Some(ids) => ids
                .iter()
                .flat_map(|id| state.subnets_of(*id))
                .cloned()
                .collect(),
            None => state.subnets.values().cloned().collect(),
        }
    }

    fn is_visible(&self, state: &State, caller: &Caller) -> bool {
        let network = || state.networks.get(&self.network_id);
        self.is_owned(state, caller) || network().is_some_and(|n| n.is_visible(state, caller))
    }

    fn is_owned(&self, state: &State, caller: &Caller) -> bool {
        let network = || state.networks.get(&self.network_id);
        caller.admin
            || self.standard.project_id == caller.project
            || network().is_some_and(|n| is_network_owner(n, caller))
    }

    fn extra(&self, state: &State) -> bool {
        state
            .networks
            .get(&self.network_id)
            .is_some_and(|n| n.external)
    }

    fn value(&self, external: &bool, attribute: &str) -> Value {
        match attribute {
            "id" => json!(self.id),
            "network_id" => json!(self.network_id),
            "ip_version" => json!(if self.family() == Family::V4 { 4 } else { 6 }),
            "cidr" => json!(self.cidr),
            "gateway_ip" => json!(self.gateway_ip),
            "allocation_pools" => json!(self.allocation_pools),
            "enable_dhcp" => json!(self.enable_dhcp),
            "dns_nameservers" => json!(self.dns_nameservers),
            "host_routes" => json!(self.host_routes),
            "ipv6_ra_mode" => json!(self.ipv6_ra_mode),
            "ipv6_address_mode" => json!(self.ipv6_address_mode),
            "subnetpool_id" => json!(self.subnetpool_id),
            "service_types" => json!(self.service_types),
            "hextet:nat44" => json!(self.nat44),
            "hextet:delegation" => json!(self.delegation),
            "router:external" => json!(external),
            _ => standard_value(&self.standard, attribute),
        }
    }

    fn create(write: &mut Write<'_>, input: &Input) -> Result<Arc<Self>> {
        let network_id = input.take("network_id")?;
        let network = Arc::clone(&subnettable(write, network_id)?.value);
        let source = pool::source(write, &network, input)?;
        let cidr = source.cidr;
        let enable_dhcp = input.take("enable_dhcp")?;
        check_cidr(cidr, input.take("ip_version")?, enable_dhcp)?;
        check_member_prefix(write, &network, &source)?;
        let delegation: Option<Delegation> = input.get("hextet:delegation")?;
        let gateway_ip = match input.names("gateway_ip") {
            true => input.get("gateway_ip")?,
            false if delegation.is_some() => None,
            false => Some(default_gateway(cidr, source.chosen)),
        };
        let pools: Option<Vec<AllocationPool>> = input.get("allocation_pools")?;
        let subnet = Subnet {
            id: SubnetId(Uuid::new_v4()),
            standard: write.standard(input)?,
            network_id,
            cidr,
            gateway_ip,
            allocation_pools: match pools {
                Some(pools) => checked_pools(cidr, gateway_ip, pools)?,
                None if delegation.is_some() => Vec::new(),
                None => default_pools(cidr, gateway_ip),
            },
            enable_dhcp,
            dns_nameservers: input.take("dns_nameservers")?,
            host_routes: input.take("host_routes")?,
            ipv6_ra_mode: input.get("ipv6_ra_mode")?,
            ipv6_address_mode: input.get("ipv6_address_mode")?,
            subnetpool_id: source.pool.as_ref().map(|p| p.id),
            service_types: input.take("service_types")?,
            nat44: input.get("hextet:nat44")?,
            delegation,
        };
        check_modes(&subnet)?;
        delegation::check(&network, &subnet)?;
        check_details(write, &subnet)?;
        if subnet.family() == Family::V6 && is_below_ipv6(&network) {
            return Err(mtu_conflict(&network));
        }
        check_overlap(write, &subnet)?;
        let quota = resources::SUBNET.quota.unwrap_or(resources::PUBLIC_IPV4);
        write.use_quota(&subnet.standard.project_id, quota, 1);
        write.create(subnet.key(), &subnet)?;
        if let Some(pool) = subnet.subnetpool_id {
            pool::claim(write, pool, subnet.id);
        }
        let subnet = Arc::new(subnet);
        write.new_subnets.push(Arc::clone(&subnet));
        Ok(subnet)
    }

    fn update(write: &mut Write<'_>, old: &Row<Self>, input: &Input) -> Result<Arc<Self>> {
        let mut subnet = old.value.as_ref().clone();
        write.touch(&mut subnet.standard, input)?;
        input.put_option("gateway_ip", &mut subnet.gateway_ip)?;
        input.put("enable_dhcp", &mut subnet.enable_dhcp)?;
        input.put("dns_nameservers", &mut subnet.dns_nameservers)?;
        input.put("host_routes", &mut subnet.host_routes)?;
        input.put("service_types", &mut subnet.service_types)?;
        input.put_option("hextet:nat44", &mut subnet.nat44)?;
        input.put("allocation_pools", &mut subnet.allocation_pools)?;
        let pools = std::mem::take(&mut subnet.allocation_pools);
        subnet.allocation_pools = checked_pools(subnet.cidr, subnet.gateway_ip, pools)?;
        if subnet.enable_dhcp && !old.value.enable_dhcp {
            let version = if subnet.family() == Family::V4 { 4 } else { 6 };
            check_cidr(subnet.cidr, version, true)?;
        }
        check_modes(&subnet)?;
        if let Some(network) = write.state.networks.get(&subnet.network_id) {
            delegation::check(network, &subnet)?;
        }
        check_details(write, &subnet)?;
        if subnet.gateway_ip != old.value.gateway_ip {
            check_gateways_free(write, &old.value, &subnet)?;
        }
        write.replace(subnet.key(), old.mod_revision, &subnet)?;
        Ok(Arc::new(subnet))
    }

    fn delete(write: &mut Write<'_>, old: &Row<Self>) -> Result<()> {
        let subnet = &old.value;
        if write.state.addresses.contains_key(&subnet.id) {
            return Err(in_use(
                subnet.id,
                "One or more ports have an IP allocation from this subnet",
            ));
        }
        check_no_translator(write.state, subnet)?;
        write.empty(keys::addresses_of(subnet.id));
        write.quiet(keys::subnets());
        remove(write, old);
        Ok(())
    }

    async fn settle(cloud: &Cloud, made: &[Arc<Self>]) -> Result<()> {
        for subnet in made.iter().filter(|s| is_automatic(s)) {
            attach_automatic(cloud, subnet.network_id).await?;
        }
        for subnet in made.iter().filter(|s| s.delegation.is_some()) {
            attach_delegated(cloud, subnet.network_id).await?;
        }
        for subnet in made.iter().filter(|s| s.family() == Family::V4) {
            let is_first = {
                let state = cloud.state();
                let mut others = state.subnets_of(subnet.network_id);
                let is_new = |s: &Arc<Subnet>| made.iter().any(|m| m.id == s.id);
                others.all(|s| s.family() != Family::V4 || is_new(s))
                    && !state.is_public_ipv4(subnet.id)
            };
            if is_first {
                attach_ipv4(cloud, subnet).await?;
            }
        }
        Ok(())
    }

    /// Addresses that follow from the subnet alone do not keep it from going.
    async fn unsettle(cloud: &Cloud, going: &Arc<Self>) -> Result<()> {
        let stays = {
            let state = cloud.state();
            check_no_translator(&state, going).is_err() || has_router(&state, going)
        };
        if is_automatic(going) && !stays {
            detach_automatic(cloud, going).await?;
        }
        if going.delegation.is_some() {
            detach_delegated(cloud, going).await?;
        }
        Ok(())
    }
}

/// Deletes a subnet, and gives its prefix back to its pool.
pub fn remove(write: &mut Write<'_>, old: &Row<Subnet>) {
    if let Some(pool) = old.value.subnetpool_id {
        write.release(keys::allocation(pool, old.value.id));
    }
    write.remove(old.value.key(), old.mod_revision);
}

/// A network that the caller can put subnets on: its own.
fn subnettable<'s>(write: &mut Write<'s>, id: NetworkId) -> Result<&'s Row<Network>> {
    let row = usable(write.state, write.caller, id)?;
    if !is_network_owner(&row.value, write.caller) {
        return Err(ApiError::forbidden("create_subnet"));
    }
    write.unchanged(keys::network(id), row.mod_revision);
    Ok(row)
}

/// Whether the caller may have hosts announce these addresses: an administrator says so for
/// prefixes, and for what is out of a pool by making the pool.
fn check_member_prefix(write: &Write<'_>, network: &Network, source: &Source) -> Result<()> {
    let cidr = source.cidr;
    if network.network_type == NetworkType::Vxlan {
        return Ok(());
    }
    let open = &write.policy.member_prefixes;
    let pooled = source.pool.as_ref().is_some_and(|p| p.made_by_admin);
    if write.caller.admin || pooled || open.iter().any(|prefix| prefix.covers(cidr)) {
        return Ok(());
    }
    let open: Vec<String> = open.iter().map(Prefix::to_string).collect();
    let way_out = match open.as_slice() {
        [] => "an administrator makes them, or lists prefixes for members in the server's \
               member_prefixes"
            .to_owned(),
        open => format!("members may make them in {}", open.join(", ")),
    };
    Err(ApiError::new(
        403,
        "PolicyNotAuthorized",
        format!(
            "rule:create_subnet is disallowed by policy: {cidr} would be announced by every host \
             that has a port there. Subnets of routed networks: {way_out}; or out of a subnet pool \
             that an administrator has made and shares."
        ),
    ))
}

fn in_use(id: SubnetId, reason: &str) -> ApiError {
    let message = format!("Unable to complete operation on subnet {id}: {reason}.");
    ApiError::conflict("SubnetInUse", message)
}

/// A subnet out of which hosts take sources for NAT44 stays.
///
/// # Errors
///
/// 409 `SubnetInUse`.
pub fn check_no_translator(state: &State, subnet: &Subnet) -> Result<()> {
    let uses = |s: &&Arc<Subnet>| s.nat44.is_some_and(|n| n.pool_subnet_id == Some(subnet.id));
    match state.subnets.values().find(uses) {
        None => Ok(()),
        Some(user) => {
            let reason = format!(
                "hextet:nat44 of subnet {} takes its sources from it",
                user.id
            );
            Err(in_use(subnet.id, &reason))
        }
    }
}

fn has_router(state: &State, subnet: &Subnet) -> bool {
    let interfaces = state.layer3.interfaces_by_network.get(&subnet.network_id);
    let mut interfaces = interfaces.filter_map(|id| state.ports.get(id));
    interfaces.any(|port| port.fixed_ips.iter().any(|f| f.subnet_id == subnet.id))
}

fn check_cidr(cidr: Prefix, ip_version: u8, enable_dhcp: bool) -> Result<()> {
    let family = if ip_version == 4 {
        Family::V4
    } else {
        Family::V6
    };
    if !matches!(ip_version, 4 | 6) {
        return Err(ApiError::bad_request(format!(
            "Invalid input for ip_version. Reason: {ip_version} is not in [4, 6]."
        )));
    }
    if cidr.family() != family {
        return Err(ApiError::invalid_input(format!(
            "cidr '{cidr}' does not match the ip_version '{ip_version}'"
        )));
    }
    if let Some(reason) = value::is_unusable(cidr) {
        return Err(ApiError::invalid_input(reason));
    }
    if enable_dhcp && cidr.len() > family.bits() - 2 {
        return Err(ApiError::invalid_input(
            "Subnet has a prefix length that is incompatible with DHCP service enabled",
        ));
    }
    Ok(())
}

fn check_modes(subnet: &Subnet) -> Result<()> {
    let show = |mode: Ipv6Mode| json!(mode).as_str().unwrap_or_default().to_owned();
    let (ra, addresses) = (subnet.ipv6_ra_mode, subnet.ipv6_address_mode);
    if ra.is_none() && addresses.is_none() {
        return Ok(());
    }
    if subnet.family() == Family::V4 {
        let name = if ra.is_some() {
            "ipv6_ra_mode"
        } else {
            "ipv6_address_mode"
        };
        let reason = format!("{name} is not valid when ip_version is 4");
        return Err(ApiError::invalid_input(reason));
    }
    if !subnet.enable_dhcp {
        return Err(ApiError::invalid_input(
            "ipv6_ra_mode or ipv6_address_mode cannot be set when enable_dhcp is set to False",
        ));
    }
    match (ra, addresses) {
        (Some(ra), Some(addresses)) if ra != addresses => {
            return Err(ApiError::invalid_input(format!(
                "ipv6_ra_mode set to '{}' with ipv6_address_mode set to '{}' is not valid. If both \
                 attributes are set, they must be the same value",
                show(ra),
                show(addresses)
            )));
        }
        (Some(ra), None) => {
            return Err(ApiError::invalid_input(format!(
                "ipv6_ra_mode '{}' needs the same ipv6_address_mode: without it ports would have \
                 addresses that nobody knows of",
                show(ra)
            )));
        }
        _ => {}
    }
    if is_automatic(subnet) && subnet.cidr.len() != 64 {
        return Err(ApiError::invalid_input(format!(
            "Invalid CIDR {} for IPv6 address mode. OpenStack uses the EUI-64 address format, \
             which requires the prefix to be /64",
            subnet.cidr
        )));
    }
    Ok(())
}

fn check_details(write: &mut Write<'_>, subnet: &Subnet) -> Result<()> {
    let family = subnet.family();
    let version = if family == Family::V4 { 4 } else { 6 };
    let wrong_family = |name: &str, what: &dyn Display| {
        let text = format!("{name} '{what}' does not match the ip_version '{version}'");
        Err(ApiError::invalid_input(text))
    };
    if let Some(gateway) = subnet.gateway_ip {
        if Family::of(gateway) != family {
            return wrong_family("gateway_ip", &gateway);
        }
        let edge = gateway == subnet.cidr.addr() || gateway == subnet.cidr.last();
        if family == Family::V4 && edge && subnet.cidr.len() <= 30 {
            return Err(ApiError::invalid_input("Gateway is not valid on subnet"));
        }
    }
    let exhausted = |kind, what, max| {
        let id = subnet.id;
        let text = format!(
            "Unable to complete operation for {id}. The number of {what} exceeds the \
                            limit {max}."
        );
        Err(ApiError::new(400, kind, text))
    };
    if subnet.dns_nameservers.len() > MAX_NAMESERVERS {
        return exhausted(
            "DNSNameServersExhausted",
            "DNS nameservers",
            MAX_NAMESERVERS,
        );
    }
    if let Some(dns) = subnet
        .dns_nameservers
        .iter()
        .find(|a| Family::of(**a) != family)
    {
        return wrong_family("dns_nameserver", dns);
    }
    if subnet.host_routes.len() > MAX_HOST_ROUTES {
        return exhausted("HostRoutesExhausted", "host routes", MAX_HOST_ROUTES);
    }
    let fits = |r: &HostRoute| r.destination.family() == family && Family::of(r.nexthop) == family;
    if let Some(route) = subnet.host_routes.iter().find(|r| !fits(r)) {
        return wrong_family("host_route", &route.destination);
    }
    subnet
        .nat44
        .map_or(Ok(()), |nat| check_nat44(write, subnet, nat))
}

/// Neither does a router have the old gateway, nor anybody the new one.
fn check_gateways_free(write: &mut Write<'_>, old: &Subnet, new: &Subnet) -> Result<()> {
    for gateway in [old.gateway_ip, new.gateway_ip].into_iter().flatten() {
        if let Some(port) = write.state.owner(old.id, gateway) {
            return Err(ApiError::conflict(
                "GatewayIpInUse",
                format!(
                    "Current gateway ip {gateway} already in use by port {port}. Unable to update."
                ),
            ));
        }
    }
    write.quiet(keys::addresses_of(old.id));
    Ok(())
}

fn check_nat44(write: &mut Write<'_>, subnet: &Subnet, nat: Nat44) -> Result<()> {
    let refuse = |text: &str| Err(ApiError::invalid_input(format!("hextet:nat44: {text}")));
    let is_private = |s: &Subnet| write.state.domain_of(s.network_id) != RoutingDomain::Routed;
    let pool = match nat.pool_subnet_id {
        None => None,
        Some(id) => match write.state.subnets.get(&id) {
            Some(pool) => Some(pool),
            None => return Err(resources::SUBNET.missing(id)),
        },
    };
    if is_private(subnet) || pool.is_some_and(|pool| is_private(pool)) {
        return refuse(
            "the subnet and the pool must both be of routed networks: what leaves a private network is \
             translated by a router",
        );
    }
    let is_v4 = |s: &Subnet| s.family() == Family::V4;
    if !is_v4(subnet) || pool.is_some_and(|pool| !is_v4(pool)) {
        return refuse("the subnet and the pool must both be IPv4");
    }
    let Some(pool) = pool else { return Ok(()) };
    if pool.id == subnet.id || pool.nat44.is_some() {
        return refuse("the pool must be a subnet whose addresses are not translated themselves");
    }
    write.exists(pool.key());
    Ok(())
}

/// Subnets that those of a network must not overlap: all routed networks share one routing table, a private one
/// has its own.
fn rivals<'w>(write: &'w Write<'_>, network: NetworkId) -> impl Iterator<Item = &'w Arc<Subnet>> {
    let state = write.state;
    let domain = state.domain_of(network);
    let (own, all) = match domain {
        RoutingDomain::Routed => (None, Some(state.subnets.values())),
        RoutingDomain::Network(id) => (Some(state.subnets_of(id)), None),
    };
    let stored = own.into_iter().flatten().chain(all.into_iter().flatten());
    stored
        .chain(&write.new_subnets)
        .filter(move |s| state.domain_of(s.network_id) == domain)
}

/// Prefixes that a pool gave to private networks are not made by hand on routed ones, nor given to private ones
/// where a routed one has them: a router may have such addresses reached from everywhere.
fn check_overlap(write: &mut Write<'_>, subnet: &Subnet) -> Result<()> {
    let state = write.state;
    let routed = |s: &Subnet| state.domain_of(s.network_id) == RoutingDomain::Routed;
    let (here, pooled) = (routed(subnet), subnet.subnetpool_id.is_some());
    let across = state.subnets.values().chain(&write.new_subnets);
    let across = across.filter(|s| match here {
        true => !routed(s) && s.subnetpool_id.is_some(),
        false => pooled && routed(s),
    });
    let other = rivals(write, subnet.network_id)
        .chain(across)
        .find(|s| s.cidr.overlaps(subnet.cidr) && !delegation::is_beside(write, s, subnet));
    if let Some(other) = other {
        let hint = match (other.network_id == subnet.network_id, routed(other) == here) {
            (true, _) => "",
            (false, true) => " of another network; routed networks share one routing table",
            (false, false) => {
                " of another network; what a private network has out of a subnet pool may be reached from \
                 everywhere by a router, as routed networks are"
            }
        };
        return Err(ApiError::invalid_input(format!(
            "Requested subnet with cidr: {} for network: {} overlaps with another subnet{hint}",
            subnet.cidr, subnet.network_id
        )));
    }
    for beside in state.subnets_of(subnet.network_id) {
        if beside.delegation.is_some() {
            write.quiet(keys::addresses_of(beside.id));
        }
    }
    write.quiet(match state.domain_of(subnet.network_id) {
        RoutingDomain::Network(id) if !pooled => keys::subnets_of(id),
        _ => keys::subnets(),
    });
    Ok(())
}

#[cfg(test)]
mod tests;
