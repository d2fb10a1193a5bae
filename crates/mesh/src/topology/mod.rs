//! Which tunnels a node makes.
//!
//! A node has six random links: three that it asks for by random walks and three that it grants, so that the graph is nearly regular and stays in one piece whatever
//! dies. One tunnel leads to the nearest node, and two where they shorten most paths to a sample of destinations, weighted by traffic. Everything comes by events, each
//! decision has a reason with figures, and chance comes from a seed.
//!
//! What always holds: at most [`MAX_TUNNELS`]; one tunnel with a node; a tunnel that was chosen for latency is judged by three samples at least, was worth it for a
//! minute, lives ten, and closes only when no route uses it; of two wishes for the same tunnel the lower number's stays.

mod candidate;
mod config;
mod event;
mod gain;
mod linking;
mod random;
mod reason;
mod round;
mod sample;
mod tunnel;
mod upkeep;

#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use hextet_types::Time;

pub use self::{
    candidate::MAX_CANDIDATES,
    config::Config,
    event::{Action, Event, Kind, Message, Node, Reach, Refusal, Walk},
    gain::Gain,
    reason::Reason,
    sample::MAX_COUNTED,
    tunnel::{Peer, Stage},
};
use self::{
    candidate::{Candidates, SAMPLES},
    linking::Wish,
    random::Random,
    round::Round,
    sample::Sample,
    tunnel::Tunnel,
    upkeep::REJOIN,
};

/// Tunnels of a node, whatever its configuration says.
pub const MAX_TUNNELS: usize = 64;

/// No round trip and no distance counts for more.
const MAX_DISTANCE: Duration = Duration::from_secs(60);

/// Nodes that are named as near in an answer.
const NAMED: usize = 4;

/// Walks that are handed on in a second, so that nobody can make a mesh busy with them.
const MAX_WALKS: usize = 64;

/// The choice of one node.
#[derive(Clone, Debug)]
pub struct Topology {
    me: Node,
    reach: Reach,
    config: Config,
    random: Random,
    candidates: Candidates,
    tunnels: BTreeMap<Node, Tunnel>,
    /// Nodes with which no tunnel is needed.
    beside: BTreeSet<Node>,
    wishes: BTreeMap<u32, Wish>,
    sample: Sample,
    round: Round,
    /// The nearest nodes, as of the last round.
    near: Vec<(Node, Reach)>,
    born: Time,
    /// When the last tunnel for latency was asked for.
    last_swap: Option<Time>,
    /// When a node without a route was last tried.
    last_rejoin: Option<Time>,
    /// Since when there are fewer random links than there shall be, though enough are own ones.
    short: Option<Time>,
    /// Walks in this second.
    walks: (Time, usize),
    woken: Time,
}

impl Topology {
    /// A node without tunnels. The seed is drawn by the driver; two nodes have different ones.
    pub fn new(me: Node, reach: Reach, config: Config, seed: u64, now: Time) -> Self {
        let mut random = Random::new(seed);
        let round = Round::first(&config, &mut random, now);
        Topology {
            me,
            reach,
            config,
            random,
            candidates: Candidates::default(),
            tunnels: BTreeMap::new(),
            beside: BTreeSet::new(),
            wishes: BTreeMap::new(),
            sample: Sample::default(),
            round,
            near: Vec::new(),
            born: now,
            last_swap: None,
            last_rejoin: None,
            short: None,
            walks: (Time::ZERO, 0),
            woken: now,
        }
    }

    /// What follows from an event.
    pub fn handle(&mut self, event: Event, now: Time) -> Vec<Action> {
        let mut actions = Vec::new();
        match event {
            Event::Candidate {
                node,
                reach,
                routed,
            } => self.learn(node, reach, routed),
            Event::Measured { node, round_trip } => self.measured(node, round_trip, &mut actions),
            Event::Distances {
                node,
                distances,
                near,
            } => self.told(node, distances, near),
            Event::Traffic {
                destination,
                octets,
            } => {
                if destination != self.me {
                    self.sample.count(destination, octets);
                }
            }
            Event::Up { node } => self.up(node, now, &mut actions),
            Event::Down { node } => self.down(node, now, &mut actions),
            Event::Routes { node, count } => self.routes(node, count, &mut actions),
            Event::Heard { from, message } => self.heard(from, message, now, &mut actions),
            Event::Beside { node, is_beside } => self.reached(node, is_beside, now, &mut actions),
            Event::Reach(reach) => self.reach = reach,
            Event::Adopted {
                node,
                kind,
                ours,
                reach,
            } => self.adopt(node, (kind, ours, reach), now),
            Event::Timer => self.wake(now, &mut actions),
        }
        actions
    }

    /// From now on as this says; tunnels that stand stay as long as they are of use.
    pub fn configure(&mut self, config: Config) {
        self.config = config;
    }

