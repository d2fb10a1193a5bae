//! Forwarding between two workloads of one host: plain routing, hextet, and Calico's iptables layout, by
//! turns, with as many ports as are asked for. See `docs/bench.md` for how it measures.

mod calico;
mod ours;
mod site;

use std::{process::ExitCode, time::Instant};

use anyhow::{Context as _, Result};
use clap::Parser;
use hextet_bench::{
    forward::{Contest, Meter, Traffic, contest::Terms},
    report::{self, Goal, Row},
};

use calico::Backend;
use site::{Port, Site};

/// Forwarding, beside plain routing and Calico's iptables layout.
#[derive(Debug, Parser)]
#[command(name = "hextet-bench-datapath")]
struct Options {
    /// Ports on the host; the two of the traffic are always there.
    #[arg(long, value_delimiter = ',', default_value = "1,100,1000,10000",
          value_parser = clap::value_parser!(u32).range(1..=50_000))]
    ports: Vec<u32>,
    #[command(flatten)]
    terms: Terms,
    /// Calico's iptables.
    #[arg(long, value_enum, default_value = "nft")]
    iptables: Backend,
    /// hextet's programs by tc, as on a kernel without TCX.
    #[arg(long)]
    tc: bool,
    /// Print a line of JSON for each figure.
    #[arg(long)]
    json: bool,
}

fn main() -> ExitCode {
    let options = Options::parse();
    match run(&options).and_then(|rows| report::print("datapath", &rows, options.json)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench datapath: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Who forwards, in the order of their turns.
const RIVALS: [&str; 3] = ["plain", "hextet", "Calico"];
const PLAIN: usize = 0;
const OURS: usize = 1;
const CALICO: usize = 2;

fn run(options: &Options) -> Result<Vec<Row>> {
    let meter = Meter::new()?;
    let terms = &options.terms;
    let begin = Instant::now();
    let tell = |what: &str| eprintln!("{:6.1} s  {what}", begin.elapsed().as_secs_f64());
    let two = Port::first(2);
    let sender = Site::new("sender", &two)?;
    sender.discard_at_once()?;
    let mut contests = Vec::new();
    for count in &options.ports {
        let ports = Port::first(*count);
        tell(&format!("{}: plain routing", counted(*count)));
        let plain = Site::new("plain", &ports)?;
        plain.route(&ports)?;
        tell(&format!("{}: hextet", counted(*count)));
        let ours = Site::new("ours", &ports)?;
        ours::apply(&ours, &ports, !options.tc)?;
        tell(&format!("{}: Calico's layout", counted(*count)));
        let calico = Site::new("calico", &ports)?;
        calico.route(&ports)?;
        calico::apply(&calico, &ports, options.iptables)?;
        tell(&format!("{}: measuring", counted(*count)));
        let sites = [&plain, &ours, &calico];
        let paths = sites.map(|site| &site.path);
        let rivals: Vec<_> = RIVALS.into_iter().zip(paths).collect();
        let contest = Contest::hold(&rivals, Some(&sender.path), meter, terms)
            .with_context(|| counted(*count))?;
        contests.push((*count, contest));
        tell(&format!("{}: taking it down", counted(*count)));
    }
    tell("done");
    Ok(rows(&contests, options))
}

fn rows(contests: &[(u32, Contest)], options: &Options) -> Vec<Row> {
    let mut rows = Vec::new();
    for (ports, contest) in contests {
        let name = counted(*ports);
        for kind in contest.kinds() {
            let ours = contest.row(&name, kind, OURS, PLAIN);
            rows.push(ours.goal(goal_beside_plain(kind.0, *ports)));
            rows.push(contest.row(&name, kind, CALICO, PLAIN));
            if kind.0.is_small() {
                let goal = (*ports == 1_000).then_some(Goal::AtLeast(2.0));
                rows.push(contest.row(&name, kind, OURS, CALICO).goal(goal));
            }
        }
    }
    if let [fewest, .., most] = contests {
        rows.extend(growth(fewest, most));
    }
    let how = match options.iptables {
        Backend::Nft => "iptables-nft",
        Backend::Legacy => "iptables-legacy",
    };
    eprintln!(
        "{} samples of {} ms each; medians of ratios, round by round; Calico's rules by {how}",
        options.terms.rounds, options.terms.sample_ms
    );
    rows
}

fn counted(ports: u32) -> String {
    match ports {
        1 => "1 port".to_owned(),
        n => format!("{n} ports"),
    }
}

fn goal_beside_plain(traffic: Traffic, ports: u32) -> Option<Goal> {
    match traffic {
        Traffic::Established if ports == 10_000 => Some(Goal::AtLeast(0.75)),
        Traffic::New if ports == 10_000 => Some(Goal::AtLeast(0.62)),
        _ => None,
    }
}

/// What the most ports cost beside the fewest: each beside plain routing with as many, which is what the goal
/// is about; and hextet and plain routing, each beside the sender alone.
fn growth<'a>(
    (few, fewest): &'a (u32, Contest),
    (many, most): &'a (u32, Contest),
) -> impl Iterator<Item = Row> + 'a {
    let kinds = most.kinds().filter(|kind| kind.0.is_small());
    kinds.flat_map(move |kind| {
        let row = |who: usize, to: Option<usize>, metric| {
            let ratios = [fewest, most].map(|contest| match to {
                Some(to) => contest.ratios(kind, who, to),
                None => contest.to_sender(kind, who),
            });
            let [before, now] = &ratios;
            let case = format!(
                "{}, {}, {}: {}",
                counted(*many),
                kind.0,
                kind.1,
                RIVALS[who]
            );
            let growth = now.median() / before.median();
            Row::new(case, metric, "", now).beside(counted(*few), growth)
        };
        let alone = "ratio to the sender alone";
        [
            row(OURS, Some(PLAIN), "ratio to plain routing")
                .goal(Goal::AtLeast(0.95))
                .note("0.95 and above is noise"),
            row(OURS, None, alone).note("with what routing itself loses"),
            row(PLAIN, None, alone).note("what routing itself loses"),
        ]
    })
}
