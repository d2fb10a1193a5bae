//! What is taken from a peer and what is told to it: rules over prefixes and communities.
//!
//! A policy is a value without state; the same route always fares the same.

use std::collections::BTreeMap;

use hextet_types::{Asn, Family, Prefix};
use serde::Serialize;
use thiserror::Error;

use crate::packet::{Community, PathAttributes};

/// Prefixes that lie in one and are of certain lengths.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct PrefixMatch {
    prefix: Prefix,
    ge: u8,
    le: u8,
}

/// Why a policy was refused.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum PolicyError {
    /// The lengths contradict one another.
    #[error("match {prefix} ge {ge} le {le}: needs {} <= ge <= le <= {}", prefix.len(), prefix.family().bits())]
    Lengths {
        /// The prefix.
        prefix: Prefix,
        /// The shortest length.
        ge: u8,
        /// The longest length.
        le: u8,
    },
    /// More rules than are allowed.
    #[error(
        "a policy of {0} rules; at most {MAX_RULES}: put prefixes of the same fate into one rule"
    )]
    TooManyRules(usize),
}

/// The most rules of a policy; a rule may have any number of prefixes.
pub const MAX_RULES: usize = 64;

impl PrefixMatch {
    /// That prefix and no other.
    pub fn exact(prefix: Prefix) -> Self {
        PrefixMatch {
            prefix,
            ge: prefix.len(),
            le: prefix.len(),
        }
    }

    /// That prefix and whatever lies in it.
    pub fn or_longer(prefix: Prefix) -> Self {
        PrefixMatch {
            prefix,
            ge: prefix.len(),
            le: prefix.family().bits(),
        }
    }

    /// Whatever lies in it and is `ge` to `le` bits long.
    ///
    /// # Errors
    ///
    /// [`PolicyError::Lengths`].
    pub fn range(prefix: Prefix, ge: u8, le: u8) -> Result<Self, PolicyError> {
        if prefix.len() <= ge && ge <= le && le <= prefix.family().bits() {
            Ok(PrefixMatch { prefix, ge, le })
        } else {
            Err(PolicyError::Lengths { prefix, ge, le })
        }
    }

    /// Whether it matches.
    pub fn matches(&self, prefix: Prefix) -> bool {
        (self.ge..=self.le).contains(&prefix.len()) && self.prefix.covers(prefix)
    }
}

/// What a rule changes in a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Change {
    /// Sets LOCAL_PREF.
    LocalPref(u32),
    /// Sets MED, or removes it.
    Med(Option<u32>),
    /// Adds a community.
    AddCommunity(Community),
    /// Removes a community.
    RemoveCommunity(Community),
    /// Removes all communities.
    ClearCommunities,
    /// Puts our AS in front this many times more.
    Prepend(u8),
    /// On export: our own address as next hop. On import it changes nothing.
    NextHopSelf,
}

/// What becomes of a route that a rule matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// It is taken (told).
    Accept,
    /// It is not.
    Reject,
    /// The changes stand, and the next rule decides.
    Continue,
}

/// One rule.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct Rule {
    /// Matches if one of these does, or if there are none.
    pub prefixes: Vec<PrefixMatch>,
    /// And the route has all of these.
    pub communities: Vec<Community>,
    /// What it changes then.
    pub changes: Vec<Change>,
    /// What becomes of the route.
    pub verdict: Verdict,
}

impl Rule {
    /// A rule for prefixes without changes.
    pub const fn prefixes(prefixes: Vec<PrefixMatch>, verdict: Verdict) -> Self {
        Rule {
            prefixes,
            communities: Vec::new(),
            changes: Vec::new(),
            verdict,
        }
    }

    fn matches(&self, prefix: Prefix, attributes: &PathAttributes) -> bool {
        (self.prefixes.is_empty() || self.prefixes.iter().any(|m| m.matches(prefix)))
            && self
                .communities
                .iter()
                .all(|c| attributes.has_community(*c))
    }
}

/// Rules in order; what none decides is accepted or not.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct Policy {
    rules: Vec<Rule>,
    accept_rest: bool,
}

/// Rules of an accepted route that change it: bit n stands for rule n.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Changes(u64);

impl Changes {
    pub(crate) const NONE: Changes = Changes(0);
}

