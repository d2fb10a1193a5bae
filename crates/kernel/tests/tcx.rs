//! Ports' programs move from tc to TCX and back, and are replaced there, while traffic passes; what somebody
//! else hung there stays, and what somebody took off comes back.

#![allow(clippy::expect_used, reason = "in a test, that is how it fails")]

mod support;

use std::{
    collections::BTreeMap,
    io::Read as _,
    process::{Child, Command, Stdio},
};

use hextet_kernel::{Config, Kernel};
use hextet_model::state::{EdgeProgram, Key, Link, Netns, Object};
use hextet_types::Mac;
use support::{GATEWAY, Host, NamedNetns, config, isolated, name, run, states, tcx};

const OURS: [&str; 2] = ["hextet_ingress", "hextet_egress"];

fn port(link: &str) -> BTreeMap<Key, Object> {
    states([
        Object::Link(Link {
            netns: Netns::Main,
            name: name(link),
            mac: GATEWAY,
            mtu: 1500,
            group: 0,
            up: true,
        }),
        Object::EdgeProgram(EdgeProgram {
            netns: Netns::Main,
            link: name(link),
        }),
    ])
}

/// A host that has not looked at anything yet.
fn host(tcx: bool, gateway_mac: Mac) -> Host {
    let directory = tempfile::tempdir().expect("a directory");
    let config = Config {
        tcx,
        gateway_mac,
        ..config(&directory)
    };
    let kernel = Kernel::open(config).expect("a kernel");
    Host { kernel, directory }
}

/// The names of the programs on a link, by direction.
fn names(link: &str) -> [Vec<String>; 2] {
    [true, false].map(|ingress| {
        let on = tcx::on(link, ingress).into_iter();
        on.map(|(_, name)| name).collect()
    })
}

fn has_clsact(link: &str) -> bool {
    run(&format!("tc qdisc show dev {link}")).contains("clsact")
}

fn is_by_tcx(link: &str) -> bool {
    names(link) == OURS.map(|name| vec![name.to_owned()])
}

/// Runs a test where the kernel has TCX, with a port `tap1` that is by tc at first, and whose other end has the
/// addresses 192.0.2.5 and 2001:db8::5.
fn with_guest(test: impl FnOnce(&NamedNetns, &BTreeMap<Key, Object>) + Send) {
    if !tcx::is_there() {
        eprintln!("this kernel has no TCX");
        return;
    }
    let guest = NamedNetns::create();
    isolated(|| {
        run("ip addr add 192.0.2.254/32 dev lo; ip addr add 2001:db8::fe/128 dev lo");
        let veth = "link add tap1 type veth peer name eth0 address 02:00:00:00:00:05";
        run(&format!("ip {veth} netns {}", guest.0));
        guest.run("sysctl -qw net.ipv6.conf.all.accept_dad=0 net.ipv6.conf.default.accept_dad=0");
        guest.run("ip link set lo up");
        guest.run("ip link set eth0 up");
        guest.run("ip addr add 192.0.2.5/24 dev eth0");
        guest.run("ip addr add 2001:db8::5/64 dev eth0 nodad");
        for host in ["192.0.2.254", "2001:db8::fe", "fe80::1"] {
            guest.run(&format!("ip neigh add {host} lladdr {GATEWAY} dev eth0"));
        }
        let desired = port("tap1");
        host(false, GATEWAY).reconcile(&desired);
        assert!(has_clsact("tap1"));
        run("ip route add 192.0.2.5/32 dev tap1; ip -6 route add 2001:db8::5/128 dev tap1");
        run("ip neigh add 192.0.2.5 lladdr 02:00:00:00:00:05 dev tap1");
        run("ip neigh add 2001:db8::5 lladdr 02:00:00:00:00:05 dev tap1");
        run("nft 'add table inet t; \
             add chain inet t o { type filter hook output priority 0; }; \
             add rule inet t o meta mark set 0x00400000'");
        test(&guest, &desired);
    });
}

