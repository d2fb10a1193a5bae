//! Transactions: what is compared, what is done, what comes back.
//!
//! A transaction's compares and reads see the store as it was when the transaction's turn came;
//! its own writes are not among what it reads. Writes of one branch never touch a key twice, so
//! their order does not matter (etcd demands the same of its own).

use std::{cmp::Ordering, collections::BTreeSet};

use bytes::Bytes;

use crate::{
    KeyRange, KeyValue, LeaseId, Result, StoreError,
    key::{check_key, check_value},
    limits,
};

/// How a number or value is compared: the stored one stands on the left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Relation {
    /// The stored one equals the given one.
    Equal,
    /// The stored one differs from the given one.
    NotEqual,
    /// The stored one is below the given one.
    Less,
    /// The stored one is above the given one.
    Greater,
}

impl Relation {
    fn holds<T: Ord + ?Sized>(self, stored: &T, given: &T) -> bool {
        let order = stored.cmp(given);
        match self {
            Relation::Equal => order == Ordering::Equal,
            Relation::NotEqual => order != Ordering::Equal,
            Relation::Less => order == Ordering::Less,
            Relation::Greater => order == Ordering::Greater,
        }
    }
}

/// What must be true of a key. A key that does not exist has revisions and version 0, and no value:
/// no [`Check::Value`] is ever true of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Check {
    /// The key exists.
    Exists,
    /// The key does not exist.
    Absent,
    /// The revision that wrote it last.
    ModRevision(Relation, u64),
    /// The revision that made it.
    CreateRevision(Relation, u64),
    /// How often it was written since.
    Version(Relation, u64),
    /// Its value, octet by octet.
    Value(Relation, Bytes),
}

impl Check {
    /// Whether it is true of a key, `None` for one that does not exist.
    pub fn holds(&self, kv: Option<&KeyValue>) -> bool {
        let number = |of: fn(&KeyValue) -> u64| kv.map_or(0, of);
        match self {
            Check::Exists => kv.is_some(),
            Check::Absent => kv.is_none(),
            Check::ModRevision(relation, n) => relation.holds(&number(|kv| kv.mod_revision), n),
            Check::CreateRevision(relation, n) => {
                relation.holds(&number(|kv| kv.create_revision), n)
            }
            Check::Version(relation, n) => relation.holds(&number(|kv| kv.version), n),
            Check::Value(relation, value) => kv.is_some_and(|kv| relation.holds(&kv.value, value)),
        }
    }
}

/// A check of each key in a range; where the range holds none, of one key that does not exist.
///
/// So `Absent` of a prefix says that nothing is under it, and `ModRevision(Less, r + 1)` that
/// nothing under it was written since revision `r`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Compare {
    /// The keys.
    pub range: KeyRange,
    /// What must be true of each.
    pub check: Check,
}

impl Compare {
    /// The key exists.
    pub fn exists(key: impl Into<Bytes>) -> Self {
        Compare {
            range: KeyRange::key(key),
            check: Check::Exists,
        }
    }

    /// The key does not exist.
    pub fn absent(key: impl Into<Bytes>) -> Self {
        Compare {
            range: KeyRange::key(key),
            check: Check::Absent,
        }
    }

    /// The key is as it was when it was read with this `mod_revision` (0: absent).
    pub fn unchanged(key: impl Into<Bytes>, mod_revision: u64) -> Self {
        let check = Check::ModRevision(Relation::Equal, mod_revision);
        Compare {
            range: KeyRange::key(key),
            check,
        }
    }

    fn size(&self) -> usize {
        let value = if let Check::Value(_, value) = &self.check {
            value.len()
        } else {
            0
        };
        self.range.size() + value
    }

    fn check(&self) -> Result<()> {
        self.range.check()?;
        match &self.check {
            Check::Value(_, value) => check_value(self.range.start(), value),
            _ => Ok(()),
        }
    }
}

/// One thing to do in a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    /// Write a key; a lease of an earlier write is left unless it is given again.
    Put {
        /// The key.
        key: Bytes,
        /// Its value.
        value: Bytes,
        /// The lease whose end deletes the key.
        lease: Option<LeaseId>,
    },
    /// Delete every key in a range.
    Delete {
        /// The keys.
        range: KeyRange,
    },
    /// Read a range as it was before the transaction.
    Get {
        /// The keys.
        range: KeyRange,
        /// At most so many; `None` for all.
        limit: Option<usize>,
    },
}

impl Op {
    /// Writes a key without a lease.
    pub fn put(key: impl Into<Bytes>, value: impl Into<Bytes>) -> Self {
        Op::Put {
            key: key.into(),
            value: value.into(),
            lease: None,
        }
    }

    /// Writes a key that goes when the lease does.
    pub fn put_leased(key: impl Into<Bytes>, value: impl Into<Bytes>, lease: LeaseId) -> Self {
        Op::Put {
            key: key.into(),
            value: value.into(),
            lease: Some(lease),
        }
    }

