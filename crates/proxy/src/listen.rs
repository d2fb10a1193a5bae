//! Connections: each is read until it is known whom it means, and handed on from then as it is.

use std::{
    collections::HashMap,
    io,
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use socket2::{SockRef, TcpKeepalive};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional_with_sizes},
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore, watch},
    time::{sleep, timeout},
};
use tracing::{debug, warn};

use crate::{Backend, MAX_HEAD, Reading, Sites, hello, http};

const BUFFER: usize = 64 * 1024;
/// After the kernel refuses a connection: files or memory may be there again.
const PAUSE: Duration = Duration::from_millis(100);

/// What clients may take.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Connections at once.
    pub connections: usize,
    /// Connections at once from one address.
    pub of_one: usize,
    /// Until it is known who is meant.
    pub head: Duration,
    /// Until a workload answers, of each of its addresses.
    pub connect: Duration,
    /// A connection on which nobody says anything is asked whether it is there.
    pub idle: Duration,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            connections: 16_384,
            of_one: 512,
            head: Duration::from_secs(10),
            connect: Duration::from_secs(3),
            idle: Duration::from_secs(60),
        }
    }
}

/// What a listener hears.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Port {
    /// Requests (80).
    Http,
    /// TLS (443).
    Https,
}

/// Hands connections on.
#[derive(Clone, Debug)]
pub struct Proxy {
    sites: watch::Receiver<Arc<Sites>>,
    limits: Limits,
    all: Arc<Semaphore>,
    of_one: Arc<Mutex<HashMap<IpAddr, usize>>>,
}

impl Proxy {
    /// Goes by the table as it is whenever a connection comes.
    pub fn new(sites: watch::Receiver<Arc<Sites>>, limits: Limits) -> Proxy {
        Proxy {
            sites,
            limits,
            all: Arc::new(Semaphore::new(limits.connections)),
            of_one: Arc::default(),
        }
    }

    /// How many connections there are.
    pub fn connections(&self) -> usize {
        self.limits.connections - self.all.available_permits()
    }

    /// Takes connections for as long as this is polled; those that were taken go on.
    pub async fn listen(&self, listener: &TcpListener, port: Port) {
        loop {
            let Ok(permit) = Arc::clone(&self.all).acquire_owned().await else {
                return;
            };
            match listener.accept().await {
                Ok((stream, client)) => self.take(stream, client, port, permit),
                Err(error) => {
                    warn!(%error, "no connection can be taken; trying again");
                    sleep(PAUSE).await;
                }
            }
        }
    }

    fn take(
        &self,
        stream: TcpStream,
        client: SocketAddr,
        port: Port,
        permit: OwnedSemaphorePermit,
    ) {
        let Some(place) = Place::take(self, client.ip()) else {
            debug!(%client, "has too many connections already");
            return;
        };
        let proxy = self.clone();
        tokio::spawn(async move {
            if let Err(error) = proxy.serve(stream, client, port).await {
                debug!(%client, %error, "a connection ended early");
            }
            drop((place, permit));
        });
    }

    async fn serve(&self, mut stream: TcpStream, client: SocketAddr, port: Port) -> io::Result<()> {
        keep_alive(&stream, self.limits.idle)?;
        let mut head = Vec::new();
        let reading = read_head(&mut stream, &mut head, port);
        let reading = timeout(self.limits.head, reading).await??;
        let backend = match reading {
            Reading::Name(Some(name)) => self.sites.borrow().find(&name).cloned(),
            Reading::Name(None) => None,
            Reading::Bad(why) => return refuse(stream, port, (400, "Bad Request", why)).await,
            Reading::More => return Ok(()),
        };
        let Some(backend) = backend else {
            let words = "There is no such site here.";
            return refuse(stream, port, (404, "Not Found", words)).await;
        };
        let Some(mut far) = self.connect(&backend, port).await else {
            let words = "The site does not answer.";
            return refuse(stream, port, (502, "Bad Gateway", words)).await;
        };
        if backend.proxy_protocol {
            far.write_all(&told(client, stream.local_addr()?)).await?;
        }
        far.write_all(&head).await?;
        drop(head);
        copy_bidirectional_with_sizes(&mut stream, &mut far, BUFFER, BUFFER).await?;
        Ok(())
    }

