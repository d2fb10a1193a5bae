//! Neighbours whose link was taken for dead because its traffic got no answer, though their Hellos had not failed.
//!
//! They are asked on, ever more seldom, and taken again as they were with the first sign of life: otherwise a link that was still for a moment
//! would be of no use until two more Hellos have come.

use std::time::Duration;

use hextet_types::Time;

use super::{Due, Engine, hear::PATIENCE};
use crate::{
    config::LinkId,
    neighbour::{Neighbour, Peer},
    number::Interval,
    packet::Tlv,
};

/// Until the first question.
const FIRST: Duration = Duration::from_millis(100);
/// So long one is remembered.
const REMEMBERED: Duration = Duration::from_secs(60);

/// A neighbour as it was.
#[derive(Clone, Debug)]
pub struct Lost {
    peer: Peer,
    neighbour: Neighbour,
    since: Time,
    pause: Duration,
}

impl Engine {
    /// Remembers the only neighbour on a link, which is taken for dead.
    pub(super) fn lose(&mut self, id: LinkId, now: Time) {
        let Some(peer) = self.only_peer(id) else {
            return;
        };
        let known = self.neighbours.get(&peer);
        let Some(neighbour) = known.filter(|known| known.is_heard()) else {
            return;
        };
        let lost = Lost {
            peer,
            neighbour: neighbour.as_it_was(),
            since: now,
            pause: FIRST,
        };
        self.lost.insert(id, lost);
        self.timers.set(Due::Ask(id), now + FIRST);
    }

    pub(super) fn forget_lost(&mut self, id: LinkId) {
        self.lost.remove(&id);
        self.timers.cancel(Due::Ask(id));
    }

    /// Is it there?
    pub(super) fn ask_lost(&mut self, id: LinkId, now: Time) {
        let hello = self.links.get(&id).map(|running| running.link.hello);
        let (Some(hello), Some(lost)) = (hello, self.lost.get_mut(&id)) else {
            return;
        };
        if now.saturating_since(lost.since) >= REMEMBERED {
            self.lost.remove(&id);
            return;
        }
        let (peer, lasts) = (lost.peer, lost.neighbour.lasting);
        lost.pause = (lost.pause * 2).min(hello.duration().max(FIRST));
        self.timers.set(Due::Ask(id), now + lost.pause);
        self.opaque = self.opaque.wrapping_add(1);
        let request = Tlv::AckRequest {
            opaque: self.opaque,
            interval: Interval(1),
            start: self.config.lasting,
        };
        self.say(peer, request, now);
        if lasts {
            self.pings.insert(peer);
        }
    }

    /// Something has come from it, by the link's traffic.
    pub(super) fn hears_lost(&mut self, id: LinkId, heard: Option<Time>, now: Time) {
        let lost = self.lost.get(&id);
        let peer = lost.filter(|lost| heard > Some(lost.since));
        if let Some(peer) = peer.map(|lost| lost.peer) {
            self.found_again(peer, now);
        }
    }

    /// A word of it has come.
    pub(super) fn found_again(&mut self, peer: Peer, now: Time) {
        let is_it = |lost: &&Lost| lost.peer == peer;
        let Some(lost) = self.lost.get(&peer.link).filter(is_it).cloned() else {
            return;
        };
        self.forget_lost(peer.link);
        let has_room = self.peers_on(peer.link).len() < self.config.neighbours;
        if self.neighbours.contains_key(&peer) || !has_room {
            return;
        }
        self.neighbours.insert(peer, lost.neighbour);
        self.timers.set(Due::HeardUs(peer), now + PATIENCE);
        self.hello_soon(peer.link, now);
        self.miss(peer, now);
    }
}
