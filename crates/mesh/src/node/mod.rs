//! A node of a mesh: what it writes to others and which tunnels it has, from what it hears.
//!
//! [`letters`] answers and asks, [`contacts`] has what is known of others, [`opening`] brings a tunnel about, [`seen`] finds out who can
//! reach this node, [`entry`] finds the way in, [`lan`] whom no tunnel is needed to, [`news`] keeps up with what registries sign, [`survey`] asks all who is next to whom; [`Topology`] decides which tunnels there are. The driver sends octets,
//! makes tunnels of [`Plan`]s, speaks Babel over them, and tells what has come of it.
//!
//! What always holds: nothing is believed but what [`Desk`] has judged; what is written by whoever's wish is bounded in number and rate;
//! a tunnel with somebody whose certificate counts no more is taken down at once.

mod contacts;
mod entry;
mod keys;
mod lan;
mod letters;
mod news;
mod opening;
mod seen;
mod status;
mod survey;
#[cfg(test)]
mod tests;

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use hextet_types::{Prefix, Time, Way};

use self::{
    contacts::Contacts, entry::Entry, keys::Keys, lan::Lan, letters::Mailbox, opening::Openings,
    seen::Seen, survey::Survey,
};
pub use self::{
    contacts::MAX_CONTACTS,
    lan::{Beside, MAX_BESIDE, Wire},
    opening::{KEEPALIVE_SECS, KERNEL_STRAND, Plan, Strand},
    seen::is_global,
    status::{ContactStatus, Status},
};
use crate::{
    certificate::{Certificate, NodeId, UnixTime},
    gossip::{self, Gossip},
    key::SigningKey,
    letter::{Desk, Known, Micros, Neighbour, Refusal},
    parameters::Change,
    rules::{self, Filter},
    signed::Signed,
    topology::{self, Action as Choice, Config, Kind, Reach, Topology},
    trust::Trust,
};

/// The port of UDP to which nodes write to each other over the mesh.
pub const PORT: u16 = 6697;

/// How a node begins.
#[derive(Debug)]
pub struct Setup {
    /// Its certificate.
    pub certificate: Signed<Certificate>,
    /// The key of that.
    pub key: SigningKey,
    /// What it knows of its network.
    pub trust: Trust,
    /// Who can reach it, if it has been told; else it finds out.
    pub reach: Option<Reach>,
    /// How it chooses tunnels.
    pub config: Config,
    /// What keys of tunnels and choices by chance come of: a secret, another one at each start.
    pub seed: [u8; 32],
}

/// What happens.
#[derive(Clone, Debug)]
pub enum Event {
    /// A letter has come from there.
    Letter {
        /// Of the writer, as it was seen here.
        from: Way,
        /// What came.
        octets: Vec<u8>,
    },
    /// Where this node listens: addresses of the host itself, and such as a NAT maps to them by agreement.
    Addresses {
        /// The host's own.
        local: Vec<SocketAddr>,
        /// The NAT's.
        mapped: Vec<SocketAddr>,
    },
    /// Anybody who can reach this node by TCP may open a stream of TLS at that port; at none.
    Streams(Option<u16>),
    /// Where this node listens by each of its further uplinks: there are as many strands of tunnels, up to four with the first's.
    Uplinks(Vec<Vec<SocketAddr>>),
    /// The host's addresses where tunnels of its kernel's WireGuard are reached; none, if there are to be none.
    Kernel(Vec<IpAddr>),
    /// How far it is to a destination by the mesh; not at all, if there is no distance.
    Way {
        /// The destination.
        prefix: Prefix,
        /// Of a round trip.
        distance: Option<Micros>,
    },
    /// Nodes that may be reached by anybody, as is remembered or the registry says.
    Introduced(Vec<(NodeId, Way)>),
    /// A tunnel stands that an earlier run made.
    Adopted {
        /// Which.
        strand: Strand,
        /// What it is for.
        kind: Kind,
        /// Whether this side asked for it.
        ours: bool,
    },
    /// A tunnel carries, by that strand.
    Up(Strand),
    /// It does not, or never did.
    Down(Strand),
    /// A packet went through a tunnel and was answered so much later.
    RoundTrip(NodeId, Duration),
    /// Nothing comes through a strand any more, as Babel found: the other end may not know yet.
    Silent(Strand),
    /// Nothing comes from a node by any strand any more: others who have tunnels with it may not know yet.
    Missing(NodeId),
    /// So many routes leave by a tunnel.
    Routes(NodeId, usize),
    /// So many octets went to a destination since this was said last.
    Traffic(Prefix, u64),
    /// A network segment is there, by the kernel's number of the interface, on which others are looked for; or it is not, any more.
    Wire(u32, Option<Wire>),
    /// A letter has come from such a segment to all, or to this node alone.
    Beacon {
        /// The segment.
        link: u32,
        /// Link-local.
        from: Ipv6Addr,
        /// What came.
        octets: Vec<u8>,
    },
    /// Packets go both ways without a tunnel, as Babel says of one of [`Action::Beside`]; or they do not, any more.
    Reached(NodeId, bool),
    /// Somebody wants to see the whole mesh: [`Action::Surveyed`].
    Survey,
    /// There is a newer certificate for this node.
    Renewed(Box<Signed<Certificate>>),
    /// A registry, or the disk, has parameters and revocations: what is newer of them is taken.
    Trust(Box<Trust>),
    /// The time that [`Node::next_wakeup`] named has come. Harmless when it has not.
    Timer,
}

