//! What programs know of next hops that workloads may choose besides their gateway.

use std::net::IpAddr;

use hextet_types::{IfName, Mac};
use serde::{Deserialize, Serialize};

use super::Netns;

/// Of a next hop besides the gateway, what the program on a port or on a VXLAN device knows: an entry in its map.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hop {
    /// Where the link is.
    pub netns: Netns,
    /// On this link.
    pub link: IfName,
    /// What it knows.
    pub entry: HopEntry,
}

/// See [`Hop`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HopEntry {
    /// Who asks for the address is told this Ethernet address, instead of the gateway's.
    Answer {
        /// The next hop's IP address.
        addr: IpAddr,
        /// The Ethernet address.
        mac: Mac,
    },
    /// What is sent to the Ethernet address gets a mark.
    Way {
        /// The Ethernet address.
        mac: Mac,
        /// Within [`marks::HOP_MASK`].
        mark: u32,
    },
}

/// What names a [`Hop`] on its link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HopKey {
    /// By the address that is asked for.
    Answer(IpAddr),
    /// By the Ethernet address that is sent to.
    Way(Mac),
}

impl Hop {
    /// What names it on its link.
    pub fn hop_key(&self) -> HopKey {
        match self.entry {
            HopEntry::Answer { addr, .. } => HopKey::Answer(addr),
            HopEntry::Way { mac, .. } => HopKey::Way(mac),
        }
    }
}
