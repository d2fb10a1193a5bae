//! The cloud that is measured: private networks with a port for each workload, in the group that every project
//! begins with; and a router.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use anyhow::{Context, Result};
use hextet_bench::intent::{default_group, resource};
use hextet_model::{
    intent::{Change, RoutingDomain, TunnelEndpoint},
    neutron::{Network, Port, Router, Subnet},
};
use hextet_types::{Family, HostId, IfName, Mac, NetworkId, PortId, SecurityGroupId};
use serde_json::json;
use uuid::Uuid;

const GROUP: Uuid = Uuid::from_u128(0x6_0000);
const ROUTER: Uuid = Uuid::from_u128(0x5_0000);

/// What tells things of a kind apart: both their first digits, which links are named by, and the last ones, which
/// namespaces are named by.
fn id(kind: u16, n: u16) -> Uuid {
    let both = (u64::from(kind) << 16) | u64::from(n);
    Uuid::from_u64_pair(both << 32, both)
}

/// A workload's place: the station of that number in the network of that number.
#[derive(Clone, Copy, Debug)]
pub struct Station {
    /// Of which network.
    pub network: u16,
    /// Its number there; 1 is the gateway's.
    pub n: u8,
}

impl Station {
    /// Its port.
    pub fn port(self) -> PortId {
        PortId(id(0x1000 + u16::from(self.n), self.network))
    }

    /// Its link on the host.
    pub fn link(self) -> IfName {
        IfName::for_port(self.port())
    }

    /// Its Ethernet address.
    pub fn mac(self) -> Mac {
        let [a, b] = self.network.to_be_bytes();
        Mac::new([0xfa, 0x16, 0x3e, a, b, self.n])
    }

    /// Its addresses, IPv4 first.
    pub fn addresses(self) -> [IpAddr; 2] {
        let [a, b] = self.network.to_be_bytes();
        let v6 = Ipv6Addr::new(0xfd00, self.network, 0, 0, 0, 0, 0, u16::from(self.n));
        [Ipv4Addr::new(10, a, b, self.n).into(), v6.into()]
    }

    /// As the server tells it to its host.
    ///
    /// # Errors
    ///
    /// It is not described as ports are.
    pub fn told(self) -> Result<Change> {
        let port: Port = resource(json!({
            "id": self.port(), "network_id": id(1, self.network), "mac_address": self.mac(),
            "fixed_ips": fixed_ips(self), "device_owner": "compute:nova", "admin_state_up": true,
            "status": "ACTIVE", "security_groups": [GROUP], "port_security_enabled": true,
        }))?;
        Ok(Change::PutPort(Box::new(port)))
    }
}

fn subnet_id(network: u16, family: Family) -> Uuid {
    match family {
        Family::V4 => id(4, network),
        Family::V6 => id(6, network),
    }
}

fn fixed_ips(station: Station) -> serde_json::Value {
    let families = Family::BOTH.iter().zip(station.addresses());
    let addresses = families.map(|(family, address)| {
        json!({"subnet_id": subnet_id(station.network, *family), "ip_address": address})
    });
    addresses.collect()
}

/// A network with a subnet of each family, in the segment of its number.
///
/// # Errors
///
/// It is not described as networks are.
pub fn network(n: u16, mtu: u16) -> Result<Vec<Change>> {
    let network: Network = resource(json!({
        "id": id(1, n), "admin_state_up": true, "status": "ACTIVE", "shared": false,
        "router:external": false, "mtu": mtu, "port_security_enabled": true,
        "provider:network_type": "vxlan", "provider:segmentation_id": n,
    }))?;
    let mut changes = vec![Change::PutNetwork(Box::new(network))];
    let gateway = Station { network: n, n: 1 };
    for (family, address) in Family::BOTH.into_iter().zip(gateway.addresses()) {
        let [a, b] = n.to_be_bytes();
        let cidr = match family {
            Family::V4 => format!("10.{a}.{b}.0/24"),
            Family::V6 => format!("fd00:{n:x}::/64"),
        };
        let subnet: Subnet = resource(json!({
            "id": subnet_id(n, family), "network_id": id(1, n), "cidr": cidr, "gateway_ip": address,
            "allocation_pools": [], "enable_dhcp": true,
        }))?;
        changes.push(Change::PutSubnet(Box::new(subnet)));
    }
    Ok(changes)
}

