//! What workloads announce, from end to end: frames out of their links, real agents on three hosts and a real server, and
//! the ways in the kernels of those who only look on. Both families; and what must have no effect.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

#[path = "../cloud/mod.rs"]
mod cloud;

use std::{
    net::IpAddr,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use cloud::{Cloud, frame::Word};

/// What two guests may use besides their own.
const SHARED: [&str; 2] = ["10.0.0.100", "fd00::100"];
/// The same: announced last, it shows that all before it was heard.
const MARKS: [&str; 2] = ["10.0.0.101", "fd00::101"];
/// What a third may use.
const OTHERS: [&str; 2] = ["10.0.0.110", "fd00::110"];
/// What nobody may use.
const NOBODYS: [&str; 2] = ["10.0.0.120", "fd00::120"];

fn addrs(texts: [&str; 2]) -> [IpAddr; 2] {
    texts.map(|text| text.parse().unwrap())
}

/// Says it again and again until the work is done.
fn meanwhile(speak: impl Fn() + Sync, work: impl FnOnce()) {
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let _over = Over(&over);
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                speak();
                thread::sleep(Duration::from_millis(2));
            }
        });
        work();
    });
}

/// Ends what goes on meanwhile, also when the work fails.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Two that share on h1 and h2, and one on h3 that looks on.
fn sharing() -> (Cloud, [cloud::Guest; 2], cloud::Guest) {
    let cloud = Cloud::up();
    let pairs = [SHARED, MARKS].concat();
    let sharers = [1, 2].map(|n| cloud.guest(n, n, &pairs));
    let third = cloud.guest(3, 3, &[]);
    (cloud, sharers, third)
}

#[test]
fn an_announcement_makes_the_way_on_all_hosts() {
    let (cloud, sharers, _third) = sharing();
    let words = [Word::Gratuitous, Word::Vrrp(3), Word::Gratuitous];
    for (turn, word) in words.into_iter().enumerate() {
        let who = &sharers[(turn + 1) % 2];
        let addrs = addrs(SHARED);
        for addr in addrs {
            who.says(word, addr);
        }
        for addr in addrs {
            cloud.leads_from(3, addr, who.host);
            // The former one has the same way as everybody else.
            cloud.leads_from(3 - who.host, addr, who.host);
        }
    }
    // Version 2 knows no IPv6.
    let [v4, _] = addrs(SHARED);
    sharers[0].says(Word::Vrrp(2), v4);
    cloud.leads_from(3, v4, 1);
}

#[test]
fn what_a_port_may_not_have_it_does_not_get() {
    let (cloud, [first, second], third) = sharing();
    for addr in addrs(SHARED) {
        first.says(Word::Gratuitous, addr);
        cloud.leads_from(3, addr, 1);
    }
    for word in [Word::Gratuitous, Word::Vrrp(3)] {
        for addr in addrs(NOBODYS).into_iter().chain(third.own.iter().copied()) {
            second.says(word, addr);
        }
        for addr in addrs(SHARED) {
            second.says_as([2, 0, 0, 0, 0, 99], word, addr);
        }
    }
    // Who has no pairs has no say.
    for addr in addrs(SHARED) {
        third.says(Word::Gratuitous, addr);
    }
    for addr in addrs(MARKS) {
        second.says(Word::Gratuitous, addr);
        cloud.leads_from(3, addr, 2);
    }
    for addr in addrs(NOBODYS) {
        cloud.leads_nowhere(3, addr);
        cloud.leads_nowhere(1, addr);
    }
    for addr in addrs(SHARED) {
        cloud.leads_from(3, addr, 1);
    }
    for addr in third.own.iter().copied() {
        cloud.leads_from(1, addr, 3);
    }
    let before = cloud.changes();
    // Once more it changes nothing, at the server either.
    for addr in addrs(MARKS) {
        second.says(Word::Gratuitous, addr);
    }
    for addr in addrs(SHARED) {
        second.says(Word::Gratuitous, addr);
        cloud.leads_from(3, addr, 2);
    }
    assert_eq!(cloud.changes() - before, 2, "one for each that moved");
}

#[test]
fn who_floods_is_held_back_and_holds_up_nobody() {
    let (cloud, [first, second], _third) = sharing();
    let neighbour = cloud.guest(4, 1, &OTHERS);
    let elsewhere = cloud.guest(5, 2, &OTHERS);
    for addr in addrs(OTHERS) {
        elsewhere.says(Word::Gratuitous, addr);
        cloud.leads_from(3, addr, 2);
    }
    let before = cloud.changes();
    let begin = Instant::now();
    let speak = || {
        for addr in addrs(SHARED).into_iter().chain(addrs(MARKS)) {
            first.says(Word::Gratuitous, addr);
            second.says(Word::Gratuitous, addr);
        }
    };
    meanwhile(speak, || {
        // They take from each other until neither may any more.
        cloud.is_refused();
        // On the very host of one that may no longer.
        for addr in addrs(OTHERS) {
            neighbour.says(Word::Gratuitous, addr);
            cloud.leads_from(3, addr, 1);
        }
    });
    // Ten changes at once and one a second for each of two ports; two of another.
    let seconds = usize::try_from(begin.elapsed().as_secs()).unwrap();
    let changes = cloud.changes() - before;
    assert!(changes <= 2 * (10 + seconds + 1) + 2, "{changes} changes");
}

#[test]
fn who_loses_its_pair_meanwhile_has_it_no_longer() {
    let (cloud, [first, second], _third) = sharing();
    for addr in addrs(SHARED) {
        first.says(Word::Gratuitous, addr);
        second.says(Word::Gratuitous, addr);
        cloud.leads_from(3, addr, 2);
    }
    let speak = || {
        for addr in addrs(SHARED) {
            second.says(Word::Vrrp(3), addr);
        }
    };
    meanwhile(speak, || cloud.pairs(&second, &MARKS));
    for addr in addrs(SHARED) {
        cloud.leads_from(3, addr, 1);
        second.says(Word::Gratuitous, addr);
    }
    for addr in addrs(MARKS) {
        cloud.heeds(&second, addr);
    }
    for addr in addrs(SHARED) {
        cloud.leads_from(3, addr, 1);
        cloud.leads_from(2, addr, 1);
    }
}
