//! When a port is sent router advertisements (RFC 4861 §6.2.4, §6.2.6).
//!
//! It knows times, not messages. What always holds: two advertisements to all nodes are at least
//! [`MIN_DELAY`] apart.

use std::time::Duration;

use hextet_types::Time;

use crate::{
    ra::{INITIAL_COUNT, INITIAL_INTERVAL, MAX_INTERVAL, MIN_DELAY, MIN_INTERVAL},
    random::Random,
};

/// The first unsolicited advertisement of a port comes within this time, so that those of many ports
/// are spread.
const FIRST_WITHIN: Duration = Duration::from_secs(4);

/// The advertisements of one port.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Schedule {
    /// Advertisements still to come in quick order.
    initial: u8,
    next: Time,
    last: Option<Time>,
}

impl Schedule {
    pub(crate) fn new(now: Time, random: &mut Random) -> Schedule {
        Schedule {
            initial: INITIAL_COUNT,
            next: now + random.between(Duration::ZERO, FIRST_WITHIN),
            last: None,
        }
    }

    /// Begins anew because there is something new to tell.
    pub(crate) fn restart(&mut self, now: Time, random: &mut Random) {
        let last = self.last;
        *self = Schedule::new(now, random);
        self.last = last;
        self.next = self.next.max(self.earliest());
    }

    /// When the next one is due.
    pub(crate) const fn next(&self) -> Time {
        self.next
    }

    /// Whether the quick ones are over, so that everybody has heard what was new.
    pub(crate) const fn is_settled(&self) -> bool {
        self.initial == 0
    }

    /// Somebody without an address asks; whether all nodes are to be answered now. If not, the next
    /// one comes as early as it may.
    pub(crate) fn solicited(&mut self, now: Time) -> bool {
        let earliest = self.earliest();
        if earliest <= now {
            return true;
        }
        self.next = self.next.min(earliest);
        false
    }

    /// One was sent to all nodes.
    pub(crate) fn sent(&mut self, now: Time, random: &mut Random) {
        self.last = Some(now);
        self.initial = self.initial.saturating_sub(1);
        let interval = random.between(MIN_INTERVAL, MAX_INTERVAL);
        let interval = if self.is_settled() {
            interval
        } else {
            interval.min(INITIAL_INTERVAL)
        };
        self.next = now + interval;
    }

    fn earliest(&self) -> Time {
        self.last.map_or(Time::ZERO, |last| last + MIN_DELAY)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_come_quickly_and_then_one_in_ten_to_thirty_minutes() {
        for seed in 0..100 {
            let mut random = Random::new(seed);
            let mut schedule = Schedule::new(Time::ZERO, &mut random);
            assert!(schedule.next() <= Time::ZERO + FIRST_WITHIN, "seed {seed}");
            for sent in 1..20 {
                let now = schedule.next();
                schedule.sent(now, &mut random);
                let interval = schedule.next() - now;
                if sent < 3 {
                    assert_eq!(interval, INITIAL_INTERVAL, "seed {seed}");
                } else {
                    assert!(
                        (MIN_INTERVAL..=MAX_INTERVAL).contains(&interval),
                        "seed {seed}: {interval:?}"
                    );
                }
            }
        }
    }

    #[test]
    fn a_solicitation_is_answered_at_once_or_after_the_least_delay() {
        let mut random = Random::new(7);
        let mut schedule = Schedule::new(Time::ZERO, &mut random);
        let start = Time::from_secs(100);
        assert!(schedule.solicited(start));
        schedule.sent(start, &mut random);
        assert!(!schedule.solicited(start + Duration::from_secs(1)));
        assert_eq!(schedule.next(), start + MIN_DELAY);
        assert!(schedule.solicited(start + MIN_DELAY));
    }

    #[test]
    fn news_wait_for_the_least_delay() {
        let start = Time::from_secs(100);
        for seed in 0..100 {
            let mut random = Random::new(seed);
            let mut schedule = Schedule::new(Time::ZERO, &mut random);
            schedule.sent(start, &mut random);
            schedule.restart(start, &mut random);
            assert!(schedule.next() >= start + MIN_DELAY, "seed {seed}");
        }
    }
}
