//! How much a tunnel shortens the paths to a sample of destinations.
//!
//! Distances are what nodes say of themselves: a path from here by a node costs the round trip to it and its own distance. A node that goes through here can't look
//! shorter than it is: its distance contains the round trip back.

use std::{collections::BTreeMap, fmt, time::Duration};

use super::{event::Node, reason::Millis};

/// Distances to destinations by round trip.
pub(super) type Distances = BTreeMap<Node, Duration>;

/// What a tunnel shortens, or what paths lose without it; weighted means over all destinations of a sample.
#[derive(Clone, Copy, Debug, Default, PartialEq, PartialOrd)]
pub struct Gain {
    /// The part of the round trip that is saved, 0 to 1.
    pub share: f64,
    /// What is saved.
    pub saved: Duration,
}

impl Gain {
    /// Whether this is more than the other by that part of paths' lengths, or by that time.
    pub(super) fn is_worth(self, other: Gain, share: f64, saved: Duration) -> bool {
        self.share > other.share + share || self.saved > other.saved + saved
    }
}

impl fmt::Display for Gain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.1} % or {}", self.share * 100.0, Millis(self.saved))
    }
}

/// Distances from here, when the mesh is entered by these: round trip, and what the node says.
pub(super) fn nearest<'a>(
    by: impl Iterator<Item = (Node, Duration, &'a Distances)>,
    destinations: &[(Node, f64)],
) -> Distances {
    let mut distances = Distances::new();
    for (node, round_trip, told) in by {
        for (destination, _) in destinations {
            if let Some(distance) = through(node, round_trip, told, *destination) {
                distances
                    .entry(*destination)
                    .and_modify(|least| *least = distance.min(*least))
                    .or_insert(distance);
            }
        }
    }
    distances
}

/// What one more tunnel shortens. Destinations that can't be reached without it don't count.
pub(super) fn of(
    node: Node,
    round_trip: Duration,
    told: &Distances,
    now: &Distances,
    destinations: &[(Node, f64)],
) -> Gain {
    mean(destinations.iter().filter_map(|(destination, weight)| {
        let old = *now.get(destination)?;
        let new = through(node, round_trip, told, *destination).unwrap_or(old);
        Some((old, new.min(old), *weight))
    }))
}

/// What paths lose when distances become those; what becomes unreachable counts as twice as far.
pub(super) fn lost(now: &Distances, without: &Distances, destinations: &[(Node, f64)]) -> Gain {
    mean(destinations.iter().filter_map(|(destination, weight)| {
        let new = *now.get(destination)?;
        let old = without
            .get(destination)
            .copied()
            .unwrap_or(new.saturating_mul(2));
        Some((old, new, *weight))
    }))
}

fn through(
    node: Node,
    round_trip: Duration,
    told: &Distances,
    destination: Node,
) -> Option<Duration> {
    if node == destination {
        return Some(round_trip);
    }
    Some(round_trip.saturating_add(*told.get(&destination)?))
}

fn mean(items: impl Iterator<Item = (Duration, Duration, f64)>) -> Gain {
    let (mut share, mut saved, mut weights) = (0.0, 0.0, 0.0);
    for (old, new, weight) in items {
        let (old, new) = (old.as_secs_f64(), new.as_secs_f64());
        weights += weight;
        if old > new {
            share += weight * (old - new) / old;
            saved += weight * (old - new);
        }
    }
    if weights <= 0.0 {
        return Gain::default();
    }
    Gain {
        share: share / weights,
        saved: Duration::try_from_secs_f64(saved / weights).unwrap_or_default(),
    }
}
