//! A port's eBPF programs on a real link: what they answer, what they let pass, and that without them it
//! would be otherwise.

#![allow(clippy::expect_used, reason = "in a test, that is how it fails")]

mod support;

use std::{
    collections::BTreeMap,
    net::{IpAddr, TcpListener, UdpSocket},
    sync::Mutex,
    thread,
    time::{Duration, Instant},
};

use hextet_model::state::{
    EdgeProgram, Key, Link, Neighbour, Netns, NextHop, Object, Route, RouteKey, RouteKind,
};
use hextet_types::Prefix;
use support::{
    GATEWAY, Host, NamedNetns, each_way, isolated, name, run, states,
    tap::{Tap, ipv6, v6},
    try_run,
};

const GUEST: &str = "02:00:00:00:00:05";

/// A port `tap1` whose other end is `eth0` in the guest's namespace, with routes to its addresses.
fn port(with_program: bool) -> BTreeMap<Key, Object> {
    let netns = || Netns::Main;
    let link = || name("tap1");
    let mut objects = vec![Object::Link(Link {
        netns: netns(),
        name: link(),
        mac: GATEWAY,
        mtu: 1500,
        group: 0,
        up: true,
    })];
    if with_program {
        objects.push(Object::EdgeProgram(EdgeProgram {
            netns: netns(),
            link: link(),
        }));
    }
    for addr in ["192.0.2.5", "2001:db8::5", "fe80::ff:fe00:5"] {
        let addr = addr.parse().expect("an address");
        let mac = GUEST.parse().expect("a MAC");
        objects.push(Object::Neighbour(Neighbour {
            netns: netns(),
            link: link(),
            addr,
            mac,
        }));
        let prefix = Prefix::host(addr);
        let key = RouteKey {
            netns: netns(),
            table: 254,
            prefix,
            source: None,
            metric: 0,
        };
        let kind = RouteKind::Unicast(vec![NextHop {
            via: None,
            link: link(),
        }]);
        objects.push(Object::Route(Route {
            key,
            kind,
            prefsrc: None,
        }));
    }
    states(objects)
}

/// Runs a test with a guest behind a veth.
fn with_guest(program: bool, test: impl Fn(&NamedNetns) + Sync) {
    let once = || {
        let guest = NamedNetns::create();
        run("sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1");
        run("ip addr add 192.0.2.254/32 dev lo; ip addr add 2001:db8::fe/128 dev lo");
        run(&format!(
            "ip link add tap1 type veth peer name eth0 address {GUEST} netns {}",
            guest.0
        ));
        guest.run("ip link set lo up");
        guest.run("ip link set eth0 up");
        guest.run("ip addr add 192.0.2.5/24 dev eth0");
        Host::open().reconcile(&port(program));
        guest.run("ip addr add 2001:db8::5/64 dev eth0 nodad");
        wait_for("the guest's link-local address", || {
            let addresses = guest.run("ip -6 addr show dev eth0 scope link");
            addresses.contains("fe80::") && !addresses.contains("tentative")
        });
        test(&guest);
    };
    match program {
        true => each_way(once),
        false => isolated(once),
    }
}

fn wait_for(what: &str, mut holds: impl FnMut() -> bool) {
    let limit = Instant::now() + Duration::from_secs(10);
    while !holds() {
        assert!(Instant::now() < limit, "{what} did not come about");
        thread::sleep(Duration::from_millis(20));
    }
}

fn guest_can(guest: &NamedNetns, command: &str) -> bool {
    try_run(&format!("ip netns exec {} {command}", guest.0)).is_ok()
}

/// Lets what comes from the host itself pass our egress program.
fn admit_everything() {
    run("nft 'add table inet t; \
         add chain inet t o { type filter hook output priority 0; }; \
         add rule inet t o meta mark set 0x00400000'");
}

