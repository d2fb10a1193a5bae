//! Which hosts watch which gateway host's kernel: up to three others, chosen by rendezvous hashing, so that a host
//! that comes or goes changes only what it takes part in.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use hextet_model::intent::Change;
use hextet_types::HostId;
use sha2::{Digest, Sha256};

use super::{State, hosts::Step, table::Index};
use crate::agents::gateway::is_fit;

/// How many watch one host.
pub const WATCHERS: usize = 3;

/// A watcher, by its place in the order for one watched host.
type Rank = ([u8; 32], HostId);

fn rank(watched: &HostId, watcher: &HostId) -> Rank {
    let mut digest = Sha256::new();
    digest.update(watched.as_str());
    digest.update([0]);
    digest.update(watcher.as_str());
    (digest.finalize().into(), watcher.clone())
}

#[derive(Debug)]
struct Watched {
    address: IpAddr,
    /// The first [`WATCHERS`] of all that may.
    watchers: BTreeSet<Rank>,
}

/// That a watcher is told something of one that it watches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    /// Who is told.
    pub watcher: HostId,
    /// Of whom.
    pub watched: HostId,
    /// Where to watch it; none: no longer.
    pub address: Option<IpAddr>,
}

/// Who watches whom.
#[derive(Debug, Default)]
pub struct Watches {
    /// Hosts that may watch others.
    able: BTreeSet<HostId>,
    watched: BTreeMap<HostId, Watched>,
    by_watcher: Index<HostId, HostId>,
}

impl Watches {
    /// Who watches whom; hosts that nobody can watch have an empty set.
    pub fn all(&self) -> impl Iterator<Item = (&HostId, impl Iterator<Item = &HostId>)> {
        let watched = self.watched.iter();
        watched.map(|(host, w)| (host, w.watchers.iter().map(|(_, watcher)| watcher)))
    }

    /// Whom a host watches, and where.
    pub fn of(&self, watcher: &HostId) -> impl Iterator<Item = (&HostId, IpAddr)> {
        let hosts = self.by_watcher.get(watcher);
        hosts.filter_map(|host| Some((host, self.watched.get(host)?.address)))
    }

    /// A host is able to watch others or not, and is to be watched at an address or not; answers what watchers are
    /// to be told.
    pub fn set(&mut self, host: &HostId, able: bool, watched: Option<IpAddr>) -> Vec<Told> {
        let mut told = Vec::new();
        if able && self.able.insert(host.clone()) {
            self.come(host, &mut told);
        }
        if !able && self.able.remove(host) {
            self.leave(host, &mut told);
        }
        match (watched, self.watched.get_mut(host)) {
            (None, None) => {}
            (Some(address), Some(present)) if present.address == address => {}
            (Some(address), Some(present)) => {
                present.address = address;
                let watchers = present.watchers.iter();
                told.extend(watchers.map(|(_, watcher)| Told {
                    watcher: watcher.clone(),
                    watched: host.clone(),
                    address: Some(address),
                }));
            }
            (Some(address), None) => {
                let watchers = self.first(host);
                for (_, watcher) in &watchers {
                    self.by_watcher.insert(watcher.clone(), host.clone());
                    told.push(Told {
                        watcher: watcher.clone(),
                        watched: host.clone(),
                        address: Some(address),
                    });
                }
                let watched = Watched { address, watchers };
                self.watched.insert(host.clone(), watched);
            }
            (None, Some(_)) => {
                let watched = self.watched.remove(host);
                for (_, watcher) in watched.into_iter().flat_map(|w| w.watchers) {
                    self.by_watcher.remove(&watcher, host);
                    told.push(Told {
                        watcher,
                        watched: host.clone(),
                        address: None,
                    });
                }
            }
        }
        told
    }

    /// Those that come first for that host.
    fn first(&self, host: &HostId) -> BTreeSet<Rank> {
        let mut first = BTreeSet::new();
        for watcher in self.able.iter().filter(|w| *w != host) {
            first.insert(rank(host, watcher));
            if first.len() > WATCHERS {
                first.pop_last();
            }
        }
        first
    }

