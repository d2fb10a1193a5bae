//! The harness itself: what a well-behaved workload does must work, or no attack proves anything.

#![allow(clippy::unwrap_used, reason = "a test")]

use hextet_model::{
    neutron::{Direction, Protocol},
    plan::HostConfig,
};
use hextet_tests::{
    cloud::{Allow, Cloud},
    hypervisor::{Hypervisor, UPLINK_MAC, in_own_namespace, internet},
    packet::{Ends, Ip, MARKER, Parsed, echo_request, ether_ip, parse, udp},
};
use hextet_types::{Family, PortId};

fn two_ports() -> (Cloud, PortId, PortId) {
    let mut cloud = Cloud::new();
    let network = cloud.network(1500);
    for cidr in ["2001:db8:1::/64", "198.51.100.0/24"] {
        cloud.subnet(network, cidr);
    }
    let mut rules = Allow::both(Direction::Egress).to_vec();
    for family in Family::BOTH {
        rules.push(
            Allow::all(Direction::Ingress, family)
                .protocol(Protocol::UDP)
                .ports(7, 9),
        );
    }
    let group = cloud.group(true, &rules);
    let a = cloud.port(network, &["2001:db8:1::a", "198.51.100.10"], &[group]);
    let b = cloud.port(network, &["2001:db8:1::b", "198.51.100.11"], &[group]);
    (cloud, a, b)
}

fn host() -> HostConfig {
    HostConfig::new("compute-1".parse().unwrap())
}

#[test]
fn frames_of_both_families_reach_ports_and_uplink() {
    let (cloud, a, b) = two_ports();
    in_own_namespace(|| {
        let mut host = Hypervisor::new(host(), &cloud.with_members(), &[]);
        host.plug(a);
        host.plug(b);
        host.settle();
        for family in Family::BOTH {
            let is_it = |ends: Ends| move |f: &[u8]| parse(f).is_some_and(|p| p.ends == ends);
            let ends = Ends::new(host.address(a, family), host.address(b, family));
            let packet = Ip::default().packet(ends, &udp(ends, 1000, 7, MARKER));
            host.send(a, &ether_ip(host.to_gateway(a), &packet));
            let frame = host.port(b).expect("the datagram", is_it(ends));
            assert_eq!(frame[..6], host.mac(b).octets());
            let Parsed { ttl, payload, .. } = parse(&frame).unwrap();
            assert_eq!((ttl, payload), (63, udp(ends, 1000, 7, MARKER)));
            assert!(parse(&frame).unwrap().checksum_is_right());

            let out = Ends::new(host.address(a, family), internet(family));
            let packet = Ip::default().packet(out, &echo_request(out, 1, MARKER));
            host.send(a, &ether_ip(host.to_gateway(a), &packet));
            let frame = host.uplink.expect("the ping", is_it(out));
            assert_eq!(frame[6..12], UPLINK_MAC.octets());

            let back = out.back();
            host.send_from_fabric(&Ip::default().packet(back, &udp(back, 1, 8, MARKER)));
            host.port(a)
                .expect("the datagram from outside", is_it(back));
        }
    });
}

#[test]
fn reconciling_twice_does_nothing() {
    let (cloud, a, b) = two_ports();
    in_own_namespace(|| {
        let mut host = Hypervisor::new(host(), &cloud.with_members(), &[]);
        host.plug(a);
        host.plug(b);
        host.settle();
        let again = host.reconcile();
        assert_eq!(again.applied, 0);
        assert!(again.is_complete());
    });
}
