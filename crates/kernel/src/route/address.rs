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
const IFA_FLAGS: u16 = 8;
const IFA_PROTO: u16 = 11;
const IFA_F_NODAD: u32 = 0x02;
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
    })
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
