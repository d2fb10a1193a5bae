//! A host's end of tunnels, as its agent says it: the address of the underlay, and the number that the host
//! keeps for ever. No two hosts ever have one of either.

use std::net::IpAddr;

use hextet_api::{
    agent::is_tunnel_address,
    error::{ApiError, Result},
};
use hextet_types::{Family, HostId};
use tracing::info;

use super::join::server;
use crate::{
    cloud::Cloud,
    keys,
    state::{State, tunnels::TunnelRecord},
    write::Write,
};

/// Keeps what an agent says of its end of tunnels.
///
/// # Errors
///
/// 400: nobody can be reached there. 409: it is of the wrong family, or another host's. 503: the store fails.
pub async fn keep(cloud: &Cloud, host: &HostId, address: Option<IpAddr>) -> Result<()> {
    {
        let state = cloud.state();
        check(&state, host, address)?;
        let record = state.tunnels.row(host);
        if record.and_then(|r| r.value.address) == address {
            return Ok(());
        }
    }
    let caller = server();
    let done = cloud.write(&caller, |write| set(write, host, address));
    done.await?;
    match address {
        Some(address) => info!(%host, %address, "a host is reached by tunnels"),
        None => info!(%host, "a host is not reached by tunnels any more"),
    }
    Ok(())
}

fn check(state: &State, host: &HostId, address: Option<IpAddr>) -> Result<()> {
    let Some(address) = address else {
        return Ok(());
    };
    if !is_tunnel_address(address) {
        return Err(ApiError::invalid_input(format!(
            "tunnel_address = \"{address}\" of {host}: other hosts reach nobody there"
        )));
    }
    let family = state.tunnels.family();
    if Family::of(address) != family {
        return Err(ApiError::conflict(
            "TunnelFamily",
            format!(
                "tunnel_address = \"{address}\" of {host}: all tunnels of the cloud are of {family}; name an \
             address of that family, or change overlay_ip_version in the server's configuration for all hosts"
            ),
        ));
    }
    match state.tunnels.host_at(address) {
        Some(other) if other != host => Err(taken(host, address, Some(other))),
        _ => Ok(()),
    }
}

fn taken(host: &HostId, address: IpAddr, by: Option<&HostId>) -> ApiError {
    let by = by.map_or_else(
        || "another host".to_owned(),
        |other| format!("host {other}"),
    );
    ApiError::conflict(
        "TunnelAddressInUse",
        format!(
            "tunnel_address = \"{address}\" of {host} is that of {by}: each host needs one of its own"
        ),
    )
}

fn set(write: &mut Write<'_>, host: &HostId, address: Option<IpAddr>) -> Result<()> {
    let state = write.state;
    if state.hosts.get(host).is_none() {
        return Ok(());
    }
    check(state, host, address)?;
    write.exists(keys::host(host));
    let row = state.tunnels.row(host);
    let former = row.and_then(|r| r.value.address);
    if let Some(former) = former.filter(|f| Some(*f) != address) {
        write.release(keys::tunnel_address(former));
    }
    if let Some(address) = address.filter(|a| Some(*a) != former) {
        write.claim(keys::tunnel_address(address), host.as_str().to_owned());
    }
    match (row, address) {
        (Some(row), _) => {
            let number = row.value.number;
            let record = TunnelRecord { number, address };
            write.replace(keys::tunnel(host), row.mod_revision, &record)
        }
        (None, None) => Ok(()),
        (None, Some(_)) => {
            let number = state.tunnels.free_number(host).ok_or_else(|| {
                ApiError::conflict("NoTunnelNumber", "16777215 hosts have been in the cloud")
            })?;
            write.claim(keys::tunnel_number(number), host.as_str().to_owned());
            write.create(keys::tunnel(host), &TunnelRecord { number, address })
        }
    }
}

/// A host leaves the cloud. It keeps its number, in case that it comes back.
pub fn leave(write: &mut Write<'_>, host: &HostId) -> Result<()> {
    if write.state.tunnels.row(host).is_none() {
        return Ok(());
    }
    set(write, host, None)
}
