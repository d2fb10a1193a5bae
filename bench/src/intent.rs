//! Resources as a server would tell them, for benches that have none.

use anyhow::{Context, Result};
use hextet_model::{intent::Group, neutron::SecurityGroupRule};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use uuid::Uuid;

/// Out: everything. In: what comes from the group itself.
///
/// # Errors
///
/// It is not described as a group is.
pub fn default_group(id: Uuid) -> Result<Group> {
    let rules = [
        ("egress", "IPv4", Value::Null),
        ("egress", "IPv6", Value::Null),
        ("ingress", "IPv4", json!(id)),
        ("ingress", "IPv6", json!(id)),
    ];
    let mut group = Group {
        group: resource(json!({"id": id, "stateful": true}))?,
        rules: [].into(),
        addresses: [].into(),
    };
    for (n, (direction, ethertype, remote)) in (0x100..).zip(rules) {
        let rule: SecurityGroupRule = resource(json!({
            "id": Uuid::from_u128(n), "security_group_id": id, "direction": direction,
            "ethertype": ethertype, "protocol": null, "port_range_min": null,
            "port_range_max": null, "remote_ip_prefix": null, "remote_group_id": remote,
        }))?;
        group.rules.insert(rule.id, rule);
    }
    Ok(group)
}

/// A resource as its description says, with what all resources carry.
///
/// # Errors
///
/// Something is missing, or is not what it should be.
pub fn resource<T: DeserializeOwned>(mut described: Value) -> Result<T> {
    let standard = [
        ("project_id", json!("bench")),
        ("revision_number", json!(0)),
        ("created_at", json!("2026-01-01T00:00:00Z")),
        ("updated_at", json!("2026-01-01T00:00:00Z")),
    ];
    for (name, value) in standard {
        described[name] = value;
    }
    serde_json::from_value(described).context("describe a resource")
}
