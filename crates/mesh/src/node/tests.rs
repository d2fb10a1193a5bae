//! Nodes in a small world: packets take time and get lost, some nodes are behind NATs, routes follow tunnels, the registry may be away.

mod lan;
mod survey;
mod uplinks;

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, BinaryHeap, VecDeque},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use x25519_dalek::{PublicKey, StaticSecret};

use super::*;
use crate::certificate::Class;
use crate::trust::tests::{Authority, NOW};

/// The port of streams.
const STREAMS: u16 = 443;

/// One way, of every packet.
const WAY: Duration = Duration::from_millis(10);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Site {
    Open,
    BehindNat,
    /// No datagrams pass.
    Quiet,
}

struct World {
    authority: Authority,
    nodes: BTreeMap<u8, Node>,
    sites: BTreeMap<u8, Site>,
    queue: BinaryHeap<Reverse<(Time, u64)>>,
    events: BTreeMap<u64, (u8, Event)>,
    number: u64,
    now: Time,
    plans: BTreeMap<(u8, u8, u8), Plan>,
    /// Strands of which the other end has said that they are silent.
    suspected: BTreeSet<(u8, (u8, u8))>,
    /// Pictures of the whole mesh that were made.
    surveyed: Vec<BTreeMap<NodeId, Vec<Neighbour>>>,
    /// Strands that stand besides the first.
    further: BTreeSet<(u8, u8, u8)>,
    up: BTreeSet<(u8, u8)>,
    ways: BTreeMap<u8, BTreeSet<u8>>,
    /// Through a NAT comes what was sent out to before.
    holes: BTreeSet<(u8, u8)>,
    /// Who is on the one network segment, and with whom each is in agreement there.
    segment: BTreeMap<u8, BTreeMap<Ipv6Addr, Beside>>,
    bare: BTreeSet<(u8, u8)>,
    /// From whom to whom streams were opened.
    streams: BTreeSet<(u8, u8)>,
    registry: Option<BTreeMap<u8, Way>>,
    random: u64,
    loss: u64,
    starts: u8,
}

fn id(number: u8) -> NodeId {
    NodeId(number.into())
}

fn down(number: u8) -> Event {
    Event::Down(Strand::first(id(number)))
}

fn named(strand: Strand) -> (u8, u8) {
    (u8::try_from(strand.node.0).unwrap(), strand.number)
}

fn prefix(number: u8) -> Prefix {
    format!("2001:db8:0:{number:x}::/64").parse().unwrap()
}

fn outside(number: u8) -> Way {
    Way::Udp(match number % 2 {
        0 => SocketAddr::from((Ipv4Addr::new(203, 0, 113, number), PORT)),
        _ => SocketAddr::from((
            Ipv6Addr::new(0x2001, 0xdb9, 0, 0, 0, 0, 0, number.into()),
            PORT,
        )),
    })
}

/// Where an open node takes streams.
fn stream(number: u8) -> Way {
    Way::Tls(SocketAddr::new(outside(number).address().ip(), STREAMS))
}

fn number_at(at: Way) -> Option<(u8, bool)> {
    match at.address().ip() {
        IpAddr::V4(addr) => Some((addr.octets()[3], true)),
        IpAddr::V6(addr) if addr.is_unicast_link_local() => {
            Some((u8::try_from(addr.segments()[7]).ok()?, true))
        }
        IpAddr::V6(addr) if addr.segments()[1] == 0xdb8 => {
            Some((u8::try_from(addr.segments()[3]).ok()?, false))
        }
        IpAddr::V6(addr) => Some((u8::try_from(addr.segments()[7]).ok()?, true)),
    }
}

impl World {
    fn new(loss: u64) -> World {
        World {
            authority: Authority::new(1),
            nodes: BTreeMap::new(),
            sites: BTreeMap::new(),
            queue: BinaryHeap::new(),
            events: BTreeMap::new(),
            number: 0,
            now: Time::ZERO,
            plans: BTreeMap::new(),
            suspected: BTreeSet::new(),
            surveyed: Vec::new(),
            further: BTreeSet::new(),
            up: BTreeSet::new(),
            ways: BTreeMap::new(),
            holes: BTreeSet::new(),
            segment: BTreeMap::new(),
            bare: BTreeSet::new(),
            streams: BTreeSet::new(),
            registry: Some(BTreeMap::new()),
            random: 7,
            loss,
            starts: 0,
        }
    }

