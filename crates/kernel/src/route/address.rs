//! Addresses (`RTM_*ADDR`, rtnetlink(7)).

use std::net::IpAddr;

use hextet_types::Family;

use super::{PROTOCOL, af};
use crate::netlink::{Answer, Attrs, Batch, addr, flags, ne32, octet};

const RTM_NEWADDR: u16 = 20;
const RTM_DELADDR: u16 = 21;
const RTM_GETADDR: u16 = 22;
const HEADER: usize = 8;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const IFA_CACHEINFO: u16 = 6;
const IFA_FLAGS: u16 = 8;
const IFA_PROTO: u16 = 11;
const IFA_F_TEMPORARY: u32 = 0x01;
const IFA_F_NODAD: u32 = 0x02;
const IFA_F_DADFAILED: u32 = 0x08;
const IFA_F_TENTATIVE: u32 = 0x40;
const IFA_F_PERMANENT: u32 = 0x80;
const SCOPE_UNIVERSE: u8 = 0;
const SCOPE_HOST: u8 = 254;

/// An address as the kernel has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// On the link of this index.
    pub index: u32,
    /// The address.
    pub addr: IpAddr,
    /// Its prefix length.
    pub prefix_len: u8,
    /// Whether it bears our number; kernels before 5.18 cannot keep it.
    pub ours: bool,
    /// What the kernel says of it besides.
    pub standing: Standing,
}

/// How an address stands (RFC 4862 §2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// It has no end: somebody set it by hand, rather than that a router or a server gave it.
    pub permanent: bool,
    /// Made for a while, for privacy (RFC 8981).
    pub temporary: bool,
    /// Duplicate address detection has not ended.
    pub tentative: bool,
    /// Somebody else on the link has it.
    pub duplicate: bool,
    /// Seconds left in which it is used for what is new; without one, no end.
    pub preferred_secs: Option<u32>,
    /// Seconds left in which it is there.
    pub valid_secs: Option<u32>,
}

/// Asks for all addresses.
pub fn request_all(batch: &mut Batch) {
    batch.message(RTM_GETADDR, 0, &[0; HEADER]);
}

/// Reads an address.
pub fn read(answer: &Answer<'_>) -> Option<Found> {
    if answer.kind != RTM_NEWADDR {
        return None;
    }
    let attrs = Attrs::after(answer.payload, HEADER);
    let own = attrs.get(IFA_LOCAL).or_else(|| attrs.get(IFA_ADDRESS))?;
    Some(Found {
        index: ne32(answer.payload.get(4..)?)?,
        addr: addr(own)?,
        prefix_len: *answer.payload.get(1)?,
        ours: attrs.get(IFA_PROTO).and_then(octet) == Some(PROTOCOL),
        standing: standing(attrs),
    })
}

fn standing(attrs: Attrs<'_>) -> Standing {
    let flags = attrs.get(IFA_FLAGS).and_then(ne32).unwrap_or(0);
    let lifetimes = attrs.get(IFA_CACHEINFO).unwrap_or_default();
    let lifetime = |at: usize| {
        let secs = lifetimes.get(at..).and_then(ne32);
        secs.filter(|secs| *secs != u32::MAX)
    };
    Standing {
        permanent: flags & IFA_F_PERMANENT != 0,
        temporary: flags & IFA_F_TEMPORARY != 0,
        tentative: flags & IFA_F_TENTATIVE != 0,
        duplicate: flags & IFA_F_DADFAILED != 0,
        preferred_secs: lifetime(0),
        valid_secs: lifetime(4),
    }
}

/// Adds an address; one that stands is left as it is but for our number on it.
pub fn add(batch: &mut Batch, index: u32, address: IpAddr, prefix_len: u8) {
    put(batch, index, (address, prefix_len), Some(PROTOCOL));
}

/// Adds an address to a link that goes with it: it bears no number, so that nobody who keeps addresses takes it for his.
pub fn add_for_good(batch: &mut Batch, index: u32, address: IpAddr, prefix_len: u8) {
    put(batch, index, (address, prefix_len), None);
}

fn put(batch: &mut Batch, index: u32, (address, prefix_len): (IpAddr, u8), protocol: Option<u8>) {
    let scope = match address {
        IpAddr::V4(v4) if v4.is_loopback() => SCOPE_HOST,
        _ => SCOPE_UNIVERSE,
    };
    let header = header(index, address, prefix_len, scope);
    let mut m = batch.message(RTM_NEWADDR, flags::CREATE | flags::REPLACE, &header);
    m.addr(IFA_LOCAL, address).addr(IFA_ADDRESS, address);
    if let Some(protocol) = protocol {
        m.octet(IFA_PROTO, protocol);
    }
    if address.is_ipv6() {
        m.ne32(IFA_FLAGS, IFA_F_NODAD);
    }
}

/// Deletes an address.
pub fn delete(batch: &mut Batch, index: u32, address: IpAddr, prefix_len: u8) {
    let header = header(index, address, prefix_len, SCOPE_UNIVERSE);
    batch
        .message(RTM_DELADDR, 0, &header)
        .addr(IFA_LOCAL, address);
}

fn header(index: u32, address: IpAddr, prefix_len: u8, scope: u8) -> [u8; HEADER] {
    let mut header = [af(Family::of(address)), prefix_len, 0, scope, 0, 0, 0, 0];
    header[4..].copy_from_slice(&index.to_ne_bytes());
    header
}
