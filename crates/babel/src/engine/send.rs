//! Puts together what is to be sent.
//!
//! Updates wait as names of destinations, and become what is true when they leave: what changes twice is told once. What a neighbour
//! must know is told to it alone, and again until it is acknowledged (RFC 8966 §3.7.2, §3.3).

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv6Addr},
    time::Duration,
};

use hextet_types::{Family, Time};

use super::{Action, Due, Engine, Running, hear::stamp};
use crate::{
    GROUP,
    config::{Link, LinkId, NextHopV4},
    mac,
    neighbour::Peer,
    number::Interval,
    packet::{Destination, Tlv, Update, Writer},
    table::{Choice, Told},
};

/// How many Hellos follow the first one of a greeting.
const GREETINGS: u8 = 2;
/// Between those, in milliseconds.
const GREETING: u64 = 20;
/// Between any two Hellos.
const HELLO_PACE: Duration = Duration::from_millis(10);
/// So many may come out of turn at once, and one more in that time: where Hellos are lost and overtaken, each that comes may change who is heard, and
/// be answered by another.
pub const EAGER: u32 = 16;
pub const EAGER_REFILL: Duration = Duration::from_millis(250);
/// For so many Hellos, one IHU is promised.
const IHU: u16 = 3;
/// How often something is sent until it is acknowledged.
const TRIES: u32 = 6;
/// For how long an acknowledgment is waited for at least, the first time.
const ACK: Duration = Duration::from_millis(200);

/// What waits to be sent together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Queue {
    /// To all on a link.
    All(LinkId),
    /// To one.
    One(Peer),
}

impl Queue {
    const fn link(self) -> LinkId {
        match self {
            Queue::All(link) => link,
            Queue::One(peer) => peer.link,
        }
    }

    const fn to(self) -> Ipv6Addr {
        match self {
            Queue::All(_) => GROUP,
            Queue::One(peer) => peer.addr,
        }
    }
}

/// How soon something leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Haste {
    /// A path may be dead without it (RFC 8966 §3.7.2).
    Urgent,
    /// A path is not the best without it.
    Calm,
}

/// What is in it.
#[derive(Clone, Debug, Default)]
pub struct Outbox {
    tlvs: Vec<Tlv>,
    updates: BTreeSet<Destination>,
    /// Whether it is sent until it is acknowledged.
    surely: bool,
    /// How often it was, already.
    tries: u32,
}

/// What was sent in one packet, and is not acknowledged.
#[derive(Clone, Debug)]
pub struct Unconfirmed {
    tlvs: Vec<Tlv>,
    updates: Vec<Destination>,
    tries: u32,
    sent: Time,
}

/// A packet that grows, and what it is about.
struct Parcel {
    writer: Writer,
    opaque: Option<u16>,
    tlvs: Vec<Tlv>,
    updates: Vec<Destination>,
}

impl Engine {
    /// Makes ourselves known on a link, quickly.
    pub(super) fn greet(&mut self, id: LinkId, now: Time) {
        if let Some(running) = self.links.get_mut(&id) {
            running.greetings = GREETINGS;
        }
        self.hello_soon(id, now);
    }

    /// Whoever is to know sooner than by the next Hello does, but nobody makes us send them without end.
    pub(super) fn hello_soon(&mut self, id: LinkId, now: Time) {
        let Some(running) = self.links.get_mut(&id) else {
            return;
        };
        let last = running.hello_at;
        let at = last.map_or(now, |last| now.max(last + HELLO_PACE));
        let is_sooner = self.timers.at(Due::Hello(id)).is_none_or(|due| due > at);
        if is_sooner && running.eager.take(now) {
            self.timers.hasten(Due::Hello(id), at);
        }
    }

    pub(super) fn say_hello(&mut self, id: LinkId, now: Time) {
        let Some(running) = self.links.get_mut(&id) else {
            return;
        };
        running.hello = running.hello.plus(1);
        running.hello_at = Some(now);
        let (link, seqno) = (running.link.clone(), running.hello);
        let next = match running.greetings.checked_sub(1) {
            Some(left) => {
                running.greetings = left;
                Duration::from_millis(GREETING)
            }
            None => link.hello.duration(),
        };
        self.timers.set(Due::Hello(id), now + next);
        let hello = Tlv::Hello {
            unicast: false,
            seqno,
            interval: link.hello,
            timestamp: Some(stamp(now)),
        };
        let peers = self.peers_on(id);
        // Whoever finds no room beside the Hello has no stamps: not always the same ones.
        let first = usize::from(seqno.0) % peers.len().max(1);
        let turned = peers.iter().cycle().skip(first).take(peers.len());
        let ihus = turned.filter_map(|peer| self.ihu_to(*peer));
        let tlvs: Vec<Tlv> = std::iter::once(hello).chain(ihus).collect();
        self.pack(Queue::All(id), &link, tlvs, &BTreeSet::new(), None, now);
    }

