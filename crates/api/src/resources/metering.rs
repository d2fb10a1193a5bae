//! Metering labels and their rules.

use super::{ID, PROJECT, TENANT};
use crate::describe::{Access, Attribute, Default, Kind, Operations, Quota, Resource};

/// `/v2.0/metering/metering-label-sums`: hextet's own.
pub const METERING_LABEL_SUM: Resource = Resource {
    name: "metering_label_sum",
    collection: "metering_label_sums",
    path: "metering/metering-label-sums",
    summary: "What a metering label has counted at a router on a host; it never goes down.",
    standard: &[],
    attributes: &[
        Attribute::shown("metering_label_id", Kind::Uuid),
        Attribute::shown("metering_label_name", Kind::Text(255)),
        Attribute::shown("router_id", Kind::Uuid),
        Attribute::shown("host", Kind::Text(253)).read_by(Access::Admin),
        Attribute::shown("direction", Kind::Choice(&["ingress", "egress"])),
        Attribute::shown("packets", Kind::Int(0, i64::MAX)),
        Attribute::shown("octets", Kind::Int(0, i64::MAX)),
        Attribute::shown("updated_at", Kind::Moment),
    ],
    operations: Operations {
        read: Access::Anyone,
        create: Access::Nobody,
        update: Access::Nobody,
        delete: Access::Nobody,
    },
    tagged: false,
    quota: None,
    not_found: (
        "MeteringLabelNotFound",
        "Metering label '",
        "' does not exist.",
    ),
    aliases: &["hextet"],
};

/// As Neutron has it: an administrator's, and a project sees its own.
const ADMIN: Operations = Operations {
    read: Access::Anyone,
    create: Access::Admin,
    update: Access::Nobody,
    delete: Access::Admin,
};

const fn prefix(name: &'static str) -> Attribute {
    Attribute::optional(name, Kind::WrittenPrefix, Default::Null).fixed()
}

/// `/v2.0/metering/metering-labels`.
pub const METERING_LABEL: Resource = Resource {
    name: "metering_label",
    collection: "metering_labels",
    path: "metering/metering-labels",
    summary: "Counts what passes between routers and the outside.",
    standard: &[
        ID,
        Attribute::optional("name", Kind::Name(255), Default::Text("")).fixed(),
        PROJECT,
        TENANT,
        Attribute::optional("description", Kind::Text(1024), Default::Text("")).fixed(),
    ],
    attributes: &[Attribute::optional("shared", Kind::Bool, Default::Bool(false)).fixed()],
    operations: ADMIN,
    tagged: false,
    quota: Some(Quota {
        name: "metering_label",
        default: 100,
    }),
    not_found: (
        "MeteringLabelNotFound",
        "Metering label '",
        "' does not exist.",
    ),
    aliases: &["metering"],
};

/// `/v2.0/metering/metering-label-rules`.
pub const METERING_LABEL_RULE: Resource = Resource {
    name: "metering_label_rule",
    collection: "metering_label_rules",
    path: "metering/metering-label-rules",
    summary: "What a metering label counts, or leaves out.",
    standard: &[ID, PROJECT, TENANT],
    attributes: &[
        Attribute::required("metering_label_id", Kind::Uuid),
        Attribute::required("direction", Kind::Choice(&["ingress", "egress"])),
        Attribute::optional("excluded", Kind::Bool, Default::Bool(false)).fixed(),
        prefix("remote_ip_prefix"),
        prefix("source_ip_prefix"),
        prefix("destination_ip_prefix"),
    ],
    operations: ADMIN,
    tagged: false,
    quota: Some(Quota {
        name: "metering_label_rule",
        default: 1000,
    }),
    not_found: (
        "MeteringLabelRuleNotFound",
        "Metering label rule '",
        "' does not exist.",
    ),
    aliases: &["metering", "metering_source_and_destination_fields"],
};
