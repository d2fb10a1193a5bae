//! Next hops that workloads choose: routers that are not their network's default, and ports that may carry packets of
//! others.
//!
//! Each has its own Ethernet address, with which the port's program answers who asks for one of its IP addresses. What is
//! sent there the program marks; for each next hop one policy rule leads from the mark to a table with a default route of
//! either family. To a port on another host that is by VXLAN with the port's Ethernet address, from which the program on
//! the VXLAN device there has the mark that it means on that host: so a packet goes to the next hop whatever its
//! destination is. What the next hop sends itself goes by its destination, or to whom it chooses in its turn.
//!
//! For everybody else the gateway's address is the answer, and a network without such next hops has nothing of all this.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use hextet_types::{Family, IfName, Mac, NetworkId, Prefix};

use super::{
    Leg, ROUTER_MAC,
    network::{default_leg, to_router},
};
use crate::{
    neutron::{Port, Subnet},
    plan::{
        address::{self, PORT_METRIC},
        index::Name,
        place::Place,
        tunnel,
        unit::View,
    },
    state::{
        Fdb, Hop as Known, HopEntry, Neighbour, Netns, NextHop, Object, RouteKind, Rule,
        RuleAction, marks,
    },
};

/// Next hops of one network, routers first; what is more goes by the gateway as if it were none.
const MOST: usize = 32;
/// Their tables have numbers from here on, beyond those of routers.
const FIRST_TABLE: u32 = 1 << 25;
/// Their rules come before routers'.
const RULE_PRIORITY: u32 = 900;

/// A next hop.
struct Hop {
    mac: Mac,
    addresses: BTreeSet<IpAddr>,
    /// Of the packets that it takes.
    families: BTreeSet<Family>,
    kind: RouteKind,
    at: At,
}

/// Where it is.
enum At {
    Router,
    Port(IfName),
    Host(IpAddr),
}

/// All that a network's namespace holds for them.
pub fn hops(view: View<'_>, legs: &[Leg<'_>], subnets: &[&Subnet]) -> Vec<Object> {
    let Place::Network(id) = view.place else {
        return Vec::new();
    };
    let hops = numbered(all(view, legs, subnets, id));
    if hops.is_empty() {
        return Vec::new();
    }
    let mut objects = Vec::new();
    for (number, hop) in &hops {
        objects.extend(way(*number, hop));
        objects.extend(beyond(hop));
    }
    objects.extend(arrivals(view, id, &hops));
    let ports = view.index.ports(&Name::Network(id));
    let ports = ports.filter_map(|port| view.plugged(port));
    for port in ports.filter(|port| view.is_up(port)) {
        objects.extend(offers(port, &hops));
    }
    objects
}

fn all(view: View<'_>, legs: &[Leg<'_>], subnets: &[&Subnet], id: NetworkId) -> Vec<Hop> {
    let mut hops: BTreeMap<Mac, Hop> = BTreeMap::new();
    let local = view.index.ports(&Name::Carrier);
    let local = local.filter(|port| !view.intent.standbys.contains(port));
    let local = local.filter_map(|port| view.plugged(port));
    for port in local.filter(|port| port.network_id == id && view.is_up(port)) {
        let hop = by_port(
            port.mac_address,
            port.fixed_ips.iter().map(|f| f.ip_address),
        );
        let at = At::Port(port.if_name());
        hops.entry(port.mac_address)
            .or_insert(hop(port.if_name(), at));
    }
    let has_tunnel = view.intent.hosts.contains_key(&view.config.host);
    let remote = view.intent.remote_ports.values();
    for port in remote.filter(|p| has_tunnel && p.network_id == id && p.may_carry()) {
        if let (Some(host), Some(device)) = (view.intent.hosts.get(&port.host), tunnel::device()) {
            let hop = by_port(port.mac_address, port.addresses.iter().copied());
            let at = At::Host(host.address);
            hops.entry(port.mac_address).or_insert(hop(device, at));
        }
    }
    hops.retain(|mac, _| !tunnel::is_ours(*mac) && *mac != view.config.gateway_mac);
    let routers = routers(legs, subnets).into_values();
    routers.chain(hops.into_values()).take(MOST).collect()
}

