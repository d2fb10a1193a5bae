//! Entries of VXLAN devices (`RTM_*NEIGH` of the bridge family, rtnetlink(7)).

use std::net::IpAddr;

use hextet_types::Mac;

use crate::netlink::{Answer, Attrs, Batch, addr, flags, ne16, ne32};

const RTM_NEWNEIGH: u16 = 28;
const RTM_DELNEIGH: u16 = 29;
const RTM_GETNEIGH: u16 = 30;
const HEADER: usize = 12;
const AF_BRIDGE: u8 = 7;
const NTF_SELF: u8 = 2;
const NDA_DST: u16 = 1;
const NDA_LLADDR: u16 = 2;
const NUD_PERMANENT: u16 = 0x80;

/// An entry as the kernel has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// On the link of this index.
    pub index: u32,
    /// The Ethernet address.
    pub mac: Mac,
    /// Where that is.
    pub dst: Option<IpAddr>,
    /// Whether it stays.
    pub permanent: bool,
}

/// Asks for all entries of one device.
pub fn request_all(batch: &mut Batch, index: u32) {
    let mut header = [0; HEADER];
    header[0] = AF_BRIDGE;
    header[4..8].copy_from_slice(&index.to_ne_bytes());
    batch.message(RTM_GETNEIGH, 0, &header);
}

/// Reads an entry.
pub fn read(answer: &Answer<'_>) -> Option<Found> {
    if answer.kind != RTM_NEWNEIGH || answer.payload.first() != Some(&AF_BRIDGE) {
        return None;
    }
    let attrs = Attrs::after(answer.payload, HEADER);
    Some(Found {
        index: ne32(answer.payload.get(4..)?)?,
        mac: Mac::new(attrs.get(NDA_LLADDR)?.try_into().ok()?),
        dst: attrs.get(NDA_DST).and_then(addr),
        permanent: ne16(answer.payload.get(8..)?)? & NUD_PERMANENT != 0,
    })
}

/// Sets an entry, whatever stands there.
pub fn set(batch: &mut Batch, index: u32, mac: Mac, dst: IpAddr) {
    batch
        .message(RTM_NEWNEIGH, flags::CREATE | flags::REPLACE, &header(index))
        .addr(NDA_DST, dst)
        .attr(NDA_LLADDR, &mac.octets());
}

/// Deletes an entry, wherever it leads.
pub fn delete(batch: &mut Batch, index: u32, mac: Mac) {
    batch
        .message(RTM_DELNEIGH, 0, &header(index))
        .attr(NDA_LLADDR, &mac.octets());
}

fn header(index: u32) -> [u8; HEADER] {
    let mut header = [0; HEADER];
    header[0] = AF_BRIDGE;
    header[4..8].copy_from_slice(&index.to_ne_bytes());
    header[8..10].copy_from_slice(&NUD_PERMANENT.to_ne_bytes());
    header[10] = NTF_SELF;
    header
}
