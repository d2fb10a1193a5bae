//! `POST /v1/heard`: workloads that have said on their links that they are there. A port's addresses follow its
//! workload to the host that it migrates to, and an address that several ports may use goes to the one that has said
//! that it has it.

use std::{collections::BTreeSet, net::IpAddr, sync::Arc};

use axum::{Json, extract::State as Shared, response::Response};
use hextet_api::{
    agent::{Heard, is_tunnel_address},
    error::{ApiError, Result},
};
use hextet_model::neutron::Port;
use hextet_types::{HostId, PortId};
use tracing::{info, warn};

use super::{AgentError, Joined, join::server};
use crate::{
    app::App,
    http::answer,
    keys,
    networking::entity::Entity,
    state::{bindings::migrating_to, holders::HolderRecord, table::Row},
    write::Write,
};

/// Ports in one report.
const MAX_PORTS: usize = 1_000;
/// Addresses of one port in one report, and that one port has besides its own.
const MAX_ADDRESSES: usize = 64;
/// Addresses of one network that several may use, and somebody has.
const MAX_OF_NETWORK: usize = 1_024;
/// Ports in one transaction.
const CHUNK: usize = 16;

/// `POST /v1/heard`.
///
/// # Errors
///
/// 400: more than one report may name. 403: the certificate does not count. 429: something that changes too often is
/// left as it is; what else is named has been done. 503: the store fails.
pub async fn report(
    Shared(app): Shared<Arc<App>>,
    Joined(host): Joined,
    Json(heard): Json<Heard>,
) -> Result<Response, AgentError> {
    if heard.ports.len() > MAX_PORTS || heard.ports.values().any(|a| a.len() > MAX_ADDRESSES) {
        return Err(ApiError::invalid_input(format!(
            "a report names at most {MAX_PORTS} ports with {MAX_ADDRESSES} addresses each"
        ))
        .into());
    }
    let caller = server();
    let mut wanted = Vec::new();
    let mut left = 0;
    for (id, addresses) in &heard.ports {
        let decide = |write: &mut Write<'_>| hear(write, &host, *id, addresses);
        if !app.cloud.would_change(&caller, decide)? {
            continue;
        }
        if app.pace.admit(id, 1) {
            wanted.push((*id, addresses));
        } else {
            warn!(%host, port = %id, "what is heard of the port changes too often; left as it is");
            left += 1;
        }
    }
    for chunk in wanted.chunks(CHUNK) {
        let done = app.cloud.write(&caller, |write| {
            let mut each = chunk.iter();
            each.try_for_each(|(id, addresses)| hear(write, &host, *id, addresses))
        });
        done.await?;
        for (id, addresses) in chunk {
            info!(%host, port = %id, ?addresses, "a port's workload was heard");
        }
    }
    if left > 0 {
        return Err(ApiError::new(
            429,
            "TooManyRequests",
            format!("{left} ports change too often; say so again in a moment"),
        )
        .into());
    }
    Ok(answer::empty(204))
}

/// What follows from what one port's workload says.
fn hear(
    write: &mut Write<'_>,
    host: &HostId,
    id: PortId,
    addresses: &BTreeSet<IpAddr>,
) -> Result<()> {
    let Some(row) = write.state.ports.row(&id) else {
        return Ok(());
    };
    let port = &row.value;
    let places = write.state.places(Some(port));
    if !places.told.iter().any(|(at, _)| at == host) {
        return Ok(());
    }
    let is_bound = port.binding.host_id.as_ref() == Some(host);
    let comes = migrating_to(port) == Some(host.as_str());
    if !is_bound && !comes && places.home.as_ref() != Some(host) {
        return Ok(());
    }
    follow(write, row, host)?;
    let others = addresses.iter().filter(|a| is_tunnel_address(**a));
    let others = others.filter(|a| write.state.may_have(port, **a));
    let others: Vec<IpAddr> = others.copied().collect();
    hold(write, row, &others)
}

/// The port's addresses are where it was heard: there, and nowhere else.
fn follow(write: &mut Write<'_>, row: &Row<Port>, host: &HostId) -> Result<()> {
    let port = &row.value;
    for (at, binding) in write.state.bindings.of(port.id) {
        let here = at == host;
        if binding.value.taken_over != here {
            let mut record = binding.value.as_ref().clone();
            record.taken_over = here;
            write.unchanged(port.key(), row.mod_revision);
            write.replace(keys::binding(port.id, at), binding.mod_revision, &record)?;
        }
    }
    Ok(())
}

/// The port has these addresses besides its own, which others have no longer.
fn hold(write: &mut Write<'_>, row: &Row<Port>, addresses: &[IpAddr]) -> Result<()> {
    let (port, state) = (&row.value, write.state);
    let network = port.network_id;
    let mut own = state.holders.by(port.id).count();
    let mut all = state.holders.count(network);
    for address in addresses {
        let known = state.holders.row(network, *address);
        if known.is_some_and(|known| known.value.port_id == port.id) {
            continue;
        }
        if own >= MAX_ADDRESSES || (known.is_none() && all >= MAX_OF_NETWORK) {
            warn!(port = %port.id, %address, "too many addresses that several may use; left as it is");
            continue;
        }
        own += 1;
        all += usize::from(known.is_none());
        let record = HolderRecord { port_id: port.id };
        let key = keys::holder(network, *address);
        write.unchanged(port.key(), row.mod_revision);
        match known {
            Some(known) => write.replace(key, known.mod_revision, &record)?,
            None => write.create(key, &record)?,
        }
    }
    Ok(())
}
