//! The semantics, once for every embedded back end: given tables, a request is judged, then
//! applied. Judging only reads, so a request that is refused leaves no trace, and others that
//! share its commit are not concerned; applying fails only when the medium does.
//!
//! The machine knows neither threads nor files. What it changed is to be published when the
//! tables are safe, not before.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::ControlFlow,
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use hextet_types::Time;

use crate::{
    Event, Image, KeyRange, KeyValue, Lease, LeaseId, Op, OpResponse, Result, Retention,
    StoreError, Txn, TxnResult,
    change::Change,
    lease::{LeaseClock, check_ttl},
    limits,
    tables::{ReadTables, Tables},
    watch::Head,
};

/// Keys that leases may take along in one tick; the rest go with the next.
const TICK_KEYS: u32 = 16_384;

/// What a store knows beside its tables.
#[derive(Debug)]
pub(crate) struct Machine {
    head: Head,
    log_bytes: usize,
    retention: Retention,
    clock: LeaseClock,
    next_lease: LeaseId,
    fresh: Vec<Arc<Change>>,
}

/// What a machine starts from.
pub(crate) struct Origin {
    pub(crate) head: Head,
    pub(crate) log_bytes: usize,
    pub(crate) next_lease: LeaseId,
}

enum Write {
    Put {
        kv: KeyValue,
        lease_before: Option<LeaseId>,
    },
    Delete {
        kv: KeyValue,
    },
}

impl Machine {
    pub(crate) fn new(origin: Origin, leases: &[Lease], retention: Retention) -> Self {
        let mut clock = LeaseClock::default();
        for lease in leases {
            clock.renew(lease.id, lease.ttl);
        }
        let Origin {
            head,
            log_bytes,
            next_lease,
        } = origin;
        Machine {
            head,
            log_bytes,
            retention,
            clock,
            next_lease,
            fresh: Vec::new(),
        }
    }

    pub(crate) fn head(&self) -> Head {
        self.head
    }

    /// The changes made since the last call.
    pub(crate) fn take_fresh(&mut self) -> Vec<Arc<Change>> {
        std::mem::take(&mut self.fresh)
    }

    /// Expects a transaction that [`Txn::check`] let pass.
    pub(crate) fn txn(&mut self, tables: &mut dyn Tables, txn: &Txn) -> Result<TxnResult> {
        let (succeeded, ops) = branch(tables, txn)?;
        let mut writes = Writes::new(self.head.revision + 1);
        let mut responses = Vec::with_capacity(ops.len());
        let mut room = limits::ANSWER_BYTES;
        for op in ops {
            responses.push(match op {
                Op::Get { range, limit } => answer(tables, range, *limit, &mut room)?,
                Op::Put { key, value, lease } => writes.put(tables, key, value, *lease)?,
                Op::Delete { range } => writes.delete(tables, range)?,
            });
        }
        self.apply(tables, writes.list)?;
        Ok(TxnResult {
            succeeded,
            revision: self.head.revision,
            responses,
        })
    }

    pub(crate) fn grant(&mut self, tables: &mut dyn Tables, ttl: Duration) -> Result<LeaseId> {
        let ttl = check_ttl(ttl)?;
        let id = self.next_lease;
        let next = LeaseId::new(id.get().wrapping_add(1)).ok_or(StoreError::TooManyLeases)?;
        if self.clock.len() >= limits::LEASES {
            return Err(StoreError::TooManyLeases);
        }
        tables.put_lease(Lease { id, ttl, keys: 0 })?;
        tables.set_next_lease(next)?;
        self.next_lease = next;
        self.clock.renew(id, ttl);
        Ok(id)
    }

    pub(crate) fn keep_alive(&mut self, id: LeaseId) -> Result<Duration> {
        self.clock.keep_alive(id)
    }

