//! Datagrams in two fragments each, made by hand: so that those of two senders have the same addresses, ports and
//! identification, and lie between each other.

use std::{
    net::{IpAddr, SocketAddr, UdpSocket},
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use hextet_lab::Node;
use socket2::{Domain, Protocol, Socket, Type};

/// Octets of a datagram behind the IP header: more than one packet carries.
const DATAGRAM: usize = 2000;
/// Of these, what the first fragment has: a multiple of 8.
const FIRST: usize = 1200;
const PORT: u16 = 4242;
const UDP: u8 = 17;
/// The next header of IPv6 that says that it is a fragment (RFC 8200 §4.5).
const FRAGMENT: u8 = 44;
/// Sockets of this protocol send packets as they are.
const RAW: i32 = 255;

/// Who sends to whom, and the octet that all its datagrams are full of.
pub struct Sender {
    from: IpAddr,
    to: IpAddr,
    filling: u8,
    socket: Socket,
}

impl Sender {
    /// In that place.
    ///
    /// # Errors
    ///
    /// The socket can't be made.
    pub fn new(place: &Node, [from, to]: [IpAddr; 2], filling: u8) -> Result<Sender> {
        let domain = Domain::for_address(SocketAddr::new(to, 0));
        let socket = place.enter(|| Socket::new(domain, Type::RAW, Some(Protocol::from(RAW))))?;
        Ok(Sender {
            from,
            to,
            filling,
            socket: socket.context("make a raw socket")?,
        })
    }

    /// Sends one of the two fragments of the datagram with that identification.
    ///
    /// # Errors
    ///
    /// It can't be sent.
    pub fn send(&self, id: u16, first: bool) -> Result<()> {
        let datagram = self.datagram();
        let (head, tail) = datagram.split_at(FIRST);
        let (part, offset) = if first { (head, 0) } else { (tail, FIRST) };
        let packet = [self.header(id, part.len(), offset), part.to_vec()].concat();
        let to = SocketAddr::new(self.to, 0).into();
        self.socket
            .send_to(&packet, &to)
            .with_context(|| format!("send a fragment to {}", self.to))?;
        Ok(())
    }

    fn header(&self, id: u16, octets: usize, offset: usize) -> Vec<u8> {
        // The offset counts in units of 8 octets, and is not in the lowest bits of both families' fields.
        let offset = u16::try_from(offset).unwrap_or_default();
        let more = offset == 0;
        let octets = u16::try_from(octets).unwrap_or_default();
        match (self.from, self.to) {
            (IpAddr::V4(from), IpAddr::V4(to)) => {
                let field = (offset / 8) | if more { 0x2000 } else { 0 };
                let mut header = vec![0x45, 0];
                header.extend((octets + 20).to_be_bytes());
                header.extend(id.to_be_bytes());
                header.extend(field.to_be_bytes());
                // The kernel fills the checksum in.
                header.extend([64, UDP, 0, 0]);
                header.extend([from.octets(), to.octets()].concat());
                header
            }
            (from, to) => {
                let mut header = vec![0x60, 0, 0, 0];
                header.extend((octets + 8).to_be_bytes());
                header.extend([FRAGMENT, 64]);
                header.extend([octets_of(from), octets_of(to)].concat());
                header.extend([UDP, 0]);
                header.extend((offset | u16::from(more)).to_be_bytes());
                header.extend(u32::from(id).to_be_bytes());
                header
            }
        }
    }

    fn datagram(&self) -> Vec<u8> {
        let mut datagram = [PORT.to_be_bytes(), PORT.to_be_bytes()].concat();
        let octets = u16::try_from(DATAGRAM).unwrap_or_default().to_be_bytes();
        datagram.extend([octets[0], octets[1], 0, 0]);
        datagram.resize(DATAGRAM, self.filling);
        let pseudo = [octets_of(self.from), octets_of(self.to)].concat();
        let parts = [&pseudo[..], &octets, &[0, UDP], &datagram];
        let sum = checksum(&parts.concat());
        datagram[6..8].copy_from_slice(&sum.to_be_bytes());
        datagram
    }
}

fn octets_of(addr: IpAddr) -> Vec<u8> {
    match addr {
        IpAddr::V4(addr) => addr.octets().to_vec(),
        IpAddr::V6(addr) => addr.octets().to_vec(),
    }
}

/// Of an even number of octets (RFC 1071); never 0, which would mean that there is none.
fn checksum(octets: &[u8]) -> u16 {
    let words = octets.chunks_exact(2);
    let mut sum: u32 = words
        .map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1]))
        .sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    match !(sum as u16) {
        0 => 0xffff,
        sum => sum,
    }
}

/// Who hears the datagrams.
pub struct Receiver(UdpSocket);

impl Receiver {
    /// In that place, at that address of it.
    ///
    /// # Errors
    ///
    /// The socket can't be made.
    pub fn new(place: &Node, at: IpAddr) -> Result<Receiver> {
        let socket = place.enter(|| {
            let socket = UdpSocket::bind((at, PORT))?;
            socket.set_read_timeout(Some(Duration::from_millis(200)))?;
            std::io::Result::Ok(socket)
        })?;
        Ok(Receiver(socket.with_context(|| format!("listen at {at}"))?))
    }

    /// Hears until `wanted` datagrams have come or nothing more does; gives how many were whole and of that filling,
    /// and how many were anything else.
    ///
    /// # Errors
    ///
    /// The socket fails.
    pub fn hear(&self, wanted: usize, filling: u8) -> Result<(usize, usize)> {
        let (mut right, mut wrong) = (0, 0);
        let mut buffer = vec![0; 2 * DATAGRAM];
        let end = Instant::now() + Duration::from_secs(5);
        while right < wanted && Instant::now() < end {
            let Ok(octets) = self.0.recv(&mut buffer) else {
                continue;
            };
            let whole = octets == DATAGRAM - 8;
            match whole && buffer[..octets].iter().all(|octet| *octet == filling) {
                true => right += 1,
                false => wrong += 1,
            }
        }
        // Nothing that was not for it comes after, either.
        while self.0.recv(&mut buffer).is_ok() {
            wrong += 1;
        }
        Ok((right, wrong))
    }
}
