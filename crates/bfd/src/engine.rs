//! All sessions of a host: which packet belongs to which, and how many there may be.
//!
//! It knows peers and bytes, no sockets. What always holds: at most [`MAX_SESSIONS`] sessions; one
//! session for a peer; a packet moves a session only if it came with hop limit 255, from the
//! session's peer, over the session's interface, without authentication; whatever is refused is
//! reported and changes nothing.

#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, fmt, net::IpAddr, time::Duration};

use hextet_types::{IfName, Time};
use thiserror::Error;

use crate::{
    HOP_LIMIT,
    config::Config,
    packet::{Authentication, DecodeError, Discriminator, Packet, State},
    random::Random,
    session::{self, Change, Session, Status},
};

/// Sessions of one host, those included that are still saying goodbye.
pub const MAX_SESSIONS: usize = 256;

/// How long a session that nobody wants any more says AdminDown: the peer's detection time, but not
/// longer than this.
pub const MAX_LINGER: Duration = Duration::from_secs(10);

/// The other end of a single hop (RFC 5881 §3).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Peer {
    interface: IfName,
    address: IpAddr,
}

impl Peer {
    /// The system that has this address on the link of this interface. An IPv4 address that is
    /// mapped into IPv6, as dual-stack sockets report it, is taken as IPv4.
    pub fn new(interface: IfName, address: IpAddr) -> Self {
        Peer {
            interface,
            address: address.to_canonical(),
        }
    }

    /// Our interface towards it.
    pub fn interface(&self) -> &IfName {
        &self.interface
    }

    /// Its address; never an IPv4 address mapped into IPv6.
    pub fn address(&self) -> IpAddr {
        self.address
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}%{}", self.address, self.interface)
    }
}

/// What the engine is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// There shall be a session like this; harmless when there is.
    Watch {
        /// With whom.
        peer: Peer,
        /// How.
        config: Config,
    },
    /// There shall be no session; it tells the peer so, and is gone a little later. Harmless when
    /// there is none.
    Unwatch {
        /// With whom.
        peer: Peer,
    },
    /// An interface lost its carrier or is gone: its sessions need not wait for the detection time.
    LinkDown {
        /// Which.
        interface: IfName,
    },
    /// Something came to UDP port [`CONTROL_PORT`](crate::CONTROL_PORT).
    Datagram {
        /// From which address, over which interface.
        peer: Peer,
        /// The TTL or hop limit it arrived with.
        hop_limit: u8,
        /// The UDP payload.
        payload: Vec<u8>,
    },
    /// The time that [`Engine::next_wakeup`] named has come. Harmless when it has not.
    Timer,
}

/// What the driver must do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Send a datagram with hop limit [`HOP_LIMIT`] to port
    /// [`CONTROL_PORT`](crate::CONTROL_PORT).
    Send {
        /// To whom.
        peer: Peer,
        /// The UDP payload.
        payload: Vec<u8>,
    },
    /// Tell whoever relies on the path; [`Change::verdict`] says what it means.
    Changed {
        /// With whom.
        peer: Peer,
        /// What happened.
        change: Change,
    },
    /// Count it, and tell the operator (not each time: the network decides how often this comes).
    Refused {
        /// With whom, or from whom.
        peer: Peer,
        /// Why.
        refusal: Refusal,
    },
}

/// Why something was not done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Refusal {
    /// No room for another session.
    #[error(
        "no room: {MAX_SESSIONS} BFD sessions is the most; remove a peer, or switch BFD off for some"
    )]
    Full,
    /// Not from this link (RFC 5881 §5).
    #[error("BFD packet with hop limit {0} instead of 255: it has crossed a router")]
    HopLimit(u8),
    /// No BFD Control packet.
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// Your Discriminator names no session; usual for a moment after we restarted.
    #[error("BFD packet for discriminator {0}, which is no session of ours")]
    UnknownDiscriminator(Discriminator),
    /// Your Discriminator names the session of another peer.
    #[error("BFD packet for discriminator {0}, which belongs to another peer")]
    ForeignDiscriminator(Discriminator),
    /// Your Discriminator is zero in a state in which the peer must know it (RFC 5880 §6.8.6).
    #[error("BFD packet in state {0} without our discriminator")]
    DiscriminatorMissing(State),
    /// Nobody asked for a session with the sender.
    #[error(
        "BFD packet from a system that is no peer of ours: configure BFD for it, or switch it off there"
    )]
    UnknownPeer,
    /// The peer authenticates, and we have no key.
    #[error(
        "BFD packet with {0} authentication, which is not configured here: switch it off at the peer"
    )]
    Authenticated(Authentication),
}

#[derive(Clone, Debug)]
struct Entry {
    peer: Peer,
    session: Session,
    /// Nobody wants it any more; it is gone at this time.
    leaving: Option<Time>,
}

/// All sessions of a host.
///
/// Each event costs time in proportion to the number of sessions, which is small.
#[derive(Clone, Debug)]
pub struct Engine {
    random: Random,
    sessions: BTreeMap<Discriminator, Entry>,
    discriminators: BTreeMap<Peer, Discriminator>,
}

impl Engine {
    /// No sessions. `seed` is for discriminators and jitter: take it from the system's randomness
    /// once at each start, and keep it with recorded events.
    pub fn new(seed: u64) -> Self {
        Engine {
            random: Random::new(seed),
            sessions: BTreeMap::new(),
            discriminators: BTreeMap::new(),
        }
    }

