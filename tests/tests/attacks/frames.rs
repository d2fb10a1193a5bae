//! Who a frame says it is from, protocols below and beside IP that bridges carry, and datagrams that call
//! themselves something else.

use hextet_tests::{
    defence::Defence,
    packet::{Ends, Ether, Icmp, Ip, MARKER, Payload, ether, ether_ip, icmp, is_marked, udp},
    wire::Frame,
};
use hextet_types::{Family, Mac};

use crate::{
    case::Attack,
    world::{CLOSED, World, marked_datagram},
};

const GROUP: &str = "frames";
const LAYER_2: &[Defence] = &[Defence::Isolation];

/// All of them.
pub fn attacks() -> Vec<Attack> {
    let mut attacks: Vec<Attack> = ETHERTYPES.iter().map(ethertype).collect();
    for family in Family::BOTH {
        attacks.extend([
            takes_a_neighbour_s_mac(family),
            shares_a_mac(family),
            behind_authentication(family),
            the_other_family_s_icmp(family),
        ]);
        attacks.extend(
            NEXT_HEADERS
                .iter()
                .map(|number| as_protocol(family, *number)),
        );
    }
    attacks.extend(IGMP.iter().map(igmp));
    attacks.extend(MLD.iter().map(mld));
    attacks
}

/// What links of providers, data centres and factories carry.
const ETHERTYPES: &[(&str, u16)] = &[
    ("transparent Ethernet bridging", 0x6558),
    ("IPX", 0x8137),
    ("MAC control", 0x8808),
    ("slow protocols", 0x8809),
    ("MPLS multicast", 0x8848),
    ("PROFINET", 0x8892),
    ("EtherCAT", 0x88a4),
    ("ERSPAN", 0x88be),
    ("HomePlug", 0x88e1),
    ("provider backbone bridging", 0x88e7),
    ("MVRP", 0x88f5),
    ("connectivity faults", 0x8902),
    ("edge control", 0x8940),
    ("network service header", 0x894f),
    ("TRILL", 0x22f3),
    ("6LoWPAN", 0xa0ed),
];

fn ethertype((name, number): &(&str, u16)) -> Attack {
    let number = *number;
    let frames = move |world: &World| -> Vec<Frame> {
        let ends = Ends::new(world.bystander(Family::V6), world.victim(Family::V6));
        let packet = Ip::default().packet(ends, &marked_datagram(ends));
        let payload = [&[0; 4][..], &packet].concat();
        let ways = [world.host.mac(world.cast.victim), Mac::BROADCAST];
        let src = world.my_mac();
        ways.map(|dst| ether(Ether { src, dst }, number, &payload))
            .to_vec()
    };
    let sign = World::victim_is_hit;
    Attack::by_frames(GROUP, *name, None, LAYER_2, frames, sign)
}

/// A bridge sends a neighbour's packets to whoever used its Ethernet address last.
fn takes_a_neighbour_s_mac(family: Family) -> Attack {
    let attempt = move |world: &mut World| {
        let (victim, bystander) = (world.cast.victim, world.cast.bystander);
        let ends = world.to_victim(family);
        let packet = Ip::default().packet(ends, &udp(ends, 1, 2, b"it is me"));
        let src = world.host.mac(victim);
        for dst in [world.host.mac(bystander), Mac::BROADCAST] {
            world.send(&ether_ip(Ether { src, dst }, &packet));
        }
        let ends = Ends::new(world.bystander(family), world.victim(family));
        let packet = Ip::default().packet(ends, &marked_datagram(ends));
        world.send_as(bystander, &packet);
        let across = Ether {
            src: world.host.mac(bystander),
            dst: src,
        };
        world.host.send(bystander, &ether_ip(across, &packet));
        world.attacker_has(is_marked)
    };
    let name = "a neighbour's packets, by its Ethernet address";
    Attack::new(GROUP, name, family, LAYER_2, attempt)
}

/// Two ports may have the same Ethernet address, on networks of their own.
fn shares_a_mac(family: Family) -> Attack {
    let frames = move |world: &World| {
        let ends = Ends::new(world.bystander(family), world.victim(family));
        vec![world.plain(ends, &marked_datagram(ends))]
    };
    let name = "the address of one that has the same Ethernet address";
    let without = &[Defence::SourceCheck];
    let sign = World::victim_is_hit;
    Attack::by_frames(GROUP, name, family, without, frames, sign).given(|setting| {
        let bystander = setting.cast.bystander;
        setting.cloud.port_mut(bystander).mac_address = setting.cast.attacker_mac;
    })
}

