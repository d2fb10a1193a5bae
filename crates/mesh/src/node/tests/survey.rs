//! Who is next to whom.

use super::*;
use crate::letter::Said;

fn five() -> World {
    let mut world = World::new(20);
    for number in 1..=5 {
        world.start(number, Site::Open, &[]);
    }
    world.wait_for_all(Duration::from_secs(20));
    world.run(Duration::from_secs(30));
    world
}

#[test]
fn a_picture_has_all_nodes_and_all_tunnels() {
    let mut world = five();
    world.tell(1, Event::Survey);
    // Who asks meanwhile waits for the same one.
    world.tell(1, Event::Survey);
    world.run(Duration::from_secs(4));
    let [picture] = &world.surveyed[..] else {
        panic!("{} pictures", world.surveyed.len());
    };
    assert_eq!(picture.len(), 5);
    let shown: BTreeSet<(u8, u8)> = picture
        .iter()
        .flat_map(|(node, neighbours)| neighbours.iter().map(|other| (node.0, other.node.0)))
        .map(|(node, other)| (u8::try_from(node).unwrap(), u8::try_from(other).unwrap()))
        .collect();
    assert_eq!(shown, world.up);
    let all = || picture.values().flatten();
    assert!(all().all(|other| !other.is_beside));
    let measured = all().filter_map(|other| other.round_trip);
    let there_and_back = Micros::from(WAY * 2);
    assert!(measured.clone().count() > 0);
    assert!(measured.into_iter().all(|time| time == there_and_back));
}

#[test]
fn who_is_silent_is_left_out_and_the_others_are_not() {
    let mut world = five();
    world.nodes.remove(&5);
    world.tell(1, Event::Survey);
    world.run(Duration::from_secs(4));
    let picture = world.surveyed.pop().unwrap();
    let nodes: Vec<u64> = picture.keys().map(|node| node.0).collect();
    assert_eq!(nodes, [1, 2, 3, 4]);
    world.tell(1, Event::Survey);
    world.run(Duration::from_secs(4));
    assert_eq!(world.surveyed.len(), 1, "another one");
}

#[test]
fn what_nobody_asked_for_is_not_believed() {
    let mut world = five();
    let (now, wall) = (world.now, world.wall());
    let write = |world: &mut World, from: u8, answers| {
        let node = world.nodes.get_mut(&from).unwrap();
        let known = node.known();
        let said = Said::Neighbours(Vec::new());
        let written = node.desk.write(Some(id(1)), answers, known, said, wall);
        written.unwrap().1
    };
    let mut forged = vec![write(&mut world, 2, None)];
    forged.extend((0..20).map(|number| write(&mut world, 3, Some(number))));
    let one = world.nodes.get_mut(&1).unwrap();
    one.handle(Event::Survey, now, wall);
    for octets in forged {
        let from = outside(3);
        let actions = one.handle(Event::Letter { from, octets }, now, wall);
        let is_done = |action: &Action| matches!(action, Action::Surveyed(_));
        assert!(!actions.iter().any(is_done));
    }
}
