//! By routers: to the hosts themselves, to the outside in somebody else's name, and from there into what others have open.

use std::net::IpAddr;

use hextet_model::neutron::PortRange;
use hextet_tests::{
    cloud::{addr, prefix},
    defence::Defence,
    hypervisor::{HOST_V4, HOST_V6, SERVICE_V4, SERVICE_V6},
    packet::{Ends, Icmp, Ip, MARKER, echo_request, error, is_icmp, is_marked, parse, udp},
};
use hextet_types::{Family, PortId, Prefix};

use super::{
    setting::{FORWARDED, FORWARDED_PORT, GATEWAYS, PUBLISHED},
    world::World,
};
use crate::{
    case::Attack,
    world::{CLOSED, OPEN, marked_datagram},
};

const GROUP: &str = "routers";
/// What leaves as it is, whatever it is.
const OUT: &[Defence] = &[
    Defence::NotPublic,
    Defence::RouterSources,
    Defence::Chain("leaving"),
];

/// All of them.
pub fn attacks() -> Vec<Attack> {
    let mut attacks: Vec<Attack> = Family::BOTH.map(hosts_themselves).into();
    attacks.extend([
        in_anothers_name(),
        answer_of_a_server(),
        error_about_a_connection(),
        manual_prefix_leaves(),
        manual_prefix_is_entered(),
        address_without_a_proxy(),
        by_a_port_outside(),
        closed_doors(),
        beside_a_forwarded_port(),
    ]);
    attacks
}

/// Within a network and between hosts, to the outside, and from there.
pub fn honest(world: &mut World, family: Family) -> Result<(), String> {
    let cast = world.cast;
    let arrives = |world: &mut World, from: PortId, ends: Ends, to: PortId, what: &str| {
        world.clear();
        world.send_plain(from, ends, &marked_datagram(ends));
        match world.is_hit(to) {
            true => Ok(()),
            false => Err(format!("{what}: {ends:?} does not arrive")),
        }
    };
    let inside =
        |world: &World, from, to| Ends::new(world.address(from, family), world.address(to, family));
    for (from, to) in [
        (cast.victim, cast.mate),
        (cast.mate, cast.far),
        (cast.far, cast.mate),
        (cast.attacker, cast.accomplice),
    ] {
        let ends = inside(world, from, to);
        arrives(world, from, ends, to, "inside")?;
    }
    let ends = Ends::new(world.public(cast.attacker, family), world.internet(family));
    let ends = match family {
        Family::V4 => Ends::new(world.address(cast.attacker, family), ends.dst),
        Family::V6 => ends,
    };
    world.clear();
    world.send_plain(cast.attacker, ends, &marked_datagram(ends));
    if !world.leaves(is_marked) {
        return Err(format!("{ends:?} does not leave"));
    }
    let ends = Ends::new(
        world.address(cast.stranger, family),
        world.public(cast.victim, family),
    );
    arrives(
        world,
        cast.stranger,
        ends,
        cast.victim,
        "from a routed network",
    )?;
    let ends = Ends::new(world.internet(family), world.public(cast.victim, family));
    world.clear();
    let packet = world.marked(ends);
    world.send_from_outside(0, &packet);
    match world.is_hit(cast.victim) {
        true => Ok(()),
        false => Err(format!("{ends:?} does not come in")),
    }
}

/// All that the first host has for itself.
fn of_the_host(world: &World, family: Family) -> Vec<IpAddr> {
    let own = match family {
        Family::V4 => [HOST_V4, SERVICE_V4, "192.0.0.8"],
        Family::V6 => [HOST_V6, SERVICE_V6, SERVICE_V6],
    };
    let endpoint = Some(world.endpoint(0)).filter(|e| Family::of(*e) == family);
    own.into_iter().map(addr).chain(endpoint).collect()
}

/// By pings, which nobody but the host answers.
fn hosts_themselves(family: Family) -> Attack {
    let without = &[Defence::RouterShield];
    Attack::between(
        GROUP,
        "the host's own addresses",
        family,
        without,
        move |world| {
            let from = world.cast.attacker;
            let kind = if family == Family::V4 { 0 } else { 129 };
            for to in of_the_host(world, family) {
                let ends = Ends::new(world.outside_source(from, family), to);
                world.send_plain(from, ends, &echo_request(ends, 7, MARKER));
                let hit = world.gets(from, |frame| is_icmp(frame, family, kind));
                world.tried(to.to_string(), hit);
            }
            world.outcome()
        },
    )
    .over(family)
}

