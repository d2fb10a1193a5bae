//! Nodes on one network segment.

use super::*;
use crate::{letter::Said, node::lan::secret as lan_secret};

const LINK: u32 = 9;
const BARE: Wire = Wire {
    bare: true,
    port: PORT,
};

fn beside(number: u8) -> Ipv6Addr {
    Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, number.into())
}

/// Where its tunnels listen on the segment.
pub fn at(number: u8) -> Way {
    Way::Udp(std::net::SocketAddrV6::new(beside(number), PORT, 0, LINK).into())
}

impl World {
    fn plug(&mut self, number: u8, wire: Wire) {
        self.segment.insert(number, BTreeMap::new());
        self.tell(number, Event::Wire(LINK, Some(wire)));
    }

    fn unplug(&mut self, number: u8) {
        self.segment.remove(&number);
        self.tell(number, Event::Wire(LINK, None));
        self.meet_beside();
    }

    pub(super) fn beacon(&mut self, number: u8, link: u32, to: Option<Ipv6Addr>, octets: &[u8]) {
        assert_eq!(link, LINK);
        let others: Vec<u8> = self.segment.keys().copied().collect();
        for other in others {
            let is_for_it = to.is_none_or(|to| to == beside(other));
            if other != number && is_for_it && !self.is_lost() {
                let event = Event::Beacon {
                    link,
                    from: beside(number),
                    octets: octets.to_vec(),
                };
                self.later(WAY / 10, other, event);
            }
        }
    }

    pub(super) fn agree(&mut self, number: u8, pairs: BTreeMap<Ipv6Addr, Beside>) {
        self.segment.insert(number, pairs);
        self.meet_beside();
    }

    /// Babel: who has the same secret hears the other.
    fn meet_beside(&mut self) {
        let secret = |one: u8, other: u8| {
            let found = self.segment.get(&one)?.get(&beside(other))?;
            assert_eq!(found.node, id(other));
            Some(found.secret)
        };
        let mut bare = BTreeSet::new();
        for one in self.segment.keys() {
            for other in self.segment.keys().filter(|other| *other != one) {
                let both = (secret(*one, *other), secret(*other, *one));
                if both.0.is_some() && both.0 == both.1 {
                    bare.insert((*one, *other));
                }
            }
        }
        let before = std::mem::replace(&mut self.bare, bare.clone());
        for (one, other) in before.symmetric_difference(&bare) {
            let event = Event::Reached(id(*other), bare.contains(&(*one, *other)));
            self.later(WAY, *one, event);
        }
        self.route();
    }

    fn tunnels_between(&self, numbers: &[u8]) -> usize {
        let inside = |(one, other): &&(u8, u8)| numbers.contains(one) && numbers.contains(other);
        self.up.iter().filter(inside).count()
    }
}

#[test]
fn who_is_on_one_segment_needs_no_tunnel() {
    let mut world = World::new(5);
    for number in 1..=6 {
        let site = [Site::Open, Site::BehindNat][usize::from(number > 3)];
        world.start(number, site, &[]);
    }
    world.wait_for_all(Duration::from_secs(60));
    // Tunnels that stand already are left.
    for number in 4..=6 {
        world.plug(number, BARE);
    }
    world.run(Duration::from_secs(1));
    assert_eq!(world.bare.len(), 6, "{:?}", world.segment);
    for number in 4..=6 {
        for other in (4..=6).filter(|other| *other != number) {
            world.tell(number, Event::Routes(id(other), 0));
        }
    }
    world.run(Duration::from_secs(120));
    assert_eq!(world.tunnels_between(&[4, 5, 6]), 0, "{:?}", world.up);
    assert!(world.all_reach_all());
    for number in 4..=6 {
        assert!(world.degree(number) >= 2, "{number}: {:?}", world.up);
    }
    // The wire is cut: those behind the NAT are still in.
    for number in 4..=6 {
        world.unplug(number);
    }
    assert!(world.all_reach_all());
}

