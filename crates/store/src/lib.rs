//! The store: a map from keys to values with etcd's semantics, so that a server can keep its
//! intent in a file beside it (redb), in memory (tests) or in an etcd that several servers share.
//!
//! What always holds, in every back end:
//!
//! - There is one revision for the whole store. A transaction that changes something makes the next
//!   one; one that changes nothing makes none. A key knows the revisions that made it and wrote it
//!   last.
//! - A transaction is all or nothing, and what was answered is safe.
//! - A watch tells every change from a revision on, in order, each once, or says that it cannot.
//! - No writer waits for a reader or a watcher, and every queue has a bound ([`limits`]).
//!
//! Values are octets: the crate knows nothing of what is stored.

mod change;
mod dump;
mod error;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
mod key;
mod lease;
pub mod limits;
mod machine;
mod memory;
mod redb;
mod scan;
mod tables;
mod txn;
mod watch;

use std::{fmt, future::Future, pin::Pin, time::Duration};

use bytes::Bytes;
use hextet_types::Time;

pub use crate::{
    change::Event,
    dump::{DumpError, DumpSummary, Image, dump, load, read_image},
    error::{Result, SharedCause, StoreError},
    key::{KeyRange, KeyValue},
    lease::{Lease, LeaseId},
    memory::MemoryStore,
    redb::{RedbOptions, RedbStore, SCHEMA},
    scan::{Scan, ScanSource},
    txn::{Check, Compare, Op, OpResponse, RangeResult, Relation, Txn, TxnResult},
    watch::{Watch, WatchItem, WatchSource},
};

/// A future on the heap, so that [`Store`] can be used as `dyn Store`.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// How much of the change log is kept: what is older than either bound says is dropped, except the
/// newest change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention {
    /// Revisions.
    pub revisions: u64,
    /// Octets.
    pub bytes: usize,
}

impl Default for Retention {
    /// 10,000 revisions, 64 MiB.
    fn default() -> Self {
        Retention {
            revisions: 10_000,
            bytes: 64 * 1024 * 1024,
        }
    }
}

/// A store. Needs a tokio runtime. Every method may be called at the same time by any number of
/// tasks; a future of a writing method that is dropped leaves open whether it was done.
pub trait Store: fmt::Debug + Send + Sync {
    /// Does a transaction. Answers when it is safe.
    ///
    /// # Errors
    ///
    /// A bound is passed, a lease does not exist, a key is written twice: then nothing was done.
    fn txn(&self, txn: Txn) -> BoxFuture<'_, Result<TxnResult>>;

    /// Reads the keys of a range at the current revision, at most `limit` of them.
    ///
    /// # Errors
    ///
    /// [`StoreError::AnswerTooLarge`]: see [`Store::scan`].
    fn range(&self, range: KeyRange, limit: Option<usize>) -> BoxFuture<'_, Result<RangeResult>>;

    /// Reads all keys of a range at one revision, piece by piece.
    fn scan(&self, range: KeyRange) -> BoxFuture<'_, Result<Scan>>;

    /// Watches a range from a revision on (that one included; it may lie in the future); with 0,
    /// from the one that comes next. After a [`Store::scan`] at revision `r` watch from `r + 1`.
    ///
    /// # Errors
    ///
    /// [`StoreError::Compacted`]: the change log does not reach back so far.
    fn watch(&self, range: KeyRange, from_revision: u64) -> BoxFuture<'_, Result<Watch>>;

    /// The newest revision; 0 before the first write. Everything up to it is safe.
    fn revision(&self) -> BoxFuture<'_, Result<u64>>;

    /// Drops changes up to a revision from the change log; back ends do so by themselves too.
    /// Answers up to where changes are gone now.
    fn compact(&self, revision: u64) -> BoxFuture<'_, Result<u64>>;

    /// Grants a lease that lives for `ttl` (rounded up to seconds), 1 s to a day.
    fn lease_grant(&self, ttl: Duration) -> BoxFuture<'_, Result<LeaseId>>;

    /// Starts a lease's time to live anew; answers it.
    fn lease_keep_alive(&self, id: LeaseId) -> BoxFuture<'_, Result<Duration>>;

    /// Ends a lease: its keys are deleted in one transaction. Answers the revision after that.
    fn lease_revoke(&self, id: LeaseId) -> BoxFuture<'_, Result<u64>>;

    /// All leases, by their numbers.
    fn leases(&self) -> BoxFuture<'_, Result<Vec<Lease>>>;

    /// Tells the time, and ends the leases that are over; to be called about once a second by
    /// exactly one driver (a back end with a clock of its own answers nothing). A lease counts
    /// from the tick that follows its grant, its keep-alive, or the store's opening.
    fn tick(&self, now: Time) -> BoxFuture<'_, Result<Vec<LeaseId>>>;

    /// Puts an image in the place of everything, in one step; every watch ends. Answers the
    /// revision: the image's in a fresh store, else one above all that were used. Most callers
    /// want [`load`].
    ///
    /// # Errors
    ///
    /// [`StoreError::NotEmpty`] unless `overwrite`.
    fn restore(&self, image: Image, overwrite: bool) -> BoxFuture<'_, Result<u64>>;

    /// Reads a key.
    fn get(&self, key: Bytes) -> BoxFuture<'_, Result<Option<KeyValue>>> {
        Box::pin(async move { Ok(self.range(KeyRange::key(key), None).await?.kvs.pop()) })
    }

    /// Writes a key whatever it was; answers the revision.
    fn put(&self, key: Bytes, value: Bytes) -> BoxFuture<'_, Result<u64>> {
        Box::pin(async move { Ok(self.txn(Txn::of([Op::put(key, value)])).await?.revision) })
    }

    /// Deletes a key if it exists; answers the revision.
    fn delete(&self, key: Bytes) -> BoxFuture<'_, Result<u64>> {
        Box::pin(async move { Ok(self.txn(Txn::of([Op::delete(key)])).await?.revision) })
    }
}
