//! Others: which prefixes are theirs, where they were met, who can reach them.
//!
//! What always holds: at most [`MAX_CONTACTS`], and as many prefixes without an owner; who was heard of last stays.

use std::{
    collections::BTreeMap,
    net::{Ipv6Addr, SocketAddr},
    time::Duration,
};

use hextet_types::{Prefix, Time, Way};

use super::{Action, Node, PORT, Turn, home_of};
use crate::{
    certificate::{Certificate, NodeId},
    letter::{Card, MAX_CANDIDATES, MAX_INTRODUCED, Said},
    topology::Reach,
};

/// Others that are known.
pub const MAX_CONTACTS: usize = 10_000;
/// Nodes that are remembered over a restart.
const MAX_REMEMBERED: usize = 200;
/// Prefixes whose owner is asked for at once.
const ASKED_AT_ONCE: usize = 16;
/// After that an owner who has not answered is asked again, each time for twice as long.
const PATIENCE: Duration = Duration::from_secs(1);
const MAX_DOUBLINGS: u32 = 8;

#[derive(Clone, Debug)]
struct Contact {
    prefixes: Vec<Prefix>,
    reach: Reach,
    candidates: Vec<Way>,
    /// Outside of the mesh, when last.
    met: Option<(Way, Time)>,
    /// What the choice of tunnels was told.
    told: Option<(Reach, bool)>,
    heard: Time,
}

impl Contact {
    fn new(now: Time) -> Contact {
        Contact {
            prefixes: Vec::new(),
            reach: Reach::Closed,
            candidates: Vec::new(),
            met: None,
            told: None,
            heard: now,
        }
    }
}

/// A destination of which nobody is known to be there.
#[derive(Clone, Copy, Debug)]
struct Stranger {
    tries: u32,
    next: Time,
}

/// All of them.
#[derive(Clone, Debug, Default)]
pub struct Contacts {
    known: BTreeMap<NodeId, Contact>,
    owners: BTreeMap<Prefix, NodeId>,
    strangers: BTreeMap<Prefix, Stranger>,
}

impl Contacts {
    fn entry(&mut self, node: NodeId, now: Time) -> &mut Contact {
        if self.known.len() >= MAX_CONTACTS && !self.known.contains_key(&node) {
            let oldest = self.known.iter().min_by_key(|(_, contact)| contact.heard);
            if let Some(oldest) = oldest.map(|(node, _)| *node) {
                self.forget(oldest);
            }
        }
        self.known.entry(node).or_insert_with(|| Contact::new(now))
    }

    /// A letter of it was believed.
    pub fn heard(&mut self, certificate: &Certificate, now: Time) {
        let node = certificate.node;
        let contact = self.entry(node, now);
        contact.heard = now;
        let all = || certificate.prefixes.iter().chain(&certificate.ipv4);
        if contact.prefixes.iter().eq(all()) {
            return;
        }
        let before = std::mem::replace(&mut contact.prefixes, all().copied().collect());
        for prefix in before {
            self.owners.remove(&prefix);
        }
        for prefix in all() {
            self.owners.insert(*prefix, node);
            self.strangers.remove(prefix);
        }
    }

    /// It was met outside of the mesh; whether that is news.
    pub fn meet(&mut self, node: NodeId, at: Way, now: Time) -> bool {
        let contact = self.entry(node, now);
        contact.met.replace((at, now)).map(|(at, _)| at) != Some(at)
    }

    /// It says how it may be reached.
    pub fn shows(&mut self, node: NodeId, card: Card, now: Time) {
        let contact = self.entry(node, now);
        contact.reach = card.reach;
        contact.candidates = card.candidates;
    }

    /// Somebody says that anybody can reach it there; what is known of it by itself is better.
    pub fn hinted(&mut self, node: NodeId, at: Way, now: Time) {
        let contact = self.entry(node, now);
        let is_worse = contact.met.is_some() && at.udp().is_none();
        if contact.prefixes.is_empty() && !is_worse {
            contact.reach = Reach::Public;
            contact.met = Some((at, now));
        }
    }

    pub fn forget(&mut self, node: NodeId) {
        if let Some(contact) = self.known.remove(&node) {
            for prefix in contact.prefixes {
                self.owners.remove(&prefix);
            }
        }
    }

    pub fn len(&self) -> usize {
        self.known.len()
    }

    pub fn owner(&self, prefix: Prefix) -> Option<NodeId> {
        self.owners.get(&prefix).copied()
    }

    pub fn prefixes(&self, node: NodeId) -> Option<&[Prefix]> {
        self.known.get(&node).map(|contact| &contact.prefixes[..])
    }

    pub fn reach(&self, node: NodeId) -> Reach {
        self.known
            .get(&node)
            .map_or(Reach::Closed, |contact| contact.reach)
    }

    pub fn home(&self, node: NodeId) -> Option<Ipv6Addr> {
        home_of(*self.prefixes(node)?.first()?)
    }

