//! Ports of private networks that may send from more than their own addresses, and where they are: what other hosts of
//! their network are told of them.

use std::collections::{BTreeMap, HashMap};

use hextet_model::intent::{Change, RemotePort, RoutingDomain};
use hextet_types::{HostId, NetworkId, PortId};

use super::Step;
use crate::state::State;

/// By network; never an empty map.
#[derive(Debug, Default)]
pub struct RemotePorts(HashMap<NetworkId, BTreeMap<PortId, RemotePort>>);

impl RemotePorts {
    /// Those that are not on this host.
    pub(super) fn elsewhere<'a>(
        &'a self,
        network: NetworkId,
        host: &'a HostId,
    ) -> impl Iterator<Item = &'a RemotePort> {
        let ports = self.0.get(&network).into_iter().flat_map(BTreeMap::values);
        ports.filter(move |port| port.host != *host)
    }

    fn insert(&mut self, port: RemotePort) {
        let ports = self.0.entry(port.network_id).or_default();
        ports.insert(port.id, port);
    }

    fn remove(&mut self, port: &RemotePort) {
        if let Some(ports) = self.0.get_mut(&port.network_id) {
            ports.remove(&port.id);
            if ports.is_empty() {
                self.0.remove(&port.network_id);
            }
        }
    }
}

impl State {
    /// A port comes, changes, moves or goes. Hosts that are told its network know the new place already.
    pub(super) fn tell_remote_port(&mut self, old: Option<RemotePort>, new: Option<RemotePort>) {
        let inside = |p: &RemotePort| self.domain_of(p.network_id) != RoutingDomain::Routed;
        let (old, new) = (old.filter(inside), new.filter(inside));
        if old == new {
            return;
        }
        if let Some(port) = &old {
            self.views.remote_ports.remove(port);
        }
        if let Some(port) = &new {
            self.views.remote_ports.insert(port.clone());
        }
        for port in [&old, &new].into_iter().flatten() {
            for host in self.views.listening(&self.views.networks, &port.network_id) {
                let sees = |p: &&RemotePort| p.network_id == port.network_id && p.host != host;
                let (was, is) = (old.as_ref().filter(sees), new.as_ref().filter(sees));
                let change = match (was, is) {
                    (_, Some(is)) => Change::PutRemotePort(Box::new(is.clone())),
                    (Some(was), None) => Change::RemoveRemotePort(was.id),
                    (None, None) => continue,
                };
                self.views.emit(&host, || Step::other(change));
            }
            let same = |new: &RemotePort| new.network_id == port.network_id;
            if new.as_ref().is_some_and(same) {
                break;
            }
        }
    }

    /// A host has no ports of a network any more.
    pub(super) fn forget_remote_ports(&mut self, host: &HostId, network: NetworkId) {
        let ports = self.views.remote_ports.elsewhere(network, host);
        let gone: Vec<PortId> = ports.map(|port| port.id).collect();
        for id in gone {
            let gone = || Step::other(Change::RemoveRemotePort(id));
            self.views.emit(host, gone);
        }
    }
}
