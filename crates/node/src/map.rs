//! The whole mesh, as one node could ask for it: who is there, and who is next to whom; for people as a picture.
//!
//! What always holds: a link is there once, whichever of its ends has told of it; the same mesh makes the same picture.

mod layout;
mod svg;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv6Addr,
};

use hextet_mesh::{certificate::NodeId, letter::Neighbour};
use serde::{Deserialize, Serialize};

pub use svg::{page, svg};

/// All of it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Map {
    /// Ascending by number.
    pub nodes: Vec<Spot>,
    /// Ascending by their ends.
    pub links: Vec<Link>,
}

/// A node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spot {
    /// Its number.
    pub node: String,
    /// Its first address, if its certificate has been seen.
    pub home: Option<Ipv6Addr>,
    /// Whether it is the one that was asked.
    pub this: bool,
    /// Whether it has told of its neighbours; else others have named it, or it is known and silent.
    pub answered: bool,
}

/// Two nodes that are next to each other.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Link {
    /// Their numbers, the lower first.
    pub ends: [String; 2],
    /// Whether packets go between them without a tunnel.
    pub beside: bool,
    /// The least of the last round trips, of what both say the lesser, in milliseconds.
    pub round_trip_ms: Option<f64>,
}

/// Of what nodes have answered. Others that are known are there, too, without a link.
pub fn map(
    me: NodeId,
    found: &BTreeMap<NodeId, Vec<Neighbour>>,
    homes: &BTreeMap<NodeId, Ipv6Addr>,
) -> Map {
    let named = found.values().flatten().map(|neighbour| neighbour.node);
    let all: BTreeSet<NodeId> = named
        .chain(found.keys().chain(homes.keys()).copied())
        .collect();
    let nodes = all.into_iter().map(|node| Spot {
        node: node.to_string(),
        home: homes.get(&node).copied(),
        this: node == me,
        answered: found.contains_key(&node),
    });
    let mut links: BTreeMap<[NodeId; 2], Link> = BTreeMap::new();
    for (node, neighbours) in found {
        for neighbour in neighbours.iter().filter(|other| other.node != *node) {
            let mut ends = [*node, neighbour.node];
            ends.sort_unstable();
            let link = links.entry(ends).or_insert_with(|| Link {
                ends: ends.map(|end| end.to_string()),
                beside: false,
                round_trip_ms: None,
            });
            let millis = neighbour.round_trip.map(|time| f64::from(time.0) / 1_000.0);
            link.beside |= neighbour.is_beside;
            link.round_trip_ms = match (link.round_trip_ms, millis) {
                (Some(one), Some(other)) => Some(one.min(other)),
                (one, other) => one.or(other),
            };
        }
    }
    Map {
        nodes: nodes.collect(),
        links: links.into_values().collect(),
    }
}

#[cfg(test)]
mod tests;
