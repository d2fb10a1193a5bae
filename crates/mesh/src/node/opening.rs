//! How a tunnel comes about that both sides want: each makes a key for it and offers that with its addresses until it has the other's.
//!
//! Where one of the two has several uplinks, a tunnel has a strand by each of them: an interface and keys of its own, agreed upon in the same way once the
//! first carries. The tunnel is there while one of its strands is; who has the uplinks offers the others again and again.
//!
//! Who has a kernel with WireGuard, and one uplink, offers a strand more in the same way ([`KERNEL_STRAND`]). It has a port of its own ([`kernel_port`]),
//! finds nobody behind a NAT and goes by no stream: the first strand does all that, and stays, so that packets have a way whatever becomes of either.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use hextet_types::{Time, Way};

use super::{Action, Node, Turn, contacts::is_link_local, keys::Pair};
use crate::{
    certificate::NodeId,
    letter::{Card, MAX_CANDIDATES, MAX_STRANDS, Offer, Said},
    topology::{MAX_TUNNELS, Reach},
};

/// How often something is sent through a tunnel one of whose ends is behind a NAT, in seconds.
pub const KEEPALIVE_SECS: u16 = 20;
/// From an offer to the next, the first time; then twice as long each time.
const AGAIN: Duration = Duration::from_millis(250);
const MAX_DOUBLINGS: u32 = 3;
/// An offer that comes before the tunnel is wanted here is kept so long.
const EARLY: Duration = Duration::from_secs(10);
/// A further strand that is not answered so often, or was lost, is offered again after that.
const TRIES: u32 = 6;
const LATER: Duration = Duration::from_secs(15);
/// Whoever offers a strand anew that has stood for so long has lost it.
const SETTLED: Duration = Duration::from_secs(2);

/// The number of the strand that is one end's kernel's, where neither has further uplinks.
pub const KERNEL_STRAND: u8 = MAX_STRANDS - 1;
/// Ports of kernels' strands.
const KERNEL_PORTS: std::ops::Range<u16> = 24_000..32_000;

/// Where a kernel listens for the strand with that node. Two nodes may have the same: of these one has no such strand.
pub fn kernel_port(node: NodeId) -> u16 {
    let count = KERNEL_PORTS.end - KERNEL_PORTS.start;
    let place = u16::try_from(node.0 % u64::from(count)).unwrap_or_default();
    KERNEL_PORTS.start + place
}

/// A strand of the tunnel with a node: the first is that which the choice of tunnels has made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Strand {
    /// With whom.
    pub node: NodeId,
    /// Less than [`MAX_STRANDS`].
    pub number: u8,
}

impl Strand {
    /// The first with that node.
    pub const fn first(node: NodeId) -> Strand {
        Strand { node, number: 0 }
    }
}

/// A tunnel that both ends have agreed upon.
#[derive(Clone, PartialEq, Eq)]
pub struct Plan {
    /// Which.
    pub strand: Strand,
    /// This end's key.
    pub private_key: [u8; 32],
    /// The other's, public.
    pub peer_key: [u8; 32],
    /// Where the other end may be, the surest first.
    pub candidates: Vec<Way>,
    /// Something is sent at least that often; 0 if that is not needed.
    pub keepalive_secs: u16,
    /// The port of the kernel's own WireGuard that holds this end, in place of the process for tunnels.
    pub kernel: Option<u16>,
    /// Whether this side asked for it.
    pub ours: bool,
    /// Why.
    pub reason: String,
}

impl std::fmt::Debug for Plan {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Plan")
            .field("strand", &self.strand)
            .field("candidates", &self.candidates)
            .field("reason", &self.reason)
            .finish_non_exhaustive()
    }
}

#[derive(Clone, Debug)]
struct Opening {
    /// None, if an earlier run made it.
    key: Option<Pair>,
    ours: bool,
    reason: String,
    theirs: Option<[u8; 32]>,
    up: Option<Time>,
    next: Option<Time>,
    tries: u32,
}

impl Opening {
    fn new(key: Option<Pair>, (ours, reason): (bool, &str), next: Option<Time>) -> Opening {
        Opening {
            key,
            ours,
            reason: reason.to_owned(),
            theirs: None,
            up: None,
            next,
            tries: 0,
        }
    }
}

