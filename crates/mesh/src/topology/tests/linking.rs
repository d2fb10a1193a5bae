//! Walks, asks and grants between nodes.

use super::*;

fn node(number: u64, reach: Reach) -> Topology {
    Topology::new(Node(number), reach, Config::default(), number, Time::ZERO)
}

fn candidate(number: u64, reach: Reach) -> Event {
    Event::Candidate {
        node: Node(number),
        reach,
        routed: true,
    }
}

/// Hands over what is sent until nothing is sent any more; tunnels come up when both sides open them.
fn settle(nodes: &mut BTreeMap<u64, Topology>, mut sent: Vec<(u64, Action)>, now: Time) {
    let mut opened = Vec::new();
    for _ in 0..10_000 {
        if sent.is_empty() {
            return;
        }
        let (from, action) = sent.remove(0);
        let mut events = Vec::new();
        match action {
            Action::Send { to, message } => {
                let from = Node(from);
                events.push((to.0, Event::Heard { from, message }));
            }
            Action::Open { node, .. } => {
                if opened.contains(&(node.0, from)) {
                    events.push((from, Event::Up { node }));
                    events.push((node.0, Event::Up { node: Node(from) }));
                }
                opened.push((from, node.0));
            }
            _ => {}
        }
        for (to, event) in events {
            let actions = nodes
                .get_mut(&to)
                .map(|topology| topology.handle(event, now));
            sent.extend(actions.into_iter().flatten().map(|action| (to, action)));
        }
    }
    panic!("they talk for ever");
}

#[test]
fn a_node_without_tunnels_asks_three_public_nodes() {
    let mut alone = node(0, Reach::Public);
    for number in 1..20 {
        let reach = if number < 10 {
            Reach::Public
        } else {
            Reach::Punchable
        };
        alone.handle(candidate(number, reach), Time::ZERO);
    }
    let actions = alone.handle(Event::Timer, Time::ZERO);
    let asked: Vec<u64> = actions
        .iter()
        .filter_map(|action| match action {
            Action::Send {
                to,
                message: Message::Ask {
                    kind: Kind::Entry, ..
                },
            } => Some(to.0),
            _ => None,
        })
        .collect();
    assert_eq!(asked.len(), 3);
    assert!(asked.iter().all(|number| *number < 10), "{asked:?}");
    let later = alone.handle(Event::Timer, Time::from_secs(11));
    assert!(
        later
            .iter()
            .all(|action| !matches!(action, Action::Send { to, .. } if asked.contains(&to.0))),
        "who was silent is left alone for a while"
    );
}

#[test]
fn two_that_ask_at_once_have_one_tunnel_and_the_lower_number_owns_it() {
    let mut nodes = BTreeMap::new();
    let mut sent = Vec::new();
    for number in [1, 2] {
        let mut topology = node(number, Reach::Public);
        topology.handle(candidate(3 - number, Reach::Public), Time::ZERO);
        let actions = topology.handle(Event::Timer, Time::ZERO);
        sent.extend(actions.into_iter().map(|action| (number, action)));
        nodes.insert(number, topology);
    }
    assert_eq!(sent.len(), 2);
    settle(&mut nodes, sent, Time::ZERO);
    for (number, ours) in [(1, true), (2, false)] {
        let peers = nodes.get(&number).expect("there").peers();
        let found: Vec<_> = peers.iter().map(|p| (p.node.0, p.ours, p.stage)).collect();
        assert_eq!(found, [(3 - number, ours, Stage::Up)]);
    }
}

