//! The options, each with its layout.

use std::net::{IpAddr, Ipv6Addr};

use hextet_types::{Family, Mac, Prefix};
use serde::{Deserialize, Serialize};

use super::NdError;
use crate::{domain::DomainName, reader::Reader};

const SOURCE_LINK_LAYER: u8 = 1;
const TARGET_LINK_LAYER: u8 = 2;
const PREFIX_INFORMATION: u8 = 3;
const MTU: u8 = 5;
const NONCE: u8 = 14;
const ROUTE_INFORMATION: u8 = 24;
const RDNSS: u8 = 25;
const DNSSL: u8 = 31;
const PREF64: u8 = 38;

const ON_LINK: u8 = 0x80;
const AUTONOMOUS: u8 = 0x40;
const PREFER_DELEGATION: u8 = 0x10;

/// How a router, or a route through it, compares with others (RFC 4191 §2.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Preference {
    /// Others first.
    Low,
    /// As if nothing were said.
    #[default]
    Medium,
    /// Before others.
    High,
}

impl Preference {
    /// As bits 3 and 4 of an octet.
    pub(crate) const fn bits(self) -> u8 {
        match self {
            Preference::Low => 0x18,
            Preference::Medium => 0,
            Preference::High => 0x08,
        }
    }

    /// `None` for the reserved value.
    pub(crate) const fn from_bits(octet: u8) -> Option<Preference> {
        match octet & 0x18 {
            0x18 => Some(Preference::Low),
            0 => Some(Preference::Medium),
            0x08 => Some(Preference::High),
            _ => None,
        }
    }
}

/// A prefix on the link, for addresses, or both (RFC 4861 §4.6.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PrefixInformation {
    /// The prefix; IPv6.
    pub prefix: Prefix,
    /// L: its addresses are reached without a router.
    pub on_link: bool,
    /// A: for addresses by SLAAC (RFC 4862).
    pub autonomous: bool,
    /// P: better ask for a prefix of your own by DHCPv6 (RFC 9762).
    pub prefer_delegation: bool,
    /// Seconds; `u32::MAX` is for ever.
    pub valid_lifetime_secs: u32,
    /// Seconds; `u32::MAX` is for ever.
    pub preferred_lifetime_secs: u32,
}

/// A route by way of the sender (RFC 4191 §2.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct RouteInformation {
    /// Where to; IPv6.
    pub prefix: Prefix,
    /// Compared with other routers that offer it.
    pub preference: Preference,
    /// Seconds; `u32::MAX` is for ever.
    pub lifetime_secs: u32,
}

/// An option of a neighbour discovery message.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum NdOption {
    /// The sender's Ethernet address (RFC 4861 §4.6.1).
    SourceLinkLayer(Mac),
    /// The target's Ethernet address (RFC 4861 §4.6.1).
    TargetLinkLayer(Mac),
    /// A prefix.
    Prefix(PrefixInformation),
    /// The link's MTU in octets (RFC 4861 §4.6.4).
    Mtu(u32),
    /// Tells a solicitation from one's own echo (RFC 3971 §5.3.2): at least 6 octets, and 6 more than
    /// a multiple of 8.
    Nonce(Vec<u8>),
    /// A route.
    Route(RouteInformation),
    /// Recursive DNS servers (RFC 8106 §5.1): at least 1, at most 127.
    Rdnss {
        /// Seconds.
        lifetime_secs: u32,
        /// In order of preference.
        servers: Vec<Ipv6Addr>,
    },
    /// DNS search list (RFC 8106 §5.2): at least 1, at most 2,032 octets.
    Dnssl {
        /// Seconds.
        lifetime_secs: u32,
        /// In order of preference.
        domains: Vec<DomainName>,
    },
    /// Prefix of the NAT64 translator (RFC 8781): of 96, 64, 56, 48, 40 or 32 bits.
    Pref64 {
        /// Seconds; sent as a multiple of 8, rounded up, at most 65,528.
        lifetime_secs: u16,
        /// The prefix.
        prefix: Prefix,
    },
    /// Anything else.
    Unknown {
        /// Its type.
        kind: u8,
        /// What stands behind type and length: 6 more than a multiple of 8 octets.
        body: Vec<u8>,
    },
}

/// Prefix lengths of RFC 8781 §4 by their code.
const PREF64_LENGTHS: [u8; 6] = [96, 64, 56, 48, 40, 32];

impl NdOption {
    /// Whether a PREF64 option can say a prefix of this length.
    pub fn is_pref64_len(len: u8) -> bool {
        PREF64_LENGTHS.contains(&len)
    }

