//! What each host is told, kept up to date change by change.
//!
//! A host is told of its own ports, of what they need, and of all subnets of routed networks. Counts say
//! what is needed how often, so that a change costs in proportion to the hosts that it concerns. What is
//! told by steps is always what [`State::snapshot`] would tell at once.

pub mod audiences;
mod floating;
mod holders;
mod members;
mod physical;
pub mod places;
mod reach;
mod remote_ports;
mod remotes;
mod routers;

use std::{
    collections::{BTreeMap, BTreeSet},
    hash::Hash,
    net::IpAddr,
    sync::Arc,
};

use hextet_model::{
    intent::{Change, FloatingIp, Group, PortForwarding, Router as ToldRouter, RoutingDomain},
    neutron::{Network, NetworkType, Port, QosPolicy, Subnet},
};
use hextet_types::{
    AddressGroupId, FloatingIpId, HostId, NetworkId, PortForwardingId, PortId, QosPolicyId,
    RouterId, SecurityGroupId, SubnetId,
};

use self::{
    floating::{Inside, Placed},
    holders::Tellings,
    places::is_guest,
    reach::{Routing, Seed},
    remote_ports::RemotePorts,
    remotes::Remotes,
};
use super::{
    NAT44_OWNER, State,
    table::{Counts, Index, Row},
    tunnels::TunnelRecord,
};

/// One change of a host's intent; shares what it tells with the state.
#[derive(Clone, Debug)]
pub enum Step {
    /// See [`Change::PutNetwork`].
    PutNetwork(Arc<Network>),
    /// See [`Change::PutSubnet`].
    PutSubnet(Arc<Subnet>),
    /// See [`Change::PutPort`].
    PutPort(Arc<Port>),
    /// See [`Change::PutGroup`].
    PutGroup(Arc<Group>),
    /// See [`Change::PutRouter`].
    PutRouter(Arc<ToldRouter>),
    /// Anything small.
    Other(Arc<Change>),
}

impl Step {
    pub(super) fn other(change: Change) -> Step {
        Step::Other(Arc::new(change))
    }

    /// As the agent is told.
    pub fn to_change(&self) -> Change {
        match self {
            Step::PutNetwork(n) => Change::PutNetwork(Box::new(n.as_ref().clone())),
            Step::PutSubnet(s) => Change::PutSubnet(Box::new(s.as_ref().clone())),
            Step::PutPort(p) => Change::PutPort(Box::new(p.as_ref().clone())),
            Step::PutGroup(g) => Change::PutGroup(Box::new(g.as_ref().clone())),
            Step::PutRouter(r) => Change::PutRouter(Box::new(r.as_ref().clone())),
            Step::Other(change) => change.as_ref().clone(),
        }
    }
}

/// Who needs what.
#[derive(Debug, Default)]
pub struct HostViews {
    /// Ports bound to a host, those that are NAT44 sources apart.
    ports: Index<HostId, PortId>,
    /// Hosts with ports of a network; with a router that translates there.
    seeds: Counts<Seed, HostId>,
    /// Hosts that are told a network.
    networks: Counts<NetworkId, HostId>,
    /// Hosts that are told a router.
    routers: Counts<RouterId, HostId>,
    /// How far one gets by routers.
    routing: Routing,
    /// No router counts as being on this one, which is about to be something else.
    hidden: Option<NetworkId>,
    /// Hosts that are told ports that have a group.
    groups: Counts<SecurityGroupId, HostId>,
    /// The same, by domain of the ports.
    placed: Counts<SecurityGroupId, (HostId, RoutingDomain)>,
    /// Hosts with groups whose rules name a group as remote, by domain of the ports.
    askers: Counts<(SecurityGroupId, RoutingDomain), HostId>,
    /// Addresses of the ports that have a group.
    members: Counts<(SecurityGroupId, RoutingDomain), IpAddr>,
    /// Where addresses of private networks are.
    remotes: Remotes,
    /// Who has the addresses that several may use.
    tellings: Tellings,
    /// Who has joined multicast groups.
    audiences: audiences::Audiences,
    /// Ports of those that may send from more than their own addresses.
    remote_ports: RemotePorts,
    /// Floating IPs.
    floating_ips: Placed<FloatingIpId, FloatingIp>,
    /// What floating IPs stand for.
    inside: Inside,
    /// Port forwardings.
    forwardings: Placed<PortForwardingId, PortForwarding>,
    /// NAT44 sources of a host.
    sources: Index<HostId, PortId>,
    /// Hosts that listen, and what they have not been told yet.
    outbox: BTreeMap<HostId, Vec<Step>>,
}

impl HostViews {
    /// From now on steps for this host are kept for [`HostViews::take`].
    pub fn listen(&mut self, host: HostId) {
        self.outbox.entry(host).or_default();
    }

