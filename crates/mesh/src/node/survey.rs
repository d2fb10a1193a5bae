//! Who is next to whom in the whole mesh, for people: all nodes that are known are asked, and what they have answered soon is the picture.
//!
//! What always holds: one picture is made at a time, of at most [`MAX_ASKED`] nodes; [`AT_ONCE`] are asked in [`PAUSE`]; who has not answered is
//! asked once more; only what was asked for is believed, from whom it was asked.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::Duration,
};

use hextet_types::Time;

use super::{Action, Node, Turn};
use crate::{
    certificate::NodeId,
    letter::{MAX_NEIGHBOURS, Neighbour, Said},
};

/// Nodes that are asked at most.
pub const MAX_ASKED: usize = 4_096;
const AT_ONCE: usize = 64;
const PAUSE: Duration = Duration::from_millis(50);
/// For answers, after the last was asked.
const PATIENCE: Duration = Duration::from_secs(1);

/// While one is made.
#[derive(Clone, Debug, Default)]
pub struct Survey(Option<Round>);

#[derive(Clone, Debug)]
struct Round {
    queue: VecDeque<NodeId>,
    /// By the letter's number.
    open: BTreeMap<u64, NodeId>,
    silent: BTreeSet<NodeId>,
    found: BTreeMap<NodeId, Vec<Neighbour>>,
    next: Time,
    is_second: bool,
}

impl Survey {
    pub fn due(&self) -> Option<Time> {
        self.0.as_ref().map(|round| round.next)
    }
}

impl Node {
    /// Those of this node.
    pub(super) fn neighbours(&self) -> Vec<Neighbour> {
        let tunnels = self.topology.peers().into_iter();
        let tunnels = tunnels.filter(|peer| self.openings.up_since(peer.node).is_some());
        let tunnels = tunnels.map(|peer| Neighbour {
            node: peer.node,
            is_beside: false,
            round_trip: peer.round_trip.map(Into::into),
        });
        let beside = self.topology.beside().map(|node| Neighbour {
            node,
            is_beside: true,
            round_trip: None,
        });
        beside.chain(tunnels).take(MAX_NEIGHBOURS).collect()
    }

    pub(super) fn begin_survey(&mut self, turn: &mut Turn) {
        if self.survey.0.is_some() {
            return;
        }
        let known = self.topology.known().filter(|(_, routed)| *routed);
        let queue: VecDeque<NodeId> = known.map(|(node, _)| node).take(MAX_ASKED).collect();
        self.survey.0 = Some(Round {
            silent: queue.iter().copied().collect(),
            queue,
            open: BTreeMap::new(),
            found: [(self.desk.node(), self.neighbours())].into(),
            next: turn.now,
            is_second: false,
        });
        self.keep_surveying(turn);
    }

    pub(super) fn keep_surveying(&mut self, turn: &mut Turn) {
        let Some(mut round) = self.survey.0.take_if(|round| round.next <= turn.now) else {
            return;
        };
        if round.queue.is_empty() {
            if round.is_second || round.silent.is_empty() {
                turn.actions.push(Action::Surveyed(round.found));
                return;
            }
            round.is_second = true;
            round.queue.extend(&round.silent);
        }
        let count = round.queue.len().min(AT_ONCE);
        for node in round.queue.drain(..count) {
            let at = self.address(node);
            let number = at.and_then(|at| self.write((Some(node), at), None, Said::Survey, turn));
            round.open.extend(number.map(|number| (number, node)));
        }
        let wait = match round.queue.is_empty() {
            true => PATIENCE,
            false => PAUSE,
        };
        round.next = turn.now + wait;
        self.survey.0 = Some(round);
    }

    pub(super) fn surveyed(
        &mut self,
        (node, answers): (NodeId, Option<u64>),
        neighbours: Vec<Neighbour>,
        turn: &mut Turn,
    ) {
        let Some(round) = &mut self.survey.0 else {
            return;
        };
        let asked = answers.and_then(|number| round.open.remove(&number));
        if asked != Some(node) {
            return;
        }
        round.silent.remove(&node);
        round.found.insert(node, neighbours);
        if round.silent.is_empty() {
            round.next = turn.now;
            self.keep_surveying(turn);
        }
    }
}
