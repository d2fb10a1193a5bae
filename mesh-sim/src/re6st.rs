//! re6stnet's rule, for comparison: ten outgoing tunnels to nodes by chance, and each five minutes the one that carries the fewest routes gives way to another.
//!
//! It speaks by the same events and actions. What it knows of the mesh is Babel's table, of which one node by chance is handed to it each five seconds;
//! without a route to the registry it is given one by that, each minute.

use std::{collections::BTreeMap, time::Duration};

use hextet_mesh::topology::{Action, Event, Gain, Kind, Message, Node, Reach, Reason, Refusal};
use hextet_types::Time;

/// Outgoing tunnels, where nobody says otherwise (`client-count`); twice as many may come in (`max-clients`).
pub const OUTGOING: usize = 10;

/// From one replacement to the next (`tunnel-refresh`).
const REFRESH: Duration = Duration::from_secs(300);

const OPENING: Duration = Duration::from_secs(10);

#[derive(Clone, Debug)]
struct Tunnel {
    ours: bool,
    up: bool,
    draining: bool,
    since: Time,
    routes: usize,
}

/// One node.
#[derive(Clone, Debug)]
pub struct Re6st {
    me: Node,
    outgoing: usize,
    tunnels: BTreeMap<Node, Tunnel>,
    asked: Option<(Node, u32, Time)>,
    nonce: u32,
    refresh: Time,
}

impl Re6st {
    /// A node without tunnels.
    pub fn new(me: Node, outgoing: usize, now: Time) -> Self {
        let refresh = now + REFRESH;
        Re6st {
            me,
            outgoing,
            tunnels: BTreeMap::new(),
            asked: None,
            nonce: 0,
            refresh,
        }
    }

    /// When it looks for the tunnel with the fewest routes.
    pub fn refresh(&self) -> Time {
        self.refresh
    }

    /// What follows from an event.
    pub fn handle(&mut self, event: Event, now: Time) -> Vec<Action> {
        match event {
            Event::Candidate { node, routed, .. } => self.candidate(node, routed, now),
            Event::Up { node } => {
                if let Some(tunnel) = self.tunnels.get_mut(&node) {
                    tunnel.up = true;
                }
                Vec::new()
            }
            Event::Down { node } => {
                self.tunnels.remove(&node);
                Vec::new()
            }
            Event::Routes { node, count } => self.routes(node, count),
            Event::Heard { from, message } => self.heard(from, message, now),
            Event::Timer => self.wake(now),
            // Its tunnels follow from nothing else.
            _ => Vec::new(),
        }
    }

    fn count(&self, ours: bool) -> usize {
        let tunnels = self.tunnels.values();
        tunnels.filter(|t| t.ours == ours && !t.draining).count()
    }

    fn candidate(&mut self, node: Node, routed: bool, now: Time) -> Vec<Action> {
        let waits = self
            .asked
            .is_some_and(|(_, _, since)| now.saturating_since(since) < OPENING);
        if waits
            || self.tunnels.contains_key(&node)
            || (routed && self.count(true) >= self.outgoing)
        {
            return Vec::new();
        }
        self.nonce = self.nonce.wrapping_add(1);
        let nonce = self.nonce;
        self.asked = Some((node, nonce, now));
        let message = Message::Ask {
            kind: Kind::Random,
            reach: Reach::Public,
            nonce,
        };
        vec![Action::Send { to: node, message }]
    }

    fn heard(&mut self, from: Node, message: Message, now: Time) -> Vec<Action> {
        match message {
            Message::Ask { nonce, .. } => self.ask(from, nonce, now),
            Message::Grant { nonce, .. }
                if self
                    .asked
                    .is_some_and(|(to, asked, _)| (to, asked) == (from, nonce)) =>
            {
                self.asked = None;
                self.open(from, true, now)
            }
            Message::Refuse { nonce, .. } => {
                if self
                    .asked
                    .is_some_and(|(to, asked, _)| (to, asked) == (from, nonce))
                {
                    self.asked = None;
                }
                Vec::new()
            }
            _ => Vec::new(),
        }
    }

    fn ask(&mut self, from: Node, nonce: u32, now: Time) -> Vec<Action> {
        let crossed = self.asked.is_some_and(|(to, ..)| to == from);
        let refusal = if self.tunnels.contains_key(&from) {
            Some(Refusal::Already)
        } else if crossed && self.me < from {
            Some(Refusal::Crossed)
        } else if self.count(false) >= 2 * self.outgoing {
            Some(Refusal::Full)
        } else {
            None
        };
        if let Some(refusal) = refusal {
            let message = Message::Refuse { nonce, refusal };
            return vec![Action::Send { to: from, message }];
        }
        if crossed {
            self.asked = None;
        }
        let message = Message::Grant {
            nonce,
            reach: Reach::Public,
        };
        let mut actions = vec![Action::Send { to: from, message }];
        actions.extend(self.open(from, false, now));
        actions
    }

    fn open(&mut self, node: Node, ours: bool, since: Time) -> Vec<Action> {
        if self.tunnels.contains_key(&node) {
            return Vec::new();
        }
        let tunnel = Tunnel {
            ours,
            up: false,
            draining: false,
            since,
            routes: 0,
        };
        self.tunnels.insert(node, tunnel);
        let reason = Reason::Random {
            have: self.count(true),
            want: self.outgoing,
        };
        vec![Action::Open { node, ours, reason }]
    }

    fn routes(&mut self, node: Node, count: usize) -> Vec<Action> {
        let Some(tunnel) = self.tunnels.get_mut(&node) else {
            return Vec::new();
        };
        tunnel.routes = count;
        if !tunnel.draining {
            return Vec::new();
        }
        self.tunnels.remove(&node);
        let reason = Reason::Drained;
        vec![Action::Close { node, reason }]
    }

    fn wake(&mut self, now: Time) -> Vec<Action> {
        let mut actions = Vec::new();
        let late: Vec<Node> = self
            .tunnels
            .iter()
            .filter(|(_, t)| !t.up && now.saturating_since(t.since) >= OPENING)
            .map(|(node, _)| *node)
            .collect();
        for node in late {
            self.tunnels.remove(&node);
            let reason = Reason::TimedOut;
            actions.push(Action::Close { node, reason });
        }
        if now < self.refresh {
            return actions;
        }
        self.refresh = now + REFRESH;
        if self.count(true) < self.outgoing {
            return actions;
        }
        let own = self.tunnels.iter_mut();
        let own = own.filter(|(_, t)| t.ours && t.up && !t.draining);
        if let Some((node, tunnel)) = own.min_by_key(|(node, t)| (t.routes, **node)) {
            tunnel.draining = true;
            let gain = Gain::default();
            let reason = Reason::Gain {
                gain,
                instead: None,
            };
            actions.push(Action::Drain {
                node: *node,
                reason,
            });
        }
        actions
    }
}
