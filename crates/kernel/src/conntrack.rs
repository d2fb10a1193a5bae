//! The connection tracking table (ctnetlink): walking it, and deleting entries one by one, so that a policy
//! change cuts what it no longer allows.
//!
//! A walk keeps nothing: it hands each entry to the caller, however many there are.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr},
};

use hextet_model::state::{CutEnd, CutPorts, Netns};
use hextet_types::Family;

use crate::{
    error::Error,
    netlink::{Answer, Attrs, Batch, Message, Socket, addr, be32, octet},
    netns::Handle,
};

const NFNL_SUBSYS_CTNETLINK: u16 = 1;
const CT_NEW: u16 = NFNL_SUBSYS_CTNETLINK << 8;
const CT_GET: u16 = CT_NEW | 1;
const CT_DELETE: u16 = CT_NEW | 2;
const HEADER: usize = 4;
const CTA_TUPLE_ORIG: u16 = 1;
const CTA_TUPLE_REPLY: u16 = 2;
const CTA_STATUS: u16 = 3;
const CTA_TIMEOUT: u16 = 7;
const CTA_MARK: u16 = 8;
const CTA_ID: u16 = 12;
const CTA_ZONE: u16 = 18;
const CTA_FILTER: u16 = 25;
const CTA_FILTER_ORIG_FLAGS: u16 = 1;
const CTA_FILTER_REPLY_FLAGS: u16 = 2;
const TUPLE_IP: u16 = 1;
const TUPLE_PROTO: u16 = 2;
/// `CTA_FILTER_F_CTA_IP_SRC` and `_DST`.
const FILTER_SOURCE: u32 = 1;
const FILTER_DESTINATION: u32 = 2;
/// So many addresses are looked for one by one: a walk over 100,000 entries that shows none costs the kernel
/// a tenth of one that shows all.
const FEW: usize = 4;
/// Entries kept in one walk; where there are more, it begins again.
const FOUND: usize = 65_536;
/// Deletions in one send.
const DELETIONS: usize = 1024;

/// One direction of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Tuple {
    /// Where its packets come from.
    pub source: IpAddr,
    /// Where they go to.
    pub destination: IpAddr,
    /// The transport protocol.
    pub protocol: u8,
    /// Its ports, or an ICMP flow's identifier, type and code.
    pub part: Part,
}

/// What tells connections of one protocol between two hosts from each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Part {
    /// TCP, UDP, SCTP, DCCP: source and destination port.
    Ports(u16, u16),
    /// ICMP of either version.
    Icmp {
        /// The echo identifier.
        id: u16,
        /// The type.
        kind: u8,
        /// The code.
        code: u8,
    },
    /// Protocols that have none of these.
    None,
}

/// A connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The zone, 0 by default.
    pub zone: u16,
    /// As its first packet was, before any translation.
    pub original: Tuple,
    /// As answers come in: where a NAT is, not simply the original turned round.
    pub reply: Tuple,
    /// `IPS_*` bits of linux/netfilter/nf_conntrack_common.h.
    pub status: u32,
    /// Its mark.
    pub mark: u32,
    /// Seconds until it is forgotten.
    pub timeout_secs: u32,
    /// Tells it from a later one of the same tuple.
    pub id: u32,
}

/// A connection as policy judges it, between translation of the destination and of the source: who began
/// it, and whom it reaches. The source port is not part of it, since no rule ever looks at that: all
/// connections of one flow share a verdict.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Flow {
    /// Who began it.
    pub source: IpAddr,
    /// Whom it reaches.
    pub destination: IpAddr,
    /// The transport protocol.
    pub protocol: u8,
    /// The destination port, where the protocol has ports.
    pub destination_port: Option<u16>,
    /// The ICMP type and code of its first packet.
    pub icmp: Option<(u8, u8)>,
}

impl Entry {
    /// As policy judges it.
    pub fn flow(&self) -> Flow {
        let icmp = match self.original.part {
            Part::Icmp { kind, code, .. } => Some((kind, code)),
            _ => None,
        };
        let destination_port = match self.reply.part {
            Part::Ports(source, _) => Some(source),
            _ => None,
        };
        Flow {
            source: self.original.source,
            destination: self.reply.source,
            protocol: self.original.protocol,
            destination_port,
            icmp,
        }
    }
}

