//! Speakers on one virtual clock, joined by connections that can be cut, lost or held up.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BinaryHeap, HashMap},
    net::{IpAddr, Ipv6Addr},
    time::Duration,
};

use bytes::Bytes;
use hextet_types::{Asn, IfName, Prefix, Time};

use crate::{
    Action, Event, Hop, Speaker,
    config::{PeerConfig, PeerKey, RemoteAs, SpeakerConfig},
    policy::{LocalRoute, Policy},
    session::{ConnId, Endpoint},
};

const LATENCY: Duration = Duration::from_millis(3);

/// What a peer's kernel knows: it stays when the program goes.
pub(super) type Fib = BTreeMap<Prefix, Vec<Hop>>;

pub(super) struct Node {
    pub(super) config: SpeakerConfig,
    pub(super) speaker: Option<Speaker>,
    pub(super) fib: Fib,
    pub(super) ups: usize,
    pub(super) downs: Vec<(PeerKey, String, bool)>,
    pub(super) complete: usize,
    /// What the driver could not write yet, where writing is held up.
    pub(super) held: Vec<(ConnId, Bytes)>,
    pub(super) hold_writes: bool,
    life: u64,
}

type End = (usize, ConnId);

pub(super) struct Sim {
    pub(super) nodes: Vec<Node>,
    pub(super) now: Time,
    queue: BinaryHeap<Reverse<(Time, u64)>>,
    pending: HashMap<u64, (usize, u64, Event)>,
    sequence: u64,
    ends: BTreeMap<End, End>,
    lost: Vec<(usize, usize)>,
    addresses: BTreeMap<(IpAddr, Option<IfName>), usize>,
}

pub(super) fn address(node: usize) -> IpAddr {
    IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, node as u16 + 1))
}

pub(super) fn link_local(node: usize) -> Ipv6Addr {
    Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, node as u16 + 1)
}

pub(super) fn open_peer(node: usize, remote_as: RemoteAs) -> PeerConfig {
    let mut config = PeerConfig::new(PeerKey::Address(address(node)), remote_as);
    config.import = Policy::accept_all().into();
    config.export = Policy::accept_all().into();
    config.own.v4 = None;
    config
}

impl Sim {
    pub(super) fn new(asns: &[u32], seed: u64) -> Self {
        let node = |(at, asn): (usize, &u32)| {
            let id = std::net::Ipv4Addr::new(10, 0, 0, at as u8 + 1);
            let config = SpeakerConfig::new(Asn(*asn), id, seed.wrapping_add(at as u64));
            Node {
                speaker: Some(Speaker::new(config.clone(), Time::ZERO)),
                config,
                fib: Fib::new(),
                ups: 0,
                downs: Vec::new(),
                complete: 0,
                held: Vec::new(),
                hold_writes: false,
                life: 0,
            }
        };
        Sim {
            nodes: asns.iter().enumerate().map(node).collect(),
            now: Time::ZERO,
            queue: BinaryHeap::new(),
            pending: HashMap::new(),
            sequence: 0,
            ends: BTreeMap::new(),
            lost: Vec::new(),
            addresses: (0..asns.len()).map(|n| ((address(n), None), n)).collect(),
        }
    }

    /// The node that an address on an interface of any node stands for.
    pub(super) fn link(&mut self, interface: &str, addr: Ipv6Addr, node: usize) {
        let key = (IpAddr::V6(addr), Some(interface.parse().unwrap()));
        self.addresses.insert(key, node);
    }

    /// Peers two nodes with each other; each side's configuration goes through `edit`.
    pub(super) fn peer(&mut self, a: usize, b: usize, edit: impl Fn(usize, &mut PeerConfig)) {
        for (here, there) in [(a, b), (b, a)] {
            let internal = self.nodes[a].config.asn == self.nodes[b].config.asn;
            let remote_as = if internal {
                RemoteAs::Internal
            } else {
                RemoteAs::External
            };
            let mut config = open_peer(there, remote_as);
            edit(here, &mut config);
            self.configure(here, config);
        }
    }

    pub(super) fn configure(&mut self, node: usize, config: PeerConfig) {
        self.handle(node, Event::Configure(Box::new(config)));
    }

