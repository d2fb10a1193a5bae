//! On one network that two projects share: in a neighbour's name, by way of a neighbour, as one who shares an address, and
//! as a member of a group that only an equal address elsewhere is in.

use hextet_model::neutron::{AddressPair, Direction};
use hextet_tests::{
    cloud::{Allow, addr},
    defence::Defence,
    packet::{Ends, Ether, Ip, MARKER, Payload, ether_ip, is_marked, parse},
};
use hextet_types::{Family, Mac, PortId, Prefix};

use super::{setting::Setting, world::World};
use crate::{
    case::Attack,
    reassembly,
    world::{GATEWAY_MAC, marked_datagram},
};

const GROUP: &str = "a shared network";
const CHECK: &[Defence] = &[Defence::SourceCheck];
const VRRP: u8 = 112;
/// What the victim and its mate share.
const SHARED: [&str; 2] = ["10.0.0.100", "fd00::100"];

/// All of them.
pub fn attacks() -> Vec<Attack> {
    vec![
        end_of_a_datagram(),
        in_anothers_name(),
        by_way_of_a_neighbour(),
        adverts(),
        adverts_of_another_network(),
        by_a_group(),
    ]
}

fn of_family(family: Family, both: [&str; 2]) -> std::net::IpAddr {
    addr(both[usize::from(family == Family::V6)])
}

/// Of a neighbour that has begun it.
fn end_of_a_datagram() -> Attack {
    let name = "the end of a neighbour's datagram";
    Attack::between_in_both(GROUP, name, reassembly::WITHOUT, |world, family| {
        let cast = world.cast;
        let ends = Ends::new(
            world.address(cast.victim, family),
            world.address(cast.mate, family),
        );
        let [first, rest] = reassembly::halves(ends);
        world.send(cast.victim, &first);
        world.send(cast.attacker, &rest);
        world.is_hit(cast.mate)
    })
    .given_projects(Setting::merge)
}

/// Of its neighbour, the neighbour on the other host, the router, and of a shared address that it does not share.
fn in_anothers_name() -> Attack {
    Attack::between(GROUP, "in a neighbour's name", None, CHECK, |world| {
        let cast = world.cast;
        for family in Family::BOTH {
            let names = [
                ("a neighbour", world.address(cast.victim, family)),
                ("one on the other host", world.address(cast.far, family)),
                ("the router", of_family(family, ["10.0.0.1", "fd00::1"])),
                ("a shared address", of_family(family, SHARED)),
                ("nobody", of_family(family, ["10.0.0.99", "fd00::99"])),
            ];
            for (whose, name) in names {
                let ends = Ends::new(name, world.address(cast.mate, family));
                world.send_plain(cast.attacker, ends, &marked_datagram(ends));
                let hit = world.arrives(cast.mate, ends);
                world.tried(format!("{family} {whose}"), hit);
            }
        }
        world.outcome()
    })
    .given_projects(Setting::merge)
    .given_projects(share)
}

/// To its Ethernet address, what is for somebody else; it carries for nobody.
fn by_way_of_a_neighbour() -> Attack {
    let name = "by way of a neighbour that carries for nobody";
    Attack::between(GROUP, name, None, &[], |world| {
        let cast = world.cast;
        for family in Family::BOTH {
            for (where_, to) in [("here", cast.mate), ("on the other host", cast.far)] {
                let beyond = of_family(family, ["192.168.7.7", "fd99::7"]);
                let ends = Ends::new(world.address(cast.attacker, family), beyond);
                let packet = world.marked(ends);
                let frame = world.frame(cast.attacker, world.mac(to), &packet);
                world.send_frame(cast.attacker, &frame);
                let hit = world.is_hit(to);
                world.tried(format!("{family} {where_}"), hit);
            }
        }
        world.outcome()
    })
    .given_projects(Setting::merge)
    .but_for("what a port says of itself", |setting| {
        setting.open(setting.cast.mate);
        setting.open(setting.cast.far);
    })
}

