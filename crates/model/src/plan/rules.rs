//! What a security group rule asks of a packet, as elements of hash sets.
//!
//! A rule becomes one or more [`Match`]es: a [`Shape`], which is a way of looking at packets that many
//! rules share, and a key under which packets of that shape are found. A chain holds one lookup for each
//! shape, however many rules there are. A rule that makes no sense (a range that ends before it begins,
//! a port of a protocol without ports, a prefix of the other family) matches nothing: the server refuses
//! it, and here it must not open more than it says.

use std::collections::BTreeSet;

use hextet_types::{Family, Prefix, SecurityGroupId};

use super::nft;
use crate::{
    intent::Group,
    neutron::{Direction, Protocol, SecurityGroupRule},
    state::{Field, KeyPart, KeyType, Value},
};

/// What a rule says about protocol, ports and ICMP types.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Service {
    /// Nothing.
    Any,
    /// A protocol.
    Protocol,
    /// A protocol and the first bits of the destination port.
    Port(u16),
    /// ICMP of its family, a type.
    IcmpType,
    /// ICMP of its family, a type and a code.
    IcmpCode,
}

/// A way of looking at packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Shape {
    /// Packets of this family.
    pub family: Family,
    /// What is looked at behind the IP header.
    pub service: Service,
    /// The first bits of the other end's address; never 0.
    pub prefix_len: Option<u8>,
    /// The other end is a member of this group.
    pub remote: Option<SecurityGroupId>,
}

/// A shape, and the key of the packets that are allowed.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Match {
    /// The shape.
    pub shape: Shape,
    /// One value for each part of the shape's key.
    pub key: Vec<Value>,
}

/// What a rule of that group allows.
pub fn matches(group: &Group, rule: &SecurityGroupRule) -> Vec<Match> {
    let prefixes: BTreeSet<Option<Prefix>> = match group.remote_prefixes(rule) {
        None => [None].into(),
        Some(all) if all.iter().any(|p| p.is_default()) => [None].into(),
        Some(all) => all.into_iter().map(Some).collect(),
    };
    let matched = |(service, mut key): (Service, Vec<Value>), prefix: Option<Prefix>| {
        key.extend(prefix.map(|p| Value::Addr(p.addr())));
        let shape = Shape {
            family: rule.ethertype,
            service,
            prefix_len: prefix.map(|p| p.len()),
            remote: rule.remote_group_id,
        };
        Match { shape, key }
    };
    let services = services(rule);
    prefixes
        .into_iter()
        .flat_map(|prefix| {
            services
                .clone()
                .into_iter()
                .map(move |s| matched(s, prefix))
        })
        .collect()
}

/// What rules that name address groups take on each host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Extent {
    /// Elements of sets.
    pub elements: usize,
    /// Their shapes: each is a look that each new packet may take.
    pub shapes: BTreeSet<Shape>,
}

impl Extent {
    /// Adds a rule whose address group consists of these.
    pub fn add(&mut self, rule: &SecurityGroupRule, addresses: &[Prefix]) {
        let family = rule.ethertype;
        let prefixes = addresses.iter().filter(|p| p.family() == family);
        let lengths: BTreeSet<u8> = prefixes.clone().map(|p| p.len()).collect();
        let services = services(rule);
        self.elements += services.len() * prefixes.count();
        for (service, _) in services {
            self.shapes.extend(lengths.iter().map(|len| Shape {
                family,
                service,
                prefix_len: Some(*len),
                remote: None,
            }));
        }
    }
}

/// The rule's protocol; ICMP in a rule for IPv6 means ICMPv6, as Neutron's alias has it.
fn protocol(rule: &SecurityGroupRule) -> Option<Protocol> {
    match (rule.ethertype, rule.protocol) {
        (Family::V6, Some(Protocol::ICMP)) => Some(Protocol::ICMPV6),
        (_, protocol) => protocol,
    }
}

fn services(rule: &SecurityGroupRule) -> Vec<(Service, Vec<Value>)> {
    let range = (rule.port_range_min, rule.port_range_max);
    match (protocol(rule), range) {
        (None, (None, None)) => vec![(Service::Any, Vec::new())],
        (Some(p), (None, None)) => vec![(Service::Protocol, vec![Value::U8(p.0)])],
        (Some(p), (Some(icmp_type), code)) if p == icmp_of(rule.ethertype) => {
            icmp(icmp_type, code).into_iter().collect()
        }
        (Some(p), range) if p.has_ports() => ports(p, range),
        _ => Vec::new(),
    }
}

