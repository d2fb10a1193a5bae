//! The driver of the engines that answer workloads: RA and DHCP, and metadata. One packet socket for all ports.
//!
//! It runs on a thread of its own. Ports are told apart by interface index; an interface that comes back
//! under its name has another index, so every change of a port's link looks its index up anew.

use std::{collections::HashMap, io, net::Ipv6Addr, sync::Arc, thread};

use anyhow::{Context, Result};
use hextet_autoconf::{Action, Duid, Event, PortKey, Responder as Engine};
use hextet_kernel::packet::PacketSocket;
use hextet_metadata::{self as metadata, Metadata, Question, QuestionId, http::Answer};
use hextet_model::state::marks;
use hextet_types::{Mac, PortId};
use nix::net::if_::if_nametoindex;
use rand::Rng;
use tokio::{
    io::{Interest, unix::AsyncFd},
    sync::mpsc,
};
use tracing::{debug, warn};

use crate::{
    announcement::{self, Announcement},
    clock::Clock,
    membership,
    querier::Querier,
    reconciler::{Input, ResponderChange},
    relay::{Answered, Asked, Ends},
};

/// Frames taken in one go before changes and timers are looked at again.
const BATCH: usize = 256;
/// The largest frame that is looked at; whoever sends more gets no answer.
const MAX_FRAME: usize = 2048;

/// Starts the driver.
///
/// # Errors
///
/// There is no packet socket to be had: the agent is not root.
pub fn start(
    changes: mpsc::UnboundedReceiver<ResponderChange>,
    server: Duid,
    clock: Clock,
    inputs: std::sync::mpsc::SyncSender<Input>,
    nova: Ends,
) -> Result<()> {
    let socket =
        PacketSocket::open(marks::ADMITTED).context("open the packet socket for RA and DHCP")?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("make a runtime for RA and DHCP")?;
    let engine = Engine::new(rand::rng().random(), server);
    let metadata = Metadata::new(rand::rng().random());
    let run = move || {
        runtime.block_on(async {
            #[expect(
                deprecated,
                reason = "its successor is unsafe; the socket owns its one descriptor"
            )]
            let socket = AsyncFd::with_interest(socket, Interest::READABLE);
            match socket {
                Ok(socket) => {
                    Driver {
                        engine,
                        metadata,
                        socket,
                        clock,
                        indexes: HashMap::new(),
                        ports: HashMap::new(),
                        querier: Querier::default(),
                        gateways: HashMap::new(),
                        inputs,
                        asked: nova.asked,
                        unread: true,
                    }
                    .run(changes, nova.answered)
                    .await
                }
                Err(error) => warn!(%error, "RA and DHCP are not answered"),
            }
        });
    };
    thread::Builder::new()
        .name("responder".to_owned())
        .spawn(run)
        .map(drop)
        .context("start the responder's thread")
}

struct Driver {
    engine: Engine,
    metadata: Metadata,
    socket: AsyncFd<PacketSocket>,
    clock: Clock,
    indexes: HashMap<PortId, PortKey>,
    ports: HashMap<u32, PortId>,
    /// Who is asked what it has joined, and from which addresses.
    querier: Querier,
    gateways: HashMap<u32, (Mac, Ipv6Addr)>,
    /// Who is told what workloads say of themselves.
    inputs: std::sync::mpsc::SyncSender<Input>,
    /// What Nova is to answer.
    asked: mpsc::Sender<Asked>,
    /// Frames may wait that the socket does not tell of again.
    unread: bool,
}

impl Driver {
    /// Until nobody can tell of ports any more.
    async fn run(
        mut self,
        mut changes: mpsc::UnboundedReceiver<ResponderChange>,
        mut answered: mpsc::Receiver<Answered>,
    ) {
        loop {
            let wakeups = [
                self.engine.next_wakeup(),
                self.metadata.next_wakeup(),
                self.querier.next_wakeup(),
            ];
            let wakeup = wakeups.into_iter().flatten().min();
            tokio::select! {
                change = changes.recv() => match change {
                    Some(change) => self.change(change),
                    None => return,
                },
                Some(answered) = answered.recv() => {
                    self.answered(answered.link, answered.id, answered.answer.as_ref());
                }
                ready = self.socket.readable() => match ready {
                    Ok(mut ready) => {
                        ready.clear_ready();
                        drop(ready);
                        self.unread = self.receive();
                    }
                    Err(error) => return warn!(%error, "RA and DHCP are not answered any more"),
                },
                () = std::future::ready(()), if self.unread => self.unread = self.receive(),
                () = self.clock.sleep_until(wakeup) => {
                    self.unread |= self.receive();
                    self.act(|engine, now| engine.handle(Event::Timer, now));
                    self.answer(metadata::Event::Timer);
                    self.query();
                }
            }
        }
    }

