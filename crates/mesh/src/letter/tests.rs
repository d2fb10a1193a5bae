//! Letters in octets, and between desks.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use proptest::{
    collection::{btree_map, vec},
    option,
    prelude::*,
    sample::select,
};

use super::*;
use crate::{
    certificate::{Certificate, tests::certificate},
    gossip::{Document, MAX_DOCUMENTS, Rank},
    key::{KeyId, SigningKey},
    signed::Signed,
    topology::{Kind, Refusal as TunnelRefusal, Walk},
    trust::{
        self, Trust,
        tests::{Authority, NOW},
    },
};

fn any_node() -> impl Strategy<Value = NodeId> {
    any::<u64>().prop_map(NodeId)
}

fn any_neighbour() -> impl Strategy<Value = Neighbour> {
    let round_trip = option::of(0..u32::MAX);
    (any_node(), any::<bool>(), round_trip).prop_map(|(node, is_beside, round_trip)| Neighbour {
        node,
        is_beside,
        round_trip: round_trip.map(Micros),
    })
}

fn any_reach() -> impl Strategy<Value = Reach> {
    select(vec![Reach::Public, Reach::Punchable, Reach::Closed])
}

fn any_endpoint() -> impl Strategy<Value = Way> {
    let v4 = (1_u32..0xe000_0000).prop_map(|addr| IpAddr::V4(Ipv4Addr::from(addr)));
    let v6 = (0x2000_u16..0xff00, any::<[u8; 14]>()).prop_map(|(head, tail)| {
        let mut octets = [0; 16];
        octets[..2].copy_from_slice(&head.to_be_bytes());
        octets[2..].copy_from_slice(&tail);
        IpAddr::V6(Ipv6Addr::from(octets))
    });
    let parts = (prop_oneof![v4, v6], 1_u16.., any::<bool>());
    parts.prop_map(|(addr, port, is_stream)| {
        let at = std::net::SocketAddr::new(addr, port);
        [Way::Udp(at), Way::Tls(at)][usize::from(is_stream)]
    })
}

fn any_message() -> impl Strategy<Value = Message> {
    let kind = select(vec![Kind::Entry, Kind::Random, Kind::Near, Kind::Gain]);
    let refusal = select(vec![
        TunnelRefusal::Full,
        TunnelRefusal::Already,
        TunnelRefusal::Crossed,
        TunnelRefusal::Unreachable,
        TunnelRefusal::Late,
    ]);
    let walk = (
        any_node(),
        any_reach(),
        any::<bool>(),
        any::<u32>(),
        any::<u8>(),
    );
    prop_oneof![
        walk.prop_map(|(origin, reach, public, nonce, hops)| Message::Walk(Walk {
            origin,
            reach,
            public,
            nonce,
            hops,
        })),
        (kind, any_reach(), any::<u32>()).prop_map(|(kind, reach, nonce)| Message::Ask {
            kind,
            reach,
            nonce
        }),
        (any::<u32>(), any_reach()).prop_map(|(nonce, reach)| Message::Grant { nonce, reach }),
        (any::<u32>(), refusal).prop_map(|(nonce, refusal)| Message::Refuse { nonce, refusal }),
        Just(Message::Draining),
        Just(Message::Resumed),
    ]
}

fn any_digest() -> impl Strategy<Value = Digest> {
    any::<[u8; 32]>().prop_map(Digest)
}

fn any_holdings() -> impl Strategy<Value = Vec<Holding>> {
    let rank = (any::<u32>(), any::<u64>(), any::<u64>());
    let rank = rank.prop_map(|(issuers, version, tie)| Rank {
        issuers,
        version,
        tie,
    });
    let documents = btree_map(
        option::of(any::<[u8; 8]>()),
        (rank, any::<u32>(), any_digest()),
        0..=MAX_DOCUMENTS,
    );
    documents.prop_map(|documents| {
        let holdings = documents.into_iter().map(|(key, (rank, len, digest))| {
            let list = |key| Document::Revocations(KeyId(key));
            Holding {
                document: key.map_or(Document::Parameters, list),
                rank,
                len,
                digest,
            }
        });
        holdings.collect()
    })
}

fn any_card() -> impl Strategy<Value = Card> {
    let candidates = vec(any_endpoint(), 0..=MAX_CANDIDATES);
    (any_reach(), candidates).prop_map(|(reach, candidates)| Card { reach, candidates })
}

