//! The sources that a port may use, in the map of its eBPF program: whose they are, and that they outlive us,
//! links, and programs of another version.

#![allow(clippy::expect_used, reason = "in a test, that is how it fails")]

mod support;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::{Duration, Instant},
};

use hextet_kernel::{Config, Kernel};
use hextet_model::state::{EdgeProgram, Key, Link, Netns, Object, Source, marks};
use hextet_types::Mac;
use support::{GATEWAY, Host, config, each_way, name, run, states, tap::Tap};

const GUEST: Mac = Mac::new([2, 0, 0, 0, 0, 5]);
const OTHER: Mac = Mac::new([2, 0, 0, 0, 0, 6]);
const MAIN: Netns = Netns::Main;

fn addr(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

fn source(netns: &Netns, link: &str, text: &str) -> Object {
    Object::Source(Source {
        netns: netns.clone(),
        link: name(link),
        mac: GUEST,
        addr: addr(text),
    })
}

fn bare(netns: &Netns, link: &str, gateway: Mac) -> Vec<Object> {
    let up = Link {
        netns: netns.clone(),
        name: name(link),
        mac: gateway,
        mtu: 1500,
        group: 0,
        up: true,
    };
    let edge = EdgeProgram {
        netns: netns.clone(),
        link: name(link),
    };
    vec![Object::Link(up), Object::EdgeProgram(edge)]
}

fn port(link: &str, gateway: Mac) -> BTreeMap<Key, Object> {
    let mut objects = bare(&MAIN, link, gateway);
    objects.extend(["192.0.2.5", "2001:db8::5"].map(|text| source(&MAIN, link, text)));
    states(objects)
}

/// Counts, from now on, what comes in by a link with each pair of our marks.
fn count_marks(link: &str) {
    run("nft add table inet t");
    run("nft 'add chain inet t p { type filter hook prerouting priority -300; }'");
    for bits in [0, marks::SOURCE_CHECKED, marks::OWN_REPORT] {
        let mark = marks::FROM_PORT | bits | (marks::SOURCE_CHECKED * u32::from(bits != 0));
        run(&format!(
            "nft add rule inet t p iifname {link} meta mark {mark:#x} counter comment m{mark:x}"
        ));
    }
}

fn counted(bits: u32) -> u32 {
    let mark = marks::FROM_PORT | bits;
    let rules = run("nft list chain inet t p");
    let of = rules
        .lines()
        .find(|l| l.contains(&format!("\"m{mark:x}\"")));
    let mut words = of.expect("the rule").split(' ');
    words.find(|word| *word == "packets");
    let count = words.next().expect("a number");
    count.parse().expect("a number")
}

/// A frame to the gateway.
fn frame(mac: Mac, kind: [u8; 2], packet: Vec<u8>) -> Vec<u8> {
    let mut frame = GATEWAY.octets().to_vec();
    frame.extend(mac.octets());
    frame.extend(kind);
    frame.extend(packet);
    frame
}

fn v4(source: &str, to: &str, protocol: u8, payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![
        0x45,
        0,
        0,
        20 + payload.len() as u8,
        0,
        1,
        0,
        0,
        64,
        protocol,
        0,
        0,
    ];
    for text in [source, to] {
        let octets: std::net::Ipv4Addr = text.parse().expect("an address");
        packet.extend(octets.octets());
    }
    let sum: u32 = packet
        .chunks(2)
        .map(|p| u32::from(p[0]) << 8 | u32::from(p[1]))
        .sum();
    let sum = !((sum & 0xffff) + (sum >> 16)) as u16;
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
    packet.extend(payload);
    packet
}

fn v6(source: &str, to: &str, next: u8, payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x60, 0, 0, 0, 0, payload.len() as u8, next, 64];
    packet.extend(support::tap::v6(source));
    packet.extend(support::tap::v6(to));
    packet.extend(payload);
    packet
}

const V4: [u8; 2] = [8, 0];
const V6: [u8; 2] = [0x86, 0xdd];

fn udp(port: u16) -> [u8; 8] {
    let [a, b] = port.to_be_bytes();
    [0, 9, a, b, 0, 8, 0, 0]
}

