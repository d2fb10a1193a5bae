//! What a host is told of a cloud with private networks and routers, as `docs/private.md` and `docs/routers.md` say
//! that a server tells it.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use hextet_model::{
    intent::{Intent, RemotePort, Router, RoutingDomain, TunnelEndpoint},
    neutron::{NetworkType, Port},
    plan::HostConfig,
};
use hextet_types::{Family, HostId, NetworkId, PortId, RouterId};

use crate::{cloud::addr, site::HostSetting};

/// A cloud as the server knows it.
pub struct Whole {
    /// All resources, of which hosts are told parts.
    pub cloud: Intent,
    /// Where ports are.
    pub bound: BTreeMap<PortId, usize>,
    /// Whose networks and routers are.
    pub project: BTreeMap<NetworkId, usize>,
    /// How many hosts there are.
    pub hosts: usize,
    /// Of packets between hosts.
    pub underlay: Family,
}

impl Whole {
    /// One for each host.
    pub fn settings(&self) -> Vec<HostSetting> {
        let setting = |n| HostSetting {
            config: HostConfig::new(host_name(n)),
            intent: part(self, n),
            endpoint: Some(endpoint(n, self.underlay).address),
        };
        (0..self.hosts).map(setting).collect()
    }
}

/// A host's name.
pub fn host_name(n: usize) -> HostId {
    format!("compute-{n}").parse().unwrap()
}

/// Where a host is reached by tunnels.
pub fn endpoint(n: usize, family: Family) -> TunnelEndpoint {
    let number = u32::try_from(n).unwrap() + 1;
    TunnelEndpoint {
        number,
        address: match family {
            Family::V4 => addr(&format!("203.0.114.{number}")),
            Family::V6 => addr(&format!("2001:db8:fffe::{number}")),
        },
    }
}

/// The host's part.
pub fn part(whole: &Whole, host: usize) -> Intent {
    let cloud = &whole.cloud;
    let mut part = Intent::default();
    let here = |id: &PortId| whole.bound.get(id) == Some(&host);
    let own = cloud.ports.iter().filter(|(id, _)| here(id));
    part.ports = own.map(|(id, port)| (*id, port.clone())).collect();
    let (routers, networks) = told_of(whole, host);
    for id in &routers {
        part.routers.insert(*id, cloud.routers[id].clone());
    }
    let outside = part.routers.values().flat_map(|r| r.gateways.values());
    let outside: BTreeSet<NetworkId> = outside.map(|g| g.network_id).collect();
    let known = networks.union(&outside).copied().collect::<BTreeSet<_>>();
    let of_known = |id: &NetworkId| known.contains(id) || !is_private(cloud, *id);
    part.networks = cloud.networks.clone();
    part.networks.retain(|id, _| of_known(id));
    part.subnets = cloud.subnets.clone();
    part.subnets
        .retain(|_, subnet| of_known(&subnet.network_id));
    part.qos_policies = cloud.qos_policies.clone();
    part.audiences = cloud.audiences.clone();
    part.audiences
        .retain(|(network, _), _| networks.contains(network));
    groups(whole, &mut part);
    let mut hosts: BTreeSet<usize> = [host].into();
    for network in &networks {
        let elsewhere = elsewhere(whole, *network, host);
        hosts.extend(elsewhere.values());
        let named = elsewhere.into_iter().map(|(addr, n)| (addr, host_name(n)));
        let remotes: BTreeMap<IpAddr, HostId> = named.collect();
        if !remotes.is_empty() {
            part.remotes.insert(*network, remotes);
        }
    }
    remote_ports(whole, host, &networks, &mut part, &mut hosts);
    for router in part.routers.values() {
        let gateway = router.gateway_host.iter();
        hosts.extend((0..whole.hosts).filter(|n| gateway.clone().any(|g| g.host == host_name(*n))));
    }
    part.hosts = hosts
        .into_iter()
        .map(|n| (host_name(n), endpoint(n, whole.underlay)))
        .collect();
    outside_of(whole, host, &mut part);
    part
}

