//! Neighbours that say nothing and forward, and a node that has done so.

use super::*;

/// Neighbour 12 lasts, on a link whose traffic is watched, and tells of a destination that nobody else has.
fn lasting(start: Option<Start>) -> Bench {
    let mut bench = Bench::new();
    bench.event(Event::Traffic(OTHER, None, None));
    bench.hear(12, &[promise(start)]);
    bench.tell(12, NET, (5, 1, 100));
    bench.wait(SOON);
    bench.hear(12, &[hello(3, 400)]);
    bench
}

fn promise(start: Option<Start>) -> Tlv {
    Tlv::AckRequest {
        opaque: 1,
        interval: Interval(1),
        start,
    }
}

fn hello(seqno: u16, interval: u16) -> Tlv {
    Tlv::Hello {
        unicast: false,
        seqno: Seqno(seqno),
        interval: Interval(interval),
        timestamp: None,
    }
}

const IHU: Tlv = Tlv::Ihu {
    to: None,
    rxcost: Metric(96),
    interval: Interval(60_000),
    echo: None,
};

fn is_stale(bench: &Bench) -> bool {
    let links = bench.engine.status().links;
    links
        .iter()
        .any(|link| link.neighbours.iter().any(|n| n.is_stale))
}

#[test]
fn who_lasts_is_gone_by_while_it_is_silent() {
    for (start, way) in [(Some(Start::Fresh), Some(12)), (None, None)] {
        let mut bench = lasting(start);
        // All Hellos are missed, and all that it said is overdue.
        bench.wait(Duration::from_secs(900));
        assert_eq!(
            (bench.way(NET), is_stale(&bench)),
            (way, way.is_some()),
            "{start:?}"
        );
    }
    let mut bench = lasting(Some(Start::Fresh));
    bench.wait(Duration::from_secs(3_700));
    assert_eq!(
        (bench.way(NET), is_stale(&bench)),
        (None, false),
        "not for ever"
    );
}

#[test]
fn who_lasts_is_dead_when_its_tunnel_is() {
    let mut bench = lasting(Some(Start::Fresh));
    bench.wait(Duration::from_secs(60));
    assert_eq!(bench.way(NET), Some(12));
    bench.engine.pings();
    carry(&mut bench, None);
    bench.wait_and(Duration::from_millis(250), |_, _| false);
    assert_eq!(bench.engine.pings(), BTreeSet::from([peer(12)]));
    // Its kernel answers, though its program does not.
    let heard = bench.now;
    bench.event(Event::Traffic(OTHER, None, Some(heard)));
    bench.wait_and(Duration::from_secs(1), |_, _| false);
    assert_eq!(bench.way(NET), Some(12));
    carry(&mut bench, None);
    bench.wait_and(Duration::from_millis(301), |_, _| false);
    assert_eq!((bench.way(NET), is_stale(&bench)), (Some(0), false));
}

#[test]
fn who_has_begun_anew_and_forwards_keeps_its_routes_until_it_has_told_them() {
    const ELSEWHERE: &str = "2001:db8:6::/48";
    for (start, way) in [
        (Some(Start::Resumed), Some(12)),
        (Some(Start::Fresh), Some(0)),
        (None, Some(0)),
    ] {
        let mut bench = lasting(Some(Start::Fresh));
        bench.tell(12, ELSEWHERE, (6, 1, 100));
        bench.wait(Duration::from_secs(30));
        bench.hear(12, &[hello(40_000, 60_000), hello(40_001, 60_000), IHU]);
        assert_eq!((bench.way(NET), is_stale(&bench)), (Some(12), false));
        bench.tell(12, ELSEWHERE, (6, 2, 100));
        bench.sent.clear();
        bench.hear(12, &[promise(start)]);
        assert_eq!(
            (bench.way(NET), bench.way(ELSEWHERE)),
            (way, Some(12)),
            "{start:?}"
        );
        bench.wait(Duration::from_secs(31));
        let asked = bench.told(12).contains(&Tlv::RouteRequest(Some(to(NET))));
        assert_eq!(asked, way == Some(12), "{start:?}");
    }
}

#[test]
fn who_speaks_and_does_not_hear_is_lost_in_the_end() {
    let mut bench = lasting(Some(Start::Fresh));
    for seqno in 4..40 {
        let deaf = Tlv::Ihu {
            to: None,
            rxcost: Metric::INFINITE,
            interval: Interval(1_000),
            echo: None,
        };
        bench.hear(12, &[hello(seqno, 400), deaf]);
        let is_used = bench.way(NET) == Some(12);
        assert_eq!(is_used, seqno < 10, "{seqno}");
        bench.wait(Duration::from_secs(3));
    }
}

#[test]
fn who_resumes_takes_and_tells_only_what_is_newer_than_it_was() {
    let mut config = Config::new(router(1), [7; 32]);
    config.lasting = Some(Start::Resumed);
    let mut bench = Bench::of(config);
    assert!(bench.engine.is_resuming());
    bench.tell(2, NET, (5, 7, 100));
    bench.tell(12, NET, (5, 6, 0));
    bench.hear(
        3,
        &[Tlv::RouteRequest(None), Tlv::RouteRequest(Some(to(NET)))],
    );
    bench.wait(Duration::from_secs(2));
    assert_eq!(
        (bench.way(NET), bench.metrics(3, NET)),
        (None, vec![]),
        "it may be by ourselves"
    );
    bench.sent.clear();
    bench.wait(Duration::from_secs(1));
    assert_eq!(bench.requests(2), [], "there is a nearer one");
    assert!(bench.requests(12).contains(&(8, 64)));
    bench.tell(2, NET, (5, 8, 100));
    assert_eq!(bench.way(NET), Some(2));
    bench.wait(SOON);
    assert_eq!(bench.metrics(3, NET), [Some(196)]);
    assert!(bench.engine.is_resuming());
    bench.wait(Duration::from_secs(20));
    assert!(!bench.engine.is_resuming());
    bench.hear(3, &[Tlv::RouteRequest(Some(to("2001:db8:9::/48")))]);
    bench.wait(SOON);
    assert_eq!(bench.metrics(3, "2001:db8:9::/48"), [None]);
}
