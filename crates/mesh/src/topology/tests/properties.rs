//! Whatever happens, in whatever order.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

fn number() -> impl Strategy<Value = Node> {
    (0u64..12).prop_map(Node)
}

fn reach() -> impl Strategy<Value = Reach> {
    prop_oneof![
        Just(Reach::Public),
        Just(Reach::Punchable),
        Just(Reach::Closed)
    ]
}

fn kind() -> impl Strategy<Value = Kind> {
    prop_oneof![
        Just(Kind::Entry),
        Just(Kind::Random),
        Just(Kind::Near),
        Just(Kind::Gain)
    ]
}

fn time() -> impl Strategy<Value = Duration> {
    prop_oneof![
        (0u64..400).prop_map(Duration::from_millis),
        Just(Duration::ZERO),
        Just(Duration::MAX),
    ]
}

fn message() -> impl Strategy<Value = Message> {
    let refusal = prop_oneof![
        Just(Refusal::Full),
        Just(Refusal::Crossed),
        Just(Refusal::Late)
    ];
    prop_oneof![
        (number(), reach(), any::<bool>(), any::<u32>(), any::<u8>()).prop_map(
            |(origin, reach, public, nonce, hops)| Message::Walk(Walk {
                origin,
                reach,
                public,
                nonce,
                hops
            })
        ),
        (kind(), reach(), 0u32..4).prop_map(|(kind, reach, nonce)| Message::Ask {
            kind,
            reach,
            nonce
        }),
        (0u32..4, reach()).prop_map(|(nonce, reach)| Message::Grant { nonce, reach }),
        (0u32..4, refusal).prop_map(|(nonce, refusal)| Message::Refuse { nonce, refusal }),
        Just(Message::Draining),
        Just(Message::Resumed),
    ]
}

fn event() -> impl Strategy<Value = Event> {
    let distances = prop::collection::vec((number(), time()), 0..12);
    let near = prop::collection::vec((number(), reach()), 0..9);
    prop_oneof![
        (number(), reach(), any::<bool>()).prop_map(|(node, reach, routed)| Event::Candidate {
            node,
            reach,
            routed
        }),
        (number(), time()).prop_map(|(node, round_trip)| Event::Measured { node, round_trip }),
        (number(), distances, near).prop_map(|(node, distances, near)| Event::Distances {
            node,
            distances,
            near
        }),
        (number(), any::<u64>()).prop_map(|(destination, octets)| Event::Traffic {
            destination,
            octets
        }),
        number().prop_map(|node| Event::Up { node }),
        number().prop_map(|node| Event::Down { node }),
        (number(), 0usize..3).prop_map(|(node, count)| Event::Routes { node, count }),
        (number(), message()).prop_map(|(from, message)| Event::Heard { from, message }),
        Just(Event::Timer),
    ]
}

proptest! {
    #[test]
    fn a_tunnel_is_opened_once_and_tables_stay_small(
        events in prop::collection::vec((event(), 0u64..40_000), 0..300),
        reach in reach(),
    ) {
        let mut topology = Topology::new(Node(0), reach, Config::default(), 1, Time::ZERO);
        let mut again = topology.clone();
        let mut open = BTreeSet::new();
        let mut now = Time::ZERO;
        for (event, after) in events {
            now += Duration::from_millis(after);
            if let Event::Down { node } = &event {
                open.remove(node);
            }
            let actions = topology.handle(event.clone(), now);
            prop_assert_eq!(&actions, &again.handle(event, now));
            for action in actions {
                match action {
                    Action::Open { node, .. } => {
                        prop_assert!(node != Node(0));
                        prop_assert!(open.insert(node), "opened twice: {}", node);
                    }
                    Action::Close { node, .. } => {
                        prop_assert!(open.remove(&node), "closed without being open: {}", node);
                    }
                    Action::Drain { node, .. } | Action::Resume { node, .. } => {
                        prop_assert!(open.contains(&node));
                    }
                    Action::Measure { .. } | Action::Question { .. } | Action::Send { .. } => {}
                }
            }
            let peers: BTreeSet<Node> = topology.peers().iter().map(|peer| peer.node).collect();
            prop_assert_eq!(&peers, &open);
            prop_assert!(peers.len() <= MAX_TUNNELS);
        }
    }
}

#[test]
fn any_number_of_nodes_and_destinations_may_be_told() {
    let mut topology = Topology::new(Node(0), Reach::Public, Config::default(), 1, Time::ZERO);
    for number in 1..5000 {
        let node = Node(number);
        let learn = Event::Candidate {
            node,
            reach: Reach::Public,
            routed: true,
        };
        topology.handle(learn, Time::ZERO);
        let traffic = Event::Traffic {
            destination: node,
            octets: number,
        };
        topology.handle(traffic, Time::ZERO);
    }
    assert_eq!(topology.known().count(), MAX_CANDIDATES);
    assert_eq!(topology.sample.counted(), MAX_COUNTED);
}

#[test]
fn weights_of_traffic_and_chance_are_equal_in_sum() {
    let mut random = Random::new(3);
    let mut sample = Sample::default();
    let known: Vec<Node> = (1..100).map(Node).collect();
    sample.count(Node(500), 3000);
    sample.count(Node(501), 1000);
    sample.renew(&known, 40, &mut random);
    let destinations = sample.destinations(40);
    assert_eq!(destinations.len(), 40);
    let weight = |number: u64| {
        let found = destinations.iter().find(|(node, _)| node.0 == number);
        found.map_or(0.0, |(_, weight)| *weight)
    };
    assert!((weight(500) + weight(501) - 38.0).abs() < 1e-9);
    assert!(weight(500) > 2.9 * weight(501));
}