    /// Deletes a key, if it exists.
    pub fn delete(key: impl Into<Bytes>) -> Self {
        Op::Delete {
            range: KeyRange::key(key),
        }
    }

    /// Deletes every key with a prefix.
    pub fn delete_prefix(prefix: impl Into<Bytes>) -> Self {
        Op::Delete {
            range: KeyRange::prefix(prefix),
        }
    }

    /// Reads a key.
    pub fn get(key: impl Into<Bytes>) -> Self {
        Op::Get {
            range: KeyRange::key(key),
            limit: None,
        }
    }

    /// Reads every key with a prefix.
    pub fn get_prefix(prefix: impl Into<Bytes>) -> Self {
        Op::Get {
            range: KeyRange::prefix(prefix),
            limit: None,
        }
    }

    fn size(&self) -> usize {
        match self {
            Op::Put { key, value, .. } => key.len() + value.len(),
            Op::Delete { range } | Op::Get { range, .. } => range.size(),
        }
    }

    fn check(&self) -> Result<()> {
        match self {
            Op::Put { key, value, .. } => check_key(key).and_then(|()| check_value(key, value)),
            Op::Delete { range } | Op::Get { range, .. } => range.check(),
        }
    }
}

/// If every compare holds, all of `success` is done, else all of `failure`; in one revision.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Txn {
    /// What must be true; with none, it is.
    pub compares: Vec<Compare>,
    /// What is done then.
    pub success: Vec<Op>,
    /// What is done otherwise.
    pub failure: Vec<Op>,
}

impl Txn {
    /// A transaction that does `ops` in any case.
    pub fn of(ops: impl IntoIterator<Item = Op>) -> Self {
        Txn {
            success: ops.into_iter().collect(),
            ..Txn::default()
        }
    }

    /// Adds a compare.
    #[must_use]
    pub fn when(mut self, compare: Compare) -> Self {
        self.compares.push(compare);
        self
    }

    /// Adds what is done when a compare does not hold.
    #[must_use]
    pub fn or_else(mut self, ops: impl IntoIterator<Item = Op>) -> Self {
        self.failure.extend(ops);
        self
    }

    /// Whether neither branch can write.
    pub fn is_read_only(&self) -> bool {
        let reads = |op: &Op| matches!(op, Op::Get { .. });
        self.success.iter().all(reads) && self.failure.iter().all(reads)
    }

    /// Octets in all keys and values.
    pub fn size(&self) -> usize {
        let ops = self.success.iter().chain(&self.failure).map(Op::size);
        self.compares.iter().map(Compare::size).chain(ops).sum()
    }

    /// Checks everything that can be told without the store; every back end does so first.
    ///
    /// # Errors
    ///
    /// A bound of [`limits`] is passed, or a branch writes a key twice.
    pub fn check(&self) -> Result<()> {
        let lists = [
            ("compares", self.compares.len()),
            ("operations", self.success.len()),
            ("operations", self.failure.len()),
        ];
        for (what, count) in lists {
            if count > limits::TXN_OPS {
                return Err(StoreError::TooManyOps { what, count });
            }
        }
        self.compares.iter().try_for_each(Compare::check)?;
        self.success
            .iter()
            .chain(&self.failure)
            .try_for_each(Op::check)?;
        let bytes = self.size();
        if bytes > limits::TXN_BYTES {
            return Err(StoreError::TxnTooLarge { bytes });
        }
        written_once(&self.success).and_then(|()| written_once(&self.failure))
    }
}

fn written_once(ops: &[Op]) -> Result<()> {
    let mut puts = BTreeSet::new();
    for op in ops {
        if let Op::Put { key, .. } = op
            && !puts.insert(key.as_ref())
        {
            return Err(StoreError::DuplicateKey { key: key.clone() });
        }
    }
    for op in ops {
        if let Op::Delete { range } = op
            && let Some(key) = puts.range::<[u8], _>(range.bounds()).next()
        {
            return Err(StoreError::DuplicateKey {
                key: Bytes::copy_from_slice(key),
            });
        }
    }
    Ok(())
}

/// What an operation answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OpResponse {
    /// The key was written.
    Put,
    /// Keys were deleted.
    Delete {
        /// How many.
        deleted: u64,
    },
    /// What was read.
    Get {
        /// In the order of their keys.
        kvs: Vec<KeyValue>,
        /// Whether the limit cut some off.
        more: bool,
    },
}

/// What a transaction did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TxnResult {
    /// Whether every compare held.
    pub succeeded: bool,
    /// The revision it made, or, when it changed nothing, the one it saw.
    pub revision: u64,
    /// An answer for each operation of the branch that was done, in its order.
    pub responses: Vec<OpResponse>,
}

/// What a range read answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RangeResult {
    /// The revision it was read at.
    pub revision: u64,
    /// In the order of their keys.
    pub kvs: Vec<KeyValue>,
    /// Whether the limit cut some off.
    pub more: bool,
}
