//! A node among others, who say what the test wants.

mod classes;
mod doubt;
mod lasting;
mod lost;
mod pairs;

use std::net::IpAddr;

use hextet_types::Prefix;
use proptest::{collection::vec, prelude::*};

use super::*;
use crate::{
    GROUP, Start,
    number::Interval,
    packet::{Frame, Tlv, Update, Writer, decode},
};

const LINK: LinkId = LinkId(3);
const OTHER: LinkId = LinkId(4);

fn addr(n: u16) -> Ipv6Addr {
    Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, n)
}

fn router(n: u8) -> RouterId {
    RouterId::try_from([0, 0, 0, 0, 0, 0, 0, n]).expect("a router-id")
}

fn to(text: &str) -> Destination {
    Destination::of(text.parse().expect("a prefix"))
}

fn peer(n: u16) -> Peer {
    let link = if n < 10 { LINK } else { OTHER };
    Peer {
        link,
        addr: addr(n),
    }
}

/// Neighbours 2 and 3 on a link of the node, 12 on another.
struct Bench {
    engine: Engine,
    now: Time,
    sent: Vec<(LinkId, Ipv6Addr, Tlv)>,
    to_ack: Vec<(u16, u16)>,
    ways: Vec<(Destination, Option<Way>)>,
    refused: Vec<Refusal>,
}

impl Bench {
    fn new() -> Bench {
        Bench::of(Config::new(router(1), [7; 32]))
    }

    fn of(mut config: Config) -> Bench {
        (config.destinations, config.neighbours) = (4, 2);
        let mut bench = Bench {
            engine: Engine::new(config),
            now: Time::from_secs(1),
            sent: Vec::new(),
            to_ack: Vec::new(),
            ways: Vec::new(),
            refused: Vec::new(),
        };
        for (id, n) in [(LINK, 1), (OTHER, 11)] {
            let link = Link {
                cost: crate::Cost::WIRED,
                ..Link::tunnel(addr(n))
            };
            bench.event(Event::LinkUp(id, link));
        }
        for n in [2, 3, 12] {
            bench.meet(n);
        }
        bench.wait(Duration::from_millis(500));
        bench.sent.clear();
        bench
    }

    fn meet(&mut self, n: u16) {
        let hello = |seqno| Tlv::Hello {
            unicast: false,
            seqno: Seqno(seqno),
            interval: Interval(60_000),
            timestamp: None,
        };
        let ihu = Tlv::Ihu {
            to: None,
            rxcost: Metric(96),
            interval: Interval(60_000),
            echo: None,
        };
        self.hear(n, &[hello(1), hello(2), ihu]);
    }

    fn event(&mut self, event: Event) {
        for action in self.engine.handle(event, self.now) {
            match action {
                Action::Send { link, to, octets } => {
                    let frame = Frame::of(&octets).expect("a packet");
                    let said = decode(frame.body, IpAddr::V6(addr(1)));
                    assert_eq!(said.ignored, 0);
                    self.to_ack
                        .extend(said.tlvs.iter().filter_map(|tlv| match tlv {
                            Tlv::AckRequest { opaque, .. } => Some((to.segments()[7], *opaque)),
                            _ => None,
                        }));
                    self.sent
                        .extend(said.tlvs.into_iter().map(|tlv| (link, to, tlv)));
                }
                Action::Route(to, way) => self.ways.push((to, way)),
                Action::Refused(refusal) => self.refused.push(refusal),
                Action::Reach(..) => {}
            }
        }
    }

    fn hear(&mut self, n: u16, tlvs: &[Tlv]) {
        let mut writer = Writer::new(1_400, IpAddr::V6(addr(n)));
        for tlv in tlvs {
            writer.push(tlv).expect("room");
        }
        self.event(Event::Datagram {
            link: peer(n).link,
            from: addr(n),
            to: GROUP,
            octets: writer.finish(),
        });
    }

