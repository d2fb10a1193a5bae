//! The prefixes of one family and the paths to each.

use std::{collections::VecDeque, hash::BuildHasher, net::IpAddr, sync::Arc};

use hashbrown::{DefaultHashBuilder, HashTable, hash_table};
use hextet_types::Prefix;

use super::{SourceId, hops::HopSetId};
use crate::packet::PathAttributes;

/// Names a prefix of a table for as long as it has paths or somebody still has to be told of it.
pub(crate) type NetId = u32;

/// A path that a peer has announced and that was accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Path {
    pub(crate) attributes: Arc<PathAttributes>,
    pub(crate) source: SourceId,
    flags: u8,
}

const STALE: u8 = 1;
const LONG_LIVED: u8 = 2;

impl Path {
    pub(crate) const fn new(attributes: Arc<PathAttributes>, source: SourceId) -> Self {
        Path {
            attributes,
            source,
            flags: 0,
        }
    }

    /// Its peer has restarted, or is telling all again, and has not confirmed it yet.
    pub(crate) const fn is_stale(&self) -> bool {
        self.flags & STALE != 0
    }

    /// Kept past the restart time (RFC 9494).
    pub(crate) const fn is_long_lived(&self) -> bool {
        self.flags & LONG_LIVED != 0
    }
}

/// Most prefixes have one path, and pay for one.
#[derive(Clone, Debug)]
enum Paths {
    One(Path),
    Many(Box<[Path]>),
}

impl Paths {
    fn none() -> Self {
        Paths::Many(Box::default())
    }

    fn as_slice(&self) -> &[Path] {
        match self {
            Paths::One(path) => std::slice::from_ref(path),
            Paths::Many(paths) => paths,
        }
    }

    fn as_mut_slice(&mut self) -> &mut [Path] {
        match self {
            Paths::One(path) => std::slice::from_mut(path),
            Paths::Many(paths) => paths,
        }
    }

    fn push(&mut self, path: Path) {
        let before = std::mem::replace(self, Paths::none());
        *self = match before {
            Paths::Many(paths) if paths.is_empty() => Paths::One(path),
            Paths::One(first) => Paths::Many(Box::new([first, path])),
            Paths::Many(paths) => {
                let mut paths = paths.into_vec();
                paths.push(path);
                Paths::Many(paths.into())
            }
        };
    }

    /// Returns how many went.
    fn retain(&mut self, keep: impl Fn(&Path) -> bool) -> usize {
        let all = self.as_slice().len();
        let kept = self.as_slice().iter().filter(|p| keep(p)).count();
        if kept < all {
            let mut left = Paths::none();
            self.as_slice()
                .iter()
                .filter(|p| keep(p))
                .for_each(|p| left.push(p.clone()));
            *self = left;
        }
        all - kept
    }
}

#[derive(Debug)]
struct Net {
    paths: Paths,
    hops: HopSetId,
    /// How many peers have it in their queues.
    queued: u16,
    dirty: bool,
    prefix: Prefix,
}

/// A prefix in the index. Its hash stands beside its id, so that an index that grows needs not look at each
/// prefix again, wherever in memory that is.
#[derive(Clone, Copy, Debug)]
struct Entry {
    hash: u32,
    id: NetId,
}

impl Entry {
    /// The index's upper bits pick a place within a group, its lower ones the group: both from all there are.
    const fn spread(hash: u32) -> u64 {
        (hash as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15)
    }
}

/// The prefixes of one family. A prefix whose paths have changed is *dirty* and stands in a queue,
/// once, until [`Table::next_dirty`] hands it out.
#[derive(Debug)]
pub(crate) struct Table {
    nets: Vec<Net>,
    free: Vec<NetId>,
    index: HashTable<Entry>,
    hasher: DefaultHashBuilder,
    dirty: VecDeque<NetId>,
}

impl Default for Table {
    fn default() -> Self {
        Table {
            nets: Vec::new(),
            free: Vec::new(),
            index: HashTable::new(),
            hasher: DefaultHashBuilder::default(),
            dirty: VecDeque::new(),
        }
    }
}

