//! What is shot between projects, and how often.

use std::{collections::BTreeSet, net::IpAddr};

use hextet_tests::{
    cloud::addr,
    hypervisor::SPINE_MAC,
    packet::{Ends, Icmp, Tcp},
    site::Entry,
    told::endpoint,
};
use hextet_types::{Family, Mac, NetworkId};
use rand::{Rng as _, seq::IndexedRandom as _};

use super::{Bound, Shooter, Shot, Tunnel};
use crate::{
    make::{OTHER_MAC, strangers},
    shot::Body,
    tenant::make::{BEYOND, FAR_BEYOND, SHARED, TOLD, WIDE},
};

/// Makes a packet, where there is one of its kind.
type Kind = fn(&mut Shooter, Family) -> Option<Shot>;

/// All of them.
pub const KINDS: &[(u32, &str, Kind)] = &[
    (24, "inside a project", Shooter::inside),
    (12, "inside a network", Shooter::within),
    (5, "to an address of another project", Shooter::overlapping),
    (8, "to the outside", Shooter::at_stranger),
    (10, "to a floating IP", Shooter::at_floating),
    (7, "to forwarded ports", Shooter::at_forwarded),
    (8, "to a published address", Shooter::at_published),
    (
        6,
        "between projects by way of the outside",
        Shooter::at_public,
    ),
    (3, "from a port outside", Shooter::of_public_port),
    (3, "from outside to what is inside", Shooter::at_private),
    (6, "by an extra route", Shooter::beyond),
    (6, "by a chosen next hop", Shooter::by_next_hop),
    (4, "to a shared address", Shooter::at_shared),
    (4, "with an address that may be another's", Shooter::spoofed),
    (3, "to a router", Shooter::at_router),
    (3, "to a gateway", Shooter::at_gateway),
    (3, "to nobody", Shooter::at_nobody),
    (6, "forged in the underlay", Shooter::forged),
    (3, "of no connection", Shooter::no_connection),
    (2, "from or to a port that is down", Shooter::down),
    (1, "to the host", Shooter::at_host),
    (2, "what stays at the edge", Shooter::at_edge),
    (1, "from an interface of nobody", Shooter::stray),
];

fn is_private(bound: &Bound) -> bool {
    bound.project.is_some()
}

impl Shooter {
    fn inside(&mut self, family: Family) -> Option<Shot> {
        let to = self.sender(family, is_private)?;
        let same = |b: &Bound| b.project == to.project && b.port.id != to.port.id;
        let from = self.sender(family, same)?;
        let body = self.body_to(&to.port, family);
        let to = self.address(&to.port, family);
        self.sent(&from, to, body)
    }

    fn within(&mut self, family: Family) -> Option<Shot> {
        let to = self.sender(family, is_private)?;
        let network = to.port.network_id;
        let same = |b: &Bound| b.port.network_id == network && b.port.id != to.port.id;
        let from = self.sender(family, same)?;
        let body = self.body_to(&to.port, family);
        let to = self.address(&to.port, family);
        self.sent(&from, to, body)
    }

    fn overlapping(&mut self, family: Family) -> Option<Shot> {
        let to = self.sender(family, is_private)?;
        let from = self.sender(family, |b| is_private(b) && b.project != to.project)?;
        let body = self.body_to(&to.port, family);
        let to = self.address(&to.port, family);
        self.sent(&from, to, body)
    }

    fn at_stranger(&mut self, family: Family) -> Option<Shot> {
        let from = self.sender(family, |_| true)?;
        let (to, body) = (self.stranger(family), self.any_body(family));
        self.sent(&from, to, body)
    }

    /// The port behind an address of a network.
    fn behind(&self, network: NetworkId, inside: IpAddr) -> Option<Bound> {
        let has = |b: &&Bound| {
            let mut fixed = b.port.fixed_ips.iter();
            b.port.network_id == network && fixed.any(|f| f.ip_address == inside)
        };
        self.bound.iter().find(has).cloned()
    }

    fn at_floating(&mut self, _: Family) -> Option<Shot> {
        let all: Vec<_> = self.whole.cloud.floating_ips.values().cloned().collect();
        let ip = all.choose(&mut self.rng)?;
        let behind = self.behind(ip.network_id, ip.fixed_ip_address.into());
        let body = match behind {
            Some(bound) => self.body_to(&bound.port, Family::V4),
            None => self.any_body(Family::V4),
        };
        Some(self.by_stranger(ip.floating_ip_address.into(), body))
    }

