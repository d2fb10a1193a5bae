//! Watches: changes in the order of their revisions, each once, from a revision on.
//!
//! Writers never wait for a watcher, and a watcher has no queue. A writer leaves its changes in
//! one bounded ring that all watchers share and raises the head; a watcher takes what it wants
//! from the ring, and, when it was too slow for that, from the change log, until the log itself
//! no longer reaches back ([`StoreError::Compacted`]).

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
};

use tokio::sync::watch;

use crate::{BoxFuture, Event, KeyRange, Result, StoreError, change::Change};

/// Changes in the ring.
const RING_CHANGES: usize = 1024;
/// Octets in the ring, beside the newest change.
const RING_BYTES: usize = 4 * 1024 * 1024;
/// Changes and octets that a watcher takes at once, and the change that passes the bound.
const CHUNK_CHANGES: usize = 64;
const CHUNK_BYTES: usize = 1024 * 1024;

/// What a watch tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WatchItem {
    /// All changes of one revision in the watched range; at least one.
    Changes {
        /// The revision.
        revision: u64,
        /// Each key at most once.
        events: Vec<Event>,
    },
    /// Everything up to this revision has been told, and at this moment it was the newest. Comes
    /// whenever the watcher has caught up and the last item was of an older revision (or it is
    /// the first).
    Progress {
        /// The revision.
        revision: u64,
    },
}

impl WatchItem {
    /// The revision up to which everything has been told.
    pub fn revision(&self) -> u64 {
        match self {
            WatchItem::Changes { revision, .. } | WatchItem::Progress { revision } => *revision,
        }
    }
}

/// A source of watch items; what a back end implements.
pub trait WatchSource: Send {
    /// The next item. Dropping the future loses nothing.
    fn next(&mut self) -> BoxFuture<'_, Result<WatchItem>>;
}

/// A stream of changes.
pub struct Watch(Box<dyn WatchSource>);

impl Watch {
    /// A watch of a back end.
    pub fn new(source: impl WatchSource + 'static) -> Self {
        Watch(Box::new(source))
    }

    /// Waits for the next item. May be used in `select!`: dropping the future loses nothing.
    ///
    /// # Errors
    ///
    /// [`StoreError::Compacted`] when the watcher fell behind the change log, and from then on
    /// always; [`StoreError::Closed`] when the store is; what reading it can bring.
    pub async fn next(&mut self) -> Result<WatchItem> {
        self.0.next().await
    }
}

impl std::fmt::Debug for Watch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Watch").finish_non_exhaustive()
    }
}

/// Where a store stands: `compacted ≤ revision`; the change log holds what lies between.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Head {
    /// The newest revision; 0 before the first write.
    pub(crate) revision: u64,
    /// The newest revision that is not in the change log any more.
    pub(crate) compacted: u64,
}

/// Where writers leave changes and watchers find them.
#[derive(Debug)]
pub(crate) struct Hub {
    ring: Mutex<Ring>,
    /// `None` when the store is closed.
    head: watch::Sender<Option<Head>>,
}

#[derive(Debug, Default)]
struct Ring {
    changes: VecDeque<Arc<Change>>,
    bytes: usize,
}

impl Hub {
    pub(crate) fn new(head: Head) -> Self {
        Hub {
            ring: Mutex::default(),
            head: watch::Sender::new(Some(head)),
        }
    }

    /// Where the store stands; everything up to there is safe.
    pub(crate) fn head(&self) -> Result<Head> {
        self.head.borrow().ok_or(StoreError::Closed)
    }

    /// Makes committed changes known. They follow the ring's newest without a gap, unless the
    /// head is compacted up to its revision.
    pub(crate) fn publish(&self, changes: Vec<Arc<Change>>, head: Head) {
        let mut ring = self.ring.lock().unwrap_or_else(PoisonError::into_inner);
        ring.push(changes, head);
        drop(ring);
        self.head.send_replace(Some(head));
    }

    pub(crate) fn close(&self) {
        self.head.send_replace(None);
    }

    /// Some changes from revision `from` on, or none where the ring does not reach back.
    fn recent(&self, from: u64) -> Option<Vec<Arc<Change>>> {
        let ring = self.ring.lock().unwrap_or_else(PoisonError::into_inner);
        let first = ring.changes.front()?.revision;
        let skip = usize::try_from(from.checked_sub(first)?).ok()?;
        let chunk: Vec<_> = ring
            .changes
            .iter()
            .skip(skip)
            .take(CHUNK_CHANGES)
            .cloned()
            .collect();
        (!chunk.is_empty()).then_some(chunk)
    }
}

impl Ring {
    fn push(&mut self, changes: Vec<Arc<Change>>, head: Head) {
        for change in changes {
            self.bytes += change.size();
            self.changes.push_back(change);
        }
        while let Some(first) = self.changes.front() {
            let large = self.changes.len() > RING_CHANGES || self.bytes > RING_BYTES;
            let newest = self.changes.len() == 1;
            if first.revision > head.compacted && (newest || !large) {
                break;
            }
            self.bytes = self.bytes.saturating_sub(first.size());
            self.changes.pop_front();
        }
    }
}

