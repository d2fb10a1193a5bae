//! The driver of the Babel engine: its socket, its timers, and what goes between it and the rest.
//!
//! It runs on a thread of its own. What is to be run and told comes as [`Order`]s; routes leave in the order in which they were
//! decided, and of several changes of one that nobody has taken yet only the last.

mod socket;

use std::{
    collections::BTreeMap,
    net::Ipv6Addr,
    sync::Arc,
    thread::{self, JoinHandle},
    time::Duration,
};

use anyhow::{Context, Result};
use hextet_babel::{
    Action, Config, Engine, Event, Link, LinkId, Start, Way,
    engine::{Refusal, Status},
    number::{Metric, RouterId},
    packet::Destination,
};
use hextet_types::Time;
use rand::Rng;
use socket2::Socket;
use tokio::{
    net::UdpSocket,
    sync::{mpsc, oneshot, watch},
};
use tracing::{error, warn};

use crate::clock::Clock;
use socket::{Datagram, Echo};

/// Packets read in one go before timers are looked at again.
const BATCH: usize = 256;
/// Orders that wait.
const ORDERS: usize = 64;
/// Batches of routes that wait for their reader.
const ROUTES: usize = 4;
/// Refused packets are told at most this often.
const REFUSALS_TOLD: Duration = Duration::from_secs(10);
/// How often the status is taken; soon after routes have changed.
const STATUS_INTERVAL: Duration = Duration::from_secs(1);
const STATUS_SOON: Duration = Duration::from_millis(100);

/// What is to be done.
#[derive(Clone, Debug)]
pub enum Order {
    /// Babel is spoken on a link, in that way.
    Up(LinkId, Link),
    /// It is not, any more.
    Down(LinkId),
    /// Nothing comes through it, as is known from elsewhere.
    Dead(LinkId),
    /// The other end hears nothing through it.
    Suspect(LinkId),
    /// It costs so much more than its kind does, from now on.
    Cost(LinkId, Metric),
    /// For packets that are many it costs so much.
    Carries(LinkId, Metric),
    /// When something was sent through it last, and when something came, as whoever holds the tunnel knows.
    Traffic(LinkId, Option<Time>, Option<Time>),
    /// Others are told of a destination.
    Originate(Destination, Metric),
    /// They are not, any more.
    Withdraw(Destination),
}

/// Routes that have changed: how packets get there, if that is Babel's business.
pub type Changes = Vec<(Destination, Option<Way>)>;

/// The other end of the driver. Once the orders are dropped, it ends; neighbours are told nothing, since the kernel forwards on.
#[derive(Debug)]
pub struct Handle {
    /// What it is to do.
    pub orders: mpsc::Sender<Order>,
    /// What it has found.
    pub routes: mpsc::Receiver<Changes>,
    /// What it is like.
    pub status: watch::Receiver<Arc<Status>>,
    /// Resolves when it has ended.
    pub ended: oneshot::Receiver<()>,
    /// Ends when it has.
    pub thread: JoinHandle<()>,
}

/// A router-id that is new at each start, so that no sequence number has to be remembered: a node's number, then chance.
pub fn router_id(node: u32) -> RouterId {
    let node = node.to_be_bytes();
    loop {
        let [a, b, c, d] = node;
        let [e, f, g, h]: [u8; 4] = rand::rng().random();
        if let Ok(id) = RouterId::try_from([a, b, c, d, e, f, g, h]) {
            return id;
        }
    }
}

/// What the node is to others.
#[derive(Clone, Copy, Debug)]
pub struct Role {
    /// How it starts, if the kernel's routes outlive the driver.
    pub lasting: Option<Start>,
    /// Whether it forwards for others.
    pub transit: bool,
}

impl Default for Role {
    fn default() -> Role {
        Role {
            lasting: None,
            transit: true,
        }
    }
}

/// Starts the driver in the thread's network namespace.
///
/// # Errors
///
/// The port is taken: another Babel program runs on this host. The right to send an ICMPv6 echo is missing.
pub fn start(clock: Clock, router_id: RouterId, role: Role) -> Result<Handle> {
    let socket = socket::open()?;
    let echo = Echo::open()?;
    let (orders, orders_in) = mpsc::channel(ORDERS);
    let (routes_out, routes) = mpsc::channel(ROUTES);
    let engine = Engine::new(Config {
        lasting: role.lasting,
        transit: role.transit,
        ..Config::new(router_id, rand::rng().random())
    });
    let (status_out, status) = watch::channel(Arc::new(engine.status()));
    let (alive, ended) = oneshot::channel();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("make a runtime for Babel")?;
    let run = move || {
        let _alive: oneshot::Sender<()> = alive;
        runtime.block_on(async {
            match UdpSocket::from_std(socket_of(socket)) {
                Ok(socket) => {
                    let driver = Driver {
                        engine,
                        clock,
                        socket,
                        echo,
                        addrs: BTreeMap::new(),
                        routes: routes_out,
                        untold: BTreeMap::new(),
                        status: status_out,
                        is_news: false,
                        is_urgent: false,
                        refusals: Refusals::default(),
                    };
                    driver.run(orders_in).await;
                }
                Err(error) => error!(%error, "Babel does not run"),
            }
        });
    };
    let thread = thread::Builder::new().name("babel".to_owned()).spawn(run);
    Ok(Handle {
        orders,
        routes,
        status,
        ended,
        thread: thread.context("start Babel's thread")?,
    })
}