fn hash(hasher: &DefaultHashBuilder, prefix: &Prefix) -> u32 {
    let hash = match prefix.addr() {
        IpAddr::V4(addr) => {
            hasher.hash_one(u64::from(addr.to_bits()) << 8 | u64::from(prefix.len()))
        }
        IpAddr::V6(addr) => hasher.hash_one((addr.to_bits(), prefix.len())),
    };
    let [a, b, c, d, ..] = hash.to_ne_bytes();
    u32::from_ne_bytes([a, b, c, d])
}

/// Whether an entry is that prefix's.
fn is_of<'n>(nets: &'n [Net], hash: u32, prefix: &'n Prefix) -> impl Fn(&Entry) -> bool + 'n {
    move |entry| {
        entry.hash == hash
            && nets
                .get(entry.id as usize)
                .is_some_and(|net| net.prefix == *prefix)
    }
}

impl Table {
    /// Prefixes there are, those included that somebody still has to be told are gone.
    pub(crate) fn len(&self) -> usize {
        self.index.len()
    }

    /// One more than the largest id.
    pub(crate) fn end(&self) -> NetId {
        NetId::try_from(self.nets.len()).unwrap_or(NetId::MAX)
    }

    pub(crate) fn find(&self, prefix: Prefix) -> Option<NetId> {
        let hash = hash(&self.hasher, &prefix);
        let found = self
            .index
            .find(Entry::spread(hash), is_of(&self.nets, hash, &prefix));
        found.map(|entry| entry.id)
    }

    pub(crate) fn prefix(&self, id: NetId) -> Option<Prefix> {
        self.nets.get(id as usize).map(|net| net.prefix)
    }

    pub(crate) fn paths(&self, id: NetId) -> &[Path] {
        match self.nets.get(id as usize) {
            Some(net) => net.paths.as_slice(),
            None => &[],
        }
    }

    pub(crate) fn is_dirty(&self, id: NetId) -> bool {
        self.nets.get(id as usize).is_some_and(|net| net.dirty)
    }

    pub(crate) fn hops(&self, id: NetId) -> HopSetId {
        self.nets
            .get(id as usize)
            .map_or(HopSetId::NONE, |net| net.hops)
    }

    pub(crate) fn set_hops(&mut self, id: NetId, hops: HopSetId) {
        if let Some(net) = self.nets.get_mut(id as usize) {
            net.hops = hops;
        }
    }

