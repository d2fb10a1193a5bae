//! Routers, floating IPs, port forwardings and NDP proxies, with their indexes.

use std::sync::Arc;

use hextet_model::neutron::{FloatingIp, NdpProxy, Port, PortForwarding, Router};
use hextet_types::{
    FloatingIpId, NdpProxyId, NetworkId, PortForwardingId, PortId, ProjectId, RouterId,
};

use super::{
    State,
    table::{Index, Row, Table},
};

/// What routers do, and what they are asked to do.
#[derive(Debug, Default)]
pub struct Layer3 {
    /// Routers.
    pub routers: Table<RouterId, Router>,
    /// Floating IPs.
    pub floating_ips: Table<FloatingIpId, FloatingIp>,
    /// Their port forwardings.
    pub forwardings: Table<PortForwardingId, PortForwarding>,
    /// NDP proxies.
    pub proxies: Table<NdpProxyId, NdpProxy>,
    /// Routers with gateways on a network.
    pub routers_by_network: Index<NetworkId, RouterId>,
    /// A network's ports that are interfaces of routers.
    pub interfaces_by_network: Index<NetworkId, PortId>,
    /// Floating IPs that a router translates.
    pub floating_ips_by_router: Index<RouterId, FloatingIpId>,
    /// Floating IPs that stand for a port.
    pub floating_ips_by_port: Index<PortId, FloatingIpId>,
    /// A project's floating IPs.
    pub floating_ips_by_project: Index<ProjectId, FloatingIpId>,
    /// A floating IP's port forwardings.
    pub forwardings_by_floating_ip: Index<FloatingIpId, PortForwardingId>,
    /// Port forwardings to a port.
    pub forwardings_by_port: Index<PortId, PortForwardingId>,
    /// A router's NDP proxies.
    pub proxies_by_router: Index<RouterId, NdpProxyId>,
    /// A port's NDP proxies.
    pub proxies_by_port: Index<PortId, NdpProxyId>,
}

fn change<K: std::hash::Hash + Eq, V: Ord>(index: &mut Index<K, V>, key: K, value: V, there: bool) {
    if there {
        index.insert(key, value);
    } else {
        index.remove(&key, &value);
    }
}

impl Layer3 {
    /// A floating IP's port forwardings, in the order of their identifiers.
    pub fn forwardings_of(&self, id: FloatingIpId) -> impl Iterator<Item = &Arc<PortForwarding>> {
        let ids = self.forwardings_by_floating_ip.get(&id);
        ids.filter_map(|id| self.forwardings.get(id))
    }

    /// Port forwardings to a port.
    pub fn forwardings_to(&self, port: PortId) -> impl Iterator<Item = &Arc<PortForwarding>> {
        let ids = self.forwardings_by_port.get(&port);
        ids.filter_map(|id| self.forwardings.get(id))
    }

    /// Floating IPs that stand for a port.
    pub fn floating_ips_of(&self, port: PortId) -> impl Iterator<Item = &Row<FloatingIp>> {
        let ids = self.floating_ips_by_port.get(&port);
        ids.filter_map(|id| self.floating_ips.row(id))
    }

    /// Floating IPs that a router translates.
    pub fn floating_ips_through(&self, router: RouterId) -> impl Iterator<Item = &Arc<FloatingIp>> {
        let ids = self.floating_ips_by_router.get(&router);
        ids.filter_map(|id| self.floating_ips.get(id))
    }

    /// A router's NDP proxies.
    pub fn proxies_through(&self, router: RouterId) -> impl Iterator<Item = &Arc<NdpProxy>> {
        let ids = self.proxies_by_router.get(&router);
        ids.filter_map(|id| self.proxies.get(id))
    }

    /// A port's NDP proxies.
    pub fn proxies_of(&self, port: PortId) -> impl Iterator<Item = &Row<NdpProxy>> {
        let ids = self.proxies_by_port.get(&port);
        ids.filter_map(|id| self.proxies.row(id))
    }

    pub(super) fn index_port(&mut self, port: &Port, there: bool) {
        if port.device_owner == Router::INTERFACE_OWNER {
            let network = port.network_id;
            change(&mut self.interfaces_by_network, network, port.id, there);
        }
    }

    fn index_router(&mut self, router: &Router, there: bool) {
        for gateway in &router.gateways {
            let network = gateway.network_id;
            change(&mut self.routers_by_network, network, router.id, there);
        }
    }

    fn index_floating_ip(&mut self, fip: &FloatingIp, there: bool) {
        let (id, project) = (fip.id, fip.standard.project_id.clone());
        change(&mut self.floating_ips_by_project, project, id, there);
        if let Some(router) = fip.router_id {
            change(&mut self.floating_ips_by_router, router, id, there);
        }
        if let Some(port) = fip.port_id {
            change(&mut self.floating_ips_by_port, port, id, there);
        }
    }

    pub(super) fn set_forwarding(
        &mut self,
        id: PortForwardingId,
        row: Option<Row<PortForwarding>>,
    ) {
        let new = row.as_ref().map(|r| Arc::clone(&r.value));
        let old = self.forwardings.set(id, row);
        for (forwarding, there) in old
            .iter()
            .map(|o| (o, false))
            .chain(new.iter().map(|n| (n, true)))
        {
            let (fip, port) = (forwarding.floatingip_id, forwarding.internal_port_id);
            change(&mut self.forwardings_by_floating_ip, fip, id, there);
            change(&mut self.forwardings_by_port, port, id, there);
        }
    }

    pub(super) fn set_proxy(&mut self, id: NdpProxyId, row: Option<Row<NdpProxy>>) {
        let new = row.as_ref().map(|r| Arc::clone(&r.value));
        let old = self.proxies.set(id, row);
        for (proxy, there) in old
            .iter()
            .map(|o| (o, false))
            .chain(new.iter().map(|n| (n, true)))
        {
            change(&mut self.proxies_by_router, proxy.router_id, id, there);
            change(&mut self.proxies_by_port, proxy.port_id, id, there);
        }
    }
}

impl State {
    /// A router's interfaces.
    pub fn interfaces_of(&self, router: RouterId) -> impl Iterator<Item = &Row<Port>> {
        let ids = self.ports_by_device.get(router.to_string().as_str());
        ids.filter_map(|id| self.ports.row(id))
            .filter(|row| row.value.device_owner == Router::INTERFACE_OWNER)
    }

    pub(super) fn set_router(&mut self, id: RouterId, row: Option<Row<Router>>) {
        let new = row.as_ref().map(|r| Arc::clone(&r.value));
        let old = self.layer3.routers.set(id, row);
        if let Some(old) = &old {
            self.count(&old.standard.project_id, "router", false);
            self.layer3.index_router(old, false);
        }
        if let Some(new) = &new {
            self.count(&new.standard.project_id, "router", true);
            self.layer3.index_router(new, true);
        }
        self.view_router(id);
    }

    pub(super) fn set_floating_ip(&mut self, id: FloatingIpId, row: Option<Row<FloatingIp>>) {
        let new = row.as_ref().map(|r| Arc::clone(&r.value));
        let old = self.layer3.floating_ips.set(id, row);
        if let Some(old) = &old {
            self.count(&old.standard.project_id, "floatingip", false);
            self.layer3.index_floating_ip(old, false);
        }
        if let Some(new) = &new {
            self.count(&new.standard.project_id, "floatingip", true);
            self.layer3.index_floating_ip(new, true);
        }
    }
}

#[cfg(test)]
mod tests;
