//! Permanent neighbours, and proxies (`RTM_*NEIGH`, rtnetlink(7)).

use std::net::IpAddr;

use hextet_types::{Family, Mac};

use super::{PROTOCOL, af};
use crate::netlink::{Answer, Attrs, Batch, addr, flags, ne16, ne32, octet};

const RTM_NEWNEIGH: u16 = 28;
const RTM_DELNEIGH: u16 = 29;
const RTM_GETNEIGH: u16 = 30;
const HEADER: usize = 12;
const NDA_DST: u16 = 1;
const NDA_LLADDR: u16 = 2;
const NDA_PROTOCOL: u16 = 12;
const NUD_PERMANENT: u16 = 0x80;
const NTF_PROXY: u8 = 8;

/// A neighbour of ours as the kernel has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// On the link of this index.
    pub index: u32,
    /// Its address.
    pub addr: IpAddr,
    /// Its Ethernet address; none, where it is not permanent or has another kind of address.
    pub mac: Option<Mac>,
}

/// Asks for all neighbours.
pub fn request_all(batch: &mut Batch) {
    batch.message(RTM_GETNEIGH, 0, &[0; HEADER]);
}

/// Reads a neighbour, if it bears our number.
pub fn read(answer: &Answer<'_>) -> Option<Found> {
    if !matches!(answer.kind, RTM_NEWNEIGH | RTM_DELNEIGH) {
        return None;
    }
    let attrs = Attrs::after(answer.payload, HEADER);
    if attrs.get(NDA_PROTOCOL).and_then(octet) != Some(PROTOCOL) {
        return None;
    }
    let permanent = ne16(answer.payload.get(8..)?)? & NUD_PERMANENT != 0;
    let mac = attrs
        .get(NDA_LLADDR)
        .and_then(|value| value.try_into().ok())
        .map(Mac::new);
    Some(Found {
        index: ne32(answer.payload.get(4..)?)?,
        addr: addr(attrs.get(NDA_DST)?)?,
        mac: mac.filter(|_| permanent),
    })
}

/// Reads any neighbour, ours or not: on the link of an index, an address, and its Ethernet address, if it is known.
pub fn read_any(answer: &Answer<'_>) -> Option<(u32, IpAddr, Option<Mac>)> {
    if answer.kind != RTM_NEWNEIGH {
        return None;
    }
    let attrs = Attrs::after(answer.payload, HEADER);
    let mac = attrs
        .get(NDA_LLADDR)
        .and_then(|value| value.try_into().ok());
    let index = ne32(answer.payload.get(4..)?)?;
    Some((index, addr(attrs.get(NDA_DST)?)?, mac.map(Mac::new)))
}

/// Asks for all proxies of a family.
pub fn request_proxies(batch: &mut Batch, family: Family) {
    let mut header = [0; HEADER];
    header[0] = af(family);
    header[10] = NTF_PROXY;
    batch.message(RTM_GETNEIGH, 0, &header);
}

/// Reads a proxy, if it bears our number: the index of its link, and the address.
pub fn read_proxy(answer: &Answer<'_>) -> Option<(u32, IpAddr)> {
    let is_proxy = answer.payload.get(10)? & NTF_PROXY != 0;
    let found = read(answer).filter(|_| is_proxy)?;
    Some((found.index, found.addr))
}

/// Sets a proxy.
pub fn set_proxy(batch: &mut Batch, index: u32, address: IpAddr) {
    batch
        .message(
            RTM_NEWNEIGH,
            flags::CREATE | flags::REPLACE,
            &proxy(index, address),
        )
        .addr(NDA_DST, address)
        .octet(NDA_PROTOCOL, PROTOCOL);
}

/// Deletes a proxy.
pub fn delete_proxy(batch: &mut Batch, index: u32, address: IpAddr) {
    batch
        .message(RTM_DELNEIGH, 0, &proxy(index, address))
        .addr(NDA_DST, address);
}

fn proxy(index: u32, address: IpAddr) -> [u8; HEADER] {
    let mut header = header(index, address);
    header[10] = NTF_PROXY;
    header
}

/// Sets a neighbour, whatever stands there.
pub fn set(batch: &mut Batch, index: u32, address: IpAddr, mac: Mac) {
    batch
        .message(
            RTM_NEWNEIGH,
            flags::CREATE | flags::REPLACE,
            &header(index, address),
        )
        .addr(NDA_DST, address)
        .attr(NDA_LLADDR, &mac.octets())
        .octet(NDA_PROTOCOL, PROTOCOL);
}

/// Deletes a neighbour.
pub fn delete(batch: &mut Batch, index: u32, address: IpAddr) {
    batch
        .message(RTM_DELNEIGH, 0, &header(index, address))
        .addr(NDA_DST, address);
}

fn header(index: u32, address: IpAddr) -> [u8; HEADER] {
    let mut header = [0; HEADER];
    header[0] = af(Family::of(address));
    header[4..8].copy_from_slice(&index.to_ne_bytes());
    header[8..10].copy_from_slice(&NUD_PERMANENT.to_ne_bytes());
    header
}
