//! What the metadata service tells a port's workload.

use std::net::IpAddr;

use base64::{Engine as _, prelude::BASE64_STANDARD};
use hextet_autoconf::config::Ipv6Mode as Mode;
use hextet_metadata::{
    Facts,
    document::{Address, Link, Source},
};
use hextet_types::Family;

use super::{mode, subnets};
use crate::{
    neutron::{Network, Port, PortMetadata, Subnet},
    plan::{physical, unit::View},
};

/// The one availability zone that there is.
const ZONE: &str = "nova";

/// A port's; the instance is named by `device_id`, or else by the port.
pub fn facts(view: View<'_>, port: &Port, network: &Network) -> Facts {
    let told = port.metadata.as_deref().cloned().unwrap_or_default();
    let instance_id = match port.device_id.as_str() {
        "" => port.id.to_string(),
        device => device.to_owned(),
    };
    let user_data = told.user_data.as_ref();
    Facts {
        instance_id,
        project_id: port.standard.project_id.to_string(),
        hostname: hostname(&told, port, network),
        user_data: user_data.and_then(|text| BASE64_STANDARD.decode(text).ok()),
        public_keys: told.public_keys,
        meta: told.meta,
        availability_zone: ZONE.to_owned(),
        link: link(view, port, network),
        by_nova: view.intent.nova_metadata && port.server().is_some(),
    }
}

/// As it is given, or the port's name in DNS, or one that follows from an address, IPv4 first.
fn hostname(told: &PortMetadata, port: &Port, network: &Network) -> String {
    let domain = network.dns_domain.trim_end_matches('.');
    let name = match (told.hostname.as_str(), port.dns_name.as_str()) {
        ("", "") => {
            let mut addresses = Family::BOTH.into_iter().flat_map(|f| port.addresses(f));
            match addresses.next() {
                Some(address) => format!("host-{}", address.to_string().replace(['.', ':'], "-")),
                None => format!("host-{}", port.id),
            }
        }
        ("", name) => name.to_owned(),
        (name, _) => return name.to_owned(),
    };
    match domain {
        "" => name,
        domain => format!("{name}.{domain}"),
    }
}

fn link(view: View<'_>, port: &Port, network: &Network) -> Link {
    let mut dns_servers: Vec<IpAddr> = Vec::new();
    for (_, subnet) in subnets(view, port) {
        let new = subnet.dns_nameservers.iter();
        let new: Vec<IpAddr> = new.filter(|s| !dns_servers.contains(s)).copied().collect();
        dns_servers.extend(new);
    }
    let upstream = physical::upstream(view, port.network_id);
    Link {
        port_id: port.id.to_string(),
        name: port.if_name().to_string(),
        mac: port.mac_address,
        mtu: network.mtu,
        network_id: network.id.to_string(),
        addresses: subnets(view, port)
            .map(|(addr, subnet)| address(addr, subnet, mode(subnet, upstream)))
            .collect(),
        dns_servers,
    }
}

fn address(address: IpAddr, subnet: &Subnet, mode: Mode) -> Address {
    let source = match (subnet.family(), mode) {
        (Family::V4, _) if subnet.enable_dhcp => Source::Dhcp,
        (Family::V4, _) | (Family::V6, Mode::None) => Source::Static,
        (Family::V6, Mode::Slaac) => Source::Slaac,
        (Family::V6, Mode::Dhcpv6Stateless) => Source::Dhcpv6Stateless,
        (Family::V6, Mode::Dhcpv6Stateful) => Source::Dhcp,
    };
    let routes = subnet
        .host_routes
        .iter()
        .map(|r| (r.destination, r.nexthop));
    Address {
        address,
        subnet: subnet.cidr,
        source,
        gateway: subnet.gateway_ip,
        routes: routes.collect(),
    }
}