    /// How it chooses.
    pub const fn config(&self) -> &Config {
        &self.config
    }

    /// When [`Event::Timer`] is due.
    pub fn next_wakeup(&self) -> Time {
        let hurried = !self.wishes.is_empty()
            || !self.tunnels.values().any(Tunnel::is_up)
            || self.tunnels.values().any(|tunnel| !tunnel.is_up())
            || self.lacks_random(self.woken);
        let soon = self.woken + Duration::from_secs(1);
        if hurried {
            soon
        } else {
            self.round.due().min(self.woken + REJOIN).max(soon)
        }
    }

    /// All tunnels, for operators.
    pub fn peers(&self) -> Vec<Peer> {
        self.tunnels
            .iter()
            .map(|(node, tunnel)| Peer {
                node: *node,
                kind: tunnel.kind,
                ours: tunnel.ours,
                stage: tunnel.stage,
                since: tunnel.since,
                round_trip: tunnel.round_trips.least(),
                reason: tunnel.reason,
            })
            .collect()
    }

    /// The nodes that are nearest to this one, for the answer to a [`Action::Question`] of another.
    pub fn near(&self) -> &[(Node, Reach)] {
        &self.near
    }

    /// Nodes that are reached without a tunnel.
    pub fn beside(&self) -> impl Iterator<Item = Node> {
        self.beside.iter().copied()
    }

    fn nearest(&self) -> Vec<(Node, Reach)> {
        let tunnels = self
            .tunnels
            .iter()
            .filter_map(|(node, tunnel)| Some((tunnel.round_trips.least()?, *node, tunnel.reach)));
        let others = self
            .candidates
            .iter()
            .filter(|(node, known)| known.routed && !self.tunnels.contains_key(node))
            .filter_map(|(node, known)| Some((known.round_trips.least()?, node, known.reach)));
        let mut near: Vec<_> = tunnels.chain(others).collect();
        near.sort_by_key(|(round_trip, node, _)| (*round_trip, *node));
        near.truncate(NAMED);
        near.into_iter()
            .map(|(_, node, reach)| (node, reach))
            .collect()
    }

    /// The nodes that are remembered: the driver says of each when it gets or loses its route.
    pub fn known(&self) -> impl Iterator<Item = (Node, bool)> {
        self.candidates
            .iter()
            .map(|(node, known)| (node, known.routed))
    }

    fn learn(&mut self, node: Node, reach: Reach, routed: bool) {
        if node != self.me {
            self.candidates.learn(node, reach, routed, &mut self.random);
        }
    }

    fn measured(&mut self, node: Node, round_trip: Duration, actions: &mut Vec<Action>) {
        let round_trip = round_trip.min(MAX_DISTANCE);
        if let Some(tunnel) = self.tunnels.get_mut(&node) {
            tunnel.round_trips.push(round_trip);
            if tunnel.round_trips.count() < SAMPLES {
                actions.push(Action::Measure { node });
            }
        }
        if let Some(known) = self.candidates.get_mut(node) {
            known.round_trips.push(round_trip);
            known.answered();
        }
        self.measured_in_round(node, actions);
    }

    fn told(&mut self, node: Node, told: Vec<(Node, Duration)>, near: Vec<(Node, Reach)>) {
        let distances = told
            .into_iter()
            .filter(|(destination, _)| self.round.asks_for(*destination))
            .map(|(destination, distance)| (destination, distance.min(MAX_DISTANCE)))
            .collect();
        if let Some(tunnel) = self.tunnels.get_mut(&node) {
            tunnel.distances = distances;
        } else if self.round.has(node) {
            if let Some(known) = self.candidates.get_mut(node) {
                known.distances = Some(distances);
            }
        } else {
            return;
        }
        for (hint, reach) in near.into_iter().take(NAMED) {
            self.hinted(hint, reach);
        }
    }

    fn hinted(&mut self, node: Node, reach: Reach) {
        if self.candidates.get(node).is_none() {
            self.learn(node, reach, true);
        }
        if let Some(known) = self.candidates.get_mut(node) {
            known.hinted |= known.round_trips.least().is_none();
        }
    }

    fn heard(&mut self, from: Node, message: Message, now: Time, actions: &mut Vec<Action>) {
        if from == self.me {
            return;
        }
        match message {
            Message::Walk(walk) => self.walked(from, walk, now, actions),
            Message::Ask { kind, reach, nonce } => {
                self.asked(from, kind, reach, nonce, now, actions);
            }
            Message::Grant { nonce, reach } => self.granted(from, nonce, reach, now, actions),
            Message::Refuse { nonce, refusal } => {
                self.refused(from, nonce, refusal, now, actions);
            }
            Message::Draining => self.peer_drains(from, now, actions),
            Message::Resumed => self.peer_resumes(from, now, actions),
        }
    }
}
