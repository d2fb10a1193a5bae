//! The octets of what letters say: a kind, then its fields, each in one way only.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use hextet_types::{
    Way,
    octets::{Reader, put_u16, put_u32},
};

use super::{
    Card, MAX_CANDIDATES, MAX_DESTINATIONS, MAX_INTRODUCED, MAX_NEAR, MAX_NEIGHBOURS, MAX_PIECE,
    MAX_STRANDS, Micros, Neighbour, Offer, Said, flag,
};
use crate::{
    certificate::NodeId,
    gossip::{Digest, Document, Holding, MAX_DOCUMENTS, Rank},
    key::KeyId,
    topology::{Kind, Message, Reach, Refusal, Walk},
    wire::{self, Field, Malformed},
};

const PING: u8 = 0;
const PONG: u8 = 1;
const OFFER: u8 = 2;
const QUESTION: u8 = 3;
const DISTANCES: u8 = 4;
const INTRODUCE: u8 = 5;
const INTRODUCED: u8 = 6;
const WALK: u8 = 7;
const ASK: u8 = 8;
const GRANT: u8 = 9;
const REFUSE: u8 = 10;
const DRAINING: u8 = 11;
const RESUMED: u8 = 12;
const HOLDINGS: u8 = 13;
const WANTED: u8 = 14;
const PIECE: u8 = 15;
const BESIDE: u8 = 16;
const SILENT: u8 = 17;
const SURVEY: u8 = 18;
const NEIGHBOURS: u8 = 19;
const MISSING: u8 = 20;

const PARAMETERS: u8 = 0;
const REVOCATIONS: u8 = 1;

const REACHES: [Reach; 3] = [Reach::Public, Reach::Punchable, Reach::Closed];
const KINDS: [Kind; 4] = [Kind::Entry, Kind::Random, Kind::Near, Kind::Gain];
const REFUSALS: [Refusal; 5] = [
    Refusal::Full,
    Refusal::Already,
    Refusal::Crossed,
    Refusal::Unreachable,
    Refusal::Late,
];

pub fn put(out: &mut Vec<u8>, said: &Said) {
    match said {
        Said::Ping(card) => {
            out.push(PING);
            put_card(out, card);
        }
        Said::Pong { observed, card } => {
            out.push(PONG);
            put_way(out, *observed);
            put_card(out, card);
        }
        Said::Offer(offer) => {
            out.push(OFFER);
            out.push(offer.strand);
            out.extend(offer.key);
            put_card(out, &offer.card);
        }
        Said::Question { destinations } => {
            out.push(QUESTION);
            wire::put_count(out, destinations.len());
            destinations.iter().for_each(|node| put_node(out, *node));
        }
        Said::Distances { distances, near } => {
            out.push(DISTANCES);
            wire::put_count(out, distances.len());
            for (node, Micros(micros)) in distances {
                put_node(out, *node);
                put_u32(out, *micros);
            }
            wire::put_count(out, near.len());
            for (node, reach) in near {
                put_node(out, *node);
                put_one(out, &REACHES, *reach);
            }
        }
        Said::Introduce => out.push(INTRODUCE),
        Said::Introduced(nodes) => {
            out.push(INTRODUCED);
            wire::put_count(out, nodes.len());
            for (node, at) in nodes {
                put_node(out, *node);
                put_way(out, *at);
            }
        }
        Said::Topology(message) => put_message(out, message),
        Said::Beside { key, port } => {
            out.push(BESIDE);
            out.extend(key);
            put_u16(out, *port);
        }
        Said::Silent { strand } => out.extend([SILENT, *strand]),
        Said::Missing(node) => {
            out.push(MISSING);
            put_node(out, *node);
        }
        Said::Survey => out.push(SURVEY),
        Said::Neighbours(neighbours) => {
            out.push(NEIGHBOURS);
            wire::put_count(out, neighbours.len());
            neighbours.iter().for_each(|one| put_neighbour(out, one));
        }
        Said::Holdings(_) | Said::Wanted { .. } | Said::Piece { .. } => put_gossip(out, said),
    }
}

