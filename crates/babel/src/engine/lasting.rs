//! Nodes whose forwarding outlives their program.
//!
//! A neighbour that has promised so and says nothing more is *stale*: what it told is gone by as it is, until its link is dead by other
//! signs (traffic without an answer), or it has begun anew and told all again. That is only for links between two, where traffic can be watched.
//!
//! A node that resumes has forgotten what it told, and its neighbours go by it. Whatever is of the version that it hears in the
//! beginning may therefore lead back to itself: it takes only what is newer, and asks each origin for that. Meanwhile it retracts nothing.

use std::{collections::BTreeSet, time::Duration};

use hextet_types::Time;

use super::{Due, Engine};
use crate::{
    config::Start,
    neighbour::Peer,
    number::{Metric, RouterId},
    packet::Destination,
    source::Distance,
};

/// A neighbour may be silent for so long.
const LASTS: Duration = Duration::from_secs(3_600);
/// One that speaks again hears us, too, within three Hellos and this time.
const RECOVERY: Duration = Duration::from_secs(3);
/// What one that has begun anew has not told again by then is asked for: longer than it may take to resume.
const RETOLD: Duration = Duration::from_secs(30);
/// So long a node hears what there is before it asks for newer …
const LISTEN: Duration = Duration::from_secs(3);
/// … and so long it may take until that has come.
const SETTLE: Duration = Duration::from_secs(20);
/// What is heard then has a bound: so many origins for each destination that there may be.
const ORIGINS: usize = 4;

/// How far a start has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// It is to be resumed, when there is a link.
    Resumes,
    /// Nothing is asked for yet.
    Listens,
    /// Newer versions are being asked for.
    Settles,
    /// All is told that there is.
    Done,
}

impl Stage {
    pub fn of(start: Option<Start>) -> Stage {
        match start {
            Some(Start::Resumed) => Stage::Resumes,
            _ => Stage::Done,
        }
    }
}

impl Engine {
    /// Whether routes of an earlier run, if they have not been replaced, are to stay as they are ([`Start::Resumed`]).
    pub fn is_resuming(&self) -> bool {
        self.stage != Stage::Done
    }

    /// Those from whom a sign of life is wanted that needs no program, since the last call: an ICMPv6 echo to each brings one. What comes
    /// back is told by [`Event::Traffic`](super::Event::Traffic).
    pub fn pings(&mut self) -> BTreeSet<Peer> {
        std::mem::take(&mut self.pings)
    }

    pub(super) fn is_listening(&self) -> bool {
        matches!(self.stage, Stage::Resumes | Stage::Listens)
    }

    /// There is a link: if a start is to be resumed, it is now.
    pub(super) fn resume(&mut self, now: Time) {
        if self.stage == Stage::Resumes {
            self.stage = Stage::Listens;
            self.timers.set(Due::Stage, now + LISTEN);
        }
    }

    pub(super) fn next_stage(&mut self, now: Time) {
        self.stage = match self.stage {
            Stage::Listens => {
                self.timers.set(Due::Stage, now + SETTLE);
                Stage::Settles
            }
            _ => Stage::Done,
        };
        if self.stage == Stage::Settles {
            let all: Vec<Destination> = self.table.keys().copied().collect();
            for to in all {
                self.choose(to, now);
            }
        }
    }

    /// While a start is resumed, what is heard for the first time may lead back here: whether there is room to remember that.
    pub(super) fn suspect(
        &mut self,
        to: Destination,
        origin: RouterId,
        distance: Distance,
        now: Time,
    ) -> bool {
        let is_suspect = match self.stage {
            Stage::Done => false,
            Stage::Settles => self.sources.told(to, origin).is_none(),
            Stage::Resumes | Stage::Listens => true,
        };
        if !is_suspect {
            return true;
        }
        let has_room = self.sources.len() < self.config.destinations.saturating_mul(ORIGINS);
        if has_room {
            let here = Distance {
                metric: Metric::ZERO,
                ..distance
            };
            let until = self.told_until(now);
            self.sources.tell(to, origin, here, until);
        }
        has_room
    }

    /// A neighbour says whether it lasts, and how it has started.
    pub(super) fn promised(&mut self, peer: Peer, start: Option<Start>, now: Time) {
        let Some(neighbour) = self.neighbours.get_mut(&peer) else {
            return;
        };
        neighbour.lasting = start.is_some();
        let kept = std::mem::take(&mut neighbour.kept);
        if start != Some(Start::Resumed) {
            for to in kept {
                self.remove_route(to, peer, now);
            }
        }
    }

    /// A neighbour that lasts has begun anew.
    pub(super) fn begins_anew(&mut self, peer: Peer, now: Time) {
        let Some(neighbour) = self.neighbours.get_mut(&peer) else {
            return;
        };
        neighbour.begins_anew();
        for to in neighbour.kept.clone() {
            self.timers.set(Due::Route(to, peer), now + RETOLD);
        }
        self.dumped.remove(&peer);
        self.greet(peer.link, now);
        self.weigh(peer, now);
        self.hears_stale(peer, now);
    }

    /// A stale neighbour speaks: it has little time now.
    pub(super) fn hears_stale(&mut self, peer: Peer, now: Time) {
        let running = self.links.get(&peer.link);
        let hellos = running.map(|running| running.link.hello.duration() * 3);
        if self.is_stale(peer) {
            let recovery = hellos.unwrap_or_default() + RECOVERY;
            self.timers.hasten(Due::Stale(peer), now + recovery);
        }
    }

    /// A neighbour was weighed: it may have become stale by that, or be so no more.
    pub(super) fn notes_stale(&mut self, peer: Peer, was_stale: bool, now: Time) {
        match (was_stale, self.is_stale(peer)) {
            (false, true) => self.timers.set(Due::Stale(peer), now + LASTS),
            (true, false) => {
                self.timers.cancel(Due::Stale(peer));
                if !self.cost(peer).is_infinite() {
                    self.ask_everything(peer, now);
                }
            }
            _ => {}
        }
    }

    /// A stale neighbour is silent again.
    pub(super) fn is_silent_again(&mut self, peer: Peer, now: Time) {
        self.timers.set(Due::Stale(peer), now + LASTS);
    }

    /// It has been stale for too long.
    pub(super) fn is_too_stale(&mut self, peer: Peer, now: Time) {
        if let Some(neighbour) = self.neighbours.get_mut(&peer) {
            neighbour.is_lost();
        }
        self.weigh(peer, now);
        self.neighbour_gone(peer, now);
    }

    pub(super) fn is_stale(&self, peer: Peer) -> bool {
        let neighbour = self.neighbours.get(&peer);
        neighbour.is_some_and(|neighbour| neighbour.is_stale())
    }

    /// Whether a neighbour's promise to last counts: somebody would see that its link is dead.
    pub(super) fn may_last(&self, peer: Peer) -> bool {
        let is_watched = (self.links.get(&peer.link)).is_some_and(|link| link.is_watched);
        is_watched && self.only_peer(peer.link) == Some(peer)
    }

    /// What stale neighbours were told counts for as long as they are.
    pub(super) fn forget_sources(&mut self, now: Time) {
        let is_needed = self
            .neighbours
            .values()
            .any(|neighbour| neighbour.is_stale());
        let is_full = self.sources.len() >= self.config.destinations.saturating_mul(ORIGINS);
        if !is_needed || is_full {
            self.sources.forget(now);
        }
    }
}
