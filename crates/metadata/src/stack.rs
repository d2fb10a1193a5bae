//! One port's TCP: the connections that its workload has to us.
//!
//! A stack is made when a segment comes, and thrown away when no connection is left. One that waits for its
//! workload too long is ended.

use std::{fmt, mem, net::IpAddr, time::Duration};

use hextet_types::{Mac, Time};
use smoltcp::{
    iface::{Config, Interface, SocketHandle, SocketSet},
    phy::{Checksum, ChecksumCapabilities, Device, DeviceCapabilities, Medium, RxToken, TxToken},
    socket::tcp::{Socket, SocketBuffer, State},
    time::Instant,
    wire::{HardwareAddress, IpCidr},
};

use crate::{
    ADDRESS_LINK_LOCAL, ADDRESS_V4, ADDRESS_V6, Facts,
    document::Tree,
    frame::{self, Inbound},
    http::{self, Answer, MAX_BODY, MAX_HEAD, Reading, Request},
};

/// Connections of one port at a time.
pub const MAX_CONNECTIONS: usize = 4;
/// So long a connection may be without a whole request, or an answer may take.
pub const PATIENCE: Duration = Duration::from_secs(30);
/// Of so many addresses of a port it is known who has them.
const MAX_NEIGHBOURS: usize = 16;
/// Of IPv4 (RFC 791); no link of a port is narrower.
const MIN_MTU: u16 = 576;
const PORT: u16 = 80;
const RECEIVED: usize = 4096;
const SENT: usize = 8192;

/// What Nova takes.
const ASKED_OF_NOVA: [&str; 3] = ["GET", "HEAD", "POST"];

/// Names a question, for ever.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct QuestionId {
    /// Of all stacks.
    stack: u64,
    /// Of all that it has asked.
    number: u64,
}

/// A request that somebody else has to answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// Its name.
    pub id: QuestionId,
    /// `GET` or `POST`.
    pub method: String,
    /// A path, and what may follow it.
    pub target: String,
    /// At most [`MAX_BODY`] octets.
    pub body: Vec<u8>,
}

/// What a stack gives.
#[derive(Debug, Default)]
pub struct Given {
    /// To send.
    pub frames: Vec<Vec<u8>>,
    /// To ask of others.
    pub questions: Vec<Question>,
}

/// A port's TCP.
pub struct Stack {
    asks: Asks,
    interface: Interface,
    queue: Queue,
    sockets: SocketSet<'static>,
    connections: Vec<Connection>,
    neighbours: Vec<(IpAddr, Mac)>,
    wakeup: Option<Time>,
}

/// What is asked of others.
struct Asks {
    next: QuestionId,
    new: Vec<Question>,
}

impl Asks {
    fn ask(&mut self, request: Request) -> Pending {
        let id = self.next;
        self.next.number += 1;
        let head = request.method == "HEAD";
        self.new.push(Question {
            id,
            method: if head {
                "GET".to_owned()
            } else {
                request.method
            },
            target: request.target,
            body: request.body,
        });
        Pending {
            id,
            head,
            keep_alive: request.keep_alive,
        }
    }
}

/// A question without an answer.
struct Pending {
    id: QuestionId,
    /// Only the answer's head is wanted.
    head: bool,
    keep_alive: bool,
}

struct Connection {
    handle: SocketHandle,
    asked: Option<Pending>,
    /// What has been read and not yet answered.
    read: Vec<u8>,
    answer: Vec<u8>,
    sent: usize,
    /// No other request may follow.
    last: bool,
    /// Since when it has waited for its workload; none while it listens.
    waits: Option<Time>,
}

fn instant(now: Time) -> Instant {
    Instant::from_micros(i64::try_from(now.as_nanos() / 1000).unwrap_or(i64::MAX))
}

impl Stack {
    /// Without a connection; no other may have that number. `mtu` is of IP packets, in octets.
    pub fn new(number: u64, mtu: u16, seed: u64, now: Time) -> Stack {
        let mut queue = Queue::new(mtu);
        let mut config = Config::new(HardwareAddress::Ip);
        config.random_seed = seed;
        let mut interface = Interface::new(config, &mut queue, instant(now));
        interface.update_ip_addrs(|addresses| {
            let own = [
                IpCidr::new(ADDRESS_V4.into(), 32),
                IpCidr::new(ADDRESS_LINK_LOCAL.into(), 64),
                IpCidr::new(ADDRESS_V6.into(), 128),
            ];
            let _ = addresses.extend_from_slice(&own);
        });
        // There is just one neighbour; that it is asked by way of ourselves says so.
        let routes = interface.routes_mut();
        let _ = routes.add_default_ipv4_route(ADDRESS_V4);
        let _ = routes.add_default_ipv6_route(ADDRESS_V6);
        let next = QuestionId {
            stack: number,
            number: 0,
        };
        Stack {
            asks: Asks {
                next,
                new: Vec::new(),
            },
            interface,
            queue,
            sockets: SocketSet::new(Vec::new()),
            connections: Vec::new(),
            neighbours: Vec::new(),
            wakeup: None,
        }
    }

