//! A node: takes what happens and the time, and says what to do.
//!
//! [`auth`] lets in packets, [`liveness`] sees whether any come, [`hear`] takes them apart, [`routes`] decides which routes are gone by and who must know of it, [`requests`] finds a way when
//! no feasible one is left, [`send`] puts together what is to be sent. What always holds: a route is only ever chosen while it is
//! feasible, and whatever is told of one has been noted in [`Sources`] before it leaves.

mod auth;
mod doubt;
mod hear;
mod lasting;
mod liveness;
mod lost;
mod requests;
mod routes;
mod send;
mod status;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv6Addr,
    time::Duration,
};

use hextet_types::{Bucket, Time};

use crate::{
    config::{Config, Link, LinkError, LinkId},
    mac::Key,
    neighbour::{Neighbour, Peer},
    number::{Metric, RouterId, Seqno},
    packet::{Class, Destination},
    random::Random,
    source::Sources,
    table::{Entry, Route, Way},
    timers::Timers,
};

use auth::{Auth, Counter};
use lasting::Stage;
use liveness::Traffic;
use lost::Lost;
use requests::Pending;
use send::{EAGER, EAGER_REFILL, Outbox, Queue, Unconfirmed};
pub use status::{LinkStatus, NeighbourStatus, RouteStatus, Status};

/// How often what counts no more is forgotten.
const SWEEP: Duration = Duration::from_secs(60);

/// What happens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A link has come up, or is to be run in another way.
    LinkUp(LinkId, Link),
    /// It is down, or gone: so are all routes over it.
    LinkDown(LinkId),
    /// Nothing comes through it, as is known from elsewhere (BFD, probes of a tunnel). It goes on, and is taken again when Hellos come.
    LinkDead(LinkId),
    /// The other end says that nothing comes through it: it is dead unless it answers at once.
    LinkSuspect(LinkId),
    /// It costs so much more than its kind does, for both ends, from now on: nothing again, at 0. What is to be closed is left by all that
    /// has another way first ([`Metric::DRAIN`], [`LinkStatus::routes`]).
    LinkCost(LinkId, Metric),
    /// To send many packets by a link costs so much from now on, for destinations of that class: the less, the more it carries. The other end
    /// says what the way back costs.
    LinkCarries(LinkId, Metric),
    /// A datagram has come to [`PORT`](crate::PORT).
    Datagram {
        /// On that link.
        link: LinkId,
        /// From there.
        from: Ipv6Addr,
        /// To there: the group, or one of our own addresses.
        to: Ipv6Addr,
        /// What it says.
        octets: Vec<u8>,
    },
    /// What a link has carried, as whoever holds the tunnel knows it: when something was sent last, and when something came. To be told
    /// as long as the first is the later one, and then whenever something has come.
    Traffic(LinkId, Option<Time>, Option<Time>),
    /// A destination is here, at that metric.
    Originate(Destination, Metric),
    /// It is here no more.
    Withdraw(Destination),
    /// The time of [`Engine::next_wakeup`] has come.
    Timer,
}

/// What to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Send a datagram from [`PORT`](crate::PORT) to the same, hop limit 1: at once, because it says when it was sent.
    Send {
        /// On that link, from its address.
        link: LinkId,
        /// To a neighbour, or to [`GROUP`](crate::GROUP).
        to: Ipv6Addr,
        /// This.
        octets: Vec<u8>,
    },
    /// This is how packets get there; if none, it is no business of Babel's (any more).
    Route(Destination, Option<Way>),
    /// A neighbour and this node hear each other from now on, or do not any more.
    Reach(Peer, bool),
    /// Something was not taken; to be counted, and logged at a bounded rate.
    Refused(Refusal),
}

/// What was not taken, and from whom.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Nobody speaks Babel there.
    #[error("there is no link {}", .0.0)]
    NoLink(LinkId),
    /// It can't be run like that.
    #[error("link {}: {error}", .link.0)]
    Link {
        /// Which.
        link: LinkId,
        /// Why.
        error: LinkError,
    },
    /// Not from a neighbour's address.
    #[error("link {}: a packet from {from}, which is no link-local address", .link.0)]
    Stranger {
        /// Where.
        link: LinkId,
        /// From whom.
        from: Ipv6Addr,
    },
    /// No key has signed it.
    #[error("{}%{}: a packet without a code of a key that is known", .0.addr, .0.link.0)]
    Forged(Peer),
    /// It has come before, or nobody can tell that it has not.
    #[error("{}%{}: a packet whose counter is not known to be new", .0.addr, .0.link.0)]
    Stale(Peer),
    /// It is no packet, or parts of it were left out.
    #[error("{}%{}: {why}", .peer.addr, .peer.link.0)]
    Malformed {
        /// Whose.
        peer: Peer,
        /// Why.
        why: String,
    },
    /// There are more neighbours on a link than may be.
    #[error("{}%{}: there are already as many neighbours as may be", .0.addr, .0.link.0)]
    Neighbour(Peer),
    /// There are more destinations than may be.
    #[error("{} of {}%{}: there are already as many destinations as may be", .to.prefix(), .peer.addr, .peer.link.0)]
    Destination {
        /// Whose.
        peer: Peer,
        /// Of what.
        to: Destination,
    },
}

