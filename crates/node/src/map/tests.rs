use hextet_mesh::letter::Micros;

use super::*;

fn neighbour(node: u64, is_beside: bool, micros: Option<u32>) -> Neighbour {
    Neighbour {
        node: NodeId(node),
        is_beside,
        round_trip: micros.map(Micros),
    }
}

fn four() -> Map {
    let found = BTreeMap::from([
        (
            NodeId(1),
            vec![
                neighbour(2, false, Some(3_000)),
                neighbour(3, true, None),
                neighbour(1, false, Some(1)),
            ],
        ),
        (NodeId(2), vec![neighbour(1, false, Some(2_500))]),
        (NodeId(3), vec![neighbour(2, false, Some(200_000))]),
    ]);
    let homes = BTreeMap::from([
        (NodeId(1), "fd00::1".parse().unwrap()),
        (NodeId(4), "fd00:0:0:4::1".parse().unwrap()),
    ]);
    map(NodeId(1), &found, &homes)
}

#[test]
fn each_link_is_there_once_with_the_lesser_round_trip() {
    let map = four();
    let nodes: Vec<_> = map
        .nodes
        .iter()
        .map(|spot| (spot.this, spot.answered))
        .collect();
    assert_eq!(
        nodes,
        [(true, true), (false, true), (false, true), (false, false)]
    );
    let links: Vec<_> = map
        .links
        .iter()
        .map(|link| {
            (
                link.ends[0].as_str(),
                link.ends[1].as_str(),
                link.beside,
                link.round_trip_ms,
            )
        })
        .collect();
    let [one, two, three] = [1, 2, 3].map(|number| NodeId(number).to_string());
    assert_eq!(
        links,
        [
            (&one[..], &two[..], false, Some(2.5)),
            (&one[..], &three[..], true, None),
            (&two[..], &three[..], false, Some(200.0)),
        ]
    );
}

#[test]
fn the_picture_shows_all_of_it() {
    let map = four();
    let text = svg(&map);
    assert_eq!(text, svg(&map), "the same again");
    assert_eq!(text.matches("<circle").count(), 4);
    // Five more stand in the legend.
    assert_eq!(text.matches("<line").count(), 3 + 5);
    for part in [
        "2.5 ms",
        "without a tunnel",
        "no answer",
        "fd00:0:0:4::1",
        "4 nodes, 3 links",
    ] {
        assert!(text.contains(part), "{part}");
    }
    assert!(!text.contains("NaN"));
    assert!(page(&map).contains(&text));
}

#[test]
fn none_one_and_many_have_places_of_their_own() {
    for count in [0, 1, 2, 40] {
        let links: Vec<[usize; 2]> = (1..count).map(|number| [number / 2, number]).collect();
        let places = layout::places(count, &links);
        assert_eq!(places.len(), count);
        let within = |value: &f64| (0.0..=1.0).contains(value);
        assert!(places.iter().flatten().all(within), "{places:?}");
        let least = 0.2 / (count.max(1) as f64).sqrt();
        for (number, one) in places.iter().enumerate() {
            let mut others = places.iter().skip(number + 1);
            let near = others.find(|other| (one[0] - other[0]).hypot(one[1] - other[1]) < least);
            assert_eq!(near, None, "{count}: {one:?}");
        }
    }
    // Each end of a chain is farther from the other than its neighbour.
    let places = layout::places(3, &[[0, 1], [1, 2]]);
    let far = |one: usize, other: usize| {
        (places[one][0] - places[other][0]).hypot(places[one][1] - places[other][1])
    };
    assert!(far(0, 2) > far(0, 1) && far(0, 2) > far(1, 2));
}
