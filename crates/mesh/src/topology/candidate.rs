//! Nodes that might become a tunnel's other end, and what is known of them.
//!
//! What always holds: at most [`MAX_CANDIDATES`]; a node that did not answer is left alone for a while, each time for longer.

use std::{collections::BTreeMap, time::Duration};

use hextet_types::Time;

use super::{
    event::{Node, Reach},
    gain::Distances,
    random::Random,
};

/// Nodes that are remembered.
pub const MAX_CANDIDATES: usize = 256;

/// Round trips that are remembered of a node; the least of them counts.
const WINDOW: usize = 8;

/// Fewer say nothing.
pub(super) const SAMPLES: usize = 3;

/// How long a node that did not answer is left alone at first, and at most.
const PATIENCE: Duration = Duration::from_secs(30);
const MAX_DOUBLINGS: u32 = 6;

/// The last round trips.
#[derive(Clone, Debug, Default)]
pub(super) struct RoundTrips {
    last: [Duration; WINDOW],
    count: usize,
}

impl RoundTrips {
    pub(super) fn push(&mut self, round_trip: Duration) {
        let at = self.count % WINDOW;
        if let Some(slot) = self.last.get_mut(at) {
            *slot = round_trip;
        }
        self.count = self.count.wrapping_add(1).max(1);
    }

    /// How many there were ever.
    pub(super) fn count(&self) -> usize {
        self.count
    }

    /// The least of the last, when there are enough to believe it.
    pub(super) fn least(&self) -> Option<Duration> {
        if self.count < SAMPLES {
            return None;
        }
        self.last.iter().take(self.count).min().copied()
    }
}

#[derive(Clone, Debug)]
pub(super) struct Candidate {
    pub(super) reach: Reach,
    pub(super) routed: bool,
    pub(super) round_trips: RoundTrips,
    /// Probes of this round that were answered.
    pub(super) fresh: usize,
    /// What it told in this round.
    pub(super) distances: Option<Distances>,
    /// Since when it would be worth a tunnel.
    pub(super) gainful: Option<Time>,
    /// Since when it is nearer than all tunnels' ends.
    pub(super) nearer: Option<Time>,
    /// A node that is near to us has named it.
    pub(super) hinted: bool,
    failures: u32,
    not_before: Time,
}

impl Candidate {
    fn new(reach: Reach, routed: bool) -> Self {
        Candidate {
            reach,
            routed,
            round_trips: RoundTrips::default(),
            fresh: 0,
            distances: None,
            gainful: None,
            nearer: None,
            hinted: false,
            failures: 0,
            not_before: Time::ZERO,
        }
    }

    pub(super) fn may_be_tried(&self, now: Time) -> bool {
        self.not_before <= now
    }

    pub(super) fn failed(&mut self, now: Time) {
        self.not_before = now + PATIENCE * 2u32.pow(self.failures.min(MAX_DOUBLINGS));
        self.failures = self.failures.saturating_add(1);
        (self.gainful, self.nearer) = (None, None);
    }

    pub(super) fn answered(&mut self) {
        (self.failures, self.not_before) = (0, Time::ZERO);
    }

    fn is_promising(&self) -> bool {
        self.gainful.is_some() || self.nearer.is_some() || self.hinted
    }
}

#[derive(Clone, Debug, Default)]
pub(super) struct Candidates(BTreeMap<Node, Candidate>);

impl Candidates {
    /// Remembers a node; one of the others gives way when there are too many: one that failed often, else any.
    pub(super) fn learn(&mut self, node: Node, reach: Reach, routed: bool, random: &mut Random) {
        if let Some(known) = self.0.get_mut(&node) {
            (known.reach, known.routed) = (reach, routed);
            return;
        }
        if self.0.len() >= MAX_CANDIDATES {
            let Some(out) = self.least_wanted(random) else {
                return;
            };
            self.0.remove(&out);
        }
        self.0.insert(node, Candidate::new(reach, routed));
    }

    fn least_wanted(&self, random: &mut Random) -> Option<Node> {
        let most = self.0.values().map(|known| known.failures).max()?;
        let out: Vec<Node> = self
            .0
            .iter()
            .filter(|(_, known)| known.failures == most && (most > 0 || !known.is_promising()))
            .map(|(node, _)| *node)
            .collect();
        random.pick(&out)
    }

    pub(super) fn get(&self, node: Node) -> Option<&Candidate> {
        self.0.get(&node)
    }

    pub(super) fn get_mut(&mut self, node: Node) -> Option<&mut Candidate> {
        self.0.get_mut(&node)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (Node, &Candidate)> {
        self.0.iter().map(|(node, known)| (*node, known))
    }
}
