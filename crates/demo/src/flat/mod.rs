//! Flat: a Cybera-like cloud, on a VLAN whose own router sends router advertisements.

mod doctor;
mod failure;
mod reach;
mod told;

use std::{
    fs,
    net::{Ipv4Addr, Ipv6Addr},
    path::Path,
    time::Instant,
};

use anyhow::{Context, Result};
use comfy_table::{Table, presets};
use hextet_lab::{Lab, LabFile, LabGuard, Node};
use serde_json::json;

use crate::{
    check::Checks,
    hypervisor::Hypervisor,
    leftovers::Leftovers,
    rest::{Cloud, text},
    server::Server,
    workload::{Clients, Workload},
};

/// The host that stands for the internet.
pub const INTERNET_V4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 10);
/// The host that stands for the internet.
pub const INTERNET_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0xffff, 0, 0, 0, 0, 0x10);
/// The VLAN's prefix.
pub const PREFIX: &str = "2001:db8:0:10::/64";
/// The workloads, and their hosts.
const PLAN: [(&str, usize); 3] = [("vm1", 0), ("vm2", 1), ("vm3", 0)];

/// The lab with everything that runs in it.
pub struct Flat {
    /// The namespaces, and the router's program.
    pub lab: LabGuard,
    /// The host outside.
    pub internet: Node,
    /// The VLANs' router.
    pub router: Node,
    /// A machine on the VLAN that is nobody's workload.
    pub old: Node,
    /// The hypervisors.
    pub hosts: Vec<Hypervisor>,
    /// The server.
    #[expect(dead_code, reason = "it runs as long as this is here")]
    pub server: Server,
    /// Its API, as the administrator.
    pub cloud: Cloud,
    workloads: Vec<Workload>,
}

/// Builds it, checks it, and takes it away again.
///
/// # Errors
///
/// It can't be built.
pub fn run(checks: &mut Checks, program: &Path, labs: &Path, keep: bool) -> Result<()> {
    let before = Leftovers::look()?;
    let name = {
        let mut flat = Flat::build(checks, program, labs)?;
        flat.check(checks, program);
        if keep {
            return flat.keep(checks, program);
        }
        checks.narrate("Tearing it down.");
        flat.lab.name().to_owned()
    };
    checks.look("nothing-left-behind", || before.compare(&name));
    Ok(())
}

impl Flat {
    fn build(checks: &mut Checks, program: &Path, labs: &Path) -> Result<Flat> {
        let begin = Instant::now();
        checks.narrate("Two VLANs, their router (radvd), two hypervisors: labs/flat.toml");
        let lab = Lab::up(description(labs)?)?.guard();
        checks.narrate("A server, and an agent on each hypervisor.");
        let server = Server::start_in(&lab, program, "")?;
        let cloud = server.login()?;
        let mut hosts = Vec::new();
        for name in ["h1", "h2"] {
            let mut host = Hypervisor::with_uplink(&lab, program, &server, name, &uplinks(name))?;
            host.join(&server.join_token(name)?)?;
            host.start_agent(&lab)?;
            hosts.push(host);
        }
        checks.narrate("Over REST: the networks, which are the VLANs, and ports.");
        let network = create_networks(&cloud)?;
        let mut flat = Flat {
            internet: lab.node("internet")?,
            router: lab.node("router")?,
            old: lab.node("old")?,
            hosts,
            server,
            cloud,
            workloads: Vec::new(),
            lab,
        };
        for host in &mut flat.hosts {
            host.wait_until_settled()?;
        }
        flat.start_workloads(&network)?;
        checks.narrate(&format!("Up after {} s:", begin.elapsed().as_secs()));
        checks.show(&flat.table());
        Ok(flat)
    }

    fn start_workloads(&mut self, network: &str) -> Result<()> {
        let group = text(
            &self
                .cloud
                .create("security_group", json!({"name": "open"}))?,
            "id",
        )?;
        for ethertype in ["IPv4", "IPv6"] {
            let rule =
                json!({"security_group_id": group, "direction": "ingress", "ethertype": ethertype});
            self.cloud.create("security_group_rule", rule)?;
        }
        for (name, host) in PLAN {
            let host = &self.hosts[host];
            let place = self.lab.node(name)?;
            let network = ("vms", network);
            let workload =
                Workload::create(&self.cloud, place, name, network, host, &[group.as_str()])?;
            workload.plug(host)?;
            workload
                .configure(Clients::SlaacAndDhcpv4, &self.lab.node_directory(name))
                .with_context(|| format!("the clients of {name}"))?;
            self.workloads.push(workload);
        }
        Ok(())
    }

