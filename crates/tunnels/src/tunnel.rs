//! One tunnel: its device, its ways, its keys, and the two threads that move packets.

use std::{
    collections::HashMap,
    io::{self, PipeReader, PipeWriter},
    net::{IpAddr, SocketAddr},
    os::fd::{AsFd as _, BorrowedFd},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{
            AtomicBool,
            Ordering::{Relaxed, SeqCst},
        },
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use hextet_kernel::tun::{Tun, Whole};
use hextet_types::{IfName, Way};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::{
    Listen, Mtu, Spec,
    control::Status,
    datagrams::{self, Sender, send_whole},
    door::Doors,
    inbox::Inbox,
    inward::Inward,
    outward::Outward,
    path::{Ends, Path, Probe},
    search::{MAX_CANDIDATES, Search},
    session::{HANDSHAKE, Session},
    tally::Tally,
    ways::Ways,
};

/// Who has sent a packet in that time sends.
const ACTIVE_MILLIS: u64 = 15_000;
/// Packets that wait in the device: fewer throttle TCP at a distance.
const QUEUE: u32 = 2_000;

/// A tunnel that could not be made, or changed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Of the device.
    #[error(transparent)]
    Device(#[from] hextet_kernel::Error),
    /// Of the socket, or a thread.
    #[error("{0} for tunnel {1}: {2}")]
    System(&'static str, String, #[source] io::Error),
    /// The peer is where the socket can't send.
    #[error("tunnel {0} listens at {1:?}: {2} is of the other family, or a stream without doors")]
    Family(String, Vec<SocketAddr>, Way),
    /// There are more than it can be sought at.
    #[error("tunnel {0}: {1} candidates, of {MAX_CANDIDATES} at most")]
    Candidates(String, usize),
    /// It is to be heard where it can't.
    #[error(
        "tunnel {0} listens at {1:?}: it needs one or two doors that stand, of different families"
    )]
    Doors(String, Vec<SocketAddr>),
}

/// What both threads have.
pub struct Shared {
    pub tun: Tun,
    pub ways: Ways,
    pub tally: Tally,
    /// Of probes.
    pub ends: Ends,
    pub segments: bool,
    pub datagrams: bool,
    session: Mutex<Session>,
    endpoint: Mutex<Endpoint>,
    search: Mutex<Search>,
    path: Mutex<Path>,
    /// Whether the path is to know what comes.
    probes: AtomicBool,
    /// Whether the search is to know when the peer is heard.
    waits: AtomicBool,
    /// Where the peer was said to be last.
    given: Mutex<Option<Way>>,
    ending: AtomicBool,
    lost: AtomicBool,
    /// Ends when the tunnel does.
    end: PipeReader,
}

/// Where the peer is.
#[derive(Clone, Copy, Debug)]
struct Endpoint {
    at: Option<Way>,
    /// It has been heard from there.
    proven: bool,
}

/// What came of the peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heard {
    /// A handshake's first message: it can send by that way.
    Greeting,
    /// The answer to ours: the way is good for both.
    Answer,
    /// A packet.
    Packet,
}

impl Endpoint {
    /// Whether the peer is followed to where it was heard. From a stream to UDP only if that is known to be good both ways, which for the one
    /// who answers is the first packet; and from UDP to a stream only by a handshake: packets may still come by the one that was left.
    fn follows(&self, to: Way, heard: Heard) -> bool {
        match self.at.filter(|_| self.proven) {
            Some(Way::Tls(_)) if to.udp().is_some() => heard != Heard::Greeting,
            Some(Way::Udp(_)) if to.tls().is_some() => heard != Heard::Packet,
            _ => true,
        }
    }
}

/// Why a thread goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Woken {
    ToWork,
    ToEnd,
}

