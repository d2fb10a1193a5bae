//! Ports: what may be created, changed and deleted, and by whom.

pub mod bindings;
mod exposed;
pub mod internal;
mod lists;
mod mac;
mod security;
mod single_home;
mod uses;
mod vif;

use std::{net::IpAddr, sync::Arc};

use bytes::Bytes;
use hextet_api::{
    describe::{Access, Resource},
    error::{ApiError, Result},
    query::{Filter, FixedIpFilter, Query},
    request::{Caller, Input},
    resources,
};
use hextet_model::neutron::{AddressPair, Binding, Network, Port, Standard, Status};
use hextet_types::{Family, HostId, NetworkId, PortId, ProjectId, QosPolicyId, SecurityGroupId};
use serde_json::{Value, json};
use uuid::Uuid;

use lists::{dhcp_options, pairs};
use mac::{free_mac, new_mac, update_mac};
use security::{check_member_sources, check_security};
use single_home::{claim_single_home, holds_single_home, is_single_homed};
use vif::Plug;

use super::{
    allocate::{Place, Wanted, allocate, delegate, reallocate, release},
    entity::{Entity, standard_value, wanted_ids},
    network::{is_network_owner, usable},
    qos, router,
    security_group::{check_groups, default_group},
};
use crate::{
    keys,
    state::{NAT44_OWNER, State, table::Row},
    write::Write,
};

/// Addresses that one port may ask for.
const MAX_FIXED_IPS: usize = 32;

