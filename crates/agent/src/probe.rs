//! The driver of the engine that watches other hosts' kernels ([`hextet_bfd::probe`]): its socket and its timer.
//!
//! As BFD's it runs on a thread of its own, before others of ordinary priority, so that nothing else in the agent
//! makes a kernel look silent.

mod echo;

use std::{
    collections::BTreeMap,
    io,
    net::{IpAddr, SocketAddr},
    thread,
};

use anyhow::{Context, Result};
use hextet_api::agent::Pulse;
use hextet_bfd::probe::{Action, Engine, Event};
use hextet_kernel::priority;
use hextet_types::{Family, HostId};
use rand::Rng;
use socket2::Socket;
use tokio::{io::unix::AsyncFd, sync::watch};
use tracing::{debug, info, warn};

use crate::clock::Clock;

/// Packets read in one go before the engine's timer is looked at again.
const BATCH: usize = 256;
/// More than any answer needs, the header of IPv4 with all options included.
const PACKET: usize = 128;

/// Whom to watch, and where.
pub type Watched = BTreeMap<HostId, IpAddr>;
/// How those kernels fare of which that is known.
pub type Pulses = BTreeMap<HostId, Pulse>;

/// Watches, from that address of this host's, whoever is to be watched, in the thread's network namespace. It ends
/// when nobody can be told any more whom to watch.
///
/// # Errors
///
/// No thread can be started.
pub fn start(
    clock: Clock,
    own: IpAddr,
    watched: watch::Receiver<Watched>,
) -> Result<watch::Receiver<Pulses>> {
    let (told, pulses) = watch::channel(Pulses::new());
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("make a runtime for the watch of other hosts")?;
    let run = move || {
        if let Err(error) = priority::raise() {
            warn!(%error, "other hosts are watched with ordinary priority: on a busy host they may look silent");
        }
        let driver = Driver {
            engine: Engine::new(rand::rng().random()),
            clock,
            own,
            id: rand::rng().random(),
            socket: None,
            told,
        };
        runtime.block_on(driver.run(watched));
    };
    thread::Builder::new()
        .name("probe".to_owned())
        .spawn(run)
        .context("start the thread that watches other hosts")?;
    Ok(pulses)
}

struct Driver {
    engine: Engine,
    clock: Clock,
    own: IpAddr,
    /// In all of our echo requests.
    id: u16,
    /// Opened when there is something to send, and again after a failure: the address may not be there yet.
    socket: Option<AsyncFd<Socket>>,
    told: watch::Sender<Pulses>,
}

impl Driver {
    async fn run(mut self, mut watched: watch::Receiver<Watched>) {
        let first = watched.borrow_and_update().clone();
        self.handle(Event::Watch(first));
        loop {
            let wakeup = self.engine.next_wakeup();
            tokio::select! {
                changed = watched.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    let now = watched.borrow_and_update().clone();
                    self.handle(Event::Watch(now));
                    self.publish();
                }
                () = readable(self.socket.as_ref()) => self.receive(),
                () = self.clock.sleep_until(wakeup) => {
                    // What came while we were not looking shows that the kernel answers.
                    self.receive();
                    self.handle(Event::Timer);
                }
            }
        }
    }

    fn receive(&mut self) {
        for _ in 0..BATCH {
            let Some(socket) = &self.socket else { return };
            let mut packet = [0; PACKET];
            match echo::receive(socket.get_ref(), &mut packet) {
                Ok((octets, from)) => {
                    let packet = packet.get(..octets).unwrap_or_default();
                    if let Some(token) = echo::answer(Family::of(from), self.id, packet) {
                        self.handle(Event::Answer { from, token });
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) => {
                    debug!(%error, "read an answer to a probe");
                    return;
                }
            }
        }
    }

    fn handle(&mut self, event: Event) {
        let mut news = false;
        for action in self.engine.handle(event, self.clock.now()) {
            match action {
                Action::Send {
                    to,
                    token,
                    sequence,
                } => {
                    let packet = echo::request(Family::of(to), self.id, sequence, token);
                    if let Err(error) = self.send(to, &packet) {
                        debug!(%to, %error, "a probe was not sent");
                        self.socket = None;
                    }
                }
                Action::Changed { host, answers } => {
                    match answers {
                        true => info!(%host, "its kernel answers"),
                        false => warn!(%host, "its kernel does not answer any more"),
                    }
                    news = true;
                }
                Action::Refused(host) => warn!(%host, "not watched: too many are"),
            }
        }
        if news {
            self.publish();
        }
    }

    fn send(&mut self, to: IpAddr, packet: &[u8]) -> io::Result<usize> {
        let socket = match self.socket.take() {
            Some(socket) => socket,
            None => {
                let socket = echo::open(self.own, self.id)?;
                #[expect(
                    deprecated,
                    reason = "its successor is unsafe; the socket owns its one descriptor"
                )]
                AsyncFd::new(socket)?
            }
        };
        let socket = self.socket.insert(socket).get_ref();
        socket.send_to(packet, &SocketAddr::new(to, 0).into())
    }

    fn publish(&self) {
        let pulse = |answers| match answers {
            true => Pulse::Answers,
            false => Pulse::Silent,
        };
        let known = self.engine.known();
        let known = known.map(|(host, answers)| (host.clone(), pulse(answers)));
        self.told.send_replace(known.collect());
    }
}

/// Until there may be something to read; for ever without a socket.
async fn readable(socket: Option<&AsyncFd<Socket>>) {
    let Some(socket) = socket else {
        return std::future::pending().await;
    };
    if let Ok(mut ready) = socket.readable().await {
        // What is read next is read until nothing is left.
        ready.clear_ready();
    }
}
