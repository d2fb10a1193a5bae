//! Networks, subnets, ports, routers and security groups, with the names and shapes of the OpenStack
//! Networking API v2.0.
//!
//! These are the stored and the shown form at once. A value of these types has been validated: what
//! a client sends is checked against the resource's description before it becomes one.

mod address_group;
mod address_scope;
mod exposure;
mod floating_ip;
mod metering;
mod ndp_proxy;
mod network;
mod port;
mod port_forwarding;
mod qos;
mod rbac;
mod router;
mod security_group;
mod subnet;
mod subnet_pool;

use hextet_types::ProjectId;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

pub use address_group::AddressGroup;
pub use address_scope::AddressScope;
pub use exposure::Exposure;
pub use floating_ip::FloatingIp;
pub use metering::{MeteringLabel, MeteringRule};
pub use ndp_proxy::NdpProxy;
pub use network::{Network, NetworkType};
pub use port::{
    AddressPair, Binding, DelegatedPrefix, DhcpOption, FixedIp, Port, PortMetadata,
    SINGLE_HOMED_EXEMPT_OWNERS, VnicType, may_carry,
};
pub use port_forwarding::{ForwardedProtocol, PortForwarding, PortRange, PortRangeError};
pub use qos::{QosPolicy, QosRule, QosRuleKind};
pub use rbac::{RbacAction, RbacPolicy, RbacType};
pub use router::{Router, RouterGateway};
pub use security_group::{AsWritten, Direction, Protocol, SecurityGroup, SecurityGroupRule};
pub use subnet::{AllocationPool, Delegation, HostRoute, Ipv6Mode, Nat44, Subnet};
pub use subnet_pool::SubnetPool;

/// What every resource carries (Neutron's "standard attributes").
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Standard {
    /// The owner; empty for what belongs to the cloud itself.
    pub project_id: ProjectId,
    /// A name for people, at most 255 characters; need not be unique.
    #[serde(default)]
    pub name: String,
    /// Free text, at most 255 characters.
    #[serde(default)]
    pub description: String,
    /// Sorted, without repetition; at most 50 of at most 60 characters.
    #[serde(default)]
    pub tags: Vec<String>,
    /// Grows by at least one with each change.
    pub revision_number: u64,
    /// In whole seconds, UTC.
    pub created_at: Timestamp,
    /// In whole seconds, UTC.
    pub updated_at: Timestamp,
}

/// `status` of networks and ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Status {
    /// Programmed and passing packets.
    Active,
    /// Not (yet) programmed, or administratively down.
    Down,
    /// Waiting for something that hextet itself does.
    Build,
    /// Cannot work as it is; never used for a passing fault.
    Error,
}
