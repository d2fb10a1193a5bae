//! One tunnel: its device, its socket, its keys, and the two threads that move packets.

use std::{
    io::{self, PipeReader, PipeWriter},
    net::{SocketAddr, UdpSocket},
    os::fd::{AsFd as _, BorrowedFd},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{
            AtomicBool,
            Ordering::{Relaxed, SeqCst},
        },
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use hextet_kernel::tun::{Tun, Whole};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::{
    Mtu, Spec,
    control::Status,
    datagrams::{self, Sender},
    inward::Inward,
    outward::Outward,
    session::{HANDSHAKE, Session},
    tally::Tally,
};

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
    #[error("tunnel {0} listens at {1}: {2} is of the other family")]
    Family(String, SocketAddr, SocketAddr),
}

/// What both threads have.
pub struct Shared {
    pub tun: Tun,
    pub socket: UdpSocket,
    pub tally: Tally,
    pub segments: bool,
    pub datagrams: bool,
    session: Mutex<Session>,
    endpoint: Mutex<Option<SocketAddr>>,
    ending: AtomicBool,
    lost: AtomicBool,
    /// Ends when the tunnel does.
    end: PipeReader,
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

    fn endpoint(&self) -> MutexGuard<'_, Option<SocketAddr>> {
        self.endpoint.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The peer has proved to be there now.
    pub fn meet(&self, at: SocketAddr) {
        *self.endpoint() = Some(at);
    }

    /// Sends to an address, or else to the peer.
    pub fn send(&self, sender: &mut Sender, octets: &[u8], lens: &[usize], to: Option<SocketAddr>) {
        let to = to.or_else(|| *self.endpoint());
        let unsent = match to {
            Some(to) => sender.send(&self.socket, to, octets, lens),
            None => lens.len() as u64,
        };
        self.tally.unsent.fetch_add(unsent, Relaxed);
    }

    /// Until there is something to read, the tunnel ends, or it takes too long.
    pub fn wait(&self, fd: BorrowedFd<'_>, limit: Option<Duration>) -> Woken {
        let mut fds = [
            PollFd::new(fd, PollFlags::POLLIN),
            PollFd::new(self.end.as_fd(), PollFlags::POLLIN),
        ];
        let limit = limit.map_or(PollTimeout::NONE, |limit| {
            let millis = limit.as_millis().saturating_add(1);
            u16::try_from(millis).unwrap_or(u16::MAX).into()
        });
        let _ = poll(&mut fds, limit);
        let ended = fds[1].revents().is_some_and(|events| !events.is_empty());
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
    /// Makes a tunnel; `index` is one that no other of the process has.
    ///
    /// # Errors
    ///
    /// The interface or the port is taken, or the right to make them missing. Nothing is left then.
    pub fn up(spec: Spec, index: u32) -> Result<Tunnel, Error> {
        let system = |what| {
            let name = spec.name.to_string();
            move |error| Error::System(what, name, error)
        };
        if let Some(endpoint) = spec.endpoint {
            check_family(&spec, endpoint)?;
        }
        let socket = datagrams::open(&spec).map_err(system("open the socket"))?;
        let most = if spec.segments {
            Whole::TcpAndUdp
        } else {
            Whole::Nothing
        };
        let tun = Tun::create(&spec.name, most)?;
        let mtu = u16::from(spec.mtu);
        let (end, writer) = io::pipe().map_err(system("make a pipe"))?;
        let shared = Arc::new(Shared {
            socket,
            tally: Tally::new(mtu),
            segments: spec.segments,
            datagrams: tun.whole() == Whole::TcpAndUdp,
            session: Mutex::new(Session::new(&spec, index)),
            endpoint: Mutex::new(spec.endpoint),
            ending: AtomicBool::new(false),
            lost: AtomicBool::new(false),
            end,
            tun,
        });
        let link_local = spec.private_key.public().link_local();
        shared.tun.set_up(mtu, QUEUE, link_local)?;
        let failed = system("start a thread");
        let mut tunnel = Tunnel {
            spec,
            shared,
            end: Some(writer),
            threads: Vec::new(),
        };
        tunnel.start().map_err(failed)?;
        if tunnel.spec.keepalive_secs > 0 {
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

    /// Begins a handshake, if it is known where the peer is.
    fn greet(&self) {
        if self.shared.endpoint().is_none() {
            return;
        }
        let mut message = [0; HANDSHAKE];
        let len = self.shared.session().begin(&mut message);
        if let Some(message) = message.get(..len).filter(|message| !message.is_empty()) {
            let mut sender = Sender::new(false);
            self.shared.send(&mut sender, message, &[len], None);
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
    pub fn set_endpoint(&mut self, endpoint: SocketAddr) -> Result<(), Error> {
        check_family(&self.spec, endpoint)?;
        self.spec.endpoint = Some(endpoint);
        self.shared.meet(endpoint);
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
        Ok(())
    }

    /// How it stands.
    pub fn status(&self) -> Status {
        let tally = &self.shared.tally;
        let public = self.spec.private_key.public();
        Status {
            name: self.spec.name.clone(),
            link_local: public.link_local(),
            peer_link_local: self.spec.peer_key.link_local(),
            public_key: public,
            peer_key: self.spec.peer_key.clone(),
            listen: self.shared.socket.local_addr().ok(),
            endpoint: *self.shared.endpoint(),
            mtu: self.spec.mtu,
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
        self.shared.ending.store(true, SeqCst);
        drop(self.end.take());
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

fn check_family(spec: &Spec, endpoint: SocketAddr) -> Result<(), Error> {
    if endpoint.is_ipv4() == spec.listen.is_ipv4() {
        return Ok(());
    }
    let name = spec.name.to_string();
    Err(Error::Family(name, spec.listen, endpoint))
}