/// What is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Due {
    /// A Hello.
    Hello(LinkId),
    /// An update of everything.
    Update(LinkId),
    /// What was sent over a link should have been answered.
    Probe(LinkId),
    /// One that was lost is asked whether it is there.
    Ask(LinkId),
    /// A neighbour's Hello.
    Heard(Peer),
    /// A neighbour's IHU.
    HeardUs(Peer),
    /// A neighbour's route.
    Route(Destination, Peer),
    /// A neighbour that tells of more than may be is believed.
    Doubt(Destination, Peer),
    /// Others have had time enough to learn that a destination is gone.
    Hold(Destination),
    /// A request was not answered, or an answer is not waited for any more.
    Request(Destination, RouterId),
    /// Something waits to be sent.
    Flush(Queue),
    /// A neighbour has not acknowledged something.
    Confirm(Peer, u16),
    /// A stale neighbour has had time enough.
    Stale(Peer),
    /// A start that is resumed has come further.
    Stage,
    /// See [`SWEEP`].
    Sweep,
}

/// A link that is run.
#[derive(Clone, Debug)]
struct Running {
    link: Link,
    /// What it costs besides.
    extra: Metric,
    /// What it costs to send many packets.
    many: Metric,
    hello: Seqno,
    counter: Counter,
    /// When the last one was sent.
    hello_at: Option<Time>,
    /// For those out of turn.
    eager: Bucket,
    /// How many Hellos follow quickly, so that neighbours need not wait to be sure of us.
    greetings: u8,
    traffic: Traffic,
    /// Whether anybody tells of its traffic.
    is_watched: bool,
}

/// What a link costs many packets of which nobody has said how much it carries.
const UNKNOWN: Metric = Metric(200);

impl Running {
    fn cost_of_many(&self) -> Metric {
        let dearest = Metric::INFINITE.0 - 1;
        Metric(self.many.plus(self.extra).0.clamp(1, dearest))
    }
}

/// A node.
#[derive(Debug)]
pub struct Engine {
    config: Config,
    random: Random,
    seqno: Seqno,
    /// Since when that has been it.
    seqno_since: Time,
    links: BTreeMap<LinkId, Running>,
    neighbours: BTreeMap<Peer, Neighbour>,
    auths: BTreeMap<Peer, Auth>,
    table: BTreeMap<Destination, Entry>,
    sources: Sources,
    pending: BTreeMap<(Destination, RouterId), Pending>,
    outboxes: BTreeMap<Queue, Outbox>,
    unconfirmed: BTreeMap<(Peer, u16), Unconfirmed>,
    opaque: u16,
    dumped: BTreeMap<Peer, Time>,
    stage: Stage,
    pings: BTreeSet<Peer>,
    /// What neighbours that are gone by tell of late, if that may not be.
    doubted: BTreeMap<(Destination, Peer), Route>,
    /// By their links.
    lost: BTreeMap<LinkId, Lost>,
    timers: Timers<Due>,
    actions: Vec<Action>,
}

impl Engine {
    /// A node without links.
    pub fn new(config: Config) -> Engine {
        let mut timers = Timers::default();
        timers.set(Due::Sweep, Time::ZERO + SWEEP);
        Engine {
            random: Random::new(&config.seed),
            stage: Stage::of(config.lasting),
            pings: BTreeSet::new(),
            doubted: BTreeMap::new(),
            lost: BTreeMap::new(),
            config,
            seqno: Seqno(1),
            seqno_since: Time::ZERO,
            links: BTreeMap::new(),
            neighbours: BTreeMap::new(),
            auths: BTreeMap::new(),
            table: BTreeMap::new(),
            sources: Sources::default(),
            pending: BTreeMap::new(),
            outboxes: BTreeMap::new(),
            unconfirmed: BTreeMap::new(),
            opaque: 0,
            dumped: BTreeMap::new(),
            timers,
            actions: Vec::new(),
        }
    }

