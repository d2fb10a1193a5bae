//! A port's eBPF programs on a real link: what they answer, what they let pass, and that without them it
//! would be otherwise.

#![allow(clippy::expect_used, reason = "in a test, that is how it fails")]

mod support;

use std::{
    collections::BTreeMap,
    fs::File,
    io::{Read as _, Write as _},
    os::fd::AsRawFd as _,
    time::{Duration, Instant},
};

use hextet_kernel::{links::Links, packet::PacketSocket};
use hextet_model::state::{
    EdgeProgram, Key, Link, Neighbour, Netns, NextHop, Object, Route, RouteKey, RouteKind, marks,
};
use hextet_types::Prefix;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use support::{GATEWAY, Host, NamedNetns, isolated, name, run, states, try_run};

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
fn with_guest(program: bool, test: impl FnOnce(&NamedNetns) + Send) {
    let guest = NamedNetns::create();
    isolated(|| {
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
    });
}

fn wait_for(what: &str, mut holds: impl FnMut() -> bool) {
    let limit = Instant::now() + Duration::from_secs(10);
    while !holds() {
        assert!(Instant::now() < limit, "{what} did not come about");
        std::thread::sleep(Duration::from_millis(20));
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
        let mut counts = Vec::new();
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
            counts = rules.lines().filter_map(packets).collect();
        });
        counts
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

/// A frame with IPv6, from the guest, its checksum right.
fn ipv6(source: [u8; 16], to: [u8; 16], extensions: &[u8], first: u8, icmp: &[u8]) -> Vec<u8> {
    let mut frame = vec![
        0x33, 0x33, 0, 0, 0, 1, 2, 0, 0, 0, 0, 5, 0x86, 0xdd, 0x60, 0, 0, 0,
    ];
    frame.extend(
        u16::try_from(extensions.len() + icmp.len())
            .expect("short")
            .to_be_bytes(),
    );
    frame.extend([first, 255]);
    frame.extend(source);
    frame.extend(to);
    frame.extend(extensions);
    let mut icmp = icmp.to_vec();
    let mut sum = 58 + u32::try_from(icmp.len()).expect("short");
    for pair in source.chunks(2).chain(to.chunks(2)).chain(icmp.chunks(2)) {
        sum += u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0));
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    let checksum = !u16::try_from(sum).expect("folded");
    icmp[2..4].copy_from_slice(&checksum.to_be_bytes());
    frame.extend(icmp);
    frame
}

fn v6(text: &str) -> [u8; 16] {
    text.parse::<std::net::Ipv6Addr>()
        .expect("an address")
        .octets()
}

/// A TAP as QEMU holds one.
struct Tap(File);

impl Tap {
    fn open(name: &str) -> Self {
        run(&format!("ip tuntap add {name} mode tap"));
        let file = File::options()
            .read(true)
            .write(true)
            .open("/dev/net/tun")
            .expect("/dev/net/tun");
        let mut request = [0u8; 40];
        request[..name.len()].copy_from_slice(name.as_bytes());
        let flags = libc::IFF_TAP | libc::IFF_NO_PI;
        request[16..18].copy_from_slice(&u16::try_from(flags).expect("16 bits").to_ne_bytes());
        // SAFETY: `request` is a struct ifreq with the name and flags that TUNSETIFF reads.
        #[allow(unsafe_code)]
        let done = unsafe { libc::ioctl(file.as_raw_fd(), 0x4004_54ca, request.as_mut_ptr()) };
        assert_eq!(done, 0, "{}", std::io::Error::last_os_error());
        Tap(file)
    }

    fn send(&mut self, frame: &[u8]) {
        assert_eq!(self.0.write(frame).expect("written"), frame.len());
    }

    /// The next frame that `wanted` takes, within a time.
    fn receive(&mut self, ms: u16, wanted: impl Fn(&[u8]) -> bool) -> Option<Vec<u8>> {
        let limit = Instant::now() + Duration::from_millis(ms.into());
        loop {
            let left = limit.saturating_duration_since(Instant::now()).as_millis();
            let timeout = PollTimeout::try_from(left).expect("short");
            let mut fds = [PollFd::new(
                std::os::fd::AsFd::as_fd(&self.0),
                PollFlags::POLLIN,
            )];
            if poll(&mut fds, timeout).expect("polled") == 0 {
                return None;
            }
            let mut frame = vec![0; 2048];
            let len = self.0.read(&mut frame).expect("read");
            frame.truncate(len);
            if wanted(&frame) {
                return Some(frame);
            }
        }
    }
}

