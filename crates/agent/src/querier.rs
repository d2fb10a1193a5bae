//! When each link is asked what its workload has joined: soon after it is known, then again and again. Pure.
//!
//! The first questions are spread, so that an agent that starts on a host with thousands of ports asks few at a time.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use hextet_types::Time;

use crate::membership::QUERY_SECS;

/// The first questions come within this time.
const SPREAD: Duration = Duration::from_secs(5);
/// Steps of it.
const STEPS: u32 = 1024;
/// Links in one go.
const AT_ONCE: usize = 64;

/// The links, by index.
#[derive(Debug, Default)]
pub struct Querier {
    due: BTreeMap<u32, Time>,
    order: BTreeSet<(Time, u32)>,
}

impl Querier {
    /// A link is asked from now on; one that is asked already goes on as it was.
    pub fn ask(&mut self, link: u32, now: Time) {
        if !self.due.contains_key(&link) {
            let step = link.wrapping_mul(0x9e37_79b9) % STEPS;
            self.set(link, now + SPREAD / STEPS * step);
        }
    }

    /// A link is asked no more.
    pub fn leave(&mut self, link: u32) {
        if let Some(due) = self.due.remove(&link) {
            self.order.remove(&(due, link));
        }
    }

    /// When somebody is to be asked next.
    pub fn next_wakeup(&self) -> Option<Time> {
        self.order.first().map(|(due, _)| *due)
    }

    /// Who is to be asked now; more may be.
    pub fn take_due(&mut self, now: Time) -> Vec<u32> {
        let due = self.order.iter().take_while(|(due, _)| *due <= now);
        let links: Vec<u32> = due.take(AT_ONCE).map(|(_, link)| *link).collect();
        for link in &links {
            self.leave(*link);
            self.set(*link, now + Duration::from_secs(QUERY_SECS.into()));
        }
        links
    }

    fn set(&mut self, link: u32, due: Time) {
        self.due.insert(link, due);
        self.order.insert((due, link));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(secs: u64) -> Time {
        Time::ZERO + Duration::from_secs(secs)
    }

    #[test]
    fn each_is_asked_soon_and_then_every_125_seconds() {
        let mut querier = Querier::default();
        for link in 1..=1000 {
            querier.ask(link, at(10));
        }
        let mut asked = BTreeSet::new();
        let mut all = |querier: &mut Querier, now| {
            while querier.next_wakeup().is_some_and(|due| due <= now) {
                let some = querier.take_due(now);
                assert!(some.len() <= AT_ONCE);
                asked.extend(some);
            }
            std::mem::take(&mut asked).len()
        };
        let first = all(&mut querier, at(12));
        assert!((100..900).contains(&first), "they are spread: {first}");
        assert_eq!(first + all(&mut querier, at(15)), 1000);
        assert_eq!(all(&mut querier, at(136)), 0);
        querier.ask(7, at(136));
        querier.leave(8);
        assert_eq!(all(&mut querier, at(140)), 999);
    }
}