#[test]
fn whatever_a_guest_asks_for_is_answered_with_the_gateway() {
    with_guest(true, |guest| {
        for (address, family) in [("192.0.2.77", "4"), ("2001:db8::77", "6"), ("fe80::1", "6")] {
            let _ = guest_can(
                guest,
                &format!("ping -{family} -c1 -W0.3 -I eth0 {address}"),
            );
            let neighbours = guest.run("ip neigh show dev eth0");
            let of = neighbours
                .lines()
                .find(|line| line.starts_with(&format!("{address} ")));
            assert!(
                of.is_some_and(|l| l.contains(&GATEWAY.to_string())),
                "{address}: {neighbours}"
            );
        }
    });
}

#[test]
fn without_the_program_nobody_answers() {
    with_guest(false, |guest| {
        let _ = guest_can(guest, "ping -4 -c1 -W0.3 192.0.2.77");
        let neighbours = guest.run("ip neigh show dev eth0");
        assert!(!neighbours.contains(&GATEWAY.to_string()), "{neighbours}");
    });
}

#[test]
fn duplicate_address_detection_finds_nobody() {
    with_guest(true, |guest| {
        guest.run("ip addr add 2001:db8::99/64 dev eth0");
        wait_for("the end of duplicate address detection", || {
            !guest
                .run("ip -6 addr show dev eth0 to 2001:db8::99")
                .contains("tentative")
        });
        assert!(!guest.run("ip -6 addr show dev eth0").contains("dadfailed"));
    });
}

#[test]
fn the_gateway_answers_pings_without_an_address() {
    with_guest(true, |guest| {
        assert!(guest_can(guest, "ping -6 -c2 -i0.2 -W2 fe80::1%eth0"));
        assert!(guest_can(guest, "ping -6 -c1 -W2 -s 1400 fe80::1%eth0"));
        assert!(guest_can(
            guest,
            "ping -6 -c1 -W2 -I 2001:db8::5 fe80::1%eth0"
        ));
        assert!(!guest_can(guest, "ping -6 -c1 -W0.3 fe80::2%eth0"));
    });
    with_guest(false, |guest| {
        assert!(!guest_can(guest, "ping -6 -c1 -W0.3 fe80::1%eth0"));
    });
}

#[test]
fn nothing_reaches_a_port_that_nothing_admitted() {
    with_guest(true, |guest| {
        for host in ["192.0.2.254", "2001:db8::fe"] {
            assert!(
                !guest_can(guest, &format!("ping -c1 -W0.3 {host}")),
                "{host}"
            );
        }
        admit_everything();
        for host in ["192.0.2.254", "2001:db8::fe"] {
            assert!(guest_can(guest, &format!("ping -c1 -W2 {host}")), "{host}");
        }
        run("nft flush ruleset");
        assert!(!guest_can(guest, "ping -c1 -W0.3 192.0.2.254"));
    });
    with_guest(false, |guest| {
        assert!(
            guest_can(guest, "ping -c1 -W2 192.0.2.254"),
            "without the program it passes"
        );
    });
}

#[test]
fn what_comes_from_a_port_is_marked_as_that_and_nothing_else() {
    let counted = |program| {
        let counts = Mutex::new(Vec::new());
        with_guest(program, |guest| {
            run("nft 'add table inet t; \
                 add chain inet t i { type filter hook input priority 0; }; \
                 add rule inet t i iifname tap1 meta mark 0x00100000 counter; \
                 add rule inet t i iifname tap1 meta mark != 0x00100000 counter'");
            guest.run("ping -c1 -W0.3 192.0.2.254 || true");
            guest.run("ping -c1 -W0.3 2001:db8::fe || true");
            let rules = run("nft list chain inet t i");
            let packets = |line: &str| {
                let mut words = line
                    .split(' ')
                    .skip_while(|word| *word != "packets")
                    .skip(1);
                words.next().and_then(|word| word.parse::<u32>().ok())
            };
            *counts.lock().expect("no panic") = rules.lines().filter_map(packets).collect();
        });
        counts.into_inner().expect("no panic")
    };
    let [marked, unmarked] = counted(true)[..] else {
        panic!("two rules")
    };
    assert!(marked >= 2 && unmarked == 0, "{marked} {unmarked}");
    let [marked, unmarked] = counted(false)[..] else {
        panic!("two rules")
    };
    assert!(marked == 0 && unmarked >= 1, "{marked} {unmarked}");
}

