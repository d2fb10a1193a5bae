//! Packets: mostly honest ones to services that a rule is about or nearly about, otherwise whatever a
//! workload or a stranger may try. Each says as what connection tracking has to count it: flows are never
//! used twice by accident.

mod kinds;

use std::{collections::BTreeSet, net::IpAddr};

use hextet_model::{
    explain,
    neutron::{Direction, Port, Protocol, SecurityGroupRule},
    state::CtState,
};
use hextet_tests::{
    hypervisor::SPINE_MAC,
    packet::{self, Ends, Icmp, Ip, MARKER, Tcp},
    site::Entry,
};
use hextet_types::{Family, Mac, PortId};
use rand::{Rng, SeedableRng as _, rngs::StdRng, seq::IndexedRandom as _};

use crate::make::{Setting, echo, is_icmp};

/// What follows the IP header.
#[derive(Clone, Debug)]
pub enum Body {
    /// TCP.
    Tcp(Tcp),
    /// UDP, from port to port.
    Udp(u16, u16),
    /// ICMP of the family, and what an error quotes.
    Icmp(Icmp, Vec<u8>),
    /// Another protocol.
    Other(u8),
}

/// A packet on its way into a host.
#[derive(Clone, Debug)]
pub struct Shot {
    /// The host, by its number.
    pub host: usize,
    /// By this link.
    pub entry: Entry,
    /// Who the frame says that it is from.
    pub mac: Mac,
    /// Its addresses.
    pub ends: Ends,
    /// The rest.
    pub body: Body,
    /// What connection tracking must make of it.
    pub state: CtState,
    /// The hosts that know of its flow; all, where it is empty.
    pub known_at: BTreeSet<usize>,
    /// Addresses and rest once a translation has been undone.
    pub undone: Option<(Ends, Body)>,
    /// Who began the connection and who answers, for an error about one.
    pub flow: Option<[IpAddr; 2]>,
    /// The addresses that an error quotes, where they are translated.
    pub quoted: Option<[IpAddr; 2]>,
}

impl Body {
    /// The IP packet, with a number by which it is found again.
    pub fn packet(&self, ends: Ends, number: u64) -> Vec<u8> {
        let mark = mark(number);
        let payload = match self {
            Body::Tcp(tcp) => packet::tcp(ends, *tcp, &mark),
            Body::Udp(source, destination) => packet::udp(ends, *source, *destination, &mark),
            Body::Icmp(icmp, quote) => packet::icmp(ends, *icmp, &[&quote[..], &mark].concat()),
            Body::Other(protocol) => packet::Payload {
                protocol: *protocol,
                octets: mark,
            },
        };
        Ip::default().packet(ends, &payload)
    }

    /// The same as a datagram in two fragments, each with the number; none, if it is no datagram.
    pub fn pieces(&self, ends: Ends, number: u64) -> Option<Vec<Vec<u8>>> {
        let Body::Udp(source, destination) = self else {
            return None;
        };
        let mark = mark(number);
        let payload = packet::udp(ends, *source, *destination, &[&mark[..], &mark].concat());
        let [.., high, low] = number.to_be_bytes();
        let ip = Ip {
            identification: u16::from_be_bytes([high, low]),
            ..Ip::default()
        };
        let first = payload.octets.len() - mark.len();
        let pieces = [(0, first), (first, mark.len())];
        Some(packet::fragments(&ip, ends, &payload, &pieces))
    }

    /// As explanations have it.
    pub fn explained(&self) -> explain::Payload {
        let ports = |protocol: Protocol, source, destination| explain::Payload::Ports {
            protocol: protocol.0,
            source,
            destination,
        };
        match self {
            Body::Tcp(tcp) => ports(Protocol::TCP, tcp.sport, tcp.dport),
            Body::Udp(source, destination) => ports(Protocol::UDP, *source, *destination),
            Body::Icmp(icmp, _) => explain::Payload::Icmp {
                icmp_type: icmp.kind,
                code: icmp.code,
            },
            Body::Other(protocol) => explain::Payload::Protocol(*protocol),
        }
    }
}

impl Shot {
    /// The IP packet, with a number by which it is found again.
    pub fn packet(&self, number: u64) -> Vec<u8> {
        self.body.packet(self.ends, number)
    }

    /// What connection tracking makes of it at a host: where the flow is not known, an answer to it is
    /// the first packet of one, or senseless.
    pub fn state_at(&self, host: usize) -> CtState {
        if self.known_at.is_empty() || self.known_at.contains(&host) {
            return self.state;
        }
        match self.body {
            Body::Udp(..) | Body::Other(_) => CtState::New,
            Body::Tcp(_) | Body::Icmp(..) => CtState::Invalid,
        }
    }

