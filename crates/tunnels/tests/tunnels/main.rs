//! Two processes with tunnels between them, each in a namespace of its own; needs root.

#![allow(clippy::unwrap_used, reason = "in a test, that is how it fails")]

mod doors;
mod nat;
mod pair;
mod path;
mod streams;

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{Ipv6Addr, SocketAddrV6, UdpSocket},
    path::PathBuf,
    process::{Command, Stdio},
    thread,
    time::Duration,
};

use hextet_lab::wait_until;
use hextet_tunnels::{
    Key, Mtu, Spec,
    control::{Answer, Request},
};
use hextet_types::Way;
use nix::{
    net::if_::if_nametoindex,
    sys::socket::{setsockopt, sockopt},
};

use pair::{DEVICE, PATIENCE, PROGRAM, Pair, Side, ip, octets, transfer};

const GROUP: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 1, 6);

/// Segments with a wrong checksum that the kernel has seen in the thread's namespace.
fn wrong_checksums() -> u64 {
    let text = std::fs::read_to_string("/proc/thread-self/net/snmp").unwrap();
    let mut lines = text.lines().filter(|line| line.starts_with("Tcp:"));
    let (names, numbers) = (lines.next().unwrap(), lines.next().unwrap());
    let mut pairs = names.split(' ').zip(numbers.split(' '));
    let (_, number) = pairs.find(|(name, _)| *name == "InCsumErrors").unwrap();
    number.parse().unwrap()
}

#[test]
fn both_families_pass_over_both_families_in_pieces_or_not() {
    for (name, over_ipv6, segments) in [
        ("four", false, true),
        ("six", true, true),
        ("single", true, false),
    ] {
        let pair = Pair::new(name);
        pair.connect(over_ipv6, |spec| spec.segments = segments);
        transfer(&pair, "[fd00::2]:0", 20_000_000);
        transfer(&pair, "10.9.0.2:0", 20_000_000);
        let [a, b] = pair.sides.each_ref().map(Side::status);
        assert!(a.octets_out > 40_000_000 && b.octets_in > 40_000_000);
        assert!(a.sent_millis.is_some() && a.heard_millis.is_some() && !a.device_lost);
        assert_eq!(a.endpoint, pair.sides[0].spec(over_ipv6).endpoint);
        assert_eq!(pair.sides[1].inside(wrong_checksums), 0);
    }
}

/// Each datagram is as long, and comes as often, as it was sent: the kernel has cut and merged them at both ends.
#[test]
fn datagrams_that_are_sent_together_come_one_by_one() {
    let pair = Pair::new("udp");
    pair.connect(false, |_| {});
    let [a, b] = &pair.sides;
    for (from, to) in [("[fd00::1]:0", "[fd00::2]:0"), ("10.9.0.1:0", "10.9.0.2:0")] {
        let receiver = b.inside(|| UdpSocket::bind(to)).unwrap();
        receiver.set_read_timeout(Some(PATIENCE)).unwrap();
        let sender = a.inside(|| UdpSocket::bind(from)).unwrap();
        sender.connect(receiver.local_addr().unwrap()).unwrap();
        setsockopt(&sender, sockopt::UdpGsoSegment, &1_000).unwrap();
        let octets = octets(30_500);
        assert_eq!(sender.send(&octets).unwrap(), octets.len());
        for expected in octets.chunks(1_000) {
            let mut datagram = [0; 2_000];
            let len = receiver.recv(&mut datagram).unwrap();
            assert!(&datagram[..len] == expected);
        }
    }
}

#[test]
fn multicast_passes_between_addresses_that_each_end_knows_of_the_other() {
    let pair = Pair::new("group");
    pair.connect(true, |_| {});
    let [a, b] = &pair.sides;
    let hear = || {
        let index = if_nametoindex(DEVICE).unwrap();
        let socket = UdpSocket::bind("[::]:6696").unwrap();
        socket.join_multicast_v6(&GROUP, index).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket
    };
    let hearer = b.inside(hear);
    a.inside(|| {
        let index = if_nametoindex(DEVICE).unwrap();
        let socket = UdpSocket::bind(SocketAddrV6::new(a.status().link_local, 0, 0, index));
        let to = SocketAddrV6::new(GROUP, 6_696, 0, index);
        socket.unwrap().send_to(b"hello", to).unwrap();
    });
    let mut datagram = [0; 10];
    let (len, from) = hearer.recv_from(&mut datagram).unwrap();
    assert_eq!(&datagram[..len], b"hello");
    assert_eq!(from.ip(), b.status().peer_link_local);
    assert_eq!(from.ip(), Side::key(1).public().link_local());
}

