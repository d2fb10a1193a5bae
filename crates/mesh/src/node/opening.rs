//! How a tunnel comes about that both sides want: each makes a key for it and offers that with its addresses until it has the other's.

use std::{collections::BTreeMap, net::SocketAddr, time::Duration};

use hextet_types::Time;

use super::{Action, Node, Turn, contacts::is_link_local, keys::Pair};
use crate::{
    certificate::NodeId,
    letter::{MAX_CANDIDATES, Offer, Said},
    topology::{MAX_TUNNELS, Reach},
};

/// How often something is sent through a tunnel one of whose ends is behind a NAT, in seconds.
pub const KEEPALIVE_SECS: u16 = 20;
/// From an offer to the next, the first time; then twice as long each time.
const AGAIN: Duration = Duration::from_millis(250);
const MAX_DOUBLINGS: u32 = 3;
/// An offer that comes before the tunnel is wanted here is kept so long.
const EARLY: Duration = Duration::from_secs(10);

/// A tunnel that both ends have agreed upon.
#[derive(Clone, PartialEq, Eq)]
pub struct Plan {
    /// With whom.
    pub node: NodeId,
    /// This end's key.
    pub private_key: [u8; 32],
    /// The other's, public.
    pub peer_key: [u8; 32],
    /// Where the other end may be, the surest first.
    pub candidates: Vec<SocketAddr>,
    /// Something is sent at least that often; 0 if that is not needed.
    pub keepalive_secs: u16,
    /// Whether this side asked for it.
    pub ours: bool,
    /// Why.
    pub reason: String,
}

impl std::fmt::Debug for Plan {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Plan")
            .field("node", &self.node)
            .field("candidates", &self.candidates)
            .field("reason", &self.reason)
            .finish_non_exhaustive()
    }
}

#[derive(Clone, Debug)]
struct Opening {
    /// None, if an earlier run made it.
    key: Option<Pair>,
    ours: bool,
    reason: String,
    theirs: Option<[u8; 32]>,
    up: Option<Time>,
    next: Option<Time>,
    tries: u32,
}

/// Tunnels from the moment that they are wanted.
#[derive(Clone, Debug, Default)]
pub struct Openings {
    all: BTreeMap<NodeId, Opening>,
    /// Offers of those who are faster than we.
    early: BTreeMap<NodeId, (Offer, Time)>,
}

impl Openings {
    pub fn up(&mut self, node: NodeId, now: Time) {
        if let Some(opening) = self.all.get_mut(&node) {
            opening.up.get_or_insert(now);
            opening.next = None;
        }
    }

    /// Since when it carries.
    pub fn up_since(&self, node: NodeId) -> Option<Time> {
        self.all.get(&node)?.up
    }

    /// With whom there are tunnels that carry.
    pub fn standing(&self) -> Vec<NodeId> {
        let standing = self.all.iter().filter(|(_, opening)| opening.up.is_some());
        standing.map(|(node, _)| *node).collect()
    }

    /// Whether there was one.
    pub fn close(&mut self, node: NodeId) -> bool {
        self.all.remove(&node).is_some()
    }

    pub fn adopt(&mut self, node: NodeId, now: Time) {
        let opening = Opening {
            key: None,
            ours: false,
            reason: String::new(),
            theirs: None,
            up: Some(now),
            next: None,
            tries: 0,
        };
        self.all.insert(node, opening);
    }

    pub fn due(&self) -> Option<Time> {
        self.all.values().filter_map(|opening| opening.next).min()
    }
}

impl Node {
    /// Both sides want a tunnel.
    pub(super) fn open(&mut self, node: NodeId, ours: bool, reason: &str, turn: &mut Turn) {
        let opening = Opening {
            key: Some(self.keys.draw()),
            ours,
            reason: reason.to_owned(),
            theirs: None,
            up: None,
            next: Some(turn.now),
            tries: 0,
        };
        self.openings.all.insert(node, opening);
        let early = self.openings.early.remove(&node);
        if let Some((offer, _)) = early.filter(|(_, at)| turn.now < *at + EARLY) {
            self.agreed(node, offer, turn);
        }
        self.repeat_offers(turn);
    }

    pub(super) fn repeat_offers(&mut self, turn: &mut Turn) {
        let due = |opening: &Opening| opening.next.is_some_and(|next| next <= turn.now);
        let due: Vec<NodeId> = (self.openings.all.iter())
            .filter_map(|(node, opening)| due(opening).then_some(*node))
            .collect();
        for node in due {
            self.offer(node, None, turn);
            if let Some(opening) = self.openings.all.get_mut(&node) {
                let wait = AGAIN * 2_u32.pow(opening.tries.min(MAX_DOUBLINGS));
                opening.tries += 1;
                opening.next = opening.theirs.is_none().then(|| turn.now + wait);
            }
        }
    }

    fn offer(&mut self, node: NodeId, answers: Option<u64>, turn: &mut Turn) {
        let opening = self.openings.all.get(&node);
        let Some(key) = opening.and_then(|opening| opening.key.as_ref()) else {
            return;
        };
        let offer = Offer {
            key: key.public,
            card: self.seen.card(),
        };
        self.say(node, answers, Said::Offer(offer), turn);
    }

    /// The other end's key has come.
    pub(super) fn offered(
        &mut self,
        node: NodeId,
        number: u64,
        answers: Option<u64>,
        offer: Offer,
        turn: &mut Turn,
    ) {
        let Some(opening) = self.openings.all.get(&node) else {
            if self.openings.early.len() < MAX_TUNNELS || self.openings.early.contains_key(&node) {
                self.openings.early.insert(node, (offer, turn.now));
            }
            let fresh = |at: Time| turn.now < at + EARLY;
            self.openings.early.retain(|_, (_, at)| fresh(*at));
            return;
        };
        if opening.up.is_some() && opening.theirs != Some(offer.key) {
            return;
        }
        if opening.theirs != Some(offer.key) {
            self.agreed(node, offer, turn);
        }
        if answers.is_none() {
            self.offer(node, Some(number), turn);
        }
    }

    fn agreed(&mut self, node: NodeId, offer: Offer, turn: &mut Turn) {
        let mut candidates: Vec<SocketAddr> = offer.card.candidates.clone();
        self.contacts.shows(node, offer.card.clone(), turn.now);
        for at in self.contacts.candidates(node) {
            if !candidates.contains(&at) {
                candidates.push(at);
            }
        }
        // What is on a segment of ours is the surest.
        candidates.sort_by_key(|at| !is_link_local(*at));
        candidates.retain(|at| self.is_outside(*at));
        candidates.truncate(MAX_CANDIDATES);
        let is_public = self.seen.reach() == Reach::Public && offer.card.reach == Reach::Public;
        let Some(opening) = self.openings.all.get_mut(&node) else {
            return;
        };
        let Some(key) = &opening.key else { return };
        opening.theirs = Some(offer.key);
        let plan = Plan {
            node,
            private_key: key.private,
            peer_key: offer.key,
            candidates,
            keepalive_secs: if is_public { 0 } else { KEEPALIVE_SECS },
            ours: opening.ours,
            reason: opening.reason.clone(),
        };
        turn.actions.push(Action::Open(Box::new(plan)));
    }
}
