//! Nets of nodes with real letters, on a virtual clock.

use std::collections::{BTreeMap, BTreeSet};

use super::*;
use crate::{
    certificate::UnixTime,
    key::SigningKey,
    letter::{Desk, Envelope},
    parameters::Parameters,
    revocation::{MAX_ENTRIES, Revocations},
    signed::Signed,
    trust::tests::{Authority, NOW},
};

fn key_of(node: NodeId) -> SigningKey {
    let seed = u8::try_from(node.0).unwrap();
    SigningKey::from_seed(&[seed; 32]).unwrap()
}

fn desk(authority: &Authority, node: NodeId, groups: usize) -> Desk {
    let certificate = authority.issue(|certificate| {
        certificate.node = node;
        certificate.key = key_of(node).public();
        certificate.groups = (0..groups)
            .map(|n| format!("{n:032}").parse().unwrap())
            .collect();
    });
    Desk::new(certificate, key_of(node), NOW)
}

struct Node {
    desk: Desk,
    gossip: Gossip,
    neighbours: Vec<NodeId>,
    learned: Vec<Document>,
    refused: Vec<Fault>,
}

struct Net {
    authority: Authority,
    now: Time,
    nodes: BTreeMap<NodeId, Node>,
    /// By the time at which they come, and their number.
    letters: BTreeMap<(Time, u64), (NodeId, Vec<u8>)>,
    sent: u64,
    /// Of a hundred.
    loss: u64,
    chance: u64,
}

impl Net {
    fn new(links: &[(u64, u64)], loss: u64) -> Net {
        let authority = Authority::new(201);
        let mut neighbours: BTreeMap<NodeId, BTreeSet<NodeId>> = BTreeMap::new();
        for (a, b) in links {
            let (a, b) = (NodeId(*a), NodeId(*b));
            neighbours.entry(a).or_default().insert(b);
            neighbours.entry(b).or_default().insert(a);
        }
        let nodes = neighbours.into_iter().map(|(node, neighbours)| {
            let state = Node {
                desk: desk(&authority, node, 0),
                gossip: Gossip::new(authority.trust(), Time::ZERO),
                neighbours: neighbours.into_iter().collect(),
                learned: Vec::new(),
                refused: Vec::new(),
            };
            (node, state)
        });
        let mut net = Net {
            nodes: nodes.collect(),
            authority,
            now: Time::ZERO,
            letters: BTreeMap::new(),
            sent: 0,
            loss,
            chance: 7,
        };
        for node in net.nodes.keys().copied().collect::<Vec<_>>() {
            let neighbours = net.nodes[&node].neighbours.clone();
            net.happens(node, Event::Neighbours(&neighbours));
        }
        net
    }

    fn line(nodes: u64, loss: u64) -> Net {
        let links: Vec<_> = (1..nodes).map(|n| (n, n + 1)).collect();
        Net::new(&links, loss)
    }

    fn draw(&mut self, below: u64) -> u64 {
        self.chance = self.chance.wrapping_mul(6_364_136_223_846_793_005);
        self.chance = self.chance.wrapping_add(1_442_695_040_888_963_407);
        (self.chance >> 33) % below
    }

    fn clock(&self) -> UnixTime {
        NOW.plus(self.now.as_nanos() / 1_000_000_000)
    }

    fn happens(&mut self, node: NodeId, event: Event<'_>) {
        let state = self.nodes.get_mut(&node).unwrap();
        let actions = state.gossip.handle(event, self.now);
        for action in actions {
            match action {
                Action::Write { to, answers, said } => self.write(node, to, answers, said),
                Action::Learned { document, .. } => {
                    self.nodes.get_mut(&node).unwrap().learned.push(document);
                }
                Action::Refused { fault, .. } => {
                    self.nodes.get_mut(&node).unwrap().refused.push(fault);
                }
            }
        }
    }

    fn write(&mut self, from: NodeId, to: NodeId, answers: Option<u64>, said: Said) {
        let clock = self.clock();
        let state = self.nodes.get_mut(&from).unwrap();
        let known = state.gossip.known();
        let Ok((_, octets)) = state.desk.write(Some(to), answers, known, said, clock) else {
            return;
        };
        self.sent += 1;
        if self.nodes.contains_key(&to) && self.draw(100) >= self.loss {
            let takes = Duration::from_millis(10 + self.draw(40));
            self.letters
                .insert((self.now + takes, self.sent), (to, octets));
        }
    }

