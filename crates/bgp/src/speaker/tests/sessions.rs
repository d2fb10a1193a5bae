//! How sessions come up, collide and end.

use super::*;

#[test]
fn peers_that_call_each_other_at_once_end_up_with_one_session() {
    for seed in 0..50 {
        let mut sim = Sim::new(&[64512, 64513], seed);
        sim.peer(0, 1, |_, _| ());
        sim.announce(0, &[V6]);
        sim.run(60);
        assert_eq!(sim.fib(1), [V6], "seed {seed}");
        assert_eq!((sim.nodes[0].ups, sim.nodes[1].ups), (1, 1), "seed {seed}");
        assert_eq!(sim.nodes[0].downs, [], "seed {seed}");
        for node in 0..2 {
            assert_eq!(sim.speaker(node).connections.len(), 1, "seed {seed}");
        }
    }
}

#[test]
fn a_passive_peer_waits_and_two_of_them_wait_forever() {
    let mut sim = Sim::new(&[64512, 64513], 1);
    sim.peer(0, 1, |node, config| config.passive = node == 0);
    sim.run(10);
    assert_eq!(sim.nodes[0].ups, 1);
    let mut sim = Sim::new(&[64512, 64513], 1);
    sim.peer(0, 1, |_, config| config.passive = true);
    sim.run(600);
    assert_eq!(sim.nodes[0].ups, 0);
}

#[test]
fn a_silent_loss_is_found_by_the_hold_timer() {
    let mut sim = Sim::new(&[64512, 64513], 2);
    sim.peer(0, 1, |_, config| {
        config.hold_time_secs = 9;
        config.restart = crate::config::RestartMode::Off;
    });
    sim.announce(0, &[V6]);
    sim.run(100);
    assert_eq!(sim.nodes[1].downs, [], "keepalives keep it");
    sim.lose(0, 1);
    sim.run(10);
    assert_eq!(sim.nodes[1].downs[0].1, "sent: hold timer expired");
    assert_eq!(sim.fib(1), [] as [&str; 0]);
    sim.heal();
    sim.run(200);
    assert_eq!(sim.fib(1), [V6]);
}

#[test]
fn attempts_back_off_to_a_bound() {
    let mut sim = Sim::new(&[64512, 64513], 3);
    sim.kill(1);
    sim.configure(0, open_peer(1, RemoteAs::External));
    let mut attempts = Vec::new();
    let mut last = sim.speaker(0).next_id;
    for second in 0..2000 {
        sim.run(1);
        if sim.speaker(0).next_id != last {
            last = sim.speaker(0).next_id;
            attempts.push(second);
        }
    }
    let gaps: Vec<u64> = attempts.windows(2).map(|w| w[1] - w[0]).collect();
    for (gap, whole) in gaps.iter().zip([10, 20, 40, 80]) {
        // Three quarters to the whole, in steps of a second.
        assert!((whole * 3 / 4 - 1..=whole + 1).contains(gap), "{gaps:?}");
    }
    let late = &gaps[4..];
    assert!(
        late.len() > 10 && late.iter().all(|g| (89..=121).contains(g)),
        "{gaps:?}"
    );
}

#[test]
fn a_shutdown_says_why_and_refuses_until_it_is_lifted() {
    let mut sim = Sim::new(&[64512, 64513], 4);
    sim.peer(0, 1, |_, _| ());
    sim.announce(0, &[V6]);
    sim.run(10);
    let mut config = open_peer(1, RemoteAs::External);
    config.shutdown = Some("moving to rack 7".into());
    sim.configure(0, config.clone());
    sim.run(200);
    assert_eq!(
        sim.nodes[1].downs[0].1,
        "received: hard reset: administrative shutdown (\"moving to rack 7\")"
    );
    assert_eq!(sim.fib(1), [] as [&str; 0], "a hard reset keeps nothing");
    assert_eq!((sim.nodes[0].ups, sim.nodes[1].ups), (1, 1));
    let status = sim.speaker(0).status();
    assert_eq!(status.peers[0].state, State::Idle);
    config.shutdown = None;
    sim.configure(0, config);
    sim.run(10);
    assert_eq!(sim.fib(1), [V6]);
}

