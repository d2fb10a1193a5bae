//! Routes: what peers say (Adj-RIB-In), what is chosen (Loc-RIB), what is told (Adj-RIB-Out).
//!
//! Paths of all peers stand together at their prefix, accepted ones only; attributes are shared.
//! What is chosen is a function of the paths that are there, never of the order in which they came.
//! Knows neither sessions nor messages.

pub(crate) mod bits;
pub(crate) mod decision;
pub(crate) mod export;
pub(crate) mod hops;
pub(crate) mod interner;
pub(crate) mod table;
#[cfg(test)]
mod tests;

use std::net::{IpAddr, Ipv4Addr};

use hextet_types::{Asn, Family, IfName};

pub(crate) use bits::Bits;
pub(crate) use decision::{Preferences, select};
pub(crate) use export::{Advert, Exporter, PeerKind};
pub use hops::Hop;
pub(crate) use hops::HopSets;
pub(crate) use interner::Interner;
pub(crate) use table::{NetId, Path, Table};

/// Which peer a path is from; [`SourceId::LOCAL`] is ourselves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct SourceId(pub(crate) u16);

impl SourceId {
    pub(crate) const LOCAL: SourceId = SourceId(0);

    pub(crate) fn index(self) -> usize {
        usize::from(self.0)
    }
}

/// What the decision process and export know of a peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Source {
    pub(crate) kind: SourceKind,
    pub(crate) asn: Asn,
    pub(crate) identifier: Ipv4Addr,
    pub(crate) address: IpAddr,
    /// Where its link-local next hops are.
    pub(crate) interface: Option<IfName>,
    /// BFD does not reach it: its stale paths are used last.
    pub(crate) suspect: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SourceKind {
    Local,
    External,
    Internal { client: bool },
}

impl Source {
    pub(crate) fn local(asn: Asn, identifier: Ipv4Addr) -> Self {
        Source {
            kind: SourceKind::Local,
            asn,
            identifier,
            address: IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            interface: None,
            suspect: false,
        }
    }
}

/// A value for each family.
#[derive(Clone, Debug, Default)]
pub(crate) struct ByFamily<T> {
    v4: T,
    v6: T,
}

impl<T> ByFamily<T> {
    pub(crate) const fn get(&self, family: Family) -> &T {
        match family {
            Family::V4 => &self.v4,
            Family::V6 => &self.v6,
        }
    }

    pub(crate) const fn get_mut(&mut self, family: Family) -> &mut T {
        match family {
            Family::V4 => &mut self.v4,
            Family::V6 => &mut self.v6,
        }
    }
}