type Name = fn(&World, Family) -> IpAddr;

const NAMES: [(&str, Name); 4] = [
    ("another project's port", |world, family| {
        world.public(world.cast.victim, family)
    }),
    ("another project's gateway", |_, family| {
        addr(GATEWAYS[0][usize::from(family == Family::V6)])
    }),
    ("a port of the external network", |world, family| {
        world.address(world.cast.stranger, family)
    }),
    ("somebody outside", |world, family| world.internet(family)),
];

/// Of a port without port security, which may say anything to its own router.
fn in_anothers_name() -> Attack {
    Attack::between(
        GROUP,
        "to the outside in another's name",
        None,
        OUT,
        |world| {
            for family in Family::BOTH {
                for (whose, name) in NAMES {
                    let claimed = name(world, family);
                    let to = addr(if family == Family::V4 {
                        "192.0.2.8"
                    } else {
                        "2001:db8:7777::8"
                    });
                    let ends = Ends::new(claimed, to);
                    world.send_plain(world.cast.attacker, ends, &marked_datagram(ends));
                    let hit = world.leaves(|frame| {
                        is_marked(frame) && parse(frame).is_some_and(|p| p.ends.src == claimed)
                    });
                    world.tried(format!("{family} {whose}"), hit);
                }
            }
            world.outcome()
        },
    )
    .given_projects(|setting| setting.open(setting.cast.attacker))
}

/// What another project has asked of a server outside is answered by that server alone.
fn answer_of_a_server() -> Attack {
    let without = &[Defence::SourceCheck];
    Attack::between_in_both(
        GROUP,
        "an answer in a server's name",
        without,
        |world, family| {
            let (cast, server) = (world.cast, world.internet(family));
            let asked = Ends::new(world.outside_source(cast.mate, family), server);
            world.send_plain(cast.mate, asked, &udp(asked, 4000, 53, b"who am I?"));
            let as_seen = match family {
                Family::V4 => addr(GATEWAYS[0][0]),
                Family::V6 => asked.src,
            };
            world.must_leave(Ends::new(as_seen, server));
            let answer = Ends::new(server, as_seen);
            world.send_plain(cast.stranger, answer, &udp(answer, 53, 4000, MARKER));
            world.is_hit(cast.mate)
        },
    )
}

/// A packet that is too big, it says, of a connection of somebody else's.
fn error_about_a_connection() -> Attack {
    let without = &[Defence::Errors];
    Attack::between_in_both(
        GROUP,
        "an error about another project's connection",
        without,
        |world, family| {
            let (cast, server) = (world.cast, world.internet(family));
            let asked = Ends::new(world.outside_source(cast.mate, family), server);
            world.send_plain(cast.mate, asked, &udp(asked, 4000, 53, MARKER));
            let seen = Ends::new(
                match family {
                    Family::V4 => addr(GATEWAYS[0][0]),
                    Family::V6 => asked.src,
                },
                server,
            );
            world.must_leave(seen);
            let quoted = Ip::default().packet(seen, &udp(seen, 4000, 53, MARKER));
            let (kind, code, rest) = match family {
                Family::V4 => (3, 4, [0, 0, 2, 64]),
                Family::V6 => (2, 0, [0, 0, 5, 0]),
            };
            let ends = Ends::new(world.address(cast.stranger, family), seen.src);
            let said = error(ends, Icmp { kind, code, rest }, &quoted);
            world.send_plain(cast.stranger, ends, &said);
            world.is_hit(cast.mate)
        },
    )
}

/// IPv6 that its owner has chosen by hand works inside alone.
fn manual_prefix_leaves() -> Attack {
    let name = "a prefix that its owner has made up, to the outside";
    Attack::between(GROUP, name, Family::V6, OUT, |world| {
        let attacker = world.cast.attacker;
        let ends = Ends::new(
            world.address(attacker, Family::V6),
            world.internet(Family::V6),
        );
        assert!(ends.src.to_string().starts_with("fd00:"));
        world.send_plain(attacker, ends, &marked_datagram(ends));
        world.leaves(is_marked)
    })
}

