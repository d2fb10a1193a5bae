//! What is measured of a mesh: how many tunnels, how long paths are, and what is left when nodes die.

use std::time::Duration;

use hextet_types::Time;
use serde::Serialize;

use crate::{
    chance::Chance,
    graph::{self, FAR, Links},
    map::{Map, quantile},
    world::{Traffic, World},
};

/// Tunnels of a node.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Degrees {
    /// On average.
    pub mean: f64,
    /// The fewest.
    pub min: usize,
    /// The most.
    pub max: usize,
}

/// Tunnels of those who are alive.
pub fn degrees(links: &Links, alive: &[bool]) -> Degrees {
    let all: Vec<usize> = links
        .iter()
        .zip(alive)
        .filter(|(_, alive)| **alive)
        .map(|(links, _)| links.len())
        .collect();
    Degrees {
        mean: all.iter().sum::<usize>() as f64 / all.len().max(1) as f64,
        min: all.iter().min().copied().unwrap_or(0),
        max: all.iter().max().copied().unwrap_or(0),
    }
}

/// Paths' lengths, as multiples of the direct round trip, sorted. All pairs.
pub fn stretches(links: &Links, map: &Map) -> Vec<f64> {
    let mut all = Vec::with_capacity(map.len() * map.len());
    for from in 0..map.len() {
        let (costs, _) = graph::paths(links, from);
        for (to, cost) in costs.iter().enumerate() {
            if to != from && *cost != FAR {
                all.push(f64::from(*cost) / f64::from(map.micros(from, to).max(1)));
            }
        }
    }
    all.sort_by(f64::total_cmp);
    all
}

/// The stretch of traffic: for each node's flows weighted by their part of its traffic. The mean, and what nine tenths do not exceed.
pub fn traffic_stretch(links: &Links, map: &Map, traffic: &Traffic) -> (f64, f64) {
    let mut flows = Vec::new();
    for (from, demands) in traffic.iter().enumerate() {
        let (costs, _) = graph::paths(links, from);
        for (to, weight) in demands {
            let stretch = f64::from(costs[*to]) / f64::from(map.micros(from, *to).max(1));
            flows.push((stretch, *weight));
        }
    }
    flows.sort_by(|one, other| one.0.total_cmp(&other.0));
    let total: f64 = flows.iter().map(|flow| flow.1).sum();
    let mean = flows.iter().map(|flow| flow.0 * flow.1).sum::<f64>() / total.max(f64::EPSILON);
    let mut seen = 0.0;
    let ninth = flows.iter().find(|flow| {
        seen += flow.1;
        seen >= 0.9 * total
    });
    (mean, ninth.map_or(0.0, |flow| flow.0))
}

/// The middle, nine tenths and 99 hundredths of a sorted list.
pub fn three(sorted: &[f64]) -> [f64; 3] {
    [0.5, 0.9, 0.99].map(|part| quantile(sorted, part))
}

/// In how many draws of dead nodes by chance the others stay in one piece, without any repair.
pub fn survivals(links: &Links, part: f64, draws: usize, chance: &mut Chance) -> usize {
    let nodes = links.len();
    let dead = (part * nodes as f64) as usize;
    (0..draws)
        .filter(|_| {
            let mut alive = vec![true; nodes];
            for victim in chance.draw(nodes, dead) {
                alive[victim] = false;
            }
            graph::pieces(links, &alive).1 == 1
        })
        .count()
}

/// How long after these died the others are in one piece; nothing if it takes longer than the limit. And in how many pieces they were.
pub fn repair(world: &World, victims: &[usize], limit: Duration) -> (Option<Duration>, usize) {
    let mut world = world.clone();
    let start = world.now();
    world.kill(victims);
    let pieces = |world: &World| graph::pieces(&world.graph(), world.alive()).1;
    let at_first = pieces(&world);
    let mut now = start;
    while pieces(&world) != 1 {
        if now.saturating_since(start) >= limit {
            return (None, at_first);
        }
        now += Duration::from_millis(100);
        world.run(now);
    }
    (Some(now.saturating_since(start)), at_first)
}

/// Victims by malice: all neighbours of a node, and by chance until it is this part of all.
pub fn around(links: &Links, node: usize, part: f64, chance: &mut Chance) -> Vec<usize> {
    let mut victims: Vec<usize> = links[node].iter().map(|(peer, _)| *peer).collect();
    let dead = (part * links.len() as f64) as usize;
    for victim in chance.draw(links.len(), links.len()) {
        if victims.len() >= dead {
            break;
        }
        if victim != node && !victims.contains(&victim) {
            victims.push(victim);
        }
    }
    victims
}

/// Victims by malice: those with the most tunnels.
pub fn busiest(links: &Links, part: f64) -> Vec<usize> {
    let mut nodes: Vec<usize> = (0..links.len()).collect();
    nodes.sort_by_key(|node| std::cmp::Reverse(links[*node].len()));
    nodes.truncate((part * links.len() as f64) as usize);
    nodes
}

/// Victims by malice: whatever is wanted to cut some nodes that are near to each other off from all others.
pub fn ring(links: &Links, node: usize, part: f64) -> Vec<usize> {
    let dead = (part * links.len() as f64) as usize;
    let mut inside = vec![node];
    loop {
        let border = |inside: &[usize]| -> Vec<usize> {
            let mut border: Vec<usize> = inside
                .iter()
                .flat_map(|one| links[*one].iter().map(|(peer, _)| *peer))
                .filter(|peer| !inside.contains(peer))
                .collect();
            border.sort_unstable();
            border.dedup();
            border
        };
        let now = border(&inside);
        let next = now.iter().copied().min_by_key(|candidate| {
            let mut larger = inside.clone();
            larger.push(*candidate);
            (border(&larger).len(), *candidate)
        });
        let Some(next) = next else {
            return now;
        };
        let mut larger = inside.clone();
        larger.push(next);
        if border(&larger).len() > dead {
            return now;
        }
        inside = larger;
    }
}

/// Where a node's traffic goes: to five others, most of it to the first.
pub fn traffic(nodes: usize, chance: &mut Chance) -> Traffic {
    (0..nodes)
        .map(|from| {
            let to = chance.draw(nodes, 6);
            let to = to.into_iter().filter(|to| *to != from).take(5);
            to.enumerate()
                .map(|(rank, to)| (to, 1.0 / (rank + 1) as f64))
                .collect()
        })
        .collect()
}

/// So many seconds.
pub fn seconds(secs: u64) -> Time {
    Time::from_secs(secs)
}
