//! WireGuard's messages (linux/wireguard.h), and those that tell its number (linux/genetlink.h).

use std::{
    net::{Ipv6Addr, SocketAddr, SocketAddrV6},
    time::Duration,
};

use hextet_types::Family;

use super::{Counts, Device, EVERYWHERE, Key, Peer, Wanted};
use crate::{
    netlink::{Answer, Attrs, Batch, Message, addr, be16, ne16, ne32},
    route::{af, family},
};

const GENL_ID_CTRL: u16 = 16;
/// `struct genlmsghdr`: command, version, two that are reserved.
const HEADER: usize = 4;
const CTRL_CMD_NEWFAMILY: u8 = 1;
const CTRL_CMD_GETFAMILY: u8 = 3;
const CTRL_VERSION: u8 = 2;
const CTRL_ATTR_FAMILY_ID: u16 = 1;
const CTRL_ATTR_FAMILY_NAME: u16 = 2;
const NAME: &str = "wireguard";

const VERSION: u8 = 1;
const WG_CMD_GET_DEVICE: u8 = 0;
const WG_CMD_SET_DEVICE: u8 = 1;
const WGDEVICE_A_IFINDEX: u16 = 1;
const WGDEVICE_A_IFNAME: u16 = 2;
const WGDEVICE_A_PRIVATE_KEY: u16 = 3;
const WGDEVICE_A_PUBLIC_KEY: u16 = 4;
const WGDEVICE_A_FLAGS: u16 = 5;
const WGDEVICE_A_LISTEN_PORT: u16 = 6;
const WGDEVICE_A_PEERS: u16 = 8;
const WGDEVICE_F_REPLACE_PEERS: u32 = 1;
const WGPEER_A_PUBLIC_KEY: u16 = 1;
const WGPEER_A_PRESHARED_KEY: u16 = 2;
const WGPEER_A_FLAGS: u16 = 3;
const WGPEER_A_ENDPOINT: u16 = 4;
const WGPEER_A_PERSISTENT_KEEPALIVE_INTERVAL: u16 = 5;
const WGPEER_A_LAST_HANDSHAKE_TIME: u16 = 6;
const WGPEER_A_RX_BYTES: u16 = 7;
const WGPEER_A_TX_BYTES: u16 = 8;
const WGPEER_A_ALLOWEDIPS: u16 = 9;
const WGPEER_F_REPLACE_ALLOWEDIPS: u32 = 2;
const WGPEER_F_UPDATE_ONLY: u32 = 4;
const WGALLOWEDIP_A_FAMILY: u16 = 1;
const WGALLOWEDIP_A_IPADDR: u16 = 2;
const WGALLOWEDIP_A_CIDR_MASK: u16 = 3;

/// `struct sockaddr_in` and `struct sockaddr_in6`.
const SOCKADDR: usize = 16;
const SOCKADDR6: usize = 28;

/// Asks for WireGuard's number, which loads the module.
pub fn request_family(batch: &mut Batch) {
    batch
        .message(GENL_ID_CTRL, 0, &[CTRL_CMD_GETFAMILY, CTRL_VERSION, 0, 0])
        .text(CTRL_ATTR_FAMILY_NAME, NAME);
}

/// Reads that number.
pub fn read_family(answer: &Answer<'_>) -> Option<u16> {
    let is_one = answer.kind == GENL_ID_CTRL && answer.payload.first() == Some(&CTRL_CMD_NEWFAMILY);
    let attrs = Attrs::after(answer.payload, HEADER);
    is_one
        .then(|| attrs.get(CTRL_ATTR_FAMILY_ID).and_then(ne16))
        .flatten()
}

/// Asks what a link is.
pub fn request(batch: &mut Batch, family: u16, index: u32) {
    command(batch, family, WG_CMD_GET_DEVICE).ne32(WGDEVICE_A_IFINDEX, index);
}

/// Gives a link, by its name, keys, port and peer.
pub fn set(batch: &mut Batch, family: u16, wanted: &Wanted) {
    let peer = &wanted.peer;
    command(batch, family, WG_CMD_SET_DEVICE)
        .text(WGDEVICE_A_IFNAME, wanted.name.as_str())
        .attr(WGDEVICE_A_PRIVATE_KEY, &wanted.private_key)
        .attr(WGDEVICE_A_LISTEN_PORT, &wanted.port.to_ne_bytes())
        .ne32(WGDEVICE_A_FLAGS, WGDEVICE_F_REPLACE_PEERS)
        .nest(WGDEVICE_A_PEERS, |m| {
            m.nest(0, |m| {
                m.attr(WGPEER_A_PUBLIC_KEY, &peer.key)
                    .ne32(WGPEER_A_FLAGS, WGPEER_F_REPLACE_ALLOWEDIPS)
                    .attr(
                        WGPEER_A_PERSISTENT_KEEPALIVE_INTERVAL,
                        &peer.keepalive_secs.to_ne_bytes(),
                    );
                if let Some(secret) = &peer.preshared_key {
                    m.attr(WGPEER_A_PRESHARED_KEY, secret);
                }
                if let Some(at) = peer.endpoint {
                    endpoint(m, at);
                }
                m.nest(WGPEER_A_ALLOWEDIPS, |m| {
                    for net in EVERYWHERE {
                        m.nest(0, |m| {
                            let family = u16::from(af(Family::of(net)));
                            m.attr(WGALLOWEDIP_A_FAMILY, &family.to_ne_bytes())
                                .addr(WGALLOWEDIP_A_IPADDR, net)
                                .octet(WGALLOWEDIP_A_CIDR_MASK, 0);
                        });
                    }
                });
            });
        });
}

