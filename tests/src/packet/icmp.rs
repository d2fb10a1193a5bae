//! ICMP and ICMPv6.

use hextet_types::Family;

use super::{Ends, Parsed, Payload, checksum, parse};

/// An ICMP header: type, code, and the four octets that follow the checksum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Icmp {
    /// The type, a number of its family.
    pub kind: u8,
    /// The code.
    pub code: u8,
    /// Identifier and sequence, MTU, gateway, flags: as the type has it.
    pub rest: [u8; 4],
}

/// ICMP of the ends' family.
pub fn icmp(ends: Ends, header: Icmp, body: &[u8]) -> Payload {
    let mut octets = vec![header.kind, header.code, 0, 0];
    octets.extend(header.rest);
    octets.extend(body);
    let (protocol, pseudo) = match ends.family() {
        Family::V4 => (1, Vec::new()),
        Family::V6 => (58, ends.pseudo_header(58, octets.len())),
    };
    let sum = checksum(&[&pseudo, &octets]);
    octets[2..4].copy_from_slice(&sum);
    Payload { protocol, octets }
}

/// A ping, which answers carry back.
pub fn echo_request(ends: Ends, identifier: u16, body: &[u8]) -> Payload {
    let kind = match ends.family() {
        Family::V4 => 8,
        Family::V6 => 128,
    };
    let [a, b] = identifier.to_be_bytes();
    icmp(
        ends,
        Icmp {
            kind,
            code: 0,
            rest: [a, b, 0, 1],
        },
        body,
    )
}

/// An error about a packet, which it quotes whole.
pub fn error(ends: Ends, header: Icmp, about: &[u8]) -> Payload {
    icmp(ends, header, about)
}

/// Whether a frame is ICMP of its family with that type.
pub fn is_icmp(frame: &[u8], family: Family, kind: u8) -> bool {
    let is_it = |p: Parsed| p.ends.family() == family && p.icmp_type() == Some(kind);
    parse(frame).is_some_and(is_it)
}
