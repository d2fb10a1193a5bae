//! ARP, neighbour discovery and listener reports that claim what is not the sender's.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use hextet_tests::{
    defence::Defence,
    hypervisor::SPINE_V6,
    packet::{
        Ends, Ether, Extension, Icmp, Ip, MARKER, NdOption, Payload, arp, ether, icmp,
        neighbour_advertisement, neighbour_solicitation, redirect, solicited_node,
    },
    wire::Frame,
};
use hextet_types::{Family, Mac};

use crate::{
    case::Attack,
    disguise::{self, PLAIN, Packets},
    world::{GATEWAY_MAC, World},
};

const LAYER_2: &[Defence] = &[Defence::Isolation];
const EDGE: &[Defence] = &[Defence::Edge];
/// The host's addresses that ARP and neighbour discovery on a port may ask for.
const GATEWAY_V4: Ipv4Addr = Ipv4Addr::new(169, 254, 0, 1);
const GATEWAY_V6: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
/// More neighbours than a workload has reason to have.
const FLOOD: u8 = 60;

/// All of them.
pub fn attacks() -> Vec<Attack> {
    let mut attacks = arp_lies();
    attacks.extend([arp_learned(), arp_flood(), arp_own_address_elsewhere()]);
    attacks.extend(
        nd_lies()
            .into_iter()
            .flat_map(|lie| nd_in_all_disguises(&lie)),
    );
    attacks.extend([
        nd_learned(),
        nd_flood(),
        listener_report(),
        redirect_between_workloads(),
    ]);
    attacks
}

/// What the victim's own neighbours would say, but for the Ethernet address.
fn arp_lies() -> Vec<Attack> {
    let gateway = Ipv4Addr::new(198, 51, 100, 1);
    let bystander = Ipv4Addr::new(198, 51, 100, 12);
    let victim = Ipv4Addr::new(198, 51, 100, 11);
    let lies = [
        ("reply: the gateway is here", 2, gateway, victim, false),
        ("reply: another port is here", 2, bystander, victim, false),
        (
            "gratuitous reply for the gateway",
            2,
            gateway,
            gateway,
            true,
        ),
        (
            "gratuitous request for another port",
            1,
            bystander,
            bystander,
            true,
        ),
        (
            "reply to the victim's address probe",
            2,
            victim,
            Ipv4Addr::UNSPECIFIED,
            true,
        ),
        ("request in another port's name", 1, bystander, victim, true),
    ];
    let attack =
        |(name, operation, claimed, target, to_all): (&str, u16, Ipv4Addr, Ipv4Addr, bool)| {
            let is_lie = move |frame: &[u8]| {
                frame.get(12..14) == Some(&[8, 6]) && frame.get(28..32) == Some(&claimed.octets())
            };
            let frames = move |world: &World| {
                let victim = world.host.mac(world.cast.victim);
                let dst = if to_all { Mac::BROADCAST } else { victim };
                let packet = arp(operation, (world.my_mac(), claimed), (victim, target));
                vec![ether(
                    Ether {
                        src: world.my_mac(),
                        dst,
                    },
                    0x0806,
                    &packet,
                )]
            };
            let sign = move |world: &mut World| world.victim_has(is_lie);
            Attack::by_frames("ARP", name, Family::V4, LAYER_2, frames, sign)
        };
    lies.map(attack).into()
}

fn arp_request(world: &World, sender: Ipv4Addr) -> Frame {
    let packet = arp(1, (world.my_mac(), sender), (Mac::new([0; 6]), GATEWAY_V4));
    ether(
        Ether {
            src: world.my_mac(),
            dst: Mac::BROADCAST,
        },
        0x0806,
        &packet,
    )
}

fn arp_learned() -> Attack {
    let frames = |world: &World| vec![arp_request(world, Ipv4Addr::new(198, 51, 100, 12))];
    let sign = |world: &mut World| !world.learned_neighbours().is_empty();
    let name = "the host learns another port's address";
    Attack::by_frames("ARP", name, Family::V4, EDGE, frames, sign)
}

