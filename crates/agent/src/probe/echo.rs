//! ICMP echo of both families over raw sockets (RFC 792, RFC 4443 §4). A socket for echo alone would need a group
//! that the host's `ping_group_range` admits.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    os::fd::AsRawFd,
};

use hextet_types::Family;
use nix::sys::socket::{SockaddrStorage, recvfrom};
use socket2::{Domain, Protocol, SockFilter, Socket, Type};

/// Class selector 6, network control (RFC 4594 §3.1), as a traffic class octet.
const NETWORK_CONTROL: u32 = 0xc0;
/// Type, code, checksum, identifier, sequence number, token.
const LENGTH: usize = 16;

const fn request_type(family: Family) -> u8 {
    match family {
        Family::V4 => 8,
        Family::V6 => 128,
    }
}

const fn reply_type(family: Family) -> u8 {
    match family {
        Family::V4 => 0,
        Family::V6 => 129,
    }
}

/// An echo request. The kernel adds the checksum of ICMPv6.
pub fn request(family: Family, id: u16, sequence: u16, token: u64) -> [u8; LENGTH] {
    let mut packet = [0; LENGTH];
    let fields = [
        &[request_type(family), 0, 0, 0][..],
        &id.to_be_bytes(),
        &sequence.to_be_bytes(),
        &token.to_be_bytes(),
    ];
    for (to, from) in packet.iter_mut().zip(fields.concat()) {
        *to = from;
    }
    if family == Family::V4 {
        let [high, low] = checksum(&packet).to_be_bytes();
        packet[2] = high;
        packet[3] = low;
    }
    packet
}

/// RFC 1071.
fn checksum(packet: &[u8; LENGTH]) -> u16 {
    let pairs = packet.chunks_exact(2);
    let sum: u32 = pairs
        .map(|pair| {
            pair.iter()
                .fold(0, |sum, octet| sum << 8 | u32::from(*octet))
        })
        .sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    !((folded & 0xffff) + (folded >> 16)) as u16
}

/// The token of an echo reply to one of our requests; none if it is something else. IPv4 comes with its header.
pub fn answer(family: Family, id: u16, packet: &[u8]) -> Option<u64> {
    let message = match family {
        Family::V4 => packet.get(usize::from(packet.first()? & 0xf) * 4..)?,
        Family::V6 => packet,
    };
    let (head, rest) = message.split_at_checked(8)?;
    let [kind, code, _, _, high, low, ..] = *head else {
        return None;
    };
    let ours = kind == reply_type(family) && code == 0 && u16::from_be_bytes([high, low]) == id;
    let token = rest
        .first_chunk()
        .filter(|_| ours && rest.len() == LENGTH - 8)?;
    Some(u64::from_be_bytes(*token))
}

/// A socket that sends from that address, and hears nothing but answers.
///
/// # Errors
///
/// The address is not this host's (yet), or the process may not.
pub fn open(own: IpAddr, id: u16) -> io::Result<Socket> {
    let family = Family::of(own);
    let (domain, protocol) = match family {
        Family::V4 => (Domain::IPV4, Protocol::ICMPV4),
        Family::V6 => (Domain::IPV6, Protocol::ICMPV6),
    };
    let socket = Socket::new(domain, Type::RAW, Some(protocol))?;
    socket.set_nonblocking(true)?;
    socket.attach_filter(&filter(family, id))?;
    match family {
        Family::V4 => socket.set_tos_v4(NETWORK_CONTROL)?,
        Family::V6 => socket.set_tclass_v6(NETWORK_CONTROL)?,
    }
    socket.bind(&SocketAddr::new(own, 0).into())?;
    Ok(socket)
}

/// Classic BPF: echo replies with our identifier, so that a flood of others does not wake us.
fn filter(family: Family, id: u16) -> Vec<SockFilter> {
    const HEADER_LENGTH: u16 = 0xb1;
    const OCTET_BEHIND: u16 = 0x50;
    const HALF_BEHIND: u16 = 0x48;
    const OCTET_AT: u16 = 0x30;
    const HALF_AT: u16 = 0x28;
    const IF_EQUAL: u16 = 0x15;
    const RETURN: u16 = 0x06;
    let (head, octet, half) = match family {
        Family::V4 => (
            Some(SockFilter::new(HEADER_LENGTH, 0, 0, 0)),
            OCTET_BEHIND,
            HALF_BEHIND,
        ),
        Family::V6 => (None, OCTET_AT, HALF_AT),
    };
    let rest = [
        SockFilter::new(octet, 0, 0, 0),
        SockFilter::new(IF_EQUAL, 0, 3, reply_type(family).into()),
        SockFilter::new(half, 0, 0, 4),
        SockFilter::new(IF_EQUAL, 0, 1, id.into()),
        SockFilter::new(RETURN, 0, 0, u32::from(u16::MAX)),
        SockFilter::new(RETURN, 0, 0, 0),
    ];
    head.into_iter().chain(rest).collect()
}

