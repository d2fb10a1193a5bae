//! What befalls a mesh, by a seed.

use std::{collections::BTreeSet, fmt, time::Duration};

use hextet_babel::{
    Event,
    number::{Interval, Metric},
    packet::Destination,
};

use super::net::{Net, Wire, link_id};

/// What was seen, for those who wonder whether anything was.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    pub seeds: u64,
    pub packets: u64,
    pub changes: u64,
    pub loops: u64,
    pub refused: u64,
    pub routes: u64,
    stretch: f64,
    worst: f64,
}

impl Outcome {
    pub fn add(&mut self, other: &Outcome) {
        self.seeds += other.seeds;
        self.packets += other.packets;
        self.changes += other.changes;
        self.loops += other.loops;
        self.refused += other.refused;
        self.routes += other.routes;
        self.stretch += other.stretch;
        self.worst = self.worst.max(other.worst);
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mean = self.stretch / self.routes as f64;
        write!(
            f,
            "{} seeds, {} packets, {} forged or old ones refused, {} changes, {} passing loops of destinations that had moved; {} routes in the end, \
             {mean:.3} times the best, {:.2} at worst",
            self.seeds,
            self.packets,
            self.refused,
            self.changes,
            self.loops,
            self.routes,
            self.worst
        )
    }
}

fn prefix(node: usize, n: usize) -> Destination {
    let v6 = |text: String| text.parse().unwrap();
    match n {
        0 => Destination::of(v6(format!("2001:db8:{node:x}::/48"))),
        1 => Destination::of(format!("10.{node}.0.0/16").parse().unwrap()),
        _ => Destination::from_source(v6("::/0".to_owned()), v6(format!("2001:db8:{node:x}::/48")))
            .unwrap(),
    }
}

fn mesh(seed: u64) -> Net {
    let intervals = match seed % 3 {
        0 => [Interval(400), Interval(6_000)],
        _ => [Interval(100), Interval(1_600)],
    };
    let mut sizes = super::net::Random(seed ^ 0x5eed);
    let nodes = usize::try_from(3 + sizes.below(10)).unwrap();
    let mut net = Net::new(seed, nodes, intervals);
    for node in 1..nodes {
        let other = usize::try_from(net.random.below(node as u64)).unwrap();
        connect(&mut net, vec![other, node]);
    }
    for _ in 0..net.random.below(nodes as u64 * 2) {
        let one = usize::try_from(net.random.below(nodes as u64)).unwrap();
        let other = usize::try_from(net.random.below(nodes as u64)).unwrap();
        if one != other {
            connect(&mut net, vec![one, other]);
        }
    }
    if net.random.one_in(3) {
        let size = usize::try_from(3 + net.random.below(3)).unwrap();
        connect(&mut net, (0..size.min(nodes)).collect());
    }
    net
}

fn connect(net: &mut Net, ends: Vec<usize>) {
    let micros = 500 << net.random.below(8);
    let wire = Wire {
        ends,
        delay: Duration::from_micros(micros + net.random.below(micros)),
        loss: net.random.below(4) * 50,
        up: true,
        drained: BTreeSet::new(),
    };
    net.wires.push(wire);
}

/// One thing happens.
fn change(net: &mut Net) {
    let wire = usize::try_from(net.random.below(net.wires.len() as u64)).unwrap();
    let node = usize::try_from(net.random.below(net.nodes.len() as u64)).unwrap();
    match net.random.below(12) {
        0 | 1 => cut(net, wire),
        2..=4 => mend(net, wire),
        5 => {
            net.kill(node);
            let away = Duration::from_millis(net.random.below(20_000));
            net.run(away);
            net.start(node);
        }
        6 => {
            let micros = 500 << net.random.below(8);
            net.wires[wire].delay = Duration::from_micros(micros + net.random.below(micros));
        }
        7 => part(net),
        9 => drain(net, wire),
        10 if net.is_alive(node) => {
            // Gone for a moment or for long; a node whose routes do not outlive it loses them.
            match net.nodes[node].lasting {
                true => net.kill_program(node),
                false => net.kill(node),
            }
            let away = Duration::from_millis(net.random.below(20_000));
            net.run(away);
            net.start(node);
        }
        8 => {
            let to = prefix(node, usize::try_from(net.random.below(3)).unwrap());
            if net.own(node).contains(&to) {
                net.withdraw(node, to);
            } else {
                net.originate(node, to, Metric(0));
            }
        }
        _ => net.wires[wire].loss = net.random.below(4) * 100,
    }
}

