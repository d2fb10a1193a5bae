//! Packets that have the host itself say something: to somebody whose address was borrowed, or so much
//! that it has nothing left to say to others.

use std::net::{IpAddr, Ipv6Addr};

use hextet_tests::{
    cloud::addr,
    defence::Defence,
    hypervisor::{HOST_V6, internet},
    packet::{Ends, Extension, Ip, Payload, is_icmp, is_marked},
};
use hextet_types::Family;

use crate::{
    case::Attack,
    world::{World, marked_datagram},
};

const GROUP: &str = "reflection";

/// All of them.
pub fn attacks() -> Vec<Attack> {
    vec![
        option_error("to somebody on the Internet", |_| internet(Family::V6)),
        option_error("to another port", |world| world.bystander(Family::V6)),
        rpl(),
        starves_errors(Family::V6),
        starves_errors(Family::V4),
    ]
}

/// Hop-by-hop options with that one in front.
fn with_option(kind: u8, payload: Payload) -> Payload {
    let header = [payload.protocol, 0, kind, 4, 0, 0, 0, 0];
    Payload {
        protocol: 0,
        octets: [&header[..], &payload.octets].concat(),
    }
}

/// An option that the host does not know and that asks it to say so (RFC 8200 §4.2): Linux looks at these
/// before any filter does.
fn option_error(whom: &str, source: fn(&World) -> IpAddr) -> Attack {
    let attempt = move |world: &mut World| {
        let ends = Ends::new(source(world), world.victim(Family::V6));
        for kind in [0x80 | 0x1e, 0xc0 | 0x1e] {
            let payload = with_option(kind, marked_datagram(ends));
            let frame = world.plain(ends, &payload);
            world.send(&frame);
        }
        let is_error = |frame: &[u8]| is_icmp(frame, Family::V6, 4) && is_marked(frame);
        let bystander = world.cast.bystander;
        world.host.uplink.has(is_error) || world.host.port(bystander).has(is_error)
    };
    let name = format!("errors about a hop-by-hop option, {whom}");
    let without = &[
        Defence::Sysctl("net/ipv6/max_hbh_opts_number"),
        Defence::Guard,
        Defence::IngressGroups,
    ];
    Attack::new(GROUP, name, Family::V6, without, attempt)
}

/// A source routing header of low-power networks (RFC 6554) through the host, on a host that takes part
/// in them.
fn rpl() -> Attack {
    let frames = |world: &World| {
        let IpAddr::V6(victim) = world.victim(Family::V6) else {
            unreachable!()
        };
        let ends = Ends::new(world.me(Family::V6), addr(HOST_V6));
        let header = Extension::Routing(3, 1, vec![victim]);
        let payload = marked_datagram(ends).behind(&header);
        vec![world.frame(&Ip::default().packet(ends, &payload))]
    };
    let name = "a source routing header of RPL through the host";
    let without = &[Defence::HostShield];
    let sign = World::victim_is_hit;
    Attack::by_frames(GROUP, name, Family::V6, without, frames, sign).given(|setting| {
        setting.sysctls.extend([
            ("net/ipv6/conf/all/rpl_seg_enabled", "1"),
            ("net/ipv6/conf/default/rpl_seg_enabled", "1"),
        ]);
    })
}

/// A host sends so many errors a second, to all together. Packets whose hops are spent, from one port that
/// has many addresses.
fn starves_errors(family: Family) -> Attack {
    let attempt = move |world: &mut World| {
        let to = internet(family);
        for n in 1..=5_000_u16 {
            let src = match family {
                Family::V4 => {
                    let [high, low] = n.to_be_bytes();
                    IpAddr::from([10, 99, high, low])
                }
                Family::V6 => Ipv6Addr::new(0x2001, 0xdb8, 0x99, 0, 0, 0, 0, n).into(),
            };
            let ends = Ends::new(src, to);
            let frame = world.frame(&Ip::ttl(1).packet(ends, &marked_datagram(ends)));
            world.send(&frame);
        }
        let errors = |world: &mut World, port| {
            let frames = world.host.port(port).frames();
            let kind = match family {
                Family::V4 => 11,
                Family::V6 => 3,
            };
            frames.iter().filter(|f| is_icmp(f, family, kind)).count()
        };
        let ends = Ends::new(world.victim(family), to);
        let victim = world.cast.victim;
        world.send_as(victim, &Ip::ttl(1).packet(ends, &marked_datagram(ends)));
        errors(world, victim) == 0
    };
    let name = "errors to many addresses of one leave none for its neighbours";
    let attack = Attack::new(GROUP, name, family, &[Defence::Edge], attempt);
    let open =
        "succeeds: errors but those about sizes are limited for each address and for the host";
    attack.known_to_succeed(open).given(|setting| {
        let attacker = setting.cast.attacker;
        setting.cloud.pair(attacker, "2001:db8:99::/64");
        setting.cloud.pair(attacker, "10.99.0.0/16");
    })
}
