//! Links: what they are, and the settings that we give to a port's (`RTM_*LINK`, rtnetlink(7)).

use hextet_model::state::Link;
use hextet_types::{IfName, Mac};

use crate::netlink::{Answer, Attrs, Batch, ne32, octet, text};

const RTM_NEWLINK: u16 = 16;
const RTM_DELLINK: u16 = 17;
const RTM_GETLINK: u16 = 18;
const HEADER: usize = 16;
const IFLA_ADDRESS: u16 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFLA_LINK: u16 = 5;
const IFLA_TXQLEN: u16 = 13;
const IFLA_OPERSTATE: u16 = 16;
const IFLA_LINKINFO: u16 = 18;
const IFLA_IFALIAS: u16 = 20;
const IFLA_STATS64: u16 = 23;
const IFLA_AF_SPEC: u16 = 26;
const IFLA_GROUP: u16 = 27;
const IFLA_EXT_MASK: u16 = 29;
const IFLA_LINK_NETNSID: u16 = 37;
const IFLA_INET6_ADDR_GEN_MODE: u16 = 8;
const RTEXT_FILTER_SKIP_STATS: u32 = 1 << 3;
const ADDR_GEN_MODE_NONE: u8 = 1;
const AF_INET6: u16 = 10;
const IFF_UP: u32 = 1;
const IF_OPER_UP: u8 = 6;
const ARPHRD_ETHER: u16 = 1;

/// A link as the kernel has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Its index.
    pub index: u32,
    /// Its name.
    pub name: IfName,
    /// Its Ethernet address, where it is an Ethernet link.
    pub mac: Option<Mac>,
    /// In octets.
    pub mtu: u32,
    /// Administratively up.
    pub up: bool,
    /// Operationally up.
    pub running: bool,
    /// Whether it makes link-local addresses by itself.
    pub generates_addresses: bool,
    /// Packets and octets, where they were asked for.
    pub stats: Option<Stats>,
    /// The number of its group; 0 unless somebody said otherwise.
    pub group: u32,
    /// A text that somebody gave it.
    pub alias: Option<String>,
    /// The index of the link that it belongs to: of a veth, its other end.
    pub of: Option<u32>,
    /// The namespace that this one is in, or that its outer packets are in, by the number that the link's own
    /// namespace has for it; none, where that is the same.
    pub of_netns: Option<i32>,
    /// What it is, where that is one of those that we make.
    pub kind: Kind,
}

/// What a link is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Kind {
    /// An end of a veth pair.
    Veth,
    /// A VXLAN device.
    Vxlan(super::made::VxlanIs),
    /// A WireGuard device.
    WireGuard,
    /// Anything else.
    #[default]
    Other,
}

/// A link's counters, as the host sees them: what a workload sends is received here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Packets received.
    pub rx_packets: u64,
    /// Packets sent.
    pub tx_packets: u64,
    /// Octets received.
    pub rx_bytes: u64,
    /// Octets sent.
    pub tx_bytes: u64,
    /// Received and found bad.
    pub rx_errors: u64,
    /// Could not be sent.
    pub tx_errors: u64,
    /// Received and dropped.
    pub rx_dropped: u64,
    /// Dropped before they were sent.
    pub tx_dropped: u64,
}

/// Asks for all links.
pub fn request_all(batch: &mut Batch, stats: bool) {
    let skip = if stats { 0 } else { RTEXT_FILTER_SKIP_STATS };
    batch
        .message(RTM_GETLINK, 0, &[0; HEADER])
        .ne32(IFLA_EXT_MASK, skip);
}

/// Asks for one link.
pub fn request_one(batch: &mut Batch, name: &IfName) {
    batch
        .message(RTM_GETLINK, 0, &[0; HEADER])
        .ne32(IFLA_EXT_MASK, RTEXT_FILTER_SKIP_STATS)
        .text(IFLA_IFNAME, name.as_str());
}

/// Asks for the link of an index.
pub fn request_index(batch: &mut Batch, index: u32) {
    batch
        .message(RTM_GETLINK, 0, &header(index, 0, 0))
        .ne32(IFLA_EXT_MASK, RTEXT_FILTER_SKIP_STATS);
}

/// Whether a notification tells that a link was made, or was turned on or off: a change of its address,
/// size or carrier comes without a mask of flags.
pub fn turned(answer: &Answer<'_>) -> bool {
    let changed = answer.payload.get(12..).and_then(ne32);
    changed.is_some_and(|mask| mask & IFF_UP != 0)
}

/// Whether a notification tells that a link was made: then it says that all flags have changed.
pub fn came(answer: &Answer<'_>) -> bool {
    answer.payload.get(12..).and_then(ne32) == Some(u32::MAX)
}

