//! What agents have told lately. Kept in memory alone: a heartbeat is no reason to write.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use hextet_api::agent::StatusReport;
use hextet_types::HostId;
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::cloud::now;

/// Agents report at least every ten seconds.
const FRESH: Duration = Duration::from_secs(35);

/// What was heard of an agent.
#[derive(Clone, Debug)]
pub struct Heard {
    /// For the first time since this server runs.
    pub first: Timestamp,
    /// For the last time.
    pub last: Timestamp,
    /// For people.
    pub configurations: Value,
    at: Instant,
}

impl Heard {
    /// Whether that was lately.
    pub fn is_fresh(&self) -> bool {
        self.at.elapsed() < FRESH
    }
}

/// By host; no more than have joined.
#[derive(Debug, Default)]
pub struct Live(Mutex<HashMap<HostId, Heard>>);

impl Live {
    fn all(&self) -> MutexGuard<'_, HashMap<HostId, Heard>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Remembers a report.
    pub fn report(&self, host: &HostId, report: &StatusReport) {
        let mut configurations = json!(report.configurations);
        configurations["version"] = json!(report.version);
        configurations["applied_revision"] = json!(report.applied_revision);
        let mut all = self.all();
        let first = all.get(host).map_or_else(now, |h| h.first);
        let heard = Heard {
            first,
            last: now(),
            configurations,
            at: Instant::now(),
        };
        all.insert(host.clone(), heard);
    }

    /// What was heard of a host.
    pub fn heard(&self, host: &HostId) -> Option<Heard> {
        self.all().get(host).cloned()
    }

    /// Forgets a host.
    pub fn forget(&self, host: &HostId) {
        self.all().remove(host);
    }

    /// How many have been heard of lately.
    pub fn fresh(&self) -> usize {
        self.all().values().filter(|h| h.is_fresh()).count()
    }
}
