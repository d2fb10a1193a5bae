//! Results beside their goals: a table for people, lines of JSON for programs.

use std::io::IsTerminal;

use anyhow::Result;
use comfy_table::{Cell, CellAlignment, Color, Table, presets};
use serde_json::json;

use crate::sample::Samples;

/// What a figure should be.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Goal {
    /// At least this.
    AtLeast(f64),
    /// At most this.
    AtMost(f64),
}

impl Goal {
    /// Whether a figure reaches it.
    pub fn reached(self, figure: f64) -> bool {
        match self {
            Goal::AtLeast(least) => figure >= least,
            Goal::AtMost(most) => figure <= most,
        }
    }

    fn bound(self) -> f64 {
        match self {
            Goal::AtLeast(bound) | Goal::AtMost(bound) => bound,
        }
    }
}

/// One measured thing of a bench: `cold start, 10000 ports` (the case) and its `agent CPU` (the metric).
#[derive(Clone, Debug)]
pub struct Row {
    case: String,
    metric: &'static str,
    unit: &'static str,
    median: f64,
    min: f64,
    max: f64,
    peer: Option<String>,
    ratio: Option<f64>,
    goal: Option<Goal>,
    note: String,
}

impl Row {
    /// Median and range of repeated measurements.
    pub fn new(
        case: impl Into<String>,
        metric: &'static str,
        unit: &'static str,
        samples: &Samples,
    ) -> Self {
        Row {
            case: case.into(),
            metric,
            unit,
            median: samples.median(),
            min: samples.quantile(0.0),
            max: samples.quantile(1.0),
            peer: None,
            ratio: None,
            goal: None,
            note: String::new(),
        }
    }

    /// What was measured once, or stands for many: a count, a percentile.
    pub fn single(
        case: impl Into<String>,
        metric: &'static str,
        unit: &'static str,
        value: f64,
    ) -> Self {
        Row::new(case, metric, unit, &Samples::from_iter([value]))
    }

    /// Beside a peer of the same run: the ratio is ours to theirs, and what a goal is about.
    pub fn beside(mut self, peer: impl Into<String>, ratio: f64) -> Self {
        self.peer = Some(peer.into());
        self.ratio = Some(ratio);
        self
    }

    /// What the ratio should be, or the median where there is no peer.
    pub fn goal(mut self, goal: impl Into<Option<Goal>>) -> Self {
        self.goal = goal.into();
        self
    }

    /// How it was measured.
    pub fn note(mut self, note: impl Into<String>) -> Self {
        self.note = note.into();
        self
    }

    /// Nothing where there is no goal.
    fn goal_met(&self) -> Option<bool> {
        let figure = self.ratio.unwrap_or(self.median);
        self.goal.map(|goal| goal.reached(figure))
    }

    fn json(&self, bench: &str) -> serde_json::Value {
        json!({
            "bench": bench,
            "case": self.case,
            "metric": self.metric,
            "unit": self.unit,
            "median": self.median,
            "min": self.min,
            "max": self.max,
            "peer": self.peer,
            "ratio": self.ratio,
            "goal": self.goal.map(Goal::bound),
            "goal_met": self.goal_met(),
            "note": self.note,
        })
    }

    fn cells(&self, colour: bool) -> Vec<Cell> {
        let number = |text: String| Cell::new(text.trim_end()).set_alignment(CellAlignment::Right);
        let range = if self.min < self.max {
            format!("{:.3} to {:.3}", self.min, self.max)
        } else {
            String::new()
        };
        let beside = match (&self.peer, self.ratio) {
            (Some(peer), Some(ratio)) => format!("{ratio:.3} of {peer}"),
            _ => String::new(),
        };
        let mut goal = Cell::new(match (self.goal, self.goal_met()) {
            (Some(goal), Some(true)) => describe(goal),
            (Some(goal), _) => format!("{} MISSED", describe(goal)),
            (None, _) => String::new(),
        });
        if let (Some(met), true) = (self.goal_met(), colour) {
            goal = goal.fg(if met { Color::Green } else { Color::Red });
        }
        vec![
            Cell::new(&self.case),
            Cell::new(self.metric),
            number(format!("{:.3} {}", self.median, self.unit)),
            number(range),
            number(beside),
            goal,
            Cell::new(&self.note),
        ]
    }
}

/// Prints all rows of a bench: lines of JSON where that is asked for, else a table.
pub fn print(bench: &str, rows: &[Row], json: bool) -> Result<()> {
    if json {
        for row in rows {
            println!("{}", serde_json::to_string(&row.json(bench))?);
        }
        return Ok(());
    }
    let colour = std::io::stdout().is_terminal();
    let mut table = Table::new();
    table
        .load_style(presets::NOTHING)
        .set_header(["case", "metric", "median", "range", "beside", "goal", "how"]);
    for row in rows {
        table.add_row(row.cells(colour));
    }
    println!("{table}");
    Ok(())
}

fn describe(goal: Goal) -> String {
    match goal {
        Goal::AtLeast(least) => format!("≥ {least}"),
        Goal::AtMost(most) => format!("≤ {most}"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::{Goal, Row};
    use crate::sample::Samples;

    #[test]
    fn goals() {
        assert!(Goal::AtLeast(0.75).reached(0.75));
        assert!(!Goal::AtLeast(0.75).reached(0.74));
        assert!(Goal::AtMost(2.0).reached(2.0));
        assert!(!Goal::AtMost(2.0).reached(f64::NAN));
    }

    #[test]
    fn a_goal_is_about_the_ratio_where_there_is_a_peer() {
        let samples: Samples = [1.0, 2.0, 4.0].into_iter().collect();
        let row = Row::new("UDP", "packets per CPU-second", "M", &samples);
        let alone = row.clone().goal(Goal::AtLeast(1.5)).json("datapath");
        assert_eq!(alone["goal_met"], true);
        assert_eq!(alone["ratio"], Value::Null);
        assert_eq!([&alone["min"], &alone["max"]], [1.0, 4.0]);
        let beside = row.beside("plain", 0.7).goal(Goal::AtLeast(0.75));
        assert_eq!(beside.json("datapath")["goal_met"], false);
    }

    #[test]
    fn no_goal_is_neither_met_nor_missed() {
        let row = Row::single("memory", "resident", "MiB", 3.0).json("api");
        assert_eq!(row["goal_met"], Value::Null);
    }
}
