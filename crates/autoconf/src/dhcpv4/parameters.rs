//! Which options an answer has, and in which order.
//!
//! What a client asks for comes in its order; the mask stands before the routers (RFC 2132 §3.3).
//! Extra options of the port replace ours, and are sent whether or not they are asked for.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr},
};

use hextet_types::{Family, Prefix};

use super::message::{Message, Options, code};
use crate::{
    config::{HostRoute, Ipv4Subnet, PortConfig},
    options::encode_route,
};

/// What a client gets that does not say what it wants.
const UNASKED: [u8; 6] = [
    code::CLASSLESS_STATIC_ROUTE,
    code::ROUTER,
    code::DNS_SERVER,
    code::DOMAIN_NAME,
    code::INTERFACE_MTU,
    code::BROADCAST_ADDRESS,
];

pub(super) struct Parameters<'a> {
    config: &'a PortConfig,
    requested: Option<&'a [u8]>,
    available: BTreeMap<u8, Vec<u8>>,
    lease_secs: u32,
}

impl<'a> Parameters<'a> {
    pub(super) fn new(config: &'a PortConfig, subnet: &Ipv4Subnet, request: &'a Message) -> Self {
        let mut available = available(config, subnet);
        for (code, data) in extras(config) {
            available.insert(code, data.to_owned());
        }
        let lease_secs = available
            .remove(&code::LEASE_TIME)
            .and_then(|data| data.try_into().ok())
            .map_or(subnet.lease_secs, u32::from_be_bytes);
        Parameters {
            config,
            requested: request.options.get(code::PARAMETER_REQUEST_LIST),
            available,
            lease_secs,
        }
    }

    /// Lease time, T1 and T2 (RFC 2131 §4.4.5).
    pub(super) fn add_times(&self, options: &mut Options) {
        let lease = self.lease_secs;
        let part = |eighths: u32| match lease {
            u32::MAX => u32::MAX,
            lease => lease / 8 * eighths,
        };
        options.set(code::LEASE_TIME, &lease.to_be_bytes());
        for (code, eighths) in [(code::RENEWAL_TIME, 4), (code::REBINDING_TIME, 7)] {
            match self.available.get(&code) {
                Some(data) if !data.is_empty() => options.set(code, data),
                _ => options.set(code, &part(eighths).to_be_bytes()),
            }
        }
    }

    /// Everything else, with the fields for booting.
    pub(super) fn add_requested(&self, reply: &mut Message) {
        let boot = self.fill_boot_fields(reply);
        let mtu_matters = self.config.mtu < 1_500;
        let always = [code::SUBNET_MASK].into_iter().chain(
            mtu_matters
                .then_some(code::INTERFACE_MTU)
                .filter(|mtu| self.requested.is_some_and(|r| !r.contains(mtu))),
        );
        let requested = self.requested.unwrap_or(&UNASKED).iter().copied();
        let extras = extras(self.config).map(|(code, _)| code);
        let only_lease = [code::RENEWAL_TIME, code::REBINDING_TIME];
        for code in always.chain(requested).chain(extras) {
            let skipped = only_lease.contains(&code) || boot.contains(&Some(code));
            // RFC 8925 §3.3: never unless it is asked for.
            let unasked = code == code::IPV6_ONLY_PREFERRED && !self.asks_for(code);
            match self.available.get(&code) {
                Some(data) if !data.is_empty() && !skipped && !unasked => {
                    reply.options.set(code, data);
                }
                _ => {}
            }
        }
    }

    fn asks_for(&self, code: u8) -> bool {
        self.requested.is_some_and(|list| list.contains(&code))
    }

    /// Fills `siaddr`, and `file` and `sname` for firmware that does not ask for the options; gives the
    /// options that are thereby done.
    fn fill_boot_fields(&self, reply: &mut Message) -> [Option<u8>; 2] {
        let extra = &self.config.extra_dhcp_opts;
        if let Some(addr) = extra.iter().find_map(|option| option.next_server()) {
            reply.siaddr = addr;
        }
        let text = |code| {
            let unasked = !self.asks_for(code);
            self.available
                .get(&code)
                .filter(|d| unasked && !d.is_empty())
        };
        let file = text(code::BOOTFILE_NAME).is_some_and(|name| fill(&mut reply.file, name));
        let sname = text(code::TFTP_SERVER).is_some_and(|name| fill(&mut reply.sname, name));
        [
            file.then_some(code::BOOTFILE_NAME),
            sname.then_some(code::TFTP_SERVER),
        ]
    }
}