/// Reads a link from a notification or an answer.
pub fn read(answer: &Answer<'_>) -> Option<Found> {
    if answer.kind != RTM_NEWLINK {
        return None;
    }
    let head = answer.payload.get(..HEADER)?;
    let hardware = u16::from_ne_bytes([*head.get(2)?, *head.get(3)?]);
    let flags = ne32(head.get(8..)?)?;
    let mut found = Found {
        index: ne32(head.get(4..)?)?,
        name: name(answer)?,
        mac: None,
        mtu: 0,
        up: flags & IFF_UP != 0,
        running: false,
        generates_addresses: false,
        stats: None,
        group: 0,
        alias: None,
        of: None,
        of_netns: None,
        kind: Kind::Other,
    };
    for (kind, value) in Attrs::after(answer.payload, HEADER) {
        match kind {
            IFLA_ADDRESS if hardware == ARPHRD_ETHER => {
                found.mac = value.try_into().ok().map(Mac::new);
            }
            IFLA_MTU => found.mtu = ne32(value)?,
            IFLA_OPERSTATE => found.running = octet(value) == Some(IF_OPER_UP),
            IFLA_STATS64 => found.stats = read_stats(value),
            IFLA_GROUP => found.group = ne32(value)?,
            IFLA_IFALIAS => found.alias = text(value).map(str::to_owned),
            IFLA_LINK => found.of = ne32(value),
            IFLA_LINK_NETNSID => found.of_netns = ne32(value).map(u32::cast_signed),
            IFLA_LINKINFO => found.kind = super::made::read(Attrs(value)),
            IFLA_AF_SPEC => {
                let mode = Attrs(value).nest(AF_INET6).get(IFLA_INET6_ADDR_GEN_MODE);
                found.generates_addresses = mode
                    .and_then(octet)
                    .is_some_and(|mode| mode != ADDR_GEN_MODE_NONE);
            }
            _ => {}
        }
    }
    Some(found)
}

/// The name in any message about a link.
pub fn name(answer: &Answer<'_>) -> Option<IfName> {
    Attrs::after(answer.payload, HEADER)
        .get(IFLA_IFNAME)
        .and_then(text)?
        .parse()
        .ok()
}

fn read_stats(value: &[u8]) -> Option<Stats> {
    let n = |i: usize| {
        Some(u64::from_ne_bytes(
            value.get(i * 8..i * 8 + 8)?.try_into().ok()?,
        ))
    };
    Some(Stats {
        rx_packets: n(0)?,
        tx_packets: n(1)?,
        rx_bytes: n(2)?,
        tx_bytes: n(3)?,
        rx_errors: n(4)?,
        tx_errors: n(5)?,
        rx_dropped: n(6)?,
        tx_dropped: n(7)?,
    })
}

/// Gives a link its settings, as far as it has others. Up to two requests: no link-local address may come
/// up of itself, so that is said before the link goes up. It is not said to a link that makes none: the
/// kernel would tell all its parts that the link changed, and then IPv6 goes through all routes of all links.
///
/// `set_group` sets the group otherwise, if it can, of a link that is up.
pub fn set(batch: &mut Batch, is: &Found, link: &Link, set_group: impl FnOnce() -> bool) {
    let (mac, mtu) = (is.mac != Some(link.mac), is.mtu != u32::from(link.mtu));
    let group = is.group != link.group && !(is.up && set_group());
    if mac || mtu || group || is.generates_addresses {
        let mut m = batch.message(RTM_NEWLINK, 0, &header(is.index, 0, 0));
        if mac {
            m.attr(IFLA_ADDRESS, &link.mac.octets());
        }
        if mtu {
            m.ne32(IFLA_MTU, u32::from(link.mtu));
        }
        if group {
            m.ne32(IFLA_GROUP, link.group);
        }
        if is.generates_addresses {
            m.nest(IFLA_AF_SPEC, |m| {
                m.nest(AF_INET6, |m| {
                    m.octet(IFLA_INET6_ADDR_GEN_MODE, ADDR_GEN_MODE_NONE);
                });
            });
        }
    }
    if is.up != link.up {
        set_up(batch, is.index, link.up);
    }
}

/// Gives a tunnel's link, before it goes up, its MTU and the length of its queue; it makes no link-local address of itself.
pub fn prepare_tunnel(batch: &mut Batch, index: u32, mtu: u16, queue: u32) {
    batch
        .message(RTM_NEWLINK, 0, &header(index, 0, 0))
        .ne32(IFLA_MTU, u32::from(mtu))
        .ne32(IFLA_TXQLEN, queue)
        .nest(IFLA_AF_SPEC, |m| {
            m.nest(AF_INET6, |m| {
                m.octet(IFLA_INET6_ADDR_GEN_MODE, ADDR_GEN_MODE_NONE);
            });
        });
}

/// Gives a link an MTU, in octets.
pub fn set_mtu(batch: &mut Batch, index: u32, mtu: u16) {
    batch
        .message(RTM_NEWLINK, 0, &header(index, 0, 0))
        .ne32(IFLA_MTU, u32::from(mtu));
}

/// Sets a link down that is none of ours any more.
pub fn leave(batch: &mut Batch, index: u32) {
    batch
        .message(RTM_NEWLINK, 0, &header(index, 0, IFF_UP))
        .ne32(IFLA_GROUP, 0);
}

/// Sets a link up or down.
pub fn set_up(batch: &mut Batch, index: u32, up: bool) {
    batch.message(
        RTM_NEWLINK,
        0,
        &header(index, if up { IFF_UP } else { 0 }, IFF_UP),
    );
}

/// Gives a link an alias, and sets it up.
pub fn mark(batch: &mut Batch, index: u32, alias: &str) {
    batch
        .message(RTM_NEWLINK, 0, &header(index, IFF_UP, IFF_UP))
        .attr(IFLA_IFALIAS, alias.as_bytes());
}

/// Deletes a link.
pub fn delete(batch: &mut Batch, index: u32) {
    batch.message(RTM_DELLINK, 0, &header(index, 0, 0));
}

fn header(index: u32, flags: u32, change: u32) -> [u8; HEADER] {
    let mut header = [0; HEADER];
    header[4..8].copy_from_slice(&index.to_ne_bytes());
    header[8..12].copy_from_slice(&flags.to_ne_bytes());
    header[12..].copy_from_slice(&change.to_ne_bytes());
    header
}
