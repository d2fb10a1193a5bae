//! What keeps the host busy in a workload's name: questions by the thousand to what configures workloads,
//! frames that a virtio device describes wrongly, packets that make the host send errors.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use hextet_model::neutron::Ipv6Mode;
use hextet_tests::{
    defence::Defence,
    packet::{
        Ends, Ether, Ip, MARKER, NdOption, Payload, Tcp, dhcpv4_request, dhcpv6_request, ether_ip,
        is_icmp, neighbour_solicitation, parse, router_solicitation, solicited_node, tcp, udp,
    },
    responder::Responder,
    wire::{Frame, VirtioHeader},
};
use hextet_types::{Family, Mac, PortId};

use crate::{
    case::Attack,
    world::{CLOSED, Setting, World, marked_datagram},
};

const GROUP: &str = "configuration";
pub const VIRTIO: &str = "virtio";
/// More questions than the host has room for.
const FLOOD: usize = 12_000;
/// The most answers that one port gets in one go; the engine gives 32.
const SHARE: usize = 40;

/// All of them.
pub fn attacks() -> Vec<Attack> {
    let mut attacks: Vec<Attack> = Question::ALL
        .into_iter()
        .flat_map(|question| {
            [
                crowds_out(question, "", |frame, _| frame.to_vec()),
                crowds_out(question, ", cut short", cut),
                crowds_out(question, ", garbled", garbled),
                crowds_out(question, ", in invented clients' names", from_another),
                more_than_its_share(question),
            ]
        })
        .collect();
    attacks.push(cut_solicitations());
    for family in Family::BOTH {
        attacks.extend([segments_to_a_closed_port(family), lies_about_frames(family)]);
    }
    attacks
}

/// What a workload asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Question {
    Discover,
    Request,
    Inform,
    Solicit,
    InformationRequest,
    RouterSolicitation,
}

impl Question {
    const ALL: [Question; 6] = [
        Question::Discover,
        Question::Request,
        Question::Inform,
        Question::Solicit,
        Question::InformationRequest,
        Question::RouterSolicitation,
    ];

    fn name(self) -> &'static str {
        match self {
            Question::Discover => "DHCPDISCOVER",
            Question::Request => "DHCPREQUEST",
            Question::Inform => "DHCPINFORM",
            Question::Solicit => "DHCPv6 SOLICIT",
            Question::InformationRequest => "DHCPv6 INFORMATION-REQUEST",
            Question::RouterSolicitation => "router solicitation",
        }
    }

    fn family(self) -> Family {
        match self {
            Question::Discover | Question::Request | Question::Inform => Family::V4,
            _ => Family::V6,
        }
    }

    /// As the workload of that port asks it.
    fn frame(self, world: &World, port: PortId) -> Frame {
        let mac = world.host.mac(port);
        self.asked_by(mac, mac, world.host.address(port, Family::V4))
    }

    fn asked_by(self, src: Mac, client: Mac, addr: IpAddr) -> Frame {
        let IpAddr::V4(own) = addr else {
            unreachable!()
        };
        let (ends, payload) = match self {
            Question::Discover => v4(1, Ipv4Addr::UNSPECIFIED, client, own),
            Question::Request => v4(3, Ipv4Addr::UNSPECIFIED, client, own),
            Question::Inform => v4(8, own, client, own),
            Question::Solicit => v6(1, client),
            Question::InformationRequest => v6(11, client),
            Question::RouterSolicitation => {
                let all_routers = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 2);
                let ends = Ends::new(client.link_local(), all_routers);
                let own = [NdOption::SourceLinkLayer(client)];
                (ends, router_solicitation(ends, &own))
            }
        };
        let dst = match ends.dst {
            IpAddr::V4(_) => Mac::BROADCAST,
            IpAddr::V6(group) => Mac::for_ipv6_multicast(group),
        };
        ether_ip(Ether { src, dst }, &Ip::ttl(255).packet(ends, &payload))
    }
}

fn v4(kind: u8, src: Ipv4Addr, client: Mac, wanted: Ipv4Addr) -> (Ends, Payload) {
    let ends = Ends::new(src, Ipv4Addr::BROADCAST);
    let message = dhcpv4_request(kind, client, wanted);
    (ends, udp(ends, 68, 67, &message))
}

