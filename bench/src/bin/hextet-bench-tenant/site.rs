//! The hosts between two workloads: with hextet, and by hand without any policy.

use std::{net::IpAddr, path::Path as FilePath, time::Duration};

use anyhow::{Context, Result, ensure};
use hextet_bench::forward::{Path, Workload, workload};
use hextet_lab::{Lab, LabFile, LabGuard, Node, wait_until};
use hextet_model::intent::Change;
use hextet_types::Mac;

use crate::{
    cloud::{self, Station},
    host,
};

/// Hosts with two workloads, which end with it.
pub struct Site {
    _lab: LabGuard,
    /// Between the workloads.
    pub path: Path,
}

/// Between two hosts; each has an address of either family, and its network's MTU follows from that of the link.
const TWO_HOSTS: &str = r#"
name = "tenant"
description = "two hosts, a workload on each"
[node.a]
own_netns = true
[node.b]
own_netns = true
[node.one]
[node.two]
[[link]]
a = { node = "a", dev = "up", addresses = ["fd00:f::1/64", "10.255.0.1/24"] }
b = { node = "b", dev = "up", addresses = ["fd00:f::2/64", "10.255.0.2/24"] }
"#;

const ONE_HOST: &str = r#"
name = "tenant"
description = "one host with two workloads"
[node.a]
own_netns = true
[node.one]
[node.two]
"#;

/// A router between two networks, each a namespace.
const BY_HAND: &str = r#"
name = "tenant"
description = "one host with two networks and a router, by hand"
[node.left]
[node.router]
[node.right]
[node.one]
[node.two]
[[link]]
a = { node = "left", dev = "router", addresses = ["169.254.7.1/30", "fd00:7::1/64"] }
b = { node = "router", dev = "left", addresses = ["169.254.7.2/30", "fd00:7::2/64"] }
[[link]]
a = { node = "right", dev = "router", addresses = ["169.254.8.1/30", "fd00:8::1/64"] }
b = { node = "router", dev = "right", addresses = ["169.254.8.2/30", "fd00:8::2/64"] }
"#;

/// How long the kernel may take until addresses can be used and neighbours are known.
const READY: Duration = Duration::from_secs(10);

/// What tunnels add to each packet, by the family of the underlay.
fn mtu(v4: bool) -> u16 {
    if v4 { 1450 } else { 1430 }
}

fn endpoints(v4: bool) -> Result<[IpAddr; 2]> {
    let texts = if v4 {
        ["10.255.0.1", "10.255.0.2"]
    } else {
        ["fd00:f::1", "fd00:f::2"]
    };
    let [a, b] = texts.map(str::parse);
    Ok([a?, b?])
}

fn lab(text: &str, name: &str) -> Result<LabGuard> {
    let name = format!("tn{name}{}", std::process::id());
    let file = LabFile::parse(text, FilePath::new("tenant"))?.named(&name)?;
    Ok(Lab::up(file)?.guard())
}

fn forwarding(host: &Node) -> Result<()> {
    for (setting, value) in [
        ("net.ipv6.conf.default.addr_gen_mode", "1"),
        ("net.ipv6.conf.default.accept_ra", "0"),
        ("net.ipv4.ip_forward", "1"),
        ("net.ipv6.conf.all.forwarding", "1"),
    ] {
        host.set_sysctl(setting, value)?;
    }
    Ok(())
}

fn plug(lab: &Lab, node: &str, host: &Node, station: Station) -> Result<Workload> {
    let workload = Workload {
        place: lab.node(node)?,
        link: station.link(),
        mac: station.mac(),
        addresses: station.addresses(),
    };
    workload.plug(lab, host)?;
    Ok(workload)
}

/// Where a host of ours tracks connections.
fn tracking(host: &Node) -> Result<Vec<(Node, Option<String>)>> {
    let names = host.run(&["ls", "/run/netns"])?;
    let ours = names.lines().filter(|n| n.starts_with("hx-"));
    Ok(ours.map(|n| (host.clone(), Some(n.to_owned()))).collect())
}

/// A route and a neighbour for what is behind a link.
fn behind(workload: &Workload) -> String {
    let (link, mac) = (&workload.link, workload.mac);
    let lines = workload.addresses.map(|address| {
        format!(
            "neighbour replace {address} lladdr {mac} dev {link} nud permanent\nroute add {address} dev {link}\n"
        )
    });
    lines.concat()
}

impl Site {
    /// One network on two hosts, by VXLAN, as hextet has it.
    ///
    /// # Errors
    ///
    /// The kernel refuses something.
    pub fn two_hosts(v4: bool) -> Result<Site> {
        let lab = lab(TWO_HOSTS, "ours")?;
        let [here, there] = endpoints(v4)?;
        let stations = [2, 3].map(|n| Station { network: 1, n });
        let mut hosts = Vec::new();
        let mut workloads = Vec::new();
        for (i, (name, node)) in [("a", "one"), ("b", "two")].into_iter().enumerate() {
            let host = lab.node(name)?;
            forwarding(&host)?;
            let (own, other) = (stations[i], stations[1 - i]);
            workloads.push(plug(&lab, node, &host, own)?);
            let mut changes = cloud::hosts(&[("a", here), ("b", there)])?;
            changes.extend(cloud::network(1, mtu(v4))?);
            changes.extend(cloud::group(&[1], &stations)?);
            changes.push(cloud::remote(other, ["b", "a"][i])?);
            changes.push(own.told()?);
            host::tell(&lab, &host, &changes)?;
            hosts.push(host);
        }
        let tracking: Result<Vec<_>> = hosts.iter().map(tracking).collect();
        Site::between(lab, workloads, tracking?.concat())
    }

