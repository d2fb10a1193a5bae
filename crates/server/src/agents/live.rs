//! What agents have told lately. Kept in memory alone: a heartbeat is no reason to write.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use hextet_api::agent::{Pulse, StatusReport};
use hextet_types::HostId;
use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::cloud::now;

/// Agents report at least every ten seconds.
pub const FRESH: Duration = Duration::from_secs(35);

/// What was heard of an agent.
#[derive(Clone, Debug)]
pub struct Heard {
    /// For the first time since this server runs.
    pub first: Timestamp,
    /// For the last time.
    pub last: Timestamp,
    /// For people.
    pub configurations: Value,
    /// How the kernels fare that it watches.
    pub watched: BTreeMap<HostId, Pulse>,
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
pub struct Live {
    heard: Mutex<HashMap<HostId, Heard>>,
    /// Counts what is new about kernels.
    pulses: watch::Sender<u64>,
}

impl Live {
    fn all(&self) -> MutexGuard<'_, HashMap<HostId, Heard>> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner)
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
            watched: report.watched.clone(),
            at: Instant::now(),
        };
        let former = all.insert(host.clone(), heard);
        let is_news = former.is_none_or(|f| f.watched != report.watched);
        drop(all);
        if is_news {
            self.pulses.send_modify(|count| *count += 1);
        }
    }

    /// Waits for what is new about kernels.
    pub fn pulses(&self) -> watch::Receiver<u64> {
        self.pulses.subscribe()
    }

    /// What agents that were heard of lately say of kernels that they watch.
    pub fn views(&self) -> BTreeMap<HostId, BTreeMap<HostId, Pulse>> {
        let all = self.all();
        let fresh = all.iter().filter(|(_, heard)| heard.is_fresh());
        let views = fresh.map(|(host, heard)| (host.clone(), heard.watched.clone()));
        views.collect()
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
