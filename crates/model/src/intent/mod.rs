//! What one host is told: the part of the cloud's resources that concerns it.
//!
//! A host sees its own ports whole, their networks, subnets and groups, and of all others the bare
//! addresses that a group's rules need. The server computes it; the agent keeps the last one on disk.
//! Applying every [`Change`] since an empty intent gives the same as any later snapshot.

mod router;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use hextet_types::{
    AddressGroupId, FloatingIpId, HostId, Mac, NetworkId, PortForwardingId, PortId, Prefix,
    QosPolicyId, RouterId, SecurityGroupId, SecurityGroupRuleId, SubnetId,
};
use serde::{Deserialize, Serialize};

pub use router::{FloatingIp, GatewayHost, MeterRule, PortForwarding, Router, RouterInterface};

use crate::neutron::{
    AddressPair, Network, NetworkType, Port, QosPolicy, SecurityGroup, SecurityGroupRule, Subnet,
    may_carry,
};

/// The cloud as one host sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Intent {
    /// Networks of its ports and of its routers.
    pub networks: BTreeMap<NetworkId, Network>,
    /// All subnets of all routed networks: what lies inside the cloud is not translated. And all subnets of those
    /// private networks that it is told of.
    pub subnets: BTreeMap<SubnetId, Subnet>,
    /// Ports bound to it.
    pub ports: BTreeMap<PortId, Port>,
    /// Groups of its ports.
    pub groups: BTreeMap<SecurityGroupId, Group>,
    /// For each group that a rule of one of those names as remote, and each domain that a port with that rule is
    /// in: its members' addresses there; never an empty set.
    pub members: BTreeMap<(SecurityGroupId, RoutingDomain), BTreeSet<IpAddr>>,
    /// For each subnet with NAT44: this host's source addresses.
    pub nat44_sources: BTreeMap<SubnetId, BTreeSet<IpAddr>>,
    /// Where hosts are reached by tunnels: this one, and those that [`Intent::remotes`] names.
    pub hosts: BTreeMap<HostId, TunnelEndpoint>,
    /// For each private network that it is told of: the addresses of ports on other hosts; never an empty map.
    /// A router's own ports are on no host.
    pub remotes: BTreeMap<NetworkId, BTreeMap<IpAddr, HostId>>,
    /// Of those private networks: ports on other hosts that may send from more than their own addresses.
    pub remote_ports: BTreeMap<PortId, RemotePort>,
    /// Routers with an interface on a network of one of its ports; those whose interface is the next hop of
    /// an extra route of such a one; and those that translate on this host.
    pub routers: BTreeMap<RouterId, Router>,
    /// Floating IPs whose addresses inside are on this host.
    pub floating_ips: BTreeMap<FloatingIpId, FloatingIp>,
    /// Port forwardings of those routers that translate on this host.
    pub port_forwardings: BTreeMap<PortForwardingId, PortForwarding>,
    /// All QoS policies of the cloud: they are an administrator's, and few.
    pub qos_policies: BTreeMap<QosPolicyId, QosPolicy>,
    /// Ports of [`Intent::ports`] that are prepared here while their addresses are still on another host, where
    /// [`Intent::remotes`] says that they are: links, neighbours and rules stand, but no way leads to them.
    pub standbys: BTreeSet<PortId>,
    /// Of addresses that some port here may use besides its own (`allowed_address_pairs`): the port, on any host,
    /// that was the last to say that it has it. Where there is none, the address is where its first claimant is.
    pub holders: BTreeMap<(NetworkId, IpAddr), PortId>,
    /// Of the private networks of its ports: who has joined a group there, on any host; never an empty map.
    pub audiences: BTreeMap<(NetworkId, IpAddr), BTreeMap<PortId, Joined>>,
    /// Hosts whose kernels this one watches, and the address at which each has to answer.
    pub watched: BTreeMap<HostId, IpAddr>,
    /// Whether Nova tells its servers of themselves, and not the metadata service of hosts.
    pub nova_metadata: bool,
}

