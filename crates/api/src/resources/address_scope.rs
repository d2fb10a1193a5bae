//! Address scopes.

use super::{ID, PROJECT, TENANT};
use crate::describe::{Access, Attribute, Default, Kind, Operations, Resource};

/// `/v2.0/address-scopes`.
pub const ADDRESS_SCOPE: Resource = Resource {
    name: "address_scope",
    collection: "address_scopes",
    path: "address-scopes",
    summary: "Where prefixes mean the same to everybody: pools in one scope never overlap.",
    standard: &[
        ID,
        Attribute::optional("name", Kind::Name(255), Default::Text("")),
        PROJECT,
        TENANT,
    ],
    attributes: &[
        Attribute::required("ip_version", Kind::Int(4, 6)),
        Attribute::optional("shared", Kind::Bool, Default::Bool(false)).set_by(Access::Admin),
    ],
    operations: Operations::OWNER,
    tagged: false,
    quota: None,
    not_found: (
        "AddressScopeNotFound",
        "Address scope ",
        " could not be found.",
    ),
    aliases: &["address-scope"],
};
