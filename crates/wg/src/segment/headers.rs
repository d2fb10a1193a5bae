//! Where things stand in packets of TCP and UDP, and how to write them.

use super::{Error, Kind, Offload, checksum::Sum};

pub const IPV4: usize = 20;
pub const IPV6: usize = 40;
const TCP: usize = 20;
const UDP: usize = 8;
const PROTOCOL_TCP: u8 = 6;
const PROTOCOL_UDP: u8 = 17;

/// Flags of TCP (RFC 9293 §3.1).
pub const FIN: u8 = 0x01;
pub const PSH: u8 = 0x08;
pub const ACK: u8 = 0x10;
pub const ECE: u8 = 0x40;
pub const CWR: u8 = 0x80;

/// Of IPv4's flags: don't fragment.
pub const DF: u16 = 0x4000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    Tcp,
    Udp,
}

impl Protocol {
    /// Octets from its header to its checksum.
    pub const fn checksum_field(self) -> usize {
        match self {
            Protocol::Tcp => 16,
            Protocol::Udp => 6,
        }
    }
}

/// Where the headers of a packet end; the packet is at least as long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    pub ipv6: bool,
    pub protocol: Protocol,
    /// Where TCP's or UDP's header begins.
    pub transport: usize,
    /// Where the payload begins.
    pub payload: usize,
}

impl Layout {
    /// Of a packet that a device says is to be cut.
    pub fn of_super(offload: &Offload, kind: Kind, packet: &[u8]) -> Result<Layout, Error> {
        let partial = offload.checksum.ok_or(Error::Packet)?;
        let transport = usize::from(partial.start);
        let ipv6 = match (version(packet), kind) {
            (4, Kind::Tcp4 | Kind::Udp) => false,
            (6, Kind::Tcp6 | Kind::Udp) => true,
            _ => return Err(Error::Packet),
        };
        // IPv6 may have further headers between.
        let starts_well = if ipv6 {
            transport >= IPV6
        } else {
            transport >= IPV4 && transport == ipv4_header(packet)
        };
        let protocol = match kind {
            Kind::Tcp4 | Kind::Tcp6 => Protocol::Tcp,
            Kind::Udp => Protocol::Udp,
        };
        if !starts_well || usize::from(partial.field) != protocol.checksum_field() {
            return Err(Error::Packet);
        }
        let payload = end_of_headers(protocol, transport, packet).ok_or(Error::Packet)?;
        u16::try_from(packet.len() - transport).map_err(|_| Error::Packet)?;
        Ok(Layout {
            ipv6,
            protocol,
            transport,
            payload,
        })
    }

    /// Of a whole packet without options and extension headers, and not a fragment, if it is one; whose lengths are right.
    pub fn of_plain(packet: &[u8]) -> Option<Layout> {
        let (ipv6, transport, protocol, len) = match version(packet) {
            4 if packet.len() >= IPV4 && ipv4_header(packet) == IPV4 => {
                let fragment = word(packet, 6);
                if fragment & !DF != 0 {
                    return None;
                }
                (false, IPV4, packet[9], usize::from(word(packet, 2)))
            }
            6 if packet.len() >= IPV6 => {
                (true, IPV6, packet[6], IPV6 + usize::from(word(packet, 4)))
            }
            _ => return None,
        };
        let protocol = match protocol {
            PROTOCOL_TCP => Protocol::Tcp,
            PROTOCOL_UDP => Protocol::Udp,
            _ => return None,
        };
        let payload = end_of_headers(protocol, transport, packet)?;
        let datagram_fits = protocol == Protocol::Tcp
            || usize::from(word(packet, transport + 4)) == packet.len() - transport;
        (len == packet.len() && datagram_fits).then_some(Layout {
            ipv6,
            protocol,
            transport,
            payload,
        })
    }

    /// The sum of the pseudo-header, of a packet without extension headers (RFC 9293 §3.1, RFC 8200 §8.1).
    pub fn pseudo_header(&self, packet: &[u8]) -> Sum {
        let addresses = if self.ipv6 { 8..IPV6 } else { 12..IPV4 };
        let protocol = match self.protocol {
            Protocol::Tcp => PROTOCOL_TCP,
            Protocol::Udp => PROTOCOL_UDP,
        };
        let len = packet.len() - self.transport;
        Sum::of(&packet[addresses])
            .and(u16::from(protocol))
            .and(len as u16)
    }

    /// Whether all its checksums are there and right.
    pub fn is_sound(&self, packet: &[u8]) -> bool {
        let absent = self.protocol == Protocol::Udp && word(packet, self.transport + 6) == 0;
        let ip = self.ipv6 || Sum::of(&packet[..self.transport]).complement() == 0;
        let sum = || {
            self.pseudo_header(packet)
                .with(Sum::of(&packet[self.transport..]))
        };
        ip && !absent && sum().complement() == 0
    }

    /// Writes how long the packet is into all headers that say it, and IPv4's checksum.
    pub fn set_lengths(&self, packet: &mut [u8]) {
        let len = packet.len();
        if self.protocol == Protocol::Udp {
            set_word(packet, self.transport + 4, (len - self.transport) as u16);
        }
        if self.ipv6 {
            set_word(packet, 4, (len - IPV6) as u16);
        } else {
            set_word(packet, 2, len as u16);
            set_word(packet, 10, 0);
            let checksum = Sum::of(&packet[..self.transport]).complement();
            set_word(packet, 10, checksum);
        }
    }
}

fn version(packet: &[u8]) -> u8 {
    packet.first().map_or(0, |first| first >> 4)
}

fn ipv4_header(packet: &[u8]) -> usize {
    packet
        .first()
        .map_or(0, |first| usize::from(first & 15) * 4)
}

fn end_of_headers(protocol: Protocol, transport: usize, packet: &[u8]) -> Option<usize> {
    let header = match protocol {
        Protocol::Udp => UDP,
        Protocol::Tcp => usize::from(packet.get(transport + 12)? >> 4) * 4,
    };
    let long_enough = protocol == Protocol::Udp || header >= TCP;
    let end = transport + header;
    (long_enough && end <= packet.len()).then_some(end)
}

/// The number at a place that the packet has.
pub fn word(packet: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([packet[at], packet[at + 1]])
}

pub fn set_word(packet: &mut [u8], at: usize, word: u16) {
    packet[at..at + 2].copy_from_slice(&word.to_be_bytes());
}

/// TCP's sequence number.
pub fn sequence(packet: &[u8], layout: &Layout) -> u32 {
    let at = layout.transport + 4;
    u32::from(word(packet, at)) << 16 | u32::from(word(packet, at + 2))
}

pub fn set_sequence(packet: &mut [u8], layout: &Layout, sequence: u32) {
    let at = layout.transport + 4;
    packet[at..at + 4].copy_from_slice(&sequence.to_be_bytes());
}

/// TCP's flags.
pub fn flags(packet: &[u8], layout: &Layout) -> u8 {
    packet[layout.transport + 13]
}

pub fn set_flags(packet: &mut [u8], layout: &Layout, flags: u8) {
    packet[layout.transport + 13] = flags;
}
