//! Private networks' objects against a real kernel: namespaces, pairs, VXLAN devices and their entries, patches.

#![allow(clippy::expect_used, reason = "in a test, that is how it fails")]

mod support;

use std::{collections::BTreeSet, fs, time::Instant};

use hextet_kernel::{Error, Kernel, Op, Scope};
use hextet_model::state::{Chain, Key, Netns, NftRule, Object, Source, Statement, Verdict, Veth};
use support::{
    GATEWAY, Host, NamedNetns, by_tcx, config, each_way, isolated, name,
    private::{Cloud, Guest, Names, Port, network, port, remote, vxlan},
    run, states, tcx, try_run,
};

/// A network of two ports, one of them here, and a way to another host where the other is.
fn cloud(names: &mut Names) -> (Cloud, String) {
    let mut cloud = Cloud::open();
    let hx = names.unique();
    run(
        "ip link add up0 type veth peer name wire; ip link set wire up; ip link set up0 up; ip addr add 192.0.2.1/24 dev up0",
    );
    run("ip tuntap add tap1 mode tap; ip link set tap1 up");
    cloud.add(network(&hx));
    cloud.add(port(&hx, &Port::nth("tap1", 1)));
    cloud.add([vxlan(&hx, 77, "192.0.2.1")]);
    cloud.add(remote(&hx, "192.0.2.2", &[Port::nth("there", 2)]));
    (cloud, hx)
}

fn within(hx: &str, command: &str) -> String {
    run(&format!("ip netns exec {hx} {command}"))
}

#[test]
fn everything_is_made_read_back_and_removed() {
    each_way(|| {
        let mut names = Names::none();
        let (mut cloud, hx) = cloud(&mut names);
        let applied = cloud.reconcile();
        assert_eq!(applied, cloud.desired.len());
        let links = within(&hx, "ip -d link");
        for part in ["vxlan id 77", "local 192.0.2.1", "nolearning", "ptap1@"] {
            assert!(links.contains(part), "{part} in {links}");
        }
        assert!(!within(&hx, "ip -6 addr").contains("fe80"));
        assert!(!run("ip -6 addr show dev otap1").contains("fe80"));
        // The outer socket is the main namespace's.
        assert!(run("ss -uln").contains(":4789"));
        assert!(!within(&hx, "ss -uln").contains(":4789"));
        if by_tcx() {
            for link in ["tap1", "otap1"] {
                assert_eq!(tcx::on(link, true)[0].1, "hextet_patch");
            }
        }
        // Another start finds all of it.
        assert_eq!(Host::open().reconcile(&cloud.desired), 0);
        cloud.desired.clear();
        cloud.reconcile();
        assert!(!fs::exists(format!("/run/netns/{hx}")).expect("looked"));
        assert_eq!(try_run("ip link show dev otap1").ok(), None);
        assert_eq!(run("tc qdisc show dev tap1 clsact"), "");
        assert!(!tcx::is_there() || tcx::on("tap1", true).is_empty());
        assert!(!run("ss -uln").contains(":4789"));
        // And once more, at once.
        let (mut again, _) = (
            Cloud {
                host: Host::open(),
                desired: states([network(&hx), vec![vxlan(&hx, 77, "192.0.2.1")]].concat()),
            },
            (),
        );
        again.reconcile();
    });
}

