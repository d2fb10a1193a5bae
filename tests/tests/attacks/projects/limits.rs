//! Around what a policy or a host sets as bounds: rates, marks, connections.

use hextet_model::neutron::{Direction, QosPolicy, QosRule, QosRuleKind};
use hextet_tests::{
    defence::Defence,
    packet::{Ends, Extension, Ip, MARKER, Payload, parse, udp},
};
use hextet_types::{Family, PortId, QosPolicyId, QosRuleId};
use uuid::Uuid;

use super::{
    setting::{Setting, VICTIM_OUTSIDE},
    world::World,
};
use crate::{
    case::Attack,
    disguise::{self, PLAIN, Packets},
    world::{OPEN, marked_datagram},
};

const GROUP: &str = "limits";
const LIMITS: &[Defence] = &[Defence::Limits];
/// What a policy lets through at once, which is the least that it can be.
const BURST: usize = 65_536;
/// Datagrams for each try, and octets of each.
const DATAGRAMS: u16 = 110;
const OCTETS: usize = 1_200;
/// Connections that a port may have here, and that are tried.
const FEW: u32 = 20;
const MANY: u16 = 100;
/// What the policy marks packets with, and what the workload does.
const MARKS: [u8; 2] = [8, 46];

/// All of them.
pub fn attacks() -> Vec<Attack> {
    vec![
        faster_than_allowed(),
        other_mark(),
        connections_to_outside(),
        connections_from_outside(),
    ]
}

/// The policy of that port.
fn policy(setting: &mut Setting, port: PortId, kind: QosRuleKind) {
    let id = QosPolicyId(Uuid::from_u128(0xf0));
    let standard = setting.port(port).standard.clone();
    setting.port(port).qos_policy_id = Some(id);
    let rule = QosRule {
        id: QosRuleId(Uuid::from_u128(0xf1)),
        kind,
    };
    let policy = QosPolicy {
        id,
        standard,
        shared: false,
        is_default: false,
        rules: vec![rule],
    };
    setting.whole.cloud.qos_policies.insert(id, policy);
}

fn to_twin(world: &World, family: Family) -> Ends {
    let cast = world.cast;
    Ends::new(
        world.address(cast.attacker, family),
        world.address(cast.twin, family),
    )
}

type Body = fn(Ends, u16, &[u8]) -> Payload;

/// Ways to send, each of which might escape who counts octets. What comes in another order than it was sent in is bounded
/// otherwise, too.
fn ways(family: Family) -> Vec<(&'static str, Packets, Body)> {
    let flow: Body = |ends, _, data| udp(ends, 4000, OPEN, data);
    let in_order = |d: &disguise::Disguise| !d.how.contains("last one first");
    let mut ways: Vec<_> = disguise::deliverable(family)
        .filter(in_order)
        .map(|disguise| (disguise.how, disguise.packets, flow))
        .collect();
    ways.extend([
        ("one flow", PLAIN, flow),
        ("many flows", PLAIN, |ends, n, data| {
            udp(ends, 5000 + n, OPEN, data)
        }),
        ("another protocol", PLAIN, |_, _, data| Payload {
            protocol: 253,
            octets: data.to_vec(),
        }),
    ]);
    if family == Family::V6 {
        let many: Packets = |ip, ends, payload| {
            let behind = (0..4).fold(payload, |p, _| p.behind(&Extension::Destination(4)));
            vec![ip.packet(ends, &behind)]
        };
        ways.push(("behind long headers", many, flow));
    }
    ways
}

/// The first way uses up what may pass at once; of all others next to nothing may.
fn faster_than_allowed() -> Attack {
    let name = "faster than a policy allows, in all ways";
    Attack::between(GROUP, name, None, LIMITS, |world| {
        let (from, to) = (world.cast.attacker, world.cast.twin);
        for family in Family::BOTH {
            let ends = to_twin(world, family);
            for (how, packets, body) in ways(family) {
                for n in 0..DATAGRAMS {
                    let ip = Ip {
                        identification: n + 1,
                        ..Ip::default()
                    };
                    for packet in packets(&ip, ends, body(ends, n, &[7; OCTETS])) {
                        world.send(from, &packet);
                    }
                }
                let hit = world.comes_true(|world| {
                    let came = world.got(to).iter();
                    let came = came.filter(|f| parse(f).is_some_and(|p| p.ends == ends));
                    came.map(Vec::len).sum::<usize>() > BURST + BURST / 2
                });
                world.tried(format!("{family} {how}"), hit);
            }
        }
        world.outcome()
    })
    .given_projects(|setting| {
        let kind = QosRuleKind::BandwidthLimit {
            direction: Direction::Egress,
            max_kbps: 8,
            max_burst_kbps: 0,
        };
        policy(setting, setting.cast.attacker, kind);
    })
}

fn other_mark() -> Attack {
    let name = "another mark than a policy sets, in all disguises";
    Attack::between(GROUP, name, None, LIMITS, |world| {
        let (from, to) = (world.cast.attacker, world.cast.twin);
        let ip = Ip {
            dscp: MARKS[1],
            ..Ip::default()
        };
        for family in Family::BOTH {
            let ends = to_twin(world, family);
            for disguise in disguise::deliverable(family) {
                for packet in (disguise.packets)(&ip, ends, marked_datagram(ends)) {
                    world.send(from, &packet);
                }
                let is_odd =
                    |seen: hextet_tests::packet::Parsed| seen.ends == ends && seen.dscp != MARKS[0];
                let hit = world.gets(to, |frame| parse(frame).is_some_and(is_odd));
                world.tried(format!("{family} {}", disguise.how), hit);
            }
        }
        world.outcome()
    })
    .given_projects(|setting| {
        let dscp_mark = MARKS[0];
        let kind = QosRuleKind::DscpMarking { dscp_mark };
        policy(setting, setting.cast.attacker, kind);
    })
}

/// One port must not use up what its router has for all.
fn connections_to_outside() -> Attack {
    let name = "more connections to the outside than a port may have";
    Attack::between_in_both(GROUP, name, &[Defence::ConnectionLimit], |world, family| {
        let from = world.cast.attacker;
        let source = match family {
            Family::V4 => world.address(from, family),
            Family::V6 => world.public(from, family),
        };
        let ends = Ends::new(source, world.internet(family));
        for n in 0..MANY {
            world.send_plain(from, ends, &udp(ends, 5000 + n, 53, MARKER));
        }
        world.comes_true(|world| world.left().len() > FEW as usize * 2)
    })
    .given_projects(|setting| setting.max_connections = Some(FEW))
}

/// Nor must others who knock at its door.
fn connections_from_outside() -> Attack {
    let name = "more connections to a floating IP than a port may have";
    let without = &[Defence::ConnectionLimit];
    Attack::between(GROUP, name, Family::V4, without, |world| {
        let cast = world.cast;
        let ends = Ends::new(
            world.address(cast.stranger, Family::V4),
            hextet_tests::cloud::addr(VICTIM_OUTSIDE),
        );
        for n in 0..MANY {
            world.send_plain(cast.stranger, ends, &udp(ends, 5000 + n, OPEN, MARKER));
        }
        world.comes_true(|world| world.got(cast.victim).len() > FEW as usize * 2)
    })
    .given_projects(|setting| setting.max_connections = Some(FEW))
}
