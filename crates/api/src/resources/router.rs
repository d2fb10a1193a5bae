//! Routers.

use super::STANDARD;
use crate::describe::{Access, Attribute, Default, Kind, Operations, Quota, Resource};

/// `/v2.0/routers`.
pub const ROUTER: Resource = Resource {
    name: "router",
    collection: "routers",
    path: "routers",
    summary: "Forwards between networks, and to external ones.",
    standard: STANDARD,
    attributes: &[
        Attribute::optional("admin_state_up", Kind::Bool, Default::Bool(true)),
        Attribute::shown("status", Kind::Text(16)),
        Attribute::optional("external_gateway_info", Kind::Gateway, Default::Null),
        Attribute::shown("external_gateways", Kind::List),
        Attribute {
            put: Access::Owner,
            ..Attribute::shown("routes", Kind::HostRoutes)
        },
        Attribute::optional("enable_ndp_proxy", Kind::Bool, Default::Bool(false)),
        Attribute::optional(
            "enable_default_route_ecmp",
            Kind::Bool,
            Default::Bool(false),
        )
        .set_by(Access::Admin),
        Attribute::optional("enable_default_route_bfd", Kind::Bool, Default::Bool(false))
            .set_by(Access::Admin),
        Attribute::optional("availability_zone_hints", Kind::Texts, Default::EmptyList).fixed(),
        Attribute::shown("availability_zones", Kind::List),
        // Where it translates. Set to null, the server chooses anew.
        Attribute {
            put: Access::Admin,
            ..Attribute::shown("hextet:gateway_host", Kind::Text(253))
                .or_null()
                .read_by(Access::Admin)
        },
    ],
    operations: Operations::OWNER,
    tagged: true,
    quota: Some(Quota {
        name: "router",
        default: 10,
    }),
    not_found: ("RouterNotFound", "Router ", " could not be found"),
    aliases: &[
        "router",
        "ext-gw-mode",
        "router-enable-snat",
        "external-gateway-multihoming",
        "enable-default-route-ecmp",
        "enable-default-route-bfd",
        "extraroute",
        "extraroute-atomic",
        "ecmp_routes",
        "router_availability_zone",
        "l3-ext-ndp-proxy",
        "qos-gateway-ip",
        "hextet",
    ],
};
