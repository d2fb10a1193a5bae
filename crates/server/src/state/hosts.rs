//! What each host is told, kept up to date change by change.
//!
//! A host is told of its own ports, of what they need, and of all subnets. Counts say what is
//! needed how often, so that a change costs in proportion to the hosts that it concerns. What is
//! told by steps is always what [`State::snapshot`] would tell at once.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use hextet_model::{
    intent::{Change, Group},
    neutron::{Network, Port, SecurityGroupRule, Subnet},
};
use hextet_types::{HostId, NetworkId, PortId, SecurityGroupId, SubnetId};

use super::{
    NAT44_OWNER, State,
    table::{Counts, Index},
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
    /// Anything small.
    Other(Arc<Change>),
}

impl Step {
    fn other(change: Change) -> Step {
        Step::Other(Arc::new(change))
    }

    /// As the agent is told.
    pub fn to_change(&self) -> Change {
        match self {
            Step::PutNetwork(n) => Change::PutNetwork(Box::new(n.as_ref().clone())),
            Step::PutSubnet(s) => Change::PutSubnet(Box::new(s.as_ref().clone())),
            Step::PutPort(p) => Change::PutPort(Box::new(p.as_ref().clone())),
            Step::PutGroup(g) => Change::PutGroup(Box::new(g.as_ref().clone())),
            Step::Other(change) => change.as_ref().clone(),
        }
    }
}

/// Who needs what.
#[derive(Debug, Default)]
pub struct HostViews {
    /// Ports bound to a host, those that are NAT44 sources apart.
    ports: Index<HostId, PortId>,
    /// Hosts with ports on a network.
    networks: Counts<NetworkId, HostId>,
    /// Hosts with ports that have a group.
    groups: Counts<SecurityGroupId, HostId>,
    /// Hosts with groups whose rules name a group as remote.
    remotes: Counts<SecurityGroupId, HostId>,
    /// Addresses of the ports that have a group.
    members: Counts<SecurityGroupId, IpAddr>,
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

    fn emit(&mut self, host: &HostId, step: impl FnOnce() -> Step) {
        if let Some(steps) = self.outbox.get_mut(host) {
            steps.push(step());
        }
    }

    fn hosts(counts: &Counts<SecurityGroupId, HostId>, id: SecurityGroupId) -> Vec<HostId> {
        counts.of(&id).map(|(host, _)| host.clone()).collect()
    }
}

/// What a member of a remote group sends from: its own addresses, and single ones that it may use
/// besides.
fn member_addresses(port: &Port) -> BTreeSet<IpAddr> {
    let own = port.fixed_ips.iter().map(|f| f.ip_address);
    let pairs = port.allowed_address_pairs.iter().map(|p| p.ip_address);
    own.chain(pairs.filter(|p| p.is_host()).map(|p| p.addr()))
        .collect()
}

impl State {
    /// A host's whole intent, what is referred to first.
    pub fn snapshot(&self, host: &HostId) -> Vec<Step> {
        let ports: Vec<_> = self
            .views
            .ports_of(host)
            .filter_map(|id| self.ports.get(id))
            .collect();
        let networks: BTreeSet<_> = ports.iter().map(|p| p.network_id).collect();
        let groups: BTreeSet<_> = ports.iter().flat_map(|p| &p.security_groups).collect();
        let remotes: BTreeSet<_> = groups
            .iter()
            .flat_map(|g| self.rules_of(**g))
            .filter_map(|r| r.remote_group_id)
            .collect();
        let sources: BTreeSet<_> = self
            .views
            .sources_of(host)
            .filter_map(|id| self.ports.get(id)?.device_id.parse().ok())
            .collect();
        let networks = networks
            .iter()
            .filter_map(|id| self.networks.get(id).cloned());
        let members = remotes.iter().filter_map(|id| self.all_members(*id));
        networks
            .map(Step::PutNetwork)
            .chain(self.subnets.values().cloned().map(Step::PutSubnet))
            .chain(
                sources
                    .into_iter()
                    .map(|subnet| self.sources_step(host, subnet)),
            )
            .chain(members)
            .chain(groups.iter().filter_map(|id| self.group_step(**id)))
            .chain(ports.iter().map(|p| Step::PutPort(Arc::clone(p))))
            .collect()
    }

