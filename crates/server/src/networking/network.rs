//! Networks: what may be created, changed and deleted, and when.

pub mod segment;

pub use segment::not_external;

use std::sync::Arc;

use bytes::Bytes;
use hextet_api::{
    describe::Resource,
    error::{ApiError, Result},
    query::Query,
    request::{Caller, Input},
    resources,
};
use hextet_model::neutron::{FloatingIp, Network, RbacAction, RbacType, Router, Standard, Status};
use hextet_types::{AddressScopeId, Family, NetworkId, ProjectId, QosPolicyId, SubnetId};
use serde_json::{Value, json};
use uuid::Uuid;

use super::catalogue::ZONE;
use super::{
    entity::{Entity, standard_value, wanted_ids},
    qos,
    sharing::{everybody, forget, share_with_all, take_away},
    subnet::pool::scope_of,
};
use crate::{
    keys,
    state::{State, table::Row},
    write::Write,
};

/// The least that IPv6 works with (RFC 8200 §5).
const IPV6_MIN_MTU: u16 = 1280;

/// A network that the caller can put things on.
///
/// # Errors
///
/// 404: it is not there, or the caller may not use it.
pub fn usable<'s>(state: &'s State, caller: &Caller, id: NetworkId) -> Result<&'s Row<Network>> {
    let row = state.networks.row(&id);
    row.filter(|r| is_network_owner(&r.value, caller) || is_shared(&r.value, state, caller))
        .ok_or_else(|| resources::NETWORK.missing(id))
}

/// A network on which the caller's routers may have gateways; none when it is there for something
/// else.
///
/// # Errors
///
/// 404: it is not there, or the caller may not know of it.
pub fn external<'s>(write: &mut Write<'s>, id: NetworkId) -> Result<Option<&'s Row<Network>>> {
    let (state, caller) = (write.state, write.caller);
    let row = state.networks.row(&id);
    let row = row.filter(|r| r.value.is_visible(state, caller));
    let row = row.ok_or_else(|| resources::NETWORK.missing(id))?;
    write.unchanged(row.value.key(), row.mod_revision);
    let action = RbacAction::AccessAsExternal;
    let granted = state.grants.allows(id.0, action, &caller.project);
    let may = row.value.external && (is_network_owner(&row.value, caller) || granted);
    Ok(may.then_some(row))
}

/// Whether the caller owns the network, or the cloud.
pub fn is_network_owner(network: &Network, caller: &Caller) -> bool {
    caller.admin || network.standard.project_id == caller.project
}

/// Whether the caller's project may put ports on it although it is somebody else's.
fn is_shared(network: &Network, state: &State, caller: &Caller) -> bool {
    let action = RbacAction::AccessAsShared;
    network.shared || state.grants.allows(network.id.0, action, &caller.project)
}

/// The names of all single-homed networks, for people.
pub fn single_homed_names(state: &State) -> String {
    let networks = state.networks.values().filter(|n| n.single_homed);
    let names: Vec<_> = networks.map(|n| format!("'{}'", n.standard.name)).collect();
    match names.as_slice() {
        [] => "them".to_owned(),
        [one] => one.clone(),
        [some @ .., last] => format!("{} and {last}", some.join(", ")),
    }
}

/// What is shown of a network that others say.
pub struct Around {
    subnets: Vec<SubnetId>,
    /// The scopes of its subnets, by family.
    scopes: [Option<AddressScopeId>; 2],
}

