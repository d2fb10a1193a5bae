//! Attributes that are hextet's own: NAT44 of a subnet and what it is delegated for, what a port's workload is told by the metadata service, and what a port has
//! of its host's own addresses.

use base64::{Engine as _, prelude::BASE64_STANDARD};
use serde_json::{Map, Value, json};

use super::{Checked, domain, integer, keyed, part, reason, shown, text, uuid};

/// Octets of user data, decoded; as many as Nova takes, encoded.
pub const MAX_USER_DATA: usize = 65_535;
/// Keys, and octets of one.
const MAX_KEYS: usize = 32;
const MAX_KEY_LEN: usize = 16_384;
/// Pairs of an owner's own, and characters of each part (as Nova has it).
const MAX_META: usize = 128;
const MAX_META_LEN: usize = 255;

/// `hostname`, `public_keys`, `user_data` and `meta`, each of which may be missing.
pub fn metadata(value: Value) -> Checked {
    let keys = [
        ("hostname", false),
        ("public_keys", false),
        ("user_data", false),
        ("meta", false),
    ];
    let map = keyed(value, "hextet:metadata", &keys)?;
    let given = |key: &str| {
        Some(part(&map, key))
            .filter(|value| !value.is_null())
            .cloned()
    };
    let mut normal = Map::new();
    if let Some(value) = given("hostname") {
        normal.insert("hostname".to_owned(), domain(value, 253)?);
    }
    if let Some(value) = given("public_keys") {
        let keys = pairs("public_keys", value, MAX_KEYS, public_key)?;
        normal.insert("public_keys".to_owned(), keys);
    }
    if let Some(value) = given("user_data") {
        normal.insert("user_data".to_owned(), user_data(value)?);
    }
    if let Some(value) = given("meta") {
        let meta = pairs("meta", value, MAX_META, |value| text(value, MAX_META_LEN))?;
        normal.insert("meta".to_owned(), meta);
    }
    Ok(Value::Object(normal))
}

fn pairs(of: &str, value: Value, most: usize, check: impl Fn(Value) -> Checked) -> Checked {
    let Value::Object(pairs) = value else {
        return Err(reason(format!(
            "'{of}' of '{}' is not a dictionary",
            shown(&value)
        )));
    };
    if pairs.len() > most {
        return Err(reason(format!(
            "'{of}' has at most {most} entries, not {}",
            pairs.len()
        )));
    }
    let checked = pairs.into_iter().map(|(name, value)| {
        let name_fits = !name.is_empty() && name.chars().count() <= MAX_META_LEN;
        // It is a part of a path, and a line of a list.
        if !name_fits || name.contains(['/', '=']) || name.chars().any(char::is_control) {
            return Err(reason(format!(
                "a name in '{of}' has 1 to {MAX_META_LEN} characters, without '/', '=' and control characters"
            )));
        }
        Ok((name, check(value)?))
    });
    checked
        .collect::<Result<Map<String, Value>, _>>()
        .map(Value::Object)
}

fn public_key(value: Value) -> Checked {
    let value = text(value, MAX_KEY_LEN)?;
    match value.as_str().map(str::trim) {
        Some(key) if key.is_empty() || key.chars().any(char::is_control) => Err(reason(
            "a public key is one line, as in a file ~/.ssh/id_ed25519.pub".to_owned(),
        )),
        key => Ok(json!(key)),
    }
}

fn user_data(value: Value) -> Checked {
    let text = text(value, MAX_USER_DATA.div_ceil(3) * 4)?;
    match text.as_str().map(|text| BASE64_STANDARD.decode(text)) {
        Some(Ok(octets)) if octets.len() <= MAX_USER_DATA => Ok(text),
        Some(Ok(octets)) => Err(reason(format!(
            "'user_data' has at most {MAX_USER_DATA} octets, not {}",
            octets.len()
        ))),
        _ => Err(reason(
            "'user_data' has to be in Base64, as `base64 -w0 FILE` writes it".to_owned(),
        )),
    }
}

/// `protocol`, the host's `external_port`, and perhaps another `internal_port`.
pub fn exposure(value: Value) -> Checked {
    let keys = [
        ("protocol", true),
        ("external_port", true),
        ("internal_port", false),
    ];
    let map = keyed(value, "hextet:exposed", &keys)?;
    let protocol = part(&map, "protocol").as_str().map(str::to_lowercase);
    let protocol = protocol.filter(|p| ["tcp", "udp", "sctp", "dccp"].contains(&p.as_str()));
    let Some(protocol) = protocol else {
        return Err(reason(format!(
            "'protocol' of 'hextet:exposed' is one of tcp, udp, sctp, dccp, not '{}'",
            shown(part(&map, "protocol"))
        )));
    };
    let external = integer(part(&map, "external_port"), 1, 65_535)?;
    let internal = match part(&map, "internal_port") {
        Value::Null => external.clone(),
        port => integer(port, 1, 65_535)?,
    };
    Ok(json!({"protocol": protocol, "external_port": external, "internal_port": internal}))
}

/// How long the prefix of each port is, and whether it is better than an address.
pub fn delegation(value: Value) -> Checked {
    let keys = [("prefixlen", false), ("preferred", false)];
    let map = keyed(value, "hextet:delegation", &keys)?;
    let prefixlen = match part(&map, "prefixlen") {
        Value::Null => json!(64),
        given => integer(given, 1, 64)?,
    };
    let preferred = match part(&map, "preferred") {
        Value::Null => json!(false),
        Value::Bool(preferred) => json!(preferred),
        other => {
            return Err(reason(format!(
                "'preferred' of 'hextet:delegation' is true or false, not '{}'",
                shown(other)
            )));
        }
    };
    Ok(json!({"prefixlen": prefixlen, "preferred": preferred}))
}

/// Perhaps `pool_subnet_id` and how many of its addresses a host has; and how many connections a port.
pub fn nat44(value: Value) -> Checked {
    let keys = [
        ("pool_subnet_id", false),
        ("addresses_per_host", false),
        ("max_connections_per_port", false),
    ];
    let map = keyed(value, "hextet:nat44", &keys)?;
    let or = |key: &str, default: i64| match map.get(key) {
        None | Some(Value::Null) => json!(default),
        Some(v) => v.clone(),
    };
    let pool = match map.get("pool_subnet_id") {
        None | Some(Value::Null) => Value::Null,
        Some(pool) => uuid(pool)?,
    };
    Ok(json!({
        "pool_subnet_id": pool,
        "addresses_per_host": integer(&or("addresses_per_host", 1), 1, 16)?,
        "max_connections_per_port":
            integer(&or("max_connections_per_port", 4096), 1, 1_000_000)?,
    }))
}
