//! Physical networks: a host gets what is sent there to its workloads' addresses by answering for each of them on the
//! link, and reaches others on the link, and beyond, by it.

use std::net::IpAddr;

use hextet_autoconf::Upstream;
use hextet_types::{Family, IfName, NetworkId, Prefix};

use super::{
    address::{route, route_at, route_key},
    index::{Name, Referrer},
    place::Place,
    unit::View,
};
use crate::{
    neutron::Network,
    state::{Answer, NextHop, Object, Proxy, RouteKey, RouteKind, UplinkProgram},
};

/// Metric of routes to what is on the link: the host's own, if it has an address there, is better.
const ON_LINK_METRIC: u32 = 5_000;
/// Metric of the way out by the network's own router, of what has a source there.
const WAY_OUT_METRIC: u32 = 500;

/// The link by which this host is on a network; none, where it is on none, or not here.
pub fn link<'a>(view: View<'a>, network: &Network) -> Option<&'a IfName> {
    let physical = network.physical_network.as_ref()?;
    let is_here = view.place == Place::Main && network.network_type.is_physical();
    view.config
        .physical_networks
        .get(physical)
        .filter(|_| is_here)
}

/// The link on which the host answers for an address of that network.
pub fn link_of<'a>(view: View<'a>, network: NetworkId) -> Option<&'a IfName> {
    link(view, view.intent.networks.get(&network)?)
}

/// What routers there say, of a network that the host is on.
pub fn upstream<'a>(view: View<'a>, network: NetworkId) -> Option<&'a Upstream> {
    let network = view.intent.networks.get(&network)?;
    link(view, network)?;
    view.intent
        .upstreams
        .get(network.physical_network.as_ref()?)
}

/// Likewise, of an address that may be of any network.
pub fn link_around(view: View<'_>, addr: IpAddr) -> Option<&IfName> {
    let around = view.subnets().filter(|s| s.cidr.contains(addr));
    let on_links = around.filter_map(|s| Some((s.cidr.len(), link_of(view, s.network_id)?)));
    Some(on_links.max_by_key(|(len, _)| *len)?.1)
}

/// What it takes to be sent what is for an address.
pub fn answers(link: &IfName, addr: IpAddr) -> Vec<Object> {
    let (link, of_group) = (link.clone(), addr.is_ipv6());
    let proxy = of_group.then(|| {
        Object::Proxy(Proxy {
            link: link.clone(),
            addr,
        })
    });
    let answer = Object::Answer(Answer { link, addr });
    proxy.into_iter().chain([answer]).collect()
}

/// What stands for a network that this host is on, as long as it has a port or a subnet: the program on its link.
pub fn network(view: View<'_>, id: NetworkId) -> Vec<Object> {
    let network = view.intent.networks.get(&id);
    let up = network.filter(|n| n.admin_state_up && view.index.is_named(&Name::Network(id)));
    let link = up.and_then(|network| link(view, network));
    let program = link.map(|link| Object::UplinkProgram(UplinkProgram { link: link.clone() }));
    program.into_iter().collect()
}

/// The ways by the link of the first subnet of that prefix that is on one: to what else is there, of private IPv4 the
/// ports on other hosts; and what has a source there leaves by the network's own router, whichever the host's is.
pub fn ways(view: View<'_>, prefix: Prefix) -> Vec<Object> {
    let subnets = view.index.referrers(&Name::Inside(prefix));
    let mut on_links = subnets.filter_map(|who| match who {
        Referrer::Subnet(id) => {
            let subnet = view.subnet(id)?;
            Some((subnet, link_of(view, subnet.network_id)?))
        }
        _ => None,
    });
    let Some((subnet, link)) = on_links.next() else {
        return Vec::new();
    };
    let by = |via| {
        let link = link.clone();
        RouteKind::Unicast(vec![NextHop { via, link }])
    };
    let mut objects = vec![route(prefix, ON_LINK_METRIC, by(None), None)];
    let said = upstream(view, subnet.network_id).and_then(|said| said.routers.first());
    let said = said.map(|router| IpAddr::V6(*router));
    let gateway = said.or(subnet.gateway_ip);
    let gateway = gateway.filter(|_| prefix.family() == Family::V6);
    objects.extend(gateway.map(|gateway| {
        let way_out = RouteKey {
            source: Some(prefix),
            ..route_key(Prefix::default_route(Family::V6), WAY_OUT_METRIC)
        };
        route_at(way_out, by(Some(gateway)), None)
    }));
    objects
}
