//! Connection tracking as Linux does it, written down once more: what each namespace of each host knows of
//! connections, how it translates them, and whom an ICMP error is about. It learns from what explanations say of
//! first packets, and answers for all others.

use std::{collections::BTreeMap, net::IpAddr};

use hextet_model::{
    explain::{Outcome, Packet, Passage, Payload, Point, Tracked, Tracking},
    state::{CtState, Netns},
};
use hextet_tests::packet::{Parsed, Tcp};
use hextet_types::Family;

/// What tells the packets of one direction of a connection from others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Tuple {
    /// The protocol's number.
    pub protocol: u8,
    /// From this address.
    pub src: IpAddr,
    /// To this address.
    pub dst: IpAddr,
    /// Ports of both ends; of ICMP the identifier, and type with code.
    pub ends: (u16, u16),
}

/// A packet as connection tracking sees it.
#[derive(Clone, Debug)]
pub struct Tracing {
    /// Its own.
    pub tuple: Tuple,
    /// That of the packet that an ICMP error quotes.
    pub quote: Option<Tuple>,
    /// TCP's flags.
    pub flags: Option<u8>,
    /// Whether TCP's numbers are outside of the window.
    pub odd: bool,
}

/// A connection in one namespace.
#[derive(Clone, Debug)]
struct Entry {
    /// As first packets come, and as answers come.
    tuples: [Tuple; 2],
    answered: bool,
}

/// All connections of all hosts.
#[derive(Debug, Default)]
pub struct Connections(BTreeMap<(usize, Netns), Vec<Entry>>);

/// What one host makes of one packet.
pub struct Tracker<'a> {
    /// What is known.
    pub connections: &'a mut Connections,
    /// The host's number.
    pub host: usize,
    /// The packet, as it is by now.
    pub tracing: Tracing,
}

impl Tracing {
    /// Of no packet yet.
    pub fn none() -> Tracing {
        let nobody = IpAddr::from([0; 4]);
        let tuple = Tuple {
            protocol: 0,
            src: nobody,
            dst: nobody,
            ends: (0, 0),
        };
        Tracing {
            tuple,
            quote: None,
            flags: None,
            odd: false,
        }
    }
}

impl Tuple {
    /// Of what follows an IP header; nothing is known of fragments.
    pub fn of(packet: &Parsed) -> Tuple {
        let octets = &packet.payload.octets;
        let word = |at: usize| {
            let pair = octets.get(at..at + 2);
            pair.map_or(0, |pair| u16::from_be_bytes([pair[0], pair[1]]))
        };
        let ends = match packet.payload.protocol {
            6 | 17 => (word(0), word(2)),
            1 | 58 => (word(4), word(0)),
            _ => (0, 0),
        };
        Tuple {
            protocol: packet.payload.protocol,
            src: packet.ends.src,
            dst: packet.ends.dst,
            ends,
        }
    }

    /// The other direction's.
    pub fn back(self) -> Tuple {
        let (first, second) = self.ends;
        let ends = match (self.is_icmp(), second >> 8) {
            (true, 8) => (first, 0),
            (true, 0) => (first, 8 << 8),
            (true, 128) => (first, 129 << 8),
            (true, 129) => (first, 128 << 8),
            (true, _) => (first, second),
            (false, _) => (second, first),
        };
        Tuple {
            src: self.dst,
            dst: self.src,
            ends,
            ..self
        }
    }

    fn is_icmp(self) -> bool {
        matches!(self.protocol, 1 | 58)
    }

    fn has_ports(self) -> bool {
        matches!(self.protocol, 6 | 17)
    }

    fn icmp_type(self) -> Option<u8> {
        self.is_icmp().then_some(self.ends.1.to_be_bytes()[0])
    }

    fn source(self) -> Point {
        (self.src, self.has_ports().then_some(self.ends.0))
    }

    fn destination(self) -> Point {
        (self.dst, self.has_ports().then_some(self.ends.1))
    }

    fn is_error(self) -> bool {
        match Family::of(self.src) {
            Family::V4 => matches!(self.icmp_type(), Some(3 | 4 | 11 | 12)),
            Family::V6 => matches!(self.icmp_type(), Some(0..=127)),
        }
    }

    /// Neighbour discovery and group membership, of which Linux tracks nothing.
    fn is_untracked(self) -> bool {
        let v6 = Family::of(self.src) == Family::V6;
        v6 && matches!(self.icmp_type(), Some(130..=137 | 143))
    }
}

impl Connections {
    /// The connection of which that is a packet, and in which direction.
    fn find(&mut self, place: &(usize, Netns), tuple: Tuple) -> Option<(&mut Entry, usize)> {
        let all = self.0.get_mut(place)?;
        all.iter_mut().rev().find_map(|entry| {
            let direction = entry.tuples.iter().position(|its| *its == tuple)?;
            Some((entry, direction))
        })
    }
}