    fn start(&mut self, number: u8, site: Site, remembered: &[u8]) {
        self.start_as(number, site, remembered, Config::default());
    }

    fn start_as(&mut self, number: u8, site: Site, remembered: &[u8], config: Config) {
        self.starts += 1;
        let certificate = self.authority.issue(|certificate| {
            certificate.node = id(number);
            certificate.key = SigningKey::from_seed(&[number; 32]).unwrap().public();
            certificate.prefixes = vec![prefix(number)];
            certificate.ipv4 = None;
            certificate.class = match config.most {
                2 => Class::Client,
                _ => Class::Node,
            };
        });
        let setup = Setup {
            certificate,
            key: SigningKey::from_seed(&[number; 32]).unwrap(),
            trust: self.authority.trust(),
            reach: None,
            config,
            seed: [self.starts; 32],
        };
        self.sites.insert(number, site);
        let node = Node::new(setup, self.now, self.wall());
        self.nodes.insert(number, node);
        let local = match site {
            Site::Open | Site::Quiet => outside(number).address(),
            Site::BehindNat => SocketAddr::from((Ipv4Addr::new(192, 168, 7, 7), PORT)),
        };
        self.tell(
            number,
            Event::Addresses {
                local: vec![local],
                mapped: Vec::new(),
            },
        );
        if site == Site::Open {
            self.tell(number, Event::Streams(Some(STREAMS)));
        }
        let remembered = remembered.iter().map(|other| (id(*other), outside(*other)));
        self.tell(number, Event::Introduced(remembered.collect()));
    }

    /// It is gone, with all that it held; others see that after a third of a second.
    fn kill(&mut self, number: u8) {
        self.nodes.remove(&number);
        self.plans.retain(|(at, ..), _| *at != number);
        for (one, other) in std::mem::take(&mut self.up) {
            if one == number {
                self.later(Duration::from_millis(300), other, down(number));
            } else if other != number {
                self.up.insert((one, other));
            }
        }
        self.route();
    }

    fn wall(&self) -> UnixTime {
        NOW.plus(100 + u64::from(self.starts) + self.now.as_nanos() / 1_000_000_000)
    }

    fn later(&mut self, wait: Duration, number: u8, event: Event) {
        self.number += 1;
        self.events.insert(self.number, (number, event));
        self.queue.push(Reverse((self.now + wait, self.number)));
    }

    fn tell(&mut self, number: u8, event: Event) {
        let wall = self.wall();
        let Some(node) = self.nodes.get_mut(&number) else {
            return;
        };
        for action in node.handle(event, self.now, wall) {
            self.act(number, action);
        }
        if let Some(node) = self.nodes.get(&number) {
            let wait = node.next_wakeup().saturating_since(self.now);
            self.later(wait.max(Duration::from_millis(1)), number, Event::Timer);
        }
    }

    fn act(&mut self, number: u8, action: Action) {
        match action {
            Action::Suspect(strand) => drop(self.suspected.insert((number, named(strand)))),
            Action::Send { to, octets } => self.send(number, to, octets),
            Action::Open(plan) => {
                let (other, strand) = named(plan.strand);
                self.plans.insert((number, other, strand), *plan);
                self.meet((number, other), strand);
            }
            Action::Close { strand, .. } => {
                let (other, strand) = named(strand);
                self.plans.remove(&(number, other, strand));
                self.further.remove(&(number, other, strand));
                if strand > 0 {
                    return;
                }
                self.up.remove(&(number, other));
                if self.up.remove(&(other, number)) {
                    self.later(Duration::from_millis(300), other, down(number));
                }
                self.route();
            }
            Action::Beacon { link, to, octets } => self.beacon(number, link, to, &octets),
            Action::Beside { pairs, .. } => self.agree(number, pairs),
            Action::AskRegistry => self.ask_registry(number),
            Action::Refused { from, refusal } => {
                let is_just = match &refusal {
                    Refusal::Unknown(_) => true,
                    Refusal::Certificate(_, why) => {
                        matches!(why, crate::trust::Refusal::Revoked(..))
                    }
                    _ => false,
                };
                assert!(is_just, "{number} from {from}: {refusal}");
            }
            Action::Rumour { fault, .. } => panic!("{number}: {fault}"),
            Action::Surveyed(found) => self.surveyed.push(found),
            Action::Drain { .. }
            | Action::Resume { .. }
            | Action::Remember
            | Action::Learned { .. } => {}
        }
    }

