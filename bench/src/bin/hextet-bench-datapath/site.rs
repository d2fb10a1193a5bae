//! A host between two workloads, as each of the rivals would find it: namespaces, links, and ports that carry
//! nothing.

use std::{
    fmt::Write as _,
    fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    path::Path,
};

use anyhow::{Context, Result};
use hextet_lab::{Lab, LabFile, LabGuard, Node};
use hextet_types::{Family, IfName, Mac, PortId};
use uuid::Uuid;

/// The host's end of every port, whoever made the rules.
pub const GATEWAY: Mac = Mac::new([0x02, 0x68, 0x78, 0, 0, 1]);
/// The gateway's addresses, as workloads know them.
const GATEWAY_V4: &str = "169.254.0.1";
const GATEWAY_V6: &str = "fe80::1";
/// Where floods go to, and end: in the workload's own namespace, before its IP layer.
pub const DISCARD: u16 = 9;

const LAB: &str = "name = \"datapath\"\ndescription = \"one host, two workloads\"\n\
                   [node.host]\n[node.one]\n[node.two]\n";

/// One host with two workloads.
pub struct Site {
    /// The namespaces, which end with it.
    lab: LabGuard,
    /// The host.
    pub host: Node,
    /// The workload that begins.
    pub one: Workload,
    /// The workload that answers.
    pub two: Workload,
}

/// A namespace behind a port.
pub struct Workload {
    /// Where its sockets are.
    pub place: Node,
    /// Its port.
    pub port: Port,
}

/// What everybody needs to know of a port.
#[derive(Clone, Debug)]
pub struct Port {
    /// Its number.
    pub n: u32,
    /// Its id, after which its link is named.
    pub id: PortId,
}

impl Port {
    /// The first two carry all traffic, and their names lie in the middle of all names; the others' are
    /// spread evenly.
    pub fn number(n: u32) -> Port {
        let begin = match n {
            0 => 0x7800_0000_0000_0000,
            1 => 0x8800_0000_0000_0000,
            n => mix(u64::from(n)),
        };
        Port {
            n,
            id: PortId(Uuid::from_u64_pair(begin, u64::from(n))),
        }
    }

    /// So many of them, at least two.
    pub fn first(count: u32) -> Vec<Port> {
        (0..count.max(2)).map(Port::number).collect()
    }

    /// Its link on the host.
    pub fn link(&self) -> IfName {
        IfName::for_port(self.id)
    }

    /// The workload's Ethernet address.
    pub fn mac(&self) -> Mac {
        let [_, a, b, c] = self.n.to_be_bytes();
        Mac::new([0xfa, 0x16, 0x3e, a, b, c])
    }

    /// The workload's address in that family.
    pub fn address(&self, family: Family) -> IpAddr {
        match family {
            Family::V4 => Ipv4Addr::from_bits(0x0a08_0010 + self.n).into(),
            Family::V6 => {
                Ipv6Addr::from_bits((0x2001_0db8_0008 << 80) + 0x10 + u128::from(self.n)).into()
            }
        }
    }
}

