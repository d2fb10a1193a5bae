//! Letters: datagrams on a door whose first octet is 0. The process carries them between its doors and whoever drives the node, and reads
//! none of them.
//!
//! Beside the process's socket there are two of datagrams: `SOCKET.letters`, where the process takes what is to be sent, and
//! `SOCKET.reader`, where the driver takes what has come. Each datagram is the door's address, whether the
//! other is reached by UDP (0) or a stream (1), the other's address, and the letter. What nobody
//! reads in time is lost, as on any network.

use std::{
    ffi::OsString,
    fs, io,
    net::{Ipv6Addr, SocketAddr, SocketAddrV6},
    os::{
        fd::{AsFd, AsRawFd as _, BorrowedFd},
        unix::{fs::PermissionsExt as _, net::UnixDatagram},
    },
    path::{Path, PathBuf},
    time::Duration,
};

use hextet_types::Way;
use nix::sys::socket::{MsgFlags, UnixAddr, recv, sendto};

/// Octets of a letter at most: what passes everywhere in one piece (1,280) without the headers of IPv6 and UDP.
pub const MAX_LETTER: usize = 1_232;
const ADDRESS: usize = 22;
const HEADER: usize = 2 * ADDRESS + 1;
/// How long the process may be busy until a letter is given up.
const BUSY: Duration = Duration::from_millis(50);

/// A letter on its way between a door and whoever drives the node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Letter {
    /// The door, by its address; `[::]:0`, on the way out, for the first one of the other's family.
    pub door: SocketAddr,
    /// Who wrote it, or is to read it. What came by a stream has no door, and what goes by one takes of a door only its uplink.
    pub other: Way,
    /// It begins with 0, and has [`MAX_LETTER`] octets at most.
    pub octets: Vec<u8>,
}

impl Letter {
    pub(crate) fn encode(&self) -> Option<Vec<u8>> {
        if !is_letter(&self.octets) {
            return None;
        }
        let mut datagram = Vec::with_capacity(HEADER + self.octets.len());
        write(&mut datagram, self.door);
        datagram.push(u8::from(self.other.tls().is_some()));
        write(&mut datagram, self.other.address());
        datagram.extend_from_slice(&self.octets);
        Some(datagram)
    }

    pub(crate) fn decode(datagram: &[u8]) -> Option<Letter> {
        let (door, rest) = address(datagram)?;
        let (kind, rest) = rest.split_first()?;
        let (other, octets) = address(rest)?;
        let other = match kind {
            0 => Way::Udp(other),
            1 => Way::Tls(other),
            _ => return None,
        };
        is_letter(octets).then(|| Letter {
            door,
            other,
            octets: octets.to_vec(),
        })
    }
}

pub(crate) fn is_letter(octets: &[u8]) -> bool {
    octets.first() == Some(&0) && octets.len() <= MAX_LETTER
}

fn write(datagram: &mut Vec<u8>, address: SocketAddr) {
    let (ip, link) = match address {
        SocketAddr::V4(address) => (address.ip().to_ipv6_mapped(), 0),
        SocketAddr::V6(address) => (*address.ip(), address.scope_id()),
    };
    datagram.extend_from_slice(&ip.octets());
    datagram.extend_from_slice(&address.port().to_be_bytes());
    datagram.extend_from_slice(&link.to_be_bytes());
}

fn address(octets: &[u8]) -> Option<(SocketAddr, &[u8])> {
    let (ip, rest) = octets.split_first_chunk::<16>()?;
    let (port, rest) = rest.split_first_chunk()?;
    let (link, rest) = rest.split_first_chunk()?;
    let (ip, port) = (Ipv6Addr::from(*ip), u16::from_be_bytes(*port));
    let address = match ip.to_ipv4_mapped() {
        Some(ip) => SocketAddr::new(ip.into(), port),
        // A link-local address means something on its link alone.
        None => SocketAddrV6::new(ip, port, 0, u32::from_be_bytes(*link)).into(),
    };
    Some((address, rest))
}

/// The driver's side.
#[derive(Debug)]
pub struct Post {
    socket: UnixDatagram,
}

impl Post {
    /// Reads the letters of the process at `socket` from now on, instead of whoever did so before.
    ///
    /// # Errors
    ///
    /// There is no process, or no right to control it.
    pub fn bind(socket: &Path) -> io::Result<Post> {
        let own = bind(&beside(socket, "reader"))?;
        // Connected, it may have more unread than the few datagrams that the system grants to others.
        own.connect(beside(socket, "letters"))?;
        own.set_write_timeout(Some(BUSY))?;
        Ok(Post { socket: own })
    }

    /// Sends a letter.
    ///
    /// # Errors
    ///
    /// `InvalidInput`: it is none. `WouldBlock`: the process is busy. Otherwise that one is gone, and another may have begun:
    /// [`Post::bind`] again.
    pub fn send(&self, letter: &Letter) -> io::Result<()> {
        let datagram = letter.encode().ok_or(io::ErrorKind::InvalidInput)?;
        self.socket.send(&datagram).map(drop)
    }

