//! What is heard of changes in a namespace, and what is not.

#![allow(clippy::expect_used, reason = "in a test, that is how it fails")]

mod support;

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use hextet_kernel::{
    Scope,
    netlink::{LinkSettings, Monitor, Wake},
    netns::Handle,
};
use hextet_model::state::{Element, Key, KeyType, Netns, Object, Set, Value, XfrmPolicy, marks};
use hextet_types::{Family, Mac};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use support::{
    Host, isolated, name,
    private::{Names, network},
    run, states,
};

fn monitor(ignored: Vec<u32>) -> Monitor {
    let main = Handle::open(&Netns::Main).expect("a namespace");
    Monitor::open(&main, &ignored).expect("a monitor")
}

/// All that is heard until `wanted` is.
fn hear(monitor: &mut Monitor, wanted: &Wake) -> BTreeSet<Wake> {
    let limit = Instant::now() + Duration::from_secs(5);
    let mut heard = BTreeSet::new();
    while !heard.contains(wanted) {
        assert!(
            Instant::now() < limit,
            "{wanted:?} was not heard, only {heard:?}"
        );
        let mut fds = monitor.fds().map(|fd| PollFd::new(fd, PollFlags::POLLIN));
        poll(&mut fds, PollTimeout::from(1000u16)).expect("polled");
        heard.extend(monitor.read().expect("heard").here);
    }
    heard
}

#[test]
fn each_kind_of_change_is_heard() {
    isolated(|| {
        run(
            "ip link add tap1 type veth peer name tap2 && ip link set tap1 up && ip link set tap2 up",
        );
        let mut monitor = monitor(vec![]);
        for (change, wake) in [
            ("ip link set tap1 down", Wake::Link(name("tap1"))),
            ("ip link set tap1 up", Wake::Link(name("tap1"))),
            (
                "ip link set tap1 mtu 1400 address 02:00:00:00:00:0a",
                Wake::LinkSettings(LinkSettings {
                    name: name("tap1"),
                    mac: Some(Mac::new([2, 0, 0, 0, 0, 0x0a])),
                    mtu: 1400,
                    up: true,
                    running: true,
                }),
            ),
            ("ip addr add 192.0.2.1/24 dev tap1", Wake::Addresses),
            (
                "ip neigh add 192.0.2.9 lladdr 02:00:00:00:00:09 dev tap1 protocol 104",
                Wake::Neighbours,
            ),
            (
                "ip route add 198.51.100.0/24 dev tap1 proto 104",
                Wake::Routes(Family::V4),
            ),
            (
                "ip -6 route add 2001:db8::/64 dev tap1 proto 104",
                Wake::Routes(Family::V6),
            ),
            ("ip rule add prio 9 lookup 9", Wake::Rules(Family::V4)),
            ("ip -6 rule add prio 9 lookup 9", Wake::Rules(Family::V6)),
            ("sysctl -qw net.ipv4.ip_forward=1", Wake::Settings),
            ("sysctl -qw net.ipv6.conf.all.forwarding=1", Wake::Settings),
            (
                "ip xfrm policy add dir in src ::/0 dst ::/0 mark 0x100000 mask 0x500000 action block",
                Wake::XfrmPolicies,
            ),
            (
                "ip xfrm policy del dir in src ::/0 dst ::/0 mark 0x100000 mask 0x500000",
                Wake::XfrmPolicies,
            ),
            (
                "ip xfrm policy add dir in src ::/0 dst ::/0 action allow && ip xfrm policy flush",
                Wake::XfrmPolicies,
            ),
            ("nft add table inet hextet", Wake::Table),
            ("nft 'add set inet hextet s { type mark; }'", Wake::Table),
            ("nft 'add element inet hextet s { 1 }'", Wake::Table),
            ("nft flush ruleset", Wake::Table),
            ("ip link del tap1", Wake::Link(name("tap2"))),
        ] {
            run(change);
            hear(&mut monitor, &wake);
            while !monitor.read().expect("heard").is_empty() {}
        }
        run("ip link add tap3 type veth peer name tap4");
        run("tc qdisc add dev tap3 clsact");
        let heard = hear(&mut monitor, &Wake::NewLink(name("tap4")));
        let programs = heard
            .iter()
            .chain(&monitor.read().expect("heard").here)
            .cloned()
            .collect::<Vec<_>>();
        assert!(
            programs.iter().any(|wake| matches!(wake, Wake::Program(_))),
            "{programs:?}"
        );
    });
}

#[test]
fn what_is_foreign_or_our_own_doing_is_not_heard() {
    isolated(|| {
        let mut host = Host::open();
        let mut monitor = monitor(host.kernel.socket_ports(&Netns::Main));
        run("ip route add 198.51.100.0/24 dev lo proto static");
        run("nft add table inet other");
        run("ip xfrm policy add dir in src ::/0 dst ::/0 mark 1 mask 1 action block");
        let set = Set {
            name: "s".into(),
            key: vec![KeyType::Mark],
            verdicts: false,
            data: Vec::new(),
            dynamic: None,
        };
        let policy = XfrmPolicy {
            netns: Netns::Main,
            family: Family::V6,
            mark: (marks::FROM_PORT, marks::MASK),
            priority: 1,
        };
        host.reconcile(&states([
            Object::Set(Netns::Main, set),
            Object::XfrmPolicy(policy),
        ]));
        run("ip rule add prio 9 lookup 9");
        let heard = hear(&mut monitor, &Wake::Rules(Family::V4));
        assert!(!heard.contains(&Wake::Table), "{heard:?}");
        assert!(!heard.contains(&Wake::XfrmPolicies), "{heard:?}");
        assert!(!heard.contains(&Wake::Routes(Family::V4)), "{heard:?}");
    });
}

