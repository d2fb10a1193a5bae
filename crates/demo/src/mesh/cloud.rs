//! A cloud over the mesh: its server at one site, its hypervisors at two others, behind NATs.

use std::{net::IpAddr, path::Path, thread, time::Duration};

use anyhow::{Context, Result};
use hextet_lab::PingStream;
use hextet_types::{Family, Prefix};
use serde_json::json;

use super::{INTERVAL, Mesh};
use crate::{
    check::{expect, wait_for},
    hypervisor::Hypervisor,
    probe::{Reach, finish, nothing_lost},
    rest::{Cloud, text},
    server::Server,
    workload::{Clients, Workload},
};

/// Where the server is, and the hypervisors.
const CONTROLLER: &str = "p1";
const HOSTS: [&str; 2] = ["n1", "n2"];
/// A node that is no host of the cloud.
const WITNESS: &str = "two";
/// What an interface of the mesh carries at least here.
const SETTINGS: &str = "global_physnet_mtu = 1360\n";
/// How long the mesh may take to know the way to a workload.
const KNOWN: Duration = Duration::from_secs(10);
/// How long programs stay away that were killed.
const AWAY: Duration = Duration::from_secs(10);

/// Workloads of two sites reach each other by both families, on a routed network and on a private one, and lose nothing when agents and nodes are killed.
pub fn over_mesh(m: &mut Mesh, program: &Path) -> Result<String> {
    let home = m.member(CONTROLLER)?.home;
    let server = Server::start_at(&m.lab, program, (CONTROLLER, home), SETTINGS)?;
    let mut hosts = Vec::new();
    for name in HOSTS {
        hosts.push(host(m, program, &server, name)?);
    }
    for host in &mut hosts {
        host.wait_until_settled()?;
    }
    let cloud = server.login()?;
    let routed = workloads(m, &cloud, &hosts, &routed(&cloud)?, ["vm1", "vm2"])?;
    let private = workloads(m, &cloud, &hosts, &private(&cloud)?, ["vm3", "vm4"])?;
    for [a, b] in [&routed, &private] {
        meet(a, b)?;
    }
    expect(
        routed[0].place.reaches(private[1].v6.into(), 2).is_err(),
        "the private network is not private",
    )?;
    announced(m, &routed)?;
    let sent = killed(m, &mut hosts, [&routed, &private])?;
    Ok(format!(
        "{} and {} on n1, {} and {} on n2 of a cloud whose server is on p1: each pair meets by both families, routed and by VXLAN; \
         agents and nodes killed for {} s: 0 of {sent} echoes lost",
        routed[0].v6,
        private[0].v6,
        routed[1].v6,
        private[1].v6,
        AWAY.as_secs(),
    ))
}

fn host(m: &Mesh, program: &Path, server: &Server, name: &'static str) -> Result<Hypervisor> {
    let socket = m.member(name)?.socket();
    let uplink = format!(
        "uplink = \"mesh\"\nmesh_socket = \"{}\"\n\n[host]\nhost = \"{name}\"\nuplinks = [\"eth0\"]\n",
        socket.display()
    );
    let mut host = Hypervisor::with_uplink(&m.lab, program, server, name, &uplink)?;
    host.join(&server.join_token(name)?)?;
    host.start_agent(&m.lab)?;
    Ok(host)
}

/// A network of both families to whose ports the mesh leads.
fn routed(cloud: &Cloud) -> Result<String> {
    let attributes = json!({"name": "sites", "provider:network_type": "routed"});
    let cidrs = ["2001:db8:100::/64", "192.0.2.128/25"];
    network(cloud, attributes, cidrs)
}

/// One to which nobody else leads.
fn private(cloud: &Cloud) -> Result<String> {
    let cidrs = ["fd00:77::/64", "10.77.0.0/24"];
    network(
        cloud,
        json!({"name": "inside", "provider:network_type": "vxlan"}),
        cidrs,
    )
}