    fn come(&mut self, watcher: &HostId, told: &mut Vec<Told>) {
        for (host, watched) in self.watched.iter_mut().filter(|(h, _)| *h != watcher) {
            watched.watchers.insert(rank(host, watcher));
            let last = match watched.watchers.len() > WATCHERS {
                true => watched.watchers.pop_last(),
                false => None,
            };
            if last.as_ref().is_some_and(|(_, last)| last == watcher) {
                continue;
            }
            self.by_watcher.insert(watcher.clone(), host.clone());
            told.push(Told {
                watcher: watcher.clone(),
                watched: host.clone(),
                address: Some(watched.address),
            });
            if let Some((_, last)) = last {
                self.by_watcher.remove(&last, host);
                told.push(Told {
                    watcher: last,
                    watched: host.clone(),
                    address: None,
                });
            }
        }
    }

    fn leave(&mut self, watcher: &HostId, told: &mut Vec<Told>) {
        let hosts: Vec<HostId> = self.by_watcher.get(watcher).cloned().collect();
        for host in hosts {
            let first = self.first(&host);
            let Some(watched) = self.watched.get_mut(&host) else {
                continue;
            };
            for (_, next) in first.difference(&watched.watchers) {
                self.by_watcher.insert(next.clone(), host.clone());
                told.push(Told {
                    watcher: next.clone(),
                    watched: host.clone(),
                    address: Some(watched.address),
                });
            }
            watched.watchers = first;
            self.by_watcher.remove(watcher, &host);
            told.push(Told {
                watcher: watcher.clone(),
                watched: host,
                address: None,
            });
        }
    }
}

impl State {
    /// A host's record, or its part in tunnels, is another now.
    pub(super) fn view_watches(&mut self, host: &HostId) {
        let endpoint = self.tunnels.endpoint(host);
        let able = endpoint.is_some() && self.hosts.get(host).is_some();
        let watched = endpoint.filter(|_| is_fit(self, host));
        let told = self.watches.set(host, able, watched.map(|e| e.address));
        for step in told {
            let change = match step.address {
                Some(address) => Change::PutWatched(step.watched, address),
                None => Change::RemoveWatched(step.watched),
            };
            self.views.emit(&step.watcher, || Step::other(change));
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn host(n: u8) -> HostId {
        format!("h{n}").parse().unwrap()
    }

    fn address(n: u8, m: u8) -> IpAddr {
        IpAddr::from([10, 0, m, n])
    }

    proptest! {
        #[test]
        fn each_is_watched_by_the_first_three_and_watchers_are_told_so(
            steps in prop::collection::vec((0..9u8, any::<bool>(), prop::option::of(0..2u8)), 1..60)
        ) {
            let mut watches = Watches::default();
            let mut is: BTreeMap<HostId, (bool, Option<IpAddr>)> = BTreeMap::new();
            let mut told: BTreeMap<HostId, BTreeMap<HostId, IpAddr>> = BTreeMap::new();
            for (n, able, watched) in steps {
                let at = watched.map(|m| address(n, m));
                is.insert(host(n), (able, at));
                for step in watches.set(&host(n), able, at) {
                    let known = told.entry(step.watcher).or_default();
                    match step.address {
                        Some(address) => prop_assert_ne!(known.insert(step.watched, address), Some(address)),
                        None => prop_assert!(known.remove(&step.watched).is_some()),
                    }
                }
                let mut expected: BTreeMap<HostId, BTreeMap<HostId, IpAddr>> = BTreeMap::new();
                for (watched, (_, at)) in &is {
                    let Some(at) = at else { continue };
                    let able = is.iter().filter(|(w, (able, _))| *able && *w != watched);
                    let mut ranks: Vec<Rank> = able.map(|(w, _)| rank(watched, w)).collect();
                    ranks.sort();
                    for (_, watcher) in ranks.into_iter().take(WATCHERS) {
                        expected.entry(watcher).or_default().insert(watched.clone(), *at);
                    }
                }
                told.retain(|_, known| !known.is_empty());
                prop_assert_eq!(&told, &expected);
                for n in 0..9 {
                    let of: BTreeMap<_, _> = watches.of(&host(n)).map(|(h, a)| (h.clone(), a)).collect();
                    prop_assert_eq!(&of, &expected.get(&host(n)).cloned().unwrap_or_default());
                }
            }
        }
    }

    #[test]
    fn the_work_is_spread() {
        let mut watches = Watches::default();
        for n in 0..100 {
            watches.set(&host(n), true, Some(address(n, 0)));
        }
        let most = (0..100).map(|n| watches.of(&host(n)).count()).max();
        assert!(most < Some(12), "{most:?}");
    }
}
