//! The picture: SVG 1.1, without scripts, so that any browser and any viewer shows it.

use std::{collections::HashMap, fmt::Write as _};

use super::{Link, Map, Spot, layout::places};

const SIDE: f64 = 1_000.0;
const MARGIN: f64 = 90.0;
/// Below the picture, for what colours mean.
const FOOT: f64 = 50.0;
/// More have no text beside them; what they are is told where the pointer rests.
const MOST_NAMED: usize = 80;
/// How often a page asks anew, in seconds.
const AGAIN_SECS: u32 = 10;

/// Up to so many milliseconds, and its colour: distinct for the colour-blind, too (Okabe and Ito, 2008).
const COLOURS: [(f64, &str, &str); 4] = [
    (10.0, "#009e73", "up to 10 ms"),
    (50.0, "#0072b2", "up to 50 ms"),
    (150.0, "#e69f00", "up to 150 ms"),
    (f64::INFINITY, "#d55e00", "more"),
];
const UNKNOWN: &str = "#999999";

/// The picture of a mesh.
pub fn svg(map: &Map) -> String {
    let numbers: HashMap<&str, usize> = map
        .nodes
        .iter()
        .enumerate()
        .map(|(place, spot)| (spot.node.as_str(), place))
        .collect();
    let ends = |link: &Link| -> Option<[usize; 2]> {
        let [one, other] = &link.ends;
        Some([*numbers.get(one.as_str())?, *numbers.get(other.as_str())?])
    };
    let links: Vec<(&Link, [usize; 2])> = map
        .links
        .iter()
        .filter_map(|link| Some((link, ends(link)?)))
        .collect();
    let pairs: Vec<[usize; 2]> = links.iter().map(|(_, ends)| *ends).collect();
    let places = places(map.nodes.len(), &pairs);
    let at = |number: usize| {
        let [x, y] = places.get(number).copied().unwrap_or([0.5, 0.5]);
        let spread = SIDE - 2.0 * MARGIN;
        [MARGIN + x * spread, MARGIN + y * spread]
    };
    let mut text = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {SIDE} {}\" font-family=\"sans-serif\" font-size=\"13\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n",
        SIDE + FOOT
    );
    for (link, [one, other]) in links {
        line(&mut text, link, [at(one), at(other)]);
    }
    let named = map.nodes.len() <= MOST_NAMED;
    for (number, spot) in map.nodes.iter().enumerate() {
        circle(&mut text, spot, at(number), named);
    }
    legend(&mut text, map);
    text.push_str("</svg>\n");
    text
}

/// A page with the picture, which a browser asks for again and again.
pub fn page(map: &Map) -> String {
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta http-equiv=\"refresh\" content=\"{AGAIN_SECS}\">\n<title>Mesh</title>\n\
         <style>body {{ margin: 0; background: white }} svg {{ display: block; margin: auto; max-height: 100vh; max-width: 100vw }}</style>\n\
         </head>\n<body>\n{}</body>\n</html>\n",
        svg(map)
    )
}

fn colour(link: &Link) -> &'static str {
    let Some(millis) = link.round_trip_ms else {
        return UNKNOWN;
    };
    let found = COLOURS.iter().find(|(most, ..)| millis <= *most);
    found.map_or(UNKNOWN, |(_, colour, _)| colour)
}

fn line(text: &mut String, link: &Link, [from, to]: [[f64; 2]; 2]) {
    let [one, other] = &link.ends;
    let far = match link.round_trip_ms {
        Some(millis) => format!("{millis:.1} ms"),
        None => "not measured".to_owned(),
    };
    let how = match link.beside {
        true => ", without a tunnel",
        false => "",
    };
    let style = match link.beside {
        true => " stroke-width=\"5\" stroke-dasharray=\"2 6\" stroke-linecap=\"round\"",
        false => " stroke-width=\"2\"",
    };
    // Writing to a string does not fail.
    let _ = writeln!(
        text,
        "<line x1=\"{:.1}\" y1=\"{:.1}\" x2=\"{:.1}\" y2=\"{:.1}\" stroke=\"{}\"{style}><title>{one} to {other}: {far}{how}</title></line>",
        from[0],
        from[1],
        to[0],
        to[1],
        colour(link),
    );
}

fn circle(text: &mut String, spot: &Spot, [x, y]: [f64; 2], named: bool) {
    let fill = match (spot.this, spot.answered) {
        (true, _) => "#56b4e9",
        (false, true) => "white",
        (false, false) => "#dddddd",
    };
    let home = spot.home.map(|home| format!(" {home}")).unwrap_or_default();
    let state = match (spot.this, spot.answered) {
        (true, _) => ", this node",
        (false, true) => "",
        (false, false) => ", no answer",
    };
    let _ = writeln!(
        text,
        "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"8\" fill=\"{fill}\" stroke=\"black\"><title>{}{home}{state}</title></circle>",
        spot.node
    );
    if named {
        let name = match spot.home {
            Some(home) => home.to_string(),
            None => spot.node.clone(),
        };
        let _ = writeln!(
            text,
            "<text x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{name}</text>",
            y - 13.0
        );
    }
}

fn legend(text: &mut String, map: &Map) {
    let y = SIDE + FOOT / 2.0;
    let mut x = MARGIN / 2.0;
    let known = COLOURS.iter().map(|(_, colour, what)| (*colour, *what));
    for (colour, what) in known.chain([(UNKNOWN, "not measured")]) {
        let _ = writeln!(
            text,
            "<line x1=\"{x}\" y1=\"{y}\" x2=\"{}\" y2=\"{y}\" stroke=\"{colour}\" stroke-width=\"4\"/><text x=\"{}\" y=\"{}\">{what}</text>",
            x + 24.0,
            x + 30.0,
            y + 4.0
        );
        x += 130.0;
    }
    let _ = writeln!(
        text,
        "<text x=\"{}\" y=\"{}\" text-anchor=\"end\">{} nodes, {} links; dotted: without a tunnel; grey: no answer</text>",
        SIDE - MARGIN / 2.0,
        y + 4.0,
        map.nodes.len(),
        map.links.len()
    );
}
