//! What a port's RA, DHCPv4 and DHCPv6 say: all of it follows from the port, its network and its subnets.
//!
//! Deviation: lists beyond the responder's bounds are cut, and what it could not use (an option with an
//! unknown name, an address outside its subnet) is left out; the server refuses these before.

mod metadata;
mod upstream;

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr},
};

use hextet_autoconf::{
    DomainName, ExtraOption, PortConfig, Upstream,
    config::{
        Advertise, Delegation, HostRoute, Ipv4Subnet, Ipv6Mode as Mode, Ipv6Subnet,
        MAX_DELEGATIONS, MAX_DNS_SERVERS, MAX_EXTRA_OPTIONS, MAX_ROUTES, MAX_SUBNETS,
    },
};
use hextet_types::{Family, PortId};

use super::{base, physical, unit::View};
use crate::{
    neutron::{Ipv6Mode, Port, Subnet},
    state::{Netns, Responder},
};

/// The responder of a port that is up.
pub fn of_port(view: View<'_>, port: &Port) -> Option<(PortId, Responder)> {
    let network = view.intent.networks.get(&port.network_id)?;
    let upstream = physical::upstream(view, port.network_id);
    let config = PortConfig {
        host_mac: view.config.gateway_mac,
        guest_mac: port.mac_address,
        link_local: base::GATEWAY_V6,
        mtu: upstream::mtu(upstream, network.mtu),
        hostname: domain(&port.dns_name),
        dns_domain: domain(&network.dns_domain),
        dns_search: upstream::search(upstream),
        ntp_servers: Vec::new(),
        advertise: advertise(view, port, upstream),
        ipv6: ipv6(view, port, upstream),
        delegated: delegated(port),
        ipv4: ipv4(view, port),
        ipv6_only_wait_secs: None,
        extra_dhcp_opts: extra_options(port),
    };
    let responder = Responder {
        netns: Netns::Main,
        link: port.if_name(),
        config,
        facts: metadata::facts(view, port, network),
    };
    Some((port.id, responder))
}

/// The port's addresses with their subnets.
fn subnets<'a>(view: View<'a>, port: &'a Port) -> impl Iterator<Item = (IpAddr, &'a Subnet)> {
    port.fixed_ips.iter().filter_map(move |fixed| {
        let subnet = view.subnet(fixed.subnet_id)?;
        let inside = subnet.cidr.contains(fixed.ip_address);
        inside.then_some((fixed.ip_address, subnet))
    })
}

/// What router advertisements say, where there is anything to say.
fn advertise(view: View<'_>, port: &Port, upstream: Option<&Upstream>) -> Option<Advertise> {
    let subnets = subnets(view, port).map(|(_, subnet)| subnet);
    let advertised = subnets.filter(|subnet| mode(subnet, upstream) != Mode::None);
    let advertised: Vec<&Subnet> = advertised.collect();
    if advertised.is_empty() {
        return None;
    }
    let theirs = advertised.iter().any(|subnet| upstream::rules(subnet));
    Some(match upstream.filter(|_| theirs) {
        Some(upstream) => upstream::advertise(upstream),
        None => Advertise {
            default_router: advertised.iter().any(|subnet| subnet.gateway_ip.is_some()),
            ..Advertise::default()
        },
    })
}

/// How an IPv6 subnet's addresses come from us. Without an RA mode somebody else advertises it, whom we repeat on a
/// physical network, or nobody.
fn mode(subnet: &Subnet, upstream: Option<&Upstream>) -> Mode {
    let slaac = |mode| {
        if subnet.cidr.len() == 64 {
            mode
        } else {
            Mode::None
        }
    };
    match subnet.ipv6_ra_mode {
        _ if subnet.family() == Family::V4 || !subnet.enable_dhcp => Mode::None,
        None => slaac(upstream::mode(subnet, upstream)),
        Some(Ipv6Mode::Slaac) => slaac(Mode::Slaac),
        Some(Ipv6Mode::Dhcpv6Stateless) => slaac(Mode::Dhcpv6Stateless),
        Some(Ipv6Mode::Dhcpv6Stateful) => Mode::Dhcpv6Stateful,
    }
}

