//! The fabric's spines and internet, with BIRD standing in for the agents: sessions by link-local
//! addresses, both families, nothing private outside, and a spine that falls silent.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{net::IpAddr, path::Path, process::Command, time::Duration};

use hextet_lab::{Fault, Lab, LabFile, LabGuard, wait_until};

const LIMIT: Duration = Duration::from_secs(40);
const INTERNET: [&str; 2] = ["192.0.2.10", "2001:db8:ffff::10"];

/// A hypervisor's workloads, as addresses on its loopback interface: public of both families, private.
struct Workloads {
    node: &'static str,
    addresses: [&'static str; 3],
}

const WORKLOADS: [Workloads; 3] = [
    Workloads {
        node: "h1",
        addresses: ["198.51.100.11", "2001:db8:100::11", "10.10.0.11"],
    },
    Workloads {
        node: "h2",
        addresses: ["198.51.100.12", "2001:db8:100::12", "10.10.0.12"],
    },
    Workloads {
        node: "h3",
        addresses: ["198.51.100.13", "2001:db8:100::13", "10.10.0.13"],
    },
];

fn fabric(name: &str) -> LabGuard {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let file = LabFile::read(&here.join("../../labs/fabric.toml")).unwrap();
    let file = file
        .named(&format!("{name}-{}", std::process::id()))
        .unwrap();
    let lab = Lab::up(file).unwrap().guard();
    let template = std::fs::read_to_string(here.join("tests/fabric.bird.conf")).unwrap();
    for (number, Workloads { node, addresses }) in (1..).zip(&WORKLOADS) {
        let host = lab.node(node).unwrap();
        for address in addresses {
            let length = if address.parse::<IpAddr>().unwrap().is_ipv4() {
                32
            } else {
                128
            };
            host.run(&[
                "ip",
                "addr",
                "add",
                &format!("{address}/{length}"),
                "dev",
                "lo",
            ])
            .unwrap();
        }
        let config = template
            .replace("@router_id@", &format!("10.255.0.{number}"))
            .replace("@link_local@", &format!("fe80::ff:fe00:b{number}"));
        std::fs::write(lab.node_directory(node).join("bird.conf"), config).unwrap();
        let mut bird = Command::new("bird");
        bird.args(["-f", "-c", "bird.conf", "-s", "bird.ctl", "-P", "bird.pid"]);
        lab.spawn(&host, "bird", &mut bird).unwrap();
    }
    lab
}

fn established(lab: &Lab, node: &str) -> usize {
    let socket = lab.node_directory(node).join("bird.ctl");
    let words = [
        "birdc",
        "-s",
        &socket.to_string_lossy(),
        "show",
        "protocols",
    ];
    let output = lab.node(node).unwrap().output(&words).unwrap();
    String::from_utf8_lossy(&output.stdout)
        .matches("Established")
        .count()
}

/// Whether `to` answers when asked from this address or interface of a node.
fn reaches(lab: &Lab, node: &str, from: &str, to: &str) -> bool {
    let words = ["ping", "-n", "-c", "1", "-W", "1", "-I", from, to];
    lab.node(node)
        .unwrap()
        .output(&words)
        .unwrap()
        .status
        .success()
}

fn routes(lab: &Lab, node: &str) -> String {
    let node = lab.node(node).unwrap();
    node.run(&["ip", "route"]).unwrap() + &node.run(&["ip", "-6", "route"]).unwrap()
}

fn wait_for_sessions(lab: &Lab) {
    for (node, sessions) in [
        ("spine1", 4),
        ("spine2", 4),
        ("internet", 2),
        ("h1", 2),
        ("h2", 2),
        ("h3", 2),
    ] {
        let up = wait_until(LIMIT, || established(lab, node) == sessions);
        let log = lab.process(&format!("{node}/bird")).unwrap().log();
        assert!(
            up,
            "{node} has {} of {sessions} sessions\n{log}",
            established(lab, node)
        );
    }
}

#[test]
fn the_fabric_carries_both_families_and_nothing_private_outside() {
    let lab = fabric("carries");
    wait_for_sessions(&lab);
    for Workloads {
        node,
        addresses: [v4, v6, private],
    } in &WORKLOADS
    {
        for (ours, internet) in [v4, v6].into_iter().zip(INTERNET) {
            assert!(
                wait_until(LIMIT, || reaches(&lab, "internet", internet, ours)),
                "to {ours}"
            );
            assert!(
                wait_until(LIMIT, || reaches(&lab, node, ours, internet)),
                "from {ours}"
            );
        }
        for other in WORKLOADS.iter().filter(|other| other.node != *node) {
            let [_, _, theirs] = other.addresses;
            assert!(
                wait_until(LIMIT, || reaches(&lab, node, private, theirs)),
                "{private} to {theirs}"
            );
        }
        // The answer to a private address finds no way back.
        assert!(!reaches(&lab, node, private, INTERNET[0]));
    }
    let outside = routes(&lab, "internet");
    assert!(!outside.contains("10."), "{outside}");
    for pool in [
        "198.51.100.0/24",
        "203.0.113.0/27",
        "2001:db8:100::/40",
        "198.51.100.12",
        "2001:db8:100::12",
    ] {
        assert!(outside.contains(pool), "{pool} is missing in\n{outside}");
    }
    let spine = routes(&lab, "spine1");
    assert!(spine.contains("blackhole 198.51.100.0/24"), "{spine}");
    let two_ways = wait_until(LIMIT, || {
        let h1 = routes(&lab, "h1");
        h1.matches("via fe80::ff:fe00:51").count()
            + h1.matches("via inet6 fe80::ff:fe00:51").count()
            >= 6
            && h1.matches("dev up2").count() >= 6
    });
    assert!(two_ways, "h1 uses both spines:\n{}", routes(&lab, "h1"));
}

#[test]
fn a_silent_spine_is_left_and_taken_again() {
    let lab = fabric("silent");
    wait_for_sessions(&lab);
    let all_reached = || {
        let targets = WORKLOADS
            .iter()
            .flat_map(|w| w.addresses.into_iter().take(2));
        targets
            .into_iter()
            .all(|target| lab.node("internet").unwrap().ping(target).unwrap())
    };
    assert!(wait_until(LIMIT, all_reached));
    let hears = || reaches(&lab, "spine1", "internet", "fe80::ff:fe00:99%internet");
    assert!(hears());
    let links = ["internet", "h1", "h2", "h3"];
    for link in links {
        lab.break_link("spine1", link, Fault::Silence).unwrap();
    }
    assert!(!hears());
    let by_spine1 = || routes(&lab, "internet").contains("fe80::ff:fe00:51");
    assert!(
        wait_until(LIMIT, || !by_spine1()),
        "{}",
        routes(&lab, "internet")
    );
    assert!(
        wait_until(LIMIT, all_reached),
        "{}",
        routes(&lab, "internet")
    );
    for link in links {
        lab.mend_link("spine1", link).unwrap();
    }
    assert!(hears());
    wait_for_sessions(&lab);
    assert!(wait_until(LIMIT, by_spine1));
    assert!(wait_until(LIMIT, all_reached));
}