impl Shared {
    /// For the time of a batch.
    pub fn session(&self) -> MutexGuard<'_, Session> {
        self.session.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn endpoint(&self) -> MutexGuard<'_, Endpoint> {
        self.endpoint.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn given(&self) -> MutexGuard<'_, Option<Way>> {
        self.given.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn path(&self) -> MutexGuard<'_, Path> {
        self.path.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// For a moment.
    pub fn search(&self) -> MutexGuard<'_, Search> {
        self.search.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The peer has proved to be there now.
    pub fn meet(&self, at: Way, heard: Heard) {
        if self.waits.swap(false, SeqCst) {
            self.search().heard();
        }
        let follows = self.endpoint().follows(at, heard);
        if follows {
            self.move_to(at, true);
        }
    }

    /// Whether the peer is there, as far as it is known.
    pub fn is_at(&self, at: Way) -> bool {
        self.endpoint().at == Some(at)
    }

    /// Whether the peer has been heard by a stream last.
    pub fn is_by_stream(&self) -> bool {
        let endpoint = *self.endpoint();
        endpoint.proven && endpoint.at.is_some_and(|at| at.tls().is_some())
    }

    /// Where it may be by UDP.
    pub fn by_udp(&self) -> Vec<Way> {
        let search = self.search();
        let candidates = search.candidates().iter().copied();
        candidates.filter(|at| at.udp().is_some()).collect()
    }

    /// Where the stream ends by which the peer is reached.
    pub fn stream_end(&self) -> Option<SocketAddr> {
        self.endpoint().at.and_then(Way::tls)
    }

    /// Which stream to there stands. One that was given as a way to the peer is opened if it is not there.
    pub fn keep_stream(&self, at: SocketAddr) -> Option<u64> {
        self.dial(at);
        self.ways.streams()?.standing(at)
    }

    /// Opens a stream to an address that was given as one for streams, unless there is one.
    fn dial(&self, at: SocketAddr) {
        let given = Some(Way::Tls(at)) == *self.given();
        if given || self.search().candidates().contains(&Way::Tls(at)) {
            self.ways.dial(at);
        }
    }

    fn move_to(&self, at: Way, proven: bool) {
        let endpoint = Endpoint {
            at: Some(at),
            proven,
        };
        let before = std::mem::replace(&mut *self.endpoint(), endpoint);
        if before.at != Some(at) {
            self.expect();
            self.path().has_moved(Instant::now());
        }
    }

    /// Tells doors where the peer may be.
    fn expect(&self) {
        if let Some(inbox) = self.ways.inbox() {
            let addresses = self.addresses();
            inbox.expect(addresses.iter().map(|at| at.address().ip()).collect());
        }
    }

    /// All addresses where the peer may be, each once.
    fn addresses(&self) -> Vec<Way> {
        let mut addresses = self.search().candidates().to_vec();
        addresses.extend(self.endpoint().at);
        addresses.sort();
        addresses.dedup();
        addresses
    }

    /// Sends a handshake's first message to where the peer is, or to all places where it may be.
    pub fn greet(&self, sender: &mut Sender, message: &[u8]) {
        let to_all = {
            let mut search = self.search();
            let to_all = search.greets(message, Instant::now());
            self.waits.store(true, SeqCst);
            to_all
        };
        if to_all {
            self.endpoint().proven = false;
            self.send_to_all(sender, message);
        } else {
            if let Some(at) = self.stream_end() {
                self.dial(at);
            }
            self.send(sender, message, &[message.len()], None);
        }
    }

    /// Sends a message to all places where the peer may be.
    pub fn send_to_all(&self, sender: &mut Sender, message: &[u8]) {
        for to in self.addresses() {
            if let Way::Tls(at) = to {
                self.dial(at);
            }
            self.send(sender, message, &[message.len()], Some(to));
        }
    }

    /// Sends to an address, or else to the peer.
    pub fn send(&self, sender: &mut Sender, octets: &[u8], lens: &[usize], to: Option<Way>) {
        let to = to.or_else(|| self.endpoint().at);
        let unsent = match to {
            Some(Way::Udp(to)) => {
                let socket = self.ways.socket_to(to);
                socket.map(|socket| sender.send(socket, to, octets, lens))
            }
            Some(Way::Tls(to)) => {
                let streams = self.ways.streams();
                streams.map(|streams| streams.send(to, octets, lens))
            }
            None => None,
        };
        let unsent = unsent.unwrap_or(lens.len() as u64);
        self.tally.unsent.fetch_add(unsent, Relaxed);
    }