    fn ihu_to(&self, peer: Peer) -> Option<Tlv> {
        let Running { link, extra, .. } = self.links.get(&peer.link)?;
        let neighbour = self.neighbours.get(&peer)?;
        Some(Tlv::Ihu {
            to: Some(IpAddr::V6(peer.addr)),
            rxcost: neighbour.rxcost(link.cost, *extra),
            interval: Interval(link.hello.0.saturating_mul(IHU)),
            echo: neighbour.echo(),
        })
    }

    /// To one neighbour, at once, and once.
    pub(super) fn say(&mut self, peer: Peer, tlv: Tlv, now: Time) {
        let queue = Queue::One(peer);
        self.outboxes.entry(queue).or_default().tlvs.push(tlv);
        self.timers.hasten(Due::Flush(queue), now);
    }

    /// The same, until it is acknowledged.
    pub(super) fn say_surely(&mut self, peer: Peer, tlv: Tlv, now: Time) {
        self.say(peer, tlv, now);
        self.outboxes.entry(Queue::One(peer)).or_default().surely = true;
    }

    /// Tells all neighbours of a destination.
    pub(super) fn announce(&mut self, to: Destination, haste: Haste, now: Time) {
        let peers: Vec<Peer> = self.neighbours.keys().copied().collect();
        for peer in peers {
            self.announce_to(peer, to, haste, now);
        }
    }

    pub(super) fn announce_to(&mut self, peer: Peer, to: Destination, haste: Haste, now: Time) {
        let queue = Queue::One(peer);
        let outbox = self.outboxes.entry(queue).or_default();
        outbox.updates.insert(to);
        outbox.surely = true;
        let [least, more] = match haste {
            Haste::Urgent => [1, 9],
            Haste::Calm => [50, 150],
        };
        if self
            .timers
            .at(Due::Flush(queue))
            .is_none_or(|at| at > now + Duration::from_millis(least))
        {
            let delay = Duration::from_millis(least + self.random.up_to(more));
            self.timers.hasten(Due::Flush(queue), now + delay);
        }
    }

    pub(super) fn update_everything(&mut self, id: LinkId, now: Time) {
        let Some(running) = self.links.get(&id) else {
            return;
        };
        let interval = running.link.update.duration();
        self.timers.set(Due::Update(id), now + interval);
        let queue = Queue::All(id);
        let outbox = self.outboxes.entry(queue).or_default();
        outbox.updates.extend(self.table.keys());
        self.timers.hasten(Due::Flush(queue), now);
    }

    pub(super) fn flush(&mut self, queue: Queue, now: Time) {
        let Some(outbox) = self.outboxes.remove(&queue) else {
            return;
        };
        let Some(running) = self.links.get(&queue.link()) else {
            return;
        };
        let link = running.link.clone();
        let tries = outbox.surely.then_some(outbox.tries);
        self.pack(queue, &link, outbox.tlvs, &outbox.updates, tries, now);
    }

    /// Sends all that, in as many packets as it takes; if `tries` says how often that was done before, they are to be acknowledged.
    fn pack(
        &mut self,
        queue: Queue,
        link: &Link,
        tlvs: Vec<Tlv>,
        updates: &BTreeSet<Destination>,
        tries: Option<u32>,
        now: Time,
    ) {
        match (queue, &link.pairs) {
            (Queue::All(_), Some(pairs)) => {
                for addr in pairs.keys() {
                    self.pack_to((queue, *addr), link, tlvs.clone(), updates, tries, now);
                }
            }
            _ => self.pack_to((queue, queue.to()), link, tlvs, updates, tries, now),
        }
    }

    fn pack_to(
        &mut self,
        (queue, addr): (Queue, Ipv6Addr),
        link: &Link,
        tlvs: Vec<Tlv>,
        updates: &BTreeSet<Destination>,
        tries: Option<u32>,
        now: Time,
    ) {
        let tlvs = tlvs.into_iter().map(|tlv| (tlv, None));
        let mut items: Vec<(Tlv, Option<Destination>)> = tlvs.collect();
        for to in updates {
            items.extend(self.tell(queue, link, *to, now).map(|tlv| (tlv, Some(*to))));
        }
        let mut parcel: Option<Parcel> = None;
        for (tlv, about) in items {
            if let Some(full) = parcel.take_if(|parcel| parcel.writer.push(&tlv).is_err()) {
                self.post((queue, addr), full, tries, now);
            } else if let Some(parcel) = &mut parcel {
                parcel.note(tlv, about);
                continue;
            }
            let mut fresh = self.parcel((queue.link(), addr), link, tries);
            if fresh.writer.push(&tlv).is_ok() {
                fresh.note(tlv, about);
                parcel = Some(fresh);
            }
        }
        if let Some(last) = parcel {
            self.post((queue, addr), last, tries, now);
        }
    }

