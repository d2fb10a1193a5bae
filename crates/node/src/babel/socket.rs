//! Babel's socket: one for all links, which knows where each packet came from and went to (RFC 8966 §4).

use std::{
    io::{self, IoSlice, IoSliceMut},
    net::{Ipv6Addr, SocketAddrV6},
    os::fd::AsRawFd,
};

use anyhow::{Context, Result};
use hextet_babel::{GROUP, LinkId, PORT};
use nix::{
    cmsg_space,
    libc::{in6_addr, in6_pktinfo},
    sys::socket::{
        ControlMessage, ControlMessageOwned, MsgFlags, SockaddrIn6, recvmsg, sendmsg, setsockopt,
        sockopt,
    },
};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::{io::Interest, net::UdpSocket};
use tracing::debug;

/// Octets of the longest packet that is taken: what a link of 64 KiB may bring.
const PAYLOAD: usize = 65_535;
/// Class selector 6, network control (RFC 4594 §3.1), as a traffic class octet.
const NETWORK_CONTROL: u32 = 0xc0;

/// A packet that has come.
#[derive(Debug)]
pub struct Datagram {
    pub link: LinkId,
    pub from: Ipv6Addr,
    pub to: Ipv6Addr,
    pub octets: Vec<u8>,
}

/// Opens it. It does not belong to a runtime yet.
///
/// # Errors
///
/// The port is taken.
pub fn open() -> Result<Socket> {
    let open = || -> io::Result<Socket> {
        let socket = Socket::new(Domain::IPV6, Type::DGRAM, Some(Protocol::UDP))?;
        socket.set_nonblocking(true)?;
        socket.set_only_v6(true)?;
        socket.set_multicast_loop_v6(false)?;
        socket.set_multicast_hops_v6(1)?;
        socket.set_unicast_hops_v6(1)?;
        socket.set_tclass_v6(NETWORK_CONTROL)?;
        setsockopt(&socket, sockopt::Ipv6RecvPacketInfo, &true)?;
        socket.bind(&SocketAddrV6::new(Ipv6Addr::UNSPECIFIED, PORT, 0, 0).into())?;
        Ok(socket)
    };
    open().with_context(|| {
        format!("listen for Babel on UDP port {PORT}; does another Babel program run here?")
    })
}

/// Hears what is said to all on a link, or no more.
///
/// # Errors
///
/// There is no such link.
pub fn hear(socket: &UdpSocket, link: LinkId, is_up: bool) -> io::Result<()> {
    let done = match is_up {
        true => socket.join_multicast_v6(&GROUP, link.0),
        false => socket.leave_multicast_v6(&GROUP, link.0),
    };
    match done {
        // It heard, or did not, before.
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::AddrNotAvailable => Ok(()),
        done => done,
    }
}

/// The next packet that says where it came from; none when none waits.
pub fn receive(socket: &UdpSocket) -> Option<Datagram> {
    loop {
        match socket.try_io(Interest::READABLE, || read(socket)) {
            Ok(Some(datagram)) => return Some(datagram),
            Ok(None) => {}
            Err(error) => {
                if error.kind() != io::ErrorKind::WouldBlock {
                    debug!(%error, "read a Babel packet");
                }
                return None;
            }
        }
    }
}

fn read(socket: &UdpSocket) -> io::Result<Option<Datagram>> {
    let mut payload = vec![0; PAYLOAD];
    let mut control = cmsg_space!(in6_pktinfo);
    let mut iov = [IoSliceMut::new(&mut payload)];
    let flags = MsgFlags::MSG_DONTWAIT;
    let message = recvmsg::<SockaddrIn6>(socket.as_raw_fd(), &mut iov, Some(&mut control), flags)?;
    let source = message.address;
    let arrival = message.cmsgs()?.find_map(|item| match item {
        ControlMessageOwned::Ipv6PacketInfo(info) => Some(info),
        _ => None,
    });
    let octets = message.bytes;
    payload.truncate(octets);
    // Neighbours speak from the same port (RFC 8966 §4).
    let source = source.filter(|source| source.port() == PORT);
    Ok(source.zip(arrival).map(|(source, arrival)| Datagram {
        link: LinkId(arrival.ipi6_ifindex),
        from: source.ip(),
        to: Ipv6Addr::from(arrival.ipi6_addr.s6_addr),
        octets: payload,
    }))
}

/// Sends a packet on a link, from that address. It is the protocol's business if it does not arrive.
pub fn send(socket: &UdpSocket, link: LinkId, from: Ipv6Addr, to: Ipv6Addr, octets: &[u8]) {
    let target = SockaddrIn6::from(SocketAddrV6::new(to, PORT, 0, link.0));
    let info = in6_pktinfo {
        ipi6_addr: in6_addr {
            s6_addr: from.octets(),
        },
        ipi6_ifindex: link.0,
    };
    let control = [ControlMessage::Ipv6PacketInfo(&info)];
    let iov = [IoSlice::new(octets)];
    let flags = MsgFlags::MSG_DONTWAIT;
    if let Err(error) = sendmsg(socket.as_raw_fd(), &iov, &control, flags, Some(&target)) {
        debug!(%error, link = link.0, %to, "send a Babel packet");
    }
}

/// Asks neighbours' kernels for a sign of life (ICMPv6, RFC 4443 §4.1): no program has to run there. Whoever holds the tunnel sees that something
/// came back; the answers themselves are read by nobody.
#[derive(Debug)]
pub struct Echo(Socket);

impl Echo {
    /// Opens its socket.
    ///
    /// # Errors
    ///
    /// The right to send ICMPv6 is missing.
    pub fn open() -> Result<Echo> {
        let open = || -> io::Result<Socket> {
            let socket = Socket::new(Domain::IPV6, Type::RAW, Some(Protocol::ICMPV6))?;
            socket.set_nonblocking(true)?;
            // Nothing is read here, so that nothing may wait.
            setsockopt(&socket, sockopt::RcvBuf, &0)?;
            Ok(socket)
        };
        open()
            .map(Echo)
            .context("open a socket for ICMPv6 echo requests")
    }

    /// Sends one. It is the protocol's business if none comes back.
    pub fn send(&self, link: LinkId, to: Ipv6Addr) {
        // Type 128, code 0; the kernel fills in the checksum (RFC 3542 §3.1).
        let request = [128, 0, 0, 0, 0x68, 0x78, 0, 1];
        let to = SocketAddrV6::new(to, 0, 0, link.0);
        if let Err(error) = self.0.send_to(&request, &to.into()) {
            debug!(%error, link = link.0, %to, "send an ICMPv6 echo request");
        }
    }
}
