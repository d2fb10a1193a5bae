//! What is sent to multicast groups that others have joined.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use hextet_tests::{
    cloud::addr,
    defence::Defence,
    packet::{Ends, Ether, Ip, MARKER, ether_ip, udp, vxlan},
};
use hextet_types::{Family, Mac, PortId};

use super::{
    setting::{SEGMENTS, Setting, group},
    world::World,
};
use crate::{
    case::Attack,
    world::{CLOSED, OPEN},
};

const GROUP: &str = "multicast";

/// All of them. Alpha's mate has joined a group, and so has beta's twin.
pub fn attacks() -> Vec<Attack> {
    let attacks = [
        to_another_project(),
        past_groups(),
        in_place_of_another(),
        by_unknown_host(),
        in_place_of_a_port_here(),
    ];
    let joined = |attack: Attack| {
        attack.given_projects(|setting| {
            setting.join(setting.cast.mate);
            setting.join(setting.cast.twin);
        })
    };
    attacks.into_iter().map(joined).collect()
}

/// The group's Ethernet address (RFC 1112 §6.4, RFC 2464 §7).
fn mac_of(group: IpAddr) -> Mac {
    match group {
        IpAddr::V4(group) => {
            let [_, b, c, d] = Ipv4Addr::octets(&group);
            Mac::new([1, 0, 0x5e, b & 0x7f, c, d])
        }
        IpAddr::V6(group) => {
            let [.., a, b, c, d] = Ipv6Addr::octets(&group);
            Mac::new([0x33, 0x33, a, b, c, d])
        }
    }
}

fn packet(source: IpAddr, port: u16) -> Vec<u8> {
    let ends = Ends::new(source, group(Family::of(source)));
    Ip::default().packet(ends, &udp(ends, 4000, port, MARKER))
}

fn send(world: &mut World, from: PortId, source: IpAddr, port: u16) {
    let to = mac_of(group(Family::of(source)));
    let frame = world.frame(from, to, &packet(source, port));
    world.send_frame(from, &frame);
}

/// Of equal names and addresses, in networks of their own.
fn to_another_project() -> Attack {
    let name = "to a group that only another project's ports have joined";
    Attack::between(GROUP, name, None, &[], |world| {
        let cast = world.cast;
        for family in Family::BOTH {
            for from in [cast.attacker, cast.accomplice] {
                let source = world.address(from, family);
                send(world, from, source, OPEN);
                let hit = world.is_hit(cast.mate);
                world.tried(format!("from {source}"), hit);
            }
        }
        world.outcome()
    })
    .but_for("networks of their own", Setting::merge)
}

/// By a port that the listener's groups keep closed.
fn past_groups() -> Attack {
    let name = "to a listener whose groups do not let it in";
    Attack::between(GROUP, name, None, &[Defence::IngressGroups], |world| {
        let cast = world.cast;
        for family in Family::BOTH {
            for from in [cast.victim, cast.far] {
                let source = world.address(from, family);
                send(world, from, source, OPEN);
                let heard = world.gets_at_all(cast.mate);
                assert!(heard, "what may come does not, from {source}");
                world.clear();
                send(world, from, source, CLOSED);
                let hit = world.is_hit(cast.mate);
                world.tried(format!("from {source}"), hit);
            }
        }
        world.outcome()
    })
}

fn in_place_of_another() -> Attack {
    let name = "to a group under a neighbour's address";
    Attack::between_in_both(GROUP, name, &[], |world, family| {
        let cast = world.cast;
        let source = world.address(cast.far, family);
        send(world, cast.victim, source, OPEN);
        world.is_hit(cast.mate)
    })
    .but_for("port security", |setting| setting.open(setting.cast.victim))
}

/// A copy as one host sends it to another: its Ethernet source is the listener's.
fn by_tunnel(world: &mut World, host: IpAddr, source: IpAddr) -> bool {
    let ends = Ends::new(host, world.endpoint(0));
    let ether = Ether {
        src: world.mac(world.cast.mate),
        dst: world.host_mac(0),
    };
    let frame = ether_ip(ether, &packet(source, OPEN));
    let outer = Ip::default().packet(ends, &vxlan(ends, SEGMENTS[0], &frame));
    world.send_from_outside(0, &outer);
    world.is_hit(world.cast.mate)
}

fn by_unknown_host() -> Attack {
    let name = "a copy from a host that nobody knows";
    Attack::between_in_both(GROUP, name, &[Defence::KnownHosts], |world, family| {
        let source = world.address(world.cast.far, family);
        by_tunnel(world, addr("2001:db8:fffe::77"), source)
    })
}

fn in_place_of_a_port_here() -> Attack {
    let name = "a copy from a known host in place of a port here";
    Attack::between_in_both(GROUP, name, &[Defence::LocalSources], |world, family| {
        let source = world.address(world.cast.victim, family);
        by_tunnel(world, world.endpoint(1), source)
    })
}
