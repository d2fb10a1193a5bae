//! The simulator: nodes that run the real state machine, messages that take their time, tunnels that come up when both ends want them.
//!
//! Assumed of the rest of a mesh: Babel knows all nodes of the own piece, and follows a change within a refresh; a dead tunnel is noticed by probes
//! (max(300 ms, 3 round trips)) once something is sent through it, at the latest by the Hello of each 4 s; a handshake takes a round trip and a half.

use std::{
    cmp::{Ordering, Reverse},
    collections::{BTreeMap, BTreeSet, BinaryHeap},
    sync::Arc,
    time::Duration,
};

use hextet_mesh::topology::{Action, Config, Event, Message, Node, Reach, Reason, Topology};
use hextet_types::Time;

use crate::{
    chance::{Chance, chance_of},
    graph::{self, FAR, Links},
    map::Map,
    re6st::Re6st,
    weather::{CALM, Weather},
};

/// For each node destinations and the weight of their traffic.
pub type Traffic = Vec<Vec<(usize, f64)>>;

/// How much a draining tunnel's cost is multiplied.
const DRAIN: u32 = 4096;

/// Distances are computed anew so often, when something has changed.
const DISTANCES: Duration = Duration::from_secs(30);

/// From one Hello to the next, where nothing else is sent.
const HELLO: Duration = Duration::from_secs(4);

/// By which rule nodes choose.
#[derive(Clone, Debug, PartialEq)]
pub enum Rule {
    /// Ours.
    Hextet(Box<Config>),
    /// re6stnet's, with so many outgoing tunnels.
    Re6st(usize),
}

#[derive(Clone, Debug)]
enum Agent {
    Hextet(Box<Topology>),
    Re6st(Box<Re6st>),
}

impl Agent {
    fn handle(&mut self, event: Event, now: Time) -> Vec<Action> {
        match self {
            Agent::Hextet(topology) => topology.handle(event, now),
            Agent::Re6st(re6st) => re6st.handle(event, now),
        }
    }

    fn next_wakeup(&self, now: Time) -> Time {
        match self {
            Agent::Hextet(topology) => topology.next_wakeup(),
            Agent::Re6st(_) => now + Duration::from_secs(5),
        }
    }
}

#[derive(Clone, Debug)]
enum What {
    Deliver(usize, Event),
    Wake(usize),
    LinkUp(usize, usize),
    /// A node's driver looks at Babel's table and counters.
    Look(usize),
    Routes(usize, usize),
    Refresh,
}

#[derive(Clone, Debug)]
struct Item {
    at: Time,
    order: u64,
    what: What,
}

impl PartialEq for Item {
    fn eq(&self, other: &Self) -> bool {
        (self.at, self.order) == (other.at, other.order)
    }
}
impl Eq for Item {}
impl PartialOrd for Item {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Item {
    fn cmp(&self, other: &Self) -> Ordering {
        (self.at, self.order).cmp(&(other.at, other.order))
    }
}

/// What was counted.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tally {
    /// Tunnels that were asked for because of latency.
    pub chosen: usize,
    /// Tunnels that were asked for by walks.
    pub walked: usize,
    /// Tunnels that were asked for to get in, or in again.
    pub entered: usize,
    /// Tunnels that were drained.
    pub drained: usize,
    /// Drained tunnels that had to stay.
    pub resumed: usize,
    /// Probes and questions to candidates and other ends.
    pub probes: usize,
}

/// All nodes, at a point of simulated time.
#[derive(Clone, Debug)]
pub struct World {
    map: Arc<Map>,
    weather: Weather,
    now: Time,
    agents: Vec<Option<Agent>>,
    alive: Vec<bool>,
    wakes: Vec<Option<Time>>,
    opened: BTreeSet<(usize, usize)>,
    /// Tunnels that are up, lower number first, and whether they drain.
    tunnels: BTreeMap<(usize, usize), bool>,
    queue: BinaryHeap<Reverse<Item>>,
    order: u64,
    chance: Chance,
    links: Links,
    distances: Arc<Vec<u32>>,
    computed: Option<Time>,
    changed: bool,
    stale: bool,
    pieces: Vec<Option<usize>>,
    traffic: Option<Arc<Traffic>>,
    /// What was counted since somebody last set it to nothing.
    pub tally: Tally,
}

