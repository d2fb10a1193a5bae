//! Networks with the same addresses on the same hosts: each reaches its own, and nobody else.

use std::{net::UdpSocket, time::Duration};

use hextet_agent::report::{ExplainRequest, Sender};
use hextet_types::Family;

use super::world::{Guest, MTU, World};

/// A socket of a guest at the nth of its addresses.
fn socket(world: &World, guest: &Guest, nth: usize, port: u16) -> UdpSocket {
    let addr = guest.addrs[nth];
    let host = &world.hosts[guest.host];
    let socket = host.inside(Some(&guest.name), || UdpSocket::bind((addr, port)).unwrap());
    let limit = Some(Duration::from_secs(5));
    socket.set_read_timeout(limit).unwrap();
    socket
}

/// What one sends the other gets, and the one who has the other's address in the other network does not.
fn speaks_to(world: &World, from: &Guest, to: &Guest, not_to: &Guest, octets: usize) {
    for nth in [0, 1] {
        let sender = socket(world, from, nth, 5001);
        let [wanted, unwanted] = [to, not_to].map(|guest| socket(world, guest, nth, 5000));
        let message = vec![0x68; octets];
        sender.send_to(&message, (to.addrs[nth], 5000)).unwrap();
        let mut buffer = vec![0; 65_536];
        let (len, source) = wanted
            .recv_from(&mut buffer)
            .unwrap_or_else(|e| panic!("{octets} octets to {}: {e}", to.addrs[nth]));
        assert_eq!((len, source.ip()), (octets, from.addrs[nth]));
        unwanted.set_nonblocking(true).unwrap();
        assert!(
            unwanted.recv_from(&mut buffer).is_err(),
            "it came to another network"
        );
    }
}

fn equal_addresses_stay_apart(hosts: usize, family: Family) {
    let mut world = World::new(hosts, family);
    let group = world.open_group();
    let networks = [world.network(), world.network()];
    let other = hosts - 1;
    let pairs = networks.map(|network| {
        [
            world.guest(0, network, 11, group),
            world.guest(other, network, 12, group),
        ]
    });
    world.tell();
    let [[a1, b1], [a2, b2]] = &pairs;
    for octets in [8, usize::from(MTU) - 48, 5000] {
        speaks_to(&world, a1, b1, b2, octets);
        speaks_to(&world, b1, a1, a2, octets);
        speaks_to(&world, a2, b2, b1, octets);
        speaks_to(&world, b2, a2, a1, octets);
    }
    for (addr, headers) in [(b1.addrs[0], 28), (b1.addrs[1], 48)] {
        let whole = MTU - headers;
        assert!(
            world.pings(a1, addr, &format!("-M do -s {whole}")),
            "{addr}"
        );
        let more = whole + 1;
        assert!(
            !world.pings(a1, addr, &format!("-M do -s {more}")),
            "{addr}"
        );
    }
    let tap = world.cloud.intent.ports[&a1.port].if_name();
    let explained = world.agents[0].explain(&ExplainRequest {
        from: Sender::Interface(tap),
        to: b1.addrs[1],
        via: None,
        protocol: 6,
        port: Some(22),
        icmp_type: None,
    });
    assert!(explained.delivered, "{explained:?}");
    let says = |what: &str| explained.steps.iter().any(|step| step.contains(what));
    assert!(says("network namespace hx-"), "{explained:?}");
    if hosts == 2 {
        assert!(says("host host-1"), "{explained:?}");
    }
}

#[test]
fn equal_addresses_stay_apart_on_one_host() {
    equal_addresses_stay_apart(1, Family::V6);
}

#[test]
fn equal_addresses_stay_apart_over_an_ipv6_underlay() {
    equal_addresses_stay_apart(2, Family::V6);
}

#[test]
fn equal_addresses_stay_apart_over_an_ipv4_underlay() {
    equal_addresses_stay_apart(2, Family::V4);
}
