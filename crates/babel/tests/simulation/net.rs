//! Nodes, the links between them, and a clock.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv6Addr},
    time::Duration,
};

use hextet_babel::{
    Action, Config, Engine, Event, GROUP, Link, LinkId, Start, Way,
    engine::Refusal,
    mac::{Algorithm, Key},
    number::{Interval, Metric, RouterId},
    packet::Destination,
};
use hextet_types::Time;

/// Nobody needs so many packets within a second.
const STORM: u64 = 5_000;
/// A node that has restarted has forgotten what it told of others' routes: so long after that, there may be loops.
const AFTERMATH: Duration = Duration::from_secs(60);
/// Those, and loops of destinations that have moved, last no longer.
const PASSING: Duration = Duration::from_secs(10);
/// A node that resumes keeps the ways of its earlier run until it is settled, and its neighbours what it told: of a destination whose origin is
/// lost meanwhile, so long.
const RESUMING: Duration = Duration::from_secs(30);

/// What a kernel answers, and how.
const ECHO_REQUEST: [u8; 5] = *b"echo?";
const ECHO_REPLY: [u8; 5] = *b"echo!";

/// A splitmix64 sequence.
pub struct Random(pub u64);

impl Random {
    pub fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, end: u64) -> u64 {
        self.draw() % end
    }

    pub fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }
}

/// A link between some nodes.
pub struct Wire {
    pub ends: Vec<usize>,
    pub delay: Duration,
    /// Of a thousand packets.
    pub loss: u64,
    pub up: bool,
    /// The ends that want to be rid of it.
    pub drained: BTreeSet<usize>,
}

pub struct Node {
    /// None while it is dead.
    engine: Option<Engine>,
    /// Its kernel forwards, whether its program runs or not.
    forwards: bool,
    /// Its routes outlive its program.
    pub lasting: bool,
    /// What was told anew since the program began, while routes of an earlier run are there.
    fresh: Option<BTreeSet<Destination>>,
    starts: u64,
    ways: BTreeMap<Destination, Way>,
    own: BTreeMap<Destination, Metric>,
}

#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Flight {
    at: Time,
    order: u64,
    node: usize,
    wire: usize,
    from: Ipv6Addr,
    to: Ipv6Addr,
    octets: Vec<u8>,
}

pub struct Net {
    pub random: Random,
    pub wires: Vec<Wire>,
    pub nodes: Vec<Node>,
    pub now: Time,
    pub packets: u64,
    pub loops: u64,
    pub refused: u64,
    hello: Interval,
    update: Interval,
    /// No way may be lost any more.
    pub is_steady: bool,
    /// If there are any, somebody sends packets again, and others that nobody has sent.
    keys: Vec<Key>,
    flights: BTreeSet<Flight>,
    wakeups: BTreeSet<(Time, usize)>,
    /// Destinations that have had more than one origin.
    moved: BTreeSet<Destination>,
    /// When a node resumed last.
    resumed: Option<Time>,
    restarted: Time,
    looping: BTreeMap<Destination, Time>,
    /// The present one, and how many packets there had been at its begin.
    second: (u64, u64),
}

pub fn link_id(wire: usize) -> LinkId {
    LinkId(u32::try_from(wire).unwrap() + 1)
}

fn addr(node: usize) -> Ipv6Addr {
    Ipv6Addr::from((0xfe80_u128 << 112) | (node as u128 + 1))
}

impl Net {
    pub fn new(seed: u64, nodes: usize, [hello, update]: [Interval; 2]) -> Net {
        let node = || Node {
            engine: None,
            forwards: false,
            lasting: false,
            fresh: None,
            starts: 0,
            ways: BTreeMap::new(),
            own: BTreeMap::new(),
        };
        Net {
            random: Random(seed),
            wires: Vec::new(),
            nodes: (0..nodes).map(|_| node()).collect(),
            now: Time::from_secs(1),
            packets: 0,
            loops: 0,
            refused: 0,
            hello,
            update,
            is_steady: false,
            keys: Vec::new(),
            flights: BTreeSet::new(),
            wakeups: BTreeSet::new(),
            moved: BTreeSet::new(),
            resumed: None,
            restarted: Time::ZERO,
            looping: BTreeMap::new(),
            second: (0, 0),
        }
    }

    /// Packets are signed, and there is somebody to sign them against.
    pub fn is_watched(&mut self) {
        let keys = [Algorithm::HmacSha256, Algorithm::Blake2s128];
        self.keys = keys.map(|of| Key::new(of, vec![7; 32]).unwrap()).into();
    }

    pub fn is_alive(&self, node: usize) -> bool {
        self.nodes[node].engine.is_some()
    }

