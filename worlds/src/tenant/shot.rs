//! Packets between projects, within them, and from and to the outside; the kinds are in [`kinds`].

mod kinds;

use std::net::IpAddr;

use hextet_model::neutron::{Direction, Port, Protocol, SecurityGroupRule};
use hextet_tests::{
    hypervisor::SPINE_MAC,
    packet::{Ends, Icmp, Tcp, ether_ip, vxlan},
    site::Entry,
    told::Whole,
};
use hextet_types::{Family, Mac, NetworkId, PortId};
use rand::{Rng as _, SeedableRng as _, rngs::StdRng, seq::IndexedRandom as _};

use crate::{
    make::{echo, is_icmp, strangers},
    shot::Body,
};

/// A packet on its way into a host.
#[derive(Clone, Debug)]
pub struct Shot {
    /// Of which kind it is, in a word.
    pub kind: &'static str,
    /// The host, by its number; none for whoever announces the destination.
    pub host: Option<usize>,
    /// By this link.
    pub entry: Entry,
    /// Who the frame says that it is from.
    pub mac: Mac,
    /// Its addresses.
    pub ends: Ends,
    /// The rest.
    pub body: Body,
    /// Whether TCP's numbers are outside of the window.
    pub odd: bool,
    /// Forged by somebody in the underlay.
    pub tunnel: Option<Tunnel>,
    /// Whether it comes in fragments, where it is a datagram.
    pub fragmented: bool,
    /// The next hop that its sender has chosen; its gateway, where there is none.
    pub to_mac: Option<Mac>,
}

/// What is around a packet between hosts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tunnel {
    /// From host to host.
    pub ends: Ends,
    /// The network's number on the wire.
    pub vni: u32,
    /// The frame's destination inside.
    pub to: Mac,
    /// The frame's source inside.
    pub from: Mac,
}

impl Tunnel {
    /// The outer IP packet around an inner one.
    pub fn around(&self, inner: &[u8]) -> Vec<u8> {
        let ether = hextet_tests::packet::Ether {
            src: self.from,
            dst: self.to,
        };
        let frame = ether_ip(ether, inner);
        let payload = vxlan(self.ends, self.vni, &frame);
        hextet_tests::packet::Ip::default().packet(self.ends, &payload)
    }
}

/// A port and where it is.
#[derive(Clone, Debug)]
pub struct Bound {
    /// The host, by its number.
    pub host: usize,
    /// The port.
    pub port: Port,
    /// Whose it is; none for one on the external network.
    pub project: Option<usize>,
}

/// Makes one packet after the other.
pub struct Shooter {
    /// What decides.
    pub rng: StdRng,
    /// All ports.
    pub bound: Vec<Bound>,
    whole: Whole,
    rules: Vec<SecurityGroupRule>,
    next_flow: u16,
}

impl Shooter {
    /// For that cloud.
    pub fn new(whole: Whole, seed: u64) -> Shooter {
        let bound = whole.cloud.ports.values().map(|port| Bound {
            host: whole.bound[&port.id],
            port: port.clone(),
            project: whole.project.get(&port.network_id).copied(),
        });
        let groups = whole.cloud.groups.values();
        Shooter {
            rng: StdRng::seed_from_u64(seed ^ 0x7368_6f74),
            bound: bound.collect(),
            rules: groups.flat_map(|g| g.rules.values().cloned()).collect(),
            next_flow: 2000,
            whole,
        }
    }

    /// The cloud.
    pub fn whole(&self) -> &Whole {
        &self.whole
    }

    /// The next packet.
    pub fn shot(&mut self) -> Shot {
        loop {
            let family = *Family::BOTH.choose(&mut self.rng).unwrap();
            let kinds = kinds::KINDS;
            let (_, name, kind) = kinds.choose_weighted(&mut self.rng, |(n, ..)| *n).unwrap();
            if let Some(shot) = kind(self, family) {
                return Shot { kind: name, ..shot };
            }
        }
    }

    /// Whether to do something that is done so often.
    pub fn flip(&mut self, often: f64) -> bool {
        self.rng.random_bool(often)
    }

    /// The Ethernet address of a port.
    pub fn mac(&self, port: PortId) -> Mac {
        let ports = &self.whole.cloud.ports;
        ports.get(&port).map_or(SPINE_MAC, |port| port.mac_address)
    }

