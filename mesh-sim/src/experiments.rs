//! The experiments whose figures stand in `docs/mesh-topology.md`.

use std::{sync::Arc, thread, time::Duration};

use anyhow::{Result, anyhow};
use hextet_mesh::topology::{Config, Kind, Reach};
use serde::Serialize;

use crate::{
    chance::chance_of,
    graph::{self, Links},
    map::{ALL_PUBLIC, Map, Reaches},
    measure::{self, Degrees},
    re6st,
    weather::ROUGH,
    world::{Rule, World},
};

/// What dies.
pub const DEAD: f64 = 0.3;

/// Longer repairs count as none.
const LIMIT: Duration = Duration::from_secs(300);

/// How long a grown mesh is watched.
const WATCHED: Duration = Duration::from_secs(1800);

/// Of nodes behind NATs: half are public, three in ten can be punched, the rest not.
const NATS: Reaches = Reaches {
    public: 0.5,
    closed: 0.2,
};

/// How large, and by which seed.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Scale {
    /// Nodes.
    pub nodes: usize,
    /// Of the map, the nodes and all else.
    pub seed: u64,
    /// Simulated minutes until the mesh is measured.
    pub minutes: u64,
    /// Draws of dead nodes without repair.
    pub draws: usize,
    /// Draws of dead nodes with repair, of each kind.
    pub repairs: usize,
}

/// A rule's mesh.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// Of the rule.
    pub name: &'static str,
    /// Tunnels of a node.
    pub degrees: Degrees,
    /// Middle, nine tenths, 99 hundredths of paths' lengths against direct ones.
    pub stretch: [f64; 3],
    /// Tunnels that a node opened in the last ten minutes, times six.
    pub opened: f64,
    /// In how many draws the others stay in one piece.
    pub survived: usize,
    /// Stretches for a plot: hundredths.
    pub hundredths: Vec<f64>,
    /// The middle and nine tenths after each minute.
    pub minutes: Vec<(u64, f64, f64)>,
}

/// Deaths of one kind and what followed.
#[derive(Clone, Debug, Serialize)]
pub struct Repairs {
    /// Who died.
    pub name: &'static str,
    /// How often it was tried.
    pub draws: usize,
    /// How often the others were in pieces.
    pub broken: usize,
    /// Seconds until they were in one again, for those that were in pieces; sorted.
    pub seconds: Vec<f64>,
    /// How often that took too long.
    pub given_up: usize,
}

/// All figures.
#[derive(Clone, Debug, Serialize)]
pub struct Figures {
    /// How large.
    pub scale: Scale,
    /// Round trips in milliseconds at 5, 25, 50, 75, 95 and 99 hundredths.
    pub round_trips: Vec<f64>,
    /// Parts of pairs to which some third node is a shorter way, and one by more than a fifth.
    pub detours: (f64, f64),
    /// A row for each rule.
    pub rows: Vec<Row>,
    /// What repairs took.
    pub repairs: Vec<Repairs>,
    /// Tunnels for latency that a node opens in an hour, once the mesh has settled: in calm and in rough weather.
    pub swaps: (f64, f64),
    /// Stretch of traffic, mean and nine tenths: when nodes don't look at it and when they do.
    pub traffic: [(f64, f64); 2],
    /// Probes and questions of a node in a second.
    pub probes: f64,
}

/// Runs everything, on two threads. The figures depend on nothing but the scale.
pub fn run(scale: Scale) -> Result<Figures> {
    let map = Arc::new(Map::new(scale.nodes, ALL_PUBLIC, scale.seed));
    let (first, second) = thread::scope(|scope| {
        let others = scope.spawn(|| others(scale, &map));
        (ours(scale, &map), others.join())
    });
    let (mut rows, of_nats) =
        second.map_err(|_| anyhow!("simulate the other rules: a thread panicked"))?;
    let mut figures = first;
    figures.rows.append(&mut rows);
    figures.repairs.extend(of_nats);
    Ok(figures)
}

fn ours(scale: Scale, map: &Arc<Map>) -> Figures {
    let rule = Rule::Hextet(Box::default());
    let (world, row) = grown("hextet", map, &rule, scale);
    let links = world.graph();
    let hours = WATCHED.as_secs_f64() / 3600.0;
    let per_hour = |count: usize| count as f64 / scale.nodes as f64 / hours;

    let mut calm = world.clone();
    calm.tally = Default::default();
    calm.run(world.now() + WATCHED);
    let mut rough = world.clone();
    rough.tally = Default::default();
    rough.set_weather(ROUGH);
    rough.run(world.now() + WATCHED);

    let demands = Arc::new(measure::traffic(
        scale.nodes,
        &mut chance_of(&[scale.seed, 8]),
    ));
    let mut busy = world.clone();
    busy.set_traffic(Arc::clone(&demands));
    busy.run(world.now() + WATCHED);
    let stretch = |world: &World| measure::traffic_stretch(&world.graph(), map, &demands);

    Figures {
        scale,
        round_trips: map.quantiles(&[0.05, 0.25, 0.5, 0.75, 0.95, 0.99]),
        detours: map.detours(4000, &mut chance_of(&[scale.seed, 9])),
        rows: vec![row],
        repairs: deaths(&world, &links, scale),
        swaps: (per_hour(calm.tally.chosen), per_hour(rough.tally.chosen)),
        traffic: [stretch(&calm), stretch(&busy)],
        probes: per_hour(calm.tally.probes) / 3600.0,
    }
}

