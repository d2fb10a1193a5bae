//! IP headers, and reading frames.

use std::net::IpAddr;

use etherparse::{IpDscp, IpFragOffset, IpNumber, Ipv4Header, Ipv6Header, LaxSlicedPacket};
use hextet_types::Family;

use super::{Extension, checksum};

/// The ends of a packet, of one family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ends {
    /// The source.
    pub src: IpAddr,
    /// The destination.
    pub dst: IpAddr,
}

impl Ends {
    /// From one to the other.
    pub fn new(src: impl Into<IpAddr>, dst: impl Into<IpAddr>) -> Ends {
        let ends = Ends {
            src: src.into(),
            dst: dst.into(),
        };
        assert_eq!(Family::of(ends.src), Family::of(ends.dst), "{ends:?}");
        ends
    }

    /// Their family.
    pub fn family(self) -> Family {
        Family::of(self.src)
    }

    /// The way back.
    pub fn back(self) -> Ends {
        Ends {
            src: self.dst,
            dst: self.src,
        }
    }

    /// The pseudo header of RFC 768 and RFC 8200 §8.1.
    pub(super) fn pseudo_header(self, protocol: u8, len: usize) -> Vec<u8> {
        let len = u32::try_from(len).expect("a packet");
        match (self.src, self.dst) {
            (IpAddr::V4(src), IpAddr::V4(dst)) => {
                let [_, _, a, b] = len.to_be_bytes();
                [&src.octets()[..], &dst.octets(), &[0, protocol, a, b]].concat()
            }
            (IpAddr::V6(src), IpAddr::V6(dst)) => {
                let len = len.to_be_bytes();
                [&src.octets()[..], &dst.octets(), &len, &[0, 0, 0, protocol]].concat()
            }
            _ => unreachable!("both are of one family"),
        }
    }
}

/// What follows an IP header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Payload {
    /// The IP protocol number of its first header.
    pub protocol: u8,
    /// All of it.
    pub octets: Vec<u8>,
}

impl Payload {
    /// Behind an extension header (RFC 8200 §4).
    #[must_use]
    pub fn behind(self, extension: &Extension) -> Payload {
        extension.before(self)
    }
}

/// An IP header's fields beside ends and protocol.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ip {
    /// Time to live, or hop limit.
    pub ttl: u8,
    /// Differentiated services code point (RFC 2474).
    pub dscp: u8,
    /// Identification; of IPv6 in fragments alone.
    pub identification: u16,
    /// Do not fragment; of IPv4 only.
    pub dont_fragment: bool,
    /// More fragments follow; of IPv4 only.
    pub more_fragments: bool,
    /// In units of 8 octets; of IPv4 only.
    pub fragment_offset: u16,
    /// Options, padded to four octets; of IPv4 only.
    pub options: Vec<u8>,
}

impl Default for Ip {
    fn default() -> Self {
        Ip {
            ttl: 64,
            dscp: 0,
            identification: 1,
            dont_fragment: false,
            more_fragments: false,
            fragment_offset: 0,
            options: Vec::new(),
        }
    }
}

impl Ip {
    /// With that time to live; neighbour discovery wants 255.
    pub fn ttl(ttl: u8) -> Ip {
        Ip {
            ttl,
            ..Ip::default()
        }
    }

    /// The packet.
    pub fn packet(&self, ends: Ends, payload: &Payload) -> Vec<u8> {
        let len = u16::try_from(payload.octets.len()).expect("a packet");
        match (ends.src, ends.dst) {
            (IpAddr::V4(src), IpAddr::V4(dst)) => {
                let protocol = IpNumber(payload.protocol);
                let mut header =
                    Ipv4Header::new(len, self.ttl, protocol, src.octets(), dst.octets())
                        .expect("a packet");
                header.dscp = IpDscp::try_new(self.dscp).expect("six bits");
                header.identification = self.identification;
                header.dont_fragment = self.dont_fragment;
                header.more_fragments = self.more_fragments;
                header.fragment_offset = IpFragOffset::try_new(self.fragment_offset).unwrap();
                header.options = self.options[..].try_into().expect("options of whole words");
                header
                    .set_payload_len(payload.octets.len())
                    .expect("a packet");
                header.header_checksum = header.calc_header_checksum();
                [&header.to_bytes()[..], &payload.octets].concat()
            }
            (IpAddr::V6(src), IpAddr::V6(dst)) => {
                let header = Ipv6Header {
                    traffic_class: self.dscp << 2,
                    payload_length: len,
                    next_header: IpNumber(payload.protocol),
                    hop_limit: self.ttl,
                    source: src.octets(),
                    destination: dst.octets(),
                    ..Ipv6Header::default()
                };
                [&header.to_bytes()[..], &payload.octets].concat()
            }
            _ => unreachable!("both are of one family"),
        }
    }
}

/// What a frame says, as far as it is IP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parsed {
    /// Its ends.
    pub ends: Ends,
    /// Time to live, or hop limit.
    pub ttl: u8,
    /// Differentiated services code point.
    pub dscp: u8,
    /// What it carries behind all extension headers.
    pub payload: Payload,
    /// Source and destination port of TCP and UDP.
    pub ports: Option<(u16, u16)>,
}

impl Parsed {
    /// ICMP's type, if it is ICMP of its family.
    pub fn icmp_type(&self) -> Option<u8> {
        let is_icmp = matches!(
            (self.ends.family(), self.payload.protocol),
            (Family::V4, 1) | (Family::V6, 58)
        );
        self.payload.octets.first().copied().filter(|_| is_icmp)
    }

    /// TCP's flags (the low octet), if it is TCP.
    pub fn tcp_flags(&self) -> Option<u8> {
        self.payload
            .octets
            .get(13)
            .copied()
            .filter(|_| self.payload.protocol == 6)
    }

    /// Whether the checksum of TCP, UDP or ICMP is right.
    pub fn checksum_is_right(&self) -> bool {
        let Payload { protocol, octets } = &self.payload;
        let pseudo = match (self.ends.family(), protocol) {
            (Family::V4, 1) => Vec::new(),
            _ => self.ends.pseudo_header(*protocol, octets.len()),
        };
        checksum(&[&pseudo, octets]) == [0, 0]
    }
}

/// Reads a frame.
pub fn parse(frame: &[u8]) -> Option<Parsed> {
    let sliced = LaxSlicedPacket::from_ethernet(frame).ok()?;
    let net = sliced.net.as_ref()?;
    let (ends, ttl, dscp) = match net {
        etherparse::LaxNetSlice::Ipv4(ip) => {
            let header = ip.header();
            (
                Ends::new(header.source_addr(), header.destination_addr()),
                header.ttl(),
                header.dcp().value(),
            )
        }
        etherparse::LaxNetSlice::Ipv6(ip) => {
            let header = ip.header();
            (
                Ends::new(header.source_addr(), header.destination_addr()),
                header.hop_limit(),
                header.traffic_class() >> 2,
            )
        }
        etherparse::LaxNetSlice::Arp(_) => return None,
    };
    let inner = net.ip_payload_ref()?;
    let octets = inner.payload.to_vec();
    let protocol = inner.ip_number.0;
    let port = |at: usize| Some(u16::from_be_bytes([*octets.get(at)?, *octets.get(at + 1)?]));
    let ports = matches!(protocol, 6 | 17)
        .then(|| port(0).zip(port(2)))
        .flatten();
    Some(Parsed {
        ends,
        ttl,
        dscp,
        payload: Payload { protocol, octets },
        ports,
    })
}
