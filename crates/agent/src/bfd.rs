//! The driver of the BFD engine: its sockets, its timers, and the links under its sessions.
//!
//! It runs on a thread of its own, before others of ordinary priority, so that nothing else in the
//! agent can make a peer look dead. Whom it watches is fixed at its start.

mod socket;

use std::{
    collections::BTreeMap,
    io,
    net::IpAddr,
    sync::Arc,
    thread::{self, JoinHandle},
    time::Duration,
};

use anyhow::{Context, Result};
use hextet_bfd::{Action, Config, Engine, Event, Peer, Refusal, packet::State, session::Change};
use hextet_kernel::{netlink::CarrierMonitor, priority};
use hextet_types::{Family, IfName, Time};
use rand::Rng;
use socket2::Socket;
use tokio::{
    io::unix::AsyncFd,
    net::UdpSocket,
    sync::{mpsc, oneshot, watch},
};
use tracing::{debug, error, info, warn};

use crate::clock::Clock;
use socket::{Datagram, Sender};

/// Datagrams read in one go before the engine's timers are looked at again.
const BATCH: usize = 256;
/// Changes that wait to be heard; later ones of the same session then take the place of earlier ones.
const QUEUE: usize = 64;
/// Refused packets are told at most this often.
const REFUSALS_TOLD: Duration = Duration::from_secs(10);

/// Each session's state as `hextet status` shows it, with why it was lost.
pub type Sessions = BTreeMap<(IfName, IpAddr), String>;

/// The other end of the driver.
#[derive(Debug)]
pub struct Handle {
    /// What happened to sessions. Of several changes that were not heard in time, only the last of a
    /// session comes. Once this is dropped, the driver says goodbye to all and ends.
    pub changes: mpsc::Receiver<(Peer, Change)>,
    /// Their present states.
    pub sessions: watch::Receiver<Arc<Sessions>>,
    /// Resolves when the driver has ended.
    pub ended: oneshot::Receiver<()>,
    /// Ends when the driver has.
    pub thread: JoinHandle<()>,
}

/// Starts the driver in the thread's network namespace.
///
/// # Errors
///
/// The control port is taken: another BFD program runs on this host.
pub fn start(clock: Clock, watched: Vec<(Peer, Config)>) -> Result<Handle> {
    let receivers = [socket::listen(Family::V4)?, socket::listen(Family::V6)?];
    let carriers = CarrierMonitor::open()?;
    let (changes_out, changes) = mpsc::channel(QUEUE);
    let (sessions_out, sessions) = watch::channel(Arc::default());
    let (alive, ended) = oneshot::channel();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("make a runtime for BFD")?;
    let run = move || {
        let _alive: oneshot::Sender<()> = alive;
        if let Err(error) = priority::raise() {
            warn!(%error, "BFD runs with ordinary priority: on a busy host peers may look dead");
        }
        runtime.block_on(async {
            match Driver::new(receivers, carriers, clock, changes_out, sessions_out) {
                Ok(driver) => driver.run(watched).await,
                Err(error) => error!(%error, "BFD does not run"),
            }
        });
    };
    let thread = thread::Builder::new().name("bfd".to_owned()).spawn(run);
    Ok(Handle {
        changes,
        sessions,
        ended,
        thread: thread.context("start BFD's thread")?,
    })
}

struct Driver {
    engine: Engine,
    clock: Clock,
    receivers: [UdpSocket; 2],
    senders: BTreeMap<Peer, Sender>,
    carriers: AsyncFd<CarrierMonitor>,
    changes: mpsc::Sender<(Peer, Change)>,
    /// Changes for which there was no room yet.
    untold: BTreeMap<Peer, Change>,
    sessions: watch::Sender<Arc<Sessions>>,
    refusals: Refusals,
}

