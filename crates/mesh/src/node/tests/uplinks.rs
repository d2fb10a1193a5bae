//! A node with several uplinks.

use super::*;

/// Of the second uplink of a node.
fn second(number: u8) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::new(203, 0, 113, number), PORT + 10))
}

impl World {
    fn start_with_two(&mut self, number: u8) {
        self.start(number, Site::Open, &[]);
        self.tell(number, Event::Uplinks(vec![vec![second(number)]]));
    }

    fn second_strands(&self, number: u8) -> usize {
        let of = |(one, _, strand): &&(u8, u8, u8)| *one == number && *strand == 1;
        self.further.iter().filter(of).count()
    }

    fn lose(&mut self, (one, other): (u8, u8), number: u8) {
        for (at, with) in [(one, other), (other, one)] {
            let node = id(with);
            self.tell(at, Event::Down(Strand { node, number }));
        }
    }
}

fn three() -> World {
    let mut world = World::new(10);
    world.start_with_two(1);
    world.start(2, Site::Open, &[]);
    world.start(3, Site::Open, &[]);
    world.wait_for_all(Duration::from_secs(20));
    world.run(Duration::from_secs(30));
    world
}

#[test]
fn each_tunnel_has_a_strand_by_each_uplink() {
    let world = three();
    assert_eq!(world.second_strands(1), world.degree(1));
    assert_eq!(
        world.second_strands(2),
        usize::from(world.up.contains(&(2, 1)))
    );
    assert!(world.degree(1) > 0);
    for ((at, with, strand), plan) in &world.plans {
        let is_there = plan.candidates.contains(&Way::Udp(second(1)));
        assert_eq!(is_there, *with == 1 && *strand == 1, "{at}: {plan:?}");
    }
}

#[test]
fn a_tunnel_stands_while_one_of_its_strands_does() {
    let mut world = three();
    let other = world.up.iter().find(|(one, _)| *one == 1).unwrap().1;
    for number in [0, 1] {
        world.lose((1, other), number);
        let tunnels = |number: u8| world.nodes[&number].status().tunnels;
        let has = |at, with| tunnels(at).iter().any(|tunnel| tunnel.node == id(with));
        assert!(has(1, other) && has(other, 1), "strand {number}");
        // It is offered again, and comes back.
        if number == 0 {
            world
                .up
                .retain(|pair| ![(1, other), (other, 1)].contains(pair));
        }
        world.run(Duration::from_secs(40));
        assert!(world.up.contains(&(1, other)) && world.up.contains(&(other, 1)));
        assert!(world.further.contains(&(other, 1, 1)));
    }
    world.lose((1, other), 0);
    let node = world.nodes.get_mut(&1).unwrap();
    let last = Event::Down(Strand {
        node: id(other),
        number: 1,
    });
    let wall = NOW.plus(1_000);
    node.handle(last, world.now, wall);
    let stages = node.status().tunnels;
    assert!(
        stages.iter().all(|tunnel| tunnel.node != id(other)),
        "{stages:?}"
    );
}

#[test]
fn a_strand_that_one_end_has_lost_is_agreed_upon_anew() {
    let mut world = three();
    let other = world.up.iter().find(|(one, _)| *one == 1).unwrap().1;
    let before = world.plans[&(other, 1, 1)].peer_key;
    let (node, number) = (id(other), 1);
    world.tell(1, Event::Down(Strand { node, number }));
    world.run(Duration::from_secs(40));
    let after = &world.plans[&(other, 1, 1)];
    assert_ne!(after.peer_key, before);
    assert!(world.further.contains(&(1, other, 1)));
}

#[test]
fn nobody_gets_a_strand_without_a_tunnel() {
    let mut world = three();
    let wall = world.wall();
    let (now, stranger) = (world.now, 9);
    world.start(stranger, Site::Open, &[]);
    let nine = world.nodes.get_mut(&stranger).unwrap();
    let offer = crate::letter::Offer {
        strand: 1,
        key: [7; 32],
        card: nine.card(),
    };
    let known = nine.known();
    let said = crate::letter::Said::Offer(offer);
    let (_, octets) = nine
        .desk
        .write(Some(id(1)), None, known, said, wall)
        .unwrap();
    let from = outside(stranger);
    let node = world.nodes.get_mut(&1).unwrap();
    let actions = node.handle(Event::Letter { from, octets }, now, wall);
    let opens = |action: &Action| matches!(action, Action::Open(_));
    assert!(!actions.iter().any(opens), "{actions:?}");
}

