//! Reads the body of a packet (RFC 8966 §4.5, §4.6).

use std::net::IpAddr;

use hextet_types::{Family, Prefix, octets::Reader};

use super::{
    Class, Destination, Echo, MAX_INDEX_LEN, MAX_NONCE_LEN, Tlv, Update,
    address::{self, Encoding},
    kind,
    subtlv::{self, CLASS, SOURCE_PREFIX, START, THROUGHPUT, TIMESTAMP},
};
use crate::{
    config::Start,
    number::{Interval, Metric, RouterId, Seqno},
};

/// The prefix is what the next ones of its encoding begin with.
pub const DEFAULT_PREFIX: u8 = 0x80;
/// The router-id is the end of the prefix.
pub const ROUTER_ID: u8 = 0x40;
/// The Hello is of the series for one neighbour.
pub const UNICAST: u16 = 0x8000;

/// What a packet says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Decoded {
    /// In its order.
    pub tlvs: Vec<Tlv>,
    /// How many TLVs besides were malformed, or of a kind that is not known.
    pub ignored: usize,
}

/// What is said by a body that came from an address.
pub fn decode(body: &[u8], from: IpAddr) -> Decoded {
    let mut state = State::new(from);
    let mut decoded = Decoded::default();
    let mut walk = Walk::new(body);
    for (kind, octets) in walk.by_ref() {
        match state.tlv(kind, octets) {
            Some(Said::Tlv(tlv)) => decoded.tlvs.push(tlv),
            Some(Said::Context) => {}
            None => decoded.ignored += 1,
        }
    }
    decoded.ignored += usize::from(walk.is_torn());
    decoded
}

/// Goes through TLVs, or what is like them, without padding; ends where one is longer than what is left.
pub struct Walk<'a> {
    rest: Reader<'a>,
    torn: bool,
}

impl<'a> Walk<'a> {
    pub const fn new(octets: &'a [u8]) -> Walk<'a> {
        Walk {
            rest: Reader::new(octets),
            torn: false,
        }
    }

    /// Whether it has ended before its time.
    pub const fn is_torn(&self) -> bool {
        self.torn
    }
}

impl<'a> Iterator for Walk<'a> {
    type Item = (u8, &'a [u8]);

    fn next(&mut self) -> Option<(u8, &'a [u8])> {
        loop {
            let kind = self.rest.u8()?;
            if kind == kind::PAD_1 {
                continue;
            }
            let len = self.rest.u8().map(usize::from);
            let Some(body) = len.and_then(|len| self.rest.take(len)) else {
                self.torn = true;
                self.rest = Reader::new(&[]);
                return None;
            };
            if kind != kind::PAD_N {
                return Some((kind, body));
            }
        }
    }
}

/// What a TLV is for.
enum Said {
    Tlv(Tlv),
    /// It holds for those after it.
    Context,
}

/// What holds for the next update (RFC 8966 §4.5). It changes with TLVs that are ignored otherwise, too, so that all who read a
/// packet agree.
#[derive(Clone)]
pub struct State {
    pub router_id: Option<RouterId>,
    pub next_hops: [Option<IpAddr>; 2],
    pub bases: [Option<Prefix>; Encoding::OF_PREFIXES.len()],
}

impl State {
    /// At a packet's begin.
    pub fn new(from: IpAddr) -> State {
        let next_hops = Family::BOTH.map(|family| (Family::of(from) == family).then_some(from));
        State {
            router_id: None,
            next_hops,
            bases: [None; Encoding::OF_PREFIXES.len()],
        }
    }

    /// The next hop of updates with that encoding.
    pub fn next_hop(&mut self, encoding: Encoding) -> &mut Option<IpAddr> {
        let [v4, v6] = &mut self.next_hops;
        match encoding {
            Encoding::V4 => v4,
            _ => v6,
        }
    }

    /// What updates with that encoding begin with.
    pub fn base(&mut self, encoding: Encoding) -> &mut Option<Prefix> {
        let [v4, v6, via] = &mut self.bases;
        match encoding {
            Encoding::V4 => v4,
            Encoding::V4ViaV6 => via,
            _ => v6,
        }
    }

