//! Packets that have the host itself say something: to somebody whose address was borrowed, or so much
//! that it has nothing left to say to others.

use std::net::{IpAddr, Ipv6Addr};

use hextet_tests::{
    cloud::addr,
    defence::Defence,
    hypervisor::{HOST_V4, HOST_V6, internet},
    packet::{Ends, Extension, Ip, Payload, is_icmp, is_marked, parse},
};
use hextet_types::Family;

use crate::{
    case::Attack,
    world::{Setting, World, marked_datagram},
};

const GROUP: &str = "reflection";

/// All of them.
pub fn attacks() -> Vec<Attack> {
    [
        option_error("to somebody on the Internet", |_| internet(Family::V6)),
        option_error("to another port", |world| world.bystander(Family::V6)),
        rpl(),
        starves_errors_by_options(),
    ]
    .into_iter()
    .chain(Family::BOTH.into_iter().flat_map(|family| {
        [
            starves_errors(family),
            starves_errors_by_closed_ports(family),
            starves_errors_from_outside(family),
            starves_others_outside(family),
        ]
    }))
    .collect()
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

/// What lets the host send its errors: to all together, so many a second.
const RATE: [Defence; 2] = [
    Defence::Sysctl("net/ipv4/icmp_msgs_per_sec"),
    Defence::Sysctl("net/ipv4/icmp_msgs_burst"),
];
/// More packets than the host may send errors, in the time that they take, several times: the host may send
/// some again just when the victim asks.
const ENOUGH: u16 = 1_000;
const ROUNDS: u16 = 5;

/// The type of errors about hops that are spent.
fn exceeded(family: Family) -> u8 {
    match family {
        Family::V4 => 11,
        Family::V6 => 3,
    }
}

/// Packets whose hops are spent, from one port that has many addresses.
fn starves_errors(family: Family) -> Attack {
    let attempt = move |world: &mut World| {
        let to = internet(family);
        starves(world, family, |world, n| {
            let ends = Ends::new(own_source(family, n), to);
            let frame = world.frame(&Ip::ttl(1).packet(ends, &marked_datagram(ends)));
            world.send(&frame);
        })
    };
    let name = "errors to many addresses of one leave none for its neighbours";
    let without = &[Defence::Edge, RATE[0], RATE[1]];
    Attack::new(GROUP, name, family, without, attempt).given(many_addresses)
}

fn many_addresses(setting: &mut Setting) {
    let attacker = setting.cast.attacker;
    setting.cloud.pair(attacker, "2001:db8:99::/64");
    setting.cloud.pair(attacker, "10.99.0.0/16");
}

/// One of so many that the attacker has then.
fn own_source(family: Family, n: u16) -> IpAddr {
    match family {
        Family::V4 => {
            let [high, low] = n.to_be_bytes();
            IpAddr::from([10, 99, high, low])
        }
        Family::V6 => Ipv6Addr::new(0x2001, 0xdb8, 0x99, 0, 0, 0, 0, n).into(),
    }
}

/// The same by options that make no sense.
fn starves_errors_by_options() -> Attack {
    let attempt = |world: &mut World| {
        let family = Family::V4;
        let too_short = Ip {
            options: vec![7, 2, 0, 0],
            ..Ip::default()
        };
        starves(world, family, |world, n| {
            let ends = Ends::new(own_source(family, n), internet(family));
            let frame = world.frame(&too_short.packet(ends, &marked_datagram(ends)));
            world.send(&frame);
        })
    };
    let name = "errors about options of many addresses leave none for its neighbours";
    let without = &[Defence::Edge, RATE[0], RATE[1]];
    Attack::new(GROUP, name, Family::V4, without, attempt).given(many_addresses)
}

/// Datagrams to ports of the host where nobody listens.
fn starves_errors_by_closed_ports(family: Family) -> Attack {
    let attempt = move |world: &mut World| {
        let host = match family {
            Family::V4 => addr(HOST_V4),
            Family::V6 => addr(HOST_V6),
        };
        starves(world, family, |world, n| {
            let ends = Ends::new(outsider(family, n, false), host);
            let packet = Ip::default().packet(ends, &marked_datagram(ends));
            world.host.send_from_fabric(&packet);
        })
    };
    let name = "errors about the host's closed ports leave none for workloads";
    Attack::new(GROUP, name, family, &RATE, attempt)
}

/// Whether the victim is not told what it should be, after one of several rounds of such packets.
fn starves(world: &mut World, family: Family, send: impl FnMut(&mut World, u16)) -> bool {
    starves_whom(world, send, |world| victim_is_told(world, family))
}

fn starves_whom(
    world: &mut World,
    mut send: impl FnMut(&mut World, u16),
    is_told: impl Fn(&mut World) -> bool,
) -> bool {
    (0..ROUNDS).any(|round| {
        for n in 1..=ENOUGH {
            send(world, round * ENOUGH + n);
        }
        !is_told(world)
    })
}

/// Whether the victim hears that a packet of its own has come too far.
fn victim_is_told(world: &mut World, family: Family) -> bool {
    let ends = Ends::new(world.victim(family), world.bystander(family));
    let victim = world.cast.victim;
    world.host.port(victim).clear();
    world.send_as(victim, &Ip::ttl(1).packet(ends, &marked_datagram(ends)));
    world.victim_has(|frame| is_icmp(frame, family, exceeded(family)))
}

/// The n-th of many sources outside, of that site or each of its own.
fn outsider(family: Family, n: u16, one_site: bool) -> IpAddr {
    let [high, low] = n.to_be_bytes();
    match (family, one_site) {
        (Family::V4, false) => IpAddr::from([100, 64 | (high >> 4), n.to_le_bytes()[0], high]),
        (Family::V4, true) => IpAddr::from([100, 64, 7, low]),
        (Family::V6, false) => Ipv6Addr::new(0x2001, 0xdb9, n, 0, 0, 0, 0, 1).into(),
        (Family::V6, true) => Ipv6Addr::new(0x2001, 0xdb9, 0x77, n, 0, 0, 0, 1).into(),
    }
}

/// The same by the uplink.
fn starves_errors_from_outside(family: Family) -> Attack {
    let attempt = move |world: &mut World| {
        starves(world, family, |world, n| {
            send_spent(world, family, outsider(family, n, false))
        })
    };
    let name = "errors to many addresses outside leave none for ports";
    Attack::new(GROUP, name, family, &RATE, attempt)
}

/// One site outside uses up what is for all who are outside.
fn starves_others_outside(family: Family) -> Attack {
    let attempt = move |world: &mut World| {
        let send = |world: &mut World, n| send_spent(world, family, outsider(family, n, true));
        starves_whom(world, send, |world| other_is_told(world, family))
    };
    let name = "errors to one site outside leave none for others there";
    let without = &[Defence::Chain("own-reports"), RATE[0], RATE[1]];
    Attack::new(GROUP, name, family, without, attempt)
}

/// Whether somebody outside hears that a packet has come too far.
fn other_is_told(world: &mut World, family: Family) -> bool {
    let other = internet(family);
    world.host.uplink.clear();
    send_spent(world, family, other);
    world.host.uplink.has(|frame| {
        is_icmp(frame, family, exceeded(family))
            && parse(frame).is_some_and(|p| p.ends.dst == other)
    })
}

fn send_spent(world: &mut World, family: Family, source: IpAddr) {
    let ends = Ends::new(source, world.victim(family));
    let packet = Ip::ttl(1).packet(ends, &marked_datagram(ends));
    world.host.send_from_fabric(&packet);
}