fn others(scale: Scale, map: &Arc<Map>) -> (Vec<Row>, Vec<Repairs>) {
    let rule = Rule::Re6st(re6st::OUTGOING);
    let (_, re6st) = grown("re6stnet's rule", map, &rule, scale);
    let (_, fewer) = grown("re6stnet's rule, 6 outgoing", map, &Rule::Re6st(6), scale);
    let random = Config {
        near: false,
        gain: 0,
        ..Config::default()
    };
    let (_, random) = grown(
        "only random links",
        map,
        &Rule::Hextet(Box::new(random)),
        scale,
    );
    let behind = Arc::new(Map::new(scale.nodes, NATS, scale.seed));
    let rule = Rule::Hextet(Box::default());
    let (world, nats) = grown(
        "hextet, half of the nodes behind NATs",
        &behind,
        &rule,
        scale,
    );
    let links = world.graph();
    let mut chance = chance_of(&[scale.seed, 12]);
    let draws = (0..scale.repairs)
        .map(|_| {
            let node = chance.below(scale.nodes);
            measure::around(&links, node, DEAD, &mut chance)
        })
        .collect();
    let around = repairs("the same, half of the nodes behind NATs", &world, draws);
    (vec![re6st, fewer, random, nats], vec![around])
}

/// A mesh of this rule after some time, and its figures.
fn grown(name: &'static str, map: &Arc<Map>, rule: &Rule, scale: Scale) -> (World, Row) {
    let mut world = World::new(Arc::clone(map), rule, scale.seed);
    let mut minutes = Vec::new();
    for minute in 1..=scale.minutes {
        if minute + 10 == scale.minutes + 1 {
            world.tally = Default::default();
        }
        world.run(measure::seconds(60 * minute));
        if minute % 2 == 0 || minute < 10 {
            let [half, nine, _] = measure::three(&measure::stretches(&world.graph(), map));
            minutes.push((minute, half, nine));
        }
    }
    let links = world.graph();
    let stretches = measure::stretches(&links, map);
    let mut chance = chance_of(&[scale.seed, 10]);
    let row = Row {
        name,
        degrees: measure::degrees(&links, world.alive()),
        stretch: measure::three(&stretches),
        opened: 6.0 * (world.tally.chosen + world.tally.walked) as f64 / scale.nodes as f64,
        survived: measure::survivals(&links, DEAD, scale.draws, &mut chance),
        hundredths: (0..=100)
            .map(|part| crate::map::quantile(&stretches, f64::from(part) / 100.0))
            .collect(),
        minutes,
    };
    (world, row)
}

fn deaths(world: &World, links: &Links, scale: Scale) -> Vec<Repairs> {
    let mut chance = chance_of(&[scale.seed, 11]);
    let dead = (DEAD * scale.nodes as f64) as usize;
    let by_chance = (0..scale.repairs)
        .map(|_| chance.draw(scale.nodes, dead))
        .collect();
    let around = (0..scale.repairs)
        .map(|_| {
            let node = chance.below(scale.nodes);
            measure::around(links, node, DEAD, &mut chance)
        })
        .collect();
    let rings = (0..scale.repairs.div_ceil(5))
        .map(|_| measure::ring(links, chance.below(scale.nodes), DEAD))
        .collect();
    let busiest = vec![measure::busiest(links, DEAD)];
    vec![
        repairs("30 % by chance", world, by_chance),
        repairs("those with the most tunnels", world, busiest),
        repairs(
            "all neighbours of a node, the rest by chance",
            world,
            around,
        ),
        repairs("whoever cuts off as many as possible", world, rings),
    ]
}

fn repairs(name: &'static str, world: &World, draws: Vec<Vec<usize>>) -> Repairs {
    let mut repairs = Repairs {
        name,
        draws: draws.len(),
        broken: 0,
        seconds: Vec::new(),
        given_up: 0,
    };
    for victims in draws {
        let (took, pieces) = measure::repair(world, &victims, LIMIT);
        match took {
            _ if pieces == 1 => {}
            Some(took) => {
                repairs.broken += 1;
                repairs.seconds.push(took.as_secs_f64());
            }
            None => {
                repairs.broken += 1;
                repairs.given_up += 1;
            }
        }
    }
    repairs.seconds.sort_by(f64::total_cmp);
    repairs
}

/// How many random links to public nodes a node has.
pub fn public_links(world: &World, node: usize) -> usize {
    let peers = world.topology(node).map(|topology| topology.peers());
    let peers = peers.into_iter().flatten();
    let public = |number: u64| world.map().reach.get(number as usize) == Some(&Reach::Public);
    peers
        .filter(|peer| peer.kind == Kind::Random && public(peer.node.0))
        .count()
}

/// How many pieces the graph has.
pub fn pieces(world: &World) -> usize {
    graph::pieces(&world.graph(), world.alive()).1
}
