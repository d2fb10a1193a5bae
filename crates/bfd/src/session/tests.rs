mod demand;
mod pair;
mod random_events;

use super::*;
use crate::config::Interval;

const SECOND: Duration = Duration::from_secs(1);
const OURS: Discriminator = Discriminator::new(0x1111_1111).unwrap();
const PEERS: Discriminator = Discriminator::new(0x2222_2222).unwrap();

fn millis(n: u64) -> Interval {
    Interval::try_from(Duration::from_millis(n)).unwrap()
}

fn mult(n: u8) -> NonZeroU8 {
    NonZeroU8::new(n).unwrap()
}

/// What a peer with 100 ms both ways and three misses says, once it knows us.
fn says(state: State) -> Packet {
    Packet {
        diagnostic: Diagnostic::NONE,
        state,
        poll: false,
        is_final: false,
        control_plane_independent: false,
        demand: false,
        detect_mult: mult(3),
        my_discriminator: PEERS,
        your_discriminator: Some(OURS),
        desired_min_tx: Micros(100_000),
        required_min_rx: Micros(100_000),
        required_min_echo_rx: Micros(0),
        authentication: None,
    }
}

/// A session that was driven into `state` by packets and configuration, at time zero.
fn session_in(state: State, config: Config) -> Session {
    let config = Config {
        enabled: state != State::AdminDown,
        ..config
    };
    let mut session = Session::new(config, OURS, 7, Time::ZERO);
    session.handle(Event::Timer, Time::ZERO);
    let heard = match state {
        State::AdminDown | State::Down => None,
        State::Init => Some(State::Down),
        State::Up => Some(State::Init),
    };
    if let Some(heard) = heard {
        session.handle(Event::Received(says(heard)), Time::ZERO);
    }
    assert_eq!(session.state, state);
    session
}

fn sent(actions: &[Action]) -> Vec<Packet> {
    actions
        .iter()
        .filter_map(|action| match action {
            Action::Send(packet) => Some(*packet),
            Action::Changed(_) => None,
        })
        .collect()
}

fn changes(actions: &[Action]) -> Vec<(State, State, Reason)> {
    actions
        .iter()
        .filter_map(|action| match action {
            Action::Changed(change) => Some((change.from, change.to, change.reason)),
            Action::Send(_) => None,
        })
        .collect()
}

/// Every state, every state received: the next state and our diagnostic (RFC 5880 §6.2, §6.8.6).
#[test]
fn every_state_and_every_state_received() {
    use State::*;
    let signaled = Diagnostic::NEIGHBOR_SIGNALED_SESSION_DOWN;
    let switched_off = Diagnostic::ADMINISTRATIVELY_DOWN;
    let none = Diagnostic::NONE;
    let table = [
        (AdminDown, AdminDown, AdminDown, switched_off),
        (AdminDown, Down, AdminDown, switched_off),
        (AdminDown, Init, AdminDown, switched_off),
        (AdminDown, Up, AdminDown, switched_off),
        (Down, AdminDown, Down, none),
        (Down, Down, Init, none),
        (Down, Init, Up, none),
        (Down, Up, Down, none),
        (Init, AdminDown, Down, signaled),
        (Init, Down, Init, none),
        (Init, Init, Up, none),
        (Init, Up, Up, none),
        (Up, AdminDown, Down, signaled),
        (Up, Down, Down, signaled),
        (Up, Init, Up, none),
        (Up, Up, Up, none),
    ];
    for (state, received, next, diagnostic) in table {
        let mut session = session_in(state, Config::default());
        let actions = session.handle(Event::Received(says(received)), Time::from_millis(1));
        let status = session.status();
        let case = format!("{state} hears {received}");
        assert_eq!(
            (status.state, status.diagnostic),
            (next, diagnostic),
            "{case}"
        );
        assert_eq!(
            status.remote.map(|remote| remote.state),
            Some(received),
            "{case}"
        );
        let told: Vec<_> = changes(&actions)
            .iter()
            .map(|(from, to, _)| (*from, *to))
            .collect();
        let expected = if state == next {
            vec![]
        } else {
            vec![(state, next)]
        };
        assert_eq!(told, expected, "{case}");
        if state != next {
            let said = sent(&actions).pop().expect("news are sent at once");
            assert_eq!((said.state, said.diagnostic), (next, diagnostic), "{case}");
        }
    }
}