fn is_private(cloud: &Intent, network: NetworkId) -> bool {
    cloud.networks[&network].network_type == NetworkType::Vxlan
}

fn is_on(router: &Router, network: NetworkId) -> bool {
    router.interfaces.values().any(|i| i.network_id == network)
}

/// From the networks of its ports, and from routers that translate there, as far as one gets.
fn told_of(whole: &Whole, host: usize) -> (BTreeSet<RouterId>, BTreeSet<NetworkId>) {
    let cloud = &whole.cloud;
    let ports = cloud.ports.values();
    let here = ports.filter(|port| whole.bound.get(&port.id) == Some(&host));
    let of_ports: BTreeSet<NetworkId> = here
        .map(|port| port.network_id)
        .filter(|id| is_private(cloud, *id))
        .collect();
    let is_gateway = |router: &Router| {
        let gateway = router.gateway_host.as_ref();
        gateway.is_some_and(|g| g.host == host_name(host))
    };
    let begins = |router: &&Router| {
        let mut networks = of_ports.iter();
        networks.any(|network| is_on(router, *network)) || is_gateway(router)
    };
    let routers = cloud.routers.values().filter(begins);
    let routers = reached(cloud, routers.map(|router| router.router.id));
    let by_routers = routers
        .iter()
        .flat_map(|id| networks_of(&cloud.routers[id]));
    let networks = of_ports.into_iter().chain(by_routers).collect();
    (routers, networks)
}

fn networks_of(router: &Router) -> impl Iterator<Item = NetworkId> + '_ {
    router.interfaces.values().map(|i| i.network_id)
}

/// Those, and all whose interfaces are next hops of their extra routes, and so on.
fn reached(cloud: &Intent, first: impl Iterator<Item = RouterId>) -> BTreeSet<RouterId> {
    let mut all = BTreeSet::new();
    let mut next: Vec<RouterId> = first.collect();
    while let Some(id) = next.pop() {
        if !all.insert(id) {
            continue;
        }
        let router = &cloud.routers[&id];
        let networks: BTreeSet<NetworkId> = networks_of(router).collect();
        let hops: BTreeSet<IpAddr> = router.router.routes.iter().map(|r| r.nexthop).collect();
        let is_hop = |other: &&Router| {
            let mut interfaces = other.interfaces.values();
            interfaces.any(|i| {
                let mut fixed = i.fixed_ips.iter();
                networks.contains(&i.network_id) && fixed.any(|f| hops.contains(&f.ip_address))
            })
        };
        next.extend(cloud.routers.values().filter(is_hop).map(|r| r.router.id));
    }
    all
}

/// Groups of its ports, and members of those that they name as remote: in a private network those of all networks that one
/// gets to from it.
fn groups(whole: &Whole, part: &mut Intent) {
    let cloud = &whole.cloud;
    for port in part.ports.values() {
        for id in &port.security_groups {
            part.groups.insert(*id, cloud.groups[id].clone());
        }
    }
    for port in part.ports.values() {
        let network = cloud.networks.get(&port.network_id);
        let domain = RoutingDomain::of(network);
        let within = within(cloud, port.network_id, domain);
        let rules = port
            .security_groups
            .iter()
            .flat_map(|id| cloud.groups[id].rules.values());
        for remote in rules.filter_map(|rule| rule.remote_group_id) {
            let members = cloud.ports.values().filter(|other| {
                other.security_groups.contains(&remote) && within.contains(&other.network_id)
            });
            let addresses: BTreeSet<IpAddr> = members.flat_map(sends_from).collect();
            if !addresses.is_empty() {
                part.members.insert((remote, domain), addresses);
            }
        }
    }
}

