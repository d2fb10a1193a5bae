//! Much of what is allowed once: the host's tables stay bounded, and the neighbours get what they get
//! without the flood.

use std::net::{Ipv4Addr, Ipv6Addr, UdpSocket};

use hextet_tests::{
    cloud::addr,
    defence::Defence,
    hypervisor::HOST_V4,
    packet::{Ends, Ether, Ip, MARKER, Payload, echo_request, ether_ip, parse, udp},
    wire::Frame,
};
use hextet_types::{Family, Mac};

use crate::{case::Attack, world::World};

const GROUP: &str = "flood";
/// Pings to the gateway in one go; it answers 20 a second.
const PINGS: u16 = 300;

/// All of them.
pub fn attacks() -> Vec<Attack> {
    let mut attacks = vec![pings(), dhcp_to_the_host()];
    attacks.extend(Family::BOTH.map(unreachable));
    attacks
}

/// The gateway answers pings, at its own pace.
fn pings() -> Attack {
    let attempt = |world: &mut World| {
        let ends = Ends::new(world.me(Family::V4), Ipv4Addr::new(169, 254, 0, 1));
        for n in 0..PINGS {
            let frame = world.plain(ends, &echo_request(ends, n, MARKER));
            world.send(&frame);
        }
        let attacker = world.host.port(world.cast.attacker);
        let is_answer = |frame: &Frame| parse(frame).is_some_and(|p| p.ends == ends.back());
        let answers = attacker
            .frames()
            .iter()
            .filter(|frame| is_answer(frame))
            .count();
        answers > usize::from(PINGS) / 2
    };
    Attack::new(
        GROUP,
        "the gateway answers all pings",
        Family::V4,
        &[Defence::HostShield],
        attempt,
    )
}

/// A DHCP server of the host's own (for its management network, say) hears nothing of workloads.
fn dhcp_to_the_host() -> Attack {
    let attempt = |world: &mut World| {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 67)).expect("a port");
        socket.set_nonblocking(true).expect("a socket");
        let ends = Ends::new(Ipv4Addr::UNSPECIFIED, Ipv4Addr::BROADCAST);
        for n in 0..50 {
            let src = Mac::new([2, 0, 0, 0, 1, n]);
            let packet = Ip::default().packet(ends, &udp(ends, 68, 67, MARKER));
            world.send(&ether_ip(
                Ether {
                    src,
                    dst: Mac::BROADCAST,
                },
                &packet,
            ));
        }
        socket.recv(&mut [0; 64]).is_ok()
    };
    let name = "DHCP requests reach a server of the host";
    let without = &[Defence::SourceCheck, Defence::HostShield];
    Attack::new(GROUP, name, Family::V4, without, attempt)
}

/// What the host sends back when it can't deliver is limited by the kernel, and never goes to somebody
/// whose address was borrowed.
fn unreachable(family: Family) -> Attack {
    let attempt = move |world: &mut World| {
        let nowhere = match family {
            Family::V4 => addr(HOST_V4),
            Family::V6 => Ipv6Addr::new(0x2001, 0xdb8, 0xffff, 0, 0, 0, 0, 1).into(),
        };
        let ends = Ends::new(world.victim(family), nowhere);
        for n in 0..50 {
            let payload: Payload = udp(ends, 4000 + n, 9, MARKER);
            let frame = world.plain(ends, &payload);
            world.send(&frame);
        }
        world.victim_is_hit()
    };
    let name = "errors of the host hit somebody else";
    let without = &[Defence::SourceCheck, Defence::HostShield];
    Attack::new(GROUP, name, family, without, attempt)
}
