//! `POST /v1/status`: which ports pass packets, and what an agent says of its host. Many reports become few
//! transactions.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use axum::{Json, extract::State as Shared, response::Response};
use hextet_api::{
    agent::{PortState, StatusReport},
    error::{ApiError, Result},
};
use hextet_model::neutron::Status;
use hextet_types::{HostId, PortId};
use tokio::{sync::Notify, time::sleep};
use tracing::warn;

use super::{AgentError, Joined, join::server, tunnel};
use crate::{
    app::App, cloud::Cloud, http::answer, keys, networking::entity::Entity, state::HostRecord,
    write::Write,
};

/// How long reports are collected before they are written.
const DEBOUNCE: Duration = Duration::from_millis(50);
/// Before another try when the store fails.
const RETRY: Duration = Duration::from_secs(2);
/// Ports in one transaction.
const CHUNK: usize = 1_000;
/// Ports whose states wait to be written; beyond it a report is refused, and comes again.
const MAX_WAITING: usize = 200_000;

/// States that wait to be written.
#[derive(Debug, Default)]
pub struct Reports {
    waiting: Mutex<BTreeMap<PortId, (HostId, Status)>>,
    news: Notify,
}

/// What an agent tells beyond is not kept.
const MAX_PHYSICAL_NETWORKS: usize = 64;

/// `POST /v1/status`.
///
/// # Errors
///
/// 403: the certificate does not count. 409: the host's end of tunnels cannot be that; the rest of the report
/// counts. 503: too much waits to be written.
pub async fn report(
    Shared(app): Shared<Arc<App>>,
    Joined(host): Joined,
    Json(report): Json<StatusReport>,
) -> Result<Response, AgentError> {
    app.live.report(&host, &report);
    let notifier = app.cloud.notifier();
    notifier.report(&app.cloud.state(), &host, &report);
    keep_record(&app.cloud, &host, &report).await?;
    let changed = changes(&app.cloud, &host, &report);
    if !changed.is_empty() {
        app.reports.add(&host, changed)?;
    }
    if report.complete {
        tunnel::keep(&app.cloud, &host, report.tunnel_address).await?;
    }
    Ok(answer::empty(204))
}

/// What has to be known of a host also while its agent is away: whoever plugs a TAP asks for the Ethernet address,
/// and routers translate on hosts that are willing.
async fn keep_record(cloud: &Cloud, host: &HostId, report: &StatusReport) -> Result<()> {
    let told = |record: &HostRecord| {
        let mut record = record.clone();
        record.gateway_mac = report.gateway_mac.or(record.gateway_mac);
        if report.complete {
            record.gateway = report.gateway.unwrap_or(true);
            let physical = report.physical_networks.iter().cloned();
            record.physical_networks = physical.take(MAX_PHYSICAL_NETWORKS).collect();
        }
        record
    };
    let known = cloud.state().hosts.get(host).cloned();
    if known.is_none_or(|known| told(&known) == *known) {
        return Ok(());
    }
    cloud
        .write(&server(), |write| {
            let Some(row) = write.state.hosts.row(host) else {
                return Ok(());
            };
            write.replace(keys::host(host), row.mod_revision, &told(&row.value))
        })
        .await
}

/// What differs from what is known, of the host's own ports and of those that it is prepared for. A complete
/// report that leaves a port out says that the agent does not know of it (yet).
fn changes(cloud: &Cloud, host: &HostId, report: &StatusReport) -> Vec<(PortId, Status)> {
    let state = cloud.state();
    let reported = |id: &PortId| match report.ports.get(id) {
        Some(PortState::Active) => Some(Status::Active),
        Some(PortState::Down { .. }) => Some(Status::Down),
        None if report.complete => Some(Status::Down),
        None => None,
    };
    let own = state.views.ports_of(host);
    let own = own.filter_map(|id| state.ports.get(id)).filter_map(|port| {
        let status = reported(&port.id)?;
        let status = if port.admin_state_up {
            status
        } else {
            Status::Down
        };
        (status != port.status).then_some((port.id, status))
    });
    let prepared = state.bindings.on(host).filter_map(|id| {
        let status = reported(id)?;
        let known = state.bindings.row(*id, host)?.value.status;
        (status != known).then_some((*id, status))
    });
    own.chain(prepared).collect()
}

impl Reports {
    fn add(&self, host: &HostId, changed: Vec<(PortId, Status)>) -> Result<()> {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if waiting.len() + changed.len() > MAX_WAITING {
            return Err(ApiError::unavailable(
                "too many port states wait to be written",
            ));
        }
        waiting.extend(
            changed
                .into_iter()
                .map(|(id, status)| (id, (host.clone(), status))),
        );
        drop(waiting);
        self.news.notify_one();
        Ok(())
    }

    fn take(&self) -> Vec<(PortId, (HostId, Status))> {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let ids: Vec<_> = waiting.keys().take(CHUNK).copied().collect();
        ids.iter()
            .filter_map(|id| waiting.remove_entry(id))
            .collect()
    }

    /// Writes what is reported, for ever.
    pub async fn run(&self, cloud: &Cloud) {
        loop {
            self.news.notified().await;
            sleep(DEBOUNCE).await;
            loop {
                let chunk = self.take();
                if chunk.is_empty() {
                    break;
                }
                while let Err(error) = commit(cloud, &chunk).await {
                    warn!(%error, "write port states; trying again");
                    sleep(RETRY).await;
                }
            }
        }
    }
}

async fn commit(cloud: &Cloud, chunk: &[(PortId, (HostId, Status))]) -> Result<()> {
    cloud
        .write(&server(), |write| {
            for (id, (host, status)) in chunk {
                let Some(row) = write.state.ports.row(id) else {
                    continue;
                };
                if row.value.binding.host_id.as_ref() != Some(host) {
                    prepared(write, *id, host, *status)?;
                } else if row.value.status != *status {
                    let mut port = row.value.as_ref().clone();
                    port.status = *status;
                    port.standard.revision_number += 1;
                    port.standard.updated_at = write.now;
                    write.replace(port.key(), row.mod_revision, &port)?;
                }
            }
            Ok(())
        })
        .await
}

/// A port that a host is prepared for says nothing about the port's own status until it is plugged there.
fn prepared(write: &mut Write<'_>, port: PortId, host: &HostId, status: Status) -> Result<()> {
    let row = write.state.bindings.row(port, host);
    let Some(row) = row.filter(|row| row.value.status != status) else {
        return Ok(());
    };
    let mut record = row.value.as_ref().clone();
    record.status = status;
    write.replace(keys::binding(port, host), row.mod_revision, &record)
}
