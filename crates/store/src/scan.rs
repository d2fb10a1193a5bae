//! Reading many keys at one revision without holding them all.

use crate::{BoxFuture, KeyValue, Lease, Result};

/// Where a scan's keys come from; what a back end implements.
pub trait ScanSource: Send {
    /// The next keys in order, none at the end. Not to be dropped half-way: a scan whose future
    /// was dropped may fail from there on, but never skips.
    fn next(&mut self) -> BoxFuture<'_, Result<Vec<KeyValue>>>;
}

/// A consistent view of a range of keys. Read it soon: an embedded store cannot reuse the space of
/// what was overwritten meanwhile.
pub struct Scan {
    revision: u64,
    leases: Vec<Lease>,
    source: Box<dyn ScanSource>,
}

impl Scan {
    /// A scan of a back end.
    pub fn new(revision: u64, leases: Vec<Lease>, source: impl ScanSource + 'static) -> Self {
        Scan {
            revision,
            leases,
            source: Box::new(source),
        }
    }

    /// The revision that all of it is of.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// All leases at that revision.
    pub fn leases(&self) -> &[Lease] {
        &self.leases
    }

    /// The next keys in their order; an empty answer is the end.
    ///
    /// # Errors
    ///
    /// What reading can bring.
    pub async fn next(&mut self) -> Result<Vec<KeyValue>> {
        self.source.next().await
    }
}

impl std::fmt::Debug for Scan {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Scan")
            .field("revision", &self.revision)
            .finish_non_exhaustive()
    }
}
