//! Anything that a workload may send to a port that has everything: no panic, and answers that fit the link
//! and go to nobody but the workload.
//!
//! The first octet says what the rest is: a whole frame, or the payload of one whose headers are right.

#![no_main]

use etherparse::PacketBuilder;
use hextet_autoconf::{
    Action, Duid, Event, PortConfig, PortKey, Responder,
    config::{Advertise, Delegation, HostRoute, Ipv4Subnet, Ipv6Mode, Ipv6Subnet, LINK_LOCAL},
};
use hextet_types::{Mac, Time};
use libfuzzer_sys::fuzz_target;

const GUEST: [u8; 6] = [0xfa, 0x16, 0x3e, 0xaa, 0xbb, 0xcc];
const HOST: [u8; 6] = [2, 0, 0, 0, 0, 1];
const GUEST_LINK_LOCAL: [u8; 16] = [
    0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0xf8, 0x16, 0x3e, 0xff, 0xfe, 0xaa, 0xbb, 0xcc,
];
const KEY: PortKey = PortKey(7);
const MTU: u16 = 1_500;

fuzz_target!(|input: &[u8]| {
    let [which, octets @ ..] = input else { return };
    let mode = if which & 8 == 0 {
        Ipv6Mode::Dhcpv6Stateful
    } else {
        Ipv6Mode::Dhcpv6Stateless
    };
    let mut responder = Responder::new(1, Duid::link_layer(Mac::new(HOST)));
    let now = Time::from_nanos(1_000_000_000);
    if responder.set_port(KEY, port(mode), now).is_err() {
        panic!("the port is refused");
    }
    let Some(bytes) = frame(which % 4, octets) else {
        return;
    };
    for action in responder.handle(
        Event::Frame {
            port: KEY,
            bytes: &bytes,
        },
        now,
    ) {
        let Action::Send { port, frame } = action;
        assert_eq!(port, KEY);
        assert!(frame.len() <= usize::from(MTU) + 14);
        let to = frame.get(..6).unwrap_or_default();
        assert!(
            to == GUEST || to.first().is_some_and(|octet| octet & 1 == 1),
            "{to:?}"
        );
        assert_eq!(frame.get(6..12), Some(&HOST[..]));
    }
    if let Some(at) = responder.next_wakeup() {
        responder.handle(Event::Timer, at);
    }
});

fn frame(kind: u8, octets: &[u8]) -> Option<Vec<u8>> {
    let all_routers = [0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2];
    let all_servers = [0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 2];
    let mut out = Vec::new();
    match kind {
        0 => out.extend_from_slice(octets),
        1 => PacketBuilder::ethernet2(GUEST, [0xff; 6])
            .ipv4([0; 4], [255; 4], 64)
            .udp(68, 67)
            .write(&mut out, octets)
            .ok()?,
        2 => PacketBuilder::ethernet2(GUEST, [0x33, 0x33, 0, 1, 0, 2])
            .ipv6(GUEST_LINK_LOCAL, all_servers, 1)
            .udp(546, 547)
            .write(&mut out, octets)
            .ok()?,
        _ => PacketBuilder::ethernet2(GUEST, [0x33, 0x33, 0, 0, 0, 2])
            .ipv6(GUEST_LINK_LOCAL, all_routers, 255)
            .icmpv6_raw(133, 0, [0; 4])
            .write(&mut out, octets)
            .ok()?,
    }
    Some(out)
}

fn port(mode: Ipv6Mode) -> PortConfig {
    let parsed = "a literal of the right form";
    let address = Some("2001:db8:1:2::77".parse().expect(parsed));
    let mut v6 = Ipv6Subnet::new("2001:db8:1:2::/64".parse().expect(parsed), mode, address);
    v6.dns_servers = vec!["2001:db8::53".parse().expect(parsed)];
    let mut v4 = Ipv4Subnet::new(
        "192.0.2.77".parse().expect(parsed),
        "192.0.2.0/25".parse().expect(parsed),
    );
    v4.gateway = Some("192.0.2.1".parse().expect(parsed));
    v4.dns_servers = vec!["198.51.100.53".parse().expect(parsed)];
    v4.host_routes = vec![HostRoute {
        destination: "169.254.169.254/32".parse().expect(parsed),
        nexthop: "192.0.2.2".parse().expect(parsed),
    }];
    PortConfig {
        host_mac: Mac::new(HOST),
        guest_mac: Mac::new(GUEST),
        link_local: LINK_LOCAL,
        mtu: MTU,
        hostname: Some("web-1".parse().expect(parsed)),
        dns_domain: Some("cloud.example".parse().expect(parsed)),
        dns_search: vec!["example.org".parse().expect(parsed)],
        ntp_servers: vec!["2001:db8::123".parse().expect(parsed)],
        advertise: Some(Advertise {
            default_router: true,
            pref64: Some("64:ff9b::/96".parse().expect(parsed)),
            ..Advertise::default()
        }),
        ipv6: vec![v6],
        delegated: vec![Delegation {
            prefix: "2001:db8:77::/56".parse().expect(parsed),
            valid_lifetime_secs: 7_200,
            preferred_lifetime_secs: 3_600,
        }],
        ipv4: vec![v4],
        ipv6_only_wait_secs: Some(1_800),
        extra_dhcp_opts: Vec::new(),
    }
}
