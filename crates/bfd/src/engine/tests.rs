use std::num::NonZeroU8;

use proptest::prelude::*;

use super::*;
use crate::{
    packet::{Diagnostic, Micros, Password},
    session::{Reason, Verdict},
};

const NOW: Time = Time::ZERO;

fn peer(address: &str) -> Peer {
    Peer::new("eth0".parse().unwrap(), address.parse().unwrap())
}

/// One peer of each family.
fn peers() -> [Peer; 2] {
    [peer("fe80::1"), peer("192.0.2.1")]
}

fn watch(peer: &Peer) -> Event {
    Event::Watch {
        peer: peer.clone(),
        config: Config::default(),
    }
}

fn datagram(peer: &Peer, packet: Packet) -> Event {
    Event::Datagram {
        peer: peer.clone(),
        hop_limit: HOP_LIMIT,
        payload: packet.encode(),
    }
}

fn says(state: State, yours: Option<Discriminator>) -> Packet {
    Packet {
        diagnostic: Diagnostic::NONE,
        state,
        poll: false,
        is_final: false,
        control_plane_independent: false,
        demand: false,
        detect_mult: NonZeroU8::new(3).unwrap(),
        my_discriminator: Discriminator::new(99).unwrap(),
        your_discriminator: yours,
        desired_min_tx: Micros(100_000),
        required_min_rx: Micros(100_000),
        required_min_echo_rx: Micros(0),
        authentication: None,
    }
}

fn status(engine: &Engine, of: &Peer) -> Status {
    engine
        .status()
        .find(|(peer, _)| *peer == of)
        .expect("it is watched")
        .1
}

fn discriminator(engine: &Engine, of: &Peer) -> Option<Discriminator> {
    Some(status(engine, of).discriminator)
}

fn verdicts(actions: &[Action]) -> Vec<(Peer, Verdict)> {
    actions
        .iter()
        .filter_map(|action| match action {
            Action::Changed { peer, change } => Some((peer.clone(), change.verdict()?)),
            _ => None,
        })
        .collect()
}

fn sent(actions: &[Action]) -> Vec<(Peer, Packet)> {
    actions
        .iter()
        .filter_map(|action| match action {
            Action::Send { peer, payload } => Some((
                peer.clone(),
                Packet::decode(payload).expect("our own packets decode"),
            )),
            _ => None,
        })
        .collect()
}

/// An engine whose sessions with both [`peers`] are Up.
fn both_up() -> Engine {
    let mut engine = Engine::new(1);
    for peer in peers() {
        engine.handle(watch(&peer), NOW);
        let yours = discriminator(&engine, &peer);
        let actions = engine.handle(datagram(&peer, says(State::Init, yours)), NOW);
        assert_eq!(verdicts(&actions), [(peer, Verdict::Alive)]);
    }
    engine
}

#[test]
fn the_first_packet_goes_out_at_once_and_the_answer_finds_its_session() {
    for peer in peers() {
        let mut engine = Engine::new(1);
        assert_eq!(engine.next_wakeup(), None);
        let hello = sent(&engine.handle(watch(&peer), NOW));
        assert_eq!(hello.len(), 1);
        assert_eq!((&hello[0].0, hello[0].1.state), (&peer, State::Down));
        assert_eq!(hello[0].1.your_discriminator, None);
        engine.handle(datagram(&peer, says(State::Down, None)), NOW);
        assert_eq!(
            status(&engine, &peer).state,
            State::Init,
            "selected by address and interface"
        );
        let ours = Some(hello[0].1.my_discriminator);
        engine.handle(datagram(&peer, says(State::Up, ours)), NOW);
        assert_eq!(
            status(&engine, &peer).state,
            State::Up,
            "selected by discriminator"
        );
        assert!(engine.next_wakeup() > Some(NOW));
    }
}

#[test]
fn watching_again_changes_nothing() {
    let mut engine = both_up();
    for peer in peers() {
        let before = status(&engine, &peer);
        assert_eq!(engine.handle(watch(&peer), NOW), []);
        assert_eq!(status(&engine, &peer), before);
    }
    assert_eq!(engine.status().count(), 2);
}

/// Each event is refused for its reason, and no session notices.
#[track_caller]
fn assert_refused(engine: &mut Engine, event: Event, expected: Refusal) {
    let before: Vec<_> = engine.status().map(|(_, status)| status).collect();
    let actions = engine.handle(event.clone(), NOW);
    assert!(
        matches!(actions.as_slice(), [Action::Refused { refusal, .. }] if *refusal == expected),
        "{event:?}: {actions:?}"
    );
    let after: Vec<_> = engine.status().map(|(_, status)| status).collect();
    assert_eq!(after, before, "{event:?}");
}

