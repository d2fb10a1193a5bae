//! What is shot, and how often: each kind makes one packet, from a port unless its name says otherwise.

use std::net::IpAddr;

use hextet_model::{
    neutron::{Direction, Port},
    state::CtState,
};
use hextet_tests::{
    cloud::addr,
    packet::{self, Ends, Icmp, Ip, Tcp},
    site::Entry,
};
use hextet_types::Family;
use rand::{Rng as _, seq::IndexedRandom as _};

use super::{Body, Kind, Shooter, Shot, is_private};
use crate::make::{self, OTHER_MAC, strangers};

/// All of them.
pub(super) const KINDS: &[(u32, Kind)] = &[
    (50, Shooter::at_service),
    (12, Shooter::by_egress_rule),
    (6, Shooter::by_stranger),
    (6, Shooter::at_stranger),
    (3, Shooter::spoofed),
    (2, Shooter::unallocated),
    (1, Shooter::without_source),
    (2, Shooter::dhcp_client),
    (2, Shooter::link_local_source),
    (2, Shooter::link_local_destination),
    (2, Shooter::discovery),
    (2, Shooter::redirect),
    (3, Shooter::no_connection),
    (2, Shooter::at_host),
    (1, Shooter::at_group),
    (2, Shooter::at_private),
    (2, Shooter::black_hole),
    (2, Shooter::stray),
    (4, Shooter::down),
    (4, Shooter::translated),
];

impl Shooter {
    /// To another port's service, by one that a rule is about where there is one.
    fn at_service(&mut self, family: Family) -> Option<Shot> {
        let (_, to) = self.sender(family)?;
        let rule = self.rule_of(&to, Direction::Ingress, family);
        let body = self.body_for(rule.as_ref(), family);
        let remote = rule.as_ref().and_then(|rule| rule.remote_ip_prefix);
        let group = rule.and_then(|rule| rule.remote_group_id);
        let honest = |p: &Port| p.admin_state_up && p.addresses(family).next().is_some();
        let fits = |p: &Port| match (remote, group) {
            (Some(prefix), _) => p.addresses(family).any(|a| prefix.contains(a)),
            (None, Some(group)) => p.security_groups.contains(&group),
            (None, None) => true,
        };
        let fitting = self.rng.random_bool(0.6);
        let from = self.port(|p| honest(p) && p.id != to.id && (!fitting || fits(p)))?;
        let ends = Ends::new(self.address(&from.1, family), self.address(&to, family));
        Some(self.of_port(&from, ends, body))
    }

    /// Where the sender's own rules matter.
    fn by_egress_rule(&mut self, family: Family) -> Option<Shot> {
        let from = self.sender(family)?;
        let rule = self.rule_of(&from.1, Direction::Egress, family);
        let body = self.body_for(rule.as_ref(), family);
        let (_, to) = self.sender(family)?;
        let ends = Ends::new(self.address(&from.1, family), self.address(&to, family));
        Some(self.of_port(&from, ends, body))
    }

    fn stranger(&mut self, family: Family) -> IpAddr {
        *strangers(family).choose(&mut self.rng).unwrap()
    }

    /// From outside, mostly to the right host.
    fn by_stranger(&mut self, family: Family) -> Option<Shot> {
        let (host, to) = self.sender(family)?;
        let host = match self.rng.random_bool(0.9) {
            true => host,
            false => self.rng.random_range(0..self.hosts),
        };
        let rule = self.rule_of(&to, Direction::Ingress, family);
        let body = self.body_for(rule.as_ref(), family);
        let ends = Ends::new(self.stranger(family), self.address(&to, family));
        Some(self.of_fabric(host, ends, body))
    }

    fn at_stranger(&mut self, family: Family) -> Option<Shot> {
        let body = self.any_body(family);
        let to = self.stranger(family);
        self.sent(family, to, body)
    }

    /// With an address or a MAC that may not be the port's; some are, by an address pair.
    fn spoofed(&mut self, family: Family) -> Option<Shot> {
        let from = self.sender(family)?;
        let (_, other) = self.sender(family)?;
        let (_, to) = self.sender(family)?;
        let own = self.address(&from.1, family);
        let others = self.address(&other, family);
        let claimed: &[&str] = match family {
            Family::V4 => &["10.9.1.7", "10.9.7.7", "198.51.100.250", "192.0.2.9"],
            Family::V6 => &["2001:db8:9::7", "2001:db8:1::fa", "2001:db8:7777::7"],
        };
        let claimed = addr(claimed.choose(&mut self.rng).unwrap());
        let source = *[own, others, claimed, claimed, claimed]
            .choose(&mut self.rng)
            .unwrap();
        let body = self.any_body(family);
        let ends = Ends::new(source, self.address(&to, family));
        let mut shot = self.of_port(&from, ends, body);
        let macs = [
            from.1.mac_address,
            from.1.mac_address,
            other.mac_address,
            OTHER_MAC,
        ];
        shot.mac = *macs.choose(&mut self.rng).unwrap();
        Some(shot)
    }