    /// Reads options until the end.
    pub(crate) fn decode_all(mut reader: Reader<'_>) -> Result<Vec<NdOption>, NdError> {
        let mut options = Vec::new();
        while !reader.is_empty() {
            let kind = reader.u8().ok_or(NdError::Truncated)?;
            let len = reader.u8().ok_or(NdError::Option(kind))?;
            let body = usize::from(len)
                .checked_mul(8)
                .and_then(|octets| octets.checked_sub(2))
                .and_then(|octets| reader.take(octets))
                .ok_or(NdError::Option(kind))?;
            options.push(decode(kind, body).ok_or(NdError::Option(kind))?);
        }
        Ok(options)
    }

    /// Appends it, padded to a multiple of 8 octets.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let start = out.len();
        out.extend_from_slice(&[self.kind(), 0]);
        self.encode_body(out);
        let octets = out.len() - start;
        out.resize(start + octets.next_multiple_of(8), 0);
        let units = u8::try_from(octets.div_ceil(8)).unwrap_or(u8::MAX);
        if let Some(len) = out.get_mut(start + 1) {
            *len = units;
        }
    }

    /// The option that takes back what this one says: the same with lifetimes of zero. `None` for what
    /// has no lifetime.
    pub(crate) fn withdrawn(&self) -> Option<NdOption> {
        let mut option = self.clone();
        match &mut option {
            NdOption::Prefix(p) => {
                p.valid_lifetime_secs = 0;
                p.preferred_lifetime_secs = 0;
            }
            NdOption::Route(r) => r.lifetime_secs = 0,
            NdOption::Rdnss { lifetime_secs, .. } | NdOption::Dnssl { lifetime_secs, .. } => {
                *lifetime_secs = 0;
            }
            NdOption::Pref64 { lifetime_secs, .. } => *lifetime_secs = 0,
            _ => return None,
        }
        Some(option)
    }

    const fn kind(&self) -> u8 {
        match self {
            NdOption::SourceLinkLayer(_) => SOURCE_LINK_LAYER,
            NdOption::TargetLinkLayer(_) => TARGET_LINK_LAYER,
            NdOption::Prefix(_) => PREFIX_INFORMATION,
            NdOption::Mtu(_) => MTU,
            NdOption::Nonce(_) => NONCE,
            NdOption::Route(_) => ROUTE_INFORMATION,
            NdOption::Rdnss { .. } => RDNSS,
            NdOption::Dnssl { .. } => DNSSL,
            NdOption::Pref64 { .. } => PREF64,
            NdOption::Unknown { kind, .. } => *kind,
        }
    }

    fn encode_body(&self, out: &mut Vec<u8>) {
        match self {
            NdOption::SourceLinkLayer(mac) | NdOption::TargetLinkLayer(mac) => {
                out.extend_from_slice(&mac.octets());
            }
            NdOption::Prefix(prefix) => encode_prefix(prefix, out),
            NdOption::Mtu(mtu) => {
                out.extend_from_slice(&[0; 2]);
                out.extend_from_slice(&mtu.to_be_bytes());
            }
            NdOption::Nonce(body) | NdOption::Unknown { body, .. } => out.extend_from_slice(body),
            NdOption::Route(route) => encode_route(route, out),
            NdOption::Rdnss {
                lifetime_secs,
                servers,
            } => {
                out.extend_from_slice(&[0; 2]);
                out.extend_from_slice(&lifetime_secs.to_be_bytes());
                for server in servers {
                    out.extend_from_slice(&server.octets());
                }
            }
            NdOption::Dnssl {
                lifetime_secs,
                domains,
            } => {
                out.extend_from_slice(&[0; 2]);
                out.extend_from_slice(&lifetime_secs.to_be_bytes());
                for domain in domains {
                    domain.encode(out);
                }
            }
            NdOption::Pref64 {
                lifetime_secs,
                prefix,
            } => encode_pref64(*lifetime_secs, *prefix, out),
        }
    }
}

fn octets(prefix: Prefix) -> [u8; 16] {
    match prefix.addr() {
        IpAddr::V6(addr) => addr.octets(),
        IpAddr::V4(addr) => addr.to_ipv6_mapped().octets(),
    }
}

fn encode_prefix(p: &PrefixInformation, out: &mut Vec<u8>) {
    let flags = if p.on_link { ON_LINK } else { 0 }
        | if p.autonomous { AUTONOMOUS } else { 0 }
        | if p.prefer_delegation {
            PREFER_DELEGATION
        } else {
            0
        };
    out.extend_from_slice(&[p.prefix.len(), flags]);
    out.extend_from_slice(&p.valid_lifetime_secs.to_be_bytes());
    out.extend_from_slice(&p.preferred_lifetime_secs.to_be_bytes());
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(&octets(p.prefix));
}

fn encode_route(route: &RouteInformation, out: &mut Vec<u8>) {
    out.extend_from_slice(&[route.prefix.len(), route.preference.bits()]);
    out.extend_from_slice(&route.lifetime_secs.to_be_bytes());
    let shown = usize::from(route.prefix.len().div_ceil(64)) * 8;
    out.extend(octets(route.prefix).into_iter().take(shown));
}

