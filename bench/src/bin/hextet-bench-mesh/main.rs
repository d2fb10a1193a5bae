//! A tunnel between two hosts: TCP throughput, CPU time per GB, small packets, round trips and memory, beside wireguard-go, OpenVPN and no tunnel at all.
//!
//! Two namespaces with a veth pair between them, and a process with the tunnel in each: ours over IPv4, ours over IPv6, wireguard-go and OpenVPN
//! over IPv4, by turns. One stream of TCP over IPv4, then one over IPv6. Both ends and the stream share this machine's processors, and CPU time
//! is that of both tunnels' processes and of this one, which sends and receives.

mod site;
mod stream;

use std::{process::ExitCode, time::Duration};

use anyhow::{Result, ensure};
use clap::Parser;
use hextet_bench::{
    report::{self, Goal, Row},
    sample::Samples,
};

use site::{Rival, Site};
use stream::Inner;

/// A userspace tunnel, beside wireguard-go and OpenVPN.
#[derive(Debug, Parser)]
#[command(name = "hextet-bench-mesh")]
struct Options {
    /// How often each has its turn.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// How long each stream flows.
    #[arg(long, default_value_t = 5)]
    seconds: u64,
    /// Print a line of JSON for each figure.
    #[arg(long)]
    json: bool,
}

fn main() -> ExitCode {
    match run(&Options::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// What one rival did with one family inside, round by round.
#[derive(Clone, Default)]
struct Record {
    gigabits: Samples,
    cpu_per_gigabyte: Samples,
    small: Samples,
    round_trip: Samples,
    resident: Samples,
}

const RIVALS: [Rival; 5] = [
    Rival::Nothing,
    Rival::OursOverIpv4,
    Rival::OursOverIpv6,
    Rival::WireguardGo,
    Rival::OpenVpn,
];
/// For how long small packets are sent.
const SMALL: Duration = Duration::from_secs(2);
/// Tunnels of which the memory of each is measured.
const MANY: u8 = 100;
const INNERS: [Inner; 2] = [Inner::Ipv4, Inner::Ipv6];

fn run(options: &Options) -> Result<()> {
    ensure!(options.rounds > 0, "--rounds has to be at least 1");
    ensure!(options.seconds > 0, "--seconds has to be at least 1");
    let mut records = vec![vec![Record::default(); INNERS.len()]; RIVALS.len()];
    for round in 1..=options.rounds {
        for (rival, records) in RIVALS.into_iter().zip(&mut records) {
            let site = Site::up(rival)?;
            for (inner, record) in INNERS.into_iter().zip(records) {
                eprint!("round {round} of {}, {rival}, {inner}: ", options.rounds);
                let flow = stream::flow(&site, inner, Duration::from_secs(options.seconds))?;
                let small = stream::small(&site, inner, SMALL)?;
                let round_trip = stream::round_trip(&site, inner)?;
                eprintln!(
                    "{:.2} Gbit/s, {:.2} CPU-s/GB, {small:.0} thousand small packets/s, {round_trip:.0} µs",
                    flow.gigabits, flow.cpu_per_gigabyte
                );
                record.gigabits.push(flow.gigabits);
                record.cpu_per_gigabyte.push(flow.cpu_per_gigabyte);
                record.small.push(small);
                record.round_trip.push(round_trip);
                record.resident.push(site.resident()?);
            }
        }
    }
    let mut rows = rows(&records);
    rows.push(memory(options.rounds)?);
    report::print("mesh", &rows, options.json)
}

/// What each tunnel takes, of many in one process.
fn memory(rounds: usize) -> Result<Row> {
    let mut each = Samples::default();
    for _ in 0..rounds {
        let site = Site::up(Rival::OursOverIpv4)?;
        let before = site.resident()?;
        site.more(MANY)?;
        each.push((site.resident()? - before) / f64::from(MANY));
    }
    let row = Row::new("each of 100 more tunnels", "resident", "MiB", &each);
    Ok(row.goal(Goal::AtMost(1.0)))
}

fn rows(records: &[Vec<Record>]) -> Vec<Row> {
    let [nothing, ours @ .., wireguard_go, openvpn] = records else {
        return Vec::new();
    };
    let mut rows = Vec::new();
    for (rival, ours) in RIVALS.iter().skip(1).zip(ours) {
        let beside = nothing.iter().zip(wireguard_go).zip(openvpn);
        for ((inner, ours), ((nothing, wireguard_go), openvpn)) in
            INNERS.iter().zip(ours).zip(beside)
        {
            let others = [
                ("veth", nothing),
                ("wireguard-go", wireguard_go),
                ("OpenVPN", openvpn),
            ];
            rows.extend(compare(&format!("{rival}, {inner}"), ours, &others));
        }
    }
    rows
}

fn compare(case: &str, ours: &Record, others: &[(&str, &Record); 3]) -> [Row; 6] {
    let [_, (wireguard_go, theirs), (openvpn, its)] = others;
    let note = |what: fn(&Record) -> &Samples| {
        let notes = others.map(|(name, record)| format!("{name} {:.2}", what(record).median()));
        notes.join(", ")
    };
    let tcp = || {
        let row = Row::new(case, "TCP", "Gbit/s", &ours.gigabits);
        row.note(note(|record| &record.gigabits))
    };
    [
        tcp()
            .beside(*wireguard_go, ratio(&ours.gigabits, &theirs.gigabits))
            .goal(Goal::AtLeast(1.3)),
        tcp()
            .beside(*openvpn, ratio(&ours.gigabits, &its.gigabits))
            .goal(Goal::AtLeast(2.0)),
        Row::new(
            case,
            "CPU, both ends and TCP",
            "s/GB",
            &ours.cpu_per_gigabyte,
        )
        .goal(Goal::AtMost(8.0))
        .note(note(|record| &record.cpu_per_gigabyte)),
        Row::new(case, "small packets", "thousand/s", &ours.small)
            .beside(*wireguard_go, ratio(&ours.small, &theirs.small))
            .note(note(|record| &record.small)),
        Row::new(case, "round trip, median", "µs", &ours.round_trip)
            .note(note(|record| &record.round_trip)),
        Row::new(case, "resident", "MiB", &ours.resident)
            .goal(Goal::AtMost(21.0))
            .note(note(|record| &record.resident)),
    ]
}

/// The median of neighbouring samples' ratios.
fn ratio(ours: &Samples, theirs: &Samples) -> f64 {
    let ratios: Samples = ours.iter().zip(theirs.iter()).map(|(a, b)| a / b).collect();
    ratios.median()
}
