//! Subnets.

use std::net::IpAddr;

use hextet_types::{Family, NetworkId, Prefix, SubnetId, SubnetPoolId};
use serde::{Deserialize, Serialize};

use super::Standard;

/// `ipv6_address_mode` and `ipv6_ra_mode`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Ipv6Mode {
    /// Addresses from RA prefixes (EUI-64); nothing by DHCPv6.
    Slaac,
    /// Addresses by DHCPv6.
    Dhcpv6Stateful,
    /// Addresses from RA prefixes, everything else by DHCPv6.
    Dhcpv6Stateless,
}

/// Addresses from which ports are served, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct AllocationPool {
    /// The first.
    pub start: IpAddr,
    /// The last.
    pub end: IpAddr,
}

/// A route that clients are told (DHCPv4 option 121).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct HostRoute {
    /// Where to.
    pub destination: Prefix,
    /// By way of.
    pub nexthop: IpAddr,
}

/// NAT44 of a private IPv4 subnet on each host that has a port in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Nat44 {
    /// The subnet whose addresses the hosts get as sources (as ports owned by `network:nat44`). Without one, each host's own
    /// address is the source, on whichever link a packet leaves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pool_subnet_id: Option<SubnetId>,
    /// How many of them each host gets; 1 to 16. Says nothing without a pool.
    pub addresses_per_host: u8,
    /// Connections that one port may have open through the translator; more are refused.
    pub max_connections_per_port: u32,
}

/// What makes a subnet's prefixes, rather than its addresses, those that ports get: for their workloads to hand on
/// (RFC 8415 §6.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Delegation {
    /// The length of what each port gets; that of the subnet's prefix to 64.
    pub prefixlen: u8,
    /// Whether workloads are told that this is better than an address on the link (RFC 9762).
    #[serde(default)]
    pub preferred: bool,
}

/// A Neutron subnet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subnet {
    /// Its identity.
    pub id: SubnetId,
    /// Owner, name, tags, revision and times.
    #[serde(flatten)]
    pub standard: Standard,
    /// The network that it is part of.
    pub network_id: NetworkId,
    /// Its prefix.
    pub cidr: Prefix,
    /// The address that clients are told as their router; it need not be anybody's.
    pub gateway_ip: Option<IpAddr>,
    /// Disjoint, sorted, inside `cidr`, without the gateway.
    pub allocation_pools: Vec<AllocationPool>,
    /// Whether ports get their addresses from hextet (DHCPv4; for IPv6 by RA and DHCPv6 as the modes say).
    pub enable_dhcp: bool,
    /// In order of preference.
    #[serde(default)]
    pub dns_nameservers: Vec<IpAddr>,
    /// More routes for clients.
    #[serde(default)]
    pub host_routes: Vec<HostRoute>,
    /// Who sends RAs, and which.
    #[serde(default)]
    pub ipv6_ra_mode: Option<Ipv6Mode>,
    /// How ports get their addresses.
    #[serde(default)]
    pub ipv6_address_mode: Option<Ipv6Mode>,
    /// The pool that its prefix is out of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subnetpool_id: Option<SubnetPoolId>,
    /// Only ports of these owners (`device_owner`) get addresses of it; all when empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub service_types: Vec<String>,
    /// Translate its IPv4 on each host.
    #[serde(rename = "hextet:nat44", default)]
    pub nat44: Option<Nat44>,
    /// Ports get prefixes of it, and no addresses. It may cover other subnets of its network; what these have is nobody else's.
    #[serde(
        rename = "hextet:delegation",
        default,
        skip_serializing_if = "Option::is_none"
    )]
    pub delegation: Option<Delegation>,
}

impl Subnet {
    /// The family of its prefix (`ip_version`).
    pub fn family(&self) -> Family {
        self.cidr.family()
    }
}
