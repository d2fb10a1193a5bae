//! What a process asks of UDP sockets that share a port.

use std::{
    io,
    mem::size_of,
    os::fd::{AsRawFd, BorrowedFd},
};

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