/// The victim and its mate have addresses in common.
fn share(setting: &mut Setting) {
    let cast = setting.cast;
    for port in [cast.victim, cast.mate] {
        pair(setting, port);
    }
}

fn pair(setting: &mut Setting, port: PortId) {
    let port = setting.port(port);
    let mac_address = port.mac_address;
    let pairs = SHARED.map(|text| AddressPair {
        ip_address: Prefix::host(addr(text)),
        mac_address,
    });
    port.allowed_address_pairs.extend(pairs);
}

/// Lets VRRP in, as those have to who share.
fn hear(setting: &mut Setting) {
    let (victim, attacker) = (setting.cast.victim, setting.cast.attacker);
    let open = setting.port(attacker).security_groups.clone();
    for port in [victim, setting.cast.mate] {
        setting.port(port).security_groups.clone_from(&open);
    }
}

fn advert(world: &World, from: PortId, family: Family) -> Vec<u8> {
    let ends = Ends::new(
        world.address(from, family),
        of_family(family, ["224.0.0.18", "ff02::12"]),
    );
    let octets = [&[0x31, 7, 255, 1, 0, 100, 0, 0][..], MARKER].concat();
    let protocol = VRRP;
    Ip::ttl(255).packet(ends, &Payload { protocol, octets })
}

fn says(world: &mut World, family: Family) -> bool {
    let cast = world.cast;
    let packet = advert(world, cast.attacker, family);
    let group = match family {
        Family::V4 => Mac::new([0x01, 0, 0x5e, 0, 0, 0x12]),
        Family::V6 => Mac::new([0x33, 0x33, 0, 0, 0, 0x12]),
    };
    let copies = Mac::new([0x0a, 0x68, 0x78, 0, 0, 1]);
    let src = world.mac(cast.attacker);
    for dst in [
        group,
        Mac::BROADCAST,
        world.mac(cast.mate),
        copies,
        GATEWAY_MAC,
    ] {
        world.send_frame(cast.attacker, &ether_ip(Ether { src, dst }, &packet));
    }
    world.gets(cast.mate, |frame| {
        is_marked(frame) && parse(frame).is_some_and(|p| p.payload.protocol == VRRP)
    })
}

/// As one of those who share an address, which it does not: it would make the others give up.
fn adverts() -> Attack {
    let name = "a virtual router's word, from one who shares no address";
    Attack::between_in_both(GROUP, name, &[], says)
        .given_projects(Setting::merge)
        .given_projects(share)
        .given_projects(hear)
        .but_for("a pair of its own", |setting| {
            pair(setting, setting.cast.attacker);
        })
}

/// As one who does, on a network with the same addresses.
fn adverts_of_another_network() -> Attack {
    let name = "a virtual router's word, from another project's network";
    Attack::between_in_both("projects", name, &[], says)
        .given_projects(share)
        .given_projects(hear)
        .given_projects(|setting| pair(setting, setting.cast.attacker))
        .but_for("networks of their own", Setting::merge)
}

/// The mate takes in members of a group alone; beta's twin is one, and has the victim's addresses.
fn by_a_group() -> Attack {
    let name = "by a group that an equal address elsewhere is in";
    Attack::between_in_both("projects", name, &[], |world, family| {
        let cast = world.cast;
        let ends = Ends::new(
            world.address(cast.victim, family),
            world.address(cast.mate, family),
        );
        world.send_plain(cast.victim, ends, &marked_datagram(ends));
        world.is_hit(cast.mate)
    })
    .given_projects(|setting| {
        let group = setting.group(&[]);
        setting.port(setting.cast.twin).security_groups.push(group);
        let rules = Family::BOTH.map(|family| Allow::all(Direction::Ingress, family));
        let members = setting.group(&rules.map(|rule| rule.remote_group(group)));
        setting.port(setting.cast.mate).security_groups = vec![members];
    })
    .but_for("that it is elsewhere", |setting| {
        let groups = setting.port(setting.cast.twin).security_groups.clone();
        setting
            .port(setting.cast.victim)
            .security_groups
            .extend(groups);
    })
}
