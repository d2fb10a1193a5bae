//! The store and the state in memory, held together: writes go to the store, and come back into the
//! state by the watch, like everybody else's.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard},
    time::Duration,
};

use hextet_api::{
    error::{ApiError, Result},
    request::Caller,
};
use hextet_store::{Event, KeyRange, Store, StoreError, Txn, WatchItem};
use hextet_types::{Family, HostId, ProjectId};
use jiff::Timestamp;
use tokio::{
    sync::{mpsc, watch},
    time::timeout,
};
use tracing::{debug, error, warn};

use crate::{
    config::NetworkPolicy,
    nova::Notifier,
    state::{Corrupt, State, hosts::Step, tunnels::Tunnels},
    write::{Usage, Write},
};

/// How often a write is decided anew because something that it read has changed.
const ATTEMPTS: usize = 100;
/// How long the watch may take to bring what was committed.
const PATIENCE: Duration = Duration::from_secs(10);
/// Groups of steps that a stream may lag behind; then it is closed, and begins anew.
const STREAM_GROUPS: usize = 256;

/// A group of steps, and the revision that it leads to.
pub type StepGroup = (u64, Vec<Step>);

/// The cloud, as everything in the server shares it.
#[derive(Debug)]
pub struct Cloud {
    store: Arc<dyn Store>,
    state: RwLock<State>,
    reached: watch::Sender<u64>,
    /// What writes under way will add, by project and quota.
    in_flight: Mutex<HashMap<(ProjectId, &'static str), i64>>,
    streams: Mutex<HashMap<HostId, Vec<mpsc::Sender<StepGroup>>>>,
    policy: NetworkPolicy,
    notifier: Notifier,
}

/// Why the cloud cannot be followed any more.
#[derive(Debug, thiserror::Error)]
pub enum FollowError {
    /// The store fails.
    #[error("follow the store: {0}")]
    Store(#[from] StoreError),
    /// A row cannot be read.
    #[error(transparent)]
    Corrupt(#[from] Corrupt),
}

impl Cloud {
    /// Reads the whole store.
    ///
    /// # Errors
    ///
    /// The store cannot be read, or holds what this program cannot understand.
    pub async fn open(
        store: Arc<dyn Store>,
        policy: NetworkPolicy,
        notifier: Notifier,
    ) -> Result<Arc<Cloud>, FollowError> {
        let state = read_all(store.as_ref(), policy.overlay).await?;
        let (reached, _) = watch::channel(state.revision);
        Ok(Arc::new(Cloud {
            store,
            state: RwLock::new(state),
            reached,
            in_flight: Mutex::default(),
            streams: Mutex::default(),
            policy,
            notifier,
        }))
    }

    /// The state. Hold it briefly, and never over an await.
    pub fn state(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// The store.
    pub fn store(&self) -> &Arc<dyn Store> {
        &self.store
    }

    /// Who tells Nova.
    pub fn notifier(&self) -> &Notifier {
        &self.notifier
    }

    /// Waits for the state to change, from the revision that the receiver has seen.
    pub fn revisions(&self) -> watch::Receiver<u64> {
        self.reached.subscribe()
    }

    /// Decides a write, commits it, and waits until the state shows it. `decide` runs again when
    /// something that it read has changed meanwhile.
    ///
    /// # Errors
    ///
    /// What `decide` refuses; 409 `OverQuota`; 503 when the store fails.
    pub async fn write<T>(
        &self,
        caller: &Caller,
        decide: impl Fn(&mut Write<'_>) -> Result<T>,
    ) -> Result<T> {
        for _ in 0..ATTEMPTS {
            let (txn, outcome, _reserved) = {
                let state = self.state();
                let mut write = Write::new(&state, caller, &self.policy, now());
                let outcome = decide(&mut write)?;
                let reserved = self.reserve(&state, write.usage())?;
                (write.into_txn()?, outcome, reserved)
            };
            let Some(txn) = txn else {
                return Ok(outcome);
            };
            if self.commit(txn).await? {
                return Ok(outcome);
            }
        }
        Err(ApiError::unavailable(
            "others keep changing what this request depends on; try again",
        ))
    }

    /// Whether such a write would change anything as things stand.
    ///
    /// # Errors
    ///
    /// What `decide` refuses.
    pub fn would_change(
        &self,
        caller: &Caller,
        decide: impl Fn(&mut Write<'_>) -> Result<()>,
    ) -> Result<bool> {
        let state = self.state();
        let mut write = Write::new(&state, caller, &self.policy, now());
        decide(&mut write)?;
        Ok(write.changes_something())
    }

    /// Commits a transaction and waits until the state shows it; false when a compare failed.
    async fn commit(&self, txn: Txn) -> Result<bool> {
        let result = self.store.txn(txn).await.map_err(|e| {
            error!(error = %e, "the store refuses a write");
            ApiError::unavailable("the store cannot take the change now; see the server's log")
        })?;
        let mut reached = self.reached.subscribe();
        let arrives = reached.wait_for(|revision| *revision >= result.revision);
        match timeout(PATIENCE, arrives).await {
            Ok(Ok(_)) => Ok(result.succeeded),
            _ => Err(ApiError::unavailable("the server lags behind its store")),
        }
    }

    /// Sets quota aside until the write is in the state.
    fn reserve(&self, state: &State, usage: &Usage) -> Result<Reserved<'_>> {
        let mut in_flight = self
            .in_flight
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let mut over = Vec::new();
        for ((project, name), (count, quota)) in usage {
            let limit = state.limit(project, *quota);
            let pending = in_flight
                .get(&(project.clone(), *name))
                .copied()
                .unwrap_or(0);
            let used = state.used(project, name) + pending;
            if *count > 0 && limit >= 0 && used + count > limit {
                over.push(format!("'{name}'"));
            }
        }
        if !over.is_empty() {
            let message = format!("Quota exceeded for resources: [{}].", over.join(", "));
            return Err(ApiError::conflict("OverQuota", message));
        }
        let mut mine = Vec::new();
        for ((project, name), (count, _)) in usage.iter().filter(|(_, (count, _))| *count > 0) {
            let key = (project.clone(), *name);
            *in_flight.entry(key.clone()).or_insert(0) += count;
            mine.push((key, *count));
        }
        Ok(Reserved { cloud: self, mine })
    }

    /// A host's whole intent, and what changes from then on.
    pub fn listen(&self, host: &HostId) -> (u64, Vec<Step>, mpsc::Receiver<StepGroup>) {
        let (sender, receiver) = mpsc::channel(STREAM_GROUPS);
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        state.views.listen(host.clone());
        let mut streams = self.streams.lock().unwrap_or_else(PoisonError::into_inner);
        streams.entry(host.clone()).or_default().push(sender);
        (state.revision, state.snapshot(host), receiver)
    }

    /// Whether somebody listens for a host.
    pub fn is_listening(&self, host: &HostId) -> bool {
        let streams = self.streams.lock().unwrap_or_else(PoisonError::into_inner);
        streams
            .get(host)
            .is_some_and(|s| s.iter().any(|sender| !sender.is_closed()))
    }

    /// Ends a host's streams.
    pub fn hang_up(&self, host: &HostId) {
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        state.views.ignore(host);
        let mut streams = self.streams.lock().unwrap_or_else(PoisonError::into_inner);
        streams.remove(host);
    }

    /// Takes in what the store tells, until it is closed.
    ///
    /// # Errors
    ///
    /// The store fails.
    pub async fn follow(&self) -> Result<(), FollowError> {
        loop {
            let from = self.state().revision + 1;
            let mut watch = match self.store.watch(KeyRange::all(), from).await {
                Err(StoreError::Compacted { .. }) => {
                    self.begin_anew().await?;
                    continue;
                }
                other => other?,
            };
            loop {
                match watch.next().await {
                    Ok(WatchItem::Changes { revision, events }) => self.take(revision, &events),
                    Ok(WatchItem::Progress { revision }) => self.take(revision, &[]),
                    Err(StoreError::Compacted { .. }) => break,
                    Err(StoreError::Closed) => return Ok(()),
                    Err(e) => return Err(e.into()),
                }
            }
        }
    }

    /// After a gap in what the store tells: everything again, for the streams, too.
    async fn begin_anew(&self) -> Result<(), FollowError> {
        warn!("the store's change log does not reach back far enough: reading everything anew");
        let fresh = read_all(self.store.as_ref(), self.policy.overlay).await?;
        let revision = fresh.revision;
        *self.state.write().unwrap_or_else(PoisonError::into_inner) = fresh;
        self.streams
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clear();
        self.reached.send_replace(revision);
        Ok(())
    }

    fn take(&self, revision: u64, events: &[Event]) {
        {
            let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
            for event in events {
                if let Err(e) = state.apply(event) {
                    error!(error = %e, "left as it was");
                }
            }
            state.revision = revision;
            let notices = state.take_notices();
            self.notifier.tell_all(&state, &notices);
            let told = state.views.take();
            debug!(revision, hosts = told.len(), "hosts are told");
            let mut streams = self.streams.lock().unwrap_or_else(PoisonError::into_inner);
            for (host, steps) in told {
                tell(&mut streams, &mut state, &host, (revision, steps));
            }
        }
        self.reached.send_replace(revision);
    }
}

fn tell(
    streams: &mut HashMap<HostId, Vec<mpsc::Sender<StepGroup>>>,
    state: &mut State,
    host: &HostId,
    group: StepGroup,
) {
    let Some(senders) = streams.get_mut(host) else {
        state.views.ignore(host);
        return;
    };
    senders.retain(|sender| match sender.try_send(group.clone()) {
        Ok(()) => true,
        Err(mpsc::error::TrySendError::Closed(_)) => false,
        Err(mpsc::error::TrySendError::Full(_)) => {
            warn!(%host, "the agent does not keep up; its stream begins anew");
            false
        }
    });
    if senders.is_empty() {
        streams.remove(host);
        state.views.ignore(host);
    }
}

/// Quota set aside for a write under way.
struct Reserved<'c> {
    cloud: &'c Cloud,
    mine: Vec<((ProjectId, &'static str), i64)>,
}

impl Drop for Reserved<'_> {
    fn drop(&mut self) {
        let mut in_flight = self
            .cloud
            .in_flight
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        for (key, count) in self.mine.drain(..) {
            if let Some(pending) = in_flight.get_mut(&key) {
                *pending -= count;
                if *pending <= 0 {
                    in_flight.remove(&key);
                }
            }
        }
    }
}

async fn read_all(store: &dyn Store, overlay: Family) -> Result<State, FollowError> {
    let mut state = State {
        tunnels: Tunnels::of(overlay),
        ..State::default()
    };
    let mut scan = store.scan(KeyRange::all()).await?;
    loop {
        let kvs = scan.next().await?;
        if kvs.is_empty() {
            state.revision = scan.revision();
            return Ok(state);
        }
        for kv in kvs {
            state.apply(&Event::Put(kv))?;
        }
    }
}

/// The time, in whole seconds.
pub fn now() -> Timestamp {
    let seconds = Timestamp::now().as_second();
    Timestamp::from_second(seconds).unwrap_or(Timestamp::UNIX_EPOCH)
}