#[test]
fn where_no_datagram_passes_each_strand_has_a_stream_of_its_own() {
    let mut world = World::new(0);
    world.start_with_two(1);
    world.start(2, Site::Open, &[]);
    world.wait_for_all(Duration::from_secs(20));
    world.start(3, Site::Quiet, &[]);
    world.wait_for_all(Duration::from_secs(60));
    world.run(Duration::from_secs(120));
    let streams = |strand: u8| -> Vec<Way> {
        let plan = &world.plans[&(3, 1, strand)];
        let all = plan.candidates.iter().copied();
        all.filter(|at| at.tls().is_some()).collect()
    };
    let other = Way::Tls(SocketAddr::new(second(1).ip(), STREAMS));
    assert_eq!((streams(0), streams(1)), (vec![stream(1)], vec![other]));
}

#[test]
fn who_is_heard_no_more_by_a_strand_is_told_so() {
    let mut world = three();
    let other = world.up.iter().find(|(one, _)| *one == 1).unwrap().1;
    let node = id(other);
    world.tell(1, Event::Silent(Strand { node, number: 1 }));
    world.run(Duration::from_secs(1));
    assert_eq!(world.suspected, BTreeSet::from([(other, (1, 1))]));
}

#[test]
fn a_kernel_with_wireguard_has_a_strand_at_a_port_of_its_own() {
    let mut world = World::new(10);
    for number in 1..=3 {
        world.start(number, Site::Open, &[]);
    }
    let address = outside(1).address().ip();
    world.tell(1, Event::Kernel(vec![address]));
    world.wait_for_all(Duration::from_secs(20));
    world.run(Duration::from_secs(30));
    let others: Vec<u8> = (world.up.iter())
        .filter_map(|(one, other)| (*one == 1).then_some(*other))
        .collect();
    assert!(!others.is_empty());
    for other in others {
        let port = opening::kernel_port(id(other));
        let ours = &world.plans[&(1, other, KERNEL_STRAND)];
        assert_eq!(ours.kernel, Some(port));
        assert!(ours.keepalive_secs > 0, "else it would not begin");
        let theirs = &world.plans[&(other, 1, KERNEL_STRAND)];
        assert_eq!(theirs.kernel, None);
        let at = Way::Udp(SocketAddr::new(address, port));
        assert_eq!(theirs.candidates, [at]);
        assert_eq!(ours.peer_key, public(theirs.private_key));
        assert_eq!(world.plans[&(1, other, 0)].kernel, None);
    }
    let strands = world.plans.keys().filter(|(.., strand)| *strand > 0);
    assert!(
        strands
            .clone()
            .all(|(one, other, _)| *one == 1 || *other == 1)
    );
}

#[test]
fn who_has_several_uplinks_leaves_the_kernel_out() {
    let mut world = World::new(10);
    world.start_with_two(1);
    world.start(2, Site::Open, &[]);
    let address = outside(1).address().ip();
    world.tell(1, Event::Kernel(vec![address]));
    world.wait_for_all(Duration::from_secs(20));
    world.run(Duration::from_secs(30));
    assert_eq!(world.second_strands(1), 1);
    let mut strands = world.plans.keys().map(|(.., strand)| *strand);
    assert!(strands.all(|strand| strand != KERNEL_STRAND));
}

fn public(private: [u8; 32]) -> [u8; 32] {
    PublicKey::from(&StaticSecret::from(private)).to_bytes()
}

#[test]
fn who_is_missed_by_one_is_looked_for_by_all_who_have_a_tunnel_with_it() {
    let mut world = World::new(0);
    for number in 1..=5 {
        world.start(number, Site::Open, &[]);
    }
    world.wait_for_all(Duration::from_secs(20));
    world.run(Duration::from_secs(60));
    let beside = |number: u8| -> BTreeSet<u8> {
        let up = world.up.iter().filter(|(one, _)| *one == number);
        up.map(|(_, other)| *other).collect()
    };
    let (ours, theirs) = (beside(1), beside(5));
    assert!(ours.contains(&5));
    let look: BTreeSet<u8> = ours.intersection(&theirs).copied().collect();
    assert!(!look.is_empty());
    for _ in 0..3 {
        world.tell(1, Event::Missing(id(5)));
    }
    world.run(Duration::from_secs(1));
    let expected = look.into_iter().map(|number| (number, (5, 0)));
    assert_eq!(world.suspected, expected.collect());
}