impl World {
    /// Nodes that start within a minute, each knowing eight public ones by a list that a registry gives out.
    pub fn new(map: Arc<Map>, rule: &Rule, seed: u64) -> Self {
        let nodes = map.len();
        let mut world = World {
            map,
            weather: CALM,
            now: Time::ZERO,
            agents: vec![None; nodes],
            alive: vec![true; nodes],
            wakes: vec![None; nodes],
            opened: BTreeSet::new(),
            tunnels: BTreeMap::new(),
            queue: BinaryHeap::new(),
            order: 0,
            chance: chance_of(&[seed, 5]),
            links: vec![Vec::new(); nodes],
            distances: Arc::new(vec![FAR; nodes * nodes]),
            computed: None,
            changed: false,
            stale: true,
            pieces: vec![None; nodes],
            traffic: None,
            tally: Tally::default(),
        };
        for node in 0..nodes {
            let start = world.now + Duration::from_micros(world.chance.below(60_000_000) as u64);
            world.start(node, rule, seed, start);
        }
        world.push(Time::from_secs(1), What::Refresh);
        world
    }

    fn start(&mut self, node: usize, rule: &Rule, seed: u64, start: Time) {
        let me = Node(node as u64);
        let reach = self.map.reach[node];
        self.agents[node] = Some(match rule {
            Rule::Hextet(config) => {
                let own = chance_of(&[seed, 6, node as u64]).bits();
                Agent::Hextet(Box::new(Topology::new(
                    me,
                    reach,
                    config.as_ref().clone(),
                    own,
                    start,
                )))
            }
            Rule::Re6st(outgoing) => Agent::Re6st(Box::new(Re6st::new(me, *outgoing, start))),
        });
        for _ in 0..8 {
            let known = self.public_node();
            let event = Event::Candidate {
                node: Node(known as u64),
                reach: self.map.reach[known],
                routed: false,
            };
            if known != node {
                self.push(start, What::Deliver(node, event));
            }
        }
        self.push(start + Duration::from_millis(1), What::Look(node));
        self.wakes[node] = Some(start + Duration::from_millis(1));
        self.push(start + Duration::from_millis(1), What::Wake(node));
    }

    /// One of those that a registry hands out.
    fn public_node(&mut self) -> usize {
        let mut node = self.chance.below(self.map.len());
        for _ in 0..1000 {
            if self.map.reach[node] == Reach::Public {
                break;
            }
            node = self.chance.below(self.map.len());
        }
        node
    }

    /// From here on round trips change like that.
    pub fn set_weather(&mut self, weather: Weather) {
        self.weather = weather;
        self.changed = true;
    }

    /// From here on nodes see where their traffic goes.
    pub fn set_traffic(&mut self, traffic: Arc<Traffic>) {
        self.traffic = Some(traffic);
    }

    /// Now.
    pub fn now(&self) -> Time {
        self.now
    }

    /// The map.
    pub fn map(&self) -> &Map {
        &self.map
    }

    /// Who is alive.
    pub fn alive(&self) -> &[bool] {
        &self.alive
    }

    /// A node's own view, where it runs our rule.
    pub fn topology(&self, node: usize) -> Option<&Topology> {
        match self.agents.get(node)? {
            Some(Agent::Hextet(topology)) => Some(topology),
            _ => None,
        }
    }

    /// Tunnels that are up, with costs in microseconds.
    pub fn graph(&self) -> Links {
        let mut links: Links = vec![Vec::new(); self.map.len()];
        for ((one, other), draining) in &self.tunnels {
            let mut cost = self.weather.micros(&self.map, *one, *other, self.now);
            if *draining {
                cost = cost.saturating_mul(DRAIN);
            }
            links[*one].push((*other, cost));
            links[*other].push((*one, cost));
        }
        links
    }

