//! After any sequence of changes the routes are those of a fresh start.

use std::collections::BTreeSet;

use proptest::{collection::vec, prelude::*};

use super::*;

#[derive(Clone, Debug)]
enum Step {
    Announce(usize, u8),
    Withdraw(usize, u8),
    Cut(usize, usize),
    Restart(usize),
    Hold(usize),
    Release(usize),
    Wait(u64),
}

const NODES: usize = 4;
const PREFIXES: u8 = 6;

fn prefix(n: u8) -> Prefix {
    match n % 2 {
        0 => p(&format!("10.{n}.0.0/16")),
        _ => p(&format!("2001:db8:{n}::/48")),
    }
}

fn any_step() -> impl Strategy<Value = Step> {
    let node = 0..NODES;
    prop_oneof![
        4 => (node.clone(), 0..PREFIXES).prop_map(|(n, p)| Step::Announce(n, p)),
        3 => (node.clone(), 0..PREFIXES).prop_map(|(n, p)| Step::Withdraw(n, p)),
        2 => (node.clone(), node.clone()).prop_map(|(a, b)| Step::Cut(a, b)),
        1 => node.clone().prop_map(Step::Restart),
        1 => node.clone().prop_map(Step::Hold),
        1 => node.prop_map(Step::Release),
        3 => (0u64..8000).prop_map(Step::Wait),
    ]
}

/// A square of external peers with one internal pair: 0 and 1 are in one AS.
const ASNS: [u32; NODES] = [64512, 64512, 64513, 64514];

fn edit(node: usize, config: &mut PeerConfig) {
    config.next_hop_self = true;
    config.connect_retry = Duration::from_secs(1);
    if node == 3 {
        config.restart = crate::config::RestartMode::Off;
    }
}

fn connect(sim: &mut Sim) {
    for a in 0..NODES {
        for b in a + 1..NODES {
            sim.peer(a, b, edit);
        }
    }
}

fn announced(sim: &mut Sim, node: usize, set: &BTreeSet<u8>) {
    let routes = set.iter().map(|n| (prefix(*n), LocalRoute::default()));
    sim.handle(node, Event::Announce(routes.collect()));
}

fn start(sim: &mut Sim, node: usize, restarting: bool) {
    sim.start(node, |c| {
        c.write_limit = 1;
        c.max_paths = 4;
        c.multipath_relax = true;
        c.restarting = restarting;
        c.restart_time_secs = 20;
        c.deferral = Duration::from_secs(20);
        c.stale_path_time = Duration::from_secs(30);
    });
}

fn world(seed: u64) -> Sim {
    let mut sim = Sim::new(&ASNS, seed);
    for node in 0..NODES {
        start(&mut sim, node, false);
    }
    connect(&mut sim);
    sim
}

/// What there is to be known of a node: its kernel's routes, its tables, what it has told.
fn outcome(sim: &Sim, node: usize) -> String {
    let speaker = sim.speaker(node);
    let mut tables: Vec<_> = Family::BOTH
        .into_iter()
        .flat_map(|f| speaker.routes(f))
        .map(|mut route| {
            route.paths.sort_by_key(|p| p.peer.clone());
            route
        })
        .collect();
    tables.sort_by_key(|r| r.prefix);
    let mut told = Vec::new();
    for peer in (0..NODES).filter(|n| *n != node) {
        let mut advertised = speaker.advertised(&key(peer));
        advertised.sort();
        told.push(advertised);
    }
    format!("{:#?}\n{tables:#?}\n{told:#?}", sim.nodes[node].fib)
}

