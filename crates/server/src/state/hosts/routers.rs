//! Which hosts are told of a router, and what.
//!
//! A host is told of every router that one gets to from one of its ports, and of all networks that one gets to
//! ([`super::reach`]), whether it has a port there or not. A network is told before the router that leads to
//! it, and forgotten after it.

use std::{collections::BTreeSet, net::IpAddr, sync::Arc};

use hextet_model::{
    intent::{Change, GatewayHost, Router as ToldRouter, RouterInterface, RoutingDomain},
    neutron::{NetworkType, Port, Router, Subnet},
};
use hextet_types::{Family, HostId, NetworkId, Prefix, RouterId, SubnetId, SubnetPoolId};

use super::{
    Step,
    members::{Member, memberships},
    reach::{Reach, Seed},
};
use crate::state::State;

/// The router whose port on a network it is.
fn router_of(port: &Port) -> Option<RouterId> {
    let owners = [Router::INTERFACE_OWNER, Router::GATEWAY_OWNER];
    let owned = owners.contains(&port.device_owner.as_str());
    owned.then(|| port.device_id.parse().ok())?
}

fn interface(port: &Port) -> RouterInterface {
    RouterInterface {
        network_id: port.network_id,
        mac_address: port.mac_address,
        fixed_ips: port.fixed_ips.clone(),
        admin_state_up: port.admin_state_up,
    }
}

impl State {
    /// A router as hosts are to be told of it; none when it is not there.
    fn told_router(&self, id: RouterId) -> Option<ToldRouter> {
        let router = self.layer3.routers.get(&id)?;
        let is = |port: &Port, private: bool| {
            let network = port.network_id;
            let network_type = self.type_of(network);
            self.views.hidden != Some(network)
                && network_type.is_some_and(|t| (t == NetworkType::Vxlan) == private)
        };
        let interfaces = self.interfaces_of(id).map(|row| &row.value);
        let interfaces = interfaces.filter(|p| is(p, true));
        let gateways = router.gateways.iter();
        let gateways = gateways
            .filter_map(|g| self.ports.get(&g.port_id))
            .filter(|p| p.device_owner == Router::GATEWAY_OWNER && router_of(p) == Some(id))
            .filter(|p| is(p, false));
        let mut told = ToldRouter {
            interfaces: interfaces.map(|p| (p.id, interface(p))).collect(),
            gateways: gateways.map(|p| (p.id, interface(p))).collect(),
            gateway_host: None,
            published: BTreeSet::new(),
            meters: self.metering.meters_of(&router.standard.project_id),
            router: router.as_ref().clone(),
        };
        told.published = self.published(&told);
        if !told.gateways.is_empty() {
            told.gateway_host = self.gateway_host(id);
        }
        Some(told)
    }

    /// Where a router translates, if other hosts reach it there.
    fn gateway_host(&self, id: RouterId) -> Option<GatewayHost> {
        let record = self.layer3.gateways.get(&id)?;
        let host = record.host.clone()?;
        self.tunnels.endpoint(&host)?;
        Some(GatewayHost {
            host,
            segment: record.segment,
            generation: record.generation,
        })
    }

    /// What goes outside as it is: subnets in the address scope of an external network; of IPv6, while NDP proxies
    /// are switched on, only what has one. Hosts announce it, so an administrator must have made the pool that it is
    /// out of.
    fn published(&self, router: &ToldRouter) -> BTreeSet<Prefix> {
        let scope = |subnet: &Subnet| {
            let pool = self.pools.get(&subnet.subnetpool_id?)?;
            Some((subnet.family(), pool.address_scope_id?, pool.made_by_admin))
        };
        let outside = router.gateways.values();
        let outside = outside.flat_map(|g| self.subnets_of(g.network_id));
        let outside = outside.filter_map(|s| scope(s));
        let outside: BTreeSet<_> = outside.map(|(family, id, _)| (family, id)).collect();
        let is_open = |id: SubnetId| {
            let scope = self.subnets.get(&id).and_then(|s| scope(s));
            scope.is_some_and(|(family, id, open)| open && outside.contains(&(family, id)))
        };
        let inside = router.interfaces.values().flat_map(|i| &i.fixed_ips);
        let by_proxies = router.router.enable_ndp_proxy;
        let scoped = inside.filter(|f| is_open(f.subnet_id));
        let scoped = scoped.filter_map(|f| self.subnets.get(&f.subnet_id));
        let scoped = scoped.filter(|s| !by_proxies || s.family() == Family::V4);
        let proxies = self.layer3.proxies_through(router.router.id);
        let proxies = proxies.filter(|proxy| {
            let port = self.ports.get(&proxy.port_id);
            let mut addresses = port.into_iter().flat_map(|p| &p.fixed_ips);
            let at = addresses.find(|f| f.ip_address == IpAddr::V6(proxy.ip_address));
            by_proxies && at.is_some_and(|f| is_open(f.subnet_id))
        });
        let proxies = proxies.map(|p| Prefix::host(p.ip_address.into()));
        scoped.map(|s| s.cidr).chain(proxies).collect()
    }

