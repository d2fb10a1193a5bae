//! What registries sign, from neighbours and from registries themselves; and who is out by it.

use std::time::Duration;

use hextet_types::Way;

use super::{Action, Node, Turn};
use crate::{
    certificate::NodeId,
    gossip::{self, Paper},
    letter::Letter,
    parameters::Change,
    topology,
    trust::Trust,
};

/// Certificates end by themselves: how often they are looked through.
const SWEEP: Duration = Duration::from_secs(60);

impl Node {
    /// A letter came from there that the desk believes.
    pub(super) fn hear_news(&mut self, from: Way, letter: &Letter, turn: &mut Turn) {
        let actions = self.gossip.handle(gossip::Event::Letter(letter), turn.now);
        self.do_news(actions, Some((letter.from, from)), turn);
    }

    pub(super) fn offered_trust(&mut self, trust: &Trust, turn: &mut Turn) {
        let parameters = Box::new(trust.parameters().clone());
        let lists = trust.revocations().cloned().map(Paper::Revocations);
        for paper in std::iter::once(Paper::Parameters(parameters)).chain(lists) {
            let event = gossip::Event::Offered(paper);
            let actions = self.gossip.handle(event, turn.now);
            self.do_news(actions, None, turn);
        }
    }

    pub(super) fn tell_neighbours(&mut self, turn: &mut Turn) {
        let mut neighbours = self.openings.standing();
        neighbours.extend(self.topology.beside());
        neighbours.sort_unstable();
        neighbours.dedup();
        let event = gossip::Event::Neighbours(&neighbours);
        let actions = self.gossip.handle(event, turn.now);
        self.do_news(actions, None, turn);
    }

    pub(super) fn keep_up(&mut self, turn: &mut Turn) {
        let actions = self.gossip.handle(gossip::Event::Wake, turn.now);
        self.do_news(actions, None, turn);
        if self.sweep <= turn.now {
            self.sweep = turn.now + SWEEP;
            self.expel(turn);
        }
    }

    /// An answer goes back to where its letter came from; all else to where its reader is.
    fn do_news(
        &mut self,
        actions: Vec<gossip::Action>,
        writer: Option<(NodeId, Way)>,
        turn: &mut Turn,
    ) {
        let mut news = false;
        for action in actions {
            match action {
                gossip::Action::Write { to, answers, said } => {
                    match writer.filter(|(node, _)| *node == to) {
                        Some((node, at)) => {
                            let _ = self.write((Some(node), at), answers, said, turn);
                        }
                        None => self.say(to, answers, said, turn),
                    }
                }
                gossip::Action::Learned { changes, .. } => {
                    news = true;
                    if changes.contains(&Change::Tunnels) {
                        let tunnels = self.gossip.trust().parameters().body.tunnels;
                        let config = self.topology.config().clone();
                        let class = self.certificate().body.class;
                        self.topology.configure(config.with(class, &tunnels));
                    }
                    turn.actions.push(Action::Learned { changes });
                }
                gossip::Action::Refused { from, fault, .. } => {
                    turn.actions.push(Action::Rumour { from, fault });
                }
            }
        }
        if news {
            self.expel(turn);
        }
    }

    /// Whoever's certificate counts no more.
    fn expel(&mut self, turn: &mut Turn) {
        for (node, refusal) in self.desk.cast_out(self.gossip.trust(), turn.wall) {
            self.contacts.forget(node);
            self.cast_out_of_lan(node, turn);
            self.close(node, format!("its certificate: {refusal}"), turn);
            self.choose(topology::Event::Down { node }, turn);
            turn.actions.push(Action::Remember);
        }
    }
}
