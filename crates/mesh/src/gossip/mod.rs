//! How every node of a network comes to know its newest parameters and revocations: from its neighbours, without a registry.
//!
//! Each letter carries a digest of what its writer knows ([`Known`]). Where two differ, one tells the other what it holds, by document; whoever holds less
//! asks for the document, in pieces, each by a letter of its own. So nothing is pushed, and memory is held for what was asked for only: four
//! documents at a time, each from one node. What has come whole is judged by [`Trust`] before it is kept; what was new is told to all
//! neighbours at once, again and again until they know it, too.
//!
//! What always holds: nothing older replaces what is newer, and nothing that is not signed is kept or told on. Whoever claims what does not hold,
//! or gives nothing, is asked for nothing for a while. Answers have a rate, for each node and for all.

mod document;
mod fetch;
mod peer;
#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, time::Duration};

use hextet_types::{Bucket, Time};

pub use document::{Digest, Document, Holding, MAX_DOCUMENTS, Paper, Rank};

use self::{document::Held, fetch::Fetch, peer::Peer};
use crate::{
    certificate::NodeId,
    letter::{Known, Letter, Said},
    parameters::Change,
    signed::Malformed,
    trust::{Refusal, Trust},
};

/// Documents that are fetched at one time.
const MAX_FETCHES: usize = 4;
/// A fetch may give way to another after so long.
const TURN: Duration = Duration::from_secs(3);
/// The same document is asked of a second node when the first has given nothing for so long.
const HEDGE: Duration = Duration::from_secs(1);
/// Nodes that are remembered beside neighbours.
const MAX_STRANGERS: usize = 256;
/// Neighbours; a node has fewer tunnels.
const MAX_NEIGHBOURS: usize = 256;
/// Nothing is fetched for so long from who claimed what does not hold, and from who gave nothing.
const SHUN_LIAR: Duration = Duration::from_secs(60);
const SHUN_MUTE: Duration = Duration::from_secs(5);
/// Answers to all nodes at once, and how often one more.
const BURST: u32 = 2_048;
const REFILL: Duration = Duration::from_millis(1);