    fn check(&mut self, checks: &mut Checks, program: &Path) {
        let f = &*self;
        checks.narrate("What workloads are told, and who reaches whom:");
        checks.look("slaac-eui64", || told::slaac(f));
        checks.look("ra-flags-as-upstream", || told::as_upstream(f));
        checks.look("dns-by-dhcpv6", || told::dns_by_dhcpv6(f));
        checks.look("on-the-link", || reach::on_the_link(f));
        checks.look("nat-on-each-host", || reach::nat(f));
        checks.look("v4-on-another-vlan", || reach::v4_elsewhere(f));
        checks.look("no-dadfailed", || told::no_dadfailed(f));
        checks.look("dad-defended", || told::dad_defended(f));
        checks.look("rogue-ra-dies", || told::rogue(f));
        checks.look("scan-leaves-no-neighbours", || reach::scan(f));
        checks.look("doctor-finds", || doctor::finds(f, program));
        checks.narrate("What is broken or moved, and what it costs:");
        checks.look("process-killed-still-reachable", || failure::killed(self));
        checks.look("moved", || failure::moved(self));
        checks.look("upstream-router-lost-and-back", || {
            failure::router_lost(self)
        });
    }

    /// One of the workloads.
    ///
    /// # Errors
    ///
    /// There is none of that name.
    pub fn workload(&self, name: &str) -> Result<&Workload> {
        let found = self.workloads.iter().find(|w| w.name == name);
        found.with_context(|| format!("no workload {name}"))
    }

    /// All.
    pub fn workloads(&self) -> &[Workload] {
        &self.workloads
    }

    fn table(&self) -> String {
        let mut table = Table::new();
        table.load_style(presets::UTF8_FULL_CONDENSED);
        table.set_header(["workload", "host", "IPv6", "IPv4"]);
        for w in &self.workloads {
            let (v6, v4) = (w.v6.to_string(), w.v4.to_string());
            table.add_row([w.name.as_str(), &w.host, &v6, &v4]);
        }
        table.to_string()
    }

    fn keep(self, checks: &Checks, program: &Path) -> Result<()> {
        let (lab, program) = (self.lab.name().to_owned(), program.display());
        checks.show(&format!(
            "\nIt goes on running. Look around:\n  \
             {program} lab exec {lab} old -- rdisc6 eth0\n  \
             {program} lab exec {lab} vm1 -- rdisc6 eth0\n  \
             {program} lab exec {lab} router -- ip -6 neigh\n  \
             {program} lab exec {lab} h1 -- {program} status --agent {}\n\
             Take it away:\n  {program} lab down {lab}",
            self.lab.node_directory("h1").join("agent.sock").display(),
        ));
        std::mem::forget(self);
        Ok(())
    }
}

fn uplinks(name: &str) -> String {
    format!(
        "[host]\nhost = \"{name}\"\nphysical_networks = {{ vlan30 = \"vlan30\", vlan20 = \"vlan20\" }}\n"
    )
}

/// `vms`: the VLAN with IPv6, where IPv4 is private, and leaves with the host's own address. Its identifier.
fn create_networks(cloud: &Cloud) -> Result<String> {
    let network = json!({"name": "vms", "shared": true, "provider:network_type": "flat",
        "provider:physical_network": "vlan30"});
    let vms = text(&cloud.create("network", network)?, "id")?;
    cloud.create(
        "subnet",
        json!({"network_id": vms, "ip_version": 6, "cidr": PREFIX, "gateway_ip": "2001:db8:0:10::1",
            "ipv6_address_mode": "slaac"}),
    )?;
    cloud.create(
        "subnet",
        json!({"network_id": vms, "ip_version": 4, "cidr": "10.30.0.0/16", "hextet:nat44": {}}),
    )?;
    Ok(vms)
}

/// The lab, with a node for each workload.
fn description(labs: &Path) -> Result<LabFile> {
    let path = labs.join("flat.toml");
    let mut text = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
    for (name, ..) in PLAN {
        text.push_str(&format!("\n[node.{name}]\nrole = \"workload\"\n"));
    }
    Ok(LabFile::parse(&text, &path)?)
}
