//! The tenant situation: private networks of two projects that know nothing of each other, on the hosts of the fabric.

mod byoip;
mod failure;
mod fragments;
mod gateway;
mod guest;
mod late;
mod metadata;
mod metering;
mod migration;
mod next_hop;
mod outside;
mod private;
mod project;
mod qos;
mod routed;
mod router;
mod shared;

use std::{
    fs,
    net::IpAddr,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use comfy_table::{Table, presets};
use hextet_lab::{Lab, LabFile, LabGuard, Node, PingStream};
use hextet_types::Family;
use serde_json::{Value, json};

use crate::{
    check::{Checks, expect, wait_for},
    hypervisor::{self, Hypervisor},
    leftovers::Leftovers,
    rest::{Cloud, text},
    server::Server,
};
use guest::Guest;
use outside::Outside;
use project::{Network, Project};
use routed::Routed;

/// Each project's network has these subnets.
const INNER: [&str; 2] = ["10.0.0.0/24", "fd00:1::/64"];
/// Each guest: its name, its host, and the end of its IPv4 and MAC addresses. Both projects' have the same.
const INSIDE: [(&str, usize, u8); 2] = [("1", 0, 0x11), ("2", 1, 0x12)];
/// Places where others come to be plugged later.
const OTHERS: [&str; 23] = [
    "hop1", "red3", "red4", "red5", "red6", "red7", "red8", "red9", "red10", "red11", "own1",
    "late1", "late2", "late3", "late4", "left1", "right1", "right2", "middle1", "watcher1",
    "share1", "share2", "watcher2",
];
const PROJECTS: [&str; 2] = ["red", "blue"];

/// The lab with everything that runs in it.
pub struct Tenant {
    /// The namespaces and the spines' programs.
    pub lab: LabGuard,
    /// The host outside.
    pub internet: Node,
    /// The route reflectors; all packets between hosts pass one of them.
    pub spines: [Node; 2],
    /// The hypervisors.
    pub hosts: Vec<Hypervisor>,
    /// The server.
    pub server: Server,
    /// Its API, as the administrator.
    pub admin: Cloud,
    /// Two who know nothing of each other.
    pub projects: Vec<Project>,
    /// Of the outer packets.
    pub tunnels: Family,
    inner: Vec<Network>,
    guests: Vec<Guest>,
    routed: Option<Routed>,
    outside: Option<Outside>,
}

/// Builds it, checks it, and takes it away again.
///
/// # Errors
///
/// It can't be built.
pub fn run(
    checks: &mut Checks,
    program: &Path,
    labs: &Path,
    (keep, tunnels): (bool, Family),
) -> Result<()> {
    let before = Leftovers::look()?;
    let name = {
        let mut tenant = Tenant::build(checks, program, labs, tunnels)?;
        tenant.check(checks);
        if keep {
            return tenant.keep(checks, program);
        }
        checks.narrate("Taking it away: first by the API, then the lab.");
        let emptied = tenant.empty();
        let name = tenant.lab.name().to_owned();
        drop(tenant);
        (name, emptied)
    };
    checks.look("nothing-left-behind", || {
        let (name, emptied) = name;
        let emptied = emptied?;
        Ok(format!("{emptied}; {}", before.compare(&name)?))
    });
    Ok(())
}

impl Tenant {
    fn build(checks: &mut Checks, program: &Path, labs: &Path, tunnels: Family) -> Result<Tenant> {
        let begin = Instant::now();
        checks.narrate(&format!(
            "Three hypervisors on a fabric (labs/fabric.toml), with tunnels by {tunnels} between them.",
        ));
        let lab = Lab::up(description(labs)?)?.guard();
        let version = match tunnels {
            Family::V4 => 4,
            Family::V6 => 6,
        };
        let settings =
            format!("tenant_network_types = [\"vxlan\"]\noverlay_ip_version = {version}\n");
        let server = Server::start_in(&lab, program, &settings)?;
        let admin = server.login()?;
        let mut hosts = hypervisor::start_all(&lab, program, &server, Some(tunnels))?;
        for host in &mut hosts {
            host.wait_until_settled()?;
        }
        checks.narrate("Two projects, each with a network 10.0.0.0/24 and fd00:1::/64, and the same addresses in it.");
        let mut tenant = Tenant {
            internet: lab.node("internet")?,
            spines: [lab.node("spine1")?, lab.node("spine2")?],
            projects: PROJECTS
                .iter()
                .map(|name| Project::create(&server, &admin, name))
                .collect::<Result<_>>()?,
            inner: Vec::new(),
            guests: Vec::new(),
            routed: None,
            outside: None,
            lab,
            hosts,
            server,
            admin,
            tunnels,
        };
        tenant.start_guests()?;
        checks.narrate(&format!("Up after {} s:", begin.elapsed().as_secs()));
        checks.show(&tenant.table());
        Ok(tenant)
    }

    /// The clients of all guests take their time beside each other.
    fn start_guests(&mut self) -> Result<()> {
        let networks = self.projects.iter().map(|p| p.network("inner", &INNER));
        self.inner = networks.collect::<Result<_>>()?;
        let mut plan = Vec::new();
        for (nth, project) in self.projects.iter().enumerate() {
            for (number, host, end) in INSIDE {
                let attributes = json!({
                    "mac_address": format!("02:00:00:00:10:{end:02x}"),
                    "fixed_ips": [{"ip_address": format!("10.0.0.{end}")}],
                });
                plan.push((nth, format!("{}{number}", project.name), host, attributes));
            }
        }
        let this = &*self;
        self.guests = thread::scope(|scope| {
            let start = |(nth, name, host, attributes): (usize, String, usize, Value)| {
                scope.spawn(move || {
                    let (project, network) = (&this.projects[nth], &this.inner[nth]);
                    this.start(project, network, (&name, host), &attributes)
                })
            };
            let started: Vec<_> = plan.into_iter().map(start).collect();
            let ended = started.into_iter().map(|t| match t.join() {
                Ok(guest) => guest,
                Err(panic) => std::panic::resume_unwind(panic),
            });
            ended.collect::<Result<Vec<Guest>>>()
        })?;
        Ok(())
    }

    /// Starts a guest; whoever asks keeps it.
    ///
    /// # Errors
    ///
    /// The cloud refuses, or an address does not come.
    pub fn start(
        &self,
        project: &Project,
        network: &Network,
        at: (&str, usize),
        attributes: &Value,
    ) -> Result<Guest> {
        let world = (&*self.lab, &self.admin, self.hosts.as_slice());
        Guest::start(world, (project, network), at, attributes)
    }

    /// A project's first network.
    ///
    /// # Errors
    ///
    /// There is none.
    pub fn network(&self, project: usize) -> Result<&Network> {
        self.inner.get(project).context("no such project")
    }

    /// A network's subnets, IPv4 first.
    ///
    /// # Errors
    ///
    /// The cloud refuses.
    pub fn subnets_of(&self, project: &Project, network: &Network) -> Result<Vec<String>> {
        let query = format!("network_id={}", network.id);
        let mut all = project.cloud.list("subnet", &query)?;
        all.sort_by_key(|subnet| subnet["ip_version"].as_u64());
        all.iter().map(|subnet| text(subnet, "id")).collect()
    }

    fn check(&mut self, checks: &mut Checks) {
        let t = &*self;
        checks.narrate("Who reaches whom:");
        checks.look("overlap-isolated", || private::overlap_isolated(t));
        checks.look("east-west-two-hosts", || private::east_west(t));
        checks.look("pmtu", || private::pmtu(t));
        checks.look("forged-vxlan-dropped", || private::forged(t));
        checks.look("late-subnet-address", || late::subnet(t));
        checks.look("guest-router-next-hop", || next_hop::guest_router(t));
        let routed = Routed::build(t);
        let with = |look: fn(&Tenant, &Routed) -> Result<String>| match &routed {
            Ok(routed) => look(t, routed),
            Err(error) => bail!("{error:#}"),
        };
        checks.narrate("Routers:");
        checks.look("routed-between-subnets", || with(routed::between_subnets));
        checks.look("router-attach-no-loss", || with(routed::attach_no_loss));
        checks.look("network-on-two-routers-overlap", || {
            routed::two_routers_overlap(t)
        });
        let outside = Outside::build(t);
        let with = |look: fn(&Tenant, &Outside) -> Result<String>| match &outside {
            Ok(outside) => look(t, outside),
            Err(error) => bail!("{error:#}"),
        };
        checks.narrate("The way outside:");
        checks.look("v6-public-from-pool-inbound", || with(outside::v6_public));
        checks.look("manual-v6-stays-inside", || with(outside::manual_v6));
        checks.look("snat-outbound", || with(outside::snat));
        checks.look("address-scope-no-nat", || with(outside::address_scope));
        checks.look("floating-ip-in-out", || with(outside::floating_ip));
        checks.look("floating-ip-moves", || with(outside::floating_ip_moves));
        checks.look("port-forwarding", || with(outside::port_forwarding));
        checks.look("ndp-proxy-address", || with(outside::ndp_proxy));
        checks.look("byoip-inbound", || byoip::inbound(t));
        checks.look("metadata-v4-v6", || with(metadata::both_families));
        checks.narrate("Limits:");
        checks.look("qos-limits-hold", || with(qos::limits));
        self.routed = routed.ok();
        self.outside = outside.ok();
        checks.narrate("Metering:");
        checks.look("metering-adds-up", || {
            let outside = self.outside.take();
            let seen = outside.as_ref().context("nothing leads outside");
            let seen = seen.and_then(|o| metering::adds_up(self, o));
            self.outside = outside;
            seen
        });
        checks.narrate("What is broken, and what it costs:");
        checks.look("snat-gateway-lost", || {
            let outside = self.outside.take();
            let seen = outside.as_ref().context("nothing leads outside");
            let seen = seen.and_then(|o| gateway::lost(self, o));
            self.outside = outside;
            seen
        });
        checks.look("address-pair-vrrp", || {
            let outside = self.outside.take();
            let seen = outside.as_ref().context("nothing leads outside");
            let seen = seen.and_then(|o| shared::by_vrrp(self, o));
            self.outside = outside;
            seen
        });
        checks.look("live-migration", || migration::live(self));
        checks.look("agent-killed-no-loss", || failure::agent_killed(self));
        checks.look("server-down-no-loss", || failure::server_down(self));
    }

    /// A guest.
    ///
    /// # Errors
    ///
    /// There is none of that name.
    pub fn guest(&self, name: &str) -> Result<&Guest> {
        let mut all = self.guests.iter();
        all.find(|guest| guest.name == name)
            .with_context(|| format!("no guest {name}"))
    }

    /// Streams of a hundred echo requests a second.
    ///
    /// # Errors
    ///
    /// `ping` can't be started.
    pub fn streams<'a>(
        &self,
        ways: impl IntoIterator<Item = (&'a Guest, IpAddr)>,
    ) -> Result<Vec<PingStream>> {
        let interval = Duration::from_millis(10);
        let start = |(from, to): (&Guest, IpAddr)| {
            let log = format!("ping-{to}").replace([':', '.'], "-");
            let to = to.to_string();
            Ok(self.lab.ping_stream(&from.place, &log, &to, interval)?)
        };
        ways.into_iter().map(start).collect()
    }

    /// Whatever there is on the hosts of private networks and routers goes with the last port.
    fn empty(&mut self) -> Result<String> {
        if let Some(outside) = self.outside.take() {
            outside.delete(self)?;
        }
        if let Some(routed) = self.routed.take() {
            routed.delete(self)?;
        }
        for guest in std::mem::take(&mut self.guests) {
            guest.delete(&self.admin, &self.hosts[guest.host])?;
        }
        for host in &mut self.hosts {
            host.wait_until_settled()?;
            wait_for(Duration::from_secs(20), || {
                let named = host.place.run(&["ip", "netns", "list"])?;
                let ours = |line: &&str| line.starts_with("hx-") || line.starts_with("hr-");
                let left: Vec<&str> = named.lines().filter(ours).collect();
                let status = host.status()?;
                let objects = &status["kernel"]["objects"];
                expect(
                    left.is_empty(),
                    format!(
                        "{} keeps {left:?}, with {objects} objects: {status}",
                        host.name
                    ),
                )
            })?;
        }
        Ok("no host kept a namespace of a network without ports".to_owned())
    }

    fn table(&self) -> String {
        let mut table = Table::new();
        table.load_style(presets::UTF8_FULL_CONDENSED);
        table.set_header(["guest", "host", "addresses"]);
        for guest in &self.guests {
            let addresses: Vec<_> = guest.addresses.iter().map(ToString::to_string).collect();
            let host = &self.hosts[guest.host].name;
            table.add_row([&guest.name, host, &addresses.join(" ")]);
        }
        table.to_string()
    }

    fn keep(self, checks: &Checks, program: &Path) -> Result<()> {
        let lab = self.lab.name().to_owned();
        let program = program.display();
        checks.show(&format!(
            "\nIt goes on running. Look around:\n  \
             {program} lab list\n  \
             {program} lab exec {lab} h1 -- ip netns list\n  \
             {program} lab exec {lab} h1 -- {program} status --agent {}\n  \
             {program} lab exec {lab} red1 -- ping 10.0.0.18\n  \
             OS_CLIENT_CONFIG_FILE={} {program} lab exec {lab} controller -- openstack --os-cloud hextet port list\n\
             Take it away:\n  {program} lab down {lab}",
            self.lab.node_directory("h1").join("agent.sock").display(),
            self.server.clouds_yaml().display(),
        ));
        std::mem::forget(self);
        Ok(())
    }
}

/// The fabric's lab under another name, with a node for each guest.
fn description(labs: &Path) -> Result<LabFile> {
    let path = labs.join("fabric.toml");
    let mut text = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
    let inside = PROJECTS.iter().flat_map(|project| {
        let numbers = INSIDE.iter().map(|(number, ..)| number);
        numbers.map(move |number| format!("{project}{number}"))
    });
    for name in inside.chain(OTHERS.map(str::to_owned)) {
        text.push_str(&format!("\n[node.{name}]\nrole = \"workload\"\n"));
    }
    Ok(LabFile::parse(&text, &path)?.named("tenant")?)
}
