//! Floating IPs.

use std::net::Ipv4Addr;

use hextet_types::{FloatingIpId, NetworkId, PortId, QosPolicyId, RouterId};
use serde::{Deserialize, Serialize};

use super::{Standard, Status};

/// A Neutron floating IP: an IPv4 address of an external network that stands for one of a port, or
/// whose ports are forwarded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FloatingIp {
    /// Its identity.
    pub id: FloatingIpId,
    /// Owner, tags, revision and times; it has no name.
    #[serde(flatten)]
    pub standard: Standard,
    /// The external network.
    pub floating_network_id: NetworkId,
    /// The address.
    pub floating_ip_address: Ipv4Addr,
    /// The port that holds the address on the external network.
    pub floating_port_id: PortId,
    /// The port that it stands for.
    #[serde(default)]
    pub port_id: Option<PortId>,
    /// Which of that port's addresses; set exactly when `port_id` is.
    #[serde(default)]
    pub fixed_ip_address: Option<Ipv4Addr>,
    /// The router that translates; set while it stands for a port or has port forwardings.
    #[serde(default)]
    pub router_id: Option<RouterId>,
    /// What holds for all that is translated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub qos_policy_id: Option<QosPolicyId>,
}

impl FloatingIp {
    /// `device_owner` of the port that holds its address.
    pub const OWNER: &str = "network:floatingip";

    /// `ACTIVE` while a router translates it, else `DOWN`.
    pub fn status(&self) -> Status {
        match self.router_id {
            Some(_) => Status::Active,
            None => Status::Down,
        }
    }
}
