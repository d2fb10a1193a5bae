//! What is due when: one time for each thing, found in its order.

use std::collections::{BTreeMap, BTreeSet};

use hextet_types::Time;

/// Times of things.
#[derive(Clone, Debug)]
pub struct Timers<T> {
    times: BTreeMap<T, Time>,
    order: BTreeSet<(Time, T)>,
}

impl<T> Default for Timers<T> {
    fn default() -> Timers<T> {
        Timers {
            times: BTreeMap::new(),
            order: BTreeSet::new(),
        }
    }
}

impl<T: Copy + Ord> Timers<T> {
    /// It is due then, and at no other time.
    pub fn set(&mut self, what: T, at: Time) {
        self.cancel(what);
        self.times.insert(what, at);
        self.order.insert((at, what));
    }

    /// It is due then, or before, if it was.
    pub fn hasten(&mut self, what: T, at: Time) {
        if self.at(what).is_none_or(|due| at < due) {
            self.set(what, at);
        }
    }

    /// It is due no more.
    pub fn cancel(&mut self, what: T) {
        if let Some(at) = self.times.remove(&what) {
            self.order.remove(&(at, what));
        }
    }

    /// When it is due.
    pub fn at(&self, what: T) -> Option<Time> {
        self.times.get(&what).copied()
    }

    /// When the first is.
    pub fn next(&self) -> Option<Time> {
        self.order.first().map(|(at, _)| *at)
    }

    /// Takes the first that is due by now.
    pub fn pop(&mut self, now: Time) -> Option<T> {
        let (_, what) = *self.order.first().filter(|(at, _)| *at <= now)?;
        self.cancel(what);
        Some(what)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_thing_is_due_once_and_in_order() {
        let mut timers = Timers::default();
        let at = Time::from_secs;
        for (what, secs) in [('a', 3), ('b', 1), ('c', 2), ('b', 5)] {
            timers.set(what, at(secs));
        }
        timers.hasten('a', at(4));
        timers.hasten('c', at(1));
        assert_eq!(timers.next(), Some(at(1)));
        assert_eq!((timers.pop(at(0)), timers.pop(at(1))), (None, Some('c')));
        timers.cancel('a');
        assert_eq!((timers.at('a'), timers.at('b')), (None, Some(at(5))));
        assert_eq!(
            (timers.pop(at(9)), timers.pop(at(9)), timers.next()),
            (Some('b'), None, None)
        );
    }
}
