//! One packet socket for all ports: router solicitations and DHCP of workloads come in by it, and answers
//! go out by it as whole Ethernet frames.
//!
//! It sees packets before tc does, and before any filter of the IP layer. What it sees is hostile.

#![allow(
    unsafe_code,
    reason = "no safe interface makes an address of a packet socket"
)]

use std::{
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd},
};

use nix::sys::socket::{LinkAddr, recvfrom, setsockopt, sockopt};
use socket2::{Domain, SockAddr, SockFilter, Socket, Type};

use crate::error::Error;

const RECEIVE_BUFFER: usize = 4 << 20;
const ETH_P_ALL: u16 = 3;

/// A nonblocking packet socket that is bound to no link.
#[derive(Debug)]
pub struct PacketSocket(Socket);

impl PacketSocket {
    /// Opens one in the thread's network namespace. What it sends carries `mark`.
    pub fn open(mark: u32) -> Result<Self, Error> {
        let failed = |e: io::Error| Error::system("open a packet socket (needs CAP_NET_RAW)", e);
        // With no protocol it hears nothing until the filter stands.
        let socket = Socket::new(Domain::PACKET, Type::RAW, None).map_err(failed)?;
        socket.attach_filter(&filter()).map_err(failed)?;
        socket.set_nonblocking(true).map_err(failed)?;
        socket.set_mark(mark).map_err(failed)?;
        let _ = setsockopt(&socket, sockopt::RcvBufForce, &RECEIVE_BUFFER);
        socket
            .bind(&link_addr(0, ETH_P_ALL).map_err(failed)?)
            .map_err(failed)?;
        Ok(PacketSocket(socket))
    }

    /// The next frame, from its Ethernet header on: (index of the link, octets in `buf`). `WouldBlock` when
    /// there is none; a longer frame is cut off. A UDP checksum may be one that only a network card would
    /// have filled in.
    pub fn recv(&self, buf: &mut [u8]) -> io::Result<(u32, usize)> {
        let (len, from) = recvfrom::<LinkAddr>(self.0.as_raw_fd(), buf)?;
        let index = from
            .and_then(|from| u32::try_from(from.ifindex()).ok())
            .unwrap_or(0);
        Ok((index, len))
    }

    /// Sends a frame, from its Ethernet header on, by the link of that index. `ENOBUFS` says that it was
    /// dropped: the queue is full, or a port's program does not admit it.
    pub fn send(&self, index: u32, frame: &[u8]) -> io::Result<()> {
        self.0.send_to(frame, &link_addr(index, 0)?)?;
        Ok(())
    }
}

impl AsFd for PacketSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl AsRawFd for PacketSocket {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

/// `struct sockaddr_ll`, see packet(7).
fn link_addr(index: u32, protocol: u16) -> io::Result<SockAddr> {
    let index = i32::try_from(index).map_err(io::Error::other)?;
    let init = |storage: *mut socket2::SockAddrStorage, len: *mut libc::socklen_t| {
        let addr = storage.cast::<libc::sockaddr_ll>();
        // SAFETY: `storage` is zeroed and has room and alignment for every kind of address, and `len` is
        // valid for writing.
        unsafe {
            (*addr).sll_family = libc::AF_PACKET as u16;
            (*addr).sll_protocol = protocol.to_be();
            (*addr).sll_ifindex = index;
            *len = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
        }
        Ok(())
    };
    // SAFETY: `init` makes it a complete sockaddr_ll of that length.
    unsafe { SockAddr::try_init(init) }.map(|((), addr)| addr)
}

/// Lets pass, of what comes in untagged: router solicitations (RFC 4861), datagrams to the DHCPv4 server's
/// port (RFC 2131) and to the DHCPv6 server's (RFC 8415).
fn filter() -> Vec<SockFilter> {
    const LOAD_U16: u16 = 0x28;
    const LOAD_U8: u16 = 0x30;
    const LOAD_U16_INDEXED: u16 = 0x48;
    const INDEX_IP_HEADER: u16 = 0xb1;
    const RETURN: u16 = 0x06;
    const PACKET_TYPE: u32 = 0xffff_f004;
    const VLAN_TAG_PRESENT: u32 = 0xffff_f030;
    const OUTGOING: u32 = 4;
    const WHOLE: u32 = 0x4_0000;
    let op = |code, k| SockFilter::new(code, 0, 0, k);
    // Jumps are relative: how many instructions to pass over when equal, and when not.
    let equal = |k, yes, no| SockFilter::new(0x15, yes, no, k);
    let any_bit = |k, yes, no| SockFilter::new(0x45, yes, no, k);
    vec![
        op(LOAD_U8, PACKET_TYPE),
        equal(OUTGOING, 19, 0),
        op(LOAD_U8, VLAN_TAG_PRESENT),
        equal(0, 0, 17),
        op(LOAD_U16, 12),
        equal(0x86dd, 0, 7),
        op(LOAD_U8, 20),
        equal(58, 0, 2),
        op(LOAD_U8, 54),
        equal(133, 12, 11),
        equal(17, 0, 10),
        op(LOAD_U16, 56),
        equal(547, 9, 8),
        equal(0x0800, 0, 7),
        op(LOAD_U8, 23),
        equal(17, 0, 5),
        op(LOAD_U16, 20),
        any_bit(0x1fff, 3, 0),
        op(INDEX_IP_HEADER, 14),
        op(LOAD_U16_INDEXED, 16),
        equal(67, 1, 0),
        op(RETURN, 0),
        op(RETURN, WHOLE),
    ]
}