impl Entity for Port {
    const RESOURCE: &'static Resource = &resources::PORT;
    type Extra = (Plug, Option<QosPolicyId>);

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
        State::port_key(self)
    }

    fn standard_mut(&mut self) -> Option<&mut Standard> {
        Some(&mut self.standard)
    }

    fn find<'s>(state: &'s State, id: &str) -> Option<&'s Row<Self>> {
        state.ports.row(&id.parse().ok()?)
    }

    fn candidates(state: &State, query: &Query, caller: &Caller) -> Vec<Arc<Self>> {
        let indexed = |ids: &mut dyn Iterator<Item = PortId>| -> Vec<Arc<Port>> {
            ids.filter_map(|id| state.ports.get(&id)).cloned().collect()
        };
        if let Some(ids) = wanted_ids::<PortId>(query, "id") {
            return indexed(&mut ids.into_iter());
        }
        if let Some(devices) = query.wanted("device_id") {
            let devices: Vec<_> = devices.iter().filter_map(Value::as_str).collect();
            if devices.iter().all(|d| !d.is_empty()) {
                return indexed(
                    &mut devices
                        .iter()
                        .flat_map(|d| state.ports_by_device.get(*d))
                        .copied(),
                );
            }
        }
        if let Some(mut ids) = by_address(state, query) {
            return indexed(&mut ids.drain(..));
        }
        if let Some(groups) = wanted_ids::<SecurityGroupId>(query, "security_groups") {
            let mut ids: Vec<_> = groups
                .iter()
                .flat_map(|g| state.ports_by_group.get(g))
                .copied()
                .collect();
            ids.sort_unstable();
            ids.dedup();
            return indexed(&mut ids.into_iter());
        }
        if let Some(hosts) = wanted_ids::<HostId>(query, "binding:host_id") {
            let views = &state.views;
            let of = |h| views.ports_of(h).chain(views.sources_of(h));
            return indexed(&mut hosts.iter().flat_map(of).copied());
        }
        if let Some(networks) = wanted_ids::<NetworkId>(query, "network_id") {
            return indexed(
                &mut networks
                    .iter()
                    .flat_map(|n| state.ports_by_network.get(n))
                    .copied(),
            );
        }
        if caller.admin {
            return match query.wanted("project_id") {
                Some(projects) => {
                    let projects = projects.iter().filter_map(Value::as_str);
                    let ids = projects.map(|p| ProjectId(p.to_owned()));
                    let ids: Vec<_> = ids
                        .flat_map(|p| state.ports_by_project.get(&p).copied().collect::<Vec<_>>())
                        .collect();
                    indexed(&mut ids.into_iter())
                }
                None => state.ports.values().cloned().collect(),
            };
        }
        // One's own, and those on one's networks.
        let own = state.ports_by_project.get(&caller.project).copied();
        let networks = state
            .networks
            .values()
            .filter(|n| n.standard.project_id == caller.project);
        let mut ids: Vec<_> = own
            .chain(networks.flat_map(|n| state.ports_by_network.get(&n.id).copied()))
            .collect();
        ids.sort_unstable();
        ids.dedup();
        indexed(&mut ids.into_iter())
    }

    fn is_visible(&self, state: &State, caller: &Caller) -> bool {
        self.is_owned(state, caller)
    }

    fn is_owned(&self, state: &State, caller: &Caller) -> bool {
        let network = || state.networks.get(&self.network_id);
        caller.admin
            || self.standard.project_id == caller.project
            || network().is_some_and(|n| is_network_owner(n, caller))
    }

    fn extra(&self, state: &State) -> Self::Extra {
        let network = state.networks.get(&self.network_id);
        let policy = network.and_then(|n| n.qos_policy_id);
        (Plug::of(self, state), policy)
    }

    fn value(&self, (plug, network_policy): &Self::Extra, attribute: &str) -> Value {
        match attribute {
            "id" => json!(self.id),
            "network_id" => json!(self.network_id),
            "admin_state_up" => json!(self.admin_state_up),
            "status" => json!(self.status),
            "mac_address" => json!(self.mac_address),
            "fixed_ips" => json!(self.fixed_ips),
            "device_id" => json!(self.device_id),
            "device_owner" => json!(self.device_owner),
            "security_groups" => json!(self.security_groups),
            "port_security_enabled" => json!(self.port_security_enabled),
            "allowed_address_pairs" => self.allowed_address_pairs.iter().map(show_pair).collect(),
            "extra_dhcp_opts" => json!(self.extra_dhcp_opts),
            "dns_name" => json!(self.dns_name),
            "hextet:metadata" => json!(self.metadata),
            "hextet:exposed" => json!(self.exposed),
            "hextet:delegated_prefixes" => json!(self.delegated_prefixes),
            "qos_policy_id" => json!(self.qos_policy_id),
            "qos_network_policy_id" => json!(network_policy),
            "binding:host_id" => json!(self.binding.host_id.as_ref().map_or("", HostId::as_str)),
            "binding:profile" => Value::Object(self.binding.profile.clone()),
            "binding:vnic_type" => json!(self.binding.vnic_type),
            "binding:vif_type" => json!(plug.vif_type()),
            "binding:vif_details" => plug.vif_details(),
            "ip_allocation" => json!("immediate"),
            _ => standard_value(&self.standard, attribute),
        }
    }

    fn create(write: &mut Write<'_>, input: &Input) -> Result<Arc<Self>> {
        let network = network_for(write, input)?;
        check_allowed(write, &network, input, true)?;
        let mac = match input.get("mac_address")? {
            Some(mac) => free_mac(write, network.id, mac)?,
            None => new_mac(write, network.id)?,
        };
        let device_owner: String = input.take("device_owner")?;
        let standard = write.standard(input)?;
        let mut port = Port {
            id: PortId(Uuid::new_v4()),
            network_id: network.id,
            mac_address: mac,
            fixed_ips: Vec::new(),
            device_id: input.take("device_id")?,
            device_owner,
            admin_state_up: input.take("admin_state_up")?,
            status: Status::Down,
            security_groups: Vec::new(),
            port_security_enabled: input
                .get("port_security_enabled")?
                .unwrap_or(network.port_security_enabled),
            allowed_address_pairs: pairs(input, mac)?,
            extra_dhcp_opts: dhcp_options(input, &[])?,
            dns_name: input.take("dns_name")?,
            metadata: input.get("hextet:metadata")?,
            exposed: exposed::exposed(input)?,
            delegated_prefixes: Vec::new(),
            qos_policy_id: None,
            binding: Binding {
                host_id: host(input)?,
                vnic_type: input.take("binding:vnic_type")?,
                profile: input.take("binding:profile")?,
            },
            standard,
        };
        port.qos_policy_id = qos::for_new(write, input, port.id.0)?;
        internal::check_forged(write.state, &port, "create")?;
        port.security_groups = groups_of_new(write, input, &port)?;
        check_security(&port, None)?;
        check_member_sources(write, &port)?;
        let wanted: Option<Vec<Wanted>> = input.get("fixed_ips")?;
        let place = Place {
            network: &network,
            mac,
            owner: &port.device_owner,
            only_wanted: false,
        };
        port.fixed_ips = allocate(write, place, wanted.as_deref())?;
        port.delegated_prefixes = delegate(write, network.id, &port.device_owner, &[]);
        finish_create(write, &network, port)
    }

    fn update(write: &mut Write<'_>, old: &Row<Self>, input: &Input) -> Result<Arc<Self>> {
        let mut port = old.value.as_ref().clone();
        if port.device_owner == NAT44_OWNER {
            return Err(managed(
                port.id,
                "it holds a host's NAT44 sources, which hextet manages",
            ));
        }
        internal::check_change(write.state, &port, input)?;
        let network = network_of(write, &port)?;
        check_allowed(write, &network, input, false)?;
        write.touch(&mut port.standard, input)?;
        input.put("admin_state_up", &mut port.admin_state_up)?;
        input.put("device_id", &mut port.device_id)?;
        input.put("device_owner", &mut port.device_owner)?;
        if input.names("device_owner") || input.names("device_id") {
            internal::check_forged(write.state, &port, "update")?;
        }
        input.put("port_security_enabled", &mut port.port_security_enabled)?;
        input.put("dns_name", &mut port.dns_name)?;
        if input.names("hextet:metadata") {
            port.metadata = input.get("hextet:metadata")?;
        }
        if input.names("hextet:exposed") {
            port.exposed = exposed::exposed(input)?;
        }
        qos::reassign(write, input, &mut port.qos_policy_id, port.id.0)?;
        input.put("binding:vnic_type", &mut port.binding.vnic_type)?;
        input.put("binding:profile", &mut port.binding.profile)?;
        if input.names("binding:host_id") {
            port.binding.host_id = host(input)?;
        }
        update_mac(write, &mut port, input)?;
        if input.names("allowed_address_pairs") {
            port.allowed_address_pairs = pairs(input, port.mac_address)?;
        }
        if input.names("allowed_address_pairs") || input.names("port_security_enabled") {
            check_member_sources(write, &port)?;
        }
        if input.names("extra_dhcp_opts") {
            port.extra_dhcp_opts = dhcp_options(input, &port.extra_dhcp_opts)?;
        }
        if input.names("security_groups") {
            port.security_groups = input.get("security_groups")?.unwrap_or_default();
            port.security_groups.sort_unstable();
            let known = &old.value.security_groups;
            check_groups(
                write,
                &port.standard.project_id,
                &port.security_groups,
                known,
            )?;
        }
        check_security(&port, Some(&old.value))?;
        if input.names("fixed_ips") || port.mac_address != old.value.mac_address {
            let wanted: Option<Vec<Wanted>> = input.get("fixed_ips")?;
            let only_wanted = false;
            let place = Place {
                network: &network,
                mac: port.mac_address,
                owner: &port.device_owner,
                only_wanted,
            };
            port.fixed_ips = reallocate(write, place, &old.value, wanted.as_deref())?;
        }
        finish_update(write, &network, old, port)
    }

    fn delete(write: &mut Write<'_>, old: &Row<Self>) -> Result<()> {
        if old.value.device_owner == NAT44_OWNER {
            let reason = "it holds a host's NAT44 sources, which hextet manages";
            return Err(managed(old.value.id, reason));
        }
        internal::check_delete(write.state, &old.value)?;
        bindings::remove_all(write, old.value.id);
        bindings::let_go(write, &old.value, None);
        uses::let_go(write, &old.value, &[])?;
        remove(write, old);
        Ok(())
    }
}