    /// What routers with a port on a network are told of its subnets may be something else now.
    pub(in crate::state) fn view_routers_at(&mut self, network: NetworkId) {
        for id in self.routers_at(network) {
            self.view_router(id);
        }
    }

    /// A pool has come to another address scope, or what is out of it may be announced or not.
    pub(in crate::state) fn view_scope_of(&mut self, pool: SubnetPoolId) {
        let subnets = self.subnets.values();
        let subnets = subnets.filter(|s| s.subnetpool_id == Some(pool));
        let networks: BTreeSet<NetworkId> = subnets.map(|s| s.network_id).collect();
        for network in networks {
            self.view_routers_at(network);
            let ports = self.ports_by_network.get(&network);
            let proxies = ports.flat_map(|port| self.layer3.proxies_of(*port));
            let routers: BTreeSet<RouterId> = proxies.map(|row| row.value.router_id).collect();
            for router in routers {
                self.view_router(router);
            }
        }
    }

    /// A port comes, changes or goes: a router's, or one with an NDP proxy.
    pub(in crate::state) fn view_router_ports(&mut self, old: Option<&Port>, new: Option<&Port>) {
        let ports = [old, new].into_iter().flatten();
        let own = ports.clone().filter_map(router_of);
        let proxies = ports.flat_map(|p| self.layer3.proxies_of(p.id));
        let by_proxies = proxies.map(|row| row.value.router_id);
        let routers: BTreeSet<RouterId> = own.chain(by_proxies).collect();
        for id in routers {
            self.view_router(id);
        }
    }

    /// Routers with a port on a network.
    pub(super) fn routers_at(&self, network: NetworkId) -> BTreeSet<RouterId> {
        let interfaces = self.layer3.interfaces_by_network.get(&network);
        let interfaces = interfaces.filter_map(|id| router_of(self.ports.get(id)?));
        let outside = self.layer3.routers_by_network.get(&network);
        interfaces.chain(outside.copied()).collect()
    }

    /// What hosts are told of a router may be something else now. First what is needed newly, then the router,
    /// then what is needed no longer.
    pub(in crate::state) fn view_router(&mut self, id: RouterId) {
        let new = self.told_router(id).map(Arc::new);
        let old = self.views.routing.router(id).cloned();
        if old == new {
            return;
        }
        let place = |router: &Option<Arc<ToldRouter>>| {
            let gateway = router.as_ref().and_then(|r| r.gateway_host.as_ref());
            gateway.map(|g| g.host.clone())
        };
        let (was, is) = (place(&old), place(&new));
        let moves = was != is;
        let (was, is) = (was.filter(|_| moves), is.filter(|_| moves));
        let former: Vec<HostId> = self.views.routers.of(&id).map(|(h, _)| h.clone()).collect();
        if let Some(is) = &is {
            former.iter().for_each(|host| self.meet(host, is));
        }
        let changed = self.views.routing.set(id, new.clone());
        let mut affected = Vec::new();
        for change in &changed {
            if let Seed::Network(network) = change.seed {
                self.change_domain(network, &change.old, &change.new, true);
            }
            let hosts = self.views.seeds.of(&change.seed).map(|(h, _)| h.clone());
            let hosts: Vec<HostId> = hosts.collect();
            let more = change.new.without(&change.old);
            hosts.iter().for_each(|host| self.extend(host, &more));
            affected.push((hosts, change.old.without(&change.new)));
        }
        if let Some(is) = &is {
            self.need_seed(is, Seed::Gateway(id));
        }
        if let Some(new) = new {
            for host in &former {
                self.views.emit(host, || Step::PutRouter(Arc::clone(&new)));
            }
        }
        if moves {
            self.move_forwardings(id);
        }
        for (hosts, less) in affected {
            hosts.iter().for_each(|host| self.shrink(host, &less));
        }
        if let Some(was) = was {
            self.drop_seed(&was, Seed::Gateway(id));
            former.iter().for_each(|host| self.part(host, &was));
        }
        for change in &changed {
            if let Seed::Network(network) = change.seed {
                self.change_domain(network, &change.old, &change.new, false);
            }
        }
    }