    fn ask_registry(&mut self, number: u8) {
        let reach = self.nodes[&number].card().reach;
        let Some(registry) = &mut self.registry else {
            return;
        };
        let others = registry.iter().filter(|(other, _)| **other != number);
        let others =
            others.flat_map(|(other, at)| [(id(*other), *at), (id(*other), stream(*other))]);
        let others = others.collect();
        if reach == Reach::Public {
            registry.insert(number, outside(number));
        }
        self.later(4 * WAY, number, Event::Introduced(others));
    }

    fn is_lost(&mut self) -> bool {
        self.random = self
            .random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (self.random >> 33) % 100 < self.loss
    }

    fn send(&mut self, number: u8, to: Way, octets: Vec<u8>) {
        let Some((other, straight)) = number_at(to) else {
            return;
        };
        let from = if to.tls().is_some() {
            let Some(from) = self.by_stream(number, other) else {
                return;
            };
            from
        } else if straight && self.is_quiet(number, other) {
            return;
        } else if contacts::is_link_local(to.address()) {
            lan::at(number)
        } else if straight {
            self.holes.insert((number, other));
            let closed = self.sites.get(&other) == Some(&Site::BehindNat);
            if closed && !self.holes.contains(&(other, number)) {
                return;
            }
            outside(number)
        } else {
            if !self
                .ways
                .get(&number)
                .is_some_and(|ways| ways.contains(&other))
            {
                return;
            }
            Way::Udp(SocketAddr::from((home_of(prefix(number)).unwrap(), PORT)))
        };
        if !self.is_lost() {
            self.later(WAY, other, Event::Letter { from, octets });
        }
    }

    fn is_quiet(&self, one: u8, other: u8) -> bool {
        let sites = [one, other].map(|n| self.sites.get(&n));
        sites.contains(&Some(&Site::Quiet))
    }

    /// As whom the other one sees it, if a stream can be opened there, or stands.
    fn by_stream(&mut self, from: u8, to: u8) -> Option<Way> {
        let opens = self.sites.get(&to) == Some(&Site::Open);
        if opens {
            self.streams.insert((from, to));
        }
        let stands = opens || self.streams.contains(&(to, from));
        let ip = outside(from).address().ip();
        stands.then(|| Way::Tls(SocketAddr::new(ip, STREAMS + 1_000 * u16::from(opens))))
    }

    /// A tunnel comes up once both ends have the other's key, and know where it is.
    fn meet(&mut self, (one, other): (u8, u8), strand: u8) {
        let plan = |at, with| self.plans.get(&(at, with, strand));
        let (Some(a), Some(b)) = (plan(one, other), plan(other, one)) else {
            return;
        };
        let public =
            |plan: &Plan| PublicKey::from(&StaticSecret::from(plan.private_key)).to_bytes();
        if a.peer_key != public(b) || b.peer_key != public(a) {
            return;
        }
        let quiet = [one, other].map(|n| self.sites.get(&n) == Some(&Site::Quiet));
        let leads = |plan: &Plan, with: u8| plan.candidates.contains(&stream(with));
        match quiet {
            [true, true] => return,
            [true, false] if !leads(a, other) => return,
            [false, true] if !leads(b, one) => return,
            _ => {}
        }
        for (plan, with) in [(a, other), (b, one)] {
            if quiet.contains(&true) {
                continue;
            }
            // A kernel has a port of its own.
            let host = outside(with).address().ip();
            let is_kernels = |at: &Way| strand == KERNEL_STRAND && at.address().ip() == host;
            let is_there = |at: &Way| [outside(with), lan::at(with)].contains(at) || is_kernels(at);
            assert!(plan.candidates.iter().any(is_there), "{plan:?}");
        }
        for (at, with) in [(one, other), (other, one)] {
            let is_new = match strand {
                0 => self.up.insert((at, with)),
                _ => self.further.insert((at, with, strand)),
            };
            if is_new {
                let (node, number) = (id(with), strand);
                self.later(2 * WAY, at, Event::Up(Strand { node, number }));
            }
        }
        self.route();
    }

