//! What a lab file may say, and how it complains.

use std::path::Path;

use super::*;

fn parse(text: &str) -> Result<LabFile, Error> {
    LabFile::parse(text, Path::new("x.toml"))
}

#[test]
fn a_whole_file() {
    let text = r#"
name = "two-hosts"
description = "Two hosts"
vars = { asn = "64512" }

[node.h1]
role = "host"
sysctls = { "net.ipv4.ip_forward" = "1" }
name_servers = ["2001:db8::53"]
[node.h2]

[[link]]
a = { node = "h1", dev = "eth0", addresses = ["fe80::1/64"] }
b = { node = "h2", dev = "eth0", mac = "02:00:00:00:00:02" }

[[process]]
node = "h1"
name = "bird"
command = ["bird", "-f", "-c", "bird.conf"]
files = { "bird.conf" = "fabric/bird.conf" }
ready = { socket = "@dir@/bird.ctl" }
"#;
    let file = parse(text).unwrap();
    assert_eq!(file.name(), "two-hosts");
    assert_eq!(file.nodes.len(), 2);
    let (near, far) = file.link_of("h2", "eth0").unwrap();
    assert_eq!(
        (near.node.get_ref().as_str(), far.node.get_ref().as_str()),
        ("h2", "h1")
    );
    assert!(file.link_of("h2", "eth1").is_none());
    assert_eq!(
        file.processes[0].ready,
        Some(Ready::Socket("@dir@/bird.ctl".to_owned()))
    );
    assert_eq!(file.named("other").unwrap().name(), "other");
}

#[test]
fn complaints_have_their_line() {
    let table = [
        (
            "name = \"x\"\nspeed = 3\n",
            "line 2",
            "unknown field `speed`",
        ),
        (
            "name = \"x\"\n[node.a]\nrole = \"r\"\nrol = \"r\"\n",
            "line 4",
            "unknown field `rol`",
        ),
        (
            "name = \"x\"\n[node.a]\nloopback = [\"192.0.2.1\"]\n",
            "line 3",
            "no interface address",
        ),
        ("name = \"X\"\n", "x.toml:1:", "no name for a lab"),
        (
            "\nname = \"x\"\n[node.a-b]\n",
            "x.toml:3:",
            "no name for a node",
        ),
        (
            "name = \"x\"\n[node.a]\n[[link]]\na = { node = \"a\", dev = \"e0\" }\nb = { node = \"b\", dev = \"e0\" }\n",
            "x.toml:5:",
            "no node b; there are: a",
        ),
        (
            "name = \"x\"\n[node.a]\n[[link]]\na = { node = \"a\", dev = \"e0\" }\nb = { node = \"a\", dev = \"e0\" }\n",
            "x.toml:5:",
            "a has two interfaces e0",
        ),
        (
            "name = \"x\"\n[node.a]\nbridges.br0.ports = [\n\"e0\"]\n",
            "x.toml:4:",
            "no link ends at a e0",
        ),
        (
            "name = \"x\"\n[node.a]\n[[process]]\nnode = \"a\"\nname = \"p\"\ncommand = []\n",
            "x.toml:4:",
            "empty command",
        ),
        (
            "name = \"x\"\n[node.a]\n[[process]]\nnode = \"a\"\nname = \"p\"\ncommand = [\"p\"]\nfiles = { \"../x\" = \"y\" }\n",
            "x.toml:4:",
            "relative to the node's directory",
        ),
        (
            "name = \"x\"\n[node.a]\n[[process]]\nnode = \"a\"\nname = \"p\"\ncommand = [\"p\"]\nready = { sockt = \"y\" }\n",
            "line 7",
            "unknown variant `sockt`",
        ),
    ];
    for (text, line, message) in table {
        let error = parse(text).unwrap_err().to_string();
        assert!(
            error.contains(line) && error.contains(message),
            "{text}\n→ {error}"
        );
    }
}

#[test]
fn names_read_in_one_way_only() {
    for name in ["fabric", "a-b-c", "t1"] {
        assert!(check_lab_name(name).is_ok(), "{name}");
    }
    for name in [
        "",
        "-a",
        "1a",
        "a/b",
        "a.b",
        "A",
        "../x",
        "a\n",
        &"a".repeat(33),
    ] {
        assert!(check_lab_name(name).is_err(), "{name}");
    }
    assert!(check_node_name("spine_1").is_ok());
    assert!(check_node_name("spine-1").is_err());
}
