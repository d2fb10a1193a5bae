//! ICMP errors about packets that nobody sent, or that somebody else did.

use std::{io, net::UdpSocket};

use hextet_tests::{
    cloud::addr,
    defence::Defence,
    hypervisor::{HOST_V4, HOST_V6, SPINE_V4, SPINE_V6, in_own_namespace, internet},
    packet::{Ends, Icmp, Ip, MARKER, error, icmp, parse, udp},
};
use hextet_types::Family;

use crate::{
    case::Attack,
    world::{CLOSED, OPEN, Setting, World},
};

const GROUP: &str = "ICMP error";

/// All of them.
pub fn attacks() -> Vec<Attack> {
    let mut attacks: Vec<Attack> = Family::BOTH
        .into_iter()
        .flat_map(|family| {
            ERRORS.iter().flat_map(move |error| {
                [
                    about_nothing(family, error),
                    about_a_neighbour_s_flow(family, error),
                ]
            })
        })
        .collect();
    attacks.extend(Family::BOTH.map(about_the_host_s_flow));
    attacks.extend(Family::BOTH.map(opens_a_flow));
    attacks.push(redirect_routed());
    attacks
}

/// What it is called, and its type and code in both families.
type Error = (&'static str, (u8, u8), (u8, u8));

const ERRORS: &[Error] = &[
    ("port unreachable", (3, 3), (1, 4)),
    ("packet too big", (3, 4), (2, 0)),
    ("time exceeded", (11, 0), (3, 0)),
    ("parameter problem", (12, 0), (4, 0)),
];

fn header(family: Family, error: &Error) -> Icmp {
    let (kind, code) = match family {
        Family::V4 => error.1,
        Family::V6 => error.2,
    };
    // An MTU, where there is one: the lowest of each family.
    let rest = match family {
        Family::V4 => [0, 0, 0, 68],
        Family::V6 => [0, 0, 5, 0],
    };
    Icmp { kind, code, rest }
}

fn about_nothing(family: Family, error_kind: &'static Error) -> Attack {
    let frames = move |world: &World| {
        let invented = Ends::new(world.victim(family), internet(family));
        let quoted = Ip::default().packet(invented, &udp(invented, 1, 2, MARKER));
        let ends = world.to_victim(family);
        vec![world.plain(ends, &error(ends, header(family, error_kind), &quoted))]
    };
    let name = format!("{} about a flow that nobody has", error_kind.0);
    let without = &[Defence::Guard, Defence::IngressGroups];
    Attack::by_frames(GROUP, name, family, without, frames, World::victim_is_hit)
}

/// The victim talks with the Internet, and the attacker, who is on neither end nor on the way, knows the
/// ports.
fn about_a_neighbour_s_flow(family: Family, error_kind: &'static Error) -> Attack {
    let attempt = move |world: &mut World| {
        let flow = Ends::new(world.victim(family), internet(family));
        let quoted = Ip::default().packet(flow, &udp(flow, 40000, 443, MARKER));
        let victim = world.cast.victim;
        world.send_as(victim, &quoted);
        let back = flow.back();
        let answer = Ip::default().packet(back, &udp(back, 443, 40000, b"an answer"));
        world.host.send_from_fabric(&answer);
        world.host.port(victim).clear();
        let ends = world.to_victim(family);
        let frame = world.plain(ends, &error(ends, header(family, error_kind), &quoted));
        world.send(&frame);
        world.victim_is_hit()
    };
    let name = format!("{} about a neighbour's flow", error_kind.0);
    Attack::new(GROUP, name, family, &[Defence::Errors], attempt)
}

/// The host itself talks with its controller, and is told that nobody listens there.
fn about_the_host_s_flow(family: Family) -> Attack {
    let attempt = move |world: &mut World| {
        let [host, spine] = match family {
            Family::V4 => [HOST_V4, SPINE_V4],
            Family::V6 => [HOST_V6, SPINE_V6],
        }
        .map(addr);
        let socket = UdpSocket::bind((host, 0)).expect("a port");
        socket.connect((spine, 9697)).expect("a way");
        socket.set_nonblocking(true).expect("a socket");
        socket.send(b"hello").expect("it leaves");
        let sport = socket.local_addr().expect("it is bound").port();
        let flow = Ends::new(host, spine);
        let quoted = Ip::default().packet(flow, &udp(flow, sport, 9697, b"hello"));
        let ends = Ends::new(world.me(family), host);
        let frame = world.plain(ends, &error(ends, header(family, &ERRORS[0]), &quoted));
        world.send(&frame);
        let refused = |e: io::Error| e.kind() == io::ErrorKind::ConnectionRefused;
        socket.recv(&mut [0; 64]).is_err_and(refused)
    };
    let name = "port unreachable about a flow of the host's own";
    Attack::new(GROUP, name, family, &[Defence::Errors], attempt)
}

/// What the host itself has to say about a packet comes from the gateway, whatever addresses the host has:
/// that a packet has come too far, or is too big for the way ahead.
pub fn errors_of_the_host(family: Family) -> Result<(), String> {
    in_own_namespace(|| {
        let mut setting = Setting::new();
        setting.links.push("link set up0 mtu 1400");
        let mut world = World::new(setting, &[]);
        let ends = world.to_internet(family);
        let (gateway, [too_far, too_big]) = match family {
            Family::V4 => (addr("169.254.0.1"), [(11, 0), (3, 4)]),
            Family::V6 => (addr("fe80::1"), [(3, 0), (2, 0)]),
        };
        for (expected, ttl, len) in [(too_far, 1, 100), (too_big, 64, 1440)] {
            let ip = Ip {
                ttl,
                dont_fragment: true,
                ..Ip::default()
            };
            let packet = ip.packet(ends, &udp(ends, 4000, 9, &vec![7; len]));
            world.send(&world.frame(&packet));
            let is_it = |frame: &[u8]| {
                parse(frame).is_some_and(|p| {
                    let kind = (p.payload.octets.first(), p.payload.octets.get(1));
                    p.ends == Ends::new(gateway, ends.src)
                        && kind == (Some(&expected.0), Some(&expected.1))
                        && p.checksum_is_right()
                })
            };
            if !world.attacker_has(is_it) {
                return Err(format!("nothing of type and code {expected:?} came"));
            }
        }
        Ok(())
    })
}

/// Whoever is an end of a flow reports what became of its packets.
pub fn honest_errors_arrive(family: Family) -> Result<(), String> {
    in_own_namespace(|| {
        let mut world = World::new(Setting::new(), &[]);
        let (attacker, victim) = (world.cast.attacker, world.cast.victim);
        let flow = Ends::new(world.me(family), world.victim(family));
        let asked = Ip::default().packet(flow, &udp(flow, 4000, OPEN, b"a question"));
        world.send_as(attacker, &asked);
        let back = flow.back();
        for kind in ERRORS {
            world.host.port(attacker).clear();
            let told = error(back, header(family, kind), &asked);
            world.send_as(victim, &Ip::default().packet(back, &told));
            let is_it = |frame: &[u8]| parse(frame).is_some_and(|p| p.ends == back);
            if !world.attacker_has(is_it) {
                return Err(format!("{} does not", kind.0));
            }
        }
        Ok(())
    })
}

/// After an error that quotes it, a flow that the groups forbid is none that they allow.
fn opens_a_flow(family: Family) -> Attack {
    let frames = move |world: &World| {
        let ends = world.to_victim(family);
        let forbidden = ends.back();
        let quoted = Ip::default().packet(forbidden, &udp(forbidden, CLOSED, 4000, b""));
        let error = error(ends, header(family, &ERRORS[0]), &quoted);
        let datagram = udp(ends, 4000, CLOSED, MARKER);
        vec![world.plain(ends, &error), world.plain(ends, &datagram)]
    };
    let name = "an error that is to open a port";
    let without = &[Defence::IngressGroups];
    Attack::by_frames(GROUP, name, family, without, frames, World::victim_is_hit)
}

/// To a victim that lets in everything.
fn redirect_routed() -> Attack {
    let frames = |world: &World| {
        let flow = world.to_victim(Family::V4).back();
        let quoted = Ip::default().packet(flow, &udp(flow, 1, 2, MARKER));
        let ends = world.to_victim(Family::V4);
        let header = Icmp {
            kind: 5,
            code: 1,
            rest: [198, 51, 100, 10],
        };
        vec![world.plain(ends, &icmp(ends, header, &quoted))]
    };
    let name = "a redirect with its own source, routed";
    let without = &[Defence::Edge, Defence::Guard, Defence::IngressGroups];
    Attack::by_frames(
        GROUP,
        name,
        Family::V4,
        without,
        frames,
        World::victim_is_hit,
    )
}
