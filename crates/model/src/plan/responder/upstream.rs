//! What a port on a physical network is told when that network's own routers rule (`ipv6_ra_mode` unset): what they say
//! themselves, but that nothing is on the link, and that we are the router.

use hextet_autoconf::{
    DomainName, Upstream,
    config::{Advertise, Ipv6Mode as Mode, Ipv6Subnet, MAX_DNS_SERVERS, MAX_SEARCH_DOMAINS},
    upstream::OnLink,
};
use hextet_types::Family;

use crate::neutron::Subnet;

/// The least that IPv6 needs (RFC 8200 §5).
const LEAST_MTU: u16 = 1_280;

/// Whether the network's routers rule.
pub fn rules(subnet: &Subnet) -> bool {
    subnet.family() == Family::V6 && subnet.ipv6_ra_mode.is_none()
}

fn said<'a>(subnet: &Subnet, upstream: Option<&'a Upstream>) -> Option<(&'a Upstream, &'a OnLink)> {
    let upstream = upstream.filter(|_| rules(subnet))?;
    let said = upstream.prefixes.iter().find(|p| p.prefix == subnet.cidr);
    Some((upstream, said?))
}

/// How addresses come, where a router says anything of the prefix.
pub fn mode(subnet: &Subnet, upstream: Option<&Upstream>) -> Mode {
    match said(subnet, upstream) {
        Some((upstream, said)) if said.autonomous => match upstream.other || upstream.managed {
            true => Mode::Dhcpv6Stateless,
            false => Mode::Slaac,
        },
        _ => Mode::None,
    }
}

/// The rest of the advertisement.
pub fn advertise(upstream: &Upstream) -> Advertise {
    Advertise {
        default_router: !upstream.routers.is_empty(),
        preference: upstream.preference,
        pref64: upstream.pref64,
        ..Advertise::default()
    }
}

/// The prefix as the routers have it, with their DNS servers where the subnet has none.
pub fn repeat(ours: Ipv6Subnet, upstream: &Upstream) -> Ipv6Subnet {
    let said = upstream.prefixes.iter().find(|p| p.prefix == ours.prefix);
    let Some(said) = said else { return ours };
    let dns_servers = match ours.dns_servers.is_empty() {
        true => upstream
            .dns_servers
            .iter()
            .copied()
            .take(MAX_DNS_SERVERS)
            .collect(),
        false => ours.dns_servers,
    };
    Ipv6Subnet {
        dns_servers,
        valid_lifetime_secs: said.valid_lifetime_secs,
        preferred_lifetime_secs: said.preferred_lifetime_secs,
        ..ours
    }
}

/// What fits both.
pub fn mtu(upstream: Option<&Upstream>, own: u16) -> u16 {
    let said = upstream.and_then(|upstream| upstream.mtu);
    let said = said.and_then(|mtu| u16::try_from(mtu).ok());
    said.map_or(own, |mtu| mtu.max(LEAST_MTU).min(own))
}

/// Domains to search.
pub fn search(upstream: Option<&Upstream>) -> Vec<DomainName> {
    let said = upstream
        .into_iter()
        .flat_map(|upstream| &upstream.dns_search);
    said.take(MAX_SEARCH_DOMAINS).cloned().collect()
}
