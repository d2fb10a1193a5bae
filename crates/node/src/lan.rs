//! Network segments on which other nodes are looked for: a socket on each interface that the configuration names, while it is there.
//!
//! What always holds: what is read has come from that segment (its sender is link-local); so much of it is taken in a second, and so much
//! waits, as bounds say.

use std::{
    collections::BTreeMap,
    net::{Ipv6Addr, SocketAddr, SocketAddrV6},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context as _, Result};
use hextet_mesh::{letter::MAX_DATAGRAM, node::Wire};
use hextet_types::IfName;
use nix::ifaddrs::getifaddrs;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::{net::UdpSocket, sync::mpsc, task::JoinHandle, time::Instant};
use tracing::{debug, info, warn};

use crate::{config::Mode, host};

/// The port of UDP of what nodes say on a segment.
pub const PORT: u16 = 6699;
/// Where all nodes of a segment listen: a group that is not assigned to anybody for ever (RFC 4291 §2.7).
pub const GROUP: Ipv6Addr = Ipv6Addr::new(0xff12, 0, 0, 0, 0, 0x6865, 0x7874, 0x6574);
/// Letters that wait to be read.
const WAITING: usize = 64;
/// Letters of a segment that are read in a second.
const PACE: u32 = 200;

/// What has come.
#[derive(Debug)]
pub struct Beacon {
    pub link: u32,
    pub from: Ipv6Addr,
    pub octets: Vec<u8>,
}

/// What is different.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    Gone(u32),
    Here(u32, Wire),
}

struct Segment {
    link: u32,
    addr: Ipv6Addr,
    socket: Arc<UdpSocket>,
    reader: JoinHandle<()>,
}

impl Drop for Segment {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

/// All of them.
pub struct Segments {
    modes: BTreeMap<IfName, Mode>,
    /// Of tunnels.
    port: u16,
    open: BTreeMap<IfName, Segment>,
    heard: mpsc::Sender<Beacon>,
}

impl Segments {
    pub fn new(modes: BTreeMap<IfName, Mode>, port: u16) -> (Segments, mpsc::Receiver<Beacon>) {
        let (heard, hears) = mpsc::channel(WAITING);
        let segments = Segments {
            modes,
            port,
            open: BTreeMap::new(),
            heard,
        };
        (segments, hears)
    }

    /// Looks which interfaces are there, and opens and closes accordingly.
    pub fn look(&mut self) -> Vec<Change> {
        if self.modes.is_empty() {
            return Vec::new();
        }
        let there = match link_locals() {
            Ok(there) => there,
            Err(error) => {
                warn!("{error:#}");
                return Vec::new();
            }
        };
        let mut changes = Vec::new();
        for (name, mode) in self.modes.clone() {
            let now = there.get(&name).copied();
            let is_same = |open: &Segment| now == Some((open.link, open.addr));
            if self.open.get(&name).is_some_and(is_same) {
                continue;
            }
            if let Some(gone) = self.open.remove(&name) {
                info!(interface = %name, "a network segment is gone");
                changes.push(Change::Gone(gone.link));
            }
            let Some((link, addr)) = now else { continue };
            match self.open(link, addr, &name) {
                Ok(segment) => {
                    info!(interface = %name, ?mode, "others are looked for on a network segment");
                    self.open.insert(name, segment);
                    let wire = Wire {
                        bare: mode == Mode::Bare,
                        port: self.port,
                    };
                    changes.push(Change::Here(link, wire));
                }
                Err(error) => warn!("look for others on {name}: {error:#}"),
            }
        }
        changes
    }

