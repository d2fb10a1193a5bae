//! Babel with babeld 1.12 and BIRD 2: routes of both families, by source, signed, timed; a lack of feasible routes, and who forges.

use std::{
    collections::BTreeMap,
    io::{Read, Write},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddrV6, UdpSocket},
    os::unix::net::UnixStream,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use hextet_babel::{
    Cost, Link, LinkId, NextHopV4, PORT, RttCost, Way,
    engine::Status,
    mac::{Algorithm, Key},
    number::{Interval, Metric},
    packet::Destination,
};
use hextet_lab::{Process, Ready, wait_until};
use hextet_node::{
    babel::{self, Order},
    clock::Clock,
};
use hextet_types::Family;

use socket2::{Domain, Protocol, Socket, Type};

use crate::{
    bird::Bird,
    fabric::{Fabric, LIMIT, wait_for},
};

const SECRET: &str = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";

fn key(algorithm: Algorithm) -> Key {
    let octet = |at| u8::from_str_radix(&SECRET[at..at + 2], 16).unwrap();
    Key::new(algorithm, (0..SECRET.len()).step_by(2).map(octet).collect()).unwrap()
}

fn to(text: &str) -> Destination {
    match text.split_once(" from ") {
        Some((to, from)) => {
            Destination::from_source(to.parse().unwrap(), from.parse().unwrap()).unwrap()
        }
        None => Destination::of(text.parse().unwrap()),
    }
}

type Ways = Arc<Mutex<BTreeMap<Destination, Way>>>;

/// hextet on a host: the agent's driver.
struct Node {
    name: String,
    handle: babel::Handle,
    ways: Ways,
    /// How often any has changed.
    changes: Arc<AtomicUsize>,
}

impl Node {
    fn start(fabric: &Fabric, host: &str, others: &[&str], link: &Link, own: &[&str]) -> Node {
        let number = fabric
            .router_id(host)
            .rsplit('.')
            .next()
            .unwrap()
            .parse()
            .unwrap();
        let start = || {
            babel::start(
                Clock::start(),
                babel::router_id(number),
                babel::Role::default(),
            )
        };
        let mut handle = fabric.node(host).enter(start).unwrap().unwrap();
        let ways = Ways::default();
        let (mut routes, seen) = (handle.routes, Arc::clone(&ways));
        let changes = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&changes);
        thread::spawn(move || {
            while let Some(changes) = routes.blocking_recv() {
                count.fetch_add(changes.len(), Ordering::Relaxed);
                let mut ways = seen.lock().unwrap();
                for (to, way) in changes {
                    match way {
                        Some(way) => ways.insert(to, way),
                        None => ways.remove(&to),
                    };
                }
            }
        });
        (_, handle.routes) = tokio::sync::mpsc::channel(1);
        let node = Node {
            name: host.to_owned(),
            handle,
            ways,
            changes,
        };
        for other in others {
            let [v4, _] = fabric.addresses(host, other);
            let link = Link {
                addr: fabric.link_local(host).parse().unwrap(),
                v4: match link.v4 {
                    NextHopV4::Own(_) => NextHopV4::Own(v4.parse().unwrap()),
                    other => other,
                },
                ..link.clone()
            };
            node.order(Order::Up(link_id(fabric, host, other), link));
        }
        for prefix in own {
            node.order(Order::Originate(to(prefix), Metric::ZERO));
        }
        node
    }

    fn order(&self, order: Order) {
        self.handle.orders.blocking_send(order).unwrap();
    }

    fn status(&self) -> Arc<Status> {
        self.handle.status.borrow().clone()
    }

    /// By which address it gets there: none if by none, `::` if it is unreachable.
    fn way(&self, prefix: &str) -> Option<IpAddr> {
        let way = self.ways.lock().unwrap().get(&to(prefix)).copied()?;
        Some(match way {
            Way::Via { next_hop, .. } => next_hop,
            Way::Unreachable => Ipv6Addr::UNSPECIFIED.into(),
        })
    }

    #[track_caller]
    fn wait_way(&self, prefix: &str, wanted: Option<&str>) {
        let wanted: Option<IpAddr> = wanted.map(|addr| addr.parse().unwrap());
        let came = wait_until(LIMIT, || self.way(prefix) == wanted);
        assert!(
            came,
            "{}: {prefix} by {wanted:?}, not {:?}; {:#?}",
            self.name,
            self.way(prefix),
            self.status()
        );
    }
}