impl Entity for Network {
    const RESOURCE: &'static Resource = &resources::NETWORK;
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
        keys::network(self.id)
    }

    fn standard_mut(&mut self) -> Option<&mut Standard> {
        Some(&mut self.standard)
    }

    fn find<'s>(state: &'s State, id: &str) -> Option<&'s Row<Self>> {
        state.networks.row(&id.parse().ok()?)
    }

    fn candidates(state: &State, query: &Query, _caller: &Caller) -> Vec<Arc<Self>> {
        match wanted_ids(query, "id") {
            Some(ids) => ids
                .iter()
                .filter_map(|id| state.networks.get(id))
                .cloned()
                .collect(),
            None => state.networks.values().cloned().collect(),
        }
    }

    fn is_visible(&self, state: &State, caller: &Caller) -> bool {
        let external = RbacAction::AccessAsExternal;
        is_network_owner(self, caller)
            || is_shared(self, state, caller)
            || state.grants.allows(self.id.0, external, &caller.project)
    }

    fn shared_with(&self, state: &State, caller: &Caller) -> Option<bool> {
        Some(is_shared(self, state, caller))
    }

    fn extra(&self, state: &State) -> Self::Extra {
        Around {
            subnets: state.subnets_of(self.id).map(|s| s.id).collect(),
            scopes: Family::BOTH.map(|family| scope_of(state, self, family)),
        }
    }

    fn value(&self, around: &Self::Extra, attribute: &str) -> Value {
        let [v4, v6] = around.scopes;
        match attribute {
            "id" => json!(self.id),
            "admin_state_up" => json!(self.admin_state_up),
            "status" => json!(self.status),
            "shared" => json!(self.shared),
            "router:external" => json!(self.external),
            "is_default" => json!(self.is_default),
            "subnets" => json!(around.subnets),
            "ipv4_address_scope" => json!(v4),
            "ipv6_address_scope" => json!(v6),
            "mtu" => json!(self.mtu),
            "port_security_enabled" => json!(self.port_security_enabled),
            "provider:network_type" => json!(self.network_type),
            "provider:physical_network" => json!(self.physical_network),
            "provider:segmentation_id" => json!(self.segmentation_id),
            "qos_policy_id" => json!(self.qos_policy_id),
            "dns_domain" => json!(self.dns_domain),
            "hextet:single_homed" => json!(self.single_homed),
            "availability_zone_hints" => json!(self.availability_zone_hints),
            "availability_zones" => json!([ZONE]),
            "l2_adjacency" => json!(false),
            _ => standard_value(&self.standard, attribute),
        }
    }

    fn create(write: &mut Write<'_>, input: &Input) -> Result<Arc<Self>> {
        let (id, segment) = segment::choose(write, input)?;
        let mtu = input.get("mtu")?;
        let mut network = Network {
            id,
            standard: write.standard(input)?,
            admin_state_up: input.take("admin_state_up")?,
            status: Status::Active,
            shared: input.take("shared")?,
            external: input.take("router:external")?,
            is_default: input.take("is_default")?,
            mtu: mtu.unwrap_or(write.policy.max_mtu(segment.network_type)),
            port_security_enabled: input.take("port_security_enabled")?,
            network_type: segment.network_type,
            physical_network: segment.physical_network,
            segmentation_id: segment.id,
            dns_domain: input.take("dns_domain")?,
            availability_zone_hints: zone_hints(input)?,
            single_homed: input.take("hextet:single_homed")?,
            qos_policy_id: None,
        };
        network.qos_policy_id = first_policy(write, input, &network)?;
        segment::check_private(write, &network, None)?;
        if network.is_default {
            claim_default(write, &network)?;
        }
        let network = with_status(network);
        write.use_quota(&network.standard.project_id, quota(), 1);
        open(write, &network)?;
        write.create(network.key(), &network)?;
        Ok(Arc::new(network))
    }

    fn update(write: &mut Write<'_>, old: &Row<Self>, input: &Input) -> Result<Arc<Self>> {
        let mut network = old.value.as_ref().clone();
        write.touch(&mut network.standard, input)?;
        input.put("admin_state_up", &mut network.admin_state_up)?;
        input.put("shared", &mut network.shared)?;
        input.put("router:external", &mut network.external)?;
        input.put("is_default", &mut network.is_default)?;
        input.put("mtu", &mut network.mtu)?;
        input.put("port_security_enabled", &mut network.port_security_enabled)?;
        input.put("dns_domain", &mut network.dns_domain)?;
        qos::reassign(write, input, &mut network.qos_policy_id, network.id.0)?;
        input.put("hextet:single_homed", &mut network.single_homed)?;
        let network = with_status(network);
        check_mtu(write, &network)?;
        segment::check_private(write, &network, Some(&old.value))?;
        if old.value.shared && !network.shared {
            check_unshare(write, &network)?;
            take_away(write, network.id.0, |action, target| {
                action == RbacAction::AccessAsShared && *target == everybody()
            });
        }
        if old.value.external && !network.external {
            check_no_gateways(write, &network)?;
            take_away(write, network.id.0, |action, _| {
                action == RbacAction::AccessAsExternal
            });
        }
        if network.shared != old.value.shared || network.external != old.value.external {
            open(write, &network)?;
        }
        if old.value.single_homed != network.single_homed {
            check_single_homed_change(write, &network)?;
        }
        match (old.value.is_default, network.is_default) {
            (false, true) => claim_default(write, &network)?,
            (true, false) => write.release(keys::default_network()),
            _ => {}
        }
        write.replace(network.key(), old.mod_revision, &network)?;
        Ok(Arc::new(network))
    }

    fn delete(write: &mut Write<'_>, old: &Row<Self>) -> Result<()> {
        let network = &old.value;
        let ports: Vec<_> = write
            .state
            .ports_by_network
            .get(&network.id)
            .take(10)
            .collect();
        if !ports.is_empty() {
            let ids: Vec<_> = ports.iter().map(ToString::to_string).collect();
            return Err(in_use(
                network.id,
                &format!(
                    "There are one or more ports still in use on the network, id for these ports is: {}",
                    ids.join(",")
                ),
            ));
        }
        write.empty(keys::ports_of(network.id));
        write.quiet(keys::subnets());
        for subnet in write.state.subnets_of(network.id) {
            super::subnet::check_no_translator(write.state, subnet)?;
            if let Some(row) = write.state.subnets.row(&subnet.id) {
                super::subnet::remove(write, row);
            }
        }
        if network.is_default {
            write.release(keys::default_network());
        }
        segment::release(write, network);
        qos::release(write, network.qos_policy_id, network.id.0);
        forget(write, network.id.0);
        write.remove(network.key(), old.mod_revision);
        Ok(())
    }
}