    fn unallocated(&mut self, family: Family) -> Option<Shot> {
        let nobody: &[&str] = match family {
            Family::V4 => &["198.51.100.249", "10.64.200.1"],
            Family::V6 => &["2001:db8:1::dead", "2001:db8:2::dead"],
        };
        let to = addr(nobody.choose(&mut self.rng).unwrap());
        let body = self.any_body(family);
        self.sent(family, to, body)
    }

    /// As a client that has no address yet.
    fn without_source(&mut self, family: Family) -> Option<Shot> {
        let from = self.port(|p| p.admin_state_up)?;
        let (to, body) = match family {
            Family::V4 => ("255.255.255.255", Body::Udp(68, 67)),
            Family::V6 => ("ff02::1:2", Body::Udp(546, 547)),
        };
        let ends = Ends::new(family.unspecified(), addr(to));
        Some(self.of_port(&from, ends, body))
    }

    /// To where a DHCP client listens.
    fn dhcp_client(&mut self, family: Family) -> Option<Shot> {
        let body = Body::Udp(self.flow(), *[68, 546].choose(&mut self.rng).unwrap());
        self.at_port(family, body)
    }

    /// From a port or from outside to a port.
    fn at_port(&mut self, family: Family, body: Body) -> Option<Shot> {
        let (host, to) = self.sender(family)?;
        let to = self.address(&to, family);
        if self.rng.random_bool(0.5) {
            return self.sent(family, to, body);
        }
        let ends = Ends::new(self.stranger(family), to);
        Some(self.of_fabric(host, ends, body))
    }

    fn link_local_source(&mut self, _: Family) -> Option<Shot> {
        let (host, to) = self.sender(Family::V6)?;
        let from = match self.rng.random_bool(0.5) {
            true => self.port(|p| p.admin_state_up && !p.port_security_enabled),
            false => self.sender(Family::V6),
        };
        let to = self.address(&to, Family::V6);
        let body = self.any_body(Family::V6);
        match (from, self.rng.random_bool(0.5)) {
            (Some(from), true) => {
                let ends = Ends::new(from.1.mac_address.link_local(), to);
                Some(self.of_port(&from, ends, body))
            }
            _ => Some(self.of_fabric(host, Ends::new(addr("fe80::7"), to), body)),
        }
    }

    /// To a neighbour that is none, or to the gateway.
    fn link_local_destination(&mut self, _: Family) -> Option<Shot> {
        let from = self.port(|p| p.admin_state_up)?;
        let (_, other) = self.port(|_| true)?;
        let to = *[addr("fe80::1"), IpAddr::V6(other.mac_address.link_local())]
            .choose(&mut self.rng)
            .unwrap();
        let body = self.any_body(Family::V6);
        let ends = Ends::new(from.1.mac_address.link_local(), to);
        Some(self.of_port(&from, ends, body))
    }

    /// Neighbour discovery and group membership, from both sides.
    fn discovery(&mut self, _: Family) -> Option<Shot> {
        let kind = self.rng.random_range(133..=136);
        let icmp = Icmp {
            kind,
            code: 0,
            rest: [0; 4],
        };
        let body = Body::Icmp(icmp, vec![0; 16]);
        let mut shot = self.at_port(Family::V6, body)?;
        shot.state = CtState::Untracked;
        Some(shot)
    }

    fn redirect(&mut self, _: Family) -> Option<Shot> {
        let icmp = Icmp {
            kind: 5,
            code: 1,
            rest: [10, 0, 0, 1],
        };
        let quote = self.unseen_quote(Family::V4);
        let mut shot = self.at_port(Family::V4, Body::Icmp(icmp, quote))?;
        shot.state = CtState::Invalid;
        Some(shot)
    }

    /// A packet that nobody has sent.
    fn unseen_quote(&mut self, family: Family) -> Vec<u8> {
        let [a, b] = [self.stranger(family), make::strangers(family)[2]];
        let ends = Ends::new(a, b);
        let flow = self.flow();
        Ip::default().packet(ends, &packet::udp(ends, flow, 9, &[]))
    }

