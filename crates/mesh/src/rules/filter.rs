//! What one node lets in: a network's rules, seen from its own groups, over sets of prefixes.
//!
//! It becomes rules of nftables over sets: as many rules as the network has, whatever the number of nodes, and each looks into a set once.

use std::collections::{BTreeMap, BTreeSet};

use hextet_types::Prefix;

use super::{Rules, Service, Verdict, Who};
use crate::{certificate::Certificate, label::Label};

/// What a node enforces for new conversations that come out of the mesh to its own prefixes.
///
/// Before it, the driver lets in what always has to come: answers to what went out, errors about it, link-local traffic (Babel) and letters.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// Its own prefixes, of both families: what goes to others is their own matter.
    pub own: Vec<Prefix>,
    /// Prefixes of all whose certificates are known here.
    pub known: BTreeSet<Prefix>,
    /// Prefixes of those who are in one of some groups: what [`Source`] points to.
    pub sets: Vec<BTreeSet<Prefix>>,
    /// The first that fits decides.
    pub clauses: Vec<Clause>,
    /// Where none fits.
    pub default: Verdict,
}

/// One rule for one receiver.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Clause {
    /// Whom it is about.
    pub source: Source,
    /// What.
    pub service: Service,
    /// What is done.
    pub verdict: Verdict,
}

/// Whose packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// Everybody's.
    Any,
    /// Those with a source in this set.
    Set(usize),
    /// Those too whose source is not in [`Filter::known`]: who may be anybody is denied what one of the groups is denied.
    SetOrUnknown(usize),
}

/// What a node has to enforce. `others` are certificates that count, of all whom it knows.
pub fn compile<'a>(
    rules: &Rules,
    own: &Certificate,
    others: impl IntoIterator<Item = &'a Certificate>,
) -> Filter {
    let mut filter = Filter {
        own: prefixes(own).collect(),
        default: rules.default,
        ..Filter::default()
    };
    let mut places: BTreeMap<&[Label], usize> = BTreeMap::new();
    for rule in rules.list.iter().filter(|rule| is_in(own, &rule.to)) {
        let source = match &rule.from {
            Who::Any => Source::Any,
            Who::Groups(groups) => {
                let next = places.len();
                let place = *places.entry(groups).or_insert(next);
                match rule.verdict {
                    Verdict::Allow => Source::Set(place),
                    Verdict::Deny => Source::SetOrUnknown(place),
                }
            }
        };
        filter.clauses.push(Clause {
            source,
            service: rule.service.clone(),
            verdict: rule.verdict,
        });
    }
    filter.sets = vec![BTreeSet::new(); places.len()];
    for certificate in others {
        filter.known.extend(prefixes(certificate));
        for (groups, place) in &places {
            if shares(certificate, groups)
                && let Some(set) = filter.sets.get_mut(*place)
            {
                set.extend(prefixes(certificate));
            }
        }
    }
    filter
}

fn prefixes(certificate: &Certificate) -> impl Iterator<Item = Prefix> {
    certificate
        .prefixes
        .iter()
        .chain(&certificate.ipv4)
        .copied()
}

fn is_in(certificate: &Certificate, who: &Who) -> bool {
    match who {
        Who::Any => true,
        Who::Groups(groups) => shares(certificate, groups),
    }
}

fn shares(certificate: &Certificate, groups: &[Label]) -> bool {
    certificate.groups.iter().any(|one| groups.contains(one))
}
