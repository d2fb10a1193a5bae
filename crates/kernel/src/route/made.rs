//! Links that we make, veth pairs, VXLAN and WireGuard devices: making them (`RTM_NEWLINK`), and reading what they are.
//!
//! They are known to be ours by the group of a device, or of one end of a pair, which it has from the moment in which
//! it comes into being. They are made down. Each gets its index from us, because the kernel takes a request without one for a request about
//! the link of that name in the sender's namespace.

use std::{
    net::IpAddr,
    os::fd::{AsRawFd as _, BorrowedFd},
};

use hextet_model::state::{Veth, Vxlan};
use hextet_types::{IfName, Mac};

use super::link::{Found, Kind};
use crate::netlink::{Answer, Attrs, Batch, Message, addr, be16, flags, ne32, octet, text};

const RTM_NEWLINK: u16 = 16;
const RTM_NEWNSID: u16 = 88;
const RTM_GETNSID: u16 = 90;
const LINK_HEADER: usize = 16;
const NSID_HEADER: usize = 4;
const IFLA_ADDRESS: u16 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFLA_LINKINFO: u16 = 18;
const IFLA_GROUP: u16 = 27;
const IFLA_NET_NS_FD: u16 = 28;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_INFO_DATA: u16 = 2;
const VETH_INFO_PEER: u16 = 1;
const IFLA_VXLAN_ID: u16 = 1;
const IFLA_VXLAN_GROUP: u16 = 2;
const IFLA_VXLAN_LINK: u16 = 3;
const IFLA_VXLAN_LOCAL: u16 = 4;
const IFLA_VXLAN_LEARNING: u16 = 7;
const IFLA_VXLAN_PORT: u16 = 15;
const IFLA_VXLAN_GROUP6: u16 = 16;
const IFLA_VXLAN_LOCAL6: u16 = 17;
const IFLA_VXLAN_COLLECT_METADATA: u16 = 25;
const NETNSA_NSID: u16 = 1;
const NETNSA_FD: u16 = 3;

/// The group of a device, and of the end by which a pair is known: "hx".
pub const OURS: u32 = 0x6878;
/// Our links' indexes begin here: the kernel, which counts from 1, gives none of them to others.
pub const FIRST_INDEX: u32 = 0x0100_0000;
/// In the index of each VXLAN device, and of no other link: by this a port's program, where it hangs there, knows it.
pub const TUNNEL: u32 = 0x4000_0000;
/// In the index of the near end of each pair between two namespaces that we made, and of no port: likewise.
pub const LEG: u32 = 0x2000_0000;

/// What a VXLAN device is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VxlanIs {
    /// Its network identifier.
    pub vni: u32,
    /// The source of its outer packets.
    pub local: Option<IpAddr>,
    /// Its UDP port.
    pub port: u16,
    /// Whether it is one of the kind that we make: it neither learns nor floods, and goes by routes.
    pub plain: bool,
}

/// Reads what a link is from `IFLA_LINKINFO`.
pub fn read(info: Attrs<'_>) -> Kind {
    let data = info.nest(IFLA_INFO_DATA);
    match info.get(IFLA_INFO_KIND).and_then(text) {
        Some("veth") => Kind::Veth,
        Some("vxlan") => read_vxlan(data).map_or(Kind::Other, Kind::Vxlan),
        Some("wireguard") => Kind::WireGuard,
        _ => Kind::Other,
    }
}

fn read_vxlan(data: Attrs<'_>) -> Option<VxlanIs> {
    let local = data
        .get(IFLA_VXLAN_LOCAL)
        .or_else(|| data.get(IFLA_VXLAN_LOCAL6));
    let set = |kind| data.get(kind).and_then(octet).is_some_and(|set| set != 0);
    let bound = [IFLA_VXLAN_GROUP, IFLA_VXLAN_GROUP6, IFLA_VXLAN_LINK];
    let plain = !set(IFLA_VXLAN_LEARNING)
        && !set(IFLA_VXLAN_COLLECT_METADATA)
        && bound.iter().all(|kind| data.get(*kind).is_none());
    Some(VxlanIs {
        vni: data.get(IFLA_VXLAN_ID).and_then(ne32)?,
        local: local.and_then(addr),
        port: data.get(IFLA_VXLAN_PORT).and_then(be16)?,
        plain,
    })
}

/// Whether a link is a VXLAN device that we made.
pub fn is_our_vxlan(is: &Found) -> bool {
    is.group == OURS && matches!(is.kind, Kind::Vxlan(_))
}