/// Tunnels from the moment that they are wanted.
#[derive(Clone, Debug, Default)]
pub struct Openings {
    all: BTreeMap<Strand, Opening>,
    /// Offers of those who are faster than we.
    early: BTreeMap<NodeId, (Offer, Time)>,
}

impl Openings {
    fn of(&self, node: NodeId) -> impl Iterator<Item = (Strand, &Opening)> {
        let last = Strand {
            node,
            number: u8::MAX,
        };
        let all = self.all.range(Strand::first(node)..=last);
        all.map(|(strand, opening)| (*strand, opening))
    }

    pub fn up(&mut self, strand: Strand, now: Time) {
        if let Some(opening) = self.all.get_mut(&strand) {
            opening.up.get_or_insert(now);
            (opening.next, opening.tries) = (None, 0);
        }
    }

    /// Since when something of it carries.
    pub fn up_since(&self, node: NodeId) -> Option<Time> {
        self.of(node).filter_map(|(_, opening)| opening.up).min()
    }

    /// Of the tunnel with that node, those that carry.
    pub fn strands_up(&self, node: NodeId) -> Vec<Strand> {
        let up = self.of(node).filter(|(_, opening)| opening.up.is_some());
        up.map(|(strand, _)| strand).collect()
    }

    /// With whom there are tunnels that carry.
    pub fn standing(&self) -> Vec<NodeId> {
        let standing = self.all.iter().filter(|(_, opening)| opening.up.is_some());
        let mut nodes: Vec<NodeId> = standing.map(|(strand, _)| strand.node).collect();
        nodes.dedup();
        nodes
    }

    /// All strands that there were.
    pub fn close(&mut self, node: NodeId) -> Vec<Strand> {
        let strands: Vec<Strand> = self.of(node).map(|(strand, _)| strand).collect();
        for strand in &strands {
            self.all.remove(strand);
        }
        strands
    }

    pub fn adopt(&mut self, strand: Strand, now: Time) {
        let mut opening = Opening::new(None, (false, ""), None);
        opening.up = Some(now);
        self.all.insert(strand, opening);
    }

    pub fn due(&self) -> Option<Time> {
        self.all.values().filter_map(|opening| opening.next).min()
    }
}

impl Node {
    /// Both sides want a tunnel.
    pub(super) fn open(&mut self, node: NodeId, ours: bool, reason: &str, turn: &mut Turn) {
        let key = Some(self.keys.draw());
        let opening = Opening::new(key, (ours, reason), Some(turn.now));
        self.openings.all.insert(Strand::first(node), opening);
        let early = self.openings.early.remove(&node);
        if let Some((offer, _)) = early.filter(|(_, at)| turn.now < *at + EARLY) {
            self.agreed(node, offer, turn);
        }
        self.repeat_offers(turn);
    }

    /// One carries: whoever has several uplinks wants one by each.
    pub(super) fn strand_up(&mut self, strand: Strand, turn: &mut Turn) {
        self.openings.up(strand, turn.now);
        self.want_strands(strand.node, turn.now);
        self.repeat_offers(turn);
    }

    /// Those that are missing are offered at that time.
    fn want_strands(&mut self, node: NodeId, at: Time) {
        for number in 0..MAX_STRANDS {
            let strand = Strand { node, number };
            if self.wants(strand) && !self.openings.all.contains_key(&strand) {
                let why = match self.is_kernels(strand) {
                    true => "our kernel has WireGuard",
                    false => "another uplink of ours",
                };
                let opening = Opening::new(Some(self.keys.draw()), (true, why), Some(at));
                self.openings.all.insert(strand, opening);
            }
        }
    }

    /// Where the further uplinks are reached from now on.
    pub(super) fn uplinks(&mut self, further: Vec<Vec<SocketAddr>>, turn: &mut Turn) {
        self.uplinks = further;
        for node in self.openings.standing() {
            self.want_strands(node, turn.now);
        }
        self.repeat_offers(turn);
    }

    /// Where the kernel's tunnels are reached from now on; there are none, if nowhere.
    pub(super) fn kernel(&mut self, addresses: Vec<IpAddr>, turn: &mut Turn) {
        self.kernel = addresses;
        for node in self.openings.standing() {
            self.want_strands(node, turn.now);
        }
        self.repeat_offers(turn);
    }