/// The policy that is named, or its project's default one.
fn first_policy(
    write: &mut Write<'_>,
    input: &Input,
    network: &Network,
) -> Result<Option<QosPolicyId>> {
    if input.names("qos_policy_id") {
        return qos::for_new(write, input, network.id.0);
    }
    let default = write.state.qos.defaults.get(&network.standard.project_id);
    let default = default.copied();
    qos::assign(write, None, default, network.id.0)?;
    Ok(default)
}

/// Makes the policies that its attributes stand for.
fn open(write: &mut Write<'_>, network: &Network) -> Result<()> {
    let object = (RbacType::Network, network.id.0);
    let owner = &network.standard.project_id;
    if network.shared {
        share_with_all(write, object, RbacAction::AccessAsShared, owner)?;
    }
    // One that is external for some projects alone stays so.
    let external = |(action, _, _)| action == RbacAction::AccessAsExternal;
    if network.external && !write.state.grants.of(network.id.0).any(external) {
        share_with_all(write, object, RbacAction::AccessAsExternal, owner)?;
    }
    Ok(())
}

/// The zones that a request asks for; there is one.
///
/// # Errors
///
/// 404 `AvailabilityZoneNotFound`.
pub fn zone_hints(input: &Input) -> Result<Vec<String>> {
    let hints: Vec<String> = input.take("availability_zone_hints")?;
    match hints.iter().find(|h| *h != ZONE) {
        None => Ok(hints),
        Some(unknown) => Err(ApiError::new(
            404,
            "AvailabilityZoneNotFound",
            format!("AvailabilityZone {unknown} could not be found."),
        )),
    }
}

