//! Rivals that forward by turns, and what one costs beside another.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use clap::{Args, builder::RangedU64ValueParser};
use hextet_types::Family;

use super::{Meter, Path, Traffic};
use crate::{report::Row, sample::Samples};

/// Of which traffic, and in which family.
pub type Kind = (Traffic, Family);

/// How it is measured.
#[derive(Clone, Debug, Args)]
pub struct Terms {
    /// Samples of each kind.
    #[arg(long, default_value_t = 9, value_parser = RangedU64ValueParser::<usize>::new().range(1..))]
    pub rounds: usize,
    /// CPU time of one sample, in milliseconds.
    #[arg(long, default_value_t = 100)]
    pub sample_ms: u32,
    /// Traffic of these kinds alone.
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = Traffic::ALL, hide_default_value = true)]
    pub traffic: Vec<Traffic>,
}

impl Terms {
    fn seconds(&self) -> f64 {
        f64::from(self.sample_ms) / 1000.0
    }
}

/// What was measured: of each rival, round by round.
#[derive(Debug, Default)]
pub struct Contest {
    rivals: Vec<&'static str>,
    samples: BTreeMap<Kind, Vec<Samples>>,
    sender: BTreeMap<Kind, Samples>,
}

impl Contest {
    /// Measures all kinds, round by round; in each, the rivals take turns, another one first each time. The first
    /// round only warms up. The sender, which drops what comes, is measured where there are goals.
    ///
    /// # Errors
    ///
    /// Something does not arrive.
    pub fn hold(
        rivals: &[(&'static str, &Path)],
        sender: Option<&Path>,
        meter: Meter,
        terms: &Terms,
    ) -> Result<Contest> {
        let mut contest = Contest {
            rivals: rivals.iter().map(|(name, _)| *name).collect(),
            ..Contest::default()
        };
        for round in 0..=terms.rounds {
            for traffic in terms.traffic.iter().copied() {
                for family in Family::BOTH {
                    let kind = (traffic, family);
                    let in_turn = |turn: usize| (round + turn) % rivals.len();
                    for who in (0..rivals.len()).map(in_turn) {
                        let Some((name, path)) = rivals.get(who) else {
                            continue;
                        };
                        let value = traffic
                            .sample(path, family, meter, terms.seconds())
                            .with_context(|| format!("{traffic}, {family}: {name}"))?;
                        if round > 0 {
                            contest.push(kind, who, value);
                        }
                    }
                    if let Some(sender) = sender.filter(|_| traffic.is_small())
                        && round > 0
                    {
                        let value = Traffic::sender(sender, family, meter, terms.seconds())?;
                        contest.sender.entry(kind).or_default().push(value);
                    }
                }
            }
        }
        Ok(contest)
    }

    fn push(&mut self, kind: Kind, who: usize, value: f64) {
        let all = vec![Samples::default(); self.rivals.len()];
        let samples = self.samples.entry(kind).or_insert(all);
        if let Some(samples) = samples.get_mut(who) {
            samples.push(value);
        }
    }

    /// What was measured.
    pub fn kinds(&self) -> impl Iterator<Item = Kind> + '_ {
        self.samples.keys().copied()
    }

    fn of(&self, kind: Kind, who: usize) -> impl Iterator<Item = f64> + '_ {
        let samples = self.samples.get(&kind).and_then(|all| all.get(who));
        samples.into_iter().flat_map(Samples::iter)
    }

    /// Of one rival to another, round by round.
    pub fn ratios(&self, kind: Kind, of: usize, to: usize) -> Samples {
        let pairs = self.of(kind, of).zip(self.of(kind, to));
        pairs.map(|(a, b)| a / b).collect()
    }

    /// Of one rival to the sender alone, round by round.
    pub fn to_sender(&self, kind: Kind, of: usize) -> Samples {
        let sender = self.sender.get(&kind).into_iter().flat_map(Samples::iter);
        self.of(kind, of).zip(sender).map(|(a, b)| a / b).collect()
    }

    /// What forwarding takes with one rival to what it takes with another, without what the sender takes: ratios of
    /// speeds, round by round.
    fn net_ratios(&self, kind: Kind, of: usize, to: usize) -> Samples {
        let sender = self.sender.get(&kind).into_iter().flat_map(Samples::iter);
        let both = self.of(kind, of).zip(self.of(kind, to));
        both.zip(sender)
            .map(|((of, to), sender)| (1.0 / to - 1.0 / sender) / (1.0 / of - 1.0 / sender))
            .collect()
    }

    /// One rival beside another, in a case of that name.
    pub fn row(&self, name: &str, kind: Kind, of: usize, to: usize) -> Row {
        let (traffic, family) = kind;
        let (metric, unit, scale) = traffic.metric();
        let scaled = |who| -> Samples { self.of(kind, who).map(|value| value / scale).collect() };
        let ratios = self.ratios(kind, of, to);
        let rival = |who: usize| self.rivals.get(who).copied().unwrap_or_default();
        let mut note = format!(
            "{}: {:.3} {unit}; ratio {:.3} to {:.3}",
            rival(to),
            scaled(to).median(),
            ratios.quantile(0.0),
            ratios.quantile(1.0)
        );
        if self.sender.contains_key(&kind) {
            let net = self.net_ratios(kind, of, to).median();
            note += &format!("; without the sender {net:.3}");
        }
        let case = format!("{name}, {traffic}, {family}: {}", rival(of));
        Row::new(case, metric, unit, &scaled(of))
            .beside(rival(to), ratios.median())
            .note(note)
    }
}