    fn parcel(&mut self, (id, to): (LinkId, Ipv6Addr), link: &Link, tries: Option<u32>) -> Parcel {
        let room = mac::trailer_len(link.keys_with(to)).min(link.limit / 2);
        let mut parcel = Parcel {
            writer: Writer::new(link.limit - room, IpAddr::V6(link.addr)),
            opaque: None,
            tlvs: Vec::new(),
            updates: Vec::new(),
        };
        if link.is_signed()
            && let Some(running) = self.links.get_mut(&id)
        {
            let counter = running.counter.next(|| self.random.octets());
            let _fits = parcel.writer.push(&counter);
        }
        if tries.is_some() {
            self.opaque = self.opaque.wrapping_add(1);
            let request = Tlv::AckRequest {
                opaque: self.opaque,
                interval: Interval::at_least(ACK / 2),
                start: self.config.lasting,
            };
            if parcel.writer.push(&request).is_ok() {
                parcel.opaque = Some(self.opaque);
            }
        }
        parcel
    }

    fn post(
        &mut self,
        (queue, to): (Queue, Ipv6Addr),
        parcel: Parcel,
        tries: Option<u32>,
        now: Time,
    ) {
        if let (Queue::One(peer), Some(opaque), Some(tries)) = (queue, parcel.opaque, tries) {
            let patience = self.neighbours.get(&peer).and_then(|n| n.rtt().patience());
            let patience = patience.unwrap_or_default().max(ACK) * 2_u32.pow(tries.min(TRIES));
            self.timers.set(Due::Confirm(peer, opaque), now + patience);
            let unconfirmed = Unconfirmed {
                tlvs: parcel.tlvs,
                updates: parcel.updates,
                tries,
                sent: now,
            };
            self.unconfirmed.insert((peer, opaque), unconfirmed);
        }
        let mut octets = parcel.writer.finish();
        if let Some(running) = self.links.get(&queue.link()) {
            let link = &running.link;
            mac::sign(link.keys_with(to), link.addr, to, &mut octets);
        }
        self.actions.push(Action::Send {
            link: queue.link(),
            to,
            octets,
        });
    }

    pub(super) fn confirmed(&mut self, peer: Peer, opaque: u16, now: Time) {
        let Some(confirmed) = self.unconfirmed.remove(&(peer, opaque)) else {
            return;
        };
        self.timers.cancel(Due::Confirm(peer, opaque));
        for to in confirmed.updates {
            self.has_learnt(to, peer, confirmed.sent, now);
        }
    }

    pub(super) fn not_confirmed(&mut self, peer: Peer, opaque: u16, now: Time) {
        let Some(lost) = self.unconfirmed.remove(&(peer, opaque)) else {
            return;
        };
        let tries = lost.tries + 1;
        if tries >= TRIES {
            return;
        }
        let queue = Queue::One(peer);
        let outbox = self.outboxes.entry(queue).or_default();
        outbox.tlvs.extend(lost.tlvs);
        outbox.updates.extend(lost.updates);
        outbox.surely = true;
        outbox.tries = outbox.tries.max(tries);
        self.timers.hasten(Due::Flush(queue), now);
    }

    /// What is said of a destination there, and is noted as said; nothing where it would be of no use.
    fn tell(&mut self, queue: Queue, link: &Link, to: Destination, now: Time) -> Option<Tlv> {
        let entry = self.table.get(&to);
        let comes_from_there = entry.is_some_and(|entry| match (entry.choice, queue) {
            (Some(Choice::Via(peer)), Queue::One(one)) => peer == one,
            (Some(Choice::Via(peer)), Queue::All(all)) => peer.link == all,
            _ => false,
        });
        let is_silent = link.split_horizon && comes_from_there;
        match self.told_of(to).filter(|_| !is_silent) {
            Some(told) => {
                let next_hop = next_hop(link, to)?;
                let until = self.told_until(now);
                self.sources.tell(to, told.router_id, told.distance, until);
                Some(route(to, told, link.update, next_hop))
            }
            // Neighbours go by what an earlier run told of it.
            None if self.is_resuming() && entry.is_none_or(|e| e.is_unsettled()) => None,
            // Who hears all of it knows what is missing by its own route; who asked, or is told alone, gets an answer.
            None if is_silent && matches!(queue, Queue::All(_)) => None,
            None => Some(Tlv::Update(Update::Retraction {
                to: Some(to),
                seqno: self.seqno,
                interval: link.update,
            })),
        }
    }
}

impl Parcel {
    fn note(&mut self, tlv: Tlv, about: Option<Destination>) {
        match about {
            Some(to) => self.updates.push(to),
            None => self.tlvs.push(tlv),
        }
    }
}

const fn route(to: Destination, told: Told, interval: Interval, next_hop: IpAddr) -> Tlv {
    Tlv::Update(Update::Route {
        to,
        router_id: told.router_id,
        seqno: told.distance.seqno,
        metric: told.distance.metric,
        interval,
        next_hop,
    })
}

/// By which address others send to it; none if they can't.
fn next_hop(link: &Link, to: Destination) -> Option<IpAddr> {
    match (to.family(), link.v4) {
        (Family::V6, _) | (Family::V4, NextHopV4::ViaV6) => Some(IpAddr::V6(link.addr)),
        (Family::V4, NextHopV4::Own(addr)) => Some(IpAddr::V4(addr)),
        (Family::V4, NextHopV4::None) => None,
    }
}
