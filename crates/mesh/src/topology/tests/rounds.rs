//! What candidates' answers lead to.

use super::*;

/// Ten destinations, 100 ms away by tunnel 1; candidate 2 is near to all of them.
fn far_and_near(config: Config) -> Bench {
    let mut bench = Bench::new(config);
    bench.linked(1, 10);
    bench.learn(2, 20);
    for destination in 10..20 {
        bench.learn(destination, 500);
        bench.distances.insert((1, destination), millis(90));
        bench.distances.insert((2, destination), millis(10));
    }
    bench
}

#[test]
fn what_shortens_paths_for_a_minute_is_opened_and_says_by_how_much() {
    let mut bench = far_and_near(only_gain());
    bench.run(60);
    assert_eq!(bench.opened(2), None, "not before it has lasted");
    bench.run(300);
    let (at, reason) = bench.opened(2).expect("opened");
    assert!(at >= Time::from_secs(60));
    let Reason::Gain { gain, instead } = reason else {
        panic!("{reason}");
    };
    assert_eq!(instead, None);
    assert!((0.5..0.8).contains(&gain.share), "{gain}");
    assert_eq!(bench.peer(2).expect("there").kind, Kind::Gain);
}

#[test]
fn what_saves_too_little_is_not_opened() {
    let mut bench = far_and_near(only_gain());
    for destination in 10..20 {
        bench.distances.insert((2, destination), millis(80));
    }
    bench.run(1000);
    assert_eq!(bench.opened(2), None);
}

#[test]
fn a_node_that_answers_two_probes_only_is_not_judged() {
    for (answers, judged) in [(2, false), (1000, true)] {
        let mut bench = far_and_near(Config {
            near: true,
            ..only_gain()
        });
        bench.answers.insert(2, answers);
        bench.round_trips.insert(2, millis(1));
        bench.run(1000);
        assert_eq!(bench.opened(2).is_some(), judged);
    }
}

#[test]
fn a_better_one_replaces_after_ten_minutes_and_the_old_one_drains_first() {
    let mut bench = far_and_near(only_gain());
    bench.run(300);
    let (opened, _) = bench.opened(2).expect("opened");
    bench.learn(3, 1);
    for destination in 10..20 {
        bench.distances.insert((3, destination), millis(1));
    }
    bench.run(1500);
    let (replaced, reason) = bench.opened(3).expect("opened");
    assert!(replaced.saturating_since(opened) >= Config::default().min_life);
    assert!(
        matches!(
            reason,
            Reason::Gain {
                instead: Some((Node(2), _)),
                ..
            }
        ),
        "{reason}"
    );
    let drain = Action::Drain {
        node: Node(2),
        reason: Reason::Replaced { by: Node(3) },
    };
    assert!(bench.done.contains(&(replaced, drain)));
}

#[test]
fn a_drained_tunnel_closes_when_no_route_uses_it() {
    let mut bench = draining();
    bench.tell(Event::Routes {
        node: Node(2),
        count: 3,
    });
    assert_eq!(bench.peer(2).expect("there").stage, Stage::Draining);
    bench.tell(Event::Routes {
        node: Node(2),
        count: 0,
    });
    assert_eq!(bench.peer(2), None);
    let close = Action::Close {
        node: Node(2),
        reason: Reason::Drained,
    };
    assert!(bench.done.iter().any(|(_, action)| *action == close));
}

#[test]
fn a_tunnel_that_routes_need_stays() {
    let mut bench = draining();
    bench.tell(Event::Routes {
        node: Node(2),
        count: 3,
    });
    let until = bench.now.as_nanos() / 1_000_000_000 + 70;
    bench.run(until);
    let peer = bench.peer(2).expect("there");
    assert_eq!(
        (peer.stage, peer.reason),
        (Stage::Up, Reason::Needed { routes: 3 })
    );
    let told = Action::Send {
        to: Node(2),
        message: Message::Resumed,
    };
    assert!(bench.done.iter().any(|(_, action)| *action == told));
}

/// Just after tunnel 2 began to drain.
fn draining() -> Bench {
    let mut bench = far_and_near(only_gain());
    bench.run(300);
    bench.learn(3, 1);
    for destination in 10..20 {
        bench.distances.insert((3, destination), millis(1));
    }
    while bench
        .peer(2)
        .is_none_or(|peer| peer.stage != Stage::Draining)
    {
        let next = bench.now.as_nanos() / 1_000_000_000 + 1;
        assert!(next < 3000);
        bench.run(next);
    }
    bench
}

#[test]
fn the_nearest_gets_a_tunnel_and_a_little_nearer_is_not_nearer() {
    let mut bench = Bench::new(Config {
        near: true,
        gain: 0,
        ..only_gain()
    });
    bench.linked(1, 50);
    bench.learn(2, 10);
    bench.run(200);
    let (_, reason) = bench.opened(2).expect("opened");
    let before = Some(millis(50));
    let round_trip = millis(10);
    assert_eq!(reason, Reason::Near { round_trip, before });
    bench.learn(3, 9);
    bench.run(4000);
    assert_eq!(bench.opened(3), None);
    bench.learn(4, 5);
    bench.run(8000);
    assert!(bench.opened(4).is_some());
}

#[test]
fn traffic_decides_between_equals() {
    for busy in [10, 11] {
        let mut bench = Bench::new(only_gain());
        bench.linked(1, 10);
        for (node, near) in [(2, 10), (3, 11)] {
            bench.learn(node, 20);
            bench.learn(near, 500);
            bench.distances.insert((1, near), millis(90));
            bench.distances.insert((node, near), millis(10));
        }
        for _ in 0..60 {
            bench.tell(Event::Traffic {
                destination: Node(busy),
                octets: 1_000_000,
            });
            let next = bench.now.as_nanos() / 1_000_000_000 + 5;
            bench.run(next);
        }
        let (towards, other) = if busy == 10 { (2, 3) } else { (3, 2) };
        assert!(bench.opened(towards).is_some(), "towards {busy}");
        assert_eq!(bench.opened(other), None);
    }
}

#[test]
fn reasons_tell_their_figures() {
    let mut bench = far_and_near(only_gain());
    bench.run(300);
    let reason = bench.peer(2).expect("there").reason.to_string();
    assert!(reason.starts_with("shortens paths by "), "{reason}");
    assert!(
        reason.contains(" % or ") && reason.ends_with(" ms"),
        "{reason}"
    );
}
