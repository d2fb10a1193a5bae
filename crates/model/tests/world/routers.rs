//! Small clouds of private networks with routers, what a naive reading of them promises about where a packet goes,
//! and where the routes of a plan lead it.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use hextet_model::{
    intent::{Intent, Router, RouterInterface},
    neutron::{self, FixedIp, HostRoute, Port, RouterGateway, Subnet},
    state::{HostState, Netns, Object, RouteKind, RuleAction},
};
use hextet_types::{Family, HostId, IfName, NetworkId, PortId, Prefix, RouterId};
use uuid::Uuid;

use super::{mac, standard};

/// Routers 0 and 1 would have the same namespace.
pub fn router_id(n: u8) -> RouterId {
    let low = 0x5000 + u128::from(n.max(1));
    RouterId(Uuid::from_u128((u128::from(n) << 96) + low))
}

/// A router without interfaces.
pub fn router(n: u8) -> Router {
    let router = neutron::Router {
        id: router_id(n),
        standard: standard(),
        admin_state_up: true,
        gateways: Vec::new(),
        enable_snat: true,
        routes: Vec::new(),
        enable_ndp_proxy: false,
        enable_default_route_ecmp: false,
        enable_default_route_bfd: false,
        availability_zone_hints: Vec::new(),
    };
    Router {
        router,
        interfaces: BTreeMap::new(),
        gateways: BTreeMap::new(),
        gateway_host: None,
        published: BTreeSet::new(),
        meters: BTreeMap::new(),
    }
}

/// Its interface of that number on a network, with those addresses.
pub fn add_interface(router: &mut Router, n: u8, network_id: NetworkId, fixed_ips: Vec<FixedIp>) {
    let low = router.router.id.0.as_u128() >> 96;
    let id = PortId(Uuid::from_u128((0x70 + u128::from(n)) << 96 | low));
    let interface = RouterInterface {
        network_id,
        mac_address: mac(0x70 + n),
        fixed_ips,
        admin_state_up: true,
    };
    router.interfaces.insert(id, interface);
}

/// Its gateway of that number, the last in their order.
pub fn add_gateway(router: &mut Router, n: u8, on: NetworkId, fixed_ips: Vec<FixedIp>, up: bool) {
    let low = router.router.id.0.as_u128() >> 96;
    let port_id = PortId(Uuid::from_u128((0x90 + u128::from(n)) << 96 | low));
    let network_id = on;
    router.router.gateways.push(RouterGateway {
        network_id,
        port_id,
        qos_policy_id: None,
    });
    let gateway = RouterInterface {
        network_id,
        mac_address: mac(0x90 + n),
        fixed_ips,
        admin_state_up: up,
    };
    router.gateways.insert(port_id, gateway);
}

/// Where a packet ends up, as far as one host goes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum End {
    /// At that port's interface.
    Port(PortId),
    /// On the way to another host.
    Host(HostId),
    /// At a router's own address.
    Router(RouterId),
    /// Nowhere.
    Lost,
}

/// Hops that a packet may make before it counts as lost.
const HOPS: usize = 16;

/// The meaning of networks and routers, with nothing of the planner in it: no namespaces, tables or metrics.
pub struct Judge<'a>(pub &'a Intent);

impl<'a> Judge<'a> {
    /// Where what a port of that network sends to an address may end up.
    pub fn ends(&self, network: NetworkId, to: IpAddr) -> BTreeSet<End> {
        let mut ends = BTreeSet::new();
        self.sent_on(network, to, &mut ends);
        ends
    }

    /// By a port: to its peer, to a router's address, to what its subnets say, or to the gateway.
    fn sent_on(&self, network: NetworkId, to: IpAddr, ends: &mut BTreeSet<End>) {
        if let Some(end) = self.station(network, to) {
            ends.insert(end);
            return;
        }
        let told = self.subnets(network).flat_map(|s| &s.host_routes);
        let told = longest(told.filter(|r| !r.destination.is_default()), to);
        let hops: Vec<IpAddr> = told
            .into_iter()
            .filter(|hop| self.hop_is_there(network, *hop))
            .collect();
        if !hops.is_empty() {
            for hop in hops {
                self.handed(network, hop, to, HOPS, ends);
            }
        } else if self.routers(network).next().is_some() && self.is_on(network, to) {
            ends.insert(End::Lost);
        } else if let Some(router) = self.gateway(network, Family::of(to)) {
            self.routed(router, to, HOPS, ends);
        } else {
            ends.insert(End::Lost);
        }
    }

    /// A station of the network with that address.
    fn station(&self, network: NetworkId, addr: IpAddr) -> Option<End> {
        let has = |p: &&Port| {
            p.network_id == network
                && p.admin_state_up
                && p.fixed_ips.iter().any(|f| f.ip_address == addr)
        };
        if let Some(port) = self.0.ports.values().find(has) {
            return Some(End::Port(port.id));
        }
        for router in self.routers(network) {
            let holding = router.interfaces.values().find(|i| {
                i.network_id == network && i.fixed_ips.iter().any(|f| f.ip_address == addr)
            });
            if let Some(interface) = holding {
                let up = router.router.admin_state_up && interface.admin_state_up;
                return Some(match up {
                    true => End::Router(router.router.id),
                    false => End::Lost,
                });
            }
        }
        let host = self.0.remotes.get(&network)?.get(&addr)?;
        Some(End::Host(host.clone()))
    }

