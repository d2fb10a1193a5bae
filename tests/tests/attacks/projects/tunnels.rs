//! Tunnel packets that hosts have not sent, or not sent for their own ports.

use std::net::IpAddr;

use hextet_tests::{
    cloud::addr,
    defence::Defence,
    hypervisor::{run, set_sysctl},
    packet::{Ends, Icmp, Ip, Payload, error, is_marked},
};
use hextet_types::{Family, PortId};

use super::{
    setting::{Cast, ROUTER_SEGMENTS, SEGMENTS, Setting},
    world::World,
};
use crate::case::Attack;

const GROUP: &str = "tunnels";
const KNOWN: &[Defence] = &[Defence::KnownHosts];
const SHIELDS: &[Defence] = &[Defence::KnownHosts, Defence::RouterShield];

/// All of them.
pub fn attacks() -> Vec<Attack> {
    let mut attacks = Vec::new();
    for underlay in Family::BOTH {
        attacks.extend([
            by_unknown_host(underlay),
            by_unknown_host_to_a_router(underlay),
            by_guest("", |cast| cast.attacker, underlay),
            by_guest(" to another host", |cast| cast.accomplice, underlay),
            by_guest_alone(underlay),
            by_port_of_a_routed_network(underlay),
            by_port_to_another_host(underlay),
            path_mtu(underlay),
        ]);
    }
    attacks.extend([
        in_place_of_a_port_here(),
        in_place_of_a_port_here_in_fragments(),
        into_another_segment(),
    ]);
    attacks
}

fn inside(world: &World, from: PortId, family: Family) -> Ends {
    let cast = world.cast;
    Ends::new(
        world.address(from, family),
        world.address(cast.mate, family),
    )
}

fn by_unknown_host(underlay: Family) -> Attack {
    let name = format!("from a host that nobody knows, over {underlay}");
    Attack::between(GROUP, name, underlay, KNOWN, move |world| {
        let sources = match underlay {
            Family::V4 => ["203.0.114.77", "192.0.2.7"],
            Family::V6 => ["2001:db8:fffe::77", "2001:db8:7777::7"],
        };
        for source in sources {
            for family in Family::BOTH {
                let packet = world.marked(inside(world, world.cast.far, family));
                let source = addr(source);
                world.send_by_tunnel(source, SEGMENTS[0], &packet);
                let hit = world.is_hit(world.cast.mate);
                world.tried(format!("{family} from {source}"), hit);
                world.send_by_tunnel_in_fragments(source, SEGMENTS[0], &packet);
                let hit = world.is_hit(world.cast.mate);
                world.tried(format!("{family} from {source}, in fragments"), hit);
            }
        }
        for family in Family::BOTH {
            let ends = inside(world, world.cast.far, family);
            let packet = world.marked(ends);
            world.send_by_tunnel_in_fragments(world.endpoint(1), SEGMENTS[0], &packet);
            assert!(
                world.arrives(world.cast.mate, ends),
                "a known host is not heard in fragments ({family})"
            );
        }
        world.outcome()
    })
    .over(underlay)
}

/// Into the segment by which a router's other hosts send what it translates.
fn by_unknown_host_to_a_router(underlay: Family) -> Attack {
    let name =
        format!("to the outside by a router, from a host that nobody knows, over {underlay}");
    Attack::between(GROUP, name, Family::V4, KNOWN, move |world| {
        let cast = world.cast;
        let source = match underlay {
            Family::V4 => "203.0.114.77",
            Family::V6 => "2001:db8:fffe::77",
        };
        let ends = Ends::new(
            world.address(cast.far, Family::V4),
            world.internet(Family::V4),
        );
        let packet = world.marked(ends);
        world.send_by_tunnel(addr(source), ROUTER_SEGMENTS[0], &packet);
        world.leaves(is_marked)
    })
    .over(underlay)
}

/// A known host that has been taken over speaks for its own ports alone.
fn in_place_of_a_port_here() -> Attack {
    let name = "a known host in place of a port here";
    let without = &[Defence::LocalSources];
    Attack::between_in_both(GROUP, name, without, |world, family| {
        let packet = world.marked(inside(world, world.cast.victim, family));
        world.send_by_tunnel(world.endpoint(1), SEGMENTS[0], &packet);
        world.is_hit(world.cast.mate)
    })
}

/// The rest of a datagram that a port here has begun, as if it were from that port.
fn in_place_of_a_port_here_in_fragments() -> Attack {
    let name = "a known host completes the datagram of a port here";
    let without = &[Defence::EachFragment];
    Attack::between_in_both(GROUP, name, without, |world, family| {
        let ends = inside(world, world.cast.victim, family);
        let [first, rest] = crate::reassembly::halves(ends);
        world.send_by_tunnel(world.endpoint(1), SEGMENTS[0], &rest);
        world.send(world.cast.victim, &first);
        world.is_hit(world.cast.mate)
    })
}