    /// The same by hand: a VXLAN device on each host, routes and neighbours, and no rule.
    ///
    /// # Errors
    ///
    /// `ip` fails.
    pub fn two_hosts_by_hand(v4: bool) -> Result<Site> {
        let lab = lab(TWO_HOSTS, "hand")?;
        let ends = endpoints(v4)?;
        let macs = [1, 2].map(|n| Mac::new([0x06, 0x68, 0x78, 0, 0, n]));
        let mut workloads = Vec::new();
        for (i, (name, node)) in [("a", "one"), ("b", "two")].into_iter().enumerate() {
            let host = lab.node(name)?;
            forwarding(&host)?;
            let workload = plug(
                &lab,
                node,
                &host,
                Station {
                    network: 1,
                    n: 2 + i as u8,
                },
            )?;
            let (local, remote) = (ends[i], ends[1 - i]);
            let (mac, far) = (macs[i], macs[1 - i]);
            let (mtu, via) = (mtu(v4), far.link_local());
            let lines = format!(
                "link add vxlan type vxlan id 1 dstport 4789 local {local} nolearning\n\
                 link set vxlan address {mac} mtu {mtu} up\n\
                 neighbour add {via} lladdr {far} dev vxlan nud permanent\n{}",
                behind(&workload)
            );
            workload::batch(&lab, &host, &lines)?;
            let remote = remote.to_string();
            let far = far.to_string();
            let entry = [
                "bridge", "fdb", "append", &far, "dev", "vxlan", "dst", &remote,
            ];
            host.run(&entry)?;
            let other = Station {
                network: 1,
                n: 3 - i as u8,
            };
            let ways = other.addresses().map(|address| match address {
                IpAddr::V4(_) => format!("route add {address} via inet6 {via} dev vxlan\n"),
                IpAddr::V6(_) => format!("route add {address} via {via} dev vxlan\n"),
            });
            workload::batch(&lab, &host, &ways.concat())?;
            workloads.push(workload);
        }
        Site::between(lab, workloads, Vec::new())
    }

    /// Two networks and a router on one host, as hextet has them.
    ///
    /// # Errors
    ///
    /// The kernel refuses something.
    pub fn one_router() -> Result<Site> {
        let lab = lab(ONE_HOST, "ours")?;
        let host = lab.node("a")?;
        forwarding(&host)?;
        let stations = [1, 2].map(|network| Station { network, n: 2 });
        let mut changes: Vec<Change> = cloud::hosts(&[("a", endpoints(false)?[0])])?;
        let mut workloads = Vec::new();
        for (station, node) in stations.into_iter().zip(["one", "two"]) {
            workloads.push(plug(&lab, node, &host, station)?);
            changes.extend(cloud::network(station.network, mtu(false))?);
        }
        changes.extend(cloud::group(&[1, 2], &stations)?);
        changes.push(cloud::router(&[1, 2])?);
        for station in stations {
            changes.push(station.told()?);
        }
        host::tell(&lab, &host, &changes)?;
        let tracking = tracking(&host)?;
        Site::between(lab, workloads, tracking)
    }

    /// The same by hand: a namespace for each network and one between them, routes and neighbours, and no rule.
    ///
    /// # Errors
    ///
    /// `ip` fails.
    pub fn one_router_by_hand() -> Result<Site> {
        let lab = lab(BY_HAND, "hand")?;
        let router = lab.node("router")?;
        forwarding(&router)?;
        let mut workloads = Vec::new();
        for (network, (name, node)) in (1..).zip([("left", "one"), ("right", "two")]) {
            let host = lab.node(name)?;
            forwarding(&host)?;
            let workload = plug(&lab, node, &host, Station { network, n: 2 })?;
            let net = network + 6;
            let lines = format!(
                "{}route add default via 169.254.{net}.2 dev router\nroute add default via fd00:{net}::2 dev router\n",
                behind(&workload)
            );
            workload::batch(&lab, &host, &lines)?;
            let [v4, v6] = workload.addresses;
            let lines = format!(
                "route add {v4} via 169.254.{net}.1 dev {name}\nroute add {v6} via fd00:{net}::1 dev {name}\n"
            );
            workload::batch(&lab, &router, &lines)?;
            workloads.push(workload);
        }
        Site::between(lab, workloads, Vec::new())
    }

    fn between(
        lab: LabGuard,
        workloads: Vec<Workload>,
        tracking: Vec<(Node, Option<String>)>,
    ) -> Result<Site> {
        let [one, two]: [Workload; 2] = workloads.try_into().ok().context("two workloads")?;
        for to in two.addresses.map(|address| address.to_string()) {
            let ping = ["ping", "-n", "-c", "1", "-W", "1", &to];
            let answers = wait_until(READY, || one.place.run(&ping).is_ok());
            ensure!(answers, "no answer from {to} within {READY:?}");
        }
        Ok(Site {
            _lab: lab,
            path: Path { one, two, tracking },
        })
    }
}

/// A host that many networks are added to.
///
/// # Errors
///
/// It can't be made.
pub fn lone_host() -> Result<(LabGuard, Node)> {
    let lab = lab(TWO_HOSTS, "many")?;
    let host = lab.node("a")?;
    forwarding(&host)?;
    Ok((lab, host))
}