    /// What is to be done about that.
    pub fn handle(&mut self, event: Event, now: Time) -> Vec<Action> {
        match event {
            Event::LinkUp(id, link) => self.link_up(id, link, now),
            Event::LinkDown(id) => self.link_down(id, now),
            Event::LinkDead(id) => self.link_dead(id, now),
            Event::LinkSuspect(id) => self.suspect_link(id, now),
            Event::LinkCost(id, extra) => self.link_cost(id, extra, now),
            Event::LinkCarries(id, cost) => self.link_carries(id, cost, now),
            Event::Datagram {
                link,
                from,
                to,
                octets,
            } => self.datagram(link, (from, to), &octets, now),
            Event::Traffic(id, sent, heard) => self.traffic(id, (sent, heard), now),
            Event::Originate(to, metric) => self.originate(to, Some(metric), now),
            Event::Withdraw(to) => self.originate(to, None, now),
            Event::Timer => {}
        }
        while let Some(due) = self.timers.pop(now) {
            self.due(due, now);
        }
        std::mem::take(&mut self.actions)
    }

    /// When to call [`Engine::handle`] without anything having happened.
    pub fn next_wakeup(&self) -> Option<Time> {
        self.timers.next()
    }

    fn due(&mut self, due: Due, now: Time) {
        match due {
            Due::Hello(link) => self.say_hello(link, now),
            Due::Update(link) => self.update_everything(link, now),
            Due::Probe(link) => self.probe(link, now),
            Due::Ask(link) => self.ask_lost(link, now),
            Due::Heard(peer) => self.miss(peer, now),
            Due::HeardUs(peer) => self.forget_us(peer, now),
            Due::Route(to, peer) => self.route_is_late(to, peer, now),
            Due::Doubt(to, peer) => self.believe(to, peer, now),
            Due::Hold(to) => self.release(to, now),
            Due::Request(to, router_id) => self.ask_again(to, router_id, now),
            Due::Flush(queue) => self.flush(queue, now),
            Due::Confirm(peer, opaque) => self.not_confirmed(peer, opaque, now),
            Due::Stale(peer) => self.is_too_stale(peer, now),
            Due::Stage => self.next_stage(now),
            Due::Sweep => {
                self.forget_sources(now);
                self.forget_strangers(now);
                self.timers.set(Due::Sweep, now + SWEEP);
            }
        }
    }

    fn link_up(&mut self, id: LinkId, link: Link, now: Time) {
        if let Err(error) = link.check() {
            self.refuse(Refusal::Link { link: id, error });
            return;
        }
        let hello = Seqno(u16::try_from(self.random.up_to(u16::MAX.into())).unwrap_or(0));
        let index = self.random.octets();
        let running = self.links.entry(id).or_insert(Running {
            link: link.clone(),
            extra: Metric::ZERO,
            many: UNKNOWN,
            hello,
            counter: Counter::new(index),
            hello_at: None,
            eager: Bucket::new(EAGER, EAGER_REFILL, now),
            greetings: 0,
            traffic: Traffic::default(),
            is_watched: false,
        });
        let pairs = link.pairs.clone();
        running.link = link;
        if let Some(pairs) = pairs {
            self.leave_others(id, &pairs, now);
        }
        self.resume(now);
        self.greet(id, now);
        let interval = self.links.get(&id).map(|running| running.link.update);
        let first = now + interval.unwrap_or_default().duration();
        self.timers.hasten(Due::Update(id), first);
        self.weigh_all(id, now);
    }

    /// Who is not there any more is no neighbour.
    fn leave_others(&mut self, id: LinkId, pairs: &BTreeMap<Ipv6Addr, Key>, now: Time) {
        let is_there = |peer: &Peer| peer.link != id || pairs.contains_key(&peer.addr);
        self.auths.retain(|peer, _| is_there(peer));
        for peer in self.peers_on(id) {
            if !is_there(&peer) {
                self.neighbour_gone(peer, now);
            }
        }
    }

    fn link_down(&mut self, id: LinkId, now: Time) {
        self.links.remove(&id);
        self.forget_lost(id);
        let flush = Due::Flush(Queue::All(id));
        for due in [Due::Hello(id), Due::Update(id), Due::Probe(id), flush] {
            self.timers.cancel(due);
        }
        self.outboxes.remove(&Queue::All(id));
        self.auths.retain(|peer, _| peer.link != id);
        for peer in self.peers_on(id) {
            self.neighbour_gone(peer, now);
        }
    }

    fn link_dead(&mut self, id: LinkId, now: Time) {
        self.lose(id, now);
        for peer in self.peers_on(id) {
            if let Some(neighbour) = self.neighbours.get_mut(&peer) {
                neighbour.is_lost();
            }
            self.weigh(peer, now);
            self.neighbour_gone(peer, now);
        }
    }