fn socket_of(socket: Socket) -> std::net::UdpSocket {
    socket.into()
}

struct Driver {
    engine: Engine,
    clock: Clock,
    socket: UdpSocket,
    echo: Echo,
    /// From which this node speaks, by link.
    addrs: BTreeMap<LinkId, Ipv6Addr>,
    routes: mpsc::Sender<Changes>,
    /// Changes for which there was no room yet.
    untold: BTreeMap<Destination, Option<Way>>,
    status: watch::Sender<Arc<Status>>,
    /// Routes have changed since it was taken.
    is_news: bool,
    /// A neighbour has come or gone.
    is_urgent: bool,
    refusals: Refusals,
}

impl Driver {
    async fn run(mut self, mut orders: mpsc::Receiver<Order>) {
        let mut look = tokio::time::interval(STATUS_INTERVAL);
        let mut soon = false;
        loop {
            let wakeup = self.engine.next_wakeup();
            tokio::select! {
                order = orders.recv() => match order {
                    Some(order) => self.obey(order),
                    None => return,
                },
                _ = self.socket.readable() => self.receive(),
                () = self.clock.sleep_until(wakeup) => {
                    // What came while we were not looking shows that a neighbour lives.
                    self.receive();
                    self.handle(Event::Timer);
                }
                room = self.routes.clone().reserve_owned(), if !self.untold.is_empty() => {
                    let changes = std::mem::take(&mut self.untold).into_iter().collect();
                    match room {
                        Ok(room) => drop(room.send(changes)),
                        Err(_) => return,
                    }
                }
                _ = look.tick() => {
                    (self.is_news, soon) = (false, false);
                    self.status.send_replace(Arc::new(self.engine.status()));
                }
            }
            if std::mem::take(&mut self.is_urgent) {
                look.reset_immediately();
            } else if self.is_news && !soon {
                look.reset_after(STATUS_SOON);
                soon = true;
            }
        }
    }

    fn obey(&mut self, order: Order) {
        let event = match order {
            Order::Up(id, link) => {
                // Those who know each other speak to each other alone.
                self.hear(id, link.pairs.is_none());
                self.addrs.insert(id, link.addr);
                Event::LinkUp(id, link)
            }
            Order::Down(id) => {
                self.hear(id, false);
                self.addrs.remove(&id);
                Event::LinkDown(id)
            }
            Order::Dead(id) => Event::LinkDead(id),
            Order::Suspect(id) => Event::LinkSuspect(id),
            Order::Cost(id, extra) => Event::LinkCost(id, extra),
            Order::Carries(id, cost) => Event::LinkCarries(id, cost),
            Order::Traffic(id, sent, heard) => Event::Traffic(id, sent, heard),
            Order::Originate(to, metric) => Event::Originate(to, metric),
            Order::Withdraw(to) => Event::Withdraw(to),
        };
        self.handle(event);
    }

    fn hear(&self, link: LinkId, is_up: bool) {
        if let Err(error) = socket::hear(&self.socket, link, is_up) {
            warn!(%error, link = link.0, is_up, "hear Babel's group");
        }
    }

    fn receive(&mut self) {
        for _ in 0..BATCH {
            let Some(datagram) = socket::receive(&self.socket) else {
                return;
            };
            let Datagram {
                link,
                from,
                to,
                octets,
            } = datagram;
            self.handle(Event::Datagram {
                link,
                from,
                to,
                octets,
            });
        }
    }

    fn handle(&mut self, event: Event) {
        let now = self.clock.now();
        for action in self.engine.handle(event, now) {
            match action {
                Action::Send { link, to, octets } => {
                    if let Some(from) = self.addrs.get(&link) {
                        socket::send(&self.socket, link, *from, to, &octets);
                    }
                }
                Action::Route(to, way) => {
                    self.is_news = true;
                    self.untold.insert(to, way);
                }
                // Who shares flows out over links is to know at once.
                Action::Reach(..) => self.is_urgent = true,
                Action::Refused(refusal) => self.refusals.tell(&refusal, now),
            }
        }
        for peer in self.engine.pings() {
            self.echo.send(peer.link, peer.addr);
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
    fn tell(&mut self, refusal: &Refusal, now: Time) {
        self.untold += 1;
        if now >= self.next {
            warn!(%refusal, count = self.untold, "Babel: not taken");
            self.next = now + REFUSALS_TOLD;
            self.untold = 0;
        }
    }
}
