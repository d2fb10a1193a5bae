//! Moments at which rules do not stand yet, or stand no more; and a table that somebody takes away. The
//! host fails closed: nothing goes out, in, or to the host.

use std::net::{IpAddr, Ipv6Addr, TcpListener, UdpSocket};

use hextet_model::intent::Change;
use hextet_tests::{
    cloud::addr,
    defence::Defence,
    hypervisor::{HOST_V4, HOST_V6, internet, run, set_sysctl},
    packet::{Ends, Ether, Ip, MARKER, Tcp, echo_request, ether_ip, is_marked, parse, tcp, udp},
    wire::Wire,
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
        for (path, try_path) in [&SPOOFED, &PATHS[2]] {
            attacks.push(tampered(family, path, *try_path, NO_PORTS));
        }
        for (path, try_path) in PATHS.iter().chain([&SPOOFED]) {
            for (chains, without) in EMPTIED {
                if let Some((_, without)) = without.iter().find(|(of, _)| of == path) {
                    attacks.extend(
                        chains
                            .iter()
                            .map(|chain| emptied(family, (*path, *try_path), chain, without)),
                    );
                }
            }
        }
        attacks.push(admin_down(family));
        attacks.push(answers_of_the_past(family));
        attacks.push(to_a_neighbour_of_the_host(family));
        attacks.push(from_a_stranger(family));
        attacks.push(pinged(family));
        attacks.push(connected(family));
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

/// What the port's program has checked needs no chain any more for that.
const SPOOFED: (&str, Path) = ("as another to the victim", |world, family| {
    let ends = Ends::new(world.bystander(family), world.victim(family));
    let frame = world.plain(ends, &marked_datagram(ends));
    world.send(&frame);
    world.victim_is_hit()
});

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
    (
        "our table is emptied",
        "flush table inet hextet",
        &[Defence::Edge, Defence::ForwardPolicy],
    ),
];

/// The sources in the programs' map stand, and what is allowed goes on.
const NO_PORTS: Tampering = (
    "our set of ports is emptied",
    "flush set inet hextet ports",
    &[Defence::Edge, Defence::UnknownPorts],
);

fn tampered(family: Family, path: &str, try_path: Path, tampering: Tampering) -> Attack {
    let (how, command, without) = tampering;
    let command = format!("{command}\n");
    let name = format!("{how}, {path}");
    Attack::new("after tampering", name, family, without, move |world| {
        run("nft", &["-f", "-"], &command);
        try_path(world, family)
    })
}

/// By path, without what it is open.
type Openings = &'static [(&'static str, &'static [Defence])];

/// Chains that somebody may empty, and what closes the paths through them.
const EMPTIED: &[(&[&str], Openings)] = &[
    (
        &["prerouting"],
        &[("to the victim", EDGE), ("to the Internet", EDGE)],
    ),
    (
        &["prerouting", "from-port"],
        &[("as another to the victim", EDGE)],
    ),
    (
        &["prerouting", "from-port", "checked"],
        &[("to the host", &[Defence::Edge, Defence::HostShield])],
    ),
    (
        &["input", "to-host"],
        &[("to the host", &[Defence::HostPolicy])],
    ),
    (
        &["forward", "from-workload"],
        &[
            ("to the victim", &[Defence::ForwardPolicy, Defence::Edge]),
            ("to the Internet", &[Defence::ForwardPolicy]),
        ],
    ),
    // Groups are jumped to, so that what they send on to a chain that says nothing comes back to its
    // profile, which drops it.
    (
        &["to-port"],
        &[
            (
                "to the victim",
                &[Defence::ForwardPolicy, Defence::EgressGroups, Defence::Edge],
            ),
            (
                "to the Internet",
                &[Defence::ForwardPolicy, Defence::EgressGroups],
            ),
        ],
    ),
    (
        &["admit"],
        &[(
            "to the victim",
            &[
                Defence::ForwardPolicy,
                Defence::EgressGroups,
                Defence::IngressGroups,
                Defence::Edge,
            ],
        )],
    ),
];

fn empty(chain: &str) {
    run("nft", &["flush", "chain", "inet", "hextet", chain], "");
}

fn emptied(
    family: Family,
    (path, try_path): (&str, Path),
    chain: &'static str,
    without: &[Defence],
) -> Attack {
    let name = format!("the chain {chain} is emptied, {path}");
    Attack::new("after tampering", name, family, without, move |world| {
        empty(chain);
        try_path(world, family)
    })
}