    /// The next thing that happens; whether there is one.
    fn step(&mut self) -> bool {
        let letter = self.letters.keys().next().copied();
        let wake = self
            .nodes
            .iter()
            .filter_map(|(node, state)| Some((state.gossip.next_wakeup()?, *node)))
            .min();
        match (letter, wake) {
            (Some(at), wake) if wake.is_none_or(|wake| at.0 <= wake.0) => {
                let (to, octets) = self.letters.remove(&at).unwrap();
                self.now = self.now.max(at.0);
                let clock = self.clock();
                let state = self.nodes.get_mut(&to).unwrap();
                let trust = state.gossip.trust();
                if let Ok(letter) = state.desk.read(&octets, trust, clock) {
                    self.happens(to, Event::Letter(&letter));
                }
                true
            }
            (_, Some((at, node))) => {
                self.now = self.now.max(at);
                self.happens(node, Event::Wake);
                true
            }
            _ => false,
        }
    }

    fn run_for(&mut self, duration: Duration) {
        let end = self.now + duration;
        while self.now < end && self.step() {}
    }

    /// Until all know the same; how long that took. It is at most so many seconds.
    fn settle(&mut self, secs: u64) -> Duration {
        let begin = self.now;
        while !self.agree() {
            assert!(self.step(), "nothing happens any more");
            let took = self.now - begin;
            let short = || self.nodes.values().filter(|n| n.learned.is_empty()).count();
            assert!(
                took <= Duration::from_secs(secs),
                "{} never learned",
                short()
            );
        }
        self.now - begin
    }

    fn agree(&self) -> bool {
        let mut known = self.nodes.values().map(|node| node.gossip.known());
        let first = known.next();
        known.all(|known| Some(known) == first)
    }

    fn revoke(&self, version: u64, count: u64) -> Signed<Revocations> {
        let entries: Vec<_> = (0..count).map(|n| (NodeId(1_000 + n), 1)).collect();
        self.authority.revoke(version, &entries)
    }

    fn offer(&mut self, node: u64, paper: Paper) {
        self.happens(NodeId(node), Event::Offered(paper));
    }

    fn faults(&self) -> Vec<Fault> {
        let nodes = self.nodes.values();
        nodes.flat_map(|node| node.refused.clone()).collect()
    }
}

/// A ring of fifty with chords.
fn fifty(loss: u64) -> Net {
    let links = (0..50).flat_map(|n| [(n + 1, (n + 1) % 50 + 1), (n + 1, (n * 7 + 3) % 50 + 1)]);
    let links: Vec<_> = links.filter(|(a, b)| a != b).collect();
    Net::new(&links, loss)
}

#[test]
fn fifty_nodes_learn_a_list_in_spite_of_loss() {
    let mut net = fifty(30);
    net.run_for(Duration::from_secs(5));
    let list = net.revoke(1, 100);
    net.offer(17, Paper::Revocations(list.clone()));
    net.settle(10);
    for node in net.nodes.values() {
        assert_eq!(node.learned, [Document::Revocations(list.signer)]);
        assert_eq!(node.gossip.trust().revocations().next(), Some(&list));
    }
    assert_eq!(net.faults(), []);
}

#[test]
fn through_eight_hops_within_ten_seconds() {
    let mut net = Net::line(9, 30);
    net.run_for(Duration::from_secs(5));
    for version in 1..20 {
        let list = net.revoke(version, 50 + version);
        net.offer(1, Paper::Revocations(list));
        net.settle(10);
    }
    let mut net = Net::line(9, 0);
    let full = net.revoke(1, MAX_ENTRIES as u64);
    net.offer(9, Paper::Revocations(full));
    net.settle(10);
}

#[test]
fn who_knows_the_same_is_silent() {
    let mut net = fifty(0);
    net.offer(1, Paper::Revocations(net.revoke(1, 9)));
    net.settle(10);
    net.run_for(Duration::from_secs(5));
    let sent = net.sent;
    net.run_for(Duration::from_secs(3_600));
    assert_eq!(net.sent, sent);
}

