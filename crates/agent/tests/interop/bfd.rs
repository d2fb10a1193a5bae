//! BFD with BIRD: who is lost is noticed within a fraction of a second, and a restart is no loss.
//!
//! What BIRD 2.0.12 does, as these tests show it: it never sets the C bit, so its silence proves nothing
//! about its kernel (RFC 5882 §4.3), and it does not look at the peer's. `bfd graceful` makes it treat a
//! loss as the begin of a graceful restart, `bfd on` as the end of the session and its routes.

use std::time::Instant;

use hextet_agent::{bfd, clock::Clock};
use hextet_bfd::{
    Config,
    session::{Reason, Verdict},
};

use crate::{
    bird::{self, Bird},
    fabric::{Fabric, wait_for},
    speaker::{Peer, Speaker, peers},
};

const DEFAULTS: [&str; 2] = ["0.0.0.0/0", "::/0"];
const BY_S1: &str = "fe80::2%s1";
const BY_S2: &str = "fe80::3%s2";

/// A host with two spines, all watching each other.
struct TwoSpines<'f> {
    h1: Speaker,
    s1: Bird<'f>,
    _s2: Bird<'f>,
}

const LINKS: [(&str, &str); 2] = [("h1", "s1"), ("h1", "s2")];

fn spine_config(fabric: &Fabric, spine: &str) -> String {
    bird::preamble(fabric, spine)
        + &bird::routes(&DEFAULTS[..1], &DEFAULTS[1..])
        + &bird::client(fabric, spine, "h1")
}