#[test]
fn what_somebody_changes_is_mended() {
    each_way(|| {
        let mut names = Names::none();
        let (mut cloud, hx) = cloud(&mut names);
        cloud.reconcile();
        let inside = [
            "ip link set lo down",
            "ip link set ptap1 down",
            "ip link set ptap1 mtu 1300",
            "ip link set ptap1 address 02:00:00:00:00:99",
            "ip link del ptap1",
            "ip link set vxlan down",
            "ip link set vxlan mtu 1300",
            "ip link del vxlan",
            "ip link set vxlan type vxlan local 192.0.2.7",
            "bridge fdb del 02:fe:00:00:00:02 dev vxlan dst 192.0.2.2",
            "bridge fdb replace 02:fe:00:00:00:02 dev vxlan dst 192.0.2.9",
            "bridge fdb add 02:fe:00:00:00:07 dev vxlan dst 192.0.2.9",
            "ip route flush proto 104",
            "ip neigh flush all nud permanent",
            "nft flush ruleset",
            "sysctl -qw net.ipv4.ip_forward=0",
            "tc qdisc del dev ptap1 clsact",
        ];
        let outside = [
            "ip link set otap1 down",
            "ip link set otap1 mtu 1300",
            "ip link set otap1 address 02:00:00:00:00:99",
            "ip link set otap1 name other1",
            "ip link del otap1",
            "tc qdisc del dev otap1 clsact",
            "tc qdisc del dev tap1 clsact",
            "ip link del tap1; ip tuntap add tap1 mode tap",
            "tc qdisc del dev tap1 clsact; tc qdisc add dev tap1 ingress",
            &format!("ip netns delete {hx}"),
        ];
        let inside = inside.map(|command| format!("ip netns exec {hx} {command}"));
        for command in inside.iter().map(String::as_str).chain(outside) {
            // A port whose programs run by TCX needs no clsact.
            if by_tcx() && command.contains("ptap1 clsact") {
                continue;
            }
            eprintln!("{command}");
            run(command);
            assert_ne!(cloud.todo(), Vec::<String>::new(), "{command}");
            assert!(cloud.reconcile() > 0, "{command}");
        }
    });
}

#[test]
fn a_device_with_another_identity_is_made_anew_with_what_stood_on_it() {
    isolated(|| {
        let mut names = Names::none();
        let (mut cloud, hx) = cloud(&mut names);
        cloud.reconcile();
        let other = vxlan(&hx, 78, "192.0.2.1");
        let keys = [other.key()];
        cloud.add([other]);
        // By what is known, without a look: what stood on the former device comes again.
        let report = cloud.host.kernel.reconcile_keys(&keys, &cloud.desired);
        assert!(report.is_complete(), "{:?}", report.failed);
        assert_eq!(cloud.todo(), Vec::<String>::new());
        assert_eq!(report.applied, 1 + 2 + 2);
        let moved = Object::Veth(Veth {
            peer: name("elsewhere"),
            ..match &cloud.desired[&Key::Veth(Netns::Named(hx.clone()), name("ptap1"))] {
                Object::Veth(veth) => veth.clone(),
                other => panic!("{other:?}"),
            }
        });
        let mut patch = match &cloud.desired[&Key::Patch(name("tap1"))] {
            Object::Patch(patch) => patch.clone(),
            other => panic!("{other:?}"),
        };
        patch.outer = name("elsewhere");
        let changed = [moved, Object::Patch(patch)];
        let keys = changed.clone().map(|object| object.key());
        cloud.add(changed);
        let report = cloud.host.kernel.reconcile_keys(&keys, &cloud.desired);
        assert!(report.is_complete(), "{:?}", report.failed);
        assert_eq!(cloud.todo(), Vec::<String>::new());
    });
}

#[test]
fn what_is_given_up_in_the_moment_in_which_its_link_changes_goes_too() {
    each_way(|| {
        let mut names = Names::none();
        let (mut cloud, _) = cloud(&mut names);
        cloud.reconcile();
        cloud.host.move_programs();
        // Somebody sets the link, which is heard, and before anything is written the port is no longer ours.
        let kernel = &mut cloud.host.kernel;
        let mut keys = kernel.forget_links(&Netns::Main, &[name("tap1")].into());
        assert!(keys.contains(&Key::Patch(name("tap1"))));
        keys.extend(cloud.desired.keys().cloned());
        cloud.desired.clear();
        let report = kernel.reconcile_keys(&keys, &cloud.desired);
        assert!(report.is_complete(), "{:?}", report.failed);
        assert_eq!(run("tc qdisc show dev tap1 clsact"), "");
        assert!(!tcx::is_there() || tcx::on("tap1", true).is_empty());
        assert_eq!(cloud.todo(), Vec::<String>::new());
    });
}