    /// Takes one event; `now` never goes back.
    pub fn handle(&mut self, event: Event, now: Time) -> Vec<Action> {
        let mut actions = Vec::new();
        match event {
            Event::Watch { peer, config } => self.watch(peer, config, now, &mut actions),
            Event::Unwatch { peer } => self.unwatch(&peer, now, &mut actions),
            Event::LinkDown { interface } => {
                for entry in self
                    .sessions
                    .values_mut()
                    .filter(|e| e.peer.interface == interface)
                {
                    entry.handle(session::Event::PathDown, now, &mut actions);
                }
            }
            Event::Datagram {
                peer,
                hop_limit,
                payload,
            } => match self.select(&peer, hop_limit, &payload) {
                Ok((entry, packet)) => {
                    entry.handle(session::Event::Received(packet), now, &mut actions);
                }
                Err(refusal) => actions.push(Action::Refused { peer, refusal }),
            },
            Event::Timer => {
                self.remove_gone(now);
                for entry in self.sessions.values_mut() {
                    entry.handle(session::Event::Timer, now, &mut actions);
                }
            }
        }
        actions
    }

    /// When [`Event::Timer`] is due, unless another event comes first; `None` if never.
    pub fn next_wakeup(&self) -> Option<Time> {
        self.sessions
            .values()
            .flat_map(|entry| [entry.session.next_wakeup(), entry.leaving])
            .flatten()
            .min()
    }

    /// Each session that somebody wants, in the order of the peers.
    pub fn status(&self) -> impl Iterator<Item = (&Peer, Status)> {
        self.discriminators
            .iter()
            .filter_map(|(peer, discriminator)| Some((peer, self.sessions.get(discriminator)?)))
            .filter(|(_, entry)| entry.leaving.is_none())
            .map(|(peer, entry)| (peer, entry.session.status()))
    }

    fn watch(&mut self, peer: Peer, config: Config, now: Time, actions: &mut Vec<Action>) {
        self.remove_gone(now);
        if let Some(entry) = self.entry_of(&peer) {
            entry.leaving = None;
            entry.handle(session::Event::Configure(config), now, actions);
        } else if self.sessions.len() < MAX_SESSIONS {
            let discriminator = self.unused_discriminator();
            let session = Session::new(config, discriminator, self.random.next_u64(), now);
            self.discriminators.insert(peer.clone(), discriminator);
            let entry = Entry {
                peer,
                session,
                leaving: None,
            };
            let entry = self.sessions.entry(discriminator).or_insert(entry);
            entry.handle(session::Event::Timer, now, actions);
        } else {
            actions.push(Action::Refused {
                peer,
                refusal: Refusal::Full,
            });
        }
    }

    fn unwatch(&mut self, peer: &Peer, now: Time, actions: &mut Vec<Action>) {
        let Some(entry) = self.entry_of(peer).filter(|entry| entry.leaving.is_none()) else {
            return;
        };
        let linger = entry
            .session
            .remote_detection_time()
            .unwrap_or_default()
            .min(MAX_LINGER);
        entry.leaving = Some(now + linger);
        entry.handle(session::Event::Configure(entry.disabled()), now, actions);
        self.remove_gone(now);
    }

    fn remove_gone(&mut self, now: Time) {
        self.sessions
            .retain(|_, entry| entry.leaving.is_none_or(|at| now < at));
        let sessions = &self.sessions;
        self.discriminators
            .retain(|_, discriminator| sessions.contains_key(discriminator));
    }

    fn entry_of(&mut self, peer: &Peer) -> Option<&mut Entry> {
        self.sessions.get_mut(self.discriminators.get(peer)?)
    }

    fn unused_discriminator(&mut self) -> Discriminator {
        loop {
            if let Some(discriminator) = Discriminator::new(self.random.next_u32())
                && !self.sessions.contains_key(&discriminator)
            {
                return discriminator;
            }
        }
    }

    /// RFC 5881 §5, RFC 5880 §6.3 and the first half of §6.8.6.
    ///
    /// Deviation: a packet with our discriminator must come from the session's peer over its
    /// interface. RFC 5880 §6.3 would select by discriminator alone, which lets a workload on a port
    /// of this host end the session with an uplink.
    fn select(
        &mut self,
        peer: &Peer,
        hop_limit: u8,
        payload: &[u8],
    ) -> Result<(&mut Entry, Packet), Refusal> {
        if hop_limit != HOP_LIMIT {
            return Err(Refusal::HopLimit(hop_limit));
        }
        let packet = Packet::decode(payload)?;
        let entry = match packet.your_discriminator {
            Some(yours) => {
                let entry = self
                    .sessions
                    .get_mut(&yours)
                    .ok_or(Refusal::UnknownDiscriminator(yours))?;
                if entry.peer != *peer {
                    return Err(Refusal::ForeignDiscriminator(yours));
                }
                entry
            }
            None if matches!(packet.state, State::Init | State::Up) => {
                return Err(Refusal::DiscriminatorMissing(packet.state));
            }
            None => self.entry_of(peer).ok_or(Refusal::UnknownPeer)?,
        };
        match packet.authentication {
            Some(section) => Err(Refusal::Authenticated(section)),
            None => Ok((entry, packet)),
        }
    }
}

impl Entry {
    fn handle(&mut self, event: session::Event, now: Time, actions: &mut Vec<Action>) {
        let peer = &self.peer;
        actions.extend(
            self.session
                .handle(event, now)
                .into_iter()
                .map(|action| match action {
                    session::Action::Send(packet) => Action::Send {
                        peer: peer.clone(),
                        payload: packet.encode(),
                    },
                    session::Action::Changed(change) => Action::Changed {
                        peer: peer.clone(),
                        change,
                    },
                }),
        );
    }

    fn disabled(&self) -> Config {
        Config {
            enabled: false,
            ..*self.session.config()
        }
    }
}
