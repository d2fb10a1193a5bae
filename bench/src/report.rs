//! Results beside their goals: a table for people, lines of JSON for programs.

use std::io::IsTerminal;

use anyhow::Result;
use comfy_table::{Cell, CellAlignment, Color, Table, presets};
use serde::Serialize;

/// What a figure should be.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
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
}

/// One figure of a bench.
#[derive(Clone, Debug, Serialize)]
pub struct Figure {
    /// What was measured.
    pub what: String,
    /// How much.
    pub value: f64,
    /// In this unit; a ratio has none.
    pub unit: &'static str,
    /// What it should be.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub goal: Option<Goal>,
    /// How it was measured: samples, their range, the peer.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub note: String,
}

/// Prints all figures: lines of JSON where that is asked for, else a table.
pub fn print(figures: &[Figure], json: bool) -> Result<()> {
    if json {
        for figure in figures {
            println!("{}", serde_json::to_string(figure)?);
        }
        return Ok(());
    }
    let colour = std::io::stdout().is_terminal();
    let mut table = Table::new();
    table
        .load_style(presets::NOTHING)
        .set_header(["figure", "value", "goal", "how"]);
    for figure in figures {
        let mut goal = Cell::new(figure.goal.map_or_else(String::new, describe));
        if let (Some(wanted), true) = (figure.goal, colour) {
            let reached = wanted.reached(figure.value);
            goal = goal.fg(if reached { Color::Green } else { Color::Red });
        }
        let missed = figure.goal.is_some_and(|goal| !goal.reached(figure.value));
        let how = if missed {
            format!("MISSED. {}", figure.note)
        } else {
            figure.note.clone()
        };
        let value = format!("{:.3} {}", figure.value, figure.unit);
        let value = Cell::new(value.trim_end()).set_alignment(CellAlignment::Right);
        table.add_row([Cell::new(&figure.what), value, goal, Cell::new(how)]);
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
    use super::Goal;

    #[test]
    fn goals() {
        assert!(Goal::AtLeast(0.75).reached(0.75));
        assert!(!Goal::AtLeast(0.75).reached(0.74));
        assert!(Goal::AtMost(2.0).reached(2.0));
        assert!(!Goal::AtMost(2.0).reached(f64::NAN));
    }
}
