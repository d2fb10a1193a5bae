//! The machine's tables as redb tables, and the octets of their rows.
//!
//! | table | key | value |
//! |---|---|---|
//! | `keys` | key | create, mod, version, lease (u64 each, little endian), value |
//! | `changes` | revision | see [`Change::encode`] |
//! | `leases` | lease (u64, big endian) | seconds to live u64, keys u32 (little endian) |
//! | `leases` | lease, key | nothing |
//! | `meta` | `schema`, `compacted`, `next_lease` | u64 |
//!
//! The store's revision is that of the newest change, or `compacted` when there is none, so that
//! a commit writes two tables and no third.

use std::{
    ops::{Bound, ControlFlow},
    sync::Arc,
    time::Duration,
};

use bytes::{Buf, BufMut, Bytes};
use redb::{
    ReadTransaction, ReadableTable, StorageError, Table, TableDefinition, TableError,
    WriteTransaction,
};

use crate::{
    KeyRange, KeyValue, Lease, LeaseId, Result, StoreError,
    change::Change,
    machine::Origin,
    tables::{ReadTables, Tables},
    watch::{Chunk, Head},
};

const KEYS: TableDefinition<&[u8], &[u8]> = TableDefinition::new("keys");
const CHANGES: TableDefinition<u64, &[u8]> = TableDefinition::new("changes");
const LEASES: TableDefinition<&[u8], &[u8]> = TableDefinition::new("leases");
pub(super) const META: TableDefinition<&str, u64> = TableDefinition::new("meta");

const COMPACTED: &str = "compacted";
const NEXT_LEASE: &str = "next_lease";
const KEY_HEAD: usize = 32;

type ByteTable = redb::ReadOnlyTable<&'static [u8], &'static [u8]>;

/// Rows that any of redb's tables over octets can give.
trait Rows: ReadableTable<&'static [u8], &'static [u8]> {}
impl<T: ReadableTable<&'static [u8], &'static [u8]>> Rows for T {}

/// A consistent view of the file.
pub(super) struct Snapshot {
    keys: ByteTable,
    changes: redb::ReadOnlyTable<u64, &'static [u8]>,
    leases: ByteTable,
    meta: redb::ReadOnlyTable<&'static str, u64>,
}

impl Snapshot {
    pub(super) fn new(txn: &ReadTransaction) -> Result<Self> {
        Ok(Snapshot {
            keys: txn.open_table(KEYS).map_err(table_error)?,
            changes: txn.open_table(CHANGES).map_err(table_error)?,
            leases: txn.open_table(LEASES).map_err(table_error)?,
            meta: txn.open_table(META).map_err(table_error)?,
        })
    }

    pub(super) fn head(&self) -> Result<Head> {
        let compacted = self
            .meta
            .get(COMPACTED)
            .map_err(read_error)?
            .map_or(0, |row| row.value());
        let newest = self.changes.last().map_err(read_error)?;
        let revision = newest.map_or(compacted, |(revision, _)| revision.value());
        Ok(Head {
            revision,
            compacted,
        })
    }

    /// What the machine starts from; reads the whole change log.
    pub(super) fn origin(&self) -> Result<Origin> {
        let next = self.meta.get(NEXT_LEASE).map_err(read_error)?;
        let next_lease = next
            .and_then(|row| LeaseId::new(row.value()))
            .unwrap_or(LeaseId::FIRST);
        let mut log_bytes = 0usize;
        for row in self.changes.iter().map_err(read_error)? {
            let (_, row) = row.map_err(read_error)?;
            log_bytes = log_bytes.saturating_add(log_size(row.value().len()));
        }
        Ok(Origin {
            head: self.head()?,
            log_bytes,
            next_lease,
        })
    }

    /// See [`crate::watch::ChangeLog`].
    pub(super) fn changes(&self, from: u64) -> Result<Vec<Arc<Change>>> {
        let Head { compacted, .. } = self.head()?;
        if from <= compacted {
            return Err(StoreError::Compacted {
                compact_revision: compacted,
            });
        }
        let mut chunk = Chunk::default();
        for row in self.changes.range(from..).map_err(read_error)? {
            let (revision, row) = row.map_err(read_error)?;
            let (revision, row) = (revision.value(), row.value());
            let change = Change::decode(revision, Bytes::copy_from_slice(row))
                .ok_or_else(|| corrupt("changes", &revision.to_be_bytes()))?;
            if chunk.push(Arc::new(change), row.len()) {
                break;
            }
        }
        Ok(chunk.into_changes())
    }
}

impl ReadTables for Snapshot {
    fn get(&self, key: &[u8]) -> Result<Option<KeyValue>> {
        get(&self.keys, key)
    }

    fn visit(
        &self,
        range: &KeyRange,
        visit: &mut dyn FnMut(KeyValue) -> ControlFlow<()>,
    ) -> Result<()> {
        visit_keys(&self.keys, range, visit)
    }

