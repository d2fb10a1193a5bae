//! The resources of the networking API. Each is described here once and handled in general.

mod action;
mod address_group;
mod address_scope;
mod agent;
mod floating_ip;
mod metering;
mod ndp_proxy;
mod network;
mod port;
mod port_binding;
mod port_forwarding;
mod qos;
mod rbac;
mod router;
mod security_group;
mod subnet;
mod subnet_pool;

pub use action::ACTIONS;
pub use address_group::ADDRESS_GROUP;
pub use address_scope::ADDRESS_SCOPE;
pub use agent::{AGENT, AVAILABILITY_ZONE, NETWORK_IP_AVAILABILITY};
pub use floating_ip::FLOATING_IP;
pub use metering::{METERING_LABEL, METERING_LABEL_RULE, METERING_LABEL_SUM};
pub use ndp_proxy::NDP_PROXY;
pub use network::NETWORK;
pub use port::PORT;
pub use port_binding::PORT_BINDING;
pub use port_forwarding::PORT_FORWARDING;
pub use qos::{
    ALIAS_BANDWIDTH_LIMIT_RULE, ALIAS_DSCP_MARKING_RULE, BANDWIDTH_LIMIT_RULE, DSCP_MARKING_RULE,
    PACKET_RATE_LIMIT_RULE, QOS_POLICY, QOS_RULE_TYPE,
};
pub use rbac::RBAC_POLICY;
pub use router::ROUTER;
pub use security_group::{SECURITY_GROUP, SECURITY_GROUP_RULE};
pub use subnet::SUBNET;
pub use subnet_pool::SUBNET_POOL;

use crate::describe::{Attribute, Default, Kind, Quota, Resource};

/// All of them.
pub const ALL: &[&Resource] = &[
    &NETWORK,
    &SUBNET,
    &PORT,
    &PORT_BINDING,
    &SECURITY_GROUP,
    &SECURITY_GROUP_RULE,
    &SUBNET_POOL,
    &ADDRESS_SCOPE,
    &RBAC_POLICY,
    &ROUTER,
    &FLOATING_IP,
    &PORT_FORWARDING,
    &NDP_PROXY,
    &ADDRESS_GROUP,
    &QOS_POLICY,
    &BANDWIDTH_LIMIT_RULE,
    &DSCP_MARKING_RULE,
    &PACKET_RATE_LIMIT_RULE,
    &ALIAS_BANDWIDTH_LIMIT_RULE,
    &ALIAS_DSCP_MARKING_RULE,
    &QOS_RULE_TYPE,
    &METERING_LABEL,
    &METERING_LABEL_RULE,
    &METERING_LABEL_SUM,
    &AGENT,
    &AVAILABILITY_ZONE,
    &NETWORK_IP_AVAILABILITY,
];

/// Public IPv4 addresses that a project's ports have on shared networks: those outside of subnets
/// with NAT44. No resource of its own; what it counts is made and deleted with ports.
pub const PUBLIC_IPV4: Quota = Quota {
    name: "public_ipv4",
    default: 50,
};

/// Extra routes of one router. What is in use is counted for each router by itself.
pub const ROUTER_ROUTE: Quota = Quota {
    name: "router_route",
    default: 30,
};

/// Quotas of resources that other situations bring; they are told, so that clients find them.
const OTHER_QUOTAS: &[Quota] = &[
    ROUTER_ROUTE,
    Quota {
        name: "trunk",
        default: -1,
    },
];

/// All quotas, those of the resources first.
pub fn quotas() -> impl Iterator<Item = Quota> {
    ALL.iter()
        .filter_map(|r| r.quota)
        .chain([PUBLIC_IPV4])
        .chain(OTHER_QUOTAS.iter().copied())
}

const ID: Attribute = Attribute::shown("id", Kind::Uuid);
/// What `hextet_model::neutron::Standard` holds, and the identifier; names are of this kind.
const fn standard(name: Kind) -> [Attribute; 9] {
    [
        ID,
        Attribute::optional("name", name, Default::Text("")),
        PROJECT,
        TENANT,
        Attribute::optional("description", Kind::Text(255), Default::Text("")),
        Attribute::optional("tags", Kind::Tags, Default::EmptyList).fixed(),
        Attribute::shown("revision_number", Kind::Int(0, i64::MAX)),
        Attribute::shown("created_at", Kind::Moment),
        Attribute::shown("updated_at", Kind::Moment),
    ]
}
const STANDARD: &[Attribute] = &standard(Kind::Name(255));
const PROJECT: Attribute =
    Attribute::optional("project_id", Kind::Project, Default::Chosen).fixed();
const TENANT: Attribute = Attribute::optional("tenant_id", Kind::Project, Default::Chosen).fixed();

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::describe::Access;

    #[test]
    fn every_attribute_is_described_once_and_settable_ones_say_how() {
        for resource in ALL {
            let mut names = BTreeSet::new();
            for attribute in resource.all_attributes() {
                assert!(
                    names.insert(attribute.name),
                    "{}: {}",
                    resource.name,
                    attribute.name
                );
                if attribute.default == Default::Required {
                    assert_ne!(attribute.post, Access::Nobody, "{}", attribute.name);
                }
            }
        }
    }

    #[test]
    fn defaults_are_their_own_normal_form() {
        let caller = crate::request::Caller {
            project: hextet_types::ProjectId("p".into()),
            admin: true,
            member: true,
        };
        let net = "0c0a1f1e-8f2e-4b2a-9d5c-0a6f0a2b3c4d";
        let given = [
            (&NETWORK, serde_json::json!({})),
            (&PORT, serde_json::json!({"network_id": net})),
            (&PORT_BINDING, serde_json::json!({"host": "h1"})),
            (
                &SUBNET,
                serde_json::json!({"network_id": net, "ip_version": 4}),
            ),
            (&SECURITY_GROUP, serde_json::json!({})),
            (
                &SUBNET_POOL,
                serde_json::json!({"name": "p", "prefixes": ["10.0.0.0/8"]}),
            ),
            (&ADDRESS_SCOPE, serde_json::json!({"ip_version": 6})),
            (&ADDRESS_GROUP, serde_json::json!({})),
            (&QOS_POLICY, serde_json::json!({})),
            (&BANDWIDTH_LIMIT_RULE, serde_json::json!({"max_kbps": 1})),
            (&METERING_LABEL, serde_json::json!({})),
            (
                &METERING_LABEL_RULE,
                serde_json::json!({"metering_label_id": net, "direction": "egress"}),
            ),
            (&ROUTER, serde_json::json!({})),
            (
                &FLOATING_IP,
                serde_json::json!({"floating_network_id": net}),
            ),
            (
                &PORT_FORWARDING,
                serde_json::json!({"protocol": "tcp", "internal_port_id": net}),
            ),
            (
                &NDP_PROXY,
                serde_json::json!({"router_id": net, "port_id": net}),
            ),
        ];
        for (resource, body) in given {
            let body = serde_json::json!({resource.name: body}).to_string();
            let (inputs, _) =
                crate::request::parse_create(resource, body.as_bytes(), &caller).unwrap();
            for attribute in resource.all_attributes() {
                if let Ok(Some(value)) = inputs[0].get::<serde_json::Value>(attribute.name) {
                    assert_eq!(
                        attribute.normalize(value.clone()),
                        Ok(value),
                        "{}",
                        attribute.name
                    );
                }
            }
        }
    }

    #[test]
    fn quotas_have_names_of_their_own() {
        let names: Vec<_> = quotas().map(|q| q.name).collect();
        assert_eq!(names.iter().collect::<BTreeSet<_>>().len(), names.len());
    }
}
