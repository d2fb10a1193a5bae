//! How long a mesh of five nodes takes: from cold until each reaches each, to go on when a node and the registry are lost together, and to
//! have that node back, which remembers whom it met but finds no registry.
//!
//! Five namespaces and a registry's on one bridge, with IPv4 alone; all have joined before. Each node sends a datagram to each other fifty times a second,
//! and times are read from the answers. re6stnet's figures were measured elsewhere (0.642, five nodes, its defaults): they are references, not rivals
//! of the same run.

mod probe;
mod site;

use std::{process::ExitCode, thread, time::Duration};

use anyhow::{Result, ensure};
use clap::Parser;
use hextet_bench::{
    report::{self, Goal, Row},
    sample::Samples,
};

use probe::Probe;
use site::{NODES, Site};

/// How long a mesh of five nodes takes to meet, to go on after a loss, and to have a node back.
#[derive(Debug, Parser)]
#[command(name = "hextet-bench-mesh-convergence")]
struct Options {
    /// How often it is done.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Print a line of JSON for each figure.
    #[arg(long)]
    json: bool,
}

/// What is not there after so long never comes.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long a mesh is left alone before it is hurt.
const CALM: Duration = Duration::from_secs(10);
/// How long it is looked at what a loss costs.
const AFTER: Duration = Duration::from_secs(10);

fn main() -> ExitCode {
    match run(&Options::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> Result<()> {
    ensure!(options.rounds > 0, "--rounds has to be at least 1");
    let (mut cold, mut outage, mut back) = <(Samples, Samples, Samples)>::default();
    let mut resident = Samples::default();
    for round in 1..=options.rounds {
        eprint!("round {round} of {}: ", options.rounds);
        let (times, memory) = one_round()?;
        let [met, lost, returned] = times.map(|time| time.as_secs_f64());
        eprintln!(
            "all met after {met:.2} s, outage {lost:.2} s, the node back after {returned:.2} s"
        );
        cold.push(met);
        outage.push(lost);
        back.push(returned);
        resident.push(memory);
    }
    let rows = [
        Row::new("5 nodes from cold", "all pairs", "s", &cold)
            .goal(Goal::AtMost(3.0))
            .note("re6stnet 80.7, measured elsewhere"),
        Row::new(
            "a node and the registry lost",
            "outage of others",
            "s",
            &outage,
        )
        .goal(Goal::AtMost(1.0))
        .note("the longest of all pairs; re6stnet 33"),
        Row::new("the node's return", "all pairs", "s", &back)
            .goal(Goal::AtMost(3.0))
            .note("without a registry; re6stnet over 45"),
        Row::new("a node with 4 tunnels", "resident", "MiB", &resident)
            .goal(Goal::AtMost(24.0))
            .note("of the largest: its program, and its process for tunnels"),
    ];
    report::print("mesh-convergence", &rows, options.json)
}

/// From cold to all, the longest outage of a pair of others, and a node's return; and the memory of the largest node.
fn one_round() -> Result<([Duration; 3], f64)> {
    let site = Site::up()?;
    let mut probe = Probe::open(&site)?;
    let all: Vec<usize> = (0..NODES.len()).collect();
    probe.begin();
    for node in &all {
        site.start(*node)?;
    }
    let met = probe.until_all_answer(&all, PATIENCE)?;
    probe.watch(CALM)?;
    let mut resident = 0.0;
    for node in &all {
        resident = f64::max(resident, site.resident(*node)?);
    }
    let (lost, others) = (0, &all[1..]);
    probe.begin();
    thread::scope(|scope| {
        let losing = scope.spawn(|| site.lose(lost));
        probe.watch(AFTER)?;
        losing
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })?;
    let outage = probe.longest_gap(others)?;
    probe.begin();
    site.bring_back(lost)?;
    let back = probe.until_all_answer(&all, PATIENCE)?;
    Ok(([met, outage, back], resident))
}
