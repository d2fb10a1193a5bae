//! Ports of a host's own IPv4 addresses that lead to a port there (`hextet:exposed`).

use serde::{Deserialize, Serialize};

use super::ForwardedProtocol;

/// What comes to a port of any IPv4 address that the host has, goes to the port's first IPv4 address. (IPv6 needs none:
/// each port has an address of its own.)
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Exposure {
    /// Of which protocol.
    pub protocol: ForwardedProtocol,
    /// Of the host; not 0.
    pub external_port: u16,
    /// Of the port; not 0.
    pub internal_port: u16,
}
