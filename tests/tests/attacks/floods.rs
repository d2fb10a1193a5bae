//! Much of what is allowed once: the host's tables stay bounded, and the neighbours get what they get
//! without the flood.

use std::net::{Ipv4Addr, Ipv6Addr, UdpSocket};

use hextet_tests::{
    cloud::addr,
    defence::Defence,
    hypervisor::{HOST_V4, in_own_namespace, internet},
    packet::{
        Ends, Ether, Ip, MARKER, Payload, Tcp, echo_request, ether_ip, fragment, fragments,
        is_marked, parse, tcp, udp,
    },
    wire::Frame,
};
use hextet_types::{Family, Mac};

use crate::{
    case::Attack,
    world::{OPEN, Setting, World},
};

const GROUP: &str = "flood";
/// Pings to the gateway in one go; it answers 20 a second.
const PINGS: u16 = 300;

/// All of them.
pub fn attacks() -> Vec<Attack> {
    let mut attacks = vec![pings(), dhcp_to_the_host()];
    for family in Family::BOTH {
        attacks.extend([
            unreachable(family),
            fragments_of_nothing(family),
            only_seem_whole(family, "for nobody", to_nobody),
            only_seem_whole(family, "that are cut off", cut_off),
            only_seem_whole(family, "with a header that is wrong", with_wrong_header),
            answered_connections(family),
            connections_of_one_port(family),
            connections_to_one_port(family),
        ]);
    }
    attacks
}

/// The gateway answers pings, at its own pace.
fn pings() -> Attack {
    let attempt = |world: &mut World| {
        let ends = Ends::new(world.me(Family::V4), Ipv4Addr::new(169, 254, 0, 1));
        for n in 0..PINGS {
            let frame = world.plain(ends, &echo_request(ends, n, MARKER));
            world.send(&frame);
        }
        let attacker = world.host.port(world.cast.attacker);
        let is_answer = |frame: &Frame| parse(frame).is_some_and(|p| p.ends == ends.back());
        let answers = attacker
            .frames()
            .iter()
            .filter(|frame| is_answer(frame))
            .count();
        answers > usize::from(PINGS) / 2
    };
    Attack::new(
        GROUP,
        "the gateway answers all pings",
        Family::V4,
        &[Defence::HostShield],
        attempt,
    )
}

/// A DHCP server of the host's own (for its management network, say) hears nothing of workloads.
fn dhcp_to_the_host() -> Attack {
    let attempt = |world: &mut World| {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 67)).expect("a port");
        socket.set_nonblocking(true).expect("a socket");
        let ends = Ends::new(Ipv4Addr::UNSPECIFIED, Ipv4Addr::BROADCAST);
        for n in 0..50 {
            let src = Mac::new([2, 0, 0, 0, 1, n]);
            let packet = Ip::default().packet(ends, &udp(ends, 68, 67, MARKER));
            world.send(&ether_ip(
                Ether {
                    src,
                    dst: Mac::BROADCAST,
                },
                &packet,
            ));
        }
        socket.recv(&mut [0; 64]).is_ok()
    };
    let name = "DHCP requests reach a server of the host";
    let without = &[Defence::Edge, Defence::SourceCheck, Defence::HostShield];
    Attack::new(GROUP, name, Family::V4, without, attempt)
}

/// What the host sends back when it can't deliver is limited by the kernel, and never goes to somebody
/// whose address was borrowed.
fn unreachable(family: Family) -> Attack {
    let attempt = move |world: &mut World| {
        let nowhere = match family {
            Family::V4 => addr(HOST_V4),
            Family::V6 => Ipv6Addr::new(0x2001, 0xdb8, 0xffff, 0, 0, 0, 0, 1).into(),
        };
        let ends = Ends::new(world.victim(family), nowhere);
        for n in 0..50 {
            let payload: Payload = udp(ends, 4000 + n, 9, MARKER);
            let frame = world.plain(ends, &payload);
            world.send(&frame);
        }
        world.victim_is_hit()
    };
    let name = "errors of the host hit somebody else";
    let without = &[Defence::SourceCheck, Defence::HostShield];
    Attack::new(GROUP, name, family, without, attempt)
}

/// First fragments of datagrams that never become whole: the host puts all together before it judges, and
/// has room for so much at a time. The victim's own datagrams that come in fragments are then lost.
fn fragments_of_nothing(family: Family) -> Attack {
    const ENOUGH_TO_FILL_IT: u32 = 8_000;
    let attempt = move |world: &mut World| {
        assert!(
            fragments_reach_the_victim(world, family),
            "nobody sends anything yet"
        );
        let ends = world.to_victim(family);
        let payload = udp(ends, 4000, OPEN, &[0; 1800]);
        let first = Payload {
            protocol: payload.protocol,
            octets: payload.octets[..1280].to_vec(),
        };
        for n in 0..ENOUGH_TO_FILL_IT {
            let packet = match family {
                Family::V4 => {
                    let identification = u16::try_from(n).expect("a small number");
                    Ip {
                        identification,
                        more_fragments: true,
                        ..Ip::default()
                    }
                    .packet(ends, &first)
                }
                Family::V6 => Ip::default().packet(ends, &fragment(&first, n, 0, true)),
            };
            let frame = world.frame(&packet);
            world.send(&frame);
        }
        !fragments_reach_the_victim(world, family)
    };
    let name = "a neighbour's datagrams in fragments are lost";
    Attack::new(GROUP, name, family, &[Defence::Edge], attempt)
}