#[test]
fn nobody_is_told_of_a_large_transaction_of_ours() {
    isolated(|| {
        let mut host = Host::open();
        let mut ours = monitor(host.kernel.socket_ports(&Netns::Main));
        host.kernel.hush(ours.table_hearing());
        let set = Set {
            name: "s".into(),
            key: vec![KeyType::Mark],
            verdicts: false,
            data: Vec::new(),
            dynamic: None,
        };
        let elements = (0..2000).map(|n| {
            let key = vec![Value::U32(n)];
            let set = "s".into();
            let verdict = None;
            Object::Element(
                Netns::Main,
                Element {
                    set,
                    key,
                    verdict,
                    data: Vec::new(),
                },
            )
        });
        let all = states([Object::Set(Netns::Main, set)].into_iter().chain(elements));
        let report = host.kernel.reconcile(&Scope::of(&all)).expect("a dump");
        assert_eq!((report.applied, report.disturbed), (2001, false));
        run("nft add element inet hextet s { 9999 }");
        assert_eq!(hear(&mut ours, &Wake::Table), BTreeSet::from([Wake::Table]));
    });
}

#[test]
fn too_much_at_once_asks_for_a_new_look() {
    isolated(|| {
        run("nft 'add table inet hextet; add set inet hextet s { type mark; }'");
        let mut monitor = monitor(vec![]);
        let elements: Vec<String> = (0..200_000).map(|n| n.to_string()).collect();
        let file = tempfile::NamedTempFile::new().expect("a file");
        let text = format!("add element inet hextet s {{ {} }}", elements.join(","));
        std::fs::write(file.path(), text).expect("written");
        run(&format!("nft -f {}", file.path().display()));
        hear(&mut monitor, &Wake::Resync);
    });
}

/// What is heard of a namespace of ours, until `wanted` is.
fn hear_of(host: &Host, monitor: &mut Monitor, netns: &Netns, wanted: &Wake) -> BTreeSet<Wake> {
    let limit = Instant::now() + Duration::from_secs(5);
    let mut heard = BTreeSet::new();
    while !heard.contains(wanted) {
        assert!(
            Instant::now() < limit,
            "{wanted:?} was not heard, only {heard:?}"
        );
        let mut fds = monitor.fds().map(|fd| PollFd::new(fd, PollFlags::POLLIN));
        poll(&mut fds, PollTimeout::from(1000u16)).expect("polled");
        let news = monitor.read().expect("heard");
        let there = |number: &i32| host.kernel.numbered(*number) == Some(netns);
        let elsewhere = news.elsewhere.into_iter();
        heard.extend(elsewhere.filter(|(n, _)| there(n)).map(|(_, wake)| wake));
        heard.extend(
            news.here
                .into_iter()
                .filter(|w| matches!(w, Wake::Namespace(_))),
        );
    }
    heard
}

#[test]
fn one_monitor_hears_of_all_namespaces_of_ours_and_of_none_what_we_do() {
    isolated(|| {
        const NETWORKS: usize = 40;
        let mut names = Names::none();
        let mut host = Host::open();
        let mut monitor = monitor(host.kernel.socket_ports(&Netns::Main));
        host.kernel.hear_everywhere(monitor.everywhere());
        let networks: Vec<String> = (0..NETWORKS).map(|_| names.unique()).collect();
        let desired = states(networks.iter().flat_map(|hx| network(hx)));
        host.reconcile(&desired);
        let heard = monitor.read().expect("heard").elsewhere;
        let doubted = |wake: &Wake| {
            matches!(
                wake,
                Wake::Table | Wake::Routes(_) | Wake::Neighbours | Wake::Rules(_)
            )
        };
        assert!(!heard.iter().any(|(_, wake)| doubted(wake)), "{heard:?}");
        for hx in [&networks[0], &networks[NETWORKS - 1]] {
            let netns = Netns::Named(hx.clone());
            for (change, wake) in [
                (
                    "ip route add 198.51.100.0/24 dev lo proto 104",
                    Wake::Routes(Family::V4),
                ),
                ("nft flush ruleset", Wake::Table),
                ("sysctl -qw net.ipv6.conf.all.forwarding=0", Wake::Settings),
                ("ip link set lo down", Wake::Link(name("lo"))),
            ] {
                run(&format!("ip netns exec {hx} {change}"));
                hear_of(&host, &mut monitor, &netns, &wake);
            }
        }
        let gone = &networks[0];
        run(&format!("ip netns del {gone}"));
        let netns = Netns::Named(gone.clone());
        hear_of(&host, &mut monitor, &netns, &Wake::Namespace(gone.clone()));
        let lost = host.kernel.forget_namespaces([netns.clone()].into());
        assert!(
            lost.iter()
                .all(|key| key.netns() == &netns || *key == Key::Namespace(gone.clone()))
        );
        let report = host.kernel.reconcile_keys(&lost, &desired);
        assert!(
            report.is_complete() && report.applied == lost.len(),
            "{report:?}"
        );
        // One that is there is not forgotten, whatever its name has been through.
        assert_eq!(
            host.kernel.forget_namespaces([netns].into()),
            BTreeSet::new()
        );
    });
}