/// What ends or begins a session other than packets, in every state.
#[test]
fn every_state_and_every_other_event() {
    use State::*;
    let off = Config {
        enabled: false,
        ..Config::default()
    };
    let on = Config::default();
    let none: &[(State, State, Reason)] = &[];
    let expired = Reason::DetectionTimeExpired;
    let table = [
        (AdminDown, Event::Timer, none),
        (Down, Event::Timer, none),
        (Init, Event::Timer, &[(Init, Down, expired)]),
        (Up, Event::Timer, &[(Up, Down, expired)]),
        (AdminDown, Event::PathDown, none),
        (Down, Event::PathDown, none),
        (Init, Event::PathDown, &[(Init, Down, Reason::PathDown)]),
        (Up, Event::PathDown, &[(Up, Down, Reason::PathDown)]),
        (AdminDown, Event::Configure(off), none),
        (
            Down,
            Event::Configure(off),
            &[(Down, AdminDown, Reason::Disabled)],
        ),
        (
            Init,
            Event::Configure(off),
            &[(Init, AdminDown, Reason::Disabled)],
        ),
        (
            Up,
            Event::Configure(off),
            &[(Up, AdminDown, Reason::Disabled)],
        ),
        (
            AdminDown,
            Event::Configure(on),
            &[(AdminDown, Down, Reason::Enabled)],
        ),
        (Down, Event::Configure(on), none),
        (Init, Event::Configure(on), none),
        (Up, Event::Configure(on), none),
    ];
    for (state, event, expected) in table {
        let mut session = session_in(state, Config::default());
        let actions = session.handle(event, Time::from_secs(60));
        assert_eq!(changes(&actions), expected, "{state}: {event:?}");
        if let [(from, to, reason)] = expected {
            assert_eq!(
                session.status().diagnostic,
                reason.diagnostic(),
                "{state}: {event:?}"
            );
            let loss = session
                .status()
                .last_loss
                .map(|loss| (loss.from, loss.to, loss.reason));
            assert_eq!(
                loss,
                (*from == Up).then_some((*from, *to, *reason)),
                "{state}: {event:?}"
            );
        }
    }
}

#[test]
fn the_diagnostic_of_a_loss_is_said_until_up() {
    let mut session = session_in(State::Up, Config::default());
    let lost = session.handle(Event::Timer, Time::from_secs(2));
    let expired = Diagnostic::CONTROL_DETECTION_TIME_EXPIRED;
    assert_eq!(sent(&lost)[0].diagnostic, expired);
    assert_eq!(
        sent(&lost)[0].your_discriminator,
        None,
        "a silent peer is forgotten"
    );
    let init = session.handle(Event::Received(says(State::Down)), Time::from_secs(3));
    assert_eq!(
        (sent(&init)[0].state, sent(&init)[0].diagnostic),
        (State::Init, expired)
    );
    let up = session.handle(Event::Received(says(State::Up)), Time::from_secs(3));
    assert_eq!(
        (sent(&up)[0].state, sent(&up)[0].diagnostic),
        (State::Up, Diagnostic::NONE)
    );
}

#[test]
fn a_passive_session_waits_to_be_spoken_to() {
    let config = Config {
        role: Role::Passive,
        ..Config::default()
    };
    let mut session = Session::new(config, OURS, 7, Time::ZERO);
    assert_eq!(session.next_wakeup(), None);
    assert_eq!(session.handle(Event::Timer, Time::from_secs(5)), []);
    let first = Packet {
        your_discriminator: None,
        ..says(State::Down)
    };
    let answer = sent(&session.handle(Event::Received(first), Time::from_secs(6)));
    assert_eq!(answer.len(), 1);
    assert_eq!(
        (answer[0].state, answer[0].your_discriminator),
        (State::Init, Some(PEERS))
    );
    session.handle(Event::Timer, Time::from_secs(60));
    assert_eq!(
        session.next_wakeup(),
        None,
        "silent again once the peer is forgotten"
    );
}

/// Detection time (RFC 5880 §6.8.4) and transmit interval (§6.8.2) for what the peer says.
#[test]
fn intervals_follow_what_the_peer_says() {
    let config = Config {
        desired_min_tx: millis(50),
        required_min_rx: millis(200),
        ..Config::default()
    };
    // (the peer's detect mult, desired tx, required rx; our detection time and interval in µs)
    let table = [
        (3, 100_000, 100_000, 600_000, 100_000),
        (3, 300_000, 10_000, 900_000, 50_000),
        (1, 0, 0, 200_000, 50_000),
        (
            255,
            u32::MAX,
            u32::MAX,
            255 * u64::from(u32::MAX),
            u64::from(u32::MAX),
        ),
    ];
    for (detect_mult, tx, rx, detection, interval) in table {
        let mut session = session_in(State::Up, config);
        let packet = Packet {
            detect_mult: mult(detect_mult),
            desired_min_tx: Micros(tx),
            required_min_rx: Micros(rx),
            ..says(State::Up)
        };
        session.handle(Event::Received(packet), Time::from_millis(1));
        let status = session.status();
        assert_eq!(
            status.detection_time,
            Some(Duration::from_micros(detection))
        );
        assert_eq!(status.transmit_interval, Duration::from_micros(interval));
    }
}