    /// Babel, at once.
    fn route(&mut self) {
        for from in self.nodes.keys().copied().collect::<Vec<_>>() {
            let mut reached = BTreeMap::from([(from, 0_u32)]);
            let mut left = VecDeque::from([from]);
            while let Some(at) = left.pop_front() {
                let links = self.up.iter().chain(&self.bare);
                for (_, next) in links.filter(|(one, _)| *one == at) {
                    if !reached.contains_key(next) {
                        reached.insert(*next, reached[&at] + 1);
                        left.push_back(*next);
                    }
                }
            }
            let before = self.ways.remove(&from).unwrap_or_default();
            let now: BTreeSet<u8> = reached.keys().copied().filter(|to| *to != from).collect();
            for to in before.union(&now) {
                let distance = reached.get(to).map(|hops| Micros(hops * 20_000));
                let event = Event::Way {
                    prefix: prefix(*to),
                    distance,
                };
                self.later(2 * WAY, from, event);
            }
            self.ways.insert(from, now);
        }
    }

    fn run(&mut self, wait: Duration) {
        let end = self.now + wait;
        while let Some(Reverse((at, number))) = self.queue.peek().copied() {
            if at > end {
                break;
            }
            self.queue.pop();
            self.now = self.now.max(at);
            if let Some((node, event)) = self.events.remove(&number) {
                // Of many wakeups the one that is due counts.
                let idle = matches!(event, Event::Timer)
                    && (self.nodes.get(&node)).is_none_or(|node| node.next_wakeup() > self.now);
                if !idle {
                    self.tell(node, event);
                }
            }
        }
        self.now = end;
    }

    fn all_reach_all(&self) -> bool {
        let count = self.nodes.len() - 1;
        self.nodes
            .keys()
            .all(|number| self.ways.get(number).map_or(0, BTreeSet::len) == count)
    }

    fn wait_for_all(&mut self, limit: Duration) -> Duration {
        let begin = self.now;
        while !self.all_reach_all() {
            assert!(self.now < begin + limit, "{:?} {:?}", self.ways, self.up);
            self.run(Duration::from_millis(20));
        }
        self.now.saturating_since(begin)
    }

    fn degree(&self, number: u8) -> usize {
        self.up.iter().filter(|(one, _)| *one == number).count()
    }
}

#[test]
fn five_nodes_from_nothing_but_a_registry() {
    let mut world = World::new(0);
    for number in 1..=5 {
        world.start(number, Site::Open, &[]);
    }
    let took = world.wait_for_all(Duration::from_secs(20));
    assert!(took < Duration::from_secs(4), "{took:?}");
    world.run(Duration::from_secs(60));
    for number in 1..=5 {
        assert!(world.degree(number) >= 2, "{number}: {:?}", world.up);
    }
}

#[test]
fn nats_and_losses_keep_nobody_out() {
    let mut world = World::new(20);
    world.start(1, Site::Open, &[]);
    for number in 2..=9 {
        let site = [Site::Open, Site::BehindNat][usize::from(number > 3)];
        world.start(number, site, &[]);
        world.run(Duration::from_secs(1));
    }
    world.wait_for_all(Duration::from_secs(120));
    world.run(Duration::from_secs(120));
    assert!(world.all_reach_all());
    let between = |(one, other): &&(u8, u8)| *one > 3 && *other > 3;
    assert!(world.up.iter().any(|pair| between(&pair)), "{:?}", world.up);
    assert_eq!(world.nodes[&5].card().reach, Reach::Punchable);
    assert_eq!(world.nodes[&2].card().reach, Reach::Public);
}

