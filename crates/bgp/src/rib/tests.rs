//! The decision process as a table, and the table of prefixes against a plain map.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
    sync::Arc,
};

use hextet_types::Prefix;
use proptest::{collection::vec, prelude::*};

use super::*;
use crate::packet::{AsPath, Community, NextHop, Origin, PathAttributes, SegmentKind};

/// Sources 1 and 2 are external in AS 1 and 2, 3 is internal, 4 is external in AS 1.
fn sources() -> Vec<Option<Source>> {
    let source = |kind, asn: u32, id: u8| {
        Some(Source {
            kind,
            asn: Asn(asn),
            identifier: Ipv4Addr::new(10, 0, 0, id),
            address: Ipv4Addr::new(192, 0, 2, 100 - id).into(),
            interface: None,
            suspect: false,
        })
    };
    let internal = SourceKind::Internal { client: false };
    vec![
        Some(Source::local(Asn(64512), Ipv4Addr::new(10, 0, 0, 100))),
        source(SourceKind::External, 1, 1),
        source(SourceKind::External, 2, 2),
        source(internal, 64512, 3),
        source(SourceKind::External, 1, 4),
    ]
}

fn path(source: u16, edit: impl FnOnce(&mut PathAttributes)) -> Path {
    let hop = Ipv4Addr::new(192, 0, 2, u8::try_from(source).unwrap());
    let mut attributes = PathAttributes::new(NextHop::V4(hop));
    let first = [64512, 1, 2, 3, 1][usize::from(source)];
    attributes.as_path = AsPath::sequence(&[Asn(first), Asn(100)]);
    edit(&mut attributes);
    Path::new(Arc::new(attributes), SourceId(source))
}

const PREFERENCES: Preferences = Preferences {
    max_paths: 8,
    multipath_relax: true,
    always_compare_med: false,
};

fn chosen(paths: &[Path], preferences: Preferences) -> Vec<u16> {
    let sources = sources();
    let source = |id: SourceId| sources.get(id.index())?.as_ref();
    let selection = select(paths, source, preferences);
    selection.all(paths).map(|p| p.source.0).collect()
}

#[test]
fn each_step_decides_when_those_before_are_equal() {
    let long = |a: &mut PathAttributes| a.as_path = a.as_path.prepended(Asn(9), 1);
    let set = |a: &mut PathAttributes| {
        let two_and_a_set = [
            (SegmentKind::Sequence, vec![Asn(1), Asn(100)]),
            (SegmentKind::Set, vec![Asn(5), Asn(6), Asn(7)]),
        ];
        a.as_path = AsPath::from_segments(&two_and_a_set);
    };
    let pref = |n| move |a: &mut PathAttributes| a.local_pref = Some(n);
    let med = |n| move |a: &mut PathAttributes| a.med = Some(n);
    let same = |_: &mut PathAttributes| ();
    let stale = |a: &mut PathAttributes| {
        a.local_pref = Some(1000);
        a.add_community(Community::LLGR_STALE);
    };
    let originator = |id| {
        let id = Ipv4Addr::new(10, 0, 0, id);
        move |a: &mut PathAttributes| a.edit_rare(|r| r.originator_id = Some(id))
    };
    // By its address, the second source would win.
    let clusters = |a: &mut PathAttributes| {
        originator(1)(a);
        a.edit_rare(|r| r.cluster_list = vec![Ipv4Addr::new(1, 1, 1, 1)]);
    };
    let cases: Vec<(&str, Vec<Path>, u16)> = vec![
        ("our own first", vec![path(1, pref(900)), path(0, long)], 0),
        (
            "long-lived stale last",
            vec![path(1, stale), path(2, pref(1))],
            2,
        ),
        ("LOCAL_PREF", vec![path(1, same), path(2, pref(101))], 2),
        (
            "LOCAL_PREF is 100",
            vec![path(1, pref(99)), path(2, same)],
            2,
        ),
        ("AS_PATH", vec![path(1, long), path(2, same)], 2),
        ("a set is one hop", vec![path(1, set), path(2, long)], 1),
        (
            "ORIGIN",
            vec![path(1, |a| a.origin = Origin::Egp), path(2, same)],
            2,
        ),
        (
            "MED within an AS",
            vec![path(1, med(5)), path(4, med(4))],
            4,
        ),
        ("no MED is 0", vec![path(1, med(5)), path(4, same)], 4),
        (
            "no MED between AS",
            vec![path(1, med(5)), path(2, med(4))],
            1,
        ),
        ("external first", vec![path(3, same), path(4, same)], 4),
        ("identifier", vec![path(2, same), path(1, same)], 1),
        (
            "ORIGINATOR_ID counts as it",
            vec![path(1, originator(9)), path(2, same)],
            2,
        ),
        ("CLUSTER_LIST", vec![path(2, clusters), path(1, same)], 1),
        ("address", vec![path(2, originator(1)), path(1, same)], 2),
    ];
    for (what, mut paths, best) in cases {
        assert_eq!(chosen(&paths, PREFERENCES)[0], best, "{what}");
        paths.reverse();
        assert_eq!(chosen(&paths, PREFERENCES)[0], best, "{what}, reversed");
    }
}