    /// Prefixes that have paths.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (NetId, Prefix, &[Path])> {
        (0..).zip(&self.nets).filter_map(|(id, net)| {
            let paths = net.paths.as_slice();
            (!paths.is_empty()).then_some((id, net.prefix, paths))
        })
    }

    fn find_or_add(&mut self, prefix: &Prefix) -> NetId {
        let hash = hash(&self.hasher, prefix);
        let place = self.index.entry(
            Entry::spread(hash),
            is_of(&self.nets, hash, prefix),
            |entry| Entry::spread(entry.hash),
        );
        let vacant = match place {
            hash_table::Entry::Occupied(known) => return known.get().id,
            hash_table::Entry::Vacant(vacant) => vacant,
        };
        let net = Net {
            paths: Paths::none(),
            hops: HopSetId::NONE,
            queued: 0,
            dirty: false,
            prefix: *prefix,
        };
        let id = match self.free.pop() {
            Some(id) => {
                if let Some(slot) = self.nets.get_mut(id as usize) {
                    *slot = net;
                }
                id
            }
            None => {
                let id = NetId::try_from(self.nets.len()).unwrap_or(NetId::MAX);
                self.nets.push(net);
                id
            }
        };
        vacant.insert(Entry { hash, id });
        id
    }

    fn mark_dirty(&mut self, id: NetId) {
        if let Some(net) = self.nets.get_mut(id as usize)
            && !net.dirty
        {
            net.dirty = true;
            self.dirty.push_back(id);
        }
    }

    /// Puts a path in, in the place of the same source's earlier one. Returns whether there was none.
    pub(crate) fn insert(&mut self, prefix: &Prefix, path: Path) -> bool {
        let id = self.find_or_add(prefix);
        let Some(net) = self.nets.get_mut(id as usize) else {
            return false;
        };
        let same = |p: &&mut Path| p.source == path.source;
        let new = match net.paths.as_mut_slice().iter_mut().find(same) {
            Some(known) => {
                let unchanged =
                    Arc::ptr_eq(&known.attributes, &path.attributes) && known.flags == path.flags;
                *known = path;
                if unchanged {
                    return false;
                }
                false
            }
            None => {
                net.paths.push(path);
                true
            }
        };
        self.mark_dirty(id);
        new
    }

    /// Takes the path of a source out. Returns whether there was one.
    pub(crate) fn remove(&mut self, prefix: Prefix, source: SourceId) -> bool {
        let Some(id) = self.find(prefix) else {
            return false;
        };
        let gone = match self.nets.get_mut(id as usize) {
            Some(net) => net.paths.retain(|p| p.source != source),
            None => 0,
        };
        if gone > 0 {
            self.mark_dirty(id);
        }
        gone > 0
    }

    /// Takes all paths of a source out that `which` is true of. Returns how many.
    pub(crate) fn remove_where(
        &mut self,
        source: SourceId,
        which: impl Fn(&Path) -> bool,
    ) -> usize {
        let mut gone = 0;
        for id in 0..self.end() {
            let Some(net) = self.nets.get_mut(id as usize) else {
                continue;
            };
            let lost = net.paths.retain(|p| p.source != source || !which(p));
            if lost > 0 {
                gone += lost;
                self.mark_dirty(id);
            }
        }
        gone
    }

    /// Marks all paths of a source stale; nothing changes by that alone.
    pub(crate) fn mark_stale(&mut self, source: SourceId) {
        for path in self
            .nets
            .iter_mut()
            .flat_map(|net| net.paths.as_mut_slice())
        {
            if path.source == source {
                path.flags |= STALE;
            }
        }
    }

    /// Marks the stale paths of a source long-lived: they are used last from now on.
    pub(crate) fn mark_long_lived(&mut self, source: SourceId) {
        for id in 0..self.end() {
            let Some(net) = self.nets.get_mut(id as usize) else {
                continue;
            };
            let mut changed = false;
            for path in net.paths.as_mut_slice() {
                if path.source == source && path.is_stale() && !path.is_long_lived() {
                    path.flags |= LONG_LIVED;
                    changed = true;
                }
            }
            if changed {
                self.mark_dirty(id);
            }
        }
    }

    /// Makes the prefixes dirty that have paths of a source: what is known of it has changed.
    pub(crate) fn touch(&mut self, source: SourceId) {
        for id in 0..self.end() {
            if self.paths(id).iter().any(|p| p.source == source) {
                self.mark_dirty(id);
            }
        }
    }

    /// The next prefix whose paths have changed; it is clean from then on.
    pub(crate) fn next_dirty(&mut self) -> Option<NetId> {
        let id = self.dirty.pop_front()?;
        if let Some(net) = self.nets.get_mut(id as usize) {
            net.dirty = false;
        }
        Some(id)
    }

    pub(crate) fn has_dirty(&self) -> bool {
        !self.dirty.is_empty()
    }

    /// Somebody has to be told of it.
    pub(crate) fn queue(&mut self, id: NetId) {
        if let Some(net) = self.nets.get_mut(id as usize) {
            net.queued += 1;
        }
    }

    /// Somebody was told, or no longer has to be.
    pub(crate) fn unqueue(&mut self, id: NetId) {
        if let Some(net) = self.nets.get_mut(id as usize) {
            net.queued = net.queued.saturating_sub(1);
        }
        self.forget_if_unused(id);
    }

    /// Frees the id of a prefix that nothing refers to.
    pub(crate) fn forget_if_unused(&mut self, id: NetId) {
        let Some(net) = self.nets.get(id as usize) else {
            return;
        };
        let used = !net.paths.as_slice().is_empty()
            || net.queued > 0
            || net.dirty
            || net.hops != HopSetId::NONE;
        if used {
            return;
        }
        let entry = self
            .index
            .find_entry(Entry::spread(hash(&self.hasher, &net.prefix)), |known| {
                known.id == id
            });
        if let Ok(entry) = entry {
            entry.remove();
            self.free.push(id);
        }
    }
}