#[test]
fn what_comes_from_elsewhere_is_refused() {
    let [first, second] = peers();
    let mut engine = both_up();
    let ours = discriminator(&engine, &first);
    let down = says(State::Down, ours);
    for hop_limit in [254, 0] {
        let far = Event::Datagram {
            peer: first.clone(),
            hop_limit,
            payload: down.encode(),
        };
        assert_refused(&mut engine, far, Refusal::HopLimit(hop_limit));
    }
    let elsewhere = Peer::new("tap0".parse().unwrap(), first.address());
    for other in [&second, &elsewhere] {
        let foreign = Refusal::ForeignDiscriminator(ours.unwrap());
        assert_refused(&mut engine, datagram(other, down), foreign);
    }
    for stranger in [elsewhere, peer("fe80::2")] {
        for state in [State::Down, State::AdminDown] {
            let hello = datagram(&stranger, says(state, None));
            assert_refused(&mut engine, hello, Refusal::UnknownPeer);
        }
    }
    engine.handle(datagram(&first, down), NOW);
    assert_eq!(
        status(&engine, &first).state,
        State::Down,
        "the same from where it should come"
    );
}

#[test]
fn what_a_peer_may_not_say_is_refused() {
    let [first, _] = peers();
    let mut engine = both_up();
    let ours = discriminator(&engine, &first);
    let junk = Event::Datagram {
        peer: first.clone(),
        hop_limit: HOP_LIMIT,
        payload: vec![0; 3],
    };
    assert_refused(&mut engine, junk, Refusal::Decode(DecodeError::Short(3)));
    let unknown = Discriminator::new(ours.unwrap().get() ^ 1).unwrap();
    let astray = datagram(&first, says(State::Down, Some(unknown)));
    assert_refused(&mut engine, astray, Refusal::UnknownDiscriminator(unknown));
    for state in [State::Init, State::Up] {
        let nameless = datagram(&first, says(state, None));
        assert_refused(&mut engine, nameless, Refusal::DiscriminatorMissing(state));
    }
    let password = Password::try_from(b"x".as_slice()).unwrap();
    let section = Authentication::SimplePassword {
        key_id: 1,
        password,
    };
    let packet = Packet {
        authentication: Some(section),
        ..says(State::Down, ours)
    };
    assert_refused(
        &mut engine,
        datagram(&first, packet),
        Refusal::Authenticated(section),
    );
}

#[test]
fn a_mapped_address_is_the_ipv4_peer() {
    assert_eq!(peer("::ffff:192.0.2.1"), peer("192.0.2.1"));
}

#[test]
fn a_link_takes_its_own_sessions_down_at_once() {
    let mut engine = both_up();
    let other = Peer::new("eth1".parse().unwrap(), "fe80::1".parse().unwrap());
    engine.handle(watch(&other), NOW);
    let yours = discriminator(&engine, &other);
    engine.handle(datagram(&other, says(State::Init, yours)), NOW);
    let actions = engine.handle(
        Event::LinkDown {
            interface: "eth0".parse().unwrap(),
        },
        NOW,
    );
    let mut dead: Vec<_> = peers().map(|peer| (peer, Verdict::Dead)).into();
    dead.sort_by(|a, b| a.0.cmp(&b.0));
    let mut got = verdicts(&actions);
    got.sort_by(|a, b| a.0.cmp(&b.0));
    assert_eq!(got, dead);
    assert_eq!(status(&engine, &other).state, State::Up);
}

#[test]
fn the_timer_finds_every_session_that_is_lost() {
    let mut engine = both_up();
    let late = Time::from_secs(5);
    let mut got = verdicts(&engine.handle(Event::Timer, late));
    got.sort_by(|a, b| a.0.cmp(&b.0));
    let mut lost: Vec<_> = peers().map(|peer| (peer, Verdict::Undecided)).into();
    lost.sort_by(|a, b| a.0.cmp(&b.0));
    assert_eq!(got, lost);
    let loss = status(&engine, &peers()[0]).last_loss;
    assert_eq!(
        loss.map(|loss| loss.reason),
        Some(Reason::DetectionTimeExpired)
    );
    assert!(engine.next_wakeup() > Some(late));
}

#[test]
fn an_unwatched_session_says_goodbye_and_is_gone() {
    let [first, second] = peers();
    let mut engine = both_up();
    let ours = discriminator(&engine, &first);
    let unwatch = Event::Unwatch {
        peer: first.clone(),
    };
    let goodbye = sent(&engine.handle(unwatch.clone(), NOW));
    assert_eq!(goodbye.len(), 1);
    assert_eq!(
        (&goodbye[0].0, goodbye[0].1.state),
        (&first, State::AdminDown)
    );
    assert_eq!(
        engine.status().map(|(peer, _)| peer).collect::<Vec<_>>(),
        [&second]
    );
    assert_eq!(engine.handle(unwatch, NOW), [], "once is enough");

    let poll = Packet {
        poll: true,
        ..says(State::Up, ours)
    };
    assert_eq!(
        engine.handle(datagram(&first, poll), NOW),
        [],
        "it lingers, AdminDown"
    );
    engine.handle(Event::Timer, Time::from_millis(599));
    let gone = Refusal::UnknownDiscriminator(ours.unwrap());
    let up = datagram(&first, says(State::Up, ours));
    assert_eq!(engine.handle(up.clone(), Time::from_millis(599)), []);
    engine.handle(Event::Timer, Time::from_millis(600));
    let refused = Action::Refused {
        peer: first,
        refusal: gone,
    };
    assert_eq!(engine.handle(up, Time::from_millis(600)), [refused]);
}

