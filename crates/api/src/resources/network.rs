//! Networks.

use super::STANDARD;
use crate::describe::{Access, Attribute, Default, Kind, Operations, Quota, Resource};

/// `/v2.0/networks`.
pub const NETWORK: Resource = Resource {
    name: "network",
    collection: "networks",
    path: "networks",
    summary: "A network: what its subnets and ports have in common.",
    standard: STANDARD,
    attributes: &[
        Attribute::optional("admin_state_up", Kind::Bool, Default::Bool(true)),
        Attribute::shown("status", Kind::Text(16)),
        Attribute::optional("shared", Kind::Bool, Default::Bool(false)).set_by(Access::Admin),
        Attribute::optional("router:external", Kind::Bool, Default::Bool(false))
            .set_by(Access::Admin),
        Attribute::optional("is_default", Kind::Bool, Default::Bool(false)).set_by(Access::Admin),
        Attribute::shown("subnets", Kind::List),
        Attribute::optional("mtu", Kind::Int(68, 65535), Default::Chosen),
        Attribute::optional("port_security_enabled", Kind::Bool, Default::Bool(true)),
        Attribute::optional(
            "provider:network_type",
            Kind::Choice(&["routed", "flat", "vxlan"]),
            Default::Null,
        )
        .set_by(Access::Admin)
        .fixed()
        .read_by(Access::Admin),
        Attribute::optional("provider:physical_network", Kind::Text(64), Default::Null)
            .set_by(Access::Admin)
            .fixed()
            .read_by(Access::Admin),
        Attribute::optional(
            "provider:segmentation_id",
            Kind::Int(1, 16_777_215),
            Default::Null,
        )
        .set_by(Access::Admin)
        .fixed()
        .read_by(Access::Admin),
        Attribute::optional("dns_domain", Kind::Domain(255), Default::Text("")),
        Attribute::optional("hextet:single_homed", Kind::Bool, Default::Bool(false))
            .set_by(Access::Admin),
        Attribute::optional("qos_policy_id", Kind::Uuid, Default::Chosen).or_null(),
        Attribute::optional("availability_zone_hints", Kind::Texts, Default::EmptyList).fixed(),
        Attribute::shown("availability_zones", Kind::List),
        Attribute::shown("ipv4_address_scope", Kind::Uuid),
        Attribute::shown("ipv6_address_scope", Kind::Uuid),
        Attribute::shown("l2_adjacency", Kind::Bool),
    ],
    operations: Operations::OWNER,
    tagged: true,
    quota: Some(Quota {
        name: "network",
        default: 100,
    }),
    not_found: ("NetworkNotFound", "Network ", " could not be found."),
    aliases: &[
        "external-net",
        "provider",
        "net-mtu",
        "net-mtu-writable",
        "l2_adjacency",
        "network_availability_zone",
        "hextet",
    ],
};