#[test]
fn a_controller_that_is_killed_takes_nothing_with_it_measured() {
    const COUNT: u32 = 4_000;
    let pair = Pair::new("kill");
    pair.connect(false, |_| {});
    let [a, b] = &pair.sides;
    let mut controllers = pair.sides.each_ref().map(|side| {
        let mut command = Command::new(PROGRAM);
        command
            .arg("ask")
            .arg(&side.socket)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        let mut controller = command.spawn().unwrap();
        controller
            .stdin
            .as_mut()
            .unwrap()
            .write_all(b"\"list\"\n")
            .unwrap();
        let mut line = String::new();
        let mut said = BufReader::new(controller.stdout.take().unwrap());
        assert!(said.read_line(&mut line).unwrap() > 0);
        controller
    });
    let receiver = b.inside(|| UdpSocket::bind("[fd00::2]:0")).unwrap();
    // A busy machine keeps its reader away for a while.
    setsockopt(&receiver, sockopt::RcvBufForce, &(8 << 20)).unwrap();
    receiver.set_read_timeout(Some(PATIENCE)).unwrap();
    let to = receiver.local_addr().unwrap();
    let sender = a.inside(|| UdpSocket::bind("[fd00::1]:0")).unwrap();
    let flow = thread::spawn(move || {
        for number in 0..COUNT {
            sender.send_to(&number.to_be_bytes(), to).unwrap();
            thread::sleep(Duration::from_micros(200));
        }
    });
    for number in 0..COUNT {
        if number == COUNT / 2 {
            for controller in &mut controllers {
                controller.kill().unwrap();
                controller.wait().unwrap();
            }
        }
        let mut datagram = [0; 10];
        assert_eq!(receiver.recv(&mut datagram).unwrap(), 4);
        assert_eq!(datagram[..4], number.to_be_bytes(), "lost, or not in order");
    }
    flow.join().unwrap();
    for side in &pair.sides {
        let before = side.status();
        let again = Request::Up(Box::new(side.spec(false)));
        assert_eq!(side.ask(&again), Answer::Done);
        assert!(side.status().octets_in >= before.octets_in);
    }
}

#[test]
fn a_peer_is_followed_when_its_address_changes() {
    let pair = Pair::new("roam");
    pair.connect(false, |_| {});
    let [a, b] = &pair.sides;
    let netns = &a.netns;
    ip(&format!("-n {netns} address del 192.0.2.1/24 dev veth0"));
    ip(&format!("-n {netns} address add 192.0.2.77/24 dev veth0"));
    transfer(&pair, "[fd00::2]:0", 1_000_000);
    let now: Way = "192.0.2.77:5000".parse().unwrap();
    assert_eq!(b.status().endpoint, Some(now));
}

#[test]
fn what_is_wrong_is_said_and_changes_nothing() {
    let pair = Pair::new("wrong");
    pair.connect(false, |_| {});
    let [a, _] = &pair.sides;
    let refused = |request: &Request, why: &str| match a.ask(request) {
        Answer::Error(error) => assert!(error.contains(why), "{error}"),
        other => panic!("{other:?}"),
    };
    let other = Spec {
        keepalive_secs: 0,
        ..a.spec(false)
    };
    refused(&Request::Up(Box::new(other)), "take it down first");
    let mixed = Spec {
        name: "hxt-wg1".parse().unwrap(),
        endpoint: a.spec(true).endpoint,
        ..a.spec(false)
    };
    refused(&Request::Up(Box::new(mixed)), "other family");
    let name = "hxt-wg9".parse().unwrap();
    let mtu = Mtu::try_from(1_280).unwrap();
    refused(&Request::Mtu { name, mtu }, "no tunnel hxt-wg9");
    let name: hextet_types::IfName = DEVICE.parse().unwrap();
    let less = Request::Mtu {
        name: name.clone(),
        mtu,
    };
    assert_eq!(a.ask(&less), Answer::Done);
    assert_eq!(a.status().mtu, mtu);
    assert_eq!(a.ask(&Request::Down(name)), Answer::Done);
    assert_eq!(a.ask(&Request::List), Answer::Tunnels(Vec::new()));
    assert!(a.inside(|| if_nametoindex(DEVICE)).is_err());
}

#[test]
fn a_stranger_is_refused_and_not_followed() {
    let pair = Pair::new("who");
    pair.connect(false, |_| {});
    let [a, b] = &pair.sides;
    let (before, endpoint) = (
        a.status().refused,
        b.spec(false).endpoint.unwrap().address().port(),
    );
    let stranger = b.inside(|| UdpSocket::bind("192.0.2.2:0")).unwrap();
    for kind in 0..6 {
        for len in [1, 31, 32, 64, 92, 148, 1_452] {
            let mut datagram = vec![0; len];
            datagram[0] = kind;
            stranger.send_to(&datagram, "192.0.2.1:5000").unwrap();
        }
    }
    assert!(wait_until(PATIENCE, || a.status().refused >= before + 42));
    assert_eq!(a.status().endpoint.unwrap().address().port(), endpoint);
    transfer(&pair, "10.9.0.2:0", 1_000_000);
}