/// Which entries to walk. The kernel sorts out the others where it can, so that they cost little. Addresses
/// of IPv6 it is not asked for: Linux up to 6.18 at least shows all but those (`ctnetlink_filter_match_tuple`
/// takes equal for different).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// Only those of a family.
    pub family: Option<Family>,
    /// Only those of a zone.
    pub zone: Option<u16>,
    /// Only those with this address in that place.
    pub address: Option<(Place, IpAddr)>,
}

impl Filter {
    fn takes(&self, entry: &Entry) -> bool {
        let Some((place, addr)) = self.address else {
            return true;
        };
        addr == match place {
            Place::OriginalSource => entry.original.source,
            Place::OriginalDestination => entry.original.destination,
            Place::ReplySource => entry.reply.source,
            Place::ReplyDestination => entry.reply.destination,
        }
    }
}

/// A place for an address in an entry. What comes back to an address behind a NAT shows it as the reply's
/// source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// The source of the first packet.
    OriginalSource,
    /// The destination of the first packet.
    OriginalDestination,
    /// The source of answers.
    ReplySource,
    /// The destination of answers.
    ReplyDestination,
}

/// The table of one namespace.
#[derive(Debug)]
pub struct Conntrack(Socket);

impl Conntrack {
    /// Opens it; `Main` is the namespace of the calling thread.
    pub fn open(netns: &Netns) -> Result<Self, Error> {
        let open = || Socket::open(libc::NETLINK_NETFILTER as isize, "conntrack");
        match netns {
            Netns::Main => open().map(Conntrack),
            Netns::Named(_) => Handle::open(netns)?.run(open)?.map(Conntrack),
        }
    }

    /// Walks the entries; those that come or go meanwhile may be missed or shown twice.
    pub fn walk(&mut self, filter: &Filter, mut each: impl FnMut(Entry)) -> Result<(), Error> {
        let family = filter
            .address
            .map(|(_, addr)| Family::of(addr))
            .or(filter.family);
        let mut request = Batch::default();
        let mut m = request.message(CT_GET, 0, &[family.map_or(0, af), 0, 0, 0]);
        if let Some(zone) = filter.zone {
            m.be16(CTA_ZONE, zone);
        }
        if let Some((place, addr @ IpAddr::V4(_))) = filter.address {
            write_address_filter(&mut m, place, addr);
        }
        self.0.dump_each(&mut request, |answer| {
            if let Some(entry) = read(answer).filter(|entry| filter.takes(entry)) {
                each(entry);
            }
        })?;
        Ok(())
    }

    /// Walks the entries of flows from or to one of these addresses, each with its flow. Those of other
    /// addresses are not asked for where the kernel can sort them out. A flow between two of them may be
    /// shown twice.
    pub fn walk_of(
        &mut self,
        addresses: &BTreeSet<IpAddr>,
        mut each: impl FnMut(Entry, Flow),
    ) -> Result<(), Error> {
        for filter in filters(addresses) {
            self.walk(&filter, |entry| {
                let flow = entry.flow();
                let ends = [flow.source, flow.destination];
                if ends.iter().any(|addr| addresses.contains(addr)) {
                    each(entry, flow);
                }
            })?;
        }
        Ok(())
    }

    /// Deletes the entries of flows from or to one of these addresses that are forbidden; gives how many.
    pub fn cut(
        &mut self,
        addresses: &BTreeSet<IpAddr>,
        mut forbidden: impl FnMut(&Flow) -> bool,
    ) -> Result<usize, Error> {
        let mut cut = 0;
        loop {
            let mut found = Vec::new();
            self.walk_of(addresses, |entry, flow| {
                if found.len() < FOUND && forbidden(&flow) {
                    found.push(entry);
                }
            })?;
            cut += self.delete(&found)?;
            if found.len() < FOUND {
                return Ok(cut);
            }
        }
    }

    /// Deletes the entries of connections that were translated with that end, only those begun to
    /// certain ports where there are such; gives how many.
    ///
    /// # Errors
    ///
    /// The table can't be read or written.
    pub fn cut_translated(&mut self, end: CutEnd, ports: Option<CutPorts>) -> Result<usize, Error> {
        let filters: &[(Place, Ipv4Addr)] = match end {
            CutEnd::Outside(addr) => &[
                (Place::OriginalDestination, addr),
                (Place::ReplyDestination, addr),
            ],
            CutEnd::Inside(addr) => &[(Place::ReplySource, addr)],
        };
        let mut cut = 0;
        for (place, addr) in filters {
            let filter = Filter {
                address: Some((*place, IpAddr::V4(*addr))),
                ..Filter::default()
            };
            loop {
                let mut found = Vec::new();
                self.walk(&filter, |entry| {
                    if found.len() < FOUND && is_translated(&entry, end, ports) {
                        found.push(entry);
                    }
                })?;
                cut += self.delete(&found)?;
                if found.len() < FOUND {
                    break;
                }
            }
        }
        Ok(cut)
    }

