//! Ethernet frames: what came from a workload is a [`Request`] or the [`Reason`] why not, and what it
//! gets is made here.
//!
//! It looks at lengths, checksums and hop limits, and never at what a port is configured for. What
//! always holds: a request has correct lengths and checksums; it came neither in fragments nor with a
//! VLAN tag nor behind more than [`MAX_EXTENSION_HEADERS`] extension headers; a router solicitation
//! came with hop limit 255 (RFC 4861 §6.1.1). Frames that are made carry correct checksums and no tag.
//!
//! A checksum field counts as correct in a second case: when it holds the sum over the pseudo header
//! alone. So it looks when the sender's kernel left the rest to hardware, and there is none between a
//! workload and us (veth, and TAP with offloads).

use std::net::{Ipv4Addr, Ipv6Addr};

use etherparse::{PacketBuilder, err::packet::BuildVecWriteError};
use hextet_types::Mac;

use crate::{
    counters::Reason,
    nd::{NdOption, ROUTER_SOLICITATION, RouterSolicitation},
    reader::Reader,
};

/// Extension headers before a request; more are no use to any client.
pub const MAX_EXTENSION_HEADERS: usize = 4;

/// UDP port of DHCPv4 servers.
pub const DHCPV4_SERVER_PORT: u16 = 67;
/// UDP port of DHCPv4 clients.
pub const DHCPV4_CLIENT_PORT: u16 = 68;
/// UDP port of DHCPv6 servers.
pub const DHCPV6_SERVER_PORT: u16 = 547;
/// UDP port of DHCPv6 clients.
pub const DHCPV6_CLIENT_PORT: u16 = 546;

const IPV4: u16 = 0x0800;
const IPV6: u16 = 0x86dd;
const VLAN_TAGS: [u16; 3] = [0x8100, 0x88a8, 0x9100];

const HOP_BY_HOP: u8 = 0;
const UDP: u8 = 17;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const ICMPV6: u8 = 58;
const DESTINATION_OPTIONS: u8 = 60;

/// A frame with a request in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    /// Ethernet source.
    pub source: Mac,
    /// Ethernet destination.
    pub destination: Mac,
    /// What it asks for.
    pub request: Request<'a>,
}

/// What a workload may ask us.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request<'a> {
    /// For a router advertisement.
    RouterSolicitation {
        /// IPv6 source; `::` before it has an address.
        source: Ipv6Addr,
        /// IPv6 destination.
        destination: Ipv6Addr,
    },
    /// A datagram to a DHCPv4 server.
    Dhcpv4 {
        /// IPv4 destination.
        destination: Ipv4Addr,
        /// UDP payload.
        payload: &'a [u8],
    },
    /// A datagram to a DHCPv6 server.
    Dhcpv6 {
        /// IPv6 source.
        source: Ipv6Addr,
        /// IPv6 destination.
        destination: Ipv6Addr,
        /// UDP payload.
        payload: &'a [u8],
    },
}

/// Reads a frame as it came from the wire, padding behind the packet included.
///
/// # Errors
///
/// Why it is no request that can be answered.
pub fn parse(bytes: &[u8]) -> Result<Frame<'_>, Reason> {
    let mut reader = Reader::new(bytes);
    let destination = reader.array().map(Mac::new).ok_or(Reason::Truncated)?;
    let source = reader.array().map(Mac::new).ok_or(Reason::Truncated)?;
    let ether_type = reader.u16().ok_or(Reason::Truncated)?;
    let request = match ether_type {
        IPV4 => parse_ipv4(reader.rest())?,
        IPV6 => parse_ipv6(reader.rest())?,
        tag if VLAN_TAGS.contains(&tag) => return Err(Reason::VlanTag),
        _ => return Err(Reason::NotARequest),
    };
    Ok(Frame {
        source,
        destination,
        request,
    })
}