    /// Steps for this host are not kept any more.
    pub fn ignore(&mut self, host: &HostId) {
        self.outbox.remove(host);
    }

    /// Steps that came since the last call, by host.
    pub fn take(&mut self) -> Vec<(HostId, Vec<Step>)> {
        let waiting = self
            .outbox
            .iter_mut()
            .filter(|(_, steps)| !steps.is_empty());
        waiting
            .map(|(host, steps)| (host.clone(), std::mem::take(steps)))
            .collect()
    }

    /// Ports bound to a host, those that are NAT44 sources apart.
    pub fn ports_of(&self, host: &HostId) -> impl Iterator<Item = &PortId> {
        self.ports.get(host)
    }

    /// Ports that are a host's NAT44 sources.
    pub fn sources_of(&self, host: &HostId) -> impl Iterator<Item = &PortId> {
        self.sources.get(host)
    }

    /// All ports that are NAT44 sources of some host.
    pub fn all_sources(&self) -> impl Iterator<Item = &PortId> {
        self.sources.values()
    }

    pub(super) fn emit(&mut self, host: &HostId, step: impl FnOnce() -> Step) {
        if let Some(steps) = self.outbox.get_mut(host) {
            steps.push(step());
        }
    }

    /// All hosts are told of all QoS policies.
    pub(super) fn tell_policy(&mut self, id: QosPolicyId, new: Option<&QosPolicy>) {
        let step = match new {
            Some(policy) => told_policy(policy),
            None => Step::other(Change::RemoveQosPolicy(id)),
        };
        for steps in self.outbox.values_mut() {
            steps.push(step.clone());
        }
    }

    /// Those of the hosts that listen.
    fn listening<K: Hash + Eq>(&self, counts: &Counts<K, HostId>, key: &K) -> Vec<HostId> {
        let hosts = counts.of(key).map(|(host, _)| host);
        let listening = hosts.filter(|host| self.outbox.contains_key(*host));
        listening.cloned().collect()
    }
}

fn told_policy(policy: &QosPolicy) -> Step {
    Step::other(Change::PutQosPolicy(Box::new(policy.clone())))
}

/// Single addresses that a port may use besides its own.
fn paired_addresses(port: &Port) -> impl Iterator<Item = IpAddr> + '_ {
    let pairs = port.allowed_address_pairs.iter().map(|p| p.ip_address);
    pairs.filter(|p| p.is_host()).map(|p| p.addr())
}

impl State {
    /// A host's whole intent, what is referred to first.
    pub fn snapshot(&self, host: &HostId) -> Vec<Step> {
        let (ports, standbys) = self.ports_told(host);
        let seeds = ports.iter().map(|p| Seed::Network(p.network_id));
        let seeds = seeds.chain(self.physical_seeds(host));
        let seeds: BTreeSet<_> = seeds.chain(self.gateways_on(host)).collect();
        let reaches = seeds.into_iter().map(|seed| self.views.routing.reach(seed));
        let (mut networks, mut routers) = (BTreeSet::new(), BTreeSet::new());
        for reach in reaches {
            networks.extend(reach.networks.iter().chain(&reach.outside).copied());
            routers.extend(reach.routers.iter().copied());
        }
        let groups: BTreeSet<_> = ports.iter().flat_map(|p| &p.security_groups).collect();
        let sources: BTreeSet<_> = self
            .views
            .sources_of(host)
            .filter_map(|id| self.ports.get(id)?.device_id.parse().ok())
            .collect();
        let mut steps = Vec::new();
        let policies = self.qos.policies.values();
        steps.extend(policies.map(|policy| told_policy(policy)));
        steps.extend(self.own_endpoint(host));
        steps.extend(networks.iter().flat_map(|id| self.network_steps(host, *id)));
        let routed = self.subnets.values().filter(|s| self.is_for_all(s));
        steps.extend(routed.cloned().map(Step::PutSubnet));
        let routers = routers.iter();
        let routers = routers.filter_map(|id| self.views.routing.router(*id));
        for router in routers {
            let gateway = router.gateway_host.as_ref();
            let gateway = gateway.filter(|g| g.host != *host);
            steps.extend(gateway.and_then(|g| self.own_endpoint(&g.host)));
            steps.push(Step::PutRouter(Arc::clone(router)));
        }
        let ips = self.views.floating_ips.on(host).cloned();
        let ips = ips.map(|ip| Change::PutFloatingIp(Box::new(ip)));
        let forwardings = self.views.forwardings.on(host).cloned();
        let forwardings = forwardings.map(|f| Change::PutPortForwarding(Box::new(f)));
        steps.extend(ips.chain(forwardings).map(Step::other));
        steps.extend(sources.into_iter().map(|id| self.sources_step(host, id)));
        steps.extend(self.members_of_groups_of(&ports));
        steps.extend(groups.iter().filter_map(|id| self.group_step(**id)));
        let standbys = standbys.into_iter().map(Change::PutStandby);
        let holders = self.views.tellings.on(host);
        let holders = holders.map(|((id, addr), port)| Change::PutHolder(*id, *addr, *port));
        steps.extend(standbys.chain(holders).map(Step::other));
        let watched = self.watches.of(host);
        let watched = watched.map(|(other, addr)| Change::PutWatched(other.clone(), addr));
        steps.extend(watched.map(Step::other));
        steps.extend(ports.iter().map(|p| Step::PutPort(Arc::clone(p))));
        steps
    }