    /// A forwarded port, or the one beside.
    fn forwarded(&mut self) -> Option<(IpAddr, Body)> {
        let all: Vec<_> = self
            .whole
            .cloud
            .port_forwardings
            .values()
            .cloned()
            .collect();
        let chosen = all.choose(&mut self.rng)?;
        let range = chosen.external_port_range;
        let inside = self.rng.random_range(range.first()..=range.last());
        let edges = [inside, inside, inside, range.last() + 1, range.first() - 1];
        let port = *edges.choose(&mut self.rng).unwrap();
        let flow = self.flow();
        let udp = match self.rng.random_bool(0.85) {
            true => chosen.protocol.number() == 17,
            false => chosen.protocol.number() != 17,
        };
        let body = match udp {
            true => Body::Udp(flow, port),
            false => Body::Tcp(Tcp::syn(flow, port)),
        };
        Some((chosen.floating_ip_address.into(), body))
    }

    fn at_forwarded(&mut self, _: Family) -> Option<Shot> {
        let (to, body) = self.forwarded()?;
        Some(self.by_stranger(to, body))
    }

    /// What looks public, be it reached from outside or not.
    fn looks_public(addr: IpAddr) -> bool {
        match addr {
            IpAddr::V4(v4) => v4.octets()[0] != 10,
            IpAddr::V6(v6) => v6.segments()[0] == 0x2001,
        }
    }

    fn public_address(&mut self, family: Family) -> Option<(Bound, IpAddr)> {
        let public = |b: &Bound| b.port.addresses(family).any(Shooter::looks_public);
        let bound = self.sender(family, public)?;
        let addresses = bound.port.addresses(family);
        let public: Vec<IpAddr> = addresses.filter(|a| Shooter::looks_public(*a)).collect();
        let addr = *public.choose(&mut self.rng)?;
        Some((bound, addr))
    }

    fn at_published(&mut self, family: Family) -> Option<Shot> {
        let (bound, to) = self.public_address(family)?;
        let body = self.body_to(&bound.port, family);
        Some(self.by_stranger(to, body))
    }

    /// From any port to whatever is reached from outside.
    fn at_public(&mut self, family: Family) -> Option<Shot> {
        let from = self.sender(family, |_| true)?;
        self.public_by(&from, family)
    }

    fn public_by(&mut self, from: &Bound, family: Family) -> Option<Shot> {
        let (to, body) = match (family, self.rng.random_range(0..4)) {
            (Family::V4, 0 | 1) => {
                let shot = self.at_floating(family)?;
                (shot.ends.dst, shot.body)
            }
            (Family::V4, 2) => self.forwarded()?,
            _ => {
                let (bound, to) = self.public_address(family)?;
                (to, self.body_to(&bound.port, family))
            }
        };
        self.sent(from, to, body)
    }

    fn of_public_port(&mut self, family: Family) -> Option<Shot> {
        let from = self.sender(family, |b| !is_private(b))?;
        self.public_by(&from, family)
    }

    fn at_private(&mut self, family: Family) -> Option<Shot> {
        let to = self.sender(family, is_private)?;
        let body = self.body_to(&to.port, family);
        let addr = self.address(&to.port, family);
        let mut shot = self.by_stranger(addr, body);
        shot.host = Some(to.host);
        Some(shot)
    }

    fn beyond(&mut self, family: Family) -> Option<Shot> {
        let from = self.sender(family, is_private)?;
        let routes = [BEYOND, FAR_BEYOND, TOLD].choose(&mut self.rng).unwrap();
        let prefix: hextet_types::Prefix =
            hextet_tests::cloud::prefix(routes[usize::from(family == Family::V6)]);
        let to = match prefix.addr() {
            IpAddr::V4(v4) => IpAddr::V4((u32::from(v4) + self.rng.random_range(1..9)).into()),
            IpAddr::V6(v6) => IpAddr::V6((u128::from(v6) + self.rng.random_range(1..9)).into()),
        };
        let body = self.any_body(family);
        self.sent(&from, to, body)
    }

