//! How an address is reached, and who is told: host routes, black holes and announcements.

use std::net::IpAddr;

use hextet_types::{Family, Prefix};

use super::{
    delegation,
    index::Name,
    names, nft, physical,
    place::Place,
    unit::{Output, View},
};
use crate::{
    neutron::Port,
    state::{Announcement, Netns, NextHop, Object, Route, RouteKey, RouteKind, Scope, Value},
};

/// The main routing table.
const MAIN: u32 = 254;
/// Metric of routes to ports; better than what any routing protocol brings.
pub const PORT_METRIC: u32 = 100;
/// Metric of the main namespace's routes to what routers answer for.
pub const OUTSIDE_METRIC: u32 = 110;
/// Metric of routes to routers' addresses: a port that has the same is nearer.
pub const GATEWAY_METRIC: u32 = 120;
/// Metric of routes to a private network's ports on other hosts: a port here is nearer.
pub const REMOTE_METRIC: u32 = 150;
/// Metric of extra routes: what is connected is better.
pub const EXTRA_METRIC: u32 = 200;
/// Metric of a private network's way to everything else.
pub const DEFAULT_METRIC: u32 = 500;
/// Metric of the black hole under a NAT44 source, which only connections that are being translated pass.
pub const SOURCE_METRIC: u32 = 900_000;
/// Metric of the black holes under subnets and aggregates: anything else is better.
pub const BLACKHOLE_METRIC: u32 = 1_000_000;

/// An address of a port of this host, or a NAT44 source.
pub fn address(view: View<'_>, addr: IpAddr) -> Output {
    let mut output = Output::default();
    let scope = if let Some(port) = view.port_with(addr) {
        output.objects.push(port_route(view, port, addr));
        match physical::link_of(view, port.network_id) {
            Some(link) => {
                output.objects.extend(physical::answers(link, addr));
                None
            }
            None => port_scope(view, port, addr),
        }
    } else if view.is_nat_source(addr) {
        let prefix = Prefix::host(addr);
        output
            .objects
            .push(route(prefix, SOURCE_METRIC, RouteKind::Blackhole, None));
        match physical::link_around(view, addr) {
            Some(link) => {
                output.objects.extend(physical::answers(link, addr));
                None
            }
            None => Some(Scope::Global),
        }
    } else {
        None
    };
    let prefix = Prefix::host(addr);
    let announced = view.place == Place::Main && !view.config.aggregated(prefix);
    if let Some(scope) = scope.filter(|_| announced) {
        output.announce.push((prefix, Announcement { scope }));
    }
    output
}

/// IPv4 goes out with a link-local source when the host itself is the sender: an unnumbered host has
/// no other.
fn port_route(view: View<'_>, port: &Port, addr: IpAddr) -> Object {
    let own = port.fixed_ips.iter().any(|f| f.ip_address == addr);
    let mut pairs = port.allowed_address_pairs.iter();
    let paired = port.port_security_enabled && pairs.any(|p| p.ip_address == Prefix::host(addr));
    // Of any other address that it holds there is no neighbour.
    let via = (!own && !paired).then(|| IpAddr::V6(port.mac_address.link_local()));
    let next_hop = NextHop {
        via,
        link: port.if_name(),
    };
    let prefsrc = addr
        .is_ipv4()
        .then_some(IpAddr::V4(view.config.link_local_v4));
    let kind = RouteKind::Unicast(vec![next_hop]);
    route(Prefix::host(addr), PORT_METRIC, kind, prefsrc)
}

/// How far the port's address may travel; nowhere while its subnet is not known.
fn port_scope(view: View<'_>, port: &Port, addr: IpAddr) -> Option<Scope> {
    let fixed = port.fixed_ips.iter().find(|f| f.ip_address == addr);
    let subnet = match fixed {
        Some(fixed) => view.subnet(fixed.subnet_id)?,
        None => view
            .subnets()
            .find(|s| s.network_id == port.network_id && s.cidr.contains(addr))?,
    };
    match (Family::of(addr), subnet.nat44) {
        (Family::V4, Some(_)) => Some(Scope::Fabric),
        _ => Some(Scope::Global),
    }
}

/// A prefix of the cloud: not translated, and dropped where nothing better is known.
pub fn inside(view: View<'_>, prefix: Prefix) -> Vec<Object> {
    if !view.index.is_named(&Name::Inside(prefix)) {
        return Vec::new();
    }
    let mut objects = Vec::new();
    if prefix.family() == Family::V4 {
        let key = [Value::Addr(prefix.addr())];
        objects.push(nft::element(names::inside(prefix.len()), key));
    }
    let aggregate = view.config.aggregates.iter().any(|a| a.prefix == prefix);
    // What is delegated to nobody yet would go back to the router that has delegated all of it.
    let is_delegated = view.place == Place::Main && delegation::is_of_one(view, prefix);
    if (view.config.blackhole_inside || is_delegated) && !aggregate {
        objects.push(blackhole(prefix));
    }
    if !is_delegated {
        objects.extend(physical::ways(view, prefix));
    }
    objects
}

/// Drops what nothing more specific takes.
pub fn blackhole(prefix: Prefix) -> Object {
    route(prefix, BLACKHOLE_METRIC, RouteKind::Blackhole, None)
}

/// In the place's main table.
pub fn route(prefix: Prefix, metric: u32, kind: RouteKind, prefsrc: Option<IpAddr>) -> Object {
    route_at(route_key(prefix, metric), kind, prefsrc)
}

/// In a table of the place.
pub fn route_in(
    table: u32,
    prefix: Prefix,
    metric: u32,
    kind: RouteKind,
    prefsrc: Option<IpAddr>,
) -> Object {
    let key = RouteKey {
        table,
        ..route_key(prefix, metric)
    };
    route_at(key, kind, prefsrc)
}

/// Of a route in the place's main table, whatever the source.
pub fn route_key(prefix: Prefix, metric: u32) -> RouteKey {
    RouteKey {
        netns: Netns::Main,
        table: MAIN,
        prefix,
        source: None,
        metric,
    }
}

/// Any.
pub fn route_at(key: RouteKey, kind: RouteKind, prefsrc: Option<IpAddr>) -> Object {
    Object::Route(Route { key, kind, prefsrc })
}
