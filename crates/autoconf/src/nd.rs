//! Neighbour discovery on the wire: solicitations, advertisements, and the options that they and
//! router advertisements carry (RFC 4861 §4, RFC 4191, RFC 8106, RFC 8781, RFC 9762).
//!
//! It knows octets and nothing else: whether a message may be believed (hop limit, checksum,
//! addresses) is [`frame`](crate::frame)'s business. What always holds: decoding ends, whatever the
//! octets; `decode(encode(x)) == x`; an option that is known but malformed makes its message
//! malformed, one that is not known is kept as it is.

mod option;

use std::net::Ipv6Addr;

pub use option::{NdOption, Preference, PrefixInformation, RouteInformation};
use thiserror::Error;

use crate::reader::Reader;

/// ICMPv6 type of a router solicitation.
pub const ROUTER_SOLICITATION: u8 = 133;
/// ICMPv6 type of a router advertisement.
pub const ROUTER_ADVERTISEMENT: u8 = 134;
/// ICMPv6 type of a neighbour solicitation.
pub const NEIGHBOUR_SOLICITATION: u8 = 135;
/// ICMPv6 type of a neighbour advertisement.
pub const NEIGHBOUR_ADVERTISEMENT: u8 = 136;

/// Octets that are no neighbour discovery message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum NdError {
    /// Shorter than its type's fixed part.
    #[error("neighbour discovery message is cut off")]
    Truncated,
    /// Not one of the five types, or not the one that was asked for.
    #[error("ICMPv6 type {0} is not the neighbour discovery message that was expected")]
    Type(u8),
    /// Codes other than 0 are not defined (RFC 4861 §6.1, §7.1).
    #[error("neighbour discovery message with code {0} instead of 0")]
    Code(u8),
    /// A length of 0, beyond the message's end, or not its type's.
    #[error("neighbour discovery option {0} is malformed")]
    Option(u8),
}

/// A router solicitation (RFC 4861 §4.1).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RouterSolicitation {
    /// In the order of the message.
    pub options: Vec<NdOption>,
}

/// A neighbour solicitation (RFC 4861 §4.3).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NeighbourSolicitation {
    /// Whose link-layer address is asked for.
    pub target: Ipv6Addr,
    /// In the order of the message.
    pub options: Vec<NdOption>,
}

/// A neighbour advertisement (RFC 4861 §4.4).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NeighbourAdvertisement {
    /// The sender is a router.
    pub router: bool,
    /// It answers a solicitation.
    pub solicited: bool,
    /// It replaces what is known.
    pub override_entry: bool,
    /// Whose link-layer address is told.
    pub target: Ipv6Addr,
    /// In the order of the message.
    pub options: Vec<NdOption>,
}

impl RouterSolicitation {
    /// Reads an ICMPv6 message, type and checksum field included; the checksum is not looked at.
    ///
    /// # Errors
    ///
    /// It is none, or malformed.
    pub fn decode(message: &[u8]) -> Result<Self, NdError> {
        let mut body = open(message, ROUTER_SOLICITATION)?;
        body.take(4).ok_or(NdError::Truncated)?;
        let options = NdOption::decode_all(body)?;
        Ok(RouterSolicitation { options })
    }

    /// Writes the ICMPv6 message, with zero for a checksum.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![ROUTER_SOLICITATION, 0, 0, 0, 0, 0, 0, 0];
        encode_options(&self.options, &mut out);
        out
    }
}

impl NeighbourSolicitation {
    /// Reads an ICMPv6 message, type and checksum field included; the checksum is not looked at.
    ///
    /// # Errors
    ///
    /// It is none, or malformed.
    pub fn decode(message: &[u8]) -> Result<Self, NdError> {
        let mut body = open(message, NEIGHBOUR_SOLICITATION)?;
        body.take(4).ok_or(NdError::Truncated)?;
        let target = body.ipv6().ok_or(NdError::Truncated)?;
        let options = NdOption::decode_all(body)?;
        Ok(NeighbourSolicitation { target, options })
    }

    /// Writes the ICMPv6 message, with zero for a checksum.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![NEIGHBOUR_SOLICITATION, 0, 0, 0, 0, 0, 0, 0];
        out.extend_from_slice(&self.target.octets());
        encode_options(&self.options, &mut out);
        out
    }
}

const ROUTER: u8 = 0x80;
const SOLICITED: u8 = 0x40;
const OVERRIDE: u8 = 0x20;

impl NeighbourAdvertisement {
    /// Reads an ICMPv6 message, type and checksum field included; the checksum is not looked at.
    ///
    /// # Errors
    ///
    /// It is none, or malformed.
    pub fn decode(message: &[u8]) -> Result<Self, NdError> {
        let mut body = open(message, NEIGHBOUR_ADVERTISEMENT)?;
        let flags = body.u8().ok_or(NdError::Truncated)?;
        body.take(3).ok_or(NdError::Truncated)?;
        Ok(NeighbourAdvertisement {
            router: flags & ROUTER != 0,
            solicited: flags & SOLICITED != 0,
            override_entry: flags & OVERRIDE != 0,
            target: body.ipv6().ok_or(NdError::Truncated)?,
            options: NdOption::decode_all(body)?,
        })
    }

    /// Writes the ICMPv6 message, with zero for a checksum.
    pub fn encode(&self) -> Vec<u8> {
        let flags = if self.router { ROUTER } else { 0 }
            | if self.solicited { SOLICITED } else { 0 }
            | if self.override_entry { OVERRIDE } else { 0 };
        let mut out = vec![NEIGHBOUR_ADVERTISEMENT, 0, 0, 0, flags, 0, 0, 0];
        out.extend_from_slice(&self.target.octets());
        encode_options(&self.options, &mut out);
        out
    }
}

/// The octets behind type, code and checksum of a message of this type.
pub(crate) fn open(message: &[u8], expected: u8) -> Result<Reader<'_>, NdError> {
    let mut reader = Reader::new(message);
    let [kind, code, _, _] = reader.array().ok_or(NdError::Truncated)?;
    match (kind == expected, code) {
        (false, _) => Err(NdError::Type(kind)),
        (true, 0) => Ok(reader),
        (true, code) => Err(NdError::Code(code)),
    }
}

fn encode_options(options: &[NdOption], out: &mut Vec<u8>) {
    for option in options {
        option.encode(out);
    }
}

#[cfg(test)]
pub(crate) mod tests;
