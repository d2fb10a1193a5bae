//! Ways around security groups, in both directions.

use std::collections::BTreeSet;

use hextet_model::{
    intent::{Change, Group},
    neutron::{Direction, Protocol},
};
use hextet_tests::{
    cloud::{Allow, addr},
    defence::Defence,
    packet::{
        Ends, Icmp, Ip, MARKER, Parsed, Payload, Tcp, echo_request, fragments, gre, icmp,
        is_marked, parse, tcp, udp, vxlan,
    },
};
use hextet_types::Family;

use crate::{
    case::Attack,
    disguise::{self, Packets},
    world::{CLOSED, OPEN, OPEN_TCP, Setting, World, marked_datagram},
};

const GROUP: &str = "around groups";
const INGRESS: &[Defence] = &[Defence::IngressGroups];
const EGRESS: &[Defence] = &[Defence::EgressGroups];
/// Without connection tracking or any other part of the table, fragments pass one by one.
const UNTRACKED: &[Defence] = &[Defence::Edge, Defence::Table];

/// All of them.
pub fn attacks() -> Vec<Attack> {
    let mut attacks = Vec::new();
    for family in Family::BOTH {
        attacks.extend(from_trusted_ports(family));
        attacks.extend(hidden_ports(family));
        attacks.extend(odd_flags(family));
        attacks.extend(unknown_protocols(family));
        attacks.extend(from_a_restricted_port(family));
        attacks.extend([
            stateless_answer(family),
            answer_to_another(family),
            revived(family),
            remote_group(family),
            pair_does_not_widen(family),
            beside_a_wide_pair(family),
            unknown_icmp(family),
        ]);
    }
    attacks
}

/// Source ports that a filter without state would take for an answer.
fn from_trusted_ports(family: Family) -> Vec<Attack> {
    let attack = |sport: u16| {
        let frames = move |world: &World| {
            let ends = world.to_victim(family);
            vec![world.plain(ends, &udp(ends, sport, CLOSED, MARKER))]
        };
        let name = format!("a closed port, from port {sport}");
        Attack::by_frames(GROUP, name, family, INGRESS, frames, World::victim_is_hit)
    };
    [OPEN, 53, 67, 80, 123, 443, CLOSED].map(attack).into()
}

/// A datagram to a closed port that hides the port, or shows an open one first.
fn hidden_ports(family: Family) -> Vec<Attack> {
    let overlapping: Packets = |ip, ends, p| {
        let open = fragments(ip, ends, &marked_datagram(ends), &[(0, 16)]);
        [open, fragments(ip, ends, &p, &[(0, 8), (8, 64)])].concat()
    };
    let headless: Packets = |ip, ends, p| fragments(ip, ends, &p, &[(8, 64)]);
    let mut ways = vec![
        (
            "in a fragment that overlaps an open port",
            UNTRACKED,
            overlapping,
        ),
        ("in a fragment without a first", UNTRACKED, headless),
    ];
    ways.extend(disguise::deliverable(family).map(|d| (d.how, INGRESS, d.packets)));
    let attack = |(how, without, packets): (&str, &[Defence], Packets)| {
        let frames = move |world: &World| {
            let ends = world.to_victim(family);
            let packets = packets(&Ip::default(), ends, to_closed(ends));
            packets.iter().map(|packet| world.frame(packet)).collect()
        };
        let sign = move |world: &mut World| world.victim_has(is_piece_of_closed);
        let name = format!("a closed port, {how}");
        Attack::by_frames(GROUP, name, family, without, frames, sign)
    };
    ways.into_iter().map(attack).collect()
}

fn to_closed(ends: Ends) -> Payload {
    udp(ends, 4000, CLOSED, MARKER)
}

/// Any piece will do: the last one carries half of the marker at least.
fn is_piece_of_closed(frame: &[u8]) -> bool {
    frame.windows(8).any(|window| *window == MARKER[8..])
}

