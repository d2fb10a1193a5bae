//! Neighbour discovery (RFC 4861), with the addresses that a liar would use.

use std::net::Ipv6Addr;

use hextet_types::Mac;

use super::{Ends, Icmp, Payload, icmp};

/// An option.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NdOption {
    /// The sender's Ethernet address.
    SourceLinkLayer(Mac),
    /// The target's Ethernet address.
    TargetLinkLayer(Mac),
    /// A /64 on the link, for addresses.
    Prefix(Ipv6Addr),
    /// Padding that carries a mark, of an option number that nobody has (RFC 4727: 253).
    Mark(&'static [u8; 16]),
}

impl NdOption {
    fn octets(self) -> Vec<u8> {
        match self {
            NdOption::SourceLinkLayer(mac) => [&[1, 1][..], &mac.octets()].concat(),
            NdOption::TargetLinkLayer(mac) => [&[2, 1][..], &mac.octets()].concat(),
            NdOption::Prefix(prefix) => {
                let lifetimes = [0xff; 8];
                [&[3, 4, 64, 0xc0][..], &lifetimes, &[0; 4], &prefix.octets()].concat()
            }
            NdOption::Mark(mark) => [&[253, 3, 0, 0, 0, 0, 0, 0][..], &mark[..]].concat(),
        }
    }
}

fn message(ends: Ends, kind: u8, rest: [u8; 4], body: &[u8], options: &[NdOption]) -> Payload {
    let options: Vec<u8> = options.iter().flat_map(|option| option.octets()).collect();
    icmp(
        ends,
        Icmp {
            kind,
            code: 0,
            rest,
        },
        &[body, &options].concat(),
    )
}

/// §4.1.
pub fn router_solicitation(ends: Ends, options: &[NdOption]) -> Payload {
    message(ends, 133, [0; 4], &[], options)
}

/// §4.2: a router with hop limit 64 and half an hour to live.
pub fn router_advertisement(ends: Ends, options: &[NdOption]) -> Payload {
    message(ends, 134, [64, 0, 0x07, 0x08], &[0; 8], options)
}

/// §4.3.
pub fn neighbour_solicitation(ends: Ends, target: Ipv6Addr, options: &[NdOption]) -> Payload {
    message(ends, 135, [0; 4], &target.octets(), options)
}

/// §4.4, with the override flag; solicited if it goes to one node.
pub fn neighbour_advertisement(ends: Ends, target: Ipv6Addr, options: &[NdOption]) -> Payload {
    let solicited = if ends.dst.is_multicast() { 0x20 } else { 0x60 };
    message(ends, 136, [solicited, 0, 0, 0], &target.octets(), options)
}

/// §4.5: what goes to `destination` shall go to `target`.
pub fn redirect(ends: Ends, target: Ipv6Addr, destination: Ipv6Addr, o: &[NdOption]) -> Payload {
    let body = [target.octets(), destination.octets()].concat();
    message(ends, 137, [0; 4], &body, o)
}

/// The group in which that address is asked for (RFC 4291 §2.7.1).
pub fn solicited_node(addr: Ipv6Addr) -> Ipv6Addr {
    let [.., a, b, c] = addr.octets();
    let (high, low) = (0xff00 | u16::from(a), u16::from_be_bytes([b, c]));
    Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, high, low)
}