    fn tell(&mut self, n: u16, prefix: &str, (origin, seqno, metric): (u8, u16, u16)) {
        let update = Update::Route {
            to: to(prefix),
            router_id: router(origin),
            seqno: Seqno(seqno),
            metric: Metric(metric),
            interval: Interval(10_000),
            next_hop: IpAddr::V6(addr(n)),
        };
        self.hear(n, &[Tlv::Update(update)]);
    }

    fn retract(&mut self, n: u16, prefix: Option<&str>) {
        let retraction = Update::Retraction {
            to: prefix.map(to),
            seqno: Seqno(1),
            interval: Interval(100),
        };
        self.hear(n, &[Tlv::Update(retraction)]);
    }

    /// Lets time pass; neighbours acknowledge what they get.
    fn wait(&mut self, duration: Duration) {
        let acked = |_: &Bench, _: u16| true;
        self.wait_and(duration, acked);
    }

    fn wait_and(&mut self, duration: Duration, acks: impl Fn(&Bench, u16) -> bool) {
        let end = self.now + duration;
        loop {
            for (n, opaque) in std::mem::take(&mut self.to_ack) {
                if acks(self, n) {
                    self.hear(n, &[Tlv::Ack { opaque }]);
                }
            }
            let next = self.engine.next_wakeup().filter(|at| *at <= end);
            let Some(at) = next else { break };
            self.now = self.now.max(at);
            self.event(Event::Timer);
        }
        self.now = end;
    }

    /// The way that the kernel knows now: by which neighbour, or 0 if it is unreachable.
    fn way(&self, prefix: &str) -> Option<u16> {
        let last = self.ways.iter().rev().find(|(of, _)| *of == to(prefix))?;
        last.1.map(|way| match way {
            Way::Via {
                next_hop: IpAddr::V6(addr),
                ..
            } => addr.segments()[7],
            Way::Via { .. } => panic!("IPv4"),
            Way::Unreachable => 0,
        })
    }

    /// What was sent to a neighbour since the last time, but for Hellos and the like.
    fn told(&mut self, n: u16) -> Vec<Tlv> {
        let (of_it, rest): (Vec<_>, Vec<_>) = std::mem::take(&mut self.sent)
            .into_iter()
            .partition(|(_, to, _)| *to == addr(n));
        self.sent = rest;
        let all = of_it.into_iter().map(|(_, _, tlv)| tlv);
        all.filter(|tlv| !matches!(tlv, Tlv::AckRequest { .. } | Tlv::Ack { .. }))
            .collect()
    }

    /// The metrics of one destination that a neighbour was told since the last time: none for a retraction.
    fn metrics(&mut self, n: u16, prefix: &str) -> Vec<Option<u16>> {
        let all = self.told(n).into_iter().filter_map(|tlv| match tlv {
            Tlv::Update(Update::Route { to: of, metric, .. }) if of == to(prefix) => {
                Some(Some(metric.0))
            }
            Tlv::Update(Update::Retraction { to: of, .. }) if of == Some(to(prefix)) => Some(None),
            _ => None,
        });
        all.collect()
    }

    fn requests(&mut self, n: u16) -> Vec<(u16, u8)> {
        let all = self.told(n).into_iter().filter_map(|tlv| match tlv {
            Tlv::SeqnoRequest {
                seqno, hop_count, ..
            } => Some((seqno.0, hop_count)),
            _ => None,
        });
        all.collect()
    }
}

const SOON: Duration = Duration::from_millis(100);
const NET: &str = "2001:db8:5::/48";

#[test]
fn a_new_neighbour_hears_hellos_at_once_and_is_asked_for_everything() {
    let mut bench = Bench::new();
    bench.event(Event::LinkDown(OTHER));
    let link = Link::tunnel(addr(11));
    bench.event(Event::LinkUp(OTHER, link));
    bench.sent.clear();
    bench.meet(12);
    bench.wait(SOON);
    let to_all = bench.sent.iter().filter(|(_, to, _)| *to == GROUP);
    let hellos = to_all
        .clone()
        .filter(|(_, _, tlv)| matches!(tlv, Tlv::Hello { .. }));
    assert!(hellos.count() >= 3);
    let hears = |tlv: &Tlv| {
        matches!(
            tlv,
            Tlv::Ihu {
                rxcost: Metric(16),
                ..
            }
        )
    };
    assert!(to_all.clone().any(|(_, _, tlv)| hears(tlv)));
    assert_eq!(bench.told(12), [Tlv::RouteRequest(None)]);
}

