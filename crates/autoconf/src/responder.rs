//! All ports of a host: whose frame it is, whether it may ask, what it gets, and what each port is told
//! unasked.
//!
//! It knows ports by key and frames as octets, no sockets. What always holds: a frame is answered only
//! to the port that it came from, at most [`MAX_PORTS`] ports, and each at a bounded rate, so that a
//! flood on one port takes nothing from its neighbours; an event costs time in proportion to the
//! logarithm of the number of ports; nothing is sent because the responder ends.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{Ipv4Addr, Ipv6Addr},
    time::Duration,
};

use hextet_types::{Bucket, Mac, Time};
use thiserror::Error;

use crate::{
    config::{ConfigError, PortConfig},
    counters::{Counters, Done, Reason},
    dhcpv4,
    dhcpv6::{self, Duid},
    frame::{self, Envelope, Request},
    nd::NdOption,
    ra::RouterAdvertisement,
    random::Random,
    schedule::Schedule,
};

/// Ports of one host.
pub const MAX_PORTS: usize = 65_536;

/// Unsolicited advertisements of one [`Event::Timer`]; what is due beyond that waits for the next one,
/// which [`Responder::next_wakeup`] then asks for at once. So frames are not kept waiting.
pub const MAX_ADVERTISEMENTS: usize = 256;

/// Answers to a port in one go.
const BURST: u32 = 32;
/// One more each.
const REFILL: Duration = Duration::from_millis(100);

/// Options that are taken back at a change and still remembered.
const MAX_WITHDRAWALS: usize = 32;

const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
const ALL_ROUTERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 2);

/// A port, as its driver numbers it (for instance by interface index).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PortKey(pub u64);

/// What the responder is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event<'a> {
    /// A frame came from a port's workload.
    Frame {
        /// The port.
        port: PortKey,
        /// The whole frame, Ethernet header included.
        bytes: &'a [u8],
    },
    /// The time that [`Responder::next_wakeup`] named has come. Harmless when it has not.
    Timer,
    /// The host will not be this port's router any more, and another one takes over: the workload is
    /// told at once, and nothing more after that until [`Responder::set_port`] brings something else.
    Cease {
        /// The port.
        port: PortKey,
    },
}

/// What the driver must do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Send a frame out of a port, to its workload.
    Send {
        /// The port.
        port: PortKey,
        /// The whole frame, Ethernet header included.
        frame: Vec<u8>,
    },
}

/// Why a port is not served.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum SetPortError {
    /// Its configuration cannot be used; what stood before still does.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// No room for another port.
    #[error("no room: {MAX_PORTS} ports is the most that one host answers")]
    Full,
}

type Answered = (Done, Vec<Vec<u8>>);

#[derive(Clone, Debug)]
struct Port {
    config: PortConfig,
    advertising: Option<Advertising>,
    bucket: Bucket,
    counters: Counters,
}

#[derive(Clone, Debug)]
struct Advertising {
    advertisement: RouterAdvertisement,
    withdrawals: Vec<NdOption>,
    schedule: Schedule,
}

/// The responder of a host.
#[derive(Clone, Debug)]
pub struct Responder {
    random: Random,
    server: Duid,
    ports: BTreeMap<PortKey, Port>,
    deadlines: BTreeSet<(Time, PortKey)>,
    unknown_port: u64,
}

impl Responder {
    /// No ports. `seed` is for jitter: take it from the system's randomness once at each start.
    /// `server` is our DHCPv6 identifier, the same on all hosts of a cloud, so that a workload that moves
    /// meets the server it knows.
    pub fn new(seed: u64, server: Duid) -> Self {
        Responder {
            random: Random::new(seed),
            server,
            ports: BTreeMap::new(),
            deadlines: BTreeSet::new(),
            unknown_port: 0,
        }
    }

