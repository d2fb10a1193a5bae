//! Who has joined a group, as hosts are told that are told the network. A port counts that is there, and has an address of the
//! group's family; those that are too many for one packet hear nothing.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use hextet_model::{
    intent::{Change, Joined, RoutingDomain},
    neutron::Port,
    state::Audience,
};
use hextet_types::{Family, HostId, NetworkId, PortId};

use super::{Step, is_guest};
use crate::state::{State, joins::JoinRecord, table::Row};

type Listeners = BTreeMap<PortId, Joined>;

/// What hosts are told; never an empty map.
pub type Audiences = BTreeMap<(NetworkId, IpAddr), Listeners>;

/// A port as one that hears a group; none, if it has no address of its family.
pub fn joined(port: &Port, group: IpAddr) -> Option<Joined> {
    let own = port.fixed_ips.iter().map(|f| f.ip_address);
    let mut own = own.filter(|addr| Family::of(*addr) == Family::of(group));
    Some(Joined {
        mac: port.mac_address,
        addr: own.next()?,
    })
}

impl State {
    fn audience(&self, network: NetworkId, group: IpAddr) -> Listeners {
        let is_private = matches!(self.domain_of(network), RoutingDomain::Network(_));
        let there = self.networks.get(&network).is_some();
        if !is_private || !there || self.views.hidden == Some(network) {
            return Listeners::new();
        }
        self.listeners(network, group)
            .take(Audience::MOST)
            .collect()
    }

    fn listeners(
        &self,
        network: NetworkId,
        group: IpAddr,
    ) -> impl Iterator<Item = (PortId, Joined)> {
        let ports = self.joins.of(network, group);
        let ports = ports.filter_map(|id| self.ports.get(&id));
        let ports = ports.filter(move |port| port.network_id == network && is_guest(port));
        ports.filter_map(move |port| Some((port.id, joined(port, group)?)))
    }

    /// How many would hear a group, were there no bound.
    pub fn count_listeners(&self, network: NetworkId, group: IpAddr) -> usize {
        self.listeners(network, group).count()
    }

    /// A port has joined other groups than before, or none.
    pub(in crate::state) fn set_joined(&mut self, port: PortId, row: Option<Row<JoinRecord>>) {
        let concerned = self.joins.set(port, row);
        self.review_audiences(concerned);
    }

    /// Whether a network's ports count may be something else now.
    pub(in crate::state) fn view_audiences(&mut self, network: NetworkId) {
        let groups = self.joins.groups(network);
        let groups: Vec<_> = groups.map(|group| (network, group)).collect();
        self.review_audiences(groups);
    }

    /// A port comes, goes or is another now.
    pub(super) fn view_joined(&mut self, port: PortId) {
        let row = self.joins.row(port);
        let groups: BTreeSet<_> = row.map_or_else(BTreeSet::new, |row| {
            let network = row.value.network_id;
            row.value.groups.iter().map(|g| (network, *g)).collect()
        });
        self.review_audiences(groups);
    }

    fn review_audiences(&mut self, concerned: impl IntoIterator<Item = (NetworkId, IpAddr)>) {
        for (network, group) in concerned {
            let new = self.audience(network, group);
            let told = &mut self.views.audiences;
            let old = match new.is_empty() {
                true => told.remove(&(network, group)),
                false => told.insert((network, group), new.clone()),
            };
            if old.unwrap_or_default() == new {
                continue;
            }
            let change = match new.is_empty() {
                true => Change::RemoveAudience(network, group),
                false => Change::PutAudience(network, group, new),
            };
            let step = Step::other(change);
            for host in self.views.listening(&self.views.networks, &network) {
                self.views.emit(&host, || step.clone());
            }
        }
    }

    /// What a host is told of a network's groups.
    pub(super) fn audience_steps(&self, network: NetworkId) -> Vec<Step> {
        let told = self.audiences_of(network);
        let change = |(group, all)| Step::other(Change::PutAudience(network, group, all));
        told.into_iter().map(change).collect()
    }

    /// A host is told the network no longer.
    pub(super) fn forget_audiences(&mut self, host: &HostId, network: NetworkId) {
        for (group, _) in self.audiences_of(network) {
            let step = || Step::other(Change::RemoveAudience(network, group));
            self.views.emit(host, step);
        }
    }

    fn audiences_of(&self, network: NetworkId) -> Vec<(IpAddr, Listeners)> {
        let from = (network, Family::V4.unspecified());
        let all = self.views.audiences.range(from..);
        let all = all.take_while(|((of, _), _)| *of == network);
        all.map(|((_, group), all)| (*group, all.clone())).collect()
    }
}