fn network(cloud: &Cloud, attributes: serde_json::Value, [v6, v4]: [&str; 2]) -> Result<String> {
    let id = text(&cloud.create("network", attributes)?, "id")?;
    cloud.create(
        "subnet",
        json!({"network_id": id, "ip_version": 6, "cidr": v6,
        "ipv6_ra_mode": "slaac", "ipv6_address_mode": "slaac"}),
    )?;
    cloud.create(
        "subnet",
        json!({"network_id": id, "ip_version": 4, "cidr": v4}),
    )?;
    Ok(id)
}

/// One on each host.
fn workloads(
    m: &Mesh,
    cloud: &Cloud,
    hosts: &[Hypervisor],
    network: &str,
    names: [&str; 2],
) -> Result<[Workload; 2]> {
    let group = text(
        &cloud.create("security_group", json!({"name": names[0]}))?,
        "id",
    )?;
    for ethertype in ["IPv4", "IPv6"] {
        let rule =
            json!({"security_group_id": group, "direction": "ingress", "ethertype": ethertype});
        cloud.create("security_group_rule", rule)?;
    }
    let start = |(name, host): (&str, &Hypervisor)| {
        let place = m.lab.node(name)?;
        let workload = Workload::create(cloud, place, name, ("", network), host, &[&group])?;
        workload.plug(host)?;
        let state = m.lab.node_directory(name);
        workload
            .configure(Clients::SlaacAndDhcpv4, &state)
            .with_context(|| format!("the clients of {name}"))?;
        anyhow::Ok(workload)
    };
    let [a, b] = names;
    let [first, second] = hosts else {
        anyhow::bail!("two hosts");
    };
    Ok([start((a, first))?, start((b, second))?])
}

fn address(workload: &Workload, family: Family) -> IpAddr {
    match family {
        Family::V4 => workload.v4.into(),
        Family::V6 => workload.v6.into(),
    }
}

/// Both ways, by both families.
fn meet(a: &Workload, b: &Workload) -> Result<()> {
    for family in Family::BOTH {
        for (from, to) in [(a, b), (b, a)] {
            wait_for(KNOWN, || from.place.reaches(address(to, family), 1))
                .with_context(|| format!("{} to {} by {family}", from.name, to.name))?;
        }
    }
    Ok(())
}

/// A node that is no part of the cloud knows by whom it goes there.
fn announced(m: &Mesh, workloads: &[Workload; 2]) -> Result<()> {
    let witness = m.member(WITNESS)?;
    for workload in workloads {
        for family in Family::BOTH {
            let to = Prefix::host(address(workload, family));
            wait_for(KNOWN, || {
                let status = witness.status()?;
                expect(
                    status
                        .routes
                        .iter()
                        .any(|route| route.chosen && route.to == to),
                    format!("Babel knows no way to {to}"),
                )
            })?;
        }
    }
    Ok(())
}

/// Agents and nodes of both hosts are killed, and come back.
fn killed(m: &mut Mesh, hosts: &mut [Hypervisor], pairs: [&[Workload; 2]; 2]) -> Result<u64> {
    let streams = pairs.into_iter().flat_map(|[a, b]| {
        let ways = [(a, b, Family::V6), (b, a, Family::V4)];
        ways.map(|(from, to, family)| stream(m, from, address(to, family)))
    });
    let streams: Vec<PingStream> = streams.collect::<Result<_>>()?;
    for (host, name) in hosts.iter_mut().zip(HOSTS) {
        host.kill_agent()?;
        m.member_mut(name)?.0.kill()?;
    }
    thread::sleep(AWAY);
    for (host, name) in hosts.iter_mut().zip(HOSTS) {
        let (member, lab) = m.member_mut(name)?;
        member.start(lab)?;
        member.introduce()?;
        host.start_agent(lab)?;
    }
    for host in hosts.iter_mut() {
        host.wait_until_settled()?;
    }
    thread::sleep(AWAY);
    let lost = finish(streams)?;
    nothing_lost(&lost)?;
    for [a, b] in pairs {
        meet(a, b)?;
    }
    Ok(lost.iter().map(|report| report.sent).sum())
}

fn stream(m: &Mesh, from: &Workload, to: IpAddr) -> Result<PingStream> {
    let (log, to) = (format!("ping-{}", from.name), to.to_string());
    Ok(m.lab.ping_stream(&from.place, &log, &to, INTERVAL)?)
}
