//! One node against a world that answers as a table says; two nodes that ask each other; anything in any order.

mod linking;
mod properties;
mod rounds;

use std::{collections::BTreeMap, time::Duration};

use super::*;

fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// A node whose probes and questions are answered by a table.
struct Bench {
    topology: Topology,
    now: Time,
    /// Round trips from here.
    round_trips: BTreeMap<u64, Duration>,
    /// How many probes a node still answers; all, if it is not named.
    answers: BTreeMap<u64, usize>,
    /// What nodes say of their distances.
    distances: BTreeMap<(u64, u64), Duration>,
    /// Whatever else was done, with when.
    done: Vec<(Time, Action)>,
    /// Whether asks are granted, and tunnels come up.
    grants: bool,
}

impl Bench {
    fn new(config: Config) -> Self {
        Bench {
            topology: Topology::new(Node(0), Reach::Public, config, 7, Time::ZERO),
            now: Time::ZERO,
            round_trips: BTreeMap::new(),
            answers: BTreeMap::new(),
            distances: BTreeMap::new(),
            done: Vec::new(),
            grants: true,
        }
    }

    fn learn(&mut self, node: u64, round_trip: u64) {
        self.round_trips.insert(node, millis(round_trip));
        self.tell(Event::Candidate {
            node: Node(node),
            reach: Reach::Public,
            routed: true,
        });
    }

    /// A tunnel that somebody else asked for.
    fn linked(&mut self, node: u64, round_trip: u64) {
        self.learn(node, round_trip);
        self.tell(Event::Heard {
            from: Node(node),
            message: Message::Ask {
                kind: Kind::Entry,
                reach: Reach::Public,
                nonce: 1,
            },
        });
        self.tell(Event::Up { node: Node(node) });
    }

    fn tell(&mut self, event: Event) {
        let actions = self.topology.handle(event, self.now);
        for action in actions {
            self.act(action);
        }
    }

    fn act(&mut self, action: Action) {
        match action {
            Action::Measure { node } => {
                let left = self.answers.entry(node.0).or_insert(usize::MAX);
                let answers = *left > 0;
                *left = left.saturating_sub(1);
                let round_trip = self.round_trips.get(&node.0).copied();
                if let Some(round_trip) = round_trip.filter(|_| answers) {
                    self.tell(Event::Measured { node, round_trip });
                }
            }
            Action::Question { node, destinations } => {
                let distances = destinations
                    .into_iter()
                    .filter_map(|to| Some((to, *self.distances.get(&(node.0, to.0))?)))
                    .collect();
                self.tell(Event::Distances {
                    node,
                    distances,
                    near: Vec::new(),
                });
            }
            Action::Send {
                to,
                message: Message::Ask { nonce, .. },
            } if self.grants => {
                let message = Message::Grant {
                    nonce,
                    reach: Reach::Public,
                };
                self.tell(Event::Heard { from: to, message });
            }
            Action::Open { node, .. } => {
                self.done.push((self.now, action));
                if self.grants {
                    self.tell(Event::Up { node });
                }
            }
            other => self.done.push((self.now, other)),
        }
    }

    fn run(&mut self, until: u64) {
        while self.topology.next_wakeup() <= Time::from_secs(until) {
            self.now = self.topology.next_wakeup();
            self.tell(Event::Timer);
        }
        self.now = Time::from_secs(until);
    }

    fn opened(&self, node: u64) -> Option<(Time, Reason)> {
        self.done.iter().find_map(|(at, action)| match action {
            Action::Open {
                node: opened,
                ours: true,
                reason,
            } if opened.0 == node => Some((*at, *reason)),
            _ => None,
        })
    }

    fn peer(&self, node: u64) -> Option<Peer> {
        self.topology.peers().into_iter().find(|p| p.node.0 == node)
    }
}

/// A configuration with tunnels by gain only.
fn only_gain() -> Config {
    Config {
        near: false,
        gain: 1,
        asked: 0,
        random: 0,
        least: 0,
        ..Config::default()
    }
}