    async fn connect(&self, backend: &Backend, port: Port) -> Option<TcpStream> {
        let to = match port {
            Port::Http => backend.http,
            Port::Https => backend.https,
        }?;
        for address in &backend.addresses {
            let connecting = TcpStream::connect((*address, to));
            if let Ok(Ok(far)) = timeout(self.limits.connect, connecting).await {
                keep_alive(&far, self.limits.idle).ok()?;
                return Some(far);
            }
        }
        None
    }
}

/// One of an address's connections.
struct Place {
    of: Arc<Mutex<HashMap<IpAddr, usize>>>,
    client: IpAddr,
}

impl Place {
    fn take(proxy: &Proxy, client: IpAddr) -> Option<Place> {
        let mut of_one = proxy.of_one.lock().unwrap_or_else(PoisonError::into_inner);
        let count = of_one.entry(client).or_default();
        if *count >= proxy.limits.of_one {
            return None;
        }
        *count += 1;
        let of = Arc::clone(&proxy.of_one);
        Some(Place { of, client })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut of_one = self.of.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = of_one.get_mut(&self.client) {
            *count -= 1;
            if *count == 0 {
                of_one.remove(&self.client);
            }
        }
    }
}

fn keep_alive(stream: &TcpStream, idle: Duration) -> io::Result<()> {
    let keepalive = TcpKeepalive::new().with_time(idle).with_interval(idle / 4);
    stream.set_nodelay(true)?;
    SockRef::from(stream).set_tcp_keepalive(&keepalive)
}

/// Until it is known who is meant, or there is too much of it; what was read stays in `head`.
async fn read_head(stream: &mut TcpStream, head: &mut Vec<u8>, port: Port) -> io::Result<Reading> {
    loop {
        let reading = match port {
            Port::Http => http::read(head),
            Port::Https => hello::read(head),
        };
        if reading != Reading::More {
            return Ok(reading);
        }
        if head.len() >= MAX_HEAD {
            return Ok(Reading::Bad(
                "more than 16 KiB before it is known who is meant",
            ));
        }
        let room = u64::try_from(MAX_HEAD - head.len()).unwrap_or(0);
        if (&mut *stream).take(room).read_buf(head).await? == 0 {
            return Ok(Reading::More);
        }
    }
}

/// Says why, and ends.
async fn refuse(
    mut stream: TcpStream,
    port: Port,
    (status, reason, words): (u16, &str, &str),
) -> io::Result<()> {
    match port {
        Port::Http => {
            let answer = http::refusal(status, reason, words);
            stream.write_all(answer.as_bytes()).await?;
        }
        Port::Https => stream.write_all(&hello::UNRECOGNIZED_NAME).await?,
    }
    stream.shutdown().await
}

/// Who connects to whom (the PROXY protocol, version 2, §2.2).
fn told(client: SocketAddr, to: SocketAddr) -> Vec<u8> {
    const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";
    const PROXY: u8 = 0x21;
    let mut text = SIGNATURE.to_vec();
    match (client.ip().to_canonical(), to.ip().to_canonical()) {
        (IpAddr::V4(client), IpAddr::V4(to)) => {
            text.extend([PROXY, 0x11, 0, 12]);
            text.extend(client.octets());
            text.extend(to.octets());
        }
        (client, to) => {
            let v6 = |a: IpAddr| match a {
                IpAddr::V6(a) => a,
                IpAddr::V4(a) => a.to_ipv6_mapped(),
            };
            text.extend([PROXY, 0x21, 0, 36]);
            text.extend(v6(client).octets());
            text.extend(v6(to).octets());
        }
    }
    text.extend(client.port().to_be_bytes());
    text.extend(to.port().to_be_bytes());
    text
}
