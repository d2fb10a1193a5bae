//! Who can reach this node, from how others see it.
//!
//! A node that is seen as it sees itself, or that has the promise of the NAT whose address others see, can be reached by anybody. One that several others see at
//! one and the same address has a NAT that keeps to it: a hole can be punched there.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use hextet_types::{Time, Way};

use super::{Node, Turn};
use crate::{
    certificate::NodeId,
    letter::{Card, MAX_CANDIDATES, Said},
    topology::Reach,
};

/// Others whose view counts; each one's last.
const MAX_OBSERVERS: usize = 32;

/// Others are asked again after that; after the longer one, when enough have answered.
const SOON: Duration = Duration::from_secs(2);
const LATER: Duration = Duration::from_secs(60);
/// Addresses of streams that are told.
const MAX_STREAMS: usize = 2;
/// As many views make sure that a NAT keeps to one port.
const ENOUGH: usize = 3;

/// What is known of it.
#[derive(Clone, Debug)]
pub struct Seen {
    told: Option<Reach>,
    local: Vec<SocketAddr>,
    mapped: Vec<SocketAddr>,
    observed: BTreeMap<(NodeId, bool), SocketAddr>,
    /// Others hear us by a stream.
    streams: bool,
    /// The port by which anybody may open one.
    port: Option<u16>,
    next: Time,
}

impl Seen {
    pub const fn new(told: Option<Reach>) -> Seen {
        Seen {
            told,
            local: Vec::new(),
            mapped: Vec::new(),
            observed: BTreeMap::new(),
            streams: false,
            port: None,
            next: Time::ZERO,
        }
    }

    pub fn listens(&mut self, local: Vec<SocketAddr>, mapped: Vec<SocketAddr>) {
        // Where it stands otherwise now, what others saw is past.
        if local != self.local {
            self.observed.clear();
            self.streams = false;
        }
        (self.local, self.mapped) = (local, mapped);
    }

    /// Somebody has said from where our letter came; whether that is news.
    pub fn observed(&mut self, by: NodeId, at: SocketAddr) -> bool {
        let key = (by, at.is_ipv4());
        if self.observed.len() >= MAX_OBSERVERS && !self.observed.contains_key(&key) {
            self.observed.pop_first();
        }
        self.observed.insert(key, at) != Some(at)
    }

    /// Somebody has answered by a stream; whether that is news.
    pub fn by_stream(&mut self) -> bool {
        !std::mem::replace(&mut self.streams, true)
    }

    /// Whether nobody hears us otherwise.
    pub fn is_by_stream(&self) -> bool {
        self.streams && self.observed.is_empty()
    }

    /// Anybody may open a stream at that port.
    pub const fn opens(&mut self, port: Option<u16>) {
        self.port = port;
    }

    pub fn reach(&self) -> Reach {
        let seen = |at: &SocketAddr| self.local.contains(at);
        if let Some(told) = self.told {
            return told;
        }
        // What a NAT promises counts where there is none in front of it.
        let agreed = |at: &SocketAddr| self.observed.values().any(|seen| seen.ip() == at.ip());
        if self.mapped.iter().any(agreed) || self.observed.values().any(seen) {
            return Reach::Public;
        }
        let mut ports: BTreeMap<IpAddr, BTreeSet<u16>> = BTreeMap::new();
        for at in self.observed.values() {
            ports.entry(at.ip()).or_default().insert(at.port());
        }
        match ports.values().map(BTreeSet::len).min() {
            Some(1) => Reach::Punchable,
            Some(_) => Reach::Closed,
            // Nobody has ever seen a datagram of ours.
            None if self.streams => Reach::Closed,
            None if self.local.iter().any(|at| is_global(at.ip())) => Reach::Public,
            None => Reach::Punchable,
        }
    }

    /// What is sure comes first: a promise, what others saw, what the host says.
    pub fn card(&self) -> Card {
        let mut candidates = Vec::new();
        let all = self.mapped.iter().chain(self.observed.values());
        for at in all.chain(&self.local) {
            let at = Way::Udp(*at);
            if !candidates.contains(&at) && candidates.len() < MAX_CANDIDATES {
                candidates.push(at);
            }
        }
        let reach = self.reach();
        if reach == Reach::Public {
            candidates = self.with_streams(candidates);
        }
        Card { reach, candidates }
    }

    /// The same addresses, and behind them streams to them, if such are taken.
    pub fn with_streams(&self, mut candidates: Vec<Way>) -> Vec<Way> {
        let Some(port) = self.port else {
            return candidates;
        };
        let addresses: Vec<IpAddr> = candidates.iter().map(|at| at.address().ip()).collect();
        let promised = |ip: &IpAddr| self.mapped.iter().any(|at| at.ip() == *ip);
        let streams = addresses.into_iter();
        let streams = streams.filter(|ip| is_global(*ip) && !promised(ip));
        let streams: Vec<Way> = streams
            .map(|ip| Way::Tls(SocketAddr::new(ip, port)))
            .take(MAX_STREAMS)
            .collect();
        candidates.truncate(MAX_CANDIDATES - streams.len());
        candidates.extend(streams);
        candidates.dedup();
        candidates
    }

    pub fn due(&self) -> Option<Time> {
        Some(self.next)
    }

    pub fn is_ours(&self, at: SocketAddr) -> bool {
        self.local.contains(&at)
    }
}

impl Node {
    /// Asks others from where our letters come, whether or not there are tunnels to them.
    pub(super) fn ask_for_views(&mut self, turn: &mut Turn) {
        if self.seen.next > turn.now {
            return;
        }
        let views = self.seen.observed.len();
        self.seen.next = turn.now + if views < ENOUGH { SOON } else { LATER };
        let others = self.contacts.introduction(self.desk.node());
        let seen = |node: &NodeId| {
            let by = |is_v4| self.seen.observed.contains_key(&(*node, is_v4));
            by(true) || by(false)
        };
        let (known, new): (Vec<_>, Vec<_>) = others.into_iter().partition(|(node, _)| seen(node));
        for (node, at) in new.into_iter().chain(known).take(ENOUGH) {
            let said = Said::Ping(self.seen.card());
            let _ = self.write((Some(node), at), None, said, turn);
        }
    }
}

/// Whether an address may be anybody's in the world: not of a private net (RFC 1918, RFC 4193), a provider's NAT (RFC 6598) or one link.
pub fn is_global(addr: IpAddr) -> bool {
    const PRIVATE: u128 = 0xfc;
    match addr {
        IpAddr::V4(addr) => {
            let [a, b, ..] = addr.octets();
            let is_shared = a == 100 && b & 0xc0 == 64;
            let is_local = addr.is_link_local() || addr.is_loopback() || addr.is_unspecified();
            !(addr.is_private() || is_shared || is_local)
        }
        IpAddr::V6(addr) => {
            let is_private = u128::from(addr) >> 120 & 0xfe == PRIVATE;
            !is_private
                && !addr.is_unicast_link_local()
                && !addr.is_loopback()
                && addr != Ipv6Addr::UNSPECIFIED
        }
    }
}
