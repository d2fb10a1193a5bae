//! Writes UPDATE messages: as many prefixes of one attribute set in each as fit.

use hextet_types::{Asn, Family, Prefix};
use thiserror::Error;

use super::{
    Afi, AsPath, HEADER_LEN, MAX_EXTENDED_LEN, MAX_LEN, MessageType, NextHop, Origin,
    PathAttributes, framed,
    nlri::{put_prefix, wire_len},
    put_u16, put_u32,
    value::{EXTENDED_LENGTH, OPTIONAL, PARTIAL, TRANSITIVE, code},
    wire::{len_u8, patch_len, patch_u16},
};

/// What a session has negotiated that changes how an UPDATE is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Encoding {
    /// Both sides have four-octet AS numbers (RFC 6793).
    pub four_octet_as: bool,
    /// Both sides take messages of 65,535 octets (RFC 8654).
    pub extended: bool,
}

impl Encoding {
    const fn max_len(self) -> usize {
        if self.extended {
            MAX_EXTENDED_LEN
        } else {
            MAX_LEN
        }
    }
}

/// The attributes leave no room for a prefix in a message of the session's length: the routes
/// cannot be said to this peer and are to be withdrawn from it (RFC 8654 §4).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("the route's attributes leave no room for a prefix in a message")]
pub struct Oversized;

/// Appends the messages that announce `prefixes`, all of them of `family`.
///
/// # Errors
///
/// [`Oversized`]: nothing was appended.
pub fn encode_reach(
    out: &mut Vec<u8>,
    encoding: Encoding,
    family: Family,
    attributes: &PathAttributes,
    prefixes: &[Prefix],
) -> Result<(), Oversized> {
    let classic = family == Family::V4 && attributes.next_hop.family() == Family::V4;
    let mut block = Vec::with_capacity(128);
    encode_attributes(&mut block, attributes, encoding, classic);
    let head = if classic {
        0
    } else {
        // flags, type, length of two octets, AFI, SAFI, next hop with its length, reserved
        4 + 3 + 1 + next_hop_len(&attributes.next_hop) + 1
    };
    let longest = wire_len(Prefix::host(family.unspecified()));
    let room = encoding
        .max_len()
        .checked_sub(HEADER_LEN + 4 + block.len() + head)
        .filter(|room| *room >= longest)
        .ok_or(Oversized)?;
    let mut rest = prefixes;
    while !rest.is_empty() {
        let (now, later) = rest.split_at(fitting(rest, room));
        rest = later;
        framed(out, MessageType::Update, |body| {
            put_u16(body, 0);
            let at = body.len();
            put_u16(body, 0);
            if !classic {
                put_reach(body, family, &attributes.next_hop, now);
            }
            body.extend_from_slice(&block);
            patch_len(body, at, at + 2);
            if classic {
                now.iter().for_each(|p| put_prefix(body, *p));
            }
        });
    }
    Ok(())
}

/// Appends the messages that withdraw `prefixes`, all of them of `family`.
pub fn encode_withdraw(out: &mut Vec<u8>, encoding: Encoding, family: Family, prefixes: &[Prefix]) {
    let room = encoding.max_len() - HEADER_LEN - 4 - 7;
    let mut rest = prefixes;
    while !rest.is_empty() {
        let (now, later) = rest.split_at(fitting(rest, room));
        rest = later;
        framed(out, MessageType::Update, |body| match family {
            Family::V4 => {
                put_u16(body, 0);
                let at = body.len();
                now.iter().for_each(|p| put_prefix(body, *p));
                patch_len(body, at - 2, at);
                put_u16(body, 0);
            }
            Family::V6 => put_unreach(body, family, now),
        });
    }
}

/// Appends the End-of-RIB marker of a family (RFC 4724 §2).
pub fn encode_end_of_rib(out: &mut Vec<u8>, family: Family) {
    framed(out, MessageType::Update, |body| match family {
        Family::V4 => body.extend_from_slice(&[0; 4]),
        Family::V6 => put_unreach(body, family, &[]),
    });
}

fn put_unreach(body: &mut Vec<u8>, family: Family, prefixes: &[Prefix]) {
    put_u16(body, 0);
    let total = body.len();
    put_u16(body, 0);
    body.extend_from_slice(&[OPTIONAL | EXTENDED_LENGTH, code::MP_UNREACH]);
    let at = body.len();
    put_u16(body, 0);
    put_family(body, family);
    prefixes.iter().for_each(|p| put_prefix(body, *p));
    patch_len(body, at, at + 2);
    patch_len(body, total, total + 2);
}

fn put_family(body: &mut Vec<u8>, family: Family) {
    let afi = Afi::unicast(family);
    put_u16(body, afi.afi);
    body.push(afi.safi);
}

fn put_reach(body: &mut Vec<u8>, family: Family, next_hop: &NextHop, prefixes: &[Prefix]) {
    body.extend_from_slice(&[OPTIONAL | EXTENDED_LENGTH, code::MP_REACH]);
    let at = body.len();
    put_u16(body, 0);
    put_family(body, family);
    body.push(len_u8(next_hop_len(next_hop)));
    match next_hop {
        NextHop::V4(addr) => body.extend_from_slice(&addr.octets()),
        NextHop::V6 { global, link_local } => {
            body.extend_from_slice(&global.octets());
            if let Some(addr) = link_local {
                body.extend_from_slice(&addr.octets());
            }
        }
    }
    body.push(0);
    prefixes.iter().for_each(|p| put_prefix(body, *p));
    patch_len(body, at, at + 2);
}

