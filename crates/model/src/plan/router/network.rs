//! What a network's namespace holds for the routers on it, and for routes that its subnets tell their ports.
//!
//! A router's interface addresses, and by default everything that is not on the network, lead to a router. With
//! several routers the default is that which has the subnets' gateway address.
//!
//! An extra route goes by way of a port of the network (or another router's interface). Only what comes from the
//! router takes it, by a policy rule for that router's link and a table of its own: what a port sends goes to the
//! router first, as on any network. Rules cost all that is forwarded some percent, so there are none in a namespace
//! without such a route.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use hextet_types::{Family, NetworkId, Prefix};

use super::{Leg, MAX_NEXT_HOPS, ROUTER_MAC, connected, hop, is_usable, namespace, network_of};
use crate::{
    intent::Intent,
    neutron::{HostRoute, Subnet},
    plan::{
        address::{self, DEFAULT_METRIC, EXTRA_METRIC, GATEWAY_METRIC, PORT_METRIC},
        index::Index,
        place::{Place, Places},
        tunnel,
        unit::{Output, View},
        vrrp,
    },
    state::{EdgeProgram, Neighbour, Netns, NextHop, Object, RouteKind, Rule, RuleAction, Veth},
};

/// Routers' tables have numbers from here on; none of the kernel's own.
const FIRST_TABLE: u32 = 1 << 24;
/// Rules for what comes from routers come before the main table.
const RULE_PRIORITY: u32 = 1000;

/// All of it.
pub fn network(view: View<'_>) -> Output {
    let Place::Network(id) = view.place else {
        return Output::default();
    };
    let legs: Vec<Leg<'_>> = view
        .routers
        .on(id)
        .filter_map(|router| Leg::of(view, router, id))
        .collect();
    let subnets: Vec<&Subnet> = subnets(view.intent, view.index, id).collect();
    let mut output = Output::default();
    for leg in &legs {
        output.joints.extend(pair(view, leg));
        output.objects.extend(program(leg));
        output.objects.extend(neighbour(leg));
    }
    output.objects.extend(gateways(&legs));
    let defaults = Family::BOTH.map(|family| default_route(&legs, &subnets, family));
    output.objects.extend(defaults.into_iter().flatten());
    if !legs.is_empty() {
        let cidrs: BTreeSet<Prefix> = subnets.iter().map(|s| s.cidr).collect();
        output
            .objects
            .extend(cidrs.into_iter().map(address::blackhole));
    }
    output.objects.extend(host_routes(view, &legs, &subnets));
    output.objects.extend(beyond(view, &legs));
    output.objects.extend(hop::hops(view, &legs, &subnets));
    output.objects.extend(vrrp::receivers(view));
    vrrp::once(&mut output.objects);
    output
}

fn subnets<'a>(
    intent: &'a Intent,
    index: &'a Index,
    network: NetworkId,
) -> impl Iterator<Item = &'a Subnet> {
    let ids = index.subnets(network);
    ids.filter_map(|id| intent.subnets.get(&id))
        .filter(move |subnet| subnet.network_id == network)
}

fn pair(view: View<'_>, leg: &Leg<'_>) -> Option<Object> {
    let veth = Veth {
        netns: view.place.netns(),
        name: leg.link()?,
        mac: view.config.gateway_mac,
        mtu: leg.network.mtu,
        peer_netns: Netns::Named(namespace(leg.router.router.id)),
        peer: leg.far_link()?,
        peer_mac: ROUTER_MAC,
        peer_group: 0,
    };
    Some(Object::Veth(veth))
}

/// By which flows that are known take the short way to the router, and from it.
fn program(leg: &Leg<'_>) -> Option<Object> {
    Some(Object::EdgeProgram(EdgeProgram {
        netns: Netns::Main,
        link: leg.link()?,
    }))
}

fn neighbour(leg: &Leg<'_>) -> Option<Object> {
    let neighbour = Neighbour {
        netns: Netns::Main,
        link: leg.link()?,
        addr: IpAddr::V6(ROUTER_MAC.link_local()),
        mac: ROUTER_MAC,
    };
    Some(Object::Neighbour(neighbour))
}

fn way_to_router(leg: &Leg<'_>) -> Option<NextHop> {
    Some(NextHop {
        via: Some(IpAddr::V6(ROUTER_MAC.link_local())),
        link: leg.link()?,
    })
}

/// To the router, or nowhere while its interface is down: then it answers nothing.
pub(super) fn to_router(leg: &Leg<'_>, up: bool) -> RouteKind {
    let hop = way_to_router(leg).filter(|_| up);
    hop.map_or(RouteKind::Blackhole, |hop| RouteKind::Unicast(vec![hop]))
}

