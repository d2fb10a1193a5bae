//! Where nodes are drawn: those that are next to each other near, all others apart (Fruchterman and Reingold, 1991).

use std::f64::consts::TAU;

/// Pairs that are looked at, over all rounds, so that a large mesh takes no longer than a second or so.
const EFFORT: usize = 30_000_000;
const ROUNDS: std::ops::RangeInclusive<usize> = 20..=300;

/// For as many nodes, with these links between them, places between 0 and 1 in each direction.
pub fn places(count: usize, links: &[[usize; 2]]) -> Vec<[f64; 2]> {
    // Turned by the golden angle, so that no two are on one line with the middle.
    let angle = TAU * 0.381_966;
    let mut places: Vec<[f64; 2]> = (0..count)
        .map(|number| {
            let far = ((number as f64 + 0.5) / count as f64).sqrt() / 2.0;
            let (sin, cos) = (angle * number as f64).sin_cos();
            [0.5 + far * cos, 0.5 + far * sin]
        })
        .collect();
    let rounds = (EFFORT / (count * count).max(1)).clamp(*ROUNDS.start(), *ROUNDS.end());
    let apart = (1.0 / count.max(1) as f64).sqrt();
    for round in 0..rounds {
        let most = 0.1 * (1.0 - round as f64 / rounds as f64);
        let pulls = forces(&places, links, apart);
        for (place, pull) in places.iter_mut().zip(pulls) {
            let strength = pull[0].hypot(pull[1]).max(f64::EPSILON);
            let step = strength.min(most) / strength;
            place[0] += pull[0] * step;
            place[1] += pull[1] * step;
        }
    }
    fit(places)
}

fn forces(places: &[[f64; 2]], links: &[[usize; 2]], apart: f64) -> Vec<[f64; 2]> {
    let mut pulls = vec![[0.0; 2]; places.len()];
    let mut pull = |one: usize, other: usize, strength: &dyn Fn(f64) -> f64| {
        let (Some(from), Some(to)) = (places.get(one), places.get(other)) else {
            return;
        };
        let way = [to[0] - from[0], to[1] - from[1]];
        let far = way[0].hypot(way[1]).max(1e-6);
        let strength = strength(far) / far;
        for (end, sign) in [(one, 1.0), (other, -1.0)] {
            if let Some(pull) = pulls.get_mut(end) {
                pull[0] += sign * way[0] * strength;
                pull[1] += sign * way[1] * strength;
            }
        }
    };
    for one in 0..places.len() {
        for other in one + 1..places.len() {
            pull(one, other, &|far| -apart * apart / far);
        }
    }
    for [one, other] in links {
        pull(*one, *other, &|far| far * far / apart);
    }
    pulls
}

/// So that they fill the picture.
fn fit(mut places: Vec<[f64; 2]>) -> Vec<[f64; 2]> {
    for axis in 0..2 {
        let values = || places.iter().map(|place| place[axis]);
        let (least, most) = values().fold((f64::MAX, f64::MIN), |(least, most), value| {
            (least.min(value), most.max(value))
        });
        let span = most - least;
        for place in &mut places {
            place[axis] = match span > 1e-9 {
                true => (place[axis] - least) / span,
                false => 0.5,
            };
        }
    }
    places
}
