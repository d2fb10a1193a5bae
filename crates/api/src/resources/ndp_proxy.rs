//! NDP proxies.

use super::{ID, PROJECT, TENANT};
use crate::describe::{Attribute, Default, Kind, Operations, Resource};

/// `/v2.0/ndp_proxies`.
pub const NDP_PROXY: Resource = Resource {
    name: "ndp_proxy",
    collection: "ndp_proxies",
    path: "ndp_proxies",
    summary: "One IPv6 address of a port that is reachable from outside by way of its router.",
    standard: &[
        ID,
        Attribute::optional("name", Kind::Name(255), Default::Text("")),
        PROJECT,
        TENANT,
        Attribute::optional("description", Kind::Text(255), Default::Text("")),
        Attribute::shown("revision_number", Kind::Int(0, i64::MAX)),
        Attribute::shown("created_at", Kind::Moment),
        Attribute::shown("updated_at", Kind::Moment),
    ],
    attributes: &[
        Attribute::required("router_id", Kind::Uuid),
        Attribute::required("port_id", Kind::Uuid),
        Attribute::optional("ip_address", Kind::Ip, Default::Null).fixed(),
    ],
    operations: Operations::OWNER,
    tagged: false,
    quota: None,
    not_found: ("NDPProxyNotFound", "Ndp proxy ", " could not be found."),
    aliases: &["l3-ndp-proxy"],
};