    /// Where a port lives.
    pub fn network_of(&self, port: PortId) -> Option<NetworkId> {
        let ports = &self.whole.cloud.ports;
        ports.get(&port).map(|port| port.network_id)
    }

    /// A port number, or an ICMP identifier, that no flow has had.
    fn flow(&mut self) -> u16 {
        self.next_flow = self.next_flow.checked_add(1).expect("few packets");
        self.next_flow
    }

    fn port(&mut self, is_it: impl Fn(&Bound) -> bool) -> Option<Bound> {
        let fitting: Vec<&Bound> = self.bound.iter().filter(|b| is_it(b)).collect();
        fitting.choose(&mut self.rng).map(|bound| (*bound).clone())
    }

    /// One that can send packets of that family, and of which that holds.
    fn sender(&mut self, family: Family, is_it: impl Fn(&Bound) -> bool) -> Option<Bound> {
        let sends = |b: &Bound| b.port.admin_state_up && b.port.addresses(family).next().is_some();
        self.port(|b| sends(b) && is_it(b))
    }

    fn address(&mut self, port: &Port, family: Family) -> IpAddr {
        let all: Vec<IpAddr> = port.addresses(family).collect();
        *all.choose(&mut self.rng).unwrap()
    }

    fn stranger(&mut self, family: Family) -> IpAddr {
        *strangers(family).choose(&mut self.rng).unwrap()
    }

    fn of_port(&mut self, from: &Bound, ends: Ends, body: Body) -> Shot {
        Shot {
            kind: "",
            host: Some(from.host),
            entry: Entry::Port(from.port.id),
            mac: from.port.mac_address,
            ends,
            body,
            odd: false,
            tunnel: None,
            fragmented: false,
            to_mac: None,
        }
    }

    /// From a port with one of its addresses.
    fn sent(&mut self, from: &Bound, to: IpAddr, body: Body) -> Option<Shot> {
        let family = Family::of(to);
        from.port.addresses(family).next()?;
        let ends = Ends::new(self.address(&from.port, family), to);
        Some(self.of_port(from, ends, body))
    }

    /// From somebody outside, to whoever announces that.
    fn by_stranger(&mut self, to: IpAddr, body: Body) -> Shot {
        let ends = Ends::new(self.stranger(Family::of(to)), to);
        Shot {
            kind: "",
            host: None,
            entry: Entry::Uplink,
            mac: SPINE_MAC,
            ends,
            body,
            odd: false,
            tunnel: None,
            fragmented: false,
            to_mac: None,
        }
    }

    /// What one of a port's rules is about, or nearly about.
    fn body_to(&mut self, port: &Port, family: Family) -> Body {
        let rules = self.rules.iter().filter(|rule| {
            let its = port.security_groups.contains(&rule.security_group_id);
            its && rule.direction == Direction::Ingress && rule.ethertype == family
        });
        let rules: Vec<&SecurityGroupRule> = rules.collect();
        let rule = rules.choose(&mut self.rng).map(|rule| (*rule).clone());
        let flow = self.flow();
        let Some((rule, protocol)) = rule.and_then(|r| r.protocol.map(|p| (r, p))) else {
            return self.any_body(family);
        };
        let near = match rule.port_range_min.zip(rule.port_range_max) {
            Some((first, last)) => {
                let inside = self.rng.random_range(first.min(last)..=first.max(last));
                let beside = last.saturating_add(1);
                *[inside, inside, first, last, beside]
                    .choose(&mut self.rng)
                    .unwrap()
            }
            None => 7,
        };
        match protocol {
            Protocol::TCP => Body::Tcp(Tcp::syn(flow, near)),
            Protocol::UDP => Body::Udp(flow, near),
            p if is_icmp(p) => self.ping(family),
            _ => self.any_body(family),
        }
    }

    fn any_body(&mut self, family: Family) -> Body {
        let flow = self.flow();
        let port = *[7, 22, 85, 1500, 3000].choose(&mut self.rng).unwrap();
        match self.rng.random_range(0..7) {
            0..4 => Body::Udp(flow, port),
            4 | 5 => Body::Tcp(Tcp::syn(flow, port)),
            _ => self.ping(family),
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

    /// Another port of that host that sends.
    pub fn another(&mut self, host: usize, not: Option<PortId>, family: Family) -> Option<Bound> {
        self.sender(family, |b| b.host == host && Some(b.port.id) != not)
    }
}
