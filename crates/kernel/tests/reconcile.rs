//! Links, addresses, neighbours, routes, rules and sysctls against a real kernel.

#![allow(clippy::expect_used, reason = "in a test, that is how it fails")]

mod support;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use hextet_kernel::{Error, Scope};
use hextet_model::state::{
    Address, EdgeProgram, Key, Link, Neighbour, Netns, NextHop, Object, Route, RouteKey, RouteKind,
    Rule, RuleAction, Sysctl, XfrmPolicy, marks,
};
use hextet_types::{Family, Mac};
use support::{GATEWAY, Host, NamedNetns, isolated, name, run, states, try_run};

fn addr(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

fn link(netns: &Netns, link: &str) -> Object {
    let (netns, name) = (netns.clone(), name(link));
    Object::Link(Link {
        netns,
        name,
        mac: GATEWAY,
        mtu: 1400,
        group: 0,
        up: true,
    })
}

fn program(netns: &Netns, link: &str) -> Object {
    Object::EdgeProgram(EdgeProgram {
        netns: netns.clone(),
        link: name(link),
    })
}

fn address(netns: &Netns, link: &str, text: &str, prefix_len: u8) -> Object {
    let (netns, link, addr) = (netns.clone(), name(link), addr(text));
    Object::Address(Address {
        netns,
        link,
        addr,
        prefix_len,
    })
}

fn neighbour(netns: &Netns, link: &str, text: &str, last: u8) -> Object {
    let mac = Mac::new([2, 0, 0, 0, 0, last]);
    Object::Neighbour(Neighbour {
        netns: netns.clone(),
        link: name(link),
        addr: addr(text),
        mac,
    })
}

fn hop(via: Option<&str>, link: &str) -> NextHop {
    NextHop {
        via: via.map(addr),
        link: name(link),
    }
}

fn route(netns: &Netns, prefix: &str, metric: u32, hops: Vec<NextHop>) -> Object {
    let prefix = prefix.parse().expect("a prefix");
    let key = RouteKey {
        netns: netns.clone(),
        table: 254,
        prefix,
        source: None,
        metric,
    };
    let kind = match hops.is_empty() {
        true => RouteKind::Blackhole,
        false => RouteKind::Unicast(hops),
    };
    Object::Route(Route {
        key,
        kind,
        prefsrc: None,
    })
}

fn rule(family: Family, priority: u32, action: RuleAction) -> Object {
    let mark = Some((marks::FROM_PORT, marks::FROM_PORT | marks::ADMITTED));
    Object::Rule(Rule {
        netns: Netns::Main,
        family,
        priority,
        fwmark: mark,
        iif: None,
        action,
    })
}

fn sysctl(netns: &Netns, path: &str, value: &str) -> Object {
    Object::Sysctl(Sysctl {
        netns: netns.clone(),
        path: path.to_owned(),
        value: value.to_owned(),
    })
}

fn shield(family: Family) -> Object {
    Object::XfrmPolicy(XfrmPolicy {
        netns: Netns::Main,
        family,
        mark: (marks::FROM_PORT, marks::FROM_PORT | marks::ADMITTED),
        priority: 1,
    })
}

/// Two ports with all that belongs to them, an uplink, and the host's own things.
fn host_state(netns: &Netns) -> BTreeMap<Key, Object> {
    let mut objects = vec![
        address(netns, "lo", "169.254.0.1", 32),
        address(netns, "lo", "fe80::1", 128),
        route(netns, "2001:db8:f::/48", 4096, vec![]),
        route(netns, "203.0.113.0/24", 4096, vec![]),
    ];
    for (n, port) in [(1, "tap1"), (2, "tap2")] {
        objects.extend([
            link(netns, port),
            program(netns, port),
            address(netns, port, "fe80::1", 64),
            neighbour(netns, port, &format!("192.0.2.{n}"), n),
            neighbour(netns, port, &format!("2001:db8::{n}"), n),
            route(
                netns,
                &format!("2001:db8::{n}/128"),
                0,
                vec![hop(None, port)],
            ),
        ]);
        let key = RouteKey {
            netns: netns.clone(),
            table: 254,
            prefix: format!("192.0.2.{n}/32").parse().expect("a prefix"),
            source: None,
            metric: 0,
        };
        let kind = RouteKind::Unicast(vec![hop(None, port)]);
        let prefsrc = Some(addr("169.254.0.1"));
        objects.push(Object::Route(Route { key, kind, prefsrc }));
    }
    let spines = || vec![hop(Some("fe80::a"), "up1"), hop(Some("fe80::b"), "up2")];
    for (prefix, metric) in [("::/0", 20), ("0.0.0.0/0", 0), ("2001:db8:7::7/128", 20)] {
        objects.push(route(netns, prefix, metric, spines()));
    }
    let nearer = vec![hop(Some("fe80::b"), "up2")];
    objects.push(route(netns, "198.51.100.9/32", 20, nearer.clone()));
    objects.push(route(netns, "2001:db8:7::9/128", 20, nearer));
    states(objects)
}

fn make_links(run: impl Fn(&str) -> String) {
    for (port, peer) in [
        ("tap1", "peer1"),
        ("tap2", "peer2"),
        ("up1", "far1"),
        ("up2", "far2"),
    ] {
        run(&format!("ip link add {port} type veth peer name {peer}"));
        run(&format!("ip link set {peer} up"));
    }
    run("ip link set up1 up");
    run("ip link set up2 up");
}

#[test]
fn a_host_comes_up_and_is_found_right() {
    isolated(|| {
        make_links(run);
        let mut desired = host_state(&Netns::Main);
        for family in Family::BOTH {
            for object in [rule(family, 10, RuleAction::Blackhole), shield(family)] {
                desired.insert(object.key(), object);
            }
        }
        let mut host = Host::open();
        assert_eq!(host.reconcile(&desired), desired.len());
        assert_eq!(host.kernel.known().len(), desired.len());
        assert!(run("ip -6 rule").contains("10:\tfrom all fwmark 0x100000/0x500000"));
        for family in ["-4", "-6"] {
            let policies = run(&format!("ip {family} xfrm policy"));
            assert!(
                policies.contains("dir in action block priority 1")
                    && policies.contains("mark 0x100000/0x500000"),
                "{policies}"
            );
        }
        assert!(!run("ip -6 addr show tap1").contains("tentative"));
        let route = run("ip route get 192.0.2.1");
        assert!(
            route.contains("dev tap1") && route.contains("src 169.254.0.1"),
            "{route}"
        );
        let mut restarted = Host::open();
        assert_eq!(restarted.reconcile(&desired), 0, "a restart writes nothing");
    });
}

#[test]
fn all_of_it_goes_and_nothing_else() {
    isolated(|| {
        make_links(run);
        run("ip addr add 192.0.2.200/32 dev up1");
        run("ip route add 192.0.2.201/32 dev up1 proto static");
        run("ip neigh add 192.0.2.202 lladdr 02:00:00:00:00:77 dev up1");
        run("ip rule add prio 77 from 192.0.2.200 lookup 77");
        run("tc qdisc add dev up1 clsact");
        run("ip xfrm policy add dir in src 192.0.2.7 dst 192.0.2.200 mark 1 action block");
        run("ip xfrm policy add dir in src ::/0 dst ::/0 action allow");
        let look = || {
            let all = [
                "ip addr",
                "ip route show table all",
                "ip -6 route show table all",
                "ip neigh show nud permanent",
                "ip rule",
                "ip -6 rule",
                "tc qdisc",
                "ip xfrm policy",
            ];
            all.iter().map(|command| run(command)).collect::<String>()
        };
        // What comes of being up belongs to the links, not to us.
        run("ip link set tap1 up && ip link set tap2 up");
        let peers_are_up = || {
            let routes = run("ip -6 route show table all");
            let listens = |peer| routes.contains(&format!("multicast ff00::/8 dev {peer} "));
            ["peer1", "peer2"].into_iter().all(listens)
        };
        let in_time = (0..400).any(|_| {
            std::thread::sleep(std::time::Duration::from_millis(25));
            peers_are_up()
        });
        assert!(in_time, "the peers of tap1 and tap2 do not come up");
        run("ip link set tap1 down && ip link set tap2 down");
        let mut desired = host_state(&Netns::Main);
        for family in Family::BOTH {
            for object in [rule(family, 10, RuleAction::Blackhole), shield(family)] {
                desired.insert(object.key(), object);
            }
        }
        let settings = "ip -br link show tap1; ip -br link show tap2";
        run("ip link set tap1 mtu 1400 address 02:68:78:00:00:01; \
             ip link set tap2 mtu 1400 address 02:68:78:00:00:01");
        let (before, settings_before) = (look(), run(settings));
        let mut host = Host::open();
        host.reconcile(&desired);
        assert_ne!(look(), before);
        assert_eq!(host.reconcile(&BTreeMap::new()), desired.len());
        let normal = |text: &str| {
            let mut lines: Vec<String> = text
                .lines()
                .filter(|line| !line.contains("valid_lft") && !line.contains("fe80::"))
                .map(|line| line.split("qdisc").next().unwrap_or(line).trim())
                // The kernel tells the other end of a lost carrier a moment later.
                .map(|line| line.replace("NO-CARRIER,", "").replace(" linkdown", ""))
                .collect();
            lines.sort();
            lines
        };
        assert_eq!(normal(&look()), normal(&before));
        assert_eq!(run(settings), settings_before);
    });
}

#[test]
fn tampering_is_mended_object_by_object() {
    isolated(|| {
        make_links(run);
        let mut desired = host_state(&Netns::Main);
        for family in Family::BOTH {
            for object in [rule(family, 10, RuleAction::Blackhole), shield(family)] {
                desired.insert(object.key(), object);
            }
        }
        let mut host = Host::open();
        host.reconcile(&desired);
        for tamper in [
            "ip route del 192.0.2.1/32",
            "ip -6 route replace 2001:db8::1/128 dev tap2 proto 104",
            "ip -6 route del 2001:db8::2/128",
            "ip route replace default via inet6 fe80::a dev up1 proto 104",
            "ip route replace 192.0.2.2/32 dev tap2 proto 104 scope link mtu 1300",
            "ip -6 route del 2001:db8:7::7/128 via fe80::a dev up1",
            "ip -6 route add 2001:db8:dead::/48 dev up1 proto 104",
            "ip route replace unreachable 203.0.113.0/24 metric 4096 proto 104",
            "ip neigh replace 192.0.2.1 lladdr 02:00:00:00:00:66 dev tap1 nud permanent",
            "ip neigh replace 192.0.2.2 lladdr 02:00:00:00:00:66 dev tap2 nud stale",
            "ip neigh del 2001:db8::1 dev tap1",
            "ip addr del fe80::1/64 dev tap1",
            "ip addr del 169.254.0.1/32 dev lo",
            "ip link set tap1 down",
            "ip link set tap2 mtu 1500",
            "ip link set tap2 address 02:00:00:00:00:99",
            "ip link set tap1 addrgenmode eui64",
            "tc qdisc del dev tap1 clsact",
            "tc qdisc del dev tap2 clsact && tc qdisc add dev tap2 clsact",
            "tc filter del block 1752694785",
            "tc filter add block 1752694786 pref 5 matchall action pass || \
             tc filter del block 1752694786",
            "ip rule del prio 10",
            "ip -6 rule add prio 10 fwmark 0x100000/0x500000 lookup 9 proto 104",
            "ip xfrm policy flush",
            "ip xfrm policy del dir in src ::/0 dst ::/0 mark 0x100000 mask 0x500000",
            "ip xfrm policy update dir in src ::/0 dst ::/0 mark 0x100000 mask 0x500000 \
             priority 1 action allow",
            "ip xfrm policy add dir in src 192.0.2.7 dst 0.0.0.0/0 mark 0x100000 mask 0x500000 \
             action block",
            "ip xfrm policy add dir in src ::/0 dst ::/0 mark 0x200000 mask 0x200000 action block",
            "ip rule add prio 11 from 192.0.2.7 blackhole proto 104",
        ] {
            run(tamper);
            assert_ne!(
                host.todo(&desired),
                Vec::<String>::new(),
                "{tamper} is not seen"
            );
            assert!(host.reconcile(&desired) > 0, "{tamper}");
        }
    });
}

#[test]
fn a_look_finds_what_others_changed_and_not_what_we_did_meanwhile() {
    isolated(|| {
        make_links(run);
        let mut host = Host::open();
        let mut desired = host_state(&Netns::Main);
        host.reconcile(&desired);
        let mut onlooker = host.kernel.onlooker().expect("sockets");
        let mut look = |host: &mut Host, desired: &BTreeMap<_, _>| {
            let expected = host.kernel.begin_look(desired);
            let seen = std::thread::scope(|scope| scope.spawn(|| onlooker.look(&expected)).join());
            seen.expect("no panic").expect("a look")
        };
        let compare = |host: &mut Host, seen, desired: &BTreeMap<_, _>| {
            let mut look = host.kernel.take_look(seen, desired).expect("sysctls");
            loop {
                if let Some(differing) = host.kernel.compare(&mut look, desired, 3) {
                    return differing;
                }
            }
        };
        run("ip route del blackhole 203.0.113.0/24");
        run("ip neigh del 192.0.2.1 dev tap1");
        let seen = look(&mut host, &desired);
        let (gone, new) = (
            route(&Netns::Main, "2001:db8:f::/48", 4096, vec![]).key(),
            route(&Netns::Main, "198.51.100.0/24", 4096, vec![]),
        );
        desired.remove(&gone);
        desired.insert(new.key(), new.clone());
        let ours = [gone, new.key()];
        assert_eq!(host.kernel.reconcile_keys(&ours, &desired).applied, 2);
        let differing = compare(&mut host, seen, &desired);
        let tampered = [
            neighbour(&Netns::Main, "tap1", "192.0.2.1", 1).key(),
            route(&Netns::Main, "203.0.113.0/24", 4096, vec![]).key(),
        ];
        assert_eq!(differing, BTreeSet::from(tampered));
        assert_eq!(host.kernel.reconcile_keys(&differing, &desired).applied, 2);
        let seen = look(&mut host, &desired);
        assert_eq!(compare(&mut host, seen, &desired), BTreeSet::new());
        assert_eq!(host.reconcile(&desired), 0);
    });
}

#[test]
fn links_that_are_not_there_are_waited_for() {
    isolated(|| {
        let desired = host_state(&Netns::Main);
        let mut host = Host::open();
        let report = host.kernel.reconcile(&Scope::of(&desired)).expect("a dump");
        assert!(report.failed.is_empty(), "{:?}", report.failed);
        assert_eq!(report.applied + report.waiting.len(), desired.len());
        assert_eq!(report.applied, 4, "the addresses on lo and the blackholes");
        make_links(run);
        let waiting: BTreeSet<Key> = report.waiting.into_iter().collect();
        let report = host.kernel.reconcile_keys(&waiting, &desired);
        assert!(report.is_complete(), "{report:?}");
        assert_eq!(host.todo(&desired), Vec::<String>::new());
    });
}

#[test]
fn a_link_that_was_made_anew_gets_everything_again() {
    isolated(|| {
        make_links(run);
        let desired = host_state(&Netns::Main);
        let mut host = Host::open();
        host.reconcile(&desired);
        run("ip link del tap1 && ip link add tap1 type veth peer name peer1");
        let keys = host
            .kernel
            .forget_links(&Netns::Main, &BTreeSet::from([name("tap1")]));
        assert_eq!(keys.len(), 7);
        let report = host.kernel.reconcile_keys(&keys, &desired);
        assert!(report.is_complete(), "{report:?}");
        assert_eq!(report.applied, 7);
        assert_eq!(host.todo(&desired), Vec::<String>::new());
    });
}

#[test]
fn a_route_of_somebody_else_is_in_the_way() {
    isolated(|| {
        make_links(run);
        run("ip route add 192.0.2.1/32 dev up1 proto static");
        run("ip -6 route add 2001:db8::1/128 dev up1 proto static");
        let desired = host_state(&Netns::Main);
        let mut host = Host::open();
        let report = host.kernel.reconcile(&Scope::of(&desired)).expect("a dump");
        let failed: Vec<String> = report.failed.iter().map(|(_, e)| e.to_string()).collect();
        assert_eq!(failed.len(), 2, "{failed:?}");
        assert!(
            failed.iter().all(|e| e.contains("File exists")),
            "{failed:?}"
        );
        assert!(run("ip route show 192.0.2.1/32").contains("dev up1 proto static"));
    });
}

#[test]
fn our_own_route_that_we_had_not_seen_is_replaced() {
    isolated(|| {
        make_links(run);
        let desired = host_state(&Netns::Main);
        let mut host = Host::open();
        host.reconcile(&desired);
        let mut forgetful = Host::open();
        let keys: BTreeSet<Key> = desired.keys().cloned().collect();
        let report = forgetful.kernel.reconcile_keys(&keys, &desired);
        assert!(report.is_complete(), "{report:?}");
    });
}

#[test]
fn another_gateway_address_replaces_the_programs_on_all_ports() {
    isolated(|| {
        make_links(run);
        let desired = host_state(&Netns::Main);
        Host::open().reconcile(&desired);
        let tag = || run("tc filter show block 1752694785");
        let before = tag();
        let directory = tempfile::tempdir().expect("a directory");
        let mut config = support::config(&directory);
        config.gateway_mac = Mac::new([2, 0, 0, 0, 9, 9]);
        let kernel = hextet_kernel::Kernel::open(config).expect("a kernel");
        let mut other = Host { kernel, directory };
        assert_eq!(other.todo(&desired).len(), 2);
        assert_eq!(other.reconcile(&desired), 2);
        assert_ne!(tag(), before);
    });
}

#[test]
fn a_named_namespace_is_programmed_from_outside() {
    let there = NamedNetns::create();
    isolated(|| {
        there.run("ip link set lo up");
        make_links(|command| there.run(command));
        let mut desired = host_state(&there.netns());
        let setting = sysctl(&there.netns(), "net/ipv4/ip_forward", "1");
        desired.insert(setting.key(), setting);
        let mut host = Host::open();
        host.reconcile(&desired);
        assert_eq!(run("ip route"), "");
        assert_eq!(run("cat /proc/sys/net/ipv4/ip_forward"), "0\n");
        assert_eq!(there.run("cat /proc/sys/net/ipv4/ip_forward"), "1\n");
        let routes = there.run("ip -6 route");
        assert!(
            routes.contains("2001:db8::1 dev tap1 proto 104"),
            "{routes}"
        );
    });
}

#[test]
fn a_namespace_that_is_not_there_is_waited_for() {
    isolated(|| {
        let desired = host_state(&Netns::Named("hxk-nowhere".to_owned()));
        let mut host = Host::open();
        let report = host.kernel.reconcile(&Scope::of(&desired)).expect("a dump");
        assert_eq!((report.applied, report.waiting.len()), (0, desired.len()));
    });
}

#[test]
fn sysctls_are_recorded_and_restored() {
    isolated(|| {
        let forward = sysctl(&Netns::Main, "net/ipv4/ip_forward", "1");
        let range = sysctl(&Netns::Main, "net/ipv4/ip_local_port_range", "20000 30000");
        let desired = states([forward.clone(), range]);
        let before = run("sysctl net.ipv4.ip_forward net.ipv4.ip_local_port_range");
        let mut host = Host::open();
        assert_eq!(host.reconcile(&desired), 2);
        run("sysctl -w net.ipv4.ip_forward=0");
        assert_eq!(host.reconcile(&desired), 1, "tampering is mended");
        let config = support::config(&host.directory);
        let kernel = hextet_kernel::Kernel::open(config).expect("a kernel");
        let mut host = Host {
            kernel,
            directory: host.directory,
        };
        let one_left = states([forward]);
        assert_eq!(
            host.reconcile(&one_left),
            1,
            "a restart knows what we changed"
        );
        assert_eq!(host.reconcile(&BTreeMap::new()), 1);
        assert_eq!(
            run("sysctl net.ipv4.ip_forward net.ipv4.ip_local_port_range"),
            before
        );
    });
}

#[test]
fn sysctls_outside_the_allowed_ones_are_refused() {
    isolated(|| {
        let desired = states([sysctl(&Netns::Main, "kernel/panic", "7")]);
        let mut host = Host::open();
        let report = host.kernel.reconcile(&Scope::of(&desired)).expect("a dump");
        let errors: Vec<_> = report.failed.iter().map(|(_, e)| e).collect();
        assert!(
            matches!(errors[..], [Error::SysctlNotAllowed(_)]),
            "{errors:?}"
        );
        assert!(try_run("grep -qx 7 /proc/sys/kernel/panic").is_err());
    });
}

mod random {
    //! From any state to any other, and nothing left to do.

    use proptest::{collection::btree_map, prelude::*, test_runner::TestRunner};

    use super::*;

    fn hops() -> impl Strategy<Value = Vec<NextHop>> {
        prop_oneof![
            Just(vec![]),
            Just(vec![hop(Some("fe80::a"), "up1")]),
            Just(vec![
                hop(Some("fe80::a"), "up1"),
                hop(Some("fe80::b"), "up2")
            ]),
            Just(vec![hop(None, "tap1")]),
            Just(vec![hop(None, "tap2")]),
        ]
    }

    fn object() -> impl Strategy<Value = Object> {
        let main = || Netns::Main;
        let port = || prop_oneof![Just("tap1"), Just("tap2")];
        let owned = prop_oneof![Just("192.0.2.7"), Just("192.0.2.8"), Just("2001:db8::7")];
        let prefix = prop_oneof![
            Just("192.0.2.7/32"),
            Just("2001:db8::7/128"),
            Just("2001:db8:1::/64"),
            Just("0.0.0.0/0"),
            Just("::/0"),
        ];
        let metric = prop_oneof![Just(0u32), Just(7), Just(2000)];
        let family = || prop_oneof![Just(Family::V4), Just(Family::V6)];
        let action = prop_oneof![
            Just(RuleAction::Blackhole),
            Just(RuleAction::Table(7)),
            Just(RuleAction::Table(700))
        ];
        prop_oneof![
            1 => port().prop_map(move |p| link(&main(), p)),
            1 => port().prop_map(move |p| program(&main(), p)),
            1 => port().prop_map(move |p| address(&main(), p, "fe80::1", 64)),
            3 => (port(), owned, 1u8..4).prop_map(move |(p, a, n)| neighbour(&main(), p, a, n)),
            6 => (prefix, metric, hops()).prop_map(move |(p, m, h)| route(&main(), p, m, h)),
            2 => (family(), 10u32..12, action).prop_map(|(f, p, a)| rule(f, p, a)),
            1 => family().prop_map(shield),
            1 => (0u8..2).prop_map(move |n| {
                sysctl(&main(), "net/ipv4/conf/all/send_redirects", &n.to_string())
            }),
        ]
    }

    /// Links that are up and have their address, so that neighbours and routes can stand.
    fn base() -> Vec<Object> {
        ["tap1", "tap2"]
            .map(|port| link(&Netns::Main, port))
            .to_vec()
    }

    #[test]
    fn states_follow_one_another() {
        isolated(|| {
            make_links(run);
            let mut host = Host::open();
            let mut runner = TestRunner::new(ProptestConfig {
                cases: 48,
                failure_persistence: None,
                max_shrink_iters: 0,
                ..ProptestConfig::default()
            });
            let states = btree_map(0usize..64, object(), 0..24);
            let host = std::cell::RefCell::new(&mut host);
            let result = runner.run(&states, |objects| {
                let mut desired = support::states(base());
                desired.extend(support::states(objects.into_values()));
                host.borrow_mut().reconcile(&desired);
                Ok(())
            });
            result.unwrap_or_else(|e| panic!("{e}"));
        });
    }
}
