//! The eBPF program of an uplink, on a TAP whose other end is in the test's hands: for which addresses it answers, and how.

#![allow(clippy::expect_used, reason = "in a test, that is how it fails")]

mod support;

use std::{collections::BTreeMap, net::IpAddr};

use hextet_model::state::{Answer, Key, Object, Proxy, UplinkProgram};
use support::{
    Host, each_way, name, run, states,
    tap::{Tap, ipv6, v6},
    try_run,
};

const UPLINK: &str = "up0";
const OURS: [u8; 6] = [2, 0, 0, 0, 0, 0xaa];
const ROUTER: [u8; 6] = [2, 0, 0, 0, 0, 5];
const ROUTER_LL: &str = "fe80::ff:fe00:5";
const HOST_V6: &str = "2001:db8::2";
const WORKLOADS: [&str; 3] = ["2001:db8::1:5", "2001:db8::1:6", "192.0.2.5"];
/// Milliseconds within which an answer comes, or none.
const SOON: u16 = 1_000;
const NEVER: u16 = 150;
/// ICMPv6.
const NS: u8 = 135;
const NA: u8 = 136;
const ICMP: usize = 54;

fn objects(addresses: &[&str]) -> BTreeMap<Key, Object> {
    let link = || name(UPLINK);
    let program = Object::UplinkProgram(UplinkProgram { link: link() });
    let each = addresses.iter().flat_map(|addr| {
        let addr: IpAddr = addr.parse().expect("an address");
        [
            Object::Answer(Answer { link: link(), addr }),
            Object::Proxy(Proxy { link: link(), addr }),
        ]
    });
    states(std::iter::once(program).chain(each))
}

/// The host's own addresses are as an operator has set them.
fn uplink() -> Tap {
    let tap = Tap::open(UPLINK);
    run("sysctl -qw net.ipv6.conf.all.forwarding=1 net.ipv6.conf.up0.accept_ra=0");
    run(&format!(
        "ip link set {UPLINK} address 02:00:00:00:00:aa up; ip addr add {HOST_V6}/64 dev {UPLINK} nodad; \
         ip addr add 192.0.2.2/24 dev {UPLINK}"
    ));
    tap
}

/// A solicitation (RFC 4861 §4.3) from an address, at the target's group or at the host.
fn solicitation(from: &str, target: &str, to_group: bool) -> Vec<u8> {
    let target = v6(target);
    let mut group = v6("ff02::1:ff00:0");
    group[13..].copy_from_slice(&target[13..]);
    let mut icmp = vec![NS, 0, 0, 0, 0, 0, 0, 0];
    icmp.extend(target);
    if from != "::" {
        icmp.extend([1, 1]);
        icmp.extend(ROUTER);
    }
    let to = if to_group { group } else { target };
    let mut frame = ipv6(v6(from), to, &[], 58, &icmp);
    let to = match to_group {
        true => [0x33, 0x33, 0xff, group[13], group[14], group[15]],
        false => OURS,
    };
    frame[..6].copy_from_slice(&to);
    frame[6..12].copy_from_slice(&ROUTER);
    frame
}

fn is_about(frame: &[u8], target: &str) -> bool {
    frame.len() > ICMP + 24
        && frame[12..14] == [0x86, 0xdd]
        && frame[ICMP] == NA
        && frame[ICMP + 8..ICMP + 24] == v6(target)
}

/// Whether the checksum of an IPv6 packet with ICMPv6 is right (RFC 4443 §2.3).
fn is_right(frame: &[u8]) -> bool {
    let length = u32::try_from(frame.len() - ICMP).expect("short");
    let sum: u32 = frame[22..].chunks(2).fold(58 + length, |sum, pair| {
        sum + (u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0)))
    });
    sum.is_multiple_of(0xffff)
}

/// An ARP request (RFC 826).
fn request(sender: [u8; 4], target: [u8; 4]) -> Vec<u8> {
    let mut frame = vec![0xff; 6];
    frame.extend(ROUTER);
    frame.extend([8, 6, 0, 1, 8, 0, 6, 4, 0, 1]);
    frame.extend(ROUTER);
    frame.extend(sender);
    frame.extend([0; 6]);
    frame.extend(target);
    frame.resize(60, 0);
    frame
}

fn is_reply(frame: &[u8], about: [u8; 4]) -> bool {
    frame.len() >= 42
        && frame[12..14] == [8, 6]
        && frame[20..22] == [0, 2]
        && frame[28..32] == about
}

