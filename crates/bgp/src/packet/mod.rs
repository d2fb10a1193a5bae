//! The messages of BGP-4 as types, and their octets.
//!
//! Knows nothing of sessions or routes. Every decoder takes any octets without a panic and answers
//! either with a value or with the NOTIFICATION that RFC 4271 §6 or RFC 7606 asks for; nothing that
//! is decoded is longer than the message that it came in.

pub mod as_path;
pub mod attributes;
pub mod capability;
pub mod community;
mod decode;
mod encode;
mod framer;
mod nlri;
mod notification;
mod open;
mod refresh;
mod update;
mod value;
mod wire;

#[cfg(test)]
pub(crate) mod tests;

pub use as_path::{AsPath, Segment, SegmentKind};
pub use attributes::{Aggregator, NextHop, Origin, PathAttributes, Rare, UnknownAttribute};
pub use capability::{
    Capability, ExtendedNextHop, GracefulRestart, LongLivedFamily, RestartFamily,
};
pub use community::{Community, ExtendedCommunity, LargeCommunity};
pub use encode::{Encoding, Oversized, encode_end_of_rib, encode_reach, encode_withdraw};
pub use framer::Framer;
pub use nlri::{Afi, Families};
pub use notification::{Code, Notification};
pub use open::Open;
pub use refresh::{RefreshKind, RouteRefresh};
pub use update::{Consequence, Context, Parsed, Problem, Reach, Update};

pub(crate) use wire::{Reader, put_u16, put_u32};

/// Octets of a message header: marker, length, type (RFC 4271 §4.1).
pub const HEADER_LEN: usize = 19;
/// The longest message without RFC 8654.
pub const MAX_LEN: usize = 4096;
/// The longest message with RFC 8654.
pub const MAX_EXTENDED_LEN: usize = 65_535;

/// The type octet of a message (RFC 4271 §4.1, RFC 2918).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MessageType {
    /// 1
    Open,
    /// 2
    Update,
    /// 3
    Notification,
    /// 4
    Keepalive,
    /// 5
    RouteRefresh,
}

impl MessageType {
    /// The type that an octet stands for.
    pub const fn from_octet(octet: u8) -> Option<MessageType> {
        match octet {
            1 => Some(MessageType::Open),
            2 => Some(MessageType::Update),
            3 => Some(MessageType::Notification),
            4 => Some(MessageType::Keepalive),
            5 => Some(MessageType::RouteRefresh),
            _ => None,
        }
    }

    /// Its octet.
    pub const fn octet(self) -> u8 {
        match self {
            MessageType::Open => 1,
            MessageType::Update => 2,
            MessageType::Notification => 3,
            MessageType::Keepalive => 4,
            MessageType::RouteRefresh => 5,
        }
    }

    /// The shortest message of the type, with its header.
    pub const fn min_len(self) -> usize {
        match self {
            MessageType::Open => 29,
            MessageType::Update | MessageType::RouteRefresh => 23,
            MessageType::Notification => 21,
            MessageType::Keepalive => HEADER_LEN,
        }
    }
}

/// Any message that is no UPDATE; that one wants a [`Context`] to be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// Opens a session.
    Open(Open),
    /// Ends a session.
    Notification(Notification),
    /// Keeps a session.
    Keepalive,
    /// Asks for the routes again, or frames the answer.
    RouteRefresh(RouteRefresh),
}

impl Message {
    /// The message with its header, ready to be sent.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(64);
        match self {
            Message::Open(open) => framed(&mut out, MessageType::Open, |b| open.encode_body(b)),
            Message::Notification(n) => {
                framed(&mut out, MessageType::Notification, |b| n.encode_body(b));
            }
            Message::Keepalive => framed(&mut out, MessageType::Keepalive, |_| ()),
            Message::RouteRefresh(r) => {
                framed(&mut out, MessageType::RouteRefresh, |b| r.encode_body(b));
            }
        }
        out
    }
}

/// Appends a header, lets `body` append the rest, and fills in the length.
pub(crate) fn framed(out: &mut Vec<u8>, kind: MessageType, body: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.extend_from_slice(&[0xff; 16]);
    out.extend_from_slice(&[0, 0, kind.octet()]);
    body(out);
    wire::patch_len(out, start + 16, start);
}