fn any_said() -> impl Strategy<Value = Said> {
    let distances = vec(
        (any_node(), any::<u32>().prop_map(Micros)),
        0..=MAX_DESTINATIONS,
    );
    let near = vec((any_node(), any_reach()), 0..=MAX_NEAR);
    prop_oneof![
        any_card().prop_map(Said::Ping),
        (any_endpoint(), any_card()).prop_map(|(observed, card)| Said::Pong { observed, card }),
        (0..MAX_STRANDS, any::<[u8; 32]>(), any_card())
            .prop_map(|(strand, key, card)| Said::Offer(Offer { strand, key, card })),
        vec(any_node(), 0..=MAX_DESTINATIONS)
            .prop_map(|destinations| Said::Question { destinations }),
        (distances, near).prop_map(|(distances, near)| Said::Distances { distances, near }),
        Just(Said::Introduce),
        vec((any_node(), any_endpoint()), 0..=MAX_INTRODUCED).prop_map(Said::Introduced),
        any_message().prop_map(Said::Topology),
        any_holdings().prop_map(Said::Holdings),
        (any::<[u8; 32]>(), 1_u16..).prop_map(|(key, port)| Said::Beside { key, port }),
        (0..MAX_STRANDS).prop_map(|strand| Said::Silent { strand }),
        any_node().prop_map(Said::Missing),
        Just(Said::Survey),
        vec(any_neighbour(), 0..=MAX_NEIGHBOURS).prop_map(Said::Neighbours),
        (any_digest(), any::<u32>(), 1..=MAX_PIECE).prop_map(|(digest, offset, len)| {
            let len = u16::try_from(len).expect("short");
            Said::Wanted {
                digest,
                offset,
                len,
            }
        }),
        (any_digest(), any::<u32>(), vec(any::<u8>(), 1..=MAX_PIECE)).prop_map(
            |(digest, offset, octets)| Said::Piece {
                digest,
                offset,
                octets
            }
        ),
    ]
}

fn letter(said: Said) -> Letter {
    Letter {
        network: NetworkId(1),
        from: NodeId(2),
        to: Some(NodeId(3)),
        at: UnixTime(4),
        number: 5,
        answers: None,
        known: Known::default(),
        said,
    }
}

fn key() -> SigningKey {
    SigningKey::from_seed(&[1; 32]).expect("a key")
}

proptest! {
    #[test]
    fn what_is_written_is_read(
        said in any_said(),
        to in option::of(any_node()),
        answers in option::of(any::<u64>()),
        numbers in any::<[u64; 5]>(),
        shown in any::<bool>(),
    ) {
        let [network, from, at, number, known] = numbers;
        let letter = Letter {
            network: NetworkId(network),
            from: NodeId(from),
            to,
            at: UnixTime(at),
            number,
            answers,
            known: Known(known),
            said,
        };
        let envelope = Envelope {
            certificate: shown.then(|| Signed::sign(certificate(), &key())),
            letter: Signed::sign(letter, &key()),
        };
        let octets = envelope.encode();
        prop_assert!(octets.len() >= 2 + LEAST_LEN);
        prop_assert!(octets.len() <= MAX_DATAGRAM, "{}", octets.len());
        prop_assert_eq!(Envelope::decode(&octets), Ok(envelope));
    }

    /// One way to write each: what is read is written the same.
    #[test]
    fn any_octets_are_taken(octets in vec(any::<u8>(), 0..400), kind in 0_u8..17, rest in vec(0_u8..7, 0..300)) {
        if let Ok(envelope) = Envelope::decode(&octets) {
            prop_assert_eq!(envelope.encode(), octets);
        }
        let mut forged = Signed::sign(letter(ping()), &key()).encode();
        let at = forged.len() - 8 - 64 - 1;
        let tail = forged.split_off(at + 1);
        forged[at] = kind;
        forged.extend(rest);
        forged.extend(tail);
        if let Ok(read) = Signed::<Letter>::decode(&forged) {
            prop_assert_eq!(read.encode(), forged);
        }
    }
}

#[test]
fn addresses_have_one_form_and_a_use() {
    let read = |octets: &[u8]| {
        let mut all = vec![1_u8];
        all.extend(octets);
        // Who can reach the writer, and no candidate.
        all.extend([0, 0]);
        said::read(&mut Reader::new(&all))
    };
    let pong = |text: &str| {
        Ok(Said::Pong {
            observed: text.parse().expect("an endpoint"),
            card: card(),
        })
    };
    assert_eq!(read(&[4, 192, 0, 2, 1, 0x1f, 0x90]), pong("192.0.2.1:8080"));
    let v6 = |head: [u8; 2], port: u8| {
        let mut octets = vec![6];
        octets.extend(head);
        octets.extend([0; 13]);
        octets.extend([1, 0, port]);
        octets
    };
    assert_eq!(read(&v6([0x20, 0x01], 7)), pong("[2001::1]:7"));
    let mapped = [&[6][..], &[0; 10], &[0xff, 0xff, 192, 0, 2, 1, 0, 7]].concat();
    for octets in [
        &[4, 192, 0, 2, 1, 0, 0][..],
        &[4, 0, 0, 0, 0, 0, 7],
        &[4, 224, 0, 0, 1, 0, 7],
        &[5, 192, 0, 2, 1, 0, 7],
        &v6([0xff, 0x02], 7),
        &v6([0x20, 0x01], 0),
        &mapped,
    ] {
        let refused = Err(Malformed::Value("an address with its port"));
        assert_eq!(read(octets), refused, "{octets:?}");
    }
}

