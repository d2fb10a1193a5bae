//! Subnets.

use super::STANDARD;
use crate::describe::{Access, Attribute, Default, Kind, Operations, Quota, Resource};

const IPV6_MODES: Kind = Kind::Choice(&["dhcpv6-stateful", "dhcpv6-stateless", "slaac"]);

/// `/v2.0/subnets`.
pub const SUBNET: Resource = Resource {
    name: "subnet",
    collection: "subnets",
    path: "subnets",
    summary: "A prefix of a network, from which its ports get addresses.",
    standard: STANDARD,
    attributes: &[
        Attribute::required("network_id", Kind::Uuid),
        Attribute::required("ip_version", Kind::Int(4, 6)),
        Attribute::optional("cidr", Kind::Cidr, Default::Chosen).fixed(),
        Attribute::optional("gateway_ip", Kind::Ip, Default::Chosen).or_null(),
        Attribute::optional("allocation_pools", Kind::Pools, Default::Chosen),
        Attribute::optional("enable_dhcp", Kind::Bool, Default::Bool(true)),
        Attribute::optional("dns_nameservers", Kind::Addresses, Default::EmptyList),
        Attribute::optional("host_routes", Kind::HostRoutes, Default::EmptyList),
        Attribute::optional("ipv6_ra_mode", IPV6_MODES, Default::Null).fixed(),
        Attribute::optional("ipv6_address_mode", IPV6_MODES, Default::Null).fixed(),
        Attribute::optional("subnetpool_id", Kind::Uuid, Default::Null).fixed(),
        Attribute::optional("prefixlen", Kind::Int(0, i64::MAX), Default::Chosen)
            .fixed()
            .read_by(Access::Nobody)
            .unlisted(),
        Attribute::optional("use_default_subnetpool", Kind::Bool, Default::Bool(false))
            .fixed()
            .read_by(Access::Nobody)
            .unlisted(),
        Attribute::optional("service_types", Kind::ServiceTypes, Default::EmptyList),
        Attribute::optional("hextet:nat44", Kind::Nat44, Default::Null).set_by(Access::Admin),
        Attribute::optional("hextet:delegation", Kind::Delegation, Default::Null).fixed(),
        Attribute::shown("router:external", Kind::Bool),
    ],
    operations: Operations::OWNER,
    tagged: true,
    quota: Some(Quota {
        name: "subnet",
        default: 100,
    }),
    not_found: ("SubnetNotFound", "Subnet ", " could not be found."),
    aliases: &["subnet-external-network", "subnet-service-types", "hextet"],
};
