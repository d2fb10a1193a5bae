//! The way into the mesh: whoever is remembered is asked first, the registry when nobody answers.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use hextet_types::{Time, Way};

use super::{Action, Node, Turn};
use crate::{certificate::NodeId, letter::Said, topology::Stage};

/// Nodes that are written to at once.
const AT_ONCE: usize = 3;
/// How many may wait for their turn.
const MAX_WAITING: usize = 256;
/// How long their answers are waited for.
const PATIENCE: Duration = Duration::from_secs(1);
/// From one question to the registry to the next, while there is no tunnel; each time twice as long.
const REGISTRY: Duration = Duration::from_secs(2);
const MAX_DOUBLINGS: u32 = 5;
/// Nobody is written to again before that.
const REST: Duration = Duration::from_secs(10);
/// How often a node that anybody can reach tells the registry so.
const PRESENCE: Duration = Duration::from_secs(240);

/// How far it is.
#[derive(Clone, Debug)]
pub struct Entry {
    waiting: VecDeque<(NodeId, Way)>,
    /// By streams, while nobody answers otherwise.
    streams: VecDeque<(NodeId, Way)>,
    written: BTreeMap<(NodeId, Way), Time>,
    next: Time,
    asked: u32,
    registry: Time,
}

impl Entry {
    pub const fn new(now: Time) -> Entry {
        Entry {
            waiting: VecDeque::new(),
            streams: VecDeque::new(),
            written: BTreeMap::new(),
            next: now,
            asked: 0,
            registry: now,
        }
    }

    pub fn heard_of(&mut self, node: NodeId, at: Way, now: Time) {
        self.written.retain(|_, at| now < *at + REST);
        let queue = match at {
            Way::Udp(_) => &mut self.waiting,
            Way::Tls(_) => &mut self.streams,
        };
        let known = queue.contains(&(node, at)) || self.written.contains_key(&(node, at));
        if !known && queue.len() < MAX_WAITING {
            queue.push_back((node, at));
        }
    }

    pub fn due(&self) -> Option<Time> {
        Some(self.next)
    }
}

impl Node {
    /// Looks for others while there is no tunnel.
    pub(super) fn find_entry(&mut self, turn: &mut Turn) {
        if self.entry.next > turn.now && self.entry.waiting.is_empty() {
            return;
        }
        let peers = self.topology.peers();
        if peers.iter().any(|peer| peer.stage != Stage::Opening) {
            self.entry.waiting.clear();
            self.entry.streams.clear();
            self.entry.asked = 0;
            self.entry.next = self.entry.registry.max(turn.now + PATIENCE);
            if self.entry.registry <= turn.now {
                self.ask_registry(PRESENCE, turn);
            }
            return;
        }
        self.entry.next = turn.now + PATIENCE;
        let queue = match self.entry.waiting.is_empty() {
            true => &mut self.entry.streams,
            false => &mut self.entry.waiting,
        };
        let count = queue.len().min(AT_ONCE);
        let asked: Vec<_> = queue.drain(..count).collect();
        for (node, at) in &asked {
            self.entry.written.insert((*node, *at), turn.now);
            let _ = self.write((Some(*node), *at), None, Said::Introduce, turn);
            // What it answers says where we are.
            let said = Said::Ping(self.seen.card());
            let _ = self.write((Some(*node), *at), None, said, turn);
        }
        if asked.is_empty() && self.entry.registry <= turn.now {
            let doublings = self.entry.asked.min(MAX_DOUBLINGS);
            self.entry.asked += 1;
            self.ask_registry(REGISTRY * 2_u32.pow(doublings), turn);
        }
    }

    fn ask_registry(&mut self, again: Duration, turn: &mut Turn) {
        self.entry.registry = turn.now + again;
        turn.actions.push(Action::AskRegistry);
    }
}