#[test]
fn whoever_asks_for_a_workload_is_told_the_host() {
    each_way(|| {
        let mut tap = uplink();
        Host::open().reconcile(&objects(&WORKLOADS));
        for to_group in [true, false] {
            tap.send(&solicitation(ROUTER_LL, WORKLOADS[0], to_group));
            let answer = tap.receive(SOON, |frame| is_about(frame, WORKLOADS[0]));
            let answer = answer.expect("an advertisement");
            assert_eq!(answer.len(), 86);
            assert_eq!(answer[..12], [ROUTER, OURS].concat(), "Ethernet addresses");
            assert_eq!(answer[21], 255, "hop limit");
            assert_eq!(answer[22..38], v6(WORKLOADS[0]), "source");
            assert_eq!(answer[38..54], v6(ROUTER_LL), "destination");
            assert_eq!(answer[ICMP + 4], 0x60, "solicited, overrides, is no router");
            assert_eq!(answer[ICMP + 24..], [&[2, 1], &OURS[..]].concat());
            assert!(is_right(&answer));
        }
        let [asker, asked] = [[192, 0, 2, 1], [192, 0, 2, 5]];
        tap.send(&request(asker, asked));
        let answer = tap.receive(SOON, |frame| is_reply(frame, asked));
        let answer = answer.expect("a reply");
        assert_eq!(answer[..12], [ROUTER, OURS].concat());
        assert_eq!(answer[22..28], OURS);
        assert_eq!(answer[32..42], [&ROUTER[..], &asker].concat());
    });
}

#[test]
fn probes_find_that_an_address_is_taken() {
    each_way(|| {
        let mut tap = uplink();
        Host::open().reconcile(&objects(&WORKLOADS));
        tap.send(&solicitation("::", WORKLOADS[1], true));
        let answer = tap.receive(SOON, |frame| is_about(frame, WORKLOADS[1]));
        let answer = answer.expect("an advertisement");
        assert_eq!(answer[..6], [0x33, 0x33, 0, 0, 0, 1]);
        assert_eq!(answer[38..54], v6("ff02::1"));
        assert_eq!(answer[ICMP + 4], 0x20, "overrides, and was not solicited");
        assert!(is_right(&answer));
        tap.send(&request([0; 4], [192, 0, 2, 5]));
        let answer = tap.receive(SOON, |frame| is_reply(frame, [192, 0, 2, 5]));
        assert!(answer.is_some(), "RFC 5227's");
    });
}

#[test]
fn all_else_is_the_kernel_s() {
    each_way(|| {
        let mut tap = uplink();
        Host::open().reconcile(&objects(&WORKLOADS));
        // Its own addresses, of both families, and probes of what is free.
        tap.send(&solicitation(ROUTER_LL, HOST_V6, true));
        let answer = tap.receive(SOON, |frame| is_about(frame, HOST_V6));
        assert!(answer.is_some(), "the host's own");
        tap.send(&request([192, 0, 2, 1], [192, 0, 2, 2]));
        let answer = tap.receive(SOON, |frame| is_reply(frame, [192, 0, 2, 2]));
        assert!(answer.is_some(), "the host's own");
        let free = "2001:db8::1:7";
        let mut tagged = solicitation(ROUTER_LL, WORKLOADS[0], true);
        tagged.splice(12..12, [0x81, 0, 0, 5]);
        let mut far = solicitation(ROUTER_LL, WORKLOADS[0], true);
        far[21] = 254;
        let mut to_other = solicitation(ROUTER_LL, WORKLOADS[0], false);
        to_other[5] = 0xbb;
        for (what, frame) in [
            ("a free address", solicitation(ROUTER_LL, free, true)),
            ("its probe", solicitation("::", free, true)),
            ("a tagged frame", tagged),
            ("one that a router has forwarded", far),
            ("one for somebody else", to_other),
            (
                "one's own address",
                solicitation(WORKLOADS[0], WORKLOADS[0], true),
            ),
        ] {
            tap.send(&frame);
            let answer = tap.receive(NEVER, |frame| {
                is_about(frame, free) || is_about(frame, WORKLOADS[0])
            });
            assert_eq!(answer, None, "{what}");
        }
        for (asker, asked) in [
            ([192, 0, 2, 1], [192, 0, 2, 9]),
            ([192, 0, 2, 5], [192, 0, 2, 5]),
        ] {
            tap.send(&request(asker, asked));
            let answer = tap.receive(NEVER, |frame| is_reply(frame, asked));
            assert_eq!(answer, None, "{asker:?} asks for {asked:?}");
        }
    });
}