fn v6(kind: u8, client: Mac) -> (Ends, Payload) {
    let servers = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 1, 2);
    let ends = Ends::new(client.link_local(), servers);
    (ends, udp(ends, 546, 547, &dhcpv6_request(kind, client)))
}

/// Subnets that use all there is to ask for.
fn all_protocols(setting: &mut Setting) {
    for subnet in setting.cloud.intent.subnets.values_mut() {
        if Family::of(subnet.cidr.addr()) == Family::V6 {
            subnet.ipv6_ra_mode = Some(Ipv6Mode::Dhcpv6Stateful);
            subnet.ipv6_address_mode = Some(Ipv6Mode::Dhcpv6Stateful);
        }
    }
}

/// Whether a frame is an answer of the host to one of the questions.
fn is_answer(frame: &[u8]) -> bool {
    let to_client =
        |f: &[u8]| parse(f).is_some_and(|p| matches!(p.ports, Some((67, 68) | (547, 546))));
    is_icmp(frame, Family::V6, 134) || to_client(frame)
}

fn answers(world: &mut World, port: PortId) -> usize {
    let frames = world.host.port(port).frames();
    frames.iter().filter(|frame| is_answer(frame)).count()
}

/// The n-th frame of a flood, from one that is right.
type Variant = fn(&[u8], usize) -> Frame;

/// Where the Ethernet header ends, and a packet shorter than its header would begin.
const ETHERNET: usize = 14;

fn cut(frame: &[u8], n: usize) -> Frame {
    // What is shorter than its UDP header says nothing of ports, and never gets to who answers.
    let shortest = ETHERNET + 48;
    frame[..shortest + n % (frame.len() - shortest)].to_vec()
}

/// Behind the headers that make it a question, one octet in eight is another.
fn garbled(frame: &[u8], n: usize) -> Frame {
    let headers = frame.len().min(ETHERNET + 48);
    let mut frame = frame.to_vec();
    let mut state = n as u64 + 1;
    for octet in &mut frame[headers..] {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        let [.., dice, value] = (state >> 40).to_be_bytes();
        if dice % 8 == 0 {
            *octet = value;
        }
    }
    frame
}

fn from_another(frame: &[u8], n: usize) -> Frame {
    let mut frame = frame.to_vec();
    let [.., a, b, c] = n.to_be_bytes();
    frame[6..12].copy_from_slice(&[0xfa, 0x16, 0x3e, a, b, c]);
    frame
}

/// All ports' questions wait in one place for who answers them, who may have something else to do.
fn crowds_out(question: Question, how: &str, variant: Variant) -> Attack {
    let attempt = move |world: &mut World| {
        let mut responder = Responder::new(&world.host);
        let frame = question.frame(world, world.cast.attacker);
        for n in 0..FLOOD {
            world.send(&variant(&frame, n));
        }
        let victim = world.cast.victim;
        let asked = [
            Question::Discover,
            Question::Solicit,
            Question::RouterSolicitation,
        ];
        for question in asked {
            let frame = question.frame(world, victim);
            world.host.send(victim, &frame);
        }
        responder.answer();
        answers(world, victim) < asked.len()
    };
    let name = format!("{}s{how} crowd out a neighbour's", question.name());
    let without = &[Defence::RequestLimit];
    Attack::new(GROUP, name, question.family(), without, attempt).given(all_protocols)
}

/// One that asks so often would keep the host busy with nothing else.
fn more_than_its_share(question: Question) -> Attack {
    let attempt = move |world: &mut World| {
        let mut responder = Responder::new(&world.host);
        let attacker = world.cast.attacker;
        let frame = question.frame(world, attacker);
        for _ in 0..10 * SHARE {
            world.send(&frame);
        }
        responder.answer();
        answers(world, attacker) > SHARE
    };
    let name = format!("all of many {}s are answered", question.name());
    let without = &[Defence::RequestLimit];
    Attack::new(GROUP, name, question.family(), without, attempt).given(all_protocols)
}

