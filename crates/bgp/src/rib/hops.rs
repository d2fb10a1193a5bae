//! Where packets go, as the kernel is told.

use std::{net::IpAddr, sync::Arc};

use hashbrown::HashMap;
use hextet_types::IfName;
use serde::Serialize;

use super::{Path, Source, SourceKind};
use crate::packet::NextHop;

/// One next hop of a route.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Hop {
    /// The address; of either family, whatever the route's (RFC 8950).
    pub addr: IpAddr,
    /// The interface of a link-local address.
    pub interface: Option<IfName>,
}

impl Hop {
    /// Where a path leads; `None` for our own, and for a link-local address without an interface.
    pub(crate) fn of(path: &Path, source: &Source) -> Option<Hop> {
        if source.kind == SourceKind::Local {
            return None;
        }
        let next_hop = path.attributes.next_hop;
        match (next_hop.link_local(), &source.interface) {
            (Some(addr), Some(interface)) => Some(Hop {
                addr: IpAddr::V6(addr),
                interface: Some(interface.clone()),
            }),
            (local, _) => {
                let addr = next_hop.addr();
                let scoped = local.is_some_and(|local| IpAddr::V6(local) == addr);
                (!scoped).then_some(Hop {
                    addr,
                    interface: None,
                })
            }
        }
    }

    /// Whether a path leads anywhere, or is our own.
    pub(crate) fn is_reachable(next_hop: &NextHop, interface: Option<&IfName>) -> bool {
        let scoped = next_hop
            .link_local()
            .is_some_and(|local| IpAddr::V6(local) == next_hop.addr());
        !scoped || interface.is_some()
    }
}

/// Names a set of next hops; [`HopSetId::NONE`] is the empty one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct HopSetId(u32);

impl HopSetId {
    pub(crate) const NONE: HopSetId = HopSetId(0);
}

/// The sets of next hops that routes have, each once, counted by the routes that have them.
#[derive(Debug, Default)]
pub(crate) struct HopSets {
    ids: HashMap<Arc<[Hop]>, u32>,
    sets: Vec<Option<(Arc<[Hop]>, u32)>>,
    free: Vec<u32>,
}

impl HopSets {
    /// The id of a set, counted once more. Slot n has the id n + 1.
    pub(crate) fn acquire(&mut self, hops: &[Hop]) -> HopSetId {
        if hops.is_empty() {
            return HopSetId::NONE;
        }
        if let Some(id) = self.ids.get(hops) {
            let id = *id;
            if let Some((_, count)) = self.slot(id) {
                *count += 1;
            }
            return HopSetId(id);
        }
        let shared: Arc<[Hop]> = hops.into();
        let entry = Some((Arc::clone(&shared), 1));
        let id = match self.free.pop() {
            Some(id) => {
                if let Some(slot) = self.sets.get_mut(id as usize - 1) {
                    *slot = entry;
                }
                id
            }
            None => {
                self.sets.push(entry);
                u32::try_from(self.sets.len()).unwrap_or(u32::MAX)
            }
        };
        self.ids.insert(shared, id);
        HopSetId(id)
    }

    /// Another route has the same set.
    pub(crate) fn share(&mut self, id: HopSetId) -> HopSetId {
        if let Some((_, count)) = self.slot(id.0) {
            *count += 1;
        }
        id
    }

    pub(crate) fn release(&mut self, id: HopSetId) {
        let Some((hops, count)) = self.slot(id.0) else {
            return;
        };
        *count -= 1;
        if *count == 0 {
            let hops = Arc::clone(hops);
            self.ids.remove(&hops);
            if let Some(slot) = self.sets.get_mut(id.0 as usize - 1) {
                *slot = None;
            }
            self.free.push(id.0);
        }
    }

    pub(crate) fn hops(&self, id: HopSetId) -> Arc<[Hop]> {
        let at = (id.0 as usize).wrapping_sub(1);
        match self.sets.get(at) {
            Some(Some((hops, _))) => Arc::clone(hops),
            _ => Arc::from([]),
        }
    }

    fn slot(&mut self, id: u32) -> Option<&mut (Arc<[Hop]>, u32)> {
        let at = (id as usize).checked_sub(1)?;
        self.sets.get_mut(at)?.as_mut()
    }
}
