//! The driver of the BGP engine: TCP connections, and what goes between the engine and the rest.
//!
//! One task owns the [`Speaker`], and one each connection. What the network decides the rate of waits
//! in queues with bounds: octets read wait in one queue before the engine, and their connections with
//! them; routes learned wait in an [`Outbox`] until somebody takes them, one change for a prefix.
//!
//! The engine is told exactly once that a connection ended, and never after it closed it itself: what
//! comes of a connection without a [`Link`] is dropped.
//!
//! The end of the agent is no end of the host: the kernel forwards on. So peers are told nothing (RFC 4724:
//! a connection that ends without a NOTIFICATION begins a graceful restart), and BFD says AdminDown, which
//! means nothing to whoever uses it (RFC 5882 §4.3). Who wants the routes gone drains the host ([`Drain`]).

mod connection;
mod drain;
mod outbox;
mod setup;

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use anyhow::Result;
use bytes::Bytes;
use hextet_bfd::{
    Peer as BfdPeer,
    session::{Change as BfdChange, Verdict},
};
use hextet_bgp::{
    Action, Event, Speaker,
    config::{PeerKey, TtlPolicy},
    session::ConnId,
    speaker::SpeakerStatus,
};
use hextet_model::state::Announcement;
use hextet_types::Prefix;
use tokio::{
    sync::{Semaphore, mpsc, oneshot, watch},
    time::timeout,
};
use tracing::{debug, info, warn};

use crate::{bfd, clock::Clock, config::BgpConfig};
use connection::{Attempt, Happening, Incoming, Link};
pub use drain::{Drain, Drains};
pub use outbox::Learned;
use outbox::Outbox;

/// Happenings that wait for the engine before connections have to wait: at most 2 MiB of octets.
const QUEUE: usize = 64;
/// Batches of routes that wait for their reader.
const LEARNED_QUEUE: usize = 4;
/// How often the status is taken when no session comes or goes.
const STATUS_INTERVAL: Duration = Duration::from_secs(1);
/// How long the end may take: BFD says goodbye for as long as peers take to notice, usually 300 ms.
const GOODBYE: Duration = Duration::from_secs(2);

/// What is to be announced, as the plan has it.
pub type Announcements = BTreeMap<Prefix, Announcement>;

/// The other end of the driver.
#[derive(Debug)]
pub struct Handle {
    /// What the engine learned. When it is dropped, the driver ends; peers keep our routes for a while.
    pub learned: mpsc::Receiver<Learned>,
    /// Sessions and counts.
    pub status: watch::Receiver<Option<Arc<SpeakerStatus>>>,
    /// The states of BFD's sessions, where there are any.
    pub sessions: Option<watch::Receiver<Arc<bfd::Sessions>>>,
    /// For an end that is meant.
    pub end: End,
}

/// How the driver is told that the agent ends.
#[derive(Debug)]
pub struct End {
    tell: mpsc::Sender<()>,
    ended: oneshot::Receiver<()>,
}

impl End {
    /// Has BFD say that its end is meant, then closes all connections; peers keep our routes. Returns when
    /// that is done, or after two seconds.
    pub async fn come(self) {
        // Where the driver has ended already, there is nobody to tell.
        if self.tell.send(()).await.is_ok() {
            drop(timeout(GOODBYE, self.ended).await);
        }
    }
}