    /// A port shall be answered like this; harmless when it is. What the workload was told before and
    /// holds no longer is taken back with the next advertisements.
    ///
    /// # Errors
    ///
    /// The configuration cannot be used, or there is no room; nothing has changed then.
    pub fn set_port(
        &mut self,
        key: PortKey,
        config: PortConfig,
        now: Time,
    ) -> Result<Vec<Action>, SetPortError> {
        config.check()?;
        let mut actions = Vec::new();
        let advertisement = RouterAdvertisement::of_port(&config);
        let Some(port) = self.ports.get_mut(&key) else {
            if self.ports.len() >= MAX_PORTS {
                return Err(SetPortError::Full);
            }
            let advertising = advertisement.map(|a| Advertising::new(a, now, &mut self.random));
            let deadline = advertising.as_ref().map(|a| a.schedule.next());
            let port = Port {
                config,
                advertising,
                bucket: Bucket::new(BURST, REFILL, now),
                counters: Counters::default(),
            };
            self.ports.insert(key, port);
            self.deadlines.extend(deadline.map(|at| (at, key)));
            return Ok(actions);
        };
        if port.config == config {
            return Ok(actions);
        }
        let before = port.deadline();
        match (&mut port.advertising, advertisement) {
            (Some(advertising), Some(new)) => advertising.change(new, now, &mut self.random),
            (None, Some(new)) => {
                port.advertising = Some(Advertising::new(new, now, &mut self.random));
            }
            (Some(_), None) => actions = sends(key, port.cease()),
            (None, None) => {}
        }
        port.config = config;
        let after = port.deadline();
        self.move_deadline(key, before, after);
        Ok(actions)
    }

    /// A port is gone. Nothing is sent: its link is gone, or its workload has moved to where it is told
    /// the same.
    pub fn remove_port(&mut self, key: PortKey) {
        if let Some(port) = self.ports.remove(&key) {
            self.move_deadline(key, port.deadline(), None);
        }
    }

    /// Takes one event; `now` never goes back.
    pub fn handle(&mut self, event: Event<'_>, now: Time) -> Vec<Action> {
        match event {
            Event::Frame { port, bytes } => self.frame(port, bytes, now),
            Event::Timer => self.timer(now),
            Event::Cease { port: key } => {
                let Some(port) = self.ports.get_mut(&key) else {
                    return Vec::new();
                };
                let before = port.deadline();
                let actions = sends(key, port.cease());
                self.move_deadline(key, before, None);
                actions
            }
        }
    }

    /// When [`Event::Timer`] is due, unless another event comes first; `None` if never.
    pub fn next_wakeup(&self) -> Option<Time> {
        self.deadlines.first().map(|(at, _)| *at)
    }

    /// What a port is told; `None` if it is not known.
    pub fn config(&self, key: PortKey) -> Option<&PortConfig> {
        self.ports.get(&key).map(|port| &port.config)
    }

    /// What became of a port's frames.
    pub fn counters(&self, key: PortKey) -> Option<&Counters> {
        self.ports.get(&key).map(|port| &port.counters)
    }

    /// Each port with its numbers, in the order of their keys.
    pub fn ports(&self) -> impl Iterator<Item = (PortKey, &Counters)> {
        self.ports.iter().map(|(key, port)| (*key, &port.counters))
    }

    /// Frames from interfaces that are no port's ([`Reason::UnknownPort`]).
    pub const fn unknown_port(&self) -> u64 {
        self.unknown_port
    }

    fn frame(&mut self, key: PortKey, bytes: &[u8], now: Time) -> Vec<Action> {
        let Some(port) = self.ports.get_mut(&key) else {
            self.unknown_port += 1;
            return Vec::new();
        };
        let before = port.deadline();
        let answered = port.answer(bytes, &self.server, now, &mut self.random);
        let after = port.deadline();
        let frames = match answered {
            Ok((done, frames)) => {
                port.counters.count_done(done);
                frames
            }
            Err(reason) => {
                port.counters.count_dropped(reason);
                Vec::new()
            }
        };
        self.move_deadline(key, before, after);
        sends(key, frames)
    }