fn parse_ipv4(bytes: &[u8]) -> Result<Request<'_>, Reason> {
    let mut reader = Reader::new(bytes);
    let [version_ihl, _] = reader.array().ok_or(Reason::Truncated)?;
    let total_len = usize::from(reader.u16().ok_or(Reason::Truncated)?);
    reader.u16().ok_or(Reason::Truncated)?;
    let fragment = reader.u16().ok_or(Reason::Truncated)?;
    let [_, protocol, _, _] = reader.array().ok_or(Reason::Truncated)?;
    let source = reader.ipv4().ok_or(Reason::Truncated)?;
    let destination = reader.ipv4().ok_or(Reason::Truncated)?;
    let header_len = usize::from(version_ihl & 0x0f) * 4;
    if version_ihl >> 4 != 4 || header_len < 20 {
        return Err(Reason::IpHeader);
    }
    let packet = bytes.get(..total_len).ok_or(Reason::Truncated)?;
    let (header, datagram) = packet
        .split_at_checked(header_len)
        .ok_or(Reason::IpHeader)?;
    if protocol != UDP {
        return Err(Reason::NotARequest);
    }
    // More fragments, or an offset.
    if fragment & 0x3fff != 0 {
        return Err(Reason::Fragment);
    }
    if folded(&[header]) != 0xffff {
        return Err(Reason::Checksum);
    }
    let addresses = [source.octets(), destination.octets()].concat();
    let payload = parse_udp(datagram, &addresses, DHCPV4_SERVER_PORT)?;
    Ok(Request::Dhcpv4 {
        destination,
        payload,
    })
}

/// A packet behind its headers.
struct Ipv6<'a> {
    source: Ipv6Addr,
    destination: Ipv6Addr,
    hop_limit: u8,
    protocol: u8,
    message: &'a [u8],
}

impl Ipv6<'_> {
    fn addresses(&self) -> Vec<u8> {
        [self.source.octets(), self.destination.octets()].concat()
    }
}

fn ipv6(bytes: &[u8]) -> Result<Ipv6<'_>, Reason> {
    let mut reader = Reader::new(bytes);
    let [version, ..]: [u8; 4] = reader.array().ok_or(Reason::Truncated)?;
    let payload_len = usize::from(reader.u16().ok_or(Reason::Truncated)?);
    let [next_header, hop_limit] = reader.array().ok_or(Reason::Truncated)?;
    let source = reader.ipv6().ok_or(Reason::Truncated)?;
    let destination = reader.ipv6().ok_or(Reason::Truncated)?;
    if version >> 4 != 6 {
        return Err(Reason::IpHeader);
    }
    let packet = reader.take(payload_len).ok_or(Reason::Truncated)?;
    let (protocol, message) = skip_extension_headers(next_header, packet)?;
    Ok(Ipv6 {
        source,
        destination,
        hop_limit,
        protocol,
        message,
    })
}

fn parse_ipv6(bytes: &[u8]) -> Result<Request<'_>, Reason> {
    let packet = ipv6(bytes)?;
    let (source, destination) = (packet.source, packet.destination);
    let (message, addresses) = (packet.message, packet.addresses());
    match packet.protocol {
        UDP => Ok(Request::Dhcpv6 {
            source,
            destination,
            payload: parse_udp(message, &addresses, DHCPV6_SERVER_PORT)?,
        }),
        ICMPV6 if message.first() == Some(&ROUTER_SOLICITATION) => {
            check_solicitation(message, &addresses, source, packet.hop_limit)?;
            Ok(Request::RouterSolicitation {
                source,
                destination,
            })
        }
        _ => Err(Reason::NotARequest),
    }
}

/// A datagram to a DHCPv6 client, and how it came: not in fragments, with the right checksum.
///
/// # Errors
///
/// Why it is none.
pub fn dhcpv6_answer(bytes: &[u8]) -> Result<(Envelope<Ipv6Addr>, &[u8]), Reason> {
    let mut reader = Reader::new(bytes);
    let destination_mac = reader.array().map(Mac::new).ok_or(Reason::Truncated)?;
    let source_mac = reader.array().map(Mac::new).ok_or(Reason::Truncated)?;
    if reader.u16().ok_or(Reason::Truncated)? != IPV6 {
        return Err(Reason::NotARequest);
    }
    let packet = ipv6(reader.rest())?;
    if packet.protocol != UDP {
        return Err(Reason::NotARequest);
    }
    let payload = parse_udp(packet.message, &packet.addresses(), DHCPV6_CLIENT_PORT)?;
    let envelope = Envelope {
        source_mac,
        destination_mac,
        source: packet.source,
        destination: packet.destination,
    };
    Ok((envelope, payload))
}