    pub fn start(&mut self, node: usize) {
        self.nodes[node].starts += 1;
        let starts = self.nodes[node].starts;
        let resumes = self.nodes[node].forwards && self.nodes[node].lasting;
        if resumes {
            // Of its own destinations there are two origins for a moment.
            self.moved.extend(self.own(node));
            self.nodes[node].fresh = Some(BTreeSet::new());
            self.resumed = Some(self.now);
        } else if starts > 1 {
            self.restarted = self.now;
        }
        self.nodes[node].forwards = true;
        let name = ((node as u64 + 1) << 32) | starts;
        let router_id = RouterId::try_from(name.to_be_bytes()).unwrap();
        let mut seed = [0; 32];
        seed[..8].copy_from_slice(&self.random.draw().to_be_bytes());
        let mut config = Config::new(router_id, seed);
        let start = if resumes {
            Start::Resumed
        } else {
            Start::Fresh
        };
        config.lasting = self.nodes[node].lasting.then_some(start);
        self.nodes[node].engine = Some(Engine::new(config));
        for (to, metric) in self.nodes[node].own.clone() {
            self.event(node, Event::Originate(to, metric));
        }
        for wire in 0..self.wires.len() {
            if self.wires[wire].ends.contains(&node) {
                self.link_up(node, wire);
            }
        }
    }

    /// It is gone, and its routes with it: nobody is told.
    pub fn kill(&mut self, node: usize) {
        self.nodes[node].ways.clear();
        self.nodes[node].forwards = false;
        self.kill_program(node);
    }

    /// Its program is gone, and its kernel goes on.
    pub fn kill_program(&mut self, node: usize) {
        self.nodes[node].engine = None;
        self.nodes[node].fresh = None;
        self.wakeups.retain(|(_, of)| *of != node);
    }

    pub fn link_up(&mut self, node: usize, wire: usize) {
        let link = Link {
            hello: self.hello,
            update: self.update,
            keys: self.keys.clone(),
            pairs: None,
            split_horizon: self.wires[wire].ends.len() == 2,
            ..Link::tunnel(addr(node))
        };
        self.event(node, Event::LinkUp(link_id(wire), link));
        self.drain(node, wire);
    }

    /// Says what the link costs besides.
    pub fn drain(&mut self, node: usize, wire: usize) {
        let is_drained = self.wires[wire].drained.contains(&node);
        let extra = if is_drained {
            Metric::DRAIN
        } else {
            Metric::ZERO
        };
        self.event(node, Event::LinkCost(link_id(wire), extra));
    }

    pub fn originate(&mut self, node: usize, to: Destination, metric: Metric) {
        if self.nodes.iter().any(|other| other.own.contains_key(&to)) {
            self.moved.insert(to);
        }
        self.nodes[node].own.insert(to, metric);
        self.event(node, Event::Originate(to, metric));
    }

    pub fn withdraw(&mut self, node: usize, to: Destination) {
        self.nodes[node].own.remove(&to);
        self.moved.insert(to);
        self.event(node, Event::Withdraw(to));
    }

    pub fn own(&self, node: usize) -> Vec<Destination> {
        self.nodes[node].own.keys().copied().collect()
    }

    pub fn event(&mut self, node: usize, event: Event) {
        let Some(engine) = &mut self.nodes[node].engine else {
            return;
        };
        let actions = engine.handle(event, self.now);
        let wakeup = engine.next_wakeup();
        self.wakeups.retain(|(_, of)| *of != node);
        self.wakeups.extend(wakeup.map(|at| (at, node)));
        for action in actions {
            match action {
                Action::Send { link, to, octets } => self.send(node, link, to, octets),
                Action::Route(to, way) => self.route(node, to, way),
                Action::Refused(Refusal::Forged(_) | Refusal::Stale(_))
                    if !self.keys.is_empty() =>
                {
                    self.refused += 1;
                }
                Action::Reach(..) => {}
                Action::Refused(refusal) => panic!("node {node}: {refusal}"),
            }
        }
        self.ping(node);
        self.end_resuming(node);
    }

    /// What an earlier run knew and this one does not is gone, once it has had time to find out.
    fn end_resuming(&mut self, node: usize) {
        let node = &mut self.nodes[node];
        let is_over = node.engine.as_ref().is_some_and(|e| !e.is_resuming());
        if let Some(fresh) = node.fresh.take_if(|_| is_over) {
            let lost = node.ways.keys().find(|to| !fresh.contains(to));
            assert!(
                !self.is_steady || lost.is_none(),
                "{}: {lost:?} is not taken up again",
                self.now
            );
            node.ways.retain(|to, _| fresh.contains(to));
        }
    }

    fn ping(&mut self, node: usize) {
        let pings = self.nodes[node].engine.as_mut().map(Engine::pings);
        for peer in pings.unwrap_or_default() {
            self.send(node, peer.link, peer.addr, ECHO_REQUEST.to_vec());
        }
    }

