//! Graceful restart, long-lived graceful restart and BFD.

use super::*;
use crate::config::{BfdMode, RestartMode};
use crate::packet::{Afi, Message, RefreshKind, RouteRefresh};

#[test]
fn lost_reflectors_leave_their_routes_and_their_return_withdraws_what_is_gone() {
    let mut sim = fabric(1);
    sim.announce(2, &[V4, V6]);
    sim.announce(3, &["2001:db8:1::6/128"]);
    sim.run(15);
    assert_eq!(sim.fib(4).len(), 3);
    sim.kill(0);
    sim.kill(1);
    // Meanwhile a workload goes.
    sim.announce(2, &[V6]);
    sim.run(60);
    assert_eq!(sim.fib(4).len(), 3, "kept");
    assert!(sim.nodes[4].downs.iter().all(|d| d.2));
    for reflector in [0, 1] {
        sim.nodes[reflector].fib.clear();
        sim.start(reflector, |c| c.restarting = true);
        for host in [2, 3, 4] {
            let mut config = open_peer(host, RemoteAs::Internal);
            config.reflector_client = true;
            sim.configure(reflector, config);
        }
    }
    sim.run(150);
    assert_eq!(sim.fib(4), [V6, "2001:db8:1::6/128"]);
    assert_eq!(sim.nodes[0].complete, 1);
    let stale = sim.speaker(4).status().peers[0].families[0].stale;
    assert_eq!(stale, None);
}

#[test]
fn a_peer_that_does_not_come_back_loses_its_routes_after_its_restart_time() {
    let mut sim = Sim::new(&[64512, 64513], 2);
    sim.nodes[0].config.restart_time_secs = 30;
    sim.start(0, |_| ());
    sim.peer(0, 1, |_, _| ());
    sim.announce(0, &[V6]);
    sim.run(10);
    sim.kill(0);
    sim.run(29);
    assert_eq!(sim.fib(1), [V6]);
    assert!(sim.speaker(1).route(p(V6)).unwrap().paths[0].stale);
    sim.run(2);
    assert_eq!(sim.fib(1), [] as [&str; 0]);
}

#[test]
fn without_graceful_restart_a_lost_session_loses_its_routes_at_once() {
    let mut sim = Sim::new(&[64512, 64513], 3);
    sim.peer(0, 1, |_, config| config.restart = RestartMode::Off);
    sim.announce(0, &[V6]);
    sim.run(10);
    sim.kill(0);
    sim.run(1);
    assert_eq!(sim.fib(1), [] as [&str; 0]);
}

#[test]
fn a_helper_that_asks_for_nothing_is_not_helped() {
    let mut sim = Sim::new(&[64512, 64513], 4);
    sim.peer(0, 1, |node, config| {
        if node == 0 {
            config.restart = RestartMode::Helper;
        }
    });
    sim.announce(0, &[V6]);
    sim.announce(1, &[V4]);
    sim.run(10);
    sim.cut(0, 1);
    sim.run(1);
    assert_eq!(sim.fib(1), [] as [&str; 0]);
    assert_eq!(sim.fib(0), [V4]);
}

#[test]
fn a_peer_that_lost_its_forwarding_loses_its_stale_routes() {
    let mut sim = Sim::new(&[64512, 64513], 5);
    sim.peer(0, 1, |_, _| ());
    sim.announce(0, &[V6]);
    sim.run(10);
    sim.kill(0);
    sim.run(1);
    assert_eq!(sim.fib(1), [V6]);
    // Back without the F bit: what it kept forwarding by is not waited for, though it is told anew.
    sim.start(0, |c| c.restarting = false);
    sim.configure(0, open_peer(1, RemoteAs::External));
    sim.announce(0, &[V6]);
    while sim.nodes[1].ups < 2 {
        sim.run_until(sim.now + Duration::from_micros(100));
    }
    assert_eq!(sim.fib(1), [] as [&str; 0]);
    sim.run(20);
    assert_eq!(sim.fib(1), [V6]);
}