fn run(steps: &[Step], seed: u64) -> Result<(), TestCaseError> {
    let mut sim = world(seed);
    let mut sets = vec![BTreeSet::new(); NODES];
    for step in steps {
        match *step {
            Step::Announce(node, n) => {
                sets[node].insert(n);
                announced(&mut sim, node, &sets[node]);
            }
            Step::Withdraw(node, n) => {
                sets[node].remove(&n);
                announced(&mut sim, node, &sets[node]);
            }
            Step::Cut(a, b) => sim.cut(a, b),
            Step::Restart(node) => {
                sim.kill(node);
                start(&mut sim, node, true);
                for peer in (0..NODES).filter(|n| *n != node) {
                    let internal = ASNS[node] == ASNS[peer];
                    let remote_as = if internal {
                        RemoteAs::Internal
                    } else {
                        RemoteAs::External
                    };
                    let mut config = open_peer(peer, remote_as);
                    edit(node, &mut config);
                    sim.configure(node, config);
                }
                // As the reconciler does: what is not confirmed goes.
                sim.nodes[node].fib.clear();
                announced(&mut sim, node, &sets[node]);
            }
            Step::Hold(node) => sim.hold(node),
            Step::Release(node) => sim.release(node),
            Step::Wait(millis) => sim.run_until(sim.now + Duration::from_millis(millis)),
        }
    }
    (0..NODES).for_each(|node| sim.release(node));
    sim.run(600);
    let mut fresh = world(seed + 1);
    for (node, set) in sets.iter().enumerate() {
        announced(&mut fresh, node, set);
    }
    fresh.run(600);
    for node in 0..NODES {
        prop_assert_eq!(sim.speaker(node).established(), NODES - 1, "node {}", node);
        let (is, should) = (outcome(&sim, node), outcome(&fresh, node));
        prop_assert_eq!(is, should, "node {} with seed {}", node, seed);
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn incremental_equals_recomputed(steps in vec(any_step(), 1..40), seed in 0u64..1000) {
        run(&steps, seed)?;
    }
}

/// A frame with a valid header and any body.
fn frame(kind: u8, body: &[u8]) -> Vec<u8> {
    let mut octets = vec![0xff; 16];
    octets.extend(u16::try_from(19 + body.len()).unwrap().to_be_bytes());
    octets.push(kind);
    octets.extend(body);
    octets
}

/// Attributes that are often almost right.
fn any_update() -> impl Strategy<Value = Vec<u8>> {
    let code = prop_oneof![3 => 1u8..19, 1 => any::<u8>()];
    let flags = prop_oneof![Just(0x40u8), Just(0x80), Just(0xc0), any::<u8>()];
    let value = prop_oneof![
        3 => vec(any::<u8>(), 0..24),
        1 => Just(vec![0]),
        1 => Just(vec![2, 1, 0, 0, 0xfc, 0]),
        1 => Just(vec![192, 0, 2, 1]),
        1 => Just(vec![0, 2, 1, 0, 0, 32, 32, 1, 13, 184]),
    ];
    let attribute = (flags, code, value).prop_map(|(flags, code, value)| {
        let len = u8::try_from(value.len()).unwrap();
        let mut octets = vec![flags & 0xef, code, len];
        octets.extend(value);
        octets
    });
    let good = Just(vec![
        0x40, 1, 1, 0, 0x40, 2, 6, 2, 1, 0, 0, 0xfc, 0, 0x40, 3, 4, 192, 0, 2, 1,
    ]);
    let attributes = (prop_oneof![good, Just(vec![])], vec(attribute, 0..5))
        .prop_map(|(start, rest)| [start, rest.concat()].concat());
    let nlri = prop_oneof![Just(vec![]), Just(vec![8, 10]), vec(any::<u8>(), 0..6)];
    (attributes, nlri).prop_map(|(attributes, nlri)| {
        let mut body = vec![0, 0];
        body.extend(u16::try_from(attributes.len()).unwrap().to_be_bytes());
        body.extend(attributes);
        body.extend(nlri);
        frame(2, &body)
    })
}

fn any_frame() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        6 => any_update(),
        1 => (1u8..6, vec(any::<u8>(), 0..40)).prop_map(|(kind, body)| frame(kind, &body)),
        1 => Just(frame(4, &[])),
        1 => (0u8..3).prop_map(|kind| frame(5, &[0, 2, kind, 1])),
        1 => vec(any::<u8>(), 1..60),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever one peer says, the engine goes on, and so do the sessions with others.
    #[test]
    fn a_hostile_peer_harms_itself_only(
        frames in vec(any_frame(), 1..20),
        cut in 1usize..100,
        seed in 0u64..100,
    ) {
        let mut sim = Sim::new(&[64512, 64513, 64514], seed);
        sim.peer(0, 1, |_, _| ());
        sim.run(10);
        sim.peer(1, 2, |_, _| ());
        sim.announce(2, &[V6]);
        sim.run(10);
        let conn = sim.end(1, 0);
        for octets in frames.concat().chunks(cut) {
            let octets = Bytes::copy_from_slice(octets);
            sim.handle(1, Event::Received { conn, octets });
        }
        // Node 0 itself is honest, and comes back if it was thrown out.
        sim.run(700);
        prop_assert_eq!(sim.nodes[1].ups - sim.nodes[1].downs.len(), 2);
        prop_assert!(sim.nodes[1].downs.iter().all(|(peer, _, _)| *peer == key(0)));
        prop_assert!(sim.fib(1).contains(&V6.to_owned()));
        prop_assert_eq!(sim.fib(0), [V6]);
        let speaker = sim.speaker(1);
        for family in Family::BOTH {
            let counted: usize = speaker.status().peers.iter()
                .flat_map(|p| &p.families)
                .filter(|f| f.family == family)
                .map(|f| f.accepted)
                .sum();
            let there: usize = speaker.routes(family).map(|r| r.paths.len()).sum();
            prop_assert_eq!(counted, there, "{}", family);
        }
    }
}
