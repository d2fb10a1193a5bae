//! The packets of Babel as types, and their octets (RFC 8966 §4).
//!
//! Knows nothing of neighbours or routes. What a packet says in parts (a prefix that begins as the last one, a router-id and a
//! next hop that hold for all updates after them) is put together here, so that each [`Tlv`] stands for itself. Any octets
//! are taken without a panic: what is malformed or unknown is left out and counted, as §4.2 to §4.4 ask for, and nothing that is
//! decoded is longer than the packet that it came in.

mod address;
mod decode;
mod encode;
mod subtlv;
#[cfg(test)]
mod tests;

use std::net::IpAddr;

use hextet_types::{Family, Prefix};
use thiserror::Error;

use crate::{
    config::Start,
    number::{Interval, Metric, RouterId, Seqno},
};

pub use decode::{Decoded, decode};
pub use encode::{Oversized, Writer};

/// Octets of the header: magic, version, length of the body (RFC 8966 §4.2).
pub const HEADER_LEN: usize = 4;
const MAGIC: u8 = 42;
const VERSION: u8 = 2;
/// The longest index and nonce (RFC 8967 §3).
pub const MAX_INDEX_LEN: usize = 32;
/// See [`MAX_INDEX_LEN`].
pub const MAX_NONCE_LEN: usize = 192;

/// The types of TLVs (RFC 8966 §4.6, RFC 8967 §6).
mod kind {
    pub const PAD_1: u8 = 0;
    pub const PAD_N: u8 = 1;
    pub const ACK_REQUEST: u8 = 2;
    pub const ACK: u8 = 3;
    pub const HELLO: u8 = 4;
    pub const IHU: u8 = 5;
    pub const ROUTER_ID: u8 = 6;
    pub const NEXT_HOP: u8 = 7;
    pub const UPDATE: u8 = 8;
    pub const ROUTE_REQUEST: u8 = 9;
    pub const SEQNO_REQUEST: u8 = 10;
    pub const MAC: u8 = 16;
    pub const PC: u8 = 17;
    pub const CHALLENGE_REQUEST: u8 = 18;
    pub const CHALLENGE_REPLY: u8 = 19;
}

/// What packets want of their way. Each class has routes of its own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Class {
    /// To be there soon: all packets, unless something else is said.
    #[default]
    Latency,
    /// To be many.
    Throughput,
}

/// Where packets go: all addresses of a prefix, or those packets to it that come from another prefix (RFC 9079); of one class.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Destination {
    prefix: Prefix,
    source: Option<Prefix>,
    class: Class,
}

/// Prefixes of two families.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("{prefix} and its source prefix {source_prefix} are of two families")]
pub struct DestinationError {
    prefix: Prefix,
    source_prefix: Prefix,
}

impl Destination {
    /// That prefix, whoever sends to it.
    pub const fn of(prefix: Prefix) -> Destination {
        Destination {
            prefix,
            source: None,
            class: Class::Latency,
        }
    }

    /// That prefix, for packets from another. One of no length is no restriction.
    ///
    /// # Errors
    ///
    /// They are of two families.
    pub fn from_source(prefix: Prefix, source: Prefix) -> Result<Destination, DestinationError> {
        if prefix.family() != source.family() {
            return Err(DestinationError {
                prefix,
                source_prefix: source,
            });
        }
        let source = (!source.is_default()).then_some(source);
        Ok(Destination {
            source,
            ..Destination::of(prefix)
        })
    }

    /// The same, for packets of that class.
    pub const fn in_class(self, class: Class) -> Destination {
        Destination { class, ..self }
    }

    /// For which packets.
    pub const fn class(self) -> Class {
        self.class
    }

    /// Where to.
    pub const fn prefix(self) -> Prefix {
        self.prefix
    }

    /// From where, if that matters; never of length 0.
    pub const fn source(self) -> Option<Prefix> {
        self.source
    }

    /// The family of both.
    pub const fn family(self) -> Family {
        self.prefix.family()
    }
}

/// A route that a neighbour has, or has no more (RFC 8966 §4.6.9).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Update {
    /// It has it.
    Route {
        /// Where to.
        to: Destination,
        /// Who originates it.
        router_id: RouterId,
        /// Of which version.
        seqno: Seqno,
        /// At what metric, as the neighbour sees it: not infinite.
        metric: Metric,
        /// Until when the neighbour says it again; not 0.
        interval: Interval,
        /// By which address: of either family for IPv4 (RFC 9229).
        next_hop: IpAddr,
    },
    /// It has none.
    Retraction {
        /// Where to; all that it has said, if none.
        to: Option<Destination>,
        /// What goes with it, for those who keep account.
        seqno: Seqno,
        /// As above.
        interval: Interval,
    },
}

