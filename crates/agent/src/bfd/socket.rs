//! BFD's sockets: one for each family to listen, one for each session to send (RFC 5881 §4).

use std::{
    io::{self, IoSliceMut},
    net::{self, IpAddr, SocketAddr},
    os::fd::AsRawFd,
};

use anyhow::{Context, Result};
use hextet_bfd::{CONTROL_PORT, HOP_LIMIT, Peer, SOURCE_PORTS};
use hextet_types::{Family, IfName};
use nix::{
    cmsg_space,
    net::if_::if_indextoname,
    sys::socket::{ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg, setsockopt, sockopt},
};
use rand::Rng;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::{io::Interest, net::UdpSocket};
use tracing::debug;

/// More than any BFD Control packet without authentication needs.
const PAYLOAD: usize = 64;
/// Class selector 6, network control (RFC 4594 §3.1), as a traffic class octet.
const NETWORK_CONTROL: u32 = 0xc0;
/// Ports tried before a session has to wait for its next packet.
const PORT_TRIES: usize = 16;

/// A datagram with all that the engine wants to know of it.
#[derive(Debug)]
pub struct Datagram {
    pub peer: Peer,
    pub hop_limit: u8,
    pub payload: Vec<u8>,
}

/// Opens the listening socket of a family. It does not belong to a runtime yet.
///
/// # Errors
///
/// The control port is taken.
pub fn listen(family: Family) -> Result<Socket> {
    let open = || -> io::Result<Socket> {
        let socket = udp(family)?;
        match family {
            Family::V4 => {
                setsockopt(&socket, sockopt::Ipv4PacketInfo, &true)?;
                setsockopt(&socket, sockopt::Ipv4RecvTtl, &true)?;
            }
            Family::V6 => {
                socket.set_only_v6(true)?;
                setsockopt(&socket, sockopt::Ipv6RecvPacketInfo, &true)?;
                setsockopt(&socket, sockopt::Ipv6RecvHopLimit, &true)?;
            }
        }
        socket.bind(&SocketAddr::new(family.unspecified(), CONTROL_PORT).into())?;
        Ok(socket)
    };
    open().with_context(|| {
        format!(
            "listen for BFD on {family} UDP port {CONTROL_PORT}; does another BFD program run here?"
        )
    })
}

