//! Whether anything comes through a link, as its traffic shows it: long before a Hello could be missed.
//!
//! Whoever holds a tunnel knows when something was sent into it and when something came out. What is sent is answered sooner or
//! later, and be it by a probe: a request for an acknowledgment, which every implementation answers. A link on which nothing was sent is not
//! probed, so that silence costs nothing. Of many neighbours on a link one can't be told from another by this: only links between two
//! are watched.

use std::time::Duration;

use hextet_types::Time;

use super::{Due, Engine};
use crate::{config::LinkId, neighbour::Peer, number::Interval, packet::Tlv};

/// What is sent is not missed sooner …
const PATIENCE: Duration = Duration::from_millis(100);
/// … and nothing is dead sooner …
const LEAST: Duration = Duration::from_millis(300);
/// … nor within so many round trips.
const ROUND_TRIPS: u32 = 3;

/// What is known of a link's traffic.
#[derive(Clone, Copy, Debug, Default)]
pub struct Traffic {
    heard: Option<Time>,
    /// When something was sent that nothing has come after.
    since: Option<Time>,
}

impl Engine {
    /// Something was sent over a link, and something came, when last.
    pub(super) fn traffic(
        &mut self,
        id: LinkId,
        (sent, heard): (Option<Time>, Option<Time>),
        now: Time,
    ) {
        if let Some(running) = self.links.get_mut(&id) {
            running.is_watched = true;
        }
        self.hears_lost(id, heard, now);
        // Who is no neighbour yet, or none any more, can't be lost.
        let peer = (self.only_peer(id)).filter(|peer| !self.cost(*peer).is_infinite());
        let Some(patience) = peer.map(|peer| self.patience(peer)) else {
            return;
        };
        let Some(running) = self.links.get_mut(&id) else {
            return;
        };
        let traffic = &mut running.traffic;
        if heard > traffic.heard {
            traffic.heard = heard;
            traffic.since = None;
            self.timers.cancel(Due::Probe(id));
        }
        let unanswered = sent.filter(|sent| Some(*sent) > traffic.heard);
        if let (Some(sent), None) = (unanswered, traffic.since) {
            traffic.since = Some(sent);
            self.timers.set(Due::Probe(id), (sent + patience).max(now));
        }
    }

    /// It has so long to answer as one that is nearly lost: an answer must be able to come in time.
    pub(super) fn suspect_link(&mut self, id: LinkId, now: Time) {
        let peer = (self.only_peer(id)).filter(|peer| !self.cost(*peer).is_infinite());
        let Some(peer) = peer else { return };
        let rtt = self.neighbours.get(&peer).map(|neighbour| neighbour.rtt());
        let mean = rtt.and_then(|rtt| rtt.mean()).unwrap_or_default();
        let left = (mean * 2).max(PATIENCE);
        let waited = self.endurance(peer).saturating_sub(left);
        let since = now.saturating_since(Time::ZERO).saturating_sub(waited);
        if let Some(running) = self.links.get_mut(&id) {
            running.traffic.since = Some(Time::ZERO + since);
            self.timers.set(Due::Probe(id), now);
        }
    }

    /// Something has waited for an answer for too long: it is asked for one, or is taken for dead.
    pub(super) fn probe(&mut self, id: LinkId, now: Time) {
        let since = self
            .links
            .get(&id)
            .and_then(|running| running.traffic.since);
        let (Some(since), Some(peer)) = (since, self.only_peer(id)) else {
            return;
        };
        let end = since + self.endurance(peer);
        if now >= end {
            if let Some(running) = self.links.get_mut(&id) {
                running.traffic = Traffic::default();
            }
            self.link_dead(id, now);
            return;
        }
        self.opaque = self.opaque.wrapping_add(1);
        let request = Tlv::AckRequest {
            opaque: self.opaque,
            interval: Interval(1),
            start: self.config.lasting,
        };
        self.say(peer, request, now);
        if self
            .neighbours
            .get(&peer)
            .is_some_and(|neighbour| neighbour.lasting)
        {
            self.pings.insert(peer);
        }
        // An answer to the last one must be able to come in time.
        let again = (now + self.patience(peer) / 2).min(end);
        self.timers.set(Due::Probe(id), again);
    }

    /// A packet of Babel is traffic, too.
    pub(super) fn heard_on(&mut self, id: LinkId, now: Time) {
        if let Some(running) = self.links.get_mut(&id) {
            running.traffic.heard = Some(now);
            running.traffic.since = None;
            self.timers.cancel(Due::Probe(id));
        }
    }

    pub(super) fn only_peer(&self, id: LinkId) -> Option<Peer> {
        match self.peers_on(id)[..] {
            [peer] => Some(peer),
            _ => None,
        }
    }

    fn patience(&self, peer: Peer) -> Duration {
        let rtt = self.neighbours.get(&peer).map(|neighbour| neighbour.rtt());
        let usual = rtt.and_then(|rtt| rtt.patience()).unwrap_or_default();
        // The first probe must be able to be answered in time.
        let mean = rtt.and_then(|rtt| rtt.mean()).unwrap_or_default();
        let latest = self.endurance(peer).saturating_sub(mean * 2);
        usual.max(PATIENCE).min(latest)
    }

    fn endurance(&self, peer: Peer) -> Duration {
        let rtt = self.neighbours.get(&peer).map(|neighbour| neighbour.rtt());
        let mean = rtt.and_then(|rtt| rtt.mean()).unwrap_or_default();
        (mean * ROUND_TRIPS).max(LEAST)
    }
}
