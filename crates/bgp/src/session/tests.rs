//! The state machine as tables: a state, what happens, and what comes of it (RFC 4271 §8.2.2).

use super::*;
use crate::{
    config::{PeerKey, RemoteAs},
    packet::{Capability, Framer, MessageType, Open},
};

const LOCAL: u8 = 5;

struct Bench {
    session: Session,
    jitter: Jitter,
    next_id: u64,
    now: Time,
}

fn addr(n: u8) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(192, 0, 2, n))
}

fn endpoint() -> Endpoint {
    Endpoint {
        local: addr(LOCAL),
        remote: addr(9),
        interface: None,
    }
}

/// What came out, in short.
#[derive(Debug, PartialEq, Eq)]
enum Did {
    Connect,
    Close(u64),
    Sent(u64, MessageType),
    Notified(u64, Code),
    Up,
    Down(bool),
    Other,
}

impl Bench {
    fn new(edit: impl FnOnce(&mut PeerConfig)) -> Self {
        let mut config = PeerConfig::new(PeerKey::Address(addr(9)), RemoteAs::Is(Asn(64513)));
        edit(&mut config);
        let settings = Settings {
            local_as: Asn(64512),
            router_id: Ipv4Addr::new(10, 0, 0, LOCAL),
            restart_time_secs: 120,
            restarting: false,
            forwarding: false,
            config: Arc::new(config),
        };
        Bench {
            session: Session::new(settings),
            jitter: Jitter::new(1),
            next_id: 0,
            now: Time::from_secs(1),
        }
    }