    /// A probe that is to be sent now.
    pub fn probe(&self) -> Option<Probe> {
        let endpoint = *self.endpoint();
        let is_there = endpoint.proven && endpoint.at.is_some_and(|at| at.udp().is_some());
        if !is_there {
            return None;
        }
        let sends = (self.tally.since_sent()).is_some_and(|millis| millis < ACTIVE_MILLIS);
        let (probe, mtu, is_asking) = {
            let mut path = self.path();
            let probe = path.due(sends, Instant::now());
            (probe, path.mtu(), path.is_asking())
        };
        self.probes.store(is_asking, SeqCst);
        self.carry_up_to(mtu);
        probe
    }

    /// Sends a probe that was sealed.
    pub fn send_probe(&self, probe: Probe, sealed: &[u8]) {
        let to = self.endpoint().at.and_then(Way::udp);
        let Some((to, socket)) = to.and_then(|to| Some((to, self.ways.socket_to(to)?))) else {
            return;
        };
        if send_whole(socket, to, sealed).is_err() {
            self.path().is_too_large(probe.number, Instant::now());
        }
    }

    /// Whether answers to probes are to be looked for in what comes.
    pub fn expects_answers(&self) -> bool {
        self.probes.load(Relaxed)
    }

    /// The answer to a probe has come.
    pub fn answered(&self, number: u16) {
        let mut path = self.path();
        path.hears(number, Instant::now());
        let mtu = path.mtu();
        drop(path);
        self.carry_up_to(mtu);
    }

    /// Gives the interface another MTU, if it is another.
    fn carry_up_to(&self, mtu: u16) {
        if self.tally.mtu.swap(mtu, Relaxed) != mtu && self.tun.set_mtu(mtu).is_err() {
            self.lost.store(!self.is_ending(), Relaxed);
        }
    }

    /// Until one of these has something to read, the tunnel ends, or it takes too long.
    pub fn wait(&self, what: &[BorrowedFd<'_>], limit: Option<Duration>) -> Woken {
        let mut fds = vec![PollFd::new(self.end.as_fd(), PollFlags::POLLIN)];
        fds.extend(what.iter().map(|fd| PollFd::new(*fd, PollFlags::POLLIN)));
        let limit = limit.map_or(PollTimeout::NONE, |limit| {
            let millis = limit.as_millis().saturating_add(1);
            u16::try_from(millis).unwrap_or(u16::MAX).into()
        });
        let _ = poll(&mut fds, limit);
        let ended = fds[0].revents().is_some_and(|events| !events.is_empty());
        if ended { Woken::ToEnd } else { Woken::ToWork }
    }

    pub fn is_ending(&self) -> bool {
        self.ending.load(SeqCst)
    }
}

/// A tunnel that stands until it is dropped.
pub struct Tunnel {
    spec: Spec,
    shared: Arc<Shared>,
    end: Option<PipeWriter>,
    threads: Vec<JoinHandle<()>>,
}

impl Tunnel {
    /// Makes a tunnel; `index` is one that no other of the process has, of 24 bits.
    ///
    /// # Errors
    ///
    /// The interface or the port is taken, a door isn't there, or the right to make them missing. Nothing is left then.
    pub fn up(spec: Spec, index: u32, doors: &Doors) -> Result<Tunnel, Error> {
        let system = |what| {
            let name = spec.name.to_string();
            move |error| Error::System(what, name, error)
        };
        let ways = ways(&spec, index, doors)?;
        check(&spec.name, &ways, spec.endpoint.as_slice())?;
        check(&spec.name, &ways, &spec.candidates)?;
        let most = if spec.segments {
            Whole::TcpAndUdp
        } else {
            Whole::Nothing
        };
        let tun = Tun::create(&spec.name, most)?;
        let mtu = u16::from(spec.mtu);
        let (end, writer) = io::pipe().map_err(system("make a pipe"))?;
        let link_local = spec.private_key.public().link_local();
        let shared = Arc::new(Shared {
            ways,
            tally: Tally::new(mtu),
            segments: spec.segments,
            datagrams: tun.whole() == Whole::TcpAndUdp,
            session: Mutex::new(Session::new(&spec, index)),
            endpoint: Mutex::new(Endpoint {
                at: None,
                proven: false,
            }),
            search: Mutex::new(Search::new(spec.candidates.clone())),
            path: Mutex::new(path(&spec)),
            probes: AtomicBool::new(false),
            ends: Ends {
                own: link_local,
                peer: spec.peer_key.link_local(),
                identifier: index as u16,
            },
            waits: AtomicBool::new(true),
            given: Mutex::new(spec.endpoint),
            ending: AtomicBool::new(false),
            lost: AtomicBool::new(false),
            end,
            tun,
        });
        shared.tun.set_up(mtu, QUEUE, link_local)?;
        let failed = system("start a thread");
        let mut tunnel = Tunnel {
            spec,
            shared,
            end: Some(writer),
            threads: Vec::new(),
        };
        tunnel.start().map_err(failed)?;
        if let Some(endpoint) = tunnel.spec.endpoint {
            tunnel.shared.move_to(endpoint, false);
        }
        tunnel.shared.expect();
        tunnel.shared.ways.open();
        if tunnel.spec.keepalive_secs > 0 || !tunnel.spec.candidates.is_empty() {
            tunnel.greet();
        }
        Ok(tunnel)
    }

