//! Two nodes that nobody may begin to talk to: each behind a router that translates IPv4, and lets nothing in of either family that was not
//! asked for.

use std::{
    io::Write as _,
    net::UdpSocket,
    process::{Command, Stdio},
};

use hextet_kernel::netns;
use hextet_lab::wait_until;
use hextet_tunnels::{
    Listen, Spec,
    control::{Answer, Request},
};
use hextet_types::Way;

use crate::{
    doors::PORT,
    pair::{DEVICE, PATIENCE, Pair, Side, ip, transfer},
};

/// What comes for the router itself makes no state there, as at routers of homes: it would take the port from the node behind it.
const RULES: &str = "
table inet nat {
    chain input { type filter hook input priority 0; policy drop; icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } accept; }
    chain forward {
        type filter hook forward priority 0; policy drop;
        ct state established,related accept
        iifname lan0 accept
    }
    chain out { type nat hook postrouting priority 100; oifname wan0 meta nfproto ipv4 masquerade; }
}
";

struct Nats([String; 2]);

impl Drop for Nats {
    fn drop(&mut self) {
        for name in &self.0 {
            let _ = netns::delete(name);
        }
    }
}

pub fn inside(netns: &str, command: &str, input: &str) {
    let mut running = Command::new("ip")
        .args(["netns", "exec", netns])
        .args(command.split(' '))
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let mut stdin = running.stdin.take().unwrap();
    stdin.write_all(input.as_bytes()).unwrap();
    drop(stdin);
    assert!(running.wait().unwrap().success(), "{command}");
}

/// Takes the two apart, and puts a router before each.
fn separate(pair: &Pair, name: &str) -> Nats {
    ip(&format!("-n {} link del veth0", pair.sides[0].netns));
    let names = ["y", "z"].map(|nat| format!("hxt-{}-{name}-{nat}", std::process::id()));
    for nat in &names {
        netns::create(nat).unwrap();
    }
    let nats = Nats(names);
    let [y, z] = &nats.0;
    ip(&format!(
        "link add wan0 netns {y} type veth peer name wan0 netns {z}"
    ));
    for (side, nat) in pair.sides.iter().zip(&nats.0) {
        let Side { netns, number, .. } = side;
        let other = 3 - number;
        ip(&format!(
            "link add veth0 netns {netns} type veth peer name lan0 netns {nat}"
        ));
        for (at, address, device) in [
            (netns, format!("10.1.{number}.2/24"), "veth0"),
            (netns, format!("2001:db8:{number}::2/64"), "veth0"),
            (nat, format!("10.1.{number}.1/24"), "lan0"),
            (nat, format!("2001:db8:{number}::1/64"), "lan0"),
            (nat, format!("203.0.113.{number}/24"), "wan0"),
            (nat, format!("2001:db8::{number}/64"), "wan0"),
        ] {
            let nodad = if address.contains(':') { " nodad" } else { "" };
            ip(&format!(
                "-n {at} address add {address} dev {device}{nodad}"
            ));
        }
        for (at, device) in [(netns, "veth0"), (nat, "lan0"), (nat, "wan0")] {
            ip(&format!("-n {at} link set {device} up"));
        }
        ip(&format!("-n {netns} route add default via 10.1.{number}.1"));
        ip(&format!(
            "-n {netns} route add default via 2001:db8:{number}::1"
        ));
        inside(
            nat,
            "sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1",
            "",
        );
        ip(&format!(
            "-n {nat} route add 2001:db8:{other}::/64 via 2001:db8::{other}"
        ));
        inside(nat, "nft -f -", RULES);
    }
    nats
}

fn spec(side: &Side, candidates: &[String]) -> Spec {
    Spec {
        listen: Listen::Doors(side.doors()),
        uplink: None,
        endpoint: None,
        candidates: addresses(candidates),
        keepalive_secs: 20,
        ..side.spec(true)
    }
}

fn addresses(texts: &[String]) -> Vec<Way> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

fn up(side: &Side, spec: Spec) {
    assert_eq!(side.ask(&Request::Up(Box::new(spec))), Answer::Done);
    side.address();
}

#[test]
fn two_behind_nats_meet_over_either_family() {
    for (name, over_ipv6) in [("nat4", false), ("nat6", true)] {
        let pair = Pair::new(name);
        let _nats = separate(&pair, name);
        let public = |number: u8| {
            if over_ipv6 {
                format!("[2001:db8:{number}::2]:{PORT}")
            } else {
                format!("203.0.113.{number}:{PORT}")
            }
        };
        let private = |number: u8| format!("10.1.{number}.2:{PORT}");
        let [a, b] = &pair.sides;
        // One knows only where the other is not, until it is told.
        up(a, spec(a, &[private(2)]));
        up(b, spec(b, &[private(1), public(1)]));
        for side in &pair.sides {
            let status = side.status();
            assert!(status.searching && !status.endpoint_proven, "{status:?}");
            assert_eq!(status.handshake_secs, None);
        }
        let request = Request::Candidates {
            name: DEVICE.parse().unwrap(),
            candidates: addresses(&[private(2), public(2)]),
        };
        assert_eq!(a.ask(&request), Answer::Done);
        for (side, other) in [(a, 2), (b, 1)] {
            assert!(wait_until(PATIENCE, || side.status().endpoint_proven));
            let status = side.status();
            assert_eq!(status.endpoint, Some(public(other).parse().unwrap()));
            assert_eq!(status.candidates.len(), 2);
            assert!(!status.searching);
        }
        transfer(&pair, "[fd00::2]:0", 5_000_000);
        transfer(&pair, "10.9.0.2:0", 5_000_000);
    }
}

/// The one that is lost is found at another of its addresses, of the other family.
#[test]
fn who_is_no_longer_heard_is_sought_at_all_its_addresses() {
    let pair = Pair::new("lost");
    let [a, b] = &pair.sides;
    let both = |number: u8| {
        [
            format!("192.0.2.{number}:{PORT}"),
            format!("[2001:db8::{number}]:{PORT}"),
        ]
    };
    up(a, spec(a, &both(2)));
    up(b, spec(b, &[]));
    assert!(wait_until(PATIENCE, || a.status().endpoint_proven));
    let first = a.status().endpoint.unwrap();
    let (family, other) = if first.address().is_ipv4() {
        ("ip", 1)
    } else {
        ("ip6", 0)
    };
    let chain = |hook: &str, way: &str| {
        format!("chain {hook} {{ type filter hook {hook} priority 0; {way} veth0 drop; }};")
    };
    let chains = chain("input", "iifname") + &chain("output", "oifname");
    let deaf = format!("table {family} deaf {{ {chains} }}");
    inside(&b.netns, "nft -f -", &deaf);
    let expected: Way = both(2)[other].parse().unwrap();
    let sender = a.inside(|| UdpSocket::bind("[fd00::1]:0")).unwrap();
    let found = || {
        // Only who says something misses an answer.
        sender.send_to(b"there?", "[fd00::2]:9").unwrap();
        a.status().endpoint == Some(expected) && a.status().endpoint_proven
    };
    // Fifteen seconds until it is asked, and fifteen more of asking.
    assert!(wait_until(3 * PATIENCE, found), "{:?}", a.status());
    transfer(&pair, "10.9.0.2:0", 1_000_000);
}