/// What the driver must do.
#[derive(Clone, Debug)]
pub enum Action {
    /// Send a letter.
    Send {
        /// There.
        to: Way,
        /// This.
        octets: Vec<u8>,
    },
    /// Send a letter on a segment: to all, if to nobody.
    Beacon {
        /// The segment.
        link: u32,
        /// There.
        to: Option<Ipv6Addr>,
        /// This.
        octets: Vec<u8>,
    },
    /// With these, and nobody else, Babel is spoken on a segment.
    Beside {
        /// The segment.
        link: u32,
        /// By their link-local addresses.
        pairs: BTreeMap<Ipv6Addr, Beside>,
    },
    /// Bring up a strand of a tunnel, in place of any that is the same.
    Open(Box<Plan>),
    /// Take one away.
    Close {
        /// Which.
        strand: Strand,
        /// Why.
        reason: String,
    },
    /// The other end hears nothing by a strand: does this one?
    Suspect(Strand),
    /// No route is to use a tunnel where there is another way.
    Drain {
        /// With whom.
        node: NodeId,
        /// Why.
        reason: String,
    },
    /// Routes may use it again.
    Resume {
        /// With whom.
        node: NodeId,
        /// Why.
        reason: String,
    },
    /// Tell the registry where this node is, if anybody can reach it, and ask who else is there: [`Event::Introduced`].
    AskRegistry,
    /// Who is next to whom, as this node and all that answered it say.
    Surveyed(BTreeMap<NodeId, Vec<Neighbour>>),
    /// What is worth remembering has changed: [`Node::remembered`].
    Remember,
    /// Parameters or revocations are newer: [`Node::trust`] is to be written down.
    Learned {
        /// What is different in the parameters.
        changes: Vec<Change>,
    },
    /// Somebody promised parameters or revocations that are not to be believed.
    Rumour {
        /// Who; the registry or the disk, if nobody.
        from: Option<NodeId>,
        /// What is wrong.
        fault: gossip::Fault,
    },
    /// A letter was not believed; to be counted, and logged at a bounded rate.
    Refused {
        /// From there.
        from: Way,
        /// Why.
        refusal: Refusal,
    },
}

/// A node.
#[derive(Debug)]
pub struct Node {
    desk: Desk,
    gossip: Gossip,
    /// When certificates are looked through again.
    sweep: Time,
    topology: Topology,
    contacts: Contacts,
    openings: Openings,
    mailbox: Mailbox,
    seen: Seen,
    /// Where further uplinks are reached.
    uplinks: Vec<Vec<SocketAddr>>,
    /// Where the kernel's tunnels are.
    kernel: Vec<IpAddr>,
    entry: Entry,
    lan: Lan,
    survey: Survey,
    keys: Keys,
    /// Distances by the mesh.
    ways: BTreeMap<Prefix, Micros>,
}

impl Node {
    /// A node without tunnels.
    pub fn new(setup: Setup, now: Time, wall: UnixTime) -> Node {
        let me = setup.certificate.body.node;
        let mut keys = Keys::new(setup.seed);
        let seen = Seen::new(setup.reach);
        let topology = Topology::new(me, seen.reach(), setup.config, keys.number(), now);
        Node {
            desk: Desk::new(setup.certificate, setup.key, wall),
            gossip: Gossip::new(setup.trust, now),
            sweep: now,
            topology,
            contacts: Contacts::default(),
            openings: Openings::default(),
            mailbox: Mailbox::default(),
            seen,
            uplinks: Vec::new(),
            kernel: Vec::new(),
            entry: Entry::new(now),
            lan: Lan::default(),
            survey: Survey::default(),
            keys,
            ways: BTreeMap::new(),
        }
    }