/// What a scan asks for never gets to the kernel's list of groups.
#[test]
fn what_concerns_nobody_here_is_dropped() {
    each_way(|| {
        let mut tap = uplink();
        let received = || {
            let counters = run("cat /proc/net/snmp6");
            let line = counters
                .lines()
                .find(|line| line.starts_with("Ip6InMcastPkts"));
            let count = line.and_then(|line| line.split_whitespace().nth(1));
            count.expect("a counter").parse::<u64>().expect("a number")
        };
        let scan = |tap: &mut Tap| {
            let before = received();
            for n in 0..100 {
                tap.send(&solicitation(
                    ROUTER_LL,
                    &format!("2001:db8::2:{n:x}"),
                    true,
                ));
            }
            received() - before
        };
        assert!(scan(&mut tap) >= 100);
        Host::open().reconcile(&objects(&WORKLOADS));
        assert_eq!(scan(&mut tap), 0);
        // Another proxy's address has a way by another link.
        run("ip link add other type veth peer name far; ip link set other up; ip link set far up");
        run("ip route add 2001:db8::3:1/128 dev other; sysctl -qw net.ipv6.conf.up0.proxy_ndp=1");
        run(
            "sysctl -qw net.ipv6.neigh.up0.proxy_delay=0; ip neigh add proxy 2001:db8::3:1 dev up0",
        );
        tap.send(&solicitation(ROUTER_LL, "2001:db8::3:1", true));
        let answer = tap.receive(SOON, |frame| is_about(frame, "2001:db8::3:1"));
        assert!(answer.is_some(), "another proxy's");
    });
}

#[test]
fn the_groups_are_joined() {
    each_way(|| {
        let _tap = uplink();
        let joined = || run("cat /proc/net/igmp6").to_lowercase();
        let group = "ff0200000000000000000001ff010005";
        assert!(!joined().contains(group));
        let mut host = Host::open();
        host.reconcile(&objects(&WORKLOADS));
        assert!(joined().contains(group));
        host.reconcile(&objects(&WORKLOADS[1..]));
        assert!(!joined().contains(group));
        assert!(joined().contains("ff0200000000000000000001ff010006"));
    });
}

#[test]
fn it_goes_on_without_us_and_is_found_again() {
    each_way(|| {
        let mut tap = uplink();
        let desired = objects(&WORKLOADS);
        Host::open().reconcile(&desired);
        tap.send(&solicitation(ROUTER_LL, WORKLOADS[0], true));
        let answer = tap.receive(SOON, |frame| is_about(frame, WORKLOADS[0]));
        assert!(answer.is_some(), "nobody of ours is there");
        let mut host = Host::open();
        assert_eq!(host.reconcile(&desired), 0);
        host.reconcile(&objects(&WORKLOADS[1..]));
        tap.send(&solicitation(ROUTER_LL, WORKLOADS[0], true));
        let answer = tap.receive(NEVER, |frame| is_about(frame, WORKLOADS[0]));
        assert_eq!(answer, None);
        tap.send(&solicitation(ROUTER_LL, WORKLOADS[1], true));
        let answer = tap.receive(SOON, |frame| is_about(frame, WORKLOADS[1]));
        assert!(answer.is_some());
        // All goes, and only what is ours.
        Host::open().reconcile(&BTreeMap::new());
        assert_eq!(run("ip neigh show proxy"), "");
        assert_eq!(run("tc qdisc show dev up0 clsact"), "");
        tap.send(&solicitation(ROUTER_LL, WORKLOADS[1], true));
        let answer = tap.receive(NEVER, |frame| is_about(frame, WORKLOADS[1]));
        assert_eq!(answer, None);
        assert_eq!(Host::open().todo(&BTreeMap::new()), Vec::<String>::new());
    });
}

#[test]
fn a_link_that_changes_is_answered_for_as_it_is() {
    each_way(|| {
        let mut tap = uplink();
        let desired = objects(&WORKLOADS);
        let mut host = Host::open();
        host.reconcile(&desired);
        run("ip link set up0 address 02:00:00:00:00:cc");
        assert_eq!(host.todo(&desired).len(), 1, "{:?}", host.todo(&desired));
        host.reconcile(&desired);
        tap.send(&solicitation(ROUTER_LL, WORKLOADS[0], true));
        let answer = tap.receive(SOON, |frame| is_about(frame, WORKLOADS[0]));
        assert_eq!(answer.expect("an advertisement")[11], 0xcc);
        // Made anew, it has another index.
        drop(tap);
        let _ = try_run("ip link del up0");
        let mut tap = uplink();
        host.reconcile(&desired);
        tap.send(&solicitation(ROUTER_LL, WORKLOADS[0], true));
        let answer = tap.receive(SOON, |frame| is_about(frame, WORKLOADS[0]));
        assert_eq!(answer.expect("an advertisement")[11], 0xaa);
    });
}

#[test]
fn others_filters_on_the_link_stay() {
    each_way(|| {
        let mut tap = uplink();
        run("tc qdisc add dev up0 clsact; \
             tc filter add dev up0 ingress pref 5 protocol ip u32 match u32 0 0 flowid 1:1");
        let filters = || run("tc filter show dev up0 ingress");
        let before = filters();
        Host::open().reconcile(&objects(&WORKLOADS));
        tap.send(&solicitation(ROUTER_LL, WORKLOADS[0], true));
        let answer = tap.receive(SOON, |frame| is_about(frame, WORKLOADS[0]));
        assert!(answer.is_some());
        Host::open().reconcile(&BTreeMap::new());
        assert_eq!(filters(), before);
    });
}
