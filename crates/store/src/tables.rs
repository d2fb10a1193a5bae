//! What the machine needs of a back end: ordered tables that can be read, and written together.

use std::ops::ControlFlow;

use bytes::Bytes;

use crate::{KeyRange, KeyValue, Lease, LeaseId, Result, change::Change};

/// A consistent view of a store's tables.
pub(crate) trait ReadTables {
    fn get(&self, key: &[u8]) -> Result<Option<KeyValue>>;

    /// Calls `visit` for each key of the range in order, until it breaks.
    fn visit(
        &self,
        range: &KeyRange,
        visit: &mut dyn FnMut(KeyValue) -> ControlFlow<()>,
    ) -> Result<()>;

    fn lease(&self, id: LeaseId) -> Result<Option<Lease>>;
    fn leases(&self) -> Result<Vec<Lease>>;
}

/// The same, to be changed; nothing fails here but the medium.
pub(crate) trait Tables: ReadTables {
    fn put(&mut self, kv: &KeyValue) -> Result<()>;
    fn remove(&mut self, key: &[u8]) -> Result<()>;

    fn put_lease(&mut self, lease: Lease) -> Result<()>;
    fn remove_lease(&mut self, id: LeaseId) -> Result<()>;
    fn attach(&mut self, id: LeaseId, key: &[u8]) -> Result<()>;
    fn detach(&mut self, id: LeaseId, key: &[u8]) -> Result<()>;
    fn lease_keys(&self, id: LeaseId) -> Result<Vec<Bytes>>;

    /// Answers the octets that the change takes in the log, more than 0.
    fn push_change(&mut self, change: &Change) -> Result<usize>;
    /// Takes the oldest change away if it is not above `revision`: its revision, and the
    /// octets that it took.
    fn pop_change(&mut self, revision: u64) -> Result<Option<(u64, usize)>>;

    /// Remembers that changes up to `revision` are gone.
    fn set_compacted(&mut self, revision: u64) -> Result<()>;
    /// Remembers the number of the next lease.
    fn set_next_lease(&mut self, id: LeaseId) -> Result<()>;
    /// Empties all tables.
    fn clear(&mut self) -> Result<()>;
}
