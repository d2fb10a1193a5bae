//! By whom packets go to a destination: ICMP echo requests with rising hop limits, and what comes back (RFC 792, RFC 4443).
//!
//! What always holds: only what answers a request of this trace counts; it ends at the destination, where somebody says that it goes no further, after
//! some hops in a row from which nothing came, or at the most that there may be.

use std::{
    io::{ErrorKind, Read as _},
    mem::MaybeUninit,
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use hextet_types::Family;
use serde::Serialize;
use socket2::{Domain, Protocol, Socket, Type};

/// Hops at most.
pub const MAX_HOPS: u8 = 32;
/// How often each is asked.
const TRIES: u16 = 3;
/// For an answer.
const PATIENCE: Duration = Duration::from_millis(500);
/// So many in a row that say nothing end it.
const SILENT: u8 = 3;
/// Octets of an answer that are looked at.
const MAX_ANSWER: usize = 1_500;
const IPV6_HEADER: usize = 40;
const ICMP_HEADER: usize = 8;

/// A hop.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Hop {
    /// Counted from 1.
    pub number: u8,
    /// Who answered; nobody, if none.
    pub address: Option<IpAddr>,
    /// The least round trip, in milliseconds.
    pub round_trip_ms: Option<f64>,
    /// What the answer was.
    pub said: Said,
}

/// What came of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Said {
    /// "It has come as far as me."
    OnTheWay,
    /// "Here I am."
    Here,
    /// "There is no way further", or "I don't let it through".
    NoFurther,
    /// Nothing.
    Nothing,
}

/// One that sends and hears.
struct Prober {
    socket: Socket,
    to: IpAddr,
    ident: u16,
}

/// Traces; tells each hop as soon as it is known.
///
/// # Errors
///
/// The right to send is missing, or there is no way out of this host.
pub fn trace(to: IpAddr, mut tell: impl FnMut(Hop) -> Result<()>) -> Result<()> {
    let prober = Prober::open(to)?;
    let mut silent = 0;
    for number in 1..=MAX_HOPS {
        let hop = prober.ask(number)?;
        tell(hop)?;
        silent = match hop.said {
            Said::Here | Said::NoFurther => return Ok(()),
            Said::Nothing => silent + 1,
            Said::OnTheWay => 0,
        };
        if silent >= SILENT {
            return Ok(());
        }
    }
    Ok(())
}

impl Prober {
    fn open(to: IpAddr) -> Result<Prober> {
        let (domain, protocol) = match to {
            IpAddr::V4(_) => (Domain::IPV4, Protocol::ICMPV4),
            IpAddr::V6(_) => (Domain::IPV6, Protocol::ICMPV6),
        };
        let socket = Socket::new(domain, Type::RAW, Some(protocol));
        let socket = socket.context("send ICMP echo requests; that takes root")?;
        Ok(Prober {
            socket,
            to,
            ident: rand::random(),
        })
    }

    fn ask(&self, number: u8) -> Result<Hop> {
        let mut hop = Hop {
            number,
            address: None,
            round_trip_ms: None,
            said: Said::Nothing,
        };
        match self.to {
            IpAddr::V4(_) => self.socket.set_ttl_v4(number.into())?,
            IpAddr::V6(_) => self.socket.set_unicast_hops_v6(number.into())?,
        }
        for try_ in 0..TRIES {
            let sequence = u16::from(number) * TRIES + try_;
            let request = request(Family::of(self.to), self.ident, sequence);
            let sent = Instant::now();
            let result = self
                .socket
                .send_to(&request, &SocketAddr::new(self.to, 0).into());
            result.with_context(|| format!("send to {}", self.to))?;
            let Some((from, said)) = self.hear(sequence, sent + PATIENCE)? else {
                // Who has not answered once has little more time.
                continue;
            };
            let millis = sent.elapsed().as_secs_f64() * 1_000.0;
            let least = hop.round_trip_ms.map_or(millis, |least| least.min(millis));
            hop = Hop {
                address: Some(from),
                round_trip_ms: Some(least),
                said,
                ..hop
            };
        }
        Ok(hop)
    }

    fn hear(&self, sequence: u16, until: Instant) -> Result<Option<(IpAddr, Said)>> {
        let mut octets = [MaybeUninit::uninit(); MAX_ANSWER];
        loop {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(None);
            }
            self.socket.set_read_timeout(Some(left))?;
            let from = match self.socket.peek_from(&mut octets) {
                Ok((_, from)) => from.as_socket().map(|from| from.ip()),
                Err(error) if is_silence(error.kind()) => continue,
                Err(error) => return Err(error).context("hear answers"),
            };
            let mut packet = [0; MAX_ANSWER];
            let len = match (&self.socket).read(&mut packet) {
                Ok(len) => len,
                Err(error) if is_silence(error.kind()) => continue,
                Err(error) => return Err(error).context("hear answers"),
            };
            let packet = packet.get(..len).unwrap_or_default();
            let said = answer(Family::of(self.to), packet, (self.ident, sequence));
            if let (Some(from), Some(said)) = (from, said) {
                return Ok(Some((from, said)));
            }
        }
    }
}

