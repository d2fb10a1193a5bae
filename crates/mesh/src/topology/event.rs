//! What the choice of tunnels is told and what it has done: events, actions, messages between nodes.

use std::{fmt, time::Duration};

use super::reason::Reason;
pub use crate::certificate::NodeId as Node;

/// Who can begin to talk to a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// Anybody.
    Public,
    /// Behind a NAT in which a hole can be punched from both ends.
    Punchable,
    /// Behind a NAT that gives each peer another port: only its own way out to a public node works.
    Closed,
}

impl Reach {
    /// Whether a direct tunnel between such two can come up.
    pub fn meets(self, other: Reach) -> bool {
        match (self, other) {
            (Reach::Public, _) | (_, Reach::Public) => true,
            (Reach::Punchable, Reach::Punchable) => true,
            (Reach::Closed, _) | (_, Reach::Closed) => false,
        }
    }
}

/// What a tunnel is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// The way into the mesh, or back into it, until the node has links by walks.
    Entry,
    /// Keeps the graph in one piece, whatever dies.
    Random,
    /// To the nearest node.
    Near,
    /// Shortens paths.
    Gain,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Kind::Entry => "entry",
            Kind::Random => "random",
            Kind::Near => "near",
            Kind::Gain => "gain",
        })
    }
}

/// What happened.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// A node exists, or what was known of it has changed.
    Candidate {
        /// Which.
        node: Node,
        /// Who can reach it.
        reach: Reach,
        /// Whether the routing protocol has a route to it.
        routed: bool,
    },
    /// A probe to a candidate, or a packet through a tunnel, was answered.
    Measured {
        /// Who answered.
        node: Node,
        /// How long after it was asked.
        round_trip: Duration,
    },
    /// A candidate's answer to [`Action::Question`], or for a tunnel's other end what the routing protocol has heard from it.
    Distances {
        /// Whose distances.
        node: Node,
        /// To which destinations; a destination without a route is left out.
        distances: Vec<(Node, Duration)>,
        /// Nodes that are near to it ([`Topology::near`](super::Topology::near) there).
        near: Vec<(Node, Reach)>,
    },
    /// Octets that went from here to a node's prefixes since the last time this was said.
    Traffic {
        /// Where to.
        destination: Node,
        /// How many.
        octets: u64,
    },
    /// A tunnel's handshake is done.
    Up {
        /// With whom.
        node: Node,
    },
    /// A tunnel is dead, or did not come up.
    Down {
        /// With whom.
        node: Node,
    },
    /// How many routes leave by a tunnel; expected while it drains, after each change.
    Routes {
        /// With whom the tunnel is.
        node: Node,
        /// Routes.
        count: usize,
    },
    /// A node says something. It was authenticated.
    Heard {
        /// Who.
        from: Node,
        /// What.
        message: Message,
    },
    /// A node is reached without a tunnel, on the same network segment; or is not, any more.
    Beside {
        /// Which.
        node: Node,
        /// Whether it is.
        is_beside: bool,
    },
    /// Who can begin to talk to this node has been found out anew.
    Reach(Reach),
    /// A tunnel stands that an earlier run of this node made.
    Adopted {
        /// With whom.
        node: Node,
        /// What it is for.
        kind: Kind,
        /// Whether this side asked for it.
        ours: bool,
        /// Who can reach the other end.
        reach: Reach,
    },
    /// The time that [`Topology::next_wakeup`](super::Topology::next_wakeup) named has come. Harmless when it has not.
    Timer,
}

/// What the driver must do.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Send one probe, and tell when it is answered.
    Measure {
        /// To whom.
        node: Node,
    },
    /// Ask for its distances. For a tunnel's other end they are known already and nothing is sent.
    Question {
        /// Whom.
        node: Node,
        /// To which destinations.
        destinations: Vec<Node>,
    },
    /// Say something: over the mesh, or straight to an address of the node where there is no route.
    Send {
        /// To whom.
        to: Node,
        /// What.
        message: Message,
    },
    /// Bring a tunnel up; [`Event::Up`] or [`Event::Down`] follows.
    Open {
        /// With whom.
        node: Node,
        /// Whether this side asked for it.
        ours: bool,
        /// Why.
        reason: Reason,
    },
    /// Make the tunnel so costly that no route uses it where there is another way.
    Drain {
        /// With whom.
        node: Node,
        /// Why.
        reason: Reason,
    },
    /// Routes need it after all: give it its cost back.
    Resume {
        /// With whom.
        node: Node,
        /// Why.
        reason: Reason,
    },
    /// Take the tunnel away, with a closing handshake. No [`Event::Down`] is needed.
    Close {
        /// With whom.
        node: Node,
        /// Why.
        reason: Reason,
    },
}

/// What nodes say to each other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// Somebody looks for a random link. Goes from node to node over random links.
    Walk(Walk),
    /// The sender wants a tunnel.
    Ask {
        /// What for.
        kind: Kind,
        /// Who can reach the sender.
        reach: Reach,
        /// Names this wish in the answer.
        nonce: u32,
    },
    /// Yes, to a walk or an ask; the sender is bringing it up.
    Grant {
        /// Of the wish.
        nonce: u32,
        /// Who can reach the sender.
        reach: Reach,
    },
    /// No, or not any more.
    Refuse {
        /// Of the wish, or of the grant that is not wanted any more.
        nonce: u32,
        /// Why.
        refusal: Refusal,
    },
    /// The tunnel between us is about to close.
    Draining,
    /// It stays after all.
    Resumed,
}

/// A random walk on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Walk {
    /// Who wants the link.
    pub origin: Node,
    /// Who can reach the origin.
    pub reach: Reach,
    /// Whether only a public node will do.
    pub public: bool,
    /// Names the wish in the answer.
    pub nonce: u32,
    /// Hops that are left.
    pub hops: u8,
}

/// Why there is no tunnel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// As many tunnels as it may have.
    Full,
    /// There is one already.
    Already,
    /// Both asked at once, and the asked one's number is lower: its wish stays.
    Crossed,
    /// Their NATs do not let them meet.
    Unreachable,
    /// Who asked does not want it any more.
    Late,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Refusal::Full => "it has as many tunnels as it may have",
            Refusal::Already => "there is one already",
            Refusal::Crossed => "both asked at once, and the lower number's wish stays",
            Refusal::Unreachable => "their NATs do not let them meet",
            Refusal::Late => "the answer came too late",
        })
    }
}