    fn act(&mut self, act: impl FnOnce(&mut Session, &mut Step<'_>)) -> Vec<Did> {
        let mut out = Vec::new();
        let mut step = Step {
            now: self.now,
            jitter: &mut self.jitter,
            next_id: &mut self.next_id,
            out: &mut out,
        };
        act(&mut self.session, &mut step);
        out.into_iter().map(did).collect()
    }

    fn accept(&mut self, id: u64) -> Vec<Did> {
        self.act(|s, step| s.on_accepted(ConnId(id), endpoint(), step))
    }

    fn receive(&mut self, id: u64, octets: &[u8]) -> Vec<Did> {
        self.act(|s, step| s.on_received(ConnId(id), octets, step))
    }

    /// An accepted connection in a state.
    fn in_state(phase: Phase, edit: impl FnOnce(&mut PeerConfig)) -> Self {
        let mut bench = Bench::new(edit);
        bench.session.settings.config = {
            let mut config = PeerConfig::clone(&bench.session.settings.config);
            config.passive = true;
            Arc::new(config)
        };
        bench.accept(100);
        if phase > Phase::OpenSent {
            bench.receive(100, &open(9, |_| ()));
        }
        if phase > Phase::OpenConfirm {
            bench.receive(100, &Message::Keepalive.encode());
        }
        bench
    }

    fn wait(&mut self, secs: u64) -> Vec<Did> {
        self.now += Duration::from_secs(secs);
        self.act(|s, step| s.on_timer(step))
    }
}

fn did(output: Output) -> Did {
    match output {
        Output::Connect(..) => Did::Connect,
        Output::Close(id) => Did::Close(id.0),
        Output::Send(id, octets) => {
            let mut framer = Framer::new();
            framer.push(&octets);
            match framer.next_message() {
                Ok(Some((MessageType::Notification, body))) => {
                    Did::Notified(id.0, Notification::decode_body(body).unwrap().code)
                }
                Ok(Some((kind, _))) => Did::Sent(id.0, kind),
                _ => Did::Other,
            }
        }
        Output::Up(_) => Did::Up,
        Output::Down { keep, .. } => Did::Down(keep),
        Output::Update(_) | Output::Refresh(_) => Did::Other,
    }
}

fn open(id: u8, edit: impl FnOnce(&mut Open)) -> Vec<u8> {
    let mut open = Open {
        my_as: 64513,
        hold_time_secs: 30,
        identifier: Ipv4Addr::new(10, 0, 0, id),
        capabilities: vec![
            Capability::Multiprotocol(Afi::unicast(Family::V4)),
            Capability::FourOctetAs(Asn(64513)),
        ],
    };
    edit(&mut open);
    Message::Open(open).encode()
}

fn update() -> Vec<u8> {
    let mut octets = Vec::new();
    crate::packet::encode_end_of_rib(&mut octets, Family::V4);
    octets
}

fn refresh() -> Vec<u8> {
    Message::RouteRefresh(RouteRefresh {
        family: Afi::unicast(Family::V4),
        kind: Some(crate::packet::RefreshKind::Request),
    })
    .encode()
}

#[test]
fn messages_in_each_state() {
    use Phase::{Established, OpenConfirm, OpenSent};
    let refused = |code, up: bool| {
        let mut did = vec![Did::Notified(100, code), Did::Close(100)];
        did.extend(up.then_some(Did::Down(false)));
        did
    };
    let keepalive = Message::Keepalive.encode();
    let cease = Message::Notification(Notification::new(Code::ADMIN_RESET)).encode();
    let greeted = vec![Did::Sent(100, MessageType::Keepalive)];
    let cases = [
        (OpenSent, open(9, |_| ()), greeted),
        (
            OpenSent,
            keepalive.clone(),
            refused(Code::FSM_OPEN_SENT, false),
        ),
        (OpenSent, update(), refused(Code::FSM_OPEN_SENT, false)),
        (OpenSent, refresh(), refused(Code::FSM_OPEN_SENT, false)),
        (OpenSent, cease.clone(), vec![Did::Close(100)]),
        (
            OpenConfirm,
            open(9, |_| ()),
            refused(Code::FSM_OPEN_CONFIRM, false),
        ),
        (OpenConfirm, keepalive.clone(), vec![Did::Up]),
        (
            OpenConfirm,
            update(),
            refused(Code::FSM_OPEN_CONFIRM, false),
        ),
        (OpenConfirm, cease.clone(), vec![Did::Close(100)]),
        (
            Established,
            open(9, |_| ()),
            refused(Code::FSM_ESTABLISHED, true),
        ),
        (Established, keepalive, vec![]),
        (Established, update(), vec![Did::Other]),
        (Established, refresh(), vec![Did::Other]),
        (Established, cease, vec![Did::Close(100), Did::Down(false)]),
        (
            Established,
            vec![0; 19],
            refused(Code::HEADER_NOT_SYNCHRONIZED, true),
        ),
    ];
    for (phase, octets, expected) in cases {
        let mut bench = Bench::in_state(phase, |_| ());
        assert_eq!(
            bench.receive(100, &octets),
            expected,
            "{phase:?} {octets:x?}"
        );
    }
}

#[test]
fn opens_that_do_not_fit_the_configuration() {
    type Edit = fn(&mut Open);
    let cases: [(Edit, Code); 4] = [
        (
            |o| o.capabilities[1] = Capability::FourOctetAs(Asn(7)),
            Code::OPEN_PEER_AS,
        ),
        (
            |o| o.capabilities[0] = Capability::Multiprotocol(Afi { afi: 1, safi: 128 }),
            Code::OPEN_CAPABILITY,
        ),
        (|o| o.hold_time_secs = 2, Code::OPEN_HOLD_TIME),
        (|o| o.identifier = Ipv4Addr::UNSPECIFIED, Code::OPEN_BGP_ID),
    ];
    for (edit, code) in cases {
        let mut bench = Bench::in_state(Phase::OpenSent, |_| ());
        let expected = [Did::Notified(100, code), Did::Close(100)];
        assert_eq!(bench.receive(100, &open(9, edit)), expected);
    }
    // RFC 6286: our own identifier is another AS's business, but not ours.
    let mut bench = Bench::in_state(Phase::OpenSent, |_| ());
    assert_eq!(bench.receive(100, &open(LOCAL, |_| ())).len(), 1);
    let mut bench = Bench::in_state(Phase::OpenSent, |c| c.remote_as = RemoteAs::Internal);
    let internal = open(LOCAL, |o| {
        o.capabilities[1] = Capability::FourOctetAs(Asn(64512))
    });
    assert_eq!(
        bench.receive(100, &internal),
        [Did::Notified(100, Code::OPEN_BGP_ID), Did::Close(100)]
    );
}

#[test]
fn a_peer_without_capabilities_has_ipv4_and_two_octets() {
    let mut bench = Bench::in_state(Phase::OpenSent, |_| ());
    bench.receive(100, &open(9, |o| o.capabilities.clear()));
    bench.receive(100, &Message::Keepalive.encode());
    let negotiated = bench
        .session
        .established()
        .unwrap()
        .negotiated
        .clone()
        .unwrap();
    assert_eq!(negotiated.families, [Family::V4].into_iter().collect());
    assert!(!negotiated.four_octet_as && !negotiated.route_refresh);
    assert_eq!(negotiated.restart, None);
}

#[test]
fn timers_in_each_state() {
    let expired = |up: bool| {
        let mut did = vec![Did::Notified(100, Code::HOLD_TIMER), Did::Close(100)];
        did.extend(up.then_some(Did::Down(false)));
        did
    };
    let mut bench = Bench::in_state(Phase::OpenSent, |_| ());
    assert_eq!(bench.wait(239), []);
    assert_eq!(bench.wait(1), expired(false));
    for (phase, up) in [(Phase::OpenConfirm, false), (Phase::Established, true)] {
        let mut bench = Bench::in_state(phase, |_| ());
        // The lesser hold time is 30 s; keepalives every 7.5 to 10 s.
        assert_eq!(bench.wait(7), []);
        assert_eq!(bench.wait(3), [Did::Sent(100, MessageType::Keepalive)]);
        assert_eq!(bench.wait(20), expired(up));
    }
    let mut bench = Bench::in_state(Phase::Established, |_| ());
    for _ in 0..5 {
        bench.wait(29);
        bench.receive(100, &update());
    }
    assert_eq!(
        bench.session.state(),
        State::Established,
        "any route keeps it"
    );
}

#[test]
fn no_hold_time_means_no_timers() {
    let mut bench = Bench::in_state(Phase::Established, |c| c.hold_time_secs = 0);
    let connection = bench.session.established_mut().unwrap();
    connection.in_flight = 0;
    assert_eq!(connection.deadlines().count(), 0);
    assert_eq!(bench.wait(100_000), []);
}

#[test]
fn an_attempt_that_hangs_is_given_up_and_made_again() {
    let mut bench = Bench::new(|_| ());
    assert_eq!(bench.act(Session::start), [Did::Connect]);
    assert_eq!(bench.session.state(), State::Connect);
    assert_eq!(bench.wait(30), [Did::Close(1)]);
    assert_eq!(bench.session.state(), State::Active);
    assert_eq!(bench.wait(5), [Did::Connect]);
}

/// Both ends' connections are up to OpenConfirm; the peer's identifier decides which one stays.
#[test]
fn a_collision_leaves_the_connection_of_the_higher_identifier() {
    for (remote, winner, loser) in [(9, 100, 1), (1, 1, 100)] {
        for first in [1, 100] {
            let mut bench = Bench::new(|_| ());
            bench.act(Session::start);
            bench.act(|s, step| s.on_opened(ConnId(1), endpoint(), step));
            bench.accept(100);
            bench.receive(first, &open(remote, |_| ()));
            let did = bench.receive(101 - first, &open(remote, |_| ()));
            let ended = [Did::Notified(loser, Code::COLLISION), Did::Close(loser)];
            assert_eq!(did[..2], ended, "{remote} {first}");
            let did = bench.receive(winner, &Message::Keepalive.encode());
            assert_eq!(did, [Did::Up], "{remote} {first}");
        }
    }
}

#[test]
fn a_connection_beside_an_established_one_is_refused_unless_the_peer_restarts_gracefully() {
    let mut bench = Bench::in_state(Phase::Established, |_| ());
    bench.accept(200);
    assert_eq!(
        bench.receive(200, &open(9, |_| ())),
        [Did::Notified(200, Code::COLLISION), Did::Close(200)]
    );
    assert_eq!(bench.session.state(), State::Established);
    let graceful = |o: &mut Open| {
        let restart = crate::packet::GracefulRestart::default();
        o.capabilities.push(Capability::GracefulRestart(restart));
    };
    let mut bench = Bench::in_state(Phase::OpenSent, |_| ());
    bench.receive(100, &open(9, graceful));
    bench.receive(100, &Message::Keepalive.encode());
    bench.accept(200);
    assert_eq!(
        bench.receive(200, &open(9, graceful)),
        [
            Did::Close(100),
            Did::Down(true),
            Did::Sent(200, MessageType::Keepalive)
        ]
    );
}

#[test]
fn one_connection_of_the_peer_waits_at_a_time() {
    let mut bench = Bench::in_state(Phase::OpenSent, |_| ());
    assert_eq!(
        bench.accept(200),
        [
            Did::Notified(100, Code::COLLISION),
            Did::Close(100),
            Did::Sent(200, MessageType::Open)
        ]
    );
}

#[test]
fn a_peer_that_called_and_fell_silent_is_called() {
    let mut bench = Bench::new(|_| ());
    bench.act(Session::start);
    bench.act(|s, step| s.on_closed(ConnId(1), step));
    bench.accept(100);
    assert_eq!(bench.wait(6), [Did::Connect]);
}

#[test]
fn what_a_down_session_keeps() {
    use Code as C;
    let ended: [(&str, bool, Option<Code>, bool); 5] = [
        ("lost", true, None, true),
        ("notified with N", true, Some(C::ADMIN_RESET), true),
        ("notified without N", false, Some(C::ADMIN_RESET), false),
        ("hard reset", true, Some(C::HARD_RESET), false),
        ("lost without N", false, None, true),
    ];
    for (what, notification, code, keep) in ended {
        let mut bench = Bench::in_state(Phase::OpenSent, |_| ());
        let graceful = |o: &mut Open| {
            o.capabilities.push(Capability::GracefulRestart(
                crate::packet::GracefulRestart {
                    notification,
                    ..Default::default()
                },
            ));
        };
        bench.receive(100, &open(9, graceful));
        bench.receive(100, &Message::Keepalive.encode());
        let did = match code {
            None => bench.act(|s, step| s.on_closed(ConnId(100), step)),
            Some(code) => bench.receive(
                100,
                &Message::Notification(Notification::new(code)).encode(),
            ),
        };
        assert_eq!(did.last(), Some(&Did::Down(keep)), "{what}");
    }
}