#[test]
fn a_namespace_of_somebody_else_is_left_alone() {
    isolated(|| {
        let mut names = Names::none();
        let (mut cloud, hx) = cloud(&mut names);
        run(&format!("ip netns add {hx}"));
        within(&hx, "ip link add theirs type bridge");
        within(&hx, "nft add table inet hextet");
        let before = within(&hx, "ip link");
        let report = cloud.host.kernel.reconcile(&Scope::of(&cloud.desired));
        let report = report.expect("a dump");
        let [(op, error)] = report.failed.as_slice() else {
            panic!("{:?}", report.failed);
        };
        assert_eq!(op.key(), Key::Namespace(hx.clone()));
        assert!(error.to_string().contains("somebody else"), "{error}");
        cloud.host.reconcile(&states([]));
        assert_eq!(within(&hx, "ip link"), before);
        assert!(within(&hx, "nft list tables").contains("hextet"));
        // Nor is that of another agent on this machine touched.
        run(&format!("ip netns delete {hx}"));
        cloud.reconcile();
        let others = isolated(|| Host::open().todo(&states([])));
        assert_eq!(others, Vec::<String>::new());
    });
}

#[test]
fn what_others_put_into_a_namespace_stays_and_goes_with_it() {
    isolated(|| {
        let mut names = Names::none();
        let (mut cloud, hx) = cloud(&mut names);
        cloud.reconcile();
        within(&hx, "ip link add theirs type bridge");
        within(&hx, "ip link add theirs1 type veth peer name theirs2");
        within(&hx, "ip route add 198.51.100.0/24 dev lo");
        assert_eq!(cloud.reconcile(), 0);
        assert!(within(&hx, "ip link").contains("theirs"));
        // A link that is in our way is named.
        let pair = Key::Veth(Netns::Named(hx.clone()), name("ptap1"));
        within(&hx, "ip link del ptap1");
        within(&hx, "ip link add ptap1 type bridge");
        let report = cloud.host.kernel.reconcile(&Scope::of(&cloud.desired));
        let report = report.expect("a dump");
        let (_, error) = report
            .failed
            .iter()
            .find(|(op, _)| op.key() == pair)
            .expect("refused");
        assert!(error.to_string().contains("ptap1"), "{error}");
        cloud.host.reconcile(&states([]));
        assert!(!fs::exists(format!("/run/netns/{hx}")).expect("looked"));
    });
}

#[test]
fn fifty_namespaces_stand_and_few_are_held_open() {
    isolated(|| {
        let mut names = Names::none();
        let mut cloud = Cloud::open();
        for n in 1..=50 {
            let (hx, tap) = (names.unique(), format!("tap{n}"));
            run(&format!(
                "ip tuntap add {tap} mode tap; ip link set {tap} up"
            ));
            cloud.add(network(&hx));
            // All networks have the same addresses.
            cloud.add(port(&hx, &Port::nth(&tap, 1)));
        }
        assert_eq!(cloud.reconcile(), cloud.desired.len());
        let held = || {
            let open = fs::read_dir("/proc/self/fd").expect("descriptors");
            let open = open
                .flatten()
                .filter_map(|fd| fs::read_link(fd.path()).ok());
            open.filter(|to| to.to_string_lossy().starts_with("net:"))
                .count()
        };
        let before = held();
        let mut again = Host::open();
        assert_eq!(again.reconcile(&cloud.desired), 0);
        assert!(held() - before <= 34, "{} - {before}", held());
        cloud.desired.clear();
        cloud.reconcile();
        assert!(!run("ip link").contains("otap"));
    });
}

#[test]
fn ports_in_namespaces_have_indexes_that_no_other_port_has() {
    isolated(|| {
        let mut names = Names::none();
        let mut cloud = Cloud::open();
        let networks = [names.unique(), names.unique()];
        let mut indexes = Vec::new();
        for (hx, tap) in networks.iter().zip(["tap1", "tap2"]) {
            run(&format!(
                "ip tuntap add {tap} mode tap; ip link set {tap} up"
            ));
            cloud.add(network(hx));
            cloud.add(port(hx, &Port::nth(tap, 1)));
        }
        cloud.reconcile();
        for (hx, tap) in networks.iter().zip(["tap1", "tap2"]) {
            let inner = within(hx, &format!("cat /sys/class/net/p{tap}/ifindex"));
            let outer = run(&format!("ip -o link show o{tap}"));
            assert!(outer.starts_with(&format!("{}:", inner.trim())), "{outer}");
            indexes.push(inner);
        }
        assert_ne!(indexes[0], indexes[1]);
        // The source of one says nothing of the other, which has the same.
        let gone = port(&networks[0], &Port::nth("tap1", 1));
        let sources = gone.iter().filter(|o| matches!(o, Object::Source(_)));
        for source in sources {
            cloud.desired.remove(&source.key());
        }
        assert_eq!(cloud.reconcile(), 2);
    });
}

