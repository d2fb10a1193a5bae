//! Sets of prefixes: the space of a subnet pool, and what of it is free.
//!
//! A set is kept as the fewest prefixes that make it up, by address and by length, so that every
//! operation costs O(log n) for each bit of a prefix's length, however broken up the set is.

use std::collections::{BTreeMap, BTreeSet};

use hextet_types::{Family, Prefix};

use super::ranges::{address, number};

/// Addresses of one family, as disjoint prefixes of which no two make up a larger one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PrefixSet {
    family: Family,
    /// First address → length.
    blocks: BTreeMap<u128, u8>,
    /// Length → first addresses.
    by_len: BTreeMap<u8, BTreeSet<u128>>,
}

impl PrefixSet {
    /// Nothing.
    pub fn new(family: Family) -> Self {
        PrefixSet {
            family,
            blocks: BTreeMap::new(),
            by_len: BTreeMap::new(),
        }
    }

    /// All of these; those of the other family are left out.
    pub fn of(family: Family, prefixes: impl IntoIterator<Item = Prefix>) -> Self {
        let mut set = PrefixSet::new(family);
        for prefix in prefixes {
            set.insert(prefix);
        }
        set
    }

    /// The fewest prefixes that make it up, ascending.
    pub fn iter(&self) -> impl Iterator<Item = Prefix> + '_ {
        self.blocks
            .iter()
            .filter_map(|(first, len)| self.prefix(*first, *len))
    }

    /// How many prefixes make it up.
    pub fn len(&self) -> usize {
        self.blocks.len()
    }

    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.blocks.is_empty()
    }

    /// Whether all of the prefix is in it.
    pub fn covers(&self, prefix: Prefix) -> bool {
        self.block_around(prefix).is_some()
    }

    /// Whether any of the prefix is in it.
    pub fn overlaps(&self, prefix: Prefix) -> bool {
        if prefix.family() != self.family {
            return false;
        }
        let (first, last) = (number(prefix.addr()), number(prefix.last()));
        self.covers(prefix) || self.blocks.range(first..=last).next().is_some()
    }

    /// Whether the two sets have an address in common.
    pub fn meets(&self, other: &PrefixSet) -> bool {
        let (few, many) = match self.len() <= other.len() {
            true => (self, other),
            false => (other, self),
        };
        few.iter().any(|prefix| many.overlaps(prefix))
    }

    /// Puts a prefix in.
    pub fn insert(&mut self, prefix: Prefix) {
        if prefix.family() != self.family || self.covers(prefix) {
            return;
        }
        self.drop_inside(prefix);
        let (mut first, mut len) = (number(prefix.addr()), prefix.len());
        while len > 0 && self.blocks.get(&(first ^ self.bit(len))) == Some(&len) {
            self.drop_block(first ^ self.bit(len), len);
            first &= !self.bit(len);
            len -= 1;
        }
        self.put_block(first, len);
    }

    /// Takes a prefix out, or what of it is in.
    pub fn remove(&mut self, prefix: Prefix) {
        if prefix.family() != self.family {
            return;
        }
        let Some((around, around_len)) = self.block_around(prefix) else {
            self.drop_inside(prefix);
            return;
        };
        self.drop_block(around, around_len);
        let first = number(prefix.addr());
        for len in around_len + 1..=prefix.len() {
            let below = self.bit(len) - 1;
            self.put_block((first & !below) ^ self.bit(len), len);
        }
    }

    /// A prefix of that length out of the smallest block that has room, and of those the first, so
    /// that large blocks stay whole.
    pub fn best_fit(&self, len: u8) -> Option<Prefix> {
        let (_, firsts) = self.by_len.range(..=len).next_back()?;
        self.prefix(*firsts.first()?, len)
    }

    fn prefix(&self, first: u128, len: u8) -> Option<Prefix> {
        Prefix::new(address(first, self.family.unspecified()), len).ok()
    }

    /// The bit that tells the two halves of a block of length `len - 1` apart.
    fn bit(&self, len: u8) -> u128 {
        let shift = self.family.bits().saturating_sub(len);
        1u128.checked_shl(shift.into()).unwrap_or(0)
    }

    fn block_around(&self, prefix: Prefix) -> Option<(u128, u8)> {
        if prefix.family() != self.family {
            return None;
        }
        let (first, len) = self.blocks.range(..=number(prefix.addr())).next_back()?;
        let block = self.prefix(*first, *len)?;
        block.covers(prefix).then_some((*first, *len))
    }

    fn drop_inside(&mut self, prefix: Prefix) {
        let (first, last) = (number(prefix.addr()), number(prefix.last()));
        let inside: Vec<_> = self
            .blocks
            .range(first..=last)
            .map(|(f, l)| (*f, *l))
            .collect();
        for (first, len) in inside {
            self.drop_block(first, len);
        }
    }

    fn put_block(&mut self, first: u128, len: u8) {
        self.blocks.insert(first, len);
        self.by_len.entry(len).or_default().insert(first);
    }

    fn drop_block(&mut self, first: u128, len: u8) {
        self.blocks.remove(&first);
        if let Some(firsts) = self.by_len.get_mut(&len) {
            firsts.remove(&first);
            if firsts.is_empty() {
                self.by_len.remove(&len);
            }
        }
    }
}

#[cfg(test)]
mod tests;