    /// Whoever holds the tunnel says that something was sent, or came.
    fn traffic(&mut self, node: usize, wire: usize, sent: bool) {
        let is_watched = self.nodes[node].lasting && self.wires[wire].ends.len() == 2;
        if is_watched {
            let (sent, heard) = match sent {
                true => (Some(self.now), None),
                false => (None, Some(self.now)),
            };
            self.event(node, Event::Traffic(link_id(wire), sent, heard));
        }
    }

    fn send(&mut self, node: usize, link: LinkId, to: Ipv6Addr, octets: Vec<u8>) {
        let index = usize::try_from(link.0).unwrap() - 1;
        self.packets += 1;
        let wire = &self.wires[index];
        let is_echo = octets[..] == ECHO_REQUEST || octets[..] == ECHO_REPLY;
        let others = wire.ends.iter().filter(|end| **end != node);
        let reached = others.filter(|end| to == GROUP || addr(**end) == to);
        let (delay, loss, up) = (wire.delay, wire.loss, wire.up);
        for end in reached.copied().collect::<Vec<_>>() {
            if !up || self.random.below(1_000) < loss {
                continue;
            }
            // Up to half as long again: later ones overtake it.
            let micros = u64::try_from(delay.as_micros()).unwrap();
            let more = if loss == 0 {
                0
            } else {
                self.random.below(micros / 2 + 1)
            };
            let flight = Flight {
                at: self.now + Duration::from_micros(micros + more),
                order: self.random.draw(),
                node: end,
                wire: index,
                from: addr(node),
                to,
                octets: octets.clone(),
            };
            if !is_echo {
                self.disturb(&flight);
            }
            self.flights.insert(flight);
        }
        if !is_echo {
            self.traffic(node, index, true);
        }
    }

    fn disturb(&mut self, flight: &Flight) {
        if self.keys.is_empty() || !self.random.one_in(20) {
            return;
        }
        let mut octets = flight.octets.clone();
        let later = Duration::from_millis(self.random.below(60_000));
        if self.random.one_in(2) {
            let bit = usize::try_from(self.random.below(octets.len() as u64 * 8)).unwrap();
            octets[bit / 8] ^= 1 << (bit % 8);
            // What is no packet is no matter for keys.
            octets[..4].copy_from_slice(&flight.octets[..4]);
        }
        let again = Flight {
            at: flight.at + later,
            order: self.random.draw(),
            octets,
            ..*flight
        };
        self.flights.insert(again);
    }

    fn route(&mut self, node: usize, to: Destination, way: Option<Way>) {
        if let Some(fresh) = &mut self.nodes[node].fresh {
            fresh.insert(to);
        }
        let is_lost = !matches!(way, Some(Way::Via { .. }));
        assert!(
            !self.is_steady || !is_lost || self.nodes[node].own.contains_key(&to),
            "{}: node {node} loses {to:?}",
            self.now
        );
        match way {
            Some(way) => self.nodes[node].ways.insert(to, way),
            None => self.nodes[node].ways.remove(&to),
        };
        if !self.goes_round(node, to) {
            self.check_passing(to);
            return;
        }
        self.loops += 1;
        let may = self.moved.contains(&to) || self.now.saturating_since(self.restarted) < AFTERMATH;
        assert!(may, "{}: {to:?} loops at node {node}", self.now);
        self.looping.entry(to).or_insert(self.now);
        self.check_passing(to);
    }

    fn check_passing(&mut self, to: Destination) {
        let Some(since) = self.looping.get(&to).copied() else {
            return;
        };
        if (0..self.nodes.len()).any(|node| self.goes_round(node, to)) {
            let lasted = self.now.saturating_since(since);
            let resumed = self.resumed.map(|at| self.now.saturating_since(at));
            let may = match resumed.is_some_and(|ago| ago < RESUMING) {
                true => RESUMING,
                false => PASSING,
            };
            assert!(lasted < may, "{}: {to:?} loops since {since}", self.now);
        } else {
            self.looping.remove(&to);
        }
    }

    fn goes_round(&self, from: usize, to: Destination) -> bool {
        let mut at = from;
        for _ in 0..=self.nodes.len() {
            match self.next(at, to) {
                Some(next) => at = next,
                None => return false,
            }
        }
        true
    }

    fn next(&self, node: usize, to: Destination) -> Option<usize> {
        let Some(Way::Via { link, next_hop }) = self.nodes[node].ways.get(&to) else {
            return None;
        };
        let wire = &self.wires[usize::try_from(link.0).unwrap() - 1];
        let is_it = |end: &&usize| IpAddr::V6(addr(**end)) == *next_hop;
        wire.ends.iter().find(is_it).copied()
    }