/// Two nodes have a list each that the other lacks, with versions of one sum.
#[test]
fn both_lists_are_told_on() {
    let mut net = Net::line(4, 0);
    let second = SigningKey::from_seed(&[203; 32]).unwrap();
    let mut parameters = net.authority.parameters(2);
    parameters.issuers = net.authority.issuers(2, &[&net.authority.issuing, &second]);
    let parameters = Signed::sign(parameters, &second);
    net.offer(1, Paper::Parameters(Box::new(parameters)));
    net.settle(10);
    let body = Revocations::new(net.authority.network(), 3, vec![(NodeId(7), 7)]).unwrap();
    let theirs = Signed::sign(body, &second);
    let ours = net.revoke(3, 3);
    net.offer(1, Paper::Revocations(ours.clone()));
    net.offer(4, Paper::Revocations(theirs.clone()));
    assert!(!net.agree());
    net.settle(10);
    for node in net.nodes.values() {
        let lists: BTreeSet<_> = node
            .gossip
            .trust()
            .revocations()
            .map(|l| l.signer)
            .collect();
        assert_eq!(lists, BTreeSet::from([ours.signer, theirs.signer]));
    }
}

/// A node that was away hears of keys and their lists at once, and of the newest only.
#[test]
fn who_comes_late_gets_all() {
    let mut net = Net::line(3, 30);
    let second = SigningKey::from_seed(&[203; 32]).unwrap();
    let mut parameters = net.authority.parameters(9);
    parameters.issuers = net.authority.issuers(2, &[&net.authority.issuing, &second]);
    net.offer(
        1,
        Paper::Parameters(Box::new(Signed::sign(parameters, &second))),
    );
    let body = Revocations::new(net.authority.network(), 5, vec![(NodeId(7), 7)]).unwrap();
    net.offer(1, Paper::Revocations(Signed::sign(body, &second)));
    net.offer(1, Paper::Revocations(net.revoke(8, 8)));
    net.settle(10);
    assert_eq!(
        net.nodes[&NodeId(3)].gossip.trust().revocations().count(),
        2
    );
}

#[test]
fn what_is_old_or_forged_changes_nothing() {
    let mut net = Net::line(3, 0);
    net.offer(1, Paper::Revocations(net.revoke(5, 5)));
    net.settle(10);
    net.run_for(Duration::from_secs(5));
    let known = net.nodes[&NodeId(2)].gossip.known();
    net.offer(1, Paper::Revocations(net.revoke(4, 9)));
    let mut forged = net.revoke(6, 6);
    forged.signature[0] ^= 1;
    net.offer(1, Paper::Revocations(forged));
    let stranger = Authority::new(9);
    let parameters = Signed::sign(stranger.parameters(99), &stranger.issuing);
    net.offer(1, Paper::Parameters(Box::new(parameters)));
    net.run_for(Duration::from_secs(5));
    assert!(net.nodes.values().all(|n| n.gossip.known() == known));
    let faults = net.nodes[&NodeId(1)].refused.clone();
    assert_eq!(faults.len(), 2, "{faults:?}");
}

/// A member of the network who lies: it promises a document, and this is what it gives.
struct Liar {
    net: Net,
    octets: Vec<u8>,
    holding: Holding,
    /// What was asked of it.
    asked: usize,
}

impl Liar {
    fn new(holding: Holding, octets: Vec<u8>) -> Liar {
        let mut net = Net::line(3, 0);
        net.run_for(Duration::from_secs(5));
        Liar {
            net,
            octets,
            holding,
            asked: 0,
        }
    }

    fn letter(&self, number: u64, said: Said) -> Letter {
        Letter {
            network: self.net.authority.network(),
            from: NodeId(77),
            to: Some(NodeId(2)),
            at: self.net.clock(),
            number,
            answers: None,
            known: Known(1),
            said,
        }
    }

    /// Promises, and answers what the second node asks until nothing is asked any more.
    fn lie(&mut self) -> Vec<Action> {
        let promise = self.letter(1, Said::Holdings(vec![self.holding]));
        let mut rest = Vec::new();
        let mut letters = vec![promise];
        while let Some(letter) = letters.pop() {
            let now = self.net.now;
            let node = self.net.nodes.get_mut(&NodeId(2)).unwrap();
            for action in node.gossip.handle(Event::Letter(&letter), now) {
                let Action::Write {
                    said:
                        Said::Wanted {
                            digest,
                            offset,
                            len,
                        },
                    ..
                } = action
                else {
                    rest.push(action);
                    continue;
                };
                self.asked += 1;
                let begin = (offset as usize).min(self.octets.len());
                let end = (begin + usize::from(len)).min(self.octets.len());
                let octets = self.octets[begin..end].to_vec();
                let piece = Said::Piece {
                    digest,
                    offset,
                    octets,
                };
                letters.push(self.letter(2, piece));
            }
        }
        rest
    }

