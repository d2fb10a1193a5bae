//! One TCP connection of a BGP session: opened or accepted, read, written, closed.
//!
//! Each is one task, whose other end is a [`Link`]. It knows the connection's number and nothing of the
//! protocol. What it tells goes through one bounded queue, in which connections wait in turn: a peer
//! that sends faster than the engine works is read more slowly.

#[cfg(test)]
mod tests;

use std::{
    io,
    net::{IpAddr, SocketAddr, SocketAddrV6},
    os::fd::AsFd,
    sync::Arc,
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use hextet_bgp::{
    config::{Secret, TtlPolicy},
    session::{ConnId, Endpoint},
    speaker::READ_SIZE,
};
use hextet_kernel::tcp;
use hextet_types::{Family, IfName};
use nix::net::if_::{if_indextoname, if_nametoindex};
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpSocket, TcpStream,
        tcp::{ReadHalf, WriteHalf},
    },
    sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot},
    time::{sleep, timeout},
};
use tracing::debug;

/// BGP's port (RFC 4271 §4).
pub const PORT: u16 = 179;
/// The farthest that a packet may go.
pub const MAX_TTL: u8 = 255;
/// How long the end of a connection may take, so that a last NOTIFICATION arrives.
const LAST_WORDS: Duration = Duration::from_secs(2);
/// Pause after an attempt to accept that failed, usually for want of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Connections from others at once, ending ones included. A host that nobody attacks has one for each
/// peer; beyond this the kernel lets them wait.
pub const MAX_ACCEPTED: usize = 512;
/// Octets that may wait on a connection, whatever they are: the engine stops telling routes far before,
/// but a peer that reads nothing can still provoke answers.
const QUEUE_LIMIT: usize = 4 << 20;
/// Class selector 6, network control (RFC 4594 §3.1), as a traffic class octet.
const NETWORK_CONTROL: u32 = 0xc0;

/// What a connection tells the engine's task.
#[derive(Debug)]
pub enum Happening {
    /// Somebody connected.
    Accepted(Incoming),
    /// An attempt succeeded.
    Opened(ConnId, Endpoint),
    /// It ended, or the attempt failed. Nothing more comes of it.
    Closed(ConnId),
    /// Octets came.
    Received(ConnId, Bytes),
    /// Octets went.
    Written(ConnId, usize),
}

/// A connection that somebody opened to us.
#[derive(Debug)]
pub struct Incoming {
    stream: TcpStream,
    /// Its ends.
    pub endpoint: Endpoint,
    permit: OwnedSemaphorePermit,
}

/// Where and how to connect.
#[derive(Debug)]
pub struct Attempt {
    pub remote: IpAddr,
    /// The scope of a link-local address.
    pub interface: Option<IfName>,
    pub ttl: TtlPolicy,
    pub md5: Option<Secret>,
}

/// The engine's end of a connection. When it is dropped, an attempt is given up, and on a connection
/// what was sent so far is written, as far as the peer takes it within [`LAST_WORDS`], and then it ends.
#[derive(Debug)]
pub struct Link {
    outgoing: mpsc::UnboundedSender<Bytes>,
    waiting: usize,
    _alive: oneshot::Sender<()>,
}

/// More than [`QUEUE_LIMIT`] octets wait on a connection.
#[derive(Debug)]
pub struct Full;

impl Link {
    fn new(conn: ConnId, happenings: mpsc::Sender<Happening>) -> (Link, Task) {
        let (octets_in, octets) = mpsc::unbounded_channel();
        let (alive, over) = oneshot::channel();
        let link = Link {
            outgoing: octets_in,
            waiting: 0,
            _alive: alive,
        };
        let outgoing = Outgoing {
            octets,
            current: Bytes::new(),
        };
        (
            link,
            Task {
                conn,
                happenings,
                outgoing,
                over,
            },
        )
    }

    /// Has octets written after those before.
    ///
    /// # Errors
    ///
    /// Too much waits already: the peer reads nothing, and the connection must be given up.
    pub fn send(&mut self, octets: Bytes) -> Result<(), Full> {
        self.waiting += octets.len();
        if self.waiting > QUEUE_LIMIT {
            return Err(Full);
        }
        // A connection that has ended says so by itself.
        drop(self.outgoing.send(octets));
        Ok(())
    }

    /// Octets were written: there is room for more.
    pub fn written(&mut self, octets: usize) {
        self.waiting = self.waiting.saturating_sub(octets);
    }
}