#[test]
fn med_is_compared_pair_by_pair_whatever_the_order() {
    // The classic: without grouping by AS the order of arrival would decide.
    let a = path(1, |a| a.med = Some(10));
    let b = path(2, |a| a.med = Some(5));
    let c = path(4, |a| a.med = Some(1));
    for order in [
        [0, 1, 2],
        [0, 2, 1],
        [1, 0, 2],
        [1, 2, 0],
        [2, 0, 1],
        [2, 1, 0],
    ] {
        let all = [&a, &b, &c];
        let paths: Vec<Path> = order.iter().map(|n| all[*n].clone()).collect();
        assert_eq!(chosen(&paths, PREFERENCES), [2, 4]);
        let always = Preferences {
            always_compare_med: true,
            ..PREFERENCES
        };
        assert_eq!(chosen(&paths, always), [4]);
    }
}

#[test]
fn load_is_shared_by_equals_only() {
    let same = |_: &mut PathAttributes| ();
    let all = [path(1, same), path(2, same), path(3, same), path(4, same)];
    assert_eq!(chosen(&all, PREFERENCES), [1, 2, 4]);
    let strict = Preferences {
        multipath_relax: false,
        ..PREFERENCES
    };
    assert_eq!(chosen(&all, strict), [1, 4]);
    let two = Preferences {
        max_paths: 2,
        ..PREFERENCES
    };
    assert_eq!(chosen(&all, two), [1, 2]);
    assert_eq!(chosen(&[], two), [] as [u16; 0]);
    // A source that is gone does not count.
    let unknown = Path::new(Arc::clone(&all[0].attributes), SourceId(77));
    assert_eq!(chosen(&[unknown.clone(), all[1].clone()], two), [2]);
    assert_eq!(chosen(&[unknown], two), [] as [u16; 0]);
}

#[derive(Clone, Debug)]
enum Op {
    Insert(u8, u16, u32),
    Remove(u8, u16),
    RemoveAll(u16),
    MarkStale(u16),
    RemoveStale(u16),
    Queue(u8),
    Drain,
}

fn any_op() -> impl Strategy<Value = Op> {
    let (prefix, source) = (0u8..20, 1u16..5);
    prop_oneof![
        6 => (prefix.clone(), source.clone(), 0u32..3).prop_map(|(p, s, m)| Op::Insert(p, s, m)),
        4 => (prefix.clone(), source.clone()).prop_map(|(p, s)| Op::Remove(p, s)),
        1 => source.clone().prop_map(Op::RemoveAll),
        1 => source.clone().prop_map(Op::MarkStale),
        1 => source.prop_map(Op::RemoveStale),
        1 => prefix.prop_map(Op::Queue),
        2 => Just(Op::Drain),
    ]
}

fn prefix(n: u8) -> Prefix {
    Prefix::host(Ipv4Addr::new(10, 0, 0, n).into())
}

/// A map from prefix and source to MED and whether it is stale.
type Model = BTreeMap<(Prefix, u16), (u32, bool)>;