/// An authentication header (RFC 4302) is one that filters look behind, or do not.
fn behind_authentication(family: Family) -> Attack {
    let frames = move |world: &World| {
        let ends = world.to_victim(family);
        let datagram = udp(ends, 4000, CLOSED, MARKER);
        let mut octets = vec![datagram.protocol, 4, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1];
        octets.extend([0; 12]);
        octets.extend(datagram.octets);
        let protocol = 51;
        vec![world.plain(ends, &Payload { protocol, octets })]
    };
    let name = "a closed port, behind an authentication header";
    let without = &[Defence::IngressGroups];
    Attack::by_frames(GROUP, name, family, without, frames, World::victim_is_hit)
}

/// A ping of the one family in a packet of the other: groups know neither.
fn the_other_family_s_icmp(family: Family) -> Attack {
    let frames = move |world: &World| {
        let ends = world.to_victim(family);
        let other = match family {
            Family::V4 => Payload {
                protocol: 58,
                octets: [&[128, 0, 0, 0, 0, 0, 0, 0][..], MARKER].concat(),
            },
            Family::V6 => Payload {
                protocol: 1,
                octets: [&[8, 0, 0, 0, 0, 0, 0, 0][..], MARKER].concat(),
            },
        };
        vec![world.plain(ends, &other)]
    };
    let name = "a ping of the other family";
    let without = &[Defence::IngressGroups, Defence::Invalid];
    Attack::by_frames(GROUP, name, family, without, frames, World::victim_is_hit)
}

/// Mobility, HIP, shim6, EIGRP, DCCP's neighbour RSVP: nothing that a group of ours names.
const NEXT_HEADERS: &[u8] = &[9, 46, 88, 94, 108, 135, 139, 140, 254, 255];

/// A datagram for a port that is open, as if it were something else.
fn as_protocol(family: Family, protocol: u8) -> Attack {
    let frames = move |world: &World| {
        let ends = world.to_victim(family);
        let Payload { octets, .. } = marked_datagram(ends);
        vec![world.plain(ends, &Payload { protocol, octets })]
    };
    let name = format!("a datagram as protocol {protocol}");
    let without = &[Defence::IngressGroups];
    Attack::by_frames(GROUP, name, family, without, frames, World::victim_is_hit)
}

const IGMP: &[(&str, u8)] = &[
    ("query", 0x11),
    ("report", 0x16),
    ("leave", 0x17),
    ("version 3 report", 0x22),
];

/// Who is the querier, and who wants what, is nobody's business on a link of two.
fn igmp((name, kind): &(&str, u8)) -> Attack {
    let kind = *kind;
    let frames = move |world: &World| {
        let ends = Ends::new(world.me(Family::V4), std::net::Ipv4Addr::new(224, 0, 0, 1));
        let octets = [&[kind, 0, 0, 0, 0, 0, 0, 0][..], MARKER].concat();
        let ip = Ip {
            options: vec![0x94, 4, 0, 0],
            ..Ip::ttl(1)
        };
        let protocol = 2;
        world.by_all_ways(&ip.packet(ends, &Payload { protocol, octets }))
    };
    let name = format!("an IGMP {name} reaches others");
    let sign = World::victim_is_hit;
    Attack::by_frames(GROUP, name, Family::V4, LAYER_2, frames, sign)
}

const MLD: &[(&str, u8)] = &[("query", 130), ("done", 132), ("version 2 report", 143)];

fn mld((name, kind): &(&str, u8)) -> Attack {
    let kind = *kind;
    let frames = move |world: &World| {
        let all_nodes: std::net::Ipv6Addr = "ff02::1".parse().unwrap();
        let ends = Ends::new(world.my_link_local(), all_nodes);
        let header = Icmp {
            kind,
            code: 0,
            rest: [0; 4],
        };
        let payload = icmp(ends, header, MARKER);
        world.by_all_ways(&Ip::ttl(1).packet(ends, &payload))
    };
    let name = format!("an MLD {name} reaches others");
    let sign = World::victim_is_hit;
    Attack::by_frames(GROUP, name, Family::V6, LAYER_2, frames, sign)
}
