//! From intent to kernel, with the real server and agent: what 10,000 ports on one host cost.
//!
//! The ports are made over the REST API; their links are there and up before the agent starts, as the
//! links of running guests are. CPU time is the agent's own, user and system, and so holds the kernel's
//! work on its writes. (nf_tables tells of each element while anybody listens, in whichever namespace of the
//! machine: other agents and `nft monitor` cost this one more than a second.) Two of the ports have namespaces behind them, between which flows are probed.

mod host;
mod probe;
mod rest;
mod rules;
mod world;

use std::{
    path::PathBuf,
    process::ExitCode,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use clap::Parser;
use hextet_bench::{
    report::{self, Goal, Row},
    sample::Samples,
};
use serde_json::{Value, json};

use host::Host;
use rest::text;
use world::{AGENTS, Workload, World, link_of, wait_for};

/// The agent's, user and system.
const AGENT_CPU: &str = "agent CPU";

/// From intent to kernel, with many ports on one host.
#[derive(Debug, Parser)]
#[command(name = "hextet-bench-apply")]
struct Options {
    /// Ports on the host.
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u16).range(3..=50_000))]
    ports: u16,
    /// Flows in the connection table while rules change.
    #[arg(long, default_value_t = 100_000)]
    flows: usize,
    /// Changes of a rule; half of them take one away.
    #[arg(long, default_value_t = 120)]
    changes: usize,
    /// Ports, and remote members, that are added one by one.
    #[arg(long, default_value_t = 7)]
    added: usize,
    /// Print a line of JSON for each figure.
    #[arg(long)]
    json: bool,
    /// The program; by default the one beside this.
    #[arg(long, env = "HEXTET_BIN")]
    hextet: Option<PathBuf>,
}

