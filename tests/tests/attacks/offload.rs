//! Checksums that a virtio device leaves to its host. The device says where they go, and the kernel writes
//! them there after all rules have judged the packet: two octets of the workload's choice.

use std::net::IpAddr;

use hextet_tests::{
    defence::Defence,
    hypervisor::in_own_namespace,
    packet::{
        Ends, Ether, Extension, Icmp, Ip, MARKER, Payload, Tcp, ether_ip, gre, icmp, is_icmp,
        parse, tcp, udp, vxlan,
    },
    wire::{Frame, VirtioHeader},
};
use hextet_types::{Family, Mac};

use crate::{
    case::Attack,
    responders::{VIRTIO, as_virtio, transport},
    world::{CLOSED, OPEN, OPEN_TCP, Setting, World},
};

/// All of them.
pub fn attacks() -> Vec<Attack> {
    let mut attacks = Vec::new();
    for family in Family::BOTH {
        attacks.extend([
            rewritten_port(family, "a datagram's", |ends| udp(ends, 4000, OPEN, ROOM)),
            rewritten_port(family, "a segment's", |ends| {
                tcp(ends, Tcp::syn(4000, OPEN_TCP), ROOM)
            }),
            rewritten_source(family),
            redirect_out_of_a_ping(family),
        ]);
    }
    attacks.push(behind_an_extension());
    attacks
}

/// The marker, and two octets that make the checksum what it is to be.
const ROOM: &[u8] = b"an attacker's frame\0\0\0";

/// Sends a frame whose checksum, from `start` on, is `wanted` and goes to `place`.
fn write_there(world: &mut World, mut frame: Frame, start: u16, place: u16, wanted: [u8; 2]) {
    let from = usize::from(start);
    // The last word, as words are counted from there.
    let last = frame.len() - (frame.len() - from) % 2 - 2;
    frame[last..last + 2].fill(0);
    let words = frame[from..].chunks(2);
    let sum: u64 = words
        .map(|w| u64::from(u16::from_be_bytes([w[0], w.get(1).copied().unwrap_or(0)])))
        .sum();
    let complement = u64::from(!u16::from_be_bytes(wanted));
    let room = (complement + 0xffff - sum % 0xffff) % 0xffff;
    frame[last..last + 2].copy_from_slice(&u16::try_from(room).unwrap().to_be_bytes());
    let header = VirtioHeader {
        flags: VirtioHeader::NEEDS_CHECKSUM,
        csum_start: start,
        csum_offset: place - start,
        ..VirtioHeader::default()
    };
    let attacker = world.cast.attacker;
    world.host.port(attacker).send_virtio(header, &frame);
}

fn attack(name: String, family: Family, attempt: fn(&mut World, Family) -> bool) -> Attack {
    let attempt = move |world: &mut World| {
        as_virtio(world);
        attempt(world, family)
    };
    Attack::new(VIRTIO, name, family, &[Defence::Edge], attempt)
}

fn arrives_at_closed_port(world: &mut World) -> bool {
    world.victim_has(|frame| {
        parse(frame).is_some_and(|p| p.ports.is_some_and(|(_, to)| to == CLOSED))
    })
}

/// The port is an open one while rules look at it.
fn rewritten_port(family: Family, whose: &str, payload: fn(Ends) -> Payload) -> Attack {
    let attempt = move |world: &mut World| {
        as_virtio(world);
        let ends = world.to_victim(family);
        let frame = world.plain(ends, &payload(ends));
        let start = transport(family);
        write_there(world, frame, start, start + 2, CLOSED.to_be_bytes());
        arrives_at_closed_port(world)
    };
    let name = format!("a checksum to be put where {whose} port stands");
    Attack::new(VIRTIO, name, family, &[Defence::Edge], attempt)
}

/// The same behind an extension header.
fn behind_an_extension() -> Attack {
    let attempt = |world: &mut World, family| {
        let ends = world.to_victim(family);
        let payload = udp(ends, 4000, OPEN, ROOM).behind(&Extension::Destination(1));
        let frame = world.plain(ends, &payload);
        let start = transport(family) + 8;
        write_there(world, frame, start, start + 2, CLOSED.to_be_bytes());
        arrives_at_closed_port(world)
    };
    let name = "a checksum to be put where a port stands, behind an extension header";
    attack(name.to_owned(), Family::V6, attempt)
}

