//! A hundred nodes for half an hour, in seconds. Time here is simulated.

use std::{sync::Arc, time::Duration};

use hextet_mesh::topology::{Kind, Reach, Stage};
use hextet_mesh_sim::{
    chance::chance_of,
    experiments::{Scale, pieces, public_links, run},
    graph,
    map::{ALL_PUBLIC, Map, Reaches, cities},
    measure, plot, report,
    weather::ROUGH,
    world::{Rule, World},
};

const NODES: usize = 100;

fn world(reaches: Reaches, rule: &Rule, seed: u64, minutes: u64) -> World {
    let map = Arc::new(Map::new(NODES, reaches, seed));
    let mut world = World::new(map, rule, seed);
    world.run(measure::seconds(60 * minutes));
    world
}

fn ours() -> Rule {
    Rule::Hextet(Box::default())
}

#[test]
fn cities_are_where_they_may_be() {
    let cities = cities();
    let lines = include_str!("../src/cities.txt").lines();
    assert_eq!(
        cities.len(),
        lines.filter(|line| !line.starts_with('#')).count()
    );
    assert!(cities.len() >= 250);
    for city in cities {
        assert!(
            city.latitude.abs() <= 90.0 && city.longitude.abs() <= 180.0,
            "{city:?}"
        );
        assert!(city.thousands > 0.0 && city.country.len() == 2, "{city:?}");
    }
}

#[test]
fn round_trips_are_like_measured_ones() {
    let map = Map::new(490, ALL_PUBLIC, 1);
    let measured = [19.0, 59.0, 135.0, 202.0];
    let quantiles = map.quantiles(&[0.05, 0.25, 0.5, 0.75]);
    for (ours, theirs) in quantiles.iter().zip(measured) {
        assert!((ours / theirs - 1.0).abs() < 0.25, "{quantiles:?}");
    }
    let (better, much) = map.detours(1000, &mut chance_of(&[1]));
    assert!(
        (0.6..0.9).contains(&better) && (0.1..0.3).contains(&much),
        "{better} {much}"
    );
}

#[test]
fn paths_are_the_shortest() {
    let mut chance = chance_of(&[3]);
    let mut links: graph::Links = vec![Vec::new(); 30];
    let mut costs = vec![vec![u64::from(u32::MAX); 30]; 30];
    for _ in 0..50 {
        let (one, other) = (chance.below(30), chance.below(30));
        let cost = 1 + chance.below(1000) as u32;
        if one != other {
            links[one].push((other, cost));
            links[other].push((one, cost));
            let least = costs[one][other].min(cost.into());
            (costs[one][other], costs[other][one]) = (least, least);
        }
    }
    for by in 0..30 {
        costs[by][by] = 0;
        for from in 0..30 {
            for to in 0..30 {
                costs[from][to] = costs[from][to].min(costs[from][by] + costs[by][to]);
            }
        }
    }
    for (from, expected) in costs.iter().enumerate() {
        let (found, _) = graph::paths(&links, from);
        let found: Vec<u64> = found.into_iter().map(u64::from).collect();
        assert_eq!(&found, expected);
    }
}

#[test]
fn paths_are_shorter_than_by_the_rule_of_re6stnet_with_as_many_tunnels() {
    let grown = |rule: &Rule| {
        let world = world(ALL_PUBLIC, rule, 1, 30);
        let links = world.graph();
        assert_eq!(pieces(&world), 1);
        let stretches = measure::stretches(&links, world.map());
        (
            measure::three(&stretches),
            measure::degrees(&links, world.alive()),
        )
    };
    let ([half, nine, most], tunnels) = grown(&ours());
    let ([their_half, their_nine, their_most], theirs) = grown(&Rule::Re6st(6));
    assert!(tunnels.mean < 1.1 * theirs.mean, "{tunnels:?} {theirs:?}");
    assert!(tunnels.min >= 8 && tunnels.max <= 20, "{tunnels:?}");
    assert!(half < their_half && nine < their_nine && most < their_most);
}

#[test]
fn a_seed_gives_the_same_mesh_and_another_seed_another() {
    let graph = |seed| world(ALL_PUBLIC, &ours(), seed, 8).graph();
    assert_eq!(graph(5), graph(5));
    assert_ne!(graph(5), graph(6));
}

