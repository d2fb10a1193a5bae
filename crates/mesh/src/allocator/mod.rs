//! Which prefixes of a network are free: a tree of halves, in which no address is ever given twice.
//!
//! Communities have parts of the network of their own; what is in none of them is for everybody. Each part is halved, so that two registries
//! which can't hear of each other give out different ones ([`Share`]). What is free follows from what is taken alone: an allocator that is
//! told all that was given out is the same as the one that gave it.

mod space;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use hextet_types::Prefix;
use thiserror::Error;

use crate::label::Label;
use space::{Block, Part};

/// Communities of one network.
pub const MAX_COMMUNITIES: usize = 1_024;

/// Which half of each part an allocator gives from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Share {
    /// Both; the lower first.
    Whole,
    /// The lower alone.
    Lower,
    /// The upper alone.
    Upper,
}

impl Share {
    const fn halves(self) -> &'static [usize] {
        match self {
            Share::Whole => &[0, 1],
            Share::Lower => &[0],
            Share::Upper => &[1],
        }
    }
}

/// What can't be done.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum AllocatorError {
    /// Communities overlap, leave the network, or are too many.
    #[error("communities: {0}")]
    Communities(String),
    /// A length outside of the network's.
    #[error("a prefix of {network} can't have {len} bits")]
    Length {
        /// Whose.
        network: Prefix,
        /// What was asked for.
        len: u8,
    },
    /// Nothing of this length is left.
    #[error("no prefix of {len} bits is left in {network} for {communities:?}")]
    Exhausted {
        /// Where.
        network: Prefix,
        /// What was asked for.
        len: u8,
        /// For whom.
        communities: Vec<Label>,
    },
    /// It is not in the network.
    #[error("{0} is not in the network")]
    Outside(Prefix),
    /// Somebody has it, or a part of it, or all around it.
    #[error("{asked} is taken: {by}")]
    Taken {
        /// What was asked for.
        asked: Prefix,
        /// What was given out before.
        by: Prefix,
    },
    /// Nobody has it.
    #[error("{0} was not given out")]
    Free(Prefix),
}

/// The allocator, of either family.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Allocator {
    network: Prefix,
    communities: BTreeMap<Label, Part>,
    others: Part,
    taken: BTreeMap<u128, u8>,
    share: Share,
}

impl Allocator {
    /// Everything is free.
    ///
    /// # Errors
    ///
    /// [`AllocatorError::Communities`].
    pub fn new(
        network: Prefix,
        communities: &[(Label, Prefix)],
        share: Share,
    ) -> Result<Self, AllocatorError> {
        check_communities(network, communities)?;
        let inner: Vec<Block> = communities.iter().map(|(_, p)| Block::of(*p)).collect();
        let width = network.family().bits();
        let others = Block::of(network).without(&inner);
        Ok(Allocator {
            network,
            communities: communities
                .iter()
                .map(|(label, prefix)| (label.clone(), Part::new(&[Block::of(*prefix)], width)))
                .collect(),
            others: Part::new(&others, width),
            taken: BTreeMap::new(),
            share,
        })
    }

    /// The network.
    pub fn network(&self) -> Prefix {
        self.network
    }

    /// Which half it gives from; to be changed when a second registry comes or goes.
    pub fn set_share(&mut self, share: Share) {
        self.share = share;
    }

    /// What was given out, by address.
    pub fn taken(&self) -> impl Iterator<Item = Prefix> {
        let family = self.network.family();
        let block = move |(&bits, &len): (&u128, &u8)| Block { bits, len }.prefix(family);
        self.taken.iter().filter_map(block)
    }

    /// Gives out a prefix: of the first of these communities that has one left, else of what belongs to none. The smallest gap that does,
    /// and in it the lowest.
    ///
    /// # Errors
    ///
    /// [`AllocatorError::Length`], [`AllocatorError::Exhausted`].
    pub fn allocate(&mut self, communities: &[Label], len: u8) -> Result<Prefix, AllocatorError> {
        let network = self.network;
        if len <= network.len() || len > network.family().bits() {
            return Err(AllocatorError::Length { network, len });
        }
        let halves = self.share.halves();
        let found = communities
            .iter()
            .find_map(|label| self.communities.get_mut(label)?.give(halves, len))
            .or_else(|| self.others.give(halves, len));
        let given = found.and_then(|block| Some((block, block.prefix(network.family())?)));
        let Some((block, prefix)) = given else {
            let communities = communities.to_vec();
            return Err(AllocatorError::Exhausted {
                network,
                len,
                communities,
            });
        };
        self.taken.insert(block.bits, block.len);
        Ok(prefix)
    }

    /// Is told of a prefix that was given out before, or by somebody else.
    ///
    /// # Errors
    ///
    /// [`AllocatorError::Outside`], [`AllocatorError::Taken`]: then nothing has changed.
    pub fn take(&mut self, prefix: Prefix) -> Result<(), AllocatorError> {
        if !self.network.covers(prefix) {
            return Err(AllocatorError::Outside(prefix));
        }
        let block = Block::of(prefix);
        if let Some(by) = self.holder(block) {
            return Err(AllocatorError::Taken { asked: prefix, by });
        }
        for part in self.parts() {
            part.carve(block);
        }
        self.taken.insert(block.bits, block.len);
        Ok(())
    }

    /// Takes a prefix back.
    ///
    /// # Errors
    ///
    /// [`AllocatorError::Free`].
    pub fn release(&mut self, prefix: Prefix) -> Result<(), AllocatorError> {
        let block = Block::of(prefix);
        let held = self.network.covers(prefix) && self.taken.get(&block.bits) == Some(&block.len);
        if !held {
            return Err(AllocatorError::Free(prefix));
        }
        self.taken.remove(&block.bits);
        for part in self.parts() {
            part.put_back(block);
        }
        Ok(())
    }

    fn parts(&mut self) -> impl Iterator<Item = &mut Part> {
        self.communities
            .values_mut()
            .chain(std::iter::once(&mut self.others))
    }

    /// What was given out and shares an address with this.
    fn holder(&self, block: Block) -> Option<Prefix> {
        let family = self.network.family();
        let below = self.taken.range(..=block.bits).next_back();
        let within = self.taken.range(block.bits..=block.last()).next();
        [below, within]
            .into_iter()
            .flatten()
            .map(|(&bits, &len)| Block { bits, len })
            .find(|held| held.covers(block) || block.covers(*held))
            .and_then(|held| held.prefix(family))
    }
}

fn check_communities(
    network: Prefix,
    communities: &[(Label, Prefix)],
) -> Result<(), AllocatorError> {
    let bad = |why: String| Err(AllocatorError::Communities(why));
    if communities.len() > MAX_COMMUNITIES {
        return bad(format!("there are more than {MAX_COMMUNITIES}"));
    }
    let mut sorted: Vec<_> = communities.iter().collect();
    sorted.sort_by_key(|(_, prefix)| *prefix);
    for (at, (label, prefix)) in sorted.iter().enumerate() {
        if !network.covers(*prefix) || *prefix == network {
            return bad(format!("{label} ({prefix}) is no part of {network}"));
        }
        if let Some((other, its)) = sorted.get(at + 1)
            && its.overlaps(*prefix)
        {
            return bad(format!("{label} ({prefix}) and {other} ({its}) overlap"));
        }
    }
    sorted.sort_by_key(|(label, _)| label);
    match sorted
        .windows(2)
        .find(|w| matches!(w, [a, b] if a.0 == b.0))
    {
        Some([(label, _), ..]) => bad(format!("{label} is named twice")),
        _ => Ok(()),
    }
}