fn within(cloud: &Intent, network: NetworkId, domain: RoutingDomain) -> BTreeSet<NetworkId> {
    if domain == RoutingDomain::Routed {
        let all = cloud.networks.keys().copied();
        return all.filter(|id| !is_private(cloud, *id)).collect();
    }
    let begins = cloud.routers.values().filter(|r| is_on(r, network));
    let routers = reached(cloud, begins.map(|r| r.router.id));
    let networks = routers
        .iter()
        .flat_map(|id| networks_of(&cloud.routers[id]));
    networks.chain([network]).collect()
}

/// Its own addresses, and single ones of its pairs.
fn sends_from(port: &Port) -> impl Iterator<Item = IpAddr> + '_ {
    let own = port.fixed_ips.iter().map(|f| f.ip_address);
    own.chain(single_pairs(port))
}

fn single_pairs(port: &Port) -> impl Iterator<Item = IpAddr> + '_ {
    let pairs = port.allowed_address_pairs.iter();
    let single = pairs.filter(|pair| pair.ip_address.is_host());
    single.map(|pair| pair.ip_address.addr())
}

/// Where an address of a network is: where a port has it as its own, or else where that is which has said that it has it, or
/// else where the first is that may use it.
pub fn place_of(whole: &Whole, network: NetworkId, addr: IpAddr) -> Option<PortId> {
    let cloud = &whole.cloud;
    let ports = || cloud.ports.values().filter(|p| p.network_id == network);
    let has = |port: &&Port| port.fixed_ips.iter().any(|f| f.ip_address == addr);
    let may = |port: &&Port| single_pairs(port).any(|a| a == addr);
    let own = ports().find(has).map(|port| port.id);
    let held = cloud.holders.get(&(network, addr)).copied();
    own.or(held).or_else(|| ports().find(may).map(|p| p.id))
}

fn elsewhere(whole: &Whole, network: NetworkId, host: usize) -> BTreeMap<IpAddr, usize> {
    let ports = whole.cloud.ports.values();
    let ports = ports.filter(|port| port.network_id == network);
    let addresses: BTreeSet<IpAddr> = ports.flat_map(sends_from).collect();
    let places = addresses.into_iter().filter_map(|addr| {
        let port = place_of(whole, network, addr)?;
        Some((addr, whole.bound[&port]))
    });
    places.filter(|(_, at)| *at != host).collect()
}

/// Ports on other hosts that may carry or share, and who has what several may use.
fn remote_ports(
    whole: &Whole,
    host: usize,
    networks: &BTreeSet<NetworkId>,
    part: &mut Intent,
    hosts: &mut BTreeSet<usize>,
) {
    for port in whole.cloud.ports.values() {
        let at = whole.bound[&port.id];
        if at == host || !networks.contains(&port.network_id) {
            continue;
        }
        if let Some(remote) = RemotePort::of(port, &host_name(at)) {
            hosts.insert(at);
            part.remote_ports.insert(port.id, remote);
        }
    }
    for ((network, addr), holder) in &whole.cloud.holders {
        let here = part.ports.values().filter(|p| p.network_id == *network);
        if here.clone().any(|port| port.may_use(*addr)) {
            part.holders.insert((*network, *addr), *holder);
        }
    }
}

/// Floating IPs where the address inside is, forwarded ports where their router translates.
fn outside_of(whole: &Whole, host: usize, part: &mut Intent) {
    for (id, ip) in &whole.cloud.floating_ips {
        let inside = IpAddr::V4(ip.fixed_ip_address);
        let port = place_of(whole, ip.network_id, inside);
        if port.is_some_and(|port| whole.bound[&port] == host) {
            part.floating_ips.insert(*id, ip.clone());
        }
    }
    for (id, forwarding) in &whole.cloud.port_forwardings {
        let router = &whole.cloud.routers[&forwarding.router_id];
        let gateway = router.gateway_host.as_ref();
        if gateway.is_some_and(|g| g.host == host_name(host)) {
            part.port_forwardings.insert(*id, forwarding.clone());
        }
    }
}
