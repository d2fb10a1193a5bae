//! What is not IP over plain Ethernet.

use hextet_tests::{
    defence::Defence,
    packet::{Ends, Ether, Ip, MARKER, ether, tagged},
    wire::Frame,
};
use hextet_types::{Family, Mac};

use crate::{
    case::Attack,
    world::{World, marked_datagram},
};

const LAYER_2: &[Defence] = &[Defence::Isolation];
const GROUP: &str = "Ethernet";

/// All of them.
pub fn attacks() -> Vec<Attack> {
    let mut attacks: Vec<Attack> = Family::BOTH.into_iter().flat_map(tags).collect();
    attacks.extend(ethertypes());
    attacks.extend(without_ethertype());
    attacks.extend(Family::BOTH.map(wrong_family));
    attacks
}

/// A datagram that would be right without its tags, and a spoofed one that VLAN 0 is to carry past the
/// checks (a tag of priority only, which the kernel takes off).
fn tags(family: Family) -> Vec<Attack> {
    const Q: u16 = 0x8100;
    const AD: u16 = 0x88a8;
    let layouts: [(&str, &'static [(u16, u16)]); 5] = [
        ("tagged", &[(Q, 42)]),
        ("tagged, 802.1ad", &[(AD, 42)]),
        ("tagged twice", &[(AD, 42), (Q, 7)]),
        ("VLAN 0 around VLAN 42", &[(Q, 0), (Q, 42)]),
        ("tagged with the highest VLAN", &[(Q, 0xffff)]),
    ];
    let attack = |(name, tags): (&str, &'static [(u16, u16)])| {
        let frames = move |world: &World| {
            let ends = world.to_victim(family);
            let packet = Ip::default().packet(ends, &marked_datagram(ends));
            world
                .by_all_ways(&packet)
                .iter()
                .map(|frame| tagged(frame, tags))
                .collect()
        };
        let sign = World::victim_is_hit;
        Attack::by_frames(GROUP, name, family, LAYER_2, frames, sign)
    };
    let mut attacks: Vec<Attack> = layouts.map(attack).into();
    let spoofed = move |world: &World| {
        let ends = Ends::new(world.bystander(family), world.victim(family));
        vec![tagged(
            &world.plain(ends, &marked_datagram(ends)),
            &[(Q, 0)],
        )]
    };
    let name = "a spoofed source in VLAN 0";
    let without = &[Defence::Edge, Defence::SourceCheck];
    let sign = World::victim_is_hit;
    attacks.push(Attack::by_frames(
        GROUP, name, family, without, spoofed, sign,
    ));
    attacks
}

fn to_victim_and_group(world: &World, group: Mac, ethertype: u16, payload: &[u8]) -> Vec<Frame> {
    let ways = [world.host.mac(world.cast.victim), group, Mac::BROADCAST];
    ways.map(|dst| {
        ether(
            Ether {
                src: world.my_mac(),
                dst,
            },
            ethertype,
            payload,
        )
    })
    .to_vec()
}

fn ethertypes() -> Vec<Attack> {
    let types = [
        ("LLDP", 0x88cc, Mac::new([0x01, 0x80, 0xc2, 0, 0, 0x0e])),
        ("EAPOL", 0x888e, Mac::new([0x01, 0x80, 0xc2, 0, 0, 3])),
        ("PPPoE discovery", 0x8863, Mac::BROADCAST),
        ("PPPoE session", 0x8864, Mac::BROADCAST),
        ("MPLS", 0x8847, Mac::BROADCAST),
        ("wake on LAN", 0x0842, Mac::BROADCAST),
        ("AoE", 0x88a2, Mac::BROADCAST),
        ("FCoE", 0x8906, Mac::BROADCAST),
        ("MACsec", 0x88e5, Mac::BROADCAST),
        ("batman-adv", 0x4305, Mac::BROADCAST),
        ("RARP", 0x8035, Mac::BROADCAST),
        ("loopback test", 0x9000, Mac::BROADCAST),
        ("PTP", 0x88f7, Mac::new([0x01, 0x1b, 0x19, 0, 0, 0])),
    ];
    let attack = |(name, ethertype, group): (&str, u16, Mac)| {
        let frames = move |world: &World| {
            let payload = [&[0; 32][..], MARKER, &[0; 16]].concat();
            to_victim_and_group(world, group, ethertype, &payload)
        };
        Attack::by_frames(GROUP, name, None, LAYER_2, frames, World::victim_is_hit)
    };
    types.map(attack).into()
}

/// Where a length stands instead of a type: 802.3 with LLC, as spanning tree and old IP over SNAP.
fn without_ethertype() -> Vec<Attack> {
    let payloads: [(&str, &'static [u8], Mac); 3] = [
        (
            "spanning tree",
            &[0x42, 0x42, 3],
            Mac::new([0x01, 0x80, 0xc2, 0, 0, 0]),
        ),
        (
            "IP over SNAP",
            &[0xaa, 0xaa, 3, 0, 0, 0, 8, 0],
            Mac::BROADCAST,
        ),
        (
            "CDP",
            &[0xaa, 0xaa, 3, 0, 0, 0x0c, 0x20, 0],
            Mac::new([1, 0, 0x0c, 0xcc, 0xcc, 0xcc]),
        ),
    ];
    let attack = |(name, llc, group): (&str, &'static [u8], Mac)| {
        let frames = move |world: &World| {
            let payload = [llc, MARKER, &[0; 40]].concat();
            let len = u16::try_from(payload.len()).unwrap();
            to_victim_and_group(world, group, len, &payload)
        };
        Attack::by_frames(GROUP, name, None, LAYER_2, frames, World::victim_is_hit)
    };
    payloads.map(attack).into()
}

/// A packet of one family in a frame that says the other.
fn wrong_family(family: Family) -> Attack {
    let ethertype = match family {
        Family::V4 => 0x86dd,
        Family::V6 => 0x0800,
    };
    let frames = move |world: &World| {
        let ends = world.to_victim(family);
        let packet = Ip::default().packet(ends, &marked_datagram(ends));
        to_victim_and_group(world, Mac::BROADCAST, ethertype, &packet)
    };
    let name = "the other family's EtherType";
    Attack::by_frames(GROUP, name, family, LAYER_2, frames, World::victim_is_hit)
}
