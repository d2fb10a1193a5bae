//! Whatever routers on an uplink say: no panic, nothing kept without bound, nothing that has run out is told, and time is
//! never asked for twice.
//!
//! The input is messages, each behind an octet that says how much later it comes and from which router, and one with its length; their
//! frames are right.

#![no_main]

use std::net::Ipv6Addr;

use hextet_autoconf::{
    frame::Envelope,
    upstream::{Action, Event, Listener, MAX_OPTIONS, MAX_ROUTERS, Upstream},
};
use hextet_types::{Mac, Time};
use libfuzzer_sys::fuzz_target;

const OURS: Mac = Mac::new([2, 0, 0, 0, 0, 1]);
const ROUTER: Mac = Mac::new([2, 0, 0, 0, 0, 2]);
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);

fuzz_target!(|input: &[u8]| {
    let mut listener = Listener::new(OURS, Upstream::default());
    let mut now = Time::from_secs(1);
    listener.handle(Event::Up(None), now);
    let mut rest = input;
    while let [when, length, behind @ ..] = rest {
        let (message, behind) = behind.split_at(behind.len().min(usize::from(*length)));
        rest = behind;
        now += std::time::Duration::from_secs(u64::from(when >> 5) * 600);
        let actions = listener.handle(Event::Timer, now);
        check(&listener, &actions, now);
        let envelope = Envelope {
            source_mac: ROUTER,
            destination_mac: Mac::new([0x33, 0x33, 0, 0, 0, 1]),
            source: Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, u16::from(when & 0x1f)),
            destination: ALL_NODES,
        };
        if let Some(frame) = envelope.neighbour_discovery(message) {
            let actions = listener.handle(Event::Frame(&frame), now);
            check(&listener, &actions, now);
        }
        listener.handle(Event::Frame(message), now);
    }
});

fn check(listener: &Listener, actions: &[Action], now: Time) {
    assert!(listener.next_wakeup().is_none_or(|at| at > now));
    for action in actions {
        if let Action::Tell(said) = action {
            assert!(said.routers.len() <= MAX_ROUTERS);
            assert!(said.prefixes.len() <= MAX_ROUTERS * MAX_OPTIONS);
        }
    }
}
