//! Two classes of routes to one prefix.

use super::*;
use crate::packet::Class;

fn many(text: &str) -> Destination {
    to(text).in_class(Class::Throughput)
}

impl Bench {
    fn tells_of(&mut self, n: u16, to: Destination, (origin, seqno, metric): (u8, u16, u16)) {
        let update = Update::Route {
            to,
            router_id: router(origin),
            seqno: Seqno(seqno),
            metric: Metric(metric),
            interval: Interval(10_000),
            next_hop: IpAddr::V6(addr(n)),
        };
        self.hear(n, &[Tlv::Update(update)]);
    }

    fn goes_by(&self, to: Destination) -> Option<Way> {
        let last = self.ways.iter().rev().find(|(of, _)| *of == to)?;
        last.1
    }
}

const fn by(link: LinkId, n: u16) -> Option<Way> {
    let next_hop = IpAddr::V6(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, n));
    Some(Way::Via { link, next_hop })
}

#[test]
fn each_class_goes_by_what_counts_for_it() {
    let mut bench = Bench::new();
    bench.event(Event::LinkCarries(LINK, Metric(2_000)));
    bench.event(Event::LinkCarries(OTHER, Metric(20)));
    for (n, metric) in [(2, 10), (12, 500)] {
        bench.tells_of(n, to(NET), (5, 1, metric));
        bench.tells_of(n, many(NET), (5, 1, 100));
    }
    assert_eq!(bench.goes_by(to(NET)), by(LINK, 2));
    assert_eq!(bench.goes_by(many(NET)), by(OTHER, 12));
    // It carries less than was thought: those that want much leave it, and nobody else.
    bench.ways.clear();
    bench.event(Event::LinkCarries(OTHER, Metric(5_000)));
    bench.wait(Duration::from_secs(10));
    assert_eq!(bench.goes_by(many(NET)), by(LINK, 2));
    assert_eq!(bench.goes_by(to(NET)), None);
    bench.event(Event::LinkCost(LINK, Metric::DRAIN));
    bench.wait(Duration::from_secs(10));
    assert_eq!(bench.goes_by(many(NET)), by(OTHER, 12));
}

#[test]
fn others_are_told_of_a_class_in_its_own_measure() {
    let mut bench = Bench::new();
    bench.event(Event::LinkCarries(LINK, Metric(30)));
    bench.tells_of(2, many(NET), (5, 1, 100));
    bench.event(Event::Originate(many("2001:db8:1::/48"), Metric(7)));
    bench.wait(SOON);
    let told: Vec<_> = (bench.told(12).into_iter())
        .filter_map(|tlv| match tlv {
            Tlv::Update(Update::Route { to, metric, .. }) => Some((to, metric)),
            _ => None,
        })
        .collect();
    assert!(told.contains(&(many(NET), Metric(130))), "{told:?}");
    assert!(told.contains(&(many("2001:db8:1::/48"), Metric(7))));
    assert!(told.iter().all(|(to, _)| to.class() == Class::Throughput));
}

#[test]
fn what_a_silent_link_carries_is_nothing() {
    let mut bench = Bench::new();
    bench.tells_of(2, many(NET), (5, 1, 100));
    assert_eq!(bench.goes_by(many(NET)), by(LINK, 2));
    bench.event(Event::LinkDead(LINK));
    assert_ne!(bench.goes_by(many(NET)), by(LINK, 2));
    bench.event(Event::LinkCarries(LinkId(99), Metric(1)));
    assert!(matches!(bench.refused[..], [Refusal::NoLink(_)]));
}
