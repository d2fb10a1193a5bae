//! The fabric: an NREC-like cloud. Two spines, three hypervisors, the networks `IPv6` and `dualStack`.

mod cloud;
mod failure;
mod reach;
mod vm;

use std::{
    collections::BTreeMap,
    fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use comfy_table::{Table, presets};
use hextet_lab::{Fault, Lab, LabFile, LabGuard, Node, PingStream};
use hextet_types::Prefix;
use serde_json::Value;

use crate::{
    check::{Checks, expect, wait_for},
    hypervisor::{self, Hypervisor},
    leftovers::Leftovers,
    rest::Cloud,
    server::Server,
    workload::{Clients, Workload},
};
use failure::SpineLoss;
use vm::Vm;

/// The host that stands for the internet.
pub const INTERNET_V4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 10);
/// The host that stands for the internet.
pub const INTERNET_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0xffff, 0, 0, 0, 0, 0x10);
/// Private IPv4 of the network `IPv6`.
pub const PRIVATE_V4: &str = "10.10.0.0/16";
/// Whatever workloads get.
const WORKLOADS: [&str; 3] = [PRIVATE_V4, "198.51.100.0/24", "2001:db8:100::/40"];
/// How long BIRD may take to use a spine again that came back.
const BOTH_SPINES: Duration = Duration::from_secs(90);
/// Each workload: its name, network, host, and groups.
const PLAN: [(&str, &str, usize, &[&str], Clients); 6] = [
    ("web1", "IPv6", 0, &["web"], Clients::SlaacAndDhcpv4),
    ("web2", "IPv6", 1, &["web"], Clients::SlaacAndDhcpv4),
    ("static", "IPv6", 0, &["ping"], Clients::Static),
    ("db", "IPv6", 2, &["ping", "db"], Clients::SlaacAndDhcpv4),
    (
        "public1",
        "dualStack",
        0,
        &["web"],
        Clients::Dhcpv6AndDhcpv4,
    ),
    (
        "public2",
        "dualStack",
        2,
        &["web"],
        Clients::Dhcpv6AndDhcpv4,
    ),
];

/// The lab with everything that runs in it.
pub struct Fabric {
    /// The namespaces and the spines' programs.
    pub lab: LabGuard,
    /// The host outside.
    pub internet: Node,
    /// The route reflectors.
    pub spines: [Node; 2],
    /// The hypervisors.
    pub hosts: Vec<Hypervisor>,
    /// The server.
    pub server: Server,
    /// Its API, as the administrator.
    pub cloud: Cloud,
    networks: BTreeMap<String, String>,
    groups: BTreeMap<String, String>,
    workloads: Vec<Workload>,
    /// The virtual machine.
    pub vm: Option<Vm>,
}

/// Builds it, checks it, and takes it away again.
///
/// # Errors
///
/// It can't be built.
pub fn run(checks: &mut Checks, program: &Path, labs: &Path, keep: bool) -> Result<()> {
    let before = Leftovers::look()?;
    let name = {
        let mut fabric = Fabric::build(checks, program, labs)?;
        fabric.check(checks);
        if keep {
            return fabric.keep(checks, program);
        }
        checks.narrate("Tearing it down.");
        fabric.lab.name().to_owned()
    };
    checks.look("nothing-left-behind", || before.compare(&name));
    Ok(())
}

impl Fabric {
    fn build(checks: &mut Checks, program: &Path, labs: &Path) -> Result<Fabric> {
        let begin = Instant::now();
        checks.narrate(
            "Two spines (BIRD 2), an internet behind them, three hypervisors: labs/fabric.toml",
        );
        let lab = Lab::up(description(labs)?)?.guard();
        checks
            .narrate("A server, and an agent on each hypervisor that joins with a one-time token.");
        let server = Server::start_in(&lab, program, "")?;
        let cloud = server.login()?;
        let hosts = hypervisor::start_all(&lab, program, &server, None)?;
        checks.narrate("Over REST: the networks IPv6 and dualStack, groups, and ports.");
        let networks = cloud::create_networks(&cloud)?;
        let groups = cloud::create_groups(&cloud)?;
        let mut fabric = Fabric {
            internet: lab.node("internet")?,
            spines: [lab.node("spine1")?, lab.node("spine2")?],
            hosts,
            server,
            cloud,
            networks,
            groups,
            workloads: Vec::new(),
            vm: None,
            lab,
        };
        for host in &mut fabric.hosts {
            host.wait_until_settled()?;
        }
        fabric.start_workloads()?;
        checks.narrate(&format!("Up after {} s:", begin.elapsed().as_secs()));
        checks.show(&fabric.table());
        Ok(fabric)
    }

