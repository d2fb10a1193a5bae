//! The packet socket on a TAP: what it hears, and what it says.

#![allow(clippy::expect_used, reason = "in a test, that is how it fails")]

mod support;

use std::{io::ErrorKind, net::IpAddr};

use hextet_kernel::{links::Links, packet::PacketSocket};
use hextet_metadata::{ADDRESS_LINK_LOCAL, ADDRESS_V4, ADDRESS_V6};
use hextet_model::state::{EdgeProgram, Link, Netns, Object, marks};
use support::{
    GATEWAY, Host, isolated, name, states,
    tap::{Tap, ipv6, v6},
};

/// A port with its programs, its TAP in the test's hands, and the index of its link.
fn with_port(test: impl FnOnce(&mut Tap, u32) + Send) {
    isolated(|| {
        let mut tap = Tap::open("tap1");
        let (netns, link) = (Netns::Main, name("tap1"));
        let program = EdgeProgram {
            netns: netns.clone(),
            link: link.clone(),
        };
        let link = Link {
            netns,
            name: link,
            mac: GATEWAY,
            mtu: 1500,
            group: 0,
            up: true,
        };
        let both = [Object::EdgeProgram(program), Object::Link(link)];
        Host::open().reconcile(&states(both));
        let links = Links::open(&Netns::Main).and_then(|mut links| links.list(true));
        let links = links.expect("links");
        let link = links
            .iter()
            .find(|link| link.name == name("tap1"))
            .expect("the port");
        assert_eq!((link.mac, link.mtu, link.up), (Some(GATEWAY), 1500, true));
        assert!(link.stats.is_some());
        test(&mut tap, link.index);
    });
}

fn icmp(kind: u8) -> Vec<u8> {
    ipv6(
        v6("fe80::5"),
        v6("ff02::2"),
        &[],
        58,
        &[kind, 0, 0, 0, 0, 0, 0, 0],
    )
}

fn udp(port: u16) -> Vec<u8> {
    let [high, low] = port.to_be_bytes();
    vec![2, 34, high, low, 0, 8, 0, 0]
}

fn udp6(port: u16) -> Vec<u8> {
    let mut frame = ipv6(v6("fe80::5"), v6("ff02::1:2"), &[], 17, &udp(port));
    frame[56..58].copy_from_slice(&port.to_be_bytes());
    frame
}

fn udp4(port: u16, options: u8, fragment: u16) -> Vec<u8> {
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
}

fn addr(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

/// The beginning of a segment, or of a datagram.
fn segment(to: IpAddr, protocol: u8) -> Vec<u8> {
    match to {
        IpAddr::V4(to) => {
            let mut frame = udp4(80, 0, 0);
            frame[23] = protocol;
            frame[30..34].copy_from_slice(&to.octets());
            frame
        }
        IpAddr::V6(to) => ipv6(v6("fe80::5"), to.octets(), &[], protocol, &udp(80)),
    }
}

#[test]
fn it_hears_solicitations_dhcp_and_metadata_only() {
    with_port(|tap, index| {
        let socket = PacketSocket::open(0).expect("a socket");
        let mut tagged = icmp(133);
        tagged.splice(12..12, [0x81, 0, 0, 5]);
        let mut wanted = vec![icmp(133), udp6(547), udp4(67, 0, 0), udp4(67, 3, 0)];
        let metadata = [
            ADDRESS_V4.into(),
            ADDRESS_LINK_LOCAL.into(),
            ADDRESS_V6.into(),
        ];
        wanted.extend(metadata.map(|to| segment(to, 6)));
        // What somebody has joined: IGMP, and MLD behind a Router Alert option.
        let alert = [58, 0, 5, 2, 0, 0, 1, 0];
        let mld = |kind| {
            let report = [&alert[..], &[kind, 0, 0, 0, 0, 0, 0, 0]].concat();
            ipv6(v6("fe80::5"), v6("ff02::16"), &[], 0, &report)
        };
        wanted.push(segment(addr("224.0.0.22"), 2));
        wanted.extend([131, 132, 143].map(mld));
        let unwanted = [
            icmp(135),
            mld(130),
            mld(133),
            udp6(546),
            udp6(53),
            udp4(68, 0, 0),
            udp4(67, 0, 100),
            tagged,
            vec![0; 14],
            segment(ADDRESS_V4.into(), 17),
            segment(ADDRESS_V6.into(), 17),
            segment(addr("169.254.169.253"), 6),
            segment(addr("fe80::a9fe:a9ff"), 6),
            segment(addr("fd00:ec2:1::254"), 6),
            segment(addr("2001:db8::254"), 6),
        ];
        for frame in unwanted.iter().chain(&wanted) {
            tap.send(frame);
        }
        let mut buf = [0; 2048];
        for frame in &wanted {
            let (from, len) = socket.recv(&mut buf).expect("a frame");
            assert_eq!((from, &buf[..len]), (index, &frame[..]));
        }
        let none = socket.recv(&mut buf).expect_err("no more");
        assert_eq!(none.kind(), ErrorKind::WouldBlock);
    });
}

#[test]
fn what_it_says_is_admitted_by_its_mark() {
    with_port(|tap, index| {
        let ours = |frame: &[u8]| frame[12..14] == [0x88, 0xb5];
        let mut frame = vec![2, 0, 0, 0, 0, 5];
        frame.extend(GATEWAY.octets());
        frame.extend([0x88, 0xb5, 1, 2, 3]);
        let admitted = PacketSocket::open(marks::ADMITTED).expect("a socket");
        admitted.send(index, &frame).expect("sent");
        let received = tap.receive(2000, ours).expect("received");
        assert_eq!(received[..17], frame);
        let unmarked = PacketSocket::open(0).expect("a socket");
        assert!(unmarked.send(index, &frame).is_err(), "dropped");
        assert_eq!(tap.receive(100, ours), None);
    });
}

#[test]
fn a_flood_from_one_link_leaves_the_others_their_room() {
    const FLOOD: usize = 20_000;
    const BURST: usize = 64;
    with_port(|tap, index| {
        let mut other = Tap::open("tap2");
        support::run("ip link set tap2 up");
        let heard = |socket: &PacketSocket| {
            let mut buf = [0; 2048];
            let mut heard = [0, 0];
            while let Ok((from, _)) = socket.recv(&mut buf) {
                heard[usize::from(from != index)] += 1;
            }
            heard
        };
        let limited = PacketSocket::open(0).expect("a socket");
        let unlimited = PacketSocket::unlimited(0).expect("a socket");
        for _ in 0..FLOOD {
            tap.send(&udp4(67, 0, 0));
        }
        other.send(&udp4(67, 0, 0));
        let [flood, others] = heard(&limited);
        assert!((BURST..2 * BURST).contains(&flood), "{flood}");
        assert_eq!(others, 1);
        let [flood, others] = heard(&unlimited);
        assert!((2 * BURST..FLOOD).contains(&flood), "{flood}");
        assert_eq!(others, 0);
    });
}