/// Routers that a port has to name to get to: with an interface of a family whose default is another.
fn routers(legs: &[Leg<'_>], subnets: &[&Subnet]) -> BTreeMap<Mac, Hop> {
    let mut hops = BTreeMap::new();
    let defaults = Family::BOTH.map(|family| default_leg(legs, subnets, family));
    for leg in legs {
        let is_default = |family: Family| {
            let mut defaults = Family::BOTH.into_iter().zip(&defaults);
            defaults.any(|(of, to)| {
                let same = |(to, _): &(&Leg<'_>, bool)| std::ptr::eq(*to, leg);
                of == family && to.as_ref().is_some_and(same)
            })
        };
        for interface in &leg.interfaces {
            let addresses = interface.fixed_ips.iter().map(|f| f.ip_address);
            let mut addresses: BTreeSet<IpAddr> =
                addresses.filter(|a| super::is_usable(*a)).collect();
            addresses.retain(|addr| !is_default(Family::of(*addr)));
            if addresses.is_empty() || interface.mac_address == ROUTER_MAC {
                continue;
            }
            let hop = Hop {
                mac: interface.mac_address,
                families: addresses.iter().map(|a| Family::of(*a)).collect(),
                addresses,
                kind: to_router(leg, leg.is_up(interface)),
                at: At::Router,
            };
            hops.entry(hop.mac).or_insert(hop);
        }
    }
    hops
}

/// A port, which takes packets of both families, whatever its addresses are; by its link, or by that to its host.
fn by_port(mac: Mac, addresses: impl Iterator<Item = IpAddr>) -> impl FnOnce(IfName, At) -> Hop {
    let link_local = IpAddr::V6(mac.link_local());
    let addresses = addresses.chain([link_local]).collect();
    move |link, at| Hop {
        mac,
        addresses,
        families: Family::BOTH.into(),
        kind: RouteKind::Unicast(vec![NextHop {
            via: Some(link_local),
            link,
        }]),
        at,
    }
}

/// Each with a number of its own, within [`marks::HOP_MASK`] and never 0, which follows from its Ethernet address: so
/// that of others stays when one comes or goes, as long as no two have the same.
fn numbered(hops: Vec<Hop>) -> BTreeMap<u32, Hop> {
    let mut numbered = BTreeMap::new();
    for hop in hops {
        let [_, _, _, a, b, c] = hop.mac.octets();
        let mut number = u32::from_be_bytes([0, a, b, c]) & marks::HOP_MASK;
        while number == 0 || numbered.contains_key(&number) {
            number = (number + 1) & marks::HOP_MASK;
        }
        numbered.insert(number, hop);
    }
    numbered
}

/// From the mark to the next hop.
fn way(number: u32, hop: &Hop) -> Vec<Object> {
    let table = FIRST_TABLE + number;
    let of_family = |family: &Family| {
        let rule = Rule {
            netns: Netns::Main,
            family: *family,
            priority: RULE_PRIORITY,
            fwmark: Some((number, marks::HOP_MASK)),
            iif: None,
            action: RuleAction::Table(table),
        };
        let prefix = Prefix::default_route(*family);
        let route = address::route_in(table, prefix, PORT_METRIC, hop.kind.clone(), None);
        [Object::Rule(rule), route]
    };
    hop.families.iter().flat_map(of_family).collect()
}

/// Of one on another host: how it is known on the way there.
fn beyond(hop: &Hop) -> Vec<Object> {
    let (At::Host(dst), Some(link)) = (&hop.at, tunnel::device()) else {
        return Vec::new();
    };
    let neighbour = Neighbour {
        netns: Netns::Main,
        link: link.clone(),
        addr: IpAddr::V6(hop.mac.link_local()),
        mac: hop.mac,
    };
    let entry = Fdb {
        netns: Netns::Main,
        link,
        mac: hop.mac,
        dst: *dst,
    };
    vec![Object::Neighbour(neighbour), Object::Fdb(entry)]
}

/// What other hosts send to those that are here.
fn arrivals(view: View<'_>, id: NetworkId, hops: &BTreeMap<u32, Hop>) -> Vec<Object> {
    let network = view.intent.networks.get(&id);
    let has_device = network.is_some_and(|n| n.segmentation_id.is_some())
        && view.intent.hosts.contains_key(&view.config.host);
    let (true, Some(link)) = (has_device, tunnel::device()) else {
        return Vec::new();
    };
    let here = hops.iter().filter(|(_, hop)| matches!(hop.at, At::Port(_)));
    here.map(|(number, hop)| known(&link, way_entry(*number, hop)))
        .collect()
}

/// What a port may choose: all but itself.
fn offers(port: &Port, hops: &BTreeMap<u32, Hop>) -> Vec<Object> {
    let link = port.if_name();
    let itself = |hop: &Hop| matches!(&hop.at, At::Port(own) if *own == link);
    let mut asked = BTreeSet::new();
    let mut objects = Vec::new();
    for (number, hop) in hops.iter().filter(|(_, hop)| !itself(hop)) {
        objects.push(known(&link, way_entry(*number, hop)));
        for addr in &hop.addresses {
            if asked.insert(*addr) {
                let (addr, mac) = (*addr, hop.mac);
                objects.push(known(&link, HopEntry::Answer { addr, mac }));
            }
        }
    }
    objects
}

fn way_entry(number: u32, hop: &Hop) -> HopEntry {
    HopEntry::Way {
        mac: hop.mac,
        mark: number,
    }
}

fn known(link: &IfName, entry: HopEntry) -> Object {
    Object::Hop(Known {
        netns: Netns::Main,
        link: link.clone(),
        entry,
    })
}