fn arp_flood() -> Attack {
    let frames = |world: &World| {
        (0..FLOOD)
            .map(|n| arp_request(world, Ipv4Addr::new(192, 0, 2, n + 1)))
            .collect()
    };
    let sign = |world: &mut World| world.learned_neighbours().len() >= usize::from(FLOOD) / 2;
    let name = "invented neighbours fill the host's table";
    Attack::by_frames("flood", name, Family::V4, EDGE, frames, sign)
}

/// What was entered by hand stays, whatever the workload says of its own address.
fn arp_own_address_elsewhere() -> Attack {
    const FORGED: Mac = Mac::new([2, 0, 0, 0, 0, 0x66]);
    let frames = |world: &World| {
        let me = Ipv4Addr::new(198, 51, 100, 10);
        let packet = arp(1, (FORGED, me), (Mac::new([0; 6]), GATEWAY_V4));
        vec![ether(
            Ether {
                src: world.my_mac(),
                dst: Mac::BROADCAST,
            },
            0x0806,
            &packet,
        )]
    };
    let sign = |world: &mut World| {
        let learned = world.learned_neighbours();
        learned
            .iter()
            .any(|line| line.contains(&FORGED.to_string()))
    };
    let without = &[Defence::Edge, Defence::Neighbours];
    Attack::by_frames(
        "ARP",
        "its own address at another MAC",
        Family::V4,
        without,
        frames,
        sign,
    )
}

/// A lie of neighbour discovery, and whom it is told.
struct Lie {
    name: &'static str,
    ends: fn(&World) -> Ends,
    message: fn(&World, Ends) -> Payload,
}

fn nd_lies() -> Vec<Lie> {
    vec![
        Lie {
            name: "advertisement for the gateway, to all",
            ends: |_| Ends::new(GATEWAY_V6, ALL_NODES),
            message: |world, ends| {
                let here = NdOption::TargetLinkLayer(world.my_mac());
                neighbour_advertisement(ends, GATEWAY_V6, &[here, NdOption::Mark(MARKER)])
            },
        },
        Lie {
            name: "advertisement for another port, to the victim",
            ends: |world| Ends::new(world.me(Family::V6), world.victim(Family::V6)),
            message: |world, ends| {
                let IpAddr::V6(claimed) = world.bystander(Family::V6) else {
                    unreachable!()
                };
                let here = NdOption::TargetLinkLayer(world.my_mac());
                neighbour_advertisement(ends, claimed, &[here, NdOption::Mark(MARKER)])
            },
        },
        Lie {
            name: "solicitation in another port's name",
            ends: |world| {
                let IpAddr::V6(victim) = world.victim(Family::V6) else {
                    unreachable!()
                };
                Ends::new(world.bystander(Family::V6), solicited_node(victim))
            },
            message: |world, ends| {
                let IpAddr::V6(victim) = world.victim(Family::V6) else {
                    unreachable!()
                };
                let here = NdOption::SourceLinkLayer(world.my_mac());
                neighbour_solicitation(ends, victim, &[here, NdOption::Mark(MARKER)])
            },
        },
        Lie {
            name: "redirect in the gateway's name",
            ends: |world| Ends::new(GATEWAY_V6, world.victim(Family::V6)),
            message: |world, ends| {
                let away = SPINE_V6.parse().unwrap();
                let options = [NdOption::Mark(MARKER)];
                redirect(ends, world.my_link_local(), away, &options)
            },
        },
    ]
}