    fn hop_is_there(&self, network: NetworkId, hop: IpAddr) -> bool {
        self.station(network, hop)
            .is_some_and(|end| end != End::Lost)
    }

    /// A packet for somebody else, handed to a station of the network.
    fn handed(
        &self,
        network: NetworkId,
        hop: IpAddr,
        to: IpAddr,
        left: usize,
        ends: &mut BTreeSet<End>,
    ) {
        match self.station(network, hop) {
            Some(End::Router(id)) => self.routed(&self.0.routers[&id], to, left, ends),
            end => drop(ends.insert(end.unwrap_or(End::Lost))),
        }
    }

    /// What a router does with it.
    fn routed(&self, router: &Router, to: IpAddr, left: usize, ends: &mut BTreeSet<End>) {
        let up = |i: &&RouterInterface| router.router.admin_state_up && i.admin_state_up;
        let interfaces = || router.interfaces.values().filter(up);
        if left == 0 || !router.router.admin_state_up {
            ends.insert(End::Lost);
            return;
        }
        let own = |i: &RouterInterface| i.fixed_ips.iter().any(|f| f.ip_address == to);
        if interfaces().any(own) {
            ends.insert(End::Router(router.router.id));
            return;
        }
        let on = |addr: IpAddr| {
            let attached = interfaces().flat_map(|i| i.fixed_ips.iter().map(|f| (i.network_id, f)));
            let mut subnets =
                attached.filter_map(|(n, f)| Some((n, self.0.subnets.get(&f.subnet_id)?)));
            subnets.find(|(_, s)| s.cidr.contains(addr)).map(|(n, _)| n)
        };
        if let Some(network) = on(to) {
            ends.insert(self.station(network, to).unwrap_or(End::Lost));
            return;
        }
        let routes = router.router.routes.iter();
        let has = |i: &RouterInterface, hop| i.fixed_ips.iter().any(|f| f.ip_address == hop);
        let own = |hop| router.interfaces.values().any(|i| has(i, hop));
        let one_family = |r: &HostRoute| r.destination.family() == Family::of(r.nexthop);
        let reachable = |r: &HostRoute| on(r.nexthop).is_some() && !own(r.nexthop);
        let usable = routes.filter(|r| one_family(r) && reachable(r));
        let hops = longest(usable, to);
        // Of several on one network, those that are there share the packets.
        let mut by_network: BTreeMap<NetworkId, Vec<IpAddr>> = BTreeMap::new();
        for hop in hops {
            if let Some(network) = on(hop) {
                by_network.entry(network).or_default().push(hop);
            }
        }
        if by_network.is_empty() {
            ends.insert(End::Lost);
        }
        for (network, hops) in by_network {
            let there = |hop: &&IpAddr| self.hop_is_there(network, **hop);
            if !hops.iter().any(|hop| there(&hop)) {
                ends.insert(End::Lost);
            }
            for hop in hops.iter().filter(there) {
                self.handed(network, *hop, to, left - 1, ends);
            }
        }
    }

    fn gateway(&self, network: NetworkId, family: Family) -> Option<&'a Router> {
        let gateways: Vec<IpAddr> = self.subnets(network).filter_map(|s| s.gateway_ip).collect();
        let addresses = |r: &Router| -> Vec<IpAddr> {
            let here = r.interfaces.values().filter(|i| i.network_id == network);
            let all = here.flat_map(|i| i.fixed_ips.iter().map(|f| f.ip_address));
            all.filter(|a| Family::of(*a) == family).collect()
        };
        let mut candidates: Vec<_> = self.routers(network).collect();
        candidates.retain(|r| !addresses(r).is_empty());
        let holds = |r: &&&Router| addresses(r).iter().any(|a| gateways.contains(a));
        candidates
            .iter()
            .find(holds)
            .or(candidates.first())
            .copied()
    }

    fn subnets(&self, network: NetworkId) -> impl Iterator<Item = &'a Subnet> {
        let all = self.0.subnets.values();
        all.filter(move |s| s.network_id == network)
    }

    fn is_on(&self, network: NetworkId, addr: IpAddr) -> bool {
        self.subnets(network).any(|s| s.cidr.contains(addr))
    }

    fn routers(&self, network: NetworkId) -> impl Iterator<Item = &'a Router> {
        let all = self.0.routers.values();
        all.filter(move |r| r.interfaces.values().any(|i| i.network_id == network))
    }
}