/// Starts the driver in the thread's network namespace. `announcements` are all that is to be announced,
/// each time in the place of what was, as far as the host is not drained; the driver ends with them. After a restart the first of them have
/// to be there already: peers withdraw what is not told anew. `restarting`: the kernel still forwards what
/// an earlier run taught it.
///
/// # Errors
///
/// The configuration can't work, a password can't be read, or the port of BGP or BFD is taken.
pub fn start(
    config: &BgpConfig,
    clock: Clock,
    restarting: bool,
    announcements: watch::Receiver<Announcements>,
    drain: watch::Receiver<Drain>,
) -> Result<Handle> {
    let peers = setup::peers(config)?;
    let listeners = setup::listen(&peers)?;
    let watched = setup::bfd_sessions(config)?;
    let ttls = peers
        .iter()
        .map(|peer| (peer.peer.clone(), peer.ttl))
        .collect();
    let names = config
        .peers
        .iter()
        .map(|peer| (setup::key(peer), peer.name.clone()))
        .collect();
    let (happenings_out, happenings) = mpsc::channel(QUEUE);
    let (learned_out, learned) = mpsc::channel(LEARNED_QUEUE);
    let (status_out, status) = watch::channel(None);
    let (tell, end) = mpsc::channel(1);
    let (ended_out, ended) = oneshot::channel();
    let mut driver = Driver {
        speaker: Speaker::new(setup::speaker(config, restarting), clock.now()),
        clock,
        links: BTreeMap::new(),
        ttls,
        names,
        happenings: happenings_out.clone(),
        outbox: Outbox::default(),
        status: status_out,
    };
    let mut announced = Announced {
        announcements,
        drain,
    };
    driver.announce(&mut announced);
    for peer in peers {
        driver.configure(peer)?;
    }
    let bfd = (!watched.is_empty())
        .then(|| bfd::start(clock, watched))
        .transpose()?;
    let sessions = bfd.as_ref().map(|bfd| bfd.sessions.clone());
    let permits = Arc::new(Semaphore::new(connection::MAX_ACCEPTED));
    for listener in listeners {
        let permits = Arc::clone(&permits);
        tokio::spawn(connection::accept(
            listener,
            permits,
            happenings_out.clone(),
        ));
    }
    let (changes, goodbye) = bfd.map(|bfd| (bfd.changes, bfd.ended)).unzip();
    let inputs = Inputs {
        happenings,
        announced,
        changes,
        end,
    };
    tokio::spawn(async move {
        driver.run(inputs, learned_out).await;
        // BFD's changes went with the inputs: it is saying goodbye.
        if let Some(goodbye) = goodbye {
            drop(goodbye.await);
        }
        drop(ended_out);
    });
    Ok(Handle {
        learned,
        status,
        sessions,
        end: End { tell, ended },
    })
}

/// What the driver hears.
struct Inputs {
    happenings: mpsc::Receiver<Happening>,
    announced: Announced,
    changes: Option<mpsc::Receiver<(BfdPeer, BfdChange)>>,
    end: mpsc::Receiver<()>,
}

/// What decides what is announced.
struct Announced {
    announcements: watch::Receiver<Announcements>,
    drain: watch::Receiver<Drain>,
}

impl Announced {
    /// Until one of them changes; false when there is nothing to announce any more.
    async fn changed(&mut self) -> bool {
        tokio::select! {
            changed = self.announcements.changed() => changed.is_ok(),
            Ok(()) = self.drain.changed() => true,
        }
    }
}

struct Driver {
    speaker: Speaker,
    clock: Clock,
    /// Attempts and connections that the engine has not closed and that have not ended.
    links: BTreeMap<ConnId, Link>,
    ttls: BTreeMap<PeerKey, TtlPolicy>,
    names: BTreeMap<PeerKey, String>,
    happenings: mpsc::Sender<Happening>,
    outbox: Outbox,
    status: watch::Sender<Option<Arc<SpeakerStatus>>>,
}

impl Driver {
    fn configure(&mut self, peer: hextet_bgp::config::PeerConfig) -> Result<()> {
        let event = Event::Configure(Box::new(peer));
        for action in self.speaker.handle(event, self.clock.now()) {
            if let Action::Refused(error) = action {
                return Err(error.into());
            }
            drop(self.act(action));
        }
        Ok(())
    }

    fn announce(&mut self, announced: &mut Announced) {
        let drain = *announced.drain.borrow_and_update();
        let routes = drain::local_routes(&announced.announcements.borrow_and_update(), drain);
        self.handle(Event::Announce(routes));
    }

    /// Until the end is told, nobody wants to know what was learned, or nothing is to be announced any more.
    async fn run(mut self, mut inputs: Inputs, learned: mpsc::Sender<Learned>) {
        let mut status_due = tokio::time::interval(STATUS_INTERVAL);
        loop {
            let wakeup = self.speaker.next_wakeup();
            tokio::select! {
                Some(happening) = inputs.happenings.recv() => self.happened(happening),
                changed = inputs.announced.changed() => {
                    if !changed {
                        return;
                    }
                    self.announce(&mut inputs.announced);
                }
                Some(()) = inputs.end.recv() => return,
                Some((peer, change)) = next(&mut inputs.changes) => self.path_changed(&peer, &change),
                () = self.clock.sleep_until(wakeup) => {
                    // What came while we were not looking shows that the peer lives.
                    for _ in 0..QUEUE {
                        let Ok(happening) = inputs.happenings.try_recv() else { break };
                        self.happened(happening);
                    }
                    self.handle(Event::Timer);
                }
                room = learned.reserve(), if !self.outbox.is_empty() => {
                    let Ok(room) = room else { return };
                    if let Some(learned) = self.outbox.take() {
                        room.send(learned);
                    }
                }
                () = learned.closed() => return,
                _ = status_due.tick() => self.publish(),
            }
        }
    }

    fn publish(&self) {
        self.status
            .send_replace(Some(Arc::new(self.speaker.status())));
    }

