//! What a process asks of UDP sockets: that they share a port, and who may fragment what they send.

use std::{
    ffi::c_int,
    io,
    mem::size_of,
    os::fd::{AsRawFd, BorrowedFd},
};

use hextet_types::Family;

/// `BPF_RET | BPF_K` of linux/bpf_common.h.
const RETURN: u16 = 0x06;

/// Of the sockets that are bound to this one's port and connected to nobody (`SO_REUSEPORT`), only the first gets what comes. Called
/// before the socket is bound, it has the port for itself at first: binding fails where there is any other.
///
/// # Errors
///
/// The socket does not share its port, or is bound already and alone.
pub fn first_gets_all(fd: BorrowedFd<'_>) -> io::Result<()> {
    let mut program = [libc::sock_filter {
        code: RETURN,
        jt: 0,
        jf: 0,
        k: 0,
    }];
    let program = libc::sock_fprog {
        len: 1,
        filter: program.as_mut_ptr(),
    };
    attach(fd, &program)
}

/// Who may fragment what a socket sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fragments {
    /// Whoever has to: this kernel, and, of IPv4, any router.
    Allowed,
    /// Nobody, whatever is known of the path: what is too large for the interface is refused (`EMSGSIZE`), what is for a router is lost.
    Never,
}

/// Decides that, of all that a socket sends from now on.
///
/// # Errors
///
/// It is no socket of that family.
pub fn fragments(fd: BorrowedFd<'_>, family: Family, who: Fragments) -> io::Result<()> {
    let (level, option, value) = match (family, who) {
        (Family::V4, Fragments::Allowed) => (
            libc::IPPROTO_IP,
            libc::IP_MTU_DISCOVER,
            libc::IP_PMTUDISC_DONT,
        ),
        (Family::V4, Fragments::Never) => (
            libc::IPPROTO_IP,
            libc::IP_MTU_DISCOVER,
            libc::IP_PMTUDISC_PROBE,
        ),
        (Family::V6, Fragments::Allowed) => (
            libc::IPPROTO_IPV6,
            libc::IPV6_MTU_DISCOVER,
            libc::IPV6_PMTUDISC_DONT,
        ),
        (Family::V6, Fragments::Never) => (
            libc::IPPROTO_IPV6,
            libc::IPV6_MTU_DISCOVER,
            libc::IPV6_PMTUDISC_PROBE,
        ),
    };
    set(fd, level, option, value)
}

#[allow(unsafe_code)]
fn set(fd: BorrowedFd<'_>, level: c_int, option: c_int, value: c_int) -> io::Result<()> {
    let length =
        libc::socklen_t::try_from(size_of::<c_int>()).map_err(|_| io::ErrorKind::InvalidInput)?;
    let pointer = std::ptr::from_ref(&value).cast();
    // SAFETY: the pointer is a live reference to `length` octets, which the kernel copies.
    let result = unsafe { libc::setsockopt(fd.as_raw_fd(), level, option, pointer, length) };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

#[allow(unsafe_code)]
fn attach(fd: BorrowedFd<'_>, program: &libc::sock_fprog) -> io::Result<()> {
    let length = libc::socklen_t::try_from(size_of::<libc::sock_fprog>())
        .map_err(|_| io::ErrorKind::InvalidInput)?;
    let option = libc::SO_ATTACH_REUSEPORT_CBPF;
    let pointer = std::ptr::from_ref(program).cast();
    // SAFETY: the pointer is a live reference to `length` octets, the instructions that it names outlive the call (their array stands in
    // the caller's frame), and the kernel copies both.
    let result =
        unsafe { libc::setsockopt(fd.as_raw_fd(), libc::SOL_SOCKET, option, pointer, length) };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

#[cfg(test)]
mod tests {
    use std::{
        net::{SocketAddr, UdpSocket},
        os::fd::AsFd as _,
        time::Duration,
    };

    use socket2::{Domain, Socket, Type};

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(5);

    fn shared(address: SocketAddr) -> Socket {
        let socket = Socket::new(Domain::for_address(address), Type::DGRAM, None).unwrap();
        socket.set_reuse_port(true).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket
    }

    fn hears(socket: &UdpSocket) -> Vec<u8> {
        let mut octets = [0; 100];
        let len = socket.recv(&mut octets).unwrap();
        octets[..len].to_vec()
    }

    #[test]
    fn the_first_gets_what_is_for_no_connected_one() {
        for loopback in ["127.0.0.1:0", "[::1]:0"] {
            let loopback: SocketAddr = loopback.parse().unwrap();
            let first = shared(loopback);
            first_gets_all(first.as_fd()).unwrap();
            first.bind(&loopback.into()).unwrap();
            let first = UdpSocket::from(first);
            let at = first.local_addr().unwrap();
            let others: Vec<Socket> = (0..8).map(|_| shared(at)).collect();
            for other in &others {
                other.bind(&at.into()).unwrap();
            }
            let known = UdpSocket::bind(loopback).unwrap();
            let connected = &others[3];
            let known_at = known.local_addr().unwrap();
            connected.connect(&known_at.into()).unwrap();
            for number in 0..50 {
                let stranger = UdpSocket::bind(loopback).unwrap();
                stranger.send_to(&[number], at).unwrap();
                assert_eq!(hears(&first), [number]);
            }
            known.send_to(b"known", at).unwrap();
            let connected = UdpSocket::from(connected.try_clone().unwrap());
            assert_eq!(hears(&connected), b"known");
        }
    }

    #[test]
    fn what_nobody_may_fragment_is_refused_where_it_is_too_large() {
        for (loopback, family) in [("127.0.0.1:0", Family::V4), ("[::1]:0", Family::V6)] {
            let from = UdpSocket::bind(loopback).unwrap();
            // An MTU of 65,536 less what goes around it.
            let octets = vec![0; 65_500 + if family == Family::V4 { 7 } else { 27 }];
            let at = from.local_addr().unwrap();
            fragments(from.as_fd(), family, Fragments::Allowed).unwrap();
            assert_eq!(from.send_to(&octets, at).unwrap(), octets.len());
            fragments(from.as_fd(), family, Fragments::Never).unwrap();
            let least = from.send_to(&octets[..1_400], at).unwrap();
            assert_eq!(least, 1_400);
            let other = match family {
                Family::V4 => Family::V6,
                Family::V6 => Family::V4,
            };
            let _ = fragments(from.as_fd(), other, Fragments::Never);
        }
    }

    #[test]
    fn a_port_that_somebody_shares_already_is_taken() {
        let taken = shared("[::1]:0".parse().unwrap());
        let any: SocketAddr = "[::1]:0".parse().unwrap();
        taken.bind(&any.into()).unwrap();
        let second = shared(any);
        first_gets_all(second.as_fd()).unwrap();
        let refused = second.bind(&taken.local_addr().unwrap()).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::AddrInUse);
        let alone = Socket::new(Domain::IPV6, Type::DGRAM, None).unwrap();
        assert!(first_gets_all(alone.as_fd()).is_err());
    }
}
