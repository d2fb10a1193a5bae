//! The addresses of remote groups' members. A host is told those of a domain only if it has a port in that
//! domain with a rule that asks for them: what is somebody's in one private network says nothing about
//! another.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use hextet_model::{
    intent::{Change, RoutingDomain},
    neutron::{Port, SecurityGroupRule},
};
use hextet_types::{HostId, SecurityGroupId};

use super::{Step, paired_addresses};
use crate::state::State;

/// A group's member, in a domain.
pub(super) type Member = ((SecurityGroupId, RoutingDomain), IpAddr);

/// What a member of a remote group sends from: its own addresses, and single ones that it may use
/// besides.
pub fn member_addresses(port: &Port) -> BTreeSet<IpAddr> {
    let own = port.fixed_ips.iter().map(|f| f.ip_address);
    own.chain(paired_addresses(port)).collect()
}

/// A port's addresses, for each of its groups.
pub(super) fn memberships(port: &Port) -> impl Iterator<Item = (SecurityGroupId, IpAddr)> {
    let addresses = member_addresses(port);
    let groups = port.security_groups.iter();
    groups.flat_map(move |g| addresses.clone().into_iter().map(|a| (*g, a)))
}

impl State {
    /// Members of all remote groups that these ports' groups name, each in the port's domain.
    pub(super) fn members_of_groups_of(&self, ports: &[Arc<Port>]) -> Vec<Step> {
        let placed = |port: &&Arc<Port>| self.domain_of(port.network_id);
        let asked: BTreeSet<_> = ports
            .iter()
            .flat_map(|port| {
                let domain = placed(&port);
                port.security_groups.iter().map(move |g| (*g, domain))
            })
            .collect();
        let remotes: BTreeSet<_> = asked
            .into_iter()
            .flat_map(|(group, domain)| {
                let remotes = self.rules_of(group).filter_map(|r| r.remote_group_id);
                remotes.map(move |remote| (remote, domain))
            })
            .collect();
        let steps = remotes.into_iter().filter_map(|r| self.all_members(r));
        steps.collect()
    }

    fn all_members(&self, remote: (SecurityGroupId, RoutingDomain)) -> Option<Step> {
        let members = self.views.members.of(&remote);
        let all: BTreeSet<_> = members.map(|(addr, _)| *addr).collect();
        let (group, domain) = remote;
        (!all.is_empty()).then(|| Step::other(Change::AddMembers(group, domain, all)))
    }

    fn remotes_of(&self, group: SecurityGroupId) -> Vec<SecurityGroupId> {
        let rules = self.rules_of(group);
        rules.filter_map(|r| r.remote_group_id).collect()
    }

    /// A host comes to have a port.
    pub(super) fn need_members(&mut self, host: &HostId, port: &Port) {
        let domain = self.domain_of(port.network_id);
        for group in &port.security_groups {
            if self.views.placed.up(*group, (host.clone(), domain)) {
                for remote in self.remotes_of(*group) {
                    self.need_remote(host, (remote, domain));
                }
            }
        }
    }

    /// A host has a port no longer.
    pub(super) fn drop_members(&mut self, host: &HostId, port: &Port) {
        let domain = self.domain_of(port.network_id);
        for group in &port.security_groups {
            if self.views.placed.down(group, &(host.clone(), domain)) {
                for remote in self.remotes_of(*group) {
                    self.drop_remote(host, (remote, domain));
                }
            }
        }
    }

    fn need_remote(&mut self, host: &HostId, remote: (SecurityGroupId, RoutingDomain)) {
        if self.views.askers.up(remote, host.clone())
            && let Some(step) = self.all_members(remote)
        {
            self.views.emit(host, || step);
        }
    }

    fn drop_remote(&mut self, host: &HostId, remote: (SecurityGroupId, RoutingDomain)) {
        if self.views.askers.down(&remote, host) {
            let (group, domain) = remote;
            let all = self.views.members.of(&remote).map(|(a, _)| *a).collect();
            let step = Step::other(Change::RemoveMembers(group, domain, all));
            self.views.emit(host, || step);
        }
    }

    /// A rule comes, changes or goes.
    pub(in crate::state) fn view_rule(
        &mut self,
        old: Option<&SecurityGroupRule>,
        new: Option<&SecurityGroupRule>,
    ) {
        let remote = |rule: Option<&SecurityGroupRule>| {
            rule.and_then(|r| Some((r.security_group_id, r.remote_group_id?)))
        };
        if let Some((group, remote)) = remote(new) {
            for (host, domain) in self.users_of(group) {
                self.need_remote(&host, (remote, domain));
            }
        }
        if let Some(rule) = new.or(old)
            && self.groups.get(&rule.security_group_id).is_some()
        {
            self.view_group(rule.security_group_id);
        }
        if let Some((group, remote)) = remote(old) {
            for (host, domain) in self.users_of(group) {
                self.drop_remote(&host, (remote, domain));
            }
        }
    }

    /// Whoever has ports with the group, and where.
    fn users_of(&self, group: SecurityGroupId) -> Vec<(HostId, RoutingDomain)> {
        let users = self.views.placed.of(&group);
        users.map(|(user, _)| user.clone()).collect()
    }

    /// A port comes, changes or goes: its addresses are members in the domains of all networks from which
    /// one gets to it.
    pub(super) fn view_members(&mut self, old: Option<&Port>, new: Option<&Port>) {
        let all = |port: Option<&Port>| -> Vec<Member> {
            let mut all = Vec::new();
            if let Some(port) = port {
                let from = self.views.routing.seen_from(port.network_id);
                let from = from.map(RoutingDomain::Network);
                let own = self.domain_of(port.network_id);
                for domain in from.chain([own]) {
                    all.extend(memberships(port).map(|(g, addr)| ((g, domain), addr)));
                }
            }
            all
        };
        let (old, new) = (all(old), all(new));
        self.change_members(old, new);
    }

    /// Tells the hosts that need a group's members which have come and which have gone.
    pub(super) fn change_members(&mut self, old: Vec<Member>, new: Vec<Member>) {
        type Changed = (BTreeSet<IpAddr>, BTreeSet<IpAddr>);
        let mut changed: BTreeMap<(SecurityGroupId, RoutingDomain), Changed> = BTreeMap::new();
        for (remote, address) in new {
            if self.views.members.up(remote, address) {
                changed.entry(remote).or_default().0.insert(address);
            }
        }
        for (remote, address) in old {
            if self.views.members.down(&remote, &address) {
                changed.entry(remote).or_default().1.insert(address);
            }
        }
        for (remote, (added, removed)) in changed {
            let (group, domain) = remote;
            let more = Step::other(Change::AddMembers(group, domain, added.clone()));
            let fewer = Step::other(Change::RemoveMembers(group, domain, removed.clone()));
            for host in self.views.listening(&self.views.askers, &remote) {
                if !added.is_empty() {
                    self.views.emit(&host, || more.clone());
                }
                if !removed.is_empty() {
                    self.views.emit(&host, || fewer.clone());
                }
            }
        }
    }
}