#[test]
fn a_restarted_speaker_selects_when_all_have_told_all_or_time_is_over() {
    let mut sim = Sim::new(&[64512, 64513, 64514], 6);
    sim.peer(0, 1, |_, _| ());
    sim.peer(0, 2, |_, _| ());
    sim.announce(1, &[V6]);
    sim.announce(2, &[V4]);
    sim.run(10);
    let restart = |sim: &mut Sim| {
        sim.kill(0);
        sim.run(1);
        sim.nodes[0].complete = 0;
        sim.start(0, |c| {
            c.restarting = true;
            c.deferral = Duration::from_secs(60);
        });
        sim.configure(0, open_peer(1, RemoteAs::External));
        sim.configure(0, open_peer(2, RemoteAs::External));
    };
    restart(&mut sim);
    let before = sim.nodes[0].fib.clone();
    sim.run(30);
    assert_eq!(sim.nodes[0].complete, 1);
    assert_eq!(sim.nodes[0].fib, before);
    // One of the peers is away: its routes stay in the kernel until the time is over.
    sim.kill(2);
    sim.run(1);
    restart(&mut sim);
    sim.run(55);
    assert!(sim.speaker(0).is_deferring());
    assert_eq!(
        (sim.nodes[0].complete, sim.nodes[0].fib == before),
        (0, true)
    );
    sim.run(10);
    assert_eq!(sim.nodes[0].complete, 1);
    assert!(sim.speaker(0).route(p(V4)).is_none());
    // Peer 1 has heard of nothing that was not selected.
    assert_eq!(sim.fib(1), [] as [&str; 0]);
}

#[test]
fn long_lived_stale_routes_are_used_last_and_told_to_those_who_know() {
    // 1 helps 0; 2 knows LLGR, 3 does not; 4 has a longer path to the same prefix.
    let mut sim = Sim::new(&[64512, 64513, 64514, 64515, 64516], 7);
    sim.nodes[0].config.restart_time_secs = 10;
    sim.start(0, |_| ());
    let llgr = |_: usize, config: &mut PeerConfig| config.long_lived_secs = 3600;
    sim.peer(0, 1, llgr);
    sim.peer(1, 2, llgr);
    sim.peer(1, 3, |_, _| ());
    sim.peer(1, 4, |node, config| {
        if node == 4 {
            let rule = Rule {
                changes: vec![Change::Prepend(3)],
                ..Rule::prefixes(vec![], Verdict::Accept)
            };
            config.export = Policy::new(vec![rule], false).unwrap().into();
        }
    });
    let no_llgr = LocalRoute {
        communities: vec![Community::NO_LLGR],
        ..LocalRoute::default()
    };
    let routes = [
        (p(V6), LocalRoute::default()),
        (p("10.1.0.0/16"), LocalRoute::default()),
        (p("10.2.0.0/16"), no_llgr),
    ];
    sim.handle(0, Event::Announce(routes.into()));
    sim.announce(4, &[V6]);
    sim.run(10);
    assert_eq!(sim.hops(1, V6), ["2001:db8::1"]);
    assert_eq!(sim.fib(3).len(), 3);
    sim.kill(0);
    sim.run(5);
    assert_eq!(sim.hops(1, V6), ["2001:db8::1"], "not yet long-lived");
    sim.run(10);
    assert_eq!(sim.hops(1, V6), ["2001:db8::5"]);
    assert_eq!(sim.fib(1), ["10.1.0.0/16", V6]);
    assert_eq!(sim.fib(2), ["10.1.0.0/16", V6]);
    assert_eq!(sim.fib(3), [V6]);
    let path = sim.speaker(2).route(p("10.1.0.0/16")).unwrap();
    assert_eq!(path.paths[0].communities, [Community::LLGR_STALE]);
    // It comes back with its forwarding, and confirms one of them.
    sim.start(0, |c| c.restarting = true);
    let mut config = open_peer(1, RemoteAs::External);
    config.long_lived_secs = 3600;
    sim.configure(0, config);
    sim.announce(0, &[V6]);
    sim.run(150);
    assert_eq!(sim.hops(1, V6), ["2001:db8::1"]);
    assert_eq!(sim.fib(1), [V6]);
    assert_eq!(sim.fib(3), [V6]);
}