/// Among whom an address is one's own: in two domains it may be two ports'. What is a member of a group in one
/// domain says nothing about another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RoutingDomain {
    /// All routed networks together.
    Routed,
    /// A private network, with those that its routers lead to.
    Network(NetworkId),
}

impl RoutingDomain {
    /// The domain of a network's ports; of one that is not known (yet), that of routed networks.
    pub fn of(network: Option<&Network>) -> RoutingDomain {
        match network {
            Some(n) if n.network_type == NetworkType::Vxlan => RoutingDomain::Network(n.id),
            _ => RoutingDomain::Routed,
        }
    }
}

/// Where a host is reached by tunnels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TunnelEndpoint {
    /// Its own among all hosts of the cloud; 1 to 2^24 - 1.
    pub number: u32,
    /// Of the underlay; all hosts' are of one family.
    pub address: IpAddr,
}

/// A port on another host that may send from more than its own addresses: it has address pairs, or no port security.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RemotePort {
    /// The port.
    pub id: PortId,
    /// Its network, a private one that the host is told of.
    pub network_id: NetworkId,
    /// Where it is; the endpoint is told.
    pub host: HostId,
    /// Its Ethernet address.
    pub mac_address: Mac,
    /// Its own addresses.
    pub addresses: BTreeSet<IpAddr>,
    /// Whether its sources are checked.
    pub port_security_enabled: bool,
    /// What it may use besides its own addresses.
    pub allowed_address_pairs: Vec<AddressPair>,
}

impl RemotePort {
    /// Of a port on that host, if it is such a one, and up.
    pub fn of(port: &Port, host: &HostId) -> Option<RemotePort> {
        let more = !port.port_security_enabled || !port.allowed_address_pairs.is_empty();
        (more && port.admin_state_up).then(|| RemotePort {
            id: port.id,
            network_id: port.network_id,
            host: host.clone(),
            mac_address: port.mac_address,
            addresses: port.fixed_ips.iter().map(|f| f.ip_address).collect(),
            port_security_enabled: port.port_security_enabled,
            allowed_address_pairs: port.allowed_address_pairs.clone(),
        })
    }

    /// See [`Port::may_carry`].
    pub fn may_carry(&self) -> bool {
        may_carry(self.port_security_enabled, &self.allowed_address_pairs)
    }
}

/// A security group with its rules.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Group {
    /// The group.
    pub group: SecurityGroup,
    /// Its rules.
    pub rules: BTreeMap<SecurityGroupRuleId, SecurityGroupRule>,
    /// What the address groups that its rules name consist of, of both families. One that is missing
    /// holds no address.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub addresses: BTreeMap<AddressGroupId, BTreeSet<Prefix>>,
}

impl Group {
    /// The prefixes of the rule's family in one of which the other end has to lie; `None` where any
    /// address will do.
    pub fn remote_prefixes(&self, rule: &SecurityGroupRule) -> Option<BTreeSet<Prefix>> {
        let of_family = |prefix: &Prefix| prefix.family() == rule.ethertype;
        let named = rule.remote_address_group_id.map(|id| {
            let prefixes = self.addresses.get(&id).into_iter().flatten();
            prefixes.copied().filter(of_family).collect()
        });
        let written = rule
            .remote_ip_prefix
            .map(|prefix| [prefix].into_iter().filter(of_family).collect());
        named.or(written)
    }
}

/// A port that has joined a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Joined {
    /// Its Ethernet address.
    pub mac: Mac,
    /// Its own address of the group's family.
    pub addr: IpAddr,
}

