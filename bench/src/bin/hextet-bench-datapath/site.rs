//! A host between two workloads, as each of the rivals would find it: namespaces, links, and ports that carry
//! nothing.

use std::{
    fmt::Write as _,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use anyhow::Result;
use hextet_bench::forward::{Path, Workload, workload};
use hextet_lab::{Lab, LabFile, LabGuard, Node};
use hextet_types::{Family, IfName, Mac, PortId};
use uuid::Uuid;

const LAB: &str = "name = \"datapath\"\ndescription = \"one host, two workloads\"\n\
                   [node.host]\n[node.one]\n[node.two]\n";

/// One host with two workloads.
pub struct Site {
    /// The namespaces, which end with it.
    lab: LabGuard,
    /// The host.
    pub host: Node,
    /// Between its workloads.
    pub path: Path,
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
        let lab = Lab::up(LabFile::parse(LAB, "datapath".as_ref())?.named(&name)?)?.guard();
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
            let workload = Workload {
                place: lab.node(node)?,
                link: port.link(),
                mac: port.mac(),
                addresses: Family::BOTH.map(|family| port.address(family)),
            };
            workload.plug(&lab, &host)?;
            anyhow::Ok(workload)
        };
        let path = Path {
            one: workload("one", one)?,
            two: workload("two", two)?,
            tracking: vec![(host.clone(), None)],
        };
        let site = Site { lab, host, path };
        site.idle_links(rest)?;
        Ok(site)
    }

    /// Drops what the first workload floods with where it comes in: what is left is the sender's own cost.
    ///
    /// # Errors
    ///
    /// `nft` fails.
    pub fn discard_at_once(&self) -> Result<()> {
        let link = self.path.one.link.to_string();
        workload::discard(&self.lab, &self.host, &link, &["dport"])
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
        workload::batch(&self.lab, &self.host, &lines)
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
        workload::batch(&self.lab, &self.host, &lines)
    }

    /// Writes a file into the host's directory, and gives its path.
    ///
    /// # Errors
    ///
    /// It can't be written.
    pub fn file(&self, name: &str, text: &str) -> Result<String> {
        let path = workload::write(&self.lab, &self.host, name, text)?;
        Ok(path.to_string_lossy().into_owned())
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