/// Deletes a port with all its claims.
pub fn remove(write: &mut Write<'_>, old: &Row<Port>) {
    let port = &old.value;
    for fixed in &port.fixed_ips {
        write.release(keys::address(fixed.subnet_id, fixed.ip_address));
    }
    if let Some(key) = holds_single_home(write, port) {
        write.release(key);
    }
    for key in exposed::claimed(port) {
        write.release(key);
    }
    release(write, port);
    qos::release(write, port.qos_policy_id, port.id.0);
    write.remove(port.key(), old.mod_revision);
}

/// Puts a port whose addresses are claimed: its quotas, its place as single-homed, itself.
pub fn finish_create(write: &mut Write<'_>, network: &Network, port: Port) -> Result<Arc<Port>> {
    let project = port.standard.project_id.clone();
    if port.device_owner != NAT44_OWNER {
        write.use_quota(
            &project,
            resources::PORT.quota.unwrap_or(resources::PUBLIC_IPV4),
            1,
        );
        count_public(write, &port, 1);
    }
    if is_single_homed(network, &port) {
        claim_single_home(write, network, &port)?;
    }
    exposed::check(network, &port)?;
    exposed::follow(write, None, &port)?;
    let port = Arc::new(port);
    write.create(port.key(), port.as_ref())?;
    Ok(port)
}