/// The source is the attacker's own while rules look at it, and then a bystander's.
fn rewritten_source(family: Family) -> Attack {
    let attempt = |world: &mut World, family| {
        let ends = world.to_victim(family);
        let bystander = world.bystander(family);
        let (source, last) = match bystander {
            IpAddr::V4(addr) => (26, addr.octets()[2..].to_vec()),
            IpAddr::V6(addr) => (22, addr.octets()[14..].to_vec()),
        };
        let place = match family {
            Family::V4 => source + 2,
            Family::V6 => source + 14,
        };
        let frame = world.plain(ends, &udp(ends, 4000, OPEN, ROOM));
        write_there(world, frame, source, place, [last[0], last[1]]);
        world.victim_has(|frame| parse(frame).is_some_and(|p| p.ends.src == bystander))
    };
    attack(
        "a checksum to be put where the source stands".to_owned(),
        family,
        attempt,
    )
}

/// A ping, which the victim lets in, and which is a redirect then.
fn redirect_out_of_a_ping(family: Family) -> Attack {
    let attempt = |world: &mut World, family| {
        let ends = world.to_victim(family);
        let start = transport(family);
        let redirect = redirect_type(family);
        let frame = world.plain(ends, &echo(ends));
        write_there(world, frame, start, start, [redirect, 1]);
        world.victim_has(|frame| is_icmp(frame, family, redirect))
    };
    attack(
        "a checksum that makes a ping a redirect".to_owned(),
        family,
        attempt,
    )
}

fn redirect_type(family: Family) -> u8 {
    match family {
        Family::V4 => 5,
        Family::V6 => 137,
    }
}

fn echo(ends: Ends) -> Payload {
    let kind = match ends.family() {
        Family::V4 => 8,
        Family::V6 => 128,
    };
    let header = Icmp {
        kind,
        code: 0,
        rest: [0, 1, 0, 1],
    };
    icmp(ends, header, ROOM)
}

/// Devices leave checksums to the host all the time: of what they send whole, of what is to be cut into
/// segments, behind extension headers, and inside tunnels.
pub fn honest_checksums_are_completed(family: Family) -> Result<(), String> {
    in_own_namespace(|| {
        let mut world = World::new(Setting::new(), &[]);
        as_virtio(&mut world);
        let ends = world.to_victim(family);
        let plain: [(&str, Payload, u16); 3] = [
            ("UDP", udp(ends, 4000, OPEN, MARKER), 6),
            ("TCP", tcp(ends, Tcp::syn(4000, OPEN_TCP), MARKER), 16),
            ("ICMP", echo(ends), 2),
        ];
        for (what, payload, place) in plain {
            let mut ways = vec![(payload.clone(), 0)];
            if family == Family::V6 {
                ways.push((payload.clone().behind(&Extension::Destination(2)), 16));
            }
            for (packet, ahead) in ways {
                let frame = world.plain(ends, &packet);
                let header = VirtioHeader::default();
                let at = (transport(family) + ahead, place);
                send_unfinished(&mut world, header, frame, at, &payload);
                let is_it = |f: &[u8]| {
                    parse(f).is_some_and(|p| p.payload == payload && p.checksum_is_right())
                };
                if !world.victim_has(is_it) {
                    return Err(format!(
                        "{what}, {ahead} octets behind the header, does not arrive"
                    ));
                }
            }
        }
        segments_arrive(&mut world, family)?;
        tunnels_leave(&mut world, family)
    })
}

/// Leaves the checksum of a payload, which is right, to the host.
fn send_unfinished(
    world: &mut World,
    header: VirtioHeader,
    mut frame: Frame,
    (start, place): (u16, u16),
    whole: &Payload,
) {
    let at = usize::from(start + place);
    let in_payload = usize::from(place);
    // What is there is the sum of the rest; what belongs there is that of the pseudo-header alone.
    let mut own: u64 = whole
        .octets
        .chunks(2)
        .map(|w| u64::from(u16::from_be_bytes([w[0], w.get(1).copied().unwrap_or(0)])))
        .sum();
    let sum = &whole.octets[in_payload..in_payload + 2];
    own -= u64::from(u16::from_be_bytes([sum[0], sum[1]]));
    let complete = u64::from(!u16::from_be_bytes([sum[0], sum[1]]));
    let pseudo = (complete + 0xffff - own % 0xffff) % 0xffff;
    frame[at..at + 2].copy_from_slice(&u16::try_from(pseudo).unwrap().to_be_bytes());
    let header = VirtioHeader {
        flags: VirtioHeader::NEEDS_CHECKSUM,
        csum_start: start,
        csum_offset: place,
        ..header
    };
    let attacker = world.cast.attacker;
    world.host.port(attacker).send_virtio(header, &frame);
}

