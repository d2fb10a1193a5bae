//! How often what agents hear of workloads may change something: at once, but not for ever.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
    time::Instant,
};

use hextet_types::{PortId, Time};

/// Of each of some things.
#[derive(Debug)]
pub struct Pace<K> {
    /// Changes at once.
    burst: f64,
    /// And then in each second.
    rate: f64,
    /// Changes that count against each, and when that was so.
    spent: Mutex<BTreeMap<K, (f64, Time)>>,
    origin: Instant,
}

impl Pace<PortId> {
    /// Of ports.
    pub fn of_ports() -> Self {
        Self::new(10, 1)
    }
}

impl<K: Ord + Clone> Pace<K> {
    /// Things that are kept in mind; beyond it those that have not changed for a while are forgotten.
    const MAX_KNOWN: usize = 10_000;

    /// So many changes at once, and then so many in each second.
    pub fn new(burst: u32, rate: u32) -> Self {
        Pace {
            burst: burst.into(),
            rate: rate.into(),
            spent: Mutex::default(),
            origin: Instant::now(),
        }
    }

    /// Whether it may change so much now, which counts.
    pub fn admit(&self, key: &K, changes: u32) -> bool {
        self.admit_at(key, changes, Time::ZERO + self.origin.elapsed())
    }

    fn admit_at(&self, key: &K, changes: u32, now: Time) -> bool {
        let mut spent = self.spent.lock().unwrap_or_else(PoisonError::into_inner);
        let left = |(spent, at): (f64, Time)| {
            let passed = (now - at).as_secs_f64();
            (spent - passed * self.rate).max(0.0)
        };
        if spent.len() >= Self::MAX_KNOWN && !spent.contains_key(key) {
            spent.retain(|_, entry| left(*entry) > 0.0);
            if spent.len() >= Self::MAX_KNOWN {
                return false;
            }
        }
        let entry = spent.entry(key.clone()).or_insert((0.0, now));
        let count = left(*entry) + f64::from(changes);
        if count > self.burst {
            return false;
        }
        *entry = (count, now);
        true
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use uuid::Uuid;

    use super::*;

    #[test]
    fn a_port_changes_at_once_and_then_slowly() {
        let pace = Pace::of_ports();
        let (port, other) = (PortId(Uuid::from_u128(1)), PortId(Uuid::from_u128(2)));
        let at = |millis| Time::ZERO + Duration::from_millis(millis);
        for _ in 0..10 {
            assert!(pace.admit_at(&port, 1, at(0)));
        }
        assert!(!pace.admit_at(&port, 1, at(500)));
        assert!(
            pace.admit_at(&other, 1, at(500)),
            "others do not pay for it"
        );
        assert!(pace.admit_at(&port, 1, at(1_000)));
        assert!(!pace.admit_at(&port, 1, at(1_100)));
        assert!((0..10).all(|_| pace.admit_at(&port, 1, at(60_000))));
        assert!(!pace.admit_at(&other, 11, at(60_000)));
        assert!(pace.admit_at(&other, 10, at(60_000)));
        assert!(!pace.admit_at(&other, 2, at(61_000)));
    }

    #[test]
    fn what_is_kept_in_mind_is_bounded() {
        let pace = Pace::of_ports();
        let port = |n: usize| PortId(Uuid::from_u128(n as u128));
        let most = Pace::<PortId>::MAX_KNOWN;
        for n in 0..most {
            assert!(pace.admit_at(&port(n), 1, Time::ZERO));
        }
        assert!(!pace.admit_at(&port(most), 1, Time::ZERO));
        let later = Time::ZERO + Duration::from_secs(2);
        assert!(pace.admit_at(&port(most), 1, later));
        assert_eq!(pace.spent.lock().unwrap().len(), 1);
    }
}