fn udp(family: Family) -> io::Result<Socket> {
    let domain = match family {
        Family::V4 => Domain::IPV4,
        Family::V6 => Domain::IPV6,
    };
    let socket = Socket::new(domain, Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

/// The next datagram that says where it came from; none when none waits.
pub fn receive(socket: &UdpSocket) -> Option<Datagram> {
    loop {
        match socket.try_io(Interest::READABLE, || read(socket)) {
            Ok(Some(datagram)) => return Some(datagram),
            Ok(None) => {}
            Err(error) => {
                if error.kind() != io::ErrorKind::WouldBlock {
                    debug!(%error, "read a BFD packet");
                }
                return None;
            }
        }
    }
}

fn read(socket: &UdpSocket) -> io::Result<Option<Datagram>> {
    let mut payload = [0; PAYLOAD];
    let mut control = cmsg_space!(nix::libc::in6_pktinfo, i32);
    let mut iov = [IoSliceMut::new(&mut payload)];
    let flags = MsgFlags::MSG_DONTWAIT;
    let message =
        recvmsg::<SockaddrStorage>(socket.as_raw_fd(), &mut iov, Some(&mut control), flags)?;
    let source = message.address.as_ref().and_then(ip_of);
    let (mut index, mut hop_limit) = (None, None);
    for item in message.cmsgs()? {
        match item {
            ControlMessageOwned::Ipv4PacketInfo(info) => {
                index = u32::try_from(info.ipi_ifindex).ok();
            }
            ControlMessageOwned::Ipv6PacketInfo(info) => index = Some(info.ipi6_ifindex),
            ControlMessageOwned::Ipv4Ttl(limit) | ControlMessageOwned::Ipv6HopLimit(limit) => {
                hop_limit = u8::try_from(limit).ok();
            }
            _ => {}
        }
    }
    let octets = message.bytes;
    let (Some(source), Some(interface), Some(hop_limit)) =
        (source, index.and_then(interface_name), hop_limit)
    else {
        return Ok(None);
    };
    let payload = payload.get(..octets).unwrap_or_default().to_vec();
    Ok(Some(Datagram {
        peer: Peer::new(interface, source),
        hop_limit,
        payload,
    }))
}

fn ip_of(address: &SockaddrStorage) -> Option<IpAddr> {
    match (address.as_sockaddr_in(), address.as_sockaddr_in6()) {
        (Some(v4), _) => Some(v4.ip().into()),
        (_, Some(v6)) => Some(v6.ip().into()),
        _ => None,
    }
}

fn interface_name(index: u32) -> Option<IfName> {
    if_indextoname(index).ok()?.to_str().ok()?.parse().ok()
}

/// Sends the packets of one session, from one port for as long as that can be had. Its socket is none of
/// the runtime's, which would find the first packet too early to send.
#[derive(Debug)]
pub struct Sender {
    peer: Peer,
    port: u16,
    socket: Option<net::UdpSocket>,
}

impl Sender {
    /// Opens nothing yet.
    pub fn new(peer: Peer) -> Sender {
        Sender {
            peer,
            port: rand::rng().random_range(SOURCE_PORTS),
            socket: None,
        }
    }

    /// Sends a packet. What can't be sent is lost: detecting that is the peer's business. A socket that
    /// failed is opened anew for the next packet, because its interface may be another one by then.
    pub fn send(&mut self, payload: &[u8]) {
        if let Err(error) = self.try_send(payload) {
            debug!(peer = %self.peer, %error, "a BFD packet was not sent");
            // The peer's refusal says that the way is right.
            let kept = [io::ErrorKind::WouldBlock, io::ErrorKind::ConnectionRefused];
            if !kept.contains(&error.kind()) {
                self.socket = None;
            }
        }
    }

    fn try_send(&mut self, payload: &[u8]) -> io::Result<usize> {
        let socket = match self.socket.take() {
            Some(socket) => socket,
            None => self.open()?,
        };
        self.socket.insert(socket).send(payload)
    }

    fn open(&mut self) -> io::Result<net::UdpSocket> {
        let family = Family::of(self.peer.address());
        let socket = udp(family)?;
        match family {
            Family::V4 => {
                socket.set_ttl_v4(u32::from(HOP_LIMIT))?;
                socket.set_tos_v4(NETWORK_CONTROL)?;
            }
            Family::V6 => {
                socket.set_unicast_hops_v6(u32::from(HOP_LIMIT))?;
                socket.set_tclass_v6(NETWORK_CONTROL)?;
            }
        }
        socket.bind_device(Some(self.peer.interface().as_str().as_bytes()))?;
        self.bind_port(&socket, family.unspecified())?;
        socket.connect(&SocketAddr::new(self.peer.address(), CONTROL_PORT).into())?;
        Ok(socket.into())
    }

    fn bind_port(&mut self, socket: &Socket, any: IpAddr) -> io::Result<()> {
        for _ in 0..PORT_TRIES {
            match socket.bind(&SocketAddr::new(any, self.port).into()) {
                Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                    self.port = rand::rng().random_range(SOURCE_PORTS);
                }
                other => return other,
            }
        }
        Err(io::ErrorKind::AddrInUse.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn loopback(family: Family) -> (IpAddr, Peer) {
        let address = match family {
            Family::V4 => "127.0.0.1",
            Family::V6 => "::1",
        };
        let address = address.parse().unwrap();
        (address, Peer::new("lo".parse().unwrap(), address))
    }

    /// As [`listen`], on a port that no other test has.
    fn receiver(family: Family) -> (UdpSocket, SocketAddr) {
        let (address, _) = loopback(family);
        let socket = udp(family).unwrap();
        match family {
            Family::V4 => {
                setsockopt(&socket, sockopt::Ipv4PacketInfo, &true).unwrap();
                setsockopt(&socket, sockopt::Ipv4RecvTtl, &true).unwrap();
            }
            Family::V6 => {
                setsockopt(&socket, sockopt::Ipv6RecvPacketInfo, &true).unwrap();
                setsockopt(&socket, sockopt::Ipv6RecvHopLimit, &true).unwrap();
            }
        }
        socket.bind(&SocketAddr::new(address, 0).into()).unwrap();
        let socket = UdpSocket::from_std(socket.into()).unwrap();
        let at = socket.local_addr().unwrap();
        (socket, at)
    }

    #[tokio::test]
    async fn a_datagram_comes_with_its_interface_and_hop_limit_and_is_cut_at_64_octets() {
        for family in Family::BOTH {
            let (socket, at) = receiver(family);
            let client = udp(family).unwrap();
            match family {
                Family::V4 => client.set_ttl_v4(254).unwrap(),
                Family::V6 => client.set_unicast_hops_v6(254).unwrap(),
            }
            for length in [0, 24, PAYLOAD, PAYLOAD + 1, 1400] {
                client.send_to(&vec![7; length], &at.into()).unwrap();
                socket.readable().await.unwrap();
                let datagram = receive(&socket).unwrap();
                assert_eq!(datagram.peer, loopback(family).1);
                assert_eq!(datagram.hop_limit, 254);
                assert_eq!(datagram.payload, vec![7; length.min(PAYLOAD)]);
            }
            assert!(receive(&socket).is_none());
        }
    }

    #[test]
    fn a_session_keeps_its_source_port_while_the_peer_refuses() {
        for family in Family::BOTH {
            let (_, peer) = loopback(family);
            let mut sender = Sender::new(peer);
            let mut ports = Vec::new();
            for _ in 0..4 {
                sender.send(b"nobody listens there");
                ports.push(sender.socket.as_ref().unwrap().local_addr().unwrap().port());
            }
            ports.dedup();
            assert_eq!(ports.len(), 1, "{ports:?}");
            assert!(SOURCE_PORTS.contains(&ports[0]));
        }
    }

    #[test]
    fn a_taken_port_is_no_obstacle() {
        let (_, peer) = loopback(Family::V6);
        let mut first = Sender::new(peer.clone());
        first.send(b"");
        let mut second = Sender::new(peer);
        second.port = first.port;
        second.send(b"");
        assert!(second.socket.is_some());
        assert_ne!(second.port, first.port);
    }
}