    pub(crate) fn revoke(&mut self, tables: &mut dyn Tables, id: LeaseId) -> Result<u64> {
        if tables.lease(id)?.is_none() {
            return Err(StoreError::LeaseNotFound(id));
        }
        let mut writes = Vec::new();
        for key in tables.lease_keys(id)? {
            writes.extend(tables.get(&key)?.map(|kv| Write::Delete { kv }));
        }
        self.apply(tables, writes)?;
        tables.remove_lease(id)?;
        self.clock.forget(id);
        Ok(self.head.revision)
    }

    /// Each lease that is over goes with its keys in a revision of its own.
    pub(crate) fn tick(&mut self, tables: &mut dyn Tables, now: Time) -> Result<Vec<LeaseId>> {
        let mut over = self.clock.tick(now);
        let mut keys = 0u32;
        let mut done = 0;
        for &id in &over {
            keys = keys.saturating_add(tables.lease(id)?.map_or(0, |lease| lease.keys));
            if done > 0 && keys > TICK_KEYS {
                break;
            }
            self.revoke(tables, id)?;
            done += 1;
        }
        over.truncate(done);
        Ok(over)
    }

    pub(crate) fn compact(&mut self, tables: &mut dyn Tables, revision: u64) -> Result<u64> {
        if revision > self.head.revision {
            let (asked, revision) = (revision, self.head.revision);
            return Err(StoreError::FutureRevision { asked, revision });
        }
        self.drop_changes(tables, revision, 0)?;
        Ok(self.head.compacted)
    }

    /// Keeps the change log within its bounds; to be called before the tables are committed. An
    /// eighth more than the bound may stand, so that the log's old end is not written each time.
    pub(crate) fn trim(&mut self, tables: &mut dyn Tables) -> Result<()> {
        let Retention { revisions, bytes } = self.retention;
        let kept = self.head.revision - self.head.compacted;
        if kept > revisions.saturating_add(revisions / 8) {
            self.drop_changes(tables, self.head.revision.saturating_sub(revisions), 0)?;
        }
        if self.log_bytes > bytes.saturating_add(bytes / 8) {
            self.drop_changes(tables, self.head.revision.saturating_sub(1), bytes)?;
        }
        Ok(())
    }

    /// Puts an image in the place of all that is stored. Every watch ends with `Compacted`.
    pub(crate) fn restore(
        &mut self,
        tables: &mut dyn Tables,
        image: &Image,
        overwrite: bool,
    ) -> Result<u64> {
        let mut keys = 0u64;
        tables.visit(&KeyRange::all(), &mut |_| {
            keys += 1;
            ControlFlow::Continue(())
        })?;
        let leases = tables.leases()?.len() as u64;
        if !overwrite && (keys > 0 || leases > 0) {
            return Err(StoreError::NotEmpty { keys, leases });
        }
        let revision = match self.head.revision {
            0 => image.revision,
            used => image.revision.max(used.saturating_add(1)),
        };
        tables.clear()?;
        self.clock.clear();
        self.restore_leases(tables, image)?;
        for kv in &image.kvs {
            tables.put(kv)?;
            if let Some(id) = kv.lease {
                tables.attach(id, &kv.key)?;
            }
        }
        tables.set_compacted(revision)?;
        self.head = Head {
            revision,
            compacted: revision,
        };
        self.log_bytes = 0;
        self.fresh.clear();
        Ok(revision)
    }

    fn restore_leases(&mut self, tables: &mut dyn Tables, image: &Image) -> Result<()> {
        let mut held = BTreeMap::<LeaseId, u32>::new();
        for id in image.kvs.iter().filter_map(|kv| kv.lease) {
            *held.entry(id).or_default() += 1;
        }
        for lease in &image.leases {
            let keys = held.get(&lease.id).copied().unwrap_or(0);
            tables.put_lease(Lease { keys, ..*lease })?;
            self.clock.renew(lease.id, lease.ttl);
            let next = LeaseId::new(lease.id.get().wrapping_add(1)).unwrap_or(self.next_lease);
            self.next_lease = self.next_lease.max(next);
        }
        tables.set_next_lease(self.next_lease)
    }

