//! What the server costs: one port created with 1 to 10,000 there, 500 ports listed, memory.
//!
//! A real server process, its store on disk, loopback, one client, one request at a time. CPU is the
//! server's alone: all its threads, by the scheduler's statistics.

mod client;
mod server;

use std::process::ExitCode;

use anyhow::{Result, ensure};
use clap::Parser;
use hextet_bench::{
    cpu,
    report::{self, Goal, Row},
    sample::Samples,
};
use serde_json::{Value, json};

use crate::{client::Client, server::Server};

/// Ports there when one more is created.
const STAGES: [usize; 4] = [1, 100, 1_000, 10_000];
/// Ports of the project whose list is measured.
const LISTED: usize = 500;
/// Ports of one bulk request.
const BULK: usize = 500;
/// Lists of each kind.
const LISTS: usize = 40;
/// Before what is measured.
const WARM_UP: usize = 10;

/// What the server costs with up to 10,000 ports.
#[derive(Debug, Parser)]
struct Options {
    /// Print a line of JSON for each figure.
    #[arg(long)]
    json: bool,
    /// Single ports created, and deleted again, with each number of ports there.
    #[arg(long, default_value_t = 300)]
    creates: usize,
}

fn main() -> Result<ExitCode> {
    let options = Options::parse();
    let mut server = Server::start()?;
    let admin = server.admin()?;
    let rows = Bench::new(&server, &admin)?.run(options.creates)?;
    report::print("api", &rows, options.json)?;
    Ok(ExitCode::SUCCESS)
}

struct Bench<'a> {
    server: &'a Server,
    admin: &'a Client,
    member: Client,
    /// Most ports are of this project, those listed of the other.
    many: String,
    listed: String,
    network: String,
    ports: usize,
    devices: u64,
}

impl<'a> Bench<'a> {
    fn new(server: &'a Server, admin: &'a Client) -> Result<Self> {
        let (many, _) = admin.project("many")?;
        let (listed, member) = admin.project("listed")?;
        Ok(Bench {
            server,
            admin,
            member,
            many,
            listed,
            network: networks(admin)?,
            ports: 0,
            devices: 0,
        })
    }

    fn run(mut self, creates: usize) -> Result<Vec<Row>> {
        let mut rows = Vec::new();
        let idle = cpu::resident(self.server.pid())?;
        for stage in STAGES {
            self.fill(stage)?;
            eprintln!("{stage} ports: {creates} created and deleted, one by one");
            self.single(creates, &mut rows)?;
        }
        eprintln!("{LISTED} ports listed, {LISTS} times each");
        let admin = self.admin;
        let limited = format!("?limit={LISTED}");
        self.list("GET /ports?limit=500 as admin", admin, &limited, &mut rows)?;
        self.list("GET /ports, a project of 500", &self.member, "", &mut rows)?;
        let resident = cpu::resident(self.server.pid())?;
        let note = format!(
            "{idle:.1} before the first port; the store's file {:.1}; Neutron: 1,089",
            self.server.stored()?
        );
        rows.push(
            Row::single("server, 10000 ports", "resident memory", "MiB", resident)
                .goal(Goal::AtMost(60.0))
                .note(note),
        );
        Ok(rows)
    }

    /// Creates ports in bulk until there are so many; the listed project's come last.
    fn fill(&mut self, stage: usize) -> Result<()> {
        eprintln!("{stage} ports: filling");
        let last = STAGES.iter().max().is_some_and(|most| *most == stage);
        let others = stage - if last { LISTED } else { 0 };
        while self.ports < stage {
            let end = if self.ports < others { others } else { stage };
            let count = (end - self.ports).min(BULK);
            let project = if end == others {
                &self.many
            } else {
                &self.listed
            };
            let project = project.clone();
            let ports: Vec<Value> = (0..count).map(|_| self.port(&project)).collect();
            self.admin.create_ports(&ports)?;
            self.ports += count;
        }
        Ok(())
    }

    fn port(&mut self, project: &str) -> Value {
        self.devices += 1;
        json!({
            "network_id": self.network,
            "project_id": project,
            "name": format!("port {}", self.devices),
            "device_id": format!("00000000-0000-4000-8000-{:012x}", self.devices),
            "device_owner": "compute:nova",
        })
    }

