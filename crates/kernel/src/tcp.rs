//! What routing protocols ask of a TCP socket beyond the ordinary: signed segments, and segments that
//! can't have come from far away.

use std::{
    io,
    mem::size_of,
    net::{IpAddr, SocketAddr},
    os::fd::{AsRawFd, BorrowedFd},
};

use hextet_types::Family;
use socket2::{SockAddr, SockAddrStorage};

/// Longest key of TCP MD5, in octets (`TCP_MD5SIG_MAXKEYLEN`).
pub const MAX_MD5_KEY: usize = 80;

/// `struct tcp_md5sig` of linux/tcp.h.
#[repr(C)]
struct Md5Signature {
    address: SockAddrStorage,
    flags: u8,
    prefix_length: u8,
    key_length: u16,
    interface: libc::c_int,
    key: [u8; MAX_MD5_KEY],
}

/// Signs segments to that address, and takes none from it that are not signed so (RFC 2385). On a
/// listening socket it holds for the connections that it accepts; an empty key takes the key away.
///
/// # Errors
///
/// The key is longer than [`MAX_MD5_KEY`], the address is not of the socket's family, or the kernel
/// has no TCP MD5.
pub fn set_md5_key(fd: BorrowedFd<'_>, remote: IpAddr, key: &[u8]) -> io::Result<()> {
    let mut signature = Md5Signature {
        address: SockAddr::from(SocketAddr::new(remote, 0)).as_storage(),
        flags: 0,
        prefix_length: 0,
        key_length: 0,
        interface: 0,
        key: [0; MAX_MD5_KEY],
    };
    let room = signature
        .key
        .get_mut(..key.len())
        .ok_or(io::ErrorKind::InvalidInput)?;
    room.copy_from_slice(key);
    signature.key_length = u16::try_from(key.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    set(fd, libc::IPPROTO_TCP, libc::TCP_MD5SIG, &signature)
}

/// Drops what arrives with a smaller TTL or hop limit than this (RFC 5082; `IP_MINTTL` and
/// `IPV6_MINHOPCOUNT`); 0 drops nothing. A listening socket hands it on to what it accepts.
///
/// # Errors
///
/// The socket is of the other family.
pub fn set_min_hop_limit(fd: BorrowedFd<'_>, family: Family, least: u8) -> io::Result<()> {
    let least = libc::c_int::from(least);
    match family {
        Family::V4 => set(fd, libc::IPPROTO_IP, libc::IP_MINTTL, &least),
        Family::V6 => set(fd, libc::IPPROTO_IPV6, libc::IPV6_MINHOPCOUNT, &least),
    }
}

#[allow(unsafe_code)]
fn set<T>(fd: BorrowedFd<'_>, level: i32, option: i32, value: &T) -> io::Result<()> {
    let length =
        libc::socklen_t::try_from(size_of::<T>()).map_err(|_| io::ErrorKind::InvalidInput)?;
    let pointer = std::ptr::from_ref(value).cast();
    // SAFETY: the pointer is a live reference to `length` octets, which the kernel only reads, and the
    // descriptor is open for as long as it is borrowed.
    let result = unsafe { libc::setsockopt(fd.as_raw_fd(), level, option, pointer, length) };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read, Write},
        net::{TcpListener, TcpStream},
        os::fd::AsFd,
        time::Duration,
    };

    use socket2::{Domain, Socket, Type};

    use super::*;

    const LOOPBACK: [&str; 2] = ["127.0.0.1", "::1"];

    fn listener(address: IpAddr) -> TcpListener {
        TcpListener::bind(SocketAddr::new(address, 0)).unwrap()
    }

    fn client(address: IpAddr) -> Socket {
        Socket::new(
            Domain::for_address(SocketAddr::new(address, 0)),
            Type::STREAM,
            None,
        )
        .unwrap()
    }

    /// Whether a connection with these keys at its ends comes up within half a second, and carries data.
    fn connects(address: IpAddr, ours: Option<&[u8]>, theirs: Option<&[u8]>) -> bool {
        let listener = listener(address);
        let client = client(address);
        if let Some(key) = ours {
            set_md5_key(client.as_fd(), address, key).unwrap();
        }
        if let Some(key) = theirs {
            set_md5_key(listener.as_fd(), address, key).unwrap();
        }
        let target = listener.local_addr().unwrap().into();
        if client
            .connect_timeout(&target, Duration::from_millis(500))
            .is_err()
        {
            return false;
        }
        let (mut accepted, _) = listener.accept().unwrap();
        accepted.write_all(b"signed").unwrap();
        let mut read = [0; 6];
        TcpStream::from(client).read_exact(&mut read).unwrap();
        read == *b"signed"
    }

    #[test]
    fn only_equal_keys_connect() {
        for address in LOOPBACK.map(|text| text.parse().unwrap()) {
            assert!(
                connects(address, Some(b"secret"), Some(b"secret")),
                "{address}"
            );
            assert!(
                !connects(address, Some(b"secret"), Some(b"another")),
                "{address}"
            );
            assert!(!connects(address, None, Some(b"secret")), "{address}");
            assert!(
                connects(address, Some(&[7; MAX_MD5_KEY]), Some(&[7; MAX_MD5_KEY])),
                "{address}"
            );
        }
    }

    #[test]
    fn a_key_has_at_most_80_octets_and_an_address_of_the_socket_s_family() {
        let [v4, v6] = LOOPBACK.map(|text| text.parse::<IpAddr>().unwrap());
        let socket = client(v4);
        let error = set_md5_key(socket.as_fd(), v4, &[7; MAX_MD5_KEY + 1]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
        assert!(set_md5_key(socket.as_fd(), v6, b"secret").is_err());
    }

    #[test]
    fn what_comes_from_afar_is_dropped() {
        for address in LOOPBACK.map(|text| text.parse().unwrap()) {
            let listener = listener(address);
            set_min_hop_limit(listener.as_fd(), Family::of(address), 255).unwrap();
            for (hop_limit, expected) in [(254, false), (255, true)] {
                let client = client(address);
                match Family::of(address) {
                    Family::V4 => client.set_ttl_v4(hop_limit).unwrap(),
                    Family::V6 => client.set_unicast_hops_v6(hop_limit).unwrap(),
                }
                let target = listener.local_addr().unwrap().into();
                let connected = client.connect_timeout(&target, Duration::from_millis(500));
                assert_eq!(connected.is_ok(), expected, "{address} with {hop_limit}");
            }
        }
    }
}