    fn change(&mut self, change: ResponderChange) {
        let index = change
            .responder
            .as_ref()
            .and_then(|r| if_nametoindex(r.link.as_str()).ok())
            .map(|index| PortKey(u64::from(index)));
        if let Some(former) = self
            .indexes
            .get(&change.port)
            .copied()
            .filter(|f| Some(*f) != index)
        {
            self.engine.remove_port(former);
            self.metadata.remove_port(link_of(former));
            self.indexes.remove(&change.port);
            self.ports.remove(&link_of(former));
            self.ask_no_more(link_of(former));
        }
        let (Some(responder), Some(key)) = (change.responder, index) else {
            return;
        };
        let facts = Arc::new(responder.facts);
        let host_mac = responder.config.host_mac;
        let config = metadata::PortConfig { host_mac, facts };
        self.metadata.set_port(link_of(key), config);
        self.indexes.insert(change.port, key);
        self.ports.insert(link_of(key), change.port);
        let now = self.clock.now();
        if change.joins {
            let gateway = (host_mac, responder.config.link_local);
            self.gateways.insert(link_of(key), gateway);
            self.querier.ask(link_of(key), now);
        } else {
            self.ask_no_more(link_of(key));
        }
        match self.engine.set_port(key, responder.config, now) {
            Ok(actions) => self.send(actions),
            Err(error) => {
                warn!(port = %change.port, %error, "RA and DHCP are not answered on this port");
            }
        }
    }

    /// As many frames as wait, within bounds; whether more may wait.
    fn receive(&mut self) -> bool {
        let mut frame = [0; MAX_FRAME];
        for _ in 0..BATCH {
            match self.socket.get_ref().recv(&mut frame) {
                Ok((index, octets)) => {
                    let bytes = frame.get(..octets).unwrap_or_default();
                    if hextet_metadata::frame::parse(bytes).is_some() {
                        self.answer(metadata::Event::Frame { link: index, bytes });
                        continue;
                    }
                    if let Some(report) = membership::parse(bytes) {
                        if let Some(port) = self.ports.get(&index) {
                            let _ = self.inputs.try_send(Input::Reported(*port, report));
                        }
                        continue;
                    }
                    if let Some(announcement) = announcement::parse(bytes) {
                        self.hear(index, announcement);
                        continue;
                    }
                    let port = PortKey(u64::from(index));
                    self.act(|engine, now| engine.handle(Event::Frame { port, bytes }, now));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return false,
                Err(error) => debug!(%error, "read a frame"),
            }
        }
        true
    }

    fn ask_no_more(&mut self, link: u32) {
        self.querier.leave(link);
        self.gateways.remove(&link);
    }

    /// Asks those who are due what they have joined.
    fn query(&mut self) {
        for link in self.querier.take_due(self.clock.now()) {
            if let Some((mac, link_local)) = self.gateways.get(&link) {
                for frame in membership::queries(*mac, *link_local) {
                    self.send_frame(link, &frame);
                }
            }
        }
    }

    /// Who says it once more is heard then: the queue is full only while there is much else to do.
    fn hear(&self, link: u32, announcement: Announcement) {
        if let Some(port) = self.ports.get(&link) {
            let _ = self.inputs.try_send(Input::Announced(*port, announcement));
        }
    }

    fn answer(&mut self, event: metadata::Event<'_>) {
        for action in self.metadata.handle(event, self.clock.now()) {
            match action {
                metadata::Action::Send { link, frame } => self.send_frame(link, &frame),
                metadata::Action::Ask { link, question } => self.ask(link, question),
            }
        }
    }

    /// Whoever cannot be asked has not answered.
    fn ask(&mut self, link: u32, question: Question) {
        let id = question.id;
        let asked = self.ports.get(&link).map(|port| Asked {
            link,
            port: *port,
            question,
        });
        let taken = asked.is_some_and(|asked| self.asked.try_send(asked).is_ok());
        if !taken {
            self.answered(link, id, None);
        }
    }

    fn answered(&mut self, link: u32, id: QuestionId, answer: Option<&Answer>) {
        self.answer(metadata::Event::Answered { link, id, answer });
    }

    fn act(&mut self, step: impl FnOnce(&mut Engine, hextet_types::Time) -> Vec<Action>) {
        let actions = step(&mut self.engine, self.clock.now());
        self.send(actions);
    }

    fn send(&self, actions: Vec<Action>) {
        for Action::Send { port, frame } in actions {
            self.send_frame(link_of(port), &frame);
        }
    }

    fn send_frame(&self, index: u32, frame: &[u8]) {
        if let Err(error) = self.socket.get_ref().send(index, frame) {
            debug!(index, %error, "a frame was not sent");
        }
    }
}

/// The index that a key was made of.
fn link_of(port: PortKey) -> u32 {
    u32::try_from(port.0).unwrap_or(0)
}
