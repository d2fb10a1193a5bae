//! What nodes write to each other about tunnels, before there is one and later over the mesh itself: letters, each signed by its writer.
//!
//! A letter fits into one datagram that no path of IPv6 cuts, with its writer's certificate. It names its reader, its time and a number that
//! grows, so that nobody can send it again or to somebody else; an answer names what it answers. What it says is believed after
//! [`Desk`] has judged all that.

mod desk;
mod envelope;
mod presence;
mod said;
#[cfg(test)]
mod tests;

use std::time::Duration;

use hextet_types::{Way, octets::Reader};

pub use desk::{Desk, Refusal};
pub use envelope::Envelope;
pub use presence::Presence;

use crate::{
    certificate::{NodeId, UnixTime},
    gossip::{Digest, Holding},
    key::{Domain, NetworkId, SIGNATURE_LEN},
    signed::{Body, Malformed},
    topology::{Message, Reach},
    wire::{self, Field},
};

/// Octets of a datagram with a letter: what is left of IPv6's least MTU (RFC 8200 §5) after the headers of IPv6 and UDP.
pub const MAX_DATAGRAM: usize = 1_280 - 40 - 8;
/// Addresses at which a node may be reached.
pub const MAX_CANDIDATES: usize = 8;
/// Strands of a tunnel: as many uplinks of one of its ends are used.
pub const MAX_STRANDS: u8 = 4;
/// Destinations of a question.
pub const MAX_DESTINATIONS: usize = 48;
/// Nodes that are near to who answers.
pub const MAX_NEAR: usize = 4;
/// Octets of a document in one letter: what fits beside all but the longest certificates.
pub const MAX_PIECE: usize = 768;
/// Neighbours that a node tells of: as much as [`MAX_PIECE`].
pub const MAX_NEIGHBOURS: usize = 56;
/// Nodes that somebody is told of who knows none.
pub const MAX_INTRODUCED: usize = 16;

/// One.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Letter {
    /// The network.
    pub network: NetworkId,
    /// Who writes.
    pub from: NodeId,
    /// To whom; to all on a link, if to nobody.
    pub to: Option<NodeId>,
    /// When, by the writer's clock.
    pub at: UnixTime,
    /// Greater than those of all letters that the writer wrote before.
    pub number: u64,
    /// The number of the letter that it answers.
    pub answers: Option<u64>,
    /// What its writer knows of the network, so that whoever knows less can ask.
    pub known: Known,
    /// The matter.
    pub said: Said,
}

/// A digest of the parameters and revocations that a node has ([`Gossip::known`](crate::gossip::Gossip::known)); 0 where it knows nothing yet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Known(pub u64);

/// What a letter says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Said {
    /// "Are you there?"
    Ping(Card),
    /// "I am", to whoever pinged from that address.
    Pong {
        /// As it was seen here: what a NAT makes of it.
        observed: Way,
        /// The writer's.
        card: Card,
    },
    /// "Let us have a tunnel": an offer, or the answer to one.
    Offer(Offer),
    /// "How far is it from you to these?"
    Question {
        /// At most [`MAX_DESTINATIONS`].
        destinations: Vec<NodeId>,
    },
    /// The answer.
    Distances {
        /// To those that there are routes to, in microseconds; at most [`MAX_DESTINATIONS`].
        distances: Vec<(NodeId, Micros)>,
        /// At most [`MAX_NEAR`].
        near: Vec<(NodeId, Reach)>,
    },
    /// "Whom do you know?"
    Introduce,
    /// The answer: nodes that may be reached by anybody, at most [`MAX_INTRODUCED`].
    Introduced(Vec<(NodeId, Way)>),
    /// About the choice of tunnels.
    Topology(Message),
    /// "I have these documents": at most [`MAX_DOCUMENTS`](crate::gossip::MAX_DOCUMENTS), ascending.
    Holdings(Vec<Holding>),
    /// "I am beside you": to all on a network segment, and the answer to one of them.
    Beside {
        /// For this segment, of Curve25519: pairs make a secret of their keys.
        key: [u8; 32],
        /// The port of UDP where the writer's tunnels listen.
        port: u16,
    },
    /// "Nothing of that one comes to me any more: does it to you?"
    Missing(NodeId),
    /// "Who are your neighbours?"
    Survey,
    /// The answer; at most [`MAX_NEIGHBOURS`].
    Neighbours(Vec<Neighbour>),
    /// "Nothing of you comes by that strand of our tunnel any more."
    Silent {
        /// Below [`MAX_STRANDS`].
        strand: u8,
    },
    /// "Let me have these octets of that document."
    Wanted {
        /// Which.
        digest: Digest,
        /// From there.
        offset: u32,
        /// So many, 1 to [`MAX_PIECE`].
        len: u16,
    },
    /// The answer.
    Piece {
        /// Of that document.
        digest: Digest,
        /// Begins there.
        offset: u32,
        /// 1 to [`MAX_PIECE`].
        octets: Vec<u8>,
    },
}