    fn timer(&mut self, now: Time) -> Vec<Action> {
        let mut actions = Vec::new();
        for _ in 0..MAX_ADVERTISEMENTS {
            let Some((at, key)) = self.deadlines.first().copied().filter(|(at, _)| *at <= now)
            else {
                break;
            };
            self.deadlines.remove(&(at, key));
            let Some(port) = self.ports.get_mut(&key) else {
                continue;
            };
            actions.extend(sends(key, port.advertise(now, &mut self.random)));
            self.deadlines.extend(port.deadline().map(|at| (at, key)));
        }
        actions
    }

    fn move_deadline(&mut self, key: PortKey, before: Option<Time>, after: Option<Time>) {
        if before != after {
            if let Some(at) = before {
                self.deadlines.remove(&(at, key));
            }
            self.deadlines.extend(after.map(|at| (at, key)));
        }
    }
}

impl Advertising {
    fn new(advertisement: RouterAdvertisement, now: Time, random: &mut Random) -> Self {
        Advertising {
            advertisement,
            withdrawals: Vec::new(),
            schedule: Schedule::new(now, random),
        }
    }

    fn change(&mut self, new: RouterAdvertisement, now: Time, random: &mut Random) {
        if new == self.advertisement {
            return;
        }
        let mut withdrawals = new.withdrawals(&self.advertisement);
        let mut earlier = std::mem::take(&mut self.withdrawals);
        let asserted = new.withdrawals(&RouterAdvertisement {
            options: earlier.clone(),
            ..new.clone()
        });
        earlier.retain(|option| asserted.contains(option) && !withdrawals.contains(option));
        withdrawals.append(&mut earlier);
        withdrawals.truncate(MAX_WITHDRAWALS);
        self.withdrawals = withdrawals;
        self.advertisement = new;
        self.schedule.restart(now, random);
    }

    /// What is said now, with what is taken back.
    fn current(&self) -> RouterAdvertisement {
        let mut advertisement = self.advertisement.clone();
        let withdrawals = self.withdrawals.iter().cloned();
        advertisement.options.extend(withdrawals);
        advertisement
    }
}

impl Port {
    fn deadline(&self) -> Option<Time> {
        self.advertising.as_ref().map(|a| a.schedule.next())
    }

    /// What was done about a frame, and the frames to send.
    fn answer(
        &mut self,
        bytes: &[u8],
        server: &Duid,
        now: Time,
        random: &mut Random,
    ) -> Result<Answered, Reason> {
        let frame = frame::parse(bytes)?;
        if frame.source != self.config.guest_mac {
            return Err(Reason::ForeignMac);
        }
        if frame.destination != self.config.host_mac && !frame.destination.is_multicast() {
            return Err(Reason::NotForUs);
        }
        if !self.bucket.take(now) {
            return Err(Reason::RateLimited);
        }
        match frame.request {
            Request::RouterSolicitation {
                source,
                destination,
            } => self.solicited(source, destination, now, random),
            Request::Dhcpv4 {
                destination,
                payload,
            } => self.dhcpv4(destination, payload),
            Request::Dhcpv6 {
                source,
                destination,
                payload,
            } => self.dhcpv6(server, source, destination, payload),
        }
    }