/// Segments that begin no connection, to the open port: with them one scans past filters, and revives what
/// was cut.
fn odd_flags(family: Family) -> Vec<Attack> {
    let flags = [
        ("ACK", Tcp::ACK),
        ("FIN", Tcp::FIN),
        ("SYN and ACK", Tcp::SYN | Tcp::ACK),
        ("SYN and FIN", Tcp::SYN | Tcp::FIN),
        ("RST", Tcp::RST),
        ("no flag", 0),
        ("all flags", 0x3f),
    ];
    let attack = |(name, flags): (&str, u8)| {
        let frames = move |world: &World| {
            let ends = world.to_victim(family);
            let header = Tcp {
                sport: 4000,
                dport: OPEN_TCP,
                seq: 7,
                ack: 9,
                flags,
            };
            vec![world.plain(ends, &tcp(ends, header, MARKER))]
        };
        let name = format!("no connection, a segment with {name}");
        let without = &[Defence::Invalid];
        Attack::by_frames(GROUP, name, family, without, frames, World::victim_is_hit)
    };
    flags.map(attack).into()
}

fn unknown_protocols(family: Family) -> Vec<Attack> {
    let attack = |protocol: u8, without: &[Defence]| {
        let frames = move |world: &World| {
            let ends = world.to_victim(family);
            let octets = [&to_closed(ends).octets[..], MARKER].concat();
            vec![world.plain(ends, &Payload { protocol, octets })]
        };
        let name = format!("a datagram as protocol {protocol}");
        Attack::by_frames(GROUP, name, family, without, frames, World::victim_is_hit)
    };
    // What connection tracking knows and finds malformed falls to the check for connections as well.
    let known = [33, 132, 136].map(|p| attack(p, &[Defence::Invalid, Defence::IngressGroups]));
    let others = [4, 41, 47, 50, 253].map(|p| attack(p, INGRESS));
    known.into_iter().chain(others).collect()
}

/// Gives the attacker's port a group that lets out TCP to port 443 only.
fn restrict(setting: &mut Setting) {
    let rules = Family::BOTH.map(|family| {
        Allow::all(Direction::Egress, family)
            .protocol(Protocol::TCP)
            .ports(443, 443)
    });
    let group = setting.cloud.group(true, &rules);
    setting
        .cloud
        .port_mut(setting.cast.attacker)
        .security_groups = vec![group];
}

fn from_a_restricted_port(family: Family) -> Vec<Attack> {
    type Make = fn(Ends) -> Payload;
    let makes: [(&str, Make); 6] = [
        ("UDP to port 53", |ends| udp(ends, 4000, 53, MARKER)),
        ("UDP to port 443", |ends| udp(ends, 4000, 443, MARKER)),
        ("TCP from port 443", |ends| {
            tcp(ends, Tcp::syn(443, 22), MARKER)
        }),
        ("a ping", |ends| echo_request(ends, 1, MARKER)),
        ("GRE", |_| gre(0x0800, &[&[0; 20][..], MARKER].concat())),
        ("VXLAN", |ends| vxlan(ends, 42, MARKER)),
    ];
    let attack = |(name, make): (&str, Make)| {
        let frames = move |world: &World| {
            let ends = world.to_internet(family);
            vec![world.plain(ends, &make(ends))]
        };
        let name = format!("{name}, from a port that may only use TCP to port 443");
        Attack::by_frames(GROUP, name, family, EGRESS, frames, World::uplink_is_hit).given(restrict)
    };
    makes.map(attack).into()
}

/// Gives the victim a group without state that lets it send, and receive at the open port.
fn stateless_victim(setting: &mut Setting) {
    let mut rules = Allow::both(Direction::Egress).to_vec();
    for family in Family::BOTH {
        let ingress = Allow::all(Direction::Ingress, family);
        rules.push(ingress.protocol(Protocol::UDP).ports(OPEN, OPEN));
    }
    let group = setting.cloud.group(false, &rules);
    setting.cloud.port_mut(setting.cast.victim).security_groups = vec![group];
}

