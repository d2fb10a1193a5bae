//! Intents as changes: what leads to one, and from one to another.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use super::{Change, Intent};

impl Intent {
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
        let upstreams = self.upstreams.iter();
        let upstreams =
            upstreams.map(|(on, said)| Change::PutUpstream(on.clone(), Box::new(said.clone())));
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
            .chain(upstreams)
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
        let upstreams = self.upstreams.into_iter();
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
            .chain(upstreams.map(|(on, said)| Change::PutUpstream(on, Box::new(said))))
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
        let upstreams = self.upstreams.keys();
        let upstreams = upstreams.filter(|on| !to.upstreams.contains_key(*on));
        changes.extend(upstreams.cloned().map(Change::RemoveUpstream));
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
    pub(super) fn has(&self, change: &Change) -> bool {
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
            Change::PutUpstream(on, said) => self.upstreams.get(on) == Some(&**said),
            Change::RemoveUpstream(on) => !self.upstreams.contains_key(on),
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