/// A frame with that packet to which something is wrong.
type Spoil = fn(&World, Vec<u8>) -> Frame;

/// Datagrams whose last fragments are dropped on their way to the host's room for fragments, so that nobody pays for their first.
fn only_seem_whole(family: Family, how: &str, spoil: Spoil) -> Attack {
    const ENOUGH_TO_FILL_IT: u32 = 4_000;
    const FIRST: usize = 1280;
    let attempt = move |world: &mut World| {
        let ends = world.to_victim(family);
        let whole = udp(ends, 4000, OPEN, &[0; FIRST]);
        let piece = |id: u32, from: usize, to: usize| {
            let more = to < whole.octets.len();
            let piece = Payload {
                protocol: whole.protocol,
                octets: whole.octets[from..to].to_vec(),
            };
            match family {
                Family::V4 => Ip {
                    identification: u16::try_from(id).expect("a small number"),
                    more_fragments: more,
                    fragment_offset: u16::try_from(from / 8).expect("a small number"),
                    ..Ip::default()
                }
                .packet(ends, &piece),
                Family::V6 => Ip::default().packet(ends, &fragment(&piece, id, from, more)),
            }
        };
        for id in 0..ENOUGH_TO_FILL_IT {
            let first = world.frame(&piece(id, 0, FIRST));
            world.send(&first);
            let last = spoil(world, piece(id, FIRST, whole.octets.len()));
            world.send(&last);
        }
        !fragments_reach_the_victim(world, family)
    };
    let name = format!("a neighbour's are lost to last fragments {how}");
    Attack::new(GROUP, name, family, &[Defence::Edge], attempt)
}

/// To an Ethernet address that is nobody's.
fn to_nobody(world: &World, packet: Vec<u8>) -> Frame {
    let mut frame = world.frame(&packet);
    frame[..6].copy_from_slice(&[2, 0, 0, 0, 0, 0x99]);
    frame
}

/// Shorter than its header says.
fn cut_off(world: &World, packet: Vec<u8>) -> Frame {
    let mut frame = world.frame(&packet);
    frame.pop();
    frame
}

/// With a header that is wrong in itself.
fn with_wrong_header(world: &World, packet: Vec<u8>) -> Frame {
    const ETHERNET: usize = 14;
    let mut frame = world.frame(&packet);
    match packet[0] >> 4 {
        4 => frame[ETHERNET + 10] ^= 0x55,
        _ => frame[ETHERNET] = 0x70,
    }
    frame
}

/// What a port sends in fragments that do belong together gets through, also in numbers for which there
/// would be no room at once.
pub fn whole_datagrams_get_through(family: Family) -> Result<(), String> {
    const DATAGRAMS: u32 = 200;
    const CUTS: [(usize, usize); 4] = [(0, 1400), (1400, 2800), (2800, 4200), (4200, 5008)];
    in_own_namespace(|| {
        let mut world = World::new(Setting::new(), &[]);
        let ends = world.to_internet(family);
        let datagram = udp(ends, 4000, 2049, &[7; 5000]);
        for n in 0..DATAGRAMS {
            for (first, end) in CUTS {
                let octets = datagram.octets[first..end].to_vec();
                let piece = Payload {
                    protocol: datagram.protocol,
                    octets,
                };
                let more = end < datagram.octets.len();
                let packet = match family {
                    Family::V4 => Ip {
                        identification: u16::try_from(n).expect("a small number"),
                        more_fragments: more,
                        fragment_offset: u16::try_from(first / 8).expect("a small number"),
                        ..Ip::default()
                    }
                    .packet(ends, &piece),
                    Family::V6 => Ip::default().packet(ends, &fragment(&piece, n, first, more)),
                };
                let frame = world.frame(&packet);
                world.send(&frame);
            }
        }
        let pieces = world.host.uplink.frames().iter();
        let pieces = pieces
            .filter(|f| parse(f).is_some_and(|p| p.ends == ends))
            .count();
        let all = DATAGRAMS as usize * CUTS.len();
        (pieces >= all)
            .then_some(())
            .ok_or_else(|| format!("{pieces} of {all} fragments"))
    })
}

/// Whether a datagram from the Internet, in two fragments, gets to the victim.
fn fragments_reach_the_victim(world: &mut World, family: Family) -> bool {
    world.host.port(world.cast.victim).clear();
    let ends = Ends::new(internet(family), world.victim(family));
    let datagram = udp(ends, 4000, OPEN, MARKER);
    for packet in fragments(&Ip::default(), ends, &datagram, &[(0, 16), (16, 64)]) {
        world.host.send_from_fabric(&packet);
    }
    world.victim_has(|frame| parse(frame).is_some_and(|p| p.ends == ends))
}

