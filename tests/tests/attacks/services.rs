//! The host's own services, at every address by which a workload may try to reach them.

use std::{
    io::ErrorKind,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, TcpListener, UdpSocket},
};

use hextet_tests::{
    cloud::addr,
    defence::Defence,
    hypervisor::{HOST_V4, HOST_V6, SERVICE_V4, SERVICE_V6, SPINE_V4, SPINE_V6},
    packet::{
        Ends, Icmp, Ip, MARKER, Payload, Tcp, echo_request, ether, icmp, is_marked, parse, tcp,
        udp, vxlan,
    },
    wire::Frame,
};
use hextet_types::Family;
use socket2::{Domain, Protocol, Socket, Type};

use crate::{
    case::Attack,
    disguise::{self, Disguise},
    world::{OPEN, World, marked_datagram},
};

const GROUP: &str = "the host's services";
const SHIELD: &[Defence] = &[Defence::HostShield];
/// BGP, BFD (single hop and multihop), DHCP servers, DNS, NTP, SSH, the agent's metrics, VXLAN, Geneve.
const TCP_PORTS: &[(&str, u16)] = &[("SSH", 22), ("DNS", 53), ("BGP", 179), ("metrics", 9105)];
const UDP_PORTS: &[(&str, u16)] = &[
    ("DNS", 53),
    ("NTP", 123),
    ("BFD", 3784),
    ("multihop BFD", 4784),
    ("VXLAN", 4789),
];
const BFD: u16 = 3784;

/// An address at which the host listens.
const ADDRESSES: &[(&str, &str)] = &[
    (HOST_V4, "uplink"),
    (SERVICE_V4, "service address"),
    ("169.254.0.1", "gateway"),
    ("127.0.0.1", "loopback"),
    (HOST_V6, "uplink"),
    (SERVICE_V6, "service address"),
    ("fe80::1", "gateway"),
];

/// All of them.
pub fn attacks() -> Vec<Attack> {
    let mut attacks = Vec::new();
    for (text, at) in ADDRESSES {
        let to = addr(text);
        attacks.extend(
            TCP_PORTS
                .iter()
                .map(|(name, port)| by_tcp(to, at, name, *port)),
        );
        attacks.extend(
            UDP_PORTS
                .iter()
                .map(|(name, port)| by_udp(to, at, name, *port)),
        );
    }
    attacks.extend(
        GROUPS
            .iter()
            .map(|(to, at)| by_udp(addr(to), at, "BFD", BFD)),
    );
    for family in Family::BOTH {
        attacks.extend(protocols(family));
        attacks.extend(disguised(family));
        attacks.extend([ping(family), reset(family), silent(family), scan(family)]);
    }
    attacks.push(timestamp());
    attacks.extend(tunnels());
    attacks
}

/// Groups in which every host is, and broadcast addresses.
const GROUPS: &[(&str, &str)] = &[
    ("255.255.255.255", "broadcast"),
    ("203.0.113.15", "the uplink's broadcast address"),
    ("224.0.0.1", "all systems"),
    ("ff02::1", "all nodes"),
    ("ff02::2", "all routers"),
];

/// A socket that listens on any address.
struct Listener(UdpSocket);

impl Listener {
    fn new(family: Family, port: u16) -> Listener {
        let socket = UdpSocket::bind((family.unspecified(), port)).expect("a port of its own");
        socket.set_nonblocking(true).expect("a socket");
        Listener(socket)
    }

    fn is_hit(&self) -> bool {
        let mut buffer = [0; 2048];
        match self.0.recv(&mut buffer) {
            Ok(len) => is_marked(&buffer[..len]),
            Err(e) if e.kind() == ErrorKind::WouldBlock => false,
            Err(e) => panic!("receive: {e}"),
        }
    }
}

/// To a link-local address one speaks from one's own.
fn ends_to(world: &World, to: IpAddr) -> Ends {
    let link_local = |a: &Ipv6Addr| a.segments()[0] == 0xfe80 || a.is_multicast();
    match to {
        IpAddr::V6(addr) if link_local(&addr) => Ends::new(world.my_link_local(), to),
        _ => Ends::new(world.me(Family::of(to)), to),
    }
}

/// Programs that want it so let loopback be routed, and operators give links addresses.
fn on_a_willing_host(attack: Attack) -> Attack {
    attack.given(|setting| {
        setting
            .sysctls
            .push(("net/ipv4/conf/all/route_localnet", "1"));
        setting.late.push("address add fe80::1/64 dev PORT nodad");
    })
}