#[test]
fn the_nearest_is_taken_and_told_to_all_others() {
    let mut bench = Bench::new();
    bench.tell(2, NET, (5, 1, 300));
    bench.tell(3, NET, (5, 1, 100));
    assert_eq!(bench.way(NET), Some(3));
    bench.wait(SOON);
    assert_eq!(bench.metrics(12, NET), [Some(196)]);
    assert_eq!(bench.metrics(2, NET), [Some(196)]);
    assert_eq!(bench.metrics(3, NET), [None], "it comes from there");
    // A little better is not worth a change, and a little worse not worth a word.
    bench.tell(2, NET, (5, 1, 90));
    assert_eq!(bench.way(NET), Some(3));
    bench.tell(3, NET, (5, 1, 110));
    bench.wait(Duration::from_secs(1));
    assert_eq!(bench.metrics(12, NET), []);
    bench.tell(2, NET, (5, 1, 10));
    assert_eq!(bench.way(NET), Some(2));
    bench.wait(Duration::from_secs(1));
    assert_eq!(bench.metrics(12, NET), [Some(106)]);
}

#[test]
fn who_is_no_transit_uses_ways_and_tells_none_but_its_own() {
    let mut bench = Bench::of(Config {
        transit: false,
        ..Config::new(router(1), [7; 32])
    });
    bench.event(Event::Originate(to("2001:db8:1::/48"), Metric(7)));
    bench.tell(2, NET, (5, 1, 100));
    assert_eq!(bench.way(NET), Some(2));
    let request = Tlv::SeqnoRequest {
        to: to(NET),
        router_id: router(5),
        seqno: Seqno(2),
        hop_count: 9,
    };
    bench.hear(12, &[Tlv::RouteRequest(None), request]);
    bench.wait(Duration::from_secs(120));
    assert_eq!(bench.requests(2), [], "nobody is asked for others");
    let told = bench.told(12);
    assert!(told.iter().all(|tlv| !tells(tlv, NET)), "{told:?}");
    assert!(told.iter().any(|tlv| tells(tlv, "2001:db8:1::/48")));
    bench.retract(2, Some(NET));
    bench.wait(Duration::from_secs(2));
    assert_eq!(bench.way(NET), None, "nobody has to hear that it is gone");
}

fn tells(tlv: &Tlv, prefix: &str) -> bool {
    matches!(tlv, Tlv::Update(Update::Route { to: of, .. }) if *of == to(prefix))
}

#[test]
fn own_destinations_are_told_and_never_learnt() {
    let mut bench = Bench::new();
    bench.event(Event::Originate(to(NET), Metric(7)));
    bench.tell(2, NET, (5, 1, 100));
    bench.wait(SOON);
    assert_eq!(
        (bench.way(NET), bench.metrics(12, NET)),
        (None, vec![Some(7)])
    );
    bench.event(Event::Withdraw(to(NET)));
    assert_eq!(bench.way(NET), Some(2), "the other origin's is left");
    bench.tell(2, NET, (1, 1, 100));
    assert_eq!(bench.way(NET), Some(0), "our own, come back");
    for never in [
        "fe80::/64",
        "ff02::/16",
        "::1/128",
        "127.0.0.0/8",
        "224.0.0.0/24",
    ] {
        bench.tell(2, never, (5, 1, 100));
        assert_eq!(bench.way(never), None, "{never}");
    }
}