const fn is_silence(kind: ErrorKind) -> bool {
    matches!(
        kind,
        ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted
    )
}

fn request(family: Family, ident: u16, sequence: u16) -> Vec<u8> {
    let kind = match family {
        Family::V4 => 8,
        Family::V6 => 128,
    };
    let [a, b] = ident.to_be_bytes();
    let [c, d] = sequence.to_be_bytes();
    let mut message = vec![kind, 0, 0, 0, a, b, c, d];
    message.extend_from_slice(b"hextet mesh trace");
    message.resize(32, 0);
    if family == Family::V4 {
        // Of IPv6 the kernel does that.
        let words = message.chunks(2).map(|pair| match *pair {
            [a, b] => u32::from(u16::from_be_bytes([a, b])),
            _ => 0,
        });
        let sum: u32 = words.sum();
        let sum = (sum & 0xffff) + (sum >> 16);
        let sum = !u16::try_from((sum & 0xffff) + (sum >> 16)).unwrap_or(0);
        message[2..4].copy_from_slice(&sum.to_be_bytes());
    }
    message
}

/// What a message says of that request, if anything. Of IPv4 it comes with its header.
pub(crate) fn answer(family: Family, packet: &[u8], request: (u16, u16)) -> Option<Said> {
    let message = match family {
        Family::V4 => behind_header(packet)?,
        Family::V6 => packet,
    };
    let header: &[u8; ICMP_HEADER] = message.first_chunk()?;
    let said = match (family, header[0]) {
        (Family::V4, 0) | (Family::V6, 129) => {
            return (echo(message)? == request).then_some(Said::Here);
        }
        (Family::V4, 11) | (Family::V6, 3) => Said::OnTheWay,
        (Family::V4, 3) | (Family::V6, 1) => Said::NoFurther,
        _ => return None,
    };
    let about = message.get(ICMP_HEADER..)?;
    let asked = match family {
        Family::V4 => behind_header(about)?,
        Family::V6 => about.get(IPV6_HEADER..)?,
    };
    let is_request = matches!(
        (family, asked.first()?),
        (Family::V4, 8) | (Family::V6, 128)
    );
    (is_request && echo(asked)? == request).then_some(said)
}

fn behind_header(packet: &[u8]) -> Option<&[u8]> {
    packet.get(usize::from(packet.first()? & 0x0f) * 4..)
}

/// Identifier and sequence number.
fn echo(message: &[u8]) -> Option<(u16, u16)> {
    let [_, _, _, _, a, b, c, d]: [u8; ICMP_HEADER] = *message.first_chunk()?;
    Some((u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d])))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As it comes of that family: of IPv4 behind a header.
    fn framed(family: Family, message: &[u8]) -> Vec<u8> {
        let mut packet = match family {
            Family::V4 => vec![0x46; 24],
            Family::V6 => Vec::new(),
        };
        packet.extend_from_slice(message);
        packet
    }

    fn about(family: Family, kind: u8, request: &[u8]) -> Vec<u8> {
        let mut message = vec![kind, 0, 0, 0, 0, 0, 0, 0];
        match family {
            Family::V4 => message.extend([0x45; 20]),
            Family::V6 => message.extend([0x60; IPV6_HEADER]),
        }
        message.extend_from_slice(request);
        framed(family, &message)
    }

    #[test]
    fn only_what_is_about_the_request_counts() {
        for (family, reply, exceeded, unreachable) in
            [(Family::V4, 0, 11, 3), (Family::V6, 129, 3, 1)]
        {
            let request = request(family, 7, 9);
            let mut echoed = request.clone();
            echoed[0] = reply;
            let here = framed(family, &echoed);
            for (packet, said) in [
                (&here, Some(Said::Here)),
                (&about(family, exceeded, &request), Some(Said::OnTheWay)),
                (&about(family, unreachable, &request), Some(Said::NoFurther)),
                (&about(family, exceeded, &echoed), None),
                (&about(family, 200, &request), None),
                (&framed(family, &request), None),
            ] {
                assert_eq!(answer(family, packet, (7, 9)), said, "{family}");
                assert_eq!(answer(family, packet, (7, 10)), None);
                assert_eq!(answer(family, packet, (8, 9)), None);
                for len in 0..packet.len().min(60) {
                    let _ = answer(family, &packet[..len], (7, 9));
                }
            }
        }
    }

    #[test]
    fn a_request_of_ipv4_has_a_good_checksum() {
        let request = request(Family::V4, 0xfffe, 0xfffd);
        let words = request.chunks(2);
        let sum: u32 = words
            .map(|w| u32::from(u16::from_be_bytes([w[0], w[1]])))
            .sum();
        assert_eq!((sum & 0xffff) + (sum >> 16), 0xffff);
    }

    #[test]
    fn loopback_is_one_hop_away() {
        for to in ["127.0.0.1", "::1"] {
            let to: IpAddr = to.parse().unwrap();
            let mut hops = Vec::new();
            let traced = trace(to, |hop| {
                hops.push(hop);
                Ok(())
            });
            traced.unwrap();
            let [hop] = &hops[..] else {
                panic!("{hops:?}");
            };
            assert_eq!((hop.address, hop.said), (Some(to), Said::Here));
        }
    }
}
