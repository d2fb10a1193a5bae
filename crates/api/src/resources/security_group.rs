//! Security groups and their rules.

use super::{ID, PROJECT, TENANT, standard};
use crate::describe::{Access, Attribute, Default, Kind, Operations, Quota, Resource};

/// `/v2.0/security-groups`.
pub const SECURITY_GROUP: Resource = Resource {
    name: "security_group",
    collection: "security_groups",
    path: "security-groups",
    summary: "A list of rules that ports share.",
    // In Neutron a group's name alone may begin or end with a space.
    standard: &standard(Kind::Text(255)),
    attributes: &[
        Attribute::optional("stateful", Kind::Bool, Default::Bool(true)),
        Attribute::shown("shared", Kind::Bool),
        Attribute::shown("security_group_rules", Kind::List),
    ],
    operations: Operations::OWNER,
    tagged: true,
    quota: Some(Quota {
        name: "security_group",
        default: 10,
    }),
    not_found: (
        "SecurityGroupNotFound",
        "Security group ",
        " does not exist",
    ),
    aliases: &[
        "security-group",
        "stateful-security-group",
        "security-groups-shared-filtering",
    ],
};

/// `/v2.0/security-group-rules`.
pub const SECURITY_GROUP_RULE: Resource = Resource {
    name: "security_group_rule",
    collection: "security_group_rules",
    path: "security-group-rules",
    summary: "What a security group allows; everything else is dropped.",
    standard: &[
        ID,
        PROJECT,
        TENANT,
        Attribute::optional("description", Kind::Text(255), Default::Text("")).fixed(),
        Attribute::shown("revision_number", Kind::Int(0, i64::MAX)),
        Attribute::shown("created_at", Kind::Moment),
        Attribute::shown("updated_at", Kind::Moment),
    ],
    attributes: &[
        Attribute::required("security_group_id", Kind::Uuid),
        Attribute::required("direction", Kind::Choice(&["ingress", "egress"])),
        Attribute::optional("ethertype", Kind::Ethertype, Default::Text("IPv4")).fixed(),
        Attribute::optional("protocol", Kind::Protocol, Default::Null).fixed(),
        Attribute::optional("port_range_min", Kind::PortNumber, Default::Null).fixed(),
        Attribute::optional("port_range_max", Kind::PortNumber, Default::Null).fixed(),
        Attribute::optional("remote_ip_prefix", Kind::WrittenPrefix, Default::Null).fixed(),
        Attribute::optional("remote_group_id", Kind::Uuid, Default::Null).fixed(),
        Attribute::optional("remote_address_group_id", Kind::Uuid, Default::Null).fixed(),
        Attribute::shown("normalized_cidr", Kind::Cidr),
        Attribute::shown("belongs_to_default_sg", Kind::Bool),
    ],
    operations: Operations {
        update: Access::Nobody,
        ..Operations::OWNER
    },
    tagged: false,
    quota: Some(Quota {
        name: "security_group_rule",
        default: 100,
    }),
    not_found: (
        "SecurityGroupRuleNotFound",
        "Security group rule ",
        " does not exist",
    ),
    aliases: &[
        "security-groups-normalized-cidr",
        "security-groups-remote-address-group",
        "security-groups-rules-belongs-to-default-sg",
    ],
};