#[test]
fn what_is_lost_is_unreachable_until_all_know() {
    let mut bench = Bench::new();
    bench.tell(2, NET, (5, 1, 100));
    bench.wait(SOON);
    bench.sent.clear();
    bench.retract(2, Some(NET));
    assert_eq!(bench.way(NET), Some(0));
    // Neighbour 12 does not acknowledge: it is told again and again.
    bench.wait_and(Duration::from_secs(2), |_, n| n != 12);
    assert_eq!(bench.way(NET), Some(0));
    let told = bench.metrics(12, NET);
    assert!((3..=5).contains(&told.len()), "{told:?}");
    assert!(told.iter().all(Option::is_none));
    assert_eq!(bench.metrics(3, NET), [None], "once is enough");
    bench.wait(Duration::from_secs(5));
    assert_eq!(bench.way(NET), None);
    assert!(bench.engine.table.is_empty());
}

#[test]
fn who_never_acknowledges_does_not_hold_it_for_ever() {
    let mut bench = Bench::new();
    bench.tell(2, NET, (5, 1, 100));
    bench.wait(SOON);
    bench.retract(2, None);
    bench.wait_and(Duration::from_secs(239), |_, _| false);
    assert_eq!(bench.way(NET), Some(0));
    bench.wait_and(Duration::from_secs(2), |_, _| false);
    assert_eq!(bench.way(NET), None);
}

#[test]
fn what_is_too_near_is_not_taken_but_asked_for() {
    let mut bench = Bench::new();
    bench.tell(2, NET, (5, 1, 100));
    bench.tell(3, NET, (5, 1, 250));
    bench.wait(SOON);
    bench.sent.clear();
    // We have told 196: who tells 250 may go by us.
    bench.retract(2, Some(NET));
    assert_eq!(bench.way(NET), Some(0));
    assert_eq!(bench.requests(3), [(2, 64)]);
    bench.wait_and(Duration::from_millis(700), |_, _| true);
    assert_eq!(bench.requests(3), [(2, 64); 2], "until there is an answer");
    bench.tell(3, NET, (5, 2, 250));
    assert_eq!(bench.way(NET), Some(3));
    bench.wait(Duration::from_secs(5));
    assert_eq!(bench.requests(3), []);
}

#[test]
fn the_present_route_becomes_too_near() {
    // Of the same origin: it stays what it was. Of another: it is none any more.
    for (origin, way) in [(5, Some(2)), (6, Some(0))] {
        let mut bench = Bench::new();
        bench.tell(2, NET, (6, 9, 100));
        bench.wait(SOON);
        bench.tell(2, NET, (5, 1, 100));
        bench.wait(SOON);
        bench.sent.clear();
        assert_eq!(bench.way(NET), Some(2));
        let (seqno, metric) = if origin == 5 { (1, 197) } else { (8, 50) };
        bench.tell(2, NET, (origin, seqno, metric));
        assert_eq!(bench.way(NET), way, "{origin}");
        let wanted = if origin == 5 { 2 } else { 10 };
        assert_eq!(bench.requests(2), [(wanted, 64)], "{origin}");
    }
}

fn ask(seqno: u16, hop_count: u8, origin: u8) -> Tlv {
    Tlv::SeqnoRequest {
        to: to(NET),
        seqno: Seqno(seqno),
        hop_count,
        router_id: router(origin),
    }
}

#[test]
fn the_origin_s_number_grows_by_one_for_those_who_ask_for_more() {
    let mut bench = Bench::new();
    bench.event(Event::Originate(to(NET), Metric(0)));
    bench.wait(SOON);
    bench.sent.clear();
    for (wanted, seqno) in [(1, 1), (2, 2), (100, 3), (3, 3), (65_000, 3)] {
        bench.hear(2, &[ask(wanted, 64, 1)]);
        assert_eq!(bench.engine.seqno, Seqno(seqno), "{wanted}");
        bench.wait(SOON);
        assert!(bench.metrics(2, NET).contains(&Some(0)), "{wanted}");
    }
    bench.hear(2, &[ask(9, 64, 1), ask(10, 64, 1), ask(11, 64, 1)]);
    assert_eq!(bench.engine.seqno, Seqno(4), "at a bounded pace");
}

