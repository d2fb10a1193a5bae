//! Floating IPs: where their addresses come from, and what they stand for.

mod association;
pub mod forwarding;

use std::{net::IpAddr, sync::Arc};

use bytes::Bytes;
use hextet_api::{
    describe::Resource,
    error::{ApiError, Result},
    query::Query,
    request::{Caller, Input},
    resources,
};
use hextet_model::neutron::{FloatingIp, Network, Port, PortForwarding, Standard};
use hextet_types::{Family, FloatingIpId, PortId, ProjectId, RouterId, SubnetId};
use serde_json::{Value, json};
use uuid::Uuid;

use association::{associate, bad, give_up};

use super::{
    allocate::{Wanted, allocate_ipv4},
    entity::{Entity, standard_value, wanted_ids},
    network::external,
    port::internal::{self, Purpose},
    qos,
};
use crate::{
    keys,
    state::{State, table::Row},
    write::Write,
};

/// What is shown of a floating IP that others say.
pub struct Around {
    port: Option<Arc<Port>>,
    forwardings: Vec<Arc<PortForwarding>>,
}

impl Entity for FloatingIp {
    const RESOURCE: &'static Resource = &resources::FLOATING_IP;
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
        keys::floating_ip(self.id)
    }

    fn standard_mut(&mut self) -> Option<&mut Standard> {
        Some(&mut self.standard)
    }

    fn find<'s>(state: &'s State, id: &str) -> Option<&'s Row<Self>> {
        state.layer3.floating_ips.row(&id.parse().ok()?)
    }

    fn candidates(state: &State, query: &Query, caller: &Caller) -> Vec<Arc<Self>> {
        let layer3 = &state.layer3;
        let all = |ids: &mut dyn Iterator<Item = FloatingIpId>| -> Vec<Arc<Self>> {
            ids.filter_map(|id| layer3.floating_ips.get(&id))
                .cloned()
                .collect()
        };
        if let Some(ids) = wanted_ids::<FloatingIpId>(query, "id") {
            return all(&mut ids.into_iter());
        }
        if let Some(ports) = wanted_ids::<PortId>(query, "port_id") {
            let of = |p| layer3.floating_ips_by_port.get(p);
            return all(&mut ports.iter().flat_map(of).copied());
        }
        if let Some(routers) = wanted_ids::<RouterId>(query, "router_id") {
            let of = |r| layer3.floating_ips_by_router.get(r);
            return all(&mut routers.iter().flat_map(of).copied());
        }
        match caller.admin {
            true => layer3.floating_ips.values().cloned().collect(),
            false => {
                let own = layer3.floating_ips_by_project.get(&caller.project);
                all(&mut own.copied())
            }
        }
    }

    fn is_visible(&self, state: &State, caller: &Caller) -> bool {
        self.is_owned(state, caller)
    }

    fn extra(&self, state: &State) -> Around {
        Around {
            port: self.port_id.and_then(|id| state.ports.get(&id).cloned()),
            forwardings: state.layer3.forwardings_of(self.id).cloned().collect(),
        }
    }

    fn value(&self, around: &Around, attribute: &str) -> Value {
        match attribute {
            "id" => json!(self.id),
            "floating_network_id" => json!(self.floating_network_id),
            "floating_ip_address" => json!(self.floating_ip_address),
            "port_id" => json!(self.port_id),
            "fixed_ip_address" => json!(self.fixed_ip_address),
            "router_id" => json!(self.router_id),
            "status" => json!(self.status()),
            "qos_policy_id" => json!(self.qos_policy_id),
            "port_details" => json!(around.port.as_deref().map(details)),
            "port_forwardings" => around
                .forwardings
                .iter()
                .map(|f| forwarding::brief(f))
                .collect(),
            _ => standard_value(&self.standard, attribute),
        }
    }

    fn create(write: &mut Write<'_>, input: &Input) -> Result<Arc<Self>> {
        let network = network_for(write, input)?;
        let wanted = wanted(write, &network, input)?;
        let id = FloatingIpId(Uuid::new_v4());
        let purpose = Purpose {
            project: ProjectId(String::new()),
            owner: FloatingIp::OWNER,
            device: id.0,
        };
        let holder = internal::create(write, &network, purpose, |write, place| {
            Ok(vec![allocate_ipv4(write, place, wanted)?])
        })?;
        let address = holder.fixed_ips.iter().find_map(|f| match f.ip_address {
            IpAddr::V4(a) => Some(a),
            IpAddr::V6(_) => None,
        });
        let mut fip = FloatingIp {
            id,
            standard: write.standard(input)?,
            floating_network_id: network.id,
            floating_ip_address: address.ok_or_else(|| exhausted(&network))?,
            floating_port_id: holder.id,
            port_id: None,
            fixed_ip_address: None,
            router_id: None,
            qos_policy_id: qos::for_new(write, input, id.0)?,
        };
        let port = input.get("port_id")?;
        move_to(write, &mut fip, port, input.get("fixed_ip_address")?)?;
        let quota = resources::FLOATING_IP
            .quota
            .unwrap_or(resources::PUBLIC_IPV4);
        write.use_quota(&fip.standard.project_id, quota, 1);
        write.create(fip.key(), &fip)?;
        Ok(Arc::new(fip))
    }

    fn update(write: &mut Write<'_>, old: &Row<Self>, input: &Input) -> Result<Arc<Self>> {
        let mut fip = old.value.as_ref().clone();
        write.touch(&mut fip.standard, input)?;
        qos::reassign(write, input, &mut fip.qos_policy_id, fip.id.0)?;
        if input.names("port_id") || input.names("fixed_ip_address") {
            let port = match input.names("port_id") {
                true => input.get("port_id")?,
                false => fip.port_id,
            };
            if port.is_some() {
                check_no_forwardings(write, &fip)?;
            }
            move_to(write, &mut fip, port, input.get("fixed_ip_address")?)?;
        }
        write.replace(fip.key(), old.mod_revision, &fip)?;
        Ok(Arc::new(fip))
    }

    fn delete(write: &mut Write<'_>, old: &Row<Self>) -> Result<()> {
        let mut fip = old.value.as_ref().clone();
        check_no_forwardings(write, &fip)?;
        give_up(write, &mut fip);
        internal::delete(write, fip.floating_port_id);
        qos::release(write, fip.qos_policy_id, fip.id.0);
        write.remove(fip.key(), old.mod_revision);
        Ok(())
    }
}

