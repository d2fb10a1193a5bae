//! Which addresses of a subnet are in use, as ranges: finding a free one costs O(log n), however
//! full the subnet is.

use std::{collections::BTreeMap, net::IpAddr};

use hextet_types::Prefix;

/// Disjoint ranges of numbers with gaps between them; first → last, both included.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ranges(BTreeMap<u128, u128>);

/// An address as a number.
pub fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(a) => u32::from(a).into(),
        IpAddr::V6(a) => a.into(),
    }
}

/// A prefix as a number among all of its length.
pub fn prefix_number(prefix: Prefix) -> u128 {
    let behind = prefix.family().bits() - prefix.len();
    number(prefix.addr())
        .checked_shr(behind.into())
        .unwrap_or(0)
}

/// The address of that number, of the family that `like` has.
pub fn address(number: u128, like: IpAddr) -> IpAddr {
    match like {
        IpAddr::V4(_) => IpAddr::V4(u32::try_from(number).unwrap_or(u32::MAX).into()),
        IpAddr::V6(_) => IpAddr::V6(number.into()),
    }
}

impl Ranges {
    /// The range that holds `n`.
    fn around(&self, n: u128) -> Option<(u128, u128)> {
        let (first, last) = self.0.range(..=n).next_back()?;
        (*last >= n).then_some((*first, *last))
    }

    /// Whether it is in use.
    pub fn contains(&self, n: u128) -> bool {
        self.around(n).is_some()
    }

    /// Takes it into use; nothing happens when it is already.
    pub fn insert(&mut self, n: u128) {
        if self.contains(n) {
            return;
        }
        let below = n.checked_sub(1).and_then(|m| self.around(m));
        let above = n.checked_add(1).and_then(|m| self.around(m));
        let first = below.map_or(n, |(first, _)| first);
        let last = above.map_or(n, |(_, last)| last);
        if let Some((first, _)) = above {
            self.0.remove(&first);
        }
        self.0.insert(first, last);
    }

    /// Lets it go; nothing happens when it is free.
    pub fn remove(&mut self, n: u128) {
        let Some((first, last)) = self.around(n) else {
            return;
        };
        self.0.remove(&first);
        if first < n {
            self.0.insert(first, n - 1);
        }
        if n < last {
            self.0.insert(n + 1, last);
        }
    }

    /// The first free number from `start` on, up to `end`.
    pub fn free_from(&self, start: u128, end: u128) -> Option<u128> {
        let candidate = match self.around(start) {
            None => start,
            Some((_, last)) => last.checked_add(1)?,
        };
        (candidate <= end).then_some(candidate)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn ranges_hold_what_a_set_holds(steps in prop::collection::vec((any::<bool>(), 0u128..40), 0..200)) {
            let (mut ranges, mut set) = (Ranges::default(), BTreeSet::new());
            for (add, n) in steps {
                if add {
                    ranges.insert(n);
                    set.insert(n);
                } else {
                    ranges.remove(n);
                    set.remove(&n);
                }
                for m in 0..40 {
                    prop_assert_eq!(ranges.contains(m), set.contains(&m));
                    let free = (m..=35).find(|k| !set.contains(k));
                    prop_assert_eq!(ranges.free_from(m, 35), free);
                }
            }
            for ((_, last), (first, _)) in ranges.0.iter().zip(ranges.0.iter().skip(1)) {
                prop_assert!(last + 1 < *first, "neighbours are joined");
            }
        }
    }

    #[test]
    fn the_ends_of_the_number_range_do_not_overflow() {
        let mut ranges = Ranges::default();
        ranges.insert(u128::MAX);
        ranges.insert(0);
        assert_eq!(ranges.free_from(u128::MAX, u128::MAX), None);
        ranges.remove(u128::MAX);
        assert_eq!(ranges.free_from(u128::MAX, u128::MAX), Some(u128::MAX));
    }
}