/// Sealed packets are too long for it: they leave one by one, in fragments.
#[test]
fn an_uplink_that_is_narrower_than_the_tunnel_carries_it_all_the_same() {
    for (name, over_ipv6) in [("nar4", false), ("nar6", true)] {
        let pair = Pair::new(name);
        for side in &pair.sides {
            ip(&format!("-n {} link set veth0 mtu 1400", side.netns));
        }
        pair.connect(over_ipv6, |_| {});
        transfer(&pair, "[fd00::2]:0", 2_000_000);
        transfer(&pair, "10.9.0.2:0", 2_000_000);
    }
}

#[test]
fn a_tunnel_whose_interface_somebody_deletes_says_so_and_is_made_anew() {
    let pair = Pair::new("gone");
    pair.connect(false, |_| {});
    let [a, _] = &pair.sides;
    assert!(!a.status().device_lost);
    ip(&format!("-n {} link del {DEVICE}", a.netns));
    assert!(wait_until(PATIENCE, || a.status().device_lost));
    assert_eq!(a.ask(&Request::Down(DEVICE.parse().unwrap())), Answer::Done);
    assert_eq!(a.ask(&Request::Up(Box::new(a.spec(false)))), Answer::Done);
    a.address();
    transfer(&pair, "10.9.0.2:0", 1_000_000);
}

#[test]
fn a_second_process_at_the_same_socket_ends() {
    let pair = Pair::new("twice");
    let output = Command::new(PROGRAM)
        .arg("serve")
        .arg(&pair.sides[0].socket)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("another process serves it"), "{said}");
    let mut line = Vec::new();
    let mut stream = std::os::unix::net::UnixStream::connect(&pair.sides[0].socket).unwrap();
    stream.write_all(&[b'x'; 17_000]).unwrap();
    stream.read_to_end(&mut line).unwrap_or_default();
    assert!(
        String::from_utf8_lossy(&line).contains("too long"),
        "{line:?}"
    );
    assert_eq!(
        pair.sides[0].ask(&Request::List),
        Answer::Tunnels(Vec::new())
    );
}

/// The second side is wireguard-go instead of ours.
fn run_wireguard_go(pair: &mut Pair) {
    let device = format!("hxg{}", std::process::id());
    let control = PathBuf::from(format!("/var/run/wireguard/{device}.sock"));
    pair.leavings = Some(control.clone());
    let [_, b] = &mut pair.sides;
    b.process.kill().unwrap();
    b.process.wait().unwrap();
    let mut command = Command::new("ip");
    command.args(["netns", "exec", &b.netns, "wireguard-go", "-f", &device]);
    command.stdout(Stdio::null()).stderr(Stdio::null());
    b.process = command.spawn().unwrap();
    assert!(
        wait_until(PATIENCE, || control.exists()),
        "the packages wireguard-go and wireguard-tools are needed"
    );
    let spec = b.spec(false);
    let write = |name: &str, key: Key| {
        let path = b.socket.with_file_name(name);
        std::fs::write(&path, String::from(key)).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let private = write("private", spec.private_key);
    let shared = write("shared", spec.preshared_key.unwrap());
    let peer = String::from(spec.peer_key);
    let status = Command::new("wg")
        .args([
            "set",
            &device,
            "listen-port",
            "5000",
            "private-key",
            &private,
        ])
        .args(["peer", &peer, "preshared-key", &shared])
        .args([
            "allowed-ips",
            "::/0,0.0.0.0/0",
            "endpoint",
            "192.0.2.1:5000",
        ])
        .status()
        .unwrap();
    assert!(status.success());
    let netns = &b.netns;
    ip(&format!(
        "-n {netns} link set {device} name {DEVICE} mtu 1420 up"
    ));
    b.address();
}

#[test]
fn wireguard_go_is_understood_both_ways() {
    let mut pair = Pair::new("go");
    run_wireguard_go(&mut pair);
    let [a, _] = &pair.sides;
    assert_eq!(a.ask(&Request::Up(Box::new(a.spec(false)))), Answer::Done);
    a.address();
    assert!(wait_until(PATIENCE, || a.status().handshake_secs.is_some()));
    for _ in 0..2 {
        let [_, to] = &pair.sides;
        let [inner6, inner4] = [
            format!("[fd00::{}]:0", to.number),
            format!("10.9.0.{}:0", to.number),
        ];
        transfer(&pair, &inner6, 5_000_000);
        transfer(&pair, &inner4, 5_000_000);
        pair.sides.reverse();
    }
    assert_eq!(pair.sides[0].inside(wrong_checksums), 0);
}
