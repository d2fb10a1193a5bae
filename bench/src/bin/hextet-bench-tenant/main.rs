//! Private networks: two workloads on two hosts over VXLAN with policy on both sides, beside VXLAN by hand without;
//! through a router on one host, beside the same by hand; and what one more network costs. See `docs/bench.md`.

mod cloud;
mod host;
mod site;

use std::{path::PathBuf, process::ExitCode, time::Instant};

use anyhow::Result;
use clap::{Parser, Subcommand};
use hextet_bench::{
    forward::{Contest, Meter, Traffic, contest::Terms},
    report::{self, Goal, Row},
    sample::Samples,
};

use host::Added;
use site::Site;

/// Private networks, beside VXLAN and routing without policy.
#[derive(Debug, Parser)]
#[command(name = "hextet-bench-tenant")]
struct Options {
    #[command(flatten)]
    terms: Terms,
    /// Networks on one host, with a port each.
    #[arg(long, default_value_t = 500, value_parser = clap::value_parser!(u16).range(20..=4000))]
    networks: u16,
    /// Tunnels over IPv4 instead of IPv6.
    #[arg(long)]
    underlay_v4: bool,
    /// Print a line of JSON for each figure.
    #[arg(long)]
    json: bool,
    #[command(subcommand)]
    host: Option<HostCommand>,
}

/// What a host of the bench runs in its own namespaces.
#[derive(Debug, Subcommand)]
#[command(hide = true)]
enum HostCommand {
    #[command(hide = true)]
    Apply { name: String, file: PathBuf },
    #[command(hide = true)]
    Networks { name: String, count: u16 },
}

const RIVALS: [&str; 2] = ["by hand", "hextet"];
const BY_HAND: usize = 0;
const OURS: usize = 1;

fn main() -> ExitCode {
    let options = Options::parse();
    let result = match &options.host {
        Some(HostCommand::Apply { name, file }) => host::apply(name, file),
        Some(HostCommand::Networks { name, count }) => host::networks(name, *count),
        None => run(&options).and_then(|rows| report::print("tenant", &rows, options.json)),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench tenant: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> Result<Vec<Row>> {
    let meter = Meter::new()?;
    let terms = &options.terms;
    let begin = Instant::now();
    let tell = |what: &str| eprintln!("{:6.1} s  {what}", begin.elapsed().as_secs_f64());
    let v4 = options.underlay_v4;
    tell("two hosts, by VXLAN");
    let sites = [Site::two_hosts_by_hand(v4)?, Site::two_hosts(v4)?];
    let mut rows = contest("two hosts", &sites, meter, terms)?;
    drop(sites);
    tell("one host, through a router");
    let sites = [Site::one_router_by_hand()?, Site::one_router()?];
    rows.extend(contest("one router", &sites, meter, terms)?);
    drop(sites);
    tell(&format!("{} networks on one host", options.networks));
    let (lab, host) = site::lone_host()?;
    let added = host::add_networks(&host, options.networks)?;
    tell("taking it down");
    drop(lab);
    rows.extend(networks(&added));
    Ok(rows)
}

fn contest(name: &str, sites: &[Site; 2], meter: Meter, terms: &Terms) -> Result<Vec<Row>> {
    let paths = sites.each_ref().map(|site| &site.path);
    let rivals: Vec<_> = RIVALS.into_iter().zip(paths).collect();
    let contest = Contest::hold(&rivals, None, meter, terms)?;
    let rows = contest
        .kinds()
        .map(|kind| contest.row(name, kind, OURS, BY_HAND).goal(goal(kind.0)));
    Ok(rows.collect())
}

fn goal(traffic: Traffic) -> Option<Goal> {
    match traffic {
        Traffic::New => Some(Goal::AtLeast(0.6)),
        Traffic::Established => Some(Goal::AtLeast(0.75)),
        Traffic::Stream => Some(Goal::AtLeast(0.9)),
        _ => None,
    }
}

fn networks(added: &Added) -> [Row; 4] {
    let count = added.wall_ms.len();
    let few = |all: &[f64]| -> Samples { all.iter().take(count / 10).copied().collect() };
    let most = |all: &[f64]| -> Samples { all.iter().rev().take(count / 10).copied().collect() };
    let case = |which: &str| format!("one more network, {which} of {count}");
    let each = added.machine_kib / 1024.0 / count as f64;
    let program = added.program_kib / count as f64;
    [
        Row::new(case("first"), "wall time", "ms", &few(&added.wall_ms)).goal(Goal::AtMost(20.0)),
        Row::new(case("last"), "wall time", "ms", &most(&added.wall_ms)).goal(Goal::AtMost(20.0)),
        Row::new(case("last"), "CPU", "ms", &most(&added.cpu_ms)),
        Row::single(format!("each of {count} networks"), "memory", "MiB", each)
            .goal(Goal::AtMost(1.0))
            .note(format!("of the whole machine; {program:.0} KiB of it the planner and what it keeps of the kernel")),
    ]
}
