//! Routers, floating IPs, port forwardings and NDP proxies, with their indexes.

use std::sync::Arc;

use hextet_model::neutron::{FloatingIp, NdpProxy, Port, PortForwarding, Router};
use hextet_types::{
    FloatingIpId, HostId, NdpProxyId, NetworkId, PortForwardingId, PortId, ProjectId, RouterId,
};
use serde::{Deserialize, Serialize};

use super::{
    State,
    table::{Index, Row, Table},
};

/// Where a router translates.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GatewayRecord {
    /// On this host; none while no host is fit for it.
    pub host: Option<HostId>,
    /// The router's VXLAN segment, by which other hosts send there; no network has it.
    pub segment: u32,
    /// Grows with each change of the host.
    pub generation: u64,
}

/// What routers do, and what they are asked to do.
#[derive(Debug, Default)]
pub struct Layer3 {
    /// Routers.
    pub routers: Table<RouterId, Router>,
    /// Where those with gateways translate.
    pub gateways: Table<RouterId, GatewayRecord>,
    /// Routers that translate on a host.
    pub gateways_by_host: Index<HostId, RouterId>,
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

/// What was there is not any more, what is there was not yet.
fn changed<'a, T>(
    old: Option<&'a Arc<T>>,
    new: Option<&'a Arc<T>>,
) -> impl Iterator<Item = (&'a Arc<T>, bool)> {
    let old = old.into_iter().map(|old| (old, false));
    old.chain(new.into_iter().map(|new| (new, true)))
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
            self.qos.router(old, false);
            if new.is_none() {
                self.metering.depart(old);
            }
        }
        if let Some(new) = &new {
            self.count(&new.standard.project_id, "router", true);
            self.layer3.index_router(new, true);
            self.qos.router(new, true);
        }
        self.gateway_changes += 1;
        self.view_router(id);
    }

    pub(super) fn set_gateway(&mut self, id: RouterId, row: Option<Row<GatewayRecord>>) {
        let new = row.as_ref().map(|r| Arc::clone(&r.value));
        let old = self.layer3.gateways.set(id, row);
        for (record, there) in changed(old.as_ref(), new.as_ref()) {
            if let Some(host) = record.host.clone() {
                change(&mut self.layer3.gateways_by_host, host, id, there);
            }
            match there {
                true => self.segments.insert(record.segment.into()),
                false => self.segments.remove(record.segment.into()),
            };
        }
        self.gateway_changes += 1;
        self.view_router(id);
    }

    pub(super) fn set_proxy(&mut self, id: NdpProxyId, row: Option<Row<NdpProxy>>) {
        let new = row.as_ref().map(|r| Arc::clone(&r.value));
        let old = self.layer3.proxies.set(id, row);
        for (proxy, there) in changed(old.as_ref(), new.as_ref()) {
            let (router, port) = (proxy.router_id, proxy.port_id);
            change(&mut self.layer3.proxies_by_router, router, id, there);
            change(&mut self.layer3.proxies_by_port, port, id, there);
        }
        for proxy in [old, new].into_iter().flatten() {
            self.view_router(proxy.router_id);
        }
    }

    pub(super) fn set_floating_ip(&mut self, id: FloatingIpId, row: Option<Row<FloatingIp>>) {
        let new = row.as_ref().map(|r| Arc::clone(&r.value));
        let old = self.layer3.floating_ips.set(id, row);
        if let Some(old) = &old {
            self.count(&old.standard.project_id, "floatingip", false);
            self.layer3.index_floating_ip(old, false);
            self.qos.floating_ip(old, false);
        }
        if let Some(new) = &new {
            self.count(&new.standard.project_id, "floatingip", true);
            self.layer3.index_floating_ip(new, true);
            self.qos.floating_ip(new, true);
        }
        self.notice_floating_ip(old.as_deref(), new.as_deref());
        self.view_floating_ip(id);
    }

    pub(super) fn set_forwarding(
        &mut self,
        id: PortForwardingId,
        row: Option<Row<PortForwarding>>,
    ) {
        let new = row.as_ref().map(|r| Arc::clone(&r.value));
        let old = self.layer3.forwardings.set(id, row);
        for (forwarding, there) in changed(old.as_ref(), new.as_ref()) {
            let (ip, port) = (forwarding.floatingip_id, forwarding.internal_port_id);
            change(&mut self.layer3.forwardings_by_floating_ip, ip, id, there);
            change(&mut self.layer3.forwardings_by_port, port, id, there);
        }
        self.view_forwarding(id);
    }
}

#[cfg(test)]
mod tests;