#[test]
fn long_lived_stale_routes_go_in_the_end() {
    let mut sim = Sim::new(&[64512, 64513], 8);
    sim.nodes[0].config.restart_time_secs = 0;
    sim.start(0, |_| ());
    sim.peer(0, 1, |_, config| config.long_lived_secs = 100);
    sim.announce(0, &[V6]);
    sim.run(10);
    sim.kill(0);
    sim.run(99);
    assert_eq!(sim.fib(1), [V6]);
    assert_eq!(
        sim.speaker(1).status().peers[0].families[0].stale,
        Some("long_lived")
    );
    sim.run(3);
    assert_eq!(sim.fib(1), [] as [&str; 0]);
}

fn with_bfd(seed: u64) -> Sim {
    let mut sim = Sim::new(&[64512, 64513], seed);
    sim.peer(0, 1, |_, config| config.bfd = BfdMode::Graceful);
    sim.announce(0, &[V6]);
    sim.run(10);
    sim
}

#[test]
fn bfd_that_shares_the_program_s_fate_begins_a_restart() {
    let mut sim = with_bfd(9);
    sim.lose(0, 1);
    let peer = key(0);
    sim.handle(
        1,
        Event::BfdDown {
            peer: peer.clone(),
            control_plane_independent: false,
        },
    );
    assert_eq!(sim.fib(1), [V6], "kept");
    assert_eq!(sim.nodes[1].downs[0].1, "connection lost");
    sim.heal();
    sim.handle(1, Event::BfdUp { peer });
    sim.run(5);
    assert_eq!(sim.nodes[1].ups, 2);
    assert_eq!(sim.fib(1), [V6]);
}

#[test]
fn a_path_that_bfd_lost_gives_way_to_others_and_only_to_them() {
    let mut sim = Sim::new(&[64512, 64513, 64514], 15);
    sim.start(0, |c| {
        c.max_paths = 2;
        c.multipath_relax = true;
    });
    let down = |peer| Event::BfdDown {
        peer: key(peer),
        control_plane_independent: false,
    };
    for peer in [1, 2] {
        sim.peer(0, peer, |_, config| config.bfd = BfdMode::Graceful);
        sim.announce(peer, &[V6]);
    }
    sim.run(10);
    assert_eq!(sim.hops(0, V6), ["2001:db8::2", "2001:db8::3"]);
    sim.lose(0, 1);
    sim.handle(0, down(1));
    assert_eq!(sim.hops(0, V6), ["2001:db8::3"]);
    // The other program is killed: its connections end, and BFD notices after that.
    sim.kill(2);
    sim.run(1);
    assert_eq!(sim.hops(0, V6), ["2001:db8::3"]);
    sim.handle(0, down(2));
    assert_eq!(
        sim.hops(0, V6),
        ["2001:db8::2", "2001:db8::3"],
        "equally bad"
    );
    // The first one's BFD is back before its session.
    sim.handle(0, Event::BfdUp { peer: key(1) });
    assert_eq!(sim.hops(0, V6), ["2001:db8::2"]);
    sim.heal();
    sim.run(60);
    assert_eq!(sim.hops(0, V6), ["2001:db8::2"]);
    sim.run(100);
    assert!(!sim.speaker(0).route(p(V6)).unwrap().paths[0].stale);
}

#[test]
fn strict_bfd_keeps_nothing() {
    let mut sim = Sim::new(&[64512, 64513], 16);
    sim.peer(0, 1, |_, config| config.bfd = BfdMode::Strict);
    sim.announce(0, &[V6]);
    sim.run(10);
    sim.handle(
        1,
        Event::BfdDown {
            peer: key(0),
            control_plane_independent: false,
        },
    );
    assert_eq!(sim.fib(1), [] as [&str; 0]);
    assert_eq!(sim.nodes[1].downs[0].1, "sent: hard reset: BFD down");
}