#[test]
fn without_a_registry_a_node_comes_back_by_what_it_remembers() {
    let mut world = World::new(5);
    for number in 1..=5 {
        world.start(number, Site::Open, &[]);
    }
    world.wait_for_all(Duration::from_secs(20));
    world.run(Duration::from_secs(60));
    world.registry = None;
    let remembered = world.nodes[&3].remembered();
    assert!(remembered.len() >= 2, "{remembered:?}");
    world.kill(3);
    world.run(Duration::from_millis(100));
    assert!(world.all_reach_all(), "the others go on: {:?}", world.up);
    let known: Vec<u8> = remembered
        .iter()
        .map(|(node, _)| u8::try_from(node.0).unwrap())
        .collect();
    world.start(3, Site::Open, &known);
    let took = world.wait_for_all(Duration::from_secs(20));
    assert!(took < Duration::from_secs(3), "{took:?}");
}

#[test]
fn who_is_revoked_has_no_tunnel_and_gets_none() {
    let mut world = World::new(0);
    for number in 1..=4 {
        world.start(number, Site::Open, &[]);
    }
    world.wait_for_all(Duration::from_secs(20));
    world.run(Duration::from_secs(30));
    let mut trust = world.authority.trust();
    let list = world.authority.revoke(1, &[(id(2), u32::MAX)]);
    trust.offer_revocations(list).unwrap();
    // One hears of it, and tells the others.
    world.tell(1, Event::Trust(Box::new(trust.clone())));
    world.run(Duration::from_secs(2));
    for number in [1, 3, 4] {
        assert_eq!(world.nodes[&number].trust().revocations().count(), 1);
    }
    assert!(
        world
            .up
            .iter()
            .all(|(one, other)| ![*one, *other].contains(&2)),
        "{:?}",
        world.up
    );
    // What it writes from now on is refused, and says so.
    world.nodes.remove(&2);
    world.run(Duration::from_secs(30));
    let remembered = world.nodes[&1].remembered();
    assert!(remembered.iter().all(|(node, _)| *node != id(2)));
    assert!(world.all_reach_all());
}

#[test]
fn where_no_datagram_passes_streams_do() {
    let mut world = World::new(5);
    for number in 1..=4 {
        world.start(number, Site::Open, &[]);
    }
    world.wait_for_all(Duration::from_secs(30));
    for number in [5, 6] {
        world.start(number, Site::Quiet, &[]);
    }
    world.wait_for_all(Duration::from_secs(60));
    world.run(Duration::from_secs(120));
    assert!(world.all_reach_all());
    for number in [5, 6] {
        assert_eq!(world.nodes[&number].card().reach, Reach::Closed);
        assert!(world.degree(number) > 0);
        let remembered = world.nodes[&number].remembered();
        let by_stream = remembered.iter().filter(|(_, at)| at.tls().is_some());
        assert!(by_stream.count() > 0, "{remembered:?}");
    }
    assert!(!world.up.contains(&(5, 6)));
    for number in 1..=4 {
        let card = world.nodes[&number].card();
        assert_eq!(card.reach, Reach::Public);
        assert_eq!(card.candidates, [outside(number), stream(number)]);
    }
}

#[test]
fn a_client_has_two_tunnels_and_grants_none() {
    let mut world = World::new(0);
    for number in 1..=5 {
        world.start(number, Site::Open, &[]);
    }
    world.start_as(6, Site::Open, &[], Config::default().client());
    world.wait_for_all(Duration::from_secs(20));
    for _ in 0..30 {
        world.run(Duration::from_secs(60));
        let tunnels = world.nodes[&6].status().tunnels;
        assert!((1..=2).contains(&tunnels.len()), "{tunnels:?}");
        assert!(tunnels.iter().all(|tunnel| tunnel.ours), "{tunnels:?}");
        assert!(world.all_reach_all());
    }
}