fn wait_for(what: &str, mut holds: impl FnMut() -> bool) {
    let limit = Instant::now() + Duration::from_secs(10);
    while !holds() {
        assert!(Instant::now() < limit, "{what} did not come about");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// What a frame is marked with; none, where it does not come in.
fn mark_of(tap: &mut Tap, frame: &[u8]) -> Option<u32> {
    let all = [
        0,
        marks::SOURCE_CHECKED,
        marks::SOURCE_CHECKED | marks::OWN_REPORT,
    ];
    let before = all.map(counted);
    tap.send(frame);
    // One that comes in for sure, after it.
    let mut behind = self::frame(GUEST, V4, v4("198.51.100.9", "198.51.100.1", 17, &udp(9)));
    behind[..6].copy_from_slice(&frame[..6]);
    tap.send(&behind);
    wait_for("the frame behind it", || counted(0) > before[0]);
    let more = all.map(counted);
    let arrived = |i: usize| more[i] - before[i] > u32::from(i == 0);
    (0..all.len()).find(|i| arrived(*i)).map(|i| all[i])
}

#[test]
fn the_program_marks_what_has_a_source_of_the_port() {
    each_way(|| {
        let mut tap = Tap::open("tap1");
        Host::open().reconcile(&port("tap1", GATEWAY));
        count_marks("tap1");
        let of4 = |mac, from| frame(mac, V4, v4(from, "198.51.100.1", 17, &udp(9)));
        let of6 = |mac, from| frame(mac, V6, v6(from, "2001:db8:9::1", 17, &udp(9)));
        let checked = Some(marks::SOURCE_CHECKED);
        for (frame, mark, what) in [
            (of4(GUEST, "192.0.2.5"), checked, "its own"),
            (of6(GUEST, "2001:db8::5"), checked, "its own"),
            (of4(GUEST, "192.0.2.6"), Some(0), "of another"),
            (of6(GUEST, "2001:db8::6"), Some(0), "of another"),
            (of4(OTHER, "192.0.2.5"), Some(0), "with another MAC"),
            (of6(OTHER, "2001:db8::5"), Some(0), "with another MAC"),
        ] {
            assert_eq!(mark_of(&mut tap, &frame), mark, "{what}: {frame:x?}");
        }
    });
}

#[test]
fn redirects_and_dhcp_servers_end_at_the_port() {
    each_way(|| {
        let mut tap = Tap::open("tap1");
        Host::open().reconcile(&port("tap1", GATEWAY));
        count_marks("tap1");
        let of4 = |protocol, payload: &[u8]| {
            frame(
                GUEST,
                V4,
                v4("192.0.2.5", "198.51.100.1", protocol, payload),
            )
        };
        let of6 = |next, payload: &[u8]| {
            frame(GUEST, V6, v6("2001:db8::5", "2001:db8:9::1", next, payload))
        };
        let behind = |headers: &[u8]| [headers, &udp(546)].concat();
        let destination = [17, 0, 1, 4, 0, 0, 0, 0];
        let authentication = [
            17, 4, 0, 0, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
        ];
        let fragment = [17, 0, 0, 1, 0, 0, 0, 7];
        for (frame, what) in [
            (of4(1, &[5, 1, 0, 0, 192, 0, 2, 1]), "a redirect"),
            (of4(17, &udp(68)), "to a DHCP client"),
            (of6(17, &udp(546)), "to a DHCPv6 client"),
            (of6(60, &behind(&destination)), "behind options"),
            (of6(51, &behind(&authentication)), "behind authentication"),
            (of6(44, &behind(&fragment)), "in a first fragment"),
        ] {
            assert_eq!(mark_of(&mut tap, &frame), None, "{what}");
        }
        let checked = Some(marks::SOURCE_CHECKED);
        for frame in [
            of4(1, &[8, 0, 0, 0, 0, 1, 0, 1]),
            of4(17, &udp(67)),
            of6(17, &udp(547)),
        ] {
            assert_eq!(mark_of(&mut tap, &frame), checked);
        }
    });
}

#[test]
fn errors_are_one_s_own_by_an_end_of_what_they_quote() {
    each_way(|| {
        let mut tap = Tap::open("tap1");
        Host::open().reconcile(&port("tap1", GATEWAY));
        count_marks("tap1");
        let error4 = |from, to| {
            let quoted = v4(from, to, 17, &udp(9));
            let error = [&[3, 3, 0, 0, 0, 0, 0, 0][..], &quoted].concat();
            frame(GUEST, V4, v4("192.0.2.5", "198.51.100.1", 1, &error))
        };
        let error6 = |from, to| {
            let quoted = v6(from, to, 17, &udp(9));
            let error = [&[1, 4, 0, 0, 0, 0, 0, 0][..], &quoted].concat();
            frame(GUEST, V6, v6("2001:db8::5", "2001:db8:9::1", 58, &error))
        };
        let own = Some(marks::SOURCE_CHECKED | marks::OWN_REPORT);
        let foreign = Some(marks::SOURCE_CHECKED);
        for (frame, mark) in [
            (error4("198.51.100.1", "192.0.2.5"), own),
            (error4("192.0.2.5", "198.51.100.1"), own),
            (error4("198.51.100.1", "192.0.2.6"), foreign),
            (error6("2001:db8:9::1", "2001:db8::5"), own),
            (error6("2001:db8::5", "2001:db8:9::1"), own),
            (error6("2001:db8:9::1", "2001:db8::6"), foreign),
        ] {
            assert_eq!(mark_of(&mut tap, &frame), mark, "{frame:x?}");
        }
        let cut = &error4("198.51.100.1", "192.0.2.5")[..14 + 20 + 8 + 19];
        let cut = mark_of(&mut tap, cut);
        assert_ne!(cut, own, "cut short");
    });
}

#[test]
fn they_outlive_the_one_who_wrote_them() {
    each_way(|| {
        let mut tap = Tap::open("tap1");
        let desired = port("tap1", GATEWAY);
        drop({
            let mut host = Host::open();
            host.reconcile(&desired);
            host
        });
        count_marks("tap1");
        let own = frame(GUEST, V4, v4("192.0.2.5", "198.51.100.1", 17, &udp(9)));
        let checked = Some(marks::SOURCE_CHECKED);
        assert_eq!(mark_of(&mut tap, &own), checked, "with nobody there");

        let mut restarted = Host::open();
        assert_eq!(restarted.reconcile(&desired), 0);
        let mut fewer = desired;
        fewer.remove(&source(&MAIN, "tap1", "192.0.2.5").key());
        assert_eq!(restarted.reconcile(&fewer), 1);
        assert_eq!(mark_of(&mut tap, &own), Some(0), "no longer its own");
        let all = restarted.reconcile(&BTreeMap::new());
        assert!(all >= 2, "{all}");
    });
}

#[test]
fn another_version_of_the_program_takes_them_over() {
    each_way(|| {
        let mut tap = Tap::open("tap1");
        Host::open().reconcile(&port("tap1", GATEWAY));
        count_marks("tap1");
        let gateway = Mac::new([2, 0x68, 0x78, 0, 0, 2]);
        let desired = port("tap1", gateway);
        let mut newer = Host::open();
        let other = Config {
            gateway_mac: gateway,
            ..config(&newer.directory)
        };
        newer.kernel = Kernel::open(other).expect("a kernel");
        let todo = newer.todo(&desired);
        assert!(
            todo.iter().all(|op| !op.contains("source")) && !todo.is_empty(),
            "{todo:?}"
        );
        newer.reconcile(&desired);
        let mut own = frame(GUEST, V4, v4("192.0.2.5", "198.51.100.1", 17, &udp(9)));
        own[..6].copy_from_slice(&gateway.octets());
        let checked = Some(marks::SOURCE_CHECKED);
        assert_eq!(mark_of(&mut tap, &own), checked);
    });
}

#[test]
fn a_link_that_was_made_anew_gets_them_anew_and_nobody_gets_the_old() {
    each_way(|| {
        let make = |index: u32| {
            run(&format!(
                "ip link add tap1 index {index} type veth peer name p{index}"
            ));
        };
        make(4711);
        let desired = port("tap1", GATEWAY);
        let mut host = Host::open();
        host.reconcile(&desired);
        run("ip link del tap1");
        let links = BTreeSet::from([name("tap1")]);
        let gone = host.kernel.forget_links(&MAIN, &links);
        assert!(gone.contains(&source(&MAIN, "tap1", "192.0.2.5").key()));
        make(4712);
        let report = host.kernel.reconcile_keys(&gone, &desired);
        assert!(report.is_complete(), "{report:?}");
        assert_eq!(host.todo(&desired), Vec::<String>::new());

        // The old index is another's now; and so where nobody told us that the link was gone.
        for unheard in [false, true] {
            if unheard {
                run("ip link del tap1");
                assert!(host.todo(&desired).len() > 1);
                let report = host.kernel.apply(Vec::new());
                assert_eq!(report.applied, 0);
            }
            let other = if unheard { 4712 } else { 4711 };
            run(&format!(
                "ip link add tap{other} index {other} type veth peer name q{other}"
            ));
            let link = format!("tap{other}");
            let mut others = states(bare(&MAIN, &link, GATEWAY));
            others.extend(if unheard {
                BTreeMap::new()
            } else {
                desired.clone()
            });
            let todo = host.todo(&others);
            assert!(todo.iter().all(|op| !op.contains("- source")), "{todo:?}");
            host.reconcile(&others);
        }
    });
}