#[test]
fn a_mesh_whose_parts_were_cut_off_by_malice_is_one_again() {
    let world = world(ALL_PUBLIC, &ours(), 2, 15);
    let links = world.graph();
    let mut chance = chance_of(&[2]);
    for node in 0..5 {
        let victims = measure::around(&links, node, 0.3, &mut chance);
        let (took, pieces) = measure::repair(&world, &victims, Duration::from_secs(120));
        assert!(pieces > 1);
        assert!(took.is_some(), "node {node} is still alone");
    }
    let victims = measure::ring(&links, 0, 0.3);
    let (took, pieces) = measure::repair(&world, &victims, Duration::from_secs(120));
    assert!(pieces > 1 && took.is_some());
}

#[test]
fn after_a_third_has_died_links_are_as_many_as_before() {
    let mut world = world(ALL_PUBLIC, &ours(), 3, 20);
    let victims = chance_of(&[3]).draw(NODES, 30);
    world.kill(&victims);
    world.run(world.now() + Duration::from_secs(300));
    assert_eq!(pieces(&world), 1);
    for node in (0..NODES).filter(|node| !victims.contains(node)) {
        let topology = world.topology(node).expect("runs our rule");
        let peers = topology.peers();
        let random = peers
            .iter()
            .filter(|p| p.kind == Kind::Random && p.stage == Stage::Up);
        assert!(random.count() >= 6, "node {node}: {peers:?}");
        assert!(
            peers
                .iter()
                .all(|peer| !victims.contains(&(peer.node.0 as usize)))
        );
    }
}

#[test]
fn rough_weather_does_not_make_tunnels_flap() {
    let mut world = world(ALL_PUBLIC, &ours(), 4, 30);
    world.tally = Default::default();
    world.set_weather(ROUGH);
    world.run(world.now() + Duration::from_secs(1800));
    let in_an_hour = 2.0 * world.tally.chosen as f64 / NODES as f64;
    assert!(in_an_hour < 2.0, "{in_an_hour} new tunnels a node");
    assert_eq!(pieces(&world), 1);
}

#[test]
fn nodes_behind_nats_have_links_that_can_come_up() {
    let reaches = Reaches {
        public: 0.5,
        closed: 0.2,
    };
    let world = world(reaches, &ours(), 5, 20);
    assert_eq!(pieces(&world), 1);
    let reach = &world.map().reach;
    for (node, links) in world.graph().iter().enumerate() {
        assert!(
            links
                .iter()
                .all(|(peer, _)| reach[node].meets(reach[*peer]))
        );
        if reach[node] != Reach::Public {
            assert!(public_links(&world, node) >= 2, "node {node}");
        }
    }
}

#[test]
fn traffic_takes_shorter_paths_where_nodes_look_at_it() {
    let before = world(ALL_PUBLIC, &ours(), 6, 20);
    let demands = Arc::new(measure::traffic(NODES, &mut chance_of(&[6])));
    let after = |seen: bool| {
        let mut world = before.clone();
        if seen {
            world.set_traffic(Arc::clone(&demands));
        }
        world.run(world.now() + Duration::from_secs(1800));
        measure::traffic_stretch(&world.graph(), world.map(), &demands).0
    };
    let (seen, unseen) = (after(true), after(false));
    assert!(seen < unseen, "{seen} {unseen}");
}

#[test]
fn figures_become_tables_and_a_plot() {
    let scale = Scale {
        nodes: 40,
        seed: 1,
        minutes: 6,
        draws: 50,
        repairs: 2,
    };
    let figures = run(scale).expect("simulated");
    let tables = report::markdown(&figures);
    for name in ["hextet", "re6stnet's rule", "only random links"] {
        assert!(tables.contains(&format!("\n| {name} |")), "{tables}");
    }
    let page = include_str!("../../docs/mesh-topology.md");
    let placed = report::placed(page, &tables).expect("the page has marks");
    assert!(placed.contains(&tables));
    assert_eq!(report::placed(&placed, &tables), Some(placed));
    let svg = plot::svg(&figures);
    assert!(svg.starts_with("<svg ") && svg.ends_with("</svg>\n"));
    assert_eq!(svg.matches("class=\"line c").count(), 5 * 4);
    assert!(!svg.contains("NaN") && !svg.contains("inf"));
}