fn with_tap(program: bool, test: impl FnOnce(&mut Tap) + Send) {
    isolated(|| {
        run("sysctl -qw net.ipv6.conf.default.accept_ra=2 net.ipv6.conf.default.accept_dad=0");
        let mut tap = Tap::open("tap1");
        Host::open().reconcile(&port(program));
        test(&mut tap);
    });
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

#[test]
fn the_packet_socket_sees_solicitations_and_dhcp_only() {
    isolated(|| {
        let mut tap = Tap::open("tap1");
        let socket = PacketSocket::open(marks::ADMITTED).expect("a socket");
        Host::open().reconcile(&port(true));
        let icmp = |kind: u8| {
            ipv6(
                v6("fe80::5"),
                v6("ff02::2"),
                &[],
                58,
                &[kind, 0, 0, 0, 0, 0, 0, 0],
            )
        };
        let udp = |port: u16| {
            let mut datagram = vec![2, 34];
            datagram.extend(port.to_be_bytes());
            datagram.extend([0, 8, 0, 0]);
            datagram
        };
        let udp6 = |port: u16| {
            let mut frame = ipv6(v6("fe80::5"), v6("ff02::1:2"), &[], 17, &udp(port));
            frame[56..58].copy_from_slice(&port.to_be_bytes());
            frame
        };
        let udp4 = |port, options: u8, fragment: u16| {
            let mut frame = vec![0xff; 6];
            frame.extend([
                2,
                0,
                0,
                0,
                0,
                5,
                8,
                0,
                0x45 + options,
                0,
                0,
                28 + 4 * options,
                0,
                0,
            ]);
            frame.extend(fragment.to_be_bytes());
            frame.extend([64, 17, 0, 0, 0, 0, 0, 0, 255, 255, 255, 255]);
            frame.extend(vec![1; 4 * usize::from(options)]);
            frame.extend(udp(port));
            frame
        };
        let mut tagged = icmp(133);
        tagged.splice(12..12, [0x81, 0, 0, 5]);
        let wanted = [icmp(133), udp6(547), udp4(67, 0, 0), udp4(67, 3, 0)];
        let unwanted = [
            icmp(135),
            udp6(546),
            udp4(68, 0, 0),
            udp4(67, 0, 100),
            udp6(53),
            tagged,
            vec![0; 14],
        ];
        for frame in unwanted.iter().chain(&wanted) {
            tap.send(frame);
        }
        let links = Links::open(&Netns::Main)
            .and_then(|mut l| l.list(true))
            .expect("links");
        let link = links
            .iter()
            .find(|link| link.name == name("tap1"))
            .expect("the port");
        assert!(link.stats.is_some_and(|stats| stats.rx_packets > 10));
        assert_eq!((link.mac, link.mtu, link.up), (Some(GATEWAY), 1500, true));
        let index = link.index;
        let mut buf = [0; 2048];
        for frame in &wanted {
            let (from, len) = socket.recv(&mut buf).expect("a frame");
            assert_eq!((from, &buf[..len]), (index, &frame[..]));
        }
        let none = socket.recv(&mut buf).expect_err("no more");
        assert_eq!(none.kind(), std::io::ErrorKind::WouldBlock);

        let answer = [
            &[2, 0, 0, 0, 0, 5][..],
            &GATEWAY.octets(),
            &[0x88, 0xb5, 1, 2, 3],
        ]
        .concat();
        socket.send(index, &answer).expect("sent");
        let got = tap.receive(2000, |frame| frame[12..14] == [0x88, 0xb5]);
        assert_eq!(
            got.as_deref().map(|f| &f[..17]),
            Some(&answer[..17]),
            "admitted"
        );
        let other = PacketSocket::open(0).expect("a socket");
        assert!(other.send(index, &answer).is_err(), "dropped");
        assert_eq!(
            tap.receive(100, |frame| frame[12..14] == [0x88, 0xb5]),
            None,
            "without the mark"
        );
    });
}
