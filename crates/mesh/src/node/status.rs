//! What a node is like, for people.

use std::time::Duration;

use hextet_types::Way;

use super::Node;
use crate::{
    certificate::NodeId,
    topology::{Kind, Reach, Stage},
};

/// All of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Status {
    /// Which.
    pub node: NodeId,
    /// Who can begin to talk to it.
    pub reach: Reach,
    /// Where, the best first.
    pub candidates: Vec<Way>,
    /// Others that it knows.
    pub contacts: usize,
    /// Tunnels.
    pub tunnels: Vec<ContactStatus>,
}

/// Of a node with which there is a tunnel.
#[derive(Clone, Debug, PartialEq)]
pub struct ContactStatus {
    /// Which.
    pub node: NodeId,
    /// Who can begin to talk to it.
    pub reach: Reach,
    /// What the tunnel is for.
    pub kind: Kind,
    /// Whether this side asked for it.
    pub ours: bool,
    /// How far it is.
    pub stage: Stage,
    /// The least of the last round trips.
    pub round_trip: Option<Duration>,
    /// Why it is there, or goes.
    pub reason: String,
}

impl Node {
    /// What it is like.
    pub fn status(&self) -> Status {
        let card = self.seen.card();
        let tunnels = self.topology.peers().into_iter();
        Status {
            node: self.desk.node(),
            reach: card.reach,
            candidates: card.candidates,
            contacts: self.contacts.len(),
            tunnels: tunnels
                .map(|peer| ContactStatus {
                    node: peer.node,
                    reach: self.contacts.reach(peer.node),
                    kind: peer.kind,
                    ours: peer.ours,
                    stage: peer.stage,
                    round_trip: peer.round_trip,
                    reason: peer.reason.to_string(),
                })
                .collect(),
        }
    }
}
