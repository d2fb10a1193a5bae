//! Sources that are not the sender's own: addresses of both families, Ethernet addresses, and ways to hide
//! them.

use std::net::IpAddr;

use hextet_tests::{
    cloud::addr,
    defence::Defence,
    hypervisor::{HOST_V4, HOST_V6},
    packet::{Ends, Ether, Ip, ether_ip, parse},
};
use hextet_types::{Family, Mac};

use crate::{
    case::Attack,
    disguise::{self, Disguise, Kind},
    world::{GATEWAY_MAC, World, marked_datagram},
};

const GROUP: &str = "spoofed source";
const CHECK: &[Defence] = &[Defence::SourceCheck];
/// What the kernel itself never routes gets through only where nothing is routed.
const LAYER_2: &[Defence] = &[Defence::Isolation];

/// A source, why, and what stops it.
const SOURCES: &[(&str, &str, &[Defence])] = &[
    ("192.0.2.99", "at random", CHECK),
    ("198.51.100.12", "another port's", CHECK),
    ("10.64.0.10", "a port's of another network", CHECK),
    ("198.51.100.200", "a port's on another host", CHECK),
    ("198.51.100.1", "the gateway's", CHECK),
    ("198.51.100.255", "the subnet's broadcast address", CHECK),
    (HOST_V4, "the host's", CHECK),
    ("169.254.0.1", "the host's link-local", CHECK),
    ("169.254.7.7", "link-local, routed", CHECK),
    ("127.0.0.1", "loopback", CHECK),
    ("224.0.0.5", "multicast", LAYER_2),
    ("255.255.255.255", "broadcast", LAYER_2),
    ("0.0.0.0", "unspecified", LAYER_2),
    ("2001:db8:9999::9", "at random", CHECK),
    ("2001:db8:1::c", "another port's", CHECK),
    ("2001:db8:2::a", "a port's of another network", CHECK),
    ("2001:db8:1::200", "a port's on another host", CHECK),
    ("2001:db8:1::1", "the gateway's", CHECK),
    (HOST_V6, "the host's", CHECK),
    ("::ffff:198.51.100.12", "IPv4-mapped", CHECK),
    ("::198.51.100.12", "IPv4-compatible", CHECK),
    ("2002:c633:640c::1", "6to4 of another port", CHECK),
    ("64:ff9b::198.51.100.12", "NAT64 of another port", CHECK),
    ("fd00::1", "unique local", CHECK),
    ("fe80::1", "the gateway's link-local, routed", LAYER_2),
    ("ff02::1", "multicast", LAYER_2),
    ("::1", "loopback", LAYER_2),
    ("::", "unspecified", LAYER_2),
];

/// All of them.
pub fn attacks() -> Vec<Attack> {
    let mut attacks: Vec<Attack> = SOURCES.iter().map(to_the_victim).collect();
    for family in Family::BOTH {
        attacks.extend(
            [to_the_uplink(family), link_local_of_its_own(family)]
                .into_iter()
                .flatten(),
        );
        attacks.extend(with_macs(family));
        attacks.extend(hidden(family));
    }
    attacks
}

fn comes_from(source: IpAddr) -> impl Fn(&[u8]) -> bool {
    move |frame| parse(frame).is_some_and(|p| p.ends.src == source)
}

fn to_the_victim((source, why, without): &(&'static str, &str, &[Defence])) -> Attack {
    let source = addr(source);
    let family = Family::of(source);
    let packets = move |world: &World| {
        let ends = Ends::new(source, world.victim(family));
        world.by_all_ways(&Ip::default().packet(ends, &marked_datagram(ends)))
    };
    let sign = move |world: &mut World| world.victim_has(comes_from(source));
    Attack::by_frames(
        GROUP,
        format!("{why}, {source}"),
        family,
        without,
        packets,
        sign,
    )
    // What the kernel would drop by itself on many hosts, others allow.
    .given(|setting| {
        setting.sysctls.extend([
            ("net/ipv4/conf/all/route_localnet", "1"),
            ("net/ipv4/conf/all/accept_local", "1"),
            ("net/ipv4/conf/all/rp_filter", "0"),
            ("net/ipv4/conf/default/rp_filter", "0"),
        ]);
    })
}

fn to_the_uplink(family: Family) -> Option<Attack> {
    let frames = move |world: &World| {
        let ends = Ends::new(world.bystander(family), world.to_internet(family).dst);
        vec![world.plain(ends, &marked_datagram(ends))]
    };
    let name = "another port's, to the Internet";
    Some(Attack::by_frames(
        GROUP,
        name,
        family,
        CHECK,
        frames,
        World::uplink_is_hit,
    ))
}

/// Its own link-local address is right on its link and nowhere else.
fn link_local_of_its_own(family: Family) -> Option<Attack> {
    let frames = move |world: &World| {
        let ends = Ends::new(world.my_link_local(), world.victim(Family::V6));
        world.by_all_ways(&Ip::default().packet(ends, &marked_datagram(ends)))
    };
    let name = "its own link-local, routed";
    let attack = || Attack::by_frames(GROUP, name, family, LAYER_2, frames, World::victim_is_hit);
    (family == Family::V6).then(attack)
}

fn with_macs(family: Family) -> Vec<Attack> {
    let macs = [
        ("a MAC at random", Some(Mac::new([2, 0, 0, 0, 0, 0x99]))),
        ("another port's MAC", None),
        ("the gateway's MAC", Some(GATEWAY_MAC)),
        ("a multicast MAC", Some(Mac::new([0x01, 0, 0x5e, 0, 0, 1]))),
    ];
    let attack = |(name, mac): (&'static str, Option<Mac>)| {
        let frames = move |world: &World| {
            let ends = world.to_victim(family);
            let packet = Ip::default().packet(ends, &marked_datagram(ends));
            let src = mac.unwrap_or_else(|| world.host.mac(world.cast.bystander));
            vec![ether_ip(
                Ether {
                    src,
                    dst: GATEWAY_MAC,
                },
                &packet,
            )]
        };
        Attack::by_frames(GROUP, name, family, CHECK, frames, World::victim_is_hit)
    };
    macs.map(attack).into()
}

/// Another port's address, not to be seen at once.
fn hidden(family: Family) -> Vec<Attack> {
    let attack = |Disguise { how, kind, packets }: Disguise| {
        let frames = move |world: &World| {
            let ends = Ends::new(world.bystander(family), world.victim(family));
            let packets = packets(&Ip::default(), ends, marked_datagram(ends));
            packets
                .iter()
                .flat_map(|packet| world.by_all_ways(packet))
                .collect()
        };
        let sign = move |world: &mut World| {
            let bystander = world.bystander(family);
            world.victim_has(comes_from(bystander))
        };
        let without = match kind {
            Kind::Whole => CHECK,
            Kind::Broken => LAYER_2,
        };
        let name = format!("another port's, {how}");
        Attack::by_frames(GROUP, name, family, without, frames, sign)
    };
    disguise::all(family).map(attack).collect()
}