    pub(super) fn announce(&mut self, node: usize, prefixes: &[&str]) {
        let routes = prefixes
            .iter()
            .map(|p| (p.parse().unwrap(), LocalRoute::default()))
            .collect();
        self.handle(node, Event::Announce(routes));
    }

    pub(super) fn handle(&mut self, node: usize, event: Event) {
        let now = self.now;
        let Some(speaker) = self.nodes[node].speaker.as_mut() else {
            return;
        };
        for action in speaker.handle(event, now) {
            self.act(node, action);
        }
    }

    fn post(&mut self, node: usize, event: Event) {
        self.sequence += 1;
        let life = self.nodes[node].life;
        self.pending.insert(self.sequence, (node, life, event));
        self.queue
            .push(Reverse((self.now + LATENCY, self.sequence)));
    }

    fn is_lost(&self, a: usize, b: usize) -> bool {
        self.lost.contains(&(a, b)) || self.lost.contains(&(b, a))
    }

    fn act(&mut self, node: usize, action: Action) {
        match action {
            Action::Connect {
                conn,
                remote,
                interface,
                ..
            } => self.connect(node, conn, remote, interface),
            Action::Close { conn } => {
                if let Some((there, far)) = self.ends.remove(&(node, conn))
                    && self.ends.remove(&(there, far)).is_some()
                    && !self.is_lost(node, there)
                {
                    self.post(there, Event::Closed { conn: far });
                }
            }
            Action::Send { conn, octets } => self.send(node, conn, octets),
            Action::Routes(changes) => {
                for change in changes {
                    let hops = change.next_hops.to_vec();
                    if hops.is_empty() {
                        self.nodes[node].fib.remove(&change.prefix);
                    } else {
                        self.nodes[node].fib.insert(change.prefix, hops);
                    }
                }
            }
            Action::SelectionComplete => self.nodes[node].complete += 1,
            Action::SessionUp { .. } => self.nodes[node].ups += 1,
            Action::SessionDown {
                peer,
                reason,
                routes_kept,
            } => {
                let down = (peer, reason.to_string(), routes_kept);
                self.nodes[node].downs.push(down);
            }
            Action::Refused(error) => panic!("{error}"),
        }
    }

    fn connect(&mut self, node: usize, conn: ConnId, remote: IpAddr, interface: Option<IfName>) {
        let Some(there) = self.addresses.get(&(remote, interface.clone())).copied() else {
            return self.post(node, Event::Closed { conn });
        };
        if self.is_lost(node, there) {
            return;
        }
        if self.nodes[there].speaker.is_none() {
            return self.post(node, Event::Closed { conn });
        }
        let local = match interface {
            Some(_) => IpAddr::V6(link_local(node)),
            None => address(node),
        };
        let far = self.nodes[there].speaker.as_mut().unwrap().new_connection();
        self.ends.insert((node, conn), (there, far));
        self.ends.insert((there, far), (node, conn));
        let endpoint = |local, remote| Endpoint {
            local,
            remote,
            interface: interface.clone(),
        };
        let opened = endpoint(local, remote);
        let accepted = endpoint(remote, local);
        self.post(
            node,
            Event::Opened {
                conn,
                endpoint: opened,
            },
        );
        self.post(
            there,
            Event::Accepted {
                conn: far,
                endpoint: accepted,
            },
        );
    }

    fn send(&mut self, node: usize, conn: ConnId, octets: Bytes) {
        let len = octets.len();
        if self.nodes[node].hold_writes {
            self.nodes[node].held.push((conn, octets));
            return;
        }
        if let Some((there, far)) = self.ends.get(&(node, conn)).copied() {
            if !self.is_lost(node, there) {
                self.post(there, Event::Received { conn: far, octets });
            }
            self.post(node, Event::Written { conn, octets: len });
        }
    }

    /// Nothing that a node sends is written until [`Sim::release`].
    pub(super) fn hold(&mut self, node: usize) {
        self.nodes[node].hold_writes = true;
    }