    /// What follows from an event.
    pub fn handle(&mut self, event: Event, now: Time, wall: UnixTime) -> Vec<Action> {
        let mut turn = Turn {
            now,
            wall,
            actions: Vec::new(),
        };
        match event {
            Event::Letter { from, octets } => self.letter(from, &octets, &mut turn),
            Event::Addresses { local, mapped } => {
                self.seen.listens(local, mapped);
                self.tell_reach(&mut turn);
            }
            Event::Streams(port) => self.seen.opens(port),
            Event::Kernel(addresses) => self.kernel(addresses, &mut turn),
            Event::Uplinks(further) => self.uplinks(further, &mut turn),
            Event::Way { prefix, distance } => self.way(prefix, distance, &mut turn),
            Event::Introduced(nodes) => self.introduced(nodes, &mut turn),
            Event::Adopted { strand, kind, ours } => self.adopted(strand, kind, ours, &mut turn),
            Event::Up(strand) => self.carries(strand, &mut turn),
            Event::Down(strand) => {
                if !self.strand_down(strand, &mut turn) {
                    self.lost(strand.node, &mut turn);
                }
            }
            Event::RoundTrip(node, round_trip) => {
                self.choose(topology::Event::Measured { node, round_trip }, &mut turn);
            }
            Event::Missing(node) => self.tell_missing(node, &mut turn),
            Event::Silent(strand) => self.tell_silent(strand, &mut turn),
            Event::Routes(node, count) => {
                self.choose(topology::Event::Routes { node, count }, &mut turn);
            }
            Event::Traffic(prefix, octets) => {
                if let Some(destination) = self.contacts.owner(prefix) {
                    let event = topology::Event::Traffic {
                        destination,
                        octets,
                    };
                    self.choose(event, &mut turn);
                }
            }
            Event::Wire(link, wire) => self.wire(link, wire, &mut turn),
            Event::Beacon { link, from, octets } => self.beacon(link, from, &octets, &mut turn),
            Event::Reached(node, is_beside) => {
                let event = topology::Event::Beside { node, is_beside };
                self.choose(event, &mut turn);
                self.tell_neighbours(&mut turn);
            }
            Event::Survey => self.begin_survey(&mut turn),
            Event::Renewed(certificate) => self.desk.renew(*certificate),
            Event::Trust(trust) => self.offered_trust(&trust, &mut turn),
            Event::Timer => self.wake(&mut turn),
        }
        turn.actions
    }

    /// When [`Event::Timer`] is due.
    pub fn next_wakeup(&self) -> Time {
        [
            self.openings.due(),
            self.mailbox.due(),
            self.entry.due(),
            self.contacts.due(),
            self.seen.due(),
            self.lan.due(),
            self.survey.due(),
            self.gossip.next_wakeup(),
            Some(self.sweep),
        ]
        .into_iter()
        .flatten()
        .fold(self.topology.next_wakeup(), Time::min)
    }

    /// What the network's registries have signed, as far as this node knows.
    pub const fn trust(&self) -> &Trust {
        self.gossip.trust()
    }

    /// A digest of that, as its letters carry it.
    pub const fn known(&self) -> Known {
        self.gossip.known()
    }

    /// This node's certificate.
    pub fn certificate(&self) -> &Signed<Certificate> {
        self.desk.own()
    }

    /// Nodes that may be reached by anybody and where they were met, the latest first.
    pub fn remembered(&self) -> Vec<(NodeId, Way)> {
        self.contacts.remembered()
    }

    /// How this node may be reached without the mesh.
    pub fn card(&self) -> crate::letter::Card {
        self.seen.card()
    }

    /// Of other nodes, those that letters have brought.
    pub fn certificates(&self) -> impl Iterator<Item = &Certificate> {
        self.desk.certificates()
    }

    /// What is to be let in from the mesh, as far as certificates are known by now. It changes by [`Action::Learned`], and with each new letter.
    pub fn filter(&self) -> Filter {
        let rules = &self.trust().parameters().body.rules;
        rules::compile(rules, &self.certificate().body, self.desk.certificates())
    }

    fn wake(&mut self, turn: &mut Turn) {
        self.repeat_offers(turn);
        self.repeat_letters(turn);
        self.look_for_strangers(turn);
        self.find_entry(turn);
        self.ask_for_views(turn);
        self.keep_up(turn);
        self.keep_up_lan(turn);
        self.keep_surveying(turn);
        self.choose(topology::Event::Timer, turn);
    }

