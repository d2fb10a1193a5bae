//! Networks.

use hextet_types::{NetworkId, QosPolicyId};
use serde::{Deserialize, Serialize};

use super::{Standard, Status};

/// `provider:network_type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NetworkType {
    /// Pure layer 3: a host route for each address, announced by the host; no layer 2 beyond the port.
    Routed,
    /// A physical network as it is: its ports are reached on the link, where each host answers for its own.
    Flat,
    /// Private: a namespace of its own on each host that has a port in it, and VXLAN (RFC 7348) between them.
    Vxlan,
}

impl NetworkType {
    /// Whether it is on links that others are on, too.
    pub fn is_physical(self) -> bool {
        self == NetworkType::Flat
    }
}

/// A Neutron network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Network {
    /// Its identity.
    pub id: NetworkId,
    /// Owner, name, tags, revision and times.
    #[serde(flatten)]
    pub standard: Standard,
    /// While false its ports pass no packets.
    pub admin_state_up: bool,
    /// `ACTIVE` unless administratively down.
    pub status: Status,
    /// Every project may put ports on it.
    pub shared: bool,
    /// `router:external`: routers may have their gateway on it.
    #[serde(rename = "router:external")]
    pub external: bool,
    /// The external network of choice (`is_default`).
    #[serde(default)]
    pub is_default: bool,
    /// What its ports are told, in octets; 1280 (68 without IPv6) to 65535.
    pub mtu: u16,
    /// Default for its new ports.
    pub port_security_enabled: bool,
    /// How it is built.
    #[serde(rename = "provider:network_type")]
    pub network_type: NetworkType,
    /// The physical network under a flat or VLAN network.
    #[serde(rename = "provider:physical_network", default)]
    pub physical_network: Option<String>,
    /// The VLAN or VXLAN segment.
    #[serde(rename = "provider:segmentation_id", default)]
    pub segmentation_id: Option<u32>,
    /// The domain its ports' names are in; empty for none.
    #[serde(default)]
    pub dns_domain: String,
    /// `availability_zone_hints`: the zones that were asked for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub availability_zone_hints: Vec<String>,
    /// An instance has at most one port on all such networks of the cloud together.
    #[serde(rename = "hextet:single_homed", default)]
    pub single_homed: bool,
    /// What holds for those of its workloads' ports that have no policy of their own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub qos_policy_id: Option<QosPolicyId>,
}