fn link_id(fabric: &Fabric, host: &str, other: &str) -> LinkId {
    let index = || nix::net::if_::if_nametoindex(other);
    LinkId(fabric.node(host).enter(index).unwrap().unwrap())
}

/// Quick, so that tests are: what is lost is missed within two seconds.
fn quick(keys: Vec<Key>) -> Link {
    Link {
        hello: Interval(50),
        update: Interval(200),
        cost: Cost {
            base: Metric(96),
            rtt: Some(RttCost {
                from: Duration::from_millis(1),
                to: Duration::from_millis(200),
                most: Metric(512),
            }),
        },
        keys,
        ..Link::tunnel(Ipv6Addr::LOCALHOST)
    }
}

/// babeld on a host.
struct Babeld<'f> {
    fabric: &'f Fabric,
    host: String,
    process: Arc<Process>,
}

impl<'f> Babeld<'f> {
    /// On those links, each with words of its own; with static routes of the kernel that it tells of.
    fn start(
        fabric: &'f Fabric,
        host: &str,
        key: &str,
        links: &[(&str, &str)],
        own: &[&str],
    ) -> Babeld<'f> {
        let path = |name: &str| fabric.path(host, name).to_str().unwrap().to_owned();
        let (use_key, define_key) = match key {
            "" => (String::new(), String::new()),
            kind => (
                " key k1".to_owned(),
                format!("key id k1 type {kind} value {SECRET}\n"),
            ),
        };
        let mut text = format!(
            "{define_key}default type tunnel hello-interval 0.5 update-interval 2 enable-timestamps true rtt-min 1 \
             rtt-max 200 max-rtt-penalty 512 v4-via-v6 true{use_key}\nrandom-id true\nskip-kernel-setup true\n\
             local-path {}\n",
            path("babeld.sock")
        );
        for (other, words) in links {
            text += &format!("interface {other} {words}\n");
        }
        text += "redistribute local deny\n";
        for prefix in own {
            text += &match prefix.split_once(" from ") {
                Some((to, from)) => format!("redistribute ip {to} eq 0 src-prefix {from} allow\n"),
                None => format!("redistribute ip {prefix} allow\n"),
            };
            let bare = prefix.split(' ').next().unwrap();
            let words = [
                "ip",
                "route",
                "replace",
                "unreachable",
                bare,
                "proto",
                "static",
            ];
            fabric.node(host).run(&words).unwrap();
        }
        text += "redistribute deny\n";
        let config = fabric.write(host, "babeld.conf", &text);
        let (state, pid) = (path("babeld.state"), path("babeld.pid"));
        let command = [
            "babeld",
            "-c",
            config.to_str().unwrap(),
            "-S",
            &state,
            "-I",
            &pid,
            "-d",
            "1",
        ];
        let ready = Ready::Command(
            ["test", "-S", &path("babeld.sock")]
                .map(str::to_owned)
                .into(),
        );
        let process = fabric.run(host, "babeld", "babeld", &command, Some(ready));
        Babeld {
            fabric,
            host: host.to_owned(),
            process,
        }
    }

    /// All that it knows.
    fn dump(&self) -> String {
        let path = self.fabric.path(&self.host, "babeld.sock");
        let mut socket = UnixStream::connect(path).unwrap();
        socket.write_all(b"dump\nquit\n").unwrap();
        let mut said = String::new();
        let _reset = socket.read_to_string(&mut said);
        said
    }

    /// Its chosen route to a prefix; by source, `from ::/0` is any.
    fn route(&self, prefix: &str) -> Option<String> {
        let (to, from) = prefix.split_once(" from ").unwrap_or((prefix, ""));
        let all = self.dump();
        let line = all.lines().find(|line| {
            line.starts_with("add route ")
                && line.contains(&format!("prefix {to} "))
                && line.contains(&format!("from {from}"))
                && line.contains("installed yes")
                && !line.contains("metric 65535")
        });
        line.map(str::to_owned)
    }

    #[track_caller]
    fn wait_route(&self, prefix: &str, wanted: Option<&str>) {
        let came = wait_until(LIMIT, || match (self.route(prefix), wanted) {
            (None, None) => true,
            (Some(line), Some(wanted)) => line.contains(wanted),
            _ => false,
        });
        let log = self.process.log();
        assert!(
            came,
            "babeld: {prefix} with {wanted:?}\n{}\n{log}",
            self.dump()
        );
    }

    fn kill(&self) {
        assert!(self.process.kill());
    }
}

