//! A node's host behind a gateway with miniupnpd, for both families; needs root.

#![allow(clippy::unwrap_used, reason = "in a test, that is how it fails")]

use std::{
    fs,
    net::SocketAddr,
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use hextet_kernel::ways::Ways;
use hextet_lab::{Lab, LabFile, LabGuard, Node, wait_until};
use hextet_node::mapping::Mappings;
use hextet_types::Family;

/// On a machine that is busy with other tests.
const PATIENCE: Duration = Duration::from_secs(60);
const LOOK: Duration = Duration::from_millis(100);

// The gateway's address outside is none of those for documentation: miniupnpd knows that nobody is reached there.
const LAB: &str = r#"
name = "node-mapping"
[node.host]
routes = ["default via 192.168.77.1", "default via 2001:db8:77::1"]
[node.gateway]
sysctls = { "net.ipv4.ip_forward" = "1", "net.ipv6.conf.all.forwarding" = "1" }
[node.outside]

[[link]]
a = { node = "host", dev = "eth0", addresses = ["192.168.77.2/24", "2001:db8:77::2/64"] }
b = { node = "gateway", dev = "lan", addresses = ["192.168.77.1/24", "2001:db8:77::1/64"] }
[[link]]
a = { node = "gateway", dev = "wan", addresses = ["11.22.33.1/24", "2001:db8:33::1/64"] }
b = { node = "outside", dev = "eth0", addresses = ["11.22.33.2/24", "2001:db8:33::2/64"] }
"#;

const RULES: &str = "
table inet filter {
    chain forward {
        type filter hook forward priority 0; policy drop;
        ct state established,related accept
        iifname lan accept
        jump miniupnpd
    }
    chain miniupnpd { }
    chain prerouting { type nat hook prerouting priority -100; jump prerouting_miniupnpd; }
    chain postrouting { type nat hook postrouting priority 100; jump postrouting_miniupnpd; }
    chain prerouting_miniupnpd { }
    chain postrouting_miniupnpd { }
}
";

const DAEMON: &str = "ext_ifname=wan\nlistening_ip=lan\nhttp_port=5000\nenable_natpmp=yes\nenable_upnp=yes\n\
    min_lifetime=2\nmax_lifetime=86400\nsecure_mode=yes\nsystem_uptime=yes\n\
    uuid=6b1ab9ea-0ee6-4a8a-9d4b-0d2a6a1c6a12\n\
    allow 1024-65535 192.168.77.0/24 1024-65535\ndeny 0-65535 0.0.0.0/0 0-65535\n";

fn begin(lab: &LabGuard, directory: &Path) -> Node {
    let gateway = lab.node("gateway").unwrap();
    let (rules, conf) = (
        directory.join("rules.nft"),
        directory.join("miniupnpd.conf"),
    );
    fs::write(&rules, RULES).unwrap();
    fs::write(&conf, DAEMON).unwrap();
    let rules = rules.display().to_string();
    gateway.run(&["nft", "-f", &rules]).unwrap();
    let mut command = Command::new("miniupnpd");
    command.arg("-d").arg("-f").arg(&conf);
    command.arg("-P").arg(directory.join("miniupnpd.pid"));
    let process = lab.spawn(&gateway, "miniupnpd", &mut command).unwrap();
    let listens = || {
        let shown = gateway.run(&["ss", "-Huln"]).unwrap();
        shown.contains(":5351 ")
    };
    assert!(wait_until(PATIENCE, listens), "{}", process.log());
    gateway
}

fn opened(gateway: &Node) -> usize {
    let rules = gateway.run(&["nft", "list", "chain", "inet", "filter", "miniupnpd"]);
    rules.unwrap().matches("6698").count()
}

#[test]
fn the_gateway_of_each_family_is_found_asked_and_left_in_peace() {
    let name = format!("node-mapping-{}", std::process::id());
    let file = LabFile::parse(LAB, Path::new("mapping.toml")).unwrap();
    let lab = Lab::up(file.named(&name).unwrap()).unwrap().guard();
    let directory = tempfile::tempdir().unwrap();
    let gateway = begin(&lab, directory.path());
    let host = lab.node("host").unwrap();
    let local: Vec<SocketAddr> = ["[2001:db8:77::2]:6698", "192.168.77.2:6698"]
        .map(|at| at.parse().unwrap())
        .into();
    let work = async || {
        let mut ways = Ways::open().unwrap();
        let leaving = ways.leaving(None).unwrap();
        let families: Vec<Family> = leaving.iter().map(|way| way.family).collect();
        assert_eq!(families, [Family::V4, Family::V6], "{leaving:?}");
        assert_eq!(
            ways.leaving(Some(1)).unwrap(),
            [],
            "not by the loopback interface"
        );
        let mut mappings = Mappings::default();
        let begin = Instant::now();
        let mut open = Vec::new();
        while open.len() < 2 && begin.elapsed() < PATIENCE {
            tokio::time::sleep(LOOK).await;
            open = mappings.look(&local, &leaving);
        }
        let hosts: Vec<String> = open.iter().map(|at| at.ip().to_string()).collect();
        assert_eq!(hosts, ["11.22.33.1", "2001:db8:77::2"]);
        assert!(opened(&gateway) >= 2);
        // Without a way to the world nobody is asked, and what was open is given back.
        assert_eq!(mappings.look(&local, &[]), []);
        let begin = Instant::now();
        while opened(&gateway) > 0 && begin.elapsed() < PATIENCE {
            tokio::time::sleep(LOOK).await;
        }
        assert_eq!(opened(&gateway), 0);
    };
    let run = || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        runtime.unwrap().block_on(work())
    };
    host.enter(run).unwrap();
}
