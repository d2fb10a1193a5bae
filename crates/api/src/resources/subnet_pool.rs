//! Subnet pools.

use super::{ID, PROJECT, TENANT};
use crate::describe::{Access, Attribute, Default, Kind, Operations, Quota, Resource};

/// `/v2.0/subnetpools`.
pub const SUBNET_POOL: Resource = Resource {
    name: "subnetpool",
    collection: "subnetpools",
    path: "subnetpools",
    summary: "Prefixes out of which subnets get theirs.",
    standard: &[
        ID,
        Attribute::optional("name", Kind::Name(255), Default::Required),
        PROJECT,
        TENANT,
        Attribute::optional("description", Kind::Text(255), Default::Text("")),
        Attribute::optional("tags", Kind::Tags, Default::EmptyList).fixed(),
        Attribute::shown("revision_number", Kind::Int(0, i64::MAX)),
        Attribute::shown("created_at", Kind::Moment),
        Attribute::shown("updated_at", Kind::Moment),
    ],
    attributes: &[
        Attribute::optional("prefixes", Kind::Prefixes, Default::Required),
        Attribute::shown("ip_version", Kind::Int(4, 6)),
        Attribute::optional("min_prefixlen", Kind::Length, Default::Chosen),
        Attribute::optional("max_prefixlen", Kind::Length, Default::Chosen),
        Attribute::optional("default_prefixlen", Kind::Length, Default::Chosen),
        Attribute::optional("default_quota", Kind::Int(0, i64::MAX), Default::Chosen),
        Attribute::optional("is_default", Kind::Bool, Default::Bool(false)).set_by(Access::Admin),
        Attribute::optional("shared", Kind::Bool, Default::Bool(false))
            .set_by(Access::Admin)
            .fixed(),
        Attribute::optional("address_scope_id", Kind::Uuid, Default::Null),
    ],
    operations: Operations::OWNER,
    tagged: true,
    quota: Some(Quota {
        name: "subnetpool",
        default: -1,
    }),
    not_found: ("SubnetPoolNotFound", "Subnet pool ", " could not be found."),
    aliases: &[
        "subnet_allocation",
        "default-subnetpools",
        "subnetpool-prefix-ops",
        "subnet_onboard",
    ],
};
