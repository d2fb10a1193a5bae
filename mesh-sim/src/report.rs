//! Figures as Markdown, for people.

use std::fmt::Write as _;

use crate::{
    experiments::{Figures, Repairs, Row},
    map::quantile,
};

/// Measured between 490 hosts of PlanetLab: milliseconds at 5, 25, 50, 75, 95 and 99 hundredths, and the parts of pairs with a detour that is shorter, and shorter by a
/// fifth.
const MEASURED: ([f64; 6], (f64, f64)) = ([19.0, 59.0, 135.0, 202.0, 325.0, 413.0], (0.80, 0.16));

/// All tables.
pub fn markdown(figures: &Figures) -> String {
    let mut text = String::new();
    rules(&mut text, figures);
    deaths(&mut text, figures);
    others(&mut text, figures);
    map(&mut text, figures);
    text
}

fn rules(text: &mut String, figures: &Figures) {
    let scale = &figures.scale;
    let _ = writeln!(
        text,
        "{} nodes after {} minutes, seed {}; {} draws of 30 % that die.\n",
        scale.nodes, scale.minutes, scale.seed, scale.draws
    );
    text.push_str("| rule | tunnels of a node: mean / fewest / most | stretch p50 / p90 / p99 | opened by a node in an hour | in one piece without repair |\n|---|---|---|---|---|\n");
    for Row {
        name,
        degrees,
        stretch: [half, nine, most],
        opened,
        survived,
        ..
    } in &figures.rows
    {
        let _ = writeln!(
            text,
            "| {name} | {:.1} / {} / {} | {half:.2} / {nine:.2} / {most:.2} | {opened:.1} | {survived} of {} |",
            degrees.mean, degrees.min, degrees.max, scale.draws
        );
    }
}

fn deaths(text: &mut String, figures: &Figures) {
    text.push_str("\n| who dies (30 % at most, at once) | draws | in pieces at first | seconds until one piece: median / longest | longer than 5 minutes |\n|---|---|---|---|---|\n");
    for Repairs {
        name,
        draws,
        broken,
        seconds,
        given_up,
    } in &figures.repairs
    {
        let took = match seconds.last() {
            Some(longest) => format!("{:.1} / {longest:.1}", quantile(seconds, 0.5)),
            None => "–".to_owned(),
        };
        let _ = writeln!(
            text,
            "| {name} | {draws} | {broken} | {took} | {given_up} |"
        );
    }
}

fn others(text: &mut String, figures: &Figures) {
    let [(mean, nine), (seen_mean, seen_nine)] = figures.traffic;
    let (calm, rough) = figures.swaps;
    text.push_str("\n| in the half hour after | |\n|---|---|\n");
    let _ = writeln!(
        text,
        "| tunnels for latency that a node opens in an hour, calm | {calm:.2} |"
    );
    let _ = writeln!(
        text,
        "| the same in rough weather: queues add a fifth, one probe in a hundred takes three times as long, and a tenth of all ways is 10–80 % longer for five minutes, then another tenth | {rough:.2} |"
    );
    let _ = writeln!(
        text,
        "| stretch of traffic (five destinations a node), mean / p90, if nodes don't look at it | {mean:.2} / {nine:.2} |"
    );
    let _ = writeln!(
        text,
        "| the same if they do | {seen_mean:.2} / {seen_nine:.2} |"
    );
    let _ = writeln!(
        text,
        "| probes and questions of a node in a second | {:.1} |",
        figures.probes
    );
}

fn map(text: &mut String, figures: &Figures) {
    let (measured, (better, much)) = MEASURED;
    text.push_str("\n| round trips | p5 | p25 | p50 | p75 | p95 | p99 | a third node is a shorter way | by over 20 % |\n|---|---|---|---|---|---|---|---|---|\n");
    let mut row = |name: &str, values: &[f64], better: f64, much: f64| {
        let _ = write!(text, "| {name} |");
        for value in values {
            let _ = write!(text, " {value:.0} ms |");
        }
        let _ = writeln!(text, " {:.0} % | {:.0} % |", better * 100.0, much * 100.0);
    };
    let (ours, ours_much) = figures.detours;
    row("this map", &figures.round_trips, ours, ours_much);
    row("490 hosts of PlanetLab, measured", &measured, better, much);
}

/// Puts the tables between the two marks of a page. Nothing if it has no such marks.
pub fn placed(page: &str, tables: &str) -> Option<String> {
    const BEGIN: &str = "<!-- figures: cargo xtask mesh-sim --write docs -->\n";
    const END: &str = "<!-- end of figures -->";
    let (before, rest) = page.split_once(BEGIN)?;
    let (_, after) = rest.split_once(END)?;
    Some(format!("{before}{BEGIN}\n{tables}\n{END}{after}"))
}
