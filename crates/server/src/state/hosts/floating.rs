//! Floating IPs, told to the host where the address is that each stands for; and port forwardings, told to the
//! gateway host of the router that translates.

use std::{
    collections::{BTreeSet, HashMap},
    hash::Hash,
    net::IpAddr,
};

use hextet_model::intent::{Change, FloatingIp, PortForwarding};
use hextet_types::{FloatingIpId, HostId, NetworkId, PortForwardingId, PortId, RouterId};

use super::{Index, Step};
use crate::state::State;

/// What one host alone is told each.
#[derive(Debug)]
pub struct Placed<K, V> {
    told: HashMap<K, (HostId, V)>,
    on: Index<HostId, K>,
}

impl<K, V> Default for Placed<K, V> {
    fn default() -> Self {
        Placed {
            told: HashMap::new(),
            on: Index::default(),
        }
    }
}

impl<K: Copy + Ord + Hash, V: Clone + PartialEq> Placed<K, V> {
    /// What a host is told.
    pub fn on(&self, host: &HostId) -> impl Iterator<Item = &V> {
        let ids = self.on.get(host);
        ids.filter_map(|id| self.told.get(id)).map(|(_, what)| what)
    }

    /// Something is told to another host, is something else, or is told to none. Answers who is told it now, if
    /// anything is new, and who was told and is not any more.
    fn set(&mut self, id: K, new: Option<(HostId, V)>) -> (Option<(HostId, V)>, Option<HostId>) {
        if self.told.get(&id) == new.as_ref() {
            return (None, None);
        }
        let former = self.told.remove(&id).map(|(host, _)| host);
        if let Some(host) = &former {
            self.on.remove(host, &id);
        }
        if let Some((host, what)) = &new {
            self.on.insert(host.clone(), id);
            self.told.insert(id, (host.clone(), what.clone()));
        }
        let host = new.as_ref().map(|(host, _)| host);
        let left = former.filter(|former| Some(former) != host);
        (new, left)
    }
}

/// For which address of which network floating IPs stand.
#[derive(Debug, Default)]
pub struct Inside {
    of: HashMap<FloatingIpId, (NetworkId, IpAddr)>,
    at: Index<(NetworkId, IpAddr), FloatingIpId>,
}

impl Inside {
    fn set(&mut self, id: FloatingIpId, new: Option<(NetworkId, IpAddr)>) {
        if let Some(old) = self.of.remove(&id) {
            self.at.remove(&old, &id);
        }
        if let Some(new) = new {
            self.at.insert(new, id);
            self.of.insert(id, new);
        }
    }
}

impl State {
    /// As the host is to be told where the address inside is.
    fn told_floating_ip(&self, id: FloatingIpId) -> Option<FloatingIp> {
        let ip = self.layer3.floating_ips.get(&id)?;
        let network_id = self.ports.get(&ip.port_id?)?.network_id;
        let fixed_ip_address = ip.fixed_ip_address?;
        Some(FloatingIp {
            id,
            router_id: ip.router_id?,
            floating_ip_address: ip.floating_ip_address,
            network_id,
            fixed_ip_address,
            qos_policy_id: ip.qos_policy_id,
        })
    }

    fn told_forwarding(&self, id: PortForwardingId) -> Option<(HostId, PortForwarding)> {
        let forwarding = self.layer3.forwardings.get(&id)?;
        let ip = self.layer3.floating_ips.get(&forwarding.floatingip_id)?;
        let router_id = ip.router_id?;
        let gateway = self.views.routing.router(router_id)?.gateway_host.as_ref();
        let told = PortForwarding {
            id,
            router_id,
            floating_ip_address: ip.floating_ip_address,
            protocol: forwarding.protocol,
            external_port_range: forwarding.external_port_range,
            network_id: self.ports.get(&forwarding.internal_port_id)?.network_id,
            internal_ip_address: forwarding.internal_ip_address,
            internal_port_range: forwarding.internal_port_range,
        };
        Some((gateway?.host.clone(), told))
    }

    /// Who is told of a floating IP, and what, may be something else now; so may it be of its port forwardings.
    pub(in crate::state) fn view_floating_ip(&mut self, id: FloatingIpId) {
        let new = self.told_floating_ip(id);
        let inside = |ip: &FloatingIp| (ip.network_id, IpAddr::V4(ip.fixed_ip_address));
        self.views.inside.set(id, new.as_ref().map(inside));
        let new = new.and_then(|ip| {
            let (network, address) = inside(&ip);
            Some((self.views.remotes.at(network, address)?, ip))
        });
        let (news, left) = self.views.floating_ips.set(id, new);
        if let Some((host, ip)) = news {
            let put = || Step::other(Change::PutFloatingIp(Box::new(ip)));
            self.views.emit(&host, put);
        }
        if let Some(host) = left {
            let gone = || Step::other(Change::RemoveFloatingIp(id));
            self.views.emit(&host, gone);
        }
        let forwardings = self.layer3.forwardings_by_floating_ip.get(&id);
        for forwarding in forwardings.copied().collect::<Vec<_>>() {
            self.view_forwarding(forwarding);
        }
    }

    /// The same of a port forwarding.
    pub(in crate::state) fn view_forwarding(&mut self, id: PortForwardingId) {
        let new = self.told_forwarding(id);
        let (news, left) = self.views.forwardings.set(id, new);
        if let Some((host, forwarding)) = news {
            let put = || Step::other(Change::PutPortForwarding(Box::new(forwarding)));
            self.views.emit(&host, put);
        }
        if let Some(host) = left {
            let gone = || Step::other(Change::RemovePortForwarding(id));
            self.views.emit(&host, gone);
        }
    }

    /// A port comes, changes or goes.
    pub(in crate::state) fn view_floating_ips_of(&mut self, port: PortId) {
        let ips = self.layer3.floating_ips_by_port.get(&port);
        let ips: Vec<FloatingIpId> = ips.copied().collect();
        let forwardings = self.layer3.forwardings_by_port.get(&port);
        let forwardings: Vec<PortForwardingId> = forwardings.copied().collect();
        ips.into_iter().for_each(|id| self.view_floating_ip(id));
        for id in forwardings {
            self.view_forwarding(id);
        }
    }

    /// Addresses of a private network are somewhere else.
    pub(super) fn move_floating_ips(
        &mut self,
        network: NetworkId,
        moved: impl Iterator<Item = IpAddr>,
    ) {
        let ips = moved.flat_map(|addr| self.views.inside.at.get(&(network, addr)));
        let ips: BTreeSet<FloatingIpId> = ips.copied().collect();
        for id in ips {
            self.view_floating_ip(id);
        }
    }

    /// A router translates for others somewhere else.
    pub(super) fn move_forwardings(&mut self, router: RouterId) {
        let ips = self.layer3.floating_ips_by_router.get(&router);
        let forwardings = ips.flat_map(|ip| self.layer3.forwardings_by_floating_ip.get(ip));
        for id in forwardings.copied().collect::<Vec<_>>() {
            self.view_forwarding(id);
        }
    }
}