fn nd_in_all_disguises(lie: &Lie) -> Vec<Attack> {
    let Lie {
        name,
        ends,
        message,
    } = *lie;
    let ways = disguise::all(Family::V6).map(|d| (format!("{name}, {}", d.how), d.packets));
    let attack = |(name, packets): (String, Packets)| {
        let frames = move |world: &World| {
            let ends = ends(world);
            let packets = packets(&Ip::ttl(255), ends, message(world, ends));
            packets
                .iter()
                .flat_map(|packet| world.by_all_ways(packet))
                .collect()
        };
        let sign = World::victim_is_hit;
        Attack::by_frames(
            "neighbour discovery",
            name,
            Family::V6,
            LAYER_2,
            frames,
            sign,
        )
    };
    std::iter::once((name.to_owned(), PLAIN))
        .chain(ways)
        .map(attack)
        .collect()
}

fn solicitation_from(world: &World, source: Ipv6Addr) -> Frame {
    let ends = Ends::new(source, GATEWAY_V6);
    let here = NdOption::SourceLinkLayer(world.my_mac());
    world.frame(&Ip::ttl(255).packet(ends, &neighbour_solicitation(ends, GATEWAY_V6, &[here])))
}

fn nd_learned() -> Attack {
    let frames = |world: &World| {
        let IpAddr::V6(bystander) = world.bystander(Family::V6) else {
            unreachable!()
        };
        vec![solicitation_from(world, bystander)]
    };
    let sign = |world: &mut World| !world.learned_neighbours().is_empty();
    let name = "the host learns another port's address";
    // Where nothing is checked.
    let without = &[Defence::Edge, Defence::SourceCheck, Defence::HostShield];
    Attack::by_frames(
        "neighbour discovery",
        name,
        Family::V6,
        without,
        frames,
        sign,
    )
    .given(|setting| setting.late.push("address add fe80::1/64 dev PORT nodad"))
}

fn nd_flood() -> Attack {
    let frames = |world: &World| {
        let source = |n: u8| Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0x66, u16::from(n));
        (0..FLOOD)
            .map(|n| solicitation_from(world, source(n)))
            .collect()
    };
    let sign = |world: &mut World| world.learned_neighbours().len() >= usize::from(FLOOD) / 2;
    let name = "invented neighbours fill the host's table";
    let without = &[Defence::Edge, Defence::SourceCheck, Defence::HostShield];
    Attack::by_frames("flood", name, Family::V6, without, frames, sign)
        .given(|setting| setting.late.push("address add fe80::1/64 dev PORT nodad"))
}

/// A report would have a switch send a group's traffic here, the neighbours' solicitations first.
fn listener_report() -> Attack {
    let frames = |world: &World| {
        let ends = Ends::new(world.my_link_local(), ALL_NODES);
        let report = icmp(
            ends,
            Icmp {
                kind: 143,
                code: 0,
                rest: [0; 4],
            },
            MARKER,
        );
        world.by_all_ways(&Ip::ttl(1).packet(ends, &report.behind(&Extension::HopByHop)))
    };
    let name = "a listener report reaches others";
    let sign = World::victim_is_hit;
    Attack::by_frames(
        "neighbour discovery",
        name,
        Family::V6,
        LAYER_2,
        frames,
        sign,
    )
}

/// Routed, as an ordinary packet between two workloads that may exchange anything.
fn redirect_between_workloads() -> Attack {
    let frames = |world: &World| {
        let ends = world.to_victim(Family::V6);
        let away = SPINE_V6.parse().unwrap();
        let message = redirect(ends, world.my_link_local(), away, &[NdOption::Mark(MARKER)]);
        let frame = world.frame(&Ip::ttl(255).packet(ends, &message));
        assert_eq!(frame[..6], GATEWAY_MAC.octets());
        vec![frame]
    };
    let name = "a redirect with its own source, routed";
    let without = &[
        Defence::Edge,
        Defence::Guard,
        Defence::Invalid,
        Defence::IngressGroups,
    ];
    let sign = World::victim_is_hit;
    Attack::by_frames(
        "neighbour discovery",
        name,
        Family::V6,
        without,
        frames,
        sign,
    )
}