fn by_tcp(to: IpAddr, at: &str, name: &str, port: u16) -> Attack {
    let attempt = move |world: &mut World| {
        let listener = TcpListener::bind((Ipv6Addr::UNSPECIFIED, port)).expect("a port");
        let ends = ends_to(world, to);
        let frame = world.plain(ends, &tcp(ends, Tcp::syn(4000, port), b""));
        world.send(&frame);
        let hit = world.attacker_has(|frame| answers(frame, ends));
        drop(listener);
        hit
    };
    let name = format!("{name} by TCP at {to} ({at})");
    // What has a link-local source stays multicast, by which TCP hears nothing.
    let without = match at {
        "gateway" => &[Defence::HostShield, Defence::SourceCheck],
        _ => SHIELD,
    };
    on_a_willing_host(Attack::new(GROUP, name, Family::of(to), without, attempt))
}

fn by_udp(to: IpAddr, at: &str, name: &str, port: u16) -> Attack {
    let attempt = move |world: &mut World| {
        let listener = Listener::new(Family::of(to), port);
        let ends = ends_to(world, to);
        let packet = Ip::ttl(255).packet(ends, &udp(ends, 49152, port, MARKER));
        for frame in world.by_all_ways(&packet) {
            world.send(&frame);
        }
        listener.is_hit()
    };
    let name = format!("{name} by UDP at {to} ({at})");
    on_a_willing_host(Attack::new(GROUP, name, Family::of(to), SHIELD, attempt))
}

fn answers(frame: &[u8], to: Ends) -> bool {
    parse(frame).is_some_and(|parsed| parsed.ends == to.back())
}

fn host_address(family: Family) -> IpAddr {
    match family {
        Family::V4 => addr(HOST_V4),
        Family::V6 => addr(HOST_V6),
    }
}

/// Routing protocols, tunnels and others that are IP protocols of their own.
fn protocols(family: Family) -> Vec<Attack> {
    let numbers: &[(&str, u8)] = match family {
        Family::V4 => &[
            ("IGMP", 2),
            ("IPIP", 4),
            ("6in4", 41),
            ("GRE", 47),
            ("ESP", 50),
            ("AH", 51),
            ("OSPF", 89),
            ("PIM", 103),
            ("VRRP", 112),
            ("L2TP", 115),
            ("SCTP", 132),
        ],
        Family::V6 => &[
            ("IPv4 in IPv6", 4),
            ("IPv6 in IPv6", 41),
            ("GRE", 47),
            ("ESP", 50),
            ("OSPF", 89),
            ("PIM", 103),
            ("VRRP", 112),
            ("L2TP", 115),
            ("SCTP", 132),
        ],
    };
    let attack = |(name, number): &(&str, u8)| {
        let number = *number;
        let attempt = move |world: &mut World| {
            let socket = raw_socket(family, number);
            let ends = Ends::new(world.me(family), host_address(family));
            let octets = inner_packet(world, number);
            let frame = world.plain(
                ends,
                &Payload {
                    protocol: number,
                    octets,
                },
            );
            world.send(&frame);
            let mut buffer = [std::mem::MaybeUninit::uninit(); 2048];
            match socket.recv(&mut buffer) {
                Ok(_) => true,
                Err(e) if e.kind() == ErrorKind::WouldBlock => false,
                Err(e) => panic!("receive: {e}"),
            }
        };
        Attack::new(
            GROUP,
            format!("{name} (protocol {number})"),
            family,
            SHIELD,
            attempt,
        )
    };
    numbers.iter().map(attack).collect()
}

/// For tunnels a packet to the victim from somebody else; for the others the marker.
fn inner_packet(world: &World, number: u8) -> Vec<u8> {
    let inner = match number {
        4 => Family::V4,
        41 => Family::V6,
        _ => return MARKER.to_vec(),
    };
    let ends = Ends::new(world.bystander(inner), world.victim(inner));
    Ip::default().packet(ends, &marked_datagram(ends))
}

fn raw_socket(family: Family, protocol: u8) -> Socket {
    let domain = match family {
        Family::V4 => Domain::IPV4,
        Family::V6 => Domain::IPV6,
    };
    let socket = Socket::new(domain, Type::RAW, Some(Protocol::from(i32::from(protocol))));
    let socket = socket.expect("a raw socket (needs root)");
    socket.set_nonblocking(true).expect("a socket");
    socket
}

/// BFD, not to be seen at once.
fn disguised(family: Family) -> Vec<Attack> {
    let attack = |Disguise { how, packets, .. }: Disguise| {
        let attempt = move |world: &mut World| {
            let listener = Listener::new(family, BFD);
            let ends = Ends::new(world.me(family), host_address(family));
            for packet in packets(&Ip::default(), ends, udp(ends, 49152, BFD, MARKER)) {
                let frame = world.frame(&packet);
                world.send(&frame);
            }
            listener.is_hit()
        };
        Attack::new(GROUP, format!("BFD {how}"), family, SHIELD, attempt)
    };
    disguise::deliverable(family).map(attack).collect()
}

/// The host answers pings at the gateway's addresses only.
fn ping(family: Family) -> Attack {
    let attempt = move |world: &mut World| {
        let ends = Ends::new(world.me(family), host_address(family));
        let frame = world.plain(ends, &echo_request(ends, 1, MARKER));
        world.send(&frame);
        world.attacker_has(|frame| answers(frame, ends))
    };
    Attack::new(
        GROUP,
        "a ping to the uplink's address",
        family,
        SHIELD,
        attempt,
    )
}

