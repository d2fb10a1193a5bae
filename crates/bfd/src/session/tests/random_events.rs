//! Whatever comes in whatever order, the invariants of a session hold.

use proptest::prelude::*;

use super::*;

#[derive(Clone, Debug)]
enum Step {
    Event(Event),
    /// Microseconds.
    Wait(u64),
    WaitForWakeup,
}

prop_compose! {
    fn any_config()(
        passive: bool,
        tx in 10u64..=60_000,
        rx in 10u64..=60_000,
        detect_mult: NonZeroU8,
        control_plane_independent: bool,
        enabled in prop::bool::weighted(0.8),
    ) -> Config {
        Config {
            role: if passive { Role::Passive } else { Role::Active },
            desired_min_tx: millis(tx),
            required_min_rx: millis(rx),
            detect_mult,
            control_plane_independent,
            enabled,
        }
    }
}

prop_compose! {
    fn any_received()(
        state in prop::sample::select(State::ALL.to_vec()),
        flags: [bool; 4],
        detect_mult: NonZeroU8,
        tx in prop_oneof![Just(0), Just(100_000), Just(u32::MAX), any::<u32>()],
        rx in prop_oneof![Just(0), Just(100_000), Just(u32::MAX), any::<u32>()],
    ) -> Packet {
        Packet {
            poll: flags[0],
            is_final: flags[1],
            control_plane_independent: flags[2],
            demand: flags[3],
            detect_mult,
            desired_min_tx: Micros(tx),
            required_min_rx: Micros(rx),
            ..says(state)
        }
    }
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => any_received().prop_map(|packet| Step::Event(Event::Received(packet))),
        1 => any_config().prop_map(|config| Step::Event(Event::Configure(config))),
        1 => Just(Step::Event(Event::PathDown)),
        2 => Just(Step::Event(Event::Timer)),
        3 => (0u64..3_000_000).prop_map(Step::Wait),
        4 => Just(Step::WaitForWakeup),
    ]
}

fn check(session: &Session, actions: &[Action], before: State) {
    let mut state = before;
    for action in actions {
        match action {
            Action::Changed(change) => {
                assert_eq!(change.from, state);
                assert_ne!(change.from, change.to);
                assert_ne!((change.from, change.to), (State::Up, State::Init));
                assert_ne!((change.from, change.to), (State::AdminDown, State::Up));
                state = change.to;
            }
            Action::Send(packet) => {
                assert!(session.remote.is_some() || session.config.role == Role::Active);
                assert!(!(packet.poll && packet.is_final));
                assert_eq!(
                    (packet.state, packet.my_discriminator),
                    (session.state, OURS)
                );
                assert!(packet.state == State::Up || packet.desired_min_tx >= SLOW);
                assert_eq!(packet.your_discriminator, session.remote.map(|_| PEERS));
                assert!(!packet.demand && packet.required_min_echo_rx == Micros(0));
            }
        }
    }
    assert_eq!(session.state, state, "each change is told");
    assert!(session.timing.in_use().desired_min_tx <= session.timing.stated().desired_min_tx);
    assert!(session.timing.in_use().required_min_rx >= session.timing.stated().required_min_rx);
    assert!(session.remote.is_some() || matches!(session.state, State::AdminDown | State::Down));
    assert!(
        session.remote.is_some() || !session.timing.is_polling(),
        "nobody could answer"
    );
}

proptest! {
    #[test]
    fn invariants_hold(
        config in any_config(),
        seed: u64,
        steps in prop::collection::vec(any_step(), 0..200),
    ) {
        let mut now = Time::ZERO;
        let mut session = Session::new(config, OURS, seed, now);
        for step in steps {
            let event = match step {
                Step::Wait(micros) => {
                    now += Duration::from_micros(micros);
                    continue;
                }
                Step::WaitForWakeup => {
                    now = session.next_wakeup().unwrap_or(now).max(now);
                    Event::Timer
                }
                Step::Event(event) => event,
            };
            let before = session.state;
            let actions = session.handle(event, now);
            prop_assert!(sent(&actions).len() <= 2);
            check(&session, &actions, before);
            if event == Event::Timer {
                prop_assert!(session.next_wakeup().is_none_or(|at| at > now), "it would spin");
            }
        }
    }
}