    fn apply(&mut self, tables: &mut dyn Tables, writes: Vec<Write>) -> Result<()> {
        if writes.is_empty() {
            return Ok(());
        }
        let mut moves = Vec::new();
        let mut events = Vec::with_capacity(writes.len());
        for write in writes {
            let event = match write {
                Write::Put { kv, lease_before } => {
                    tables.put(&kv)?;
                    moves.push((kv.key.clone(), lease_before, kv.lease));
                    Event::Put(kv)
                }
                Write::Delete { kv } => {
                    tables.remove(&kv.key)?;
                    moves.push((kv.key.clone(), kv.lease, None));
                    Event::Delete { key: kv.key }
                }
            };
            events.push(event);
        }
        move_leases(tables, moves)?;
        let revision = self.head.revision + 1;
        let change = Change { revision, events };
        let bytes = tables.push_change(&change)?;
        self.head.revision = revision;
        self.log_bytes = self.log_bytes.saturating_add(bytes);
        self.fresh.push(Arc::new(change));
        Ok(())
    }

    /// Drops the oldest changes up to `revision`, but no more once the log has `floor` octets.
    fn drop_changes(&mut self, tables: &mut dyn Tables, revision: u64, floor: usize) -> Result<()> {
        let mut dropped = self.head.compacted;
        while self.log_bytes > floor
            && let Some((revision, bytes)) = tables.pop_change(revision)?
        {
            dropped = revision;
            self.log_bytes = self.log_bytes.saturating_sub(bytes);
        }
        if dropped > self.head.compacted {
            tables.set_compacted(dropped)?;
            self.head.compacted = dropped;
        }
        Ok(())
    }
}

/// A transaction that cannot write, at the tables' own revision.
pub(crate) fn read_txn(tables: &dyn ReadTables, txn: &Txn, revision: u64) -> Result<TxnResult> {
    let (succeeded, ops) = branch(tables, txn)?;
    let mut responses = Vec::with_capacity(ops.len());
    let mut room = limits::ANSWER_BYTES;
    for op in ops {
        if let Op::Get { range, limit } = op {
            responses.push(answer(tables, range, *limit, &mut room)?);
        }
    }
    Ok(TxnResult {
        succeeded,
        revision,
        responses,
    })
}

fn answer(
    tables: &(impl ReadTables + ?Sized),
    range: &KeyRange,
    limit: Option<usize>,
    room: &mut usize,
) -> Result<OpResponse> {
    read(tables, range, limit, room).map(|(kvs, more)| OpResponse::Get { kvs, more })
}

/// Reads a range; its keys and values are taken from `room`, which must do.
pub(crate) fn read(
    tables: &(impl ReadTables + ?Sized),
    range: &KeyRange,
    limit: Option<usize>,
    room: &mut usize,
) -> Result<(Vec<KeyValue>, bool)> {
    let (mut kvs, mut more, mut full) = (Vec::new(), false, false);
    tables.visit(range, &mut |kv| {
        if limit.is_some_and(|limit| kvs.len() >= limit) {
            more = true;
            return ControlFlow::Break(());
        }
        match room.checked_sub(kv.size()) {
            Some(rest) => *room = rest,
            None => {
                full = true;
                return ControlFlow::Break(());
            }
        }
        kvs.push(kv);
        ControlFlow::Continue(())
    })?;
    if full {
        return Err(StoreError::AnswerTooLarge {
            start: range.start().clone(),
        });
    }
    Ok((kvs, more))
}

