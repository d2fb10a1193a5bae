//! Multicast from end to end: workloads that join groups as workloads do, real agents on three hosts and a real server, and
//! what comes to whom. Both families; and what must not come.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

#[path = "../cloud/mod.rs"]
mod cloud;

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    sync::atomic::{AtomicBool, AtomicU32, Ordering},
    thread,
    time::Duration,
};

use cloud::{Cloud, Guest};
use nix::net::if_::if_nametoindex;
use serde_json::{Value, json};

const V4: Ipv4Addr = Ipv4Addr::new(239, 1, 2, 3);
/// Of mDNS: what is sent there has a link-local source.
const V6: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0xfb);
const PORT: u16 = 5353;

/// A guest with its addresses on its link.
fn guest(cloud: &Cloud, n: usize, host: usize) -> Guest {
    let guest = cloud.guest(n, host, &[]);
    let run = |words: &str| {
        let words: Vec<&str> = words.split(' ').collect();
        guest.place.run(&words).unwrap();
    };
    run("ip link set eth0 up");
    for addr in &guest.own {
        match addr {
            IpAddr::V4(_) => run(&format!("ip addr add {addr}/24 dev eth0")),
            IpAddr::V6(_) => run(&format!("ip addr add {addr}/64 dev eth0 nodad")),
        }
    }
    run("ip route add default via 10.0.0.1");
    guest
}

/// A socket of a guest, by its link.
fn socket(guest: &Guest, group: IpAddr) -> UdpSocket {
    let open = || {
        let any: IpAddr = match group {
            IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        let socket = UdpSocket::bind(SocketAddr::new(any, PORT)).unwrap();
        socket
            .set_read_timeout(Some(Duration::from_millis(100)))
            .unwrap();
        socket
    };
    guest.place.enter(open).unwrap()
}

/// A socket that has joined the group.
fn listener(guest: &Guest, group: IpAddr) -> UdpSocket {
    let socket = socket(guest, group);
    let join = || match (group, guest.own[0]) {
        (IpAddr::V4(group), IpAddr::V4(own)) => socket.join_multicast_v4(&group, &own).unwrap(),
        (IpAddr::V6(group), _) => {
            let link = if_nametoindex("eth0").unwrap();
            socket.join_multicast_v6(&group, link).unwrap();
        }
        _ => panic!("an address of IPv4 comes first"),
    };
    guest.place.enter(join).unwrap();
    socket
}

/// Sends numbers to a group, one after another.
struct Speaker {
    socket: UdpSocket,
    to: SocketAddr,
    next: AtomicU32,
}

impl Speaker {
    fn of(guest: &Guest, group: IpAddr) -> Self {
        let socket = socket(guest, group);
        let link = guest
            .place
            .enter(|| if_nametoindex("eth0").unwrap())
            .unwrap();
        let to = match group {
            IpAddr::V4(_) => SocketAddr::new(group, PORT),
            IpAddr::V6(group) => std::net::SocketAddrV6::new(group, PORT, 0, link).into(),
        };
        let next = AtomicU32::new(1);
        Speaker { socket, to, next }
    }

    fn says(&self) -> u32 {
        let n = self.next.fetch_add(1, Ordering::Relaxed);
        self.socket.send_to(&n.to_be_bytes(), self.to).unwrap();
        n
    }
}

fn heard(socket: &UdpSocket) -> Option<(u32, IpAddr)> {
    let mut octets = [0; 4];
    let (len, from) = socket.recv_from(&mut octets).ok()?;
    (len == 4).then(|| (u32::from_be_bytes(octets), from.ip()))
}

/// Until each hears what is said now.
fn until_all_hear(cloud: &Cloud, speaker: &Speaker, all: &[UdpSocket]) {
    for (n, socket) in all.iter().enumerate() {
        cloud.until(&format!("listener {n} hears"), || {
            speaker.says();
            heard(socket).is_some()
        });
    }
}

/// Until what comes to a guest is nothing of the group.
fn until_none_comes(cloud: &Cloud, speaker: &Speaker, guest: &Guest) {
    const MANY: u64 = 50;
    let came = || {
        let words = ["ip", "-j", "-s", "link", "show", "eth0"];
        let shown = guest.place.run(&words).unwrap();
        let links: Vec<Value> = serde_json::from_str(&shown).unwrap();
        links[0]["stats64"]["rx"]["packets"].as_u64().unwrap()
    };
    cloud.until("nothing comes any more", || {
        let before = came();
        for _ in 0..MANY {
            speaker.says();
        }
        thread::sleep(Duration::from_millis(100));
        came() - before < MANY / 2
    });
}

fn open(cloud: &Cloud, guest: &Guest) {
    let group = cloud.port(&guest.port)["security_groups"][0].clone();
    for family in ["IPv4", "IPv6"] {
        let rule = json!({
            "security_group_id": group, "direction": "ingress", "ethertype": family,
        });
        cloud.admin.create("security_group_rule", &rule).unwrap();
    }
}

#[test]
fn who_joins_hears_on_all_hosts_whoever_dies_meanwhile() {
    let mut cloud = Cloud::up();
    let speaks = guest(&cloud, 1, 1);
    let hear = [(2, 1), (3, 2), (4, 3)].map(|(n, host)| guest(&cloud, n, host));
    let stranger = guest(&cloud, 5, 2);
    open(&cloud, &speaks);
    for group in [IpAddr::from(V4), V6.into()] {
        let speaker = Speaker::of(&speaks, group);
        let own = speaks.own[usize::from(group.is_ipv6())];
        let listeners = hear.each_ref().map(|guest| listener(guest, group));
        // On another port nobody has joined it.
        let deaf = socket(&stranger, group);
        until_all_hear(&cloud, &speaker, &listeners);
        let lost = none_is_lost(&mut cloud, &speaker, &listeners, own);
        assert_eq!(lost, [0; 3], "{group}");
        assert_eq!(heard(&deaf), None, "{group}");
        let [one, rest @ ..] = listeners;
        drop(one);
        until_none_comes(&cloud, &speaker, &hear[0]);
        until_all_hear(&cloud, &speaker, &rest);
    }
}

/// How many of the numbers that are sent while an agent dies and comes again each listener does not hear.
fn none_is_lost(
    cloud: &mut Cloud,
    speaker: &Speaker,
    listeners: &[UdpSocket; 3],
    own: IpAddr,
) -> [usize; 3] {
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let hearing = listeners.each_ref().map(|socket| {
            scope.spawn(|| {
                let mut all = BTreeSet::new();
                loop {
                    match heard(socket) {
                        Some((n, from)) => {
                            assert_eq!(from, own);
                            all.insert(n);
                        }
                        None if over.load(Ordering::Relaxed) => return all,
                        None => {}
                    }
                }
            })
        });
        let speaking = scope.spawn(|| {
            let first = speaker.says();
            loop {
                let last = speaker.says();
                if over.load(Ordering::Relaxed) {
                    return first..=last;
                }
                thread::sleep(Duration::from_millis(5));
            }
        });
        for host in 1..=3 {
            cloud.kill_agent(host);
        }
        thread::sleep(Duration::from_secs(1));
        for host in 1..=3 {
            cloud.start_agent(host);
        }
        cloud.until("the agents are there again", || {
            (1..=3).all(|host| cloud.hextet(host, &["status"]).is_ok())
        });
        thread::sleep(Duration::from_secs(2));
        over.store(true, Ordering::Relaxed);
        let sent = speaking.join().unwrap();
        hearing.map(|hearing| {
            let all = hearing.join().unwrap();
            sent.clone().filter(|n| !all.contains(n)).count()
        })
    })
}
