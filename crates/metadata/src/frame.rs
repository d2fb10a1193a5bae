//! Ethernet frames: which are for the metadata service, and what goes back.
//!
//! Nothing is checked here that TCP checks. What always holds: a packet that is handed on is whole, as long as its
//! header says, no fragment, TCP without extension headers, and from a unicast address.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use hextet_types::Mac;

use crate::{ADDRESS_LINK_LOCAL, ADDRESS_V4, ADDRESS_V6};

const ETHERNET: usize = 14;
const IPV4: [u8; 2] = [0x08, 0x00];
const IPV6: [u8; 2] = [0x86, 0xdd];
const TCP: u8 = 6;

/// A TCP segment in its packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Inbound<'a> {
    /// The Ethernet address of who sends it.
    pub source_mac: Mac,
    /// Where it comes from.
    pub source: IpAddr,
    /// The packet, from its IP header on, without padding.
    pub packet: &'a [u8],
}

/// A frame that is for the metadata service; none, if it is not.
pub fn parse(frame: &[u8]) -> Option<Inbound<'_>> {
    let source_mac = Mac::new(frame.get(6..12)?.try_into().ok()?);
    let packet = frame.get(ETHERNET..)?;
    let (source, packet) = match frame.get(12..ETHERNET)?.try_into().ok()? {
        IPV4 => of_ipv4(packet)?,
        IPV6 => of_ipv6(packet)?,
        _ => return None,
    };
    let unicast = !(source.is_unspecified() || source.is_multicast() || source.is_loopback());
    unicast.then_some(Inbound {
        source_mac,
        source,
        packet,
    })
}

fn of_ipv4(packet: &[u8]) -> Option<(IpAddr, &[u8])> {
    let &[version_ihl, _, len_hi, len_lo, ..] = packet else {
        return None;
    };
    let fragment = u16::from_be_bytes(packet.get(6..8)?.try_into().ok()?);
    let header = usize::from(version_ihl & 0x0f) * 4;
    let len = usize::from(u16::from_be_bytes([len_hi, len_lo]));
    let address = |at: usize| {
        let octets: [u8; 4] = packet.get(at..at + 4)?.try_into().ok()?;
        Some(Ipv4Addr::from(octets))
    };
    let (source, destination) = (address(12)?, address(16)?);
    let fits = version_ihl >> 4 == 4 && header >= 20 && len >= header;
    let whole = fragment & 0x3fff == 0 && *packet.get(9)? == TCP;
    let ours = destination == ADDRESS_V4 && !source.is_broadcast();
    (fits && whole && ours).then_some((IpAddr::V4(source), packet.get(..len)?))
}

fn of_ipv6(packet: &[u8]) -> Option<(IpAddr, &[u8])> {
    let version = packet.first()? >> 4;
    let payload = usize::from(u16::from_be_bytes(packet.get(4..6)?.try_into().ok()?));
    let address = |at: usize| {
        let octets: [u8; 16] = packet.get(at..at + 16)?.try_into().ok()?;
        Some(Ipv6Addr::from(octets))
    };
    let (source, destination) = (address(8)?, address(24)?);
    let ours = [ADDRESS_LINK_LOCAL, ADDRESS_V6].contains(&destination);
    let fits = version == 6 && *packet.get(6)? == TCP;
    (fits && ours).then_some((IpAddr::V6(source), packet.get(..40 + payload)?))
}

/// Where a packet of ours goes; none, if it is no IP packet.
pub fn destination(packet: &[u8]) -> Option<IpAddr> {
    match packet.first()? >> 4 {
        4 => {
            let octets: [u8; 4] = packet.get(16..20)?.try_into().ok()?;
            Some(IpAddr::from(octets))
        }
        6 => {
            let octets: [u8; 16] = packet.get(24..40)?.try_into().ok()?;
            Some(IpAddr::from(octets))
        }
        _ => None,
    }
}

/// A packet of ours in its frame.
pub fn build(from: Mac, to: Mac, packet: &[u8]) -> Vec<u8> {
    let ether_type = match packet.first().map(|first| first >> 4) {
        Some(6) => IPV6,
        _ => IPV4,
    };
    let header = [&to.octets()[..], &from.octets(), &ether_type];
    [&header.concat(), packet].concat()
}