    /// Whether this end of it is the kernel's.
    fn is_kernels(&self, strand: Strand) -> bool {
        strand.number == KERNEL_STRAND && self.uplinks.is_empty() && !self.kernel.is_empty()
    }

    /// Whether this node offers it. The kernel's needs one of the two to be reached by anybody.
    fn wants(&self, strand: Strand) -> bool {
        let reaches = [self.seen.reach(), self.contacts.reach(strand.node)];
        let meet = || reaches.contains(&Reach::Public);
        strand.number < self.strands() || (self.is_kernels(strand) && meet())
    }

    /// An earlier run made it. What is missing may still be found to be there.
    pub(super) fn adopt_strand(&mut self, strand: Strand, turn: &Turn) {
        self.openings.adopt(strand, turn.now);
        self.want_strands(strand.node, turn.now + LATER);
    }

    /// Whether the tunnel stands all the same, by another.
    pub(super) fn strand_down(&mut self, strand: Strand, turn: &mut Turn) -> bool {
        let others = |(other, opening): (Strand, &Opening)| other != strand && opening.up.is_some();
        if !self.openings.of(strand.node).any(others) {
            return false;
        }
        if let Some(lost) = self.openings.all.remove(&strand) {
            let reason = "nothing comes through this strand".to_owned();
            turn.actions.push(Action::Close { strand, reason });
            if lost.ours || self.wants(strand) {
                let key = Some(self.keys.draw());
                let next = Some(turn.now + LATER);
                let opening = Opening::new(key, (lost.ours, &lost.reason), next);
                self.openings.all.insert(strand, opening);
            }
        }
        true
    }

    /// As many as this node wants with each.
    fn strands(&self) -> u8 {
        let uplinks = self.uplinks.len().saturating_add(1);
        u8::try_from(uplinks).map_or(MAX_STRANDS, |uplinks| uplinks.min(MAX_STRANDS))
    }

    /// Where the uplink of a strand may be reached.
    fn card_for(&self, strand: Strand) -> Card {
        let first = self.seen.card();
        if self.is_kernels(strand) {
            let at = |ip: &IpAddr| Way::Udp(SocketAddr::new(*ip, kernel_port(strand.node)));
            let candidates = self.kernel.iter().map(at).take(MAX_CANDIDATES);
            return Card {
                candidates: candidates.collect(),
                ..first
            };
        }
        let uplink = usize::from(strand.number % self.strands());
        match uplink
            .checked_sub(1)
            .and_then(|place| self.uplinks.get(place))
        {
            None => first,
            Some(candidates) => {
                let candidates = candidates.iter().take(MAX_CANDIDATES);
                let candidates: Vec<Way> = candidates.map(|at| Way::Udp(*at)).collect();
                Card {
                    candidates: match first.reach {
                        Reach::Public => self.seen.with_streams(candidates),
                        Reach::Punchable | Reach::Closed => candidates,
                    },
                    ..first
                }
            }
        }
    }

    pub(super) fn repeat_offers(&mut self, turn: &mut Turn) {
        let due = |opening: &Opening| opening.next.is_some_and(|next| next <= turn.now);
        let due: Vec<Strand> = (self.openings.all.iter())
            .filter_map(|(strand, opening)| due(opening).then_some(*strand))
            .collect();
        for strand in due {
            self.offer(strand, None, turn);
            if let Some(opening) = self.openings.all.get_mut(&strand) {
                let is_in_vain = strand.number > 0 && opening.tries >= TRIES;
                let wait = match is_in_vain {
                    true => LATER,
                    false => AGAIN * 2_u32.pow(opening.tries.min(MAX_DOUBLINGS)),
                };
                opening.tries = if is_in_vain { 0 } else { opening.tries + 1 };
                opening.next = opening.theirs.is_none().then(|| turn.now + wait);
            }
        }
    }

    fn offer(&mut self, strand: Strand, answers: Option<u64>, turn: &mut Turn) {
        let opening = self.openings.all.get(&strand);
        let Some(key) = opening.and_then(|opening| opening.key.as_ref()) else {
            return;
        };
        let offer = Offer {
            strand: strand.number,
            key: key.public,
            card: self.card_for(strand),
        };
        self.say(strand.node, answers, Said::Offer(offer), turn);
    }

