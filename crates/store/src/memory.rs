//! The store in memory: the same semantics, safe until the process ends. For tests.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::{Bound, ControlFlow},
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::Duration,
};

use bytes::Bytes;
use hextet_types::Time;

use crate::{
    BoxFuture, Image, KeyRange, KeyValue, Lease, LeaseId, RangeResult, Result, Retention, Scan,
    ScanSource, Store, StoreError, Txn, TxnResult, Watch,
    change::Change,
    limits,
    machine::{Machine, Origin, read},
    tables::{ReadTables, Tables},
    watch::{ChangeLog, Chunk, Head, Hub, LogWatch},
};

/// Keys that a scan gives at once.
const SCAN_KEYS: usize = 256;

/// A store that lives in memory. Clones share it.
#[derive(Clone, Debug)]
pub struct MemoryStore {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    hub: Arc<Hub>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    machine: Machine,
    tables: MemoryTables,
}

impl Default for MemoryStore {
    fn default() -> Self {
        MemoryStore::new(Retention::default())
    }
}

impl MemoryStore {
    /// An empty store.
    pub fn new(retention: Retention) -> Self {
        let head = Head::default();
        let origin = Origin {
            head,
            log_bytes: 0,
            next_lease: LeaseId::FIRST,
        };
        let machine = Machine::new(origin, &[], retention);
        let state = Mutex::new(State {
            machine,
            tables: MemoryTables::default(),
        });
        MemoryStore {
            inner: Arc::new(Inner {
                hub: Arc::new(Hub::new(head)),
                state,
            }),
        }
    }

    /// Does one request whole, and makes known what it changed before the next one starts.
    fn write<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Machine, &mut MemoryTables) -> Result<T> + Send + 'static,
    ) -> BoxFuture<'_, Result<T>> {
        lazy(|| {
            let mut state = self.inner.state();
            let State { machine, tables } = &mut *state;
            let done = work(machine, tables)?;
            machine.trim(tables)?;
            self.inner.hub.publish(machine.take_fresh(), machine.head());
            Ok(done)
        })
    }
}

impl Inner {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.hub.close();
    }
}

fn lazy<'a, T>(work: impl FnOnce() -> Result<T> + Send + 'a) -> BoxFuture<'a, Result<T>> {
    Box::pin(async move { work() })
}

impl Store for MemoryStore {
    fn txn(&self, txn: Txn) -> BoxFuture<'_, Result<TxnResult>> {
        self.write(move |machine, tables| {
            txn.check()?;
            machine.txn(tables, &txn)
        })
    }

    fn range(&self, range: KeyRange, limit: Option<usize>) -> BoxFuture<'_, Result<RangeResult>> {
        lazy(move || {
            range.check()?;
            let state = self.inner.state();
            let revision = state.machine.head().revision;
            let mut room = limits::ANSWER_BYTES;
            let (kvs, more) = read(&state.tables, &range, limit, &mut room)?;
            Ok(RangeResult {
                revision,
                kvs,
                more,
            })
        })
    }

    fn scan(&self, range: KeyRange) -> BoxFuture<'_, Result<Scan>> {
        lazy(move || {
            range.check()?;
            let state = self.inner.state();
            let keys = state.tables.kvs.range::<[u8], _>(range.bounds());
            let kvs = keys
                .map(|(_, kv)| kv.clone())
                .collect::<Vec<_>>()
                .into_iter();
            let revision = state.machine.head().revision;
            Ok(Scan::new(
                revision,
                state.tables.leases()?,
                MemoryScan { kvs },
            ))
        })
    }

    fn watch(&self, range: KeyRange, from_revision: u64) -> BoxFuture<'_, Result<Watch>> {
        lazy(move || {
            range.check()?;
            let log = MemoryLog(Arc::downgrade(&self.inner));
            LogWatch::new(Arc::clone(&self.inner.hub), log, range, from_revision).map(Watch::new)
        })
    }

    fn revision(&self) -> BoxFuture<'_, Result<u64>> {
        lazy(|| self.inner.hub.head().map(|head| head.revision))
    }

    fn compact(&self, revision: u64) -> BoxFuture<'_, Result<u64>> {
        self.write(move |machine, tables| machine.compact(tables, revision))
    }

    fn lease_grant(&self, ttl: Duration) -> BoxFuture<'_, Result<LeaseId>> {
        self.write(move |machine, tables| machine.grant(tables, ttl))
    }

    fn lease_keep_alive(&self, id: LeaseId) -> BoxFuture<'_, Result<Duration>> {
        self.write(move |machine, _| machine.keep_alive(id))
    }

    fn lease_revoke(&self, id: LeaseId) -> BoxFuture<'_, Result<u64>> {
        self.write(move |machine, tables| machine.revoke(tables, id))
    }

    fn leases(&self) -> BoxFuture<'_, Result<Vec<Lease>>> {
        lazy(|| self.inner.state().tables.leases())
    }

    fn tick(&self, now: Time) -> BoxFuture<'_, Result<Vec<LeaseId>>> {
        self.write(move |machine, tables| machine.tick(tables, now))
    }

    fn restore(&self, image: Image, overwrite: bool) -> BoxFuture<'_, Result<u64>> {
        self.write(move |machine, tables| machine.restore(tables, &image, overwrite))
    }
}