/// Opens a connection, and says how that went.
pub fn open(conn: ConnId, attempt: Attempt, happenings: &mpsc::Sender<Happening>) -> Link {
    let (link, mut task) = Link::new(conn, happenings.clone());
    tokio::spawn(async move {
        let opened = tokio::select! {
            opened = connect(&attempt) => opened,
            _ = &mut task.over => return,
        };
        let (happening, stream) = match opened {
            Ok((stream, endpoint)) => (Happening::Opened(conn, endpoint), Some(stream)),
            Err(error) => {
                debug!(remote = %attempt.remote, %error, "connect to a BGP peer");
                (Happening::Closed(conn), None)
            }
        };
        let told = task.happenings.send(happening).await;
        if let (Ok(()), Some(stream)) = (told, stream) {
            task.run(stream).await;
        }
    });
    link
}

/// Takes up a connection that was accepted, with that peer's TTL.
///
/// # Errors
///
/// The TTL can't be set: the connection has ended already.
pub fn take_up(
    conn: ConnId,
    incoming: Incoming,
    ttl: TtlPolicy,
    happenings: &mpsc::Sender<Happening>,
) -> io::Result<Link> {
    let Incoming {
        stream,
        endpoint,
        permit,
    } = incoming;
    apply_ttl(&SockRef::from(&stream), Family::of(endpoint.remote), ttl)?;
    let (link, task) = Link::new(conn, happenings.clone());
    tokio::spawn(async move {
        task.run(stream).await;
        drop(permit);
    });
    Ok(link)
}

