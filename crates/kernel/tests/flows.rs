//! The short way of known flows: what goes by it arrives as all else does, and it ends with what allowed it.

#![allow(clippy::expect_used, reason = "in a test, that is how it fails")]

mod support;

use std::{
    io::ErrorKind,
    net::{IpAddr, UdpSocket},
    thread,
    time::Duration,
};

use hextet_kernel::netns::Handle;
use hextet_model::state::Netns;
use support::{
    GATEWAY, run,
    tenant::{A, ANYWHERE, B, Compute, addrs, group, network_id, one_host, router, router_id},
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
        let [a, b] = [(0, from), (1, to)].map(|(guest, addr)| {
            let netns = Netns::Named(host.guests[guest].0.clone());
            let netns = Handle::open(&netns).expect("a guest");
            let socket = netns.run(|| UdpSocket::bind((addr, 7777)));
            socket.expect("a namespace").expect("a socket")
        });
        a.connect((to, 7777)).expect("an end");
        b.connect((from, 7777)).expect("an end");
        b.set_read_timeout(Some(Duration::from_millis(200)))
            .expect("a timeout");
        Flow { from: a, to: b }
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