/// The next packet that waits, and where it came from; a longer one is cut.
///
/// # Errors
///
/// None waits (`WouldBlock`), or the socket is broken.
pub fn receive(socket: &Socket, packet: &mut [u8]) -> io::Result<(usize, IpAddr)> {
    let (octets, from) = recvfrom::<SockaddrStorage>(socket.as_raw_fd(), packet)?;
    let from = from.as_ref().and_then(|from| {
        let v4 = from.as_sockaddr_in().map(|a| IpAddr::V4(a.ip()));
        v4.or_else(|| from.as_sockaddr_in6().map(|a| IpAddr::V6(a.ip())))
    });
    let from = from.ok_or(io::ErrorKind::InvalidData)?;
    Ok((octets, from))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const V4: [u8; 16] = [
        8, 0, 0x95, 0xd4, 0x12, 0x34, 0, 7, 1, 2, 3, 4, 5, 6, 7, 0xb8,
    ];

    /// What comes back.
    fn reply(family: Family, request: &[u8]) -> Vec<u8> {
        let header = match family {
            Family::V4 => vec![0x45; 20],
            Family::V6 => Vec::new(),
        };
        let mut reply = [header.as_slice(), request].concat();
        reply[header.len()] = reply_type(family);
        reply
    }

    #[test]
    fn a_request_is_as_rfc_792_has_it() {
        let packet = request(Family::V4, 0x1234, 7, 0x0102_0304_0506_07b8);
        assert_eq!(packet[..2], V4[..2]);
        assert_eq!(packet[4..], V4[4..]);
        let sum: u32 = packet
            .chunks(2)
            .map(|p| u32::from(u16::from_be_bytes([p[0], p[1]])))
            .sum();
        assert_eq!((sum & 0xffff) + (sum >> 16), 0xffff, "RFC 1071 §1");
        let packet = request(Family::V6, 0x1234, 7, 9);
        assert_eq!(packet[..4], [128, 0, 0, 0]);
    }

    #[test]
    fn an_answer_brings_the_token_back() {
        for family in Family::BOTH {
            let reply = reply(family, &request(family, 77, 1, 0xdead_beef));
            assert_eq!(answer(family, 77, &reply), Some(0xdead_beef));
            assert_eq!(answer(family, 78, &reply), None, "somebody else's");
            let longer = [reply.as_slice(), &[0]].concat();
            assert_eq!(answer(family, 77, &longer), None);
            for length in 0..reply.len() {
                assert_eq!(answer(family, 77, &reply[..length]), None);
            }
            let request = request(family, 77, 1, 1);
            assert_eq!(answer(family, 77, &request), None);
        }
    }

    proptest! {
        #[test]
        fn nothing_that_comes_does_harm(packet in prop::collection::vec(any::<u8>(), 0..80), id: u16) {
            for family in Family::BOTH {
                answer(family, id, &packet);
            }
        }
    }

    #[test]
    fn the_kernel_answers_for_itself() {
        for family in Family::BOTH {
            let own: IpAddr = match family {
                Family::V4 => "127.0.0.1".parse().unwrap(),
                Family::V6 => "::1".parse().unwrap(),
            };
            let (socket, other) = (open(own, 0x4711).unwrap(), open(own, 0x4712).unwrap());
            let to = SocketAddr::new(own, 0).into();
            socket.set_nonblocking(false).unwrap();
            let limit = std::time::Duration::from_secs(5);
            socket.set_read_timeout(Some(limit)).unwrap();
            socket
                .send_to(&request(family, 0x4711, 1, 42), &to)
                .unwrap();
            let mut packet = [0; 128];
            let (octets, from) = receive(&socket, &mut packet).unwrap();
            assert_eq!(from, own);
            assert_eq!(answer(family, 0x4711, &packet[..octets]), Some(42));
            let nothing = receive(&other, &mut packet).unwrap_err();
            assert_eq!(nothing.kind(), io::ErrorKind::WouldBlock, "the filter");
        }
    }
}