impl Tracker<'_> {
    /// A packet of a connection, or an error about one, in that direction.
    fn translated(&mut self, netns: &Netns, tuple: Tuple, state: CtState) -> Option<Tracked> {
        let place = (self.host, netns.clone());
        let (entry, direction) = self.connections.find(&place, tuple)?;
        let [first, answer] = entry.tuples;
        let (this, other) = (entry.tuples[direction], entry.tuples[1 - direction]);
        let goes_to = other.back().destination();
        let comes_from = other.back().source();
        Some(Tracked {
            state: match (state, direction, entry.answered) {
                (CtState::Established, 0, false) => CtState::New,
                (state, ..) => state,
            },
            bound: true,
            destination: (goes_to != this.destination()).then_some(goes_to),
            source: (comes_from != this.source()).then_some(comes_from),
            redirected: first.destination() != answer.source(),
            flow: Some([first.src, answer.src]),
        })
    }

    /// Of an error: what it quotes says whose it is. Its own ends are translated as an answer's.
    fn related(&mut self, netns: &Netns, quote: Tuple) -> Option<Tracked> {
        let tuple = quote.back();
        let to = self.tracing.tuple.dst;
        let tracked = self.translated(netns, tuple, CtState::Related)?;
        let without_port = |point: Point| (point.0, None);
        (to == tuple.dst).then(|| Tracked {
            destination: tracked.destination.map(without_port),
            source: tracked.source.map(without_port),
            ..tracked
        })
    }

    fn unknown(&self, netns: &Netns) -> CtState {
        let tuple = self.tracing.tuple;
        match (tuple.icmp_type(), self.tracing.flags) {
            (Some(8 | 128), _) => CtState::New,
            (Some(_), _) => CtState::Invalid,
            (None, Some(flags)) => match flags & (Tcp::SYN | Tcp::ACK | Tcp::FIN | Tcp::RST) {
                Tcp::SYN => CtState::New,
                // A router's namespace has the kernel's own setting, which picks connections up.
                Tcp::ACK if is_router(netns) => CtState::New,
                _ => CtState::Invalid,
            },
            (None, None) => CtState::New,
        }
    }
}

fn is_router(netns: &Netns) -> bool {
    matches!(netns, Netns::Named(name) if name.starts_with("hr-"))
}

fn is_network(netns: &Netns) -> bool {
    matches!(netns, Netns::Named(name) if name.starts_with("hx-"))
}

impl Tracking for Tracker<'_> {
    fn arrives(&mut self, netns: &Netns, packet: &Packet) -> Tracked {
        let tuple = self.tracing.tuple;
        let said = |state| Tracked {
            state,
            ..Tracked::as_said(&Packet {
                flow: None,
                ..packet.clone()
            })
        };
        if tuple.is_untracked() {
            return said(CtState::Untracked);
        }
        if let Some(quote) = self.tracing.quote.filter(|_| tuple.is_error()) {
            let related = self.related(netns, quote);
            return related.unwrap_or_else(|| said(CtState::Invalid));
        }
        if tuple.is_error() {
            return said(CtState::Invalid);
        }
        let odd = self.tracing.odd && !is_network(netns);
        match self.translated(netns, tuple, CtState::Established) {
            Some(_) if odd => said(CtState::Invalid),
            Some(tracked) => tracked,
            None => said(self.unknown(netns)),
        }
    }

    fn leaves(&mut self, netns: &Netns, tracked: &Tracked, passage: &Passage) {
        let place = (self.host, netns.clone());
        let came = self.tracing.tuple;
        let mut left = came;
        (left.src, left.dst) = (passage.packet.source, passage.packet.destination);
        if let Payload::Ports {
            source,
            destination,
            ..
        } = passage.packet.payload
        {
            left.ends = (source, destination);
        }
        self.tracing.tuple = left;
        if passage.untracked {
            return;
        }
        match tracked.state {
            CtState::Related => {
                let quote = self.tracing.quote.expect("an error quotes");
                if let Some((entry, direction)) = self.connections.find(&place, quote.back()) {
                    self.tracing.quote = Some(entry.tuples[1 - direction]);
                }
            }
            CtState::Established => {
                if let Some((entry, direction)) = self.connections.find(&place, came) {
                    entry.answered |= direction == 1;
                }
            }
            CtState::New if !tracked.bound => {
                let passes = !matches!(passage.outcome, Outcome::Dropped(_));
                let entry = Entry {
                    tuples: [came, left.back()],
                    answered: false,
                };
                let all = self.connections.0.entry(place).or_default();
                all.extend(passes.then_some(entry));
            }
            _ => {}
        }
    }
}
