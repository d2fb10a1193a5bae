//! A node of Babel that hears anything from its neighbours, at any time: no panic, nothing that grows without end, and only feasible
//! routes are gone by.
//!
//! The input is a run: an octet that says who speaks, one for how long it takes (hundredths of a second), one for how many octets follow, those.

#![no_main]

use std::net::Ipv6Addr;

use hextet_babel::{
    Config, Engine, Event, GROUP, Link, LinkId,
    mac::{self, Algorithm, Key},
    number::{Metric, RouterId},
    packet::Destination,
};
use hextet_types::Time;
use libfuzzer_sys::fuzz_target;
use std::time::Duration;

const DESTINATIONS: usize = 8;

fn addr(n: u16) -> Ipv6Addr {
    Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, n)
}

fuzz_target!(|data: &[u8]| {
    let Ok(router_id) = RouterId::try_from([1; 8]) else {
        return;
    };
    let Ok(key) = Key::new(Algorithm::HmacSha256, vec![7; 32]) else {
        return;
    };
    let mut config = Config::new(router_id, [7; 32]);
    (config.destinations, config.neighbours) = (DESTINATIONS, 3);
    let mut engine = Engine::new(config);
    let mut now = Time::from_secs(1);
    for (id, keys) in [(1, Vec::new()), (2, vec![key.clone()])] {
        let link = Link {
            keys,
            ..Link::tunnel(addr(1))
        };
        engine.handle(Event::LinkUp(LinkId(id), link), now);
    }
    if let Ok(prefix) = "2001:db8::/48".parse() {
        engine.handle(Event::Originate(Destination::of(prefix), Metric::ZERO), now);
    }
    let mut rest = data;
    while let [who, pause, len, more @ ..] = rest {
        let (octets, after) = more.split_at(usize::from(*len).min(more.len()));
        rest = after;
        let (link, from) = (
            LinkId(1 + u32::from(who >> 7)),
            addr(2 + u16::from(who & 7)),
        );
        let mut datagram = vec![42, 2, 0, u8::try_from(octets.len()).unwrap_or(0)];
        datagram.extend(octets);
        if link == LinkId(2) {
            mac::sign(std::slice::from_ref(&key), from, GROUP, &mut datagram);
        }
        let event = Event::Datagram {
            link,
            from,
            to: GROUP,
            octets: datagram,
        };
        engine.handle(event, now);
        now += Duration::from_millis(u64::from(*pause) * 10);
        engine.handle(Event::Timer, now);
        let status = engine.status();
        assert!(
            status
                .routes
                .iter()
                .all(|route| route.is_feasible || !route.is_chosen)
        );
        assert!(status.links.iter().all(|link| link.neighbours.len() <= 3));
        assert!(engine.next_wakeup().is_some_and(|at| at > now));
    }
});