    fn start(&mut self) -> io::Result<()> {
        let (out, shared) = (
            Outward::new(Arc::clone(&self.shared)),
            Arc::clone(&self.shared),
        );
        let name = self.spec.name.as_str();
        let thread = thread::Builder::new().name(format!("{name}>"));
        self.threads.push(thread.spawn(move || {
            out.run();
            shared.lost.store(!shared.is_ending(), Relaxed);
        })?);
        let inward = Inward::new(Arc::clone(&self.shared));
        let thread = thread::Builder::new().name(format!("{name}<"));
        self.threads.push(thread.spawn(move || inward.run())?);
        Ok(())
    }

    /// Begins a handshake, if it is known where the peer may be.
    fn greet(&self) {
        if self.shared.addresses().is_empty() {
            return;
        }
        let mut message = [0; HANDSHAKE];
        let len = self.shared.session().begin_anew(&mut message);
        if len == HANDSHAKE {
            self.shared.greet(&mut Sender::new(false), &message);
        }
    }

    /// What it was made as.
    pub const fn spec(&self) -> &Spec {
        &self.spec
    }

    /// The peer is there now, says who should know.
    ///
    /// # Errors
    ///
    /// It is of the other family.
    pub fn set_endpoint(&mut self, endpoint: Way) -> Result<(), Error> {
        check(&self.spec.name, &self.shared.ways, &[endpoint])?;
        self.spec.endpoint = Some(endpoint);
        *self.shared.given() = Some(endpoint);
        self.shared.move_to(endpoint, false);
        Ok(())
    }

    /// The peer may be there, says who should know.
    ///
    /// # Errors
    ///
    /// They are too many, or one is of a family that the tunnel has not.
    pub fn set_candidates(&mut self, candidates: Vec<Way>) -> Result<(), Error> {
        check(&self.spec.name, &self.shared.ways, &candidates)?;
        self.spec.candidates.clone_from(&candidates);
        let searching = {
            let mut search = self.shared.search();
            search.replace(candidates);
            search.is_on()
        };
        self.shared.expect();
        if searching {
            self.greet();
        }
        Ok(())
    }