fn encode_pref64(lifetime_secs: u16, prefix: Prefix, out: &mut Vec<u8>) {
    let code = PREF64_LENGTHS
        .iter()
        .position(|len| *len == prefix.len())
        .and_then(|code| u16::try_from(code).ok())
        .unwrap_or(0);
    let scaled = lifetime_secs.div_ceil(8).min(0x1fff);
    out.extend_from_slice(&(scaled << 3 | code).to_be_bytes());
    out.extend(octets(prefix).into_iter().take(12));
}

fn decode(kind: u8, body: &[u8]) -> Option<NdOption> {
    let reader = Reader::new(body);
    match kind {
        SOURCE_LINK_LAYER => ethernet(body).map(NdOption::SourceLinkLayer),
        TARGET_LINK_LAYER => ethernet(body).map(NdOption::TargetLinkLayer),
        PREFIX_INFORMATION => decode_prefix(reader),
        MTU => {
            let [_, _, mtu @ ..] = <[u8; 6]>::try_from(body).ok()?;
            Some(NdOption::Mtu(u32::from_be_bytes(mtu)))
        }
        NONCE => Some(NdOption::Nonce(body.to_owned())),
        ROUTE_INFORMATION => decode_route(reader),
        RDNSS => decode_rdnss(reader),
        DNSSL => decode_dnssl(reader),
        PREF64 => decode_pref64(reader),
        kind => Some(NdOption::Unknown {
            kind,
            body: body.to_owned(),
        }),
    }
}

fn ethernet(body: &[u8]) -> Option<Mac> {
    body.try_into().ok().map(Mac::new)
}

fn decode_prefix(mut reader: Reader<'_>) -> Option<NdOption> {
    let [len, flags] = reader.array()?;
    let valid_lifetime_secs = reader.u32()?;
    let preferred_lifetime_secs = reader.u32()?;
    reader.take(4)?;
    let prefix = Prefix::new(IpAddr::V6(reader.ipv6()?), len).ok()?;
    reader
        .is_empty()
        .then_some(NdOption::Prefix(PrefixInformation {
            prefix,
            on_link: flags & ON_LINK != 0,
            autonomous: flags & AUTONOMOUS != 0,
            prefer_delegation: flags & PREFER_DELEGATION != 0,
            valid_lifetime_secs,
            preferred_lifetime_secs,
        }))
}

fn padded(octets: &[u8]) -> Ipv6Addr {
    let mut addr = [0; 16];
    for (to, from) in addr.iter_mut().zip(octets) {
        *to = *from;
    }
    Ipv6Addr::from(addr)
}

fn decode_route(mut reader: Reader<'_>) -> Option<NdOption> {
    let [len, flags] = reader.array()?;
    let lifetime_secs = reader.u32()?;
    let shown = reader.rest();
    let enough = shown.len() <= 16 && shown.len() * 8 >= usize::from(len);
    let prefix = Prefix::new(IpAddr::V6(padded(shown)), len).ok()?;
    // RFC 4191 §2.3: a route with the reserved preference is ignored, the message is not.
    let Some(preference) = Preference::from_bits(flags) else {
        let mut body = vec![len, flags];
        body.extend_from_slice(&lifetime_secs.to_be_bytes());
        body.extend_from_slice(shown);
        return Some(NdOption::Unknown {
            kind: ROUTE_INFORMATION,
            body,
        });
    };
    enough.then_some(NdOption::Route(RouteInformation {
        prefix,
        preference,
        lifetime_secs,
    }))
}

fn decode_rdnss(mut reader: Reader<'_>) -> Option<NdOption> {
    reader.take(2)?;
    let lifetime_secs = reader.u32()?;
    let mut servers = Vec::new();
    while !reader.is_empty() {
        servers.push(reader.ipv6()?);
    }
    (!servers.is_empty()).then_some(NdOption::Rdnss {
        lifetime_secs,
        servers,
    })
}

fn decode_dnssl(mut reader: Reader<'_>) -> Option<NdOption> {
    reader.take(2)?;
    let lifetime_secs = reader.u32()?;
    let mut domains = Vec::new();
    while reader.rest().first().is_some_and(|octet| *octet != 0) {
        domains.push(DomainName::decode(&mut reader)?);
    }
    let padding = reader.rest();
    (!domains.is_empty() && padding.iter().all(|octet| *octet == 0)).then_some(NdOption::Dnssl {
        lifetime_secs,
        domains,
    })
}

fn decode_pref64(mut reader: Reader<'_>) -> Option<NdOption> {
    let word = reader.u16()?;
    let len = *PREF64_LENGTHS.get(usize::from(word & 7))?;
    let addr = padded(reader.take(12)?);
    let prefix = Prefix::new(IpAddr::V6(addr), len).ok()?;
    debug_assert_eq!(prefix.family(), Family::V6);
    reader.is_empty().then_some(NdOption::Pref64 {
        lifetime_secs: word & !7,
        prefix,
    })
}