/// Whom packets reach in one hop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Neighbour {
    /// Which.
    pub node: NodeId,
    /// Whether that takes no tunnel, on one network segment.
    pub is_beside: bool,
    /// The least of the last round trips.
    pub round_trip: Option<Micros>,
}

/// How a node may be reached without the mesh.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Card {
    /// Who can begin to talk to it.
    pub reach: Reach,
    /// Where, the best first; at most [`MAX_CANDIDATES`].
    pub candidates: Vec<Way>,
}

/// A round trip, in microseconds; what is longer than 71 minutes is as long.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Micros(pub u32);

impl From<Duration> for Micros {
    fn from(duration: Duration) -> Micros {
        Micros(u32::try_from(duration.as_micros()).unwrap_or(u32::MAX))
    }
}

impl From<Micros> for Duration {
    fn from(micros: Micros) -> Duration {
        Duration::from_micros(micros.0.into())
    }
}

/// One end of a tunnel to be, or of a strand of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Offer {
    /// Which strand: less than [`MAX_STRANDS`]; the first is the tunnel itself.
    pub strand: u8,
    /// The public key of this end, made for this tunnel (WireGuard's Curve25519).
    pub key: [u8; 32],
    /// Where this end may be reached.
    pub card: Card,
}

impl Body for Letter {
    const DOMAIN: Domain = Domain::Letter;
    const MAX_LEN: usize = MAX_DATAGRAM;

    fn put(&self, out: &mut Vec<u8>) {
        out.extend(self.network.0.to_be_bytes());
        out.extend(self.from.0.to_be_bytes());
        put_option(out, self.to.map(|to| to.0));
        out.extend(self.at.0.to_be_bytes());
        out.extend(self.number.to_be_bytes());
        put_option(out, self.answers);
        out.extend(self.known.0.to_be_bytes());
        said::put(out, &self.said);
    }

    fn read(reader: &mut Reader<'_>) -> Result<Letter, Malformed> {
        Ok(Letter {
            network: NetworkId(wire::u64_of(reader, "the network")?),
            from: NodeId(wire::u64_of(reader, "the writer")?),
            to: option(reader, "the reader")?.map(NodeId),
            at: UnixTime(wire::u64_of(reader, "the time")?),
            number: wire::u64_of(reader, "the number")?,
            answers: option(reader, "what is answered")?,
            known: Known(wire::u64_of(reader, "what the writer knows")?),
            said: said::read(reader)?,
        })
    }
}

/// Octets of what no letter is without: version, signer and signature included.
pub const LEAST_LEN: usize = 1 + 8 + 8 + 1 + 8 + 8 + 1 + 8 + 1 + 8 + SIGNATURE_LEN;

fn put_option(out: &mut Vec<u8>, value: Option<u64>) {
    out.push(u8::from(value.is_some()));
    out.extend(value.into_iter().flat_map(u64::to_be_bytes));
}

fn option(reader: &mut Reader<'_>, what: &'static str) -> Result<Option<u64>, Malformed> {
    match wire::count(reader, what, 0, 1)? {
        0 => Ok(None),
        _ => Ok(Some(wire::u64_of(reader, what)?)),
    }
}

/// A flag that is 0 or 1.
fn flag(reader: &mut Reader<'_>, what: &'static str) -> Result<bool, Malformed> {
    match reader.u8().need(what)? {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(Malformed::Value(what)),
    }
}