/// What is told of the port that it stands for.
fn details(port: &Port) -> Value {
    json!({
        "name": port.standard.name,
        "network_id": port.network_id,
        "mac_address": port.mac_address,
        "admin_state_up": port.admin_state_up,
        "status": port.status,
        "device_id": port.device_id,
        "device_owner": port.device_owner,
    })
}

fn exhausted(network: &Network) -> ApiError {
    ApiError::new(
        400,
        "ExternalIpAddressExhausted",
        format!(
            "Unable to find any IP address on external network {}.",
            network.id
        ),
    )
}

fn network_for(write: &mut Write<'_>, input: &Input) -> Result<Arc<Network>> {
    let id = input.take("floating_network_id")?;
    let Some(row) = external(write, id)? else {
        return Err(bad(format!("Network {id} is not a valid external network")));
    };
    if !write.state.subnets_of(id).any(|s| s.family() == Family::V4) {
        return Err(bad(format!(
            "Network {id} does not contain any IPv4 subnet"
        )));
    }
    Ok(Arc::clone(&row.value))
}

/// Which address is asked for; IPv6 needs no translation, and gets none.
fn wanted(write: &Write<'_>, network: &Network, input: &Input) -> Result<Option<Wanted>> {
    let ip_address: Option<IpAddr> = input.get("floating_ip_address")?;
    let subnet_id: Option<SubnetId> = input.get("subnet_id")?;
    let subnet = subnet_id.and_then(|id| write.state.subnets.get(&id));
    let families = [
        ip_address.map(Family::of),
        subnet
            .filter(|s| s.network_id == network.id)
            .map(|s| s.family()),
    ];
    if families.contains(&Some(Family::V6)) {
        return Err(exhausted(network));
    }
    let wanted = Wanted {
        subnet_id,
        ip_address,
    };
    Ok((ip_address.is_some() || subnet_id.is_some()).then_some(wanted))
}

/// Lets it stand for another port, or for none.
fn move_to(
    write: &mut Write<'_>,
    fip: &mut FloatingIp,
    port: Option<PortId>,
    fixed: Option<IpAddr>,
) -> Result<()> {
    match port {
        Some(port) => {
            give_up(write, fip);
            associate(write, fip, port, fixed)
        }
        None if fixed.is_some() => Err(bad(
            "fixed_ip_address cannot be specified without a port_id".into(),
        )),
        None => {
            if fip.port_id.is_some() {
                give_up(write, fip);
            }
            Ok(())
        }
    }
}

fn check_no_forwardings(write: &Write<'_>, fip: &FloatingIp) -> Result<()> {
    if write.state.layer3.forwardings_of(fip.id).next().is_none() {
        return Ok(());
    }
    Err(ApiError::conflict(
        "FipInUseByPortForwarding",
        format!(
            "Floating IP {} in use by Port Forwarding resources.",
            fip.id
        ),
    ))
}

/// Takes the floating IP off its port, which loses the address that it stands for.
///
/// # Errors
///
/// It cannot be encoded.
pub fn disassociate(write: &mut Write<'_>, old: &Row<FloatingIp>) -> Result<()> {
    let mut fip = old.value.as_ref().clone();
    give_up(write, &mut fip);
    put(write, old, fip)
}

/// Puts one that something else changes.
fn put(write: &mut Write<'_>, old: &Row<FloatingIp>, mut fip: FloatingIp) -> Result<()> {
    fip.standard.revision_number += 1;
    fip.standard.updated_at = write.now;
    write.replace(fip.key(), old.mod_revision, &fip)
}
