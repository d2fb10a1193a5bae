//! `POST /v1/metered`: what metering labels' counters have counted on a host.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use axum::{Json, extract::State as Shared, response::Response};
use hextet_api::{
    agent::{Metered, Reading},
    error::{ApiError, Result},
};
use hextet_types::HostId;
use jiff::Timestamp;

use super::{AgentError, Joined, join::server};
use crate::{
    app::App,
    cloud::Cloud,
    http::answer,
    keys,
    metered::{Sum, SumId},
    state::State,
    write::Write,
};

/// Readings in one report.
const MAX_READINGS: usize = 1_000;
/// Sums that are cleared away in one transaction.
const CHUNK: usize = 1_000;

/// `POST /v1/metered`.
///
/// # Errors
///
/// 400: more than one report may hold. 403: the certificate does not count. 503: the store fails; then the same readings
/// may be told again.
pub async fn report(
    Shared(app): Shared<Arc<App>>,
    Joined(host): Joined,
    Json(metered): Json<Metered>,
) -> Result<Response, AgentError> {
    if metered.readings.len() > MAX_READINGS {
        return Err(ApiError::invalid_input(format!(
            "a report holds at most {MAX_READINGS} readings"
        ))
        .into());
    }
    let caller = server();
    app.cloud
        .write(&caller, |write| take_all(write, &host, &metered.readings))
        .await?;
    Ok(answer::empty(204))
}

fn take_all(write: &mut Write<'_>, host: &HostId, readings: &[Reading]) -> Result<()> {
    let mut sums: BTreeMap<SumId, Option<Sum>> = BTreeMap::new();
    let mut changed = BTreeSet::new();
    for reading in readings {
        let id = SumId {
            label: reading.label,
            router: reading.router,
            host: host.clone(),
            direction: reading.direction,
        };
        if !counts(write.state, &id) {
            continue;
        }
        let sum = sums.entry(id.clone()).or_insert_with(|| {
            let row = write.state.metering.sums.get(&id);
            row.map(|sum| sum.as_ref().clone())
        });
        if take(sum, reading, write.now) {
            changed.insert(id);
        }
    }
    for (id, sum) in sums {
        if let Some(sum) = sum.filter(|_| changed.contains(&id)) {
            match write.state.metering.sums.row(&id) {
                Some(row) => write.replace(keys::metered(&id), row.mod_revision, &sum)?,
                None => write.create(keys::metered(&id), &sum)?,
            }
        }
    }
    Ok(())
}

/// Whether that changes anything.
fn take(sum: &mut Option<Sum>, reading: &Reading, now: Timestamp) -> bool {
    match sum {
        Some(sum) => sum.take(reading, now),
        None if (reading.packets, reading.octets) == (0, 0) => false,
        None => {
            *sum = Some(Sum::new(reading, now));
            true
        }
    }
}

/// What a label counts at a router of another project, or that nobody knows, is nobody's.
fn counts(state: &State, id: &SumId) -> bool {
    let metering = &state.metering;
    let Some(label) = metering.labels.get(&id.label) else {
        return false;
    };
    let router = state.layer3.routers.get(&id.router);
    let there = router.map(|router| &router.standard.project_id);
    match there.or_else(|| metering.departed(id.router)) {
        Some(project) => label.shared || *project == label.project_id,
        None => metering.sums.row(id).is_some(),
    }
}

/// Clears away what labels have counted that are gone.
///
/// # Errors
///
/// The store fails.
pub async fn sweep(cloud: &Cloud) -> Result<()> {
    let orphaned = {
        let state = cloud.state();
        let metering = &state.metering;
        let ids = metering.sums.ids();
        let gone = ids.filter(|id| metering.labels.get(&id.label).is_none());
        gone.cloned().collect::<Vec<SumId>>()
    };
    for chunk in orphaned.chunks(CHUNK) {
        let clear = |write: &mut Write<'_>| {
            for id in chunk {
                if let Some(row) = write.state.metering.sums.row(id) {
                    write.remove(keys::metered(id), row.mod_revision);
                }
            }
            Ok(())
        };
        cloud.write(&server(), clear).await?;
    }
    Ok(())
}