fn quota() -> hextet_api::describe::Quota {
    resources::NETWORK.quota.unwrap_or(resources::PUBLIC_IPV4)
}

fn with_status(mut network: Network) -> Network {
    network.status = if network.admin_state_up {
        Status::Active
    } else {
        Status::Down
    };
    network
}

fn in_use(id: NetworkId, reason: &str) -> ApiError {
    let message = format!("Unable to complete operation on network {id}. {reason}.");
    ApiError::conflict("NetworkInUse", message)
}

/// There is one network that a user gets who does not choose.
fn claim_default(write: &mut Write<'_>, network: &Network) -> Result<()> {
    let other = write.state.networks.values().find(|n| n.is_default);
    let key = keys::default_network();
    match other {
        None if write.claim(key, network.id.to_string()) => Ok(()),
        _ => {
            let other = other.map_or_else(String::new, |n| n.id.to_string());
            Err(ApiError::conflict(
                "DefaultExternalNetworkExists",
                format!(
                    "A default network already exists: {other}. Set its is_default to false first."
                ),
            ))
        }
    }
}

fn check_mtu(write: &mut Write<'_>, network: &Network) -> Result<()> {
    let has_ipv6 = write
        .state
        .subnets_of(network.id)
        .any(|s| s.family() == Family::V6);
    if network.mtu < IPV6_MIN_MTU && has_ipv6 {
        return Err(mtu_conflict(network));
    }
    write.quiet(keys::subnets_of(network.id));
    Ok(())
}

/// The error for an IPv6 subnet on a network whose packets are too small for it.
pub fn mtu_conflict(network: &Network) -> ApiError {
    ApiError::conflict(
        "NetworkMTUSubnetConflict",
        format!(
            "MTU of {} is not valid, subnet requires a minimum of {IPV6_MIN_MTU} bytes.",
            network.id
        ),
    )
}

/// Whether the network is too small for IPv6.
pub fn is_below_ipv6(network: &Network) -> bool {
    network.mtu < IPV6_MIN_MTU
}

fn check_unshare(write: &mut Write<'_>, network: &Network) -> Result<()> {
    let owner = &network.standard.project_id;
    let action = RbacAction::AccessAsShared;
    let may = |project: &ProjectId| {
        project == owner || write.state.grants.names(network.id.0, action, project)
    };
    let mut ports = write.state.ports_by_network.get(&network.id);
    let foreign = ports.any(|id| {
        write.state.ports.get(id).is_some_and(|p| {
            !may(&p.standard.project_id) && !p.device_owner.starts_with("network:")
        })
    });
    if foreign {
        return Err(ApiError::conflict(
            "InvalidSharedSetting",
            format!(
                "Unable to reconfigure sharing settings for network {}. Multiple projects are using it.",
                network.id
            ),
        ));
    }
    write.quiet(keys::ports_of(network.id));
    Ok(())
}

fn check_no_gateways(write: &mut Write<'_>, network: &Network) -> Result<()> {
    let owners = [Router::GATEWAY_OWNER, FloatingIp::OWNER];
    let ports = write.state.ports_by_network.get(&network.id);
    let mut ports = ports.filter_map(|id| write.state.ports.get(id));
    if ports.any(|p| owners.contains(&p.device_owner.as_str())) {
        return Err(ApiError::conflict(
            "ExternalNetworkInUse",
            format!(
                "External network {} cannot be updated to be made non-external, since it has \
                 existing gateway ports.",
                network.id
            ),
        ));
    }
    write.quiet(keys::ports_of(network.id));
    Ok(())
}

fn check_single_homed_change(write: &mut Write<'_>, network: &Network) -> Result<()> {
    if write.state.ports_by_network.count(&network.id) > 0 {
        return Err(in_use(
            network.id,
            "hextet:single_homed can be changed only while the network has no ports",
        ));
    }
    write.empty(keys::ports_of(network.id));
    Ok(())
}
