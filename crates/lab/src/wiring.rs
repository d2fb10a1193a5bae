//! Namespaces, links, addresses and routes: the words for `ip -batch`, and their execution.
//!
//! The words are made from the lab file alone. Links are made with both ends in place, which is many
//! times faster than moving them. Duplicate address detection is off, since a lab's addresses are known
//! to be unique and nobody wants to wait for them.

use std::{
    fmt::Write as _,
    io::Write as _,
    process::{Command, Stdio},
};

use hextet_types::Family;

use crate::{
    Error, InterfaceAddress, LabFile, Link, LinkEnd, Node, NodeSpec,
    node::{netns, succeed},
};

/// Settings that every node has before it has links.
const BASE_SYSCTLS: &[(&str, &str)] = &[
    ("net.ipv6.conf.default.dad_transmits", "0"),
    ("net.ipv6.conf.all.dad_transmits", "0"),
];

/// Makes all namespaces, links, addresses, settings and routes of a lab.
pub fn build(file: &LabFile, node: impl Fn(&str) -> Node) -> Result<(), Error> {
    batch(None, &namespaces(file))?;
    let nodes: Vec<(Node, &NodeSpec)> = file
        .nodes
        .iter()
        .map(|(name, spec)| (node(name.get_ref()), spec))
        .collect();
    for (node, spec) in &nodes {
        for (name, value) in BASE_SYSCTLS {
            node.set_sysctl(name, value)?;
        }
        set_sysctls(node, spec, true)?;
    }
    batch(None, &links(file))?;
    for (node, spec) in &nodes {
        batch(Some(node), &interfaces(file, node.name(), spec))?;
        set_sysctls(node, spec, false)?;
    }
    for (node, spec) in &nodes {
        batch(Some(node), &routes(spec))?;
    }
    Ok(())
}

/// Defaults go first, since links take them when they are made; the rest may name links.
fn set_sysctls(node: &Node, spec: &NodeSpec, defaults: bool) -> Result<(), Error> {
    for (name, value) in &spec.sysctls {
        if name.contains(".default.") == defaults {
            node.set_sysctl(name, value)?;
        }
    }
    Ok(())
}

fn namespaces(file: &LabFile) -> String {
    file.nodes.keys().fold(String::new(), |mut text, name| {
        let _ = writeln!(text, "netns add {}", netns(file.name(), name.get_ref()));
        text
    })
}

fn links(file: &LabFile) -> String {
    let mut text = String::new();
    for Link { a, b, mtu } in &file.links {
        let mtu = mtu.map(|mtu| format!(" mtu {mtu}")).unwrap_or_default();
        let end = |end: &LinkEnd| {
            let mac = end
                .mac
                .map(|mac| format!(" address {mac}"))
                .unwrap_or_default();
            format!(
                "name {} netns {}{mac}{mtu}",
                end.dev.get_ref(),
                netns(file.name(), end.node.get_ref())
            )
        };
        let _ = writeln!(text, "link add {} type veth peer {}", end(a), end(b));
    }
    text
}

fn interfaces(file: &LabFile, node: &str, spec: &NodeSpec) -> String {
    let mut text = String::new();
    up_with(&mut text, "lo", &spec.loopback);
    for (name, bridge) in &spec.bridges {
        let _ = writeln!(text, "link add name {name} type bridge");
        for port in &bridge.ports {
            let _ = writeln!(text, "link set dev {} master {name}", port.get_ref());
        }
        up_with(&mut text, name.as_str(), &bridge.addresses);
    }
    for end in file.links.iter().flat_map(|link| [&link.a, &link.b]) {
        if end.node.get_ref() == node {
            up_with(&mut text, end.dev.get_ref().as_str(), &end.addresses);
        }
    }
    text
}

/// First up, then the addresses: one that is put on an interface that is down joins no multicast group,
/// and nobody can resolve it.
fn up_with(text: &mut String, dev: &str, addresses: &[InterfaceAddress]) {
    if addresses.iter().any(|address| address.is_link_local()) {
        let _ = writeln!(text, "link set dev {dev} addrgenmode none");
    }
    let _ = writeln!(text, "link set dev {dev} up");
    for address in addresses {
        let nodad = if address.family() == Family::V6 {
            " nodad"
        } else {
            ""
        };
        let _ = writeln!(text, "addr add {address} dev {dev}{nodad}");
    }
}