    /// As explanations have it.
    pub fn explained(&self) -> explain::Packet {
        let (ends, body) = match &self.undone {
            Some((ends, body)) => (*ends, body),
            None => (self.ends, &self.body),
        };
        explain::Packet {
            link: Some(hextet_tests::site::link(self.entry)),
            mac: Some(self.mac),
            source: ends.src,
            destination: ends.dst,
            payload: body.explained(),
            connection: self.state,
            flow: self.flow,
            quoted: self.quoted,
        }
    }
}

/// How many octets of a packet are its mark.
pub const MARK_LEN: usize = MARKER.len() + 8;

fn mark(number: u64) -> Vec<u8> {
    [&MARKER[..], &number.to_be_bytes()].concat()
}

/// The number of a frame's packet: the last, as what an error quotes has one, too.
pub fn number(frame: &[u8]) -> Option<u64> {
    let at = frame
        .windows(MARKER.len())
        .rposition(|window| window == MARKER)?;
    let number = frame.get(at + MARKER.len()..at + MARK_LEN)?;
    Some(u64::from_be_bytes(number.try_into().ok()?))
}

/// A port and where it is.
struct Bound {
    host: usize,
    port: Port,
}

/// Makes one packet after the other.
pub struct Shooter {
    /// What decides.
    pub rng: StdRng,
    bound: Vec<Bound>,
    rules: Vec<SecurityGroupRule>,
    hosts: usize,
    nat_sources: Vec<IpAddr>,
    next_flow: u16,
    /// Pairs of addresses whose flow of a protocol without ports is open.
    used: BTreeSet<(u8, [IpAddr; 2])>,
}

/// From a port, unless said otherwise.
type Kind = fn(&mut Shooter, Family) -> Option<Shot>;

impl Shooter {
    /// For that cloud.
    pub fn new(setting: &Setting, seed: u64) -> Shooter {
        let bound = setting.hosts.iter().enumerate().flat_map(|(host, told)| {
            let ports = told.intent.ports.values().cloned();
            ports.map(move |port| Bound { host, port })
        });
        let groups = setting.cloud.groups.values();
        let sources = setting
            .hosts
            .iter()
            .flat_map(|h| h.intent.nat44_sources.values());
        Shooter {
            rng: StdRng::seed_from_u64(seed ^ 0x6865_7874),
            bound: bound.collect(),
            rules: groups.flat_map(|g| g.rules.values().cloned()).collect(),
            hosts: setting.hosts.len(),
            nat_sources: sources.flatten().copied().collect(),
            next_flow: 2000,
            used: BTreeSet::new(),
        }
    }

    /// The next packet.
    pub fn shot(&mut self) -> Shot {
        loop {
            let family = *Family::BOTH.choose(&mut self.rng).unwrap();
            let (_, kind) = kinds::KINDS
                .choose_weighted(&mut self.rng, |(n, _)| *n)
                .unwrap();
            if let Some(shot) = kind(self, family).filter(|shot| self.is_fresh(shot)) {
                return shot;
            }
        }
    }

    /// Protocols without ports have one flow for each pair of addresses, and a translator changes those.
    fn is_fresh(&mut self, shot: &Shot) -> bool {
        let Body::Other(protocol) = shot.body else {
            return true;
        };
        let mut pair = [shot.ends.src, shot.ends.dst];
        pair.sort_unstable();
        self.used.insert((protocol, pair)) && !is_private(shot.ends.src)
    }

    /// A port number, or an ICMP identifier, that no flow has had.
    fn flow(&mut self) -> u16 {
        self.next_flow = self.next_flow.checked_add(1).expect("few packets");
        self.next_flow
    }

    fn port(&mut self, is_it: impl Fn(&Port) -> bool) -> Option<(usize, Port)> {
        let fitting: Vec<&Bound> = self.bound.iter().filter(|b| is_it(&b.port)).collect();
        let chosen = fitting.choose(&mut self.rng)?;
        Some((chosen.host, chosen.port.clone()))
    }

    fn sender(&mut self, family: Family) -> Option<(usize, Port)> {
        self.port(|p| p.admin_state_up && p.addresses(family).next().is_some())
    }

    fn address(&mut self, port: &Port, family: Family) -> IpAddr {
        let all: Vec<IpAddr> = port.addresses(family).collect();
        *all.choose(&mut self.rng).unwrap()
    }