#[test]
fn a_request_is_handed_on_to_one_and_the_asker_gets_the_answer() {
    let mut bench = Bench::new();
    bench.tell(2, NET, (5, 1, 100));
    bench.wait(SOON);
    bench.sent.clear();
    bench.hear(12, &[ask(1, 64, 5)]);
    bench.wait(SOON);
    assert_eq!(bench.metrics(12, NET), [Some(196)], "it is known already");
    bench.hear(12, &[ask(2, 64, 5), ask(2, 64, 5)]);
    bench.hear(3, &[ask(2, 64, 5)]);
    assert_eq!(bench.requests(2), [(2, 63)], "once");
    assert_eq!(bench.requests(3), []);
    bench.hear(12, &[ask(3, 1, 5)]);
    bench.hear(2, &[ask(3, 64, 5)]);
    assert_eq!(
        (bench.requests(2), bench.requests(3)),
        (vec![], vec![]),
        "no further, and not back"
    );
    bench.tell(2, NET, (5, 2, 100));
    bench.wait(SOON);
    assert_eq!(bench.metrics(12, NET), [Some(196)]);
    bench.hear(12, &[ask(7, 64, 6)]);
    bench.wait(SOON);
    assert_eq!(bench.metrics(12, NET), [Some(196)], "of another origin");
}

#[test]
fn a_route_that_is_not_said_again_is_asked_for_and_dropped() {
    let mut bench = Bench::new();
    bench.tell(2, NET, (5, 1, 100));
    bench.wait(Duration::from_secs(100 * 7 / 2 - 1));
    bench.sent.clear();
    assert_eq!(bench.way(NET), Some(2));
    bench.wait(Duration::from_secs(2));
    assert_eq!(bench.told(2), [Tlv::RouteRequest(Some(to(NET)))]);
    bench.wait(Duration::from_secs(51));
    assert_eq!(bench.way(NET), None);
}

#[test]
fn a_dead_link_is_left_at_once() {
    for event in [Event::LinkDead(LINK), Event::LinkDown(LINK)] {
        let mut bench = Bench::new();
        bench.tell(2, NET, (5, 1, 100));
        bench.tell(12, NET, (5, 1, 190));
        bench.wait(SOON);
        assert_eq!(bench.way(NET), Some(2));
        bench.event(event);
        assert_eq!(bench.way(NET), Some(12));
    }
}

#[test]
fn a_link_to_be_closed_is_left_where_there_is_another_way() {
    const ELSEWHERE: &str = "2001:db8:6::/48";
    let mut bench = Bench::new();
    bench.tell(2, NET, (5, 1, 100));
    bench.tell(12, NET, (5, 1, 190));
    bench.tell(2, ELSEWHERE, (6, 1, 0));
    bench.wait(SOON);
    let used = |bench: &Bench| {
        let links = bench.engine.status().links;
        links.iter().map(|link| link.routes).collect::<Vec<_>>()
    };
    assert_eq!(used(&bench), [2, 0]);
    bench.told(12);
    bench.sent.clear();
    bench.event(Event::LinkCost(LINK, Metric::DRAIN));
    assert_eq!((bench.way(NET), bench.way(ELSEWHERE)), (Some(12), Some(2)));
    assert_eq!(used(&bench), [1, 1]);
    bench.wait(Duration::from_secs(1));
    assert_eq!(bench.metrics(12, ELSEWHERE), [Some(8_288)]);
    let dear = |tlv: &Tlv| matches!(tlv, Tlv::Ihu { rxcost, .. } if rxcost.0 == 96 + 8_192);
    assert!(
        bench
            .sent
            .iter()
            .any(|(link, _, tlv)| *link == LINK && dear(tlv))
    );
    bench.event(Event::LinkCost(LINK, Metric::ZERO));
    assert_eq!((bench.way(NET), used(&bench)), (Some(2), vec![2, 0]));
    // However dear: who has no other way goes by it.
    bench.event(Event::LinkCost(LINK, Metric(60_000)));
    assert_eq!(bench.way(ELSEWHERE), Some(2));
    bench.event(Event::LinkCost(LinkId(9), Metric::DRAIN));
    assert_eq!(bench.refused, [Refusal::NoLink(LinkId(9))]);
}

