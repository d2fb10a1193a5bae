//! What is asked of the process, by a Unix socket: JSON, a line for each request and each answer.
//!
//! A tunnel stands until it is taken down: it does not matter who asked for it, nor whether that one is still there.

use std::{
    collections::HashMap,
    io::{self, BufRead as _, BufReader, Read as _, Write as _},
    net::{IpAddr, Ipv6Addr, SocketAddr},
    os::unix::net::UnixStream,
    path::Path,
};

use hextet_types::{IfName, Way};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::{Key, Mtu, Spec};

/// Octets of a request at most.
pub const MAX_REQUEST: u64 = 16 << 10;
/// Octets of an answer at most: all tunnels that there may be.
pub const MAX_ANSWER: u64 = 4 << 20;

/// What may be asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Request {
    /// There is to be such a door: a port of UDP for all tunnels that name it, and for letters; or one at which streams come for all tunnels
    /// that have doors. It stands until the process ends.
    Door {
        /// Where; port 0 for any that is free.
        listen: Way,
        /// The interface that datagrams come and leave by, whatever routes say.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        uplink: Option<IfName>,
    },
    /// There is to be such a tunnel. Nothing happens where it stands just so already.
    Up(Box<Spec>),
    /// There is to be none of that name.
    Down(IfName),
    /// A tunnel's peer is elsewhere.
    Endpoint {
        /// The tunnel.
        name: IfName,
        /// Where its peer is.
        endpoint: Way,
    },
    /// A tunnel's peer may be elsewhere, and is sought there unless it has been heard.
    Candidates {
        /// The tunnel.
        name: IfName,
        /// Where its peer may be.
        candidates: Vec<Way>,
    },
    /// A tunnel's interface has another MTU.
    Mtu {
        /// The tunnel.
        name: IfName,
        /// The MTU.
        mtu: Mtu,
    },
    /// How do all tunnels stand?
    List,
    /// How do all doors stand?
    Doors,
    /// Where did packets go since this was asked last?
    Destinations,
}

/// What is answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Answer {
    /// It is so.
    Done,
    /// The door stands at this address, which is its name.
    Door(Way),
    /// All tunnels, by name.
    Tunnels(Vec<Status>),
    /// All doors, in the order in which they were opened.
    Doors(Vec<DoorStatus>),
    /// As many octets to each address.
    Destinations(HashMap<IpAddr, u64>),
    /// It is not, and why.
    Error(String),
}

/// How a door stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DoorStatus {
    /// Where it is.
    pub address: Way,
    /// The interface that it is bound to.
    pub uplink: Option<IfName>,
    /// Tunnels that are heard there.
    pub tunnels: usize,
    /// Datagrams that were for nobody, letters and greetings beyond what is granted each second, and streams beyond what there may be.
    pub refused: u64,
    /// Streams of the process, if it is a door for such.
    pub streams: usize,
}

/// How a tunnel stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// Its interface.
    pub name: IfName,
    /// Ours.
    pub public_key: Key,
    /// The peer's.
    pub peer_key: Key,
    /// Our address on it.
    pub link_local: Ipv6Addr,
    /// The peer's, if that one is ours as well.
    pub peer_link_local: Ipv6Addr,
    /// Where the peer's datagrams come.
    pub listen: Vec<SocketAddr>,
    /// Where the peer was last.
    pub endpoint: Option<Way>,
    /// It has been heard from there.
    pub endpoint_proven: bool,
    /// Where else it may be.
    pub candidates: Vec<Way>,
    /// It is sought at all of these.
    pub searching: bool,
    /// Of the interface.
    pub mtu: Mtu,
    /// Somebody has deleted the interface.
    pub device_lost: bool,
    /// Seconds since keys were agreed upon that still hold.
    pub handshake_secs: Option<u64>,
    /// Milliseconds since a packet of the interface was sent.
    pub sent_millis: Option<u64>,
    /// Milliseconds since anything of the peer came.
    pub heard_millis: Option<u64>,
    /// Octets of packets of the interface.
    pub octets_out: u64,
    /// Octets of packets for it.
    pub octets_in: u64,
    /// Datagrams that could not be sent.
    pub unsent: u64,
    /// Datagrams that were not the peer's, or came twice.
    pub refused: u64,
    /// Packets that the interface did not take, or that were none.
    pub dropped: u64,
}

/// One who controls a process.
#[derive(Debug)]
pub struct Controller {
    stream: BufReader<UnixStream>,
}

impl Controller {
    /// Of the process at this socket.
    ///
    /// # Errors
    ///
    /// There is none.
    pub fn connect(socket: &Path) -> io::Result<Controller> {
        let stream = BufReader::new(UnixStream::connect(socket)?);
        Ok(Controller { stream })
    }

    /// Asks, and waits for the answer.
    ///
    /// # Errors
    ///
    /// The process is gone, or answers something else.
    pub fn ask(&mut self, request: &Request) -> io::Result<Answer> {
        write(self.stream.get_mut(), request)?;
        read(&mut self.stream, MAX_ANSWER)?.ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
    }
}

/// The next line; nothing when there are no more.
pub(crate) fn read<T: DeserializeOwned>(
    stream: &mut BufReader<UnixStream>,
    most: u64,
) -> io::Result<Option<T>> {
    let mut line = Vec::new();
    let len = stream.by_ref().take(most).read_until(b'\n', &mut line)?;
    if len == 0 {
        return Ok(None);
    }
    if line.last() != Some(&b'\n') {
        return Err(io::Error::other("a line is torn, or too long"));
    }
    serde_json::from_slice(&line)
        .map(Some)
        .map_err(io::Error::from)
}

pub(crate) fn write(stream: &mut UnixStream, what: &impl Serialize) -> io::Result<()> {
    let mut line = serde_json::to_vec(what)?;
    line.push(b'\n');
    stream.write_all(&line)
}