    fn open(&self, link: u32, addr: Ipv6Addr, name: &IfName) -> Result<Segment> {
        let socket = Socket::new(Domain::IPV6, Type::DGRAM, Some(Protocol::UDP))?;
        socket.set_nonblocking(true)?;
        socket.set_only_v6(true)?;
        socket.bind_device(Some(name.as_str().as_bytes()))?;
        socket.set_multicast_if_v6(link)?;
        socket.set_multicast_loop_v6(false)?;
        socket.set_multicast_hops_v6(1)?;
        socket.set_unicast_hops_v6(1)?;
        let all = SocketAddrV6::new(Ipv6Addr::UNSPECIFIED, PORT, 0, 0);
        socket
            .bind(&all.into())
            .with_context(|| format!("listen on UDP port {PORT}"))?;
        socket.join_multicast_v6(&GROUP, link)?;
        let socket = Arc::new(UdpSocket::from_std(socket.into())?);
        let reader = tokio::spawn(read(link, Arc::clone(&socket), self.heard.clone()));
        Ok(Segment {
            link,
            addr,
            socket,
            reader,
        })
    }

    fn of(&self, link: u32) -> Option<(&IfName, &Segment)> {
        self.open.iter().find(|(_, segment)| segment.link == link)
    }

    /// This node's address there.
    pub fn addr(&self, link: u32) -> Option<Ipv6Addr> {
        self.of(link).map(|(_, segment)| segment.addr)
    }

    pub fn name(&self, link: u32) -> Option<&IfName> {
        self.of(link).map(|(name, _)| name)
    }

    /// Interfaces by which packets come as they are.
    pub fn bare(&self) -> Vec<IfName> {
        let bare = self.modes.iter().filter(|(_, mode)| **mode == Mode::Bare);
        bare.map(|(name, _)| name.clone()).collect()
    }

    /// Sends to one, or to all. It is the network's business if it does not arrive.
    pub fn send(&self, link: u32, to: Option<Ipv6Addr>, octets: &[u8]) {
        if let Some((name, segment)) = self.of(link) {
            let to = SocketAddrV6::new(to.unwrap_or(GROUP), PORT, 0, link);
            if let Err(error) = segment.socket.try_send_to(octets, to.into()) {
                debug!(%error, interface = %name, %to, "say that this node is here");
            }
        }
    }
}

async fn read(link: u32, socket: Arc<UdpSocket>, heard: mpsc::Sender<Beacon>) {
    // One more, so that what is too long is seen to be.
    let mut octets = vec![0; MAX_DATAGRAM + 1];
    let (mut second, mut taken) = (Instant::now(), 0);
    loop {
        let (len, from) = match socket.recv_from(&mut octets).await {
            Ok(came) => came,
            Err(error) => {
                debug!(%error, link, "read from a network segment");
                tokio::time::sleep(Duration::from_secs(1)).await;
                continue;
            }
        };
        if second.elapsed() >= Duration::from_secs(1) {
            (second, taken) = (Instant::now(), 0);
        }
        taken += 1;
        let SocketAddr::V6(from) = from else { continue };
        let is_of_segment = from.ip().is_unicast_link_local() && from.port() == PORT;
        if is_of_segment && len <= MAX_DATAGRAM && taken <= PACE {
            let octets = octets.get(..len).unwrap_or_default().to_vec();
            let from = *from.ip();
            // Who floods is not waited for.
            let _ = heard.try_send(Beacon { link, from, octets });
        }
    }
}

/// By interface: its number, and its least link-local address.
fn link_locals() -> Result<BTreeMap<IfName, (u32, Ipv6Addr)>> {
    let mut found: BTreeMap<IfName, (u32, Ipv6Addr)> = BTreeMap::new();
    for interface in getifaddrs().context("ask for the host's addresses")? {
        let address = interface
            .address
            .and_then(|address| Some(address.as_sockaddr_in6()?.ip()));
        let Some(addr) = address.filter(Ipv6Addr::is_unicast_link_local) else {
            continue;
        };
        let Ok(name) = interface.interface_name.parse::<IfName>() else {
            continue;
        };
        let Some(link) = host::index(&name) else {
            continue;
        };
        let least = found.entry(name).or_insert((link, addr));
        least.1 = least.1.min(addr);
    }
    Ok(found)
}
