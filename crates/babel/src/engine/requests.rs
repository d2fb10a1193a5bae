//! Asking and answering (RFC 8966 §3.8).
//!
//! When all routes that are left lead too near to where we have said to be ourselves, the origin is asked for a newer sequence number:
//! then they may be taken.

use std::{collections::BTreeSet, time::Duration};

use hextet_types::Time;

use super::{Due, Engine, send::Haste};
use crate::{
    neighbour::Peer,
    number::{Metric, RouterId, Seqno},
    packet::{Destination, Tlv},
    table::{Choice, Entry},
};

/// How far a request may go (RFC 8966 §3.8.2.1: 64).
const HOP_COUNT: u8 = 64;
/// Until a request is sent again, the first time.
const AGAIN: Duration = Duration::from_millis(200);
/// How often it is sent at most.
const TRIES: u32 = 6;
/// How long others' requests are remembered.
const REMEMBERED: Duration = Duration::from_secs(2);
/// How many may wait for one answer.
const ASKERS: usize = 16;
/// How many requests may be waited for.
const PENDING: usize = 10_000;
/// A node's own number grows no faster, whoever asks for it.
const OWN_PACE: Duration = Duration::from_millis(50);
/// A neighbour gets everything no more often.
const DUMP_PACE: Duration = Duration::from_millis(200);

/// A request that has no answer yet.
#[derive(Clone, Debug)]
pub struct Pending {
    seqno: Seqno,
    /// How often it was sent for our own sake; none, if for that of others only.
    tries: Option<u32>,
    /// Who else wants to know.
    pub askers: BTreeSet<Peer>,
}

impl Engine {
    /// All of it, from a neighbour who has just become one.
    pub(super) fn ask_everything(&mut self, peer: Peer, now: Time) {
        self.say_surely(peer, Tlv::RouteRequest(None), now);
    }

    pub(super) fn ask_for_route(&mut self, to: Destination, peer: Peer, now: Time) {
        self.say(peer, Tlv::RouteRequest(Some(to)), now);
    }

    pub(super) fn asked_for_route(&mut self, peer: Peer, to: Option<Destination>, now: Time) {
        if let Some(to) = to {
            self.announce_to(peer, to, Haste::Urgent, now);
            return;
        }
        let last = self.dumped.get(&peer);
        if last.is_some_and(|last| now.saturating_since(*last) < DUMP_PACE) {
            return;
        }
        self.dumped.insert(peer, now);
        let all: Vec<Destination> = self.table.keys().copied().collect();
        for to in all {
            self.announce_to(peer, to, Haste::Urgent, now);
        }
    }

    pub(super) fn asked_for_seqno(
        &mut self,
        peer: Peer,
        (to, router_id): (Destination, RouterId),
        seqno: Seqno,
        hop_count: u8,
        now: Time,
    ) {
        let Some(told) = self.told_of(to) else {
            self.hand_on(peer, (to, router_id), seqno, hop_count, now);
            return;
        };
        let is_newer_wanted = seqno.is_after(told.distance.seqno);
        if told.router_id != router_id || !is_newer_wanted {
            self.announce_to(peer, to, Haste::Urgent, now);
        } else if router_id == self.config.router_id {
            self.renew(now);
            self.announce(to, Haste::Urgent, now);
        } else {
            self.hand_on(peer, (to, router_id), seqno, hop_count, now);
        }
    }

    /// The own number grows, unless it has just done so.
    fn renew(&mut self, now: Time) {
        if now.saturating_since(self.seqno_since) >= OWN_PACE {
            self.seqno = self.seqno.plus(1);
            self.seqno_since = now;
        }
    }

    /// Somebody else's request goes to one neighbour who is nearer to the origin, never back (RFC 8966 §3.8.1.2).
    fn hand_on(
        &mut self,
        from: Peer,
        (to, router_id): (Destination, RouterId),
        seqno: Seqno,
        hop_count: u8,
        now: Time,
    ) {
        if !self.config.transit {
            return;
        }
        let Some(hop_count) = hop_count.checked_sub(1).filter(|left| *left > 0) else {
            return;
        };
        let Some(next) = self.nearer(to, router_id, from) else {
            return;
        };
        let key = (to, router_id);
        if !self.pending.contains_key(&key) && self.pending.len() >= PENDING {
            return;
        }
        let pending = self.pending.entry(key).or_insert(Pending {
            seqno: Seqno(seqno.0.wrapping_sub(1)),
            tries: None,
            askers: BTreeSet::new(),
        });
        if pending.askers.len() < ASKERS {
            pending.askers.insert(from);
        }
        if !seqno.is_after(pending.seqno) {
            return;
        }
        pending.seqno = seqno;
        self.timers
            .hasten(Due::Request(to, router_id), now + REMEMBERED);
        let request = Tlv::SeqnoRequest {
            to,
            seqno,
            hop_count,
            router_id,
        };
        self.say(next, request, now);
    }