    /// Lets simulated time pass.
    pub fn run(&mut self, until: Time) {
        while let Some(Reverse(item)) = self.queue.peek() {
            if item.at > until {
                break;
            }
            let Some(Reverse(item)) = self.queue.pop() else {
                break;
            };
            self.now = item.at;
            self.step(item.what);
        }
        self.now = until;
    }

    /// These are gone at once, without a word.
    pub fn kill(&mut self, victims: &[usize]) {
        for victim in victims {
            self.alive[*victim] = false;
        }
        let alive = &self.alive;
        self.opened.retain(|(by, _)| alive[*by]);
        let dead: Vec<(usize, usize)> = self
            .tunnels
            .keys()
            .filter(|(one, other)| !alive[*one] || !alive[*other])
            .copied()
            .collect();
        for (one, other) in dead {
            self.tunnels.remove(&(one, other));
            for (left, gone) in [(one, other), (other, one)] {
                if self.alive[left] {
                    let hello = HELLO.mul_f64(self.chance.unit());
                    let probes = self.map.round_trip(left, gone) * 3;
                    let after = hello + probes.max(Duration::from_millis(300));
                    let event = Event::Down {
                        node: Node(gone as u64),
                    };
                    self.push(self.now + after, What::Deliver(left, event));
                }
            }
        }
        self.changed = true;
    }

    fn push(&mut self, at: Time, what: What) {
        self.order += 1;
        let order = self.order;
        self.queue.push(Reverse(Item { at, order, what }));
    }

    fn step(&mut self, what: What) {
        match what {
            What::Deliver(node, event) => self.deliver(node, event),
            What::Wake(node) => {
                if self.wakes[node] == Some(self.now) {
                    self.wakes[node] = None;
                    self.count_for_refresh(node);
                    self.deliver(node, Event::Timer);
                }
            }
            What::LinkUp(one, other) => self.link_up(one, other),
            What::Look(node) => self.look(node),
            What::Routes(node, peer) => self.count_routes(node, peer),
            What::Refresh => self.refresh(),
        }
    }

    fn deliver(&mut self, node: usize, event: Event) {
        if !self.alive[node] {
            return;
        }
        if let Event::Down { node: gone } = &event {
            self.opened.remove(&(node, gone.0 as usize));
        }
        let quiet = matches!(event, Event::Measured { .. } | Event::Distances { .. });
        let Some(agent) = self.agents[node].as_mut() else {
            return;
        };
        let actions = agent.handle(event, self.now);
        let next = agent.next_wakeup(self.now).max(self.now);
        if !quiet && self.wakes[node].is_none_or(|wake| next < wake) {
            self.wakes[node] = Some(next);
            self.push(next, What::Wake(node));
        }
        for action in actions {
            self.act(node, action);
        }
    }

    fn act(&mut self, node: usize, action: Action) {
        match action {
            Action::Measure { node: peer } => self.measure(node, peer.0 as usize),
            Action::Question {
                node: peer,
                destinations,
            } => {
                self.question(node, peer.0 as usize, &destinations);
            }
            Action::Send { to, message } => self.send(node, to.0 as usize, message),
            Action::Open {
                node: peer,
                ours,
                reason,
            } => {
                self.count(ours, reason);
                self.open(node, peer.0 as usize);
            }
            Action::Drain { node: peer, .. } => self.drain(node, peer.0 as usize),
            Action::Resume { node: peer, .. } => {
                self.tally.resumed += 1;
                if let Some(draining) = self.tunnels.get_mut(&pair(node, peer.0 as usize)) {
                    *draining = false;
                }
            }
            Action::Close { node: peer, .. } => self.close(node, peer.0 as usize),
        }
    }

    fn count(&mut self, ours: bool, reason: Reason) {
        match reason {
            Reason::Near { .. } | Reason::Gain { .. } if ours => self.tally.chosen += 1,
            Reason::Random { .. } if ours => self.tally.walked += 1,
            Reason::Entry | Reason::Rejoin if ours => self.tally.entered += 1,
            _ => {}
        }
    }