fn routes(spec: &NodeSpec) -> String {
    spec.routes.iter().fold(String::new(), |mut text, route| {
        let _ = writeln!(text, "route add {}", route.replace('\n', " "));
        text
    })
}

/// Runs lines of `ip`, in a node or in our own namespace.
fn batch(node: Option<&Node>, lines: &str) -> Result<(), Error> {
    if lines.is_empty() {
        return Ok(());
    }
    let mut command = Command::new("ip");
    command
        .args(["-batch", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let failed = |what: &str| Error::io(format!("{what} ip -batch"));
    let mut child = match node {
        Some(node) => node.spawn(&mut command)?,
        None => command.spawn().map_err(failed("start"))?,
    };
    // Written by a thread: a long batch and a long answer could otherwise wait for each other.
    let stdin = child.stdin.take();
    let output = std::thread::scope(|scope| {
        scope.spawn(|| stdin.map(|mut stdin| stdin.write_all(lines.as_bytes())));
        child.wait_with_output()
    });
    let output = output.map_err(failed("wait for"))?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let words = failed_line(lines, &said).unwrap_or("-batch -");
    succeed(&["ip", words], node.map(Node::name), output).map(drop)
}

/// The line that `ip` complains about: `Command failed -:3`.
fn failed_line<'a>(lines: &'a str, said: &str) -> Option<&'a str> {
    let number: usize = said
        .lines()
        .find_map(|line| line.strip_prefix("Command failed -:"))?
        .parse()
        .ok()?;
    lines.lines().nth(number.checked_sub(1)?)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    const LAB: &str = r#"
name = "t"
[node.a]
loopback = ["192.0.2.1/32"]
routes = ["2001:db8::/32 via fe80::2 dev up0"]
bridges.br0 = { ports = ["down0"], addresses = ["10.0.0.1/24"] }
[node.b]
[[link]]
mtu = 9000
a = { node = "a", dev = "up0", mac = "02:00:00:00:00:01", addresses = ["fe80::1/64", "2001:db8::1/64"] }
b = { node = "b", dev = "eth0" }
[[link]]
a = { node = "a", dev = "down0" }
b = { node = "b", dev = "eth1" }
"#;

    #[test]
    fn words_for_ip() {
        let file = LabFile::parse(LAB, Path::new("t.toml")).unwrap();
        assert_eq!(
            namespaces(&file),
            "netns add hxlab-t-a\nnetns add hxlab-t-b\n"
        );
        assert_eq!(
            links(&file),
            "link add name up0 netns hxlab-t-a address 02:00:00:00:00:01 mtu 9000 type veth peer name eth0 \
             netns hxlab-t-b mtu 9000\n\
             link add name down0 netns hxlab-t-a type veth peer name eth1 netns hxlab-t-b\n"
        );
        let spec = file.node("a").unwrap();
        assert_eq!(
            interfaces(&file, "a", spec),
            "link set dev lo up\naddr add 192.0.2.1/32 dev lo\n\
             link add name br0 type bridge\nlink set dev down0 master br0\n\
             link set dev br0 up\naddr add 10.0.0.1/24 dev br0\n\
             link set dev up0 addrgenmode none\nlink set dev up0 up\n\
             addr add fe80::1/64 dev up0 nodad\naddr add 2001:db8::1/64 dev up0 nodad\n\
             link set dev down0 up\n"
        );
        assert_eq!(
            routes(spec),
            "route add 2001:db8::/32 via fe80::2 dev up0\n"
        );
    }

    #[test]
    fn the_failed_line_is_named() {
        assert_eq!(
            failed_line("a\nb\nc\n", "Error: x\nCommand failed -:2\n"),
            Some("b")
        );
        assert_eq!(failed_line("a\n", "Command failed -:9\n"), None);
        assert_eq!(failed_line("a\n", "Command failed -:0\n"), None);
    }
}
