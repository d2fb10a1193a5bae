//! NDP proxies.

use std::net::Ipv6Addr;

use hextet_types::{NdpProxyId, PortId, RouterId};
use serde::{Deserialize, Serialize};

use super::Standard;

/// A Neutron NDP proxy: one IPv6 address of a port that is reachable from outside by way of its
/// router, without translation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NdpProxy {
    /// Its identity.
    pub id: NdpProxyId,
    /// Owner, name, revision and times.
    #[serde(flatten)]
    pub standard: Standard,
    /// The router on whose external network it is reachable.
    pub router_id: RouterId,
    /// The port.
    pub port_id: PortId,
    /// Which of the port's addresses.
    pub ip_address: Ipv6Addr,
}
