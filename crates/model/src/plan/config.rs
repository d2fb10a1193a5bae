//! What a host's own configuration says that planning needs; the rest of the agent's file is the agent's.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
};

use hextet_types::{HostId, IfName, Mac, Prefix};
use serde::{Deserialize, Serialize};

use crate::state::Scope;

/// The part of the agent's TOML file that planning reads (`[host]`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HostConfig {
    /// The name by which the cloud knows this host.
    pub host: HostId,
    /// Interfaces towards the fabric: what leaves by them for outside the cloud is translated (NAT44).
    #[serde(default)]
    pub uplinks: BTreeSet<IfName>,
    /// The interfaces by which this host is on physical networks (`provider:physical_network`); they are uplinks, too.
    #[serde(default)]
    pub physical_networks: BTreeMap<String, IfName>,
    /// Uplinks on which the host itself goes by router advertisements, and is to when it forwards. The agent finds out.
    #[serde(skip)]
    pub hears_routers: BTreeSet<IfName>,
    /// The Ethernet address of the host's end of every port, the same on all hosts.
    #[serde(default = "default_gateway_mac")]
    pub gateway_mac: Mac,
    /// The source of ICMP errors that this host sends over IPv4; it stands on `lo`.
    #[serde(default = "default_link_local_v4")]
    pub link_local_v4: Ipv4Addr,
    /// Interfaces whose names begin so are ports of workloads: nothing passes one that no plan knows.
    #[serde(default = "default_port_prefixes")]
    pub port_prefixes: BTreeSet<IfName>,
    /// Interfaces that are named like ports and are none.
    #[serde(default)]
    pub exempt: BTreeSet<IfName>,
    /// Drop what goes to an address inside the cloud for which there is no better route, instead of
    /// sending it to the uplink. Only right where the uplink takes in the host routes of all others.
    #[serde(default)]
    pub blackhole_inside: bool,
    /// More connections than this that a port has open, or that others have open to it, are refused: the
    /// host's table of connections is everybody's. To be well below `net.netfilter.nf_conntrack_max`.
    #[serde(default = "default_max_connections")]
    pub max_connections_per_port: u32,
    /// Announced in place of the host routes that lie in them.
    #[serde(default)]
    pub aggregates: Vec<Aggregate>,
}

/// A prefix out of which this host alone serves addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Aggregate {
    /// The prefix.
    pub prefix: Prefix,
    /// How far it may travel.
    #[serde(default = "default_scope")]
    pub scope: Scope,
}

impl HostConfig {
    /// The defaults, for this host.
    pub fn new(host: HostId) -> Self {
        HostConfig {
            host,
            uplinks: BTreeSet::new(),
            physical_networks: BTreeMap::new(),
            hears_routers: BTreeSet::new(),
            gateway_mac: default_gateway_mac(),
            link_local_v4: default_link_local_v4(),
            port_prefixes: default_port_prefixes(),
            exempt: BTreeSet::new(),
            blackhole_inside: false,
            max_connections_per_port: default_max_connections(),
            aggregates: Vec::new(),
        }
    }

    /// What holds in the namespaces of private networks: nothing leads outside from there.
    pub(crate) fn inside(&self) -> HostConfig {
        HostConfig {
            uplinks: BTreeSet::new(),
            physical_networks: BTreeMap::new(),
            hears_routers: BTreeSet::new(),
            aggregates: Vec::new(),
            blackhole_inside: false,
            ..self.clone()
        }
    }

    /// Interfaces by which packets leave the cloud.
    pub fn all_uplinks(&self) -> BTreeSet<&IfName> {
        let physical = self.physical_networks.values();
        self.uplinks.iter().chain(physical).collect()
    }

    /// Whether an aggregate stands for that prefix.
    pub(crate) fn aggregated(&self, prefix: Prefix) -> bool {
        self.aggregates.iter().any(|a| a.prefix.covers(prefix))
    }
}

fn default_gateway_mac() -> Mac {
    Mac::new([0x02, 0x68, 0x78, 0, 0, 1])
}

fn default_link_local_v4() -> Ipv4Addr {
    Ipv4Addr::new(169, 254, 0, 1)
}

fn default_port_prefixes() -> BTreeSet<IfName> {
    "tap".parse().into_iter().collect()
}

fn default_max_connections() -> u32 {
    16_384
}

fn default_scope() -> Scope {
    Scope::Global
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_all_it_takes_and_unknown_keys_are_refused() {
        let config: HostConfig = toml::from_str("host = 'compute-1'").unwrap();
        assert_eq!(config, HostConfig::new("compute-1".parse().unwrap()));
        assert_eq!(config.max_connections_per_port, 16_384);
        assert_eq!(config.gateway_mac.to_string(), "02:68:78:00:00:01");
        assert!(toml::from_str::<HostConfig>("host = 'a'\nuplink = ['eth0']").is_err());
    }

    #[test]
    fn an_aggregate_travels_anywhere_unless_told_otherwise() {
        let text = "host = 'a'\naggregates = [{ prefix = '2001:db8:1::/48' }, \
                    { prefix = '10.1.0.0/16', scope = 'fabric' }]";
        let config: HostConfig = toml::from_str(text).unwrap();
        let scopes: Vec<_> = config.aggregates.iter().map(|a| a.scope).collect();
        assert_eq!(scopes, [Scope::Global, Scope::Fabric]);
        assert!(config.aggregated("10.1.2.3".parse().unwrap()));
        assert!(!config.aggregated("10.2.0.0/15".parse().unwrap()));
    }
}
