use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

fn prefix(text: &str) -> Prefix {
    text.parse().unwrap()
}

/// 256 addresses of either family.
fn world(family: Family) -> Prefix {
    prefix(match family {
        Family::V4 => "10.0.0.0/24",
        Family::V6 => "2001:db8::ff00/120",
    })
}

fn inside(family: Family, at: u8, bits: u8) -> Prefix {
    let world = world(family);
    let first = number(world.addr()) + u128::from(at);
    Prefix::new(address(first, world.addr()), family.bits() - bits).unwrap()
}

fn addresses(prefix: Prefix) -> std::ops::RangeInclusive<u128> {
    number(prefix.addr())..=number(prefix.last())
}

fn content(set: &PrefixSet) -> BTreeSet<u128> {
    set.iter().flat_map(addresses).collect()
}

/// The most bits that a free, aligned block has, by trying all of them.
fn largest_free(family: Family, free: &BTreeSet<u128>) -> Option<u8> {
    (0..=8u8).rev().find(|bits| {
        (0..=255u8)
            .step_by(1 << bits.min(&7))
            .map(|at| inside(family, at, *bits))
            .any(|p| addresses(p).all(|n| free.contains(&n)))
    })
}

fn families() -> impl Strategy<Value = Family> {
    prop_oneof![Just(Family::V4), Just(Family::V6)]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_set_holds_what_was_put_in_and_is_as_short_as_can_be(
        family in families(),
        steps in prop::collection::vec((any::<bool>(), any::<u8>(), 0u8..9), 0..60),
    ) {
        let (mut set, mut model) = (PrefixSet::new(family), BTreeSet::new());
        for (add, at, bits) in steps {
            let prefix = inside(family, at, bits);
            if add {
                set.insert(prefix);
                model.extend(addresses(prefix));
            } else {
                set.remove(prefix);
                model.retain(|n| !addresses(prefix).contains(n));
            }
            prop_assert_eq!(&content(&set), &model);
            let all: Vec<_> = set.iter().collect();
            for pair in all.windows(2) {
                prop_assert!(pair[0].last() < pair[1].addr());
                let up = Prefix::new(pair[0].addr(), pair[0].len() - 1).unwrap();
                let whole = pair[0].len() == pair[1].len() && up.covers(pair[1]);
                prop_assert!(!whole, "{} and {} make up {up}", pair[0], pair[1]);
            }
            for (at, bits) in [(at, bits), (at ^ 0x55, 2), (at, 0)] {
                let asked = inside(family, at, bits);
                prop_assert_eq!(set.covers(asked), addresses(asked).all(|n| model.contains(&n)));
                prop_assert_eq!(set.overlaps(asked), addresses(asked).any(|n| model.contains(&n)));
            }
            prop_assert_eq!(set.clone(), PrefixSet::of(family, all), "one form for one content");
        }
    }

    #[test]
    fn allocations_never_overlap_and_fail_only_when_no_block_is_large_enough(
        family in families(),
        steps in prop::collection::vec((0u8..9, any::<prop::sample::Index>(), any::<bool>()), 0..80),
    ) {
        let mut free = PrefixSet::of(family, [world(family)]);
        let mut taken: Vec<Prefix> = Vec::new();
        for (bits, index, give_back) in steps {
            if give_back && !taken.is_empty() {
                free.insert(taken.swap_remove(index.index(taken.len())));
                continue;
            }
            let largest = largest_free(family, &content(&free));
            match free.best_fit(family.bits() - bits) {
                Some(prefix) => {
                    prop_assert!(taken.iter().all(|t| !t.overlaps(prefix)));
                    prop_assert!(world(family).covers(prefix));
                    free.remove(prefix);
                    let after = largest_free(family, &content(&free));
                    prop_assert!(
                        after == largest || largest == Some(bits) || after < largest,
                    );
                    taken.push(prefix);
                }
                None => prop_assert!(largest.is_none_or(|l| l < bits), "{largest:?} {bits}"),
            }
        }
        for prefix in taken {
            free.insert(prefix);
        }
        prop_assert_eq!(free.iter().collect::<Vec<_>>(), vec![world(family)], "all is whole again");
    }
}

#[test]
fn the_smallest_block_with_room_is_broken_first() {
    let mut free = PrefixSet::of(Family::V6, [prefix("2001:db8::/48")]);
    assert_eq!(free.best_fit(64), Some(prefix("2001:db8::/64")));
    free.remove(prefix("2001:db8::/64"));
    assert_eq!(free.best_fit(64), Some(prefix("2001:db8:0:1::/64")));
    assert_eq!(free.best_fit(56), Some(prefix("2001:db8:0:100::/56")));
    assert_eq!(free.best_fit(48), None);
    let mut v4 = PrefixSet::of(Family::V4, ["10.0.0.0/8", "192.168.0.0/24"].map(prefix));
    assert_eq!(v4.best_fit(26), Some(prefix("192.168.0.0/26")));
    v4.remove(prefix("192.168.0.0/25"));
    v4.remove(prefix("192.168.0.128/25"));
    assert_eq!(v4.best_fit(26), Some(prefix("10.0.0.0/26")));
}

#[test]
fn the_whole_address_space_is_a_prefix_too() {
    for family in Family::BOTH {
        let all = Prefix::default_route(family);
        let mut set = PrefixSet::of(family, [all]);
        assert!(set.covers(all) && set.len() == 1);
        let host = set.best_fit(family.bits()).unwrap();
        set.remove(host);
        assert_eq!(
            set.len(),
            usize::from(family.bits()),
            "one block for each bit"
        );
        assert!(!set.overlaps(host));
        set.insert(host);
        assert_eq!(set.iter().collect::<Vec<_>>(), [all]);
    }
}

/// Blocks broken by 10,000 allocations and half as many returns are still found by their length.
#[test]
fn ten_thousand_allocations_and_returns_leave_nothing_behind() {
    let pool = prefix("2001:db8::/48");
    let mut free = PrefixSet::of(Family::V6, [pool]);
    let mut taken = Vec::new();
    for n in 0..10_000usize {
        let prefix = free.best_fit(64).unwrap();
        free.remove(prefix);
        taken.push(prefix);
        if n % 2 == 1 {
            free.insert(taken.swap_remove((n * 7919) % taken.len()));
        }
    }
    let apart: BTreeSet<_> = taken.iter().collect();
    assert_eq!(apart.len(), taken.len());
    assert_eq!(taken.len(), 5_000);
    for prefix in taken {
        free.insert(prefix);
    }
    assert_eq!(free.iter().collect::<Vec<_>>(), [pool]);
}