    fn meets(&self, one: usize, other: usize) -> bool {
        self.alive[one] && self.alive[other] && self.map.reach[one].meets(self.map.reach[other])
    }

    fn measure(&mut self, node: usize, peer: usize) {
        self.tally.probes += 1;
        if self.meets(node, peer) {
            let round_trip =
                self.weather
                    .probe(&self.map, (node, peer), self.now, &mut self.chance);
            let event = Event::Measured {
                node: Node(peer as u64),
                round_trip,
            };
            self.push(self.now + round_trip, What::Deliver(node, event));
        }
    }

    fn question(&mut self, node: usize, peer: usize, destinations: &[Node]) {
        self.tally.probes += 1;
        let Some(topology) = self.topology(peer).filter(|_| self.meets(node, peer)) else {
            return;
        };
        let near = topology.near().to_vec();
        let row = peer * self.map.len();
        let distances = destinations
            .iter()
            .filter_map(|to| {
                let cost = *self.distances.get(row + to.0 as usize)?;
                let known = cost != FAR && cost < FAR / 2;
                known.then(|| (*to, Duration::from_micros(cost.into())))
            })
            .collect();
        let event = Event::Distances {
            node: Node(peer as u64),
            distances,
            near,
        };
        let answer = self.now + self.map.round_trip(node, peer);
        self.push(answer, What::Deliver(node, event));
    }

    /// By the mesh where there is a route, else straight to a public node.
    fn send(&mut self, from: usize, to: usize, message: Message) {
        let routed = self.pieces[from].is_some() && self.pieces[from] == self.pieces[to];
        let linked = self.tunnels.contains_key(&pair(from, to));
        let asked = matches!(message, Message::Grant { .. } | Message::Refuse { .. });
        if routed || linked || asked || self.map.reach[to] == Reach::Public {
            let event = Event::Heard {
                from: Node(from as u64),
                message,
            };
            let way = self.map.round_trip(from, to).mul_f64(0.6);
            self.push(self.now + way, What::Deliver(to, event));
        }
    }

    fn open(&mut self, node: usize, peer: usize) {
        self.opened.insert((node, peer));
        if self.opened.contains(&(peer, node)) && self.meets(node, peer) {
            let handshake = self.map.round_trip(node, peer).mul_f64(1.5);
            self.push(self.now + handshake, What::LinkUp(node, peer));
        }
    }

    fn link_up(&mut self, one: usize, other: usize) {
        let both = self.opened.contains(&(one, other)) && self.opened.contains(&(other, one));
        if !both || !self.alive[one] || !self.alive[other] {
            return;
        }
        if self.tunnels.insert(pair(one, other), false).is_none() {
            self.changed = true;
            for (node, peer) in [(one, other), (other, one)] {
                let event = Event::Up {
                    node: Node(peer as u64),
                };
                self.deliver(node, event);
            }
        }
    }

    fn drain(&mut self, node: usize, peer: usize) {
        if let Some(draining) = self.tunnels.get_mut(&pair(node, peer)) {
            if !*draining {
                self.tally.drained += 1;
            }
            *draining = true;
            self.changed = true;
            self.push(self.now + Duration::from_secs(10), What::Routes(node, peer));
        }
    }

    fn close(&mut self, node: usize, peer: usize) {
        self.opened.remove(&(node, peer));
        let linked = self.tunnels.remove(&pair(node, peer)).is_some();
        if linked || self.opened.contains(&(peer, node)) {
            self.changed = true;
            let event = Event::Down {
                node: Node(node as u64),
            };
            let way = self.map.round_trip(node, peer).mul_f64(0.6);
            self.push(self.now + way, What::Deliver(peer, event));
        }
    }

    fn count_routes(&mut self, node: usize, peer: usize) {
        if self.tunnels.get(&pair(node, peer)) != Some(&true) {
            return;
        }
        let (_, by) = graph::paths(&self.graph(), node);
        let count = by.iter().filter(|first| **first == peer).count();
        let event = Event::Routes {
            node: Node(peer as u64),
            count,
        };
        self.deliver(node, event);
        self.push(self.now + Duration::from_secs(10), What::Routes(node, peer));
    }