/// The first address of each subnet, which is the one that SLAAC forms; all of them where DHCPv6 hands
/// them out.
fn ipv6(view: View<'_>, port: &Port, upstream: Option<&Upstream>) -> Vec<Ipv6Subnet> {
    let mut seen = BTreeSet::new();
    let with_mode =
        subnets(view, port).filter_map(|(addr, subnet)| match (addr, mode(subnet, upstream)) {
            (IpAddr::V4(_), _) | (_, Mode::None) => None,
            (IpAddr::V6(addr), mode) => Some((addr, subnet, mode)),
        });
    let wanted = with_mode
        .filter(|(_, subnet, mode)| seen.insert(subnet.cidr) || *mode == Mode::Dhcpv6Stateful);
    let prefer_delegation = prefers_delegation(view, port);
    let described = wanted.map(|(addr, subnet, mode)| {
        let dns_servers = dns_servers(subnet, |server| match server {
            IpAddr::V6(server) => Some(server),
            IpAddr::V4(_) => None,
        });
        let ours = Ipv6Subnet {
            prefer_delegation,
            dns_servers,
            ..Ipv6Subnet::new(subnet.cidr, mode, Some(addr))
        };
        match upstream.filter(|_| upstream::rules(subnet)) {
            Some(upstream) => upstream::repeat(ours, upstream),
            None => ours,
        }
    });
    described.take(MAX_SUBNETS).collect()
}

/// Whether a prefix of its own is better than an address (RFC 9762), as its subnet says.
fn prefers_delegation(view: View<'_>, port: &Port) -> bool {
    let subnets = port.delegated_prefixes.iter();
    let mut subnets = subnets.filter_map(|d| view.subnet(d.subnet_id)?.delegation);
    subnets.any(|delegation| delegation.preferred)
}

fn delegated(port: &Port) -> Vec<Delegation> {
    let prefixes = port.delegated_prefixes.iter().map(|d| d.prefix);
    prefixes
        .take(MAX_DELEGATIONS)
        .map(Delegation::new)
        .collect()
}

fn ipv4(view: View<'_>, port: &Port) -> Vec<Ipv4Subnet> {
    let with_dhcp = subnets(view, port).filter(|(_, subnet)| subnet.enable_dhcp);
    let described = with_dhcp.filter_map(|(addr, subnet)| {
        let addr = v4(addr)?;
        Some(Ipv4Subnet {
            gateway: subnet.gateway_ip.and_then(v4),
            dns_servers: dns_servers(subnet, v4),
            host_routes: host_routes(subnet),
            ..Ipv4Subnet::new(addr, subnet.cidr)
        })
    });
    described.take(MAX_SUBNETS).collect()
}

fn v4(addr: IpAddr) -> Option<Ipv4Addr> {
    match addr {
        IpAddr::V4(addr) => Some(addr),
        IpAddr::V6(_) => None,
    }
}

fn dns_servers<A>(subnet: &Subnet, of_family: impl Fn(IpAddr) -> Option<A>) -> Vec<A> {
    let servers = subnet.dns_nameservers.iter().copied().filter_map(of_family);
    servers.take(MAX_DNS_SERVERS).collect()
}

fn host_routes(subnet: &Subnet) -> Vec<HostRoute> {
    let routes = subnet.host_routes.iter().filter_map(|route| {
        let nexthop = v4(route.nexthop)?;
        let destination = route.destination;
        (destination.family() == Family::V4).then_some(HostRoute {
            destination,
            nexthop,
        })
    });
    routes.take(MAX_ROUTES).collect()
}

fn domain(name: &str) -> Option<DomainName> {
    name.parse().ok()
}

fn extra_options(port: &Port) -> Vec<ExtraOption> {
    let mut seen = BTreeSet::new();
    let options = port
        .extra_dhcp_opts
        .iter()
        .filter_map(|o| ExtraOption::parse(&o.opt_name, &o.opt_value, o.ip_version).ok());
    let distinct = options.filter(|option| seen.insert((option.family(), option.code())));
    distinct.take(MAX_EXTRA_OPTIONS).collect()
}

#[cfg(test)]
#[path = "responder/tests.rs"]
mod tests;