/// Whether it may be the other end of a pair that we made: nobody else's indexes are so high.
pub fn may_be_our_end(is: &Found) -> bool {
    is.kind == Kind::Veth && is.index >= FIRST_INDEX
}

/// Makes a pair. To be sent where the other end is to be, or with that namespace.
pub fn veth(
    batch: &mut Batch,
    veth: &Veth,
    index: u32,
    netns: BorrowedFd<'_>,
    peer_netns: BorrowedFd<'_>,
) {
    let mut m = new_link(batch, index);
    end(&mut m, &veth.name, veth.mac, veth.mtu, netns);
    m.ne32(IFLA_GROUP, OURS).nest(IFLA_LINKINFO, |m| {
        m.text(IFLA_INFO_KIND, "veth").nest(IFLA_INFO_DATA, |m| {
            m.nest(VETH_INFO_PEER, |m| {
                m.raw(&header(index));
                end(m, &veth.peer, veth.peer_mac, veth.mtu, peer_netns);
                m.ne32(IFLA_GROUP, veth.peer_group);
            });
        });
    });
}

/// Makes a VXLAN device in that namespace. Its outer packets are the sender's.
pub fn vxlan(batch: &mut Batch, vxlan: &Vxlan, index: u32, netns: BorrowedFd<'_>) {
    let local = match vxlan.local {
        IpAddr::V4(_) => IFLA_VXLAN_LOCAL,
        IpAddr::V6(_) => IFLA_VXLAN_LOCAL6,
    };
    let mut m = new_link(batch, index);
    end(&mut m, &vxlan.name, vxlan.mac, vxlan.mtu, netns);
    m.ne32(IFLA_GROUP, OURS).nest(IFLA_LINKINFO, |m| {
        m.text(IFLA_INFO_KIND, "vxlan").nest(IFLA_INFO_DATA, |m| {
            m.ne32(IFLA_VXLAN_ID, vxlan.vni)
                .addr(local, vxlan.local)
                .octet(IFLA_VXLAN_LEARNING, 0)
                .be16(IFLA_VXLAN_PORT, vxlan.port);
        });
    });
}

/// Makes a WireGuard device of that group, down and without keys, where this is sent.
pub fn wireguard(batch: &mut Batch, name: &IfName, group: u32) {
    new_link(batch, 0)
        .text(IFLA_IFNAME, name.as_str())
        .ne32(IFLA_GROUP, group)
        .nest(IFLA_LINKINFO, |m| {
            m.text(IFLA_INFO_KIND, "wireguard");
        });
}

fn new_link(batch: &mut Batch, index: u32) -> Message<'_> {
    batch.message(RTM_NEWLINK, flags::CREATE | flags::EXCL, &header(index))
}

fn end(m: &mut Message<'_>, name: &IfName, mac: Mac, mtu: u16, netns: BorrowedFd<'_>) {
    m.text(IFLA_IFNAME, name.as_str())
        .attr(IFLA_ADDRESS, &mac.octets())
        .ne32(IFLA_MTU, u32::from(mtu))
        .ne32(IFLA_NET_NS_FD, netns.as_raw_fd().unsigned_abs());
}

fn header(index: u32) -> [u8; LINK_HEADER] {
    let mut header = [0; LINK_HEADER];
    header[4..8].copy_from_slice(&index.to_ne_bytes());
    header
}

/// Asks which number the asked namespace has for that one.
pub fn request_nsid(batch: &mut Batch, of: BorrowedFd<'_>) {
    batch
        .message(RTM_GETNSID, 0, &[0; NSID_HEADER])
        .ne32(NETNSA_FD, of.as_raw_fd().unsigned_abs());
}

/// Has the kernel choose a number for a namespace.
pub fn give_nsid(batch: &mut Batch, of: BorrowedFd<'_>) {
    const ANY: i32 = -1;
    batch
        .message(RTM_NEWNSID, 0, &[0; NSID_HEADER])
        .ne32(NETNSA_FD, of.as_raw_fd().unsigned_abs())
        .ne32(NETNSA_NSID, ANY.cast_unsigned());
}

/// Reads that number; none, as long as it has none.
pub fn read_nsid(answer: &Answer<'_>) -> Option<i32> {
    let attrs = Attrs::after(answer.payload, NSID_HEADER);
    let id = attrs.get(NETNSA_NSID).and_then(ne32)?.cast_signed();
    (answer.kind == RTM_NEWNSID && id >= 0).then_some(id)
}