/// Two whose walks ended at each other, and the grants were lost; with what each writes to the other when the tunnel is up.
fn granted_by_both() -> [(Topology, Vec<Message>); 2] {
    let mut pair = [1, 2].map(|number| node(number, Reach::Public));
    let walks = pair.each_mut().map(|topology| {
        let linked = Event::Adopted {
            node: Node(3),
            kind: Kind::Random,
            ours: true,
            reach: Reach::Public,
        };
        topology.handle(linked, Time::ZERO);
        let sent = topology.handle(Event::Timer, Time::ZERO);
        let walk = sent.into_iter().find_map(|action| match action {
            Action::Send {
                message: Message::Walk(walk),
                ..
            } => Some(Walk { hops: 0, ..walk }),
            _ => None,
        });
        walk.expect("random links are missing")
    });
    let [one, two] = &mut pair;
    let ends = [(one, walks[1]), (two, walks[0])];
    let written = ends.map(|(topology, walk)| {
        let other = walk.origin;
        let heard = Event::Heard {
            from: Node(3),
            message: Message::Walk(walk),
        };
        topology.handle(heard, Time::ZERO);
        let done = topology.handle(Event::Up { node: other }, Time::ZERO);
        let written = done.into_iter().filter_map(|action| match action {
            Action::Send { to, message } if to == other => Some(message),
            _ => None,
        });
        written.collect::<Vec<_>>()
    });
    let [one, two] = pair;
    let [says, answers] = written;
    [(one, says), (two, answers)]
}

fn ours(topology: &Topology, node: u64) -> Option<(bool, Stage)> {
    let peers = topology.peers();
    let peer = peers.iter().find(|peer| peer.node.0 == node);
    peer.map(|peer| (peer.ours, peer.stage))
}

#[test]
fn who_granted_says_so_again_once_the_tunnel_is_up_and_the_lower_number_owns_it() {
    let [(mut one, says), (mut two, answers)] = granted_by_both();
    assert_eq!(ours(&one, 2), Some((false, Stage::Up)));
    assert_eq!(ours(&two, 1), Some((false, Stage::Up)));
    for (to, from, messages) in [(&mut two, 1, says), (&mut one, 2, answers)] {
        for message in messages {
            let from = Node(from);
            to.handle(Event::Heard { from, message }, Time::ZERO);
        }
    }
    assert_eq!(ours(&one, 2), Some((true, Stage::Up)));
    assert_eq!(ours(&two, 1), Some((false, Stage::Up)));
}

#[test]
fn a_needless_tunnel_that_nobody_takes_for_his_own_is_drained_all_the_same() {
    let [(mut one, _), _] = granted_by_both();
    let beside = Event::Beside {
        node: Node(2),
        is_beside: true,
    };
    one.handle(beside, Time::ZERO);
    one.handle(Event::Timer, Time::from_secs(19));
    assert_eq!(ours(&one, 2), Some((false, Stage::Up)));
    one.handle(Event::Timer, Time::from_secs(21));
    assert_eq!(ours(&one, 2), Some((true, Stage::Draining)));
}

/// A chain of nodes that are linked at random, and what the first does with a walk.
fn at_the_end(reach: Reach, walk: Walk) -> Vec<Action> {
    walked(node(5, reach), walk)
}

/// The same where it could go on.
fn on_the_way(reach: Reach, walk: Walk) -> Vec<Action> {
    let mut middle = node(5, reach);
    middle.handle(
        Event::Adopted {
            node: Node(6),
            kind: Kind::Random,
            ours: true,
            reach: Reach::Public,
        },
        Time::ZERO,
    );
    walked(middle, walk)
}

fn walked(mut end: Topology, walk: Walk) -> Vec<Action> {
    end.handle(
        Event::Heard {
            from: Node(4),
            message: Message::Walk(walk),
        },
        Time::ZERO,
    )
}

fn walk(reach: Reach, public: bool, hops: u8) -> Walk {
    Walk {
        origin: Node(1),
        reach,
        public,
        nonce: 9,
        hops,
    }
}

#[test]
fn a_walk_ends_where_its_origin_can_be_met() {
    let ends = |at, walk| {
        at_the_end(at, walk)
            .iter()
            .any(|a| matches!(a, Action::Open { .. }))
    };
    assert!(ends(Reach::Public, walk(Reach::Closed, false, 0)));
    assert!(ends(Reach::Closed, walk(Reach::Public, false, 0)));
    assert!(ends(Reach::Punchable, walk(Reach::Punchable, false, 0)));
    assert!(!ends(Reach::Punchable, walk(Reach::Closed, false, 0)));
    assert!(!ends(Reach::Closed, walk(Reach::Closed, false, 0)));
    assert!(!ends(Reach::Punchable, walk(Reach::Punchable, true, 0)));
    assert!(
        ends(Reach::Public, walk(Reach::Public, false, 16)),
        "it can't go on"
    );
    for hops in [16, 255] {
        let actions = on_the_way(Reach::Public, walk(Reach::Public, false, hops));
        let [Action::Send { to, message }] = &actions[..] else {
            panic!("not in its first half: {actions:?}");
        };
        assert_eq!(*to, Node(6));
        assert!(matches!(message, Message::Walk(Walk { hops: 15, .. })));
    }
}

