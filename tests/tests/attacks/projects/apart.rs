//! By its own network and router: to addresses that another project has, and it has not, or both have.

use hextet_tests::{
    defence::Defence,
    packet::{Ends, Ether, Ip, ether_ip},
};
use hextet_types::{Family, Mac, PortId};

use super::{setting::Setting, world::World};
use crate::{
    case::Attack,
    disguise,
    world::{GATEWAY_MAC, marked_datagram},
};

const GROUP: &str = "projects";
/// Nothing of a host's state: it succeeds where both projects' ports are on one network.
const NOTHING: &[Defence] = &[];
const APART: &str = "networks of their own";

/// All of them.
pub fn attacks() -> Vec<Attack> {
    vec![
        apart("to an address that only the other has", plain),
        apart(
            "to an address that only the other has, on the other host",
            |world, family| routed(world, family, [world.cast.attacker, world.cast.far]),
        ),
        apart(
            "to an address that only the other has, from the other host",
            |world, family| routed(world, family, [world.cast.accomplice, world.cast.mate]),
        ),
        apart(
            "under Ethernet addresses that hosts know each other by",
            by_other_macs,
        ),
        disguised(
            "to an address that only the other has, disguised",
            |world| world.cast.mate,
        ),
        disguised("to an address that both have, disguised", |world| {
            world.cast.victim
        }),
    ]
}

fn apart(name: &'static str, attempt: fn(&mut World, Family) -> bool) -> Attack {
    Attack::between_in_both(GROUP, name, NOTHING, attempt).but_for(APART, Setting::merge)
}

fn ends(world: &World, family: Family, [from, to]: [PortId; 2]) -> Ends {
    Ends::new(world.address(from, family), world.address(to, family))
}

/// To the gateway, to the other port, to the host, and to all.
fn plain(world: &mut World, family: Family) -> bool {
    let cast = world.cast;
    let packet = world.marked(ends(world, family, [cast.attacker, cast.mate]));
    let to = [
        GATEWAY_MAC,
        world.mac(cast.mate),
        world.host_mac(0),
        Mac::BROADCAST,
    ];
    for mac in to {
        let frame = world.frame(cast.attacker, mac, &packet);
        world.send_frame(cast.attacker, &frame);
    }
    world.is_hit(cast.mate)
}

fn routed(world: &mut World, family: Family, [from, to]: [PortId; 2]) -> bool {
    let packet = world.marked(ends(world, family, [from, to]));
    world.send(from, &packet);
    world.is_hit(to)
}

/// Under those by which hosts and routers know each other inside.
fn by_other_macs(world: &mut World, family: Family) -> bool {
    let cast = world.cast;
    let packet = world.marked(ends(world, family, [cast.attacker, cast.mate]));
    let copies = Mac::new([0x0a, 0x68, 0x78, 0, 0, 1]);
    let router = Mac::new([0x02, 0x68, 0x78, 0, 0, 2]);
    let own = world.mac(cast.attacker);
    let hosts = [world.host_mac(0), world.host_mac(1)];
    for src in [own, GATEWAY_MAC, hosts[0], router] {
        for dst in [hosts[0], hosts[1], copies, router, GATEWAY_MAC] {
            let frame = ether_ip(Ether { src, dst }, &packet);
            world.send_frame(cast.attacker, &frame);
        }
    }
    world.is_hit(cast.mate)
}

/// Where both have the address it reaches its own project's port alone; where the networks are one, there is only one such
/// port.
fn disguised(name: &'static str, to: fn(&World) -> PortId) -> Attack {
    Attack::between(GROUP, name, None, NOTHING, move |world| {
        let (from, to) = (world.cast.attacker, to(world));
        for family in Family::BOTH {
            let ends = ends(world, family, [from, to]);
            for disguise in disguise::deliverable(family) {
                let packets = (disguise.packets)(&Ip::default(), ends, marked_datagram(ends));
                for packet in packets {
                    world.send(from, &packet);
                }
                let hit = world.arrives(to, ends);
                world.tried(format!("{family} {}", disguise.how), hit);
            }
        }
        world.outcome()
    })
    .but_for(APART, Setting::merge)
}
