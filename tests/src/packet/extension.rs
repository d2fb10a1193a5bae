//! IPv6 extension headers (RFC 8200 §4), and fragments of both families.

use std::net::Ipv6Addr;

use hextet_types::Family;

use super::{Ends, Ip, Payload};

/// An extension header, as short as it can be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Extension {
    /// Hop-by-hop options: padding only.
    HopByHop,
    /// Destination options: padding only, so many times eight octets.
    Destination(u8),
    /// A routing header: type, segments left, addresses.
    Routing(u8, u8, Vec<Ipv6Addr>),
    /// A fragment header of a packet that is whole (an atomic fragment, RFC 6946).
    AtomicFragment,
}

impl Extension {
    pub(super) fn before(&self, payload: Payload) -> Payload {
        let (protocol, mut octets) = match self {
            Extension::HopByHop => (0, options(payload.protocol, 1)),
            Extension::Destination(words) => (60, options(payload.protocol, *words)),
            Extension::Routing(kind, left, addrs) => {
                let len = u8::try_from(addrs.len() * 2).expect("a header");
                let mut header = vec![payload.protocol, len, *kind, *left, 0, 0, 0, 0];
                header.extend(addrs.iter().flat_map(Ipv6Addr::octets));
                (43, header)
            }
            Extension::AtomicFragment => {
                return fragment(&payload, 0x6865_7874, 0, false);
            }
        };
        octets.extend(payload.octets);
        Payload { protocol, octets }
    }
}

/// Options that are one PadN.
fn options(next: u8, words: u8) -> Vec<u8> {
    let len = usize::from(words) * 8;
    let mut header = vec![next, words - 1, 1, u8::try_from(len - 4).expect("a header")];
    header.resize(len, 0);
    header
}

/// A piece of an IPv6 payload behind a fragment header; the offset is in octets.
pub fn fragment(piece: &Payload, identification: u32, offset: usize, more: bool) -> Payload {
    let offset = u16::try_from(offset).expect("a packet");
    assert_eq!(offset % 8, 0, "fragments begin at a multiple of eight");
    let mut octets = vec![piece.protocol, 0];
    octets.extend((offset | u16::from(more)).to_be_bytes());
    octets.extend(identification.to_be_bytes());
    octets.extend(&piece.octets);
    Payload {
        protocol: 44,
        octets,
    }
}

/// The payload's pieces as IP packets of either family: each piece is (offset, length) in octets, in the
/// order in which they are sent. Pieces may overlap; the one that reaches the end is the last.
pub fn fragments(
    ip: &Ip,
    ends: Ends,
    payload: &Payload,
    pieces: &[(usize, usize)],
) -> Vec<Vec<u8>> {
    let piece = |(offset, len): &(usize, usize)| {
        let end = (offset + len).min(payload.octets.len());
        let more = end < payload.octets.len();
        let piece = Payload {
            protocol: payload.protocol,
            octets: payload.octets[*offset..end].to_vec(),
        };
        match ends.family() {
            Family::V4 => {
                let fragment_offset = u16::try_from(offset / 8).expect("a packet");
                let ip = Ip {
                    more_fragments: more,
                    fragment_offset,
                    ..ip.clone()
                };
                ip.packet(ends, &piece)
            }
            Family::V6 => {
                let identification = 0x6865_0000 | u32::from(ip.identification);
                ip.packet(ends, &fragment(&piece, identification, *offset, more))
            }
        }
    };
    pieces.iter().map(piece).collect()
}
