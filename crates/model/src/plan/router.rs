//! Routers: which of them stand on a host, their legs on networks, and what is in a router's own namespace.
//!
//! A router has a namespace on each host that is told of it, and a pair of links to each of its networks. It is a
//! plain Linux router: an address for each interface, a route for each subnet that it is on, its extra routes, and, as
//! long as it has no way outside, no rules at all, so that it tracks no connections. Security groups are judged where the
//! ports are. What the networks' namespaces hold for it is [`network`]'s; how it reaches the outside is [`outside`]'s.

pub mod claim;
mod hop;
pub mod network;
pub mod outside;
mod translation;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use hextet_types::{Family, IfName, Mac, NetworkId, Prefix, RouterId};

use super::{
    address::{self, EXTRA_METRIC, PORT_METRIC},
    place::Place,
    unit::{Output, View},
};
use crate::{
    intent::{Intent, Router, RouterInterface},
    neutron::{FixedIp, Network},
    state::{Address, Namespace, Neighbour, Netns, NextHop, Object, RouteKind, Sysctl},
};
use claim::Claims;

/// The Ethernet address of all routers' ends of their pairs. Workloads never see it.
const ROUTER_MAC: Mac = Mac::new([0x02, 0x68, 0x78, 0, 0, 2]);
/// Next hops of one destination; the kernel crate's bound.
const MAX_NEXT_HOPS: usize = 64;

const SYSCTLS: [(&str, &str); 6] = [
    ("net/ipv4/ip_forward", "1"),
    ("net/ipv6/conf/all/forwarding", "1"),
    ("net/ipv4/conf/all/send_redirects", "0"),
    ("net/ipv4/conf/default/send_redirects", "0"),
    ("net/ipv4/conf/all/accept_source_route", "0"),
    ("net/ipv4/ip_early_demux", "0"),
];

/// A router's namespace: the last ten hex digits of its identifier tell it from others'.
pub fn namespace(id: RouterId) -> String {
    let hex = id.0.simple().to_string();
    format!("{}{}", Namespace::PREFIXES[1], &hex[22..])
}

/// Which routers are on which networks, and which would have the same namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Routers {
    on: BTreeMap<NetworkId, BTreeSet<RouterId>>,
    named: BTreeMap<String, BTreeSet<RouterId>>,
    claims: Claims,
}

impl Routers {
    /// A router is another now, or is gone.
    pub fn set(&mut self, id: RouterId, old: Option<&Router>, new: Option<&Router>) {
        for network in old.into_iter().flat_map(networks) {
            take_out(&mut self.on, &network, id);
        }
        for network in new.into_iter().flat_map(networks) {
            self.on.entry(network).or_default().insert(id);
        }
        self.claims.set_router(id, old, new);
        let name = namespace(id);
        match new {
            Some(_) => drop(self.named.entry(name).or_default().insert(id)),
            None => take_out(&mut self.named, &name, id),
        }
    }

    /// The routers with an interface on that network, in order.
    pub fn on(&self, network: NetworkId) -> impl Iterator<Item = RouterId> + '_ {
        self.on.get(&network).into_iter().flatten().copied()
    }

    /// All that would have the same namespace.
    pub fn sharing(&self, id: RouterId) -> impl Iterator<Item = RouterId> + '_ {
        self.named
            .get(&namespace(id))
            .into_iter()
            .flatten()
            .copied()
    }

    /// Who answers for which address outside.
    pub fn claims(&self) -> &Claims {
        &self.claims
    }

    /// Who answers for which address outside.
    pub fn claims_mut(&mut self) -> &mut Claims {
        &mut self.claims
    }

    /// Whether the namespace is its: of those that would have it, the first's.
    fn has_namespace(&self, id: RouterId) -> bool {
        self.sharing(id).next() == Some(id)
    }
}

fn take_out<K: Ord, V: Ord>(from: &mut BTreeMap<K, BTreeSet<V>>, key: &K, value: V) {
    if let Some(all) = from.get_mut(key) {
        all.remove(&value);
        if all.is_empty() {
            from.remove(key);
        }
    }
}

/// The networks that it has interfaces on.
pub fn networks(router: &Router) -> BTreeSet<NetworkId> {
    router.interfaces.values().map(|i| i.network_id).collect()
}

/// A router's interfaces on one network, which share a pair of links.
#[derive(Clone, Debug)]
struct Leg<'a> {
    router: &'a Router,
    network: &'a Network,
    interfaces: Vec<&'a RouterInterface>,
}