/// Signed and timed: both tell the other of prefixes of both families, and of one by its source. IPv4 goes by addresses of either
/// family (RFC 9229).
fn with_babeld(kind: &str, algorithm: Algorithm, v4: NextHopV4) {
    let fabric = Fabric::new(&[("h1", "p1")]);
    let own_v4 = fabric.addresses("p1", "h1")[0].clone();
    let next_hop_v4 = match v4 {
        NextHopV4::ViaV6 => {
            for host in ["h1", "p1"] {
                fabric
                    .node(host)
                    .run(&["ip", "-4", "address", "flush", "scope", "global"])
                    .unwrap();
            }
            "fe80::2".to_owned()
        }
        _ => own_v4,
    };
    let theirs = [
        "2001:db8:c::/48",
        "10.12.0.0/16",
        "::/0 from 2001:db8:1::/48",
    ];
    let ours = [
        "2001:db8:b::/48",
        "10.11.0.0/16",
        "2001:db8:f::/48 from 2001:db8:c::/48",
    ];
    let p1 = Babeld::start(&fabric, "p1", kind, &[("h1", "")], &theirs);
    let link = Link {
        v4,
        ..quick(vec![key(algorithm)])
    };
    let h1 = Node::start(&fabric, "h1", &["p1"], &link, &ours);
    for prefix in theirs {
        let is_v4 = to(prefix).family() == Family::V4;
        h1.wait_way(prefix, Some(if is_v4 { &next_hop_v4 } else { "fe80::2" }));
    }
    for prefix in ours {
        p1.wait_route(prefix, Some("via fe80::1 if h1"));
    }
    let hop = if v4 == NextHopV4::ViaV6 {
        "via inet6 fe80::1 "
    } else {
        "via 10.1.2.1 "
    };
    let shown = fabric
        .node("p1")
        .run(&["ip", "route", "show", ours[1]])
        .unwrap();
    assert!(shown.contains(hop), "{shown}");
    wait_for("the round trip is known to both", || {
        let rtt = h1.status().links[0].neighbours[0].rtt;
        rtt.is_some_and(|rtt| rtt < Duration::from_millis(500)) && p1.dump().contains(" rtt ")
    });
    // Changes on both sides.
    h1.order(Order::Withdraw(to(ours[1])));
    p1.wait_route(ours[1], None);
    h1.order(Order::Originate(to("10.99.0.0/16"), Metric(7)));
    fabric
        .node("p1")
        .run(&["ip", "route", "del", "unreachable", theirs[0]])
        .unwrap();
    // It is unreachable until babeld has acknowledged that we have none, and then nobody's.
    h1.wait_way(theirs[0], None);
    h1.wait_way(theirs[1], Some(&next_hop_v4));
    p1.kill();
    h1.wait_way(theirs[1], None);
}

#[test]
fn babeld_signed_by_hmac() {
    with_babeld(
        "hmac-sha256",
        Algorithm::HmacSha256,
        NextHopV4::Own(Ipv4Addr::LOCALHOST),
    );
}

#[test]
fn babeld_signed_by_blake2s() {
    with_babeld("blake2s128", Algorithm::Blake2s128, NextHopV4::ViaV6);
}

