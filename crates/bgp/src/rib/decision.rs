//! The decision process (RFC 4271 §9.1.2.2, RFC 4456 §9, RFC 9494 §4.3).
//!
//! Deviation: step e (the interior cost to the next hop) is left out; this speaker has no interior
//! protocol whose cost it could ask for.

use std::{cmp::Reverse, net::Ipv4Addr};

use super::{Path, Source, SourceId, SourceKind};
use crate::packet::Community;

/// What the operator prefers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Preferences {
    pub(crate) max_paths: usize,
    pub(crate) multipath_relax: bool,
    pub(crate) always_compare_med: bool,
}

/// What was chosen among the paths of a prefix.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Selection {
    /// Places in the list of paths: the best first, then those that share its load.
    chosen: Vec<usize>,
}

impl Selection {
    pub(crate) fn best<'p>(&self, paths: &'p [Path]) -> Option<&'p Path> {
        self.chosen.first().and_then(|at| paths.get(*at))
    }

    pub(crate) fn all<'p>(&self, paths: &'p [Path]) -> impl Iterator<Item = &'p Path> {
        self.chosen.iter().filter_map(|at| paths.get(*at))
    }
}

/// RFC 4271 §5.1.5 leaves the default open; everybody has 100.
pub(crate) const DEFAULT_LOCAL_PREF: u32 = 100;

struct Candidate<'p> {
    at: usize,
    path: &'p Path,
    source: &'p Source,
}

/// Chooses. Paths of sources that are not known do not count.
pub(crate) fn select<'p>(
    paths: &'p [Path],
    source: impl Fn(SourceId) -> Option<&'p Source>,
    preferences: Preferences,
) -> Selection {
    if let [path] = paths {
        let chosen = source(path.source).map(|_| 0).into_iter().collect();
        return Selection { chosen };
    }
    let mut candidates: Vec<Candidate<'_>> = paths
        .iter()
        .enumerate()
        .filter_map(|(at, path)| {
            let source = source(path.source)?;
            Some(Candidate { at, path, source })
        })
        .collect();
    keep_best(&mut candidates, degree);
    keep_lowest_med(&mut candidates, preferences.always_compare_med);
    keep_best(&mut candidates, |c| {
        Reverse(matches!(c.source.kind, SourceKind::Internal { .. }))
    });
    candidates.sort_by_key(tie_break);
    let Some(best) = candidates.first() else {
        return Selection::default();
    };
    let best_path = &best.path.attributes.as_path;
    let shares =
        |c: &&Candidate<'_>| preferences.multipath_relax || c.path.attributes.as_path == *best_path;
    let chosen = candidates.iter().filter(shares).map(|c| c.at);
    Selection {
        chosen: chosen.take(preferences.max_paths.max(1)).collect(),
    }
}

fn keep_best<K: Ord>(candidates: &mut Vec<Candidate<'_>>, key: impl Fn(&Candidate<'_>) -> K) {
    if let Some(best) = candidates.iter().map(&key).max() {
        candidates.retain(|c| key(c) == best);
    }
}

/// Our own before others', stale and suspect or long-lived stale last, then LOCAL_PREF and steps a and b.
fn degree(c: &Candidate<'_>) -> impl Ord + use<> {
    let attributes = &c.path.attributes;
    (
        c.source.kind == SourceKind::Local,
        !is_long_lived_stale(c.path),
        !(c.source.suspect && c.path.is_stale()),
        attributes.local_pref.unwrap_or(DEFAULT_LOCAL_PREF),
        Reverse(attributes.as_path.hops()),
        Reverse(attributes.origin),
    )
}

/// Kept past a restart by us, or by whom it is from (RFC 9494 §4.3).
pub(crate) fn is_long_lived_stale(path: &Path) -> bool {
    path.is_long_lived() || path.attributes.has_community(Community::LLGR_STALE)
}

/// Step c: only between paths of one neighbouring AS, and so between each pair by itself.
fn keep_lowest_med(candidates: &mut Vec<Candidate<'_>>, always: bool) {
    let meds: Vec<_> = candidates
        .iter()
        .map(|c| {
            let attributes = &c.path.attributes;
            (attributes.as_path.first(), attributes.med.unwrap_or(0))
        })
        .collect();
    let mut at = 0;
    candidates.retain(|_| {
        let mine = meds.get(at).copied();
        at += 1;
        let beats = |other: &(Option<_>, u32)| {
            mine.is_some_and(|mine| (always || other.0 == mine.0) && other.1 < mine.1)
        };
        !meds.iter().any(beats)
    });
}

/// Steps f and g with ORIGINATOR_ID and CLUSTER_LIST between them (RFC 4456 §9).
fn tie_break(c: &Candidate<'_>) -> (Ipv4Addr, usize, std::net::IpAddr, SourceId) {
    let rare = c.path.attributes.rare();
    (
        rare.originator_id.unwrap_or(c.source.identifier),
        rare.cluster_list.len(),
        c.source.address,
        c.path.source,
    )
}