/// What is not known is written as the longest there is.
fn put_neighbour(out: &mut Vec<u8>, neighbour: &Neighbour) {
    put_node(out, neighbour.node);
    out.push(u8::from(neighbour.is_beside));
    let round_trip = neighbour.round_trip.unwrap_or(Micros(u32::MAX));
    put_u32(out, round_trip.0);
}

fn neighbour(reader: &mut Reader<'_>) -> Result<Neighbour, Malformed> {
    Ok(Neighbour {
        node: node(reader)?,
        is_beside: flag(reader, "whether a neighbour takes a tunnel")?,
        round_trip: match u32_of(reader, "how far a neighbour is")? {
            u32::MAX => None,
            micros => Some(Micros(micros)),
        },
    })
}

fn put_card(out: &mut Vec<u8>, card: &Card) {
    put_one(out, &REACHES, card.reach);
    wire::put_count(out, card.candidates.len());
    card.candidates.iter().for_each(|one| put_way(out, *one));
}

fn card(reader: &mut Reader<'_>) -> Result<Card, Malformed> {
    Ok(Card {
        reach: one(reader, "who can reach the writer", &REACHES)?,
        candidates: many(reader, "the candidates", MAX_CANDIDATES, way)?,
    })
}

fn put_gossip(out: &mut Vec<u8>, said: &Said) {
    match said {
        Said::Holdings(holdings) => {
            out.push(HOLDINGS);
            wire::put_count(out, holdings.len());
            holdings.iter().for_each(|one| put_holding(out, one));
        }
        Said::Wanted {
            digest,
            offset,
            len,
        } => {
            out.push(WANTED);
            out.extend(digest.0);
            put_u32(out, *offset);
            put_u16(out, *len);
        }
        Said::Piece {
            digest,
            offset,
            octets,
        } => {
            out.push(PIECE);
            out.extend(digest.0);
            put_u32(out, *offset);
            put_u16(out, u16::try_from(octets.len()).unwrap_or(u16::MAX));
            out.extend(octets);
        }
        _ => {}
    }
}

fn put_holding(out: &mut Vec<u8>, holding: &Holding) {
    match holding.document {
        Document::Parameters => out.push(PARAMETERS),
        Document::Revocations(key) => {
            out.push(REVOCATIONS);
            out.extend(key.0);
        }
    }
    put_u32(out, holding.rank.issuers);
    out.extend(holding.rank.version.to_be_bytes());
    out.extend(holding.rank.tie.to_be_bytes());
    put_u32(out, holding.len);
    out.extend(holding.digest.0);
}

fn put_message(out: &mut Vec<u8>, message: &Message) {
    match message {
        Message::Walk(walk) => {
            out.push(WALK);
            put_node(out, walk.origin);
            put_one(out, &REACHES, walk.reach);
            out.push(u8::from(walk.public));
            put_u32(out, walk.nonce);
            out.push(walk.hops);
        }
        Message::Ask { kind, reach, nonce } => {
            out.push(ASK);
            put_one(out, &KINDS, *kind);
            put_one(out, &REACHES, *reach);
            put_u32(out, *nonce);
        }
        Message::Grant { nonce, reach } => {
            out.push(GRANT);
            put_u32(out, *nonce);
            put_one(out, &REACHES, *reach);
        }
        Message::Refuse { nonce, refusal } => {
            out.push(REFUSE);
            put_u32(out, *nonce);
            put_one(out, &REFUSALS, *refusal);
        }
        Message::Draining => out.push(DRAINING),
        Message::Resumed => out.push(RESUMED),
    }
}

