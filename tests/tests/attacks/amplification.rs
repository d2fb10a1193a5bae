//! One packet in, many out.

use std::net::IpAddr;

use hextet_tests::{
    cloud::addr,
    defence::Defence,
    packet::{Ends, Ip, MARKER, echo_request, is_marked, parse},
};
use hextet_types::Family;

use crate::{case::Attack, world::World};

const GROUP: &str = "amplification";

/// All of them.
pub fn attacks() -> Vec<Attack> {
    let mut attacks: Vec<Attack> = GROUPS
        .iter()
        .map(|(to, name)| to_all(addr(to), name))
        .collect();
    attacks.extend(Family::BOTH.map(loops));
    attacks
}

/// Addresses of many.
const GROUPS: &[(&str, &str)] = &[
    ("255.255.255.255", "broadcast"),
    ("198.51.100.255", "the subnet's broadcast address"),
    ("198.51.100.0", "the subnet's first address"),
    ("224.0.0.1", "all systems"),
    ("224.0.0.251", "mDNS"),
    ("239.1.2.3", "an organisation's group"),
    ("ff02::1", "all nodes"),
    ("ff02::fb", "mDNS"),
    ("ff05::2", "all routers of the site"),
    ("ff0e::1234", "a global group"),
];

/// Every other port that gets the ping is one more answer for whoever's address it carries.
fn to_all(to: IpAddr, name: &str) -> Attack {
    let family = Family::of(to);
    let attempt = move |world: &mut World| {
        let ends = Ends::new(world.me(family), to);
        let packet = Ip::default().packet(ends, &echo_request(ends, 1, MARKER));
        for frame in world.by_all_ways(&packet) {
            world.send(&frame);
        }
        let others = [world.cast.victim, world.cast.bystander, world.cast.private];
        others
            .into_iter()
            .filter(|port| world.host.port(*port).has(is_marked))
            .count()
            > 1
    };
    let name = format!("a ping to {to} ({name})");
    Attack::new(GROUP, name, family, &[Defence::Isolation], attempt)
}

/// An address of the cloud that nobody has: the uplink's router would send it back, until its hops are
/// spent.
fn loops(family: Family) -> Attack {
    let attempt = move |world: &mut World| {
        let to = match family {
            Family::V4 => addr("198.51.100.77"),
            Family::V6 => addr("2001:db8:1::77"),
        };
        let ends = Ends::new(world.me(family), to);
        let frame = world.plain(ends, &echo_request(ends, 1, MARKER));
        world.send(&frame);
        world
            .host
            .uplink
            .has(|frame| parse(frame).is_some_and(|p| p.ends == ends))
    };
    let name = "a packet to an address that nobody has goes round";
    Attack::new(GROUP, name, family, &[Defence::BlackHoles], attempt)
        .given(|setting| setting.config.blackhole_inside = true)
}