#[test]
fn who_gets_dearer_asks_for_what_is_cheaper_and_may_not_be_taken() {
    let mut bench = Bench::new();
    bench.tell(2, NET, (5, 1, 100));
    bench.tell(12, NET, (5, 1, 250));
    bench.wait(SOON);
    bench.sent.clear();
    bench.event(Event::LinkCost(LINK, Metric::DRAIN));
    assert_eq!(
        (bench.way(NET), bench.requests(12)),
        (Some(2), vec![(2, 64)])
    );
    bench.tell(12, NET, (5, 2, 250));
    assert_eq!(bench.way(NET), Some(12));
}

/// Neighbour 12 is alone on its link. Of what is sent there nothing comes back.
fn carry(bench: &mut Bench, heard: Option<Time>) {
    let event = Event::Traffic(OTHER, Some(bench.now), heard);
    bench.event(event);
}

fn probes(bench: &Bench) -> usize {
    let is_probe = |tlv: &Tlv| matches!(tlv, Tlv::AckRequest { interval, .. } if interval.0 == 1);
    bench
        .sent
        .iter()
        .filter(|(_, _, tlv)| is_probe(tlv))
        .count()
}

#[test]
fn a_link_that_swallows_what_is_sent_is_dead() {
    let mut bench = Bench::new();
    bench.tell(12, NET, (5, 1, 100));
    bench.tell(2, NET, (5, 1, 190));
    bench.wait(SOON);
    assert_eq!(bench.way(NET), Some(12));
    carry(&mut bench, None);
    bench.wait_and(Duration::from_millis(99), |_, _| false);
    assert_eq!(probes(&bench), 0);
    bench.wait_and(Duration::from_millis(200), |_, _| false);
    assert_eq!((probes(&bench), bench.way(NET)), (4, Some(12)));
    bench.wait_and(Duration::from_millis(2), |_, _| false);
    assert_eq!(bench.way(NET), Some(2));
    bench.meet(12);
    bench.wait(SOON);
    bench.tell(12, NET, (5, 2, 20));
    assert_eq!(bench.way(NET), Some(12), "it is back");
}

#[test]
fn what_is_answered_is_not_probed_and_what_is_not_is_until_it_is() {
    let mut bench = Bench::new();
    bench.tell(12, NET, (5, 1, 100));
    bench.wait(SOON);
    // Two ways of traffic: no probes at all.
    for _ in 0..20 {
        let now = bench.now;
        carry(&mut bench, Some(now));
        bench.wait(Duration::from_millis(50));
    }
    assert_eq!(probes(&bench), 0);
    // One way: probes are answered, and the next one is only sent when something has been sent again.
    for _ in 0..20 {
        carry(&mut bench, None);
        bench.wait(Duration::from_millis(50));
    }
    let sent = probes(&bench);
    assert!((5..=10).contains(&sent), "{sent} in a second");
    bench.wait(Duration::from_secs(3));
    assert!(probes(&bench) <= sent + 1, "silence is not probed");
    assert_eq!(bench.way(NET), Some(12));
}

#[test]
fn a_long_way_takes_longer_to_be_dead() {
    let mut bench = Bench::new();
    let start = bench.now;
    let (hello, ihu) = (
        |sent| Tlv::Hello {
            unicast: false,
            seqno: Seqno(3),
            interval: Interval(60_000),
            timestamp: Some(sent),
        },
        |origin, received| Tlv::Ihu {
            to: None,
            rxcost: Metric(96),
            interval: Interval(60_000),
            echo: Some(crate::packet::Echo { origin, received }),
        },
    );
    bench.wait(Duration::from_millis(200));
    let sent = u32::try_from(start.as_nanos() / 1_000).expect("a stamp");
    bench.hear(12, &[hello(500), ihu(sent, 500)]);
    bench.tell(12, NET, (5, 1, 100));
    bench.wait(SOON);
    carry(&mut bench, None);
    bench.wait_and(Duration::from_millis(201), |_, _| false);
    assert_eq!(probes(&bench), 1, "the answer has time to come");
    bench.wait_and(Duration::from_millis(398), |_, _| false);
    assert_eq!(bench.way(NET), Some(12), "three round trips of 200 ms");
    bench.wait_and(Duration::from_millis(2), |_, _| false);
    assert_eq!(bench.way(NET), Some(0));
}

