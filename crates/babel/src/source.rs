//! How near to its origin each route has been told: what keeps routes from ever looping (RFC 8966 §2.4, §3.2.5, §3.5.1, §3.7.3).
//!
//! A node takes a route only from one that is nearer to the origin than itself has ever said that it is: by a greater sequence number
//! of the origin, or a lower metric with the same. What it says is kept, not what it hears. A retraction is always fine.

use std::{collections::BTreeMap, time::Duration};

use hextet_types::Time;

use crate::{
    number::{Metric, RouterId, Seqno},
    packet::Destination,
};

/// How long what was told counts at least (RFC 8966 §3.7.3, appendix B: three minutes).
pub const KEPT: Duration = Duration::from_secs(180);

/// A sequence number and a metric: the less, the nearer to the origin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Distance {
    /// Of the origin.
    pub seqno: Seqno,
    /// To it.
    pub metric: Metric,
}

impl Distance {
    /// Whether it is nearer than another (RFC 8966 §3.5.1).
    pub const fn is_nearer_than(self, other: Distance) -> bool {
        self.seqno.is_after(other.seqno)
            || (self.seqno.0 == other.seqno.0 && self.metric.0 < other.metric.0)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Source {
    distance: Distance,
    until: Time,
}

/// The distances that this node has told others of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sources(BTreeMap<(Destination, RouterId), Source>);

impl Sources {
    /// Whether a route with that distance may be taken.
    pub fn is_feasible(&self, to: Destination, origin: RouterId, distance: Distance) -> bool {
        let told = self.told(to, origin);
        distance.metric.is_infinite() || told.is_none_or(|told| distance.is_nearer_than(told))
    }

    /// The least distance that others were told, if it still counts.
    pub fn told(&self, to: Destination, origin: RouterId) -> Option<Distance> {
        self.0.get(&(to, origin)).map(|source| source.distance)
    }

    /// Others are being told of that distance, and may go by it until then. A retraction says nothing of one.
    pub fn tell(&mut self, to: Destination, origin: RouterId, distance: Distance, until: Time) {
        if distance.metric.is_infinite() {
            return;
        }
        let source = self.0.entry((to, origin));
        let source = source.or_insert(Source { distance, until });
        source.until = source.until.max(until);
        if distance.is_nearer_than(source.distance) {
            source.distance = distance;
        }
    }

    /// Forgets what counts no more.
    pub fn forget(&mut self, now: Time) {
        self.0.retain(|_, source| source.until > now);
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn distance(seqno: u16, metric: u16) -> Distance {
        Distance {
            seqno: Seqno(seqno),
            metric: Metric(metric),
        }
    }

    fn to() -> Destination {
        Destination::of("2001:db8::/32".parse().expect("a prefix"))
    }

    fn origin(n: u8) -> RouterId {
        RouterId::try_from([0, 0, 0, 0, 0, 0, 0, n]).expect("a router-id")
    }

    #[test]
    fn nearer_is_what_is_newer_or_costs_less() {
        for (of, than, is_nearer) in [
            ((2, 900), (1, 10), true),
            ((1, 9), (1, 10), true),
            ((1, 10), (1, 10), false),
            ((1, 11), (1, 10), false),
            ((1, 1), (2, 900), false),
            ((0, 900), (65_535, 1), true),
            ((65_535, 1), (0, 900), false),
        ] {
            let (of, than) = (distance(of.0, of.1), distance(than.0, than.1));
            assert_eq!(of.is_nearer_than(than), is_nearer, "{of:?} {than:?}");
        }
    }

    #[test]
    fn what_was_told_is_a_bound_and_what_was_heard_is_none() {
        let mut sources = Sources::default();
        let mut until = Time::from_secs(5);
        assert!(sources.is_feasible(to(), origin(1), distance(7, 500)));
        sources.tell(to(), origin(1), distance(7, 300), until);
        for (seqno, metric, is_feasible) in [
            (7, 299, true),
            (7, 300, false),
            (8, 900, true),
            (6, 1, false),
        ] {
            let distance = distance(seqno, metric);
            assert_eq!(
                sources.is_feasible(to(), origin(1), distance),
                is_feasible,
                "{distance:?}"
            );
        }
        assert!(
            sources.is_feasible(to(), origin(1), distance(0, 0xffff)),
            "a retraction"
        );
        assert!(
            sources.is_feasible(to(), origin(2), distance(0, 900)),
            "another origin"
        );
        // Further away is told, too, and the bound stays.
        until += KEPT;
        sources.tell(to(), origin(1), distance(7, 400), until);
        assert_eq!(sources.told(to(), origin(1)), Some(distance(7, 300)));
        sources.tell(to(), origin(1), distance(9, 0xffff), until);
        assert_eq!(sources.told(to(), origin(1)), Some(distance(7, 300)));
        sources.tell(to(), origin(1), distance(8, 600), until);
        assert_eq!(sources.told(to(), origin(1)), Some(distance(8, 600)));
    }

    #[test]
    fn it_counts_for_as_long_as_anybody_may_go_by_it() {
        let mut sources = Sources::default();
        for until in [180, 280, 200] {
            let until = Time::from_secs(until);
            sources.tell(to(), origin(1), distance(7, 300), until);
        }
        sources.forget(Time::from_secs(279));
        assert_eq!(sources.len(), 1);
        sources.forget(Time::from_secs(280));
        assert!(sources.is_empty());
    }
}