#[test]
fn a_shorter_interval_of_the_peer_holds_at_once() {
    let config = Config {
        desired_min_tx: millis(50),
        ..Config::default()
    };
    let mut session = session_in(State::Up, config);
    let slow = Packet {
        required_min_rx: Micros(60_000_000),
        ..says(State::Up)
    };
    session.handle(Event::Received(slow), Time::from_millis(1));
    let fast = Packet {
        required_min_rx: Micros(50_000),
        ..says(State::Up)
    };
    let late = Time::from_millis(250);
    assert_eq!(
        sent(&session.handle(Event::Received(fast), late)).len(),
        1,
        "it is overdue"
    );
}

#[test]
fn detection_ends_at_the_microsecond() {
    let mut session = session_in(State::Up, Config::default());
    let heard = Time::from_millis(10);
    session.handle(Event::Received(says(State::Up)), heard);
    let due = heard + session.status().detection_time.unwrap();
    let before = Time::from_nanos(due.as_nanos() - 1);
    assert_eq!(changes(&session.handle(Event::Timer, before)), []);
    assert!(session.next_wakeup() <= Some(due));
    let change = (State::Up, State::Down, Reason::DetectionTimeExpired);
    assert_eq!(changes(&session.handle(Event::Timer, due)), [change]);
}

#[test]
fn a_poll_is_answered_at_once_but_not_in_admin_down() {
    for state in State::ALL {
        let mut session = session_in(state, Config::default());
        let poll = Packet {
            poll: true,
            ..says(State::Up)
        };
        let answers = sent(&session.handle(Event::Received(poll), Time::from_millis(1)));
        let finals = answers.iter().filter(|packet| packet.is_final).count();
        assert_eq!(finals, usize::from(state != State::AdminDown), "{state}");
        assert!(
            answers
                .iter()
                .all(|packet| !(packet.poll && packet.is_final)),
            "{state}"
        );
    }
}

#[test]
fn a_flood_of_polls_and_changes_is_answered_at_a_bounded_rate() {
    let mut session = session_in(State::Up, Config::default());
    let mut answers = 0;
    for micros in 0..1_000_000 / 50 {
        let state = if micros % 2 == 0 {
            State::Down
        } else {
            State::Init
        };
        let packet = Packet {
            poll: true,
            ..says(state)
        };
        let now = Time::from_nanos(micros * 50_000);
        answers += sent(&session.handle(Event::Received(packet), now)).len();
    }
    let (earned, saved, periodic) = (100, 8, 1_000 / 150);
    assert!(
        (50..=earned + saved + periodic).contains(&answers),
        "{answers} packets in a second"
    );
}

#[test]
fn coming_up_starts_a_poll_sequence_and_the_final_ends_it() {
    let mut session = session_in(State::Init, Config::default());
    let up = sent(&session.handle(Event::Received(says(State::Init)), Time::from_millis(1)));
    assert!(up[0].poll, "the interval went from 1 s to 200 ms");
    assert_eq!(up[0].desired_min_tx, Micros(200_000));
    let next = session.next_wakeup().unwrap();
    assert!(
        sent(&session.handle(Event::Timer, next))[0].poll,
        "until it is answered"
    );
    let answer = Packet {
        is_final: true,
        ..says(State::Up)
    };
    session.handle(Event::Received(answer), next);
    assert!(!session.status().polling);
}

#[test]
fn configuring_the_same_again_does_nothing() {
    for state in State::ALL {
        let mut session = session_in(state, Config::default());
        let config = *session.config();
        let before = session.status();
        assert_eq!(
            session.handle(Event::Configure(config), Time::from_millis(1)),
            []
        );
        assert_eq!(session.status(), before);
    }
}

#[test]
fn packets_carry_the_control_plane_bit_and_changes_carry_both() {
    let config = Config {
        control_plane_independent: true,
        ..Config::default()
    };
    for peers in [false, true] {
        let mut session = session_in(State::Up, config);
        let packet = Packet {
            control_plane_independent: peers,
            poll: true,
            ..says(State::Up)
        };
        let answer = sent(&session.handle(Event::Received(packet), Time::from_millis(1)));
        assert!(answer[0].control_plane_independent);
        session.handle(Event::Timer, Time::from_secs(9));
        let loss = session.status().last_loss.unwrap();
        assert!(loss.control_plane_independent);
        assert_eq!(loss.peer_control_plane_independent, peers);
        let expected = if peers {
            Verdict::Dead
        } else {
            Verdict::Undecided
        };
        assert_eq!(loss.verdict(), Some(expected));
    }
}
