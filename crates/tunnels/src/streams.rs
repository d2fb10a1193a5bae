//! Streams of TLS, for those whose site lets no UDP through: one more way for datagrams. UDP is better wherever it works, since what is
//! lost in a stream keeps all that is behind it.
//!
//! A stream is known by the other end's address. It carries the datagrams of all tunnels and the letters between the two. We open one to
//! where somebody says that it is heard so ([`Streams::dial`]); an answer goes back by the stream that there is. One that broke is opened
//! again by whoever needs it, after a pause that grows.
//!
//! What always holds: there are [`MAX_STREAMS`] at most, few to one host, and fewer whose handshake is not done; nobody who sends waits.

mod frames;
mod stream;
mod tls;

use std::{
    collections::BTreeMap,
    io,
    net::{IpAddr, Ipv6Addr, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    thread,
    time::{Duration, Instant},
};

use hextet_types::{IfName, Way};
use rustls::{ClientConfig, Connection, ServerConfig, ServerConnection};
use socket2::{SockAddr, Type};

use crate::{control::DoorStatus, letters::Letters, reception::Reception, sockets};
use stream::{Stream, Worker};

#[cfg(feature = "fuzzing")]
pub use frames::{Frames, push};

/// Streams of a process at most.
const MAX_STREAMS: usize = 256;
/// Those that come from one host, or one network of IPv6.
const MAX_OF_ONE: usize = 16;
/// Those that have come and have not agreed on keys.
const MAX_HANDSHAKES: usize = 64;
/// Addresses that are not tried for a while.
const MAX_RESTING: usize = 256;
const FIRST_REST: Duration = Duration::from_secs(1);
const LONGEST_REST: Duration = Duration::from_secs(30);
/// After a connection that could not be taken.
const PAUSE: Duration = Duration::from_millis(10);
/// Connections that wait.
const BACKLOG: i32 = 128;

/// All streams of a process.
#[derive(Debug)]
pub struct Streams {
    reception: Reception,
    client: Arc<ClientConfig>,
    table: Mutex<Table>,
    doors: Mutex<Vec<TlsDoor>>,
    /// Connections that there was no place for.
    refused: AtomicU64,
}

#[derive(Debug, Default)]
struct Table {
    last: u64,
    standing: BTreeMap<SocketAddr, Arc<Stream>>,
    resting: BTreeMap<SocketAddr, Rest>,
}

/// How long nobody is called there.
#[derive(Clone, Copy, Debug)]
struct Rest {
    until: Instant,
    gap: Duration,
}

/// A port at which streams come.
#[derive(Debug)]
struct TlsDoor {
    asked: SocketAddr,
    address: SocketAddr,
    uplink: Option<IfName>,
}

impl Streams {
    /// None yet.
    ///
    /// # Errors
    ///
    /// No TLS.
    pub fn new(letters: Arc<Letters>) -> io::Result<Streams> {
        Ok(Streams {
            reception: Reception::new(letters, None),
            client: tls::client().map_err(io::Error::other)?,
            table: Mutex::default(),
            doors: Mutex::default(),
            refused: AtomicU64::new(0),
        })
    }

    /// Who is heard by streams.
    pub const fn reception(&self) -> &Reception {
        &self.reception
    }

    /// The door that was asked for, which is opened if it is not there.
    pub fn open(
        self: &Arc<Self>,
        asked: SocketAddr,
        uplink: Option<IfName>,
        most: usize,
    ) -> Result<SocketAddr, String> {
        let mut doors = self.doors.lock().unwrap_or_else(PoisonError::into_inner);
        let same = |door: &&TlsDoor| door.asked == asked || door.address == asked;
        if let Some(door) = doors.iter().find(same) {
            if door.uplink != uplink {
                return Err(format!(
                    "the door tls:{asked} stands, and has another uplink"
                ));
            }
            return Ok(door.address);
        }
        if doors.len() >= most {
            return Err(format!("there are {most} doors for streams already"));
        }
        let failed = |error| format!("open the door tls:{asked}: {error}");
        let listener = listen(asked, uplink.as_ref()).map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        let config = tls::server().map_err(failed)?;
        let streams = Arc::clone(self);
        let thread = thread::Builder::new().name("tls door".to_owned());
        let run = move || streams.accept(&listener, &config);
        thread.spawn(run).map_err(failed)?;
        doors.push(TlsDoor {
            asked,
            address,
            uplink,
        });
        Ok(address)
    }

    /// How its doors stand.
    pub fn status(&self) -> Vec<DoorStatus> {
        let streams = self.table().standing.len();
        let doors = self.doors.lock().unwrap_or_else(PoisonError::into_inner);
        let status = |door: &TlsDoor| DoorStatus {
            address: Way::Tls(door.address),
            uplink: door.uplink.clone(),
            tunnels: self.reception.tunnels(),
            refused: self.reception.refused() + self.refused.load(Relaxed),
            streams,
        };
        doors.iter().map(status).collect()
    }

    /// Sends datagrams of these lengths, which stand one behind the other, by the stream that there is: how many found no room.
    pub fn send(&self, to: SocketAddr, octets: &[u8], lens: &[usize]) -> u64 {
        let stream = self.table().standing.get(&to).map(Arc::clone);
        let Some(stream) = stream else {
            return lens.len() as u64;
        };
        let (mut rest, mut unsent) = (octets, 0);
        for len in lens {
            let (datagram, behind) = rest.split_at((*len).min(rest.len()));
            unsent += u64::from(!stream.put(datagram));
            rest = behind;
        }
        unsent
    }

    /// Which stream to that address stands, if one does whose handshake is done.
    pub fn standing(&self, at: SocketAddr) -> Option<u64> {
        let table = self.table();
        let stream = table.standing.get(&at)?;
        stream.is_agreed().then_some(stream.number)
    }

    /// Opens a stream, unless there is one or it is too early. What is sent meanwhile waits.
    pub fn dial(self: &Arc<Self>, to: SocketAddr, uplink: Option<&IfName>) {
        let Some(stream) = self.table().dials(to, Instant::now()) else {
            return;
        };
        let (streams, uplink, number) = (Arc::clone(self), uplink.cloned(), stream.number);
        let run = move || {
            let heard = streams.call(&stream, to, uplink).unwrap_or(false);
            streams.table().ended(to, stream.number, heard);
        };
        let thread = thread::Builder::new().name("stream".to_owned());
        if thread.spawn(run).is_err() {
            self.table().ended(to, number, false);
        }
    }

    /// Whether anything came.
    fn call(&self, stream: &Stream, to: SocketAddr, uplink: Option<IfName>) -> io::Result<bool> {
        let socket = stream::connect(to, uplink.as_ref())?;
        let tls = tls::connect(&self.client, to).map_err(io::Error::other)?;
        let tls = Connection::Client(tls);
        let mut worker = Worker::new(stream, &self.reception, to, socket, tls)?;
        worker.uplink = uplink;
        Ok(worker.run())
    }

    fn accept(self: &Arc<Self>, listener: &TcpListener, config: &Arc<ServerConfig>) {
        loop {
            let Ok((socket, from)) = listener.accept() else {
                thread::sleep(PAUSE);
                continue;
            };
            if !self.admit(socket, from, config) {
                self.refused.fetch_add(1, Relaxed);
            }
        }
    }

    /// Whether there is a place for one that has come.
    fn admit(
        self: &Arc<Self>,
        socket: TcpStream,
        from: SocketAddr,
        config: &Arc<ServerConfig>,
    ) -> bool {
        let Ok(tls) = ServerConnection::new(Arc::clone(config)) else {
            return false;
        };
        let Some(stream) = self.table().admits(from) else {
            return false;
        };
        let (streams, number) = (Arc::clone(self), stream.number);
        let run = move || {
            let tls = Connection::Server(tls);
            if let Ok(worker) = Worker::new(&stream, &streams.reception, from, socket, tls) {
                worker.run();
            }
            streams.table().leaves(from, stream.number);
        };
        let thread = thread::Builder::new().name("stream".to_owned());
        let began = thread.spawn(run).is_ok();
        if !began {
            self.table().leaves(from, number);
        }
        began
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Table {
    fn dials(&mut self, to: SocketAddr, now: Instant) -> Option<Arc<Stream>> {
        if self.standing.contains_key(&to) || self.standing.len() >= MAX_STREAMS {
            return None;
        }
        if self.resting.len() >= MAX_RESTING {
            self.resting
                .retain(|_, rest| rest.until + LONGEST_REST > now);
        }
        match self.resting.get(&to) {
            Some(rest) if now < rest.until => return None,
            None if self.resting.len() >= MAX_RESTING => return None,
            _ => {}
        }
        self.add(to, true)
    }

    fn admits(&mut self, from: SocketAddr) -> Option<Arc<Stream>> {
        let come = || self.standing.iter().filter(|(_, stream)| !stream.ours);
        let host = host(from.ip());
        let of_one = come().filter(|(at, _)| self::host(at.ip()) == host).count();
        let handshakes = come().filter(|(_, stream)| !stream.is_agreed()).count();
        let full = self.standing.len() >= MAX_STREAMS
            || of_one >= MAX_OF_ONE
            || handshakes >= MAX_HANDSHAKES
            || self.standing.contains_key(&from);
        if full { None } else { self.add(from, false) }
    }

    fn add(&mut self, at: SocketAddr, ours: bool) -> Option<Arc<Stream>> {
        self.last += 1;
        let stream = Arc::new(Stream::new(self.last, ours).ok()?);
        self.standing.insert(at, Arc::clone(&stream));
        Some(stream)
    }

    fn leaves(&mut self, at: SocketAddr, number: u64) {
        if let Some(stream) = self.standing.get(&at)
            && stream.number == number
        {
            self.standing.remove(&at);
        }
    }

    /// One of ours has ended: the next is tried after a second, or twice as long as the last time if nothing came.
    fn ended(&mut self, at: SocketAddr, number: u64, heard: bool) {
        self.leaves(at, number);
        let before = self.resting.get(&at).filter(|_| !heard);
        let gap = before.map_or(FIRST_REST, |rest| (rest.gap * 2).min(LONGEST_REST));
        let until = Instant::now() + gap;
        self.resting.insert(at, Rest { until, gap });
    }
}

/// What stands for a host: a network of 64 bits is one's own.
fn host(ip: IpAddr) -> IpAddr {
    match ip {
        IpAddr::V4(_) => ip,
        IpAddr::V6(ip) => Ipv6Addr::from(u128::from(ip) >> 64 << 64).into(),
    }
}

fn listen(at: SocketAddr, uplink: Option<&IfName>) -> io::Result<TcpListener> {
    let socket = sockets::open(at, Type::STREAM, uplink)?;
    socket.set_reuse_address(true)?;
    socket.bind(&SockAddr::from(at))?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    #[test]
    fn each_host_has_few_places_and_those_who_agree_on_nothing_fewer_than_all() {
        let mut table = Table::default();
        let mut from_one = |host: &str, port| {
            let from = SocketAddr::new(host.parse().unwrap(), port);
            table.admits(from).is_some()
        };
        let admitted = |host: u16, port| (format!("2001:db8::{host:x}"), port);
        let all = (0..100).map(|number| admitted(number, number + 1));
        let taken = all.filter(|(host, port)| from_one(host, *port)).count();
        assert_eq!(taken, MAX_OF_ONE, "one network of 64 bits");
        let taken = (1..100).filter(|port| from_one("192.0.2.1", *port)).count();
        assert_eq!(taken, MAX_OF_ONE);
        let others = (1..200).filter(|number| from_one(&format!("198.51.100.{number}"), 1));
        assert_eq!(others.count(), MAX_HANDSHAKES - 2 * MAX_OF_ONE);
        assert!(table.dials(at("203.0.113.1:443"), Instant::now()).is_some());
    }

    #[test]
    fn who_does_not_answer_is_called_after_pauses_that_grow_to_half_a_minute() {
        let (mut table, to) = (Table::default(), at("[2001:db8::1]:443"));
        let began = Instant::now();
        let mut gaps = Vec::new();
        for heard in [false, false, false, false, false, false, false, true, false] {
            let rest = table.resting.get(&to).map(|rest| rest.until);
            let when = rest.unwrap_or(began);
            if let Some(until) = rest {
                assert!(table.dials(to, until - Duration::from_millis(1)).is_none());
            }
            let stream = table.dials(to, when).unwrap();
            assert!(table.dials(to, when + LONGEST_REST).is_none(), "it stands");
            table.ended(to, stream.number, heard);
            gaps.push(table.resting[&to].gap.as_secs());
        }
        assert_eq!(gaps, [1, 2, 4, 8, 16, 30, 30, 1, 2]);
    }

    #[test]
    fn addresses_that_rest_are_bounded() {
        let mut table = Table::default();
        let now = Instant::now();
        let call = |table: &mut Table, port, now| {
            let to = SocketAddr::new("192.0.2.1".parse().unwrap(), port);
            let stream = table.dials(to, now);
            if let Some(stream) = &stream {
                table.ended(to, stream.number, false);
            }
            stream.is_some()
        };
        let called = (1..1_000)
            .filter(|port| call(&mut table, *port, now))
            .count();
        assert_eq!((called, table.resting.len()), (MAX_RESTING, MAX_RESTING));
        assert!(call(&mut table, 1_000, now + LONGEST_REST * 3));
        assert_eq!(table.resting.len(), 1);
    }
}