/// What a container's own stack sends by its veth leaves all checksums to whoever needs them, and segments are
/// cut later still.
#[test]
fn what_a_container_leaves_to_the_host_gets_in() {
    const SENT: usize = 2_000_000;
    with_guest(true, |guest| {
        admit_everything();
        run(
            "nft 'add chain inet t p { type filter hook prerouting priority -300; }; \
             add rule inet t p iifname tap1 meta pkttype set host; \
             add rule inet t p iifname tap1 tcp dport 7000 counter'",
        );
        for host in ["192.0.2.254", "2001:db8::fe"] {
            let address = (host.parse::<IpAddr>().expect("an address"), 7000);
            let listener = TcpListener::bind(address).expect("bound");
            let reader = thread::spawn(move || {
                let (mut stream, _) = listener.accept().expect("accepted");
                std::io::copy(&mut stream, &mut std::io::sink()).expect("read")
            });
            let send = format!("head -c {SENT} /dev/zero > /dev/tcp/{host}/7000");
            guest.run(&format!("timeout 10 bash -c '{send}'"));
            assert_eq!(reader.join().expect("it ends"), SENT as u64, "{host}");
            let socket = UdpSocket::bind(address).expect("bound");
            let timeout = Some(Duration::from_secs(5));
            socket.set_read_timeout(timeout).expect("a timeout");
            guest.run(&format!("bash -c 'echo hello > /dev/udp/{host}/7000'"));
            assert_eq!(socket.recv(&mut [0; 64]).expect("it came"), 6, "{host}");
        }
        let rules = run("nft list chain inet t p");
        let mut words = rules.split(' ').skip_while(|word| *word != "packets");
        let packets = words.nth(1).and_then(|word| word.parse::<usize>().ok());
        let frames = 2 * SENT / 1500;
        assert!(
            packets.is_some_and(|packets| packets < frames / 2),
            "{packets:?}: nothing was left to the host"
        );
    });
}

fn with_tap(program: bool, test: impl Fn(&mut Tap) + Sync) {
    let once = || {
        run("sysctl -qw net.ipv6.conf.default.accept_ra=2 net.ipv6.conf.default.accept_dad=0");
        let mut tap = Tap::open("tap1");
        Host::open().reconcile(&port(program));
        test(&mut tap);
    };
    match program {
        true => each_way(once),
        false => isolated(once),
    }
}

fn arp(operation: u8, sender: [u8; 4], target: [u8; 4]) -> Vec<u8> {
    let mut frame = vec![0xff; 6];
    frame.extend([
        2, 0, 0, 0, 0, 5, 8, 6, 0, 1, 8, 0, 6, 4, 0, operation, 2, 0, 0, 0, 0, 5,
    ]);
    frame.extend(sender);
    frame.extend([0; 6]);
    frame.extend(target);
    frame
}

fn is_arp_reply(frame: &[u8]) -> bool {
    frame[12..14] == [8, 6] && frame[21] == 2
}

#[test]
fn arp_answers_are_what_rfc_826_says() {
    with_tap(true, |tap| {
        tap.send(&arp(1, [192, 0, 2, 5], [192, 0, 2, 1]));
        let answer = tap.receive(2000, is_arp_reply).expect("an answer");
        let gateway = GATEWAY.octets();
        assert_eq!(answer[..6], [2, 0, 0, 0, 0, 5]);
        assert_eq!(answer[6..12], gateway);
        assert_eq!(answer[22..28], gateway);
        assert_eq!(answer[28..32], [192, 0, 2, 1]);
        assert_eq!(answer[32..42], [2, 0, 0, 0, 0, 5, 192, 0, 2, 5]);
        for (unanswered, why) in [
            (arp(1, [0; 4], [192, 0, 2, 5]), "a probe"),
            (arp(1, [192, 0, 2, 5], [192, 0, 2, 5]), "an announcement"),
            (arp(2, [192, 0, 2, 5], [192, 0, 2, 1]), "a reply"),
            (
                arp(1, [192, 0, 2, 5], [192, 0, 2, 1])[..30].to_vec(),
                "cut short",
            ),
        ] {
            tap.send(&unanswered);
            assert_eq!(tap.receive(100, is_arp_reply), None, "{why}");
        }
    });
}

