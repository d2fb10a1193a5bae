//! Rogue router advertisements and DHCP servers, plain and hidden from filters that look no further than
//! the first header (RFC 7113, RFC 6980).

use std::net::{Ipv4Addr, Ipv6Addr};

use hextet_model::neutron::{Direction, Protocol};
use hextet_tests::{
    cloud::Allow,
    defence::Defence,
    hypervisor::run,
    packet::{
        Ends, Ip, MARKER, NdOption, Payload, dhcpv4_offer, dhcpv6_reply, router_advertisement, udp,
    },
};
use hextet_types::{Family, IfName};

use crate::{
    case::Attack,
    disguise::{self, PLAIN, Packets},
    world::{Setting, World},
};

const GROUP: &str = "rogue server";
const LAYER_2: &[Defence] = &[Defence::Isolation];
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);

/// All of them.
pub fn attacks() -> Vec<Attack> {
    let mut attacks = Vec::new();
    for (family, name, message) in MESSAGES {
        attacks.extend(in_all_disguises(*family, name, *message));
    }
    attacks.extend(Family::BOTH.map(routed_dhcp));
    attacks.push(advertisement_to_the_host());
    attacks
}

type Message = fn(&World) -> (Ends, Payload);

const MESSAGES: &[(Family, &str, Message)] = &[
    (Family::V6, "router advertisement to all", |world| {
        advertisement(world, Ends::new(world.my_link_local(), ALL_NODES))
    }),
    (Family::V6, "router advertisement to the victim", |world| {
        let victim = world.host.mac(world.cast.victim).link_local();
        advertisement(world, Ends::new(world.my_link_local(), victim))
    }),
    (Family::V4, "DHCPv4 offer to all", |world| {
        let server = Ipv4Addr::new(198, 51, 100, 10);
        offer(world, Ends::new(server, Ipv4Addr::BROADCAST))
    }),
    (Family::V4, "DHCPv4 offer to the victim", |world| {
        offer(world, world.to_victim(Family::V4))
    }),
    (Family::V6, "DHCPv6 reply to the victim", |world| {
        let victim = world.host.mac(world.cast.victim).link_local();
        reply(world, Ends::new(world.my_link_local(), victim))
    }),
];

fn advertisement(world: &World, ends: Ends) -> (Ends, Payload) {
    let options = [
        NdOption::SourceLinkLayer(world.my_mac()),
        NdOption::Prefix(Ipv6Addr::new(0x2001, 0xdb8, 0x666, 0, 0, 0, 0, 0)),
        NdOption::Mark(MARKER),
    ];
    (ends, router_advertisement(ends, &options))
}

fn offer(world: &World, ends: Ends) -> (Ends, Payload) {
    let client = world.host.mac(world.cast.victim);
    let addr = Ipv4Addr::new(198, 51, 100, 66);
    let message = dhcpv4_offer(client, addr, Ipv4Addr::new(198, 51, 100, 10));
    (ends, udp(ends, 67, 68, &[&message[..], MARKER].concat()))
}

fn reply(world: &World, ends: Ends) -> (Ends, Payload) {
    let client = world.host.mac(world.cast.victim);
    let message = dhcpv6_reply(client, world.my_link_local());
    (ends, udp(ends, 547, 546, &[&message[..], MARKER].concat()))
}

fn in_all_disguises(family: Family, name: &str, message: Message) -> Vec<Attack> {
    let ways = disguise::all(family).map(|d| (format!("{name}, {}", d.how), d.packets));
    let attack = |(name, packets): (String, Packets)| {
        let frames = move |world: &World| {
            let (ends, payload) = message(world);
            let packets = packets(&Ip::ttl(255), ends, payload);
            packets
                .iter()
                .flat_map(|packet| world.by_all_ways(packet))
                .collect()
        };
        Attack::by_frames(GROUP, name, family, LAYER_2, frames, World::victim_is_hit)
    };
    std::iter::once((name.to_owned(), PLAIN))
        .chain(ways)
        .map(attack)
        .collect()
}

/// A victim that lets all UDP in must not get a server's message by way of routing either.
fn routed_dhcp(family: Family) -> Attack {
    let frames = move |world: &World| {
        let ends = world.to_victim(family);
        let (_, message) = match family {
            Family::V4 => offer(world, ends),
            Family::V6 => reply(world, ends),
        };
        vec![world.plain(ends, &message)]
    };
    let name = "DHCP message, routed to a victim that lets all UDP in";
    let without = &[Defence::Edge, Defence::Guard];
    Attack::by_frames(GROUP, name, family, without, frames, World::victim_is_hit)
        .given(victim_lets_all_udp_in)
}

/// Gives the victim a group that lets all UDP in.
pub fn victim_lets_all_udp_in(setting: &mut Setting) {
    let rules =
        Family::BOTH.map(|family| Allow::all(Direction::Ingress, family).protocol(Protocol::UDP));
    let group = setting.cloud.group(true, &rules);
    let victim = setting.cloud.port_mut(setting.cast.victim);
    victim.security_groups.push(group);
}

/// A host that takes its own default route from advertisements must take none from a workload.
fn advertisement_to_the_host() -> Attack {
    let frames = |world: &World| {
        let ends = Ends::new(world.my_link_local(), ALL_NODES);
        let (_, message) = advertisement(world, ends);
        vec![world.frame(&Ip::ttl(255).packet(ends, &message))]
    };
    let sign = |world: &mut World| {
        let name = IfName::for_port(world.cast.attacker);
        run(
            "ip",
            &["-6", "route", "show", "default", "dev", name.as_str()],
            "",
        )
        .contains("ra")
    };
    let name = "the host takes a router advertisement";
    let without = &[Defence::Edge, Defence::SourceCheck, Defence::HostShield];
    Attack::by_frames(GROUP, name, Family::V6, without, frames, sign).given(|setting| {
        setting.sysctls.extend([
            ("net/ipv6/conf/all/accept_ra", "2"),
            ("net/ipv6/conf/default/accept_ra", "2"),
        ]);
    })
}