    /// Each port goes again at once, so that their number stays.
    fn single(&mut self, creates: usize, rows: &mut Vec<Row>) -> Result<()> {
        let pid = self.server.pid();
        let (mut created, mut deleted) = (Samples::default(), Samples::default());
        for round in 0..WARM_UP + creates {
            let project = self.many.clone();
            let port = self.port(&project);
            let before = cpu::of_threads(pid)?;
            let id = self.admin.create("port", port)?;
            let between = cpu::of_threads(pid)?;
            self.admin.delete_port(&id)?;
            let after = cpu::of_threads(pid)?;
            if round >= WARM_UP {
                created.push((between - before) * 1e3);
                deleted.push((after - between) * 1e3);
            }
        }
        let all = self.ports == STAGES.into_iter().max().unwrap_or_default();
        let mut row = |verb: &str, samples: &Samples, goal: Option<Goal>, peer: &str| {
            let note = format!(
                "{} single requests, durable when answered, p99 {:.3}; Neutron: {peer}",
                samples.len(),
                samples.quantile(0.99)
            );
            let case = format!("port {verb}, {} there", self.ports);
            rows.push(milliseconds(case, samples).goal(goal).note(note));
        };
        row("created", &created, all.then_some(Goal::AtMost(2.0)), "145");
        row("deleted", &deleted, None, "119");
        Ok(())
    }

    fn list(&self, what: &str, by: &Client, query: &str, rows: &mut Vec<Row>) -> Result<()> {
        let mut samples = Samples::default();
        for round in 0..WARM_UP + LISTS {
            let before = cpu::of_threads(self.server.pid())?;
            let count = by.count_ports(query)?;
            let after = cpu::of_threads(self.server.pid())?;
            ensure!(count == LISTED, "{count} ports listed, not {LISTED}");
            if round >= WARM_UP {
                samples.push((after - before) * 1e3);
            }
        }
        let note = format!("{LISTS} lists of {LISTED}, 10,000 ports there; Neutron: 325");
        let row = milliseconds(what, &samples).goal(Goal::AtMost(20.0));
        rows.push(row.note(note));
        Ok(())
    }
}

fn milliseconds(case: impl Into<String>, samples: &Samples) -> Row {
    Row::new(case, "server CPU", "ms", samples)
}

/// `IPv6` as a cloud offers it: public IPv6 by SLAAC, private IPv4 behind NAT on each host; and
/// `dualStack` beside it. Gives the first one's id.
fn networks(admin: &Client) -> Result<String> {
    let network = |mut attributes: Value| {
        attributes["provider:network_type"] = json!("routed");
        admin.create("network", attributes)
    };
    let subnet = |network: &str, mut attributes: Value| {
        attributes["network_id"] = json!(network);
        admin.create("subnet", attributes)
    };
    let nat = network(json!({"name": "nat-pool"}))?;
    let pool = json!({"ip_version": 4, "cidr": "203.0.113.0/27", "gateway_ip": null, "enable_dhcp": false});
    let pool = subnet(&nat, pool)?;
    let shared = |name: &str| json!({"name": name, "shared": true, "hextet:single_homed": true});
    let ipv6 = network(shared("IPv6"))?;
    let slaac = json!({"ip_version": 6, "cidr": "2001:db8:100::/64", "ipv6_ra_mode": "slaac", "ipv6_address_mode": "slaac"});
    subnet(&ipv6, slaac)?;
    let nat44 =
        json!({"pool_subnet_id": pool, "addresses_per_host": 1, "max_connections_per_port": 1000});
    subnet(
        &ipv6,
        json!({"ip_version": 4, "cidr": "10.10.0.0/16", "hextet:nat44": nat44}),
    )?;
    let dual_stack = network(shared("dualStack"))?;
    let stateful = json!({"ip_version": 6, "cidr": "2001:db8:101::/64", "ipv6_ra_mode": "dhcpv6-stateful", "ipv6_address_mode": "dhcpv6-stateful"});
    subnet(&dual_stack, stateful)?;
    subnet(
        &dual_stack,
        json!({"ip_version": 4, "cidr": "198.51.100.0/24"}),
    )?;
    Ok(ipv6)
}
