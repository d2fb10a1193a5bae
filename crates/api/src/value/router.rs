//! What routers and floating IPs are asked for with.

use hextet_model::neutron::PortRange;
use serde_json::{Map, Value, json};

use super::{Checked, boolean, fixed_ip, keyed, list, part, reason, shown, uuid, whole};

/// A place on an external network. Whether it translates is kept only where it is said.
pub(super) fn gateway(value: Value) -> Checked {
    if value.as_object().is_some_and(Map::is_empty) {
        return Ok(Value::Null);
    }
    let keys = [
        ("network_id", true),
        ("enable_snat", false),
        ("external_fixed_ips", false),
        ("qos_policy_id", false),
    ];
    let map = keyed(value, "external gateway", &keys)?;
    let mut out = Map::new();
    out.insert("network_id".into(), uuid(part(&map, "network_id"))?);
    if let Some(snat) = map.get("enable_snat").filter(|v| !v.is_null()) {
        out.insert("enable_snat".into(), boolean(snat)?);
    }
    if let Some(fixed) = map.get("external_fixed_ips").filter(|v| !v.is_null()) {
        let fixed = list(fixed.clone(), "fixed IP", fixed_ip)?;
        out.insert("external_fixed_ips".into(), fixed);
    }
    match map.get("qos_policy_id") {
        None => {}
        Some(Value::Null) => drop(out.insert("qos_policy_id".into(), Value::Null)),
        Some(id) => drop(out.insert("qos_policy_id".into(), uuid(id)?)),
    }
    Ok(Value::Object(out))
}

pub(super) fn port_range(value: &Value) -> Checked {
    let text = match (whole(value), value) {
        (Some(number), _) => number.to_string(),
        (None, Value::String(text)) => text.trim().to_owned(),
        _ => {
            return Err(reason(format!(
                "'{}' is not a valid port range",
                shown(value)
            )));
        }
    };
    let range: Result<PortRange, _> = text.parse();
    range.map(|r| json!(r)).map_err(|e| reason(e.to_string()))
}
