//! `POST /v1/joined`: the multicast groups that ports have joined, as their hosts have heard it (IGMP, MLD).

use std::{collections::BTreeSet, net::IpAddr, sync::Arc};

use axum::{Json, extract::State as Shared, response::Response};
use hextet_api::{
    agent::{Memberships, is_joinable},
    error::{ApiError, Result},
};
use hextet_model::{intent::RoutingDomain, state::Audience};
use hextet_types::{HostId, PortId};
use tracing::{info, warn};

use super::{AgentError, Joined, join::server};
use crate::{
    app::App,
    http::answer,
    keys,
    networking::entity::Entity,
    state::{State, joins::JoinRecord},
    write::Write,
};

/// Groups of one network that somebody has joined.
const MAX_OF_NETWORK: usize = 256;
/// Ports in one transaction.
const CHUNK: usize = 16;

/// `POST /v1/joined`.
///
/// # Errors
///
/// 400: more than one report may name. 403: the certificate does not count. 429: something that changes too often is
/// left as it is; what else is named has been done. 503: the store fails.
pub async fn report(
    Shared(app): Shared<Arc<App>>,
    Joined(host): Joined,
    Json(told): Json<Memberships>,
) -> Result<Response, AgentError> {
    let (ports, groups) = (Memberships::MAX_PORTS, Memberships::MAX_GROUPS);
    if told.ports.len() > ports || told.ports.values().any(|all| all.len() > groups) {
        return Err(ApiError::invalid_input(format!(
            "a report names at most {ports} ports with {groups} groups each"
        ))
        .into());
    }
    let caller = server();
    let mut wanted = Vec::new();
    let mut left = 0;
    for (id, groups) in &told.ports {
        let decide = |write: &mut Write<'_>| join(write, &host, *id, groups);
        if !app.cloud.would_change(&caller, decide)? {
            continue;
        }
        if app.join_pace.admit(*id) {
            wanted.push((*id, groups));
        } else {
            warn!(%host, port = %id, "the port's groups change too often; left as they are");
            left += 1;
        }
    }
    for chunk in wanted.chunks(CHUNK) {
        let done = app.cloud.write(&caller, |write| {
            let mut each = chunk.iter();
            each.try_for_each(|(id, groups)| join(write, &host, *id, groups))
        });
        done.await?;
        for (id, groups) in chunk {
            info!(%host, port = %id, ?groups, "a port has joined these groups");
        }
    }
    match left {
        0 => Ok(answer::empty(204)),
        _ => Err(ApiError::new(
            429,
            "TooManyRequests",
            format!("groups of {left} ports change too often; say so again in a moment"),
        )
        .into()),
    }
}

/// What follows from what a port has joined: that is kept which fits, the rest is left out.
fn join(write: &mut Write<'_>, host: &HostId, id: PortId, groups: &BTreeSet<IpAddr>) -> Result<()> {
    let state = write.state;
    let Some(row) = state.ports.row(&id) else {
        return Ok(());
    };
    let port = &row.value;
    let network = port.network_id;
    let is_private = matches!(state.domain_of(network), RoutingDomain::Network(_));
    if !is_private || state.places(Some(port)).home.as_ref() != Some(host) {
        return Ok(());
    }
    let known = state.joins.row(id);
    let former = known.map(|known| &known.value.groups);
    let mut left = MAX_OF_NETWORK.saturating_sub(state.joins.count(network));
    let mut fits = |group: &IpAddr| {
        let has = former.is_some_and(|groups| groups.contains(group));
        has || (is_joinable(*group) && admits(state, (network, *group), &mut left))
    };
    let groups: BTreeSet<IpAddr> = groups.iter().filter(|g| fits(g)).copied().collect();
    if former.is_some_and(|former| *former == groups) {
        return Ok(());
    }
    let key = keys::joined(id);
    let record = JoinRecord {
        network_id: network,
        groups,
    };
    write.unchanged(port.key(), row.mod_revision);
    match (known, record.groups.is_empty()) {
        (None, true) => {}
        (Some(known), true) => write.remove(key, known.mod_revision),
        (Some(known), false) => write.replace(key, known.mod_revision, &record)?,
        (None, false) => write.create(key, &record)?,
    }
    Ok(())
}

/// Whether one more may join a group; a new one takes of what is left for new ones.
fn admits(
    state: &State,
    (network, group): (hextet_types::NetworkId, IpAddr),
    left: &mut usize,
) -> bool {
    let listeners = state.joins.of(network, group).count();
    let fits = match listeners {
        0 => *left > 0,
        n => n < Audience::MOST,
    };
    if !fits {
        warn!(%network, %group, "too many have joined, or too many groups of the network; left out");
    } else if listeners == 0 {
        *left -= 1;
    }
    fits
}