#[test]
fn the_wrong_as_is_refused_and_shown() {
    let mut sim = Sim::new(&[64512, 64513], 5);
    sim.peer(0, 1, |node, config| {
        if node == 0 {
            config.remote_as = RemoteAs::Is(Asn(65000));
        }
    });
    sim.run(20);
    assert_eq!(sim.nodes[0].ups + sim.nodes[1].ups, 0);
    let status = sim.speaker(0).status();
    let down = status.peers[0].last_down.clone().unwrap();
    assert_eq!(down.text, "sent: bad peer AS");
}

#[test]
fn a_removed_peer_takes_its_routes_with_it() {
    let mut sim = Sim::new(&[64512, 64513], 6);
    sim.peer(0, 1, |_, _| ());
    sim.announce(0, &[V6]);
    sim.run(10);
    sim.handle(1, Event::Remove(key(0)));
    assert_eq!(sim.fib(1), [] as [&str; 0]);
    sim.run(60);
    let reason = &sim.nodes[0].downs[0].1;
    assert_eq!(reason, "received: hard reset: peer de-configured");
    assert_eq!(sim.speaker(1).status().ipv6_prefixes, 0);
    assert_eq!(sim.speaker(1).connections.len(), 0);
}

#[test]
fn a_new_connection_of_a_peer_that_restarted_replaces_the_old_one() {
    let mut sim = Sim::new(&[64512, 64513], 7);
    sim.peer(0, 1, |node, config| config.passive = node == 1);
    sim.announce(0, &[V6]);
    sim.run(10);
    // The host crashes and is back before anybody has noticed.
    sim.lose(0, 1);
    sim.kill(0);
    sim.run(1);
    sim.heal();
    sim.start(0, |c| c.restarting = true);
    sim.configure(0, open_peer(1, RemoteAs::External));
    sim.announce(0, &[V6]);
    sim.run(10);
    let reasons: Vec<_> = sim.nodes[1].downs.iter().map(|d| (&d.1[..], d.2)).collect();
    assert_eq!(reasons, [("the peer opened a new connection", true)]);
    assert_eq!(sim.fib(1), [V6]);
}

#[test]
fn strangers_are_turned_away() {
    let mut sim = Sim::new(&[64512, 64513], 8);
    sim.configure(0, open_peer(1, RemoteAs::External));
    sim.run(60);
    assert_eq!(sim.nodes[0].ups, 0);
    assert_eq!(sim.speaker(1).connections.len(), 0);
}

#[test]
fn a_malformed_family_is_ignored_and_the_other_goes_on() {
    let mut sim = Sim::new(&[64512, 64513], 9);
    sim.peer(0, 1, |_, _| ());
    sim.announce(0, &[V4, V6]);
    sim.run(10);
    let speaker = sim.nodes[1].speaker.as_mut().unwrap();
    let conn = *speaker.connections.keys().next().unwrap();
    // MP_REACH_NLRI with a prefix of 200 bits.
    let mut update = vec![0xff; 16];
    let body = [
        &[0, 0, 0, 25, 0x80, 14, 22, 0, 2, 1, 16][..],
        &[0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1],
        &[0, 200],
    ]
    .concat();
    update.extend((19 + body.len() as u16).to_be_bytes());
    update.push(2);
    update.extend(body);
    let octets = Bytes::from(update);
    let now = sim.now;
    let actions = speaker.handle(Event::Received { conn, octets }, now);
    assert_eq!(speaker.route(p(V6)), None);
    assert!(speaker.route(p(V4)).is_some());
    assert_eq!(speaker.established(), 1);
    assert_eq!(speaker.status().peers[0].messages.malformed_updates, 1);
    let gone = |a: &Action| matches!(a, Action::Routes(r) if r[0].prefix == p(V6));
    assert!(actions.iter().any(gone), "{actions:?}");
}

#[test]
fn nothing_written_for_too_long_ends_the_session() {
    let mut sim = Sim::new(&[64512, 64513], 10);
    sim.peer(0, 1, |node, config| {
        // Only the sender's own patience counts.
        config.hold_time_secs = if node == 0 { 0 } else { 90 };
    });
    sim.run(10);
    sim.hold(0);
    sim.announce(0, &[V6]);
    sim.run(470);
    assert_eq!(sim.nodes[0].downs, []);
    sim.run(20);
    assert_eq!(sim.nodes[0].downs[0].1, "sent: send hold timer expired");
}