/// Accepts connections for as long as anybody wants to hear of them.
pub async fn accept(
    listener: TcpListener,
    permits: Arc<Semaphore>,
    happenings: mpsc::Sender<Happening>,
) {
    loop {
        let Ok(permit) = Arc::clone(&permits).acquire_owned().await else {
            return;
        };
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = happenings.closed() => return,
        };
        match accepted {
            Ok((stream, from)) => {
                let Some(endpoint) = endpoint(&stream) else {
                    continue;
                };
                debug!(%from, "BGP connection accepted");
                let incoming = Incoming {
                    stream,
                    endpoint,
                    permit,
                };
                if happenings
                    .send(Happening::Accepted(incoming))
                    .await
                    .is_err()
                {
                    return;
                }
            }
            Err(error) => {
                debug!(%error, "accept a BGP connection");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// A socket of one family on BGP's port, listening to nobody yet. It answers as from next door, since
/// a peer with GTSM hears nothing else.
pub fn listening_socket(family: Family, port: u16) -> io::Result<Socket> {
    let socket = tcp_socket(family)?;
    if family == Family::V6 {
        socket.set_only_v6(true)?;
    }
    socket.set_reuse_address(true)?;
    apply_ttl(&socket, family, TtlPolicy::Ttl(MAX_TTL))?;
    socket.bind(&SocketAddr::new(family.unspecified(), port).into())?;
    Ok(socket)
}

fn tcp_socket(family: Family) -> io::Result<Socket> {
    let domain = match family {
        Family::V4 => Domain::IPV4,
        Family::V6 => Domain::IPV6,
    };
    let socket = Socket::new(domain, Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    match family {
        Family::V4 => socket.set_tos_v4(NETWORK_CONTROL)?,
        Family::V6 => socket.set_tclass_v6(NETWORK_CONTROL)?,
    }
    Ok(socket)
}

/// Sets what packets are sent with, and, for GTSM, what must arrive (RFC 5082 §3).
fn apply_ttl(socket: &Socket, family: Family, policy: TtlPolicy) -> io::Result<()> {
    let (send, least) = match policy {
        TtlPolicy::Ttl(ttl) => (ttl, 0),
        TtlPolicy::Security(hops) => (MAX_TTL, MAX_TTL - hops.max(1) + 1),
    };
    match family {
        Family::V4 => socket.set_ttl_v4(u32::from(send))?,
        Family::V6 => socket.set_unicast_hops_v6(u32::from(send))?,
    }
    tcp::set_min_hop_limit(socket.as_fd(), family, least)
}

async fn connect(attempt: &Attempt) -> io::Result<(TcpStream, Endpoint)> {
    let family = Family::of(attempt.remote);
    let socket = tcp_socket(family)?;
    apply_ttl(&socket, family, attempt.ttl)?;
    if let Some(secret) = &attempt.md5 {
        tcp::set_md5_key(socket.as_fd(), attempt.remote, secret.0.as_bytes())?;
    }
    let stream = TcpSocket::from_std_stream(socket.into())
        .connect(target(attempt)?)
        .await?;
    let endpoint = endpoint(&stream).ok_or(io::ErrorKind::NotConnected)?;
    Ok((stream, endpoint))
}

fn target(attempt: &Attempt) -> io::Result<SocketAddr> {
    Ok(match (attempt.remote, &attempt.interface) {
        (IpAddr::V6(remote), Some(interface)) => {
            SocketAddrV6::new(remote, PORT, 0, if_nametoindex(interface.as_str())?).into()
        }
        (remote, _) => SocketAddr::new(remote, PORT),
    })
}

fn endpoint(stream: &TcpStream) -> Option<Endpoint> {
    let (local, remote) = (stream.local_addr().ok()?, stream.peer_addr().ok()?);
    let scope = match remote {
        SocketAddr::V6(remote) => remote.scope_id(),
        SocketAddr::V4(_) => 0,
    };
    let interface = if_indextoname(scope)
        .ok()
        .and_then(|name| name.to_str().ok()?.parse().ok());
    Some(Endpoint {
        local: local.ip(),
        remote: remote.ip(),
        interface,
    })
}

/// What was sent and is not written yet.
#[derive(Debug)]
struct Outgoing {
    octets: mpsc::UnboundedReceiver<Bytes>,
    current: Bytes,
}

/// A connection's task.
#[derive(Debug)]
struct Task {
    conn: ConnId,
    happenings: mpsc::Sender<Happening>,
    outgoing: Outgoing,
    over: oneshot::Receiver<()>,
}

impl Task {
    async fn run(mut self, mut stream: TcpStream) {
        drop(stream.set_nodelay(true));
        let (mut reader, mut writer) = stream.split();
        tokio::select! {
            () = read(self.conn, &mut reader, &self.happenings) => return,
            () = self.outgoing.write(self.conn, &mut writer, &self.happenings) => return,
            _ = &mut self.over => {}
        }
        drop(timeout(LAST_WORDS, self.outgoing.end(&mut reader, &mut writer)).await);
    }
}

/// Reads until the connection ends, or nobody wants to know.
async fn read(conn: ConnId, reader: &mut ReadHalf<'_>, happenings: &mpsc::Sender<Happening>) {
    let mut buffer = BytesMut::new();
    loop {
        buffer.reserve(READ_SIZE);
        let happening = match (&mut *reader)
            .take(READ_SIZE as u64)
            .read_buf(&mut buffer)
            .await
        {
            Ok(0) | Err(_) => Happening::Closed(conn),
            Ok(_) => Happening::Received(conn, buffer.split().freeze()),
        };
        let over = matches!(happening, Happening::Closed(_));
        if happenings.send(happening).await.is_err() || over {
            return;
        }
    }
}

impl Outgoing {
    /// Writes until nobody wants to know. A connection that fails is left to the reader, for what the
    /// peer had to say before it ended may still be there to be read.
    async fn write(
        &mut self,
        conn: ConnId,
        writer: &mut WriteHalf<'_>,
        happenings: &mpsc::Sender<Happening>,
    ) {
        while let Some(octets) = self.octets.recv().await {
            let count = octets.len();
            self.current = octets;
            if self.write_current(writer).await.is_err() {
                return std::future::pending().await;
            }
            if happenings
                .send(Happening::Written(conn, count))
                .await
                .is_err()
            {
                return;
            }
        }
        std::future::pending().await
    }

    /// May be given up at any time and taken up again.
    async fn write_current(&mut self, writer: &mut WriteHalf<'_>) -> io::Result<()> {
        while !self.current.is_empty() {
            writer.write_buf(&mut self.current).await?;
        }
        Ok(())
    }

    /// Writes the rest, and waits for the peer to end its side: unread octets would turn our end into a
    /// reset, and the peer might never read our last words.
    async fn end(
        &mut self,
        reader: &mut ReadHalf<'_>,
        writer: &mut WriteHalf<'_>,
    ) -> io::Result<()> {
        self.write_current(writer).await?;
        while let Ok(octets) = self.octets.try_recv() {
            self.current = octets;
            self.write_current(writer).await?;
        }
        writer.shutdown().await?;
        let mut ignored = [0; 4096];
        while reader.read(&mut ignored).await? > 0 {}
        Ok(())
    }
}
