//! The short way of known flows: what goes by it arrives as all else does, and it ends with what allowed it.

#![allow(clippy::expect_used, reason = "in a test, that is how it fails")]

mod support;

use std::{
    io::ErrorKind,
    net::{IpAddr, UdpSocket},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use hextet_kernel::{netns::Handle, packet::PacketSocket};
use hextet_model::state::Netns;
use hextet_types::Mac;
use support::{
    GATEWAY, run,
    tenant::{
        A, ANYWHERE, B, Compute, Station, UNDERLAY, addrs, group, network_id, one_host, router,
        router_id, two_hosts,
    },
};

/// Longer than anything stays known.
const FORGOTTEN: Duration = Duration::from_millis(100);
/// A flow is busy with so many packets in one go.
const BUSY: u16 = 400;

/// A flow between two guests.
struct Flow {
    from: UdpSocket,
    to: UdpSocket,
}

impl Flow {
    fn open(host: &Compute, (from, to): (IpAddr, IpAddr)) -> Self {
        Flow {
            from: Flow::end(host, 0, (from, to)),
            to: Flow::end(host, 1, (to, from)),
        }
    }

    /// The end of one in a guest.
    fn end(host: &Compute, guest: usize, (own, other): (IpAddr, IpAddr)) -> UdpSocket {
        let netns = Netns::Named(host.guests[guest].0.clone());
        let netns = Handle::open(&netns).expect("a guest");
        let socket = netns.run(|| UdpSocket::bind((own, 7777)));
        let socket = socket.expect("a namespace").expect("a socket");
        socket.connect((other, 7777)).expect("an end");
        socket
            .set_read_timeout(Some(Duration::from_millis(200)))
            .expect("a timeout");
        socket
    }

    /// What has come and waits.
    fn take_all(&self) -> usize {
        self.to.set_nonblocking(true).expect("a socket");
        let mut taken = 0;
        while self.to.recv(&mut [0; 2000]).is_ok() {
            taken += 1;
        }
        self.to.set_nonblocking(false).expect("a socket");
        taken
    }

    /// Sends so many packets; gives how many have come, each as it was sent.
    fn send(&self, count: u16) -> u16 {
        let mut come = 0;
        for n in 0..count {
            let sent = vec![n as u8; usize::from(100 + n)];
            self.from.send(&sent).expect("to send");
            let mut buffer = [0; 2000];
            match self.to.recv(&mut buffer) {
                Ok(len) => {
                    assert_eq!(buffer.get(..len), Some(&sent[..]), "packet {n}");
                    come += 1;
                }
                Err(e) if e.kind() == ErrorKind::WouldBlock => {}
                Err(e) => panic!("{e}"),
            }
        }
        come
    }
}

/// The ones' complement of the sum of 16-bit words (RFC 1071).
fn checksum(octets: &[u8]) -> [u8; 2] {
    let words = octets.chunks(2);
    let word = |two: &[u8]| u32::from(two[0]) << 8 | two.get(1).map_or(0, |low| u32::from(*low));
    let mut sum: u32 = words.map(word).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    (!(sum as u16)).to_be_bytes()
}

/// A packet of such a flow, as its sender's link would have it.
fn frame(macs: [Mac; 2], (from, to): (IpAddr, IpAddr), payload: &[u8]) -> Vec<u8> {
    let length = 8 + payload.len() as u16;
    let ports = [7777_u16.to_be_bytes(), 7777_u16.to_be_bytes()].concat();
    let mut udp = [&ports[..], &length.to_be_bytes(), &[0, 0], payload].concat();
    let [source, destination] = [from, to].map(|addr| match addr {
        IpAddr::V4(addr) => addr.octets().to_vec(),
        IpAddr::V6(addr) => addr.octets().to_vec(),
    });
    let addrs = [source, destination].concat();
    let pseudo = [&addrs[..], &[0, 17], &length.to_be_bytes(), &udp].concat();
    udp[6..8].copy_from_slice(&checksum(&pseudo));
    let (kind, mut ip) = match from {
        IpAddr::V4(_) => {
            let [high, low] = (20 + length).to_be_bytes();
            let head = [0x45, 0, high, low, 0, 0, 0, 0, 64, 17, 0, 0];
            ([8, 0], [&head[..], &addrs].concat())
        }
        IpAddr::V6(_) => {
            let [high, low] = length.to_be_bytes();
            let head = [0x60, 0, 0, 0, high, low, 17, 64];
            ([0x86, 0xdd], [&head[..], &addrs].concat())
        }
    };
    if from.is_ipv4() {
        let sum = checksum(&ip);
        ip[10..12].copy_from_slice(&sum);
    }
    let [to, from] = macs.map(Mac::octets);
    [&to[..], &from, &kind, &ip, &udp].concat()
}

fn flows(host: &Compute) -> [Flow; 2] {
    let pairs: Vec<_> = addrs(A.network, A.n)
        .into_iter()
        .zip(addrs(B.network, B.n))
        .collect();
    let [v4, v6] = pairs[..] else {
        panic!("of each family")
    };
    [v4, v6].map(|ends| Flow::open(host, ends))
}

/// Counts what goes all the way through the namespace of A's network.
fn count_there(host: &Compute) -> impl Fn() -> u64 + use<> {
    let Netns::Named(netns) = host.planner.netns_of(network_id(A.network)) else {
        panic!("a namespace")
    };
    let nft = format!("ip netns exec {netns} nft");
    run(&format!(
        "{nft} 'add table inet t; add counter inet t c; add chain inet t f {{ type filter hook forward priority 10; }}; \
         add rule inet t f udp dport 7777 counter name c'"
    ));
    move || packets(&run(&format!("{nft} list counter inet t c")))
}

/// Counts what arrives at B as it should: from its gateway, three hops on.
fn count_right(host: &Compute) -> impl Fn() -> u64 + use<> {
    let nft = format!("ip netns exec {} nft", host.guests[1].0);
    run(&format!(
        "{nft} 'add table inet t; add counter inet t c; add chain inet t i {{ type filter hook input priority 10; }}; \
         add rule inet t i ether saddr {GATEWAY} ip ttl 61 udp dport 7777 counter name c; \
         add rule inet t i ether saddr {GATEWAY} ip6 hoplimit 61 udp dport 7777 counter name c'"
    ));
    move || packets(&run(&format!("{nft} list counter inet t c")))
}

fn packets(text: &str) -> u64 {
    let rest = text.split_once("packets ").expect("a counter").1;
    let number = rest.split_once(' ').expect("a number").0;
    number.parse().expect("a number")
}

#[test]
fn what_is_known_goes_another_way_and_arrives_the_same() {
    one_host().run(|host| {
        host.apply([router(1, &[1, 2], &[])]);
        let (all_the_way, right) = (count_there(host), count_right(host));
        for flow in flows(host) {
            let before = (all_the_way(), right());
            assert_eq!(flow.send(BUSY), BUSY);
            assert_eq!(right() - before.1, u64::from(BUSY));
            let judged = all_the_way() - before.0;
            assert!(
                judged > 0 && judged < u64::from(BUSY),
                "{judged} were judged"
            );
            // Now and then each flow goes all the way.
            thread::sleep(FORGOTTEN);
            let before = all_the_way();
            assert_eq!(flow.send(1), 1);
            assert_eq!(all_the_way() - before, 1);
        }
    });
}

#[test]
fn each_of_its_packets_has_its_sender_s_address() {
    const OTHER: Mac = Mac::new([2, 0, 0, 9, 9, 9]);
    one_host().run(|host| {
        host.apply([router(1, &[1, 2], &[])]);
        let pairs = addrs(A.network, A.n).into_iter().zip(addrs(B.network, B.n));
        let pairs: Vec<_> = pairs.collect();
        for (flow, ends) in flows(host).iter().zip(pairs) {
            let netns = Netns::Named(host.guests[0].0.clone());
            let netns = Handle::open(&netns).expect("a guest");
            let send = |sender: Mac| {
                assert!(flow.send(20) == 20, "it is known now");
                let frame = frame([GATEWAY, sender], ends, b"by hand");
                let send = || {
                    let link = nix::net::if_::if_nametoindex("eth0").expect("a link");
                    let socket = PacketSocket::of_sender(link, sender).expect("a socket");
                    socket.send(link, &frame).expect("sent");
                };
                netns.run(send).expect("a namespace");
                let mut buffer = [0; 2000];
                flow.to
                    .recv(&mut buffer)
                    .is_ok_and(|len| &buffer[..len] == b"by hand")
            };
            for _ in 0..5 {
                assert!(send(A.mac()), "{ends:?}");
                assert!(!send(OTHER), "{ends:?}: nobody may send under that address");
            }
        }
    });
}

#[test]
fn it_ends_with_the_rules() {
    one_host().run(|host| {
        host.apply([router(1, &[1, 2], &[])]);
        let flows = flows(host);
        for flow in &flows {
            assert_eq!(flow.send(BUSY), BUSY);
        }
        let Netns::Named(netns) = host.planner.netns_of(network_id(A.network)) else {
            panic!("a namespace")
        };
        run(&format!("ip netns exec {netns} nft flush ruleset"));
        thread::sleep(FORGOTTEN);
        for flow in &flows {
            assert_eq!(flow.send(3), 0, "without any rule");
        }
        host.apply([]);
        for flow in &flows {
            assert_eq!(flow.send(BUSY), BUSY, "with the rules again");
        }
    });
}

#[test]
fn between_hosts_it_ends_with_the_rules_of_each() {
    let stations = [10, 11].map(|n| Station {
        network: 1,
        n,
        group: 0,
    });
    let [one, other] = stations;
    let machines = two_hosts(UNDERLAY, [&[one], &[other]]);
    for (machine, station) in machines.iter().zip(stations) {
        machine.run(move |host| host.plug(&[station]));
    }
    let [first, second] = stations.map(|station| addrs(1, station.n));
    for (from, to) in first.into_iter().zip(second) {
        let a = machines[0].run(move |host| Flow::end(host, 0, (from, to)));
        let b = machines[1].run(move |host| Flow::end(host, 0, (to, from)));
        let flow = Flow { from: a, to: b };
        for machine in &machines {
            assert_eq!(flow.send(BUSY), BUSY);
            // It is busy all the time, so that nothing is forgotten because nothing comes.
            let is_over = AtomicBool::new(false);
            let still_comes = thread::scope(|scope| {
                scope.spawn(|| {
                    while !is_over.load(Ordering::Relaxed) {
                        flow.from.send(b"more").expect("to send");
                        thread::sleep(Duration::from_micros(500));
                    }
                });
                machine.run(|host| {
                    let Netns::Named(netns) = host.planner.netns_of(network_id(1)) else {
                        panic!("a namespace")
                    };
                    run(&format!("ip netns exec {netns} nft flush ruleset"));
                });
                thread::sleep(FORGOTTEN);
                flow.take_all();
                thread::sleep(FORGOTTEN);
                is_over.store(true, Ordering::Relaxed);
                flow.take_all()
            });
            assert_eq!(still_comes, 0, "without any rule");
            machine.run(|host| drop(host.apply([])));
        }
    }
}

#[test]
fn it_ends_with_what_the_groups_allow_and_with_the_router() {
    one_host().run(|host| {
        host.apply([router(1, &[1, 2], &[])]);
        let flows = flows(host);
        for flow in &flows {
            assert_eq!(flow.send(BUSY), BUSY);
        }
        host.apply([group(0, &[])]);
        for n in [1, 2] {
            let Netns::Named(netns) = host.planner.netns_of(network_id(n)) else {
                panic!("a namespace")
            };
            // As the agent does with connections that are no longer allowed.
            run(&format!("ip netns exec {netns} conntrack -F"));
        }
        thread::sleep(FORGOTTEN);
        for flow in &flows {
            assert_eq!(flow.send(3), 0, "that no group allows");
        }
        host.apply([group(0, &ANYWHERE)]);
        for flow in &flows {
            assert_eq!(flow.send(BUSY), BUSY);
        }
        host.apply([hextet_model::intent::Change::RemoveRouter(router_id(1))]);
        thread::sleep(FORGOTTEN);
        for flow in &flows {
            assert_eq!(flow.send(3), 0, "without a router");
        }
    });
}
