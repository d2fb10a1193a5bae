//! A network of nodes that know each other's keys, and of one who knows none.

use std::collections::BTreeMap;

use super::*;
use crate::mac::Algorithm;

/// From one end to the other.
const WAY: Duration = Duration::from_millis(1);

fn key(octet: u8) -> Key {
    Key::new(Algorithm::HmacSha256, vec![octet; 32]).expect("a key")
}

/// Nodes that all hear each other.
struct Room {
    engines: BTreeMap<u16, Engine>,
    pairs: BTreeMap<u16, BTreeMap<Ipv6Addr, Key>>,
    now: Time,
    /// Under way: when it arrives, from whom, to where.
    air: Vec<(Time, u16, Ipv6Addr, Vec<u8>)>,
    ways: BTreeMap<u16, BTreeMap<Destination, Option<Way>>>,
    refused: Vec<(u16, Refusal)>,
}

impl Room {
    fn new(nodes: &[u16]) -> Room {
        let engine = |n: &u16| {
            let [_, low] = n.to_be_bytes();
            (*n, Engine::new(Config::new(router(low), [low; 32])))
        };
        Room {
            engines: nodes.iter().map(engine).collect(),
            pairs: BTreeMap::new(),
            now: Time::from_secs(1),
            air: Vec::new(),
            ways: BTreeMap::new(),
            refused: Vec::new(),
        }
    }

    fn know(&mut self, one: u16, other: u16, secret: u8) {
        self.pairs
            .entry(one)
            .or_default()
            .insert(addr(other), key(secret));
        let link = Link::among(addr(one), self.pairs[&one].clone());
        self.tell(one, Event::LinkUp(LINK, link));
    }

    fn forget(&mut self, one: u16, other: u16) {
        self.pairs.entry(one).or_default().remove(&addr(other));
        let link = Link::among(addr(one), self.pairs[&one].clone());
        self.tell(one, Event::LinkUp(LINK, link));
    }

    fn tell(&mut self, n: u16, event: Event) {
        let engine = self.engines.get_mut(&n).expect("a node");
        for action in engine.handle(event, self.now) {
            match action {
                Action::Send { to, octets, .. } => {
                    assert!(!to.is_multicast(), "{n} speaks to all");
                    self.air.push((self.now + WAY, n, to, octets));
                }
                Action::Route(to, way) => {
                    self.ways.entry(n).or_default().insert(to, way);
                }
                Action::Refused(refusal) => self.refused.push((n, refusal)),
                Action::Reach(..) => {}
            }
        }
    }

    fn run(&mut self, duration: Duration) {
        let end = self.now + duration;
        loop {
            let wakeups = self.engines.values().filter_map(Engine::next_wakeup);
            let arrivals = self.air.iter().map(|(at, ..)| *at);
            let Some(next) = wakeups.chain(arrivals).min().filter(|at| *at <= end) else {
                break;
            };
            self.now = self.now.max(next);
            let (come, left) = std::mem::take(&mut self.air)
                .into_iter()
                .partition(|(at, ..)| *at <= self.now);
            self.air = left;
            for (_, from, to, octets) in come {
                self.arrive(addr(from), to, octets);
            }
            for n in self.engines.keys().copied().collect::<Vec<_>>() {
                self.tell(n, Event::Timer);
            }
        }
        self.now = end;
    }

    fn arrive(&mut self, from: Ipv6Addr, to: Ipv6Addr, octets: Vec<u8>) {
        let [.., n] = to.segments();
        if self.engines.contains_key(&n) {
            let datagram = Event::Datagram {
                link: LINK,
                from,
                to,
                octets,
            };
            self.tell(n, datagram);
        }
    }

    fn knows(&self, n: u16, prefix: &str) -> bool {
        let ways = self.ways.get(&n).and_then(|ways| ways.get(&to(prefix)));
        matches!(ways, Some(Some(Way::Via { .. })))
    }
}

/// 1 and 2 know each other, 1 and 3 too; 2 and 3 do not.
fn three() -> Room {
    let mut room = Room::new(&[1, 2, 3]);
    for (one, other, secret) in [(1, 2, 12), (2, 1, 12), (1, 3, 13), (3, 1, 13)] {
        room.know(one, other, secret);
    }
    room.tell(2, Event::Originate(to(NET), Metric::ZERO));
    room.run(Duration::from_secs(5));
    room
}

#[test]
fn pairs_meet_by_keys_of_their_own() {
    let room = three();
    assert!(room.knows(1, NET));
    assert!(
        room.knows(3, NET),
        "by way of 1, who tells those on the same link"
    );
    let heard = |n: u16| room.engines[&n].neighbours.keys().count();
    assert_eq!((heard(1), heard(2), heard(3)), (2, 1, 1));
    assert!(
        room.refused
            .iter()
            .all(|(_, why)| matches!(why, Refusal::Stale(_)))
    );
}

#[test]
fn who_has_no_key_or_anothers_is_not_heard() {
    let mut room = three();
    room.refused.clear();
    let mut writer = Writer::new(1_400, IpAddr::V6(addr(9)));
    let retraction = Update::Retraction {
        to: None,
        seqno: Seqno(0),
        interval: Interval(100),
    };
    writer.push(&Tlv::Update(retraction)).expect("room");
    let packet = writer.finish();
    room.arrive(addr(9), addr(1), packet.clone());
    room.arrive(addr(2), addr(1), packet.clone());
    let mut by_another = packet;
    crate::mac::sign(&[key(13)], addr(2), addr(1), &mut by_another);
    room.arrive(addr(2), addr(1), by_another);
    assert_eq!(room.refused.len(), 3);
    assert!(
        room.refused
            .iter()
            .all(|(_, why)| matches!(why, Refusal::Forged(_)))
    );
    assert!(room.knows(1, NET));
}

#[test]
fn who_is_gone_from_the_list_is_gone_at_once() {
    let mut room = three();
    room.forget(1, 2);
    assert!(!room.knows(1, NET));
    room.run(Duration::from_secs(30));
    assert!(!room.knows(1, NET) && !room.knows(3, NET));
    room.know(1, 2, 12);
    room.run(Duration::from_secs(10));
    assert!(room.knows(1, NET) && room.knows(3, NET));
}

#[test]
fn another_key_is_taken_over_without_losing_a_way() {
    let mut room = three();
    for (one, other) in [(1, 2), (2, 1)] {
        room.know(one, other, 99);
        room.run(Duration::from_millis(200));
    }
    for _ in 0..60 {
        assert!(room.knows(1, NET) && room.knows(3, NET));
        room.run(Duration::from_secs(1));
    }
}