struct MemoryScan {
    kvs: std::vec::IntoIter<KeyValue>,
}

impl ScanSource for MemoryScan {
    fn next(&mut self) -> BoxFuture<'_, Result<Vec<KeyValue>>> {
        lazy(|| Ok(self.kvs.by_ref().take(SCAN_KEYS).collect()))
    }
}

struct MemoryLog(Weak<Inner>);

impl ChangeLog for MemoryLog {
    fn read_changes(&self, from: u64) -> BoxFuture<'_, Result<Vec<Arc<Change>>>> {
        lazy(move || {
            let inner = self.0.upgrade().ok_or(StoreError::Closed)?;
            let state = inner.state();
            let Head { compacted, .. } = state.machine.head();
            if from <= compacted {
                return Err(StoreError::Compacted {
                    compact_revision: compacted,
                });
            }
            let mut chunk = Chunk::default();
            for change in state.tables.log.range(from..).map(|(_, change)| change) {
                if chunk.push(Arc::clone(change), change.size()) {
                    break;
                }
            }
            Ok(chunk.into_changes())
        })
    }
}

#[derive(Debug, Default)]
struct MemoryTables {
    kvs: BTreeMap<Bytes, KeyValue>,
    log: BTreeMap<u64, Arc<Change>>,
    leases: BTreeMap<LeaseId, Lease>,
    lease_keys: BTreeSet<(LeaseId, Bytes)>,
}

impl ReadTables for MemoryTables {
    fn get(&self, key: &[u8]) -> Result<Option<KeyValue>> {
        Ok(self.kvs.get(key).cloned())
    }

    fn visit(
        &self,
        range: &KeyRange,
        visit: &mut dyn FnMut(KeyValue) -> ControlFlow<()>,
    ) -> Result<()> {
        for kv in self.kvs.range::<[u8], _>(range.bounds()).map(|(_, kv)| kv) {
            if visit(kv.clone()).is_break() {
                break;
            }
        }
        Ok(())
    }

    fn lease(&self, id: LeaseId) -> Result<Option<Lease>> {
        Ok(self.leases.get(&id).copied())
    }

    fn leases(&self) -> Result<Vec<Lease>> {
        Ok(self.leases.values().copied().collect())
    }
}

impl Tables for MemoryTables {
    fn put(&mut self, kv: &KeyValue) -> Result<()> {
        self.kvs.insert(kv.key.clone(), kv.clone());
        Ok(())
    }

    fn remove(&mut self, key: &[u8]) -> Result<()> {
        self.kvs.remove(key);
        Ok(())
    }

    fn put_lease(&mut self, lease: Lease) -> Result<()> {
        self.leases.insert(lease.id, lease);
        Ok(())
    }

    fn remove_lease(&mut self, id: LeaseId) -> Result<()> {
        self.leases.remove(&id);
        Ok(())
    }

    fn attach(&mut self, id: LeaseId, key: &[u8]) -> Result<()> {
        self.lease_keys.insert((id, Bytes::copy_from_slice(key)));
        Ok(())
    }

    fn detach(&mut self, id: LeaseId, key: &[u8]) -> Result<()> {
        self.lease_keys.remove(&(id, Bytes::copy_from_slice(key)));
        Ok(())
    }

    fn lease_keys(&self, id: LeaseId) -> Result<Vec<Bytes>> {
        let from = (Bound::Included((id, Bytes::new())), Bound::Unbounded);
        let keys = self.lease_keys.range(from).take_while(|(of, _)| *of == id);
        Ok(keys.map(|(_, key)| key.clone()).collect())
    }

    fn push_change(&mut self, change: &Change) -> Result<usize> {
        self.log.insert(change.revision, Arc::new(change.clone()));
        Ok(change.size())
    }

    fn pop_change(&mut self, revision: u64) -> Result<Option<(u64, usize)>> {
        let first = self
            .log
            .first_entry()
            .filter(|first| *first.key() <= revision);
        Ok(first.map(|first| {
            let change = first.remove();
            (change.revision, change.size())
        }))
    }

    fn set_compacted(&mut self, _: u64) -> Result<()> {
        Ok(())
    }

    fn set_next_lease(&mut self, _: LeaseId) -> Result<()> {
        Ok(())
    }

    fn clear(&mut self) -> Result<()> {
        *self = MemoryTables::default();
        Ok(())
    }
}
