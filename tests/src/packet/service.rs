//! What DHCP clients ask, and what a rogue server says.

use std::net::{Ipv4Addr, Ipv6Addr};

use hextet_types::Mac;

/// A DHCPOFFER (RFC 2131): that address for that client, with that router and DNS server.
pub fn dhcpv4_offer(client: Mac, addr: Ipv4Addr, server: Ipv4Addr) -> Vec<u8> {
    let mut message = vec![2, 1, 6, 0];
    message.extend(0x6865_7874_u32.to_be_bytes());
    message.extend([0; 8]);
    message.extend(addr.octets());
    message.extend(server.octets());
    message.extend([0; 4]);
    message.extend(client.octets());
    message.resize(236, 0);
    message.extend([0x63, 0x82, 0x53, 0x63]);
    message.extend([53, 1, 2]);
    for option in [54, 3, 6] {
        message.extend([option, 4]);
        message.extend(server.octets());
    }
    message.push(255);
    message
}

/// A DHCPv6 reply (RFC 8415 §7.3) with a DNS server.
pub fn dhcpv6_reply(client: Mac, dns: Ipv6Addr) -> Vec<u8> {
    let mut message = vec![7, 1, 2, 3];
    for option in [1, 2] {
        message.extend([0, option, 0, 10, 0, 3, 0, 1]);
        message.extend(client.octets());
    }
    message.extend([0, 23, 0, 16]);
    message.extend(dns.octets());
    message
}

/// A client's message (RFC 2131): DISCOVER is 1, REQUEST 3 (for `wanted`), INFORM 8.
pub fn dhcpv4_request(kind: u8, client: Mac, wanted: Ipv4Addr) -> Vec<u8> {
    let mut message = vec![1, 1, 6, 0];
    message.extend(0x6865_7874_u32.to_be_bytes());
    message.extend([0; 4]);
    // An INFORM comes from who has its address already.
    let own = if kind == 8 {
        wanted
    } else {
        Ipv4Addr::UNSPECIFIED
    };
    message.extend(own.octets());
    message.extend([0; 12]);
    message.extend(client.octets());
    message.resize(236, 0);
    message.extend([0x63, 0x82, 0x53, 0x63]);
    message.extend([53, 1, kind]);
    if kind != 8 {
        message.extend([50, 4]);
        message.extend(wanted.octets());
    }
    message.extend([55, 5, 1, 3, 6, 26, 121, 255]);
    message
}

/// A client's message (RFC 8415 §8): SOLICIT is 1, INFORMATION-REQUEST 11 (which asks for no address).
pub fn dhcpv6_request(kind: u8, client: Mac) -> Vec<u8> {
    let mut message = vec![kind, 1, 2, 3];
    message.extend([0, 1, 0, 10, 0, 3, 0, 1]);
    message.extend(client.octets());
    message.extend([0, 6, 0, 4, 0, 23, 0, 24]);
    message.extend([0, 8, 0, 2, 0, 0]);
    if kind != 11 {
        message.extend([0, 3, 0, 12, 0, 0, 0, 1]);
        message.extend([0; 8]);
    }
    message
}
