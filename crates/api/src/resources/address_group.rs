//! Address groups.

use super::{ID, PROJECT, TENANT};
use crate::describe::{Attribute, Default, Kind, Operations, Quota, Resource};

/// `/v2.0/address-groups`.
pub const ADDRESS_GROUP: Resource = Resource {
    name: "address_group",
    collection: "address_groups",
    path: "address-groups",
    summary: "Prefixes that rules of security groups name together.",
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
        Attribute::optional("addresses", Kind::Prefixes, Default::EmptyList)
            .or_null()
            .fixed(),
    ],
    operations: Operations::OWNER,
    tagged: false,
    quota: Some(Quota {
        name: "address_group",
        default: 100,
    }),
    not_found: (
        "AddressGroupNotFound",
        "Address group ",
        " could not be found.",
    ),
    aliases: &["address-group", "rbac-address-group"],
};
