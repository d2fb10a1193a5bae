//! A workload: a namespace behind a port, which knows its gateway as hextet's workloads do.

use std::{fs, net::IpAddr, path::PathBuf};

use anyhow::{Context, Result};
use hextet_lab::{Lab, Node};
use hextet_types::{Family, IfName, Mac};

/// The host's end of every port, whoever made the rules.
pub const GATEWAY: Mac = Mac::new([0x02, 0x68, 0x78, 0, 0, 1]);
/// The gateway's addresses, as workloads know them.
const GATEWAY_V4: &str = "169.254.0.1";
const GATEWAY_V6: &str = "fe80::1";
/// Where floods go to, and end: in the workload's own namespace, before its IP layer.
pub const DISCARD: u16 = 9;

/// A namespace behind a port.
#[derive(Clone, Debug)]
pub struct Workload {
    /// Where its sockets are.
    pub place: Node,
    /// The host's end of its link.
    pub link: IfName,
    /// Its Ethernet address.
    pub mac: Mac,
    /// Its addresses, IPv4 first.
    pub addresses: [IpAddr; 2],
}

impl Workload {
    /// Its address in that family.
    pub fn address(&self, family: Family) -> IpAddr {
        let [v4, v6] = self.addresses;
        match family {
            Family::V4 => v4,
            Family::V6 => v6,
        }
    }

    /// Joins it with a host by a veth pair, and configures it.
    ///
    /// # Errors
    ///
    /// `ip`, `nft` or a setting fails.
    pub fn plug(&self, lab: &Lab, host: &Node) -> Result<()> {
        let (link, mac, netns) = (&self.link, self.mac, self.place.netns());
        let pair = format!(
            "link add {link} type veth peer name eth0 netns {netns}\nlink set {link} address {GATEWAY} up\n"
        );
        batch(lab, host, &pair)?;
        let [v4, v6] = self.addresses;
        let inside = format!(
            "link set lo up\nlink set eth0 address {mac}\nlink set eth0 up\n\
             address add {v4}/32 dev eth0\naddress add {v6}/128 dev eth0 nodad\n\
             neighbour add {GATEWAY_V4} lladdr {GATEWAY} dev eth0 nud permanent\n\
             neighbour add {GATEWAY_V6} lladdr {GATEWAY} dev eth0 nud permanent\n\
             route add default via {GATEWAY_V4} dev eth0 onlink\n\
             route add default via {GATEWAY_V6} dev eth0\n"
        );
        batch(lab, &self.place, &inside)?;
        discard(lab, &self.place, "eth0", &["dport", "sport"])?;
        for (setting, value) in [
            ("net.ipv4.tcp_tw_reuse", "1"),
            ("net.ipv4.ip_local_port_range", "1024 65535"),
        ] {
            self.place.set_sysctl(setting, value)?;
        }
        Ok(())
    }
}

/// Drops what is flooded where it comes in by a link, by these of its ports.
///
/// # Errors
///
/// `nft` fails.
pub fn discard(lab: &Lab, node: &Node, link: &str, ports: &[&str]) -> Result<()> {
    let mut rules = format!(
        "add table netdev end\n\
         add chain netdev end in {{ type filter hook ingress device \"{link}\" priority 0; }}\n"
    );
    for port in ports {
        rules += &format!("add rule netdev end in udp {port} {DISCARD} drop\n");
    }
    let file = write(lab, node, "discard", &rules)?;
    node.run(&["nft", "-f", &file.to_string_lossy()])?;
    Ok(())
}

/// Runs lines of `ip` on a node.
///
/// # Errors
///
/// `ip` fails.
pub fn batch(lab: &Lab, node: &Node, lines: &str) -> Result<()> {
    let file = write(lab, node, "batch", lines)?;
    node.run(&["ip", "-batch", &file.to_string_lossy()])?;
    Ok(())
}

/// Writes a file into the node's directory, and gives its path.
///
/// # Errors
///
/// It can't be written.
pub fn write(lab: &Lab, node: &Node, name: &str, text: &str) -> Result<PathBuf> {
    let directory = lab.node_directory(node.name());
    fs::create_dir_all(&directory).with_context(|| format!("make {}", directory.display()))?;
    let path = directory.join(name);
    fs::write(&path, text).with_context(|| format!("write {}", path.display()))?;
    Ok(path)
}