/// More than the host's table of connections has room for, unless it was made larger.
const CONNECTIONS: u32 = 270_000;

/// Connections that somebody outside answers stay in the table, for days if they are TCP. Once it is full,
/// nobody on the host opens another one.
fn answered_connections(family: Family) -> Attack {
    let attempt = move |world: &mut World| {
        let ends = world.to_internet(family);
        let segment = |ends, (sport, dport), ack, flags| {
            let header = Tcp {
                sport,
                dport,
                seq: ack,
                ack,
                flags,
            };
            Ip::default().packet(ends, &tcp(ends, header, MARKER))
        };
        each_connection(world, |world, (sport, dport)| {
            let syn = world.frame(&segment(ends, (sport, dport), 1, Tcp::SYN));
            world.send(&syn);
            let answer = segment(ends.back(), (dport, sport), 2, Tcp::SYN | Tcp::ACK);
            world.host.send_from_fabric(&answer);
            let ack = world.frame(&segment(ends, (sport, dport), 2, Tcp::ACK));
            world.send(&ack);
        });
        new_flows_lost(world, family) > 0
    };
    let name = "answered connections fill the host's table";
    Attack::new(GROUP, name, family, &[Defence::Floods], attempt)
}

/// Connections that a port may have in the cases about its limit, and those that it tries.
const LIMIT: u16 = 600;
const BEYOND: u16 = 2_000;

fn limited(setting: &mut Setting) {
    setting.config.max_connections_per_port = LIMIT.into();
}

/// More connections than a port may have open.
fn connections_of_one_port(family: Family) -> Attack {
    let attempt = move |world: &mut World| {
        let ends = world.to_internet(family);
        for n in 0..BEYOND {
            let frame = world.plain(ends, &udp(ends, 2000 + n, 443, MARKER));
            world.send(&frame);
        }
        let frames = world.host.uplink.frames().iter();
        let left = frames.filter(|frame| is_marked(frame)).count();
        assert!(left > usize::from(LIMIT) / 2, "{left} are too few");
        left > usize::from(LIMIT)
    };
    let name = "more connections than a port may have";
    Attack::new(GROUP, name, family, &[Defence::Floods], attempt).given(limited)
}

/// More than others may have open to it; its own are counted apart.
fn connections_to_one_port(family: Family) -> Attack {
    let attempt = move |world: &mut World| {
        let ends = Ends::new(internet(family), world.victim(family));
        for n in 0..BEYOND {
            let datagram = udp(ends, 2000 + n, OPEN, MARKER);
            let packet = Ip::default().packet(ends, &datagram);
            world.host.send_from_fabric(&packet);
        }
        let victim = world.cast.victim;
        let frames = world.host.port(victim).frames().iter();
        let came = frames.filter(|frame| is_marked(frame)).count();
        assert!(came > usize::from(LIMIT) / 2, "{came} are too few");
        world.host.uplink.clear();
        let own = ends.back();
        let own = Ip::default().packet(own, &udp(own, 900, 443, MARKER));
        world.send_as(victim, &own);
        came > usize::from(LIMIT) || !world.uplink_is_hit()
    };
    let name = "more connections than others may have to a port";
    Attack::new(GROUP, name, family, &[Defence::Floods], attempt).given(limited)
}

/// Connections that nobody answers fill the table, too, where no port has a limit, but make room for
/// others.
pub fn unanswered_connections_make_room(family: Family) -> Result<(), String> {
    in_own_namespace(|| {
        let mut world = World::new(Setting::new(), &[Defence::Floods]);
        let ends = world.to_internet(family);
        each_connection(&mut world, |world, (sport, dport)| {
            let frame = world.plain(ends, &udp(ends, sport, dport, MARKER));
            world.send(&frame);
        });
        match new_flows_lost(&mut world, family) {
            0 => Ok(()),
            lost => Err(format!("{lost} new flows of the victim are lost")),
        }
    })
}

/// Opens one after the other, each with ports of its own, until nothing gets through any more.
fn each_connection(world: &mut World, mut open: impl FnMut(&mut World, (u16, u16))) {
    for n in 0..CONNECTIONS {
        let port = |n| u16::try_from(n + 1000).expect("a port");
        open(world, (port(n % 60_000), port(n / 60_000)));
        if n % 5_000 == 0 {
            if !world.uplink_is_hit() {
                break;
            }
            world.host.uplink.clear();
            world.host.port(world.cast.attacker).clear();
        }
    }
}

/// Of a hundred datagrams from outside, each from another port, how many do not reach the victim.
fn new_flows_lost(world: &mut World, family: Family) -> usize {
    const FLOWS: u16 = 100;
    let ends = Ends::new(internet(family), world.victim(family));
    for n in 0..FLOWS {
        let datagram = udp(ends, 3000 + n, OPEN, MARKER);
        world
            .host
            .send_from_fabric(&Ip::default().packet(ends, &datagram));
    }
    let frames = world.host.port(world.cast.victim).frames();
    let arrived = frames
        .iter()
        .filter(|f| parse(f).is_some_and(|p| p.ends == ends))
        .count();
    usize::from(FLOWS) - arrived
}