    fn tlv(&mut self, kind: u8, octets: &[u8]) -> Option<Said> {
        let mut octets = Reader::new(octets);
        let octets = &mut octets;
        let tlv = match kind {
            kind::ACK_REQUEST => ack_request(octets)?,
            kind::ACK => ack(octets)?,
            kind::HELLO => hello(octets)?,
            kind::IHU => ihu(octets)?,
            kind::ROUTER_ID => return self.read_router_id(octets),
            kind::NEXT_HOP => return self.read_next_hop(octets),
            kind::UPDATE => Tlv::Update(self.update(octets)?),
            kind::ROUTE_REQUEST => route_request(octets)?,
            kind::SEQNO_REQUEST => seqno_request(octets)?,
            kind::PC => packet_counter(octets)?,
            kind::CHALLENGE_REQUEST => Tlv::ChallengeRequest(nonce(octets)?),
            kind::CHALLENGE_REPLY => Tlv::ChallengeReply(nonce(octets)?),
            _ => return None,
        };
        Some(Said::Tlv(tlv))
    }

    fn read_router_id(&mut self, octets: &mut Reader<'_>) -> Option<Said> {
        let _reserved = octets.u16()?;
        self.router_id = octets.array().and_then(|id| RouterId::try_from(id).ok());
        self.router_id.map(|_| Said::Context)
    }

    fn read_next_hop(&mut self, octets: &mut Reader<'_>) -> Option<Said> {
        let encoding = Encoding::of_octet(octets.u8()?)?;
        let _reserved = octets.u8()?;
        let addr = address::read(encoding, octets)?;
        *self.next_hop(encoding) = Some(addr);
        Some(Said::Context)
    }

    fn update(&mut self, octets: &mut Reader<'_>) -> Option<Update> {
        let encoding = Encoding::of_octet(octets.u8()?)?;
        let [flags, len, omitted] = octets.array()?;
        let interval = Interval(octets.u16()?);
        let seqno = Seqno(octets.u16()?);
        let metric = Metric(octets.u16()?);
        if encoding == Encoding::Wildcard {
            let nothing_else =
                len == 0 && omitted == 0 && subtlvs(octets, SOURCE_PREFIX)?.is_none();
            return (nothing_else && metric.is_infinite()).then_some(Update::Retraction {
                to: None,
                seqno,
                interval,
            });
        }
        let prefix = self.prefix(encoding, flags, len, omitted, octets)?;
        let to = destination(prefix, octets)?;
        if interval == Interval(0) {
            return None;
        }
        if metric.is_infinite() {
            return Some(Update::Retraction {
                to: Some(to),
                seqno,
                interval,
            });
        }
        Some(Update::Route {
            to,
            router_id: self.router_id?,
            seqno,
            metric,
            interval,
            next_hop: (*self.next_hop(encoding))?,
        })
    }

    /// An update's prefix, and what it means for those after it.
    fn prefix(
        &mut self,
        encoding: Encoding,
        flags: u8,
        len: u8,
        omitted: u8,
        octets: &mut Reader<'_>,
    ) -> Option<Prefix> {
        let family = encoding.family()?;
        let base = self.base(encoding);
        let prefix = address::read_prefix(family, len, omitted.into(), *base, octets)?;
        if flags & DEFAULT_PREFIX != 0 {
            *base = Some(prefix);
        }
        if flags & ROUTER_ID != 0 {
            self.router_id = RouterId::try_from(end_of(prefix)).ok();
        }
        Some(prefix)
    }
}

/// The last eight octets of its address, with zeros before those of IPv4.
fn end_of(prefix: Prefix) -> [u8; 8] {
    let bits = match prefix.addr() {
        IpAddr::V4(v4) => u64::from(u32::from(v4)),
        IpAddr::V6(v6) => u128::from(v6) as u64,
    };
    bits.to_be_bytes()
}

/// Of what is left, the sub-TLV of that type, if there is one and all is well.
fn subtlvs<'a>(octets: &mut Reader<'a>, wanted: u8) -> Option<Option<&'a [u8]>> {
    let [found] = subtlv::find(octets.rest(), [wanted]).ok()?;
    Some(found)
}