/// One step from one intent to the next. Putting what is there and removing what is not are allowed
/// and do nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Change {
    /// A network is there, or is another now.
    PutNetwork(Box<Network>),
    /// A network is gone.
    RemoveNetwork(NetworkId),
    /// A subnet is there, or is another now.
    PutSubnet(Box<Subnet>),
    /// A subnet is gone.
    RemoveSubnet(SubnetId),
    /// A port is bound here, or is another now.
    PutPort(Box<Port>),
    /// A port is gone, or bound elsewhere.
    RemovePort(PortId),
    /// A group is used here, or is another now.
    PutGroup(Box<Group>),
    /// A group is not used here any more.
    RemoveGroup(SecurityGroupId),
    /// A remote group has these members besides, in that domain.
    AddMembers(SecurityGroupId, RoutingDomain, BTreeSet<IpAddr>),
    /// A remote group has these members no longer, in that domain.
    RemoveMembers(SecurityGroupId, RoutingDomain, BTreeSet<IpAddr>),
    /// A subnet's NAT44 sources on this host; none when it has none.
    SetNat44Sources(SubnetId, BTreeSet<IpAddr>),
    /// A host has this endpoint.
    PutHost(HostId, TunnelEndpoint),
    /// A host is not needed any more.
    RemoveHost(HostId),
    /// Addresses of a private network that are on these other hosts.
    PutRemotes(NetworkId, BTreeMap<IpAddr, HostId>),
    /// Addresses of a private network that are on no other host any more.
    RemoveRemotes(NetworkId, BTreeSet<IpAddr>),
    /// A port on another host may send from more than its own addresses, or is another now.
    PutRemotePort(Box<RemotePort>),
    /// Such a port is gone, or here, or concerns this host no longer.
    RemoveRemotePort(PortId),
    /// A router concerns this host, or is another now.
    PutRouter(Box<Router>),
    /// A router is gone, or concerns this host no longer.
    RemoveRouter(RouterId),
    /// A floating IP stands for an address that is here, or for another now.
    PutFloatingIp(Box<FloatingIp>),
    /// A floating IP is gone, or elsewhere.
    RemoveFloatingIp(FloatingIpId),
    /// A port forwarding is there, or is another now.
    PutPortForwarding(Box<PortForwarding>),
    /// A port forwarding is gone, or elsewhere.
    RemovePortForwarding(PortForwardingId),
    /// A QoS policy is there, or is another now.
    PutQosPolicy(Box<QosPolicy>),
    /// A QoS policy is gone.
    RemoveQosPolicy(QosPolicyId),
    /// A port's addresses are on another host for now.
    PutStandby(PortId),
    /// A port's addresses are here, or the port is gone.
    RemoveStandby(PortId),
    /// An address that several may use is that port's now.
    PutHolder(NetworkId, IpAddr, PortId),
    /// Nobody has said that the address is its own, or it concerns this host no longer.
    RemoveHolder(NetworkId, IpAddr),
    /// These ports of a network have joined a group, and no others.
    PutAudience(NetworkId, IpAddr, BTreeMap<PortId, Joined>),
    /// Nobody has joined the group any more, or the network concerns this host no longer.
    RemoveAudience(NetworkId, IpAddr),
    /// A host's kernel is to be watched, at that address.
    PutWatched(HostId, IpAddr),
    /// A host is not to be watched any more.
    RemoveWatched(HostId),
    /// Whether Nova tells its servers of themselves.
    SetNovaMetadata(bool),
}

