//! The destinations by which tunnels are judged: some where traffic goes, the rest by chance.
//!
//! A few of those by chance are replaced in each round, so that figures from one round to the next are comparable and nothing is left out for long.

use std::collections::BTreeMap;

use super::{event::Node, random::Random};

/// Destinations whose traffic is counted at most.
pub const MAX_COUNTED: usize = 1024;

/// Of the sample, at most this part is chosen by traffic: one in four.
const BY_TRAFFIC: usize = 4;

/// Replaced in a round.
const RENEWED: usize = 2;

#[derive(Clone, Debug, Default)]
pub(super) struct Sample {
    by_chance: Vec<Node>,
    octets: BTreeMap<Node, u64>,
}

impl Sample {
    /// Counts octets. When the table is full the destination with the fewest gives way.
    pub(super) fn count(&mut self, destination: Node, octets: u64) {
        if !self.octets.contains_key(&destination) && self.octets.len() >= MAX_COUNTED {
            let least = self.octets.iter().min_by_key(|(_, octets)| **octets);
            let Some((least, fewest)) = least.map(|(node, octets)| (*node, *octets)) else {
                return;
            };
            if fewest >= octets {
                return;
            }
            self.octets.remove(&least);
        }
        let counted = self.octets.entry(destination).or_default();
        *counted = counted.saturating_add(octets);
    }

    #[cfg(test)]
    pub(super) fn counted(&self) -> usize {
        self.octets.len()
    }

    /// Lets old traffic fade and replaces some destinations by others out of those that are known.
    pub(super) fn renew(&mut self, known: &[Node], size: usize, random: &mut Random) {
        self.octets.retain(|_, octets| {
            *octets -= octets.div_ceil(8);
            *octets > 0
        });
        self.by_chance.retain(|node| known.contains(node));
        for _ in 0..RENEWED {
            if self.by_chance.len() >= size {
                let at = random.below(self.by_chance.len());
                self.by_chance.swap_remove(at);
            }
        }
        let mut others: Vec<Node> = known
            .iter()
            .filter(|node| !self.by_chance.contains(node))
            .copied()
            .collect();
        random.shuffle(&mut others);
        let room = size.saturating_sub(self.by_chance.len());
        self.by_chance.extend(others.into_iter().take(room));
    }

    /// Destinations and weights, at most `size`. Traffic weighs as much as all chance together.
    pub(super) fn destinations(&self, size: usize) -> Vec<(Node, f64)> {
        let mut busy: Vec<(Node, u64)> = self.octets.iter().map(|(n, o)| (*n, *o)).collect();
        busy.sort_by_key(|(node, octets)| (std::cmp::Reverse(*octets), *node));
        busy.truncate(size / BY_TRAFFIC);
        let total: u64 = busy.iter().fold(0, |sum, (_, o)| sum.saturating_add(*o));
        let mut weights: BTreeMap<Node, f64> = self
            .by_chance
            .iter()
            .take(size - busy.len())
            .map(|node| (*node, 1.0))
            .collect();
        let chance = weights.len().max(1) as f64;
        for (node, octets) in busy {
            *weights.entry(node).or_default() += chance * octets as f64 / total.max(1) as f64;
        }
        weights.into_iter().collect()
    }
}
