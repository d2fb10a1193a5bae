//! What a host is told of a router: where it has interfaces, and how it reaches the outside.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
};

use hextet_types::{
    FloatingIpId, HostId, Mac, MeteringLabelId, NetworkId, PortForwardingId, PortId, Prefix,
    QosPolicyId, RouterId,
};
use serde::{Deserialize, Serialize};

use crate::neutron::{self, Direction, FixedIp, ForwardedProtocol, PortRange};

/// A router with its interfaces.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Router {
    /// The router.
    pub router: neutron::Router,
    /// Its interfaces, by their ports; on networks of which all are told.
    pub interfaces: BTreeMap<PortId, RouterInterface>,
    /// Its gateways, by their ports; on external networks, which are told. [`neutron::Router::gateways`] says their
    /// order.
    #[serde(default)]
    pub gateways: BTreeMap<PortId, RouterInterface>,
    /// Where what has no public address of its own is translated; none while no host does that.
    #[serde(default)]
    pub gateway_host: Option<GatewayHost>,
    /// What is reached from outside, and goes there, untranslated: subnets of its interfaces that are in an address
    /// scope of one of its external networks, or, of IPv6 and by a router with NDP proxies, the addresses that have one.
    #[serde(default)]
    pub published: BTreeSet<Prefix>,
    /// What is counted of what passes between it and the outside, by metering labels.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub meters: BTreeMap<MeteringLabelId, BTreeSet<MeterRule>>,
}

/// What a metering label counts, or leaves out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct MeterRule {
    /// What comes from outside is `ingress`.
    pub direction: Direction,
    /// What matches is not counted, whatever other rules of the label say.
    pub excluded: bool,
    /// Where packets come from, as the router's networks know it; from anywhere, where there is none.
    pub source: Option<Prefix>,
    /// Where they go, likewise. There is one of the two at least, and two are of one family.
    pub destination: Option<Prefix>,
}

/// What a host needs to know of a router's port on a network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RouterInterface {
    /// The network.
    pub network_id: NetworkId,
    /// The port's Ethernet address.
    pub mac_address: Mac,
    /// Its addresses; of each subnet, the gateway's as a rule.
    pub fixed_ips: Vec<FixedIp>,
    /// While false nothing passes it.
    pub admin_state_up: bool,
}

/// The host on which a router translates for many.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GatewayHost {
    /// The host; its endpoint is told.
    pub host: HostId,
    /// Of the router's own VXLAN segment, by which other hosts send to this one; no network has it.
    pub segment: u32,
    /// How often the host has changed: of two that think it is theirs, the one with the greater number is right.
    pub generation: u64,
}

/// A floating IP that stands for an address of one of the host's ports.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FloatingIp {
    /// Its identity.
    pub id: FloatingIpId,
    /// The router that translates, which is told.
    pub router_id: RouterId,
    /// The address outside.
    pub floating_ip_address: Ipv4Addr,
    /// The network of the address inside.
    pub network_id: NetworkId,
    /// The address inside.
    pub fixed_ip_address: Ipv4Addr,
    /// Its policy, of [`super::Intent::qos_policies`].
    #[serde(default)]
    pub qos_policy_id: Option<QosPolicyId>,
}

/// Ports of a floating IP that lead to a port: told to the router's gateway host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortForwarding {
    /// Its identity.
    pub id: PortForwardingId,
    /// The router that translates, which is told.
    pub router_id: RouterId,
    /// The address outside.
    pub floating_ip_address: Ipv4Addr,
    /// Of which protocol.
    pub protocol: ForwardedProtocol,
    /// Ports outside.
    pub external_port_range: PortRange,
    /// The network of the address inside.
    pub network_id: NetworkId,
    /// The address inside.
    pub internal_ip_address: Ipv4Addr,
    /// Ports inside; as many, or one.
    pub internal_port_range: PortRange,
}