    /// The other end's key has come.
    pub(super) fn offered(
        &mut self,
        node: NodeId,
        number: u64,
        answers: Option<u64>,
        offer: Offer,
        turn: &mut Turn,
    ) {
        let strand = Strand {
            node,
            number: offer.strand,
        };
        if !self.is_expected(strand, &offer, turn) {
            return;
        }
        let known = self.openings.all.get(&strand);
        if known.and_then(|known| known.theirs) != Some(offer.key) {
            self.agreed(node, offer, turn);
        }
        if answers.is_none() {
            self.offer(strand, Some(number), turn);
        }
    }

    /// Whether an offer is taken: of a tunnel that is wanted, or of a further strand of one that stands.
    fn is_expected(&mut self, strand: Strand, offer: &Offer, turn: &mut Turn) -> bool {
        let others = |(other, opening): (Strand, &Opening)| other != strand && opening.up.is_some();
        let stands = self.openings.of(strand.node).any(others);
        let known = self.openings.all.get(&strand);
        let Some(known) = known else {
            if stands {
                let why = match strand.number {
                    KERNEL_STRAND => "another strand of theirs",
                    _ => "another uplink of theirs",
                };
                let opening = Opening::new(Some(self.keys.draw()), (false, why), None);
                self.openings.all.insert(strand, opening);
            } else if strand.number == 0 {
                self.keep_early(strand.node, offer.clone(), turn);
            }
            return stands;
        };
        let Some(up) = known.up.filter(|_| known.theirs != Some(offer.key)) else {
            return true;
        };
        if !stands || turn.now.saturating_since(up) < SETTLED {
            return false;
        }
        let (ours, reason) = (known.ours, known.reason.clone());
        let opening = Opening::new(Some(self.keys.draw()), (ours, &reason), None);
        self.openings.all.insert(strand, opening);
        true
    }

    fn keep_early(&mut self, node: NodeId, offer: Offer, turn: &mut Turn) {
        let early = &mut self.openings.early;
        if early.len() < MAX_TUNNELS || early.contains_key(&node) {
            early.insert(node, (offer, turn.now));
        }
        early.retain(|_, (_, at)| turn.now < *at + EARLY);
    }

    fn agreed(&mut self, node: NodeId, offer: Offer, turn: &mut Turn) {
        let strand = Strand {
            node,
            number: offer.strand,
        };
        let mut candidates: Vec<Way> = offer.card.candidates.clone();
        if strand.number == 0 {
            self.contacts.shows(node, offer.card.clone(), turn.now);
        }
        // A stream to another uplink would be that one's: both would be lost with it.
        let has_streams = strand.number > 0 && candidates.iter().any(|at| at.tls().is_some());
        // A kernel has a port of its own.
        let known = match strand.number {
            KERNEL_STRAND => Vec::new(),
            _ => self.contacts.candidates(node),
        };
        for at in known {
            let is_another_s = has_streams && at.tls().is_some();
            if !is_another_s && !candidates.contains(&at) {
                candidates.push(at);
            }
        }
        // What is on a segment of ours is the surest.
        candidates.sort_by_key(|at| !is_link_local(at.address()));
        // Streams are for those whose datagrams nobody hears.
        let met = self.contacts.met(node);
        let by_stream = met.is_some_and(|at| at.tls().is_some()) || self.seen.is_by_stream();
        candidates.retain(|at| self.is_outside(*at) && (by_stream || at.udp().is_some()));
        candidates.truncate(MAX_CANDIDATES);
        let is_public = self.seen.reach() == Reach::Public && offer.card.reach == Reach::Public;
        let kernel = self.is_kernels(strand).then(|| kernel_port(node));
        let Some(opening) = self.openings.all.get_mut(&strand) else {
            return;
        };
        let Some(key) = &opening.key else { return };
        opening.theirs = Some(offer.key);
        let plan = Plan {
            strand,
            private_key: key.private,
            peer_key: offer.key,
            candidates,
            // A kernel that has nothing to send would not begin.
            keepalive_secs: if is_public && kernel.is_none() {
                0
            } else {
                KEEPALIVE_SECS
            },
            kernel,
            ours: opening.ours,
            reason: opening.reason.clone(),
        };
        turn.actions.push(Action::Open(Box::new(plan)));
    }
}