    pub(super) fn release(&mut self, node: usize) {
        self.nodes[node].hold_writes = false;
        for (conn, octets) in std::mem::take(&mut self.nodes[node].held) {
            self.send(node, conn, octets);
        }
    }

    pub(super) fn held(&self, node: usize) -> usize {
        self.nodes[node].held.iter().map(|(_, o)| o.len()).sum()
    }

    /// Runs until nothing happens before `until`.
    pub(super) fn run_until(&mut self, until: Time) {
        loop {
            let message = self.queue.peek().map(|Reverse((at, _))| *at);
            let timer = (0..self.nodes.len())
                .filter_map(|n| Some((self.nodes[n].speaker.as_ref()?.next_wakeup()?, n)))
                .min();
            let next = message.into_iter().chain(timer.map(|(at, _)| at)).min();
            let Some(next) = next.filter(|at| *at <= until) else {
                self.now = until;
                return;
            };
            self.now = self.now.max(next);
            if message == Some(next) {
                let Some(Reverse((_, sequence))) = self.queue.pop() else {
                    return;
                };
                let (node, life, event) = self.pending.remove(&sequence).unwrap();
                if self.nodes[node].life == life {
                    self.handle(node, event);
                }
            } else if let Some((_, node)) = timer {
                self.handle(node, Event::Timer);
            }
        }
    }

    pub(super) fn run(&mut self, secs: u64) {
        self.run_until(self.now + Duration::from_secs(secs));
    }

    /// The connections between two nodes break, and both hear of it.
    pub(super) fn cut(&mut self, a: usize, b: usize) {
        let ends: Vec<_> = self.ends.iter().map(|(x, y)| (*x, *y)).collect();
        for ((node, conn), (there, _)) in ends {
            if (node, there) == (a, b) || (node, there) == (b, a) {
                self.ends.remove(&(node, conn));
                self.post(node, Event::Closed { conn });
            }
        }
    }

    /// The connection between two nodes, as the first one calls it.
    pub(super) fn end(&self, a: usize, b: usize) -> ConnId {
        let mut ends = self.ends.iter();
        let end = ends.find(|((near, _), (far, _))| (*near, *far) == (a, b));
        end.unwrap().0.1
    }

    /// From now on nothing passes between two nodes, and nobody hears of it.
    pub(super) fn lose(&mut self, a: usize, b: usize) {
        self.lost.push((a, b));
    }

    pub(super) fn heal(&mut self) {
        self.lost.clear();
    }

    /// The program is gone; its kernel closes its connections and keeps its routes.
    pub(super) fn kill(&mut self, node: usize) {
        self.nodes[node].speaker = None;
        self.nodes[node].life += 1;
        self.nodes[node].held.clear();
        let ends: Vec<_> = self.ends.iter().map(|(x, y)| (*x, *y)).collect();
        for (near, (there, far)) in ends {
            if near.0 == node {
                self.ends.remove(&near);
                self.ends.remove(&(there, far));
                if !self.is_lost(node, there) {
                    self.post(there, Event::Closed { conn: far });
                }
            }
        }
    }

    /// The program starts again, without peers and announcements.
    pub(super) fn start(&mut self, node: usize, edit: impl Fn(&mut SpeakerConfig)) {
        let mut config = self.nodes[node].config.clone();
        edit(&mut config);
        let speaker = Speaker::new(config.clone(), self.now);
        self.nodes[node].config = config;
        self.nodes[node].speaker = Some(speaker);
    }

    pub(super) fn speaker(&self, node: usize) -> &Speaker {
        self.nodes[node].speaker.as_ref().unwrap()
    }

    /// Prefixes in the kernel of a node.
    pub(super) fn fib(&self, node: usize) -> Vec<String> {
        self.nodes[node]
            .fib
            .keys()
            .map(ToString::to_string)
            .collect()
    }

    pub(super) fn hops(&self, node: usize, prefix: &str) -> Vec<String> {
        let hops = self.nodes[node].fib.get(&prefix.parse().unwrap());
        let text = |h: &Hop| match &h.interface {
            Some(interface) => format!("{}%{interface}", h.addr),
            None => h.addr.to_string(),
        };
        hops.into_iter().flatten().map(text).collect()
    }
}