    fn start_workloads(&mut self) -> Result<()> {
        for (name, network, host, groups, clients) in PLAN {
            let host = &self.hosts[host];
            let ids = groups
                .iter()
                .map(|g| self.group(g))
                .collect::<Result<Vec<_>>>()?;
            let network = (network, self.network(network)?);
            let workload =
                Workload::create(&self.cloud, self.lab.node(name)?, name, network, host, &ids)?;
            workload.plug(host)?;
            workload
                .configure(clients, &self.lab.node_directory(name))
                .with_context(|| format!("the clients of {name}"))?;
            self.workloads.push(workload);
        }
        self.vm = Some(Vm::start(self, 2)?);
        Ok(())
    }

    fn check(&mut self, checks: &mut Checks) {
        let f = &*self;
        checks.narrate("Who reaches whom:");
        checks.look("v6-inbound", || reach::v6_inbound(f));
        checks.look("vm-guest", || vm::guest(f));
        checks.look("v6-outbound", || reach::v6_outbound(f));
        checks.look("static-v6-peer", || reach::static_peer(f));
        checks.look("v4-private-no-inbound", || reach::private_no_inbound(f));
        checks.look("v4-private-nat-outbound", || reach::private_nat_outbound(f));
        checks.look("v4-private-between-workloads", || reach::private_between(f));
        checks.look("private-v4-not-leaked", || reach::private_not_leaked(f));
        checks.look("v4-public-inbound", || reach::public_inbound(f));
        checks.look("two-networks-refused", || reach::two_networks(f));
        checks.look("routes-on-spines", || reach::routes_on_spines(f));
        checks.look("group-denies", || reach::group_denies(f));
        checks.look("group-allows", || reach::group_allows(f));
        checks.look("remote-group", || reach::remote_group(f));
        checks.look("spoofed-source-dropped", || reach::spoofed(f));
        checks.narrate("What is broken, and what it costs:");
        checks.look("agent-killed-no-loss", || failure::agent_killed(self));
        checks.look("server-down-no-loss", || failure::server_down(self));
        checks.look("spine-lost", || failure::spine_lost(self));
        checks.look("tamper-mended", || failure::tamper(self));
        checks.look("flush-ruleset-fails-closed", || {
            failure::flush_fails_closed(self)
        });
    }

    /// The workloads that are plugged into namespaces.
    pub fn plugged(&self) -> impl Iterator<Item = &Workload> {
        self.workloads.iter()
    }

    /// One of them.
    ///
    /// # Errors
    ///
    /// There is none of that name.
    pub fn workload(&self, name: &str) -> Result<&Workload> {
        self.workloads
            .iter()
            .find(|w| w.name == name)
            .with_context(|| format!("no workload {name}"))
    }

    /// A network's id.
    ///
    /// # Errors
    ///
    /// There is none of that name.
    pub fn network(&self, name: &str) -> Result<&str> {
        self.networks
            .get(name)
            .map(String::as_str)
            .with_context(|| format!("no network {name}"))
    }

    /// A security group's id.
    ///
    /// # Errors
    ///
    /// There is none of that name.
    pub fn group(&self, name: &str) -> Result<&str> {
        self.groups
            .get(name)
            .map(String::as_str)
            .with_context(|| format!("no group {name}"))
    }

    /// The host routes to workloads that a spine's kernel has, sorted.
    ///
    /// # Errors
    ///
    /// `ip` fails.
    pub fn workload_routes(&self, spine: usize) -> Result<Vec<String>> {
        let pools = WORKLOADS.map(str::parse::<Prefix>);
        let mut found = Vec::new();
        for family in ["-4", "-6"] {
            let listed = self.spines[spine].run(&["ip", "-j", family, "route", "show"])?;
            let routes: Vec<Value> = serde_json::from_str(&listed)?;
            for route in routes.iter().filter(|r| r["type"] != "blackhole") {
                let Ok(prefix) = route["dst"].as_str().unwrap_or("default").parse::<Prefix>()
                else {
                    continue;
                };
                if pools.iter().flatten().any(|pool| pool.covers(prefix)) {
                    found.push(prefix.to_string());
                }
            }
        }
        found.sort();
        found.dedup();
        Ok(found)
    }

    /// Streams of echo requests from the internet to a workload, by both families.
    ///
    /// # Errors
    ///
    /// `ping` can't be started.
    pub fn streams_to(&self, name: &str) -> Result<Vec<PingStream>> {
        let workload = self.workload(name)?;
        self.streams([IpAddr::V6(workload.v6), IpAddr::V4(workload.v4)])
    }

    /// Streams of echo requests from the internet to whatever it reaches: enough of them that each spine
    /// has some.
    ///
    /// # Errors
    ///
    /// `ping` can't be started.
    pub fn streams_to_all(&self) -> Result<Vec<PingStream>> {
        let v6 = self.workloads.iter().map(|w| IpAddr::V6(w.v6));
        let public = self.workloads.iter().filter(|w| w.network == "dualStack");
        self.streams(v6.chain(public.map(|w| IpAddr::V4(w.v4))))
    }