/// With a word to both ends, to one, or to none; with or without one from elsewhere that nothing comes through.
fn cut(net: &mut Net, wire: usize) {
    net.wires[wire].up = false;
    let ends = net.wires[wire].ends.clone();
    let told = usize::try_from(net.random.below(ends.len() as u64 + 1)).unwrap();
    let is_down = net.random.one_in(2);
    for end in ends.into_iter().take(told) {
        let event = match is_down {
            true => Event::LinkDown(link_id(wire)),
            false => Event::LinkDead(link_id(wire)),
        };
        net.event(end, event);
    }
}

fn mend(net: &mut Net, wire: usize) {
    net.wires[wire].up = true;
    for end in net.wires[wire].ends.clone() {
        net.link_up(end, wire);
    }
}

/// One end wants to be rid of a link, or does not any more. Where more than two are, that is no cost of a link alone.
fn drain(net: &mut Net, wire: usize) {
    let ends = net.wires[wire].ends.clone();
    if ends.len() > 2 {
        return;
    }
    let end = ends[usize::try_from(net.random.below(2)).unwrap()];
    let drained = &mut net.wires[wire].drained;
    if !drained.remove(&end) {
        drained.insert(end);
    }
    if net.wires[wire].up {
        net.drain(end, wire);
    }
}

/// All wires between two halves are cut, for a while.
fn part(net: &mut Net) {
    let half = net.nodes.len() / 2;
    let between: Vec<usize> = (0..net.wires.len())
        .filter(|wire| {
            let ends = &net.wires[*wire].ends;
            ends.iter().any(|end| *end < half) && ends.iter().any(|end| *end >= half)
        })
        .collect();
    for wire in &between {
        net.wires[*wire].up = false;
    }
    let apart = Duration::from_millis(net.random.below(90_000));
    net.run(apart);
    for wire in between {
        mend(net, wire);
    }
}

/// The programs of a quiet mesh are gone for ten seconds and more, one after another; how often.
pub fn restarts(seed: u64) -> u64 {
    let mut net = mesh(seed);
    net.wires.retain(|wire| wire.ends.len() == 2);
    for wire in &mut net.wires {
        wire.loss = 0;
    }
    for node in 0..net.nodes.len() {
        net.nodes[node].lasting = true;
        for n in 0..3 {
            net.originate(node, prefix(node, n), Metric(0));
        }
        net.start(node);
    }
    net.run(Duration::from_secs(60));
    net.assert_converged();
    net.is_steady = true;
    let nodes = net.nodes.len();
    for node in (0..nodes).chain(0..nodes) {
        net.kill_program(node);
        let away = Duration::from_millis(10_000 + net.random.below(60_000));
        net.run(away);
        net.start(node);
        // Whoever resumes asks each origin: they have to be there.
        let back = Duration::from_millis(30_000 + net.random.below(60_000));
        net.run(back);
    }
    net.run(Duration::from_secs(120));
    net.assert_converged();
    assert_eq!(net.loops, 0, "HEXTET_SEED={seed}");
    nodes as u64 * 2
}

/// A life of a mesh.
pub fn run(seed: u64) -> Outcome {
    let mut net = mesh(seed);
    if net.random.one_in(3) {
        net.is_watched();
    }
    let may_last = net.random.one_in(2);
    for node in 0..net.nodes.len() {
        net.nodes[node].lasting = may_last && !net.random.one_in(5);
        for n in 0..3 {
            if n == 0 || net.random.one_in(2) {
                net.originate(node, prefix(node, n), Metric(0));
            }
        }
        net.start(node);
    }
    let changes = 5 + net.random.below(20);
    for _ in 0..changes {
        let quiet = Duration::from_millis(net.random.below(15_000));
        net.run(quiet);
        change(&mut net);
    }
    for wire in &mut net.wires {
        wire.loss = 0;
    }
    // What nobody was told of has to be missed: three Hellos, then all that was said over it.
    net.run(Duration::from_secs(300));
    let stretches = net.assert_converged();
    Outcome {
        seeds: 1,
        packets: net.packets,
        changes,
        loops: net.loops,
        refused: net.refused,
        routes: stretches.len() as u64,
        stretch: stretches.iter().sum(),
        worst: stretches.into_iter().fold(1.0, f64::max),
    }
}
