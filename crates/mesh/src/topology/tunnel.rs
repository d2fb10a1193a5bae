//! A tunnel as the choice sees it.

use std::time::Duration;

use hextet_types::Time;

use super::{
    candidate::RoundTrips,
    event::{Kind, Node, Reach},
    gain::Distances,
    reason::Reason,
};

/// How far a tunnel is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Agreed upon, coming up.
    Opening,
    /// Carries packets.
    Up,
    /// Routes leave it; then it closes.
    Draining,
}

#[derive(Clone, Debug)]
pub(super) struct Tunnel {
    pub(super) kind: Kind,
    /// Whether this side asked for it, and so decides when it closes.
    pub(super) ours: bool,
    pub(super) reach: Reach,
    pub(super) stage: Stage,
    /// Of the stage.
    pub(super) since: Time,
    /// When it came up, or was last found to be needed: it is left alone for a while from here.
    pub(super) settled: Time,
    pub(super) round_trips: RoundTrips,
    pub(super) distances: Distances,
    pub(super) reason: Reason,
    /// Drains when this one is up.
    pub(super) replaces: Option<Node>,
    /// How many routes leave by it, when that was last said.
    pub(super) routes: Option<usize>,
    /// Of the wish that it came from.
    pub(super) nonce: u32,
}

impl Tunnel {
    pub(super) fn new(kind: Kind, ours: bool, reach: Reach, nonce: u32, reason: Reason) -> Self {
        Tunnel {
            kind,
            ours,
            reach,
            stage: Stage::Opening,
            since: Time::ZERO,
            settled: Time::ZERO,
            round_trips: RoundTrips::default(),
            distances: Distances::new(),
            reason,
            replaces: None,
            routes: None,
            nonce,
        }
    }

    pub(super) fn enter(&mut self, stage: Stage, now: Time) {
        (self.stage, self.since) = (stage, now);
    }

    pub(super) fn is_up(&self) -> bool {
        self.stage == Stage::Up
    }

    pub(super) fn is_entry(&self) -> bool {
        self.kind == Kind::Entry
    }

    pub(super) fn is_random(&self) -> bool {
        self.kind == Kind::Random
    }

    /// Whether it was made for latency.
    pub(super) fn is_chosen(&self) -> bool {
        matches!(self.kind, Kind::Near | Kind::Gain)
    }
}

/// A tunnel, for operators.
#[derive(Clone, Debug, PartialEq)]
pub struct Peer {
    /// The other end.
    pub node: Node,
    /// What it is for.
    pub kind: Kind,
    /// Whether this side asked for it.
    pub ours: bool,
    /// How far it is.
    pub stage: Stage,
    /// Since when.
    pub since: Time,
    /// The least of the last round trips, when it was measured often enough.
    pub round_trip: Option<Duration>,
    /// Why it is there, or why it is about to close.
    pub reason: Reason,
}