pub fn read(reader: &mut Reader<'_>) -> Result<Said, Malformed> {
    let kind = reader.u8().need("the kind")?;
    Ok(match kind {
        PING => Said::Ping(card(reader)?),
        PONG => Said::Pong {
            observed: way(reader)?,
            card: card(reader)?,
        },
        OFFER => Said::Offer(Offer {
            strand: strand(reader)?,
            key: reader.array().need("the tunnel's key")?,
            card: card(reader)?,
        }),
        QUESTION => Said::Question {
            destinations: many(reader, "the destinations", MAX_DESTINATIONS, node)?,
        },
        DISTANCES => Said::Distances {
            distances: many(reader, "the distances", MAX_DESTINATIONS, |reader| {
                Ok((node(reader)?, Micros(u32_of(reader, "a distance")?)))
            })?,
            near: many(reader, "the nodes near", MAX_NEAR, |reader| {
                let node = node(reader)?;
                Ok((node, one(reader, "who can reach a node", &REACHES)?))
            })?,
        },
        INTRODUCE => Said::Introduce,
        INTRODUCED => {
            let nodes = many(reader, "the nodes", MAX_INTRODUCED, |reader| {
                Ok((node(reader)?, way(reader)?))
            });
            Said::Introduced(nodes?)
        }
        HOLDINGS | WANTED | PIECE => gossip(kind, reader)?,
        BESIDE => Said::Beside {
            key: reader.array().need("the key for a segment")?,
            port: port(reader)?,
        },
        SILENT => Said::Silent {
            strand: strand(reader)?,
        },
        MISSING => Said::Missing(node(reader)?),
        SURVEY => Said::Survey,
        NEIGHBOURS => {
            let all = many(reader, "the neighbours", MAX_NEIGHBOURS, neighbour)?;
            Said::Neighbours(all)
        }
        kind => Said::Topology(message(kind, reader)?),
    })
}

fn gossip(kind: u8, reader: &mut Reader<'_>) -> Result<Said, Malformed> {
    if kind == HOLDINGS {
        let holdings = many(reader, "the documents", MAX_DOCUMENTS, holding)?;
        return match holdings.is_sorted_by(|a, b| a.document < b.document) {
            true => Ok(Said::Holdings(holdings)),
            false => Err(Malformed::Value("the order of documents")),
        };
    }
    let digest = Digest(reader.array().need("a document's digest")?);
    let offset = u32_of(reader, "a piece's begin")?;
    let len = reader.u16().need("a piece's length")?;
    if !(1..=MAX_PIECE).contains(&usize::from(len)) {
        return Err(Malformed::Value("a piece's length"));
    }
    Ok(match kind {
        WANTED => Said::Wanted {
            digest,
            offset,
            len,
        },
        _ => Said::Piece {
            digest,
            offset,
            octets: reader.take(len.into()).need("a piece")?.to_vec(),
        },
    })
}

fn holding(reader: &mut Reader<'_>) -> Result<Holding, Malformed> {
    let document = match reader.u8().need("a document's kind")? {
        PARAMETERS => Document::Parameters,
        REVOCATIONS => Document::Revocations(KeyId(reader.array().need("a list's signer")?)),
        _ => return Err(Malformed::Value("a document's kind")),
    };
    Ok(Holding {
        document,
        rank: Rank {
            issuers: u32_of(reader, "the version of the issuers")?,
            version: wire::u64_of(reader, "a document's version")?,
            tie: wire::u64_of(reader, "a document's signature")?,
        },
        len: u32_of(reader, "a document's length")?,
        digest: Digest(reader.array().need("a document's digest")?),
    })
}

fn message(kind: u8, reader: &mut Reader<'_>) -> Result<Message, Malformed> {
    Ok(match kind {
        WALK => Message::Walk(Walk {
            origin: node(reader)?,
            reach: one(reader, "who can reach the origin", &REACHES)?,
            public: flag(reader, "whether it is to be public")?,
            nonce: u32_of(reader, "the wish")?,
            hops: reader.u8().need("the hops")?,
        }),
        ASK => Message::Ask {
            kind: one(reader, "what the tunnel is for", &KINDS)?,
            reach: one(reader, "who can reach the writer", &REACHES)?,
            nonce: u32_of(reader, "the wish")?,
        },
        GRANT => Message::Grant {
            nonce: u32_of(reader, "the wish")?,
            reach: one(reader, "who can reach the writer", &REACHES)?,
        },
        REFUSE => Message::Refuse {
            nonce: u32_of(reader, "the wish")?,
            refusal: one(reader, "the reason", &REFUSALS)?,
        },
        DRAINING => Message::Draining,
        RESUMED => Message::Resumed,
        _ => return Err(Malformed::Value("the kind")),
    })
}