    /// Deletes exactly these entries; gives how many there still were.
    pub fn delete(&mut self, entries: &[Entry]) -> Result<usize, Error> {
        let mut deleted = 0;
        for part in entries.chunks(DELETIONS) {
            let mut batch = Batch::default();
            for entry in part {
                let family = Family::of(entry.original.source);
                let mut m = batch.message(CT_DELETE, 0, &[af(family), 0, 0, 0]);
                m.nest(CTA_TUPLE_ORIG, |m| write_tuple(m, &entry.original));
                m.be16(CTA_ZONE, entry.zone).be32(CTA_ID, entry.id);
            }
            deleted += part.len();
            for (i, refusal) in self.0.request(&mut batch)? {
                if refusal.errno != libc::ENOENT {
                    let what = part.get(i).map(|entry| entry.original);
                    return Err(refusal.of(format!("delete conntrack entry {what:?}")));
                }
                deleted -= 1;
            }
        }
        Ok(deleted)
    }
}

fn is_translated(entry: &Entry, end: CutEnd, ports: Option<CutPorts>) -> bool {
    let Entry {
        original, reply, ..
    } = entry;
    let (arrives, leaves) = match end {
        CutEnd::Outside(addr) => {
            let outside = IpAddr::V4(addr);
            let arrives = original.destination == outside && reply.source != outside;
            let leaves = reply.destination == outside && original.source != outside;
            (arrives, leaves)
        }
        CutEnd::Inside(addr) => {
            let inside = IpAddr::V4(addr);
            let arrives = reply.source == inside && original.destination != inside;
            (arrives, false)
        }
    };
    match (ports, original.part) {
        (None, _) => arrives || leaves,
        (Some(ports), Part::Ports(_, port)) => {
            let (first, last) = ports.range;
            arrives && original.protocol == ports.protocol && (first..=last).contains(&port)
        }
        (Some(_), _) => false,
    }
}

/// For a few IPv4 addresses, the walks that show all their flows and little else; for others, one over their
/// family.
fn filters(addresses: &BTreeSet<IpAddr>) -> Vec<Filter> {
    let of = |family| Filter {
        family: Some(family),
        ..Filter::default()
    };
    let (v4, v6): (Vec<IpAddr>, Vec<IpAddr>) = addresses.iter().copied().partition(IpAddr::is_ipv4);
    let mut filters = Vec::new();
    if v4.len() > FEW {
        filters.push(of(Family::V4));
    } else {
        for addr in v4 {
            for place in [Place::OriginalSource, Place::ReplySource] {
                filters.push(Filter {
                    address: Some((place, addr)),
                    ..Filter::default()
                });
            }
        }
    }
    if !v6.is_empty() {
        filters.push(of(Family::V6));
    }
    filters
}

fn write_address_filter(m: &mut Message<'_>, place: Place, addr: IpAddr) {
    let (tuple, flag) = match place {
        Place::OriginalSource => (CTA_TUPLE_ORIG, FILTER_SOURCE),
        Place::OriginalDestination => (CTA_TUPLE_ORIG, FILTER_DESTINATION),
        Place::ReplySource => (CTA_TUPLE_REPLY, FILTER_SOURCE),
        Place::ReplyDestination => (CTA_TUPLE_REPLY, FILTER_DESTINATION),
    };
    let (source, _) = ip_attributes(addr);
    let attribute = if flag == FILTER_SOURCE {
        source
    } else {
        source + 1
    };
    m.nest(tuple, |m| {
        m.nest(TUPLE_IP, |m| {
            m.addr(attribute, addr);
        });
    });
    let flags = |of| if tuple == of { flag } else { 0 };
    m.nest(CTA_FILTER, |m| {
        m.ne32(CTA_FILTER_ORIG_FLAGS, flags(CTA_TUPLE_ORIG))
            .ne32(CTA_FILTER_REPLY_FLAGS, flags(CTA_TUPLE_REPLY));
    });
}