/// Another key, or none: nothing is taken, either way.
#[test]
fn who_has_no_key_is_not_heard() {
    let fabric = Fabric::new(&[("h1", "p1"), ("h1", "p2")]);
    let p1 = Babeld::start(&fabric, "p1", "", &[("h1", "")], &["2001:db8:c::/48"]);
    let p2 = Babeld::start(
        &fabric,
        "p2",
        "hmac-sha256",
        &[("h1", "")],
        &["2001:db8:d::/48"],
    );
    let link = quick(vec![key(Algorithm::HmacSha256)]);
    let h1 = Node::start(&fabric, "h1", &["p1", "p2"], &link, &["2001:db8:b::/48"]);
    h1.wait_way("2001:db8:d::/48", Some("fe80::3"));
    p2.wait_route("2001:db8:b::/48", Some("via fe80::1"));
    assert_eq!(h1.way("2001:db8:c::/48"), None);
    // babeld without keys takes signed packets; but it has no two-way neighbour.
    assert_eq!(p1.route("2001:db8:b::/48"), None);
    let before = h1.changes.load(Ordering::Relaxed);
    forge(&fabric);
    h1.order(Order::Originate(to("2001:db8:bb::/48"), Metric::ZERO));
    p2.wait_route("2001:db8:bb::/48", Some("via fe80::1"));
    assert_eq!(h1.way("2001:db8:d::/48"), Some("fe80::3".parse().unwrap()));
    assert_eq!(
        h1.changes.load(Ordering::Relaxed),
        before,
        "no route has moved"
    );
}

/// From p2, with its own address and port: a retraction of everything without a code, and octets at random.
fn forge(fabric: &Fabric) {
    let retract_all = [42, 2, 0, 12, 8, 10, 0, 0, 0, 0, 0, 100, 0, 1, 255, 255];
    let index = link_id(fabric, "p2", "h1").0;
    let target = SocketAddrV6::new("fe80::1".parse().unwrap(), PORT, 0, index);
    let send = || {
        // Beside babeld, from its own port.
        let socket = Socket::new(Domain::IPV6, Type::DGRAM, Some(Protocol::UDP)).unwrap();
        socket.set_reuse_address(true).unwrap();
        let any = SocketAddrV6::new(Ipv6Addr::UNSPECIFIED, PORT, 0, 0);
        socket.bind(&any.into()).unwrap();
        let socket = UdpSocket::from(socket);
        socket.send_to(&retract_all, target).unwrap();
        for n in 0..200_u8 {
            let octets: Vec<u8> = (0..n).map(|at| at.wrapping_mul(n) ^ 0x5a).collect();
            let datagram = [&[42, 2, 0, n][..], &octets].concat();
            socket.send_to(&datagram, target).unwrap();
        }
    };
    fabric.node("p2").enter(send).unwrap();
}

/// Two ways to an origin, one much longer. When the short one is gone, the long one is no feasible route before the origin has been
/// asked for a newer number, by the neighbour on that way.
const TRIANGLE: [(&str, &str); 4] = [("h1", "p1"), ("h1", "p2"), ("p1", "p3"), ("p2", "p3")];
const FAR: &str = "rxcost 2000";
const NET: &str = "2001:db8:5::/48";

/// We starve; babeld hands the request on, and answers.
#[test]
fn a_lack_of_feasible_routes_here() {
    let fabric = Fabric::new(&TRIANGLE);
    let p1 = Babeld::start(&fabric, "p1", "", &[("h1", ""), ("p3", "")], &[]);
    let _p2 = Babeld::start(&fabric, "p2", "", &[("h1", ""), ("p3", FAR)], &[]);
    let _p3 = Babeld::start(&fabric, "p3", "", &[("p1", ""), ("p2", FAR)], &[NET]);
    let h1 = Node::start(&fabric, "h1", &["p1", "p2"], &quick(Vec::new()), &[]);
    h1.wait_way(NET, Some("fe80::2"));
    wait_for("the long way is known", || {
        let status = h1.status();
        status
            .routes
            .iter()
            .filter(|route| route.to == to(NET))
            .count()
            == 2
    });
    p1.kill();
    h1.wait_way(NET, Some("fe80::3"));
}

