//! Packets that ask routers to do more than route them.

use std::net::{IpAddr, Ipv4Addr};

use hextet_tests::{
    cloud::addr,
    defence::Defence,
    hypervisor::HOST_V6,
    packet::{Ends, Extension, Ip},
};
use hextet_types::Family;

use crate::{
    case::Attack,
    world::{World, marked_datagram},
};

const GROUP: &str = "routing by the sender";

/// All of them.
pub fn attacks() -> Vec<Attack> {
    vec![
        source_route("loose", 131),
        source_route("strict", 137),
        segments(),
    ]
}

/// By way of the host's link-local address to the victim (RFC 791 §3.1), on a host whose distribution
/// allows it.
fn source_route(name: &str, option: u8) -> Attack {
    let frames = move |world: &World| {
        let IpAddr::V4(victim) = world.victim(Family::V4) else {
            unreachable!()
        };
        let ends = Ends::new(world.me(Family::V4), Ipv4Addr::new(169, 254, 0, 1));
        let route = [&[option, 7, 4][..], &victim.octets(), &[0]].concat();
        let ip = Ip {
            options: route,
            ..Ip::default()
        };
        // Without a checksum, which would be for the last destination and wrong on the way.
        let mut datagram = marked_datagram(ends);
        datagram.octets[6..8].fill(0);
        vec![world.frame(&ip.packet(ends, &datagram))]
    };
    let without = &[Defence::Sysctl("net/ipv4/conf/all/accept_source_route")];
    let name = format!("a {name} source route through the host");
    Attack::by_frames(
        GROUP,
        name,
        Family::V4,
        without,
        frames,
        World::victim_is_hit,
    )
    .given(|setting| {
        setting.sysctls.extend([
            ("net/ipv4/conf/all/accept_source_route", "1"),
            ("net/ipv4/conf/default/accept_source_route", "1"),
        ]);
    })
}

/// A segment routing header through the host (RFC 8754), on a host that takes part in segment routing.
fn segments() -> Attack {
    let frames = |world: &World| {
        let IpAddr::V6(victim) = world.victim(Family::V6) else {
            unreachable!()
        };
        let ends = Ends::new(world.me(Family::V6), addr(HOST_V6));
        let IpAddr::V6(host) = ends.dst else {
            unreachable!()
        };
        let header = Extension::Routing(4, 1, vec![victim, host]);
        let payload = marked_datagram(ends).behind(&header);
        let mut packet = Ip::default().packet(ends, &payload);
        // The last entry of the segment list, which for other types is reserved.
        packet[44] = 1;
        vec![world.frame(&packet)]
    };
    let name = "a segment routing header through the host";
    let without = &[Defence::HostShield];
    Attack::by_frames(
        GROUP,
        name,
        Family::V6,
        without,
        frames,
        World::victim_is_hit,
    )
    .given(|setting| {
        setting.sysctls.extend([
            ("net/ipv6/conf/all/seg6_enabled", "1"),
            ("net/ipv6/conf/default/seg6_enabled", "1"),
        ]);
    })
}