/// A port without state gets no answers but those that its rules let in.
fn stateless_answer(family: Family) -> Attack {
    let attempt = move |world: &mut World| {
        let ends = world.to_victim(family).back();
        let victim = world.cast.victim;
        let packet = Ip::default().packet(ends, &udp(ends, CLOSED, 9, b"a question"));
        world.send_as(victim, &packet);
        let back = ends.back();
        let frame = world.plain(back, &udp(back, 9, CLOSED, MARKER));
        world.send(&frame);
        world.victim_is_hit()
    };
    let name = "an answer to a port whose groups have no state";
    Attack::new(GROUP, name, family, INGRESS, attempt)
        .given(stateless_victim)
        .given(attacker_lets_all_in)
}

/// What the victim asks has to reach the attacker, or there is nothing to answer.
fn attacker_lets_all_in(setting: &mut Setting) {
    let group = setting.cloud.group(true, &Allow::both(Direction::Ingress));
    setting
        .cloud
        .port_mut(setting.cast.attacker)
        .security_groups
        .push(group);
}

/// The other way round of a flow that is allowed is not allowed by itself.
fn answer_to_another(family: Family) -> Attack {
    let attempt = move |world: &mut World| {
        let bystander = world.cast.bystander;
        let ends = Ends::new(world.bystander(family), world.victim(family));
        let packet = Ip::default().packet(ends, &udp(ends, CLOSED, OPEN, b"a question"));
        world.send_as(bystander, &packet);
        assert!(world.victim_has(|frame| parse(frame).is_some_and(|p| p.ends == ends)));
        let answer = Ends::new(world.me(family), world.bystander(family));
        let frame = world.plain(answer, &udp(answer, OPEN, CLOSED, MARKER));
        world.send(&frame);
        world.host.port(bystander).has(is_marked)
    };
    let name = "an answer to what was asked of somebody else";
    Attack::new(GROUP, name, family, INGRESS, attempt)
}

/// A segment of the connection between the attacker and the victim's open port.
fn segment(ends: Ends, to_victim: bool, numbers: (u32, u32), flags: u8, data: &[u8]) -> Vec<u8> {
    let (sport, dport) = if to_victim {
        (4000, OPEN_TCP)
    } else {
        (OPEN_TCP, 4000)
    };
    let (seq, ack) = numbers;
    let header = Tcp {
        sport,
        dport,
        seq,
        ack,
        flags,
    };
    let ends = if to_victim { ends } else { ends.back() };
    Ip::default().packet(ends, &tcp(ends, header, data))
}

/// A connection that policy has cut does not come back by its next segment, from either end.
fn revived(family: Family) -> Attack {
    let attempt = move |world: &mut World| {
        let ends = world.to_victim(family);
        let victim = world.cast.victim;
        let send = |world: &mut World, numbers, flags, data: &[u8]| {
            let frame = world.frame(&segment(ends, true, numbers, flags, data));
            world.send(&frame);
        };
        send(world, (100, 0), Tcp::SYN, b"");
        world.send_as(
            victim,
            &segment(ends, false, (500, 101), Tcp::SYN | Tcp::ACK, b""),
        );
        send(world, (101, 501), Tcp::ACK, b"x");
        let is_data = |p: Parsed| p.ends == ends && p.payload.octets.ends_with(b"x");
        let opened = world.victim_has(|frame| parse(frame).is_some_and(is_data));
        assert!(opened, "the connection to the open port works");
        close(world, family);
        // The victim speaks first: that direction is still allowed, and would make a connection of it.
        world.send_as(victim, &segment(ends, false, (501, 102), Tcp::ACK, b"y"));
        send(world, (102, 502), Tcp::ACK, MARKER);
        world.victim_is_hit()
    };
    let name = "a connection that was cut goes on";
    let without = &[Defence::Sysctl("net/netfilter/nf_conntrack_tcp_loose")];
    Attack::new(GROUP, name, family, without, attempt)
        .given(|setting| {
            setting
                .sysctls
                .push(("net/netfilter/nf_conntrack_tcp_loose", "1"))
        })
        .given(attacker_lets_all_in)
}

