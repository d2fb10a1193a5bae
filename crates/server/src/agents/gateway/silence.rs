//! Which hosts' kernels answer nobody, by what their watchers say. Knows no clock of its own.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use hextet_api::agent::Pulse;
use hextet_types::HostId;

/// A host that was silent gets no router before its kernel has answered for so long.
pub const PROBATION: Duration = Duration::from_secs(30);

/// What each agent that was heard of lately says of the kernels that it watches.
pub type Views = BTreeMap<HostId, BTreeMap<HostId, Pulse>>;
/// Who watches each host.
pub type Watchers = BTreeMap<HostId, BTreeSet<HostId>>;

/// Hosts that most of their watchers call silent.
///
/// A watcher counts if its agent is heard of, it knows how that kernel fares, it is not cut off itself, and
/// is not found silent before. While the server has not run for long enough to have heard of everybody (`early`),
/// those that it has not heard of count for a host.
pub fn silent(watchers: &Watchers, views: &Views, early: bool) -> BTreeSet<HostId> {
    let mut silent = BTreeSet::new();
    loop {
        let found = watchers.iter().filter(|(host, watchers)| {
            !silent.contains(*host) && is_silent(host, watchers, views, &silent, early)
        });
        let found: Vec<HostId> = found.map(|(host, _)| host.clone()).collect();
        if found.is_empty() {
            return silent;
        }
        silent.extend(found);
    }
}

fn is_silent(
    host: &HostId,
    watchers: &BTreeSet<HostId>,
    views: &Views,
    silent: &BTreeSet<HostId>,
    early: bool,
) -> bool {
    let (mut votes, mut against) = (0, 0);
    for watcher in watchers.iter().filter(|w| !silent.contains(*w)) {
        let pulse = views.get(watcher).and_then(|view| view.get(host));
        match pulse {
            None => votes += usize::from(early),
            Some(Pulse::Answers) => votes += 1,
            Some(Pulse::Silent) if is_cut_off(watcher, views) => {}
            Some(Pulse::Silent) => {
                votes += 1;
                against += 1;
            }
        }
    }
    against > votes / 2
}

/// Who hears nobody may itself be what is wrong, as long as anybody whom it does not hear is heard of by the
/// server. Who watches a single host is believed unless that says the same of it.
fn is_cut_off(watcher: &HostId, views: &Views) -> bool {
    let Some(view) = views.get(watcher) else {
        return true;
    };
    if view.values().any(|pulse| *pulse == Pulse::Answers) {
        return false;
    }
    let mut others = view.keys().filter_map(|host| views.get(host));
    match view.len() {
        1 => others.any(|other| other.get(watcher) == Some(&Pulse::Silent)),
        _ => others.next().is_some(),
    }
}

/// Who has been silent lately.
#[derive(Debug, Default)]
pub struct Record {
    /// When each was last.
    last: BTreeMap<HostId, Instant>,
}

impl Record {
    /// These are silent now.
    pub fn note(&mut self, silent: &BTreeSet<HostId>, now: Instant) {
        self.last
            .retain(|_, last| now.saturating_duration_since(*last) < PROBATION);
        self.last
            .extend(silent.iter().map(|host| (host.clone(), now)));
    }

    /// Whether a host was silent within [`PROBATION`].
    pub fn distrusts(&self, host: &HostId) -> bool {
        self.last.contains_key(host)
    }

