//! What the engine learned and nobody has taken yet: bounded by the prefixes there are, since of the
//! changes of a prefix only the last counts.

use std::{collections::BTreeMap, sync::Arc};

use hextet_bgp::{Hop, RouteChange};
use hextet_types::Prefix;

/// What the engine learned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Learned {
    /// Routes have changed, each prefix at most once.
    Routes(Vec<RouteChange>),
    /// After a restart, and once: what an earlier run left in the kernel and nobody has told anew by now
    /// can go.
    Complete,
}

/// Waits for its reader.
#[derive(Debug, Default)]
pub struct Outbox {
    routes: BTreeMap<Prefix, Arc<[Hop]>>,
    complete: bool,
}

impl Outbox {
    /// Takes in changes.
    pub fn add(&mut self, changes: Vec<RouteChange>) {
        self.routes.extend(
            changes
                .into_iter()
                .map(|change| (change.prefix, change.next_hops)),
        );
    }

    /// Takes in [`Learned::Complete`].
    pub fn complete(&mut self) {
        self.complete = true;
    }

    /// Whether there is nothing to tell.
    pub fn is_empty(&self) -> bool {
        self.routes.is_empty() && !self.complete
    }

    /// The next that is to be told: all routes, then that they are complete.
    pub fn take(&mut self) -> Option<Learned> {
        if !self.routes.is_empty() {
            let routes = std::mem::take(&mut self.routes).into_iter();
            let change = |(prefix, next_hops)| RouteChange { prefix, next_hops };
            return Some(Learned::Routes(routes.map(change).collect()));
        }
        std::mem::take(&mut self.complete).then_some(Learned::Complete)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(prefix: &str, hops: &[&str]) -> RouteChange {
        let hop = |text: &&str| Hop {
            addr: text.parse().unwrap(),
            interface: None,
        };
        RouteChange {
            prefix: prefix.parse().unwrap(),
            next_hops: hops.iter().map(hop).collect(),
        }
    }

    #[test]
    fn the_last_change_of_a_prefix_counts_and_completion_comes_last() {
        let mut outbox = Outbox::default();
        assert!(outbox.is_empty());
        assert_eq!(outbox.take(), None);
        outbox.complete();
        outbox.add(vec![
            change("2001:db8::/32", &["fe80::1"]),
            change("192.0.2.0/24", &["fe80::1"]),
        ]);
        outbox.add(vec![change("2001:db8::/32", &[])]);
        assert!(!outbox.is_empty());
        let routes = vec![
            change("192.0.2.0/24", &["fe80::1"]),
            change("2001:db8::/32", &[]),
        ];
        assert_eq!(outbox.take(), Some(Learned::Routes(routes)));
        assert_eq!(outbox.take(), Some(Learned::Complete));
        assert!(outbox.is_empty());
    }

    #[test]
    fn however_often_a_route_changes_it_waits_once() {
        let mut outbox = Outbox::default();
        for _ in 0..10_000 {
            outbox.add(vec![change("::/0", &["fe80::1"])]);
            outbox.add(vec![change("::/0", &["fe80::2"])]);
        }
        let last = vec![change("::/0", &["fe80::2"])];
        assert_eq!(outbox.take(), Some(Learned::Routes(last)));
    }
}
