//! From a chosen path to what a group of peers is told of it (RFC 4271 §9.1.3, §5; RFC 4456 §8;
//! RFC 1997; RFC 9494 §4.5).

use std::{net::Ipv4Addr, sync::Arc};

use hextet_types::{Asn, Family, IfName, Prefix};

use super::{
    Interner, Path, Source, SourceId, SourceKind,
    decision::{DEFAULT_LOCAL_PREF, is_long_lived_stale},
    hops::Hop,
};
use crate::{
    packet::{Community, Families, NextHop, PathAttributes, Rare},
    policy::{Change, Changes, Policy},
};

/// What is told of a prefix, and whose path it is: that one is not told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Advert {
    pub(crate) attributes: Arc<PathAttributes>,
    pub(crate) from: SourceId,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PeerKind {
    External,
    Internal { client: bool },
}

/// What peers have in common that are told the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Audience {
    pub(crate) kind: PeerKind,
    pub(crate) policy: Arc<Policy>,
    pub(crate) next_hop_self: bool,
    /// Our own next hop for IPv4 and IPv6 routes.
    pub(crate) own_v4: Option<NextHop>,
    pub(crate) own_v6: Option<NextHop>,
    /// IPv4 routes may have IPv6 next hops.
    pub(crate) extended_next_hop: bool,
    /// Knows LLGR_STALE.
    pub(crate) long_lived: bool,
    pub(crate) families: Families,
}

/// What depends on nothing but this, and is likely asked again at once.
#[derive(Debug)]
struct Memo {
    family: Family,
    path: Path,
    changes: Changes,
    result: Option<Arc<PathAttributes>>,
}

#[derive(Debug)]
pub(crate) struct Exporter {
    pub(crate) audience: Audience,
    local_as: Asn,
    cluster: Ipv4Addr,
    memo: Option<Memo>,
}

impl Exporter {
    pub(crate) const fn new(audience: Audience, local_as: Asn, cluster: Ipv4Addr) -> Self {
        Exporter {
            audience,
            local_as,
            cluster,
            memo: None,
        }
    }

    /// What is known of a source has changed.
    pub(crate) fn forget(&mut self) {
        self.memo = None;
    }

    /// What the group is told of a path that was chosen; `None` when it is not to know of it.
    pub(crate) fn export(
        &mut self,
        prefix: Prefix,
        path: &Path,
        source: &Source,
        interner: &mut Interner,
    ) -> Option<Advert> {
        let family = prefix.family();
        if !self.audience.families.contains(family) || !self.may_know(path, source) {
            return None;
        }
        let changes = self.audience.policy.decide(prefix, &path.attributes)?;
        if let Some(memo) = &self.memo
            && memo.changes == changes
            && memo.family == family
            && memo.path.source == path.source
            && memo.path.is_long_lived() == path.is_long_lived()
            && Arc::ptr_eq(&memo.path.attributes, &path.attributes)
        {
            let attributes = memo.result.clone()?;
            let from = path.source;
            return Some(Advert { attributes, from });
        }
        let result = self
            .attributes(family, path, source, changes)
            .map(|attributes| interner.intern(attributes));
        self.memo = Some(Memo {
            family,
            path: path.clone(),
            changes,
            result: result.clone(),
        });
        result.map(|attributes| Advert {
            attributes,
            from: path.source,
        })
    }

    fn may_know(&self, path: &Path, source: &Source) -> bool {
        let attributes = &path.attributes;
        if let (SourceKind::Internal { client: from }, PeerKind::Internal { client: to }) =
            (source.kind, self.audience.kind)
            && !from
            && !to
        {
            return false;
        }
        let external = self.audience.kind == PeerKind::External;
        let stays = attributes.has_community(Community::NO_EXPORT)
            || attributes.has_community(Community::NO_EXPORT_SUBCONFED);
        if attributes.has_community(Community::NO_ADVERTISE) || external && stays {
            return false;
        }
        self.audience.long_lived || !is_long_lived_stale(path)
    }

    fn attributes(
        &self,
        family: Family,
        path: &Path,
        source: &Source,
        changes: Changes,
    ) -> Option<PathAttributes> {
        let mut attributes = PathAttributes::clone(&path.attributes);
        attributes.next_hop = self.next_hop(family, path, source, changes)?;
        if path.is_long_lived() {
            attributes.add_community(Community::LLGR_STALE);
        }
        match self.audience.kind {
            PeerKind::External => self.leave_as(&mut attributes, source),
            PeerKind::Internal { .. } => {
                attributes.local_pref.get_or_insert(DEFAULT_LOCAL_PREF);
                if matches!(source.kind, SourceKind::Internal { .. }) {
                    self.reflect(&mut attributes, source);
                }
            }
        }
        for change in self.audience.policy.changes(changes) {
            change.apply(&mut attributes, self.local_as);
        }
        if self.audience.kind == PeerKind::External {
            attributes.local_pref = None;
        }
        Some(attributes)
    }

    fn next_hop(
        &self,
        family: Family,
        path: &Path,
        source: &Source,
        changes: Changes,
    ) -> Option<NextHop> {
        let own = match family {
            Family::V4 => self.audience.own_v4,
            Family::V6 => self.audience.own_v6,
        };
        let by_policy = || {
            self.audience
                .policy
                .changes(changes)
                .any(|c| c == Change::NextHopSelf)
        };
        let reflected = matches!(source.kind, SourceKind::Internal { .. });
        let ours = self.audience.kind == PeerKind::External
            || source.kind == SourceKind::Local
            || self.audience.next_hop_self && !reflected
            || by_policy();
        if ours {
            return own;
        }
        let learned = path.attributes.next_hop;
        if !Hop::is_reachable(&learned, None::<&IfName>) {
            // A link-local address means nothing beyond its link.
            return own;
        }
        let fits = family == learned.family() || self.audience.extended_next_hop;
        fits.then(|| NextHop::from_addr(learned.addr()))
    }

    /// RFC 4271 §5.1.2, §5.1.4, §5.1.5; RFC 4456 §8; RFC 4360 §6.
    fn leave_as(&self, attributes: &mut PathAttributes, source: &Source) {
        attributes.as_path = attributes
            .as_path
            .without_confederations()
            .prepended(self.local_as, 1);
        if source.kind != SourceKind::Local {
            attributes.med = None;
        }
        if *attributes.rare() != Rare::default() {
            attributes.edit_rare(|rare| {
                rare.originator_id = None;
                rare.cluster_list = Vec::new();
                rare.extended_communities.retain(|c| c.is_transitive());
            });
        }
    }

    /// RFC 4456 §8.
    fn reflect(&self, attributes: &mut PathAttributes, source: &Source) {
        attributes.edit_rare(|rare| {
            rare.originator_id.get_or_insert(source.identifier);
            rare.cluster_list.insert(0, self.cluster);
        });
    }
}