#[test]
fn a_neighbour_that_begins_anew_has_forgotten_what_it_said() {
    let mut bench = Bench::new();
    bench.tell(2, NET, (5, 1, 100));
    let hello = Tlv::Hello {
        unicast: false,
        seqno: Seqno(40_000),
        interval: Interval(400),
        timestamp: None,
    };
    bench.hear(2, &[hello]);
    assert_eq!(bench.way(NET), Some(0));
}

#[test]
fn there_is_an_end_to_neighbours_and_destinations() {
    let mut bench = Bench::new();
    bench.meet(4);
    assert_eq!(bench.refused, [Refusal::Neighbour(peer(4))]);
    bench.tell(4, NET, (5, 1, 100));
    assert_eq!(bench.way(NET), None);
    for n in 1..=5 {
        bench.tell(2, &format!("2001:db8:{n}::/48"), (5, 1, 100));
    }
    let too_many = Refusal::Destination {
        peer: peer(2),
        to: to(NET),
    };
    assert_eq!((&bench.refused[1], bench.way(NET)), (&too_many, None));
    assert_eq!(bench.way("2001:db8:4::/48"), Some(2));
}

#[test]
fn strangers_are_not_heard() {
    let mut bench = Bench::new();
    let octets = Writer::new(600, IpAddr::V6(addr(2))).finish();
    let datagram = |link, from: &str, to: &str| Event::Datagram {
        link,
        from: from.parse().expect("an address"),
        to: to.parse().expect("an address"),
        octets: octets.clone(),
    };
    bench.event(datagram(LinkId(9), "fe80::2", "ff02::1:6"));
    bench.event(datagram(LINK, "2001:db8::2", "ff02::1:6"));
    bench.event(datagram(LINK, "fe80::2", "ff02::1"));
    assert_eq!(bench.refused.len(), 3);
    bench.event(datagram(LINK, "fe80::1", "ff02::1:6"));
    bench.event(datagram(LINK, "fe80::2", "fe80::1"));
    assert_eq!(bench.refused.len(), 3, "ourselves, and a neighbour");
}

#[test]
fn ipv4_goes_by_what_the_link_has() {
    use crate::NextHopV4;
    const NET_V4: &str = "192.0.2.0/24";
    let own = "10.0.0.1".parse().expect("an address");
    for (v4, wanted) in [
        (NextHopV4::None, None),
        (NextHopV4::Own(own), Some(IpAddr::V4(own))),
        (NextHopV4::ViaV6, Some(IpAddr::V6(addr(1)))),
    ] {
        let mut bench = Bench::new();
        let link = Link {
            v4,
            ..Link::tunnel(addr(1))
        };
        bench.event(Event::LinkUp(LINK, link));
        bench.event(Event::Originate(to(NET_V4), Metric(0)));
        bench.wait(SOON);
        let hops = bench.told(2).into_iter().filter_map(|tlv| match tlv {
            Tlv::Update(Update::Route { next_hop, .. }) => Some(next_hop),
            _ => None,
        });
        assert_eq!(hops.collect::<Vec<_>>(), Vec::from_iter(wanted));
    }
}

fn arb_prefix() -> impl Strategy<Value = Prefix> {
    (0_u8..4, 40_u8..50).prop_map(|(n, len)| {
        let addr = Ipv6Addr::new(0x2001, 0xdb8, u16::from(n) << 14, 0, 0, 0, 0, 0);
        Prefix::new(addr.into(), len).unwrap_or_else(|_| Prefix::host(addr.into()))
    })
}

