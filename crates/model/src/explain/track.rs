//! Connections, as far as a packet's way depends on them. A state has none: who asks says what connection tracking
//! knows of a packet in each namespace that it comes to, and is told what the packet did there.

use std::net::IpAddr;

use super::{packet::Packet, step::Outcome};
use crate::state::{CtState, Netns};

/// An address, and a port where the packet has ports.
pub type Point = (IpAddr, Option<u16>);

/// What connection tracking knows of a packet in one namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tracked {
    /// As what it counts.
    pub state: CtState,
    /// The connection is known, and so is how it is translated: no rule of NAT is asked again.
    pub bound: bool,
    /// Where the connection's translation sends it, before it is routed.
    pub destination: Option<Point>,
    /// What it comes from once it leaves.
    pub source: Option<Point>,
    /// Whether the connection's destination is translated.
    pub redirected: bool,
    /// Who began the connection, and who answers.
    pub flow: Option<[IpAddr; 2]>,
}

/// What a packet did in one namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Passage {
    /// What becomes of it.
    pub outcome: Outcome,
    /// As it leaves: of several sources that it may get, with the first.
    pub packet: Packet,
    /// Whether connection tracking was told to leave it alone.
    pub untracked: bool,
    /// The neighbour that it is handed to, where a link takes it: the route's, or else its destination.
    pub neighbour: Option<IpAddr>,
}

/// What is known of connections, namespace by namespace.
pub trait Tracking {
    /// A packet comes to a namespace.
    fn arrives(&mut self, netns: &Netns, packet: &Packet) -> Tracked;

    /// It has passed there, or was dropped.
    fn leaves(&mut self, netns: &Netns, tracked: &Tracked, passage: &Passage);
}

impl Tracked {
    /// Taken at its word, with nothing translated.
    pub fn as_said(packet: &Packet) -> Tracked {
        Tracked {
            state: packet.connection,
            bound: false,
            destination: None,
            source: None,
            redirected: false,
            flow: packet.flow,
        }
    }
}

/// Takes packets at their word everywhere.
pub(super) struct Stateless;

impl Tracking for Stateless {
    fn arrives(&mut self, _: &Netns, packet: &Packet) -> Tracked {
        Tracked::as_said(packet)
    }

    fn leaves(&mut self, _: &Netns, _: &Tracked, _: &Passage) {}
}
