//! What one host is told: the part of the cloud's resources that concerns it.
//!
//! A host sees its own ports whole, their networks, subnets and groups, and of all others the bare
//! addresses that a group's rules need. The server computes it; the agent keeps the last one on disk.
//! Applying every [`Change`] since an empty intent gives the same as any later snapshot.

mod changes;
mod router;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use hextet_autoconf::Upstream;
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
    /// What routers say on physical networks. This the host hears itself.
    pub upstreams: BTreeMap<String, Upstream>,
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
    /// Routers on a physical network say this.
    PutUpstream(String, Box<Upstream>),
    /// The host is not on the physical network any more.
    RemoveUpstream(String),
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
            Change::PutUpstream(on, said) => drop(self.upstreams.insert(on, *said)),
            Change::RemoveUpstream(on) => drop(self.upstreams.remove(&on)),
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
}
