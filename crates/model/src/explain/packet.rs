//! A packet as rules see it.

use std::{borrow::Cow, net::IpAddr};

use hextet_types::{Family, IfName, Mac};
use serde::{Deserialize, Serialize};

use crate::{
    explain::track::{Point, Tracked},
    plan::rules::icmp_of,
    state::{CtDirection, CtState, Field, KeyPart, NatRange, PktType, Value},
};

/// What follows the IP header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Payload {
    /// A protocol with ports.
    Ports {
        /// Its number.
        protocol: u8,
        /// From this port.
        source: u16,
        /// To this port.
        destination: u16,
    },
    /// ICMP, or ICMPv6: that of the packet's family.
    Icmp {
        /// The type.
        icmp_type: u8,
        /// The code.
        code: u8,
    },
    /// Another protocol, by its number.
    Protocol(u8),
}

/// A packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packet {
    /// Where it comes in; none for what the host itself sends.
    pub link: Option<IfName>,
    /// Who the Ethernet frame says that it is from.
    pub mac: Option<Mac>,
    /// From this address.
    pub source: IpAddr,
    /// To this address.
    pub destination: IpAddr,
    /// The rest.
    pub payload: Payload,
    /// What connection tracking makes of it.
    pub connection: CtState,
    /// Who began the connection, and who answers, where they are others than source and destination: those
    /// of the packet that an ICMP error is about.
    pub flow: Option<[IpAddr; 2]>,
    /// Source and destination of the packet that an ICMP error quotes, where they are others than those of
    /// `flow`: quoted as translated.
    pub quoted: Option<[IpAddr; 2]>,
}

/// In a connection's status: its destination was translated (`IPS_DST_NAT`).
const DESTINATION_TRANSLATED: u32 = 1 << 5;

/// A packet on its way.
pub(super) struct Flight<'a> {
    /// As it is by now: a router may have translated its destination.
    pub packet: Cow<'a, Packet>,
    pub oif: Option<IfName>,
    /// The link groups of where it comes in, and of where it goes out.
    pub groups: [Option<u32>; 2],
    pub mark: u32,
    pub pkt_type: PktType,
    pub translated: Option<NatRange>,
    /// Whether its destination was translated here.
    pub redirected: bool,
    /// Whether connection tracking was told to leave it alone.
    pub untracked: bool,
    /// What connection tracking knows of it.
    pub tracked: Tracked,
    /// The neighbour that it is handed to.
    pub neighbour: Option<IpAddr>,
}

impl Packet {
    /// Its family.
    pub fn family(&self) -> Family {
        Family::of(self.destination)
    }

    /// The protocol's number.
    pub fn protocol(&self) -> u8 {
        match self.payload {
            Payload::Ports { protocol, .. } | Payload::Protocol(protocol) => protocol,
            Payload::Icmp { .. } => icmp_of(self.family()).0,
        }
    }

    fn ports(&self) -> Option<(u16, u16)> {
        match self.payload {
            Payload::Ports {
                source,
                destination,
                ..
            } => Some((source, destination)),
            _ => None,
        }
    }

    fn icmp(&self, family: Family) -> Option<(u8, u8)> {
        match self.payload {
            Payload::Icmp { icmp_type, code } if family == self.family() => Some((icmp_type, code)),
            _ => None,
        }
    }
}

impl<'a> Flight<'a> {
    /// Before it has gone anywhere.
    pub fn new(packet: &'a Packet) -> Self {
        Flight::tracked(packet, Tracked::as_said(packet))
    }

    /// The same, when that is known of its connection.
    pub fn tracked(packet: &'a Packet, tracked: Tracked) -> Self {
        Flight {
            packet: Cow::Borrowed(packet),
            oif: None,
            groups: [None; 2],
            mark: 0,
            pkt_type: PktType::Host,
            translated: None,
            redirected: tracked.redirected,
            untracked: false,
            tracked,
            neighbour: None,
        }
    }

    /// Where its connection's translation sends it, before it is routed.
    pub fn undo_destination(&mut self) {
        if let Some((addr, port)) = self.tracked.destination.filter(|_| !self.untracked) {
            self.redirect((addr, port));
        }
    }

    /// It goes to another address, and port where it says so.
    pub fn redirect(&mut self, (addr, port): Point) {
        let packet = self.packet.to_mut();
        packet.destination = addr;
        if let (Payload::Ports { destination, .. }, Some(port)) = (&mut packet.payload, port) {
            *destination = port;
        }
    }

