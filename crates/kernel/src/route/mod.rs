//! rtnetlink: links, addresses, neighbours, routes, policy rules, each written and read in one place.
//!
//! Names become indexes here and nowhere else. What we make carries [`PROTOCOL`], so that what is ours
//! can be told from what is not by asking the kernel alone.

pub mod address;
pub mod entry;
pub mod fdb;
pub mod group;
pub mod link;
pub mod made;
pub mod neighbour;
pub mod rule;

use std::collections::HashMap;

use hextet_types::{Family, IfName};

/// The number on our routes (`rtm_protocol`), rules, neighbours and addresses: an ASCII `h`. Free in iproute2's
/// `rt_protos` and in FRR's (190 to 198, which FRR sweeps at its start), Calico's (80) and OVN's (84).
pub const PROTOCOL: u8 = 104;
/// The number on what a node of a mesh has in the kernel ([`crate::ways`]): the one after the cloud's.
pub const MESH_PROTOCOL: u8 = 105;

const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;

pub(crate) fn af(family: Family) -> u8 {
    match family {
        Family::V4 => AF_INET,
        Family::V6 => AF_INET6,
    }
}

pub(crate) fn family(af: u8) -> Option<Family> {
    match af {
        AF_INET => Some(Family::V4),
        AF_INET6 => Some(Family::V6),
        _ => None,
    }
}

/// A namespace's links as they were found, by name and by index.
#[derive(Clone, Debug, Default)]
pub struct Indexes {
    by_name: HashMap<IfName, u32>,
    by_index: HashMap<u32, link::Found>,
}

impl Indexes {
    /// Adds a link.
    pub fn insert(&mut self, link: link::Found) {
        self.by_name.insert(link.name.clone(), link.index);
        self.by_index.insert(link.index, link);
    }

    /// A link's index.
    pub fn index(&self, name: &IfName) -> Option<u32> {
        self.by_name.get(name).copied()
    }

    /// A link's name.
    pub fn name(&self, index: u32) -> Option<&IfName> {
        self.by_index.get(&index).map(|link| &link.name)
    }

    /// All names and indexes.
    pub fn all(&self) -> impl Iterator<Item = (&IfName, u32)> {
        self.by_name.iter().map(|(name, index)| (name, *index))
    }

    /// All links as they were found.
    pub fn found(&self) -> impl Iterator<Item = &link::Found> {
        self.by_index.values()
    }

    /// The link of an index, as it was found.
    pub fn at(&self, index: u32) -> Option<&link::Found> {
        self.by_index.get(&index)
    }

    /// A link as it was found.
    pub fn get(&self, name: &IfName) -> Option<&link::Found> {
        self.by_index.get(self.by_name.get(name)?)
    }
}