    fn streams(&self, to: impl IntoIterator<Item = IpAddr>) -> Result<Vec<PingStream>> {
        let interval = Duration::from_millis(10);
        to.into_iter()
            .map(|to| {
                let log = format!("ping-{to}");
                Ok(self
                    .lab
                    .ping_stream(&self.internet, &log, &to.to_string(), interval)?)
            })
            .collect()
    }

    /// Breaks the first spine.
    ///
    /// # Errors
    ///
    /// It can't be broken.
    pub fn lose_spine(&self, way: SpineLoss) -> Result<()> {
        match way {
            SpineLoss::Killed => {
                expect(
                    self.lab.process("spine1/bird")?.kill(),
                    "BIRD had ended by itself",
                )?;
            }
            SpineLoss::LinkDown => {
                self.each_spine_link(|dev| Ok(self.spines[0].set_link(dev, false)?))?
            }
            SpineLoss::Silent => {
                self.each_spine_link(|dev| {
                    Ok(self.lab.break_link("spine1", dev, Fault::Silence)?)
                })?;
            }
        }
        Ok(())
    }

    /// Mends the first spine, and waits until all is as before.
    ///
    /// # Errors
    ///
    /// It does not come back.
    pub fn restore_spine(&mut self, way: SpineLoss) -> Result<()> {
        match way {
            SpineLoss::Killed => drop(self.lab.start("spine1/bird")?),
            SpineLoss::LinkDown => {
                self.each_spine_link(|dev| Ok(self.spines[0].set_link(dev, true)?))?
            }
            SpineLoss::Silent => {
                self.each_spine_link(|dev| Ok(self.lab.mend_link("spine1", dev)?))?;
            }
        }
        for host in &mut self.hosts {
            host.wait_until_settled()?;
        }
        reach::routes_on_spines(self).map(drop)?;
        wait_for(BOTH_SPINES, || self.both_spines_serve())
    }

    /// The internet has two ways to every address, and every hypervisor two ways out.
    fn both_spines_serve(&self) -> Result<()> {
        let ways = |node: &Node, words: &[&str]| -> Result<usize> {
            let listed = node.run(&[["ip", "-j"].as_slice(), words].concat())?;
            let routes: Vec<Value> = serde_json::from_str(&listed)?;
            let hops = routes
                .first()
                .map(|route| route["nexthops"].as_array().map_or(1, Vec::len));
            Ok(hops.unwrap_or(0))
        };
        for w in &self.workloads {
            let to = format!("{}/128", w.v6);
            let ways = ways(&self.internet, &["-6", "route", "show", &to])?;
            expect(ways == 2, format!("the internet has {ways} ways to {to}"))?;
        }
        for host in &self.hosts {
            for family in ["-4", "-6"] {
                let ways = ways(&host.place, &[family, "route", "show", "default"])?;
                expect(
                    ways == 2,
                    format!("{} has {ways} ways out ({family})", host.name),
                )?;
            }
        }
        Ok(())
    }

    fn each_spine_link(&self, change: impl Fn(&str) -> Result<()>) -> Result<()> {
        ["h1", "h2", "h3", "internet"]
            .into_iter()
            .try_for_each(change)
    }

    fn table(&self) -> String {
        let mut table = Table::new();
        table.load_style(presets::UTF8_FULL_CONDENSED);
        table.set_header(["workload", "network", "host", "IPv6", "IPv4"]);
        let vm = self.vm.iter().map(|vm| &vm.workload);
        for w in self.workloads.iter().chain(vm) {
            let (v6, v4) = (w.v6.to_string(), w.v4.to_string());
            table.add_row([w.name.as_str(), &w.network, &w.host, &v6, &v4]);
        }
        let routes = self.workload_routes(0).unwrap_or_default();
        format!("{table}\nspine1 has learned: {}", routes.join("  "))
    }

    fn keep(self, checks: &Checks, program: &Path) -> Result<()> {
        let lab = self.lab.name().to_owned();
        let program = program.display();
        checks.show(&format!(
            "\nIt goes on running. Look around:\n  \
             {program} lab list\n  \
             {program} lab exec {lab} spine1 -- birdc -s {} show route\n  \
             {program} lab exec {lab} h1 -- {program} status --agent {}\n  \
             {program} lab exec {lab} web1 -- ping {INTERNET_V6}\n  \
             OS_CLIENT_CONFIG_FILE={} {program} lab exec {lab} controller -- openstack --os-cloud hextet port list\n\
             Take it away:\n  {program} lab down {lab}",
            self.lab.node_directory("spine1").join("bird.ctl").display(),
            self.lab.node_directory("h1").join("agent.sock").display(),
            self.server.clouds_yaml().display(),
        ));
        std::mem::forget(self);
        Ok(())
    }
}

/// The lab, with a node for each workload.
fn description(labs: &Path) -> Result<LabFile> {
    let path = labs.join("fabric.toml");
    let mut text = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
    for (name, ..) in PLAN {
        text.push_str(&format!("\n[node.{name}]\nrole = \"workload\"\n"));
    }
    Ok(LabFile::parse(&text, &path)?)
}
