//! One allocation for equal attributes, however many routes have them.

use std::{hash::BuildHasher, sync::Arc};

use hashbrown::{DefaultHashBuilder, HashTable};

use crate::packet::PathAttributes;

/// Attributes in use, and for a while those that no longer are: they are swept out when their number
/// has doubled since the last sweep.
#[derive(Debug)]
pub(crate) struct Interner {
    /// With their hashes, so that a table that grows need not read them all again.
    table: HashTable<(u64, Arc<PathAttributes>)>,
    hasher: DefaultHashBuilder,
    sweep_at: usize,
}

const LEAST_SWEEP: usize = 1024;

impl Interner {
    pub(crate) fn new() -> Self {
        Interner {
            table: HashTable::new(),
            hasher: DefaultHashBuilder::default(),
            sweep_at: LEAST_SWEEP,
        }
    }

    /// The shared value that equals `attributes`.
    pub(crate) fn intern(&mut self, attributes: PathAttributes) -> Arc<PathAttributes> {
        let hash = self.hasher.hash_one(&attributes);
        let same = |(its, known): &(u64, Arc<_>)| *its == hash && **known == attributes;
        if let Some((_, known)) = self.table.find(hash, same) {
            return Arc::clone(known);
        }
        if self.table.len() >= self.sweep_at {
            self.sweep();
        }
        let shared = Arc::new(attributes);
        let entry = (hash, Arc::clone(&shared));
        self.table.insert_unique(hash, entry, |(hash, _)| *hash);
        shared
    }

    fn sweep(&mut self) {
        self.table.retain(|(_, known)| Arc::strong_count(known) > 1);
        self.sweep_at = (self.table.len() * 2).max(LEAST_SWEEP);
        self.table.shrink_to(self.sweep_at, |(hash, _)| *hash);
    }

    pub(crate) fn len(&self) -> usize {
        self.table.len()
    }
}