    /// Whether anybody was.
    pub fn is_empty(&self) -> bool {
        self.last.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn host(n: usize) -> HostId {
        format!("h{n}").parse().unwrap()
    }

    fn hosts(list: &[usize]) -> BTreeSet<HostId> {
        list.iter().map(|n| host(*n)).collect()
    }

    /// Each line: a watcher, those that answer it, and those that do not.
    fn views(lines: &[(usize, &[usize], &[usize])]) -> Views {
        let line = |(watcher, answer, silent): &(usize, &[usize], &[usize])| {
            let answer = answer.iter().map(|n| (host(*n), Pulse::Answers));
            let silent = silent.iter().map(|n| (host(*n), Pulse::Silent));
            (host(*watcher), answer.chain(silent).collect())
        };
        lines.iter().map(line).collect()
    }

    fn watchers(lines: &[(usize, &[usize])]) -> Watchers {
        let lines = lines.iter();
        lines.map(|(n, by)| (host(*n), hosts(by))).collect()
    }

    fn three() -> Watchers {
        watchers(&[(1, &[2, 3]), (2, &[1, 3]), (3, &[1, 2])])
    }

    #[test]
    fn most_of_those_that_are_heard_of_decide() {
        let four = watchers(&[(1, &[2, 3, 4])]);
        // What each of three says of host 1; another host answers everybody.
        for (says, expected) in [
            ([Some(false), Some(false), Some(false)], true),
            ([Some(false), Some(false), Some(true)], true),
            ([Some(false), Some(true), Some(true)], false),
            ([Some(false), Some(true), None], false),
            ([Some(false), Some(false), None], true),
            ([Some(false), None, None], true),
            ([Some(true), None, None], false),
            ([None, None, None], false),
        ] {
            let mut all = Views::new();
            for (n, says) in says.iter().enumerate() {
                let Some(answers) = says else { continue };
                let pulse = if *answers {
                    Pulse::Answers
                } else {
                    Pulse::Silent
                };
                let view = BTreeMap::from([(host(1), pulse), (host(9), Pulse::Answers)]);
                all.insert(host(n + 2), view);
            }
            assert_eq!(
                silent(&four, &all, false).contains(&host(1)),
                expected,
                "{says:?}"
            );
        }
    }

    #[test]
    fn a_server_that_has_just_started_waits_for_the_others() {
        let one = views(&[(2, &[3], &[1])]);
        assert_eq!(silent(&three(), &one, true), hosts(&[]));
        assert_eq!(silent(&three(), &one, false), hosts(&[1]));
        let both = views(&[(2, &[3], &[1]), (3, &[2], &[1])]);
        assert_eq!(silent(&three(), &both, true), hosts(&[1]));
    }

    #[test]
    fn who_is_cut_off_accuses_nobody() {
        // Host 1's underlay is cut; its agent still reaches the server.
        let all = views(&[(1, &[], &[2, 3]), (2, &[3], &[1]), (3, &[2], &[1])]);
        assert_eq!(silent(&three(), &all, false), hosts(&[1]));
        // Everybody's is: nobody is to blame.
        let all = views(&[(1, &[], &[2, 3]), (2, &[], &[1, 3]), (3, &[], &[1, 2])]);
        assert_eq!(silent(&three(), &all, false), hosts(&[]));
        // Two of three are gone, their agents too.
        let all = views(&[(3, &[], &[1, 2])]);
        assert_eq!(silent(&three(), &all, false), hosts(&[1, 2]));
    }

    #[test]
    fn of_two_hosts_one_is_believed_unless_both_accuse() {
        let two = watchers(&[(1, &[2]), (2, &[1])]);
        let gone = views(&[(1, &[2], &[]), (2, &[], &[1])]);
        assert_eq!(silent(&two, &gone, false), hosts(&[1]));
        let cut = views(&[(1, &[], &[2]), (2, &[], &[1])]);
        assert_eq!(silent(&two, &cut, false), hosts(&[]));
        assert_eq!(silent(&two, &views(&[(2, &[], &[1])]), false), hosts(&[1]));
    }

    #[test]
    fn watchers_that_die_with_the_host_they_watch_are_not_waited_for() {
        // 1, 2 and 3 go at once, and are still counted as heard of; 4 to 6 see it.
        let watchers = watchers(&[
            (1, &[2, 3, 4]),
            (2, &[4, 5, 6]),
            (3, &[4, 5, 6]),
            (4, &[5, 6, 1]),
        ]);
        let all = views(&[
            (1, &[4], &[]),
            (2, &[1], &[]),
            (3, &[1], &[]),
            (4, &[], &[1, 2, 3]),
            (5, &[4], &[2, 3]),
            (6, &[4], &[2, 3]),
        ]);
        assert_eq!(silent(&watchers, &all, false), hosts(&[2, 3]));
        let mut hears = all;
        hears.insert(
            host(4),
            BTreeMap::from([
                (host(1), Pulse::Silent),
                (host(2), Pulse::Silent),
                (host(3), Pulse::Silent),
                (host(5), Pulse::Answers),
            ]),
        );
        assert_eq!(silent(&watchers, &hears, false), hosts(&[1, 2, 3]));
    }

    #[test]
    fn who_was_silent_is_distrusted_for_a_while() {
        let mut record = Record::default();
        let start = Instant::now();
        record.note(&hosts(&[1]), start);
        assert!(record.distrusts(&host(1)) && !record.distrusts(&host(2)));
        record.note(&hosts(&[]), start + PROBATION - Duration::from_secs(1));
        assert!(record.distrusts(&host(1)));
        record.note(&hosts(&[]), start + PROBATION);
        assert!(record.is_empty());
    }

    proptest! {
        /// Real kernels, dead or alive, each dead one with or without an agent that was heard of lately: who lives,
        /// and reaches the living, is never called silent; a dead one that a living one sees besides another is,
        /// unless others of its watchers died with it and are not watched.
        #[test]
        fn the_living_are_never_called_silent(
            dead in prop::collection::vec(any::<bool>(), 2..8),
            away in prop::collection::vec(any::<bool>(), 8),
            watching in prop::collection::vec(prop::collection::btree_set(0usize..8, 0..4), 8),
            early in any::<bool>(),
        ) {
            let count = dead.len();
            let mut watchers = Watchers::new();
            for (n, by) in watching.iter().enumerate().take(count) {
                let by = by.iter().filter(|w| **w < count && **w != n);
                watchers.insert(host(n), by.map(|w| host(*w)).collect());
            }
            let mut views = Views::new();
            for n in (0..count).filter(|n| !away[*n]) {
                let watched = (0..count).filter(|w| watchers[&host(*w)].contains(&host(n)));
                // The dead have said that all was well.
                let view = watched.map(|w| (host(w), if dead[w] && !dead[n] { Pulse::Silent } else { Pulse::Answers }));
                views.insert(host(n), view.collect());
            }
            let silent = silent(&watchers, &views, early);
            for n in (0..count).filter(|n| !dead[*n]) {
                prop_assert!(!silent.contains(&host(n)), "{n} lives: {views:?}");
            }
        }
    }
}