/// Says where a link's peer is.
pub fn set_endpoint(batch: &mut Batch, family: u16, index: u32, peer: &Key, at: SocketAddr) {
    command(batch, family, WG_CMD_SET_DEVICE)
        .ne32(WGDEVICE_A_IFINDEX, index)
        .nest(WGDEVICE_A_PEERS, |m| {
            m.nest(0, |m| {
                m.attr(WGPEER_A_PUBLIC_KEY, peer)
                    .ne32(WGPEER_A_FLAGS, WGPEER_F_UPDATE_ONLY);
                endpoint(m, at);
            });
        });
}

fn command(batch: &mut Batch, family: u16, command: u8) -> Message<'_> {
    batch.message(family, 0, &[command, VERSION, 0, 0])
}

fn endpoint(m: &mut Message<'_>, at: SocketAddr) {
    let family = u16::from(af(Family::of(at.ip()))).to_ne_bytes();
    let mut octets = Vec::with_capacity(SOCKADDR6);
    octets.extend_from_slice(&family);
    octets.extend_from_slice(&at.port().to_be_bytes());
    match at {
        SocketAddr::V4(at) => {
            octets.extend_from_slice(&at.ip().octets());
            octets.resize(SOCKADDR, 0);
        }
        SocketAddr::V6(at) => {
            octets.extend_from_slice(&at.flowinfo().to_be_bytes());
            octets.extend_from_slice(&at.ip().octets());
            octets.extend_from_slice(&at.scope_id().to_ne_bytes());
        }
    }
    m.attr(WGPEER_A_ENDPOINT, &octets);
}

/// Reads what a link is, or a part of it. Of several peers the first counts: ours have one.
pub fn read(answer: &Answer<'_>) -> Option<Device> {
    if answer.payload.get(..HEADER)?.first() != Some(&WG_CMD_GET_DEVICE) {
        return None;
    }
    let attrs = Attrs::after(answer.payload, HEADER);
    let mut peers = attrs.nest(WGDEVICE_A_PEERS).into_iter();
    Some(Device {
        public_key: attrs.get(WGDEVICE_A_PUBLIC_KEY).and_then(key),
        port: attrs.get(WGDEVICE_A_LISTEN_PORT).and_then(ne16)?,
        peer: peers.next().and_then(|(_, peer)| read_peer(Attrs(peer))),
    })
}

fn read_peer(attrs: Attrs<'_>) -> Option<(Peer, Counts)> {
    let number = |kind| attrs.get(kind).and_then(ne64);
    let keepalive = attrs.get(WGPEER_A_PERSISTENT_KEEPALIVE_INTERVAL);
    let peer = Peer {
        key: attrs.get(WGPEER_A_PUBLIC_KEY).and_then(key)?,
        // All zeros are none.
        preshared_key: attrs.get(WGPEER_A_PRESHARED_KEY).and_then(key),
        endpoint: attrs.get(WGPEER_A_ENDPOINT).and_then(read_endpoint),
        keepalive_secs: keepalive.and_then(ne16).unwrap_or(0),
    };
    let counts = Counts {
        handshake: attrs.get(WGPEER_A_LAST_HANDSHAKE_TIME).and_then(read_time),
        rx_octets: number(WGPEER_A_RX_BYTES).unwrap_or(0),
        tx_octets: number(WGPEER_A_TX_BYTES).unwrap_or(0),
    };
    Some((peer, counts))
}

fn read_endpoint(octets: &[u8]) -> Option<SocketAddr> {
    let port = be16(octets.get(2..)?)?;
    match family(u8::try_from(ne16(octets)?).ok()?)? {
        Family::V4 => Some(SocketAddr::new(addr(octets.get(4..8)?)?, port)),
        Family::V6 => {
            let ip: [u8; 16] = octets.get(8..24)?.try_into().ok()?;
            let scope = ne32(octets.get(24..)?)?;
            Some(SocketAddrV6::new(Ipv6Addr::from(ip), port, 0, scope).into())
        }
    }
}

/// `struct __kernel_timespec`; zero is never.
fn read_time(octets: &[u8]) -> Option<Duration> {
    let (secs, nanos) = (ne64(octets)?, ne64(octets.get(8..)?)?);
    let nanos = u32::try_from(nanos)
        .ok()
        .filter(|nanos| *nanos < 1_000_000_000)?;
    Some(Duration::new(secs, nanos)).filter(|time| !time.is_zero())
}

fn key(octets: &[u8]) -> Option<Key> {
    octets.try_into().ok().filter(|key| *key != [0; 32])
}

fn ne64(octets: &[u8]) -> Option<u64> {
    Some(u64::from_ne_bytes(octets.get(..8)?.try_into().ok()?))
}