/// One frame with many segments.
fn segments_arrive(world: &mut World, family: Family) -> Result<(), String> {
    const SEGMENT: u16 = 1_000;
    let ends = world.to_victim(family);
    let data = [7; 3 * SEGMENT as usize];
    let header = Tcp {
        flags: Tcp::ACK,
        seq: 1001,
        ack: 1,
        ..Tcp::syn(4001, OPEN_TCP)
    };
    open_connection(world, ends);
    let segment = tcp(ends, header, &data);
    let frame = world.plain(ends, &segment);
    let header = VirtioHeader {
        gso_type: match family {
            Family::V4 => VirtioHeader::TCP_V4,
            Family::V6 => VirtioHeader::TCP_V6,
        },
        hdr_len: transport(family) + 20,
        gso_size: SEGMENT,
        ..VirtioHeader::default()
    };
    send_unfinished(world, header, frame, (transport(family), 16), &segment);
    let segments = world.host.port(world.cast.victim).frames().iter();
    let whole = segments
        .filter(|f| {
            parse(f).is_some_and(|p| {
                p.payload.octets.len() == 20 + usize::from(SEGMENT) && p.checksum_is_right()
            })
        })
        .count();
    (whole == 3)
        .then_some(())
        .ok_or_else(|| format!("{whole} of 3 segments arrive"))
}

/// The handshake that a segment with data has to follow.
fn open_connection(world: &mut World, ends: Ends) {
    let attacker = world.cast.attacker;
    let opening = world.plain(ends, &tcp(ends, Tcp::syn(4001, OPEN_TCP), b""));
    world.host.send(attacker, &opening);
    let answer = Tcp {
        sport: OPEN_TCP,
        dport: 4001,
        seq: 0,
        ack: 1001,
        flags: Tcp::SYN | Tcp::ACK,
    };
    let answer = tcp(ends.back(), answer, b"");
    world.send_as(
        world.cast.victim,
        &Ip::default().packet(ends.back(), &answer),
    );
    let acknowledged = Tcp {
        flags: Tcp::ACK,
        seq: 1001,
        ack: 1,
        ..Tcp::syn(4001, OPEN_TCP)
    };
    let acknowledged = world.plain(ends, &tcp(ends, acknowledged, b""));
    world.host.send(attacker, &acknowledged);
}

/// What a tunnel carries has a checksum of its own, which nobody on the way looks at.
fn tunnels_leave(world: &mut World, family: Family) -> Result<(), String> {
    let inner = Ends::new(
        "10.0.0.1".parse::<IpAddr>().unwrap(),
        "10.0.0.2".parse::<IpAddr>().unwrap(),
    );
    let datagram = udp(inner, 4000, OPEN, MARKER);
    let packet = Ip::default().packet(inner, &datagram);
    let addresses = Ether {
        src: Mac::new([2, 0, 0, 0, 0, 1]),
        dst: Mac::new([2, 0, 0, 0, 0, 2]),
    };
    let ends = world.to_internet(family);
    let tunnels: [(&str, Payload, u16); 3] = [
        (
            "VXLAN",
            vxlan(ends, 7, &ether_ip(addresses, &packet)),
            16 + 14,
        ),
        ("GRE", gre(0x0800, &packet), 4),
        (
            "IP in IP",
            Payload {
                protocol: 4,
                octets: packet.clone(),
            },
            0,
        ),
    ];
    for (what, payload, ahead) in tunnels {
        world.host.uplink.clear();
        let start = transport(family) + ahead + 20;
        let frame = world.plain(ends, &payload);
        let header = VirtioHeader::default();
        send_unfinished(world, header, frame, (start, 6), &datagram);
        let is_it = |f: &[u8]| parse(f).is_some_and(|p| p.payload.octets == payload.octets);
        if !world.host.uplink.has(is_it) {
            return Err(format!("{what} does not leave"));
        }
    }
    Ok(())
}
