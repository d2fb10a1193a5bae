//! Where a port is: which hosts are told it, and on which of them its addresses are.
//!
//! A port is told to the host that it is bound to, and to those that are prepared for it. Its addresses are on
//! the former; on one of the latter when its workload was heard there while it is migrating there. Whatever
//! changes that, the new place knows the port before anybody is told that it is there, and the old one keeps it
//! until everybody is.

use std::{collections::BTreeSet, net::IpAddr, sync::Arc};

use hextet_model::{
    intent::{Change, RoutingDomain},
    neutron::{Port, Router},
};
use hextet_types::{HostId, NetworkId, PortId};

use super::{NAT44_OWNER, Step};
use crate::state::{
    HostRecord, State,
    bindings::{BindingRecord, migrating_to},
    table::Row,
};

/// Where a port is.
#[derive(Clone, Debug, Default)]
pub struct Places {
    /// Hosts, each with the port as it is told there; no host twice.
    pub told: Vec<(HostId, Arc<Port>)>,
    /// That of those where its addresses are.
    pub home: Option<HostId>,
}

impl Places {
    fn on(&self, host: &HostId) -> Option<&Arc<Port>> {
        let found = self.told.iter().find(|(at, _)| at == host);
        found.map(|(_, port)| port)
    }

    /// Whether the port is prepared there while its addresses are elsewhere.
    pub fn stands_by(&self, host: &HostId) -> bool {
        self.home.as_ref() != Some(host) && self.on(host).is_some()
    }

    /// The port where its addresses are.
    pub fn at_home(&self) -> Option<(&Arc<Port>, &HostId)> {
        let home = self.home.as_ref()?;
        Some((self.on(home)?, home))
    }
}

/// Whether it is somebody's workload, which lives on a host.
pub fn is_guest(port: &Port) -> bool {
    port.device_owner != NAT44_OWNER && port.device_owner != Router::INTERFACE_OWNER
}

impl State {
    /// Whether a host takes ports of a network: of private ones only where it is reached by tunnels, and of a physical
    /// one only where it is on it.
    pub fn takes(&self, host: &HostId, network: NetworkId) -> bool {
        let known = self.networks.get(&network);
        if let Some(network) = known.filter(|n| n.network_type.is_physical()) {
            let named = network.physical_network.as_ref();
            let record = self.hosts.get(host);
            return named
                .zip(record)
                .is_some_and(|(n, h)| h.physical_networks.contains(n));
        }
        match self.domain_of(network) {
            RoutingDomain::Routed => true,
            RoutingDomain::Network(_) => self.tunnels.endpoint(host).is_some(),
        }
    }

    /// Whether its host takes the port.
    pub fn is_taken(&self, port: &Port) -> bool {
        let host = port.binding.host_id.as_ref();
        host.is_some_and(|host| self.takes(host, port.network_id))
    }

    /// Where a port is, if it is there.
    pub fn places(&self, port: Option<&Arc<Port>>) -> Places {
        let mut places = Places::default();
        let Some(port) = port.filter(|p| is_guest(p)) else {
            return places;
        };
        let active = port.binding.host_id.as_ref();
        if let Some(host) = active.filter(|host| self.takes(host, port.network_id)) {
            places.told.push((host.clone(), Arc::clone(port)));
            places.home = Some(host.clone());
        }
        for (host, row) in self.bindings.of(port.id) {
            if active == Some(host) || !self.takes(host, port.network_id) {
                continue;
            }
            let mut there = port.as_ref().clone();
            there.binding = row.value.on(host);
            places.told.push((host.clone(), Arc::new(there)));
            if row.value.taken_over && migrating_to(port) == Some(host.as_str()) {
                places.home = Some(host.clone());
            }
        }
        places
    }

    /// A host comes, changes or goes. As it gets on physical networks, it takes ports there.
    pub(in crate::state) fn set_host(&mut self, host: &HostId, row: Option<Row<HostRecord>>) {
        let physical = |state: &State| state.hosts.get(host).map(|h| h.physical_networks.clone());
        let new = row.as_ref().map(|r| r.value.physical_networks.clone());
        if physical(self).unwrap_or_default() == new.unwrap_or_default() {
            self.hosts.set(host.clone(), row);
            return;
        }
        let ids = self.views.ports_of(host).chain(self.bindings.on(host));
        let ids: BTreeSet<PortId> = ids.copied().collect();
        let ports: Vec<Arc<Port>> = ids
            .iter()
            .filter_map(|id| self.ports.get(id).cloned())
            .collect();
        let former: Vec<Places> = ports.iter().map(|p| self.places(Some(p))).collect();
        self.set_record(host, row);
        for (port, former) in ports.iter().zip(&former) {
            let concerned = self.concerned(port);
            let latter = self.places(Some(port));
            self.tell_port(former, &latter, &concerned);
        }
    }

    /// A port's binding on a host comes, changes or goes.
    pub(in crate::state) fn set_binding(
        &mut self,
        port: PortId,
        host: HostId,
        row: Option<Row<BindingRecord>>,
    ) {
        let of = self.ports.get(&port).cloned();
        let old = self.places(of.as_ref());
        if let (Some(port), None) = (&of, &row) {
            self.notice_left(port, host.clone());
        }
        self.bindings.set(port, host, row);
        let new = self.places(of.as_ref());
        let concerned = of.map(|port| self.concerned(&port)).unwrap_or_default();
        self.tell_port(&old, &new, &concerned);
    }

    /// A port comes, changes, moves or goes. First what is needed newly, then the port, then what is needed no
    /// longer.
    pub(super) fn tell_port(
        &mut self,
        old: &Places,
        new: &Places,
        concerned: &BTreeSet<(NetworkId, IpAddr)>,
    ) {
        for (host, port) in &new.told {
            self.need_port(host, port);
            self.tell_standby(host, old, new);
            if old.on(host) != Some(port) {
                self.views.emit(host, || Step::PutPort(Arc::clone(port)));
            }
        }
        self.locate(old.at_home(), new.at_home());
        self.review_holders(concerned);
        self.pair_up(old, new);
        for (host, port) in &old.told {
            if new.on(host).is_none() {
                let gone = || Step::other(Change::RemovePort(port.id));
                self.views.emit(host, gone);
                self.tell_standby(host, old, new);
            }
            self.drop_port(host, port);
        }
    }

    fn tell_standby(&mut self, host: &HostId, old: &Places, new: &Places) {
        let (was, is) = (old.stands_by(host), new.stands_by(host));
        let Some(port) = new.on(host).or_else(|| old.on(host)) else {
            return;
        };
        if was != is {
            let change = match is {
                true => Change::PutStandby(port.id),
                false => Change::RemoveStandby(port.id),
            };
            self.views.emit(host, || Step::other(change));
        }
    }
}