    fn lease(&self, id: LeaseId) -> Result<Option<Lease>> {
        lease(&self.leases, id)
    }

    fn leases(&self) -> Result<Vec<Lease>> {
        leases(&self.leases)
    }
}

/// The tables of a write transaction.
pub(super) struct WriteTables<'t> {
    keys: Table<'t, &'static [u8], &'static [u8]>,
    changes: Table<'t, u64, &'static [u8]>,
    leases: Table<'t, &'static [u8], &'static [u8]>,
    meta: Table<'t, &'static str, u64>,
    row: Vec<u8>,
    dirty: bool,
}

impl<'t> WriteTables<'t> {
    /// Opens the tables, making those that are not there.
    pub(super) fn new(txn: &'t WriteTransaction) -> Result<Self> {
        Ok(WriteTables {
            keys: txn.open_table(KEYS).map_err(table_error)?,
            changes: txn.open_table(CHANGES).map_err(table_error)?,
            leases: txn.open_table(LEASES).map_err(table_error)?,
            meta: txn.open_table(META).map_err(table_error)?,
            row: Vec::new(),
            dirty: false,
        })
    }

    /// Whether anything was written.
    pub(super) fn is_dirty(&self) -> bool {
        self.dirty
    }
}

impl ReadTables for WriteTables<'_> {
    fn get(&self, key: &[u8]) -> Result<Option<KeyValue>> {
        get(&self.keys, key)
    }

    fn visit(
        &self,
        range: &KeyRange,
        visit: &mut dyn FnMut(KeyValue) -> ControlFlow<()>,
    ) -> Result<()> {
        visit_keys(&self.keys, range, visit)
    }

    fn lease(&self, id: LeaseId) -> Result<Option<Lease>> {
        lease(&self.leases, id)
    }

    fn leases(&self) -> Result<Vec<Lease>> {
        leases(&self.leases)
    }
}

impl Tables for WriteTables<'_> {
    fn put(&mut self, kv: &KeyValue) -> Result<()> {
        self.dirty = true;
        self.row.clear();
        encode(kv, &mut self.row);
        let row = self.row.as_slice();
        self.keys
            .insert(kv.key.as_ref(), row)
            .map(drop)
            .map_err(write_error)
    }

    fn remove(&mut self, key: &[u8]) -> Result<()> {
        self.dirty = true;
        self.keys.remove(key).map(drop).map_err(write_error)
    }

    fn put_lease(&mut self, lease: Lease) -> Result<()> {
        self.dirty = true;
        self.row.clear();
        encode_lease(lease, &mut self.row);
        let (key, row) = (lease.id.get().to_be_bytes(), self.row.as_slice());
        self.leases
            .insert(&key[..], row)
            .map(drop)
            .map_err(write_error)
    }

    fn remove_lease(&mut self, id: LeaseId) -> Result<()> {
        self.dirty = true;
        self.leases
            .remove(&id.get().to_be_bytes()[..])
            .map(drop)
            .map_err(write_error)
    }

    fn attach(&mut self, id: LeaseId, key: &[u8]) -> Result<()> {
        self.dirty = true;
        let row: &[u8] = &[];
        self.leases
            .insert(lease_key(id, key).as_slice(), row)
            .map(drop)
            .map_err(write_error)
    }

    fn detach(&mut self, id: LeaseId, key: &[u8]) -> Result<()> {
        self.dirty = true;
        self.leases
            .remove(lease_key(id, key).as_slice())
            .map(drop)
            .map_err(write_error)
    }

    fn lease_keys(&self, id: LeaseId) -> Result<Vec<Bytes>> {
        let prefix = id.get().to_be_bytes();
        let from = (Bound::Excluded(&prefix[..]), Bound::Unbounded);
        let mut keys = Vec::new();
        for row in self.leases.range::<&[u8]>(from).map_err(read_error)? {
            let (row, _) = row.map_err(read_error)?;
            let Some(key) = row.value().strip_prefix(&prefix) else {
                break;
            };
            keys.push(Bytes::copy_from_slice(key));
        }
        Ok(keys)
    }

    fn push_change(&mut self, change: &Change) -> Result<usize> {
        self.dirty = true;
        self.row.clear();
        change.encode(&mut self.row);
        let row = self.row.as_slice();
        self.changes
            .insert(change.revision, row)
            .map(drop)
            .map_err(write_error)?;
        Ok(log_size(row.len()))
    }

    fn pop_change(&mut self, revision: u64) -> Result<Option<(u64, usize)>> {
        let first = self.changes.first().map_err(read_error)?;
        let oldest = first.map(|(revision, row)| (revision.value(), log_size(row.value().len())));
        let Some((oldest, bytes)) = oldest.filter(|(oldest, _)| *oldest <= revision) else {
            return Ok(None);
        };
        self.dirty = true;
        self.changes.remove(oldest).map(drop).map_err(write_error)?;
        Ok(Some((oldest, bytes)))
    }

    fn set_compacted(&mut self, revision: u64) -> Result<()> {
        self.dirty = true;
        self.meta
            .insert(COMPACTED, revision)
            .map(drop)
            .map_err(write_error)
    }

    fn set_next_lease(&mut self, id: LeaseId) -> Result<()> {
        self.dirty = true;
        self.meta
            .insert(NEXT_LEASE, id.get())
            .map(drop)
            .map_err(write_error)
    }

    fn clear(&mut self) -> Result<()> {
        self.dirty = true;
        self.keys.retain(|_, _| false).map_err(write_error)?;
        self.changes.retain(|_, _| false).map_err(write_error)?;
        self.leases.retain(|_, _| false).map_err(write_error)
    }
}

