//! The peer decides that we shall be quiet: Demand mode and a Required Min RX Interval of zero.

use super::*;

fn up_with(packet: Packet) -> Session {
    let mut session = session_in(State::Up, Config::default());
    let answer = Packet {
        is_final: true,
        ..packet
    };
    session.handle(Event::Received(answer), Time::from_millis(1));
    session
}

/// How many packets are sent in a minute in which the peer keeps repeating itself.
fn packets_in_a_minute(session: &mut Session, packet: Packet) -> usize {
    (1..600)
        .map(|n| Time::from_millis(n * 100))
        .map(|now| {
            let heard = session.handle(Event::Received(packet), now);
            sent(&heard).len() + sent(&session.handle(Event::Timer, now)).len()
        })
        .sum()
}

#[test]
fn in_demand_mode_nothing_is_sent_but_answers_and_polls() {
    let demand = Packet {
        demand: true,
        ..says(State::Up)
    };
    let mut session = up_with(demand);
    assert_eq!(packets_in_a_minute(&mut session, demand), 0);
    let now = Time::from_secs(60);
    let poll = Packet {
        poll: true,
        ..demand
    };
    assert!(sent(&session.handle(Event::Received(poll), now))[0].is_final);

    let slower = Config {
        desired_min_tx: millis(400),
        ..Config::default()
    };
    assert!(sent(&session.handle(Event::Configure(slower), now))[0].poll);
    let again = sent(&session.handle(Event::Timer, now + SECOND / 4));
    assert!(
        again[0].poll,
        "a Poll Sequence goes on until it is answered"
    );
    let answer = Packet {
        is_final: true,
        ..demand
    };
    session.handle(Event::Received(answer), now + SECOND / 4);
    assert_eq!(
        session.status().transmit_interval,
        Duration::from_millis(400)
    );
    let silent = session.handle(Event::Timer, now + SECOND / 2);
    assert_eq!(sent(&silent), []);
}

#[test]
fn demand_mode_is_only_for_when_both_are_up() {
    let demand = Packet {
        demand: true,
        ..says(State::Init)
    };
    let mut session = up_with(demand);
    assert!(
        packets_in_a_minute(&mut session, demand) > 200,
        "the peer is not Up yet"
    );
}

#[test]
fn a_silent_peer_in_demand_mode_is_lost_as_any_other() {
    let mut session = up_with(Packet {
        demand: true,
        ..says(State::Up)
    });
    let change = (State::Up, State::Down, Reason::DetectionTimeExpired);
    let wakeup = session.next_wakeup().unwrap();
    assert_eq!(changes(&session.handle(Event::Timer, wakeup)), [change]);
}

#[test]
fn a_peer_that_wants_nothing_periodic_gets_only_news_and_answers() {
    let quiet = Packet {
        required_min_rx: Micros(0),
        ..says(State::Up)
    };
    let mut session = up_with(quiet);
    assert_eq!(packets_in_a_minute(&mut session, quiet), 0);
    let now = Time::from_secs(60);
    let poll = Packet {
        poll: true,
        ..quiet
    };
    assert!(sent(&session.handle(Event::Received(poll), now))[0].is_final);
    let off = Config {
        enabled: false,
        ..Config::default()
    };
    let news = sent(&session.handle(Event::Configure(off), now));
    assert_eq!(news[0].state, State::AdminDown);
}