    /// The ports that a host is told, as they are there; and those of them whose addresses are elsewhere.
    fn ports_told(&self, host: &HostId) -> (Vec<Arc<Port>>, BTreeSet<PortId>) {
        let ids = self.views.ports_of(host).chain(self.bindings.on(host));
        let ids: BTreeSet<PortId> = ids.copied().collect();
        let (mut ports, mut standbys) = (Vec::new(), BTreeSet::new());
        for id in ids {
            let places = self.places(self.ports.get(&id));
            if places.stands_by(host) {
                standbys.insert(id);
            }
            let here = places.told.into_iter().find(|(at, _)| at == host);
            ports.extend(here.map(|(_, port)| port));
        }
        (ports, standbys)
    }

    /// Routers that translate on a host, and are told so.
    fn gateways_on(&self, host: &HostId) -> impl Iterator<Item = Seed> + '_ {
        let routers = self.layer3.gateways_by_host.get(host).copied();
        let told = routers.filter(|id| {
            let router = self.views.routing.router(*id);
            router.is_some_and(|r| r.gateway_host.is_some())
        });
        told.map(Seed::Gateway)
    }

    /// A network with all that a host has to know of it before its ports.
    fn network_steps(&self, host: &HostId, id: NetworkId) -> Vec<Step> {
        let network = self.networks.get(&id).cloned();
        let mut steps: Vec<_> = network.map(Step::PutNetwork).into_iter().collect();
        if self.domain_of(id) != RoutingDomain::Routed {
            steps.extend(self.subnets_of(id).cloned().map(Step::PutSubnet));
            steps.extend(self.remote_steps(host, id));
            steps.extend(self.audience_steps(id));
        }
        steps
    }

    fn type_of(&self, network: NetworkId) -> Option<NetworkType> {
        self.networks.get(&network).map(|n| n.network_type)
    }

    /// Whether all hosts are told of a subnet.
    fn is_for_all(&self, subnet: &Subnet) -> bool {
        let network_type = self.type_of(subnet.network_id);
        network_type.is_some_and(|t| t != NetworkType::Vxlan)
    }

    fn group_step(&self, id: SecurityGroupId) -> Option<Step> {
        let group = self.groups.get(&id)?.as_ref().clone();
        let rules = self.rules_of(id).map(|r| (r.id, r.as_ref().clone()));
        let named = self.rules_of(id).filter_map(|r| r.remote_address_group_id);
        let addresses = named.filter_map(|named| {
            let group = self.address_groups.get(&named)?;
            Some((named, group.addresses.iter().copied().collect()))
        });
        Some(Step::PutGroup(Arc::new(Group {
            group,
            rules: rules.collect(),
            addresses: addresses.collect(),
        })))
    }

    fn sources_step(&self, host: &HostId, subnet: SubnetId) -> Step {
        let device = subnet.to_string();
        let ports = self
            .views
            .sources_of(host)
            .filter_map(|id| self.ports.get(id));
        let sources = ports
            .filter(|p| p.device_id == device)
            .flat_map(|p| p.fixed_ips.iter().map(|f| f.ip_address))
            .collect();
        Step::other(Change::SetNat44Sources(subnet, sources))
    }

    /// A network changes as `set` says. What it is of never changes while it is there; when it comes or
    /// goes, its ports and subnets (there are none, but for those that the same transaction takes along)
    /// come to be somewhere else.
    pub(super) fn view_network(
        &mut self,
        id: NetworkId,
        new: Option<Arc<Network>>,
        set: impl FnOnce(&mut State),
    ) {
        if self.type_of(id) == new.as_ref().map(|n| n.network_type) {
            set(self);
            for host in self.views.listening(&self.views.networks, &id) {
                if let Some(network) = new.clone() {
                    self.views.emit(&host, || Step::PutNetwork(network));
                }
            }
            return;
        }
        // Nobody gets there while it is neither what it was nor what it will be.
        self.views.hidden = Some(id);
        self.view_holders(id);
        self.view_audiences(id);
        let routers = self.routers_at(id);
        for router in &routers {
            self.view_router(*router);
        }
        let ports = self.ports_by_network.get(&id);
        let ports: Vec<_> = ports.filter_map(|p| self.ports.get(p).cloned()).collect();
        let subnets: Vec<_> = self.subnets_of(id).cloned().collect();
        for port in &ports {
            self.view_port(Some(port), None);
        }
        for subnet in &subnets {
            self.view_subnet(Some(subnet), None);
        }
        set(self);
        for subnet in &subnets {
            self.view_subnet(None, Some(subnet));
        }
        for port in &ports {
            self.view_port(None, Some(port));
        }
        self.views.hidden = None;
        self.view_holders(id);
        self.view_audiences(id);
        for router in &routers {
            self.view_router(*router);
        }
    }

    pub(super) fn view_subnet(&mut self, old: Option<&Arc<Subnet>>, new: Option<&Arc<Subnet>>) {
        let Some(subnet) = new.or(old) else {
            return;
        };
        let step = || match new {
            Some(subnet) => Step::PutSubnet(Arc::clone(subnet)),
            None => Step::other(Change::RemoveSubnet(subnet.id)),
        };
        match self.type_of(subnet.network_id) {
            Some(NetworkType::Routed | NetworkType::Flat) => {
                for steps in self.views.outbox.values_mut() {
                    steps.push(step());
                }
            }
            Some(NetworkType::Vxlan) => {
                let networks = &self.views.networks;
                for host in self.views.listening(networks, &subnet.network_id) {
                    self.views.emit(&host, step);
                }
            }
            None => {}
        }
    }

    pub(super) fn view_group(&mut self, id: SecurityGroupId) {
        for host in self.views.listening(&self.views.groups, &id) {
            let step = self.group_step(id);
            let gone = || Step::other(Change::RemoveGroup(id));
            self.views.emit(&host, || step.unwrap_or_else(gone));
        }
    }

    /// An address group's prefixes change.
    pub(super) fn view_address_group(&mut self, id: AddressGroupId) {
        let rules = self.rules_by_address_group.get(&id);
        let rules = rules.filter_map(|rule| self.rules.get(rule));
        let groups: BTreeSet<_> = rules.map(|rule| rule.security_group_id).collect();
        for group in groups {
            self.view_group(group);
        }
    }

    pub(super) fn view_port(&mut self, old: Option<&Arc<Port>>, new: Option<&Arc<Port>>) {
        self.view_members(old.map(AsRef::as_ref), new.map(AsRef::as_ref));
        let place = |port: &Port| port.binding.host_id.clone();
        let is_source = |port: &Port| port.device_owner == NAT44_OWNER;
        let source = |port: Option<&Arc<Port>>| {
            port.filter(|p| is_source(p))
                .and_then(|p| Some((place(p)?, p.id, p.device_id.parse::<SubnetId>().ok()?)))
        };
        self.view_source(source(old), source(new));

        let bound = |port: &Port| place(port).filter(|_| is_guest(port));
        if let Some((port, host)) = old.and_then(|p| Some((p, bound(p)?))) {
            self.views.ports.remove(&host, &port.id);
        }
        if let Some((port, host)) = new.and_then(|p| Some((p, bound(p)?))) {
            self.views.ports.insert(host, port.id);
        }
        let ports = [old, new].into_iter().flatten();
        let concerned = ports.flat_map(|p| self.concerned(p)).collect();
        let id = new.or(old).map(|port| port.id);
        let (old, new) = (self.places(old), self.places(new));
        self.tell_port(&old, &new, &concerned);
        if let Some(id) = id {
            self.view_joined(id);
        }
    }

    fn need_port(&mut self, host: &HostId, port: &Arc<Port>) {
        self.need_seed(host, Seed::Network(port.network_id));
        self.need_members(host, port);
        for group in &port.security_groups {
            if self.views.groups.up(*group, host.clone())
                && let Some(step) = self.group_step(*group)
            {
                self.views.emit(host, || step);
            }
        }
    }

    fn drop_port(&mut self, host: &HostId, port: &Port) {
        for group in &port.security_groups {
            if self.views.groups.down(group, host) {
                self.views
                    .emit(host, || Step::other(Change::RemoveGroup(*group)));
            }
        }
        self.drop_members(host, port);
        self.drop_seed(host, Seed::Network(port.network_id));
    }

    fn view_source(
        &mut self,
        old: Option<(HostId, PortId, SubnetId)>,
        new: Option<(HostId, PortId, SubnetId)>,
    ) {
        if let Some((host, port, _)) = &old {
            self.views.sources.remove(host, port);
        }
        if let Some((host, port, _)) = &new {
            self.views.sources.insert(host.clone(), *port);
        }
        let places: BTreeSet<_> = old.into_iter().chain(new).map(|(h, _, s)| (h, s)).collect();
        for (host, subnet) in places {
            let step = self.sources_step(&host, subnet);
            self.views.emit(&host, || step);
        }
    }
}

#[cfg(test)]
mod tests;