/// The spine's own source, to end the host's BGP session.
fn reset(family: Family) -> Attack {
    let attempt = move |world: &mut World| {
        let socket = raw_socket(family, 6);
        let spine = match family {
            Family::V4 => addr(SPINE_V4),
            Family::V6 => addr(SPINE_V6),
        };
        let ends = Ends::new(spine, host_address(family));
        let header = Tcp {
            sport: 179,
            dport: 4000,
            seq: 7,
            ack: 0,
            flags: Tcp::RST,
        };
        let frame = world.plain(ends, &tcp(ends, header, MARKER));
        world.send(&frame);
        let mut buffer = [std::mem::MaybeUninit::uninit(); 2048];
        socket.recv(&mut buffer).is_ok()
    };
    let without = &[Defence::SourceCheck, Defence::HostShield, Defence::Invalid];
    Attack::new(
        GROUP,
        "a reset in the spine's name",
        family,
        without,
        attempt,
    )
}

/// A closed port says no more than an open one.
fn silent(family: Family) -> Attack {
    let attempt = move |world: &mut World| {
        let ends = Ends::new(world.me(family), host_address(family));
        let frame = world.plain(ends, &udp(ends, 4000, 9, MARKER));
        world.send(&frame);
        // From whichever address of the host's.
        world.attacker_has(|frame| parse(frame).is_some_and(|p| p.ends.dst == ends.src))
    };
    Attack::new(GROUP, "a closed UDP port answers", family, SHIELD, attempt)
}

fn scan(family: Family) -> Attack {
    let attempt = move |world: &mut World| {
        let ends = Ends::new(world.me(family), host_address(family));
        let header = Tcp {
            sport: 4000,
            dport: 179,
            seq: 7,
            ack: 9,
            flags: Tcp::ACK,
        };
        let frame = world.plain(ends, &tcp(ends, header, b""));
        world.send(&frame);
        world.attacker_has(|frame| answers(frame, ends))
    };
    let without = &[
        Defence::HostShield,
        Defence::Chain("output-to-ports"),
        Defence::Edge,
    ];
    Attack::new(GROUP, "an ACK scan is answered", family, without, attempt)
}

/// ICMP other than pings, at an address that answers pings.
fn timestamp() -> Attack {
    let attempt = |world: &mut World| {
        let ends = Ends::new(world.me(Family::V4), Ipv4Addr::new(169, 254, 0, 1));
        let request = Icmp {
            kind: 13,
            code: 0,
            rest: [0, 1, 0, 1],
        };
        let frame = world.plain(ends, &icmp(ends, request, &[0; 12]));
        world.send(&frame);
        world.attacker_has(|frame| answers(frame, ends))
    };
    Attack::new(
        GROUP,
        "an ICMP timestamp request",
        Family::V4,
        SHIELD,
        attempt,
    )
}

/// A host that does have a VXLAN device takes nothing for it from its own workloads: the inner packet
/// would come from a device that nobody checks.
fn tunnels() -> Vec<Attack> {
    let attack = |outer: Family, inner: Family| {
        let frames = move |world: &World| {
            let ends = Ends::new(world.bystander(inner), world.victim(inner));
            let packet = Ip::default().packet(ends, &udp(ends, 4000, OPEN, MARKER));
            let to_device = hextet_tests::packet::Ether {
                src: world.my_mac(),
                dst: hextet_types::Mac::new([2, 0, 0, 0, 0xbb, 1]),
            };
            let ethertype = if inner == Family::V4 { 0x0800 } else { 0x86dd };
            let inner_frame = ether(to_device, ethertype, &packet);
            let ends = Ends::new(world.me(outer), host_address(outer));
            vec![world.plain(ends, &vxlan(ends, 42, &inner_frame))] as Vec<Frame>
        };
        let name = format!("{inner} to the victim in VXLAN");
        // The inner packet has the mark of the outer, too, as long as a program marks them.
        let without = &[Defence::HostShield, Defence::Edge];
        Attack::by_frames("tunnel", name, outer, without, frames, World::victim_is_hit)
            .given(move |setting| {
                setting.links.push(match outer {
                    Family::V4 => "link add vx0 address 02:00:00:00:bb:01 type vxlan id 42 dstport 4789",
                    Family::V6 => {
                        "link add vx0 address 02:00:00:00:bb:01 type vxlan id 42 dstport 4789 udp6zerocsumrx local 2001:db8:ffff::1"
                    }
                });
                setting.links.push("link set vx0 up");
            })
    };
    let pairs = Family::BOTH
        .into_iter()
        .flat_map(|o| Family::BOTH.map(|i| (o, i)));
    pairs.map(|(outer, inner)| attack(outer, inner)).collect()
}