    /// Deviation: RFC 4861 §6.2.6 delays an answer by a random time, so that several routers on a link
    /// do not all answer at once. Here there is one router and one host, who waits for it.
    fn solicited(
        &mut self,
        source: Ipv6Addr,
        destination: Ipv6Addr,
        now: Time,
        random: &mut Random,
    ) -> Result<Answered, Reason> {
        if destination != ALL_ROUTERS && destination != self.config.link_local {
            return Err(Reason::NotForUs);
        }
        if source.is_multicast() || source.is_loopback() || source == self.config.link_local {
            return Err(Reason::Source);
        }
        let advertising = self.advertising.as_mut().ok_or(Reason::NotOffered)?;
        let done = Done::RouterAdvertisement;
        if !source.is_unspecified() {
            let envelope = to_guest(&self.config, source);
            return Ok((done, frames(&envelope, &advertising.current())));
        }
        if !advertising.schedule.solicited(now) {
            return Err(Reason::RateLimited);
        }
        let envelope = to_all_nodes(&self.config);
        let frames = frames(&envelope, &advertising.current());
        advertising.schedule.sent(now, random);
        Ok((done, frames))
    }

    fn dhcpv4(&self, destination: Ipv4Addr, payload: &[u8]) -> Result<Answered, Reason> {
        match dhcpv4::respond(&self.config, destination, payload)? {
            dhcpv4::Response::Noted(done) => Ok((done, Vec::new())),
            dhcpv4::Response::Reply(reply) => {
                let envelope = Envelope {
                    source_mac: self.config.host_mac,
                    destination_mac: if reply.destination.is_broadcast() {
                        Mac::BROADCAST
                    } else {
                        self.config.guest_mac
                    },
                    source: reply.source,
                    destination: reply.destination,
                };
                let frame = envelope.dhcpv4(&reply.payload);
                Ok((reply.done, frame.into_iter().collect()))
            }
        }
    }

    fn dhcpv6(
        &self,
        server: &Duid,
        source: Ipv6Addr,
        destination: Ipv6Addr,
        payload: &[u8],
    ) -> Result<Answered, Reason> {
        // RFC 8415 §18.2: clients send from their link-local address.
        if !source.is_unicast_link_local() || source == self.config.link_local {
            return Err(Reason::Source);
        }
        let reply = dhcpv6::respond(&self.config, server, destination, payload)?;
        let envelope = to_guest(&self.config, source);
        let frame = envelope.dhcpv6(&reply.payload);
        Ok((reply.done, frame.into_iter().collect()))
    }

    /// Unsolicited advertisements that are due.
    fn advertise(&mut self, now: Time, random: &mut Random) -> Vec<Vec<u8>> {
        let Some(advertising) = &mut self.advertising else {
            return Vec::new();
        };
        let frames = frames(&to_all_nodes(&self.config), &advertising.current());
        self.counters.count_done(Done::RouterAdvertisement);
        advertising.schedule.sent(now, random);
        if advertising.schedule.is_settled() {
            advertising.withdrawals.clear();
        }
        frames
    }

    /// The last advertisement.
    fn cease(&mut self) -> Vec<Vec<u8>> {
        let Some(advertising) = self.advertising.take() else {
            return Vec::new();
        };
        self.counters.count_done(Done::RouterAdvertisement);
        frames(&to_all_nodes(&self.config), &advertising.current().ceased())
    }
}

fn sends(port: PortKey, frames: Vec<Vec<u8>>) -> Vec<Action> {
    let send = |frame| Action::Send { port, frame };
    frames.into_iter().map(send).collect()
}

fn frames(envelope: &Envelope<Ipv6Addr>, advertisement: &RouterAdvertisement) -> Vec<Vec<u8>> {
    let messages = advertisement.messages();
    messages
        .iter()
        .filter_map(|message| envelope.neighbour_discovery(message))
        .collect()
}

const fn to_guest(config: &PortConfig, destination: Ipv6Addr) -> Envelope<Ipv6Addr> {
    Envelope {
        source_mac: config.host_mac,
        destination_mac: config.guest_mac,
        source: config.link_local,
        destination,
    }
}

fn to_all_nodes(config: &PortConfig) -> Envelope<Ipv6Addr> {
    Envelope {
        destination_mac: Mac::for_ipv6_multicast(ALL_NODES),
        ..to_guest(config, ALL_NODES)
    }
}

#[cfg(test)]
mod tests;
