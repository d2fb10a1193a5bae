//! A million routes from one feeder, into the RIB alone: seconds and memory, beside BIRD's.
//!
//! Two namespaces with a link between them: the feeder in one, in the other hextet's speaker or BIRD 2, by
//! turns, each a process of its own that starts empty. Neither has a kernel table to export to, nor a second
//! peer to tell. hextet's side is its engine behind one TCP connection, without the agent around it.

mod contest;
mod feed;
mod roles;

use std::{net::SocketAddrV4, process::ExitCode};

use anyhow::{Result, ensure};
use clap::{Parser, Subcommand};
use hextet_bench::{
    report::{self, Goal, Row},
    sample::Samples,
};

use contest::{Contest, Cost, Rival};
use feed::{IPV4, IPV6};

/// A million routes, into hextet's RIB and BIRD's.
#[derive(Debug, Parser)]
#[command(name = "hextet-bench-bgp")]
struct Options {
    /// How often each of the two is fed.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Print a line of JSON for each figure.
    #[arg(long)]
    json: bool,
    #[command(subcommand)]
    role: Option<Role>,
}

/// What this program is where it starts itself.
#[derive(Debug, Subcommand)]
enum Role {
    /// hextet's speaker: waits for the feeder, and says when it has all routes.
    #[command(hide = true)]
    Serve { listen: SocketAddrV4 },
    /// The feeder, until its standard input ends.
    #[command(hide = true)]
    Feed { to: SocketAddrV4 },
}

fn main() -> ExitCode {
    let options = Options::parse();
    let done = match options.role {
        None => run(&options),
        Some(Role::Serve { listen }) => roles::serve(listen),
        Some(Role::Feed { to }) => roles::feed(to),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> Result<()> {
    ensure!(options.rounds > 0, "--rounds has to be at least 1");
    let contest = Contest::new()?;
    let (mut hextet, mut bird) = (Costs::default(), Costs::default());
    for round in 1..=options.rounds {
        for (rival, costs) in [(Rival::Hextet, &mut hextet), (Rival::Bird, &mut bird)] {
            eprint!("round {round} of {}, {rival}: ", options.rounds);
            let cost = contest.feed(rival)?;
            eprintln!(
                "{:.2} s CPU, {:.2} s, {:.0} MiB, {:.0} MiB at rest",
                cost.cpu, cost.wall, cost.peak, cost.rest
            );
            costs.add(&cost);
        }
    }
    report::print("bgp", &rows(&hextet, &bird), options.json)
}

/// No more than BIRD. The time until all routes are there is as much the feeder's.
const GOAL: Option<Goal> = Some(Goal::AtMost(1.0));

/// What one rival needed, round by round.
#[derive(Default)]
struct Costs {
    cpu: Samples,
    wall: Samples,
    peak: Samples,
    rest: Samples,
}

impl Costs {
    fn add(&mut self, cost: &Cost) {
        self.cpu.push(cost.cpu);
        self.wall.push(cost.wall);
        self.peak.push(cost.peak);
        self.rest.push(cost.rest);
    }
}

fn rows(hextet: &Costs, bird: &Costs) -> Vec<Row> {
    let kinds = [
        ("CPU", "s", &hextet.cpu, &bird.cpu, GOAL),
        (
            "time until all routes are there",
            "s",
            &hextet.wall,
            &bird.wall,
            None,
        ),
        ("peak memory", "MiB", &hextet.peak, &bird.peak, GOAL),
        ("memory at rest", "MiB", &hextet.rest, &bird.rest, GOAL),
    ];
    kinds
        .map(|(metric, unit, ours, theirs, goal)| {
            let case = format!("{IPV4} IPv4 and {IPV6} IPv6 routes");
            Row::new(case, metric, unit, ours)
                .beside("BIRD", ours.median() / theirs.median())
                .goal(goal)
                .note(format!("BIRD {theirs}, by turns"))
        })
        .to_vec()
}