/// babeld starves; we hand the request on, to an origin that is ours, too.
#[test]
fn a_lack_of_feasible_routes_there() {
    let fabric = Fabric::new(&TRIANGLE);
    let near = quick(Vec::new());
    let far = Link {
        cost: Cost {
            base: Metric(2_000),
            rtt: None,
        },
        ..near.clone()
    };
    let p1 = Node::start(&fabric, "p1", &["h1", "p3"], &near, &[]);
    let p2 = Node::start(&fabric, "p2", &["h1"], &near, &[]);
    let addr = |host| fabric.link_local(host).parse().unwrap();
    let on = |host, link: &Link| Link {
        addr: addr(host),
        ..link.clone()
    };
    p2.order(Order::Up(link_id(&fabric, "p2", "p3"), on("p2", &far)));
    let p3 = Node::start(&fabric, "p3", &["p1"], &near, &[NET]);
    p3.order(Order::Up(link_id(&fabric, "p3", "p2"), on("p3", &far)));
    let h1 = Babeld::start(&fabric, "h1", "", &[("p1", ""), ("p2", "")], &[]);
    h1.wait_route(NET, Some("via fe80::2 if p1"));
    drop(p1);
    h1.wait_route(NET, Some("via fe80::3 if p2"));
}

/// BIRD 2.0.12 has neither round trips nor RFC 9229.
#[test]
fn bird_signed_by_hmac() {
    let fabric = Fabric::new(&[("h1", "p1")]);
    let config = format!(
        "log stderr all; router id 10.9.0.1; ipv6 sadr table sadr6;\nprotocol device {{ scan time 1; }}\n\
         protocol static {{ ipv4; route 10.12.0.0/16 unreachable; }}\n\
         protocol static {{ ipv6 sadr {{ table sadr6; }}; route 2001:db8:c::/48 from ::/0 unreachable; \
         route ::/0 from 2001:db8:1::/48 unreachable; }}\n\
         protocol babel b {{ randomize router id yes; ipv4 {{ import all; export all; }};\n\
         ipv6 sadr {{ table sadr6; import all; export all; }};\n\
         interface \"h1\" {{ type wired; limit 2; check link no; hello interval 500 ms; update interval 2 s;\n\
         authentication mac; password {SECRET} {{ algorithm hmac sha256; }}; }}; }}\n"
    );
    let p1 = Bird::start(&fabric, "p1", &config);
    let link = Link {
        v4: NextHopV4::Own(Ipv4Addr::LOCALHOST),
        ..quick(vec![key(Algorithm::HmacSha256)])
    };
    let ours = [
        "2001:db8:b::/48",
        "10.11.0.0/16",
        "2001:db8:f::/48 from 2001:db8:c::/48",
    ];
    let h1 = Node::start(&fabric, "h1", &["p1"], &link, &ours);
    let [v4, _] = fabric.addresses("p1", "h1");
    h1.wait_way("2001:db8:c::/48", Some("fe80::2"));
    h1.wait_way("10.12.0.0/16", Some(&v4));
    h1.wait_way("::/0 from 2001:db8:1::/48", Some("fe80::2"));
    let has = |prefix: &str| p1.ask("show babel routes").contains(prefix);
    for prefix in ours {
        let bare = prefix.split(' ').next().unwrap();
        wait_for(
            &format!("BIRD has {prefix}: {}", p1.ask("show babel routes")),
            || has(bare),
        );
    }
    h1.order(Order::Withdraw(to(ours[0])));
    wait_for("BIRD has it no more", || {
        let all = p1.ask("show babel routes");
        !all.lines()
            .any(|line| line.contains(ours[0]) && !line.contains("65535"))
    });
    p1.ask("disable b");
    h1.wait_way("2001:db8:c::/48", None);
}
