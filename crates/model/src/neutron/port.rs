//! Ports.

use std::{collections::BTreeMap, net::IpAddr};

use hextet_types::{
    Family, HostId, IfName, Mac, NetworkId, PortId, Prefix, QosPolicyId, SecurityGroupId, SubnetId,
};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{Exposure, Standard, Status};

/// Owners whose ports are no instance's and do not count against `hextet:single_homed`.
pub const SINGLE_HOMED_EXEMPT_OWNERS: &str = "network:";

/// One address of a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct FixedIp {
    /// Out of this subnet.
    pub subnet_id: SubnetId,
    /// The address.
    pub ip_address: IpAddr,
}

/// One more source address that a port may use (`allowed_address_pairs`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct AddressPair {
    /// The address or prefix.
    pub ip_address: Prefix,
    /// With this MAC.
    pub mac_address: Mac,
}

/// A prefix for a port's workload to hand on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct DelegatedPrefix {
    /// Out of this subnet.
    pub subnet_id: SubnetId,
    /// The prefix, of IPv6; /64 or shorter.
    pub prefix: Prefix,
}

/// One of `extra_dhcp_opts`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct DhcpOption {
    /// By name, as dnsmasq has it, or by number.
    pub opt_name: String,
    /// As text; what it means depends on the option.
    pub opt_value: String,
    /// 4 or 6.
    pub ip_version: u8,
}

/// What a port's workload is told of itself by the metadata service, beyond what follows from the port.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortMetadata {
    /// A host name; else it follows from `dns_name`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub hostname: String,
    /// By name, in OpenSSH's form.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub public_keys: BTreeMap<String, String>,
    /// In Base64; what it is for is not looked at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_data: Option<String>,
    /// Pairs of its owner's own.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub meta: BTreeMap<String, String>,
}

/// `binding:vnic_type`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum VnicType {
    /// A TAP or veth.
    #[default]
    Normal,
}

/// Where a port is plugged (`binding:*`).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Binding {
    /// The host; none while unbound.
    #[serde(rename = "binding:host_id", default)]
    pub host_id: Option<HostId>,
    /// What kind of interface the instance wants.
    #[serde(rename = "binding:vnic_type", default)]
    pub vnic_type: VnicType,
    /// What Nova says about it; kept as it came.
    #[serde(rename = "binding:profile", default)]
    pub profile: serde_json::Map<String, serde_json::Value>,
}

/// A Neutron port.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Port {
    /// Its identity.
    pub id: PortId,
    /// Owner, name, tags, revision and times.
    #[serde(flatten)]
    pub standard: Standard,
    /// The network that it is on.
    pub network_id: NetworkId,
    /// The workload's Ethernet address.
    pub mac_address: Mac,
    /// In the order of their allocation.
    pub fixed_ips: Vec<FixedIp>,
    /// The instance, or empty.
    #[serde(default)]
    pub device_id: String,
    /// What it is part of (`compute:nova`, `network:nat44`), or empty.
    #[serde(default)]
    pub device_owner: String,
    /// While false it passes no packets.
    pub admin_state_up: bool,
    /// `ACTIVE` once its host's kernel passes its packets.
    pub status: Status,
    /// Sorted; at most 50.
    pub security_groups: Vec<SecurityGroupId>,
    /// Without it neither sources nor groups are checked.
    pub port_security_enabled: bool,
    /// At most 10.
    #[serde(default)]
    pub allowed_address_pairs: Vec<AddressPair>,
    /// One of each of its network's subnets that are for delegation, as far as there was one free.
    #[serde(
        rename = "hextet:delegated_prefixes",
        default,
        skip_serializing_if = "Vec::is_empty"
    )]
    pub delegated_prefixes: Vec<DelegatedPrefix>,
    /// More options for its DHCP clients.
    #[serde(default)]
    pub extra_dhcp_opts: Vec<DhcpOption>,
    /// The host name within the network's `dns_domain`, or empty.
    #[serde(default)]
    pub dns_name: String,
    /// What its workload is told besides.
    #[serde(
        rename = "hextet:metadata",
        default,
        skip_serializing_if = "Option::is_none"
    )]
    pub metadata: Option<Box<PortMetadata>>,
    /// Of its host's own IPv4 addresses; sorted.
    #[serde(
        rename = "hextet:exposed",
        default,
        skip_serializing_if = "Vec::is_empty"
    )]
    pub exposed: Vec<Exposure>,
    /// What holds for it instead of its network's policy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub qos_policy_id: Option<QosPolicyId>,
    /// Where it is plugged.
    #[serde(flatten)]
    pub binding: Binding,
}

/// Whether somebody whose sources are so may carry packets of others: nobody checks them, or a pair is more than
/// single addresses.
pub fn may_carry(port_security_enabled: bool, pairs: &[AddressPair]) -> bool {
    !port_security_enabled || pairs.iter().any(|pair| !pair.ip_address.is_host())
}

impl Port {
    /// Whether it may carry packets of others, as a router does: see [`may_carry`].
    pub fn may_carry(&self) -> bool {
        !self.delegated_prefixes.is_empty()
            || may_carry(self.port_security_enabled, &self.allowed_address_pairs)
    }

    /// What it may send from besides its own addresses: its address pairs, and the prefixes that it hands on.
    pub fn pairs(&self) -> impl Iterator<Item = AddressPair> + '_ {
        let delegated = self.delegated_prefixes.iter().map(|delegated| AddressPair {
            ip_address: delegated.prefix,
            mac_address: self.mac_address,
        });
        self.allowed_address_pairs.iter().copied().chain(delegated)
    }

    /// The server of Nova's that it is part of.
    pub fn server(&self) -> Option<Uuid> {
        let server = self.device_id.parse().ok();
        server.filter(|_| self.device_owner.starts_with("compute:"))
    }

    /// The interface on its host.
    pub fn if_name(&self) -> IfName {
        IfName::for_port(self.id)
    }

    /// Whether it may use an address besides its own.
    pub fn may_use(&self, addr: IpAddr) -> bool {
        let mut pairs = self.pairs();
        !self.port_security_enabled || pairs.any(|pair| pair.ip_address.contains(addr))
    }

    /// Its addresses of one family.
    pub fn addresses(&self, family: Family) -> impl Iterator<Item = IpAddr> + '_ {
        self.fixed_ips
            .iter()
            .map(|f| f.ip_address)
            .filter(move |a| Family::of(*a) == family)
    }
}
