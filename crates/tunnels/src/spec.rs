//! What a tunnel is to be.

use std::net::SocketAddr;

use hextet_types::{IfName, Way};
use serde::{Deserialize, Serialize};

use crate::Key;

/// A tunnel, as whoever controls it wants it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Spec {
    /// Its interface.
    pub name: IfName,
    /// Ours.
    pub private_key: Key,
    /// The peer's, public.
    pub peer_key: Key,
    /// A secret that only the two have, besides.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub preshared_key: Option<Key>,
    /// Where the peer's datagrams come.
    pub listen: Listen,
    /// The interface that outer packets leave by, whatever routes say; a door has its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uplink: Option<IfName>,
    /// Where the peer is at first; nowhere, if it is to be waited for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<Way>,
    /// Where else it may be, of both families: 8 at most. It is sought at all of them at once, until it is heard; one
    /// that is heard by a stream goes on to be sought by UDP.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub candidates: Vec<Way>,
    /// Something is sent at least that often, in seconds, and the peer looked for again and again; 0 for only when there is something to
    /// say.
    #[serde(default)]
    pub keepalive_secs: u16,
    /// Of the interface.
    pub mtu: Mtu,
    /// Up to that much is tried, and what the path carries becomes the interface's; without it, the MTU stays.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub most_mtu: Option<Mtu>,
    /// Whether packets come and go in pieces of up to 64 KiB: some drivers can't.
    #[serde(default = "yes")]
    pub segments: bool,
}

/// Where a tunnel hears its peer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Listen {
    /// A port that no other has; 0 for any that is free. Its family is the tunnel's outer one.
    Own(SocketAddr),
    /// Doors that the process has opened, by their addresses: one of each family at most.
    Doors(Vec<SocketAddr>),
}

const fn yes() -> bool {
    true
}

/// Octets of an inner packet at most: 1,280 to 9,000.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "u16", into = "u16")]
pub struct Mtu(u16);

/// An MTU that no tunnel has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an MTU of {0}: a tunnel's is 1280 (RFC 8200 §5) to 9000")]
pub struct MtuError(u16);

impl TryFrom<u16> for Mtu {
    type Error = MtuError;

    fn try_from(octets: u16) -> Result<Mtu, MtuError> {
        if (1_280..=9_000).contains(&octets) {
            Ok(Mtu(octets))
        } else {
            Err(MtuError(octets))
        }
    }
}

impl From<Mtu> for u16 {
    fn from(mtu: Mtu) -> u16 {
        mtu.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_mtu_has_bounds() {
        let of = |octets: u16| Mtu::try_from(octets).map(u16::from);
        assert_eq!((of(1_280), of(9_000)), (Ok(1_280), Ok(9_000)));
        assert_eq!(
            (of(1_279), of(9_001)),
            (Err(MtuError(1_279)), Err(MtuError(9_001)))
        );
    }
}