/// Two nodes of a network and what both know of it.
struct Pair {
    authority: Authority,
    trust: Trust,
    one: Desk,
    other: Desk,
}

const ONE: NodeId = NodeId(1);
const OTHER: NodeId = NodeId(2);

impl Pair {
    fn new() -> Pair {
        let authority = Authority::new(1);
        let (one, other) = (desk(&authority, ONE, 1), desk(&authority, OTHER, 1));
        Pair {
            trust: authority.trust(),
            authority,
            one,
            other,
        }
    }

    /// The first writes; the second's answer, or why it does not read it.
    fn ping(&mut self, now: UnixTime) -> Result<Letter, Refusal> {
        let octets = write(&mut self.one, OTHER, None, now);
        self.other.read(&octets, &self.trust, now)
    }
}

fn issued(authority: &Authority, node: NodeId, serial: u32) -> Signed<Certificate> {
    authority.issue(|certificate| {
        certificate.node = node;
        certificate.serial = serial;
        certificate.key = key_of(node).public();
    })
}

fn key_of(node: NodeId) -> SigningKey {
    let seed = u8::try_from(node.0).expect("a small number");
    SigningKey::from_seed(&[seed; 32]).expect("a key")
}

fn card() -> Card {
    Card {
        reach: Reach::Public,
        candidates: Vec::new(),
    }
}

fn ping() -> Said {
    Said::Ping(card())
}

fn desk(authority: &Authority, node: NodeId, serial: u32) -> Desk {
    Desk::new(issued(authority, node, serial), key_of(node), NOW)
}

fn write(desk: &mut Desk, to: NodeId, answers: Option<u64>, now: UnixTime) -> Vec<u8> {
    let written = desk.write(Some(to), answers, Known::default(), ping(), now);
    written.expect("a letter").1
}

fn shows_certificate(octets: &[u8]) -> bool {
    Envelope::decode(octets).is_ok_and(|envelope| envelope.certificate.is_some())
}

#[test]
fn a_certificate_is_shown_until_it_is_answered() {
    let mut pair = Pair::new();
    let first = pair.ping(NOW).expect("believed");
    assert_eq!((first.from, first.said), (ONE, ping()));
    let answer = write(&mut pair.other, ONE, Some(first.number), NOW);
    assert!(shows_certificate(&answer));
    pair.one.read(&answer, &pair.trust, NOW).expect("believed");
    let without = write(&mut pair.one, OTHER, None, NOW);
    assert!(!shows_certificate(&without));
    pair.other
        .read(&without, &pair.trust, NOW)
        .expect("it is known");
    // Who has begun anew has forgotten it.
    pair.other = desk(&pair.authority, OTHER, 1);
    let refused = pair
        .other
        .read(&write(&mut pair.one, OTHER, None, NOW), &pair.trust, NOW);
    assert_eq!(refused, Err(Refusal::Unknown(ONE)));
    let again = write(&mut pair.one, OTHER, None, NOW);
    assert!(shows_certificate(&again), "nobody has answered");
    pair.other.read(&again, &pair.trust, NOW).expect("believed");
    // The next certificate has to be shown, too.
    let mut pair = Pair::new();
    let first = pair.ping(NOW).expect("believed");
    let answer = write(&mut pair.other, ONE, Some(first.number), NOW);
    pair.one.read(&answer, &pair.trust, NOW).expect("believed");
    pair.one.renew(issued(&pair.authority, ONE, 2));
    let renewed = write(&mut pair.one, OTHER, None, NOW);
    assert!(shows_certificate(&renewed));
    pair.other
        .read(&renewed, &pair.trust, NOW)
        .expect("believed");
    let held = pair.other.certificate(ONE).map(|one| one.body.serial);
    assert_eq!(held, Some(2));
}