#[test]
fn nobody_is_granted_more_than_there_is_room_for() {
    let mut busy = node(0, Reach::Public);
    let mut refused = 0;
    for number in 1..100 {
        let kind = [Kind::Entry, Kind::Near, Kind::Gain, Kind::Random][number as usize % 4];
        let message = Message::Ask {
            kind,
            reach: Reach::Public,
            nonce: 1,
        };
        let from = Node(number);
        let actions = busy.handle(Event::Heard { from, message }, Time::ZERO);
        refused += actions
            .iter()
            .filter(|a| {
                matches!(
                    a,
                    Action::Send {
                        message: Message::Refuse {
                            refusal: Refusal::Full,
                            ..
                        },
                        ..
                    }
                )
            })
            .count();
        let walk = Message::Walk(Walk {
            origin: Node(1000 + number),
            ..walk(Reach::Public, false, 0)
        });
        busy.handle(
            Event::Heard {
                from,
                message: walk,
            },
            Time::from_secs(number),
        );
    }
    let count = |of: fn(Kind) -> bool| busy.peers().iter().filter(|p| of(p.kind)).count();
    let config = Config::default();
    assert_eq!(count(|kind| kind == Kind::Entry), config.max_entries);
    assert_eq!(
        count(|kind| matches!(kind, Kind::Near | Kind::Gain)),
        config.max_chosen
    );
    assert_eq!(count(|kind| kind == Kind::Random), config.max_random);
    assert_eq!(refused, 99 - config.max_entries - config.max_chosen);
}

#[test]
fn walks_are_handed_on_at_a_bounded_rate() {
    let mut bench = Bench::new(only_gain());
    bench.linked(1, 10);
    bench.linked(2, 10);
    let before = bench.done.len();
    for nonce in 0..1000 {
        let walk = Walk {
            origin: Node(50),
            nonce,
            ..walk(Reach::Public, false, 16)
        };
        let message = Message::Walk(walk);
        bench.tell(Event::Heard {
            from: Node(1),
            message,
        });
    }
    assert_eq!(bench.done.len() - before, MAX_WALKS);
}

#[test]
fn a_grant_that_nobody_asked_for_is_refused() {
    let mut topology = node(0, Reach::Public);
    let message = Message::Grant {
        nonce: 5,
        reach: Reach::Public,
    };
    let actions = topology.handle(
        Event::Heard {
            from: Node(3),
            message,
        },
        Time::ZERO,
    );
    let refuse = Action::Send {
        to: Node(3),
        message: Message::Refuse {
            nonce: 5,
            refusal: Refusal::Late,
        },
    };
    assert_eq!(actions, [refuse]);
    assert_eq!(topology.peers(), []);
}

#[test]
fn a_lost_random_link_is_looked_for_at_once() {
    let mut bench = Bench::new(Config::default());
    for number in 1..=4 {
        bench.linked(number, 10);
    }
    bench.run(1);
    let walks = |bench: &Bench| {
        let walks = bench.done.iter();
        walks
            .filter(|(_, a)| {
                matches!(
                    a,
                    Action::Send {
                        message: Message::Walk(_),
                        ..
                    }
                )
            })
            .count()
    };
    assert!(walks(&bench) >= 3);
    let nonces: Vec<u32> = bench
        .done
        .iter()
        .filter_map(|(_, action)| match action {
            Action::Send {
                message: Message::Walk(walk),
                ..
            } => Some(walk.nonce),
            _ => None,
        })
        .collect();
    for (number, nonce) in (20..).zip(nonces).take(3) {
        let message = Message::Grant {
            nonce,
            reach: Reach::Public,
        };
        bench.tell(Event::Heard {
            from: Node(number),
            message,
        });
    }
    bench.run(2);
    let before = walks(&bench);
    bench.tell(Event::Down { node: Node(20) });
    assert_eq!(walks(&bench), before + 1);
}