fn solicitation(source: &str, target: &str, options: &[u8]) -> Vec<u8> {
    let mut icmp = vec![135, 0, 0, 0, 0, 0, 0, 0];
    icmp.extend(v6(target));
    icmp.extend(options);
    ipv6(v6(source), v6("ff02::1:ff00:77"), &[], 58, &icmp)
}

fn is_advertisement(frame: &[u8]) -> bool {
    frame[12..14] == [0x86, 0xdd] && frame[20] == 58 && frame[54] == 136
}

#[test]
fn neighbour_advertisements_are_what_rfc_4861_says() {
    let nonce = [14, 1, 1, 2, 3, 4, 5, 6, 1, 1, 2, 0, 0, 0, 0, 5];
    with_tap(true, |tap| {
        for options in [&[][..], &nonce[8..], &nonce[..]] {
            tap.send(&solicitation("2001:db8::5", "2001:db8::77", options));
            let answer = tap.receive(2000, is_advertisement).expect("an answer");
            let mut icmp = vec![136, 0, 0, 0, 0xe0, 0, 0, 0];
            icmp.extend(v6("2001:db8::77"));
            icmp.extend([2, 1]);
            icmp.extend(GATEWAY.octets());
            let mut expected = ipv6(v6("2001:db8::77"), v6("2001:db8::5"), &[], 58, &icmp);
            expected[..6].copy_from_slice(&[2, 0, 0, 0, 0, 5]);
            expected[6..12].copy_from_slice(&GATEWAY.octets());
            assert_eq!(answer, expected, "with {} octets of options", options.len());
        }
        let mut far = solicitation("2001:db8::5", "2001:db8::77", &[]);
        far[21] = 254;
        for (unanswered, why) in [
            (
                solicitation("::", "2001:db8::5", &[]),
                "duplicate address detection",
            ),
            (
                solicitation("2001:db8::5", "2001:db8::5", &[]),
                "one's own address",
            ),
            (solicitation("2001:db8::5", "ff02::1", &[]), "a group"),
            (far, "from afar"),
            (
                solicitation("2001:db8::5", "2001:db8::77", &[])[..70].to_vec(),
                "cut short",
            ),
        ] {
            tap.send(&unanswered);
            assert_eq!(tap.receive(100, is_advertisement), None, "{why}");
        }
    });
}

/// A router advertisement that would make the host take a default route.
fn advertisement(extensions: &[u8], first: u8) -> Vec<u8> {
    let icmp = [134, 0, 0, 0, 64, 0, 0x10, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    ipv6(
        v6("fe80::ff:fe00:5"),
        v6("ff02::1"),
        extensions,
        first,
        &icmp,
    )
}

#[test]
fn the_host_hears_no_router_advertisement_of_a_guest() {
    let hop_by_hop = [58, 0, 5, 2, 0, 0, 1, 0];
    let two = [60, 0, 1, 4, 0, 0, 0, 0, 58, 0, 1, 4, 0, 0, 0, 0];
    let frames = || {
        [
            (advertisement(&[], 58), "plain"),
            (advertisement(&hop_by_hop, 0), "behind hop-by-hop options"),
            (advertisement(&two, 60), "behind two destination headers"),
        ]
    };
    let learned = || run("ip -6 route show default").contains("proto ra");
    for (frame, how) in frames() {
        with_tap(true, |tap| {
            tap.send(&frame);
            tap.send(&arp(1, [192, 0, 2, 5], [192, 0, 2, 1]));
            tap.receive(2000, is_arp_reply).expect("the program works");
            assert!(!learned(), "{how}");
        });
    }
    with_tap(false, |tap| {
        tap.send(&advertisement(&[], 58));
        wait_for("a default route by RA, without the program", learned);
    });
}
