//! Tunnels and letters by streams of TLS, where no UDP is let through.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream, UdpSocket},
    process::Command,
    sync::atomic::{AtomicBool, Ordering::SeqCst},
    thread,
    time::Duration,
};

use hextet_lab::wait_until;
use hextet_tunnels::{
    Listen, Mtu, Spec,
    control::{Answer, DoorStatus, Request},
    letters::MAX_LETTER,
};
use hextet_types::Way;
use nix::sys::socket::{setsockopt, sockopt};

use crate::{
    doors::{post, read},
    nat::inside,
    pair::{PATIENCE, Pair, Side, ip, octets, transfer},
};

const TLS: u16 = 443;
const WALL: &str = "
table inet wall {
    chain in { type filter hook input priority 0; iifname veth0 meta l4proto udp drop; }
    chain out { type filter hook output priority 0; oifname veth0 meta l4proto udp drop; }
}
";

fn by_tls(number: u8, over_ipv6: bool) -> Way {
    let at = Side::outer(number, over_ipv6).address();
    Way::Tls(SocketAddr::new(at.ip(), TLS))
}

fn open(side: &Side) {
    for listen in ["tls:0.0.0.0:443", "tls:[::]:443"] {
        let listen: Way = listen.parse().unwrap();
        let uplink = Some("veth0".parse().unwrap());
        let request = Request::Door { listen, uplink };
        assert_eq!(side.ask(&request), Answer::Door(listen));
        assert_eq!(side.ask(&request), Answer::Door(listen), "asked again");
    }
}

/// The first is behind a wall, and the second has a door for streams.
fn part(pair: &Pair) {
    inside(&pair.sides[0].netns, "nft -f -", WALL);
    open(&pair.sides[1]);
}

/// The first looks for the second, which waits, by UDP and a stream.
fn spec(side: &Side, over_ipv6: bool) -> Spec {
    let candidates = match side.number {
        1 => vec![Side::outer(2, over_ipv6), by_tls(2, over_ipv6)],
        _ => vec![Side::outer(1, over_ipv6)],
    };
    Spec {
        listen: Listen::Doors(side.doors()),
        uplink: None,
        endpoint: None,
        candidates,
        ..side.spec(over_ipv6)
    }
}

fn connect(pair: &Pair, over_ipv6: bool, mtu: u16) {
    for side in &pair.sides {
        let spec = Spec {
            mtu: Mtu::try_from(mtu).unwrap(),
            ..spec(side, over_ipv6)
        };
        assert_eq!(side.ask(&Request::Up(Box::new(spec))), Answer::Done);
        side.address();
    }
    for side in &pair.sides {
        assert!(wait_until(PATIENCE, || side.status().endpoint_proven));
    }
}

fn is_by_stream(side: &Side) -> bool {
    let endpoint = side.status().endpoint;
    endpoint.is_some_and(|at| at.tls().is_some())
}

