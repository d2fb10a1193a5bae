//! An instance has one port on all single-homed networks together: a key in the store, so also under a
//! race.

use bytes::Bytes;
use hextet_api::error::{ApiError, Result};
use hextet_model::neutron::{Network, Port, SINGLE_HOMED_EXEMPT_OWNERS};

use crate::{keys, networking::network::single_homed_names, write::Write};

pub fn is_single_homed(network: &Network, port: &Port) -> bool {
    network.single_homed
        && !port.device_id.is_empty()
        && !port.device_owner.starts_with(SINGLE_HOMED_EXEMPT_OWNERS)
}

pub fn holds_single_home(write: &Write<'_>, port: &Port) -> Option<Bytes> {
    let network = write.state.networks.get(&port.network_id)?;
    is_single_homed(network, port)
        .then(|| keys::single_homed(&port.standard.project_id, &port.device_id))
}

pub fn claim_single_home(write: &mut Write<'_>, network: &Network, port: &Port) -> Result<()> {
    let project = &port.standard.project_id;
    let theirs = write.state.ports_by_device.get(port.device_id.as_str());
    let other = theirs.filter_map(|id| write.state.ports.get(id)).find(|p| {
        let home = || write.state.networks.get(&p.network_id);
        p.id != port.id
            && p.standard.project_id == *project
            && home().is_some_and(|n| is_single_homed(n, p))
    });
    let there = other.map_or_else(String::new, |other| {
        let name = write
            .state
            .networks
            .get(&other.network_id)
            .map_or("", |n| &n.standard.name);
        format!(" and has port {} on '{name}' already", other.id)
    });
    let key = keys::single_homed(project, &port.device_id);
    if other.is_some() || !write.claim(key, port.id.to_string()) {
        return Err(ApiError::conflict(
            "SingleHomedNetworksConflict",
            format!(
                "Instance {} cannot have a port on network '{}': an instance uses only one of {}{there}.",
                port.device_id,
                network.standard.name,
                single_homed_names(write.state)
            ),
        ));
    }
    Ok(())
}