/// What a watcher takes at once.
#[derive(Debug, Default)]
pub(crate) struct Chunk {
    changes: Vec<Arc<Change>>,
    bytes: usize,
}

impl Chunk {
    /// Whether it is full now.
    pub(crate) fn push(&mut self, change: Arc<Change>, bytes: usize) -> bool {
        self.bytes += bytes;
        self.changes.push(change);
        self.changes.len() >= CHUNK_CHANGES || self.bytes >= CHUNK_BYTES
    }

    pub(crate) fn into_changes(self) -> Vec<Arc<Change>> {
        self.changes
    }
}

/// The change log of a back end.
pub(crate) trait ChangeLog: Send + Sync + 'static {
    /// Changes from revision `from` on, in order and without gaps, at least one if the log has
    /// it, no more than fill a [`Chunk`]; `Compacted` if the log does not
    /// reach back so far.
    fn read_changes(&self, from: u64) -> BoxFuture<'_, Result<Vec<Arc<Change>>>>;
}

/// A watch over a hub and a change log.
pub(crate) struct LogWatch<L> {
    hub: Arc<Hub>,
    head: watch::Receiver<Option<Head>>,
    log: L,
    range: KeyRange,
    /// The next revision to look at.
    next: u64,
    /// Looked at, not told.
    pending: VecDeque<(u64, Vec<Event>)>,
    /// The revision of the last item; none before the first.
    told: Option<u64>,
}

impl<L: ChangeLog> LogWatch<L> {
    /// A watch from a revision on; from the next one when it is 0.
    pub(crate) fn new(hub: Arc<Hub>, log: L, range: KeyRange, from: u64) -> Result<Self> {
        let receiver = hub.head.subscribe();
        let head = hub.head()?;
        let next = if from == 0 { head.revision + 1 } else { from };
        if next <= head.compacted {
            return Err(StoreError::Compacted {
                compact_revision: head.compacted,
            });
        }
        let pending = VecDeque::new();
        Ok(LogWatch {
            hub,
            head: receiver,
            log,
            range,
            next,
            pending,
            told: None,
        })
    }

    async fn step(&mut self) -> Result<WatchItem> {
        loop {
            if let Some((revision, events)) = self.pending.pop_front() {
                self.told = Some(revision);
                return Ok(WatchItem::Changes { revision, events });
            }
            let head = self.head.borrow_and_update().ok_or(StoreError::Closed)?;
            if self.next <= head.revision {
                let chunk = match self.hub.recent(self.next) {
                    Some(chunk) => chunk,
                    None => self.log.read_changes(self.next).await?,
                };
                self.take(&chunk);
            } else if self.next == head.revision + 1
                && self.told.is_none_or(|told| told < head.revision)
            {
                self.told = Some(head.revision);
                return Ok(WatchItem::Progress {
                    revision: head.revision,
                });
            } else {
                self.head.changed().await.map_err(|_| StoreError::Closed)?;
            }
        }
    }

    fn take(&mut self, chunk: &[Arc<Change>]) {
        for change in chunk {
            let events = change.within(&self.range);
            if !events.is_empty() {
                self.pending.push_back((change.revision, events));
            }
            self.next = change.revision + 1;
        }
    }
}

impl<L: ChangeLog> WatchSource for LogWatch<L> {
    fn next(&mut self) -> BoxFuture<'_, Result<WatchItem>> {
        Box::pin(self.step())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(revision: u64, size: usize) -> Arc<Change> {
        let key = vec![b'k'; size].into();
        Arc::new(Change {
            revision,
            events: vec![Event::Delete { key }],
        })
    }

    fn revisions(hub: &Hub, from: u64) -> Option<Vec<u64>> {
        Some(
            hub.recent(from)?
                .iter()
                .map(|change| change.revision)
                .collect(),
        )
    }

    #[test]
    fn the_ring_is_bounded_in_changes_and_in_octets() {
        let hub = Hub::new(Head::default());
        for revision in 1..=RING_CHANGES as u64 + 1 {
            hub.publish(
                vec![change(revision, 1)],
                Head {
                    revision,
                    compacted: 0,
                },
            );
        }
        assert_eq!(revisions(&hub, 1), None);
        assert_eq!(revisions(&hub, 2).unwrap().len(), CHUNK_CHANGES);
        let revision = RING_CHANGES as u64 + 2;
        hub.publish(
            vec![change(revision, RING_BYTES)],
            Head {
                revision,
                compacted: 0,
            },
        );
        assert_eq!(revisions(&hub, revision - 1), None);
        assert_eq!(
            revisions(&hub, revision),
            Some(vec![revision]),
            "the newest always stays"
        );
        assert_eq!(revisions(&hub, revision + 1), None);
    }

    #[test]
    fn what_is_compacted_leaves_the_ring() {
        let hub = Hub::new(Head::default());
        let changes = (1..=5).map(|revision| change(revision, 1)).collect();
        hub.publish(
            changes,
            Head {
                revision: 5,
                compacted: 0,
            },
        );
        hub.publish(
            Vec::new(),
            Head {
                revision: 5,
                compacted: 3,
            },
        );
        assert_eq!(revisions(&hub, 3), None);
        assert_eq!(revisions(&hub, 4), Some(vec![4, 5]));
    }
}