    fn link_cost(&mut self, id: LinkId, extra: Metric, now: Time) {
        let Some(running) = self.links.get_mut(&id) else {
            self.refuse(Refusal::NoLink(id));
            return;
        };
        if running.extra != extra {
            running.extra = extra;
            self.hello_soon(id, now);
            self.weigh_all(id, now);
        }
    }

    fn peers_on(&self, id: LinkId) -> Vec<Peer> {
        let first = Peer {
            link: id,
            addr: Ipv6Addr::UNSPECIFIED,
        };
        let from_there = self.neighbours.range(first..).map(|(peer, _)| *peer);
        from_there.take_while(|peer| peer.link == id).collect()
    }

    fn neighbour_gone(&mut self, peer: Peer, now: Time) {
        let Some(neighbour) = self.neighbours.remove(&peer) else {
            return;
        };
        let queue = Queue::One(peer);
        self.pings.remove(&peer);
        let stale = Due::Stale(peer);
        for due in [
            Due::Heard(peer),
            Due::HeardUs(peer),
            Due::Flush(queue),
            stale,
        ] {
            self.timers.cancel(due);
        }
        self.outboxes.remove(&queue);
        self.dumped.remove(&peer);
        let of_peer: Vec<_> = (self.unconfirmed.range((peer, 0)..=(peer, u16::MAX)))
            .map(|(key, _)| *key)
            .collect();
        for (peer, opaque) in of_peer {
            self.unconfirmed.remove(&(peer, opaque));
            self.timers.cancel(Due::Confirm(peer, opaque));
        }
        for pending in self.pending.values_mut() {
            pending.askers.remove(&peer);
        }
        for to in neighbour.destinations {
            self.remove_route(to, peer, now);
        }
        let held: BTreeSet<Destination> = (self.table.iter())
            .filter(|(_, entry)| {
                let waiting = entry.hold.as_ref().map(|hold| &hold.waiting);
                waiting.is_some_and(|waiting| waiting.contains(&peer))
            })
            .map(|(to, _)| *to)
            .collect();
        for to in held {
            self.has_learnt(to, peer, now, now);
        }
    }

    /// Computes a neighbour's cost anew, and goes by it.
    fn weigh(&mut self, peer: Peer, now: Time) {
        let Some(running) = self.links.get(&peer.link) else {
            return;
        };
        let may_last = self.may_last(peer);
        let Some(neighbour) = self.neighbours.get_mut(&peer) else {
            return;
        };
        let (before, was_stale) = (neighbour.cost(), neighbour.is_stale());
        let has_changed = neighbour.weigh(running.link.cost, running.extra, may_last);
        let after = neighbour.cost();
        let destinations = neighbour.destinations.clone();
        self.notes_stale(peer, was_stale, now);
        if !has_changed {
            return;
        }
        if before.is_infinite() != after.is_infinite() {
            self.actions.push(Action::Reach(peer, before.is_infinite()));
            self.hello_soon(peer.link, now);
        }
        for to in destinations {
            self.choose(to, now);
            if after > before {
                self.seek_better(to, now);
            }
        }
        if before.is_infinite() {
            self.ask_everything(peer, now);
        }
    }

    fn weigh_all(&mut self, id: LinkId, now: Time) {
        for peer in self.peers_on(id) {
            self.weigh(peer, now);
        }
    }

    fn cost(&self, peer: Peer) -> Metric {
        let neighbour = self.neighbours.get(&peer);
        neighbour.map_or(Metric::INFINITE, Neighbour::cost)
    }

    /// What it costs to send to a destination by that neighbour: it goes by the destination's class.
    fn cost_to(&self, peer: Peer, to: Destination) -> Metric {
        let cost = self.cost(peer);
        match to.class() {
            Class::Latency => cost,
            Class::Throughput if cost.is_infinite() => cost,
            Class::Throughput => {
                let running = self.links.get(&peer.link);
                running.map_or(Metric::INFINITE, Running::cost_of_many)
            }
        }
    }

    /// How much a link carries has been found out anew.
    fn link_carries(&mut self, id: LinkId, cost: Metric, now: Time) {
        let Some(running) = self.links.get_mut(&id) else {
            self.refuse(Refusal::NoLink(id));
            return;
        };
        let before = std::mem::replace(&mut running.many, cost);
        if before == cost {
            return;
        }
        for peer in self.peers_on(id) {
            let neighbour = self.neighbours.get(&peer);
            let all = neighbour.map(|neighbour| neighbour.destinations.clone());
            let all = all.unwrap_or_default().into_iter();
            for to in all.filter(|to| to.class() == Class::Throughput) {
                self.choose(to, now);
                if cost > before {
                    self.seek_better(to, now);
                }
            }
        }
    }

    fn refuse(&mut self, refusal: Refusal) {
        self.actions.push(Action::Refused(refusal));
    }
}