const fn next_hop_len(next_hop: &NextHop) -> usize {
    match next_hop {
        NextHop::V4(_) => 4,
        NextHop::V6 {
            link_local: None, ..
        } => 16,
        NextHop::V6 { .. } => 32,
    }
}

/// How many of the prefixes fit; at least one, since the caller has checked the room.
fn fitting(prefixes: &[Prefix], room: usize) -> usize {
    let mut used = 0;
    let fit = prefixes.iter().take_while(|p| {
        used += wire_len(**p);
        used <= room
    });
    fit.count().max(1)
}

/// All attributes but MP_REACH_NLRI, by type (RFC 4271 §5).
fn encode_attributes(
    out: &mut Vec<u8>,
    attributes: &PathAttributes,
    encoding: Encoding,
    classic: bool,
) {
    let rare = attributes.rare();
    let four = encoding.four_octet_as;
    let path = &attributes.as_path;
    let origin = match attributes.origin {
        Origin::Igp => 0,
        Origin::Egp => 1,
        Origin::Incomplete => 2,
    };
    put(out, TRANSITIVE, code::ORIGIN, |v| v.push(origin));
    put(out, TRANSITIVE, code::AS_PATH, |v| path.encode(v, four));
    if let (true, NextHop::V4(addr)) = (classic, attributes.next_hop) {
        put(out, TRANSITIVE, code::NEXT_HOP, |v| v.extend(addr.octets()));
    }
    if let Some(med) = attributes.med {
        put(out, OPTIONAL, code::MED, |v| put_u32(v, med));
    }
    if let Some(preference) = attributes.local_pref {
        put(out, TRANSITIVE, code::LOCAL_PREF, |v| {
            put_u32(v, preference)
        });
    }
    if attributes.atomic_aggregate {
        put(out, TRANSITIVE, code::ATOMIC_AGGREGATE, |_| ());
    }
    if let Some(aggregator) = rare.aggregator {
        put(out, OPTIONAL | TRANSITIVE, code::AGGREGATOR, |v| {
            put_asn(v, aggregator.asn, four);
            v.extend(aggregator.identifier.octets());
        });
    }
    if !attributes.communities.is_empty() {
        put(out, OPTIONAL | TRANSITIVE, code::COMMUNITIES, |v| {
            attributes.communities.iter().for_each(|c| put_u32(v, c.0));
        });
    }
    encode_rare(out, attributes, four);
}

fn encode_rare(out: &mut Vec<u8>, attributes: &PathAttributes, four: bool) {
    let rare = attributes.rare();
    let both = OPTIONAL | TRANSITIVE;
    if let Some(id) = rare.originator_id {
        put(out, OPTIONAL, code::ORIGINATOR_ID, |v| {
            v.extend(id.octets())
        });
    }
    if !rare.cluster_list.is_empty() {
        put(out, OPTIONAL, code::CLUSTER_LIST, |v| {
            v.extend(rare.cluster_list.iter().flat_map(|id| id.octets()));
        });
    }
    if !rare.extended_communities.is_empty() {
        put(out, both, code::EXTENDED_COMMUNITIES, |v| {
            v.extend(rare.extended_communities.iter().flat_map(|c| c.0));
        });
    }
    if !four && attributes.as_path.needs_four_octets() {
        let path: AsPath = attributes.as_path.without_confederations();
        put(out, both, code::AS4_PATH, |v| path.encode(v, true));
    }
    if let (false, Some(aggregator)) = (four, rare.aggregator)
        && aggregator.asn.0 > u32::from(u16::MAX)
    {
        put(out, both, code::AS4_AGGREGATOR, |v| {
            put_asn(v, aggregator.asn, true);
            v.extend(aggregator.identifier.octets());
        });
    }
    if !rare.large_communities.is_empty() {
        put(out, both, code::LARGE_COMMUNITIES, |v| {
            for c in &rare.large_communities {
                put_u32(v, c.global);
                put_u32(v, c.data1);
                put_u32(v, c.data2);
            }
        });
    }
    for unknown in &rare.unknown {
        put(out, both | PARTIAL, unknown.code, |v| {
            v.extend_from_slice(&unknown.value);
        });
    }
}

fn put_asn(out: &mut Vec<u8>, asn: Asn, four: bool) {
    if four {
        put_u32(out, asn.0);
    } else {
        put_u16(out, super::Open::two_octets(asn));
    }
}

/// Appends an attribute; its length takes two octets where it has to.
fn put(out: &mut Vec<u8>, flags: u8, code: u8, value: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.extend_from_slice(&[flags, code, 0]);
    value(out);
    let len = out.len() - start - 3;
    if let Ok(len) = u8::try_from(len) {
        if let Some(place) = out.get_mut(start + 2) {
            *place = len;
        }
        return;
    }
    // Over 65,535 octets the block fits no message anyhow, and is refused by its length.
    if let Some(place) = out.get_mut(start) {
        *place |= EXTENDED_LENGTH;
    }
    out.insert(start + 2, 0);
    patch_u16(out, start + 2, len);
}