fn get(keys: &impl Rows, key: &[u8]) -> Result<Option<KeyValue>> {
    match keys.get(key).map_err(read_error)? {
        Some(row) => decode(key, row.value()).map(Some),
        None => Ok(None),
    }
}

fn visit_keys(
    keys: &impl Rows,
    range: &KeyRange,
    visit: &mut dyn FnMut(KeyValue) -> ControlFlow<()>,
) -> Result<()> {
    for row in keys.range::<&[u8]>(range.bounds()).map_err(read_error)? {
        let (key, row) = row.map_err(read_error)?;
        if visit(decode(key.value(), row.value())?).is_break() {
            break;
        }
    }
    Ok(())
}

pub(crate) fn encode(kv: &KeyValue, row: &mut Vec<u8>) {
    for number in [kv.create_revision, kv.mod_revision, kv.version] {
        row.put_u64_le(number);
    }
    row.put_u64_le(kv.lease.map_or(0, LeaseId::get));
    row.put_slice(&kv.value);
}

pub(crate) fn decode(key: &[u8], row: &[u8]) -> Result<KeyValue> {
    let (mut head, value) = row
        .split_at_checked(KEY_HEAD)
        .ok_or_else(|| corrupt("keys", key))?;
    Ok(KeyValue {
        key: Bytes::copy_from_slice(key),
        value: Bytes::copy_from_slice(value),
        create_revision: head.get_u64_le(),
        mod_revision: head.get_u64_le(),
        version: head.get_u64_le(),
        lease: LeaseId::new(head.get_u64_le()),
    })
}

fn lease(leases: &impl Rows, id: LeaseId) -> Result<Option<Lease>> {
    let key = id.get().to_be_bytes();
    match leases.get(&key[..]).map_err(read_error)? {
        Some(row) => decode_lease(&key, row.value()).map(Some),
        None => Ok(None),
    }
}

/// Skips from lease to lease, over their keys.
fn leases(leases: &impl Rows) -> Result<Vec<Lease>> {
    let mut all = Vec::new();
    let mut from = 0u64;
    loop {
        let start = from.to_be_bytes();
        let mut rows = leases.range::<&[u8]>(&start[..]..).map_err(read_error)?;
        let Some(row) = rows.next() else {
            return Ok(all);
        };
        let (key, row) = row.map_err(read_error)?;
        let lease = decode_lease(key.value(), row.value())?;
        all.push(lease);
        match lease.id.get().checked_add(1) {
            Some(next) => from = next,
            None => return Ok(all),
        }
    }
}

pub(crate) fn encode_lease(lease: Lease, row: &mut Vec<u8>) {
    row.put_u64_le(lease.ttl.as_secs());
    row.put_u32_le(lease.keys);
}

pub(crate) fn decode_lease(key: &[u8], row: &[u8]) -> Result<Lease> {
    let lease = |mut key: &[u8], mut row: &[u8]| {
        let id = LeaseId::new(key.try_get_u64().ok()?)?;
        let ttl = Duration::from_secs(row.try_get_u64_le().ok()?);
        let keys = row.try_get_u32_le().ok()?;
        (key.is_empty() && row.is_empty()).then_some(Lease { id, ttl, keys })
    };
    lease(key, row).ok_or_else(|| corrupt("leases", key))
}

fn lease_key(id: LeaseId, key: &[u8]) -> Vec<u8> {
    [&id.get().to_be_bytes(), key].concat()
}

fn log_size(row: usize) -> usize {
    row + size_of::<u64>()
}

fn corrupt(table: &'static str, key: &[u8]) -> StoreError {
    StoreError::Corrupt {
        table,
        key: Bytes::copy_from_slice(key),
    }
}

pub(super) fn read_error(error: StorageError) -> StoreError {
    StoreError::Read {
        source: Arc::new(error),
    }
}

fn table_error(error: TableError) -> StoreError {
    StoreError::Read {
        source: Arc::new(error),
    }
}

pub(super) fn write_error(error: impl std::error::Error + Send + Sync + 'static) -> StoreError {
    StoreError::Write {
        source: Arc::new(error),
    }
}