/// Pings from a guest to its host, and to its gateway, which its port's program answers.
struct Pings(Vec<(&'static str, Child)>);

impl Pings {
    fn begin(guest: &NamedNetns) -> Self {
        let hosts = ["192.0.2.254", "2001:db8::fe", "fe80::1%eth0"];
        Pings(
            hosts
                .map(|host| {
                    let mut ping = Command::new("ip");
                    ping.args(["netns", "exec", &guest.0, "ping", "-q", "-i", "0.002", host]);
                    ping.stdout(Stdio::piped());
                    (host, ping.spawn().expect("ping starts"))
                })
                .into(),
        )
    }

    /// Ends them; not one may have been lost.
    fn end(mut self) {
        for (host, ping) in &mut self.0 {
            run(&format!("kill -INT {}", ping.id()));
            let mut text = String::new();
            let mut output = ping.stdout.take().expect("its output");
            output.read_to_string(&mut text).expect("its text");
            let line = text.lines().find(|line| line.contains("transmitted"));
            let numbers: Vec<u64> = line
                .unwrap_or_default()
                .split_whitespace()
                .filter_map(|word| word.parse().ok())
                .collect();
            let [sent, received, ..] = numbers[..] else {
                panic!("{host}: {text}")
            };
            // The last one may have been on its way when it was told to end.
            assert!(sent > 20 && received + 1 >= sent, "{host}: {text}");
            assert!(!text.contains("duplicates"), "{host}: {text}");
        }
    }
}

impl Drop for Pings {
    fn drop(&mut self) {
        for (_, ping) in &mut self.0 {
            let _ = ping.kill();
            let _ = ping.wait();
        }
    }
}

#[test]
fn no_packet_is_lost_on_the_way_to_tcx_and_back_nor_when_programs_change() {
    with_guest(|guest, desired| {
        let pings = Pings::begin(guest);
        let mut gateway = GATEWAY;
        for round in 1..4 {
            let mut by_tcx = host(true, gateway);
            assert_eq!(by_tcx.todo(desired), Vec::<String>::new());
            assert_eq!(by_tcx.reconcile(desired), 0);
            assert!(is_by_tcx("tap1"), "{:?}", names("tap1"));
            for last in [9, 1] {
                let before = tcx::on("tap1", true);
                gateway = Mac::new([2, 0x68, 0x78, 0, round, last]);
                let mut other = host(true, gateway);
                assert_eq!(other.todo(desired).len(), 1);
                assert_eq!(other.reconcile(desired), 1);
                assert!(is_by_tcx("tap1"), "{:?}", names("tap1"));
                assert_ne!(tcx::on("tap1", true), before);
            }
            let mut back = host(false, gateway);
            assert_eq!(back.reconcile(desired), 0);
            assert_eq!(names("tap1"), [vec![], Vec::<String>::new()]);
        }
        assert!(has_clsact("tap1"));
        pings.end();
    });
}

#[test]
fn a_restart_finds_it_and_hangs_the_same_on_new_links() {
    with_guest(|_, desired| {
        host(true, GATEWAY).reconcile(desired);
        let before = tcx::on("tap1", true);
        let mut restarted = host(true, GATEWAY);
        assert_eq!(restarted.reconcile(desired), 0);
        assert_eq!(restarted.kernel.programs_to_move(), 0);
        assert_eq!(tcx::on("tap1", true), before);
        run("ip link add tap2 type veth peer name p2");
        let mut more = desired.clone();
        more.extend(port("tap2"));
        // Without having looked first.
        let mut restarted = host(true, GATEWAY);
        let keys: Vec<Key> = port("tap2").into_keys().collect();
        let report = restarted.kernel.reconcile_keys(&keys, &more);
        assert!(report.is_complete(), "{report:?}");
        assert!(has_clsact("tap2"), "a new link begins with tc");
        assert_eq!(restarted.kernel.programs_to_move(), 1);
        restarted.move_programs();
        assert!(is_by_tcx("tap2"), "{:?}", names("tap2"));
        assert_eq!(tcx::on("tap2", true), before);
        assert_eq!(restarted.todo(&more), Vec::<String>::new());
    });
}

#[test]
fn what_somebody_else_hung_there_stays() {
    with_guest(|guest, desired| {
        for ingress in [true, false] {
            tcx::attach_foreign("tap1", ingress, true);
        }
        let mut ours = host(true, GATEWAY);
        ours.reconcile(desired);
        for ingress in [true, false] {
            tcx::attach_foreign("tap1", ingress, false);
        }
        assert_eq!(ours.todo(desired), Vec::<String>::new());
        let [first, last] =
            OURS.map(|name| [name, "foreign", "foreign"].map(str::to_owned).to_vec());
        assert_eq!(names("tap1"), [first, last], "ours go first");
        // Somebody may go before us, too.
        tcx::attach_foreign("tap1", true, true);
        assert_eq!(names("tap1")[0][..2], ["foreign", OURS[0]]);
        assert_eq!(ours.todo(desired), Vec::<String>::new());
        tcx::detach("tap1", true, "foreign");
        guest.run("ping -q -c1 -W2 192.0.2.254");
        host(true, Mac::new([2, 0x68, 0x78, 0, 9, 9])).reconcile(desired);
        assert!(host(true, GATEWAY).reconcile(&BTreeMap::new()) > 0);
        let left = names("tap1");
        assert!(
            left.iter().flatten().all(|name| name == "foreign"),
            "{left:?}"
        );
        assert_eq!(left.map(|names| names.len()), [2, 2]);
        assert!(!has_clsact("tap1"));

        // A link with a clsact of somebody else gets its programs by TCX at once.
        run("tc qdisc add dev tap1 clsact");
        let mut ours = host(true, GATEWAY);
        ours.reconcile(desired);
        assert!(names("tap1").iter().flatten().any(|name| name == OURS[0]));
        guest.run("ping -q -c1 -W2 fe80::1%eth0");
        assert!(ours.reconcile(&BTreeMap::new()) > 0);
        assert!(has_clsact("tap1"), "it is not ours");
    });
}

#[test]
fn what_somebody_took_off_comes_back() {
    with_guest(|guest, desired| {
        let mut ours = host(true, GATEWAY);
        ours.reconcile(desired);
        let ping_all = || {
            for host in ["192.0.2.254", "2001:db8::fe", "fe80::1%eth0"] {
                guest.run(&format!("ping -q -c1 -W2 {host}"));
            }
        };
        for off in [&[0][..], &[1], &[0, 1]] {
            for direction in off {
                tcx::detach("tap1", *direction == 0, OURS[*direction]);
            }
            // What hangs there by tc steps in, until it is seen and mended.
            ping_all();
            assert_eq!(ours.todo(desired), Vec::<String>::new());
            assert_eq!(ours.kernel.programs_to_move(), 1);
            ours.move_programs();
            assert!(is_by_tcx("tap1"), "{:?}", names("tap1"));
        }
        run("tc qdisc del dev tap1 clsact");
        assert_eq!(ours.reconcile(desired), 0, "TCX is enough");
        ping_all();
        tcx::detach("tap1", true, OURS[0]);
        assert_eq!(ours.todo(desired).len(), 1, "half of it is not");
        assert_eq!(ours.reconcile(desired), 1);
        ping_all();
        assert!(has_clsact("tap1") && is_by_tcx("tap1"));

        run("tc filter del block 1752694785");
        assert_eq!(ours.todo(desired).len(), 1, "tc must stand in");
        assert_eq!(ours.reconcile(desired), 1);
        tcx::detach("tap1", true, OURS[0]);
        ping_all();

        run("tc qdisc del dev tap1 clsact");
        assert_eq!(host(false, GATEWAY).reconcile(desired), 1);
        assert_eq!(names("tap1"), [vec![], Vec::<String>::new()]);
        ping_all();
        assert_eq!(host(true, GATEWAY).reconcile(desired), 0);
        assert!(host(true, GATEWAY).reconcile(&BTreeMap::new()) > 0);
        assert_eq!(names("tap1"), [vec![], Vec::<String>::new()]);
        assert!(!has_clsact("tap1"));
    });
}