#[test]
fn its_own_wakeups_are_enough_to_end_a_goodbye() {
    let mut engine = both_up();
    for peer in peers() {
        let detect_mult = NonZeroU8::MAX;
        let patient = Packet {
            detect_mult,
            ..says(State::Up, discriminator(&engine, &peer))
        };
        engine.handle(datagram(&peer, patient), NOW);
        engine.handle(Event::Unwatch { peer }, NOW);
    }
    let mut last = NOW;
    for _ in 0..10 {
        let Some(at) = engine.next_wakeup() else {
            break;
        };
        engine.handle(Event::Timer, at);
        last = at;
    }
    assert_eq!((engine.next_wakeup(), last), (None, Time::from_millis(600)));
}

#[test]
fn a_session_that_is_wanted_again_while_it_lingers_goes_on() {
    let [first, _] = peers();
    let mut engine = both_up();
    let ours = discriminator(&engine, &first);
    engine.handle(
        Event::Unwatch {
            peer: first.clone(),
        },
        NOW,
    );
    engine.handle(watch(&first), NOW);
    assert_eq!(discriminator(&engine, &first), ours);
    assert_eq!(status(&engine, &first).state, State::Down);
    engine.handle(Event::Timer, Time::from_secs(20));
    assert_eq!(
        discriminator(&engine, &first),
        ours,
        "it does not leave any more"
    );
}

#[test]
fn a_peer_cannot_make_a_goodbye_last() {
    let [first, _] = peers();
    let mut engine = both_up();
    let ours = discriminator(&engine, &first);
    let slow = Packet {
        required_min_rx: Micros(u32::MAX),
        ..says(State::Up, ours)
    };
    engine.handle(datagram(&first, slow), NOW);
    engine.handle(
        Event::Unwatch {
            peer: first.clone(),
        },
        NOW,
    );
    let end = NOW + MAX_LINGER;
    engine.handle(Event::Timer, end);
    let actions = engine.handle(datagram(&first, says(State::Up, ours)), end);
    assert!(
        matches!(actions.as_slice(), [Action::Refused { .. }]),
        "{actions:?}"
    );
}

#[test]
fn there_is_room_for_so_many_and_no_more() {
    let mut engine = Engine::new(1);
    let numbered = |n: usize| peer(&format!("2001:db8::{n:x}"));
    for n in 0..MAX_SESSIONS {
        assert_eq!(
            sent(&engine.handle(watch(&numbered(n)), NOW)).len(),
            1,
            "{n}"
        );
    }
    let late = numbered(MAX_SESSIONS);
    let full = Action::Refused {
        peer: late.clone(),
        refusal: Refusal::Full,
    };
    assert_eq!(engine.handle(watch(&late), NOW), [full]);
    assert_eq!(
        engine.handle(watch(&numbered(7)), NOW),
        [],
        "those that are there stay"
    );
    engine.handle(Event::Unwatch { peer: numbered(7) }, NOW);
    assert_eq!(
        sent(&engine.handle(watch(&late), NOW)).len(),
        1,
        "a free place is used"
    );
    let discriminators: std::collections::BTreeSet<_> = engine
        .status()
        .map(|(_, status)| status.discriminator)
        .collect();
    assert_eq!(discriminators.len(), MAX_SESSIONS);
}

proptest! {
    #[test]
    fn no_datagram_panics_or_reaches_another_session(
        hop_limit in prop_oneof![Just(HOP_LIMIT), any::<u8>()],
        bytes in prop::collection::vec(any::<u8>(), 0..64),
        plausible: bool,
        own: bool,
    ) {
        let [first, second] = peers();
        let mut engine = both_up();
        let mut payload = bytes;
        if plausible && payload.len() >= 24 {
            payload[0] = payload[0] & 0x1f | 0x20;
            payload[3] = 24;
            if own {
                let ours = discriminator(&engine, &first).unwrap();
                payload[8..12].copy_from_slice(&ours.get().to_be_bytes());
            }
        }
        let before = status(&engine, &second);
        let event = Event::Datagram { peer: first, hop_limit, payload };
        prop_assert!(engine.handle(event, NOW).len() <= 3);
        prop_assert_eq!(status(&engine, &second), before);
    }
}
