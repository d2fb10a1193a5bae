//! `POST /v1/joined`: the multicast groups that ports have joined, as their hosts have heard it (IGMP, MLD).

use std::{
    cell::RefCell,
    collections::BTreeSet,
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use axum::{Json, extract::State as Shared, response::Response};
use hextet_api::{
    agent::{Memberships, is_joinable},
    error::{ApiError, Result},
};
use hextet_model::{intent::RoutingDomain, state::Audience};
use hextet_types::{Bucket, HostId, NetworkId, PortId, Time};
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

/// What is left out, for want of room.
type LeftOut = BTreeSet<(NetworkId, IpAddr)>;

/// Says what is left out, ten times at once and then once a minute: workloads make it happen.
#[derive(Debug)]
pub struct Words {
    left: Mutex<Bucket>,
    origin: Instant,
}

impl Default for Words {
    fn default() -> Self {
        Words {
            left: Mutex::new(Bucket::new(10, Duration::from_mins(1), Time::ZERO)),
            origin: Instant::now(),
        }
    }
}

impl Words {
    fn say(&self, port: PortId, left_out: &LeftOut) {
        let Some((network, group)) = left_out.first() else {
            return;
        };
        let now = Time::ZERO + self.origin.elapsed();
        let mut left = self.left.lock().unwrap_or_else(PoisonError::into_inner);
        if left.take(now) {
            let groups = left_out.len();
            warn!(%port, %network, %group, groups, "too many have joined, or too many groups of the network; left out");
        }
    }
}

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
        let left_out = RefCell::default();
        let decide = |write: &mut Write<'_>| {
            *left_out.borrow_mut() = join(write, &host, *id, groups)?;
            Ok(())
        };
        let changes = app.cloud.would_change(&caller, decide)?;
        app.join_words.say(*id, &left_out.take());
        if !changes {
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
            each.try_for_each(|(id, groups)| join(write, &host, *id, groups).map(drop))
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

/// What follows from what a port has joined: that is kept which fits. Gives what does not.
fn join(
    write: &mut Write<'_>,
    host: &HostId,
    id: PortId,
    groups: &BTreeSet<IpAddr>,
) -> Result<LeftOut> {
    let state = write.state;
    let mut left_out = LeftOut::new();
    let Some(row) = state.ports.row(&id) else {
        return Ok(left_out);
    };
    let port = &row.value;
    let network = port.network_id;
    let is_private = matches!(state.domain_of(network), RoutingDomain::Network(_));
    if !is_private || state.places(Some(port)).home.as_ref() != Some(host) {
        return Ok(left_out);
    }
    let known = state.joins.row(id);
    let former = known.map(|known| &known.value.groups);
    let mut left = MAX_OF_NETWORK.saturating_sub(state.joins.count(network));
    let mut kept = BTreeSet::new();
    for group in groups.iter().copied().filter(|g| is_joinable(*g)) {
        let has = former.is_some_and(|groups| groups.contains(&group));
        if has || admits(state, (network, group), &mut left) {
            kept.insert(group);
        } else {
            left_out.insert((network, group));
        }
    }
    if former.is_some_and(|former| *former == kept) {
        return Ok(left_out);
    }
    let key = keys::joined(id);
    let record = JoinRecord {
        network_id: network,
        groups: kept,
    };
    write.unchanged(port.key(), row.mod_revision);
    match (known, record.groups.is_empty()) {
        (None, true) => {}
        (Some(known), true) => write.remove(key, known.mod_revision),
        (Some(known), false) => write.replace(key, known.mod_revision, &record)?,
        (None, false) => write.create(key, &record)?,
    }
    Ok(left_out)
}

/// Whether one more may join a group; a new one takes of what is left for new ones.
fn admits(state: &State, (network, group): (NetworkId, IpAddr), left: &mut usize) -> bool {
    match state.joins.of(network, group).count() {
        0 if *left > 0 => {
            *left -= 1;
            true
        }
        0 => false,
        listeners => listeners < Audience::MOST,
    }
}