    /// The next letter that has come; nothing if there is none, without waiting.
    ///
    /// # Errors
    ///
    /// The process is gone.
    pub fn try_recv(&self) -> io::Result<Option<Letter>> {
        let mut datagram = [0; HEADER + MAX_LETTER + 1];
        loop {
            let came = recv(
                self.socket.as_raw_fd(),
                &mut datagram,
                MsgFlags::MSG_DONTWAIT,
            );
            match came.map_err(io::Error::from) {
                Ok(len) => {
                    let letter = datagram.get(..len).and_then(Letter::decode);
                    if letter.is_some() {
                        return Ok(letter);
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }
}

impl AsFd for Post {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// The process's side.
#[derive(Debug)]
pub(crate) struct Letters {
    socket: UnixDatagram,
    reader: PathBuf,
}

impl Letters {
    pub(crate) fn bind(socket: &Path) -> io::Result<Letters> {
        Ok(Letters {
            socket: bind(&beside(socket, "letters"))?,
            reader: beside(socket, "reader"),
        })
    }

    /// To whoever reads them; nobody waits for that one.
    pub(crate) fn deliver(&self, letter: &Letter) {
        let Some(datagram) = letter.encode() else {
            return;
        };
        if let Ok(reader) = UnixAddr::new(&self.reader) {
            let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
            let _ = sendto(self.socket.as_raw_fd(), &datagram, &reader, flags);
        }
    }

    /// The next one that is to be sent, as soon as there is one; nothing if it was none.
    pub(crate) fn next(&self) -> io::Result<Option<Letter>> {
        let mut datagram = [0; HEADER + MAX_LETTER + 1];
        let len = self.socket.recv(&mut datagram)?;
        Ok(datagram.get(..len).and_then(Letter::decode))
    }
}

fn beside(socket: &Path, what: &str) -> PathBuf {
    let mut path = OsString::from(socket);
    path.push(".");
    path.push(what);
    path.into()
}

fn bind(path: &Path) -> io::Result<UnixDatagram> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let socket = UnixDatagram::bind(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn letter(door: &str, other: &str, len: usize) -> Letter {
        Letter {
            door: door.parse().unwrap(),
            other: other.parse().unwrap(),
            octets: vec![0; len],
        }
    }

    #[test]
    fn a_letter_has_both_addresses_before_it() {
        let v4 = letter("0.0.0.0:6697", "192.0.2.1:258", 2);
        let mut octets = [0; HEADER + 2];
        octets[10..12].copy_from_slice(&[0xff, 0xff]);
        octets[16..18].copy_from_slice(&6_697_u16.to_be_bytes());
        octets[33..41].copy_from_slice(&[0xff, 0xff, 192, 0, 2, 1, 1, 2]);
        assert_eq!(v4.encode().unwrap(), octets);
        for one in [
            v4,
            letter("[::]:0", "[2001:db8::1]:1", MAX_LETTER),
            letter("[::]:0", "tls:192.0.2.1:443", MAX_LETTER),
            letter("[::]:6697", "[fe80::1%7]:6697", 9),
        ] {
            assert_eq!(Letter::decode(&one.encode().unwrap()), Some(one));
        }
        assert_eq!(letter("[::]:0", "[::1]:1", 0).encode(), None);
        assert_eq!(letter("[::]:0", "[::1]:1", MAX_LETTER + 1).encode(), None);
        for len in 0..=HEADER {
            assert_eq!(Letter::decode(&octets[..len]), None);
        }
        octets[HEADER] = 4;
        assert_eq!(Letter::decode(&octets), None);
        (octets[ADDRESS], octets[HEADER]) = (2, 0);
        assert_eq!(Letter::decode(&octets), None);
    }

    #[test]
    fn what_nobody_reads_is_lost_and_a_reader_has_room_for_a_hundred() {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("tunnels");
        assert!(Post::bind(&socket).is_err());
        let letters = Letters::bind(&socket).unwrap();
        let one = letter("[::]:6697", "[2001:db8::1]:6697", 1_000);
        letters.deliver(&one);
        let first = Post::bind(&socket).unwrap();
        assert_eq!(first.try_recv().unwrap(), None);
        let post = Post::bind(&socket).unwrap();
        for _ in 0..100_000 {
            letters.deliver(&one);
        }
        for _ in 0..50 {
            assert_eq!(post.try_recv().unwrap(), Some(one.clone()));
        }
        assert_eq!(first.try_recv().unwrap(), None);
        post.send(&one).unwrap();
        assert_eq!(letters.next().unwrap(), Some(one));
        let invalid = post.send(&letter("[::]:0", "[::1]:1", 0)).unwrap_err();
        assert_eq!(invalid.kind(), io::ErrorKind::InvalidInput);
    }
}