/// Solicitations that end too early are neither answered nor do they get to anybody.
fn cut_solicitations() -> Attack {
    let frames = |world: &World| {
        let IpAddr::V6(victim) = world.victim(Family::V6) else {
            unreachable!()
        };
        let ends = Ends::new(world.my_link_local(), solicited_node(victim));
        let options = [NdOption::Mark(MARKER)];
        let packet = Ip::ttl(255).packet(ends, &neighbour_solicitation(ends, victim, &options));
        let whole = world.by_all_ways(&packet);
        let shortest = ETHERNET + 1;
        let cut = |frame: &Frame| {
            let cut = |len| frame[..len].to_vec();
            (shortest..=frame.len()).map(cut).collect::<Vec<_>>()
        };
        whole.iter().flat_map(cut).collect()
    };
    let sign = World::victim_is_hit;
    let name = "solicitations that are cut short get to others";
    Attack::by_frames(GROUP, name, Family::V6, &[Defence::Isolation], frames, sign)
}

/// Makes the attacker's a virtio device, as QEMU's usually are.
pub fn as_virtio(world: &mut World) {
    let attacker = world.cast.attacker;
    world.host.unplug(attacker);
    world.host.plug_virtio(attacker);
    world.host.settle();
}

/// Where the transport's header begins, without any before it.
pub fn transport(family: Family) -> u16 {
    match family {
        Family::V4 => 34,
        Family::V6 => 54,
    }
}

/// Many segments in one frame are judged as one.
fn segments_to_a_closed_port(family: Family) -> Attack {
    let attempt = move |world: &mut World| {
        as_virtio(world);
        let ends = world.to_victim(family);
        let data = MARKER.repeat(2_000);
        let segment = tcp(ends, Tcp::syn(4000, CLOSED), &data);
        let frame = world.plain(ends, &segment);
        let header = VirtioHeader {
            flags: VirtioHeader::NEEDS_CHECKSUM,
            gso_type: match family {
                Family::V4 => VirtioHeader::TCP_V4,
                Family::V6 => VirtioHeader::TCP_V6,
            },
            hdr_len: transport(family) + 20,
            gso_size: 1_000,
            csum_start: transport(family),
            csum_offset: 16,
        };
        let attacker = world.cast.attacker;
        world.host.port(attacker).send_virtio(header, &frame);
        world.victim_is_hit()
    };
    let name = "segments in one frame, to a closed port";
    let without = &[Defence::IngressGroups];
    Attack::new(VIRTIO, name, family, without, attempt)
}

/// Headers that fit nothing, with frames to a closed port: none gets there, and the host goes on.
fn lies_about_frames(family: Family) -> Attack {
    let attempt = move |world: &mut World| {
        as_virtio(world);
        let ends = world.to_victim(family);
        let datagram = world.plain(ends, &udp(ends, 4000, CLOSED, MARKER));
        let segment = world.plain(
            ends,
            &tcp(ends, Tcp::syn(4000, CLOSED), &MARKER.repeat(2_000)),
        );
        let attacker = world.cast.attacker;
        let numbers = [0, 1, 13, 14, 20, 33, 34, 54, 64, 1_000, 40_000, u16::MAX];
        let mut n = 0_usize;
        let mut next = |count: usize| {
            n = n.wrapping_mul(1_103_515_245).wrapping_add(12_345);
            (n >> 16) % count
        };
        for _ in 0..5_000 {
            let number = |n: usize| numbers[n];
            let header = VirtioHeader {
                flags: [0, 1, 2, 3, 0xff][next(5)],
                gso_type: [0, 1, 3, 4, 5, 0x81, 0x84, 0xff][next(8)],
                hdr_len: number(next(numbers.len())),
                gso_size: number(next(numbers.len())),
                csum_start: number(next(numbers.len())),
                csum_offset: number(next(numbers.len())),
            };
            let frame = if next(2) == 0 { &datagram } else { &segment };
            world.host.port(attacker).send_virtio(header, frame);
        }
        let hit = world.victim_is_hit();
        let ends = world.to_victim(family);
        let frame = world.plain(ends, &marked_datagram(ends));
        world.send(&frame);
        assert!(world.victim_is_hit(), "the host does nothing any more");
        hit
    };
    let name = "headers that fit no frame, to a closed port";
    let without = &[Defence::IngressGroups];
    Attack::new(VIRTIO, name, family, without, attempt)
}