/// The ICMP of a family.
pub const fn icmp_of(family: Family) -> Protocol {
    match family {
        Family::V4 => Protocol::ICMP,
        Family::V6 => Protocol::ICMPV6,
    }
}

fn icmp(icmp_type: u16, code: Option<u16>) -> Option<(Service, Vec<Value>)> {
    let icmp_type = Value::U8(u8::try_from(icmp_type).ok()?);
    match code {
        None => Some((Service::IcmpType, vec![icmp_type])),
        Some(code) => {
            let code = Value::U8(u8::try_from(code).ok()?);
            Some((Service::IcmpCode, vec![icmp_type, code]))
        }
    }
}

/// A range with one end missing is that one port.
fn ports(protocol: Protocol, range: (Option<u16>, Option<u16>)) -> Vec<(Service, Vec<Value>)> {
    let (first, last) = match range {
        (Some(first), Some(last)) => (first, last),
        (Some(port), None) | (None, Some(port)) => (port, port),
        (None, None) => return Vec::new(),
    };
    let number = Value::U8(protocol.0);
    port_blocks(first, last)
        .into_iter()
        .map(|(base, mask)| match mask {
            0 => (Service::Protocol, vec![number.clone()]),
            _ => (Service::Port(mask), vec![number.clone(), Value::Port(base)]),
        })
        .collect()
}

/// The fewest (base, mask) blocks that together are the ports from `first` to `last`; at most 30.
pub fn port_blocks(first: u16, last: u16) -> Vec<(u16, u16)> {
    let mut blocks = Vec::new();
    let (mut next, end) = (u32::from(first), u32::from(last) + 1);
    while next < end {
        let aligned = if next == 0 { 16 } else { next.trailing_zeros() };
        let fitting = (end - next).ilog2();
        let size = 1u32 << aligned.min(fitting);
        let (base, mask) = (next & 0xffff, (0x1_0000 - size) & 0xffff);
        blocks.extend(u16::try_from(base).ok().zip(u16::try_from(mask).ok()));
        next += size;
    }
    blocks
}

impl Shape {
    /// The parts of the packet that make its key; the other end is the source of what comes in.
    pub fn key_parts(&self, direction: Direction) -> Vec<KeyPart> {
        let mut parts: Vec<KeyPart> = match self.service {
            Service::Any => Vec::new(),
            Service::Protocol => vec![Field::L4Proto.into()],
            Service::Port(mask) => vec![Field::L4Proto.into(), port_part(mask)],
            Service::IcmpType => vec![Field::IcmpType(self.family).into()],
            Service::IcmpCode => vec![
                Field::IcmpType(self.family).into(),
                Field::IcmpCode(self.family).into(),
            ],
        };
        if let Some(len) = self.prefix_len {
            let field = other_end(direction, self.family);
            parts.push(nft::address_part(field, self.family, len));
        }
        parts
    }

    /// The types of those parts.
    pub fn key_types(&self) -> Vec<KeyType> {
        let mut types = match self.service {
            Service::Any => Vec::new(),
            Service::Protocol => vec![KeyType::InetProto],
            Service::Port(_) => vec![KeyType::InetProto, KeyType::InetService],
            Service::IcmpType => vec![KeyType::IcmpType(self.family)],
            Service::IcmpCode => vec![
                KeyType::IcmpType(self.family),
                KeyType::IcmpCode(self.family),
            ],
        };
        if self.prefix_len.is_some() {
            types.push(KeyType::Addr(self.family));
        }
        types
    }

    /// A few letters that no other shape has, for names.
    pub fn code(&self) -> String {
        let service = match self.service {
            Service::Any => "any".to_owned(),
            Service::Protocol => "proto".to_owned(),
            Service::Port(mask) => format!("port{mask:04x}"),
            Service::IcmpType => "type".to_owned(),
            Service::IcmpCode => "code".to_owned(),
        };
        let prefix = self
            .prefix_len
            .map_or(String::new(), |len| format!("-l{len}"));
        let remote = self
            .remote
            .map_or(String::new(), |g| format!("-r{}", g.0.simple()));
        format!("{service}{prefix}{remote}")
    }
}

/// Where the other end's address stands in a packet.
pub fn other_end(direction: Direction, family: Family) -> Field {
    match direction {
        Direction::Egress => Field::Daddr(family),
        Direction::Ingress => Field::Saddr(family),
    }
}

fn port_part(mask: u16) -> KeyPart {
    KeyPart {
        field: Field::Dport,
        mask: (mask != u16::MAX).then(|| mask.to_be_bytes().to_vec()),
    }
}

#[cfg(test)]
#[path = "rules/tests.rs"]
mod tests;