    /// Whether there is no connection.
    pub fn is_idle(&self) -> bool {
        self.connections.iter().all(|c| c.waits.is_none())
    }

    /// When it wants to be called, if nothing comes.
    pub fn next_wakeup(&self) -> Option<Time> {
        self.wakeup
    }

    /// Octets that somebody else has answered, and that are not sent yet.
    pub fn waiting(&self) -> usize {
        self.connections.iter().map(|c| c.answer.len()).sum()
    }

    /// Takes an answer in; none if nobody could be asked. What nobody waits for any more is dropped.
    pub fn answered(
        &mut self,
        id: QuestionId,
        answer: Option<&Answer>,
        (own, facts, now): (Mac, &Facts, Time),
    ) -> Given {
        let mut connections = self.connections.iter_mut();
        let asked = |c: &&mut Connection| c.asked.as_ref().is_some_and(|asked| asked.id == id);
        if let Some(connection) = connections.find(asked)
            && let Some(asked) = connection.asked.take()
        {
            connection.answer = http::relayed(answer, asked.head, asked.keep_alive);
        }
        self.turn(own, facts, now)
    }

    /// Takes a segment in; gives frames from `own` address.
    pub fn receive(&mut self, inbound: Inbound<'_>, own: Mac, facts: &Facts, now: Time) -> Given {
        self.neighbours.retain(|(addr, _)| *addr != inbound.source);
        self.neighbours.truncate(MAX_NEIGHBOURS - 1);
        self.neighbours
            .insert(0, (inbound.source, inbound.source_mac));
        self.listen();
        self.queue.received = Some(inbound.packet.to_vec());
        self.turn(own, facts, now)
    }

    /// Does what is due.
    pub fn turn(&mut self, own: Mac, facts: &Facts, now: Time) -> Given {
        let at = instant(now);
        self.interface.poll(at, &mut self.queue, &mut self.sockets);
        // What an answer makes possible, a second request that has come already, is bounded by what was received.
        while self.serve(facts, now) {
            self.interface.poll(at, &mut self.queue, &mut self.sockets);
        }
        self.interface.poll(at, &mut self.queue, &mut self.sockets);
        self.clear_away();
        self.wakeup = self.due(now);
        let packets = mem::take(&mut self.queue.sent);
        let frames = packets.iter().filter_map(|packet| {
            let to = frame::destination(packet)?;
            let (_, mac) = self.neighbours.iter().find(|(addr, _)| *addr == to)?;
            Some(frame::build(own, *mac, packet))
        });
        Given {
            frames: frames.collect(),
            questions: mem::take(&mut self.asks.new),
        }
    }

    /// Has one socket that listens, unless there are enough connections.
    fn listen(&mut self) {
        let listens = self.connections.iter().any(|c| c.waits.is_none());
        if listens || self.connections.len() >= MAX_CONNECTIONS {
            return;
        }
        let buffer = |octets| SocketBuffer::new(vec![0; octets]);
        let mut socket = Socket::new(buffer(RECEIVED), buffer(SENT));
        socket.set_timeout(Some(PATIENCE.into()));
        // The answer goes with the acknowledgement.
        socket.set_nagle_enabled(false);
        if socket.listen(PORT).is_ok() {
            self.connections.push(Connection {
                handle: self.sockets.add(socket),
                asked: None,
                read: Vec::new(),
                answer: Vec::new(),
                sent: 0,
                last: false,
                waits: None,
            });
        }
    }

    /// Whether a connection has something new to send.
    fn serve(&mut self, facts: &Facts, now: Time) -> bool {
        let (sockets, connections) = (&mut self.sockets, &mut self.connections);
        let asks = &mut self.asks;
        let serve = |c: &mut Connection| c.serve(sockets.get_mut(c.handle), facts, asks, now);
        connections
            .iter_mut()
            .map(serve)
            .filter(|sent| *sent)
            .count()
            > 0
    }

    /// Connections that are over make room.
    fn clear_away(&mut self) {
        let sockets = &mut self.sockets;
        self.connections.retain(|c| {
            let state = sockets.get::<Socket<'_>>(c.handle).state();
            let over = matches!(state, State::Closed | State::TimeWait);
            if over {
                sockets.remove(c.handle);
            }
            !over
        });
    }