impl Driver {
    fn new(
        receivers: [Socket; 2],
        carriers: CarrierMonitor,
        clock: Clock,
        changes: mpsc::Sender<(Peer, Change)>,
        sessions: watch::Sender<Arc<Sessions>>,
    ) -> io::Result<Driver> {
        let [v4, v6] = receivers.map(|socket| UdpSocket::from_std(socket.into()));
        #[expect(
            deprecated,
            reason = "its successor is unsafe; the monitor owns its one descriptor"
        )]
        let carriers = AsyncFd::new(carriers)?;
        Ok(Driver {
            engine: Engine::new(rand::rng().random()),
            clock,
            receivers: [v4?, v6?],
            senders: BTreeMap::new(),
            carriers,
            changes,
            untold: BTreeMap::new(),
            sessions,
            refusals: Refusals::default(),
        })
    }

    /// Until nobody hears of changes any more, and every session has said goodbye.
    async fn run(mut self, watched: Vec<(Peer, Config)>) {
        let peers: Vec<Peer> = watched.iter().map(|(peer, _)| peer.clone()).collect();
        for (peer, config) in watched {
            self.handle(Event::Watch { peer, config });
        }
        while !self.changes.is_closed() {
            self.step().await;
        }
        for peer in peers {
            self.handle(Event::Unwatch { peer });
        }
        while self.engine.next_wakeup().is_some() {
            self.step().await;
        }
    }

    async fn step(&mut self) {
        let wakeup = self.engine.next_wakeup();
        let [v4, v6] = &self.receivers;
        tokio::select! {
            _ = v4.readable() => self.receive(),
            _ = v6.readable() => self.receive(),
            lost = next_lost(&mut self.carriers) => self.links_lost(lost),
            () = self.clock.sleep_until(wakeup) => {
                // What came while we were not looking shows that the peer lives.
                self.receive();
                self.handle(Event::Timer);
            }
            room = self.changes.clone().reserve_owned(), if !self.untold.is_empty() => {
                if let (Ok(room), Some(change)) = (room, self.untold.pop_first()) {
                    drop(room.send(change));
                }
            }
            () = self.changes.closed(), if !self.changes.is_closed() => {}
        }
    }

    fn receive(&mut self) {
        for index in 0..self.receivers.len() {
            for _ in 0..BATCH {
                let Some(datagram) = self.receivers.get(index).and_then(socket::receive) else {
                    break;
                };
                let Datagram {
                    peer,
                    hop_limit,
                    payload,
                } = datagram;
                self.handle(Event::Datagram {
                    peer,
                    hop_limit,
                    payload,
                });
            }
        }
    }

    fn links_lost(&mut self, lost: io::Result<Vec<IfName>>) {
        match lost {
            Ok(lost) => {
                for interface in lost {
                    self.handle(Event::LinkDown { interface });
                }
            }
            Err(error) => debug!(%error, "BFD can't hear of lost links"),
        }
    }

    fn handle(&mut self, event: Event) {
        let watching = matches!(event, Event::Watch { .. } | Event::Unwatch { .. });
        let now = self.clock.now();
        let actions = self.engine.handle(event, now);
        let mut stale = watching;
        for action in actions {
            match action {
                Action::Send { peer, payload } => {
                    let sender = self.senders.entry(peer);
                    sender
                        .or_insert_with_key(|peer| Sender::new(peer.clone()))
                        .send(&payload);
                }
                Action::Changed { peer, change } => {
                    info!(%peer, "BFD: {change}");
                    stale = true;
                    self.untold.insert(peer, change);
                }
                Action::Refused { peer, refusal } => self.refusals.tell(&peer, refusal, now),
            }
        }
        if stale {
            self.publish();
        }
    }

    fn publish(&mut self) {
        let mut sessions = Sessions::new();
        for (peer, status) in self.engine.status() {
            let text = match status.last_loss.filter(|_| status.state != State::Up) {
                Some(loss) => format!("{} ({})", status.state, loss.reason),
                None => status.state.to_string(),
            };
            sessions.insert((peer.interface().clone(), peer.address()), text);
        }
        self.sessions.send_replace(Arc::new(sessions));
    }
}

async fn next_lost(carriers: &mut AsyncFd<CarrierMonitor>) -> io::Result<Vec<IfName>> {
    loop {
        let mut ready = carriers.readable_mut().await?;
        if let Ok(lost) = ready.try_io(|carriers| carriers.get_mut().read()) {
            return lost;
        }
    }
}

/// Counts what the network decides the rate of, and logs it at a rate of ours.
#[derive(Debug, Default)]
struct Refusals {
    untold: u64,
    next: Time,
}

impl Refusals {
    fn tell(&mut self, peer: &Peer, refusal: Refusal, now: Time) {
        self.untold += 1;
        if now >= self.next {
            warn!(%peer, %refusal, count = self.untold, "BFD packets refused");
            self.next = now + REFUSALS_TOLD;
            self.untold = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_are_told_at_our_rate() {
        let peer = Peer::new("lo".parse().unwrap(), "::1".parse().unwrap());
        let mut refusals = Refusals::default();
        for millis in 0..15_000 {
            refusals.tell(
                &peer,
                Refusal::UnknownPeer,
                Time::ZERO + Duration::from_millis(millis),
            );
        }
        // Told at 0 s and 10 s.
        assert_eq!(refusals.untold, 4_999);
    }
}