#[test]
fn nobody_can_send_it_again_or_to_another() {
    let mut pair = Pair::new();
    let letters: Vec<_> = (0..70)
        .map(|_| write(&mut pair.one, OTHER, None, NOW))
        .collect();
    let mut read = |n: usize| pair.other.read(&letters[n], &pair.trust, NOW).is_ok();
    assert!(read(0) && !read(0));
    assert!(read(69) && read(68), "overtaken");
    assert!(!read(69) && !read(68) && !read(0));
    assert!(read(6) && !read(5), "the window is 64");
    let astray = write(&mut pair.one, NodeId(9), None, NOW);
    let refused = pair.other.read(&astray, &pair.trust, NOW);
    assert_eq!(refused, Err(Refusal::Astray(NodeId(9))));
    let own = write(&mut pair.other, OTHER, None, NOW);
    assert_eq!(pair.other.read(&own, &pair.trust, NOW), Err(Refusal::Own));
    // Long after, at a node that has begun anew.
    let late = NOW.plus(301);
    pair.other = Desk::new(issued(&pair.authority, OTHER, 1), key_of(OTHER), late);
    let refused = pair.other.read(&letters[0], &pair.trust, late);
    assert_eq!(
        refused,
        Err(Refusal::Clock {
            from: ONE,
            secs: 301
        })
    );
}

#[test]
fn an_answer_needs_no_clock() {
    let mut pair = Pair::new();
    let question = pair.ping(NOW).expect("believed").number;
    let slow = UnixTime(NOW.0 - 10_000);
    for (answers, is_believed) in [
        (Some(question), true),
        (None, false),
        (Some(question + 1), false),
        (Some(NOW.0 << 20), false),
    ] {
        let octets = write(&mut pair.other, ONE, answers, slow);
        let read = pair.one.read(&octets, &pair.trust, NOW);
        assert_eq!(read.is_ok(), is_believed, "{answers:?}");
    }
}

#[test]
fn forgers_are_found() {
    let mut pair = Pair::new();
    let good = write(&mut pair.one, OTHER, None, NOW);
    let envelope = Envelope::decode(&good).expect("a letter");
    let mut read = |envelope: &Envelope| pair.other.read(&envelope.encode(), &pair.trust, NOW);
    let mut changed = envelope.clone();
    changed.letter.body.number += 1;
    assert_eq!(read(&changed), Err(Refusal::Forged(ONE)));
    let mut borrowed = envelope.clone();
    borrowed.certificate = Some(issued(&pair.authority, NodeId(3), 1));
    let refused = Refusal::Borrowed {
        from: ONE,
        of: NodeId(3),
    };
    assert_eq!(read(&borrowed), Err(refused));
    let mut stranger = envelope.clone();
    stranger.certificate = Some(issued(&Authority::new(2), ONE, 1));
    stranger.letter.body.network = Authority::new(2).network();
    let network = trust::Refusal::Network(Authority::new(2).network());
    assert_eq!(read(&stranger), Err(Refusal::Certificate(ONE, network)));
    let unknown = Envelope {
        certificate: None,
        ..envelope.clone()
    };
    assert_eq!(read(&unknown), Err(Refusal::Unknown(ONE)));
    assert!(read(&envelope).is_ok(), "nothing of that has done harm");
}

#[test]
fn what_does_not_fit_is_not_sent() {
    let authority = Authority::new(1);
    let mut certificate = issued(&authority, ONE, 1);
    certificate.body.groups = (0..16)
        .map(|n| format!("{n:032}").parse().expect("a label"))
        .collect();
    let mut desk = Desk::new(certificate, key_of(ONE), NOW);
    let said = Said::Distances {
        distances: vec![(NodeId(7), Micros(7)); MAX_DESTINATIONS],
        near: Vec::new(),
    };
    let written = desk.write(Some(OTHER), None, Known::default(), said, NOW);
    assert!(matches!(written, Err(Refusal::Long(len)) if len > MAX_DATAGRAM));
}

#[test]
fn who_counts_no_more_is_out() {
    let mut pair = Pair::new();
    pair.ping(NOW).expect("believed");
    assert_eq!(pair.other.cast_out(&pair.trust, NOW), []);
    let list = pair.authority.revoke(1, &[(ONE, 1)]);
    assert_eq!(pair.trust.offer_revocations(list), Ok(true));
    let out = pair.other.cast_out(&pair.trust, NOW);
    assert_eq!(out, [(ONE, trust::Refusal::Revoked(ONE, 1))]);
    assert!(pair.other.certificate(ONE).is_none());
    let revoked = trust::Refusal::Revoked(ONE, 1);
    assert_eq!(
        pair.ping(NOW),
        Err(Refusal::Certificate(ONE, revoked)),
        "it can't come back"
    );
    pair.one.renew(issued(&pair.authority, ONE, 2));
    pair.ping(NOW).expect("its next certificate counts");
    let end = NOW.plus(30 * 86_400);
    let out = pair.other.cast_out(&pair.trust, end);
    assert!(matches!(out[..], [(ONE, trust::Refusal::Late(_))]));
}