#[test]
fn numbers_of_tunnels_are_those_of_the_newest_parameters() {
    let mut world = World::new(0);
    for number in 1..=4 {
        world.start(number, Site::Open, &[]);
    }
    world.wait_for_all(Duration::from_secs(20));
    let mut parameters = world.authority.parameters(2);
    (parameters.tunnels.random, parameters.tunnels.most) = (4, 9);
    let parameters = Signed::sign(parameters, &world.authority.issuing);
    let mut trust = world.authority.trust();
    trust.offer_parameters(parameters).unwrap();
    world.tell(1, Event::Trust(Box::new(trust)));
    world.run(Duration::from_secs(2));
    for node in world.nodes.values() {
        let config = node.topology.config();
        assert_eq!((config.random, config.asked, config.most), (4, 2, 9));
    }
    assert!(world.all_reach_all());
}

#[test]
fn tunnels_of_an_earlier_run_are_taken_over() {
    let mut world = World::new(0);
    for number in 1..=3 {
        world.start(number, Site::Open, &[]);
    }
    world.wait_for_all(Duration::from_secs(20));
    world.run(Duration::from_secs(5));
    let up = world.up.clone();
    // The process ends and begins anew; the tunnels do not notice.
    world.start(2, Site::Open, &[1, 3]);
    for (_, other) in up.iter().filter(|(one, _)| *one == 2) {
        let event = Event::Adopted {
            strand: Strand::first(id(*other)),
            kind: Kind::Random,
            ours: true,
        };
        world.tell(2, event);
    }
    world.route();
    world.run(Duration::from_secs(30));
    assert!(world.up.is_superset(&up), "{up:?} {:?}", world.up);
    assert!(world.all_reach_all());
}

#[test]
fn addresses_that_are_not_the_worlds() {
    let global = |text: &str| seen::is_global(text.parse().unwrap());
    for text in ["192.0.2.1", "100.128.0.1", "172.32.0.1", "2001:db8::1"] {
        assert!(global(text), "{text}");
    }
    for text in [
        "10.1.2.3",
        "172.16.0.1",
        "192.168.0.1",
        "100.64.0.1",
        "169.254.0.1",
        "127.0.0.1",
        "fd00::1",
        "fe80::1",
        "::1",
        "::",
    ] {
        assert!(!global(text), "{text}");
    }
}

#[test]
fn who_can_reach_a_node() {
    let at = |text: &str| text.parse::<SocketAddr>().unwrap();
    let mut seen = Seen::new(None);
    seen.listens(vec![at("192.168.1.2:6697")], Vec::new());
    assert_eq!(
        seen.reach(),
        Reach::Punchable,
        "nobody has said anything yet"
    );
    seen.observed(id(1), at("198.51.100.7:6697"));
    seen.observed(id(2), at("198.51.100.7:6697"));
    assert_eq!(seen.reach(), Reach::Punchable);
    assert_eq!(
        seen.card().candidates,
        [at("198.51.100.7:6697"), at("192.168.1.2:6697")].map(Way::Udp)
    );
    seen.observed(id(2), at("198.51.100.7:40001"));
    assert_eq!(seen.reach(), Reach::Closed, "each sees another port");
    let elsewhere = vec![at("100.64.1.7:7000")];
    seen.listens(vec![at("192.168.1.2:6697")], elsewhere);
    assert_eq!(seen.reach(), Reach::Closed, "there is another NAT in front");
    seen.listens(vec![at("192.168.1.2:6697")], vec![at("198.51.100.7:7000")]);
    assert_eq!(seen.reach(), Reach::Public, "the NAT has promised");
    seen.opens(Some(443));
    let promised = Way::Udp(at("198.51.100.7:7000"));
    let candidates = seen.card().candidates;
    assert_eq!(candidates.first(), Some(&promised));
    let streams = candidates.iter().filter(|at| at.tls().is_some());
    assert_eq!(streams.count(), 0, "UDP alone was promised");
    seen.listens(vec![at("198.51.100.9:6697")], Vec::new());
    assert_eq!(seen.reach(), Reach::Public);
    let told = Seen::new(Some(Reach::Closed));
    assert_eq!(told.reach(), Reach::Closed);
}
