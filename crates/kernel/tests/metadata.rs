//! The metadata service on a real port: a guest's own TCP and its own client, our packet socket and our TCP.

#![allow(clippy::expect_used, reason = "in a test, that is how it fails")]
#![allow(dead_code, reason = "the support is other tests' too")]

mod support;

use std::{
    collections::BTreeMap,
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use hextet_kernel::{links::Links, packet::PacketSocket};
use hextet_metadata::{
    ADDRESS_LINK_LOCAL, ADDRESS_V4, ADDRESS_V6, Action, Event, Facts, Metadata, PortConfig,
};
use hextet_model::state::{EdgeProgram, Link, Netns, Object, marks};
use hextet_types::{Mac, Time};
use support::{GATEWAY, Host, NamedNetns, each_way, name, run, states, try_run};

const GUEST: Mac = Mac::new([2, 0, 0, 0, 0, 5]);
/// As much as the API takes.
const USER_DATA: usize = 65_535;

fn facts() -> Facts {
    Facts {
        instance_id: "i-5".to_owned(),
        project_id: "p".to_owned(),
        hostname: "guest".to_owned(),
        public_keys: BTreeMap::from([("k".to_owned(), "ssh-ed25519 AAAA k".to_owned())]),
        meta: BTreeMap::new(),
        user_data: Some(vec![b'u'; USER_DATA]),
        availability_zone: "nova".to_owned(),
        link: hextet_metadata::document::Link {
            port_id: "c0de".to_owned(),
            name: "tap1".to_owned(),
            mac: GUEST,
            mtu: 1400,
            network_id: "feed".to_owned(),
            addresses: Vec::new(),
            dns_servers: Vec::new(),
        },
        by_nova: false,
    }
}

/// A port with its program, and a guest on it that has routes by way of its gateway.
fn with_guest(test: impl Fn(&NamedNetns) + Sync) {
    each_way(|| {
        let guest = NamedNetns::create();
        run("sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1");
        run(&format!(
            "ip link add tap1 type veth peer name eth0 address {GUEST} netns {}",
            guest.0
        ));
        let netns = Netns::Main;
        let link = name("tap1");
        let edge = Object::EdgeProgram(EdgeProgram {
            netns: netns.clone(),
            link: link.clone(),
        });
        let link = Object::Link(Link {
            netns,
            name: link,
            mac: GATEWAY,
            mtu: 1400,
            group: 0,
            up: true,
        });
        guest.run("ip link set lo up");
        guest.run("ip link set eth0 mtu 1400 up");
        Host::open().reconcile(&states([edge, link]));
        guest.run("ip addr add 192.0.2.5/24 dev eth0");
        guest.run("ip route add default via 192.0.2.1");
        guest.run("ip addr add 2001:db8::5/64 dev eth0 nodad");
        guest.run("ip -6 route add default via fe80::1 dev eth0");
        let limit = Instant::now() + Duration::from_secs(10);
        while guest.run("ip -6 addr show dev eth0").contains("tentative") {
            assert!(
                Instant::now() < limit,
                "the guest's link-local address stays tentative"
            );
            thread::sleep(Duration::from_millis(20));
        }
        test(&guest);
    });
}

/// Serves the port until the test is over.
fn serving(test: impl FnOnce()) {
    struct Over<'a>(&'a AtomicBool);
    impl Drop for Over<'_> {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Relaxed);
        }
    }
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| serve(&over));
        let _over = Over(&over);
        test();
    });
}

fn serve(over: &AtomicBool) {
    let links = Links::open(&Netns::Main)
        .and_then(|mut links| links.list(false))
        .expect("links");
    let port = links
        .iter()
        .find(|link| link.name == name("tap1"))
        .expect("the port");
    let socket = PacketSocket::open(marks::ADMITTED).expect("a socket");
    let start = Instant::now();
    let now = || Time::ZERO + start.elapsed();
    let mut engine = Metadata::new(1);
    engine.set_port(
        port.index,
        PortConfig {
            host_mac: GATEWAY,
            facts: Arc::new(facts()),
        },
    );
    let mut frame = [0; 2048];
    while !over.load(Ordering::Relaxed) {
        let actions = match socket.recv(&mut frame) {
            Ok((link, octets)) => engine.handle(
                Event::Frame {
                    link,
                    bytes: &frame[..octets],
                },
                now(),
            ),
            Err(error) => {
                assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
                thread::sleep(Duration::from_millis(1));
                engine.handle(Event::Timer, now())
            }
        };
        for action in actions {
            match action {
                Action::Send { link, frame } => socket.send(link, &frame).expect("sent"),
                Action::Ask { .. } => panic!("nobody is to be asked"),
            }
        }
    }
}

fn urls() -> [String; 3] {
    [
        format!("http://{ADDRESS_V4}"),
        format!("http://[{ADDRESS_LINK_LOCAL}%25eth0]"),
        format!("http://[{ADDRESS_V6}]"),
    ]
}

#[test]
fn a_guest_is_answered_on_each_address() {
    with_guest(|guest| {
        serving(|| {
            for url in urls() {
                let path = "latest/meta-data/public-keys/0/openssh-key";
                let key = guest.run(&format!("curl -sSf -m 20 -g '{url}/{path}'"));
                assert_eq!(key, "ssh-ed25519 AAAA k", "{url}");
                let count =
                    format!("curl -sSf -m 60 -g '{url}/openstack/latest/user_data' | wc -c");
                let octets = guest.run(&format!("sh -c \"{}\"", count.replace('"', "\\\"")));
                assert_eq!(octets.trim(), USER_DATA.to_string(), "{url}");
            }
        });
    });
}

/// A server of the host's that listens there is not what answers.
#[test]
fn the_kernel_has_no_part_in_it() {
    with_guest(|guest| {
        run(&format!(
            "ip addr add {ADDRESS_V4}/32 dev lo; ip addr add {ADDRESS_V6}/128 dev lo; \
             ip route add 192.0.2.5/32 dev tap1; ip -6 route add 2001:db8::5/128 dev tap1; \
             ip neigh replace 192.0.2.5 lladdr {GUEST} dev tap1; \
             ip neigh replace 2001:db8::5 lladdr {GUEST} dev tap1"
        ));
        run("nft 'add table inet t; \
             add chain inet t i { type filter hook prerouting priority -400; }; \
             add rule inet t i iifname tap1 counter'");
        for url in urls() {
            let asked = format!("ip netns exec {} curl -sf -m 2 -g '{url}/'", guest.0);
            assert!(try_run(&asked).is_err(), "{url} is answered by nobody");
        }
        let _ = try_run(&format!(
            "ip netns exec {} ping -c1 -W0.3 {ADDRESS_V4}",
            guest.0
        ));
        let rules = run("nft list table inet t");
        assert!(rules.contains("counter packets 0 "), "{rules}");
        let _ = try_run(&format!(
            "ip netns exec {} ping -c1 -W0.3 192.0.2.9",
            guest.0
        ));
        let rules = run("nft list table inet t");
        assert!(
            !rules.contains("counter packets 0 "),
            "others are counted: {rules}"
        );
    });
}
