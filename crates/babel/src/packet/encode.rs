//! Writes packets: as many TLVs as fit, the prefixes of updates without what they begin with alike.

use std::net::IpAddr;

use hextet_types::{
    Family, Prefix,
    octets::{put_u16, put_u32},
};
use thiserror::Error;

use super::{
    Class, Destination, Echo, HEADER_LEN, MAGIC, Tlv, Update, VERSION,
    address::{self, Encoding},
    decode::{DEFAULT_PREFIX, State, UNICAST},
    kind,
    subtlv::{CLASS, SOURCE_PREFIX, START, THROUGHPUT, TIMESTAMP},
};
use crate::{
    config::Start,
    number::{Interval, Metric, Seqno},
};

/// There is no room for it: the packet is to be sent as it is, and this one in the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("no room for another TLV in a packet of {limit} octets")]
pub struct Oversized {
    /// Octets that the packet may have.
    pub limit: usize,
}

/// A packet that grows.
pub struct Writer {
    out: Vec<u8>,
    limit: usize,
    state: State,
}

impl Writer {
    /// Of so many octets at most, from that address. All TLVs fit alone into 512 octets, which every link takes (RFC 8966 §4.2.1).
    pub fn new(limit: usize, from: IpAddr) -> Writer {
        Writer {
            out: vec![MAGIC, VERSION, 0, 0],
            limit,
            state: State::new(from),
        }
    }

    /// Whether nothing is in it.
    pub fn is_empty(&self) -> bool {
        self.out.len() == HEADER_LEN
    }

    /// Adds one.
    ///
    /// # Errors
    ///
    /// It does not fit, and the packet is what it was.
    pub fn push(&mut self, tlv: &Tlv) -> Result<(), Oversized> {
        let (len, state) = (self.out.len(), self.state.clone());
        self.put(tlv);
        if self.out.len() <= self.limit {
            return Ok(());
        }
        self.out.truncate(len);
        self.state = state;
        Err(Oversized { limit: self.limit })
    }

    /// The packet, without a trailer.
    pub fn finish(mut self) -> Vec<u8> {
        let body = self.out.len() - HEADER_LEN;
        let len = u16::try_from(body).unwrap_or(u16::MAX);
        self.out[2..HEADER_LEN].copy_from_slice(&len.to_be_bytes());
        self.out
    }

    fn put(&mut self, tlv: &Tlv) {
        let out = &mut self.out;
        match tlv {
            Tlv::AckRequest {
                opaque,
                interval,
                start,
            } => framed(out, kind::ACK_REQUEST, |out| {
                put_ack_request(out, *opaque, *interval, *start);
            }),
            Tlv::Ack { opaque } => framed(out, kind::ACK, |out| put_u16(out, *opaque)),
            Tlv::Hello {
                unicast,
                seqno,
                interval,
                timestamp,
            } => framed(out, kind::HELLO, |out| {
                put_u16(out, if *unicast { UNICAST } else { 0 });
                put_u16(out, seqno.0);
                put_u16(out, interval.0);
                if let Some(stamp) = timestamp {
                    framed(out, TIMESTAMP, |out| put_u32(out, *stamp));
                }
            }),
            Tlv::Ihu {
                to,
                rxcost,
                interval,
                echo,
            } => framed(out, kind::IHU, |out| {
                put_ihu(out, *to, *rxcost, *interval, *echo)
            }),
            Tlv::Update(Update::Retraction {
                to,
                seqno,
                interval,
            }) => self.put_retraction(*to, *interval, *seqno),
            Tlv::Update(update @ Update::Route { .. }) => self.put_route(update),
            Tlv::RouteRequest(to) => framed(out, kind::ROUTE_REQUEST, |out| {
                let encoding = to.map_or(Encoding::Wildcard, encoding_of);
                out.extend([encoding.octet(), to.map_or(0, |to| to.prefix().len())]);
                if let Some(to) = to {
                    address::put_prefix(out, to.prefix(), 0);
                    put_rest(out, *to);
                }
            }),
            Tlv::SeqnoRequest {
                to,
                seqno,
                hop_count,
                router_id,
            } => framed(out, kind::SEQNO_REQUEST, |out| {
                out.extend([encoding_of(*to).octet(), to.prefix().len()]);
                put_u16(out, seqno.0);
                out.extend([*hop_count, 0]);
                out.extend(router_id.octets());
                address::put_prefix(out, to.prefix(), 0);
                put_rest(out, *to);
            }),
            Tlv::PacketCounter { counter, index } => framed(out, kind::PC, |out| {
                put_u32(out, *counter);
                out.extend(index);
            }),
            Tlv::ChallengeRequest(nonce) => {
                framed(out, kind::CHALLENGE_REQUEST, |out| out.extend(nonce));
            }
            Tlv::ChallengeReply(nonce) => {
                framed(out, kind::CHALLENGE_REPLY, |out| out.extend(nonce));
            }
        }
    }

