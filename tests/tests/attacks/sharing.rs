//! Ports that work together against what all share.

use std::net::{IpAddr, Ipv4Addr};

use hextet_tests::{
    cloud::addr,
    defence::Defence,
    hypervisor::internet,
    packet::{Ends, Ip, MARKER, parse, udp},
};
use hextet_types::{Family, PortId};

use crate::{
    case::Attack,
    world::{NAT_SOURCE, Setting, World},
};

const GROUP: &str = "together";
/// Ports that work together.
const GANG: u16 = 10;
/// Connections that each may have: all together more than there are source ports.
const LIMIT: u16 = 7_000;

/// All of them.
pub fn attacks() -> Vec<Attack> {
    vec![exhausts_source_ports()]
}

fn member(n: u16) -> Ipv4Addr {
    let [high, low] = (256 + n).to_be_bytes();
    Ipv4Addr::new(10, 64, high, low)
}

fn gang(setting: &mut Setting) {
    let private = setting.cloud.port_mut(setting.cast.private).clone();
    for n in 0..GANG {
        let address = member(n).to_string();
        setting.cloud.port(
            private.network_id,
            &[address.as_str()],
            &private.security_groups,
        );
    }
    let subnet = setting.cast.private_v4;
    let nat44 = setting.cloud.intent.subnets[&subnet].nat44;
    let pool = nat44
        .expect("it is translated")
        .pool_subnet_id
        .expect("out of a pool");
    let source = NAT_SOURCE.to_string();
    setting
        .cloud
        .translate(subnet, pool, &[source.as_str()], LIMIT.into());
}

fn port_of(world: &World, address: Ipv4Addr) -> PortId {
    let address = IpAddr::V4(address);
    let mut ports = world.host.intent().ports.values();
    let port = ports.find(|port| port.addresses(Family::V4).any(|a| a == address));
    port.expect("it was made").id
}

/// Whether a datagram leaves, translated.
fn leaves(world: &mut World, port: PortId, ends: Ends, sport: u16) -> bool {
    world.host.uplink.clear();
    let datagram = udp(ends, sport, 53, MARKER);
    world.send_as(port, &Ip::default().packet(ends, &datagram));
    let translated = IpAddr::V4(NAT_SOURCE);
    world
        .host
        .uplink
        .has(|frame| parse(frame).is_some_and(|p| p.ends.src == translated))
}

/// A host's source address has some 64,000 ports for each destination. Once they are used, nobody else's
/// connection there finds one.
fn exhausts_source_ports() -> Attack {
    let attempt = |world: &mut World| {
        let there = internet(Family::V4);
        for n in 0..GANG {
            let port = port_of(world, member(n));
            world.host.plug(port);
            world.host.settle();
            let ends = Ends::new(member(n), there);
            for sport in 0..LIMIT {
                let datagram = udp(ends, 1024 + n * 6_451 + sport % 6_451, 53, MARKER);
                world.send_as(port, &Ip::default().packet(ends, &datagram));
                if sport % 1_000 == 0 {
                    world.host.uplink.clear();
                }
            }
        }
        let private = world.cast.private;
        let ends = Ends::new(addr("10.64.0.10"), there);
        let left = (0..20_u16)
            .filter(|n| leaves(world, private, ends, 20_000 + n))
            .count();
        left < 20
    };
    let name = "ten ports use up the source ports towards one destination";
    let without = &[Defence::SourcePortShare];
    Attack::new(GROUP, name, Family::V4, without, attempt).given(gang)
}
