//! Forwarding between two workloads of one host: plain routing, hextet, and Calico's iptables layout, by
//! turns, with as many ports as are asked for. See `docs/bench.md` for how it measures.

mod calico;
mod flood;
mod meter;
mod ours;
mod site;
mod traffic;

use std::{collections::BTreeMap, process::ExitCode, time::Instant};

use anyhow::{Context, Result, ensure};
use clap::Parser;
use hextet_bench::{
    report::{self, Goal, Row},
    sample::Samples,
};
use hextet_types::Family;

use calico::Backend;
use meter::Meter;
use site::{Port, Site};
use traffic::Traffic;

/// Forwarding, beside plain routing and Calico's iptables layout.
#[derive(Debug, Parser)]
#[command(name = "hextet-bench-datapath")]
struct Options {
    /// Ports on the host; the two of the traffic are always there.
    #[arg(long, value_delimiter = ',', default_value = "1,100,1000,10000",
          value_parser = clap::value_parser!(u32).range(1..=50_000))]
    ports: Vec<u32>,
    /// Samples of each kind.
    #[arg(long, default_value_t = 9)]
    rounds: usize,
    /// CPU time of one sample, in milliseconds.
    #[arg(long, default_value_t = 100)]
    sample_ms: u32,
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
/// In the place of a rival: a host that forwards nothing.
const SENDER: usize = 3;

type Kind = (Traffic, Family);

/// What was measured with one number of ports.
struct Contest {
    ports: u32,
    /// Of each rival, and of the sender alone where there are goals, round by round.
    samples: BTreeMap<Kind, [Vec<f64>; 4]>,
}

fn run(options: &Options) -> Result<Vec<Row>> {
    ensure!(options.rounds > 0, "--rounds has to be at least 1");
    let meter = Meter::new()?;
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
        let sites = [&plain, &ours, &calico, &sender];
        contests.push(Contest::hold(*count, sites, meter, options)?);
        tell(&format!("{}: taking it down", counted(*count)));
    }
    tell("done");
    Ok(rows(&contests, options))
}

impl Contest {
    /// Measures all kinds, round by round; in each, the rivals take turns, another one first each time. The
    /// first round only warms up.
    fn hold(ports: u32, sites: [&Site; 4], meter: Meter, options: &Options) -> Result<Contest> {
        let mut contest = Contest {
            ports,
            samples: BTreeMap::new(),
        };
        for round in 0..=options.rounds {
            for traffic in Traffic::ALL {
                for family in Family::BOTH {
                    let kind = (traffic, family);
                    for turn in 0..sites.len() {
                        let who = (round + turn) % sites.len();
                        if who == SENDER && !judged(traffic) {
                            continue;
                        }
                        let value = sample(who, sites[who], kind, meter, options)
                            .with_context(|| format!("{traffic}, {family}, {ports} ports"))?;
                        if round > 0 {
                            contest.samples.entry(kind).or_default()[who].push(value);
                        }
                    }
                }
            }
        }
        Ok(contest)
    }

    /// Of one rival to another, round by round.
    fn ratios(&self, kind: Kind, of: usize, to: usize) -> Samples {
        let samples = self.samples.get(&kind);
        let pairs = samples
            .into_iter()
            .flat_map(|s| s[of].iter().zip(s[to].iter()));
        pairs.map(|(a, b)| a / b).collect()
    }

    /// What forwarding takes with one rival to what it takes with another, without what the sender takes:
    /// ratios of speeds, round by round.
    fn net_ratios(&self, kind: Kind, of: usize, to: usize) -> Samples {
        let samples = self.samples.get(&kind);
        let rounds = samples.into_iter().flat_map(|s| {
            let both = s[of].iter().zip(&s[to]);
            both.zip(&s[SENDER])
        });
        rounds
            .map(|((of, to), sender)| (1.0 / to - 1.0 / sender) / (1.0 / of - 1.0 / sender))
            .collect()
    }

    fn row(&self, kind: Kind, of: usize, to: usize) -> Row {
        let (traffic, family) = kind;
        let (metric, unit, scale) = traffic.metric();
        let scaled = |who: usize| -> Samples {
            let samples = self.samples.get(&kind).map(|s| s[who].iter());
            let values = samples.into_iter().flatten();
            values.map(|value| value / scale).collect()
        };
        let ratios = self.ratios(kind, of, to);
        let mut note = format!(
            "{}: {:.3} {unit}; ratio {:.3} to {:.3}",
            RIVALS[to],
            scaled(to).median(),
            ratios.quantile(0.0),
            ratios.quantile(1.0)
        );
        if judged(traffic) {
            let net = self.net_ratios(kind, of, to).median();
            note += &format!("; without the sender {net:.3}");
        }
        let case = format!(
            "{}, {traffic}, {family}: {}",
            counted(self.ports),
            RIVALS[of]
        );
        Row::new(case, metric, unit, &scaled(of))
            .beside(RIVALS[to], ratios.median())
            .note(note)
    }
}

fn sample(
    who: usize,
    site: &Site,
    (traffic, family): Kind,
    meter: Meter,
    options: &Options,
) -> Result<f64> {
    let seconds = f64::from(options.sample_ms) / 1000.0;
    match RIVALS.get(who) {
        Some(name) => traffic
            .sample(site, family, meter, seconds)
            .with_context(|| format!("forward: {name}")),
        None => Traffic::sender(site, family, meter, seconds),
    }
}

fn rows(contests: &[Contest], options: &Options) -> Vec<Row> {
    let mut rows = Vec::new();
    for contest in contests {
        for kind in contest.samples.keys() {
            let ours = contest.row(*kind, OURS, PLAIN);
            rows.push(ours.goal(goal_beside_plain(kind.0, contest.ports)));
            rows.push(contest.row(*kind, CALICO, PLAIN));
            if judged(kind.0) {
                let goal = (contest.ports == 1_000).then_some(Goal::AtLeast(2.0));
                rows.push(contest.row(*kind, OURS, CALICO).goal(goal));
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
        options.rounds, options.sample_ms
    );
    rows
}

fn counted(ports: u32) -> String {
    match ports {
        1 => "1 port".to_owned(),
        n => format!("{n} ports"),
    }
}

/// Whether there is a goal for it.
fn judged(traffic: Traffic) -> bool {
    matches!(traffic, Traffic::Established | Traffic::New)
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
fn growth<'a>(fewest: &'a Contest, most: &'a Contest) -> impl Iterator<Item = Row> + 'a {
    let kinds = most.samples.keys().filter(|kind| judged(kind.0));
    kinds.flat_map(move |kind| {
        let row = |who: usize, to: usize, metric| {
            let [few, many] = [fewest, most].map(|c| c.ratios(*kind, who, to));
            let case = format!(
                "{}, {}, {}: {}",
                counted(most.ports),
                kind.0,
                kind.1,
                RIVALS[who]
            );
            let growth = many.median() / few.median();
            Row::new(case, metric, "", &many).beside(counted(fewest.ports), growth)
        };
        let ours = row(OURS, PLAIN, "ratio to plain routing");
        let alone = "ratio to the sender alone";
        [
            ours.goal(Goal::AtLeast(0.95))
                .note("0.95 and above is noise"),
            row(OURS, SENDER, alone).note("with what routing itself loses"),
            row(PLAIN, SENDER, alone).note("what routing itself loses"),
        ]
    })
}
