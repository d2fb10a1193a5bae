//! `POST /v1/joined`: the multicast groups that ports have joined, as their hosts have heard it (IGMP, MLD).

use std::{
    cell::RefCell,
    collections::BTreeSet,
    net::IpAddr,
    sync::{Arc, Mutex as SyncMutex, PoisonError},
    time::{Duration, Instant},
};

use axum::{Json, extract::State as Shared, response::Response};
use hextet_api::{
    agent::{Memberships, is_joinable},
    error::{ApiError, Result},
};
use hextet_model::intent::RoutingDomain;
use hextet_types::{Bucket, HostId, NetworkId, PortId, ProjectId, Time};
use tokio::sync::Mutex;
use tracing::{info, warn};

use self::room::Taken;
use super::{AgentError, Joined, join::server, pace::Pace};
use crate::{
    app::App,
    http::answer,
    keys,
    networking::entity::Entity,
    state::{hosts::audiences::joined, joins::JoinRecord},
    write::Write,
};

mod room;

/// Ports in one transaction.
const CHUNK: usize = 16;

/// How often ports may join and leave, and how often something is said of it. What is refused is left as it is: its host sees
/// that, and says it again later.
#[derive(Debug)]
pub struct Bounds {
    ports: Pace<PortId>,
    /// Of groups that ports of a project join or leave: each is told to all hosts of a network.
    projects: Pace<ProjectId>,
    left_out: Words,
    too_often: Words,
    /// Who decides what there is room for does so alone.
    turn: Mutex<()>,
}

impl Default for Bounds {
    fn default() -> Self {
        Bounds {
            ports: Pace::of_ports(),
            projects: Pace::new(2_000, 100),
            left_out: Words::default(),
            too_often: Words::default(),
            turn: Mutex::default(),
        }
    }
}

impl Bounds {
    fn admit(&self, port: PortId, outcome: &Outcome) -> bool {
        let project = outcome.project.as_ref();
        let admits = |project| self.projects.admit(project, outcome.changes);
        let admitted = self.ports.admit(&port, 1) && project.is_none_or(admits);
        if !admitted && self.too_often.may_speak() {
            warn!(%port, "the port's groups, or those of its project, change too often; left as they are");
        }
        admitted
    }

    fn say(&self, left_out: &LeftOut) {
        if let Some((port, network, group)) = left_out.first()
            && self.left_out.may_speak()
        {
            let groups = left_out.len();
            warn!(%port, %network, %group, groups, "too many have joined, or too many groups; left out");
        }
    }
}

/// Ten at once, and then one a minute: workloads make it happen.
#[derive(Debug)]
struct Words {
    left: SyncMutex<Bucket>,
    origin: Instant,
}

impl Default for Words {
    fn default() -> Self {
        Words {
            left: SyncMutex::new(Bucket::new(10, Duration::from_mins(1), Time::ZERO)),
            origin: Instant::now(),
        }
    }
}

impl Words {
    fn may_speak(&self) -> bool {
        let now = Time::ZERO + self.origin.elapsed();
        let mut left = self.left.lock().unwrap_or_else(PoisonError::into_inner);
        left.take(now)
    }
}

/// What is left out, for want of room.
type LeftOut = BTreeSet<(PortId, NetworkId, IpAddr)>;

/// What follows from what a port has joined.
#[derive(Default)]
struct Outcome {
    left_out: LeftOut,
    /// Groups that it joins or leaves by it.
    changes: u32,
    project: Option<ProjectId>,
}

/// `POST /v1/joined`. What there is no room for, and what changes too often, is left as it is, and what else is named is done;
/// whoever follows the intent sees it there.
///
/// # Errors
///
/// 400: more than one report may name. 403: the certificate does not count. 503: the store fails.
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
    for (id, groups) in &told.ports {
        let outcome = RefCell::default();
        let decide = |write: &mut Write<'_>| {
            *outcome.borrow_mut() = join(write, &host, *id, groups, &mut Taken::default())?;
            Ok(())
        };
        let changes = app.cloud.would_change(&caller, decide)?;
        let outcome = outcome.take();
        if !changes {
            app.joins.say(&outcome.left_out);
        } else if app.joins.admit(*id, &outcome) {
            wanted.push((*id, groups));
        }
    }
    for chunk in wanted.chunks(CHUNK) {
        let _turn = app.joins.turn.lock().await;
        let done = app.cloud.write(&caller, |write| {
            let mut taken = Taken::default();
            let mut left_out = LeftOut::new();
            for (id, groups) in chunk {
                left_out.extend(join(write, &host, *id, groups, &mut taken)?.left_out);
            }
            Ok(left_out)
        });
        app.joins.say(&done.await?);
        for (id, groups) in chunk {
            info!(%host, port = %id, ?groups, "a port has joined these groups");
        }
    }
    Ok(answer::empty(204))
}

/// What follows from what a port has joined: that is kept which fits. A group of a family that the port has no address of is
/// nothing to it.
fn join(
    write: &mut Write<'_>,
    host: &HostId,
    id: PortId,
    groups: &BTreeSet<IpAddr>,
    taken: &mut Taken,
) -> Result<Outcome> {
    let state = write.state;
    let mut outcome = Outcome::default();
    let Some(row) = state.ports.row(&id) else {
        return Ok(outcome);
    };
    let port = &row.value;
    let network = port.network_id;
    let is_private = matches!(state.domain_of(network), RoutingDomain::Network(_));
    if !is_private || state.places(Some(port)).home.as_ref() != Some(host) {
        return Ok(outcome);
    }
    let known = state.joins.row(id);
    let former = known.map(|known| known.value.groups.clone());
    let former = former.unwrap_or_default();
    let mut kept = BTreeSet::new();
    let may_join = |group: &IpAddr| is_joinable(*group) && joined(port, *group).is_some();
    for group in groups.iter().copied().filter(may_join) {
        if former.contains(&group) || taken.admit(state, port, group) {
            kept.insert(group);
        } else {
            outcome.left_out.insert((id, network, group));
        }
    }
    if former == kept {
        return Ok(outcome);
    }
    let changes = former.symmetric_difference(&kept).count();
    outcome.changes = u32::try_from(changes).unwrap_or(u32::MAX);
    outcome.project = Some(port.standard.project_id.clone());
    let key = keys::joined(id);
    let record = JoinRecord {
        network_id: network,
        project_id: port.standard.project_id.clone(),
        groups: kept,
    };
    write.unchanged(port.key(), row.mod_revision);
    match (known, record.groups.is_empty()) {
        (None, true) => {}
        (Some(known), true) => write.remove(key, known.mod_revision),
        (Some(known), false) => write.replace(key, known.mod_revision, &record)?,
        (None, false) => write.create(key, &record)?,
    }
    Ok(outcome)
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    #[test]
    fn a_project_s_ports_change_so_much_together_and_no_more() {
        let bounds = Bounds::default();
        let admits = |n: u128, project: &str| {
            let outcome = Outcome {
                changes: 64,
                project: Some(ProjectId(project.to_owned())),
                ..Outcome::default()
            };
            bounds.admit(PortId(Uuid::from_u128(n)), &outcome)
        };
        let admitted = (0..500).filter(|n| admits(*n, "p")).count();
        assert!((31..500).contains(&admitted), "{admitted}");
        assert!(admits(1_000, "q"), "others do not pay for it");
    }
}
