//! NAT44: private addresses that would leave untranslated, and more than one's share of the translator.

use std::net::{IpAddr, Ipv4Addr};

use hextet_model::{intent::Change, neutron::Direction};
use hextet_tests::{
    cloud::Allow,
    defence::Defence,
    hypervisor::internet,
    packet::{Ends, Icmp, Ip, MARKER, Payload, Tcp, error, fragments, is_marked, parse, tcp, udp},
};
use hextet_types::{Family, PortId};

use crate::{
    case::Attack,
    world::{NAT_LIMIT, NAT_SOURCE, World},
};

const GROUP: &str = "NAT44";
const PRIVATE: Ipv4Addr = Ipv4Addr::new(10, 64, 0, 10);
const MATE: Ipv4Addr = Ipv4Addr::new(10, 64, 0, 11);

/// All of them.
pub fn attacks() -> Vec<Attack> {
    let mut attacks = leaks();
    attacks.extend([
        without_a_source(),
        too_many(),
        too_many_from_many_sources(),
        borrowed(),
        inbound(),
    ]);
    attacks
}

/// Whether something leaves with a source that only the cloud knows.
fn leaks_out(world: &mut World) -> bool {
    let is_private = |addr: IpAddr| matches!(addr, IpAddr::V4(a) if a.octets()[0] == 10);
    world
        .host
        .uplink
        .has(|frame| parse(frame).is_some_and(|p| is_private(p.ends.src)))
}

fn out() -> Ends {
    Ends::new(PRIVATE, internet(Family::V4))
}

type Packets = fn() -> Vec<Vec<u8>>;

/// What a private port sends to the Internet, and what keeps it from leaving untranslated.
const LEAKS: &[(&str, Defence, Packets)] = &[
    ("UDP", Defence::Translation, || {
        vec![Ip::default().packet(out(), &udp(out(), 1, 2, MARKER))]
    }),
    ("SYN", Defence::Translation, || segment(Tcp::SYN)),
    ("ACK without a connection", Defence::Invalid, || {
        segment(Tcp::ACK)
    }),
    ("RST without a connection", Defence::Invalid, || {
        segment(Tcp::RST)
    }),
    ("FIN without a connection", Defence::Invalid, || {
        segment(Tcp::FIN | Tcp::ACK)
    }),
    ("SYN and ACK without a connection", Defence::Invalid, || {
        segment(Tcp::SYN | Tcp::ACK)
    }),
    ("ICMP error about nothing", Defence::Invalid, || {
        let quoted = Ip::default().packet(out().back(), &udp(out().back(), 1, 2, MARKER));
        let header = Icmp {
            kind: 3,
            code: 3,
            rest: [0; 4],
        };
        vec![Ip::default().packet(out(), &error(out(), header, &quoted))]
    }),
    ("fragments", Defence::Translation, || {
        fragments(
            &Ip::default(),
            out(),
            &udp(out(), 1, 2, MARKER),
            &[(0, 16), (16, 64)],
        )
    }),
    ("GRE", Defence::Translation, || protocol(47)),
    ("ESP", Defence::Translation, || protocol(50)),
    ("IPIP", Defence::Translation, || protocol(4)),
    ("an unknown protocol", Defence::Translation, || {
        protocol(253)
    }),
    ("IP options", Defence::Translation, || {
        let ip = Ip {
            options: vec![7, 7, 4, 0, 0, 0, 0, 0],
            ..Ip::default()
        };
        vec![ip.packet(out(), &udp(out(), 1, 2, MARKER))]
    }),
];

fn segment(flags: u8) -> Vec<Vec<u8>> {
    let header = Tcp {
        sport: 4000,
        dport: 80,
        seq: 7,
        ack: 9,
        flags,
    };
    vec![Ip::default().packet(out(), &tcp(out(), header, MARKER))]
}

fn protocol(protocol: u8) -> Vec<Vec<u8>> {
    vec![Ip::default().packet(
        out(),
        &Payload {
            protocol,
            octets: MARKER.to_vec(),
        },
    )]
}

