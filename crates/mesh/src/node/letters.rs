//! What is written, what is asked, and who answers what.

use std::{collections::BTreeMap, time::Duration};

use hextet_types::{Time, Way};

use super::{Action, Node, Strand, Turn, contacts::is_link_local};
use crate::{
    certificate::NodeId,
    letter::{Letter, MAX_DESTINATIONS, Said},
    topology::{self, MAX_TUNNELS, Message},
};

/// Answers that are waited for.
const MAX_ASKED: usize = 1_024;
/// So long.
const PATIENCE: Duration = Duration::from_secs(10);
/// A wish for a tunnel is said again after that, then after twice as long, and so on.
const AGAIN: Duration = Duration::from_millis(250);
const REPEATS: u32 = 4;
/// Whoever wants a tunnel that has stood for so long has lost it.
const SETTLED: Duration = Duration::from_secs(2);

/// Nobody is missed anew before that.
const ONCE: Duration = Duration::from_secs(1);

/// A ping that waits for its answer.
#[derive(Clone, Copy, Debug)]
pub struct Asked {
    at: Time,
    /// Where to; none, if it went over the mesh.
    outside: Option<Way>,
}

/// A wish that nobody has answered.
#[derive(Clone, Debug)]
struct Wish {
    to: NodeId,
    message: Message,
    next: Time,
    tries: u32,
}

/// Letters that wait for an answer.
#[derive(Clone, Debug, Default)]
pub struct Mailbox {
    asked: BTreeMap<u64, Asked>,
    wishes: BTreeMap<u32, Wish>,
    /// Who was missed lately, by us and by others.
    missed: [BTreeMap<NodeId, Time>; 2],
}

impl Mailbox {
    pub fn due(&self) -> Option<Time> {
        self.wishes.values().map(|wish| wish.next).min()
    }

    fn ask(&mut self, number: u64, asked: Asked) {
        self.asked.insert(number, asked);
        while self.asked.len() > MAX_ASKED
            || (self.asked.first_key_value())
                .is_some_and(|(_, first)| asked.at.saturating_since(first.at) > PATIENCE)
        {
            self.asked.pop_first();
        }
    }

    /// Whether we have told others of it.
    fn is_news(&mut self, missing: NodeId, now: Time) -> bool {
        let [told, _] = &mut self.missed;
        note(told, missing, now)
    }

    /// Whether it is looked for, as others have told us.
    fn is_worth(&mut self, missing: NodeId, now: Time) -> bool {
        let [_, heard] = &mut self.missed;
        note(heard, missing, now)
    }

    /// Grants and refusals end wishes.
    fn answered(&mut self, message: &Message) {
        if let Message::Grant { nonce, .. } | Message::Refuse { nonce, .. } = message {
            self.wishes.remove(nonce);
        }
    }
}

/// Whether it was not noted within the last [`ONCE`]; as many are remembered as there may be tunnels.
fn note(all: &mut BTreeMap<NodeId, Time>, node: NodeId, now: Time) -> bool {
    all.retain(|_, at| now < *at + ONCE);
    let is_new = !all.contains_key(&node) && all.len() < MAX_TUNNELS;
    if is_new {
        all.insert(node, now);
    }
    is_new
}

impl Node {
    /// Writes to an address; gives the letter's number, if it was written.
    pub(super) fn write(
        &mut self,
        (node, to): (Option<NodeId>, Way),
        answers: Option<u64>,
        said: Said,
        turn: &mut Turn,
    ) -> Option<u64> {
        let is_ping = matches!(said, Said::Ping(_));
        let known = self.gossip.known();
        let (number, octets) = match self.desk.write(node, answers, known, said, turn.wall) {
            Ok(written) => written,
            Err(refusal) => {
                turn.actions.push(Action::Refused { from: to, refusal });
                return None;
            }
        };
        turn.actions.push(Action::Send { to, octets });
        if is_ping {
            let asked = Asked {
                at: turn.now,
                outside: self.is_outside(to).then_some(to),
            };
            self.mailbox.ask(number, asked);
        }
        Some(number)
    }

    /// Writes to a node wherever it is; nothing, if nobody knows.
    pub(super) fn say(&mut self, to: NodeId, answers: Option<u64>, said: Said, turn: &mut Turn) {
        if let Some(at) = self.address(to) {
            let _ = self.write((Some(to), at), answers, said, turn);
        }
    }

    /// Straight to where anybody can reach it, if it is such a one: else it is measured by the mesh.
    pub(super) fn ping(&mut self, node: NodeId, turn: &mut Turn) {
        let is_public = self.reach_of(node) == topology::Reach::Public;
        let straight = self.contacts.met(node).filter(|_| is_public);
        let has_tunnel = self.openings.up_since(node).is_some();
        let straight = straight.filter(|_| !has_tunnel);
        if let Some(to) = straight.or_else(|| self.address(node)) {
            let said = Said::Ping(self.seen.card());
            let _ = self.write((Some(node), to), None, said, turn);
        }
    }

    pub(super) fn question(
        &mut self,
        node: NodeId,
        mut destinations: Vec<NodeId>,
        turn: &mut Turn,
    ) {
        destinations.truncate(MAX_DESTINATIONS);
        self.say(node, None, Said::Question { destinations }, turn);
    }

    /// By whatever way there is.
    pub(super) fn tell_silent(&mut self, strand: Strand, turn: &mut Turn) {
        let Strand { node, number } = strand;
        self.say(node, None, Said::Silent { strand: number }, turn);
    }