#[test]
fn ports_reach_each_other_and_not_those_of_another_network() {
    each_way(|| {
        let mut names = Names::none();
        let mut cloud = Cloud::open();
        let (red, blue) = (names.unique(), names.unique());
        let ports = [("red1", 1), ("red2", 2), ("blue1", 1), ("blue3", 3)];
        let ports = ports.map(|(tap, n)| Port::nth(tap, n));
        let guests = ports.each_ref().map(Guest::plug);
        for (hx, ports) in [(&red, &ports[..2]), (&blue, &ports[2..])] {
            cloud.add(network(hx));
            for one in ports {
                cloud.add(port(hx, one));
            }
        }
        cloud.reconcile();
        let [red1, _, blue1, blue3] = &guests;
        for addr in &ports[1].addrs {
            assert!(red1.reaches(addr, 1300), "{addr}");
            assert!(!blue1.reaches(addr, 56), "{addr} from another network");
        }
        for addr in &ports[2].addrs {
            assert!(blue3.reaches(addr, 56), "{addr}");
        }
        // A patch follows a link that is another one now.
        drop(guests);
        for one in &ports {
            // The namespace's end, which goes by itself, takes its time.
            let _ = try_run(&format!("ip link del {}", one.tap));
        }
        let guests = ports.each_ref().map(Guest::plug);
        cloud.reconcile();
        assert!(guests[0].reaches(&ports[1].addrs[1], 56));
        // Without its patch a port is closed, and the host answers nothing.
        cloud.desired.remove(&Key::Patch(name("red1")));
        cloud.reconcile();
        assert!(!guests[0].reaches(&ports[1].addrs[0], 56));
    });
}

/// Reads the kernel by another thread's eyes, compares, and mends what differs; how much that was.
fn look(cloud: &mut Cloud) -> usize {
    let kernel = &mut cloud.host.kernel;
    let mut onlooker = kernel.onlooker().expect("eyes");
    let expected = kernel.begin_look(&cloud.desired);
    let seen = onlooker.look(&expected).expect("a look");
    let mut look = kernel.take_look(seen, &cloud.desired).expect("sysctls");
    let differing = loop {
        if let Some(differing) = kernel.compare(&mut look, &cloud.desired, 7) {
            break differing;
        }
    };
    let report = kernel.reconcile_keys(&differing, &cloud.desired);
    assert!(
        report.is_complete(),
        "{:?} {:?}",
        report.failed,
        report.waiting
    );
    report.applied
}

#[test]
fn programs_of_patches_go_where_they_shall_be() {
    each_way(|| {
        if !by_tcx() {
            return;
        }
        let mut names = Names::none();
        let (mut cloud, _) = cloud(&mut names);
        cloud.reconcile();
        // Taken off one link, it is there by tc until it is moved again.
        tcx::detach("otap1", true, "hextet_patch");
        assert_eq!(cloud.todo(), Vec::<String>::new());
        assert_eq!(cloud.host.kernel.programs_to_move(), 1);
        cloud.host.move_programs();
        assert_eq!(tcx::on("otap1", true).len(), 1);
        // Who shall have no TCX takes all of it off.
        let mut config = config(&cloud.host.directory);
        config.tcx = false;
        cloud.host.kernel = Kernel::open(config).expect("a kernel");
        cloud.reconcile();
        for link in ["tap1", "otap1"] {
            assert_eq!(tcx::on(link, true), []);
        }
    });
}