/// A connection that was allowed, and goes on while nothing judges connections.
fn answers_of_the_past(family: Family) -> Attack {
    let without = &[Defence::ForwardPolicy];
    let name = "the chain forward is emptied, to the Internet on a known connection";
    Attack::new("after tampering", name, family, without, move |world| {
        let ends = world.to_internet(family);
        let first = world.plain(ends, &udp(ends, 4000, OPEN, b"first"));
        world.send(&first);
        let answer = udp(ends.back(), OPEN, 4000, b"answer");
        world
            .host
            .send_from_fabric(&Ip::default().packet(ends.back(), &answer));
        empty("forward");
        let again = world.plain(ends, &marked_datagram(ends));
        world.send(&again);
        world.uplink_is_hit()
    })
}

/// To a container, or whatever else is behind the host and none of ours.
fn to_a_neighbour_of_the_host(family: Family) -> Attack {
    let name = "all rule sets are flushed, to a container of the host";
    Attack::new("after tampering", name, family, EDGE, move |world| {
        let (net, container) = match family {
            Family::V4 => ("172.17.0.1/16", "172.17.0.2"),
            Family::V6 => ("fd00:17::1/64", "fd00:17::2"),
        };
        let mut inside = Wire::new(&"docker0".parse().expect("a name")).expect("a link");
        run("ip", &["link", "set", "docker0", "up"], "");
        run("ip", &["address", "add", net, "dev", "docker0"], "");
        let to = ["neighbour", "add", container, "lladdr", "02:00:00:00:00:17"];
        run("ip", &[&to[..], &["dev", "docker0"]].concat(), "");
        flush();
        let ends = Ends::new(world.me(family), addr(container));
        let frame = world.plain(ends, &marked_datagram(ends));
        world.send(&frame);
        inside.has(is_marked)
    })
}

/// From a TAP that nobody has told the host of, and that came while there were no rules.
fn from_a_stranger(family: Family) -> Attack {
    let name = "our table is deleted, from a new TAP to the victim";
    Attack::new("after tampering", name, family, EDGE, move |world| {
        run("nft", &["delete", "table", "inet", "hextet"], "");
        let stranger: IfName = "tapffffffff-ff".parse().expect("a name");
        let tap = Wire::new(&stranger).expect("a link");
        let host_end = "02:00:00:00:00:ff";
        run(
            "ip",
            &["link", "set", stranger.as_str(), "address", host_end, "up"],
            "",
        );
        let path = format!("net/ipv4/conf/{stranger}/rp_filter");
        set_sysctl(&path, "0");
        let ends = Ends::new(internet(family), world.victim(family));
        let frame = ether_ip(
            Ether {
                src: world.my_mac(),
                dst: host_end.parse().expect("an address"),
            },
            &Ip::default().packet(ends, &marked_datagram(ends)),
        );
        tap.send(&frame);
        world.victim_is_hit()
    })
}

fn host(family: Family) -> IpAddr {
    match family {
        Family::V4 => addr(HOST_V4),
        Family::V6 => addr(HOST_V6),
    }
}

/// The answer the egress program would stop; whether the request came in only the host itself can tell.
fn pinged(family: Family) -> Attack {
    let name = "the rules for the host are gone, the host counts a ping";
    let without = &[Defence::HostPolicy];
    Attack::new("after tampering", name, family, without, move |world| {
        empty("input");
        let before = echo_requests(family);
        let ends = Ends::new(world.me(family), host(family));
        let frame = world.plain(ends, &echo_request(ends, 1, MARKER));
        world.send(&frame);
        echo_requests(family) > before
    })
}

/// How many pings the host has taken so far.
fn echo_requests(family: Family) -> u64 {
    let read = |file| std::fs::read_to_string(file).expect("the counters");
    let count = match family {
        Family::V6 => read("/proc/thread-self/net/snmp6")
            .lines()
            .find_map(|line| line.strip_prefix("Icmp6InEchos")?.trim().parse().ok()),
        Family::V4 => {
            let text = read("/proc/thread-self/net/snmp");
            let mut icmp = text.lines().filter(|line| line.starts_with("Icmp: "));
            let (names, values) = (icmp.next(), icmp.next());
            let mut pairs = names
                .into_iter()
                .flat_map(str::split_whitespace)
                .zip(values.into_iter().flat_map(str::split_whitespace));
            pairs
                .find(|(name, _)| *name == "InEchos")
                .and_then(|(_, value)| value.parse().ok())
        }
    };
    count.expect("a counter")
}

/// A connection to a service of the host.
fn connected(family: Family) -> Attack {
    let name = "the rules for the host are gone, a service takes a connection";
    let without = &[Defence::HostPolicy];
    Attack::new("after tampering", name, family, without, move |world| {
        empty("input");
        let _service = TcpListener::bind((Ipv6Addr::UNSPECIFIED, 179)).expect("a port");
        let ends = Ends::new(world.me(family), host(family));
        let frame = world.plain(ends, &tcp(ends, Tcp::syn(4000, 179), b""));
        world.send(&frame);
        run("ss", &["-Htan", "state", "syn-recv"], "").contains(":179")
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