/// When a Hello was sent, and what came back of it: microseconds of clocks of which nothing is known (RFC 9616 §3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Echo {
    /// When the neighbour's last Hello was sent, by the neighbour's clock.
    pub origin: u32,
    /// When it came, by the sender's.
    pub received: u32,
}

/// What a node says to its neighbours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Tlv {
    /// Asks for an acknowledgment of the packet (§4.6.3).
    AckRequest {
        /// To be given back.
        opaque: u16,
        /// Within which time.
        interval: Interval,
        /// The sender's routes outlive its program, and so it has started ([`sub-TLV 112`](self)).
        start: Option<Start>,
    },
    /// Acknowledges one (§4.6.4).
    Ack {
        /// What was given.
        opaque: u16,
    },
    /// Says that the sender is there (§4.6.5).
    Hello {
        /// Whether it is of the series for this neighbour alone.
        unicast: bool,
        /// Its number.
        seqno: Seqno,
        /// Until when the next one comes; 0 if none is promised.
        interval: Interval,
        /// When it was sent (RFC 9616).
        timestamp: Option<u32>,
    },
    /// "I heard you": says how well the sender hears a neighbour (§4.6.6).
    Ihu {
        /// The neighbour; whoever hears it, if none.
        to: Option<IpAddr>,
        /// What it costs to get to the sender; infinite if it hears nothing.
        rxcost: Metric,
        /// Until when the next one comes.
        interval: Interval,
        /// For a round trip's time (RFC 9616).
        echo: Option<Echo>,
    },
    /// A route, or none any more (§4.6.9).
    Update(Update),
    /// Asks for an update (§4.6.10): of everything, if of nothing in particular.
    RouteRequest(Option<Destination>),
    /// Asks for an update that is of that version at least, or of another router (§4.6.11).
    SeqnoRequest {
        /// Of what.
        to: Destination,
        /// Of which version.
        seqno: Seqno,
        /// How often it may be handed on; not 0.
        hop_count: u8,
        /// Whose version.
        router_id: RouterId,
    },
    /// Makes each packet another (RFC 8967 §6.2).
    PacketCounter {
        /// Grows with each packet.
        counter: u32,
        /// Of the counter; at most [`MAX_INDEX_LEN`] octets.
        index: Vec<u8>,
    },
    /// Asks to prove that a packet is of now (RFC 8967 §6.3): at most [`MAX_NONCE_LEN`] octets.
    ChallengeRequest(Vec<u8>),
    /// Proves it (RFC 8967 §6.4).
    ChallengeReply(Vec<u8>),
}

/// No packet of Babel: to be ignored (RFC 8966 §4.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum FrameError {
    /// Shorter than a header.
    #[error("{0} octets are no header of a Babel packet")]
    Short(usize),
    /// Something else.
    #[error("the first octet is {0}, not 42: no Babel packet")]
    Magic(u8),
    /// Another version.
    #[error("version {0} of Babel is not known: 2 is")]
    Version(u8),
    /// It ends too early.
    #[error("the body is said to have {said} octets and has {has}")]
    Truncated {
        /// Octets of the body, by the header.
        said: usize,
        /// Octets that there are.
        has: usize,
    },
}

/// The two parts of a packet (RFC 8966 §4.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    /// What is said.
    pub body: &'a [u8],
    /// What is said about the packet: MACs (RFC 8967).
    pub trailer: &'a [u8],
}

impl<'a> Frame<'a> {
    /// Takes a datagram apart.
    ///
    /// # Errors
    ///
    /// It is to be ignored.
    pub fn of(datagram: &'a [u8]) -> Result<Frame<'a>, FrameError> {
        let (header, rest) = datagram
            .split_first_chunk::<HEADER_LEN>()
            .ok_or(FrameError::Short(datagram.len()))?;
        let [magic, version, high, low] = *header;
        if magic != MAGIC {
            return Err(FrameError::Magic(magic));
        }
        if version != VERSION {
            return Err(FrameError::Version(version));
        }
        let said = usize::from(u16::from_be_bytes([high, low]));
        let parts = rest.split_at_checked(said);
        let (body, trailer) = parts.ok_or(FrameError::Truncated {
            said,
            has: rest.len(),
        })?;
        Ok(Frame { body, trailer })
    }

    /// The MACs in the trailer (RFC 8967 §6.1), as far as it can be read.
    pub fn macs(self) -> impl Iterator<Item = &'a [u8]> {
        decode::Walk::new(self.trailer)
            .filter_map(|(kind, body)| (kind == kind::MAC).then_some(body))
    }
}