fn arb_start() -> impl Strategy<Value = Option<Start>> {
    proptest::option::of(prop_oneof![Just(Start::Fresh), Just(Start::Resumed)])
}

fn arb_tlv() -> impl Strategy<Value = Tlv> {
    let number = any::<u16>();
    prop_oneof![
        (any::<bool>(), number, number).prop_map(|(unicast, seqno, interval)| Tlv::Hello {
            unicast,
            seqno: Seqno(seqno % 8),
            interval: Interval(interval),
            timestamp: None,
        }),
        (number, 1_u16..).prop_map(|(rxcost, interval)| Tlv::Ihu {
            to: None,
            rxcost: Metric(rxcost),
            interval: Interval(interval),
            echo: None,
        }),
        (arb_prefix(), 1_u8..4, number, number, 1_u16..).prop_map(
            |(prefix, origin, seqno, metric, interval)| {
                let route = Update::Route {
                    to: Destination::of(prefix),
                    router_id: router(origin),
                    seqno: Seqno(seqno),
                    metric: Metric(metric % 5_000),
                    interval: Interval(interval),
                    next_hop: IpAddr::V6(addr(2)),
                };
                Tlv::Update(route)
            }
        ),
        proptest::option::of(arb_prefix()).prop_map(|prefix| Tlv::Update(Update::Retraction {
            to: prefix.map(Destination::of),
            seqno: Seqno(0),
            interval: Interval(1),
        })),
        proptest::option::of(arb_prefix())
            .prop_map(|prefix| Tlv::RouteRequest(prefix.map(Destination::of))),
        (arb_prefix(), number, 1_u8.., 1_u8..4).prop_map(|(prefix, seqno, hop_count, origin)| {
            Tlv::SeqnoRequest {
                to: Destination::of(prefix),
                seqno: Seqno(seqno),
                hop_count,
                router_id: router(origin),
            }
        }),
        (number, number, arb_start()).prop_map(|(opaque, interval, start)| Tlv::AckRequest {
            opaque,
            interval: Interval(interval),
            start,
        }),
        number.prop_map(|opaque| Tlv::Ack { opaque }),
    ]
}

proptest! {
    /// Whatever neighbours say, and whenever: a route is gone by only while it is feasible, the kernel has what is chosen, and nothing
    /// is left of those who are gone.
    #[test]
    fn what_is_chosen_may_be(said in vec((0_usize..3, vec(arb_tlv(), 1..6), 0_u64..20_000), 1..40)) {
        let mut bench = Bench::new();
        for (n, tlvs, pause) in said {
            bench.hear([2, 3, 12][n], &tlvs);
            bench.wait_and(Duration::from_millis(pause), |bench, n| bench.sent.len() % 3 == usize::from(n) % 3);
            for route in bench.engine.status().routes {
                prop_assert!(route.is_feasible || !route.is_chosen, "{route:?}");
            }
            for (of, entry) in &bench.engine.table {
                let last = bench.ways.iter().rev().find(|(to, _)| to == of);
                prop_assert_eq!(last.and_then(|(_, way)| *way), entry.way());
            }
        }
        for link in [LINK, OTHER] {
            bench.event(Event::LinkDown(link));
        }
        bench.wait(Duration::from_secs(600));
        prop_assert!(bench.engine.table.is_empty());
        prop_assert!(bench.engine.neighbours.is_empty());
        prop_assert!(bench.engine.outboxes.is_empty());
        prop_assert!(bench.engine.unconfirmed.is_empty());
        prop_assert!(bench.engine.pending.is_empty());
    }

    #[test]
    fn any_octets_are_taken(octets in vec(any::<u8>(), 0..200), n in 0_usize..3) {
        let mut bench = Bench::new();
        let mut datagram = vec![42, 2, 0, u8::try_from(octets.len()).unwrap_or(0)];
        datagram.extend(octets);
        bench.event(Event::Datagram {
            link: LINK,
            from: addr([2, 3, 12][n] as u16),
            to: GROUP,
            octets: datagram,
        });
    }
}