fn main() -> ExitCode {
    let options = Options::parse();
    match run(&options).and_then(|rows| report::print("apply", &rows, options.json)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench apply: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> Result<Vec<Row>> {
    let beside = std::env::current_exe()
        .context("find this program")?
        .with_file_name("hextet");
    let program = options.hextet.clone().unwrap_or(beside);
    let begin = Instant::now();
    let tell = |what: &str| eprintln!("{:6.1} s  {what}", begin.elapsed().as_secs_f64());
    tell("namespaces, server");
    let world = World::new(&program)?;
    let mut host = Host::new(&world.lab, &program, AGENTS)?;
    host.join(&world.join_token()?)?;
    tell(&format!(
        "{} ports over REST, and their links",
        options.ports
    ));
    let (one, two) = populate(&world, &host, usize::from(options.ports))?;
    tell("cold start");
    let mut rows = cold_start(&world, &mut host, options)?;
    tell("restart");
    rows.extend(restart(&world, &mut host)?);
    tell("one port more");
    rows.extend(one_port_more(&world, &host, options)?);
    tell("one remote member more");
    rows.push(one_member_more(&world, &host, options)?);
    tell("flows into the connection table, then changes of a rule");
    rows.extend(rules::change(&world, &host, (&one, &two), options)?);
    tell("taking it down");
    Ok(rows)
}

/// Ports, rules and links; the first two ports get workloads.
fn populate(world: &World, host: &Host, count: usize) -> Result<(Workload, Workload)> {
    let web = world
        .cloud
        .create("security_group", json!({"name": "web"}))?;
    let web = text(&web, "id")?;
    for ethertype in ["IPv4", "IPv6"] {
        world.allow(&world.group, ethertype, (53, 60), None)?;
        world.allow(&web, ethertype, (5432, 5432), Some(&world.group))?;
    }
    let ports = world.create_ports(count)?;
    let [first, second, rest @ ..] = ports.as_slice() else {
        anyhow::bail!("too few ports");
    };
    let one = world.plug("one", first)?;
    let two = world.plug("two", second)?;
    let groups = json!({"security_groups": [world.group, web]});
    world.cloud.update_port(&two.id()?, groups)?;
    let names: Vec<String> = rest.iter().map(link_of).collect::<Result<_>>()?;
    host.make_links(&names, &world.lab)?;
    Ok((one, two))
}

fn cold_start(world: &World, host: &mut Host, options: &Options) -> Result<Vec<Row>> {
    let begin = Instant::now();
    host.start_agent(&world.lab)?;
    let (used, system) = (host.rest()?, host.agent_system_cpu()?);
    let took = begin.elapsed();
    let status = host.status().with_context(|| host.log())?;
    let wanted = usize::from(options.ports);
    ensure!(
        status.ports == (wanted, wanted),
        "{} of {} ports pass packets after a cold start:\n{}",
        status.ports.1,
        status.ports.0,
        host.log()
    );
    let note = format!(
        "{:.2} s of it the kernel's; {} writes for {} objects; at rest after {:.1} s",
        system.as_secs_f64(),
        status.writes,
        status.objects,
        took.as_secs_f64()
    );
    let case = format!("cold start, {wanted} ports");
    let row = Row::single(case, AGENT_CPU, "s", used.as_secs_f64()).goal(Goal::AtMost(2.0));
    Ok(vec![row.note(note)])
}

fn restart(world: &World, host: &mut Host) -> Result<Vec<Row>> {
    host.stop_agent()?;
    host.start_agent(&world.lab)?;
    let (used, system) = (host.rest()?, host.agent_system_cpu()?);
    let status = host.status().with_context(|| host.log())?;
    let kernel = system.as_secs_f64();
    let note = format!(
        "{kernel:.2} s of it the kernel's; {} objects stood",
        status.objects
    );
    let writes = Row::single("restart", "writes", "", status.writes as f64);
    Ok(vec![
        writes.goal(Goal::AtMost(0.0)),
        Row::single("restart", AGENT_CPU, "s", used.as_secs_f64()).note(note),
    ])
}

/// CPU time of the agent, beyond what it uses at rest, for a port that is bound to this host.
fn one_port_more(world: &World, host: &Host, options: &Options) -> Result<Vec<Row>> {
    let idle = idle(host)?;
    let (mut samples, mut writes) = (Samples::default(), Samples::default());
    for _ in 0..options.added {
        let port = world.cloud.create("port", world.port(None))?;
        let id = text(&port, "id")?;
        host.make_links(&[link_of(&port)?], &world.lab)?;
        let written = host.status()?.writes;
        host.rest()?;
        let (begin, before) = (Instant::now(), host.agent_cpu()?);
        let bind = json!({"binding:host_id": "host"});
        world.cloud.update_port(&id, bind)?;
        wait_for(Duration::from_secs(10), || {
            let port = world.cloud.port(&id)?;
            ensure!(
                port["status"] == "ACTIVE",
                "port {id} is {}",
                port["status"]
            );
            Ok(())
        })?;
        thread::sleep(Duration::from_millis(200));
        let used = host.agent_cpu()? - before;
        let beyond = used.as_secs_f64() - idle * begin.elapsed().as_secs_f64();
        samples.push(beyond * 1000.0);
        writes.push((host.status()?.writes - written) as f64);
    }
    let note = format!(
        "from the API's request to ACTIVE; {} times; {} writes",
        samples.len(),
        writes.median()
    );
    let added = Row::new("one port more", AGENT_CPU, "ms", &samples).goal(Goal::AtMost(5.0));
    let at_rest = Row::single("at rest", AGENT_CPU, "ms/s", idle * 1000.0);
    Ok(vec![
        added.note(note),
        at_rest.note("over 3 s; taken off one port more"),
    ])
}

fn idle(host: &Host) -> Result<f64> {
    host.rest()?;
    let (begin, before) = (Instant::now(), host.agent_cpu()?);
    thread::sleep(Duration::from_secs(3));
    let used = host.agent_cpu()? - before;
    Ok(used.as_secs_f64() / begin.elapsed().as_secs_f64())
}

/// Writes for a member of the group of all, with one address, on a host elsewhere.
fn one_member_more(world: &World, host: &Host, options: &Options) -> Result<Row> {
    let mut samples = Samples::default();
    for _ in 0..options.added {
        let before = host.status()?.writes;
        let mut port: Value = world.port(Some("elsewhere"));
        port["fixed_ips"] = json!([{"subnet_id": world.subnet_v6}]);
        let made = world.cloud.create("port", port)?;
        ensure!(
            made["fixed_ips"].as_array().is_some_and(|f| f.len() == 1),
            "a member with other than one address: {made}"
        );
        wait_for(Duration::from_secs(10), || {
            ensure!(host.status()?.writes > before, "the member is not written");
            Ok(())
        })?;
        thread::sleep(Duration::from_millis(200));
        samples.push((host.status()?.writes - before) as f64);
    }
    let case = format!("one member more in {}", options.ports);
    let row = Row::single(case, "writes", "", samples.quantile(1.0)).goal(Goal::AtMost(1.0));
    Ok(row.note(format!("most of {}; a set element", samples.len())))
}