    /// Answers to nothing, and errors about nothing.
    fn no_connection(&mut self, family: Family) -> Option<Shot> {
        let (sport, dport) = (self.flow(), *[22, 80, 1500].choose(&mut self.rng).unwrap());
        let [a, b] = self.flow().to_be_bytes();
        let flags = *[Tcp::ACK, Tcp::SYN | Tcp::ACK, Tcp::FIN | Tcp::ACK, Tcp::RST]
            .choose(&mut self.rng)
            .unwrap();
        let segment = Tcp {
            sport,
            dport,
            seq: 7000,
            ack: 9000,
            flags,
        };
        let (answer, error) = match family {
            Family::V4 => (0, 3),
            Family::V6 => (129, 1),
        };
        let icmp = |kind, rest| Icmp {
            kind,
            code: 0,
            rest,
        };
        let body = match self.rng.random_range(0..4) {
            0 => Body::Icmp(icmp(answer, [a, b, 0, 1]), Vec::new()),
            1 => Body::Icmp(icmp(error, [0; 4]), self.unseen_quote(family)),
            _ => Body::Tcp(segment),
        };
        let mut shot = self.at_port(family, body)?;
        if self.rng.random_bool(0.3) {
            shot.ends.dst = self.stranger(family);
        }
        shot.state = CtState::Invalid;
        Some(shot)
    }

    fn at_host(&mut self, _: Family) -> Option<Shot> {
        let body = self.any_body(Family::V4);
        self.sent(Family::V4, addr("169.254.0.1"), body)
    }

    fn at_group(&mut self, family: Family) -> Option<Shot> {
        let to = match family {
            Family::V4 => "224.0.0.251",
            Family::V6 => "ff02::fb",
        };
        let from = self.sender(family)?;
        let body = Body::Udp(self.flow(), 5353);
        let ends = Ends::new(self.address(&from.1, family), addr(to));
        Some(self.of_port(&from, ends, body))
    }

    /// From outside to a private address.
    fn at_private(&mut self, _: Family) -> Option<Shot> {
        let private = |p: &Port| p.admin_state_up && p.addresses(Family::V4).any(is_private);
        let (host, to) = self.port(private)?;
        let rule = self.rule_of(&to, Direction::Ingress, Family::V4);
        let body = self.body_for(rule.as_ref(), Family::V4);
        let to = self.address(&to, Family::V4);
        let ends = Ends::new(self.stranger(Family::V4), to);
        Some(self.of_fabric(host, ends, body))
    }

    /// From a private address to the world outside.
    fn translated(&mut self, _: Family) -> Option<Shot> {
        let private = |p: &Port| p.admin_state_up && p.addresses(Family::V4).any(is_private);
        let from = self.port(private)?;
        let body = self.any_body(Family::V4);
        let to = self.stranger(Family::V4);
        let ends = Ends::new(self.address(&from.1, Family::V4), to);
        Some(self.of_port(&from, ends, body))
    }

    /// To a source of the translator, as nobody's answer.
    fn black_hole(&mut self, _: Family) -> Option<Shot> {
        let to = *self.nat_sources.choose(&mut self.rng)?;
        let body = self.any_body(Family::V4);
        if self.rng.random_bool(0.5) {
            return self.sent(Family::V4, to, body);
        }
        let IpAddr::V4(v4) = to else { return None };
        let host = usize::from((v4.octets()[3] - 64) / 16);
        let ends = Ends::new(self.stranger(Family::V4), to);
        Some(self.of_fabric(host, ends, body))
    }

    fn stray(&mut self, family: Family) -> Option<Shot> {
        let mut shot = self.at_service(family)?;
        shot.entry = Entry::Stray;
        Some(shot)
    }

    /// From or to a port that is down.
    fn down(&mut self, family: Family) -> Option<Shot> {
        let is_down = |p: &Port| !p.admin_state_up && p.addresses(family).next().is_some();
        let down = self.port(is_down)?;
        let (_, other) = self.sender(family)?;
        let body = self.any_body(family);
        let [its, others] = [&down.1, &other].map(|p| p.addresses(family).next());
        if self.rng.random_bool(0.5) {
            let ends = Ends::new(its?, others?);
            return Some(self.of_port(&down, ends, body));
        }
        self.sent(family, its?, body)
    }
}
