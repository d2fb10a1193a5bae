//! Datagrams of a tunnel's socket, many in one call: `UDP_SEGMENT` and `UDP_GRO` (udp(7)).

use std::{
    io::{self, IoSlice, IoSliceMut},
    net::{SocketAddr, SocketAddrV4, SocketAddrV6, UdpSocket},
    os::fd::{AsFd as _, AsRawFd as _},
    sync::{Mutex, PoisonError},
    time::Duration,
};

use hextet_kernel::udp::{self, Fragments};
use hextet_types::{Family, IfName, Way};
use nix::{
    cmsg_space,
    errno::Errno,
    sys::socket::{
        ControlMessage, ControlMessageOwned, MsgFlags, SockaddrLike as _, SockaddrStorage, recvmsg,
        sendmsg, sendto, setsockopt, sockopt,
    },
};
use socket2::{SockAddr, Socket, Type};

use crate::sockets;

/// Octets that come at once, at most, and more.
pub const MANY: usize = 66_000;
/// Datagrams that kernels take in one call (before 6.9).
pub const MAX_RUN: usize = 64;
/// Octets that they take in one call; UDP and IP need the rest.
const MAX_OCTETS: usize = 65_000;
const BUFFER: usize = 4 << 20;
/// How long an interface may take nothing until a datagram counts as unsent.
const STUCK: Duration = Duration::from_secs(1);

/// The socket of a tunnel: nobody else's datagrams come, none leave by another interface than its uplink.
pub fn open(listen: SocketAddr, uplink: Option<&IfName>, segments: bool) -> io::Result<UdpSocket> {
    let socket = prepare(listen, uplink)?;
    if segments {
        setsockopt(&socket, sockopt::UdpGroSegment, &true)?;
    }
    socket.bind(&SockAddr::from(listen))?;
    Ok(socket.into())
}

/// The socket of a door, which hears what no connected one of its port hears. Its datagrams come one by one, as each may be for another.
pub fn open_door(listen: SocketAddr, uplink: Option<&IfName>) -> io::Result<UdpSocket> {
    let socket = prepare(listen, uplink)?;
    socket.set_reuse_port(true)?;
    udp::first_gets_all(socket.as_fd())?;
    socket.bind(&SockAddr::from(listen))?;
    Ok(socket.into())
}

/// A socket at the same port that hears only the peer.
pub fn connect(
    door: SocketAddr,
    uplink: Option<&IfName>,
    peer: SocketAddr,
) -> io::Result<UdpSocket> {
    let socket = prepare(door, uplink)?;
    socket.set_reuse_port(true)?;
    setsockopt(&socket, sockopt::UdpGroSegment, &true)?;
    socket.bind(&SockAddr::from(door))?;
    socket.connect(&SockAddr::from(peer))?;
    Ok(socket.into())
}

fn prepare(address: SocketAddr, uplink: Option<&IfName>) -> io::Result<Socket> {
    let socket = sockets::open(address, Type::DGRAM, uplink)?;
    // Without the right to them they stay as they are.
    let _ = setsockopt(&socket, sockopt::RcvBufForce, &BUFFER);
    let _ = setsockopt(&socket, sockopt::SndBufForce, &BUFFER);
    socket.set_write_timeout(Some(STUCK))?;
    udp::fragments(socket.as_fd(), Family::of(address.ip()), Fragments::Allowed)?;
    Ok(socket)
}

/// Sends one datagram, or nothing if that takes a while.
pub fn try_send(socket: &UdpSocket, to: SocketAddr, octets: &[u8]) -> nix::Result<usize> {
    let to = SockaddrStorage::from(to);
    sendto(socket.as_raw_fd(), octets, &to, MsgFlags::MSG_DONTWAIT)
}

/// One at a time, as others send by the same socket.
static WHOLE: Mutex<()> = Mutex::new(());

/// Sends one datagram that nobody may fragment; others that leave at the same moment are not, either.
pub fn send_whole(socket: &UdpSocket, to: SocketAddr, octets: &[u8]) -> io::Result<()> {
    let _one = WHOLE.lock().unwrap_or_else(PoisonError::into_inner);
    let (fd, family) = (socket.as_fd(), Family::of(to.ip()));
    udp::fragments(fd, family, Fragments::Never)?;
    let sent = try_send(socket, to, octets);
    udp::fragments(fd, family, Fragments::Allowed)?;
    Ok(sent.map(drop)?)
}

/// Sends what was sealed.
#[derive(Debug)]
pub struct Sender {
    segments: bool,
}

impl Sender {
    /// One that sends many in one call, or doesn't.
    pub const fn new(segments: bool) -> Sender {
        Sender { segments }
    }

    /// Sends datagrams of these lengths, which stand one behind the other: how many were not sent.
    pub fn send(
        &mut self,
        socket: &UdpSocket,
        to: SocketAddr,
        mut octets: &[u8],
        mut lens: &[usize],
    ) -> u64 {
        let mut unsent = 0;
        while !lens.is_empty() {
            let count = if self.segments { run(lens) } else { 1 };
            let (now, later) = lens.split_at(count);
            let (run, rest) = octets.split_at(now.iter().sum::<usize>().min(octets.len()));
            unsent += self.send_run(socket, to, run, now);
            (octets, lens) = (rest, later);
        }
        unsent
    }