    /// A host comes to have something at a seed.
    pub(super) fn need_seed(&mut self, host: &HostId, seed: Seed) {
        if self.views.seeds.up(seed, host.clone()) {
            let reach = self.views.routing.reach(seed);
            self.extend(host, &reach);
        }
    }

    /// A host has something less at a seed.
    pub(super) fn drop_seed(&mut self, host: &HostId, seed: Seed) {
        if self.views.seeds.down(&seed, host) {
            let reach = self.views.routing.reach(seed);
            self.shrink(host, &reach);
        }
    }

    fn extend(&mut self, host: &HostId, reach: &Reach) {
        for network in reach.networks.iter().chain(&reach.outside) {
            if self.views.networks.up(*network, host.clone()) {
                self.meet_all(host, *network);
                for step in self.network_steps(host, *network) {
                    self.views.emit(host, || step);
                }
            }
        }
        for id in &reach.routers {
            if self.views.routers.up(*id, host.clone())
                && let Some(router) = self.views.routing.router(*id).cloned()
            {
                if let Some(gateway) = &router.gateway_host {
                    self.meet(host, &gateway.host);
                }
                self.views.emit(host, || Step::PutRouter(router));
            }
        }
    }

    fn shrink(&mut self, host: &HostId, reach: &Reach) {
        for id in &reach.routers {
            if self.views.routers.down(id, host) {
                let gone = || Step::other(Change::RemoveRouter(*id));
                self.views.emit(host, gone);
                let router = self.views.routing.router(*id).cloned();
                if let Some(gateway) = router.as_ref().and_then(|r| r.gateway_host.as_ref()) {
                    self.part(host, &gateway.host);
                }
            }
        }
        for network in reach.networks.iter().chain(&reach.outside) {
            if self.views.networks.down(network, host) {
                self.forget_network(host, *network);
            }
        }
    }

    fn forget_network(&mut self, host: &HostId, network: NetworkId) {
        self.part_from_all(host, network);
        self.forget_audiences(host, network);
        if self.domain_of(network) != RoutingDomain::Routed {
            let subnets: Vec<SubnetId> = self.subnets_of(network).map(|s| s.id).collect();
            for id in subnets {
                let gone = || Step::other(Change::RemoveSubnet(id));
                self.views.emit(host, gone);
            }
        }
        let gone = || Step::other(Change::RemoveNetwork(network));
        self.views.emit(host, gone);
    }

    /// From a network one gets to others: members there are members here. Those that come, or those that go.
    fn change_domain(&mut self, network: NetworkId, old: &Reach, new: &Reach, come: bool) {
        let networks = if come {
            new.networks.difference(&old.networks)
        } else {
            old.networks.difference(&new.networks)
        };
        let ports = networks.flat_map(|n| self.ports_by_network.get(n));
        let ports = ports.filter_map(|id| self.ports.get(id));
        let domain = RoutingDomain::Network(network);
        let members: Vec<Member> = ports
            .flat_map(|p| memberships(p).collect::<Vec<_>>())
            .map(|(group, address)| ((group, domain), address))
            .collect();
        if come {
            self.change_members(Vec::new(), members);
        } else {
            self.change_members(members, Vec::new());
        }
    }
}