/// The next hops of the longest of these that covers an address.
fn longest<'a>(routes: impl Iterator<Item = &'a HostRoute>, to: IpAddr) -> Vec<IpAddr> {
    let covering: Vec<_> = routes.filter(|r| r.destination.contains(to)).collect();
    let len = covering.iter().map(|r| r.destination.len()).max();
    let longest = covering
        .into_iter()
        .filter(|r| Some(r.destination.len()) == len);
    longest.map(|r| r.nexthop).collect()
}

/// Goes by a plan's rules and routes, from namespace to namespace, as a kernel would.
pub struct Walk<'a> {
    pub state: &'a HostState,
    pub intent: &'a Intent,
}

impl Walk<'_> {
    /// Where a packet that comes into a namespace by that link may end up.
    pub fn ends(&self, netns: &Netns, iif: &IfName, to: IpAddr) -> BTreeSet<End> {
        let mut ends = BTreeSet::new();
        self.step(netns, iif, to, 3 * HOPS, &mut ends);
        ends
    }

    fn step(&self, netns: &Netns, iif: &IfName, to: IpAddr, left: usize, ends: &mut BTreeSet<End>) {
        let here = self
            .state
            .objects
            .values()
            .filter(|o| o.key().netns() == netns);
        let local = here
            .clone()
            .any(|o| matches!(o, Object::Address(a) if a.addr == to));
        if local && let Some(id) = self.router_in(netns) {
            ends.insert(End::Router(id));
            return;
        }
        let mut tables: Vec<(u32, u32)> = here
            .filter_map(|o| match o {
                Object::Rule(r) if r.family == Family::of(to) && r.iif.as_ref() == Some(iif) => {
                    match r.action {
                        RuleAction::Table(table) => Some((r.priority, table)),
                        RuleAction::Blackhole => None,
                    }
                }
                _ => None,
            })
            .collect();
        tables.push((32766, 254));
        tables.sort_unstable();
        let mut found = tables
            .into_iter()
            .filter_map(|(_, table)| self.best(netns, table, to));
        let hops = match found.find(|kind| **kind != RouteKind::Throw) {
            Some(RouteKind::Unicast(hops)) if left > 0 => hops.as_slice(),
            _ => &[],
        };
        if hops.is_empty() {
            ends.insert(End::Lost);
        }
        for hop in hops {
            match self.beyond(netns, &hop.link, hop.via) {
                Ok(end) => drop(ends.insert(end)),
                Err((netns, iif)) => self.step(&netns, &iif, to, left - 1, ends),
            }
        }
    }

    fn best(&self, netns: &Netns, table: u32, to: IpAddr) -> Option<&RouteKind> {
        let routes = self.state.objects.values().filter_map(|o| match o {
            Object::Route(r) => Some(r),
            _ => None,
        });
        let of_table = routes.filter(|r| r.key.netns == *netns && r.key.table == table);
        let covering = of_table.filter(|r| r.key.prefix.contains(to));
        let best = covering.max_by_key(|r| (r.key.prefix.len(), u32::MAX - r.key.metric));
        best.map(|r| &r.kind)
    }

    /// An end, or where it comes in next.
    fn beyond(
        &self,
        netns: &Netns,
        link: &IfName,
        via: Option<IpAddr>,
    ) -> Result<End, (Netns, IfName)> {
        if link.as_str().starts_with("tap") {
            let mut ports = self.intent.ports.values();
            let port = ports.find(|p| p.if_name() == *link).unwrap();
            return Ok(End::Port(port.id));
        }
        if link.as_str() == "vxlan" {
            let [.., number] = match via.unwrap() {
                IpAddr::V6(v6) => v6.octets(),
                IpAddr::V4(_) => panic!("hosts are known by IPv6 addresses"),
            };
            let mut hosts = self.intent.hosts.iter();
            let host = hosts.find(|(_, h)| h.number == u32::from(number)).unwrap();
            return Ok(End::Host(host.0.clone()));
        }
        let neighbour = self.state.objects.values().any(|o| {
            matches!(o, Object::Neighbour(n)
                if n.netns == *netns && n.link == *link && Some(n.addr) == via)
        });
        assert!(neighbour, "nobody is known as {via:?} on {link} in {netns}");
        let mut pairs = self.state.objects.values().filter_map(|o| match o {
            Object::Veth(v) if v.netns == *netns && v.name == *link => {
                Some((v.peer_netns.clone(), v.peer.clone()))
            }
            Object::Veth(v) if v.peer_netns == *netns && v.peer == *link => {
                Some((v.netns.clone(), v.name.clone()))
            }
            _ => None,
        });
        Err(pairs.next().unwrap())
    }

    fn router_in(&self, netns: &Netns) -> Option<RouterId> {
        let Netns::Named(name) = netns else {
            return None;
        };
        let digits = name.strip_prefix("hr-")?;
        let mut ids = self.intent.routers.keys();
        ids.find(|id| id.0.simple().to_string().ends_with(digits))
            .copied()
    }
}

/// A prefix, and an address of nobody in it.
pub fn beyond(text: &str) -> (Prefix, IpAddr) {
    let prefix: Prefix = text.parse().unwrap();
    (prefix, prefix.last())
}