    /// By way of a port that may carry packets of others, of one that may not, or of a router.
    fn by_next_hop(&mut self, family: Family) -> Option<Shot> {
        let from = self.sender(family, is_private)?;
        let network = from.port.network_id;
        let near = |b: &Bound| b.port.network_id == network && b.port.id != from.port.id;
        let carries = |b: &Bound| near(b) && b.port.may_carry();
        let routers = self.whole.cloud.routers.values();
        let interfaces = routers.flat_map(|r| r.interfaces.values());
        let here = interfaces.filter(|i| i.network_id == network);
        let routers: Vec<Mac> = here.map(|i| i.mac_address).collect();
        let hop = match self.rng.random_range(0..8) {
            0 => self.port(near)?.port.mac_address,
            1..3 => *routers.choose(&mut self.rng)?,
            _ => self.port(carries)?.port.mac_address,
        };
        let mut shot = match self.rng.random_range(0..3) {
            0 => {
                let (to, body) = (self.stranger(family), self.any_body(family));
                self.sent(&from, to, body)
            }
            1 => {
                let to = self.sender(family, |b| b.project == from.project)?;
                let (body, to) = (
                    self.body_to(&to.port, family),
                    self.address(&to.port, family),
                );
                self.sent(&from, to, body)
            }
            _ => {
                let to = addr(["192.168.7.7", "fd99::7"][usize::from(family == Family::V6)]);
                let body = self.any_body(family);
                self.sent(&from, to, body)
            }
        }?;
        shot.to_mac = Some(hop);
        Some(shot)
    }

    fn at_shared(&mut self, family: Family) -> Option<Shot> {
        let from = self.sender(family, is_private)?;
        let to = addr(SHARED[usize::from(family == Family::V6)]);
        let body = self.any_body(family);
        self.sent(&from, to, body)
    }

    fn spoofed(&mut self, family: Family) -> Option<Shot> {
        let from = self.sender(family, is_private)?;
        let other = self.sender(family, is_private)?;
        let to = self.sender(family, |b| b.project == from.project)?;
        let wide = addr(
            WIDE[usize::from(family == Family::V6)]
                .split('/')
                .next()
                .unwrap(),
        );
        let shared = addr(SHARED[usize::from(family == Family::V6)]);
        let others = self.address(&other.port, family);
        let own = self.address(&from.port, family);
        let claimed = [own, others, wide, wide, shared, shared];
        let source = *claimed.choose(&mut self.rng).unwrap();
        let body = self.any_body(family);
        let ends = Ends::new(source, self.address(&to.port, family));
        let mut shot = self.of_port(&from, ends, body);
        let mac = from.port.mac_address;
        let macs = [mac, mac, mac, other.port.mac_address, OTHER_MAC];
        shot.mac = *macs.choose(&mut self.rng).unwrap();
        Some(shot)
    }

    fn at_router(&mut self, family: Family) -> Option<Shot> {
        let routers = self.whole.cloud.routers.values();
        let interfaces = routers.flat_map(|r| r.interfaces.values());
        let fixed = interfaces.flat_map(|i| &i.fixed_ips).map(|f| f.ip_address);
        let all: Vec<IpAddr> = fixed.filter(|a| Family::of(*a) == family).collect();
        let to = *all.choose(&mut self.rng)?;
        let from = self.sender(family, is_private)?;
        let body = self.any_body(family);
        self.sent(&from, to, body)
    }

    fn at_gateway(&mut self, family: Family) -> Option<Shot> {
        let routers = self.whole.cloud.routers.values();
        let gateways = routers.flat_map(|r| r.gateways.values());
        let fixed = gateways.flat_map(|g| &g.fixed_ips).map(|f| f.ip_address);
        let all: Vec<IpAddr> = fixed.filter(|a| Family::of(*a) == family).collect();
        let to = *all.choose(&mut self.rng)?;
        let body = self.any_body(family);
        if self.rng.random_bool(0.6) {
            return Some(self.by_stranger(to, body));
        }
        let from = self.sender(family, |_| true)?;
        self.sent(&from, to, body)
    }

    fn at_nobody(&mut self, family: Family) -> Option<Shot> {
        let from = self.sender(family, is_private)?;
        let nobody: &[&str] = match family {
            Family::V4 => &["10.0.0.77", "10.0.1.77", "10.0.9.9", "198.51.100.99"],
            Family::V6 => &[
                "fd00::77",
                "fd00:0:0:1::77",
                "2001:db8:a0:0::77",
                "2001:db8:e::77",
            ],
        };
        let to = addr(nobody.choose(&mut self.rng).unwrap());
        let body = self.any_body(family);
        self.sent(&from, to, body)
    }