fn branch<'t>(tables: &(impl ReadTables + ?Sized), txn: &'t Txn) -> Result<(bool, &'t [Op])> {
    for compare in &txn.compares {
        let (mut any, mut holds) = (false, true);
        tables.visit(&compare.range, &mut |kv| {
            any = true;
            holds = compare.check.holds(Some(&kv));
            if holds {
                ControlFlow::Continue(())
            } else {
                ControlFlow::Break(())
            }
        })?;
        if !holds || !any && !compare.check.holds(None) {
            return Ok((false, &txn.failure));
        }
    }
    Ok((true, &txn.success))
}

/// The writes of a transaction that is being judged.
struct Writes {
    revision: u64,
    list: Vec<Write>,
    deleted: BTreeSet<Bytes>,
    /// Keys on each lease that gains some.
    leases: BTreeMap<LeaseId, u32>,
}

impl Writes {
    fn new(revision: u64) -> Self {
        let (list, deleted, leases) = Default::default();
        Writes {
            revision,
            list,
            deleted,
            leases,
        }
    }

    fn put(
        &mut self,
        tables: &dyn Tables,
        key: &Bytes,
        value: &Bytes,
        lease: Option<LeaseId>,
    ) -> Result<OpResponse> {
        let before = tables.get(key)?;
        let lease_before = before.as_ref().and_then(|kv| kv.lease);
        if let Some(id) = lease {
            self.lease(tables, id, lease_before != lease)?;
        }
        let (key, value, mod_revision) = (key.clone(), value.clone(), self.revision);
        let (create_revision, version) = before.map_or((self.revision, 1), |kv| {
            (kv.create_revision, kv.version + 1)
        });
        let kv = KeyValue {
            key,
            value,
            create_revision,
            mod_revision,
            version,
            lease,
        };
        self.push(Write::Put { kv, lease_before })?;
        Ok(OpResponse::Put)
    }

    fn lease(&mut self, tables: &dyn Tables, id: LeaseId, gains: bool) -> Result<()> {
        let stored = tables.lease(id)?.ok_or(StoreError::LeaseNotFound(id))?;
        let held = self.leases.entry(id).or_insert(stored.keys);
        *held += u32::from(gains);
        if gains && *held > limits::LEASE_KEYS {
            return Err(StoreError::LeaseFull(id));
        }
        Ok(())
    }

    fn delete(&mut self, tables: &dyn Tables, range: &KeyRange) -> Result<OpResponse> {
        let mut deleted = 0;
        let mut result = Ok(());
        tables.visit(range, &mut |kv| {
            if !self.deleted.insert(kv.key.clone()) {
                return ControlFlow::Continue(());
            }
            deleted += 1;
            // Not the value: a large range would hold all of them at once.
            result = self.push(Write::Delete {
                kv: KeyValue {
                    value: Bytes::new(),
                    ..kv
                },
            });
            if result.is_ok() {
                ControlFlow::Continue(())
            } else {
                ControlFlow::Break(())
            }
        })?;
        result.map(|()| OpResponse::Delete { deleted })
    }

    fn push(&mut self, write: Write) -> Result<()> {
        if self.list.len() >= limits::TXN_CHANGES {
            return Err(StoreError::TooManyChanges);
        }
        self.list.push(write);
        Ok(())
    }
}

/// A key, the lease that it was on, and the one that it is on now.
type Move = (Bytes, Option<LeaseId>, Option<LeaseId>);

fn move_leases(tables: &mut dyn Tables, moves: Vec<Move>) -> Result<()> {
    let mut gains = BTreeMap::<LeaseId, i64>::new();
    for (key, from, to) in moves {
        if from == to {
            continue;
        }
        if let Some(id) = from {
            tables.detach(id, &key)?;
            *gains.entry(id).or_default() -= 1;
        }
        if let Some(id) = to {
            tables.attach(id, &key)?;
            *gains.entry(id).or_default() += 1;
        }
    }
    for (id, gain) in gains {
        if let Some(lease) = tables.lease(id)? {
            let keys = u32::try_from(i64::from(lease.keys) + gain).unwrap_or(0);
            tables.put_lease(Lease { keys, ..lease })?;
        }
    }
    Ok(())
}
