//! `cargo xtask`: the one door for contributors.
//!
//! Each command installs what it needs on a fresh Debian 12 machine, then runs it. This crate knows
//! nothing of hextet itself and depends on none of its crates, so that it builds in seconds.

mod bench;
mod demo;
mod fuzz;
mod mesh_sim;
mod packages;
mod suite;
mod tidy;
mod workspace;
mod worlds;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

use workspace::Workspace;

/// The one door for contributors. Each command installs what it needs when run as root.
#[derive(Debug, Parser)]
#[command(bin_name = "cargo xtask", max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Build a situation's lab, show what it does, check it from outside, tear it down.
    #[command(
        after_help = "Examples:\n  cargo xtask demo\n  cargo xtask demo tenant --keep\n  \
        cargo xtask demo mesh\n  cargo xtask demo --json | jq ."
    )]
    Demo(demo::Demo),
    /// All that CI runs: formatting, lints, tidy, dependencies, unit, property, lab and interop tests.
    #[command(after_help = "Examples:\n  cargo xtask test\n  cargo xtask test bgp::session")]
    Test(suite::Test),
    /// What hextet costs, beside its peers, on this machine.
    #[command(
        after_help = "Examples:\n  cargo xtask bench datapath\n  cargo xtask bench api --json"
    )]
    Bench(bench::Bench),
    /// Check the invariants that a program can check.
    Tidy,
    /// Run the fuzz targets, each for a while.
    #[command(after_help = "Examples:\n  cargo xtask fuzz\n  cargo xtask fuzz bgp --seconds 600")]
    Fuzz(fuzz::Fuzz),
    /// Make random clouds and compare what their packets do with what `explain` says.
    #[command(after_help = "Examples:\n  cargo xtask worlds --count 500\n  \
        cargo xtask worlds --count 1 --seed 17")]
    Worlds(worlds::Worlds),
    /// Simulate a mesh of a thousand nodes on a synthetic map, beside re6stnet's rule.
    #[command(
        after_help = "Examples:\n  cargo xtask mesh-sim\n  cargo xtask mesh-sim --nodes 200 --seed 7\n  \
        cargo xtask mesh-sim --write docs"
    )]
    MeshSim(mesh_sim::MeshSim),
}

fn main() -> ExitCode {
    match run(Cli::parse()) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: Cli) -> Result<ExitCode> {
    let workspace = Workspace::find()?;
    match cli.command {
        Command::Demo(demo) => demo.run(&workspace),
        Command::Test(test) => test.run(&workspace),
        Command::Bench(bench) => bench.run(&workspace),
        Command::Tidy => tidy::run(&workspace),
        Command::Fuzz(fuzz) => fuzz.run(&workspace),
        Command::Worlds(worlds) => worlds.run(&workspace),
        Command::MeshSim(sim) => sim.run(&workspace),
    }
}
