//! What a change touches of routers, of the networks that they are on, and of what they answer for outside.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr},
};

use hextet_types::{FloatingIpId, HostId, NetworkId, PortForwardingId, RouterId};

use super::Step;
use crate::{
    intent::{FloatingIp, Intent, PortForwarding, Router},
    plan::{
        place::{Place, Places},
        router::{
            self,
            claim::{Claim, own_addresses},
        },
        unit::Unit,
    },
    state::{Cut, CutEnd, CutPorts},
};

/// The host that translates for many, with each address that it uses.
fn shared_addresses(router: &Router) -> BTreeSet<(HostId, Ipv4Addr)> {
    let gateway = router.gateway_host.iter();
    let all = gateway.flat_map(|gateway| {
        let addresses = router::outside::shared_addresses(router).into_iter();
        addresses.map(|addr| (gateway.host.clone(), addr))
    });
    all.collect()
}

/// The addresses that routers may answer for, or may have, where these units have been touched; and whether ports are there,
/// which it notes.
pub(super) fn public(
    intent: &Intent,
    places: &mut Places,
    touched: &BTreeMap<Place, BTreeSet<Unit>>,
) -> BTreeSet<IpAddr> {
    let mut public = BTreeSet::new();
    for (place, units) in touched {
        let addresses = units.iter().filter_map(|unit| match unit {
            Unit::Address(addr) => Some(*addr),
            _ => None,
        });
        match *place {
            Place::Main => {
                let claims = places.routers().claims();
                public.extend(addresses.filter(|addr| claims.of(*addr).next().is_some()));
            }
            Place::Network(id) => {
                for addr in addresses {
                    let is_new = places.look_for_port(intent, id, addr);
                    if is_new && places.routers().claims().any_gateway() {
                        public.insert(addr);
                        let ips = places.routers().claims().standing_for(id, addr);
                        let ips = ips.filter_map(|ip| intent.floating_ips.get(&ip));
                        public.extend(ips.map(|ip| IpAddr::V4(ip.floating_ip_address)));
                    }
                }
            }
            Place::Router(_) => {}
        }
    }
    public
}

impl Step<'_> {
    pub(super) fn router(&mut self, id: RouterId, new: Option<&Router>) {
        let old = self.intent.routers.get(&id);
        if old == new {
            return;
        }
        let before = old.map(shared_addresses).unwrap_or_default();
        if let Some(new) = new {
            let after = shared_addresses(new);
            for (_, addr) in before.difference(&after) {
                self.cut(id, *addr, None);
            }
        }
        // Another one may have the namespace before, and another afterwards.
        let sharing: Vec<RouterId> = self.places.routers().sharing(id).collect();
        self.places.routers_mut().set(id, old, new);
        match new {
            Some(_) => drop(self.places.make(Place::Router(id))),
            None => self.places.remove(Place::Router(id)),
        }
        let others = sharing.into_iter().filter(|other| *other != id);
        let others: Vec<(RouterId, &Router)> = others
            .filter_map(|other| Some((other, self.intent.routers.get(&other)?)))
            .collect();
        let itself = [old, new].into_iter().flatten().map(|r| (id, r));
        for (id, router) in itself.chain(others) {
            self.touch_router(id, router);
        }
        if old.is_none() && new.is_none() {
            return;
        }
        self.touched
            .units_of(Place::Router(id))
            .extend([Unit::Router, Unit::Outside]);
    }

    /// All that a router makes, in its place and in those of its networks.
    fn touch_router(&mut self, id: RouterId, router: &Router) {
        self.touched
            .units_of(Place::Router(id))
            .extend([Unit::Router, Unit::Outside]);
        let networks = router::networks(router);
        for network in &networks {
            self.touch_network(*network);
        }
        let claims = self.places.routers().claims();
        let mut public = own_addresses(router);
        for prefix in &router.published {
            let living = networks.iter().map(|id| claims.living(*id, *prefix));
            public.extend(living.flatten());
        }
        public.extend(claims.by(id).filter_map(|claim| match claim {
            Claim::Floating(id) => {
                let ip = self.intent.floating_ips.get(&id);
                ip.map(|ip| IpAddr::V4(ip.floating_ip_address))
            }
            Claim::Forwarding(id) => {
                let forwarding = self.intent.port_forwardings.get(&id);
                forwarding.map(|f| IpAddr::V4(f.floating_ip_address))
            }
            Claim::Router(_) | Claim::Port(_) => None,
        }));
        let main = self.touched.units_of(Place::Main);
        main.extend(public.into_iter().map(Unit::Public));
        if !router.gateways.is_empty() {
            main.insert(Unit::Routers);
        }
    }

    pub(super) fn floating_ip(&mut self, id: FloatingIpId, new: Option<&FloatingIp>) {
        let old = self.intent.floating_ips.get(&id);
        if old == new {
            return;
        }
        self.places
            .routers_mut()
            .claims_mut()
            .set_floating(old, new);
        let translates = |ip: &FloatingIp| FloatingIp {
            qos_policy_id: None,
            ..ip.clone()
        };
        if let Some(old) = old.filter(|_| old.map(translates) != new.map(translates)) {
            self.cut(old.router_id, old.floating_ip_address, None);
        }
        for ip in [old, new].into_iter().flatten() {
            let addr = IpAddr::V4(ip.floating_ip_address);
            self.touch_claim(ip.router_id, addr);
        }
    }

    pub(super) fn port_forwarding(&mut self, id: PortForwardingId, new: Option<&PortForwarding>) {
        let old = self.intent.port_forwardings.get(&id);
        if old == new {
            return;
        }
        self.places
            .routers_mut()
            .claims_mut()
            .set_forwarding(old, new);
        if let Some(old) = old {
            let range = old.external_port_range;
            let ports = CutPorts {
                protocol: old.protocol.number(),
                range: (range.first(), range.last()),
            };
            self.cut(old.router_id, old.floating_ip_address, Some(ports));
        }
        for f in [old, new].into_iter().flatten() {
            let addr = IpAddr::V4(f.floating_ip_address);
            self.touch_claim(f.router_id, addr);
        }
    }

    fn cut(&mut self, router: RouterId, outside: Ipv4Addr, ports: Option<CutPorts>) {
        self.touched.cut.insert(Cut {
            netns: Place::Router(router).netns(),
            end: CutEnd::Outside(outside),
            ports,
        });
    }

    /// What stands of an address outside that a router translates.
    fn touch_claim(&mut self, router: RouterId, addr: IpAddr) {
        let main = self.touched.units_of(Place::Main);
        main.insert(Unit::Public(addr));
        if self.places.get(Place::Router(router)).is_some() {
            let units = self.touched.units_of(Place::Router(router));
            units.insert(Unit::Outside);
        }
    }

    /// What a network's place holds for its routers.
    pub(super) fn touch_network(&mut self, id: NetworkId) {
        let place = self.home(id);
        if place != Place::Main {
            self.touched.units_of(place).insert(Unit::Routers);
        }
    }

    /// All that the routers on a network make, wherever.
    pub(super) fn touch_routers_on(&mut self, network: NetworkId) {
        let routers = self.places.routers();
        let with_gateway = routers.claims().with_gateway_on(network);
        let routers: BTreeSet<RouterId> = routers.on(network).chain(with_gateway).collect();
        for id in routers {
            if let Some(router) = self.intent.routers.get(&id) {
                self.touch_router(id, router);
            }
        }
    }
}