impl Policy {
    /// Takes everything as it is.
    pub const fn accept_all() -> Self {
        Policy {
            rules: Vec::new(),
            accept_rest: true,
        }
    }

    /// Takes nothing.
    pub const fn reject_all() -> Self {
        Policy {
            rules: Vec::new(),
            accept_rest: false,
        }
    }

    /// Takes only default routes, of both families: a host needs no more, however large its fabric.
    pub fn default_only() -> Self {
        let defaults = Family::BOTH.map(|f| PrefixMatch::exact(Prefix::default_route(f)));
        Policy {
            rules: vec![Rule::prefixes(defaults.to_vec(), Verdict::Accept)],
            accept_rest: false,
        }
    }

    /// Takes what matches one of these.
    pub fn only(prefixes: Vec<PrefixMatch>) -> Self {
        if prefixes.is_empty() {
            return Policy::reject_all();
        }
        Policy {
            rules: vec![Rule::prefixes(prefixes, Verdict::Accept)],
            accept_rest: false,
        }
    }

    /// Rules in order, and what becomes of what none of them decides.
    ///
    /// # Errors
    ///
    /// [`PolicyError::TooManyRules`].
    pub fn new(rules: Vec<Rule>, accept_rest: bool) -> Result<Self, PolicyError> {
        if rules.len() > MAX_RULES {
            return Err(PolicyError::TooManyRules(rules.len()));
        }
        Ok(Policy { rules, accept_rest })
    }

    /// Whether a route is accepted, and which rules change it.
    pub(crate) fn decide(&self, prefix: Prefix, attributes: &PathAttributes) -> Option<Changes> {
        let mut changes = 0;
        for (at, rule) in self.rules.iter().enumerate() {
            if !rule.matches(prefix, attributes) {
                continue;
            }
            if !rule.changes.is_empty() {
                changes |= 1 << at;
            }
            match rule.verdict {
                Verdict::Accept => return Some(Changes(changes)),
                Verdict::Reject => return None,
                Verdict::Continue => (),
            }
        }
        self.accept_rest.then_some(Changes(changes))
    }

    /// The changes of those rules, in order.
    pub(crate) fn changes(&self, which: Changes) -> impl Iterator<Item = Change> {
        self.rules
            .iter()
            .enumerate()
            .filter(move |(at, _)| which.0 >> at & 1 == 1)
            .flat_map(|(_, rule)| rule.changes.iter().copied())
    }
}

impl Change {
    /// Changes attributes; [`Change::NextHopSelf`] is up to the caller, who knows the address.
    pub(crate) fn apply(self, attributes: &mut PathAttributes, local_as: Asn) {
        match self {
            Change::LocalPref(value) => attributes.local_pref = Some(value),
            Change::Med(value) => attributes.med = value,
            Change::AddCommunity(community) => attributes.add_community(community),
            Change::RemoveCommunity(community) => attributes.remove_community(community),
            Change::ClearCommunities => attributes.communities = Box::default(),
            Change::Prepend(times) => {
                attributes.as_path = attributes.as_path.prepended(local_as, times);
            }
            Change::NextHopSelf => (),
        }
    }
}

/// A route of our own, to be announced.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct LocalRoute {
    /// Its communities.
    pub communities: Vec<Community>,
    /// Its MED.
    pub med: Option<u32>,
    /// Its LOCAL_PREF towards internal peers; 100 if not said.
    pub local_pref: Option<u32>,
}