/// The interfaces' addresses; of two with the same, the first's.
fn gateways(legs: &[Leg<'_>]) -> Vec<Object> {
    let mut routes = BTreeMap::new();
    for leg in legs {
        for (fixed, up) in leg.addresses() {
            let kind = to_router(leg, up);
            routes.entry(fixed.ip_address).or_insert(kind);
        }
    }
    let routes = routes.into_iter();
    routes
        .map(|(addr, kind)| address::route(Prefix::host(addr), GATEWAY_METRIC, kind, None))
        .collect()
}

/// To the router that has a subnet's gateway address; if none has, to the first with an address of the family.
fn default_route(legs: &[Leg<'_>], subnets: &[&Subnet], family: Family) -> Option<Object> {
    let (leg, up) = default_leg(legs, subnets, family)?;
    let prefix = Prefix::default_route(family);
    let kind = to_router(leg, up);
    Some(address::route(prefix, DEFAULT_METRIC, kind, None))
}

/// Where that leads, and whether that answers.
pub(super) fn default_leg<'l, 'a>(
    legs: &'l [Leg<'a>],
    subnets: &[&Subnet],
    family: Family,
) -> Option<(&'l Leg<'a>, bool)> {
    let is_gateway = |addr| subnets.iter().any(|s| s.gateway_ip == Some(addr));
    let candidates = legs.iter().flat_map(|leg| {
        let addresses = leg.addresses();
        addresses.map(move |(fixed, up)| (leg, fixed.ip_address, up))
    });
    let of_family = candidates.filter(|(_, addr, _)| Family::of(*addr) == family);
    let (leg, _, up) = of_family.min_by_key(|(_, addr, up)| (!is_gateway(*addr), !up))?;
    Some((leg, up))
}

/// How a next hop on this network is reached: another router's interface, a port here, or one on another host.
fn way(view: View<'_>, legs: &[Leg<'_>], nexthop: IpAddr) -> Option<NextHop> {
    let has = |leg: &&Leg<'_>| {
        let mut addresses = leg.addresses();
        addresses.any(|(fixed, up)| up && fixed.ip_address == nexthop)
    };
    if let Some(leg) = legs.iter().find(has) {
        return way_to_router(leg);
    }
    if let Some(port) = view.port_with(nexthop) {
        return Some(NextHop {
            via: Some(IpAddr::V6(port.mac_address.link_local())),
            link: port.if_name(),
        });
    }
    tunnel::way(view, nexthop)
}

/// What the subnets tell their ports to send by way of a next hop goes there, as far as that is on the network.
///
/// Deviation: a default route is left out (the next hop's own packets would come back to it), and of two next hops
/// for one destination, all ports use both.
fn host_routes(view: View<'_>, legs: &[Leg<'_>], subnets: &[&Subnet]) -> Vec<Object> {
    let mut routes: BTreeMap<Prefix, BTreeSet<NextHop>> = BTreeMap::new();
    let told = subnets.iter().flat_map(|s| &s.host_routes);
    let usable = told.filter(|r| !r.destination.is_default() && is_route_of_a_family(r));
    for route in usable {
        if let Some(hop) = way(view, legs, route.nexthop) {
            routes.entry(route.destination).or_default().insert(hop);
        }
    }
    let routes = routes.into_iter();
    routes
        .map(|(prefix, hops)| address::route(prefix, EXTRA_METRIC, by_all(hops), None))
        .collect()
}

fn is_route_of_a_family(route: &HostRoute) -> bool {
    route.destination.family() == Family::of(route.nexthop) && is_usable(route.nexthop)
}

fn by_all(hops: BTreeSet<NextHop>) -> RouteKind {
    match hops.is_empty() {
        true => RouteKind::Blackhole,
        false => RouteKind::Unicast(hops.into_iter().take(MAX_NEXT_HOPS).collect()),
    }
}

/// The routers' extra routes by way of this network: a table for each router, and a rule that leads there.
fn beyond(view: View<'_>, legs: &[Leg<'_>]) -> Vec<Object> {
    let mut objects = Vec::new();
    let mut tables = BTreeSet::new();
    for leg in legs {
        let low = leg.router.router.id.0.as_u128() as u32 & (FIRST_TABLE - 1);
        let mut table = FIRST_TABLE + low;
        while !tables.insert(table) {
            table += 1;
        }
        let routes = routes_beyond(view, legs, leg);
        let families: BTreeSet<Family> = routes.keys().map(|prefix| prefix.family()).collect();
        objects.extend(families.into_iter().map(|family| {
            Object::Rule(Rule {
                netns: Netns::Main,
                family,
                priority: RULE_PRIORITY,
                fwmark: None,
                iif: leg.link(),
                action: RuleAction::Table(table),
            })
        }));
        let routes = routes.into_iter();
        objects.extend(
            routes.map(|(prefix, kind)| address::route_in(table, prefix, PORT_METRIC, kind, None)),
        );
    }
    objects
}

/// What a router sends here for others, and what it sends here for the network itself, which is looked up as ever.
/// Where no next hop is there, the first is dropped; by the default route it would go round in circles.
fn routes_beyond(view: View<'_>, legs: &[Leg<'_>], leg: &Leg<'_>) -> BTreeMap<Prefix, RouteKind> {
    let connected = connected(view, leg.router);
    let mut hops: BTreeMap<Prefix, BTreeSet<NextHop>> = BTreeMap::new();
    for route in &leg.router.router.routes {
        let to = network_of(leg.router, &connected, route.destination, route.nexthop);
        if to == Some(leg.network.id) && !connected.contains_key(&route.destination) {
            let hops = hops.entry(route.destination).or_default();
            hops.extend(way(view, legs, route.nexthop));
        }
    }
    let families: BTreeSet<Family> = hops.keys().map(|prefix| prefix.family()).collect();
    let own = connected.iter().filter(|(prefix, network)| {
        **network == leg.network.id && families.contains(&prefix.family())
    });
    let mut routes: BTreeMap<Prefix, RouteKind> =
        own.map(|(prefix, _)| (*prefix, RouteKind::Throw)).collect();
    routes.extend(
        hops.into_iter()
            .map(|(prefix, hops)| (prefix, by_all(hops))),
    );
    routes
}

/// The addresses of a network that routes go by way of.
pub fn next_hops(intent: &Intent, places: &Places, network: NetworkId) -> BTreeSet<IpAddr> {
    let routers = places.routers().on(network);
    let extra = routers
        .filter_map(|id| intent.routers.get(&id))
        .flat_map(|router| &router.router.routes);
    let index = places.get(Place::Network(network)).into_iter();
    let told = index
        .flat_map(|index| subnets(intent, index, network))
        .flat_map(|subnet| &subnet.host_routes);
    extra.chain(told).map(|route| route.nexthop).collect()
}
