//! The situations, each built in network namespaces, told step by step, and checked from outside.

mod check;
mod clients;
mod fabric;
mod flat;
mod flow;
mod hypervisor;
mod leftovers;
mod mesh;
mod probe;
mod rest;
mod server;
mod single;
mod tenant;
mod workload;

use std::{path::PathBuf, process::ExitCode};

use anyhow::{Context, Result, bail};
use clap::{Parser, ValueEnum};

use check::Checks;
use hextet_types::Family;

/// A situation's lab, end to end.
#[derive(Debug, Parser)]
#[command(name = "hextet-demo")]
struct Options {
    /// Which.
    #[arg(value_enum, default_value_t = Situation::Fabric)]
    situation: Situation,
    /// Leave it running, and say how to look around.
    #[arg(long)]
    keep: bool,
    /// A line of JSON for each check, and nothing else.
    #[arg(long)]
    json: bool,
    /// Make these checks alone; some need others before them.
    #[arg(long, value_name = "CHECK")]
    only: Vec<String>,
    /// The program; by default the one beside this.
    #[arg(long)]
    hextet: Option<PathBuf>,
    /// Of the packets between hosts: 4 or 6 (tenant).
    #[arg(long, default_value_t = 6, value_parser = clap::value_parser!(u8).range(4..=6))]
    underlay: u8,
    /// The folder of the labs' descriptions.
    #[arg(long, default_value = "labs")]
    labs: PathBuf,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Situation {
    /// A routed IPv6 cloud of three hypervisors.
    Fabric,
    /// A VLAN with its own router.
    Flat,
    /// A rented machine with one on-link /64.
    Single,
    /// Private networks of projects that know nothing of each other.
    Tenant,
    /// IPv6 between sites that have little in common, by tunnels on demand.
    Mesh,
}

fn main() -> ExitCode {
    let options = Options::parse();
    match run(&options) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("demo: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> Result<bool> {
    let beside = std::env::current_exe()
        .context("find this program")?
        .with_file_name("hextet");
    let program = options.hextet.clone().unwrap_or(beside);
    let mut checks = Checks::new(options.json, options.only.clone());
    match options.situation {
        Situation::Fabric => fabric::run(&mut checks, &program, &options.labs, options.keep)?,
        Situation::Flat => flat::run(&mut checks, &program, &options.labs, options.keep)?,
        Situation::Single => single::run(&mut checks, &program, &options.labs, options.keep)?,
        Situation::Tenant => {
            let how = (options.keep, underlay(options.underlay)?);
            tenant::run(&mut checks, &program, &options.labs, how)?;
        }
        Situation::Mesh => mesh::run(&mut checks, &program, &options.labs, options.keep)?,
    }
    let failed = checks.failed().count();
    checks.narrate(&match failed {
        0 => format!("All {} checks held.", checks.count()),
        _ => format!("{failed} of {} checks failed.", checks.count()),
    });
    Ok(failed == 0)
}

fn underlay(version: u8) -> Result<Family> {
    match version {
        4 => Ok(Family::V4),
        6 => Ok(Family::V6),
        _ => bail!("--underlay {version}: 4 or 6"),
    }
}