fn finish_update(
    write: &mut Write<'_>,
    network: &Network,
    old: &Row<Port>,
    mut port: Port,
) -> Result<Arc<Port>> {
    exposed::check(network, &port)?;
    bindings::follow(write, &old.value, &mut port)?;
    bindings::let_go(write, &old.value, Some(&port));
    let place = |p: &Port| (is_single_homed(network, p), p.device_id.clone());
    if place(&old.value) != place(&port) {
        if let Some(key) = holds_single_home(write, &old.value) {
            write.release(key);
        }
        if is_single_homed(network, &port) {
            claim_single_home(write, network, &port)?;
        }
    }
    if port.fixed_ips != old.value.fixed_ips {
        router::readdressed(write, &old.value, &port)?;
        uses::let_go(write, &old.value, &port.fixed_ips)?;
    }
    if port.device_owner != NAT44_OWNER {
        count_public(write, &old.value, -1);
        count_public(write, &port, 1);
    }
    if port.mac_address == old.value.mac_address {
        write.replace(port.key(), old.mod_revision, &port)?;
    } else {
        write.remove(old.value.key(), old.mod_revision);
        write.create(port.key(), &port)?;
    }
    Ok(Arc::new(port))
}

fn by_address(state: &State, query: &Query) -> Option<Vec<PortId>> {
    let wanted = query.filters.iter().find_map(|f| match f {
        Filter::FixedIps(wanted) => Some(wanted),
        _ => None,
    })?;
    let addresses = wanted.iter().filter_map(|w| match w {
        FixedIpFilter::Address(a) => a.as_str()?.parse::<IpAddr>().ok(),
        _ => None,
    });
    let addresses: Vec<_> = addresses.collect();
    if addresses.is_empty() {
        return None;
    }
    let owners = |a: &IpAddr| {
        let a = *a;
        state
            .addresses
            .values()
            .filter_map(move |s| s.owners.get(&a).copied())
    };
    let mut ids: Vec<_> = addresses.iter().flat_map(owners).collect();
    ids.sort_unstable();
    ids.dedup();
    Some(ids)
}

fn show_pair(pair: &AddressPair) -> Value {
    let address = match pair.ip_address.is_host() {
        true => json!(pair.ip_address.addr()),
        false => json!(pair.ip_address),
    };
    json!({"ip_address": address, "mac_address": pair.mac_address})
}

fn is_network_service(port: &Port) -> bool {
    port.device_owner.starts_with("network:")
}

fn managed(id: PortId, reason: &str) -> ApiError {
    ApiError::conflict(
        "ServicePortInUse",
        format!("Port {id} cannot be changed directly via the port API: {reason}."),
    )
}

