//! GoBGP: a session of each kind of addresses, both families on each.

use hextet_lab::{Ready, wait_until};
use serde_json::Value;

use crate::{
    fabric::{Fabric, LIMIT, documented, wait_for},
    speaker::{Peer, Speaker, peers},
};

/// A running gobgpd.
struct GoBgp<'f> {
    fabric: &'f Fabric,
    host: String,
}

const API: &str = "127.0.0.1:50051";

impl<'f> GoBgp<'f> {
    fn start(fabric: &'f Fabric, host: &str, config: &str) -> GoBgp<'f> {
        let config = fabric.write(host, "gobgpd.toml", config);
        let command = ["gobgpd", "-f", config.to_str().unwrap(), "--api-hosts", API];
        fabric.run(
            host,
            "gobgpd",
            "gobgpd",
            &command,
            Some(Ready::Tcp(API.to_owned())),
        );
        GoBgp {
            fabric,
            host: host.to_owned(),
        }
    }

    fn ask(&self, words: &[&str]) -> String {
        let words = [&["gobgp"], words].concat();
        let output = self.fabric.node(&self.host).output(&words).unwrap();
        String::from_utf8(output.stdout).unwrap()
    }

    /// It listens to orders a little before it can obey them.
    fn announce(&self, prefix: &str) {
        let order = ["global", "rib", "add", prefix, "-a", family(prefix)];
        wait_for(&format!("GoBGP announces {prefix}"), || {
            self.ask(&order).is_empty()
        });
    }

    #[track_caller]
    fn wait_route(&self, prefix: &str, next_hop: &str) {
        let mut answer = String::new();
        let found = wait_until(LIMIT, || {
            answer = self.ask(&["global", "rib", prefix, "-a", family(prefix), "-j"]);
            let paths: Value = serde_json::from_str(&answer).unwrap_or_default();
            let attributes = paths[prefix][0]["attrs"]
                .as_array()
                .map_or(&[][..], Vec::as_slice);
            attributes
                .iter()
                .any(|attribute| attribute["nexthop"] == next_hop)
        });
        assert!(
            found,
            "GoBGP has {prefix} by {next_hop}; it has {answer}\n{}",
            self.log()
        );
    }

    fn log(&self) -> String {
        self.fabric.log(&self.host, "gobgpd")
    }
}

fn family(prefix: &str) -> &'static str {
    if prefix.contains(':') { "ipv6" } else { "ipv4" }
}

/// With that neighbour.
fn config(neighbor: &str) -> String {
    documented("gobgp").replace("fe80::1%h1", neighbor)
}

const THEIRS: [&str; 2] = ["203.0.113.0/24", "2001:db8:100::/40"];
const OURS: [&str; 2] = ["198.51.100.5/32", "2001:db8:1::5/128"];

fn exchange(fabric: &Fabric, neighbor: &str, peer: Peer, ours: [&str; 2], theirs: [&str; 2]) {
    let s1 = GoBgp::start(fabric, "s1", &config(neighbor));
    for prefix in THEIRS {
        s1.announce(prefix);
    }
    let h1 = Speaker::start(fabric, "h1", &peers([peer]), &OURS);
    for (prefix, hop) in THEIRS.into_iter().zip(theirs) {
        h1.wait_route(prefix, &[hop]);
    }
    for (prefix, hop) in OURS.into_iter().zip(ours) {
        s1.wait_route(prefix, hop);
    }
}

#[test]
fn gobgp_over_link_local_addresses() {
    let fabric = Fabric::new(&[("h1", "s1")]);
    let peer = Peer::link_local(&fabric, "s1");
    let s1 = "fe80::2%s1";
    exchange(
        &fabric,
        "fe80::1%h1",
        peer,
        ["fe80::1", "fe80::1"],
        [s1, s1],
    );
}

#[test]
fn gobgp_over_global_addresses() {
    let fabric = Fabric::new(&[("h1", "s1")]);
    let [[_, ours], [_, theirs]] = [fabric.addresses("h1", "s1"), fabric.addresses("s1", "h1")];
    let peer = Peer {
        address: theirs.clone(),
        ..Peer::link_local(&fabric, "s1")
    };
    exchange(&fabric, &ours, peer, [&ours, &ours], [&theirs, &theirs]);
}