    /// Lets time pass.
    pub fn run(&mut self, duration: Duration) {
        let end = self.now + duration;
        loop {
            let flight = self.flights.first().map(|flight| flight.at);
            let wakeup = self.wakeups.first().map(|(at, _)| *at);
            let Some(at) = flight
                .into_iter()
                .chain(wakeup)
                .min()
                .filter(|at| *at <= end)
            else {
                break;
            };
            self.now = self.now.max(at);
            self.packets_at(at);
            if flight == Some(at) {
                let flight = self.flights.pop_first().unwrap();
                if self.wires[flight.wire].up {
                    self.arrive(flight);
                }
            } else {
                let (_, node) = self.wakeups.pop_first().unwrap();
                self.event(node, Event::Timer);
            }
            for to in self.looping.keys().copied().collect::<Vec<_>>() {
                self.check_passing(to);
            }
        }
        self.now = end;
    }

    fn arrive(&mut self, flight: Flight) {
        let (node, wire) = (flight.node, flight.wire);
        if flight.octets == ECHO_REQUEST {
            if self.nodes[node].forwards {
                self.send(node, link_id(wire), flight.from, ECHO_REPLY.to_vec());
            }
        } else if flight.octets == ECHO_REPLY {
            self.traffic(node, wire, false);
        } else {
            let datagram = Event::Datagram {
                link: link_id(wire),
                from: flight.from,
                to: flight.to,
                octets: flight.octets,
            };
            self.event(node, datagram);
        }
    }

    /// A storm is found, not waited for.
    fn packets_at(&mut self, at: Time) {
        let second = at.as_nanos() / 1_000_000_000;
        if second != self.second.0 {
            self.second = (second, self.packets);
        }
        let sent = self.packets - self.second.1;
        assert!(sent < STORM, "{at}: {sent} packets within a second");
    }

    /// What a wire costs by its round trip, as nodes reckon it.
    fn cost(wire: &Wire) -> u64 {
        let millis = wire.delay.as_micros() * 2 * 10 / 1_000;
        let drained = wire.drained.len() as u64 * u64::from(Metric::DRAIN.0);
        16 + u64::try_from(millis).unwrap().min(10_000) + drained
    }

    /// The least distance of each node to a destination; none where there is no way.
    fn distances(&self, to: Destination) -> Vec<Option<u64>> {
        let own = |node: &Node| {
            let metric = node.own.get(&to).filter(|_| node.engine.is_some());
            metric.map(|metric| u64::from(metric.0))
        };
        let mut least: Vec<Option<u64>> = self.nodes.iter().map(own).collect();
        for _ in 0..self.nodes.len() {
            for wire in self.wires.iter().filter(|wire| wire.up) {
                let alive = wire.ends.iter().filter(|end| self.is_alive(**end));
                let best = alive.clone().filter_map(|end| least[*end]).min();
                for end in alive {
                    let through = best.map(|best| best + Net::cost(wire));
                    least[*end] = least[*end].into_iter().chain(through).min();
                }
            }
        }
        least
    }

    /// What is by now: everybody who can reach a destination does, and not by a detour.
    pub fn assert_converged(&self) -> Vec<f64> {
        let all: BTreeSet<Destination> = (self.nodes.iter())
            .flat_map(|node| node.own.keys().chain(node.ways.keys()))
            .copied()
            .collect();
        let mut stretches = Vec::new();
        for to in all {
            let least = self.distances(to);
            for node in (0..self.nodes.len()).filter(|node| self.is_alive(*node)) {
                let way = self.nodes[node].ways.get(&to);
                match least[node] {
                    None => assert_eq!(way, None, "{}: node {node} to {to:?}", self.now),
                    Some(_) if self.nodes[node].own.contains_key(&to) => assert_eq!(way, None),
                    Some(least) => {
                        let has = self.length(node, to);
                        let text = || format!("{}: node {node} to {to:?}: {way:?}", self.now);
                        let has = has.unwrap_or_else(|| panic!("{}", text()));
                        stretches.push(has as f64 / least as f64);
                        assert!(has <= least * 3 / 2, "{}: {has}, not {least}", text());
                    }
                }
            }
        }
        stretches
    }

    fn length(&self, node: usize, to: Destination) -> Option<u64> {
        let (mut at, mut length) = (node, 0);
        for _ in 0..=self.nodes.len() {
            if let Some(metric) = self.nodes[at].own.get(&to) {
                return Some(length + u64::from(metric.0));
            }
            let Some(Way::Via { link, .. }) = self.nodes[at].ways.get(&to) else {
                return None;
            };
            let wire = &self.wires[usize::try_from(link.0).unwrap() - 1];
            length += Net::cost(wire);
            at = self.next(at, to)?;
        }
        None
    }
}
