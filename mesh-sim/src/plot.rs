//! Two plots as SVG: how long paths are, and how that came to be. Readable on light and dark ground.

use std::fmt::Write as _;

use crate::experiments::{Figures, Row};

const WIDTH: f64 = 900.0;
const HEIGHT: f64 = 400.0;

const STYLE: &str = "text{font:12px system-ui,sans-serif;fill:#1f2328}.title{font-weight:600}\
.axis{stroke:#59636e;fill:none}.grid{stroke:#59636e;stroke-opacity:.25}.line{fill:none;stroke-width:2}\
.c0{stroke:#0969da}.c1{stroke:#bc4c00}.c2{stroke:#1a7f37}.c3{stroke:#8250df}.c4{stroke:#9a6700}.dashed{stroke-dasharray:5 4}\
@media (prefers-color-scheme:dark){text{fill:#e6edf3}.axis,.grid{stroke:#9198a1}\
.c0{stroke:#58a6ff}.c1{stroke:#f0883e}.c2{stroke:#3fb950}.c3{stroke:#bc8cff}.c4{stroke:#d29922}}";

/// Where a plot is and what it spans.
struct Panel {
    left: f64,
    top: f64,
    width: f64,
    height: f64,
    x: (f64, f64),
    y: (f64, f64),
}

impl Panel {
    fn at(&self, x: f64, y: f64) -> (f64, f64) {
        let part =
            |value: f64, (low, high): (f64, f64)| ((value - low) / (high - low)).clamp(0.0, 1.0);
        (
            self.left + self.width * part(x, self.x),
            self.top + self.height * (1.0 - part(y, self.y)),
        )
    }

    fn frame(&self, svg: &mut String, title: &str, across: &str) {
        let (left, top) = (self.left, self.top);
        let (width, height) = (self.width, self.height);
        let _ = writeln!(
            svg,
            r#"<text class="title" x="{left}" y="{:.0}">{title}</text>"#,
            top - 12.0
        );
        let _ = writeln!(
            svg,
            r#"<path class="axis" d="M{left} {top}v{height}h{width}"/><text x="{:.0}" y="{:.0}" text-anchor="middle">{across}</text>"#,
            left + width / 2.0,
            top + height + 36.0
        );
    }

    fn ticks(&self, svg: &mut String, across: &[(f64, String)], up: &[(f64, String)]) {
        for (value, label) in across {
            let (x, _) = self.at(*value, self.y.0);
            let bottom = self.top + self.height;
            let _ = writeln!(
                svg,
                r#"<path class="grid" d="M{x:.1} {bottom}V{}"/><text x="{x:.1}" y="{:.0}" text-anchor="middle">{label}</text>"#,
                self.top,
                bottom + 18.0
            );
        }
        for (value, label) in up {
            let (_, y) = self.at(self.x.0, *value);
            let _ = writeln!(
                svg,
                r#"<path class="grid" d="M{} {y:.1}h{}"/><text x="{:.0}" y="{:.1}" text-anchor="end">{label}</text>"#,
                self.left,
                self.width,
                self.left - 6.0,
                y + 4.0
            );
        }
    }

    fn line(&self, svg: &mut String, class: &str, points: impl Iterator<Item = (f64, f64)>) {
        let mut path = String::new();
        for (x, y) in points {
            let (x, y) = self.at(x, y);
            let verb = if path.is_empty() { 'M' } else { 'L' };
            let _ = write!(path, "{verb}{x:.1} {y:.1}");
        }
        let _ = writeln!(svg, r#"<path class="line {class}" d="{path}"/>"#);
    }
}

/// The whole picture.
pub fn svg(figures: &Figures) -> String {
    let mut svg = format!(
        r#"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="Stretch of paths by rule"><style>{STYLE}</style>"#
    );
    svg.push('\n');
    lengths(&mut svg, &figures.rows);
    growth(&mut svg, figures);
    legend(&mut svg, &figures.rows);
    svg.push_str("</svg>\n");
    svg
}

fn lengths(svg: &mut String, rows: &[Row]) {
    let panel = Panel {
        left: 50.0,
        top: 40.0,
        width: 370.0,
        height: 240.0,
        x: (0.5f64.ln(), 8f64.ln()),
        y: (0.0, 1.0),
    };
    panel.frame(
        svg,
        "Part of all pairs whose path is at most so long",
        "path, in direct round trips",
    );
    let across =
        [0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0].map(|x: f64| (x.ln(), x.to_string()));
    let up = [0.25, 0.5, 0.75, 0.9, 1.0].map(|y: f64| (y, format!("{:.0} %", y * 100.0)));
    panel.ticks(svg, &across, &up);
    for (number, row) in rows.iter().enumerate() {
        let points = row.hundredths.iter().enumerate();
        let inside = points
            .map(|(part, stretch)| (stretch.max(0.01).ln(), part as f64 / 100.0))
            .filter(|(x, _)| (panel.x.0..=panel.x.1).contains(x));
        panel.line(svg, &format!("c{number}"), inside);
    }
}

fn growth(svg: &mut String, figures: &Figures) {
    let last = figures.scale.minutes as f64;
    let panel = Panel {
        left: 500.0,
        top: 40.0,
        width: 370.0,
        height: 240.0,
        x: (0.0, last),
        y: (1f64.ln() - 0.1, 8f64.ln()),
    };
    panel.frame(
        svg,
        "As the mesh grows: p50, and p90 (dashed)",
        "minutes since the first node started",
    );
    let across =
        [0.0, 0.25, 0.5, 0.75, 1.0].map(|part| (part * last, format!("{:.0}", part * last)));
    let up = [1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0].map(|y: f64| (y.ln(), y.to_string()));
    panel.ticks(svg, &across, &up);
    for (number, row) in figures.rows.iter().enumerate() {
        let middle = row.minutes.iter().filter(|(_, half, _)| *half > 0.0);
        let half = middle
            .clone()
            .map(|(minute, half, _)| (*minute as f64, half.ln()));
        let nine = middle.map(|(minute, _, nine)| (*minute as f64, nine.ln()));
        panel.line(svg, &format!("c{number}"), half);
        panel.line(svg, &format!("c{number} dashed"), nine);
    }
}

fn legend(svg: &mut String, rows: &[Row]) {
    for (number, row) in rows.iter().enumerate() {
        let (x, y) = (
            50.0 + 450.0 * (number % 2) as f64,
            342.0 + 20.0 * (number / 2) as f64,
        );
        let _ = writeln!(
            svg,
            r#"<path class="line c{number}" d="M{x} {y}h24"/><text x="{}" y="{}">{} ({:.1} tunnels a node)</text>"#,
            x + 32.0,
            y + 4.0,
            row.name,
            row.degrees.mean
        );
    }
}
