//! Graceful restart (RFC 4724), either way: nobody who watches the routes sees that a program was away.

use hextet_agent::bgp::Drain;

use crate::{
    bird::{self, Bird},
    fabric::{Fabric, wait_for},
    speaker::{Peer, Speaker, peers},
};

/// The agent is killed and comes back: BIRD keeps its routes, another host sees no change, and what the
/// agent does not announce any more is withdrawn only then.
#[test]
fn a_killed_speaker_loses_no_route() {
    let fabric = Fabric::new(&[("h1", "s1"), ("h2", "s1")]);
    let config = bird::preamble(&fabric, "s1")
        + &bird::client(&fabric, "s1", "h1")
        + &bird::client(&fabric, "s1", "h2");
    let s1 = Bird::start(&fabric, "s1", &config);
    let to_s1 = peers([Peer::link_local(&fabric, "s1")]);
    let kept = ["198.51.100.5/32", "2001:db8:1::5/128"];
    let gone = ["198.51.100.6/32", "2001:db8:1::6/128"];
    let h1 = Speaker::start(&fabric, "h1", &to_s1, &[kept, gone].concat());
    let h2 = Speaker::start(&fabric, "h2", &to_s1, &[]);
    for prefix in [kept, gone].concat() {
        h2.wait_route(prefix, &["fe80::2%s1"]);
    }
    h1.kill();
    wait_for("BIRD has noticed", || {
        s1.ask("show protocols all h1")
            .contains("Neighbor graceful restart active")
    });
    for prefix in [kept, gone].concat() {
        s1.wait_route(prefix, &["via fe80::1 on h1"]);
    }

    let h1 = Speaker::restart(&fabric, "h1", &to_s1, &kept);
    for prefix in gone {
        h2.wait_route(prefix, &[]);
    }
    for prefix in kept {
        s1.wait_route(prefix, &["via fe80::1 on h1"]);
        let changes = h2.seen(|seen| {
            let prefix = prefix.parse().unwrap();
            seen.changes.iter().filter(|(_, p, _)| *p == prefix).count()
        });
        assert_eq!(changes, 1, "{prefix} came, and was not touched again");
    }
    h1.wait_until("the restart is over", |seen| seen.complete);
}

/// Both route reflectors are killed: the host keeps what it learned. When they return, what is gone is
/// withdrawn, and the rest was never touched.
#[test]
fn killed_route_reflectors_leave_their_routes() {
    let fabric = Fabric::new(&[("h1", "s1"), ("h1", "s2")]);
    let config = |spine: &str, v4: &[&str], v6: &[&str]| {
        bird::preamble(&fabric, spine) + &bird::routes(v4, v6) + &bird::client(&fabric, spine, "h1")
    };
    let kept = ["0.0.0.0/0", "::/0"];
    let gone = ["203.0.113.0/24", "2001:db8:100::/40"];
    let all = |spine| config(spine, &[kept[0], gone[0]], &[kept[1], gone[1]]);
    let spines = ["s1", "s2"].map(|spine| Bird::start(&fabric, spine, &all(spine)));
    let both = peers(["s1", "s2"].map(|spine| Peer::link_local(&fabric, spine)));
    let h1 = Speaker::start(&fabric, "h1", &both, &[]);
    let hops = ["fe80::2%s1", "fe80::3%s2"];
    for prefix in [kept, gone].concat() {
        h1.wait_route(prefix, &hops);
    }
    for spine in spines {
        spine.kill();
    }
    for address in ["fe80::2", "fe80::3"] {
        h1.wait_until("the sessions are down", |seen| {
            let peer = seen.peer(address);
            peer["flaps"] == 1
                && peer["families"]
                    .as_array()
                    .unwrap()
                    .iter()
                    .all(|f| f["stale"] == "restarting")
        });
    }
    for prefix in [kept, gone].concat() {
        h1.wait_route(prefix, &hops);
    }

    let fewer = |spine| config(spine, &kept[..1], &kept[1..]);
    let _spines = ["s1", "s2"].map(|spine| Bird::restart(&fabric, spine, &fewer(spine)));
    for prefix in gone {
        h1.wait_route(prefix, &[]);
    }
    for prefix in kept {
        h1.wait_route(prefix, &hops);
        // One for each spine that told it first; none since.
        let changes = h1.seen(|seen| {
            let prefix = prefix.parse().unwrap();
            seen.changes.iter().filter(|(_, p, _)| *p == prefix).count()
        });
        assert!(changes <= 2, "{prefix} was changed {changes} times");
    }
}

