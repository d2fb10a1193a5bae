//! UPDATE as a value, and what its errors lead to (RFC 4271 §4.3, §6.3; RFC 7606).

use hextet_types::{Family, Prefix};

use super::{
    Families, Notification, PathAttributes, Reader, decode::Decoder, nlri::read_prefixes,
    notification::Code,
};

/// What a session has negotiated that changes how an UPDATE reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Context {
    /// Both sides have four-octet AS numbers (RFC 6793).
    pub four_octet_as: bool,
    /// The peer is in our AS.
    pub internal: bool,
    /// Families that both sides have.
    pub families: Families,
    /// IPv4 prefixes may have IPv6 next hops (RFC 8950).
    pub extended_next_hop: bool,
}

/// Prefixes of one family with their attributes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reach {
    /// Their attributes, next hop included.
    pub attributes: PathAttributes,
    /// The prefixes, all of one family; never none.
    pub prefixes: Vec<Prefix>,
}

/// What an UPDATE says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Update {
    /// Prefixes of both families that are gone; to be applied before `reach`.
    pub withdrawn: Vec<Prefix>,
    /// What is announced: at most one for each family.
    pub reach: Vec<Reach>,
    /// The peer has sent all it had of the family (RFC 4724 §2).
    pub end_of_rib: Option<Family>,
}

/// What became of something malformed (RFC 7606 §2), the mildest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Consequence {
    /// The attribute was dropped, the rest stands.
    AttributeDiscard,
    /// The prefixes announced count as withdrawn.
    TreatAsWithdraw,
    /// The family is ignored for as long as the session lasts.
    DisableFamily,
}

/// Something malformed in an UPDATE that does not end the session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Problem {
    /// The attribute's type.
    pub attribute: u8,
    /// What is wrong with it.
    pub reason: &'static str,
    /// What became of it.
    pub consequence: Consequence,
}

/// An UPDATE that was read, errors and all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Parsed {
    /// What it says, after [`Consequence`]s.
    pub update: Update,
    /// What was wrong, the first sixteen.
    pub problems: Vec<Problem>,
    /// A family whose NLRI could not be read: either it is ignored from now on, or the session ends
    /// with this notification, which is what a session of a single family is to do.
    pub disabled: Option<(Family, Notification)>,
}

impl Update {
    /// Reads the body of a message.
    ///
    /// # Errors
    ///
    /// The NOTIFICATION to end the session with, where RFC 7606 asks for a session reset.
    pub fn decode_body(body: &[u8], context: &Context) -> Result<Parsed, Notification> {
        let list = || Notification::new(Code::UPDATE_ATTRIBUTE_LIST);
        let mut r = Reader::new(body);
        let len = usize::from(r.u16().ok_or_else(list)?);
        let withdrawn = r.take(len).ok_or_else(list)?;
        let len = usize::from(r.u16().ok_or_else(list)?);
        let attributes = r.take(len).ok_or_else(list)?;
        let nlri = r.rest();
        if body.len() == 4 {
            return Ok(end_of_rib(Family::V4));
        }
        let network = || Notification::new(Code::UPDATE_NETWORK);
        let withdrawn = read_prefixes(withdrawn, Family::V4).ok_or_else(network)?;
        let nlri = read_prefixes(nlri, Family::V4).ok_or_else(network)?;
        let mut decoder = Decoder::new(context);
        decoder.read_all(attributes)?;
        if withdrawn.is_empty()
            && nlri.is_empty()
            && let Some(family) = decoder.only_an_empty_unreach()
        {
            return Ok(end_of_rib(family));
        }
        decoder.finish(withdrawn, nlri)
    }
}

fn end_of_rib(family: Family) -> Parsed {
    Parsed {
        update: Update {
            end_of_rib: Some(family),
            ..Update::default()
        },
        ..Parsed::default()
    }
}
