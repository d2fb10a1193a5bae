//! Nodes on one network segment. Each tells all there, signed, which key it has for that segment; by what pairs make of their keys (X25519)
//! they speak Babel, and packets go between them as they are. Or, where tunnels are wanted there too, they learn only where the other's are.
//!
//! What always holds: at most [`MAX_BESIDE`] others on a segment; whoever is silent or out is none; a letter from outside of the segment
//! says nothing about it. That somebody is here does not make a tunnel needless: only Babel's word does, that packets go both ways.

use std::{
    collections::BTreeMap,
    fmt,
    net::{Ipv6Addr, SocketAddrV6},
    time::Duration,
};

use hextet_types::{Time, Way};
use ring::hmac;
use x25519_dalek::{PublicKey, StaticSecret};

use super::{Action, Node, Turn, keys::Pair};
use crate::{
    certificate::NodeId,
    letter::{Letter, Said},
};

/// Others on a segment.
pub const MAX_BESIDE: usize = 64;
/// From one word to all to the next; at first sooner.
const INTERVAL: Duration = Duration::from_secs(10);
const SOON: Duration = Duration::from_secs(1);
const QUICK: u32 = 3;
/// Who has said nothing for so long is gone.
const LIFE: Duration = Duration::from_secs(35);
/// Nobody changes its key or its address sooner again.
const PACE: Duration = Duration::from_millis(500);

/// How a segment is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wire {
    /// Whether packets go as they are; else in tunnels.
    pub bare: bool,
    /// The port of UDP where this node's tunnels listen.
    pub port: u16,
}

/// One that is spoken to without a tunnel.
#[derive(Clone, PartialEq, Eq)]
pub struct Beside {
    /// Who.
    pub node: NodeId,
    /// What packets of Babel are signed with, between this node and that one.
    pub secret: [u8; 32],
}

impl fmt::Debug for Beside {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("Beside");
        shown.field("node", &self.node).finish_non_exhaustive()
    }
}

#[derive(Clone, Debug)]
struct Segment {
    wire: Wire,
    key: Pair,
    said: u32,
    next: Time,
    others: BTreeMap<NodeId, Other>,
}

#[derive(Clone, Debug)]
struct Other {
    addr: Ipv6Addr,
    key: [u8; 32],
    beside: Beside,
    heard: Time,
    changed: Time,
}

/// All segments.
#[derive(Clone, Debug, Default)]
pub struct Lan {
    segments: BTreeMap<u32, Segment>,
}

impl Lan {
    pub fn due(&self) -> Option<Time> {
        let segments = self.segments.values();
        segments
            .map(|segment| {
                let ends = segment.others.values().map(|other| other.heard + LIFE);
                ends.fold(segment.next, Time::min)
            })
            .min()
    }

    /// Whether a tunnel to it can begin on a segment of this node, whatever is between them and the world.
    pub fn is_near(&self, node: NodeId) -> bool {
        let mut segments = self.segments.values();
        segments.any(|segment| !segment.wire.bare && segment.others.contains_key(&node))
    }
}

impl Segment {
    /// Whether what it says is news.
    fn hear(
        &mut self,
        (me, node): (NodeId, NodeId),
        (addr, key): (Ipv6Addr, [u8; 32]),
        now: Time,
    ) -> bool {
        let known = self.others.get_mut(&node);
        if let Some(other) = known {
            if (other.addr, other.key) == (addr, key) {
                other.heard = now;
                return false;
            }
            if now < other.changed + PACE {
                return false;
            }
        } else if self.others.len() >= MAX_BESIDE {
            return false;
        }
        let is_taken = |(other, known): (&NodeId, &Other)| *other != node && known.addr == addr;
        let secret = secret((me, &self.key), (node, key));
        let Some(secret) = secret.filter(|_| !self.others.iter().any(is_taken)) else {
            return false;
        };
        let other = Other {
            addr,
            key,
            beside: Beside { node, secret },
            heard: now,
            changed: now,
        };
        self.others.insert(node, other);
        true
    }

    fn pairs(&self) -> BTreeMap<Ipv6Addr, Beside> {
        let others = self.others.values();
        others
            .map(|other| (other.addr, other.beside.clone()))
            .collect()
    }
}

/// What both make of their keys; nothing, of a key that makes the same with everybody (RFC 7748 §6.1).
pub fn secret((me, own): (NodeId, &Pair), (node, theirs): (NodeId, [u8; 32])) -> Option<[u8; 32]> {
    let shared = StaticSecret::from(own.private).diffie_hellman(&PublicKey::from(theirs));
    if !shared.was_contributory() {
        return None;
    }
    let mut ends = [(me, own.public), (node, theirs)];
    ends.sort_unstable();
    let mut context =
        hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA256, shared.as_bytes()));
    context.update(b"hextet mesh segment\0");
    for (node, key) in ends {
        context.update(&node.0.to_be_bytes());
        context.update(&key);
    }
    context.sign().as_ref().first_chunk().copied()
}