/// A neighbour discovery message (RFC 4861 §4) to a host, and how it came: with hop limit 255 and the right checksum, and
/// neither in fragments nor behind extension headers (RFC 6980).
///
/// # Errors
///
/// Why it is none.
pub fn neighbour_discovery(bytes: &[u8]) -> Result<(Envelope<Ipv6Addr>, &[u8]), Reason> {
    let mut reader = Reader::new(bytes);
    let destination_mac = reader.array().map(Mac::new).ok_or(Reason::Truncated)?;
    let source_mac = reader.array().map(Mac::new).ok_or(Reason::Truncated)?;
    let ether_type = reader.u16().ok_or(Reason::Truncated)?;
    let [version, ..]: [u8; 4] = reader.array().ok_or(Reason::Truncated)?;
    let payload_len = usize::from(reader.u16().ok_or(Reason::Truncated)?);
    let [next_header, hop_limit] = reader.array().ok_or(Reason::Truncated)?;
    let source = reader.ipv6().ok_or(Reason::Truncated)?;
    let destination = reader.ipv6().ok_or(Reason::Truncated)?;
    let message = reader.take(payload_len).ok_or(Reason::Truncated)?;
    match (ether_type, version >> 4, next_header, hop_limit) {
        (IPV6, 6, ICMPV6, 255) => {}
        (IPV6, 6, ICMPV6, _) => return Err(Reason::HopLimit),
        _ => return Err(Reason::NotARequest),
    }
    let checksum = message
        .get(2..4)
        .and_then(|octets| Reader::new(octets).u16());
    let addresses = [source.octets(), destination.octets()].concat();
    let checksum = checksum.ok_or(Reason::Truncated)?;
    check_checksum(&addresses, ICMPV6, message, checksum)?;
    let envelope = Envelope {
        source_mac,
        destination_mac,
        source,
        destination,
    };
    Ok((envelope, message))
}

/// The upper-layer protocol and its octets.
fn skip_extension_headers(next_header: u8, packet: &[u8]) -> Result<(u8, &[u8]), Reason> {
    let mut next_header = next_header;
    let mut reader = Reader::new(packet);
    for skipped in 0..=MAX_EXTENSION_HEADERS {
        match next_header {
            HOP_BY_HOP if skipped > 0 => return Err(Reason::ExtensionHeader),
            HOP_BY_HOP | ROUTING | DESTINATION_OPTIONS => {}
            FRAGMENT => return Err(Reason::Fragment),
            protocol => return Ok((protocol, reader.rest())),
        }
        let [next, units] = reader.array().ok_or(Reason::Truncated)?;
        reader
            .take(usize::from(units) * 8 + 6)
            .ok_or(Reason::Truncated)?;
        next_header = next;
    }
    Err(Reason::ExtensionHeader)
}

fn parse_udp<'a>(datagram: &'a [u8], addresses: &[u8], port: u16) -> Result<&'a [u8], Reason> {
    let mut reader = Reader::new(datagram);
    reader.u16().ok_or(Reason::Truncated)?;
    let destination_port = reader.u16().ok_or(Reason::Truncated)?;
    let len = usize::from(reader.u16().ok_or(Reason::Truncated)?);
    let checksum = reader.u16().ok_or(Reason::Truncated)?;
    if destination_port != port {
        return Err(Reason::NotARequest);
    }
    let covered = datagram.get(..len).ok_or(Reason::Truncated)?;
    // RFC 768: in IPv4 a sender may leave it out; RFC 8200 §8.1: in IPv6 it may not.
    let left_out = checksum == 0 && addresses.len() == 8;
    if !left_out {
        check_checksum(addresses, UDP, covered, checksum)?;
    }
    covered.get(8..).ok_or(Reason::Truncated)
}

/// RFC 4861 §6.1.1.
fn check_solicitation(
    message: &[u8],
    addresses: &[u8],
    source: Ipv6Addr,
    hop_limit: u8,
) -> Result<(), Reason> {
    if hop_limit != 255 {
        return Err(Reason::HopLimit);
    }
    let checksum = message
        .get(2..4)
        .and_then(|octets| Reader::new(octets).u16())
        .ok_or(Reason::Truncated)?;
    check_checksum(addresses, ICMPV6, message, checksum)?;
    let solicitation = RouterSolicitation::decode(message).map_err(|_| Reason::Malformed)?;
    let has_link_layer = |o: &NdOption| matches!(o, NdOption::SourceLinkLayer(_));
    if source.is_unspecified() && solicitation.options.iter().any(has_link_layer) {
        return Err(Reason::Malformed);
    }
    Ok(())
}

