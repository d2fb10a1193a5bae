//! Neighbour solicitations on an uplink that the host answers for workloads: how many a second, how soon, and what a flood for
//! addresses that nobody has costs the others; beside the kernel's proxy_ndp and ndppd.
//!
//! Two namespaces with a veth pair between them: a router that asks, and a host that answers for so many addresses. One
//! thread asks for one after the other as fast as it can; since a veth hands a packet over at once, that thread's time is
//! what asking and answering take together. (ndppd answers from a process of its own.)

mod asker;
mod segment;

use std::{process::ExitCode, time::Duration};

use anyhow::{Result, ensure};
use clap::Parser;
use hextet_bench::{
    report::{self, Goal, Row},
    sample::Samples,
};

use asker::Asker;
use segment::{Answerer, Segment};

/// Neighbour solicitations on an uplink, beside the kernel's proxy_ndp and ndppd.
#[derive(Debug, Parser)]
#[command(name = "hextet-bench-ndp")]
struct Options {
    /// How often each has its turn.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// For how long is asked.
    #[arg(long, default_value_t = 2)]
    seconds: u64,
    /// Print a line of JSON for each figure.
    #[arg(long)]
    json: bool,
}

/// Addresses that are answered for.
const SIZES: [u32; 3] = [100, 10_000, 65_536];
/// Where the goals are.
const COMPARED: u32 = 10_000;
const GOAL: f64 = 20.0;
/// More addresses cost nothing.
const FLAT: f64 = 0.8;
/// Solicitations of which the time is taken.
const TIMED: usize = 2_000;
/// How many a flood sends in a second.
const FLOOD: u32 = 100_000;

fn main() -> ExitCode {
    match run(&Options::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// What one did with so many addresses, round by round.
#[derive(Default)]
struct Record {
    answered: Samples,
    soon: Samples,
    late: Samples,
    /// While others are asked for: the late ones, and the share that was answered.
    flooded: Samples,
    share: Samples,
    setup: Samples,
}

fn run(options: &Options) -> Result<()> {
    ensure!(options.rounds > 0, "--rounds has to be at least 1");
    ensure!(options.seconds > 0, "--seconds has to be at least 1");
    let mut all = Vec::new();
    for answerer in Answerer::ALL {
        for size in SIZES {
            all.push((answerer, size, Record::default()));
        }
    }
    for round in 1..=options.rounds {
        for (answerer, size, record) in &mut all {
            eprint!(
                "round {round} of {}, {answerer}, {size} addresses: ",
                options.rounds
            );
            measure(
                *answerer,
                *size,
                Duration::from_secs(options.seconds),
                record,
            )?;
            eprintln!(
                "{:.0} answered a second",
                record.answered.iter().last().unwrap_or(f64::NAN)
            );
        }
    }
    report::print("ndp", &rows(&all), options.json)
}

fn measure(answerer: Answerer, size: u32, time: Duration, record: &mut Record) -> Result<()> {
    let segment = Segment::up(answerer, size)?;
    record.setup.push(segment.setup.as_secs_f64());
    let asker = Asker::new(&segment)?;
    record.answered.push(asker.answered(time)?);
    let times = asker.times(TIMED)?;
    record.soon.push(times.answered.quantile(0.5));
    record.late.push(times.answered.quantile(0.99));
    let times = asker.flooded(FLOOD, TIMED)?;
    record.flooded.push(times.answered.quantile(0.99));
    record.share.push(times.share);
    Ok(())
}

type Records = [(Answerer, u32, Record)];

fn of(all: &Records, answerer: Answerer, size: u32) -> Option<&Record> {
    let found = all.iter().find(|(a, s, _)| (*a, *s) == (answerer, size));
    found.map(|(.., record)| record)
}

fn rows(all: &Records) -> Vec<Row> {
    let mut rows = Vec::new();
    for (answerer, size, record) in all {
        let case = format!("{answerer}, {size} addresses");
        rows.push(Row::new(&case, "answered", "1/s", &record.answered));
        rows.push(Row::new(&case, "p50", "µs", &record.soon));
        rows.push(Row::new(&case, "p99", "µs", &record.late));
        rows.push(
            Row::new(&case, "p99 in a flood", "µs", &record.flooded)
                .note(format!("{FLOOD} a second for addresses that nobody has")),
        );
        rows.push(Row::new(&case, "answered in a flood", "", &record.share));
        rows.push(Row::new(&case, "set up", "s", &record.setup));
    }
    let answered = |answerer, size| of(all, answerer, size).map(|r| r.answered.median());
    let Some(ours) = answered(Answerer::Ours, COMPARED) else {
        return rows;
    };
    for peer in [Answerer::Kernel, Answerer::Ndppd] {
        if let Some(theirs) = answered(peer, COMPARED) {
            rows.push(
                Row::single(
                    format!("ours, {COMPARED} addresses"),
                    "answered",
                    "1/s",
                    ours,
                )
                .beside(peer.to_string(), ours / theirs)
                .goal(Goal::AtLeast(GOAL)),
            );
        }
    }
    for size in SIZES {
        if let Some(other) = answered(Answerer::Ours, size).filter(|_| size != SIZES[0]) {
            let few = answered(Answerer::Ours, SIZES[0]).unwrap_or(f64::NAN);
            rows.push(
                Row::single(format!("ours, {size} addresses"), "answered", "1/s", other)
                    .beside(format!("ours, {} addresses", SIZES[0]), other / few)
                    .goal(Goal::AtLeast(FLAT)),
            );
        }
    }
    if let Some(record) = of(all, Answerer::Ours, COMPARED) {
        rows.push(
            Row::single(
                format!("ours, {COMPARED} addresses"),
                "answered in a flood",
                "",
                record.share.median(),
            )
            .goal(Goal::AtLeast(1.0)),
        );
    }
    rows
}
