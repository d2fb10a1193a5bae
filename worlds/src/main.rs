//! `hextet-worlds`: random clouds, their packets, and whether the kernel does what explanations say.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "all of this is a test"
)]

use std::process::ExitCode;

use clap::Parser;
use hextet_worlds::suite::run_worlds;

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
    /// Packets to begin with in each world; answers and errors come on top.
    #[arg(long, default_value_t = hextet_worlds::suite::PACKETS)]
    packets: usize,
    /// Print the coverage as JSON.
    #[arg(long)]
    json: bool,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let (coverage, found) = run_worlds(cli.seed, cli.count, cli.packets);
    for disagreement in &found {
        eprintln!("{disagreement}\n");
    }
    if cli.json {
        println!("{}", serde_json::to_string(&coverage).expect("plain data"));
    } else {
        println!("{}", coverage.table());
    }
    let shortcomings = coverage.shortcomings();
    // A single world, to look at, need not cover everything.
    let enough = cli.count < hextet_worlds::suite::WORLDS || shortcomings.is_empty();
    if !enough {
        eprintln!("error: met too rarely:\n  {}", shortcomings.join("\n  "));
    }
    println!("{} worlds, {} disagreements", coverage.worlds, found.len());
    match enough && found.is_empty() {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    }
}