    fn due(&mut self, now: Time) -> Option<Time> {
        let polled = self.interface.poll_at(instant(now), &self.sockets);
        let polled = polled.map(|at| {
            let micros = u64::try_from(at.total_micros()).unwrap_or(0);
            Time::from_nanos(micros.saturating_mul(1000)).max(now)
        });
        let patience = self.connections.iter().filter_map(|c| c.waits);
        polled
            .into_iter()
            .chain(patience.map(|since| since + PATIENCE))
            .min()
    }
}

impl Connection {
    fn serve(
        &mut self,
        socket: &mut Socket<'static>,
        facts: &Facts,
        asks: &mut Asks,
        now: Time,
    ) -> bool {
        if !socket.is_active() {
            return false;
        }
        let since = *self.waits.get_or_insert(now);
        if now.saturating_since(since) >= PATIENCE {
            socket.abort();
            return true;
        }
        self.read(socket);
        if self.answers_all() && !self.last {
            self.find_answer(facts, asks);
        }
        let sent = self.send(socket, now);
        let ends = self.answers_all() && (self.last || !socket.may_recv());
        if ends && socket.may_send() {
            socket.close();
        }
        sent
    }

    /// Whether what has been asked so far is answered.
    fn answers_all(&self) -> bool {
        self.answer.is_empty() && self.asked.is_none()
    }

    fn read(&mut self, socket: &mut Socket<'static>) {
        let room = (MAX_HEAD + MAX_BODY + 1).saturating_sub(self.read.len());
        if room > 0 && socket.can_recv() {
            let read = &mut self.read;
            let _ = socket.recv(|octets| {
                let taken = octets.len().min(room);
                read.extend(octets.iter().take(taken));
                (taken, ())
            });
        }
    }

    fn find_answer(&mut self, facts: &Facts, asks: &mut Asks) {
        match http::read(&self.read) {
            Reading::Incomplete => {}
            Reading::Request(request, octets) => {
                self.read.drain(..octets);
                self.last = !request.keep_alive;
                if !facts.by_nova {
                    self.answer = http::answer(&Tree(facts), &request);
                } else if ASKED_OF_NOVA.contains(&request.method.as_str()) {
                    self.asked = Some(asks.ask(request));
                } else {
                    self.answer = http::not_allowed("GET, HEAD, POST", request.keep_alive);
                }
            }
            Reading::Refused(status) => {
                self.last = true;
                self.answer = http::refusal(status);
            }
        }
    }

    fn send(&mut self, socket: &mut Socket<'static>, now: Time) -> bool {
        let rest = self.answer.get(self.sent..).unwrap_or_default();
        if rest.is_empty() || !socket.can_send() {
            return false;
        }
        let sent = socket.send_slice(rest).unwrap_or(0);
        if sent == 0 {
            return false;
        }
        self.sent += sent;
        self.waits = Some(now);
        if self.sent == self.answer.len() {
            (self.answer, self.sent) = (Vec::new(), 0);
        }
        true
    }
}

impl fmt::Debug for Stack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stack")
            .field("connections", &self.connections.len())
            .field("neighbours", &self.neighbours)
            .field("wakeup", &self.wakeup)
            .finish_non_exhaustive()
    }
}

/// The packets that come and go, as a device.
pub(crate) struct Queue {
    pub received: Option<Vec<u8>>,
    pub sent: Vec<Vec<u8>>,
    mtu: usize,
}

impl Queue {
    /// Empty; for packets of so many octets.
    pub fn new(mtu: u16) -> Queue {
        Queue {
            received: None,
            sent: Vec::new(),
            mtu: usize::from(mtu.max(MIN_MTU)),
        }
    }
}

pub(crate) struct Received(Vec<u8>);

pub(crate) struct Sending<'a>(&'a mut Vec<Vec<u8>>);

impl Device for Queue {
    type RxToken<'a> = Received;
    type TxToken<'a> = Sending<'a>;

    fn receive(&mut self, _: Instant) -> Option<(Received, Sending<'_>)> {
        let received = self.received.take()?;
        Some((Received(received), Sending(&mut self.sent)))
    }

    fn transmit(&mut self, _: Instant) -> Option<Sending<'_>> {
        Some(Sending(&mut self.sent))
    }

    /// There is no wire between the workload and us on which a checksum could break; its kernel may have left them
    /// to hardware.
    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ip;
        capabilities.max_transmission_unit = self.mtu;
        let mut checksum = ChecksumCapabilities::default();
        checksum.tcp = Checksum::Tx;
        capabilities.checksum = checksum;
        capabilities
    }
}

impl RxToken for Received {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(&self.0)
    }
}

impl TxToken for Sending<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, f: F) -> R {
        let mut packet = vec![0; len];
        let result = f(&mut packet);
        self.0.push(packet);
        result
    }
}
