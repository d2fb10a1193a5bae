//! Leases: which there are and when each ends. No clock of its own: time comes with a tick.

use std::{collections::HashMap, fmt, num::NonZeroU64, time::Duration};

use hextet_types::Time;

use crate::{Result, StoreError, limits};

/// A lease, by the number that the store gave it; numbers are not given twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LeaseId(NonZeroU64);

impl LeaseId {
    pub(crate) const FIRST: LeaseId = LeaseId(NonZeroU64::MIN);

    /// The lease of this number; none has the number 0.
    pub const fn new(id: u64) -> Option<Self> {
        match NonZeroU64::new(id) {
            Some(id) => Some(LeaseId(id)),
            None => None,
        }
    }

    /// Its number.
    pub const fn get(self) -> u64 {
        self.0.get()
    }
}

impl fmt::Display for LeaseId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A lease as the store has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lease {
    /// Which.
    pub id: LeaseId,
    /// How long it lives without being kept alive, in whole seconds.
    pub ttl: Duration,
    /// How many keys go when it does.
    pub keys: u32,
}

/// Whole seconds, rounded up, from 1 to [`limits::LEASE_TTL_SECS`].
pub(crate) fn check_ttl(ttl: Duration) -> Result<Duration> {
    let secs = ttl
        .as_secs()
        .saturating_add(u64::from(ttl.subsec_nanos() > 0));
    if (1..=limits::LEASE_TTL_SECS).contains(&secs) {
        Ok(Duration::from_secs(secs))
    } else {
        Err(StoreError::LeaseTtl { secs })
    }
}

/// When leases end. Between two ticks there is no time, so a lease that was granted or kept alive
/// since the last tick starts to count at the next one: it may live up to one tick longer than it
/// was asked to, and never shorter. The same rule renews every lease when a store is opened.
#[derive(Debug, Default)]
pub(crate) struct LeaseClock {
    leases: HashMap<LeaseId, Term>,
}

#[derive(Debug)]
struct Term {
    ttl: Duration,
    deadline: Option<Time>,
}

impl LeaseClock {
    /// Starts a lease's term anew.
    pub(crate) fn renew(&mut self, id: LeaseId, ttl: Duration) {
        self.leases.insert(
            id,
            Term {
                ttl,
                deadline: None,
            },
        );
    }

    /// Starts a known lease's term anew; answers its time to live.
    pub(crate) fn keep_alive(&mut self, id: LeaseId) -> Result<Duration> {
        let term = self
            .leases
            .get_mut(&id)
            .ok_or(StoreError::LeaseNotFound(id))?;
        term.deadline = None;
        Ok(term.ttl)
    }

    pub(crate) fn forget(&mut self, id: LeaseId) {
        self.leases.remove(&id);
    }

    pub(crate) fn clear(&mut self) {
        self.leases.clear();
    }

    pub(crate) fn len(&self) -> usize {
        self.leases.len()
    }

    /// Takes note of the time; answers the leases that are over, the longest over first. They
    /// stay until they are forgotten.
    pub(crate) fn tick(&mut self, now: Time) -> Vec<LeaseId> {
        let mut over = Vec::new();
        for (&id, term) in &mut self.leases {
            let deadline = *term.deadline.get_or_insert(now + term.ttl);
            if deadline <= now {
                over.push((deadline, id));
            }
        }
        over.sort_unstable();
        over.into_iter().map(|(_, id)| id).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(n: u64) -> LeaseId {
        LeaseId::new(n).unwrap()
    }

    #[test]
    fn a_lease_counts_from_the_tick_after_it_was_renewed() {
        let mut clock = LeaseClock::default();
        clock.renew(id(1), Duration::from_secs(2));
        assert_eq!(clock.tick(Time::from_secs(10)), []);
        assert_eq!(clock.tick(Time::from_millis(11_999)), []);
        clock.keep_alive(id(1)).unwrap();
        assert_eq!(clock.tick(Time::from_secs(12)), []);
        assert_eq!(clock.tick(Time::from_secs(14)), [id(1)]);
        assert_eq!(
            clock.tick(Time::from_secs(15)),
            [id(1)],
            "until it is forgotten"
        );
        clock.forget(id(1));
        assert_eq!(clock.tick(Time::from_secs(16)), []);
    }

    #[test]
    fn the_longest_over_comes_first() {
        let mut clock = LeaseClock::default();
        for (n, secs) in [(1, 3), (2, 1), (3, 2)] {
            clock.renew(id(n), Duration::from_secs(secs));
        }
        clock.tick(Time::ZERO);
        assert_eq!(clock.tick(Time::from_secs(5)), [id(2), id(3), id(1)]);
    }

    #[test]
    fn a_ttl_is_whole_seconds_within_its_bounds() {
        for (millis, secs) in [(0, None), (1, Some(1)), (1000, Some(1)), (1001, Some(2))] {
            let ttl = check_ttl(Duration::from_millis(millis)).ok();
            assert_eq!(ttl, secs.map(Duration::from_secs), "{millis} ms");
        }
        assert!(check_ttl(Duration::from_secs(limits::LEASE_TTL_SECS)).is_ok());
        assert!(check_ttl(Duration::from_secs(limits::LEASE_TTL_SECS + 1)).is_err());
        assert!(check_ttl(Duration::MAX).is_err());
    }
}
