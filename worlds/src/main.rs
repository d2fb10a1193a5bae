//! `hextet-worlds`: random clouds, their packets, and whether the kernel does what explanations say.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "all of this is a test"
)]

use std::process::ExitCode;

use clap::Parser;
use hextet_worlds::{
    run::Disagreement,
    suite::{PACKETS, PACKETS_OF_PROJECTS, run_projects, run_worlds},
};

/// Makes random worlds, sends packets through them, and compares what comes out with what `explain`
/// says. Needs root, for network namespaces; nothing leaves them.
#[derive(Debug, Parser)]
#[command(
    max_term_width = 100,
    after_help = "Examples:\n  hextet-worlds\n  hextet-worlds --count 500\n  \
    hextet-worlds --count 1 --seed 17"
)]
struct Cli {
    /// Worlds.
    #[arg(long, default_value_t = 50)]
    count: u64,
    /// The first world's seed; the next have the next numbers.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Packets to begin with in each world, by default 400, and 250 in one of projects; answers and errors come on top.
    #[arg(long)]
    packets: Option<usize>,
    /// Only worlds of projects, or only those of routed networks.
    #[arg(long)]
    only: Option<Kind>,
    /// Print the coverage as JSON.
    #[arg(long)]
    json: bool,
}

/// What worlds are like.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Kind {
    /// Routed networks, groups and NAT44.
    Routed,
    /// Private networks, routers and ways outside.
    Projects,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let mut good = true;
    if cli.only != Some(Kind::Projects) {
        let (coverage, found) = run_worlds(cli.seed, cli.count, cli.packets.unwrap_or(PACKETS));
        let table = coverage.table();
        good &= report(&cli, &coverage, table, &coverage.shortcomings(), &found);
        println!("{} worlds, {} disagreements", coverage.worlds, found.len());
    }
    if cli.only != Some(Kind::Routed) {
        let (met, found) = run_projects(
            cli.seed,
            cli.count,
            cli.packets.unwrap_or(PACKETS_OF_PROJECTS),
        );
        good &= report(&cli, &met, met.table(), &met.shortcomings(), &found);
        let (worlds, found) = (met.worlds, found.len());
        println!("{worlds} worlds of projects, {found} disagreements");
    }
    match good {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    }
}

/// Says what was met; gives whether all is well.
fn report(
    cli: &Cli,
    coverage: &impl serde::Serialize,
    table: comfy_table::Table,
    shortcomings: &[String],
    found: &[Disagreement],
) -> bool {
    for disagreement in found {
        eprintln!("{disagreement}\n");
    }
    match cli.json {
        true => println!("{}", serde_json::to_string(coverage).expect("plain data")),
        false => println!("{table}"),
    }
    // A single world, to look at, need not cover everything.
    let enough = cli.count < hextet_worlds::suite::WORLDS || shortcomings.is_empty();
    if !enough {
        eprintln!("error: met too rarely:\n  {}", shortcomings.join("\n  "));
    }
    enough && found.is_empty()
}