    /// Whoever has a tunnel with it finds out as soon as we did, before it needs it.
    pub(super) fn tell_missing(&mut self, missing: NodeId, turn: &mut Turn) {
        if !self.mailbox.is_news(missing, turn.now) {
            return;
        }
        for node in self.openings.standing() {
            if node != missing {
                self.say(node, None, Said::Missing(missing), turn);
            }
        }
    }

    /// Another does not hear it any more: do we?
    fn look_for_missing(&mut self, missing: NodeId, turn: &mut Turn) {
        let strands = self.openings.strands_up(missing);
        if strands.is_empty() || !self.mailbox.is_worth(missing, turn.now) {
            return;
        }
        let suspects = strands.into_iter().map(Action::Suspect);
        turn.actions.extend(suspects);
    }

    pub(super) fn send_choice(&mut self, to: NodeId, message: Message, turn: &mut Turn) {
        if let Message::Ask { nonce, .. } = message {
            let wish = Wish {
                to,
                message: message.clone(),
                next: turn.now + AGAIN,
                tries: 0,
            };
            self.mailbox.wishes.insert(nonce, wish);
        }
        self.say(to, None, Said::Topology(message), turn);
    }

    pub(super) fn repeat_letters(&mut self, turn: &mut Turn) {
        let mut due = Vec::new();
        self.mailbox.wishes.retain(|_, wish| {
            if wish.next <= turn.now {
                wish.tries += 1;
                wish.next = turn.now + AGAIN * 2_u32.pow(wish.tries);
                due.push((wish.to, wish.message.clone()));
            }
            wish.tries < REPEATS
        });
        for (to, message) in due {
            self.say(to, None, Said::Topology(message), turn);
        }
    }

    /// One has come.
    pub(super) fn letter(&mut self, from: Way, octets: &[u8], turn: &mut Turn) {
        let letter = match self.desk.read(octets, self.gossip.trust(), turn.wall) {
            Ok(letter) => letter,
            Err(refusal) => {
                turn.actions.push(Action::Refused { from, refusal });
                return;
            }
        };
        let node = letter.from;
        if let Some(certificate) = self.desk.certificate(node) {
            self.contacts.heard(&certificate.body, turn.now);
        }
        if self.is_outside(from) && self.contacts.meet(node, from, turn.now) {
            Node::remember(turn);
        }
        self.hear_news(from, &letter, turn);
        self.answer(from, letter, turn);
        self.tell_candidate(node, turn);
    }

    fn answer(&mut self, from: Way, letter: Letter, turn: &mut Turn) {
        let (node, number) = (letter.from, letter.number);
        match letter.said {
            Said::Ping(card) => {
                self.contacts.shows(node, card, turn.now);
                let said = Said::Pong {
                    observed: from,
                    card: self.seen.card(),
                };
                let _ = self.write((Some(node), from), Some(number), said, turn);
            }
            Said::Pong { observed, card } => {
                self.contacts.shows(node, card, turn.now);
                self.ponged(node, letter.answers, observed, turn);
            }
            Said::Offer(offer) => self.offered(node, number, letter.answers, offer, turn),
            Said::Question { destinations } => {
                let distances = destinations.into_iter();
                let distances = distances.filter_map(|to| Some((to, self.distance(to)?)));
                let said = Said::Distances {
                    distances: distances.collect(),
                    near: self.topology.near().to_vec(),
                };
                let _ = self.write((Some(node), from), Some(number), said, turn);
            }
            Said::Distances { distances, near } => {
                let distances = distances.into_iter();
                let event = topology::Event::Distances {
                    node,
                    distances: distances.map(|(to, far)| (to, far.into())).collect(),
                    near,
                };
                self.choose(event, turn);
            }
            Said::Introduce => {
                let said = Said::Introduced(self.contacts.introduction(node));
                let _ = self.write((Some(node), from), Some(number), said, turn);
            }
            Said::Introduced(nodes) => self.introduced(nodes, turn),
            Said::Topology(message) => self.heard(node, message, turn),
            // That was seen to before.
            Said::Holdings(_) | Said::Wanted { .. } | Said::Piece { .. } => {}
            Said::Silent { strand: number } => {
                let strand = Strand { node, number };
                turn.actions.push(Action::Suspect(strand));
            }
            Said::Missing(missing) => self.look_for_missing(missing, turn),
            Said::Survey => {
                let said = Said::Neighbours(self.neighbours());
                let _ = self.write((Some(node), from), Some(number), said, turn);
            }
            Said::Neighbours(neighbours) => {
                self.surveyed((node, letter.answers), neighbours, turn);
            }
            // Only from a segment does that mean something.
            Said::Beside { .. } => {}
        }
    }

    fn ponged(&mut self, node: NodeId, answers: Option<u64>, observed: Way, turn: &mut Turn) {
        let asked = answers.and_then(|number| self.mailbox.asked.remove(&number));
        let Some(asked) = asked else { return };
        let news = match (asked.outside, observed) {
            (Some(Way::Udp(_)), Way::Udp(at)) => !is_link_local(at) && self.seen.observed(node, at),
            (Some(Way::Tls(_)), _) => self.seen.by_stream(),
            _ => false,
        };
        if news {
            self.tell_reach(turn);
        }
        let round_trip = turn.now.saturating_since(asked.at);
        self.choose(topology::Event::Measured { node, round_trip }, turn);
    }

    fn heard(&mut self, from: NodeId, message: Message, turn: &mut Turn) {
        self.mailbox.answered(&message);
        let since = self.openings.up_since(from);
        let settled = since.is_some_and(|since| turn.now.saturating_since(since) > SETTLED);
        if settled && matches!(message, Message::Ask { .. }) {
            self.lost(from, turn);
        }
        self.choose(topology::Event::Heard { from, message }, turn);
    }
}