impl<'a> Leg<'a> {
    /// Where the router stands and the network is a private one that is known.
    fn of(view: View<'a>, router: RouterId, network: NetworkId) -> Option<Leg<'a>> {
        let router = view.intent.routers.get(&router)?;
        if !view.routers.has_namespace(router.router.id) {
            return None;
        }
        let network = private(view.intent, network)?;
        let here = |i: &&RouterInterface| i.network_id == network.id;
        let interfaces: Vec<_> = router.interfaces.values().filter(here).collect();
        (!interfaces.is_empty()).then_some(Leg {
            router,
            network,
            interfaces,
        })
    }

    /// The end in the network's namespace: it has the name of where it leads.
    fn link(&self) -> Option<IfName> {
        namespace(self.router.router.id).parse().ok()
    }

    /// The end in the router's namespace.
    fn far_link(&self) -> Option<IfName> {
        match Place::Network(self.network.id).netns() {
            Netns::Named(name) => name.parse().ok(),
            Netns::Main => None,
        }
    }

    fn is_up(&self, interface: &RouterInterface) -> bool {
        self.router.router.admin_state_up && interface.admin_state_up
    }

    /// Its addresses, each with whether it answers.
    fn addresses(&self) -> impl Iterator<Item = (&'a FixedIp, bool)> + '_ {
        self.interfaces.iter().flat_map(|interface| {
            let up = self.is_up(interface);
            let usable = |f: &&FixedIp| is_usable(f.ip_address);
            let all = interface.fixed_ips.iter().filter(usable);
            all.map(move |fixed| (fixed, up))
        })
    }
}

fn private(intent: &Intent, network: NetworkId) -> Option<&Network> {
    let network = intent.networks.get(&network);
    network.filter(|n| Place::of(Some(n)) == Place::Network(n.id))
}

/// What a router can have for an address, and what can be a next hop. Link-local ones are every link's own.
fn is_usable(addr: IpAddr) -> bool {
    let link_local = match addr {
        IpAddr::V4(v4) => v4.is_link_local() || v4.is_broadcast(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    };
    !(link_local || addr.is_unspecified() || addr.is_loopback() || addr.is_multicast())
}

/// What a router reaches by itself: the subnets that its interfaces have addresses in, each by the first such
/// interface. None, while it is administratively down.
fn connected(view: View<'_>, router: &Router) -> BTreeMap<Prefix, NetworkId> {
    let mut connected = BTreeMap::new();
    if !router.router.admin_state_up || !view.routers.has_namespace(router.router.id) {
        return connected;
    }
    for interface in router.interfaces.values().filter(|i| i.admin_state_up) {
        let Some(network) = private(view.intent, interface.network_id) else {
            continue;
        };
        for fixed in &interface.fixed_ips {
            let subnet = view.intent.subnets.get(&fixed.subnet_id);
            let own = subnet.filter(|s| {
                let inside = s.cidr.contains(fixed.ip_address);
                s.network_id == network.id && inside && is_usable(fixed.ip_address)
            });
            if let Some(subnet) = own {
                connected.entry(subnet.cidr).or_insert(network.id);
            }
        }
    }
    connected
}

/// Where an extra route leads: the network of the next hop. None, where that is out of reach, or the router's own.
fn network_of(
    router: &Router,
    connected: &BTreeMap<Prefix, NetworkId>,
    destination: Prefix,
    nexthop: IpAddr,
) -> Option<NetworkId> {
    let own = |i: &RouterInterface| i.fixed_ips.iter().any(|f| f.ip_address == nexthop);
    let same_family = destination.family() == Family::of(nexthop);
    if !same_family || !is_usable(nexthop) || router.interfaces.values().any(own) {
        return None;
    }
    let around = connected.iter().filter(|(p, _)| p.contains(nexthop));
    let longest = around.max_by_key(|(prefix, _)| prefix.len());
    longest.map(|(_, network)| *network)
}

/// The router's own namespace, with all that is in it. One that is administratively down keeps its links, without
/// addresses and routes.
pub fn router(view: View<'_>) -> Output {
    let mut output = Output::default();
    let Place::Router(id) = view.place else {
        return output;
    };
    let standing = view.intent.routers.get(&id);
    let Some(router) = standing.filter(|_| view.routers.has_namespace(id)) else {
        return output;
    };
    let name = namespace(id);
    output.joints.push(Object::Namespace(Namespace { name }));
    output.objects.extend(SYSCTLS.map(|(path, value)| {
        Object::Sysctl(Sysctl {
            netns: Netns::Main,
            path: path.to_owned(),
            value: value.to_owned(),
        })
    }));
    let mut seen = BTreeSet::new();
    for network in networks(router) {
        let Some(leg) = Leg::of(view, id, network) else {
            continue;
        };
        let Some(link) = leg.far_link() else { continue };
        output.objects.push(Object::Neighbour(Neighbour {
            netns: Netns::Main,
            link: link.clone(),
            addr: IpAddr::V6(view.config.gateway_mac.link_local()),
            mac: view.config.gateway_mac,
        }));
        let up = leg.addresses().filter(|(_, up)| *up).map(|(f, _)| f);
        for addr in up.map(|f| f.ip_address).filter(|a| seen.insert(*a)) {
            output.objects.push(Object::Address(Address {
                netns: Netns::Main,
                link: link.clone(),
                addr,
                prefix_len: Family::of(addr).bits(),
            }));
        }
    }
    output.objects.extend(routes(view, router));
    output
}

fn routes(view: View<'_>, router: &Router) -> Vec<Object> {
    let connected = connected(view, router);
    let hop = |network: NetworkId| {
        let leg = Leg::of(view, router.router.id, network)?;
        let via = IpAddr::V6(view.config.gateway_mac.link_local());
        Some(NextHop {
            via: Some(via),
            link: leg.far_link()?,
        })
    };
    let mut extra: BTreeMap<Prefix, BTreeSet<NextHop>> = BTreeMap::new();
    for route in &router.router.routes {
        let to = network_of(router, &connected, route.destination, route.nexthop);
        if let Some(hop) = to.and_then(hop) {
            extra.entry(route.destination).or_default().insert(hop);
        }
    }
    let subnets = connected.iter().filter_map(|(prefix, network)| {
        let kind = RouteKind::Unicast(vec![hop(*network)?]);
        Some(address::route(*prefix, PORT_METRIC, kind, None))
    });
    let extra = extra.into_iter().map(|(prefix, hops)| {
        let hops = hops.into_iter().take(MAX_NEXT_HOPS).collect();
        address::route(prefix, EXTRA_METRIC, RouteKind::Unicast(hops), None)
    });
    subnets.chain(extra).collect()
}