#[test]
fn a_pair_joins_a_network_and_a_router() {
    isolated(|| {
        let mut names = Names::none();
        let (mut cloud, hx) = cloud(&mut names);
        // Names are each namespace's own.
        run("ip link add vxlan type veth peer name router");
        let hr = names.unique();
        cloud.add(network(&hr));
        let pair = |mtu| {
            Object::Veth(Veth {
                netns: Netns::Named(hx.clone()),
                name: name("router"),
                mac: GATEWAY,
                mtu,
                peer_netns: Netns::Named(hr.clone()),
                peer: name("network"),
                peer_mac: GATEWAY,
                peer_group: 0,
            })
        };
        cloud.add([pair(1430)]);
        cloud.reconcile();
        assert_eq!(cloud.todo(), Vec::<String>::new());
        assert_eq!(Host::open().reconcile(&cloud.desired), 0);
        for (netns, link) in [(&hx, "router"), (&hr, "network")] {
            let shown = within(netns, &format!("ip link show {link}"));
            assert!(
                shown.contains("mtu 1430") && shown.contains("LOWER_UP"),
                "{shown}"
            );
            within(netns, &format!("ip link set {link} down"));
            assert_eq!(cloud.reconcile(), 1, "{link}");
        }
        cloud.add([pair(1400)]);
        assert_eq!(cloud.reconcile(), 1);
        cloud.desired.remove(&pair(1400).key());
        assert_eq!(cloud.reconcile(), 1);
        assert!(!within(&hr, "ip link").contains("network"));
    });
}

#[test]
fn nothing_is_patched_into_a_namespace_whose_rules_are_refused() {
    isolated(|| {
        let mut names = Names::none();
        let (mut cloud, hx) = cloud(&mut names);
        let nowhere = Chain {
            name: "nowhere".into(),
            hook: None,
            rules: vec![NftRule {
                statements: vec![Statement::Verdict(Verdict::Jump("missing".into()))],
                comment: None,
            }],
        };
        let nowhere = Object::Chain(Netns::Named(hx), nowhere);
        cloud.add([nowhere.clone()]);
        let report = cloud.host.kernel.reconcile(&Scope::of(&cloud.desired));
        let report = report.expect("a dump");
        let patch = report
            .failed
            .iter()
            .find(|(op, _)| op.key() == Key::Patch(name("tap1")));
        assert!(
            matches!(patch, Some((_, Error::Withheld { .. }))),
            "{:?}",
            report.failed
        );
        assert_eq!(run("tc qdisc show dev tap1 clsact"), "");
        cloud.desired.remove(&nowhere.key());
        cloud.reconcile();
    });
}

#[test]
fn who_has_not_looked_finds_indexes_that_are_free() {
    isolated(|| {
        let mut names = Names::none();
        let mut cloud = Cloud::open();
        let hx = names.unique();
        cloud.add(network(&hx));
        for n in 1..=70 {
            cloud.add(port(&hx, &Port::nth(&format!("tap{n}"), n)));
        }
        let pairs = |cloud: &Cloud| {
            let pairs = cloud.desired.values();
            let pairs = pairs.filter(|o| matches!(o, Object::Namespace(_) | Object::Veth(_)));
            pairs.cloned().map(Op::Create).collect::<Vec<_>>()
        };
        let report = cloud.host.kernel.apply(pairs(&cloud));
        assert!(report.is_complete(), "{:?}", report.failed);
        cloud.add(port(&hx, &Port::nth("another", 71)));
        let report = Host::open().kernel.apply(pairs(&cloud));
        assert!(report.is_complete(), "{:?}", report.failed);
        cloud.host.reconcile(&states([]));
    });
}

#[test]
fn a_look_sees_each_namespace() {
    isolated(|| {
        let mut names = Names::none();
        let (mut cloud, hx) = cloud(&mut names);
        cloud.reconcile();
        assert_eq!(look(&mut cloud), 0);
        within(&hx, "sysctl -qw net.ipv4.ip_forward=0");
        within(
            &hx,
            "bridge fdb del 02:fe:00:00:00:02 dev vxlan dst 192.0.2.2",
        );
        assert_eq!(look(&mut cloud), 2);
        run(&format!("ip netns delete {hx}"));
        assert!(look(&mut cloud) >= cloud.desired.len());
        assert_eq!(look(&mut cloud), 0);
        assert_eq!(cloud.todo(), Vec::<String>::new());
    });
}