impl Intent {
    /// Takes one step.
    pub fn apply(&mut self, change: Change) {
        match change {
            Change::PutNetwork(network) => drop(self.networks.insert(network.id, *network)),
            Change::RemoveNetwork(id) => drop(self.networks.remove(&id)),
            Change::PutSubnet(subnet) => drop(self.subnets.insert(subnet.id, *subnet)),
            Change::RemoveSubnet(id) => drop(self.subnets.remove(&id)),
            Change::PutPort(port) => drop(self.ports.insert(port.id, *port)),
            Change::RemovePort(id) => drop(self.ports.remove(&id)),
            Change::PutGroup(group) => drop(self.groups.insert(group.group.id, *group)),
            Change::RemoveGroup(id) => drop(self.groups.remove(&id)),
            Change::AddMembers(_, _, members) if members.is_empty() => {}
            Change::AddMembers(id, domain, members) => {
                self.members
                    .entry((id, domain))
                    .or_default()
                    .extend(members);
            }
            Change::RemoveMembers(id, domain, members) => {
                self.remove_members((id, domain), &members);
            }
            Change::SetNat44Sources(id, sources) if sources.is_empty() => {
                self.nat44_sources.remove(&id);
            }
            Change::SetNat44Sources(id, sources) => drop(self.nat44_sources.insert(id, sources)),
            Change::PutHost(host, endpoint) => drop(self.hosts.insert(host, endpoint)),
            Change::RemoveHost(host) => drop(self.hosts.remove(&host)),
            Change::PutRemotes(_, remotes) if remotes.is_empty() => {}
            Change::PutRemotes(id, remotes) => {
                self.remotes.entry(id).or_default().extend(remotes);
            }
            Change::RemoveRemotes(id, addrs) => self.remove_remotes(id, &addrs),
            Change::PutRemotePort(port) => drop(self.remote_ports.insert(port.id, *port)),
            Change::RemoveRemotePort(id) => drop(self.remote_ports.remove(&id)),
            Change::PutRouter(router) => drop(self.routers.insert(router.router.id, *router)),
            Change::RemoveRouter(id) => drop(self.routers.remove(&id)),
            Change::PutFloatingIp(ip) => drop(self.floating_ips.insert(ip.id, *ip)),
            Change::RemoveFloatingIp(id) => drop(self.floating_ips.remove(&id)),
            Change::PutPortForwarding(f) => drop(self.port_forwardings.insert(f.id, *f)),
            Change::RemovePortForwarding(id) => drop(self.port_forwardings.remove(&id)),
            Change::PutQosPolicy(p) => drop(self.qos_policies.insert(p.id, *p)),
            Change::RemoveQosPolicy(id) => drop(self.qos_policies.remove(&id)),
            Change::PutStandby(id) => drop(self.standbys.insert(id)),
            Change::RemoveStandby(id) => drop(self.standbys.remove(&id)),
            Change::PutHolder(id, addr, port) => drop(self.holders.insert((id, addr), port)),
            Change::RemoveHolder(id, addr) => drop(self.holders.remove(&(id, addr))),
            Change::PutAudience(id, group, all) => drop(self.audiences.insert((id, group), all)),
            Change::RemoveAudience(id, group) => drop(self.audiences.remove(&(id, group))),
            Change::PutWatched(host, addr) => drop(self.watched.insert(host, addr)),
            Change::RemoveWatched(host) => drop(self.watched.remove(&host)),
            Change::SetNovaMetadata(there) => self.nova_metadata = there,
        }
    }

    fn remove_remotes(&mut self, id: NetworkId, addrs: &BTreeSet<IpAddr>) {
        if let Some(present) = self.remotes.get_mut(&id) {
            for addr in addrs {
                present.remove(addr);
            }
            if present.is_empty() {
                self.remotes.remove(&id);
            }
        }
    }

    fn remove_members(&mut self, id: (SecurityGroupId, RoutingDomain), members: &BTreeSet<IpAddr>) {
        if let Some(present) = self.members.get_mut(&id) {
            for member in members {
                present.remove(member);
            }
            if present.is_empty() {
                self.members.remove(&id);
            }
        }
    }