/// By whom it is sent straight to the host.
fn manual_prefix_is_entered() -> Attack {
    let name = "a prefix that its owner has made up, from outside";
    let without = &[];
    Attack::between(GROUP, name, Family::V6, without, |world| {
        let cast = world.cast;
        let ends = Ends::new(
            world.address(cast.stranger, Family::V6),
            world.address(cast.mate, Family::V6),
        );
        world.send_plain(cast.stranger, ends, &marked_datagram(ends));
        let packet = world.marked(Ends::new(world.internet(Family::V6), ends.dst));
        world.send_from_outside(0, &packet);
        world.is_hit(cast.mate)
    })
    .but_for("what is published and what is not", |setting| {
        let all = prefix("fd00::/64");
        setting.router(0).published.insert(all);
    })
}

/// Where single addresses have an NDP proxy, all others are as if they were not published.
fn address_without_a_proxy() -> Attack {
    let name = "an address that has no NDP proxy, from outside";
    Attack::between(GROUP, name, Family::V6, &[], |world| {
        let cast = world.cast;
        let to = world.public(cast.mate, Family::V6);
        let ends = Ends::new(world.address(cast.stranger, Family::V6), to);
        world.send_plain(cast.stranger, ends, &marked_datagram(ends));
        let packet = world.marked(Ends::new(world.internet(Family::V6), to));
        world.send_from_outside(0, &packet);
        world.is_hit(cast.mate)
    })
    .given_projects(|setting| {
        let router = setting.router(0);
        router.router.enable_ndp_proxy = true;
        let victim = addr("2001:db8:a0::b");
        router.published = [Prefix::host(victim)].into();
    })
    .but_for("a proxy for each", |setting| {
        let all = prefix(PUBLISHED[0]);
        setting.router(0).published.insert(all);
    })
}

/// To the outside, in the name of whatever else is public here.
fn by_a_port_outside() -> Attack {
    let without = &[Defence::SourceCheck];
    let name = "in another's name, from the external network";
    Attack::between(GROUP, name, None, without, |world| {
        for family in Family::BOTH {
            let names: [(&str, Name); 3] = [
                NAMES[0],
                NAMES[1],
                ("the attacker", |world, family| {
                    world.public(world.cast.attacker, family)
                }),
            ];
            for (whose, name) in names {
                let ends = Ends::new(name(world, family), world.internet(family));
                world.send_plain(world.cast.stranger, ends, &marked_datagram(ends));
                let is_it = |f: &[u8]| parse(f).is_some_and(|p| p.ends == ends);
                let hit = world.leaves(is_it);
                world.tried(format!("{family} {whose}"), hit);
            }
        }
        world.outcome()
    })
}

/// Groups judge what comes by routers, on either side.
fn closed_doors() -> Attack {
    let without = &[Defence::IngressGroups];
    Attack::between(GROUP, "a closed port, by routers", None, without, |world| {
        let cast = world.cast;
        for family in Family::BOTH {
            let (inside, outside) = (cast.victim, cast.stranger);
            for (from, to) in [
                (outside, inside),
                (cast.attacker, inside),
                (cast.attacker, outside),
            ] {
                let ends = Ends::new(world.outside_source(from, family), world.public(to, family));
                world.send_plain(from, ends, &udp(ends, 4000, CLOSED, MARKER));
                let hit = world.is_hit(to);
                world.tried(format!("{family} {ends:?}"), hit);
            }
        }
        world.outcome()
    })
    .given_projects(|setting| {
        let web = setting.port(setting.cast.victim).security_groups.clone();
        setting.port(setting.cast.stranger).security_groups = web;
    })
}

/// Of a floating IP only those ports lead inside that are forwarded.
fn beside_a_forwarded_port() -> Attack {
    let name = "ports beside those that are forwarded";
    Attack::between(GROUP, name, Family::V4, &[], |world| {
        let cast = world.cast;
        let ends = Ends::new(world.address(cast.stranger, Family::V4), addr(FORWARDED));
        for port in [OPEN, FORWARDED_PORT - 1, FORWARDED_PORT + 1] {
            world.send_plain(cast.stranger, ends, &udp(ends, 4000, port, MARKER));
            let hit = world.is_hit(cast.mate);
            world.tried(port.to_string(), hit);
        }
        world.outcome()
    })
    .but_for("which are", |setting| {
        for forwarding in setting.whole.cloud.port_forwardings.values_mut() {
            let all = PortRange::new(1, u16::MAX).expect("ports");
            forwarding.external_port_range = all;
        }
    })
}
