//! Ethernet and ARP.

use std::net::Ipv4Addr;

use hextet_types::Mac;

use crate::wire::Frame;

/// The two addresses of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ether {
    /// The source.
    pub src: Mac,
    /// The destination.
    pub dst: Mac,
}

/// A frame with that EtherType.
pub fn ether(ether: Ether, ethertype: u16, payload: &[u8]) -> Frame {
    let addresses = [ether.dst.octets(), ether.src.octets()].concat();
    [&addresses[..], &ethertype.to_be_bytes(), payload].concat()
}

/// A frame with an IP packet.
pub fn ether_ip(addresses: Ether, packet: &[u8]) -> Frame {
    let ethertype = match packet.first() {
        Some(first) if first >> 4 == 6 => 0x86dd,
        _ => 0x0800,
    };
    ether(addresses, ethertype, packet)
}

/// A frame with VLAN tags put in, the outermost first: tag protocol (0x8100, 0x88a8) and VLAN.
pub fn tagged(frame: &[u8], tags: &[(u16, u16)]) -> Frame {
    let (addresses, rest) = frame.split_at(12);
    let tags = tags
        .iter()
        .flat_map(|(tpid, vlan)| [tpid.to_be_bytes(), vlan.to_be_bytes()]);
    [addresses, &tags.flatten().collect::<Vec<u8>>(), rest].concat()
}

/// An ARP packet (RFC 826): operation (1 request, 2 reply), then who says it and whom it is about.
pub fn arp(operation: u16, sender: (Mac, Ipv4Addr), target: (Mac, Ipv4Addr)) -> Vec<u8> {
    let mut packet = vec![0, 1, 8, 0, 6, 4];
    packet.extend(operation.to_be_bytes());
    for (mac, addr) in [sender, target] {
        packet.extend(mac.octets());
        packet.extend(addr.octets());
    }
    packet
}