#[test]
fn what_went_with_a_link_comes_again_without_a_look() {
    isolated(|| {
        let mut names = Names::none();
        let (mut cloud, hx) = cloud(&mut names);
        cloud.reconcile();
        let links = |link: &str| BTreeSet::from([name(link)]);
        for (command, link) in [
            ("ip link del otap1", "otap1"),
            ("ip link del tap1; ip tuntap add tap1 mode tap", "tap1"),
            // Nothing has gone, as with what the kernel tells of our own changes.
            ("true", "otap1"),
            (&format!("ip netns delete {hx}"), "otap1"),
        ] {
            run(command);
            let gone = cloud.host.kernel.forget_links(&Netns::Main, &links(link));
            let report = cloud.host.kernel.reconcile_keys(&gone, &cloud.desired);
            assert!(
                report.is_complete(),
                "{command}: {:?} {:?}",
                report.failed,
                report.waiting
            );
            assert_eq!(cloud.todo(), Vec::<String>::new(), "{command}");
        }
    });
}

#[test]
fn a_link_that_is_not_unique_has_no_sources() {
    isolated(|| {
        let there = NamedNetns::create();
        there.run("ip link add tap1 index 900 type veth peer name p1");
        let source = Object::Source(Source {
            netns: there.netns(),
            link: name("tap1"),
            mac: GATEWAY,
            addr: "192.0.2.5".parse().expect("an address"),
        });
        let report = Host::open().kernel.apply(vec![Op::Create(source)]);
        let [(_, error)] = report.failed.as_slice() else {
            panic!("{:?}", report.waiting);
        };
        assert!(error.to_string().contains("main"), "{error}");
    });
}

/// What the kernel holds for itself; the machine has other users.
fn kernel_kib() -> u64 {
    let text = fs::read_to_string("/proc/meminfo").expect("meminfo");
    let kinds = ["Slab:", "Percpu:", "VmallocUsed:"];
    let of = |line: &str| {
        let mut words = line.split_whitespace();
        kinds
            .contains(&words.next()?)
            .then(|| words.next()?.parse::<u64>().ok())?
    };
    text.lines().filter_map(of).sum()
}

/// Prints what networks cost, and how long looking at them takes.
#[test]
#[ignore = "takes a minute"]
fn five_hundred_networks() {
    const NETWORKS: u16 = 500;
    isolated(|| {
        let mut names = Names::none();
        let mut cloud = Cloud::open();
        let one = |cloud: &mut Cloud, names: &mut Names, n: u16| {
            let (hx, tap) = (names.unique(), format!("tap{n}"));
            run(&format!(
                "ip tuntap add {tap} mode tap; ip link set {tap} up"
            ));
            let objects = [network(&hx), port(&hx, &Port::nth(&tap, 1))].concat();
            cloud.add(objects.clone());
            objects
        };
        one(&mut cloud, &mut names, 0);
        cloud.reconcile();
        for n in 1..=NETWORKS {
            one(&mut cloud, &mut names, n);
        }
        let (before, begin) = (kernel_kib(), Instant::now());
        let report = cloud.host.kernel.reconcile(&Scope::of(&cloud.desired));
        assert!(report.expect("a dump").is_complete());
        let cost = kernel_kib().saturating_sub(before);
        println!(
            "{NETWORKS} networks: {:?}, {} KiB each",
            begin.elapsed(),
            cost / u64::from(NETWORKS)
        );
        let begin = Instant::now();
        assert_eq!(look(&mut cloud), 0);
        println!("a look: {:?}", begin.elapsed());
        let keys: Vec<Key> = one(&mut cloud, &mut names, NETWORKS + 1)
            .iter()
            .map(Object::key)
            .collect();
        let begin = Instant::now();
        let report = cloud.host.kernel.reconcile_keys(&keys, &cloud.desired);
        assert!(report.is_complete());
        println!("one more: {:?}", begin.elapsed());
        let begin = Instant::now();
        assert_eq!(Host::open().reconcile(&cloud.desired), 0);
        println!("another start: {:?} (twice looked)", begin.elapsed());
        cloud.host.reconcile(&states([]));
    });
}