fn write_tuple(m: &mut Message<'_>, tuple: &Tuple) {
    let (source, destination) = ip_attributes(tuple.source);
    m.nest(TUPLE_IP, |m| {
        m.addr(source, tuple.source)
            .addr(destination, tuple.destination);
    });
    m.nest(TUPLE_PROTO, |m| {
        m.octet(1, tuple.protocol);
        match tuple.part {
            Part::Ports(source, destination) => {
                m.be16(2, source).be16(3, destination);
            }
            Part::Icmp { id, kind, code } => {
                let first = if tuple.source.is_ipv4() { 4 } else { 7 };
                m.be16(first, id)
                    .octet(first + 1, kind)
                    .octet(first + 2, code);
            }
            Part::None => {}
        }
    });
}

/// `CTA_IP_V4_SRC` and `_DST`, or those of IPv6.
fn ip_attributes(addr: IpAddr) -> (u16, u16) {
    if addr.is_ipv4() { (1, 2) } else { (3, 4) }
}

fn af(family: Family) -> u8 {
    match family {
        Family::V4 => 2,
        Family::V6 => 10,
    }
}

/// Reads a message as a connection.
#[cfg(feature = "fuzzing")]
pub fn read_any(answer: &Answer<'_>) {
    if let Some(entry) = read(answer) {
        let _ = entry.flow();
    }
}

fn read(answer: &Answer<'_>) -> Option<Entry> {
    if answer.kind != CT_NEW {
        return None;
    }
    let (mut original, mut reply) = (None, None);
    let (mut zone, mut status, mut mark, mut timeout_secs, mut id) = (0, 0, 0, 0, 0);
    for (kind, value) in Attrs::after(answer.payload, HEADER) {
        match kind {
            CTA_TUPLE_ORIG => original = read_tuple(Attrs(value)),
            CTA_TUPLE_REPLY => reply = read_tuple(Attrs(value)),
            CTA_ZONE => zone = be16(value)?,
            CTA_STATUS => status = be32(value)?,
            CTA_MARK => mark = be32(value)?,
            CTA_TIMEOUT => timeout_secs = be32(value)?,
            CTA_ID => id = be32(value)?,
            _ => {}
        }
    }
    let (original, reply) = (original?, reply?);
    Some(Entry {
        zone,
        original,
        reply,
        status,
        mark,
        timeout_secs,
        id,
    })
}

fn read_tuple(tuple: Attrs<'_>) -> Option<Tuple> {
    let (mut source, mut destination) = (None, None);
    for (kind, value) in tuple.nest(TUPLE_IP) {
        match kind {
            1 | 3 => source = addr(value),
            2 | 4 => destination = addr(value),
            _ => {}
        }
    }
    let proto = tuple.nest(TUPLE_PROTO);
    let number = |kind| proto.get(kind).and_then(be16);
    let octet = |kind| proto.get(kind).and_then(octet);
    let icmp = |first| {
        let id = number(first)?;
        Some(Part::Icmp {
            id,
            kind: octet(first + 1)?,
            code: octet(first + 2)?,
        })
    };
    let ports = || Some(Part::Ports(number(2)?, number(3)?));
    Some(Tuple {
        source: source?,
        destination: destination?,
        protocol: octet(1)?,
        part: ports()
            .or_else(|| icmp(4))
            .or_else(|| icmp(7))
            .unwrap_or(Part::None),
    })
}

fn be16(value: &[u8]) -> Option<u16> {
    Some(u16::from_be_bytes(value.get(..2)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tuples_read_back_as_they_were_written() {
        let v4 = (IpAddr::from([192, 0, 2, 1]), IpAddr::from([192, 0, 2, 2]));
        let v6 = (IpAddr::from([1u16; 8]), IpAddr::from([2u16; 8]));
        let parts = [
            (6, Part::Ports(1, 65_535)),
            (
                1,
                Part::Icmp {
                    id: 7,
                    kind: 8,
                    code: 0,
                },
            ),
            (47, Part::None),
        ];
        for (source, destination) in [v4, v6] {
            for (protocol, part) in parts {
                let tuple = Tuple {
                    source,
                    destination,
                    protocol,
                    part,
                };
                let mut batch = Batch::default();
                batch
                    .message(0, 0, &[])
                    .nest(CTA_TUPLE_ORIG, |m| write_tuple(m, &tuple));
                let read = read_tuple(Attrs(batch.octets_of_last()).nest(CTA_TUPLE_ORIG));
                assert_eq!(read, Some(tuple));
            }
        }
    }

    proptest::proptest! {
        #[test]
        fn no_octets_make_it_panic(payload: Vec<u8>) {
            let _ = read(&Answer { kind: CT_NEW, flags: 0, seq: 0, port: 0, payload: &payload });
        }
    }
}