    /// What its connection's translation makes of its source as it leaves.
    pub fn undo_source(&mut self) {
        let Some((addr, port)) = self.tracked.source.filter(|_| !self.untracked) else {
            return;
        };
        let packet = self.packet.to_mut();
        packet.source = addr;
        if let (Payload::Ports { source, .. }, Some(port)) = (&mut packet.payload, port) {
            *source = port;
        }
    }

    /// As what connection tracking sees it.
    pub fn connection(&self) -> CtState {
        match self.untracked {
            true => CtState::Untracked,
            false => self.packet.connection,
        }
    }

    /// The packet as it leaves this namespace: of several sources that it may get, with the first.
    pub fn into_packet(self) -> Packet {
        let mut packet = self.packet.into_owned();
        if let Some(range) = self.translated.filter(|range| *range != NatRange::OF_LINK) {
            packet.source = range.first;
        }
        packet
    }

    /// What the packet has there, if it has such a thing.
    pub fn field(&self, field: Field) -> Option<Value> {
        let packet = &*self.packet;
        let of_family = |addr: IpAddr, family| (Family::of(addr) == family).then_some(addr);
        match field {
            Field::IifName => packet.link.clone().map(Value::IfName),
            Field::OifName => self.oif.clone().map(Value::IfName),
            Field::IifGroup => self.groups[0].map(Value::U32),
            Field::OifGroup => self.groups[1].map(Value::U32),
            Field::EtherSaddr => packet.mac.map(Value::Mac),
            Field::Saddr(family) => of_family(packet.source, family).map(Value::Addr),
            Field::Daddr(family) => of_family(packet.destination, family).map(Value::Addr),
            Field::NfProto => Some(Value::Family(packet.family())),
            Field::L4Proto => Some(Value::U8(packet.protocol())),
            Field::Sport => packet.ports().map(|(source, _)| Value::Port(source)),
            Field::Dport => packet
                .ports()
                .map(|(_, destination)| Value::Port(destination)),
            Field::IcmpType(family) => packet.icmp(family).map(|(t, _)| Value::U8(t)),
            Field::IcmpCode(family) => packet.icmp(family).map(|(_, code)| Value::U8(code)),
            Field::Mark => Some(Value::U32(self.mark)),
            Field::CtSaddr(direction, family) => {
                let [client, server] = packet.flow.unwrap_or([packet.source, packet.destination]);
                let end = match direction {
                    CtDirection::Original => client,
                    CtDirection::Reply => server,
                };
                of_family(end, family).map(Value::Addr)
            }
            Field::CtStatus if self.redirected => Some(Value::U32(DESTINATION_TRANSLATED)),
            // The planner's rules never look at these, or chance decides, or which addresses somebody else gave the host.
            Field::Random(_)
            | Field::NdTarget
            | Field::PktType
            | Field::CtStatus
            | Field::FibDaddrType
            | Field::Ip6Fragment
            | Field::Ip6NextHeader
            | Field::Ip4Fragment
            | Field::Dscp(_) => None,
        }
    }

    /// The field, or some of its bits.
    pub fn part(&self, part: &KeyPart) -> Option<Value> {
        let value = self.field(part.field)?;
        match &part.mask {
            None => Some(value),
            Some(mask) => masked(value, mask),
        }
    }

    /// All parts of a key.
    pub fn key(&self, parts: &[KeyPart]) -> Option<Vec<Value>> {
        parts.iter().map(|part| self.part(part)).collect()
    }
}

fn masked(value: Value, mask: &[u8]) -> Option<Value> {
    match value {
        Value::Addr(IpAddr::V4(addr)) => {
            let mask = u32::from_be_bytes(mask.try_into().ok()?);
            Some(Value::Addr(IpAddr::V4((u32::from(addr) & mask).into())))
        }
        Value::Addr(IpAddr::V6(addr)) => {
            let mask = u128::from_be_bytes(mask.try_into().ok()?);
            Some(Value::Addr(IpAddr::V6((u128::from(addr) & mask).into())))
        }
        Value::Port(port) => {
            let mask = u16::from_be_bytes(mask.try_into().ok()?);
            Some(Value::Port(port & mask))
        }
        Value::U32(number) => {
            let mask = u32::from_be_bytes(mask.try_into().ok()?);
            Some(Value::U32(number & mask))
        }
        Value::U8(number) => Some(Value::U8(number & mask.first()?)),
        Value::Mac(_) | Value::Family(_) | Value::IfName(_) | Value::Limiter(_) => None,
    }
}