fn put_node(out: &mut Vec<u8>, node: NodeId) {
    out.extend(node.0.to_be_bytes());
}

fn node(reader: &mut Reader<'_>) -> Result<NodeId, Malformed> {
    wire::u64_of(reader, "a node").map(NodeId)
}

fn strand(reader: &mut Reader<'_>) -> Result<u8, Malformed> {
    const WHAT: &str = "a tunnel's strand";
    match reader.u8().need(WHAT)? {
        strand @ 0..MAX_STRANDS => Ok(strand),
        _ => Err(Malformed::Value(WHAT)),
    }
}

fn port(reader: &mut Reader<'_>) -> Result<u16, Malformed> {
    const WHAT: &str = "a port";
    match reader.u16().need(WHAT)? {
        0 => Err(Malformed::Value(WHAT)),
        port => Ok(port),
    }
}

fn u32_of(reader: &mut Reader<'_>, what: &'static str) -> Result<u32, Malformed> {
    reader.u32().need(what)
}

/// Its place in the list of all that there are.
fn put_one<T: PartialEq>(out: &mut Vec<u8>, all: &[T], value: T) {
    let place = all.iter().position(|one| *one == value);
    out.push(
        place
            .and_then(|place| u8::try_from(place).ok())
            .unwrap_or(u8::MAX),
    );
}

fn one<T: Copy>(reader: &mut Reader<'_>, what: &'static str, all: &[T]) -> Result<T, Malformed> {
    let place = usize::from(reader.u8().need(what)?);
    all.get(place).copied().ok_or(Malformed::Value(what))
}

fn many<T>(
    reader: &mut Reader<'_>,
    what: &'static str,
    most: usize,
    mut read: impl FnMut(&mut Reader<'_>) -> Result<T, Malformed>,
) -> Result<Vec<T>, Malformed> {
    let count = wire::count(reader, what, 0, most)?;
    (0..count).map(|_| read(reader)).collect()
}

/// By a stream.
const TLS: u8 = 0x80;

/// 4 or 6, the address, the port. An address of IPv4 is never written as one of IPv6.
pub(super) fn put_way(out: &mut Vec<u8>, way: Way) {
    let kind = match way {
        Way::Udp(_) => 0,
        Way::Tls(_) => TLS,
    };
    match way.address().ip().to_canonical() {
        IpAddr::V4(addr) => {
            out.push(4 | kind);
            out.extend(addr.octets());
        }
        IpAddr::V6(addr) => {
            out.push(6 | kind);
            out.extend(addr.octets());
        }
    }
    put_u16(out, way.address().port());
}

pub(super) fn way(reader: &mut Reader<'_>) -> Result<Way, Malformed> {
    const WHAT: &str = "an address with its port";
    let kind = reader.u8().need(WHAT)?;
    let addr: IpAddr = match kind & !TLS {
        4 => Ipv4Addr::from(reader.array::<4>().need(WHAT)?).into(),
        6 => Ipv6Addr::from(reader.array::<16>().need(WHAT)?).into(),
        _ => return Err(Malformed::Value(WHAT)),
    };
    let port = reader.u16().need(WHAT)?;
    let is_of_use = port != 0 && !addr.is_unspecified() && !addr.is_multicast();
    if !is_of_use || addr.to_canonical() != addr {
        return Err(Malformed::Value(WHAT));
    }
    let at = SocketAddr::new(addr, port);
    Ok(match kind & TLS {
        0 => Way::Udp(at),
        _ => Way::Tls(at),
    })
}
