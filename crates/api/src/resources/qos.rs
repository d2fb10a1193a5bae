//! QoS policies and their rules.

use super::{ID, STANDARD};
use crate::describe::{Access, Attribute, Default, Kind, Operations, Quota, Resource};

/// As Neutron has it: policies are an administrator's, who shares them.
const ADMIN: Operations = Operations {
    read: Access::Anyone,
    create: Access::Admin,
    update: Access::Admin,
    delete: Access::Admin,
};
const NUMBER: Kind = Kind::Int(0, 2_147_483_647);
const DIRECTION: Attribute = Attribute::optional(
    "direction",
    Kind::Choice(&["egress", "ingress"]),
    Default::Text("egress"),
);
const NO_RULE: (&str, &str, &str) = ("QosRuleNotFound", "QoS rule ", " could not be found.");

/// Has to be said, and can be changed.
const fn needed(name: &'static str, kind: Kind) -> Attribute {
    let mut attribute = Attribute::required(name, kind);
    attribute.put = Access::Owner;
    attribute
}

const fn burst(name: &'static str) -> Attribute {
    Attribute::optional(name, NUMBER, Default::Int(0))
}

/// `/v2.0/qos/policies`.
pub const QOS_POLICY: Resource = Resource {
    name: "policy",
    collection: "policies",
    path: "qos/policies",
    summary: "How much may be sent and received, and how it is marked.",
    standard: STANDARD,
    attributes: &[
        Attribute::optional("shared", Kind::Bool, Default::Bool(false)).set_by(Access::Admin),
        Attribute::optional("is_default", Kind::Bool, Default::Bool(false)),
        Attribute::shown("rules", Kind::List),
    ],
    operations: ADMIN,
    tagged: true,
    quota: Some(Quota {
        name: "qos_policy",
        default: 100,
    }),
    not_found: ("QosPolicyNotFound", "QoS policy ", " could not be found."),
    aliases: &[
        "qos",
        "qos-bw-limit-direction",
        "qos-default",
        "qos-pps",
        "qos-rules-alias",
    ],
};

/// `/v2.0/qos/policies/POLICY/bandwidth_limit_rules`.
pub const BANDWIDTH_LIMIT_RULE: Resource = Resource {
    name: "bandwidth_limit_rule",
    collection: "bandwidth_limit_rules",
    path: "qos/policies/{policy_id}/bandwidth_limit_rules",
    summary: "So many kilobits a second at most.",
    standard: &[ID],
    attributes: &[
        needed("max_kbps", NUMBER),
        burst("max_burst_kbps"),
        DIRECTION,
    ],
    operations: ADMIN,
    tagged: false,
    quota: None,
    not_found: NO_RULE,
    aliases: &["qos"],
};

/// `/v2.0/qos/policies/POLICY/packet_rate_limit_rules`.
pub const PACKET_RATE_LIMIT_RULE: Resource = Resource {
    name: "packet_rate_limit_rule",
    collection: "packet_rate_limit_rules",
    path: "qos/policies/{policy_id}/packet_rate_limit_rules",
    summary: "So many thousand packets a second at most.",
    attributes: &[
        needed("max_kpps", NUMBER),
        burst("max_burst_kpps"),
        DIRECTION,
    ],
    aliases: &["qos-pps"],
    ..BANDWIDTH_LIMIT_RULE
};

/// `/v2.0/qos/policies/POLICY/dscp_marking_rules`.
pub const DSCP_MARKING_RULE: Resource = Resource {
    name: "dscp_marking_rule",
    collection: "dscp_marking_rules",
    path: "qos/policies/{policy_id}/dscp_marking_rules",
    summary: "The code point of what is sent.",
    attributes: &[needed("dscp_mark", Kind::Int(0, 56))],
    ..BANDWIDTH_LIMIT_RULE
};

const NOT_MADE: Operations = Operations {
    create: Access::Nobody,
    ..ADMIN
};

/// `/v2.0/qos/alias_bandwidth_limit_rules`: a rule without its policy's identifier.
pub const ALIAS_BANDWIDTH_LIMIT_RULE: Resource = Resource {
    name: "alias_bandwidth_limit_rule",
    collection: "alias_bandwidth_limit_rules",
    path: "qos/alias_bandwidth_limit_rules",
    operations: NOT_MADE,
    aliases: &["qos-rules-alias"],
    ..BANDWIDTH_LIMIT_RULE
};

/// `/v2.0/qos/alias_dscp_marking_rules`: a rule without its policy's identifier.
pub const ALIAS_DSCP_MARKING_RULE: Resource = Resource {
    name: "alias_dscp_marking_rule",
    collection: "alias_dscp_marking_rules",
    path: "qos/alias_dscp_marking_rules",
    operations: NOT_MADE,
    aliases: &["qos-rules-alias"],
    ..DSCP_MARKING_RULE
};

/// `/v2.0/qos/rule-types`.
pub const QOS_RULE_TYPE: Resource = Resource {
    name: "rule_type",
    collection: "rule_types",
    path: "qos/rule-types",
    summary: "The types of rules that are served.",
    standard: &[],
    attributes: &[
        Attribute::shown("type", Kind::Text(64)),
        Attribute::shown("drivers", Kind::List).read_by(Access::Admin),
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
        "QosRuleTypeNotFound",
        "QoS rule type ",
        " could not be found.",
    ),
    aliases: &["qos-rule-type-details", "qos-rule-type-filter"],
};