/// Puts aggregates in the place of what lies in them: one route of the host instead of one for each
/// workload. An aggregate is announced while something lies in it. What is to be discarded upstream
/// (BLACKHOLE, RFC 7999) is announced as it is, for it must not take the aggregate with it.
///
/// The driver has to discard what the host gets for an aggregate's unused addresses.
pub fn aggregate(
    announcements: &BTreeMap<Prefix, LocalRoute>,
    aggregates: &[Prefix],
) -> BTreeMap<Prefix, LocalRoute> {
    let mut result = BTreeMap::new();
    for (prefix, route) in announcements {
        let into = aggregates
            .iter()
            .filter(|a| a.covers(*prefix))
            .min_by_key(|a| a.len());
        match into {
            Some(into) if !route.communities.contains(&Community::BLACKHOLE) => {
                let own = announcements.get(into).cloned();
                result.entry(*into).or_insert(own.unwrap_or_default());
            }
            _ => {
                result.insert(*prefix, route.clone());
            }
        }
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::NextHop;

    fn p(text: &str) -> Prefix {
        text.parse().unwrap()
    }

    fn attributes() -> PathAttributes {
        PathAttributes::new(NextHop::from_addr("192.0.2.1".parse().unwrap()))
    }

    #[test]
    fn lengths_are_checked_and_honoured() {
        let m = PrefixMatch::range(p("2001:db8::/32"), 48, 64).unwrap();
        for (prefix, expected) in [
            ("2001:db8::/32", false),
            ("2001:db8:1::/48", true),
            ("2001:db8:1:2::/64", true),
            ("2001:db8:1:2::/65", false),
            ("2001:db9:1::/48", false),
            ("32.1.13.184/32", false),
        ] {
            assert_eq!(m.matches(p(prefix)), expected, "{prefix}");
        }
        for (ge, le) in [(31, 64), (64, 48), (48, 129)] {
            assert!(PrefixMatch::range(p("2001:db8::/32"), ge, le).is_err());
        }
        assert!(PrefixMatch::or_longer(p("0.0.0.0/0")).matches(p("10.0.0.1/32")));
        assert!(!PrefixMatch::exact(p("0.0.0.0/0")).matches(p("10.0.0.0/8")));
    }

    #[test]
    fn presets() {
        let a = attributes();
        let only = Policy::default_only();
        assert!(only.decide(p("::/0"), &a).is_some());
        assert!(only.decide(p("0.0.0.0/0"), &a).is_some());
        assert!(only.decide(p("0.0.0.0/1"), &a).is_none());
        assert!(Policy::reject_all().decide(p("::/0"), &a).is_none());
        assert_eq!(
            Policy::accept_all().decide(p("::/0"), &a),
            Some(Changes::NONE)
        );
    }

    #[test]
    fn rules_go_on_until_one_decides() {
        let rule = |prefix: &str, change, verdict| Rule {
            changes: vec![change],
            ..Rule::prefixes(vec![PrefixMatch::or_longer(p(prefix))], verdict)
        };
        let policy = Policy::new(
            vec![
                rule("10.0.0.0/8", Change::LocalPref(200), Verdict::Continue),
                rule("10.1.0.0/16", Change::Prepend(2), Verdict::Accept),
                rule("10.2.0.0/16", Change::Med(Some(1)), Verdict::Reject),
            ],
            true,
        )
        .unwrap();
        let apply = |prefix: &str| {
            let mut a = attributes();
            let which = policy.decide(p(prefix), &a)?;
            policy
                .changes(which)
                .for_each(|c| c.apply(&mut a, Asn(64512)));
            Some((a.local_pref, a.as_path.hops()))
        };
        assert_eq!(apply("10.1.2.3/32"), Some((Some(200), 2)));
        assert_eq!(apply("10.2.2.3/32"), None);
        assert_eq!(apply("10.3.2.3/32"), Some((Some(200), 0)));
        assert_eq!(apply("11.0.0.0/8"), Some((None, 0)));
        let many = vec![Rule::prefixes(vec![], Verdict::Continue); MAX_RULES + 1];
        assert_eq!(
            Policy::new(many, true),
            Err(PolicyError::TooManyRules(MAX_RULES + 1))
        );
    }

    #[test]
    fn a_host_announces_its_aggregate_while_it_has_workloads() {
        let blackhole = LocalRoute {
            communities: vec![Community::BLACKHOLE],
            ..LocalRoute::default()
        };
        let routes: BTreeMap<_, _> = [
            (p("2001:db8:0:7::5/128"), LocalRoute::default()),
            (p("2001:db8:0:7::6/128"), LocalRoute::default()),
            (p("2001:db8:0:7::7/128"), blackhole),
            (p("203.0.113.9/32"), LocalRoute::default()),
        ]
        .into();
        let aggregated = aggregate(&routes, &[p("2001:db8:0:7::/64"), p("192.0.2.0/24")]);
        let prefixes: Vec<_> = aggregated.keys().map(ToString::to_string).collect();
        assert_eq!(
            prefixes,
            ["203.0.113.9/32", "2001:db8:0:7::/64", "2001:db8:0:7::7/128"]
        );
    }
}