    fn happened(&mut self, happening: Happening) {
        match happening {
            Happening::Accepted(incoming) => self.accepted(incoming),
            Happening::Opened(conn, endpoint) if self.links.contains_key(&conn) => {
                self.handle(Event::Opened { conn, endpoint });
            }
            Happening::Received(conn, octets) if self.links.contains_key(&conn) => {
                self.handle(Event::Received { conn, octets });
            }
            Happening::Written(conn, octets) => {
                if let Some(link) = self.links.get_mut(&conn) {
                    link.written(octets);
                    self.handle(Event::Written { conn, octets });
                }
            }
            Happening::Closed(conn) => self.ended(conn),
            Happening::Opened(..) | Happening::Received(..) => {}
        }
    }

    /// Strangers are turned away before the engine hears of them.
    fn accepted(&mut self, incoming: Incoming) {
        let endpoint = incoming.endpoint.clone();
        let key = self
            .speaker
            .peer_for(endpoint.remote, endpoint.interface.as_ref());
        let Some(ttl) = key.and_then(|key| self.ttls.get(key)) else {
            return debug!(from = %endpoint.remote, "a BGP connection from nobody we know");
        };
        let conn = self.speaker.new_connection();
        match connection::take_up(conn, incoming, *ttl, &self.happenings) {
            Ok(link) => {
                self.links.insert(conn, link);
                self.handle(Event::Accepted { conn, endpoint });
            }
            Err(error) => debug!(from = %endpoint.remote, %error, "a BGP connection ended at once"),
        }
    }

    fn ended(&mut self, conn: ConnId) {
        if self.links.remove(&conn).is_some() {
            self.handle(Event::Closed { conn });
        }
    }

    /// RFC 5882 §4.3: a loss that may be a restart is told as one.
    fn path_changed(&mut self, peer: &BfdPeer, change: &BfdChange) {
        let key = self
            .speaker
            .peer_for(peer.address(), Some(peer.interface()));
        let Some(peer) = key.cloned() else { return };
        let event = match change.verdict() {
            Some(Verdict::Alive) => Event::BfdUp { peer },
            Some(Verdict::Dead) => Event::BfdDown {
                peer,
                control_plane_independent: true,
            },
            Some(Verdict::Undecided) => Event::BfdDown {
                peer,
                control_plane_independent: false,
            },
            Some(Verdict::Withdrawn) | None => return,
        };
        self.handle(event);
    }

    /// Hands in an event and does what the engine says, then the same for what came of that.
    fn handle(&mut self, event: Event) {
        let mut events = VecDeque::from([event]);
        while let Some(event) = events.pop_front() {
            for action in self.speaker.handle(event, self.clock.now()) {
                events.extend(self.act(action));
            }
        }
    }

    /// Does it; gives the event that came of it at once.
    fn act(&mut self, action: Action) -> Option<Event> {
        match action {
            Action::Connect {
                conn,
                remote,
                interface,
                ttl,
                md5,
                ..
            } => {
                let attempt = Attempt {
                    remote,
                    interface,
                    ttl,
                    md5,
                };
                self.links
                    .insert(conn, connection::open(conn, attempt, &self.happenings));
            }
            Action::Close { conn } => drop(self.links.remove(&conn)),
            Action::Send { conn, octets } => return self.send(conn, octets),
            Action::Routes(changes) => {
                debug!(changes = changes.len(), "routes learned");
                self.outbox.add(changes);
            }
            Action::SelectionComplete => self.outbox.complete(),
            Action::SessionUp { peer } => {
                info!(peer = self.name(&peer), "BGP session up");
                self.publish();
            }
            Action::SessionDown {
                peer,
                reason,
                routes_kept,
            } => {
                warn!(peer = self.name(&peer), %reason, routes_kept, "BGP session down");
                self.publish();
            }
            Action::Refused(error) => warn!(%error, "BGP configuration refused"),
        }
        None
    }

    fn send(&mut self, conn: ConnId, octets: Bytes) -> Option<Event> {
        self.links.get_mut(&conn)?.send(octets).err()?;
        warn!("a BGP peer reads nothing; its connection is given up");
        self.links.remove(&conn);
        Some(Event::Closed { conn })
    }

    fn name(&self, peer: &PeerKey) -> String {
        self.names
            .get(peer)
            .cloned()
            .unwrap_or_else(|| peer.to_string())
    }
}

async fn next<T>(changes: &mut Option<mpsc::Receiver<T>>) -> Option<T> {
    match changes {
        Some(changes) => changes.recv().await,
        None => std::future::pending().await,
    }
}