/// With the source prefix and the class that follow, if they do.
fn destination(prefix: Prefix, octets: &mut Reader<'_>) -> Option<Destination> {
    let [source, class] = subtlv::find(octets.rest(), [SOURCE_PREFIX, CLASS]).ok()?;
    let to = match source {
        None => Destination::of(prefix),
        Some(body) => {
            let mut body = Reader::new(body);
            let len = body.u8().filter(|len| *len > 0)?;
            let source = address::read_prefix(prefix.family(), len, 0, None, &mut body)?;
            Destination::from_source(prefix, source).ok()?
        }
    };
    match class {
        None => Some(to),
        Some([THROUGHPUT]) => Some(to.in_class(Class::Throughput)),
        Some(_) => None,
    }
}

fn ack_request(octets: &mut Reader<'_>) -> Option<Tlv> {
    let _reserved = octets.u16()?;
    let (opaque, interval) = (octets.u16()?, Interval(octets.u16()?));
    let start = subtlvs(octets, START)?.and_then(|body| match body {
        [0, ..] => Some(Start::Fresh),
        [1, ..] => Some(Start::Resumed),
        _ => None,
    });
    Some(Tlv::AckRequest {
        opaque,
        interval,
        start,
    })
}

fn ack(octets: &mut Reader<'_>) -> Option<Tlv> {
    let opaque = octets.u16()?;
    subtlvs(octets, TIMESTAMP)?;
    Some(Tlv::Ack { opaque })
}

fn hello(octets: &mut Reader<'_>) -> Option<Tlv> {
    let flags = octets.u16()?;
    let (seqno, interval) = (Seqno(octets.u16()?), Interval(octets.u16()?));
    let timestamp = subtlvs(octets, TIMESTAMP)?;
    Some(Tlv::Hello {
        unicast: flags & UNICAST != 0,
        seqno,
        interval,
        timestamp: timestamp.and_then(|body| Reader::new(body).u32()),
    })
}

fn ihu(octets: &mut Reader<'_>) -> Option<Tlv> {
    let encoding = Encoding::of_octet(octets.u8()?)?;
    let _reserved = octets.u8()?;
    let rxcost = Metric(octets.u16()?);
    let interval = octets.u16().map(Interval).filter(|i| *i > Interval(0))?;
    let to = match encoding {
        Encoding::Wildcard => None,
        encoding => Some(address::read(encoding, octets)?),
    };
    let echo = subtlvs(octets, TIMESTAMP)?.and_then(|body| {
        let mut body = Reader::new(body);
        let (origin, received) = (body.u32()?, body.u32()?);
        Some(Echo { origin, received })
    });
    Some(Tlv::Ihu {
        to,
        rxcost,
        interval,
        echo,
    })
}

fn route_request(octets: &mut Reader<'_>) -> Option<Tlv> {
    let encoding = Encoding::of_octet(octets.u8()?)?;
    let len = octets.u8()?;
    if encoding == Encoding::Wildcard {
        let nothing_else = len == 0 && subtlvs(octets, SOURCE_PREFIX)?.is_none();
        return nothing_else.then_some(Tlv::RouteRequest(None));
    }
    let prefix = address::read_prefix(encoding.family()?, len, 0, None, octets)?;
    Some(Tlv::RouteRequest(Some(destination(prefix, octets)?)))
}

fn seqno_request(octets: &mut Reader<'_>) -> Option<Tlv> {
    let encoding = Encoding::of_octet(octets.u8()?)?;
    let len = octets.u8()?;
    let seqno = Seqno(octets.u16()?);
    let hop_count = octets.u8().filter(|count| *count > 0)?;
    let _reserved = octets.u8()?;
    let router_id = RouterId::try_from(octets.array::<8>()?).ok()?;
    let prefix = address::read_prefix(encoding.family()?, len, 0, None, octets)?;
    Some(Tlv::SeqnoRequest {
        to: destination(prefix, octets)?,
        seqno,
        hop_count,
        router_id,
    })
}

fn packet_counter(octets: &mut Reader<'_>) -> Option<Tlv> {
    let counter = octets.u32()?;
    let index = octets.rest().to_vec();
    (index.len() <= MAX_INDEX_LEN).then_some(Tlv::PacketCounter { counter, index })
}

fn nonce(octets: &mut Reader<'_>) -> Option<Vec<u8>> {
    let nonce = octets.rest().to_vec();
    (nonce.len() <= MAX_NONCE_LEN).then_some(nonce)
}