    /// Tells the choice of tunnels, and does what it wants.
    fn choose(&mut self, event: topology::Event, turn: &mut Turn) {
        for choice in self.topology.handle(event, turn.now) {
            match choice {
                Choice::Measure { node } => self.ping(node, turn),
                Choice::Question { node, destinations } => self.question(node, destinations, turn),
                Choice::Send { to, message } => self.send_choice(to, message, turn),
                Choice::Open { node, ours, reason } => {
                    self.open(node, ours, &reason.to_string(), turn);
                }
                Choice::Drain { node, reason } => turn.actions.push(Action::Drain {
                    node,
                    reason: reason.to_string(),
                }),
                Choice::Resume { node, reason } => turn.actions.push(Action::Resume {
                    node,
                    reason: reason.to_string(),
                }),
                Choice::Close { node, reason } => self.close(node, reason.to_string(), turn),
            }
        }
    }

    fn close(&mut self, node: NodeId, reason: String, turn: &mut Turn) {
        let strands = self.openings.close(node);
        if strands.is_empty() {
            return;
        }
        self.tell_neighbours(turn);
        let close = |strand| {
            let reason = reason.clone();
            Action::Close { strand, reason }
        };
        turn.actions.extend(strands.into_iter().map(close));
    }

    fn carries(&mut self, strand: Strand, turn: &mut Turn) {
        let node = strand.node;
        let is_first = self.openings.up_since(node).is_none();
        self.strand_up(strand, turn);
        if is_first {
            self.tell_neighbours(turn);
            self.choose(topology::Event::Up { node }, turn);
        }
    }

    fn lost(&mut self, node: NodeId, turn: &mut Turn) {
        self.close(node, "nothing comes through it".to_owned(), turn);
        self.choose(topology::Event::Down { node }, turn);
    }

    fn adopted(&mut self, strand: Strand, kind: Kind, ours: bool, turn: &mut Turn) {
        let node = strand.node;
        let is_first = self.openings.up_since(node).is_none();
        self.adopt_strand(strand, turn);
        if !is_first {
            return;
        }
        self.tell_neighbours(turn);
        let reach = self.reach_of(node);
        let event = topology::Event::Adopted {
            node,
            kind,
            ours,
            reach,
        };
        self.choose(event, turn);
    }

    fn tell_reach(&mut self, turn: &mut Turn) {
        self.choose(topology::Event::Reach(self.seen.reach()), turn);
    }

    fn way(&mut self, prefix: Prefix, distance: Option<Micros>, turn: &mut Turn) {
        if !self.is_of_network(prefix) || self.certificate().body.prefixes.contains(&prefix) {
            return;
        }
        match distance {
            Some(distance) => self.ways.insert(prefix, distance),
            None => self.ways.remove(&prefix),
        };
        match self.contacts.owner(prefix) {
            Some(node) => self.tell_candidate(node, turn),
            None => self.contacts.stranger(prefix, distance.is_some(), turn.now),
        }
    }

    /// The choice of tunnels hears what is known of a node by now, if that is another thing than before.
    fn tell_candidate(&mut self, node: NodeId, turn: &mut Turn) {
        let routed = self.is_routed(node);
        let reach = self.reach_of(node);
        if self.contacts.is_news(node, (reach, routed)) {
            let event = topology::Event::Candidate {
                node,
                reach,
                routed,
            };
            self.choose(event, turn);
        }
    }

    /// Who can begin to talk to it: we, if it is on a segment of ours.
    fn reach_of(&self, node: NodeId) -> Reach {
        match self.lan.is_near(node) {
            true => Reach::Public,
            false => self.contacts.reach(node),
        }
    }

    fn is_routed(&self, node: NodeId) -> bool {
        self.distance(node).is_some()
    }

    fn distance(&self, node: NodeId) -> Option<Micros> {
        let prefixes = self.contacts.prefixes(node)?;
        let ways = prefixes.iter().filter_map(|prefix| self.ways.get(prefix));
        ways.min().copied()
    }

    fn is_of_network(&self, prefix: Prefix) -> bool {
        let network = &self.trust().parameters().body;
        network.prefix.covers(prefix)
    }

    /// Where letters to a node go: over the mesh, if there is a way, else to where it was met.
    fn address(&self, node: NodeId) -> Option<Way> {
        match (self.is_routed(node), self.contacts.home(node)) {
            (true, Some(home)) => Some(Way::Udp(SocketAddr::from((home, PORT)))),
            _ => self.contacts.met(node),
        }
    }
}

/// One event's time, and what follows from it.
struct Turn {
    now: Time,
    wall: UnixTime,
    actions: Vec<Action>,
}

/// The first address of a node's prefix is the node itself.
pub fn home_of(prefix: Prefix) -> Option<Ipv6Addr> {
    let IpAddr::V6(addr) = prefix.addr() else {
        return None;
    };
    let first = u128::from(addr);
    Some(Ipv6Addr::from(if prefix.is_host() {
        first
    } else {
        first | 1
    }))
}