    fn of_port(&mut self, from: &(usize, Port), ends: Ends, body: Body) -> Shot {
        let (host, port) = from;
        Shot {
            host: *host,
            entry: Entry::Port(port.id),
            mac: port.mac_address,
            ends,
            body,
            state: CtState::New,
            known_at: BTreeSet::new(),
            undone: None,
            flow: None,
            quoted: None,
        }
    }

    fn of_fabric(&mut self, host: usize, ends: Ends, body: Body) -> Shot {
        Shot {
            host,
            entry: Entry::Uplink,
            mac: SPINE_MAC,
            ends,
            body,
            state: CtState::New,
            known_at: BTreeSet::new(),
            undone: None,
            flow: None,
            quoted: None,
        }
    }

    /// From an honest port.
    fn sent(&mut self, family: Family, to: IpAddr, body: Body) -> Option<Shot> {
        let from = self.sender(family)?;
        let ends = Ends::new(self.address(&from.1, family), to);
        Some(self.of_port(&from, ends, body))
    }

    /// What the rule is about, or what it is nearly about.
    fn body_for(&mut self, rule: Option<&SecurityGroupRule>, family: Family) -> Body {
        let flow = self.flow();
        let Some((rule, protocol)) = rule.and_then(|r| r.protocol.map(|p| (r, p))) else {
            return self.any_body(family);
        };
        let range = rule.port_range_min.zip(rule.port_range_max);
        let near = range.map_or(7, |(first, last)| {
            let edges = [
                first,
                last,
                first.saturating_sub(1).max(1),
                last.saturating_add(1),
            ];
            let inside = self.rng.random_range(first.min(last)..=first.max(last));
            *[inside, inside, edges[0], edges[1], edges[2], edges[3]]
                .choose(&mut self.rng)
                .unwrap()
        });
        match protocol {
            Protocol::TCP => Body::Tcp(Tcp::syn(flow, near)),
            Protocol::UDP => Body::Udp(flow, near),
            p if is_icmp(p) => self.ping(family),
            Protocol(other) => Body::Other(other),
        }
    }

    fn any_body(&mut self, family: Family) -> Body {
        let flow = self.flow();
        let port = *[7, 22, 85, 1500, 3000, 547, 67]
            .choose(&mut self.rng)
            .unwrap();
        match self.rng.random_range(0..8) {
            0..4 => Body::Udp(flow, port),
            4 | 5 => Body::Tcp(Tcp::syn(flow, port)),
            6 => self.ping(family),
            _ => Body::Other(*[47, 253, 254].choose(&mut self.rng).unwrap()),
        }
    }

    fn ping(&mut self, family: Family) -> Body {
        let [a, b] = self.flow().to_be_bytes();
        let icmp = Icmp {
            kind: echo(family),
            code: 0,
            rest: [a, b, 0, 1],
        };
        Body::Icmp(icmp, Vec::new())
    }

    /// A rule of one of the port's groups.
    fn rule_of(
        &mut self,
        port: &Port,
        direction: Direction,
        f: Family,
    ) -> Option<SecurityGroupRule> {
        let rules = self.rules.iter().filter(|rule| {
            let its = port.security_groups.contains(&rule.security_group_id);
            its && rule.direction == direction && rule.ethertype == f
        });
        let rules: Vec<_> = rules.collect();
        rules.choose(&mut self.rng).map(|rule| (*rule).clone())
    }

    /// Another port of that host that sends.
    pub fn another(
        &mut self,
        host: usize,
        not: Option<PortId>,
        family: Family,
    ) -> Option<(PortId, IpAddr)> {
        let of_host = |b: &&Bound| b.host == host && Some(b.port.id) != not;
        let up = |b: &&Bound| b.port.admin_state_up && b.port.addresses(family).next().is_some();
        let all: Vec<&Bound> = self.bound.iter().filter(of_host).filter(up).collect();
        let port = all.choose(&mut self.rng)?.port.clone();
        Some((port.id, self.address(&port, family)))
    }

    /// Whether to do something that is done so often.
    pub fn flip(&mut self, often: f64) -> bool {
        self.rng.random_bool(often)
    }

    /// The Ethernet address of a port.
    pub fn mac(&self, port: PortId) -> Mac {
        let mut ports = self.bound.iter().map(|b| &b.port);
        ports
            .find(|p| p.id == port)
            .map_or(SPINE_MAC, |p| p.mac_address)
    }
}

fn is_private(address: IpAddr) -> bool {
    matches!(address, IpAddr::V4(v4) if v4.octets()[..2] == [10, 64])
}