/// Writes a text with a zero behind it, if there is room.
fn fill(field: &mut [u8], text: &[u8]) -> bool {
    let fits = text.len() < field.len();
    if fits {
        for (to, from) in field.iter_mut().zip(text) {
            *to = *from;
        }
    }
    fits
}

fn extras(config: &PortConfig) -> impl Iterator<Item = (u8, &[u8])> {
    config
        .extra_dhcp_opts
        .iter()
        .filter(|option| option.family() == Family::V4)
        .filter_map(|option| Some((u8::try_from(option.code()).ok()?, option.data())))
        .filter(|(code, _)| *code != code::END)
}

fn available(config: &PortConfig, subnet: &Ipv4Subnet) -> BTreeMap<u8, Vec<u8>> {
    let octets = |addr: IpAddr| match addr {
        IpAddr::V4(addr) => addr.octets().to_vec(),
        IpAddr::V6(_) => Vec::new(),
    };
    let ntp = config
        .ntp_servers
        .iter()
        .copied()
        .flat_map(octets)
        .collect();
    let mut search = Vec::new();
    for domain in config.search_list() {
        domain.encode(&mut search);
    }
    let dns = subnet.dns_servers.iter().flat_map(Ipv4Addr::octets);
    let text = |name: Option<&crate::DomainName>| {
        name.map_or_else(Vec::new, |name| name.as_str().as_bytes().to_vec())
    };
    let routes = routes(subnet);
    BTreeMap::from([
        (code::SUBNET_MASK, octets(subnet.prefix.netmask())),
        (
            code::ROUTER,
            subnet
                .gateway
                .map_or_else(Vec::new, |gw| gw.octets().to_vec()),
        ),
        (code::DNS_SERVER, dns.collect()),
        (code::HOST_NAME, text(config.hostname.as_ref())),
        (code::DOMAIN_NAME, text(config.dns_domain.as_ref())),
        (code::INTERFACE_MTU, config.mtu.to_be_bytes().to_vec()),
        (code::BROADCAST_ADDRESS, broadcast(subnet)),
        (code::NTP_SERVER, ntp),
        (
            code::IPV6_ONLY_PREFERRED,
            config
                .ipv6_only_wait_secs
                .map_or_else(Vec::new, |secs| secs.to_be_bytes().to_vec()),
        ),
        (code::DOMAIN_SEARCH, search),
        (code::CLASSLESS_STATIC_ROUTE, routes.clone()),
        (code::MS_CLASSLESS_STATIC_ROUTE, routes),
    ])
}

/// There is none in prefixes of 31 and 32 bits (RFC 3021).
fn broadcast(subnet: &Ipv4Subnet) -> Vec<u8> {
    match subnet.prefix.last() {
        IpAddr::V4(last) if subnet.prefix.len() < 31 => last.octets().to_vec(),
        _ => Vec::new(),
    }
}

/// Option 121, empty where option 3 says all: a router outside the subnet is first made reachable, and
/// the default route is repeated, because a client that takes this ignores option 3 (RFC 3442).
fn routes(subnet: &Ipv4Subnet) -> Vec<u8> {
    let direct = |hop: &Ipv4Addr| hop.is_unspecified() || subnet.prefix.contains((*hop).into());
    let has_default = subnet
        .host_routes
        .iter()
        .any(|r| r.destination.is_default());
    let default = subnet
        .gateway
        .filter(|_| !has_default)
        .map(|nexthop| HostRoute {
            destination: Prefix::default_route(Family::V4),
            nexthop,
        });
    if subnet.host_routes.is_empty() && subnet.gateway.as_ref().is_none_or(direct) {
        return Vec::new();
    }
    let mut out = Vec::new();
    let mut reachable: Vec<Ipv4Addr> = Vec::new();
    for route in subnet.host_routes.iter().chain(&default) {
        let hop = route.nexthop;
        if !direct(&hop) && !reachable.contains(&hop) {
            reachable.push(hop);
            encode_route(Prefix::host(hop.into()), Ipv4Addr::UNSPECIFIED, &mut out);
        }
        encode_route(route.destination, hop, &mut out);
    }
    out
}