fn leaks() -> Vec<Attack> {
    let attack = |(name, without, packets): &(&str, Defence, Packets)| {
        let packets = *packets;
        let attempt = move |world: &mut World| {
            for packet in packets() {
                world.send_as(world.cast.private, &packet);
            }
            leaks_out(world)
        };
        let name = format!("a private source leaks, {name}");
        Attack::new(GROUP, name, Family::V4, &[*without], attempt)
    };
    LEAKS.iter().map(attack).collect()
}

/// A host without a source to translate to sends nothing.
fn without_a_source() -> Attack {
    let attempt = |world: &mut World| {
        let (port, subnet) = (world.cast.private, world.cast.private_v4);
        world.host.tell(Change::SetNat44Sources(subnet, [].into()));
        world.send_as(
            port,
            &Ip::default().packet(out(), &udp(out(), 1, 2, MARKER)),
        );
        leaks_out(world)
    };
    let name = "a private source leaks, the host has no source left";
    Attack::new(GROUP, name, Family::V4, &[Defence::Translation], attempt)
}

/// Opens so many connections; gives how many of them left, translated.
fn open(world: &mut World, port: PortId, source: Ipv4Addr, first: u16, count: u16) -> u16 {
    world.host.uplink.clear();
    let ends = Ends::new(source, internet(Family::V4));
    for sport in first..first + count {
        world.send_as(
            port,
            &Ip::default().packet(ends, &udp(ends, sport, 53, MARKER)),
        );
    }
    let translated = IpAddr::V4(NAT_SOURCE);
    let frames = world.host.uplink.frames();
    let left = frames
        .iter()
        .filter(|f| parse(f).is_some_and(|p| p.ends.src == translated));
    u16::try_from(left.count()).unwrap()
}

fn too_many() -> Attack {
    let attempt = |world: &mut World| {
        let port = world.cast.private;
        let opened = open(world, port, PRIVATE, 10_000, 3 * NAT_LIMIT);
        assert!(
            opened >= NAT_LIMIT,
            "{opened} connections are less than the limit"
        );
        opened > NAT_LIMIT
    };
    let name = "more connections than the limit";
    Attack::new(
        GROUP,
        name,
        Family::V4,
        &[Defence::ConnectionLimit],
        attempt,
    )
}

/// A port's share is the port's, however many addresses it may use; and so nobody uses up another's in its
/// name.
fn too_many_from_many_sources() -> Attack {
    let attempt = |world: &mut World| {
        let port = world.cast.private;
        let mut opened = open(world, port, PRIVATE, 10_000, NAT_LIMIT / 2);
        for n in 1..=3 {
            let source = Ipv4Addr::new(10, 64, 1, n);
            opened += open(world, port, source, 10_000, NAT_LIMIT / 2);
        }
        assert!(
            opened >= NAT_LIMIT,
            "{opened} connections are less than the limit"
        );
        opened > NAT_LIMIT
    };
    let name = "more connections than the limit, from many sources";
    let without = &[Defence::ConnectionLimit];
    Attack::new(GROUP, name, Family::V4, without, attempt)
        .given(|setting| setting.cloud.pair(setting.cast.private, "10.64.1.0/24"))
}

/// A private port's address on a port with a public one: translated for nothing, or leaked.
fn borrowed() -> Attack {
    let attempt = |world: &mut World| {
        let port = world.cast.attacker;
        open(world, port, MATE, 10_000, 1) > 0
    };
    let name = "the translator, by a port that has none";
    Attack::new(GROUP, name, Family::V4, &[Defence::SourceCheck], attempt)
}

/// From outside one does not reach a private address by asking for it, whatever its groups let in.
fn inbound() -> Attack {
    let attempt = |world: &mut World| {
        let ends = Ends::new(internet(Family::V4), PRIVATE);
        let datagram = udp(ends, 53, 4000, MARKER);
        world
            .host
            .send_from_fabric(&Ip::default().packet(ends, &datagram));
        world.host.port(world.cast.private).has(is_marked)
    };
    let name = "a private address is reached from outside";
    Attack::new(
        GROUP,
        name,
        Family::V4,
        &[Defence::Chain("private")],
        attempt,
    )
    .given(|setting| {
        let group = setting.cloud.group(true, &Allow::both(Direction::Ingress));
        setting
            .cloud
            .port_mut(setting.cast.private)
            .security_groups
            .push(group);
    })
}