#[test]
fn nodes_on_a_segment_alone_are_a_mesh() {
    let mut world = World::new(20);
    world.registry = None;
    for number in 1..=3 {
        world.start(number, Site::BehindNat, &[]);
        world.plug(number, BARE);
    }
    world.wait_for_all(Duration::from_secs(40));
    world.run(Duration::from_secs(60));
    assert!(world.up.is_empty());
    // News go by it, too.
    let mut trust = world.authority.trust();
    let list = world.authority.revoke(1, &[(id(2), u32::MAX)]);
    trust.offer_revocations(list).unwrap();
    world.tell(1, Event::Trust(Box::new(trust)));
    world.run(Duration::from_secs(20));
    assert_eq!(world.nodes[&3].trust().revocations().count(), 1);
    let left: Vec<_> = world.segment[&1].keys().collect();
    assert_eq!(left, [&beside(3)], "who is revoked is out");
    assert!(!world.bare.contains(&(1, 2)));
}

#[test]
fn who_falls_silent_is_gone_and_who_comes_back_has_another_key() {
    let mut world = World::new(0);
    for number in 1..=2 {
        world.start(number, Site::Open, &[]);
        world.plug(number, BARE);
    }
    world.run(Duration::from_secs(3));
    let before = world.segment[&1][&beside(2)].secret;
    world.nodes.remove(&2);
    world.run(Duration::from_secs(60));
    assert!(world.segment[&1].is_empty());
    world.start(2, Site::Open, &[]);
    world.plug(2, BARE);
    world.run(Duration::from_secs(1));
    assert_ne!(world.segment[&1][&beside(2)].secret, before);
    assert!(world.bare.contains(&(1, 2)));
}

#[test]
fn others_words_say_nothing_about_a_segment() {
    let mut world = World::new(0);
    for number in 1..=2 {
        world.start(number, Site::Open, &[]);
        world.plug(number, BARE);
    }
    world.run(Duration::from_secs(1));
    let pairs = world.segment[&1].clone();
    let wall = world.wall();
    let two = world.nodes.get_mut(&2).unwrap();
    let said = Said::Beside {
        key: [7; 32],
        port: 1,
    };
    let known = two.known();
    let (_, octets) = two.desk.write(None, None, known, said, wall).unwrap();
    // Not by another way, and not twice.
    let letter = Event::Letter {
        from: outside(2),
        octets: octets.clone(),
    };
    world.tell(1, letter);
    assert_eq!(world.segment[&1], pairs);
    let now = world.now;
    let node = world.nodes.get_mut(&1).unwrap();
    for (octets, from) in [(octets, beside(2)), (vec![0; 64], beside(3))] {
        let event = Event::Beacon {
            link: LINK,
            from,
            octets,
        };
        let actions = node.handle(event, now, wall);
        assert!(
            matches!(actions[..], [Action::Refused { .. }]),
            "{actions:?}"
        );
    }
}

#[test]
fn a_key_that_makes_the_same_with_everybody_is_refused() {
    let mut keys = Keys::new([3; 32]);
    let (one, other) = (keys.draw(), keys.draw());
    let here = lan_secret((id(1), &one), (id(2), other.public));
    let there = lan_secret((id(2), &other), (id(1), one.public));
    assert!(here.is_some());
    assert_eq!(here, there);
    assert_ne!(here, lan_secret((id(3), &one), (id(2), other.public)));
    assert_eq!(lan_secret((id(1), &one), (id(2), [0; 32])), None);
}

#[test]
fn with_tunnels_a_segment_shows_only_where_others_are() {
    let mut world = World::new(0);
    world.registry = None;
    for number in [2, 4] {
        world.start(number, Site::BehindNat, &[]);
        world.plug(
            number,
            Wire {
                bare: false,
                ..BARE
            },
        );
    }
    world.wait_for_all(Duration::from_secs(20));
    assert!(world.bare.is_empty());
    assert_eq!(world.tunnels_between(&[2, 4]), 2);
    let remembered = world.nodes[&2].remembered();
    assert!(
        remembered.is_empty(),
        "a segment's addresses are told to nobody: {remembered:?}"
    );
}