    /// From a host, or from somebody who is none, with whatever it may claim.
    fn forged(&mut self, family: Family) -> Option<Shot> {
        let to = self.sender(family, is_private)?;
        let network = to.port.network_id;
        let source = self.sender(family, |b| b.port.network_id == network)?;
        let whole = &self.whole;
        let underlay = whole.underlay;
        let own = endpoint(to.host, underlay);
        let others: Vec<usize> = (0..whole.hosts).filter(|n| *n != to.host).collect();
        let vnis: BTreeSet<u32> = whole
            .cloud
            .networks
            .values()
            .filter_map(|n| n.segmentation_id)
            .collect();
        let right = whole.cloud.networks[&network].segmentation_id?;
        let known = others
            .choose(&mut self.rng)
            .filter(|_| self.rng.random_bool(0.8));
        let src = match known {
            Some(host) => endpoint(*host, underlay).address,
            None => match underlay {
                Family::V4 => addr("203.0.114.77"),
                Family::V6 => addr("2001:db8:fffe::77"),
            },
        };
        let vnis: Vec<u32> = vnis.into_iter().chain([4999]).collect();
        let vni = match self.rng.random_bool(0.7) {
            true => right,
            false => *vnis.choose(&mut self.rng).unwrap(),
        };
        let mac_of = |number: u32| {
            let [_, a, b, c] = number.to_be_bytes();
            Mac::new([0x06, 0x68, 0x78, a, b, c])
        };
        let to_mac = match self.rng.random_bool(0.85) {
            true => mac_of(own.number),
            false => to.port.mac_address,
        };
        let tunnel = Tunnel {
            ends: Ends::new(src, own.address),
            vni,
            to: to_mac,
            from: mac_of(7),
        };
        let sources = [
            self.address(&source.port, family),
            self.address(&source.port, family),
            strangers(family)[1],
        ];
        let from = *sources.choose(&mut self.rng).unwrap();
        let ends = Ends::new(from, self.address(&to.port, family));
        let body = match self.rng.random_bool(0.8) {
            true => self.body_to(&to.port, family),
            false => self.unusual(family),
        };
        Some(Shot {
            kind: "",
            host: Some(to.host),
            entry: Entry::Uplink,
            mac: SPINE_MAC,
            ends,
            body,
            odd: false,
            tunnel: Some(tunnel),
            fragmented: false,
            to_mac: None,
        })
    }

    /// What no group allows: redirects, discovery, and what is for clients of DHCP.
    fn unusual(&mut self, family: Family) -> Body {
        let flow = self.flow();
        let icmp = |kind| Icmp {
            kind,
            code: 0,
            rest: [0; 4],
        };
        match (family, self.rng.random_bool(0.5)) {
            (Family::V4, true) => Body::Icmp(icmp(5), vec![0; 28]),
            (Family::V6, true) => Body::Icmp(icmp(self.rng.random_range(133..=136)), vec![0; 16]),
            (Family::V4, false) => Body::Udp(flow, 68),
            (Family::V6, false) => Body::Udp(flow, 546),
        }
    }

    fn at_edge(&mut self, family: Family) -> Option<Shot> {
        let from = self.sender(family, is_private)?;
        let to = self.sender(family, |b| b.project == from.project)?;
        let body = self.unusual(family);
        let to = self.address(&to.port, family);
        self.sent(&from, to, body)
    }

    fn no_connection(&mut self, family: Family) -> Option<Shot> {
        let (sport, dport) = (self.flow(), *[22, 80, 1500].choose(&mut self.rng).unwrap());
        let flags = [Tcp::ACK, Tcp::SYN | Tcp::ACK, Tcp::FIN | Tcp::ACK, Tcp::RST];
        let flags = *flags.choose(&mut self.rng).unwrap();
        let mut shot = match self.rng.random_range(0..4) {
            0 => self.at_floating(family),
            1 => self.at_stranger(family),
            2 => self.at_published(family),
            _ => self.inside(family),
        }?;
        shot.body = Body::Tcp(Tcp {
            sport,
            dport,
            seq: 7000,
            ack: 9000,
            flags,
        });
        Some(shot)
    }

    fn down(&mut self, family: Family) -> Option<Shot> {
        let down = |b: &Bound| !b.port.admin_state_up && b.port.addresses(family).next().is_some();
        let down = self.port(|b| is_private(b) && down(b))?;
        let other = self.sender(family, |b| b.project == down.project)?;
        let body = self.any_body(family);
        let (from, to) = match self.rng.random_bool(0.5) {
            true => (&down, &other),
            false => (&other, &down),
        };
        let to = self.address(&to.port, family);
        self.sent(from, to, body)
    }

    fn at_host(&mut self, _: Family) -> Option<Shot> {
        let from = self.sender(Family::V4, is_private)?;
        let body = self.any_body(Family::V4);
        self.sent(&from, addr("169.254.0.1"), body)
    }

    fn stray(&mut self, family: Family) -> Option<Shot> {
        let mut shot = self.inside(family)?;
        shot.entry = Entry::Stray;
        Some(shot)
    }
}