    /// re6stnet looks at Babel's routes when it is about to replace a tunnel.
    fn count_for_refresh(&mut self, node: usize) {
        match &self.agents[node] {
            Some(Agent::Re6st(re6st)) if re6st.refresh() <= self.now => {}
            _ => return,
        }
        let (_, by) = graph::paths(&self.links, node);
        for (peer, _) in self.links[node].clone() {
            let count = by.iter().filter(|first| **first == peer).count();
            let event = Event::Routes {
                node: Node(peer as u64),
                count,
            };
            self.deliver(node, event);
        }
    }

    /// Some nodes out of Babel's table, and where traffic went.
    fn look(&mut self, node: usize) {
        if !self.alive[node] {
            return;
        }
        let (every, count) = match self.agents[node] {
            Some(Agent::Re6st(_)) => (5, 1),
            _ => (30, 8),
        };
        for _ in 0..count {
            let known = self.chance.below(self.map.len());
            let mine = self.pieces[node];
            if known != node && mine.is_some() && mine == self.pieces[known] {
                self.tell(node, known, true);
            }
        }
        self.ask_registry(node);
        if let Some(traffic) = self.traffic.clone() {
            for (destination, weight) in &traffic[node] {
                let event = Event::Traffic {
                    destination: Node(*destination as u64),
                    octets: (weight * 1e6) as u64,
                };
                self.deliver(node, event);
            }
        }
        self.push(self.now + Duration::from_secs(every), What::Look(node));
    }

    /// re6stnet: the registry's node is the first. Who has no route to it asks it once a minute for a node to begin with.
    fn ask_registry(&mut self, node: usize) {
        let lost = self.pieces[0].is_none() || self.pieces[0] != self.pieces[node];
        let re6st = matches!(self.agents[node], Some(Agent::Re6st(_)));
        if re6st && lost && node != 0 && self.alive[0] && self.chance.below(12) == 0 {
            let known = self.chance.below(self.map.len());
            if self.pieces[known] == self.pieces[0] && known != node {
                self.tell(node, known, false);
            }
        }
    }

    fn tell(&mut self, node: usize, known: usize, routed: bool) {
        let event = Event::Candidate {
            node: Node(known as u64),
            reach: self.map.reach[known],
            routed,
        };
        self.deliver(node, event);
    }

    fn refresh(&mut self) {
        self.push(self.now + Duration::from_secs(1), What::Refresh);
        if self.changed {
            self.changed = false;
            self.links = self.graph();
            (self.pieces, _) = graph::pieces(&self.links, &self.alive);
            self.tell_routes();
            self.stale = true;
        }
        let due = self.computed.is_none_or(|at| self.now - at >= DISTANCES);
        if due && (self.stale || self.weather.detours > 0.0) {
            self.computed = Some(self.now);
            self.stale = false;
            self.links = self.graph();
            let rows = (0..self.map.len()).map(|node| graph::paths(&self.links, node).0);
            self.distances = Arc::new(rows.flatten().collect());
        }
    }

    /// Each node's driver says which of the nodes that it remembers have a route.
    fn tell_routes(&mut self) {
        for node in 0..self.map.len() {
            let Some(topology) = self.topology(node).filter(|_| self.alive[node]) else {
                continue;
            };
            let news: Vec<(usize, bool)> = topology
                .known()
                .map(|(known, before)| {
                    let piece = self.pieces[known.0 as usize];
                    (
                        known.0 as usize,
                        before,
                        piece.is_some() && piece == self.pieces[node],
                    )
                })
                .filter(|(_, before, now)| before != now)
                .map(|(known, _, now)| (known, now))
                .collect();
            for (known, routed) in news {
                self.tell(node, known, routed);
            }
        }
    }
}

fn pair(one: usize, other: usize) -> (usize, usize) {
    (one.min(other), one.max(other))
}