    /// The changes that make this intent out of an empty one, what is referred to first.
    pub fn as_changes(&self) -> impl Iterator<Item = Change> + '_ {
        let networks = self
            .networks
            .values()
            .map(|n| Change::PutNetwork(Box::new(n.clone())));
        let subnets = self
            .subnets
            .values()
            .map(|s| Change::PutSubnet(Box::new(s.clone())));
        let sources = self
            .nat44_sources
            .iter()
            .map(|(id, s)| Change::SetNat44Sources(*id, s.clone()));
        let members = self
            .members
            .iter()
            .map(|((id, domain), m)| Change::AddMembers(*id, *domain, m.clone()));
        let groups = self
            .groups
            .values()
            .map(|g| Change::PutGroup(Box::new(g.clone())));
        let ports = self
            .ports
            .values()
            .map(|p| Change::PutPort(Box::new(p.clone())));
        let routers = self
            .routers
            .values()
            .map(|r| Change::PutRouter(Box::new(r.clone())));
        let floating_ips = self.floating_ips.values();
        let floating_ips = floating_ips.map(|ip| Change::PutFloatingIp(Box::new(ip.clone())));
        let forwardings = self.port_forwardings.values();
        let forwardings = forwardings.map(|f| Change::PutPortForwarding(Box::new(f.clone())));
        let hosts = self.hosts.iter();
        let remotes = self.remotes.iter();
        let remote_ports = self.remote_ports.values().cloned();
        let remote_ports = remote_ports.map(|p| Change::PutRemotePort(Box::new(p)));
        let holders = self.holders.iter();
        let audiences = self.audiences.iter();
        let watched = self.watched.iter();
        let policies = self.qos_policies.values();
        let policies = policies.map(|p| Change::PutQosPolicy(Box::new(p.clone())));
        let metadata = self.nova_metadata.then_some(Change::SetNovaMetadata(true));
        metadata
            .into_iter()
            .chain(policies)
            .chain(networks)
            .chain(hosts.map(|(host, endpoint)| Change::PutHost(host.clone(), *endpoint)))
            .chain(remotes.map(|(id, all)| Change::PutRemotes(*id, all.clone())))
            .chain(remote_ports)
            .chain(subnets)
            .chain(routers)
            .chain(floating_ips)
            .chain(forwardings)
            .chain(sources)
            .chain(members)
            .chain(groups)
            .chain(self.standbys.iter().copied().map(Change::PutStandby))
            .chain(holders.map(|((id, addr), port)| Change::PutHolder(*id, *addr, *port)))
            .chain(
                audiences.map(|((id, group), all)| Change::PutAudience(*id, *group, all.clone())),
            )
            .chain(watched.map(|(host, addr)| Change::PutWatched(host.clone(), *addr)))
            .chain(ports)
    }

    /// As [`Intent::as_changes`], of an intent that is not needed any more.
    pub fn into_changes(self) -> impl Iterator<Item = Change> {
        let networks = self.networks.into_values().map(Box::new);
        let subnets = self.subnets.into_values().map(Box::new);
        let groups = self.groups.into_values().map(Box::new);
        let ports = self.ports.into_values().map(Box::new);
        let routers = self.routers.into_values().map(Box::new);
        let floating_ips = self.floating_ips.into_values().map(Box::new);
        let forwardings = self.port_forwardings.into_values().map(Box::new);
        let sources = self.nat44_sources.into_iter();
        let members = self.members.into_iter();
        let (hosts, remotes) = (self.hosts.into_iter(), self.remotes.into_iter());
        let remote_ports = self.remote_ports.into_values().map(Box::new);
        let holders = self.holders.into_iter();
        let audiences = self.audiences.into_iter();
        let watched = self.watched.into_iter();
        let policies = self.qos_policies.into_values().map(Box::new);
        let metadata = self.nova_metadata.then_some(Change::SetNovaMetadata(true));
        metadata
            .into_iter()
            .chain(policies.map(Change::PutQosPolicy))
            .chain(networks.map(Change::PutNetwork))
            .chain(hosts.map(|(host, endpoint)| Change::PutHost(host, endpoint)))
            .chain(remotes.map(|(id, all)| Change::PutRemotes(id, all)))
            .chain(remote_ports.map(Change::PutRemotePort))
            .chain(subnets.map(Change::PutSubnet))
            .chain(routers.map(Change::PutRouter))
            .chain(floating_ips.map(Change::PutFloatingIp))
            .chain(forwardings.map(Change::PutPortForwarding))
            .chain(sources.map(|(id, s)| Change::SetNat44Sources(id, s)))
            .chain(members.map(|((id, domain), m)| Change::AddMembers(id, domain, m)))
            .chain(groups.map(Change::PutGroup))
            .chain(self.standbys.into_iter().map(Change::PutStandby))
            .chain(holders.map(|((id, addr), port)| Change::PutHolder(id, addr, port)))
            .chain(audiences.map(|((id, group), all)| Change::PutAudience(id, group, all)))
            .chain(watched.map(|(host, addr)| Change::PutWatched(host, addr)))
            .chain(ports.map(Change::PutPort))
    }

    /// The changes that lead from this intent to another, what is referred to first.
    pub fn changes_to(&self, to: &Intent) -> Vec<Change> {
        let news = to.as_changes().filter(|change| !self.has(change));
        let mut changes: Vec<Change> = news.map(|change| self.without_present(change)).collect();
        for ((id, domain), members) in &self.members {
            let kept = to.members.get(&(*id, *domain));
            let gone = members
                .iter()
                .filter(|m| kept.is_none_or(|k| !k.contains(m)));
            let gone: BTreeSet<IpAddr> = gone.copied().collect();
            if !gone.is_empty() || kept.is_none() {
                changes.push(Change::RemoveMembers(*id, *domain, gone));
            }
        }
        let sources = gone(&self.nat44_sources, &to.nat44_sources);
        changes.extend(sources.map(|id| Change::SetNat44Sources(id, BTreeSet::new())));
        changes.extend(self.remotes.iter().filter_map(|(id, all)| {
            let kept = to.remotes.get(id);
            let gone = all
                .keys()
                .filter(|a| kept.is_none_or(|k| !k.contains_key(a)));
            let gone: BTreeSet<IpAddr> = gone.copied().collect();
            (!gone.is_empty()).then_some(Change::RemoveRemotes(*id, gone))
        }));
        let remote_ports = gone(&self.remote_ports, &to.remote_ports);
        changes.extend(remote_ports.map(Change::RemoveRemotePort));
        let hosts = self
            .hosts
            .keys()
            .filter(|host| !to.hosts.contains_key(host));
        changes.extend(hosts.cloned().map(Change::RemoveHost));
        let standbys = self.standbys.difference(&to.standbys);
        changes.extend(standbys.copied().map(Change::RemoveStandby));
        let holders = gone(&self.holders, &to.holders);
        changes.extend(holders.map(|(id, addr)| Change::RemoveHolder(id, addr)));
        let audiences = gone(&self.audiences, &to.audiences);
        changes.extend(audiences.map(|(id, group)| Change::RemoveAudience(id, group)));
        let watched = self.watched.keys();
        let watched = watched.filter(|host| !to.watched.contains_key(host));
        changes.extend(watched.cloned().map(Change::RemoveWatched));
        changes.extend(gone(&self.ports, &to.ports).map(Change::RemovePort));
        changes.extend(gone(&self.groups, &to.groups).map(Change::RemoveGroup));
        let forwardings = gone(&self.port_forwardings, &to.port_forwardings);
        changes.extend(forwardings.map(Change::RemovePortForwarding));
        let floating_ips = gone(&self.floating_ips, &to.floating_ips);
        changes.extend(floating_ips.map(Change::RemoveFloatingIp));
        changes.extend(gone(&self.routers, &to.routers).map(Change::RemoveRouter));
        changes.extend(gone(&self.subnets, &to.subnets).map(Change::RemoveSubnet));
        changes.extend(gone(&self.networks, &to.networks).map(Change::RemoveNetwork));
        let policies = gone(&self.qos_policies, &to.qos_policies);
        changes.extend(policies.map(Change::RemoveQosPolicy));
        if self.nova_metadata && !to.nova_metadata {
            changes.push(Change::SetNovaMetadata(false));
        }
        changes
    }

    fn without_present(&self, change: Change) -> Change {
        match change {
            Change::AddMembers(id, domain, mut new) => {
                if let Some(present) = self.members.get(&(id, domain)) {
                    new.retain(|member| !present.contains(member));
                }
                Change::AddMembers(id, domain, new)
            }
            Change::PutRemotes(id, mut new) => {
                if let Some(present) = self.remotes.get(&id) {
                    new.retain(|addr, host| present.get(addr) != Some(host));
                }
                Change::PutRemotes(id, new)
            }
            other => other,
        }
    }

    /// Whether the change would do nothing.
    fn has(&self, change: &Change) -> bool {
        match change {
            Change::PutNetwork(n) => self.networks.get(&n.id) == Some(&**n),
            Change::PutSubnet(s) => self.subnets.get(&s.id) == Some(&**s),
            Change::PutPort(p) => self.ports.get(&p.id) == Some(&**p),
            Change::PutGroup(g) => self.groups.get(&g.group.id) == Some(&**g),
            Change::AddMembers(id, domain, new) => {
                let present = self.members.get(&(*id, *domain));
                new.is_empty() || present.is_some_and(|m| new.is_subset(m))
            }
            Change::SetNat44Sources(id, new) => self.nat44_sources.get(id) == Some(new),
            Change::PutHost(host, endpoint) => self.hosts.get(host) == Some(endpoint),
            Change::RemoveHost(host) => !self.hosts.contains_key(host),
            Change::PutRemotes(id, new) => {
                let present = self.remotes.get(id);
                let has = |(addr, host)| present.is_some_and(|p| p.get(addr) == Some(host));
                new.iter().all(has)
            }
            Change::RemoveRemotes(id, old) => self
                .remotes
                .get(id)
                .is_none_or(|present| old.iter().all(|addr| !present.contains_key(addr))),
            Change::PutRemotePort(p) => self.remote_ports.get(&p.id) == Some(&**p),
            Change::RemoveRemotePort(id) => !self.remote_ports.contains_key(id),
            Change::PutRouter(r) => self.routers.get(&r.router.id) == Some(&**r),
            Change::RemoveRouter(id) => !self.routers.contains_key(id),
            Change::PutFloatingIp(ip) => self.floating_ips.get(&ip.id) == Some(&**ip),
            Change::RemoveFloatingIp(id) => !self.floating_ips.contains_key(id),
            Change::PutPortForwarding(f) => self.port_forwardings.get(&f.id) == Some(&**f),
            Change::RemovePortForwarding(id) => !self.port_forwardings.contains_key(id),
            Change::PutQosPolicy(p) => self.qos_policies.get(&p.id) == Some(&**p),
            Change::RemoveQosPolicy(id) => !self.qos_policies.contains_key(id),
            Change::PutStandby(id) => self.standbys.contains(id),
            Change::RemoveStandby(id) => !self.standbys.contains(id),
            Change::PutHolder(id, addr, port) => self.holders.get(&(*id, *addr)) == Some(port),
            Change::RemoveHolder(id, addr) => !self.holders.contains_key(&(*id, *addr)),
            Change::PutAudience(id, group, all) => self.audiences.get(&(*id, *group)) == Some(all),
            Change::RemoveAudience(id, group) => !self.audiences.contains_key(&(*id, *group)),
            Change::PutWatched(host, addr) => self.watched.get(host) == Some(addr),
            Change::RemoveWatched(host) => !self.watched.contains_key(host),
            Change::SetNovaMetadata(there) => self.nova_metadata == *there,
            Change::RemoveNetwork(id) => !self.networks.contains_key(id),
            Change::RemoveSubnet(id) => !self.subnets.contains_key(id),
            Change::RemovePort(id) => !self.ports.contains_key(id),
            Change::RemoveGroup(id) => !self.groups.contains_key(id),
            Change::RemoveMembers(id, domain, old) => self
                .members
                .get(&(*id, *domain))
                .is_none_or(|present| present.is_disjoint(old)),
        }
    }
}

/// Those of `from` that `to` has not.
fn gone<K: Ord + Copy, V>(from: &BTreeMap<K, V>, to: &BTreeMap<K, V>) -> impl Iterator<Item = K> {
    let keys = from.keys().filter(|key| !to.contains_key(key));
    keys.copied().collect::<Vec<_>>().into_iter()
}
