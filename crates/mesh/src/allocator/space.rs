//! Blocks of addresses, and the free ones of a part of a network.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use hextet_types::{Family, Prefix};

/// A prefix with its bits at the left end of 128, in either family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Block {
    pub(super) bits: u128,
    pub(super) len: u8,
}

impl Block {
    pub(super) fn of(prefix: Prefix) -> Self {
        let bits = match prefix.addr() {
            IpAddr::V4(addr) => u128::from(addr.to_bits()) << 96,
            IpAddr::V6(addr) => addr.to_bits(),
        };
        let len = prefix.len();
        Block { bits, len }
    }

    pub(super) fn prefix(self, family: Family) -> Option<Prefix> {
        let addr = match family {
            Family::V4 => Ipv4Addr::from_bits(u32::try_from(self.bits >> 96).ok()?).into(),
            Family::V6 => Ipv6Addr::from_bits(self.bits).into(),
        };
        Prefix::new(addr, self.len).ok()
    }

    fn mask(len: u8) -> u128 {
        u128::MAX.checked_shr(u32::from(len)).unwrap_or(0)
    }

    pub(super) fn last(self) -> u128 {
        self.bits | Self::mask(self.len)
    }

    pub(super) fn covers(self, other: Block) -> bool {
        self.len <= other.len && other.bits & !Self::mask(self.len) == self.bits
    }

    fn with_len(self, len: u8) -> Block {
        let bits = self.bits & !Self::mask(len);
        Block { bits, len }
    }

    /// The other half of what this is a half of.
    fn sibling(self) -> Block {
        let bit = 1u128
            .checked_shl(128 - u32::from(self.len))
            .unwrap_or_default();
        Block {
            bits: self.bits ^ bit,
            len: self.len,
        }
    }

    fn halves(self) -> [Block; 2] {
        let lower = Block {
            bits: self.bits,
            len: self.len + 1,
        };
        [lower, lower.sibling()]
    }

    /// What is left of it without these, in as few blocks as possible.
    pub(super) fn without(self, inner: &[Block]) -> Vec<Block> {
        let mut left = Vec::new();
        let mut open = vec![self];
        while let Some(block) = open.pop() {
            if inner.iter().any(|i| i.covers(block)) {
                continue;
            }
            match inner.iter().any(|i| block.covers(*i)) {
                true => open.extend(block.halves()),
                false => left.push(block),
            }
        }
        left
    }
}

/// Free blocks, none of which could be merged with another.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Free(BTreeMap<u8, BTreeSet<u128>>);

impl Free {
    fn insert(&mut self, block: Block) {
        self.0.entry(block.len).or_default().insert(block.bits);
    }

    fn remove(&mut self, block: Block) -> bool {
        let Some(blocks) = self.0.get_mut(&block.len) else {
            return false;
        };
        let was = blocks.remove(&block.bits);
        if blocks.is_empty() {
            self.0.remove(&block.len);
        }
        was
    }

    /// The lowest of the smallest blocks that hold one of this length.
    fn fit(&self, len: u8) -> Option<Block> {
        let (&len, blocks) = self.0.range(..=len).next_back()?;
        let bits = *blocks.first()?;
        Some(Block { bits, len })
    }

    /// Takes `inner` out of a free block around it.
    fn split(&mut self, outer: Block, inner: Block) {
        self.remove(outer);
        for len in outer.len + 1..=inner.len {
            self.insert(inner.with_len(len).sibling());
        }
    }

    fn around(&self, inner: Block) -> Option<Block> {
        let lens = self.0.range(..=inner.len);
        lens.map(|(&len, blocks)| (inner.with_len(len), blocks))
            .find_map(|(outer, blocks)| blocks.contains(&outer.bits).then_some(outer))
    }

    fn remove_within(&mut self, outer: Block) {
        for blocks in self.0.values_mut() {
            blocks.retain(|bits| !(outer.bits..=outer.last()).contains(bits));
        }
        self.0.retain(|_, blocks| !blocks.is_empty());
    }

    /// Puts a block back, as large as it gets with its neighbours inside of `bound`.
    fn merge(&mut self, mut block: Block, bound: Block) {
        while block.len > bound.len && self.remove(block.sibling()) {
            block = block.with_len(block.len - 1);
        }
        self.insert(block);
    }
}

/// A part of a network, in two halves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Part {
    halves: [Half; 2],
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Half {
    bounds: Vec<Block>,
    free: Free,
}

impl Part {
    /// All free. A single address has a lower half only.
    pub(super) fn new(blocks: &[Block], width: u8) -> Self {
        let mut halves: [Half; 2] = Default::default();
        for block in blocks {
            let split = match block.len < width {
                true => block.halves().to_vec(),
                false => vec![*block],
            };
            for (half, bound) in halves.iter_mut().zip(split) {
                half.bounds.push(bound);
                half.free.insert(bound);
            }
        }
        Part { halves }
    }

    pub(super) fn give(&mut self, halves: &[usize], len: u8) -> Option<Block> {
        halves.iter().find_map(|&at| {
            let free = &mut self.halves.get_mut(at)?.free;
            let outer = free.fit(len)?;
            let given = Block {
                bits: outer.bits,
                len,
            };
            free.split(outer, given);
            Some(given)
        })
    }

    /// Takes a block out that is free as a whole, where it is in this part.
    pub(super) fn carve(&mut self, block: Block) {
        for half in &mut self.halves {
            match half.free.around(block) {
                Some(outer) => half.free.split(outer, block),
                None => half.free.remove_within(block),
            }
        }
    }

    /// Puts back of a block what is in this part.
    pub(super) fn put_back(&mut self, block: Block) {
        for half in &mut self.halves {
            for bound in &half.bounds {
                if bound.covers(block) {
                    half.free.merge(block, *bound);
                } else if block.covers(*bound) {
                    half.free.merge(*bound, *bound);
                }
            }
        }
    }
}
