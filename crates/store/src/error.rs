//! What can go wrong in a store, in words that name the operation, its object and the way out.

use std::{path::PathBuf, sync::Arc};

use bytes::Bytes;
use thiserror::Error;

use crate::{LeaseId, limits};

/// The result of a store operation.
pub type Result<T, E = StoreError> = std::result::Result<T, E>;

/// A cause that several callers of one commit share.
pub type SharedCause = Arc<dyn std::error::Error + Send + Sync>;

/// Why a store operation failed. Unless it says otherwise, nothing was changed.
#[derive(Clone, Debug, Error)]
#[non_exhaustive]
pub enum StoreError {
    /// A key, or the start of a range of one key, has no octets.
    #[error("a key must have at least one octet")]
    KeyEmpty,
    /// A key is longer than [`limits::KEY_BYTES`].
    #[error("key '{}…' has {len} octets, more than {}", shown(.start), limits::KEY_BYTES)]
    KeyTooLong {
        /// Its first octets.
        start: Bytes,
        /// Its length in octets.
        len: usize,
    },
    /// A value is longer than [`limits::VALUE_BYTES`].
    #[error("the value of key '{}' has {len} octets, more than {}", shown(.key), limits::VALUE_BYTES)]
    ValueTooLong {
        /// The key it was meant for.
        key: Bytes,
        /// The value's length in octets.
        len: usize,
    },
    /// A transaction has more compares, or more operations in a branch, than [`limits::TXN_OPS`].
    #[error(
        "transaction with {count} {what}, more than {}: do it in several",
        limits::TXN_OPS
    )]
    TooManyOps {
        /// `compares` or `operations`.
        what: &'static str,
        /// How many there are.
        count: usize,
    },
    /// A transaction's keys and values are more than [`limits::TXN_BYTES`].
    #[error(
        "transaction of {bytes} octets, more than {}: do it in several",
        limits::TXN_BYTES
    )]
    TxnTooLarge {
        /// Octets in all its keys and values.
        bytes: usize,
    },
    /// A transaction would change more keys than [`limits::TXN_CHANGES`].
    #[error(
        "a transaction that changes more than {} keys: delete smaller ranges",
        limits::TXN_CHANGES
    )]
    TooManyChanges,
    /// One branch of a transaction puts a key twice, or puts a key that it also deletes.
    #[error("key '{}' is written twice in one transaction", shown(.key))]
    DuplicateKey {
        /// The key.
        key: Bytes,
    },
    /// An answer would hold more than [`limits::ANSWER_BYTES`].
    #[error(
        "an answer of more than {} octets for keys from '{}': give a limit, or scan",
        limits::ANSWER_BYTES,
        shown(.start)
    )]
    AnswerTooLarge {
        /// Start of the range that was asked for.
        start: Bytes,
    },
    /// No such lease: never granted, revoked or expired.
    #[error("lease {0} does not exist (it expired or was revoked): grant a new one")]
    LeaseNotFound(LeaseId),
    /// A lease would hold more keys than [`limits::LEASE_KEYS`].
    #[error("lease {0} would hold more than {max} keys: use several leases", max = limits::LEASE_KEYS)]
    LeaseFull(LeaseId),
    /// There are [`limits::LEASES`] leases.
    #[error(
        "there are {} leases already: revoke some, or let them expire",
        limits::LEASES
    )]
    TooManyLeases,
    /// A lease's time to live is out of range.
    #[error("a lease of {secs} s: give between 1 and {} s", limits::LEASE_TTL_SECS)]
    LeaseTtl {
        /// What was asked for, in whole seconds.
        secs: u64,
    },
    /// The change log no longer reaches back that far: read anew, and watch from there.
    #[error(
        "changes up to revision {compact_revision} are compacted: read anew, and watch from the revision you read"
    )]
    Compacted {
        /// The newest revision that is no longer in the change log.
        compact_revision: u64,
    },
    /// A revision that the store has not reached.
    #[error("revision {asked} is in the future: the store is at {revision}")]
    FutureRevision {
        /// What was asked for.
        asked: u64,
        /// Where the store is.
        revision: u64,
    },
    /// A restore into a store that holds something.
    #[error(
        "the store holds {keys} keys and {leases} leases: load into an empty one, or overwrite it"
    )]
    NotEmpty {
        /// Keys in the store.
        keys: u64,
        /// Leases in the store.
        leases: u64,
    },
    /// Another process has the file open.
    #[error("open store {}: {holder} has it open; stop that first", path.display())]
    Locked {
        /// The store's file.
        path: PathBuf,
        /// The process, as well as it could be told.
        holder: String,
    },
    /// The file was written by a newer program.
    #[error(
        "open store {}: it has schema {found}, this program knows up to {known}; run the newer \
         hextet, or dump with that one and load with this one",
        path.display()
    )]
    NewerSchema {
        /// The store's file.
        path: PathBuf,
        /// The file's schema version.
        found: u64,
        /// The newest that this program knows.
        known: u64,
    },
    /// The file could not be opened or made.
    #[error("open store {}: {source}", path.display())]
    Open {
        /// The store's file.
        path: PathBuf,
        /// Why.
        source: SharedCause,
    },
    /// What is stored cannot be read back.
    #[error("the store's {table} entry '{}' is damaged: restore from a dump", shown(.key))]
    Corrupt {
        /// The table.
        table: &'static str,
        /// The entry's key.
        key: Bytes,
    },
    /// Reading the file failed.
    #[error("read store: {source}")]
    Read {
        /// Why.
        source: SharedCause,
    },
    /// Writing the file failed. **Whether the transaction was stored is unknown**, and the store
    /// refuses everything from here on.
    #[error("write store: {source}; whether this was stored is unknown: mend the disk and restart")]
    Write {
        /// Why.
        source: SharedCause,
    },
    /// The store was closed, or an earlier write failed.
    #[error("the store is closed")]
    Closed,
}

fn shown(key: &[u8]) -> String {
    let head = key.get(..64).unwrap_or(key);
    let more = if head.len() < key.len() { "…" } else { "" };
    format!("{}{more}", head.escape_ascii())
}
