//! Ports of a host's own IPv4 addresses that lead to a port there: each leads to one, by a claim in the store.

use std::collections::BTreeSet;

use bytes::Bytes;
use hextet_api::{
    error::{ApiError, Result},
    request::Input,
};
use hextet_model::neutron::{Exposure, Network, NetworkType, Port};
use hextet_types::{Family, PortId};

use crate::{keys, write::Write};

/// `hextet:exposed`, sorted; no port of the host twice.
pub fn exposed(input: &Input) -> Result<Vec<Exposure>> {
    let mut all: Vec<Exposure> = input.get("hextet:exposed")?.unwrap_or_default();
    all.sort_unstable();
    let mut seen = BTreeSet::new();
    let again = all
        .iter()
        .find(|e| !seen.insert((e.protocol, e.external_port)));
    match again {
        None => Ok(all),
        Some(again) => Err(ApiError::invalid_input(format!(
            "'hextet:exposed' has {} twice: a port of the host leads to one port alone",
            name(again)
        ))),
    }
}

fn name(exposure: &Exposure) -> String {
    let protocol = serde_json::to_value(exposure.protocol).unwrap_or_default();
    let protocol = protocol.as_str().unwrap_or_default();
    format!("{protocol} port {}", exposure.external_port)
}

/// Whether it can be.
///
/// # Errors
///
/// 400: the port's host has no part in its network's translation, or it has no IPv4 address.
pub fn check(network: &Network, port: &Port) -> Result<()> {
    if port.exposed.is_empty() {
        return Ok(());
    }
    if network.network_type == NetworkType::Vxlan {
        return Err(ApiError::invalid_input(format!(
            "port {} is on a private network, which its host has no address in: forward a port of a floating IP to it",
            port.id
        )));
    }
    if port.addresses(Family::V4).next().is_none() {
        return Err(ApiError::invalid_input(format!(
            "port {} has no IPv4 address that a port of its host could lead to; by IPv6 it is reached at its own",
            port.id
        )));
    }
    Ok(())
}

/// The keys by which it has them.
pub fn claimed(port: &Port) -> impl Iterator<Item = Bytes> + '_ {
    claims(port).map(|(key, _)| key)
}

fn claims(port: &Port) -> impl Iterator<Item = (Bytes, &Exposure)> + '_ {
    port.binding.host_id.iter().flat_map(|host| {
        let claim = |e: &Exposure| keys::exposed(host, e.protocol.number(), e.external_port);
        port.exposed.iter().map(move |e| (claim(e), e))
    })
}

/// What was claimed for a port as it was is what it has as it is now.
///
/// # Errors
///
/// 409 `ExposedInUse`: it leads to another one.
pub fn follow(write: &mut Write<'_>, old: Option<&Port>, port: &Port) -> Result<()> {
    let had: BTreeSet<Bytes> = old.into_iter().flat_map(claimed).collect();
    let has: BTreeSet<Bytes> = claimed(port).collect();
    for key in had.difference(&has) {
        write.release(key.clone());
    }
    for (key, exposure) in claims(port).filter(|(key, _)| !had.contains(key)) {
        let other = other(write, port, exposure);
        if other.is_some() || !write.claim(key, port.id.to_string()) {
            let host = port.binding.host_id.as_ref();
            let whose = other.map_or_else(|| "another port".to_owned(), |id| format!("port {id}"));
            return Err(ApiError::conflict(
                "ExposedInUse",
                format!(
                    "Port {} cannot have {} of host {}: it leads to {whose}.",
                    port.id,
                    name(exposure),
                    host.map_or("", |host| host.as_str()),
                ),
            ));
        }
    }
    Ok(())
}

/// The other port on its host that has it.
fn other(write: &Write<'_>, port: &Port, wanted: &Exposure) -> Option<PortId> {
    let host = port.binding.host_id.as_ref()?;
    let all = write.state.views.ports_of(host).copied();
    all.filter(|id| *id != port.id).find(|id| {
        let other = write.state.ports.get(id);
        other.is_some_and(|other| {
            let mut exposed = other.exposed.iter();
            exposed
                .any(|e| (e.protocol, e.external_port) == (wanted.protocol, wanted.external_port))
        })
    })
}
