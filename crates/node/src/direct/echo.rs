//! ICMP echo requests that leave by one interface, and their answers (RFC 792, RFC 4443 §4), which may come by any: whoever answers may
//! have found its own way back broken.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use anyhow::{Context as _, Result};
use hextet_types::Family;
use nix::net::if_::if_indextoname;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::{net::UdpSocket, sync::mpsc, task::JoinHandle};
use tracing::debug;

use crate::ways::Sources;

/// Answers that wait.
const WAITING: usize = 256;
/// Octets of the longest answer that is looked at: what was asked, behind the longest header of IPv4.
const MAX_ANSWER: usize = 128;
/// After an error of the interface.
const PAUSE: Duration = Duration::from_millis(100);
const REQUEST_V4: u8 = 8;
const REPLY_V4: u8 = 0;
const REQUEST_V6: u8 = 128;
const REPLY_V6: u8 = 129;

/// An answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reply {
    /// By which interface the request left.
    pub link: u32,
    /// Whose.
    pub from: IpAddr,
    /// To which request.
    pub number: u16,
}

/// All of them.
pub struct Echo {
    sources: Sources,
    ident: u16,
    /// By interface and family: what leaves.
    ways: BTreeMap<(u32, Family), Socket>,
    /// What comes.
    readers: BTreeMap<Family, JoinHandle<()>>,
    replies: mpsc::Sender<Reply>,
}

impl Drop for Echo {
    fn drop(&mut self) {
        self.readers.values().for_each(JoinHandle::abort);
    }
}

impl Echo {
    /// Requests leave from those addresses, and bear that number.
    pub fn new(sources: Sources, ident: u16) -> (Echo, mpsc::Receiver<Reply>) {
        let (replies, replied) = mpsc::channel(WAITING);
        let echo = Echo {
            sources,
            ident,
            ways: BTreeMap::new(),
            readers: BTreeMap::new(),
            replies,
        };
        (echo, replied)
    }

    /// Only these interfaces are needed from now on.
    pub fn keep(&mut self, links: impl Fn(u32) -> bool) {
        self.ways.retain(|(link, _), _| links(*link));
    }

    /// Sends one. Whatever prevents it shows in that no answer comes.
    pub fn ask(&mut self, link: u32, target: IpAddr, number: u16) {
        if let Err(error) = self.try_ask(link, target, number) {
            debug!(link, %target, "an echo request was not sent: {error:#}");
            self.ways.remove(&(link, Family::of(target)));
        }
    }

    fn try_ask(&mut self, link: u32, target: IpAddr, number: u16) -> Result<()> {
        let family = Family::of(target);
        if !self.readers.contains_key(&family) {
            let socket = UdpSocket::from_std(self.open(family)?.into())?;
            let answers = answers(socket, self.ident, self.replies.clone());
            self.readers.insert(family, tokio::spawn(answers));
        }
        if !self.ways.contains_key(&(link, family)) {
            let socket = self.open(family)?;
            let name = if_indextoname(link)?;
            socket.bind_device(Some(name.as_bytes()))?;
            // Nothing is read here, so that nothing may wait.
            socket.set_recv_buffer_size(0)?;
            self.ways.insert((link, family), socket);
        }
        let way = self.ways.get(&(link, family)).context("no socket")?;
        let request = request(family, self.ident, number, link);
        way.send_to(&request, &SocketAddr::new(target, 0).into())?;
        Ok(())
    }

    fn open(&self, family: Family) -> Result<Socket> {
        let (domain, protocol) = match family {
            Family::V4 => (Domain::IPV4, Protocol::ICMPV4),
            Family::V6 => (Domain::IPV6, Protocol::ICMPV6),
        };
        let socket = Socket::new(domain, Type::RAW, Some(protocol))?;
        socket.set_nonblocking(true)?;
        let source = self.sources.for_family(family);
        let source = source.context("this node has no address of that family")?;
        socket.bind(&SocketAddr::new(source, 0).into())?;
        Ok(socket)
    }
}

/// The socket is raw, and read as one of datagrams is.
async fn answers(socket: UdpSocket, ident: u16, replies: mpsc::Sender<Reply>) {
    let mut octets = [0; MAX_ANSWER];
    loop {
        match socket.recv_from(&mut octets).await {
            Ok((len, from)) => {
                let from = from.ip();
                let octets = octets.get(..len).unwrap_or_default();
                if let Some((number, link)) = reply(from, octets, ident) {
                    // Who floods is not waited for.
                    let _ = replies.try_send(Reply { link, from, number });
                }
            }
            Err(error) => {
                debug!(%error, "read an answer");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

fn request(family: Family, ident: u16, number: u16, link: u32) -> Vec<u8> {
    let kind = match family {
        Family::V4 => REQUEST_V4,
        Family::V6 => REQUEST_V6,
    };
    let mut request = vec![kind, 0, 0, 0];
    request.extend(ident.to_be_bytes());
    request.extend(number.to_be_bytes());
    request.extend(link.to_be_bytes());
    // For IPv6 the kernel does it (RFC 3542 §3.1).
    if family == Family::V4 {
        let sum = checksum(&request).to_be_bytes();
        request.splice(2..4, sum);
    }
    request
}

/// RFC 1071.
fn checksum(octets: &[u8]) -> u16 {
    let words = octets.chunks(2).map(|pair| match pair {
        [high, low] => u32::from(u16::from_be_bytes([*high, *low])),
        [high] => u32::from(*high) << 8,
        _ => 0,
    });
    let sum: u32 = words.sum();
    let sum = (sum & 0xffff) + (sum >> 16);
    !((sum & 0xffff) as u16 + (sum >> 16) as u16)
}

/// Which of our requests it answers, if any, and by which interface that left.
pub(crate) fn reply(from: IpAddr, octets: &[u8], ident: u16) -> Option<(u16, u32)> {
    let (octets, kind) = match from {
        // Behind the header, which has so many words.
        IpAddr::V4(_) => (
            octets.get(usize::from(octets.first()? & 15) * 4..)?,
            REPLY_V4,
        ),
        IpAddr::V6(_) => (octets, REPLY_V6),
    };
    let [first, 0, _, _, a, b, c, d, link @ ..] = *octets.first_chunk::<12>()? else {
        return None;
    };
    let is_ours = first == kind && u16::from_be_bytes([a, b]) == ident;
    is_ours.then_some((u16::from_be_bytes([c, d]), u32::from_be_bytes(link)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_answer_of_ours_is_none() {
        let (v4, v6): (IpAddr, IpAddr) = ("192.0.2.1".parse().unwrap(), "::1".parse().unwrap());
        let six = [129, 0, 9, 9, 0x12, 0x34, 0, 7, 0, 0, 0, 3];
        assert_eq!(reply(v6, &six, 0x1234), Some((7, 3)));
        assert_eq!(reply(v6, &six, 0x1235), None);
        assert_eq!(reply(v6, &six[..11], 0x1234), None);
        let mut four = vec![0x45; 20];
        four.extend([0, 0, 9, 9, 0x12, 0x34, 0, 7, 0, 0, 0, 3]);
        assert_eq!(reply(v4, &four, 0x1234), Some((7, 3)));
        four[0] = 0x4f;
        assert_eq!(reply(v4, &four, 0x1234), None);
        assert_eq!(reply(v4, &[], 1), None);
    }

    #[test]
    fn a_request_of_ipv4_has_its_checksum() {
        let request = request(Family::V4, 0x1234, 7, 3);
        assert_eq!(request.len(), 12);
        assert_eq!(checksum(&request), 0);
    }
}