impl<'f> TwoSpines<'f> {
    fn up(fabric: &'f Fabric) -> TwoSpines<'f> {
        let start = |spine| Bird::start(fabric, spine, &spine_config(fabric, spine));
        let (s1, s2) = (start("s1"), start("s2"));
        let both = ["s1", "s2"].map(|spine| Peer::link_local(fabric, spine).with("bfd = true"));
        let h1 = Speaker::start(fabric, "h1", &peers(both), &["2001:db8:1::5/128"]);
        let two = TwoSpines { h1, s1, _s2: s2 };
        two.wait_whole();
        two
    }

    fn wait_whole(&self) {
        for default in DEFAULTS {
            self.h1.wait_route(default, &[BY_S1, BY_S2]);
        }
        for session in [BY_S1, BY_S2] {
            self.h1
                .wait_until("BFD is up", |seen| seen.bfd_is_up(session));
        }
    }

    /// Both families leave s1, and only s1; says how long that took.
    fn wait_lost(&self, since: Instant, how: &str) {
        for default in DEFAULTS {
            let after = self.h1.time_to_lose(since, default, BY_S1);
            println!(
                "{how}: {default} left the lost spine after {} ms",
                after.as_millis()
            );
            self.h1.wait_route(default, &[BY_S2]);
        }
    }
}

/// Forwarding may well go on there; but for its routes there is another spine, whose program lives.
#[test]
fn a_spine_whose_program_is_killed() {
    let fabric = Fabric::new(&LINKS);
    let mut two = TwoSpines::up(&fabric);
    let since = Instant::now();
    two.s1.kill();
    two.wait_lost(since, "program killed");
    two.s1 = Bird::restart(&fabric, "s1", &spine_config(&fabric, "s1"));
    two.wait_whole();
}

#[test]
fn a_spine_that_sets_its_link_down() {
    let fabric = Fabric::new(&LINKS);
    let two = TwoSpines::up(&fabric);
    let since = Instant::now();
    fabric.node("s1").set_link("h1", false).unwrap();
    two.wait_lost(since, "link down at the spine");
}

#[test]
fn a_link_set_down_here() {
    let fabric = Fabric::new(&LINKS);
    let two = TwoSpines::up(&fabric);
    let since = Instant::now();
    fabric.node("h1").set_link("s1", false).unwrap();
    two.wait_lost(since, "link down here");
}

#[test]
fn a_link_that_falls_silent() {
    let fabric = Fabric::new(&LINKS);
    let two = TwoSpines::up(&fabric);
    let since = Instant::now();
    fabric.silence("h1", "s1");
    two.wait_lost(since, "silent link");
    // `bfd graceful`: BIRD can't tell this from our restart, and keeps our routes.
    wait_for("BIRD takes it for a restart", || {
        two.s1
            .ask("show protocols all h1")
            .contains("Neighbor graceful restart active")
    });
    two.s1
        .wait_route("2001:db8:1::5/128", &["via fe80::1 on h1"]);
    fabric.mend("h1", "s1");
    two.wait_whole();
}

/// The same for the only spine: its routes stay, since there are no better ones. When it is back it
/// tells them anew, without having restarted; BIRD then leaves the F bit clear, by which RFC 4724 §4.2
/// has its stale routes withdrawn for the moment until then.
#[test]
fn the_last_spine_keeps_its_routes_when_it_falls_silent() {
    let fabric = Fabric::new(&LINKS[..1]);
    let s1 = Bird::start(&fabric, "s1", &spine_config(&fabric, "s1"));
    let to_s1 = peers([Peer::link_local(&fabric, "s1").with("bfd = true")]);
    let h1 = Speaker::start(&fabric, "h1", &to_s1, &[]);
    for default in DEFAULTS {
        h1.wait_route(default, &[BY_S1]);
    }
    h1.wait_until("BFD is up", |seen| seen.bfd_is_up(BY_S1));
    wait_for("BIRD's BFD is up", || {
        s1.ask("show bfd sessions").contains("Up")
    });
    let before = h1.seen(|seen| seen.changes.len());
    fabric.silence("h1", "s1");
    h1.wait_until("the routes are stale", |seen| {
        let families = seen.peer("fe80::2")["families"].as_array();
        families.is_some_and(|f| f.len() == 2 && f.iter().all(|f| f["stale"] == "restarting"))
    });
    assert_eq!(
        h1.seen(|seen| seen.changes.len()),
        before,
        "the routes stay"
    );
    fabric.mend("h1", "s1");
    h1.wait_until("it comes back", |seen| {
        seen.established("fe80::2") && seen.bfd_is_up(BY_S1)
    });
    for default in DEFAULTS {
        h1.wait_route(default, &[BY_S1]);
    }
}

/// The agent is killed, and its BFD with it. With `bfd graceful` that is a restart, with `bfd on` BIRD takes
/// its routes away: the configuration that `docs/bgp.md` warns of.
#[test]
fn a_killed_agent_is_no_dead_host_where_bfd_is_graceful() {
    let fabric = Fabric::new(&[("h1", "s1"), ("h1", "s2")]);
    let config = |spine: &str, bfd: &str| {
        bird::preamble(&fabric, spine) + &bird::client_with_bfd(&fabric, spine, "h1", bfd)
    };
    let graceful = Bird::start(&fabric, "s1", &config("s1", "bfd graceful;"));
    let plain = Bird::start(&fabric, "s2", &config("s2", "bfd on;"));
    let both = peers(["s1", "s2"].map(|spine| Peer::link_local(&fabric, spine).with("bfd = true")));
    let ours = ["198.51.100.5/32", "2001:db8:1::5/128"];
    let h1 = Speaker::start(&fabric, "h1", &both, &ours);
    for spine in [&graceful, &plain] {
        for prefix in ours {
            spine.wait_route(prefix, &["via fe80::1 on h1"]);
        }
        wait_for("BFD is up", || {
            spine.ask("show bfd sessions").contains("Up")
        });
    }
    h1.kill();
    for prefix in ours {
        plain.wait_no_route(prefix);
    }
    wait_for("BFD is down", || {
        !graceful.ask("show bfd sessions").contains("Up")
    });
    for prefix in ours {
        graceful.wait_route(prefix, &["via fe80::1 on h1"]);
    }
    let _h1 = Speaker::restart(&fabric, "h1", &both, &ours);
    wait_for("the session is back", || graceful.established("h1"));
    for prefix in ours {
        graceful.wait_route(prefix, &["via fe80::1 on h1"]);
        plain.wait_route(prefix, &["via fe80::1 on h1"]);
    }
}

/// Nobody is interested any more: we say AdminDown, which BIRD hears at once, and the thread ends.
#[test]
fn an_end_that_is_meant_is_said() {
    let fabric = Fabric::new(&LINKS[..1]);
    let neighbor = "protocol bfd { neighbor fe80::1 dev \"h1\" local fe80::2;";
    let config = bird::preamble(&fabric, "s1").replace("protocol bfd {", neighbor);
    let s1 = Bird::start(&fabric, "s1", &config);
    let peer = hextet_bfd::Peer::new("s1".parse().unwrap(), "fe80::2".parse().unwrap());
    let watched = vec![(peer.clone(), Config::default())];
    let start = || bfd::start(Clock::start(), watched);
    let mut handle = fabric.node("h1").enter(start).unwrap().unwrap();
    let verdict = loop {
        let (whose, change) = handle.changes.blocking_recv().expect("changes");
        assert_eq!(whose, peer);
        if let Some(verdict) = change.verdict() {
            break (verdict, change.reason);
        }
    };
    assert_eq!(verdict, (Verdict::Alive, Reason::Handshake));
    wait_for("BIRD's BFD is up", || {
        s1.ask("show bfd sessions").contains("Up")
    });
    drop(handle.changes);
    handle.thread.join().unwrap();
    wait_for("BIRD's BFD is down", || {
        s1.ask("show bfd sessions").contains("Down")
    });
    assert!(
        !s1.log().contains("expired"),
        "it was told, and did not find out:\n{}",
        s1.log()
    );
}