/// The network that the request names, or the one that a user gets who does not choose.
fn network_for(write: &mut Write<'_>, input: &Input) -> Result<Arc<Network>> {
    let id = match input.get("network_id")? {
        Some(id) => id,
        None => {
            let mut all = write
                .state
                .networks
                .values()
                .filter(|n| n.is_default && n.shared);
            match (all.next(), all.next()) {
                (Some(network), None) => network.id,
                _ => {
                    return Err(ApiError::bad_request(
                        "Failed to parse request. Required attribute 'network_id' not specified, \
                         and no shared network is the default one",
                    ));
                }
            }
        }
    };
    let row = usable(write.state, write.caller, id)?;
    write.unchanged(keys::network(id), row.mod_revision);
    Ok(Arc::clone(&row.value))
}

fn network_of(write: &mut Write<'_>, port: &Port) -> Result<Arc<Network>> {
    let row = write.state.networks.row(&port.network_id);
    let row = row.ok_or_else(|| resources::NETWORK.missing(port.network_id))?;
    write.unchanged(keys::network(port.network_id), row.mod_revision);
    Ok(Arc::clone(&row.value))
}

/// What only the owner of the network may set: on somebody else's shared network, that network's
/// owner decides about Ethernet addresses, addresses and source checks.
fn check_allowed(write: &Write<'_>, network: &Network, input: &Input, create: bool) -> Result<()> {
    let owner: String = input.get("device_owner")?.unwrap_or_default();
    let verb = if create { "create" } else { "update" };
    if input.names("device_owner") && owner == NAT44_OWNER {
        return Err(ApiError::forbidden(format!("{verb}_port:device_owner")));
    }
    let wanted: Vec<Wanted> = input.get("fixed_ips")?.unwrap_or_default();
    if wanted.len() > MAX_FIXED_IPS {
        return Err(ApiError::invalid_input(format!(
            "Exceeded maximum amount of fixed ips per port: {MAX_FIXED_IPS}"
        )));
    }
    if is_network_owner(network, write.caller) {
        return Ok(());
    }
    if let Some(name) = input
        .needing(&resources::PORT, Access::NetworkOwner, create)
        .first()
    {
        return Err(ApiError::forbidden(format!("{verb}_port:{name}")));
    }
    if owner.starts_with("network:") {
        return Err(ApiError::forbidden(format!("{verb}_port:device_owner")));
    }
    if wanted.iter().any(|w| w.ip_address.is_some()) {
        return Err(ApiError::forbidden(format!(
            "{verb}_port:fixed_ips:ip_address"
        )));
    }
    Ok(())
}

fn host(input: &Input) -> Result<Option<HostId>> {
    let name: Option<String> = input.get("binding:host_id")?;
    match name.filter(|n| !n.is_empty()) {
        None => Ok(None),
        Some(name) => name.parse().map(Some).map_err(ApiError::invalid_input),
    }
}

fn groups_of_new(
    write: &mut Write<'_>,
    input: &Input,
    port: &Port,
) -> Result<Vec<SecurityGroupId>> {
    let project = &port.standard.project_id;
    if !input.names("security_groups") || input.get::<Value>("security_groups")?.is_none() {
        if is_network_service(port) || !port.port_security_enabled || project.0.is_empty() {
            return Ok(Vec::new());
        }
        return Ok(vec![default_group(write, project)?]);
    }
    let mut groups: Vec<SecurityGroupId> = input.get("security_groups")?.unwrap_or_default();
    groups.sort_unstable();
    check_groups(write, project, &groups, &[])?;
    Ok(groups)
}

/// Public IPv4 addresses count against a quota of their own.
fn count_public(write: &mut Write<'_>, port: &Port, sign: i64) {
    let state = write.state;
    let public = port
        .fixed_ips
        .iter()
        .filter(|f| Family::of(f.ip_address) == Family::V4 && state.is_public_ipv4(f.subnet_id));
    let count = i64::try_from(public.count()).unwrap_or(i64::MAX);
    if count > 0 {
        write.use_quota(
            &port.standard.project_id,
            resources::PUBLIC_IPV4,
            sign * count,
        );
    }
}
