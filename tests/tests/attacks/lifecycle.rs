//! Moments at which rules do not stand yet, or stand no more; and a table that somebody takes away. The
//! host fails closed: nothing goes out, in, or to the host.

use std::net::{IpAddr, Ipv6Addr, UdpSocket};

use hextet_model::intent::Change;
use hextet_tests::{
    cloud::addr,
    defence::Defence,
    hypervisor::{HOST_V4, HOST_V6, internet, run},
    packet::{Ends, Ip, MARKER, Tcp, parse, tcp, udp},
};
use hextet_types::{Family, IfName};

use crate::{
    case::Attack,
    world::{OPEN, World, marked_datagram},
};

const EDGE: &[Defence] = &[Defence::Edge];

/// All of them.
pub fn attacks() -> Vec<Attack> {
    let mut attacks = Vec::new();
    for family in Family::BOTH {
        for (path, try_path) in PATHS {
            attacks.push(unbound(family, path, *try_path));
            attacks.push(removed(family, path, *try_path));
            for (how, command, without) in TAMPERING {
                attacks.push(tampered(family, path, *try_path, (how, command, without)));
            }
        }
        attacks.push(admin_down(family));
    }
    attacks
}

/// A way that a packet may take, and whether it got through.
type Path = fn(&mut World, Family) -> bool;

const PATHS: &[(&str, Path)] = &[
    ("to the victim", |world, family| {
        let ends = world.to_victim(family);
        let frame = world.plain(ends, &marked_datagram(ends));
        world.send(&frame);
        world.victim_is_hit()
    }),
    ("to the Internet", |world, family| {
        let ends = world.to_internet(family);
        let frame = world.plain(ends, &marked_datagram(ends));
        world.send(&frame);
        world.uplink_is_hit()
    }),
    ("to the host", |world, family| {
        let host = match family {
            Family::V4 => addr(HOST_V4),
            Family::V6 => addr(HOST_V6),
        };
        let socket = UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 3784)).expect("a port");
        socket.set_nonblocking(true).expect("a socket");
        let ends = Ends::new(world.me(family), host);
        let frame = world.plain(ends, &udp(ends, 4000, 3784, MARKER));
        world.send(&frame);
        socket.recv(&mut [0; 64]).is_ok()
    }),
];

/// The port is there and up, the rules of the others stand, and nobody has told the host of it.
fn unbound(family: Family, path: &str, try_path: Path) -> Attack {
    let name = format!("from a port that is not bound yet, {path}");
    let without = &[Defence::UnknownPorts];
    Attack::new("too early", name, family, without, move |world| {
        try_path(world, family)
    })
    .given(|setting| setting.bound = false)
}

/// The port was taken from the host, and its TAP is still there; somebody turns it on.
fn removed(family: Family, path: &str, try_path: Path) -> Attack {
    let name = format!("from a port that was removed, {path}");
    let without = &[Defence::UnknownPorts];
    Attack::new("too late", name, family, without, move |world| {
        let port = world.cast.attacker;
        world.host.tell(Change::RemovePort(port));
        run(
            "ip",
            &["link", "set", IfName::for_port(port).as_str(), "up"],
            "",
        );
        try_path(world, family)
    })
}

/// A port that is administratively down passes nothing, also where somebody turns its link on.
fn admin_down(family: Family) -> Attack {
    let name = "from a port that is administratively down, to the Internet";
    let without = &[Defence::SourceCheck, Defence::EgressGroups];
    Attack::new("too late", name, family, without, move |world| {
        let port = world.cast.attacker;
        let mut down = world.host.intent().ports[&port].clone();
        down.admin_state_up = false;
        world.host.tell(Change::PutPort(Box::new(down)));
        run(
            "ip",
            &["link", "set", IfName::for_port(port).as_str(), "up"],
            "",
        );
        let ends = world.to_internet(family);
        let frame = world.plain(ends, &marked_datagram(ends));
        world.send(&frame);
        world.uplink_is_hit()
    })
}

/// What somebody does to our table, and without what that is an opening.
type Tampering = (&'static str, &'static str, &'static [Defence]);

const TAMPERING: &[Tampering] = &[
    ("all rule sets are flushed", "flush ruleset", EDGE),
    ("our table is deleted", "delete table inet hextet", EDGE),
    ("our table is emptied", "flush table inet hextet", EDGE),
    (
        "our set of ports is emptied",
        "flush set inet hextet ports",
        &[Defence::Edge, Defence::UnknownPorts],
    ),
];

fn tampered(family: Family, path: &str, try_path: Path, tampering: Tampering) -> Attack {
    let (how, command, without) = tampering;
    let command = format!("{command}\n");
    let name = format!("{how}, {path}");
    Attack::new("after tampering", name, family, without, move |world| {
        run("nft", &["-f", "-"], &command);
        try_path(world, family)
    })
}

/// All of them that come from elsewhere.
pub fn from_outside() -> Vec<Attack> {
    Family::BOTH
        .into_iter()
        .flat_map(|f| [inbound(f), from_the_host(f), answered(f)])
        .collect()
}

fn flush() {
    run("nft", &["flush", "ruleset"], "");
}

fn inbound(family: Family) -> Attack {
    let attempt = move |world: &mut World| {
        flush();
        let ends = Ends::new(internet(family), world.victim(family));
        world
            .host
            .send_from_fabric(&Ip::default().packet(ends, &udp(ends, 4000, OPEN, MARKER)));
        world.victim_is_hit()
    };
    let name = "all rule sets are flushed, from the Internet to the victim";
    Attack::new("after tampering", name, family, EDGE, attempt)
}

fn from_the_host(family: Family) -> Attack {
    let attempt = move |world: &mut World| {
        flush();
        let from: IpAddr = match family {
            Family::V4 => addr(HOST_V4),
            Family::V6 => addr(HOST_V6),
        };
        let socket = UdpSocket::bind((from, 0)).expect("a port");
        socket
            .send_to(MARKER, (world.victim(family), OPEN))
            .expect("it is sent");
        world.victim_is_hit()
    };
    let name = "all rule sets are flushed, from the host to the victim";
    Attack::new("after tampering", name, family, EDGE, attempt)
}

/// The host would answer a segment to a closed port by itself, without any program.
fn answered(family: Family) -> Attack {
    let attempt = move |world: &mut World| {
        flush();
        let host = match family {
            Family::V4 => addr(HOST_V4),
            Family::V6 => addr(HOST_V6),
        };
        let ends = Ends::new(world.me(family), host);
        let frame = world.plain(ends, &tcp(ends, Tcp::syn(4000, 179), b""));
        world.send(&frame);
        world.attacker_has(|frame| parse(frame).is_some_and(|p| p.ends == ends.back()))
    };
    let name = "all rule sets are flushed, the host answers";
    Attack::new("after tampering", name, family, EDGE, attempt)
}
