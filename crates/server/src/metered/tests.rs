use proptest::prelude::*;

use super::*;

fn reading(boot: u128, counter: u64, at_ns: u64, packets: u64, octets: u64) -> Reading {
    Reading {
        label: MeteringLabelId(Uuid::from_u128(1)),
        router: RouterId(Uuid::from_u128(2)),
        direction: Direction::Egress,
        epoch: Epoch {
            boot: Uuid::from_u128(boot),
            counter: [1, 2, counter],
        },
        at_ns,
        packets,
        octets,
    }
}

fn sum_of(readings: &[Reading]) -> (u64, u64) {
    let now = Timestamp::UNIX_EPOCH;
    let mut sum = Sum::new(&readings[0], now);
    for reading in &readings[1..] {
        let before = (sum.packets, sum.octets);
        sum.take(reading, now);
        assert!(
            sum.packets >= before.0 && sum.octets >= before.1,
            "{reading:?}"
        );
    }
    (sum.packets, sum.octets)
}

#[test]
fn a_counter_that_grows_counts_once() {
    let all = [
        reading(1, 1, 10, 5, 500),
        reading(1, 1, 20, 7, 700),
        reading(1, 1, 20, 7, 700),
        reading(1, 1, 10, 5, 500),
        reading(1, 1, 30, 8, 800),
    ];
    assert_eq!(sum_of(&all), (8, 800));
}

#[test]
fn a_counter_made_anew_begins_with_nothing() {
    let all = [
        reading(1, 1, 10, 5, 500),
        reading(1, 2, 20, 1, 100),
        reading(1, 2, 30, 9, 900),
        // Of the counter before: it comes too late.
        reading(1, 1, 15, 6, 600),
    ];
    assert_eq!(sum_of(&all), (14, 1400));
}

#[test]
fn a_host_that_starts_anew_goes_on_counting() {
    let all = [
        reading(1, 1, 900, 5, 500),
        reading(2, 1, 10, 3, 300),
        // Told by the host before it started anew, and late.
        reading(1, 1, 950, 6, 600),
        reading(2, 1, 20, 4, 400),
    ];
    assert_eq!(sum_of(&all), (9, 900));
}

#[test]
fn what_somebody_set_back_is_not_taken_away() {
    let all = [
        reading(1, 1, 10, 5, 500),
        reading(1, 1, 20, 2, 200),
        reading(1, 1, 30, 3, 300),
    ];
    assert_eq!(sum_of(&all), (8, 800));
}

#[test]
fn nothing_new_is_nothing_to_keep() {
    let now = Timestamp::UNIX_EPOCH;
    let mut sum = Sum::new(&reading(1, 1, 10, 5, 500), now);
    assert!(!sum.take(&reading(1, 1, 20, 5, 500), now));
    assert!(
        sum.take(&reading(1, 2, 30, 0, 0), now),
        "another counter is"
    );
    assert!(sum.take(&reading(1, 2, 40, u64::MAX, u64::MAX), now));
    assert_eq!(
        (sum.packets, sum.octets),
        (u64::MAX, u64::MAX),
        "and nothing overflows"
    );
}

/// What becomes of a host: packets pass, its counter is read, made anew, or it starts anew.
#[derive(Clone, Copy, Debug)]
enum Happens {
    Passes(u8),
    Read { told: bool, again: bool },
    MadeAnew,
    StartsAnew,
}

fn happens() -> impl Strategy<Value = Happens> {
    prop_oneof![
        4 => (0u8..50).prop_map(Happens::Passes),
        4 => any::<(bool, bool)>().prop_map(|(told, again)| Happens::Read { told, again }),
        1 => Just(Happens::MadeAnew),
        1 => Just(Happens::StartsAnew),
    ]
}

proptest! {
    /// What passed is counted once, whatever is left out or told again: all, where the last reading of each counter
    /// is told, as an agent does it.
    #[test]
    fn all_that_passed_is_counted_once(history in prop::collection::vec(happens(), 0..60), tail in any::<bool>()) {
        let now = Timestamp::UNIX_EPOCH;
        let (mut boot, mut counter, mut at) = (1u128, 1u64, 0u64);
        let (mut count, mut passed) = (0u64, 0u64);
        let mut sum: Option<Sum> = None;
        let mut told: Vec<Reading> = Vec::new();
        let mut tell = |sum: &mut Option<Sum>, reading: Reading| {
            told.push(reading.clone());
            let before = sum.as_ref().map_or(0, |s| s.packets);
            match sum {
                Some(sum) => drop(sum.take(&reading, now)),
                None => *sum = Some(Sum::new(&reading, now)),
            }
            let after = sum.as_ref().map_or(0, |s| s.packets);
            assert!(after >= before);
            told.clone()
        };
        for what in history {
            at += 1;
            let read = reading(boot, counter, at, count, count * 100);
            match what {
                Happens::Passes(n) => {
                    count += u64::from(n);
                    passed += u64::from(n);
                }
                Happens::Read { told: false, .. } => {}
                Happens::Read { again, .. } => {
                    let all = tell(&mut sum, read);
                    if again {
                        // An answer was lost: the same once more, and an older one that was under way.
                        for old in all.iter().rev().take(3) {
                            let before = sum.as_ref().map(|s| s.packets);
                            sum.as_mut().map(|s| s.take(old, now));
                            prop_assert_eq!(sum.as_ref().map(|s| s.packets), before);
                        }
                    }
                }
                Happens::MadeAnew => {
                    tell(&mut sum, read);
                    (count, counter) = (0, counter + 1);
                }
                Happens::StartsAnew => {
                    tell(&mut sum, read);
                    (count, counter, at, boot) = (0, 1, 0, boot + 1);
                }
            }
            let counted = sum.as_ref().map_or(0, |s| s.packets);
            prop_assert!(counted <= passed);
        }
        if tail {
            at += 1;
            tell(&mut sum, reading(boot, counter, at, count, count * 100));
            prop_assert_eq!(sum.as_ref().map(|s| (s.packets, s.octets)), Some((passed, passed * 100)));
        }
    }
}
