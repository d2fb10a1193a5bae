//! RBAC policies.

use super::{ID, PROJECT, TENANT};
use crate::describe::{Attribute, Default, Kind, Operations, Quota, Resource};

/// `/v2.0/rbac-policies`.
pub const RBAC_POLICY: Resource = Resource {
    name: "rbac_policy",
    collection: "rbac_policies",
    path: "rbac-policies",
    summary: "Who else may see and use a network, a security group, a pool, a scope or a QoS policy.",
    standard: &[ID, PROJECT, TENANT],
    attributes: &[
        Attribute::required("object_type", Kind::Text(64)),
        Attribute::required("object_id", Kind::Uuid),
        Attribute::required("action", Kind::Text(255)),
        // Two names of one attribute: a request has to bring one of them.
        Attribute::optional("target_tenant", Kind::Text(255), Default::Chosen),
        Attribute::optional("target_project", Kind::Text(255), Default::Chosen),
    ],
    operations: Operations::OWNER,
    tagged: false,
    quota: Some(Quota {
        name: "rbac_policy",
        default: 10,
    }),
    not_found: (
        "RbacPolicyNotFound",
        "RBAC policy of type unknown with ID ",
        " not found",
    ),
    aliases: &[
        "rbac-policies",
        "rbac-subnetpool",
        "rbac-address-scope",
        "rbac-security-groups",
    ],
};