fn tls_door(side: &Side) -> DoorStatus {
    match side.ask(&Request::Doors) {
        Answer::Doors(doors) => doors
            .into_iter()
            .find(|door| door.address.tls().is_some())
            .unwrap(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn both_families_pass_by_a_stream_over_both_where_udp_does_not() {
    for (name, over_ipv6) in [("tls4", false), ("tls6", true)] {
        let pair = Pair::new(name);
        part(&pair);
        connect(&pair, over_ipv6, 9_000);
        let [a, b] = &pair.sides;
        assert_eq!(a.status().endpoint, Some(by_tls(2, over_ipv6)));
        assert!(is_by_stream(b) && tls_door(b).streams == 1);
        transfer(&pair, "[fd00::2]:0", 5_000_000);
        transfer(&pair, "10.9.0.2:0", 5_000_000);
        for (from, to) in [("[fd00::1]:0", "[fd00::2]:0"), ("10.9.0.1:0", "10.9.0.2:0")] {
            let receiver = b.inside(|| UdpSocket::bind(to)).unwrap();
            receiver.set_read_timeout(Some(PATIENCE)).unwrap();
            let sender = a.inside(|| UdpSocket::bind(from)).unwrap();
            sender.connect(receiver.local_addr().unwrap()).unwrap();
            let large = octets(8_900);
            assert_eq!(sender.send(&large).unwrap(), large.len());
            let mut datagram = [0; 10_000];
            assert_eq!(receiver.recv(&mut datagram).unwrap(), large.len());
            assert!(datagram.starts_with(&large));
            setsockopt(&sender, sockopt::UdpGsoSegment, &1_000).unwrap();
            let many = octets(40_500);
            assert_eq!(sender.send(&many).unwrap(), many.len());
            for expected in many.chunks(1_000) {
                let len = receiver.recv(&mut datagram).unwrap();
                assert!(&datagram[..len] == expected);
            }
        }
        assert!(is_by_stream(a) && is_by_stream(b));
    }
}

#[test]
fn udp_takes_over_without_loss_once_it_passes() {
    let pair = Pair::new("tlsup");
    part(&pair);
    connect(&pair, true, 1_420);
    let [a, b] = &pair.sides;
    let receiver = b.inside(|| UdpSocket::bind("[fd00::2]:0")).unwrap();
    setsockopt(&receiver, sockopt::RcvBufForce, &(8 << 20)).unwrap();
    receiver.set_read_timeout(Some(PATIENCE)).unwrap();
    let to = receiver.local_addr().unwrap();
    let sender = a.inside(|| UdpSocket::bind("[fd00::1]:0")).unwrap();
    let done = AtomicBool::new(false);
    let count = thread::scope(|scope| {
        let flow = scope.spawn(|| {
            let mut number = 0_u32;
            while !done.load(SeqCst) {
                sender.send_to(&number.to_be_bytes(), to).unwrap();
                number += 1;
                thread::sleep(Duration::from_micros(500));
            }
            number
        });
        inside(&a.netns, "nft delete table inet wall", "");
        let up = wait_until(PATIENCE, || !is_by_stream(a) && !is_by_stream(b));
        done.store(true, SeqCst);
        let count = flow.join().unwrap();
        assert!(up, "{:?} {:?}", a.status(), b.status());
        count
    });
    let mut came = vec![false; count as usize];
    for _ in 0..count {
        let mut datagram = [0; 4];
        assert_eq!(receiver.recv(&mut datagram).unwrap(), 4);
        came[u32::from_be_bytes(datagram) as usize] = true;
    }
    assert!(came.iter().all(|came| *came), "lost");
    transfer(&pair, "10.9.0.2:0", 1_000_000);
    assert_eq!(a.status().endpoint, Some(Side::outer(2, true)));
}

#[test]
fn a_stream_takes_over_where_udp_passes_no_more() {
    let pair = Pair::new("tlsdown");
    open(&pair.sides[1]);
    connect(&pair, false, 1_420);
    let [a, b] = &pair.sides;
    // Both ways were tried at once.
    assert!(wait_until(PATIENCE, || !is_by_stream(a) && !is_by_stream(b)));
    inside(&a.netns, "nft -f -", WALL);
    let sender = a.inside(|| UdpSocket::bind("[fd00::1]:0")).unwrap();
    assert!(wait_until(PATIENCE * 3, || {
        sender.send_to(b"is anybody there?", "[fd00::2]:9").unwrap();
        is_by_stream(a) && is_by_stream(b)
    }));
    transfer(&pair, "10.9.0.2:0", 1_000_000);
}

#[test]
fn a_server_s_process_that_is_replaced_is_found_again() {
    let mut pair = Pair::new("tlsnew");
    part(&pair);
    connect(&pair, false, 1_420);
    transfer(&pair, "[fd00::2]:0", 1_000_000);
    let b = &mut pair.sides[1];
    b.restart();
    open(b);
    let request = Request::Up(Box::new(spec(b, false)));
    assert_eq!(b.ask(&request), Answer::Done);
    b.address();
    let b = &pair.sides[1];
    assert!(wait_until(PATIENCE, || b.status().handshake_secs.is_some()));
    transfer(&pair, "[fd00::2]:0", 1_000_000);
    assert!(is_by_stream(&pair.sides[0]));
}

#[test]
fn a_client_whose_address_changes_opens_another_stream() {
    let pair = Pair::new("tlsroam");
    part(&pair);
    connect(&pair, false, 1_420);
    let [a, b] = &pair.sides;
    let netns = &a.netns;
    ip(&format!("-n {netns} address del 192.0.2.1/24 dev veth0"));
    ip(&format!("-n {netns} address add 192.0.2.77/24 dev veth0"));
    transfer(&pair, "[fd00::2]:0", 1_000_000);
    let at = b.status().endpoint.and_then(Way::tls).unwrap();
    assert_eq!(at.ip().to_string(), "192.0.2.77");
}

#[test]
fn letters_go_by_a_stream_and_answers_by_the_same() {
    let pair = Pair::new("tlspost");
    part(&pair);
    let [a, b] = &pair.sides;
    a.doors();
    let posts = post(&pair);
    for over_ipv6 in [false, true] {
        for len in [1, MAX_LETTER] {
            let question = a.letter(by_tls(2, over_ipv6), &vec![0; len]);
            posts[0].send(&question).unwrap();
            let came = read(&posts[1]);
            let from = came.other.tls().unwrap();
            assert_eq!(from.ip(), Side::outer(1, over_ipv6).address().ip());
            assert_eq!(came.octets, question.octets);
            posts[1].send(&b.letter(came.other, &[0, 7])).unwrap();
            let answer = read(&posts[0]);
            assert_eq!(answer.other, question.other);
            assert_eq!(answer.octets, [0, 7]);
        }
    }
    assert_eq!(tls_door(b).streams, 2);
}

/// Whether the other end has ended the stream.
fn is_ended(stream: &mut TcpStream) -> bool {
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    match stream.read_to_end(&mut Vec::new()) {
        Ok(_) => true,
        Err(error) => error.kind() == std::io::ErrorKind::ConnectionReset,
    }
}

#[test]
fn strangers_at_the_door_for_streams_are_cut_off_and_disturb_nobody() {
    let pair = Pair::new("tlswho");
    part(&pair);
    connect(&pair, false, 1_420);
    let [a, b] = &pair.sides;
    let to = by_tls(2, true).address();
    let stranger = || a.inside(|| TcpStream::connect(to)).unwrap();
    let mut garbage = stranger();
    garbage.write_all(&octets(3_000)).unwrap();
    assert!(is_ended(&mut garbage));
    // One says nothing, one half of something, and there are more of them than there is room for.
    let mut silent: Vec<TcpStream> = (0..20).map(|_| stranger()).collect();
    assert!(wait_until(PATIENCE, || tls_door(b).refused >= 4));
    for stream in silent.iter_mut().step_by(2) {
        // A record of a handshake, of 512 octets.
        let _ = stream.write_all(&[22, 3, 1, 2, 0, 1, 0, 1, 252]);
    }
    transfer(&pair, "10.9.0.2:0", 1_000_000);
    for stream in &mut silent {
        assert!(is_ended(stream));
    }
    assert!(wait_until(PATIENCE, || tls_door(b).streams == 1));
    assert!(is_by_stream(a) && is_by_stream(b));
}

#[test]
fn a_reader_that_does_not_read_is_waited_for_by_nobody() {
    let pair = Pair::new("tlsslow");
    part(&pair);
    connect(&pair, false, 1_420);
    let [a, b] = &pair.sides;
    let signal = |name: &str| {
        let process = a.process.id().to_string();
        let status = Command::new("kill").args([name, &process]).status();
        assert!(status.unwrap().success());
    };
    signal("-STOP");
    let sender = b.inside(|| UdpSocket::bind("[fd00::2]:0")).unwrap();
    let lost = wait_until(PATIENCE, || {
        for _ in 0..1_000 {
            sender.send_to(&[7; 1_300], "[fd00::1]:9").unwrap();
        }
        b.status().unsent > 0
    });
    signal("-CONT");
    assert!(lost);
    transfer(&pair, "10.9.0.2:0", 1_000_000);
}

#[test]
fn a_stream_needs_doors() {
    let pair = Pair::new("tlsown");
    let [a, _] = &pair.sides;
    let own = Spec {
        endpoint: Some(by_tls(2, false)),
        ..a.spec(false)
    };
    match a.ask(&Request::Up(Box::new(own))) {
        Answer::Error(error) => assert!(error.contains("a stream without doors"), "{error}"),
        other => panic!("{other:?}"),
    }
}