/// A host that knows of one project's network alone.
fn into_another_segment() -> Attack {
    let name = "into another project's network, by one's own segment";
    Attack::between_in_both(GROUP, name, &[], |world, family| {
        let packet = world.marked(inside(world, world.cast.far, family));
        let own = world.segment_of(world.cast.accomplice);
        world.send_by_tunnel(world.endpoint(1), own, &packet);
        world.is_hit(world.cast.mate)
    })
    .but_for("a segment of its own", Setting::merge)
}

/// What goes into the tunnel's end.
fn forged(world: &World, ends: Ends) -> Payload {
    let packet = world.marked(inside(world, world.cast.far, Family::V4));
    world.tunnelled(ends, SEGMENTS[0], &packet)
}

fn send_forged(world: &mut World, from: PortId, sources: &[IpAddr], to: IpAddr) {
    for source in sources {
        let ends = Ends::new(*source, to);
        let packet = Ip::default().packet(ends, &forged(world, ends));
        world.send(from, &packet);
    }
}

/// By a router to the first host: one's own, where nothing but the router is in between, or another.
fn by_guest(of: &str, who: fn(Cast) -> PortId, underlay: Family) -> Attack {
    let name = format!("from a private network{of}, over {underlay}");
    Attack::between(GROUP, name, underlay, SHIELDS, move |world| {
        let from = who(world.cast);
        let known = world.endpoint(1);
        let sources = [
            world.address(from, underlay),
            world.public(from, underlay),
            known,
        ];
        send_forged(world, from, &sources, world.endpoint(0));
        world.is_hit(world.cast.mate)
    })
    .over(underlay)
}

/// Where no port is in the host's own namespace, nothing there judges packets of ports.
fn by_guest_alone(underlay: Family) -> Attack {
    let of = " of a host that has no others";
    let attack = by_guest(of, |cast| cast.attacker, underlay);
    attack.given_projects(Setting::without_stranger)
}

/// Also one that may send from any source, and so from that of a known host, is a port.
fn by_port_of_a_routed_network(underlay: Family) -> Attack {
    let name = format!("from a routed network, over {underlay}");
    let without = &[
        Defence::KnownHosts,
        Defence::HostShield,
        Defence::HostPolicy,
    ];
    Attack::between(GROUP, name, underlay, without, move |world| {
        let cast = world.cast;
        let sources = [world.address(cast.stranger, underlay), world.endpoint(1)];
        send_forged(world, cast.stranger, &sources, world.endpoint(0));
        world.is_hit(cast.mate)
    })
    .given_projects(|setting| setting.open(setting.cast.stranger))
    .over(underlay)
}

/// From the address of a known host, which is not the port's: it must not leave its own.
fn by_port_to_another_host(underlay: Family) -> Attack {
    let name = format!("from a routed network in place of its host, over {underlay}");
    let without = &[Defence::SourceCheck];
    Attack::between(GROUP, name, underlay, without, move |world| {
        let cast = world.cast;
        // What Linux would drop by itself on many hosts, others allow.
        let settings = [("accept_local", "1"), ("rp_filter", "0")];
        for (name, value) in settings {
            let set = |place| set_sysctl(&format!("net/ipv4/conf/{place}/{name}"), value);
            world.on(0, || ["all", "default"].map(set));
        }
        let ends = Ends::new(world.endpoint(0), world.endpoint(1));
        let packet = world.marked(Ends::new(
            world.address(cast.mate, underlay),
            world.address(cast.far, underlay),
        ));
        let packet = Ip::default().packet(ends, &world.tunnelled(ends, SEGMENTS[0], &packet));
        world.send(cast.stranger, &packet);
        world.carries(is_marked)
    })
    .over(underlay)
}

/// That the way between hosts takes only small packets, it says: all projects' packets would have to be smaller then.
fn path_mtu(underlay: Family) -> Attack {
    let name = format!("a word on the path between hosts, over {underlay}");
    // What of these the one does not need, the other does.
    let without = &[
        Defence::RouterShield,
        Defence::RouterSources,
        Defence::HostShield,
        Defence::HostPolicy,
        Defence::Invalid,
    ];
    Attack::between(GROUP, name, underlay, without, move |world| {
        let cast = world.cast;
        let (here, there) = (world.endpoint(0), world.endpoint(1));
        let on_the_way = Ends::new(here, there);
        let inner = world.marked(inside(world, cast.far, Family::V4));
        let quoted = world.tunnelled(on_the_way, SEGMENTS[0], &inner);
        let quoted = Ip::default().packet(on_the_way, &quoted);
        let (kind, code, rest) = match underlay {
            Family::V4 => (3, 4, [0, 0, 5, 20]),
            Family::V6 => (2, 0, [0, 0, 5, 20]),
        };
        let route = || run("ip", &["-o", "route", "get", &there.to_string()], "");
        for from in [cast.attacker, cast.stranger] {
            let ends = Ends::new(world.outside_source(from, underlay), here);
            world.send_plain(from, ends, &error(ends, Icmp { kind, code, rest }, &quoted));
            let hit = world.comes_true(|world| world.on(0, route).contains(" mtu 1300"));
            world.tried(format!("from {}", ends.src), hit);
            world.on(0, || run("ip", &["route", "flush", "cache"], ""));
        }
        world.outcome()
    })
    .over(underlay)
}