/// Peers that went away and came back while we were being killed and coming back: whoever is first waits
/// for the other.
#[test]
fn both_ends_restart_at_once() {
    let fabric = Fabric::new(&[("h1", "s1")]);
    let config = bird::preamble(&fabric, "s1")
        + &bird::routes(&["0.0.0.0/0"], &["::/0"])
        + &bird::client(&fabric, "s1", "h1");
    let s1 = Bird::start(&fabric, "s1", &config);
    let to_s1 = peers([Peer::link_local(&fabric, "s1")]);
    let h1 = Speaker::start(&fabric, "h1", &to_s1, &["2001:db8:1::5/128"]);
    h1.wait_route("::/0", &["fe80::2%s1"]);
    s1.wait_route("2001:db8:1::5/128", &["via fe80::1 on h1"]);
    s1.kill();
    h1.kill();
    let h1 = Speaker::restart(&fabric, "h1", &to_s1, &["2001:db8:1::5/128"]);
    let s1 = Bird::restart(&fabric, "s1", &config);
    h1.wait_route("::/0", &["fe80::2%s1"]);
    h1.wait_route("0.0.0.0/0", &["fe80::2%s1"]);
    s1.wait_route("2001:db8:1::5/128", &["via fe80::1 on h1"]);
    wait_for("BIRD has recovered", || {
        !s1.ask("show status").contains("recovery in progress")
    });
}

/// The agent is stopped, as for an upgrade, and comes back: BIRD is told that its BFD was switched off, so that
/// nothing has to expire, and keeps its routes.
#[test]
fn a_stopped_speaker_loses_no_route() {
    let fabric = Fabric::new(&[("h1", "s1")]);
    let config = bird::preamble(&fabric, "s1") + &bird::client(&fabric, "s1", "h1");
    let s1 = Bird::start(&fabric, "s1", &config);
    let ours = ["198.51.100.5/32", "2001:db8:1::5/128"];
    let to_s1 = peers([Peer::link_local(&fabric, "s1").with("bfd = true")]);
    let h1 = Speaker::start(&fabric, "h1", &to_s1, &ours);
    for prefix in ours {
        s1.wait_route(prefix, &["via fe80::1 on h1"]);
    }
    wait_for("BIRD's BFD is up", || {
        s1.ask("show bfd sessions").contains("Up")
    });
    h1.stop();
    wait_for("BIRD's BFD is down", || {
        !s1.ask("show bfd sessions").contains("Up")
    });
    wait_for("BIRD has noticed", || {
        s1.ask("show protocols all h1")
            .contains("Neighbor graceful restart active")
    });
    for prefix in ours {
        s1.wait_route(prefix, &["via fe80::1 on h1"]);
    }
    let log = s1.log();
    assert!(
        !log.contains("expired") && !log.contains("Received:"),
        "BFD was told, and BGP was not:\n{log}"
    );
    let _h1 = Speaker::restart(&fabric, "h1", &to_s1, &ours);
    wait_for("the session is back", || s1.established("h1"));
    for prefix in ours {
        s1.wait_route(prefix, &["via fe80::1 on h1"]);
    }
}

/// A drained host announces its routes as the last choice, and then not at all, while its sessions stay up.
#[test]
fn a_drained_host_keeps_its_sessions() {
    let fabric = Fabric::new(&[("h1", "s1"), ("h2", "s1")]);
    let config = bird::preamble(&fabric, "s1")
        + &bird::routes(&["0.0.0.0/0"], &["::/0"])
        + &bird::client(&fabric, "s1", "h1")
        + &bird::client(&fabric, "s1", "h2");
    let s1 = Bird::start(&fabric, "s1", &config);
    let to_s1 = peers([Peer::link_local(&fabric, "s1")]);
    let ours = ["198.51.100.5/32", "2001:db8:1::5/128"];
    let mut h1 = Speaker::start(&fabric, "h1", &to_s1, &ours);
    for prefix in ours {
        s1.wait_route(prefix, &["via fe80::1 on h1", "BGP.local_pref: 100"]);
    }
    h1.wait_route("::/0", &["fe80::2%s1"]);
    h1.drain(Drain::Leaving);
    for prefix in ours {
        s1.wait_route(prefix, &["BGP.local_pref: 0", "BGP.community: (65535,0)"]);
    }
    // Another host has the same address: now everybody goes there.
    let _h2 = Speaker::start(&fabric, "h2", &to_s1, &ours[1..]);
    s1.wait_route(ours[1], &["via fe80::3 on h2"]);
    wait_for("the other one is preferred", || {
        let best = s1.ask(&format!("show route {} primary", ours[1]));
        best.contains("via fe80::3 on h2") && !best.contains("via fe80::1")
    });
    h1.drain(Drain::Drained);
    s1.wait_no_route(ours[0]);
    wait_for("only the other one is left", || {
        !s1.route(ours[1]).contains("via fe80::1")
    });
    h1.drain(Drain::No);
    for prefix in ours {
        s1.wait_route(prefix, &["via fe80::1 on h1", "BGP.local_pref: 100"]);
    }
    h1.wait_until("nothing else has changed", |seen| {
        seen.peer("fe80::2")["flaps"] == 0 && seen.hops("::/0") == ["fe80::2%s1"]
    });
}