/// What happens to a node.
#[derive(Clone, Debug)]
pub enum Event<'a> {
    /// A letter came that the desk believes; all of them are to be seen here.
    Letter(&'a Letter),
    /// These have tunnels with us that carry.
    Neighbours(&'a [NodeId]),
    /// A registry, or the disk, gave this.
    Offered(Paper),
    /// The time that [`Gossip::next_wakeup`] named has come.
    Wake,
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Write a letter.
    Write {
        /// To whom.
        to: NodeId,
        /// The letter that it answers.
        answers: Option<u64>,
        /// What to say.
        said: Said,
    },
    /// The trust has changed: write it down, apply it, and ask the desk who is out.
    Learned {
        /// What is new.
        document: Document,
        /// What is different in it, if these are parameters.
        changes: Vec<Change>,
    },
    /// Something was refused, and nothing has changed by it.
    Refused {
        /// Who gave it; the registry or the disk, if nobody.
        from: Option<NodeId>,
        /// What it was to be.
        document: Document,
        /// What is wrong with it.
        fault: Fault,
    },
}

/// What is wrong with a document.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// It is not what was said of it.
    #[error("it is not the document that was promised")]
    Other,
    /// It is no document.
    #[error("it is no document: {0}")]
    Malformed(#[from] Malformed),
    /// It is not to be trusted.
    #[error(transparent)]
    Refused(#[from] Refusal),
}

/// A node's.
#[derive(Debug)]
pub struct Gossip {
    trust: Trust,
    held: Vec<Held>,
    known: Known,
    peers: BTreeMap<NodeId, Peer>,
    fetches: Vec<Fetch>,
    answers: Bucket,
}

/// What letters would say of a node that knows this much.
pub fn known(trust: &Trust) -> Known {
    document::known(&document::held(trust))
}

impl Gossip {
    /// With what the node knows at its start.
    pub fn new(trust: Trust, now: Time) -> Gossip {
        let held = document::held(&trust);
        Gossip {
            known: document::known(&held),
            held,
            trust,
            peers: BTreeMap::new(),
            fetches: Vec::new(),
            answers: Bucket::new(BURST, REFILL, now),
        }
    }

    /// What is known for certain of the network.
    pub const fn trust(&self) -> &Trust {
        &self.trust
    }

    /// What each letter is to say.
    pub const fn known(&self) -> Known {
        self.known
    }

    /// Takes what happened; says what is to be done.
    pub fn handle(&mut self, event: Event<'_>, now: Time) -> Vec<Action> {
        let mut actions = Vec::new();
        match event {
            Event::Letter(letter) => self.hear(letter, now, &mut actions),
            Event::Neighbours(nodes) => self.set_neighbours(nodes, now),
            Event::Offered(paper) => {
                let document = paper.document();
                if let Err(fault) = self.learn(paper, &mut actions) {
                    actions.push(Action::Refused {
                        from: None,
                        document,
                        fault,
                    });
                }
            }
            Event::Wake => {}
        }
        self.go_on(now, &mut actions);
        actions
    }

    /// When [`Event::Wake`] is due.
    pub fn next_wakeup(&self) -> Option<Time> {
        let fetches = self.fetches.iter().map(Fetch::next_wakeup);
        let neighbours = self.peers.values().filter(|peer| peer.is_neighbour);
        let tells = neighbours
            .filter(|peer| peer.lacks(self.known))
            .filter_map(Peer::due);
        fetches.chain(tells).min()
    }

    fn hear(&mut self, letter: &Letter, now: Time, actions: &mut Vec<Action>) {
        let ours = self.known;
        let peer = self.peer(letter.from, now);
        peer.hear(letter.known, ours, now);
        match &letter.said {
            Said::Holdings(holdings) => {
                // An answer is not answered: it would never end.
                if letter.answers.is_none() {
                    self.answer_holdings(letter, now, actions);
                }
                for holding in holdings {
                    self.consider(letter.from, *holding, now);
                }
            }
            Said::Wanted {
                digest,
                offset,
                len,
            } => self.give(letter, *digest, *offset, *len, now, actions),
            Said::Piece {
                digest,
                offset,
                octets,
            } => {
                let from = letter.from;
                for fetch in self.fetches.iter_mut().filter(|one| one.from == from) {
                    fetch.take(*digest, *offset, octets, now);
                }
                self.finish(now, actions);
            }
            _ => self.tell(letter.from, now, actions),
        }
    }

    fn holdings(&self) -> Said {
        Said::Holdings(self.held.iter().map(|one| one.holding).collect())
    }

    /// Tells one who lacks something, or has what we lack, what is held here, unless that was done just before.
    fn tell(&mut self, to: NodeId, now: Time, actions: &mut Vec<Action>) {
        let (ours, said) = (self.known, self.holdings());
        let peer = self.peers.get_mut(&to);
        let Some(peer) = peer.filter(|peer| peer.lacks(ours) && peer.is_due(now)) else {
            return;
        };
        peer.tell(now);
        actions.push(Action::Write {
            to,
            answers: None,
            said,
        });
    }

    fn may_answer(&mut self, to: NodeId, now: Time) -> bool {
        let peer = self.peers.get_mut(&to);
        peer.is_some_and(|peer| peer.take_answer(now)) && self.answers.take(now)
    }

    fn answer_holdings(&mut self, letter: &Letter, now: Time, actions: &mut Vec<Action>) {
        if self.may_answer(letter.from, now) {
            actions.push(Action::Write {
                to: letter.from,
                answers: Some(letter.number),
                said: self.holdings(),
            });
        }
    }

    /// Gives a piece of what is held; says what is held instead, where that is gone.
    fn give(
        &mut self,
        letter: &Letter,
        digest: Digest,
        offset: u32,
        len: u16,
        now: Time,
        actions: &mut Vec<Action>,
    ) {
        let held = self.held.iter().find(|one| one.holding.digest == digest);
        let Some(held) = held else {
            return self.answer_holdings(letter, now, actions);
        };
        let begin = usize::try_from(offset).unwrap_or(usize::MAX);
        let end = begin.saturating_add(len.into()).min(held.octets.len());
        let octets = held.octets.get(begin..end).map(<[u8]>::to_vec);
        let octets = octets.filter(|octets| !octets.is_empty());
        if let Some(octets) = octets
            && self.may_answer(letter.from, now)
        {
            actions.push(Action::Write {
                to: letter.from,
                answers: Some(letter.number),
                said: Said::Piece {
                    digest,
                    offset,
                    octets,
                },
            });
        }
    }

    /// Begins to fetch what is newer than what is held.
    fn consider(&mut self, from: NodeId, holding: Holding, now: Time) {
        let shunned = self.peers.get(&from).is_some_and(|p| p.is_shunned(now));
        if shunned || !self.is_wanted(&holding) {
            return;
        }
        let fetches = &self.fetches;
        let same_source = |one: &Fetch| {
            let document = one.holding.document == holding.document;
            document && one.from == from && one.holding.rank >= holding.rank
        };
        let comes = |one: &Fetch| one.holding == holding && one.idle(now) < HEDGE;
        if fetches.iter().any(|one| same_source(one) || comes(one)) {
            return;
        }
        let document = holding.document;
        self.fetches
            .retain(|one| (one.from, one.holding.document) != (from, document));
        if self.fetches.len() >= MAX_FETCHES {
            let oldest = self.fetches.iter().map(|one| one.began).min();
            let oldest = oldest.filter(|began| now - *began >= TURN);
            let Some(place) =
                oldest.and_then(|began| self.fetches.iter().position(|one| one.began == began))
            else {
                return;
            };
            self.fetches.remove(place);
        }
        let round_trip = self.peers.get(&from).and_then(|peer| peer.round_trip);
        self.fetches
            .push(Fetch::new(from, holding, round_trip, now));
    }

    fn is_wanted(&self, holding: &Holding) -> bool {
        let document = holding.document;
        let fits =
            usize::try_from(holding.len).is_ok_and(|len| (1..=document.max_len()).contains(&len));
        let issuers = &self.trust.parameters().body.issuers.body;
        let issues = match document {
            Document::Parameters => true,
            Document::Revocations(key) => issuers.find(key).is_some(),
        };
        let held = self.held.iter().find(|h| h.holding.document == document);
        fits && issues && held.is_none_or(|held| held.holding.rank < holding.rank)
    }

    /// Judges what has come whole.
    fn finish(&mut self, now: Time, actions: &mut Vec<Action>) {
        while let Some(place) = self.fetches.iter().position(|one| one.whole().is_some()) {
            let fetch = self.fetches.remove(place);
            let learned = match read(&fetch) {
                Ok(paper) => self.learn(paper, actions),
                Err(fault) => Err(fault),
            };
            let from = fetch.from;
            self.peer(from, now).round_trip = fetch.round_trip;
            if let Err(fault) = learned {
                self.peer(from, now).shun(now + SHUN_LIAR);
                actions.push(Action::Refused {
                    from: Some(from),
                    document: fetch.holding.document,
                    fault,
                });
                continue;
            }
            // It may hold more that could not be judged before.
            self.tell(from, now, actions);
        }
    }

    fn learn(&mut self, paper: Paper, actions: &mut Vec<Action>) -> Result<(), Fault> {
        let document = paper.document();
        let old = self.trust.parameters().body.clone();
        if !document::offer(&mut self.trust, paper)? {
            return Ok(());
        }
        self.held = document::held(&self.trust);
        self.known = document::known(&self.held);
        self.peers.values_mut().for_each(Peer::renew);
        let fetches = std::mem::take(&mut self.fetches);
        let wanted = fetches
            .into_iter()
            .filter(|one| self.is_wanted(&one.holding));
        self.fetches = wanted.collect();
        actions.push(Action::Learned {
            document,
            changes: old.changes(&self.trust.parameters().body),
        });
        Ok(())
    }

    /// Asks for pieces, gives up who gives none, and tells neighbours.
    fn go_on(&mut self, now: Time, actions: &mut Vec<Action>) {
        let fetches = std::mem::take(&mut self.fetches);
        for mut fetch in fetches {
            if fetch.is_stalled(now) {
                self.peer(fetch.from, now).shun(now + SHUN_MUTE);
                continue;
            }
            let (to, asks) = (fetch.from, fetch.asks(now));
            actions.extend(asks.into_iter().map(|said| Action::Write {
                to,
                answers: None,
                said,
            }));
            self.fetches.push(fetch);
        }
        let neighbours = self.peers.iter().filter(|(_, peer)| peer.is_neighbour);
        let neighbours: Vec<NodeId> = neighbours.map(|(node, _)| *node).collect();
        for neighbour in neighbours {
            self.tell(neighbour, now, actions);
        }
    }

    fn set_neighbours(&mut self, nodes: &[NodeId], now: Time) {
        for peer in self.peers.values_mut() {
            peer.is_neighbour = false;
        }
        for node in nodes.iter().take(MAX_NEIGHBOURS) {
            self.peer(*node, now).is_neighbour = true;
        }
    }

    /// What is remembered of it; the stranger who has been silent for longest makes room.
    fn peer(&mut self, node: NodeId, now: Time) -> &mut Peer {
        if !self.peers.contains_key(&node) {
            let strangers = self.peers.iter().filter(|(_, peer)| !peer.is_neighbour);
            let (count, silent) = (
                strangers.clone().count(),
                strangers.min_by_key(|(_, peer)| peer.heard),
            );
            if let Some((silent, _)) = silent.filter(|_| count >= MAX_STRANGERS) {
                let silent = *silent;
                self.peers.remove(&silent);
            }
        }
        self.peers.entry(node).or_insert_with(|| Peer::new(now))
    }
}

/// What was promised: these octets, this document, as new as that.
fn read(fetch: &Fetch) -> Result<Paper, Fault> {
    let octets = fetch.whole().unwrap_or_default();
    if Digest::of(octets) != fetch.holding.digest {
        return Err(Fault::Other);
    }
    let paper = Paper::decode(fetch.holding.document, octets)?;
    match paper.rank() == fetch.holding.rank {
        true => Ok(paper),
        false => Err(Fault::Other),
    }
}