    fn fault(&mut self) -> Option<Fault> {
        let known = self.net.nodes[&NodeId(2)].gossip.known();
        let actions = self.lie();
        assert_eq!(self.net.nodes[&NodeId(2)].gossip.known(), known);
        actions.into_iter().find_map(|action| match action {
            Action::Refused { fault, from, .. } => {
                assert_eq!(from, Some(NodeId(77)));
                Some(fault)
            }
            _ => None,
        })
    }
}

fn promised(list: &Signed<Revocations>) -> (Holding, Vec<u8>) {
    let octets = list.encode();
    let paper = Paper::Revocations(list.clone());
    let holding = Holding {
        document: paper.document(),
        rank: paper.rank(),
        len: octets.len() as u32,
        digest: Digest::of(&octets),
    };
    (holding, octets)
}

#[test]
fn a_liar_is_asked_for_nothing_more() {
    let authority = Authority::new(201);
    let good = authority.revoke(1, &[(NodeId(1), 1)]);
    let (holding, octets) = promised(&good);
    let mut swapped = octets.clone();
    swapped[12] ^= 1;
    let mut forged = good.clone();
    forged.signature[9] ^= 1;
    let forged = promised(&forged);
    let (old, mut newer) = (good.clone(), holding);
    newer.rank.version = 2;
    let (mut long, mut nobodys) = (holding, holding);
    long.len = u32::MAX;
    nobodys.document = Document::Revocations(crate::key::KeyId([3; 8]));
    let signature = Fault::Refused(Refusal::Signature(good.signer));
    let cases = [
        (holding, swapped, Some(Fault::Other)),
        (forged.0, forged.1, Some(signature)),
        (newer, old.encode(), Some(Fault::Other)),
        (holding, octets[..40].to_vec(), None),
        (long, octets.clone(), None),
        (nobodys, octets.clone(), None),
    ];
    for (holding, octets, fault) in cases {
        let mut liar = Liar::new(holding, octets);
        assert_eq!(liar.fault(), fault);
        let asked = liar.asked;
        assert_eq!(liar.fault(), None);
        assert_eq!(liar.asked, asked, "it is shunned, or was never asked");
        // Others are believed meanwhile.
        liar.net.offer(1, Paper::Revocations(good.clone()));
        liar.net.settle(10);
    }
    let mut honest = Liar::new(holding, octets);
    let actions = honest.lie();
    let learned = |action: &Action| matches!(action, Action::Learned { .. });
    assert!(actions.iter().any(learned));
}

/// Many promise and give nothing: what is held for them has a bound, and who does give is heard.
#[test]
fn who_only_promises_stops_nobody() {
    let mut net = Net::line(2, 0);
    net.run_for(Duration::from_secs(5));
    let list = net.revoke(1, 5);
    let (holding, _) = promised(&list);
    for round in 0..40 {
        for liar in 0..50_u64 {
            let said = Said::Holdings(vec![Holding {
                digest: Digest([liar as u8; 32]),
                len: 60_000,
                ..holding
            }]);
            let letter = Letter {
                network: net.authority.network(),
                from: NodeId(300 + liar),
                to: Some(NodeId(2)),
                at: net.clock(),
                number: round,
                answers: None,
                known: Known(liar),
                said,
            };
            let now = net.now;
            let node = net.nodes.get_mut(&NodeId(2)).unwrap();
            node.gossip.handle(Event::Letter(&letter), now);
            assert!(node.gossip.fetches.len() <= MAX_FETCHES);
            assert!(node.gossip.peers.len() <= MAX_STRANGERS + MAX_NEIGHBOURS);
        }
        if round == 10 {
            net.offer(1, Paper::Revocations(list.clone()));
        }
        net.now += Duration::from_millis(200);
        net.run_for(Duration::from_millis(200));
    }
    net.settle(60);
}

#[test]
fn a_long_certificate_makes_pieces_short() {
    let mut net = Net::line(2, 0);
    net.nodes.get_mut(&NodeId(1)).unwrap().desk = desk(&net.authority, NodeId(1), 16);
    let octets = {
        let node = net.nodes.get_mut(&NodeId(1)).unwrap();
        let written = node.desk.write(None, None, Known(0), Said::Introduce, NOW);
        written.unwrap().1
    };
    assert!(Envelope::decode(&octets).unwrap().certificate.is_some());
    let parameters: Parameters = net.authority.parameters(2);
    let parameters = Signed::sign(parameters, &net.authority.issuing);
    net.offer(1, Paper::Parameters(Box::new(parameters)));
    net.offer(1, Paper::Revocations(net.revoke(1, 300)));
    net.settle(10);
}
