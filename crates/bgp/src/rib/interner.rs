//! One allocation for equal attributes, however many routes have them.

use std::{hash::BuildHasher, sync::Arc};

use hashbrown::{DefaultHashBuilder, HashTable};

use crate::packet::PathAttributes;

/// Attributes in use, and for a while those that no longer are: they are swept out when their number
/// has doubled since the last sweep.
#[derive(Debug)]
pub(crate) struct Interner {
    table: HashTable<Arc<PathAttributes>>,
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
        if let Some(known) = self.table.find(hash, |known| **known == attributes) {
            return Arc::clone(known);
        }
        if self.table.len() >= self.sweep_at {
            self.sweep();
        }
        let shared = Arc::new(attributes);
        let hasher = &self.hasher;
        self.table
            .insert_unique(hash, Arc::clone(&shared), |known| hasher.hash_one(&**known));
        shared
    }

    fn sweep(&mut self) {
        self.table.retain(|known| Arc::strong_count(known) > 1);
        self.sweep_at = (self.table.len() * 2).max(LEAST_SWEEP);
        let hasher = &self.hasher;
        self.table
            .shrink_to(self.sweep_at, |known| hasher.hash_one(&**known));
    }

    pub(crate) fn len(&self) -> usize {
        self.table.len()
    }
}
