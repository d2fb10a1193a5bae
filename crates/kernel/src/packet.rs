//! One packet socket for all ports: router solicitations and DHCP of workloads come in by it, and answers
//! go out by it as whole Ethernet frames.
//!
//! It sees packets before tc does, and before any filter of the IP layer. What it sees is hostile. An eBPF
//! program, `bpf/requests.c`, picks what it takes in, and of each link 20 frames a second, 64 at once: all
//! links share its buffer, and its reader.

#![allow(
    unsafe_code,
    reason = "no safe interface makes an address of a packet socket"
)]

use std::{
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd},
};

use aya::{EbpfLoader, programs::SocketFilter};
use hextet_types::Mac;
use nix::sys::socket::{LinkAddr, recvfrom, setsockopt, sockopt};
use socket2::{Domain, SockAddr, SockFilter, Socket, Type};

use crate::error::{Error, chain};

const RECEIVE_BUFFER: usize = 4 << 20;
const ETH_P_ALL: u16 = 3;
const OBJECT: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/requests.o"));

/// A nonblocking packet socket that is bound to no link.
#[derive(Debug)]
pub struct PacketSocket(Socket);

impl PacketSocket {
    /// Opens one in the thread's network namespace. What it sends carries `mark`.
    pub fn open(mark: u32) -> Result<Self, Error> {
        Self::with_filter(mark, "limited_requests")
    }

    /// One that takes in as much as a link sends, to show what the limit is for.
    pub fn unlimited(mark: u32) -> Result<Self, Error> {
        Self::with_filter(mark, "all_requests")
    }

    fn with_filter(mark: u32, program: &str) -> Result<Self, Error> {
        let failed = |e: io::Error| Error::system("open a packet socket (needs CAP_NET_RAW)", e);
        // With no protocol it hears nothing until the filter stands.
        let socket = Socket::new(Domain::PACKET, Type::RAW, None).map_err(failed)?;
        attach(&socket, program)?;
        socket.set_nonblocking(true).map_err(failed)?;
        socket.set_mark(mark).map_err(failed)?;
        let _ = setsockopt(&socket, sockopt::RcvBufForce, &RECEIVE_BUFFER);
        socket
            .bind(&link_addr(0, ETH_P_ALL).map_err(failed)?)
            .map_err(failed)?;
        Ok(PacketSocket(socket))
    }

    /// One for a link alone, that takes in what has that Ethernet source address, and nothing else. It hears frames
    /// before tc does.
    pub fn of_sender(index: u32, sender: Mac) -> Result<Self, Error> {
        let failed = |e: io::Error| Error::system("open a packet socket for a link", e);
        let socket = Socket::new(Domain::PACKET, Type::RAW, None).map_err(failed)?;
        socket
            .attach_filter(&from_sender(sender))
            .and_then(|()| socket.set_nonblocking(true))
            .and_then(|()| socket.bind(&link_addr(index, ETH_P_ALL)?))
            .map_err(failed)?;
        Ok(PacketSocket(socket))
    }

    /// One for an uplink alone, that takes in what routers say to hosts (RFC 4861 §4.2): untagged, and not what leaves.
    pub fn of_routers(index: u32) -> Result<Self, Error> {
        Self::of_uplink(index, &FROM_ROUTERS)
    }

    /// Likewise, that takes in what DHCPv6 servers say to clients (RFC 8415 §7.2). A client of the host's own, which has the
    /// UDP port, is not in its way.
    pub fn of_dhcpv6_servers(index: u32) -> Result<Self, Error> {
        Self::of_uplink(index, &FROM_DHCPV6_SERVERS)
    }

    fn of_uplink(index: u32, filter: &[SockFilter]) -> Result<Self, Error> {
        let failed = |e: io::Error| Error::system("open a packet socket for an uplink", e);
        let socket = Socket::new(Domain::PACKET, Type::RAW, None).map_err(failed)?;
        socket
            .attach_filter(filter)
            .and_then(|()| socket.set_nonblocking(true))
            .and_then(|()| socket.bind(&link_addr(index, ETH_P_ALL)?))
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

const ADVERTISEMENT: u32 = 134;
const DHCPV6_CLIENT: u32 = 546;
const ICMPV6: u32 = 58;
const UDP: u32 = 17;
const OCTET_AT: u16 = 0x30;
const HALF_AT: u16 = 0x28;
const WORD_AT: u16 = 0x20;
const IF_EQUAL: u16 = 0x15;
const RETURN: u16 = 0x06;

const FROM_ROUTERS: [SockFilter; 12] = untagged_ipv6(ICMPV6, (OCTET_AT, 54), ADVERTISEMENT);
const FROM_DHCPV6_SERVERS: [SockFilter; 12] = untagged_ipv6(UDP, (HALF_AT, 56), DHCPV6_CLIENT);

/// Classic BPF: no tag and not outgoing (both are asked of the kernel, not of the packet), IPv6, its next header, and
/// something behind that.
const fn untagged_ipv6(next_header: u32, (load, at): (u16, u32), is: u32) -> [SockFilter; 12] {
    const OF_KERNEL: u32 = 0xffff_f000;
    const PACKET_TYPE: u32 = OF_KERNEL + 4;
    const TAG_PRESENT: u32 = OF_KERNEL + 48;
    const OUTGOING: u32 = 4;
    [
        SockFilter::new(WORD_AT, 0, 0, TAG_PRESENT),
        SockFilter::new(IF_EQUAL, 0, 9, 0),
        SockFilter::new(WORD_AT, 0, 0, PACKET_TYPE),
        SockFilter::new(IF_EQUAL, 7, 0, OUTGOING),
        SockFilter::new(HALF_AT, 0, 0, 12),
        SockFilter::new(IF_EQUAL, 0, 5, 0x86dd),
        SockFilter::new(OCTET_AT, 0, 0, 20),
        SockFilter::new(IF_EQUAL, 0, 3, next_header),
        SockFilter::new(load, 0, 0, at),
        SockFilter::new(IF_EQUAL, 0, 1, is),
        SockFilter::new(RETURN, 0, 0, 0xffff),
        SockFilter::new(RETURN, 0, 0, 0),
    ]
}

/// Classic BPF: the four octets at 6, and the two at 10, are the sender's; of the frame that is enough.
fn from_sender(sender: Mac) -> [SockFilter; 6] {
    let [a, b, c, d, e, f] = sender.octets();
    [
        SockFilter::new(WORD_AT, 0, 0, 6),
        SockFilter::new(IF_EQUAL, 0, 3, u32::from_be_bytes([a, b, c, d])),
        SockFilter::new(HALF_AT, 0, 0, 10),
        SockFilter::new(IF_EQUAL, 0, 1, u32::from_be_bytes([0, 0, e, f])),
        SockFilter::new(RETURN, 0, 0, 14),
        SockFilter::new(RETURN, 0, 0, 0),
    ]
}

/// The socket keeps its program, and that its map.
fn attach(socket: &Socket, name: &str) -> Result<(), Error> {
    let failed = |e: &dyn std::error::Error| Error::Program(chain(e));
    let mut ebpf = EbpfLoader::new()
        .btf(None)
        .load(OBJECT)
        .map_err(|e| failed(&e))?;
    let program: &mut SocketFilter = ebpf
        .program_mut(name)
        .ok_or_else(|| Error::Program(format!("no program {name}")))?
        .try_into()
        .map_err(|e| failed(&e))?;
    program.load().map_err(|e| failed(&e))?;
    program.attach(socket).map_err(|e| failed(&e))
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