#[test]
fn bfd_of_the_forwarding_plane_ends_all() {
    let down = |peer| Event::BfdDown {
        peer,
        control_plane_independent: true,
    };
    let mut sim = with_bfd(10);
    sim.handle(1, down(key(0)));
    assert_eq!(sim.fib(1), [] as [&str; 0]);
    assert_eq!(sim.nodes[1].downs[0].1, "sent: hard reset: BFD down");
    // Also while the peer restarts.
    let mut sim = with_bfd(11);
    sim.kill(0);
    sim.run(1);
    assert_eq!(sim.fib(1), [V6]);
    sim.handle(1, down(key(0)));
    assert_eq!(sim.fib(1), [] as [&str; 0]);
}

#[test]
fn bfd_events_of_peers_that_do_not_follow_them_change_nothing() {
    let mut sim = Sim::new(&[64512, 64513], 12);
    sim.peer(0, 1, |_, _| ());
    sim.announce(0, &[V6]);
    sim.run(10);
    sim.handle(
        1,
        Event::BfdDown {
            peer: key(0),
            control_plane_independent: true,
        },
    );
    assert_eq!((sim.fib(1).len(), sim.nodes[1].downs.len()), (1, 0));
}

#[test]
fn a_peer_that_flaps_while_it_is_stale_keeps_only_what_it_said_last() {
    let mut sim = Sim::new(&[64512, 64513], 13);
    sim.peer(0, 1, |_, _| ());
    sim.announce(0, &[V6, V4]);
    sim.run(10);
    sim.kill(0);
    sim.run(1);
    sim.start(0, |c| c.restarting = true);
    sim.configure(0, open_peer(1, RemoteAs::External));
    // Up again for less time than an UPDATE takes; then gone again.
    while sim.nodes[1].ups < 2 {
        sim.run_until(sim.now + Duration::from_millis(1));
    }
    sim.cut(0, 1);
    sim.run_until(sim.now + Duration::from_millis(4));
    assert_eq!(sim.fib(1), [] as [&str; 0]);
}

#[test]
fn a_peer_that_returns_as_another_is_judged_anew() {
    let mut sim = Sim::new(&[64512, 64513, 64514], 14);
    for peer in [1, 2] {
        sim.peer(0, peer, |_, _| ());
        sim.announce(peer, &[V6]);
    }
    sim.run(10);
    assert_eq!(sim.hops(0, V6), ["2001:db8::2"], "the lower identifier");
    sim.kill(1);
    sim.run(1);
    sim.start(1, |c| {
        c.restarting = true;
        c.router_id = Ipv4Addr::new(10, 0, 0, 99);
    });
    sim.configure(1, open_peer(0, RemoteAs::External));
    sim.announce(1, &[V6]);
    sim.run(150);
    assert_eq!(sim.hops(0, V6), ["2001:db8::3"]);
}

#[test]
fn an_enhanced_refresh_ends_what_it_does_not_confirm() {
    let message = |kind| {
        let family = Afi::unicast(Family::V6);
        let refresh = RouteRefresh {
            family,
            kind: Some(kind),
        };
        Bytes::from(Message::RouteRefresh(refresh).encode())
    };
    // With the peer's word that it was all, or without, when its time is over.
    for says_end in [true, false] {
        let mut sim = Sim::new(&[64512, 64513], 21);
        sim.peer(0, 1, |_, _| ());
        sim.announce(0, &[V4, V6]);
        sim.run(10);
        let conn = sim.end(1, 0);
        let heard = |sim: &mut Sim, kind| {
            let octets = message(kind);
            sim.handle(1, Event::Received { conn, octets });
        };
        heard(&mut sim, RefreshKind::End);
        assert_eq!(sim.fib(1), [V4, V6], "no end without its beginning");
        heard(&mut sim, RefreshKind::Begin);
        sim.run(300);
        assert_eq!(sim.fib(1), [V4, V6], "it may still be confirmed");
        if says_end {
            heard(&mut sim, RefreshKind::End);
        } else {
            sim.run(100);
        }
        assert_eq!(sim.fib(1), [V4]);
        assert_eq!(sim.nodes[1].downs.len(), 0);
    }
}