/// SplitMix64: even, and the same in each run.
fn mix(n: u64) -> u64 {
    let mut z = n.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

impl Site {
    /// Makes the namespaces, and the links of all ports: the first two lead to the workloads, the others to
    /// one another.
    ///
    /// # Errors
    ///
    /// Something can't be made (this needs root).
    pub fn new(name: &str, ports: &[Port]) -> Result<Site> {
        let name = format!("dp{name}{}", std::process::id());
        let lab = Lab::up(LabFile::parse(LAB, Path::new("datapath"))?.named(&name)?)?.guard();
        let host = lab.node("host")?;
        for (setting, value) in [
            ("net.ipv6.conf.default.addr_gen_mode", "1"),
            ("net.ipv6.conf.default.accept_ra", "0"),
            ("net.ipv4.ip_forward", "1"),
            ("net.ipv6.conf.all.forwarding", "1"),
        ] {
            host.set_sysctl(setting, value)?;
        }
        let [one, two, rest @ ..] = ports else {
            anyhow::bail!("there have to be two ports");
        };
        let workload = |node: &str, port: &Port| {
            let place = lab.node(node)?;
            anyhow::Ok(Workload {
                place,
                port: port.clone(),
            })
        };
        let (one, two) = (workload("one", one)?, workload("two", two)?);
        let site = Site {
            lab,
            host,
            one,
            two,
        };
        site.plug(&site.one)?;
        site.plug(&site.two)?;
        site.idle_links(rest)?;
        Ok(site)
    }

    fn plug(&self, workload: &Workload) -> Result<()> {
        let (link, mac, netns) = (
            workload.port.link(),
            workload.port.mac(),
            workload.place.netns(),
        );
        let pair = format!(
            "link add {link} type veth peer name eth0 netns {netns}\nlink set {link} address {GATEWAY} up\n"
        );
        self.batch(&self.host, &pair)?;
        let [v4, v6] = Family::BOTH.map(|family| workload.port.address(family));
        let inside = format!(
            "link set lo up\nlink set eth0 address {mac}\nlink set eth0 up\n\
             address add {v4}/32 dev eth0\naddress add {v6}/128 dev eth0 nodad\n\
             neighbour add {GATEWAY_V4} lladdr {GATEWAY} dev eth0 nud permanent\n\
             neighbour add {GATEWAY_V6} lladdr {GATEWAY} dev eth0 nud permanent\n\
             route add default via {GATEWAY_V4} dev eth0 onlink\n\
             route add default via {GATEWAY_V6} dev eth0\n"
        );
        self.batch(&workload.place, &inside)?;
        let discard = format!(
            "add table netdev end\n\
             add chain netdev end in {{ type filter hook ingress device eth0 priority 0; }}\n\
             add rule netdev end in udp dport {DISCARD} drop\n\
             add rule netdev end in udp sport {DISCARD} drop\n"
        );
        let file = self.file("discard", &discard)?;
        workload.place.run(&["nft", "-f", &file])?;
        for (setting, value) in [
            ("net.ipv4.tcp_tw_reuse", "1"),
            ("net.ipv4.ip_local_port_range", "1024 65535"),
        ] {
            workload.place.set_sysctl(setting, value)?;
        }
        Ok(())
    }

    /// Drops what the first workload floods with where it comes in: what is left is the sender's own cost.
    ///
    /// # Errors
    ///
    /// `nft` fails.
    pub fn discard_at_once(&self) -> Result<()> {
        let link = self.one.port.link();
        let rules = format!(
            "add table netdev end\n\
             add chain netdev end in {{ type filter hook ingress device \"{link}\" priority 0; }}\n\
             add rule netdev end in udp dport {DISCARD} drop\n"
        );
        let file = self.file("discard", &rules)?;
        self.host.run(&["nft", "-f", &file])?;
        Ok(())
    }

    fn idle_links(&self, ports: &[Port]) -> Result<()> {
        let mut lines = String::new();
        for pair in ports.chunks(2) {
            let [a, rest @ ..] = pair else { continue };
            let peer = rest
                .first()
                .map_or("spare".to_owned(), |b| b.link().to_string());
            let link = a.link();
            writeln!(lines, "link add {link} type veth peer name {peer}")?;
            writeln!(lines, "link set {link} up\nlink set {peer} up")?;
        }
        self.batch(&self.host, &lines)
    }

    /// Neighbours of the two workloads and routes to all: what a host needs that only forwards.
    ///
    /// # Errors
    ///
    /// `ip` fails.
    pub fn route(&self, ports: &[Port]) -> Result<()> {
        let mut lines = String::new();
        for port in ports {
            let (link, mac) = (port.link(), port.mac());
            for family in Family::BOTH {
                let address = port.address(family);
                if port.n < 2 {
                    writeln!(
                        lines,
                        "neighbour replace {address} lladdr {mac} dev {link} nud permanent"
                    )?;
                }
                writeln!(lines, "route add {address} dev {link}")?;
            }
        }
        self.batch(&self.host, &lines)
    }

    /// Writes a file into the site's directory, and gives its path.
    ///
    /// # Errors
    ///
    /// It can't be written.
    pub fn file(&self, name: &str, text: &str) -> Result<String> {
        let path = self.lab.directory().join(name);
        fs::write(&path, text).with_context(|| format!("write {}", path.display()))?;
        Ok(path.to_string_lossy().into_owned())
    }

    fn batch(&self, node: &Node, lines: &str) -> Result<()> {
        let file = self.file("batch", lines)?;
        node.run(&["ip", "-batch", &file])?;
        Ok(())
    }

    /// Forgets all connections.
    ///
    /// # Errors
    ///
    /// `conntrack` fails.
    pub fn forget_connections(&self) -> Result<()> {
        self.host.run(&["conntrack", "-F"])?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn ports_have_names_and_addresses_of_their_own() {
        let ports = Port::first(10_000);
        let names: BTreeSet<_> = ports.iter().map(Port::link).collect();
        assert_eq!(names.len(), ports.len());
        let [one, two, ..] = ports.as_slice() else {
            unreachable!()
        };
        for port in [one, two] {
            let before = names.iter().filter(|name| **name < port.link()).count();
            assert!((4_000..6_000).contains(&before), "{before}");
        }
        let addresses: BTreeSet<_> = ports
            .iter()
            .flat_map(|p| Family::BOTH.map(|f| p.address(f)))
            .collect();
        assert_eq!(addresses.len(), 2 * ports.len());
        assert_eq!(Port::first(1).len(), 2);
    }
}