fn check_checksum(
    addresses: &[u8],
    protocol: u8,
    message: &[u8],
    checksum: u16,
) -> Result<(), Reason> {
    let len = u32::try_from(message.len()).map_err(|_| Reason::Truncated)?;
    let len = len.to_be_bytes();
    let protocol = [0, protocol];
    let pseudo_header = [addresses, &len, &protocol];
    let [a, b, c] = pseudo_header;
    // UDP sends an all-ones field for a sum of zero; both are zero in ones' complement.
    let complete = folded(&[a, b, c, message]) == 0xffff;
    if complete || folded(&pseudo_header) == checksum {
        Ok(())
    } else {
        Err(Reason::Checksum)
    }
}

/// The ones' complement sum (RFC 1071); each part but the last has an even length.
fn folded(parts: &[&[u8]]) -> u16 {
    let mut sum: u64 = 0;
    for part in parts {
        let (words, odd) = part.as_chunks::<2>();
        sum += words
            .iter()
            .map(|word| u64::from(u16::from_be_bytes(*word)))
            .sum::<u64>();
        sum += odd.first().map_or(0, |octet| u64::from(*octet) << 8);
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    u16::try_from(sum).unwrap_or(u16::MAX)
}

/// From whom a frame comes and to whom it goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Envelope<A> {
    /// Ethernet source.
    pub source_mac: Mac,
    /// Ethernet destination.
    pub destination_mac: Mac,
    /// IP source.
    pub source: A,
    /// IP destination.
    pub destination: A,
}

impl Envelope<Ipv4Addr> {
    /// A frame with a DHCPv4 answer; `None` if it is longer than an IP packet can be.
    pub fn dhcpv4(&self, payload: &[u8]) -> Option<Vec<u8>> {
        let builder =
            PacketBuilder::ethernet2(self.source_mac.octets(), self.destination_mac.octets())
                .ipv4(self.source.octets(), self.destination.octets(), 64)
                .udp(DHCPV4_SERVER_PORT, DHCPV4_CLIENT_PORT);
        let mut frame = Vec::with_capacity(builder.size(payload.len()));
        built(builder.write_to_vec(&mut frame, payload), frame)
    }
}

impl Envelope<Ipv6Addr> {
    /// A frame with a DHCPv6 answer; `None` if it is longer than an IP packet can be.
    pub fn dhcpv6(&self, payload: &[u8]) -> Option<Vec<u8>> {
        self.udp((DHCPV6_SERVER_PORT, DHCPV6_CLIENT_PORT), payload)
    }

    /// A frame to a DHCPv6 server; `None` if it is longer than an IP packet can be.
    pub fn dhcpv6_request(&self, payload: &[u8]) -> Option<Vec<u8>> {
        self.udp((DHCPV6_CLIENT_PORT, DHCPV6_SERVER_PORT), payload)
    }

    fn udp(&self, (source, destination): (u16, u16), payload: &[u8]) -> Option<Vec<u8>> {
        let builder =
            PacketBuilder::ethernet2(self.source_mac.octets(), self.destination_mac.octets())
                .ipv6(self.source.octets(), self.destination.octets(), 64)
                .udp(source, destination);
        let mut frame = Vec::with_capacity(builder.size(payload.len()));
        built(builder.write_to_vec(&mut frame, payload), frame)
    }

    /// A frame with a neighbour discovery message, whose checksum field is filled in; `None` if it is
    /// shorter than an ICMPv6 header or longer than an IP packet can be.
    pub fn neighbour_discovery(&self, message: &[u8]) -> Option<Vec<u8>> {
        let mut reader = Reader::new(message);
        let [kind, code, _, _] = reader.array()?;
        let word = reader.array()?;
        let builder =
            PacketBuilder::ethernet2(self.source_mac.octets(), self.destination_mac.octets())
                .ipv6(self.source.octets(), self.destination.octets(), 255)
                .icmpv6_raw(kind, code, word);
        let mut frame = Vec::with_capacity(builder.size(reader.rest().len()));
        built(builder.write_to_vec(&mut frame, reader.rest()), frame)
    }
}

fn built(written: Result<(), BuildVecWriteError>, frame: Vec<u8>) -> Option<Vec<u8>> {
    written.ok().map(|()| frame)
}

#[cfg(test)]
pub(crate) mod tests;