/// The group of all ports, with these members as those networks' ports know them.
///
/// # Errors
///
/// It is not described as groups are.
pub fn group(networks: &[u16], members: &[Station]) -> Result<Vec<Change>> {
    let addresses: BTreeSet<IpAddr> = members.iter().flat_map(|s| s.addresses()).collect();
    let mut changes = vec![Change::PutGroup(Box::new(default_group(GROUP)?))];
    changes.extend(networks.iter().map(|n| {
        let domain = RoutingDomain::Network(NetworkId(id(1, *n)));
        Change::AddMembers(SecurityGroupId(GROUP), domain, addresses.clone())
    }));
    Ok(changes)
}

/// Hosts with these endpoints, numbered from 1.
///
/// # Errors
///
/// A name is none.
pub fn hosts(endpoints: &[(&str, IpAddr)]) -> Result<Vec<Change>> {
    let numbered = endpoints.iter().zip(1..);
    numbered
        .map(|((name, address), number)| {
            let endpoint = TunnelEndpoint {
                number,
                address: *address,
            };
            Ok(Change::PutHost(
                name.parse().context("name a host")?,
                endpoint,
            ))
        })
        .collect()
}

/// Where a workload on another host is.
///
/// # Errors
///
/// The name is none.
pub fn remote(station: Station, host: &str) -> Result<Change> {
    let host: HostId = host.parse().context("name a host")?;
    let places: BTreeMap<IpAddr, HostId> = station.addresses().map(|a| (a, host.clone())).into();
    Ok(Change::PutRemotes(
        NetworkId(id(1, station.network)),
        places,
    ))
}

/// The router between these networks, with their gateways' addresses.
///
/// # Errors
///
/// It is not described as routers are.
pub fn router(networks: &[u16]) -> Result<Change> {
    let router: Router = resource(json!({
        "id": ROUTER, "admin_state_up": true, "status": "ACTIVE", "enable_snat": true, "routes": [],
    }))?;
    let interfaces = networks.iter().map(|n| {
        let gateway = Station { network: *n, n: 1 };
        let interface = json!({
            "network_id": id(1, *n), "mac_address": gateway.mac(), "fixed_ips": fixed_ips(gateway),
            "admin_state_up": true,
        });
        (gateway.port().to_string(), interface)
    });
    let interfaces: serde_json::Map<_, _> = interfaces.collect();
    let told = json!({"router": router, "interfaces": interfaces});
    let router = serde_json::from_value(told).context("describe a router")?;
    Ok(Change::PutRouter(Box::new(router)))
}

#[cfg(test)]
mod tests {
    use hextet_model::{
        plan::{HostConfig, Planner},
        state::Key,
    };

    use super::*;

    #[test]
    fn what_is_told_leads_to_the_other_host_and_to_the_other_network() {
        let [here, there] = [Station { network: 1, n: 2 }, Station { network: 1, n: 3 }];
        let beyond = Station { network: 2, n: 2 };
        let endpoints = ["fd00::1", "fd00::2"].map(|a| a.parse().unwrap());
        let mut changes = hosts(&[("a", endpoints[0]), ("b", endpoints[1])]).unwrap();
        changes.extend([1, 2].into_iter().flat_map(|n| network(n, 1430).unwrap()));
        changes.extend(group(&[1, 2], &[here, there, beyond]).unwrap());
        changes.push(router(&[1, 2]).unwrap());
        changes.push(remote(there, "b").unwrap());
        changes.extend([here, beyond].map(|s| s.told().unwrap()));
        let mut planner = Planner::new(HostConfig::new("a".parse().unwrap()));
        planner.apply_all(changes);
        let keys: Vec<&Key> = planner.state().objects.keys().collect();
        let names = ["hx-", "hx-", "hr-"].map(str::to_owned);
        let made = keys.iter().filter(|key| matches!(key, Key::Namespace(_)));
        assert_eq!(made.count(), names.len());
        for station in [here, there, beyond] {
            for address in station.addresses() {
                let reached = keys
                    .iter()
                    .any(|key| matches!(key, Key::Route(route) if route.prefix.addr() == address));
                assert!(reached, "no route to {address}");
            }
        }
    }
}
