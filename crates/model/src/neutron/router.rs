//! Routers.
//!
//! A router's interfaces are ports of its networks, owned by `network:router_interface`; its ports
//! on external networks are owned by `network:router_gateway`. Both name it as their `device_id`.

use hextet_types::{NetworkId, PortId, QosPolicyId, RouterId};
use serde::{Deserialize, Serialize};

use super::{HostRoute, Standard};

/// A router's place on an external network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RouterGateway {
    /// The external network.
    pub network_id: NetworkId,
    /// The router's port there; its addresses are the `external_fixed_ips`.
    pub port_id: PortId,
    /// What holds for all that is translated to its address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub qos_policy_id: Option<QosPolicyId>,
}

/// A Neutron router.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Router {
    /// Its identity.
    pub id: RouterId,
    /// Owner, name, tags, revision and times.
    #[serde(flatten)]
    pub standard: Standard,
    /// While false it forwards no packets.
    pub admin_state_up: bool,
    /// Its gateways; the first one is `external_gateway_info`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub gateways: Vec<RouterGateway>,
    /// Whether what has no floating IP leaves by the gateway's address.
    pub enable_snat: bool,
    /// Extra routes; several next hops of one destination share its traffic.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub routes: Vec<HostRoute>,
    /// Whether single ports may be reachable by NDP proxies.
    #[serde(default)]
    pub enable_ndp_proxy: bool,
    /// Use the default routes of all gateways at the same time.
    #[serde(default)]
    pub enable_default_route_ecmp: bool,
    /// Watch the default routes' next hops by BFD.
    #[serde(default)]
    pub enable_default_route_bfd: bool,
    /// `availability_zone_hints`: the zones that were asked for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub availability_zone_hints: Vec<String>,
}

impl Router {
    /// `device_owner` of its interfaces.
    pub const INTERFACE_OWNER: &str = "network:router_interface";
    /// `device_owner` of its ports on external networks.
    pub const GATEWAY_OWNER: &str = "network:router_gateway";
}