    fn send_run(
        &mut self,
        socket: &UdpSocket,
        to: SocketAddr,
        octets: &[u8],
        lens: &[usize],
    ) -> u64 {
        let address = SockaddrStorage::from(to);
        if let [first, _, ..] = lens {
            let size = *first as u16;
            let segments = [ControlMessage::UdpGsoSegments(&size)];
            match send_one(socket, octets, &segments, &address) {
                Ok(()) => return 0,
                // The network card finishes no checksums.
                Err(Errno::EIO) => self.segments = false,
                Err(Errno::EINVAL | Errno::EMSGSIZE) => {}
                Err(_) => return lens.len() as u64,
            }
        }
        let mut rest = octets;
        let mut unsent = 0;
        for len in lens {
            let (datagram, behind) = rest.split_at((*len).min(rest.len()));
            unsent += u64::from(send_one(socket, datagram, &[], &address).is_err());
            rest = behind;
        }
        unsent
    }
}

fn send_one(
    socket: &UdpSocket,
    octets: &[u8],
    control: &[ControlMessage<'_>],
    to: &SockaddrStorage,
) -> Result<(), Errno> {
    let slices = [IoSlice::new(octets)];
    sendmsg(
        socket.as_raw_fd(),
        &slices,
        control,
        MsgFlags::empty(),
        Some(to),
    )
    .map(drop)
}

/// How many of the first go together: all but the last as long as the first, the last no longer.
fn run(lens: &[usize]) -> usize {
    let Some(first) = lens.first() else {
        return 0;
    };
    let (mut count, mut total) = (1, *first);
    for len in lens.iter().skip(1).take(MAX_RUN - 1) {
        if len > first || total + len > MAX_OCTETS {
            break;
        }
        count += 1;
        total += len;
        if len < first {
            break;
        }
    }
    count
}

/// What came in one call.
#[derive(Clone, Copy, Debug)]
pub struct Came {
    /// Octets.
    pub len: usize,
    /// Of each datagram but the last; not 0.
    pub each: usize,
    /// Where from.
    pub from: Way,
}

/// What has come, without waiting for it; nothing if that is of no use.
pub fn receive(socket: &UdpSocket, into: &mut [u8]) -> io::Result<Option<Came>> {
    let mut control = cmsg_space!(i32);
    let mut slices = [IoSliceMut::new(into)];
    let flags = MsgFlags::MSG_DONTWAIT;
    let message =
        recvmsg::<SockaddrStorage>(socket.as_raw_fd(), &mut slices, Some(&mut control), flags)?;
    let each = message.cmsgs()?.find_map(|control| match control {
        ControlMessageOwned::UdpGroSegments(size) => usize::try_from(size).ok(),
        _ => None,
    });
    let len = message.bytes;
    let cut_off = message.flags.contains(MsgFlags::MSG_TRUNC);
    let from = message.address.as_ref().and_then(sender);
    Ok(from.filter(|_| len > 0 && !cut_off).map(|from| Came {
        len,
        each: each.unwrap_or(len).max(1),
        from: Way::Udp(from),
    }))
}

fn sender(address: &SockaddrStorage) -> Option<SocketAddr> {
    let v4 = || Some(SocketAddrV4::from(*address.as_sockaddr_in()?).into());
    let v6 = || Some(SocketAddrV6::from(*address.as_sockaddr_in6()?).into());
    address.family()?;
    v4().or_else(v6)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_is_what_the_kernel_cuts_again() {
        let long = vec![1_452; 100];
        for (lens, count) in [
            (&[][..], 0),
            (&[148], 1),
            (&[148, 1_452, 1_452], 1),
            (&[1_452, 1_452, 100, 1_452], 3),
            (&[1_452, 100, 100], 2),
            (&long, 44),
            (&[100; 70], 64),
        ] {
            assert_eq!(run(lens), count, "{lens:?}");
        }
    }

    #[test]
    fn what_is_sent_together_comes_apart_as_it_was_in_both_families() {
        for loopback in ["127.0.0.1:0", "[::1]:0"] {
            let (from, to) = (UdpSocket::bind(loopback), UdpSocket::bind(loopback));
            let (from, to) = (from.unwrap(), to.unwrap());
            to.set_read_timeout(Some(std::time::Duration::from_secs(5)))
                .unwrap();
            let lens = [148, 1_000, 1_000, 1_000, 7, 1_000];
            let octets: Vec<u8> = (0..lens.iter().sum()).map(|i: usize| i as u8).collect();
            for segments in [true, false] {
                let mut sender = Sender::new(segments);
                let at = to.local_addr().unwrap();
                assert_eq!(sender.send(&from, at, &octets, &lens), 0);
                let mut rest = &octets[..];
                for len in lens {
                    let mut datagram = [0; 2_000];
                    assert_eq!(to.recv(&mut datagram).unwrap(), len);
                    let (expected, behind) = rest.split_at(len);
                    assert!(&datagram[..len] == expected);
                    rest = behind;
                }
            }
        }
    }

    #[test]
    fn many_that_come_at_once_are_told_apart() {
        let to = UdpSocket::bind("127.0.0.1:0").unwrap();
        setsockopt(&to, sockopt::UdpGroSegment, &true).unwrap();
        let from = UdpSocket::bind("127.0.0.1:0").unwrap();
        let at = to.local_addr().unwrap();
        assert_eq!(
            Sender::new(true).send(&from, at, &[7; 2_500], &[1_000, 1_000, 500]),
            0
        );
        let mut into = vec![0; MANY];
        let (mut octets, mut datagrams) = (0, 0);
        while datagrams < 3 {
            let came = receive(&to, &mut into).unwrap().unwrap();
            assert_eq!(came.from, Way::Udp(from.local_addr().unwrap()));
            octets += came.len;
            datagrams += came.len.div_ceil(came.each);
        }
        assert_eq!((octets, datagrams), (2_500, 3));
        let none = receive(&to, &mut into).unwrap_err();
        assert_eq!(none.kind(), io::ErrorKind::WouldBlock);
    }
}