    fn all_members(&self, group: SecurityGroupId) -> Option<Step> {
        let all: BTreeSet<_> = self.views.members.of(&group).map(|(a, _)| *a).collect();
        (!all.is_empty()).then(|| Step::other(Change::AddMembers(group, all)))
    }

    fn group_step(&self, id: SecurityGroupId) -> Option<Step> {
        let group = self.groups.get(&id)?.as_ref().clone();
        let rules = self
            .rules_of(id)
            .map(|r| (r.id, r.as_ref().clone()))
            .collect();
        Some(Step::PutGroup(Arc::new(Group { group, rules })))
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

    pub(super) fn view_network(&mut self, id: NetworkId, new: Option<Arc<Network>>) {
        let hosts: Vec<_> = self
            .views
            .networks
            .of(&id)
            .map(|(h, _)| h.clone())
            .collect();
        for host in hosts {
            self.views.emit(&host, || match &new {
                Some(network) => Step::PutNetwork(Arc::clone(network)),
                None => Step::other(Change::RemoveNetwork(id)),
            });
        }
    }

    pub(super) fn view_subnet(&mut self, id: SubnetId, new: Option<Arc<Subnet>>) {
        for steps in self.views.outbox.values_mut() {
            steps.push(match &new {
                Some(subnet) => Step::PutSubnet(Arc::clone(subnet)),
                None => Step::other(Change::RemoveSubnet(id)),
            });
        }
    }

    pub(super) fn view_group(&mut self, id: SecurityGroupId) {
        for host in HostViews::hosts(&self.views.groups, id) {
            let step = self.group_step(id);
            let gone = || Step::other(Change::RemoveGroup(id));
            self.views.emit(&host, || step.unwrap_or_else(gone));
        }
    }

    pub(super) fn view_rule(
        &mut self,
        old: Option<&SecurityGroupRule>,
        new: Option<&SecurityGroupRule>,
    ) {
        let remote = |rule: Option<&SecurityGroupRule>| {
            rule.and_then(|r| Some((r.security_group_id, r.remote_group_id?)))
        };
        if let Some((group, remote)) = remote(new) {
            for host in HostViews::hosts(&self.views.groups, group) {
                self.need_remote(&host, remote);
            }
        }
        if let Some(rule) = new.or(old)
            && self.groups.get(&rule.security_group_id).is_some()
        {
            self.view_group(rule.security_group_id);
        }
        if let Some((group, remote)) = remote(old) {
            for host in HostViews::hosts(&self.views.groups, group) {
                self.drop_remote(&host, remote);
            }
        }
    }

    /// First what is needed newly, then the port, then what is needed no longer.
    pub(super) fn view_port(&mut self, old: Option<&Port>, new: Option<&Arc<Port>>) {
        self.view_members(old, new.map(AsRef::as_ref));
        let place = |port: &Port| port.binding.host_id.clone();
        let is_source = |port: &Port| port.device_owner == NAT44_OWNER;
        let source = |port: Option<&Port>| {
            port.filter(|p| is_source(p))
                .and_then(|p| Some((place(p)?, p.id, p.device_id.parse::<SubnetId>().ok()?)))
        };
        self.view_source(source(old), source(new.map(AsRef::as_ref)));

        let old = old
            .filter(|p| !is_source(p))
            .and_then(|p| Some((p, place(p)?)));
        let new = new
            .filter(|p| !is_source(p))
            .and_then(|p| Some((p, place(p)?)));
        if let Some((port, host)) = &new {
            self.need_port(host, port);
        }
        if let Some((port, host)) = &old {
            let stays = new.as_ref().is_some_and(|(_, h)| h == host);
            self.drop_port(host, port, stays);
        }
    }

    fn need_port(&mut self, host: &HostId, port: &Arc<Port>) {
        self.views.ports.insert(host.clone(), port.id);
        if self.views.networks.up(port.network_id, host.clone())
            && let Some(network) = self.networks.get(&port.network_id).cloned()
        {
            self.views.emit(host, || Step::PutNetwork(network));
        }
        for group in &port.security_groups {
            if self.views.groups.up(*group, host.clone()) {
                for remote in self.remotes_of(*group) {
                    self.need_remote(host, remote);
                }
                if let Some(step) = self.group_step(*group) {
                    self.views.emit(host, || step);
                }
            }
        }
        self.views.emit(host, || Step::PutPort(Arc::clone(port)));
    }

    fn drop_port(&mut self, host: &HostId, port: &Port, stays: bool) {
        if !stays {
            self.views.ports.remove(host, &port.id);
            self.views
                .emit(host, || Step::other(Change::RemovePort(port.id)));
        }
        for group in &port.security_groups {
            if self.views.groups.down(group, host) {
                self.views
                    .emit(host, || Step::other(Change::RemoveGroup(*group)));
                for remote in self.remotes_of(*group) {
                    self.drop_remote(host, remote);
                }
            }
        }
        if self.views.networks.down(&port.network_id, host) {
            self.views
                .emit(host, || Step::other(Change::RemoveNetwork(port.network_id)));
        }
    }

    fn remotes_of(&self, group: SecurityGroupId) -> Vec<SecurityGroupId> {
        self.rules_of(group)
            .filter_map(|r| r.remote_group_id)
            .collect()
    }

    fn need_remote(&mut self, host: &HostId, remote: SecurityGroupId) {
        if self.views.remotes.up(remote, host.clone())
            && let Some(step) = self.all_members(remote)
        {
            self.views.emit(host, || step);
        }
    }

    fn drop_remote(&mut self, host: &HostId, remote: SecurityGroupId) {
        if self.views.remotes.down(&remote, host) {
            let all = self.views.members.of(&remote).map(|(a, _)| *a).collect();
            self.views
                .emit(host, || Step::other(Change::RemoveMembers(remote, all)));
        }
    }

    /// Tells the hosts that need a group's members which have come and which have gone.
    fn view_members(&mut self, old: Option<&Port>, new: Option<&Port>) {
        let mut changed: BTreeMap<SecurityGroupId, (BTreeSet<IpAddr>, BTreeSet<IpAddr>)> =
            BTreeMap::new();
        if let Some(port) = new {
            for (group, address) in memberships(port) {
                if self.views.members.up(group, address) {
                    changed.entry(group).or_default().0.insert(address);
                }
            }
        }
        if let Some(port) = old {
            for (group, address) in memberships(port) {
                if self.views.members.down(&group, &address) {
                    changed.entry(group).or_default().1.insert(address);
                }
            }
        }
        for (group, (added, removed)) in changed {
            for host in HostViews::hosts(&self.views.remotes, group) {
                if !added.is_empty() {
                    let added = added.clone();
                    self.views
                        .emit(&host, || Step::other(Change::AddMembers(group, added)));
                }
                if !removed.is_empty() {
                    let removed = removed.clone();
                    self.views
                        .emit(&host, || Step::other(Change::RemoveMembers(group, removed)));
                }
            }
        }
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

fn memberships(port: &Port) -> impl Iterator<Item = (SecurityGroupId, IpAddr)> {
    let addresses = member_addresses(port);
    let groups = port.security_groups.iter();
    groups.flat_map(move |g| addresses.clone().into_iter().map(|a| (*g, a)))
}

#[cfg(test)]
mod tests;