/// Takes all rules that let something in from the victim's group, and cuts what they carried.
fn close(world: &mut World, family: Family) {
    let mut group: Group = world.host.intent().groups[&world.cast.web].clone();
    group
        .rules
        .retain(|_, rule| rule.direction == Direction::Egress);
    let changed = world.host.tell(Change::PutGroup(Box::new(group)));
    let ends: BTreeSet<_> = changed.recheck.into_iter().map(|(_, addr)| addr).collect();
    assert!(ends.contains(&world.victim(family)), "{ends:?}");
    let cut = world
        .host
        .cut(&ends, |flow| flow.destination_port == Some(OPEN_TCP));
    assert_eq!(cut, 1);
}

/// Members of a group only: a port of another group is none, whatever it claims.
fn remote_group(family: Family) -> Attack {
    let frames = move |world: &World| {
        let ends = world.to_victim(family);
        vec![world.plain(ends, &udp(ends, 4000, 6000, MARKER))]
    };
    let name = "a port that is open for members of another group";
    Attack::by_frames(GROUP, name, family, INGRESS, frames, World::victim_is_hit)
        .given(only_for_members)
}

fn only_for_members(setting: &mut Setting) {
    let web = setting.cast.web;
    let rules = Family::BOTH.map(|family| {
        let ingress = Allow::all(Direction::Ingress, family).remote_group(web);
        ingress.protocol(Protocol::UDP).ports(6000, 6000)
    });
    let group = setting.cloud.group(true, &rules);
    setting
        .cloud
        .port_mut(setting.cast.victim)
        .security_groups
        .push(group);
}

/// An address that a port may use besides makes nobody a member.
fn pair_does_not_widen(family: Family) -> Attack {
    let frames = move |world: &World| {
        let source = match family {
            Family::V4 => addr("198.51.100.64"),
            Family::V6 => addr("2001:db8:1::64"),
        };
        let ends = Ends::new(source, world.victim(family));
        vec![world.plain(ends, &udp(ends, 4000, 6000, MARKER))]
    };
    let name = "a port that is open for members, from a pair's address";
    Attack::by_frames(GROUP, name, family, INGRESS, frames, World::victim_is_hit)
        .given(only_for_members)
        .given(|setting| {
            let attacker = setting.cast.attacker;
            setting.cloud.pair(attacker, "198.51.100.64/28");
            setting.cloud.pair(attacker, "2001:db8:1::60/123");
        })
}

/// The last address of a wide pair is right, the next one is not.
fn beside_a_wide_pair(family: Family) -> Attack {
    let frames = move |world: &World| {
        let source = match family {
            Family::V4 => addr("198.51.100.80"),
            Family::V6 => addr("2001:db8:1::80"),
        };
        let ends = Ends::new(source, world.victim(family));
        vec![world.plain(ends, &marked_datagram(ends))]
    };
    let name = "a source beside a wide address pair";
    let without = &[Defence::SourceCheck];
    Attack::by_frames(GROUP, name, family, without, frames, World::victim_is_hit).given(|setting| {
        let attacker = setting.cast.attacker;
        setting.cloud.pair(attacker, "198.51.100.64/28");
        setting.cloud.pair(attacker, "2001:db8:1::60/123");
    })
}

/// Pings are open, other ICMP is not.
fn unknown_icmp(family: Family) -> Attack {
    let frames = move |world: &World| {
        let ends = world.to_victim(family);
        let kind = match family {
            Family::V4 => 13,
            Family::V6 => 139,
        };
        let header = Icmp {
            kind,
            code: 0,
            rest: [0; 4],
        };
        vec![world.plain(ends, &icmp(ends, header, &[&[0; 16][..], MARKER].concat()))]
    };
    let name = "an ICMP request that no rule lets in";
    Attack::by_frames(
        GROUP,
        name,
        family,
        &[Defence::Guard, Defence::IngressGroups],
        frames,
        World::victim_is_hit,
    )
}
