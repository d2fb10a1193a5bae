//! Path attributes one by one: their types and flags, and the values that need more than a number.

use std::net::{Ipv4Addr, Ipv6Addr};

use hextet_types::{Asn, Family};

use super::{
    Afi, Aggregator, Code, NextHop, Origin, Reader, attributes::is_link_local, update::Context,
};

pub(crate) mod code {
    pub(crate) const ORIGIN: u8 = 1;
    pub(crate) const AS_PATH: u8 = 2;
    pub(crate) const NEXT_HOP: u8 = 3;
    pub(crate) const MED: u8 = 4;
    pub(crate) const LOCAL_PREF: u8 = 5;
    pub(crate) const ATOMIC_AGGREGATE: u8 = 6;
    pub(crate) const AGGREGATOR: u8 = 7;
    pub(crate) const COMMUNITIES: u8 = 8;
    pub(crate) const ORIGINATOR_ID: u8 = 9;
    pub(crate) const CLUSTER_LIST: u8 = 10;
    pub(crate) const MP_REACH: u8 = 14;
    pub(crate) const MP_UNREACH: u8 = 15;
    pub(crate) const EXTENDED_COMMUNITIES: u8 = 16;
    pub(crate) const AS4_PATH: u8 = 17;
    pub(crate) const AS4_AGGREGATOR: u8 = 18;
    pub(crate) const LARGE_COMMUNITIES: u8 = 32;
}

pub(crate) const OPTIONAL: u8 = 0x80;
pub(crate) const TRANSITIVE: u8 = 0x40;
pub(crate) const PARTIAL: u8 = 0x20;
pub(crate) const EXTENDED_LENGTH: u8 = 0x10;

/// What an attribute's value was found to be.
pub(super) enum Fault {
    Discard(&'static str),
    Withdraw(&'static str),
    Disable(Option<Family>, Code),
}

/// One attribute as it stands in the message.
pub(super) struct Raw<'a> {
    pub(super) flags: u8,
    pub(super) code: u8,
    pub(super) value: &'a [u8],
    pub(super) whole: &'a [u8],
}

pub(super) fn read_raw<'a>(r: &mut Reader<'a>) -> Option<Raw<'a>> {
    let before = *r;
    let flags = r.u8()?;
    let code = r.u8()?;
    let len = if flags & EXTENDED_LENGTH != 0 {
        usize::from(r.u16()?)
    } else {
        usize::from(r.u8()?)
    };
    let value = r.take(len)?;
    let mut whole = before;
    let whole = whole.take(before.len() - r.len())?;
    Some(Raw {
        flags,
        code,
        value,
        whole,
    })
}

/// The optional and transitive bits of the attributes that we know.
pub(super) fn expected_flags(code: u8) -> Option<u8> {
    match code {
        code::ORIGIN
        | code::AS_PATH
        | code::NEXT_HOP
        | code::LOCAL_PREF
        | code::ATOMIC_AGGREGATE => Some(TRANSITIVE),
        code::MED
        | code::ORIGINATOR_ID
        | code::CLUSTER_LIST
        | code::MP_REACH
        | code::MP_UNREACH => Some(OPTIONAL),
        code::AGGREGATOR
        | code::COMMUNITIES
        | code::EXTENDED_COMMUNITIES
        | code::AS4_PATH
        | code::AS4_AGGREGATOR
        | code::LARGE_COMMUNITIES => Some(OPTIONAL | TRANSITIVE),
        _ => None,
    }
}

pub(super) fn read_origin(value: &[u8]) -> Result<Origin, Fault> {
    match value {
        [0] => Ok(Origin::Igp),
        [1] => Ok(Origin::Egp),
        [2] => Ok(Origin::Incomplete),
        _ => Err(Fault::Withdraw("is neither IGP, EGP nor INCOMPLETE")),
    }
}

pub(super) fn read_aggregator(value: &[u8], four_octet: bool) -> Result<Aggregator, Fault> {
    let mut r = Reader::new(value);
    let asn = if four_octet {
        r.u32()
    } else {
        r.u16().map(u32::from)
    };
    match (asn, r.u32(), r.is_empty()) {
        (Some(asn), Some(identifier), true) => Ok(Aggregator {
            asn: Asn(asn),
            identifier: Ipv4Addr::from(identifier),
        }),
        _ => Err(Fault::Discard("wrong length")),
    }
}

/// A list whose length is a multiple of `N`, and not zero.
pub(super) fn many<const N: usize, T>(
    value: &[u8],
    item: impl Fn([u8; N]) -> T,
) -> Result<Vec<T>, Fault> {
    let (chunks, rest) = value.as_chunks::<N>();
    if chunks.is_empty() || !rest.is_empty() {
        return Err(Fault::Withdraw("wrong length"));
    }
    Ok(chunks.iter().map(|chunk| item(*chunk)).collect())
}

pub(super) fn read_afi(r: &mut Reader<'_>) -> Result<Afi, Fault> {
    match (r.u16(), r.u8()) {
        (Some(afi), Some(safi)) => Ok(Afi { afi, safi }),
        _ => Err(Fault::Disable(None, Code::UPDATE_OPTIONAL)),
    }
}

/// Four octets for IPv4; sixteen or thirty-two for IPv6, and for IPv4 where RFC 8950 was negotiated.
pub(super) fn read_next_hop(octets: &[u8], family: Family, context: &Context) -> Option<NextHop> {
    if family == Family::V4 && octets.len() == 4 {
        let octets: [u8; 4] = octets.try_into().ok()?;
        return Some(NextHop::V4(Ipv4Addr::from(octets)));
    }
    if family == Family::V4 && !context.extended_next_hop {
        return None;
    }
    let mut r = Reader::new(octets);
    let global = Ipv6Addr::from(r.array::<16>()?);
    if r.is_empty() {
        return Some(NextHop::V6 {
            global,
            link_local: None,
        });
    }
    let second = Ipv6Addr::from(r.array::<16>()?);
    let link_local = is_link_local(second).then_some(second);
    let global = match link_local {
        // BIRD, when it has no global address.
        Some(addr) if global.is_unspecified() => addr,
        _ => global,
    };
    r.is_empty().then_some(NextHop::V6 { global, link_local })
}