    /// Gives its interface another MTU.
    ///
    /// # Errors
    ///
    /// The kernel refuses.
    pub fn set_mtu(&mut self, mtu: Mtu) -> Result<(), Error> {
        self.shared.tun.set_mtu(mtu.into())?;
        self.shared.tally.mtu.store(mtu.into(), Relaxed);
        self.spec.mtu = mtu;
        *self.shared.path() = path(&self.spec);
        Ok(())
    }

    /// Where its packets went since this was asked last.
    pub fn take_destinations(&self) -> HashMap<IpAddr, u64> {
        self.shared.tally.take_destinations()
    }

    /// How it stands.
    pub fn status(&self) -> Status {
        let tally = &self.shared.tally;
        let public = self.spec.private_key.public();
        let endpoint = *self.shared.endpoint();
        Status {
            name: self.spec.name.clone(),
            link_local: public.link_local(),
            peer_link_local: self.spec.peer_key.link_local(),
            public_key: public,
            peer_key: self.spec.peer_key.clone(),
            listen: self.shared.ways.addresses(),
            endpoint: endpoint.at,
            endpoint_proven: endpoint.proven,
            candidates: self.spec.candidates.clone(),
            searching: self.shared.search().is_on(),
            mtu: Mtu::try_from(tally.mtu.load(Relaxed)).unwrap_or(self.spec.mtu),
            device_lost: self.shared.lost.load(Relaxed),
            handshake_secs: self.shared.session().since_handshake(),
            sent_millis: tally.since_sent(),
            heard_millis: tally.since_heard(),
            octets_out: tally.octets_out.load(Relaxed),
            octets_in: tally.octets_in.load(Relaxed),
            unsent: tally.unsent.load(Relaxed),
            refused: tally.refused.load(Relaxed),
            dropped: tally.dropped.load(Relaxed),
        }
    }
}

impl Drop for Tunnel {
    fn drop(&mut self) {
        self.shared.ways.close();
        self.shared.ending.store(true, SeqCst);
        drop(self.end.take());
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

fn path(spec: &Spec) -> Path {
    let most = spec.most_mtu.unwrap_or(spec.mtu);
    Path::new(spec.mtu.into(), most.into(), Instant::now())
}

fn ways(spec: &Spec, index: u32, doors: &Doors) -> Result<Ways, Error> {
    let system = |what| move |error| Error::System(what, spec.name.to_string(), error);
    let wanted = match &spec.listen {
        Listen::Own(listen) => {
            let other = |endpoint: &Way| {
                let udp = endpoint.udp();
                udp.is_none_or(|udp| udp.is_ipv4() != listen.is_ipv4())
            };
            if let Some(endpoint) = spec.endpoint.filter(other) {
                let name = spec.name.to_string();
                return Err(Error::Family(name, vec![*listen], endpoint));
            }
            let socket = datagrams::open(*listen, spec.uplink.as_ref(), spec.segments);
            return socket.map(Ways::Own).map_err(system("open the socket"));
        }
        Listen::Doors(wanted) => wanted,
    };
    let found: Vec<_> = wanted.iter().filter_map(|at| doors.find(*at)).collect();
    let fits = match &found[..] {
        [_] => wanted.len() == 1,
        [one, other] => wanted.len() == 2 && one.address().is_ipv4() != other.address().is_ipv4(),
        _ => false,
    };
    if !fits {
        return Err(Error::Doors(spec.name.to_string(), wanted.clone()));
    }
    let inbox = Inbox::new(index, &spec.private_key.public().public_key());
    let inbox = inbox.map_err(|error| system("make an event")(error.into()))?;
    let streams = Arc::clone(doors.streams());
    Ok(Ways::Doors(found, Arc::new(inbox), streams))
}

fn check(name: &IfName, ways: &Ways, peer: &[Way]) -> Result<(), Error> {
    if peer.len() > MAX_CANDIDATES {
        return Err(Error::Candidates(name.to_string(), peer.len()));
    }
    match peer.iter().find(|at| !ways.reach(**at)) {
        None => Ok(()),
        Some(at) => Err(Error::Family(name.to_string(), ways.addresses(), *at)),
    }
}