    pub fn met(&self, node: NodeId) -> Option<Way> {
        let contact = self.known.get(&node)?;
        let met = contact.met.map(|(at, _)| at);
        met.or_else(|| contact.candidates.first().copied())
    }

    /// Where a handshake with it is worth a try, the surest first.
    pub fn candidates(&self, node: NodeId) -> Vec<Way> {
        let Some(contact) = self.known.get(&node) else {
            return Vec::new();
        };
        let met = contact.met.map(|(at, _)| at);
        let others = contact.candidates.iter().copied();
        let mut all: Vec<Way> = met.into_iter().collect();
        all.extend(others.filter(|at| Some(*at) != met));
        all.truncate(MAX_CANDIDATES);
        all
    }

    /// Whether the choice of tunnels does not know yet who can reach it, and whether there is a route; it does from now on.
    pub fn is_news(&mut self, node: NodeId, told: (Reach, bool)) -> bool {
        let contact = self.known.get_mut(&node);
        contact.is_some_and(|contact| contact.told.replace(told) != Some(told))
    }

    /// Nodes that anybody can reach, the last heard of first.
    fn public(&self) -> Vec<(NodeId, Way)> {
        let mut all: Vec<_> = self
            .known
            .iter()
            .filter(|(_, contact)| contact.reach == Reach::Public)
            .filter_map(|(node, contact)| Some((contact.heard, *node, contact.met?.0)))
            .filter(|(_, _, at)| !is_link_local(at.address()))
            .collect();
        all.sort_by(|one, other| other.cmp(one));
        all.into_iter().map(|(_, node, at)| (node, at)).collect()
    }

    pub fn introduction(&self, but: NodeId) -> Vec<(NodeId, Way)> {
        let mut all = self.public();
        all.retain(|(node, _)| *node != but);
        all.truncate(MAX_INTRODUCED);
        all
    }

    pub fn remembered(&self) -> Vec<(NodeId, Way)> {
        let mut all = self.public();
        all.truncate(MAX_REMEMBERED);
        all
    }

    /// Somebody is there, or no more, of whom nothing but the prefix is known.
    pub fn stranger(&mut self, prefix: Prefix, is_there: bool, now: Time) {
        if !is_there {
            self.strangers.remove(&prefix);
        } else if self.strangers.len() < MAX_CONTACTS {
            let new = Stranger {
                tries: 0,
                next: now,
            };
            self.strangers.entry(prefix).or_insert(new);
        }
    }

    pub fn due(&self) -> Option<Time> {
        self.strangers.values().map(|stranger| stranger.next).min()
    }

    fn strangers_due(&mut self, now: Time) -> Vec<Prefix> {
        let due = self.strangers.iter_mut();
        let due = due.filter(|(_, stranger)| stranger.next <= now);
        due.take(ASKED_AT_ONCE)
            .map(|(prefix, stranger)| {
                stranger.next = now + PATIENCE * 2_u32.pow(stranger.tries.min(MAX_DOUBLINGS));
                stranger.tries += 1;
                *prefix
            })
            .collect()
    }
}

impl Node {
    /// Asks who is behind prefixes that have a way.
    pub(super) fn look_for_strangers(&mut self, turn: &mut Turn) {
        for prefix in self.contacts.strangers_due(turn.now) {
            if let Some(home) = home_of(prefix) {
                let to = Way::Udp(SocketAddr::from((home, PORT)));
                let said = Said::Ping(self.seen.card());
                let _ = self.write((None, to), None, said, turn);
            }
        }
    }

    pub(super) fn introduced(&mut self, nodes: Vec<(NodeId, Way)>, turn: &mut Turn) {
        for (node, at) in nodes {
            if node == self.desk.node() || !self.is_outside(at) {
                continue;
            }
            self.contacts.hinted(node, at, turn.now);
            self.entry.heard_of(node, at, turn.now);
            self.tell_candidate(node, turn);
        }
        self.find_entry(turn);
        self.choose(crate::topology::Event::Timer, turn);
    }

    /// Whether an address may be outside of the mesh: nothing of it is ever carried by the mesh itself.
    pub(super) fn is_outside(&self, at: Way) -> bool {
        let at = at.address();
        let addr = at.ip().to_canonical();
        let network = &self.trust().parameters().body;
        !network.prefix.contains(addr)
            && !network.ipv4.is_some_and(|prefix| prefix.contains(addr))
            && !addr.is_loopback()
            && !addr.is_multicast()
            && !addr.is_unspecified()
            && (!is_link_local(at) || is_scoped(at))
            && !self.seen.is_ours(at)
    }

    pub(super) fn remember(turn: &mut Turn) {
        turn.actions.push(Action::Remember);
    }
}

/// Whether it means something on one segment only.
pub fn is_link_local(at: SocketAddr) -> bool {
    match at {
        SocketAddr::V4(v4) => v4.ip().is_link_local(),
        SocketAddr::V6(v6) => v6.ip().is_unicast_link_local(),
    }
}

/// Whether it says on which segment.
fn is_scoped(at: SocketAddr) -> bool {
    matches!(at, SocketAddr::V6(v6) if v6.scope_id() != 0)
}