    fn put_retraction(&mut self, to: Option<Destination>, interval: Interval, seqno: Seqno) {
        let Some(to) = to else {
            framed(&mut self.out, kind::UPDATE, |out| {
                out.extend([Encoding::Wildcard.octet(), 0, 0, 0]);
                put_numbers(out, interval, seqno, Metric::INFINITE);
            });
            return;
        };
        self.put_update(encoding_of(to), to, (interval, seqno, Metric::INFINITE));
    }

    fn put_route(&mut self, update: &Update) {
        let Update::Route {
            to,
            router_id,
            seqno,
            metric,
            interval,
            next_hop,
        } = *update
        else {
            return;
        };
        let encoding = match (to.family(), next_hop) {
            (Family::V6, _) => Encoding::V6,
            (Family::V4, IpAddr::V4(_)) => Encoding::V4,
            (Family::V4, IpAddr::V6(_)) => Encoding::V4ViaV6,
        };
        if self.state.router_id.replace(router_id) != Some(router_id) {
            framed(&mut self.out, kind::ROUTER_ID, |out| {
                put_u16(out, 0);
                out.extend(router_id.octets());
            });
        }
        if self.state.next_hop(encoding).replace(next_hop) != Some(next_hop) {
            framed(&mut self.out, kind::NEXT_HOP, |out| {
                let encoding = Encoding::of_address(next_hop);
                out.extend([encoding.octet(), 0]);
                address::put(out, encoding, next_hop);
            });
        }
        self.put_update(encoding, to, (interval, seqno, metric));
    }

    fn put_update(
        &mut self,
        encoding: Encoding,
        to: Destination,
        (interval, seqno, metric): (Interval, Seqno, Metric),
    ) {
        let prefix = to.prefix();
        let base = self.state.base(encoding);
        let omitted = base.map_or(0, |base| address::alike(base, prefix));
        let flags = match omitted {
            0 => {
                *base = Some(prefix);
                DEFAULT_PREFIX
            }
            _ => 0,
        };
        framed(&mut self.out, kind::UPDATE, |out| {
            let omitted_octet = u8::try_from(omitted).unwrap_or(0);
            out.extend([encoding.octet(), flags, prefix.len(), omitted_octet]);
            put_numbers(out, interval, seqno, metric);
            address::put_prefix(out, prefix, omitted);
            put_rest(out, to);
        });
    }
}

/// Of requests and retractions, which have no next hop.
fn encoding_of(to: Destination) -> Encoding {
    match to.family() {
        Family::V4 => Encoding::V4,
        Family::V6 => Encoding::V6,
    }
}

fn put_ack_request(out: &mut Vec<u8>, opaque: u16, interval: Interval, start: Option<Start>) {
    put_u16(out, 0);
    put_u16(out, opaque);
    put_u16(out, interval.0);
    if let Some(start) = start {
        let resumed = u8::from(start == Start::Resumed);
        framed(out, START, |out| out.push(resumed));
    }
}

fn put_ihu(
    out: &mut Vec<u8>,
    to: Option<IpAddr>,
    rxcost: Metric,
    interval: Interval,
    echo: Option<Echo>,
) {
    let encoding = to.map_or(Encoding::Wildcard, Encoding::of_address);
    out.extend([encoding.octet(), 0]);
    put_u16(out, rxcost.0);
    put_u16(out, interval.0);
    if let Some(addr) = to {
        address::put(out, encoding, addr);
    }
    if let Some(Echo { origin, received }) = echo {
        framed(out, TIMESTAMP, |out| {
            put_u32(out, origin);
            put_u32(out, received);
        });
    }
}

fn put_numbers(out: &mut Vec<u8>, interval: Interval, seqno: Seqno, metric: Metric) {
    for number in [interval.0, seqno.0, metric.0] {
        put_u16(out, number);
    }
}

fn put_rest(out: &mut Vec<u8>, to: Destination) {
    if let Some(source) = to.source() {
        framed(out, SOURCE_PREFIX, |out| put_prefix(out, source));
    }
    if to.class() == Class::Throughput {
        framed(out, CLASS, |out| out.push(THROUGHPUT));
    }
}

fn put_prefix(out: &mut Vec<u8>, prefix: Prefix) {
    out.push(prefix.len());
    address::put_prefix(out, prefix, 0);
}

/// A type, a length, and what `body` appends: nothing that is written here is longer than 255 octets.
fn framed(out: &mut Vec<u8>, kind: u8, body: impl FnOnce(&mut Vec<u8>)) {
    out.extend([kind, 0]);
    let start = out.len();
    body(out);
    out[start - 1] = u8::try_from(out.len() - start).unwrap_or(u8::MAX);
}