    /// Whose route to that origin is best, but for one neighbour: the one that is gone by, if it can be.
    fn nearer(&self, to: Destination, router_id: RouterId, not: Peer) -> Option<Peer> {
        let entry = self.table.get(&to)?;
        let is_of =
            |peer: &Peer| (entry.routes.get(peer)).is_some_and(|r| r.router_id == router_id);
        if let Some(Choice::Via(peer)) = entry.choice
            && peer != not
            && is_of(&peer)
        {
            return Some(peer);
        }
        let cost = |peer: Peer| match is_of(&peer) {
            true => self.cost_to(peer, to),
            false => Metric::INFINITE,
        };
        entry.best_unfeasible(Some(not), cost).map(|(peer, _)| peer)
    }

    /// There is no way left: a newer number of whatever is nearest would help.
    pub(super) fn starve(&mut self, to: Destination, now: Time) {
        let cost = |peer| self.cost_to(peer, to);
        let best = (self.table.get(&to)).and_then(|entry| entry.best_unfeasible(None, cost));
        if let Some((peer, route)) = best {
            self.ask_newer(to, peer, route.router_id, now);
        }
    }

    /// The present way has become dearer: of those that may not be taken, one may be clearly better now.
    pub(super) fn seek_better(&mut self, to: Destination, now: Time) {
        let best = (self.table.get(&to)).and_then(|entry| {
            let not = match entry.choice? {
                Choice::Own => return None,
                Choice::Via(peer) => peer,
            };
            entry.best_unfeasible(Some(not), |peer| self.cost_to(peer, to))
        });
        if let Some((peer, route)) = best
            && self.is_better(to, peer, route)
        {
            self.ask_newer(to, peer, route.router_id, now);
        }
    }

    /// Asks one neighbour for what would be feasible, and goes on asking for a while.
    pub(super) fn ask_newer(
        &mut self,
        to: Destination,
        peer: Peer,
        router_id: RouterId,
        now: Time,
    ) {
        if self.is_listening() {
            return;
        }
        let Some(told) = self.sources.told(to, router_id) else {
            return;
        };
        let key = (to, router_id);
        if !self.pending.contains_key(&key) && self.pending.len() >= PENDING {
            return;
        }
        let pending = self.pending.entry(key).or_insert(Pending {
            seqno: told.seqno,
            tries: None,
            askers: BTreeSet::new(),
        });
        let seqno = told.seqno.plus(1);
        let is_asked = pending.tries.is_some() && !seqno.is_after(pending.seqno);
        if is_asked {
            return;
        }
        pending.tries = Some(1);
        if seqno.is_after(pending.seqno) {
            pending.seqno = seqno;
        }
        self.timers.set(Due::Request(to, router_id), now + AGAIN);
        self.send_request(to, peer, router_id, seqno, now);
    }

    fn send_request(
        &mut self,
        to: Destination,
        peer: Peer,
        router_id: RouterId,
        seqno: Seqno,
        now: Time,
    ) {
        let request = Tlv::SeqnoRequest {
            to,
            seqno,
            hop_count: HOP_COUNT,
            router_id,
        };
        self.say(peer, request, now);
    }

    pub(super) fn ask_again(&mut self, to: Destination, router_id: RouterId, now: Time) {
        let key = (to, router_id);
        let Some(pending) = self.pending.get_mut(&key) else {
            return;
        };
        let seqno = pending.seqno;
        let Some(tries) = pending.tries.filter(|tries| *tries < TRIES) else {
            self.pending.remove(&key);
            return;
        };
        pending.tries = Some(tries + 1);
        let of_origin = |entry: &Entry| {
            let cost = |peer: Peer| match entry.routes.get(&peer) {
                Some(route) if route.router_id == router_id => self.cost_to(peer, to),
                _ => Metric::INFINITE,
            };
            entry.best_unfeasible(None, cost)
        };
        let Some((peer, _)) = self.table.get(&to).and_then(of_origin) else {
            self.pending.remove(&key);
            return;
        };
        let later = now + AGAIN * 2_u32.pow(tries);
        self.timers.set(Due::Request(to, router_id), later);
        self.send_request(to, peer, router_id, seqno, now);
    }

    /// Whoever has asked for what is known now gets it; it need not be asked for any more.
    pub(super) fn answer_askers(&mut self, to: Destination, now: Time) {
        let Some(told) = self.told_of(to) else {
            return;
        };
        let first = (to, RouterId::LEAST);
        let answered: Vec<_> = self
            .pending
            .range(first..)
            .take_while(|((of, _), _)| *of == to)
            .filter(|((_, router_id), pending)| {
                told.router_id != *router_id || !pending.seqno.is_after(told.distance.seqno)
            })
            .map(|(key, pending)| (*key, !pending.askers.is_empty()))
            .collect();
        for ((to, router_id), is_asked_for) in answered {
            self.pending.remove(&(to, router_id));
            self.timers.cancel(Due::Request(to, router_id));
            if is_asked_for {
                self.announce(to, Haste::Urgent, now);
            }
        }
    }
}