fn on_link(addr: Ipv6Addr, port: u16, link: u32) -> Way {
    Way::Udp(SocketAddrV6::new(addr, port, 0, link).into())
}

impl Node {
    /// A segment is there, or is not any more.
    pub(super) fn wire(&mut self, link: u32, wire: Option<Wire>, turn: &mut Turn) {
        let Some(wire) = wire else {
            self.lan.segments.remove(&link);
            return;
        };
        let segment = Segment {
            wire,
            key: self.keys.draw(),
            said: 0,
            next: turn.now,
            others: BTreeMap::new(),
        };
        self.lan.segments.insert(link, segment);
        self.tell_beside(link, turn);
        self.keep_up_lan(turn);
    }

    /// Says that it is here, and forgets who does not.
    pub(super) fn keep_up_lan(&mut self, turn: &mut Turn) {
        let mut due = Vec::new();
        let mut poorer = Vec::new();
        for (link, segment) in &mut self.lan.segments {
            let before = segment.others.len();
            segment
                .others
                .retain(|_, other| turn.now < other.heard + LIFE);
            if segment.others.len() < before {
                poorer.push(*link);
            }
            if segment.next <= turn.now {
                segment.said = segment.said.saturating_add(1);
                let wait = if segment.said < QUICK { SOON } else { INTERVAL };
                segment.next = turn.now + wait;
                due.push(*link);
            }
        }
        for link in poorer {
            self.tell_beside(link, turn);
        }
        for link in due {
            self.say_beside(link, None, turn);
        }
    }

    /// Something has come from a segment.
    pub(super) fn beacon(&mut self, link: u32, from: Ipv6Addr, octets: &[u8], turn: &mut Turn) {
        if !self.lan.segments.contains_key(&link) {
            return;
        }
        let letter = match self.desk.read(octets, self.gossip.trust(), turn.wall) {
            Ok(letter) => letter,
            Err(refusal) => {
                let from = on_link(from, 0, link);
                turn.actions.push(Action::Refused { from, refusal });
                return;
            }
        };
        if let Said::Beside { key, port } = letter.said {
            if let Some(certificate) = self.desk.certificate(letter.from) {
                self.contacts.heard(&certificate.body, turn.now);
            }
            self.is_here((link, from), &letter, (key, port), turn);
        }
    }

    fn is_here(
        &mut self,
        (link, from): (u32, Ipv6Addr),
        letter: &Letter,
        (key, port): ([u8; 32], u16),
        turn: &mut Turn,
    ) {
        let (me, node) = (self.desk.node(), letter.from);
        let Some(segment) = self.lan.segments.get_mut(&link) else {
            return;
        };
        if !segment.hear((me, node), (from, key), turn.now) {
            return;
        }
        let bare = segment.wire.bare;
        self.say_beside(link, Some((node, from, letter.number)), turn);
        self.tell_beside(link, turn);
        if !bare {
            let at = on_link(from, port, link);
            self.contacts.meet(node, at, turn.now);
            let said = Said::Ping(self.seen.card());
            let _ = self.write((Some(node), at), None, said, turn);
            self.tell_candidate(node, turn);
        }
    }

    /// To all, or in answer to one.
    fn say_beside(&mut self, link: u32, to: Option<(NodeId, Ipv6Addr, u64)>, turn: &mut Turn) {
        let Some(segment) = self.lan.segments.get(&link) else {
            return;
        };
        let said = Said::Beside {
            key: segment.key.public,
            port: segment.wire.port,
        };
        let (node, answers) = (to.map(|(node, ..)| node), to.map(|(.., number)| number));
        let known = self.gossip.known();
        match self.desk.write(node, answers, known, said, turn.wall) {
            Ok((_, octets)) => turn.actions.push(Action::Beacon {
                link,
                to: to.map(|(_, addr, _)| addr),
                octets,
            }),
            Err(refusal) => {
                let from = on_link(Ipv6Addr::UNSPECIFIED, 0, link);
                turn.actions.push(Action::Refused { from, refusal });
            }
        }
    }

    fn tell_beside(&self, link: u32, turn: &mut Turn) {
        let segment = self.lan.segments.get(&link);
        if let Some(segment) = segment.filter(|segment| segment.wire.bare) {
            let pairs = segment.pairs();
            turn.actions.push(Action::Beside { link, pairs });
        }
    }

    /// Its certificate counts no more.
    pub(super) fn cast_out_of_lan(&mut self, node: NodeId, turn: &mut Turn) {
        let segments = self.lan.segments.iter_mut();
        let had =
            segments.filter_map(|(link, segment)| segment.others.remove(&node).map(|_| *link));
        for link in had.collect::<Vec<_>>() {
            self.tell_beside(link, turn);
        }
    }
}