fn drain(table: &mut Table, queued: &mut Vec<NetId>) {
    for net in queued.drain(..) {
        table.unqueue(net);
    }
    while let Some(net) = table.next_dirty() {
        table.forget_if_unused(net);
    }
}

fn apply(op: &Op, table: &mut Table, model: &mut Model, queued: &mut Vec<NetId>) {
    match *op {
        Op::Insert(n, s, med) => {
            let with_med = path(s, |a| a.med = Some(med));
            let new = model.insert((prefix(n), s), (med, false)).is_none();
            assert_eq!(table.insert(&prefix(n), with_med), new);
        }
        Op::Remove(n, s) => {
            let was = model.remove(&(prefix(n), s)).is_some();
            assert_eq!(table.remove(prefix(n), SourceId(s)), was);
        }
        Op::RemoveAll(s) => {
            let before = model.len();
            model.retain(|(_, source), _| *source != s);
            let gone = table.remove_where(SourceId(s), |_| true);
            assert_eq!(gone, before - model.len());
        }
        Op::MarkStale(s) => {
            table.mark_stale(SourceId(s));
            let stale = model.iter_mut().filter(|((_, source), _)| *source == s);
            stale.for_each(|(_, value)| value.1 = true);
        }
        Op::RemoveStale(s) => {
            table.remove_where(SourceId(s), Path::is_stale);
            model.retain(|(_, source), (_, stale)| *source != s || !*stale);
        }
        Op::Queue(n) => {
            if let Some(net) = table.find(prefix(n)) {
                table.queue(net);
                queued.push(net);
            }
        }
        Op::Drain => drain(table, queued),
    }
}

proptest! {
    #[test]
    fn the_table_is_a_map(ops in vec(any_op(), 0..200)) {
        let (mut table, mut model, mut queued) = (Table::default(), Model::new(), Vec::new());
        for op in &ops {
            apply(op, &mut table, &mut model, &mut queued);
            let is: Model = table
                .iter()
                .flat_map(|(_, prefix, paths)| paths.iter().map(move |p| (prefix, p)))
                .map(|(prefix, p)| ((prefix, p.source.0), (p.attributes.med.unwrap(), p.is_stale())))
                .collect();
            prop_assert_eq!(&is, &model);
        }
        drain(&mut table, &mut queued);
        let prefixes: BTreeSet<_> = model.keys().map(|(p, _)| p).collect();
        prop_assert_eq!(table.len(), prefixes.len(), "unused prefixes are forgotten");
    }
}

#[test]
fn ids_are_used_again() {
    let mut table = Table::default();
    for round in 0..100u8 {
        table.insert(&prefix(round), path(1, |_| ()));
        table.remove(prefix(round), SourceId(1));
        drain(&mut table, &mut Vec::new());
    }
    assert_eq!((table.len(), table.end()), (0, 1));
}

#[test]
fn attributes_no_longer_used_are_swept() {
    let mut interner = Interner::new();
    let kept = interner.intern(PathAttributes::clone(&path(1, |_| ()).attributes));
    for n in 0..10_000 {
        let attributes = path(1, |a| a.med = Some(n)).attributes;
        interner.intern(PathAttributes::clone(&attributes));
    }
    assert!(interner.len() < 3000, "{}", interner.len());
    let again = interner.intern(PathAttributes::clone(&kept));
    assert!(Arc::ptr_eq(&kept, &again));
}

#[test]
fn next_hop_sets_are_counted() {
    let hop = |n| Hop {
        addr: Ipv4Addr::new(192, 0, 2, n).into(),
        interface: None,
    };
    let mut sets = HopSets::default();
    let one = sets.acquire(&[hop(1)]);
    assert_eq!(sets.acquire(&[hop(1)]), one);
    let two = sets.acquire(&[hop(1), hop(2)]);
    assert_eq!(sets.hops(two).len(), 2);
    sets.release(one);
    assert_eq!(sets.hops(one).len(), 1);
    sets.release(one);
    assert_eq!(sets.hops(one).len(), 0);
    assert_eq!(sets.acquire(&[hop(3)]), one, "the place is used again");
    assert_eq!(sets.acquire(&[]), hops::HopSetId::NONE);
}
