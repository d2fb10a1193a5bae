//! From what a client wrote to an attribute's normal form.
//!
//! The normal form is JSON that reads back into the model's types: canonical addresses, lower-case
//! MACs, numbers as numbers. The texts are Neutron's, because people search for them.

mod own;
mod router;
mod rule;

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr},
};

use hextet_types::{Mac, Prefix};
use serde_json::{Map, Value, json};
use uuid::Uuid;

use crate::{
    describe::{Attribute, Kind},
    error::{ApiError, Result},
    query::python_list,
};
pub use own::MAX_USER_DATA;
use own::{delegation, exposure, metadata, nat44};
use router::{gateway, port_range};
use rule::{ethertype, port_number, protocol, written_prefix};

/// Tags of one resource.
pub const MAX_TAGS: usize = 50;
/// Characters of a tag.
pub const MAX_TAG_LEN: usize = 255;
/// Entries of any list in a request.
pub const MAX_LIST: usize = 200;

/// Why a value is none of its kind.
enum Wrong {
    /// Told as `Invalid input for ATTRIBUTE. Reason: …`.
    Reason(String),
    /// Told as `Invalid input for operation: …`.
    Input(String),
    /// Told as it is, as an exception of its own in Neutron.
    Named(&'static str, String),
}

type Checked = std::result::Result<Value, Wrong>;

fn reason(text: String) -> Wrong {
    Wrong::Reason(text)
}

impl Attribute {
    /// The normal form of a value in a request's body.
    ///
    /// # Errors
    ///
    /// 400, as Neutron words it.
    pub fn normalize(&self, value: Value) -> Result<Value> {
        if value.is_null() && self.nullable {
            return Ok(value);
        }
        normalize(self.kind, value).map_err(|wrong| match wrong {
            Wrong::Reason(r) => {
                ApiError::bad_request(format!("Invalid input for {}. Reason: {r}.", self.name))
            }
            Wrong::Input(r) => ApiError::invalid_input(r),
            Wrong::Named(kind, text) => ApiError::new(400, kind, text),
        })
    }

    /// The normal form of a value in a query, where everything is text. What is none of its kind
    /// stays text, and equals nothing.
    ///
    /// # Errors
    ///
    /// 400, where Neutron converts what is asked for, and cannot.
    pub fn normalize_text(&self, text: &str) -> Result<Value> {
        let raw = Value::String(text.to_owned());
        Ok(match self.kind {
            Kind::Text(_)
            | Kind::Name(_)
            | Kind::Domain(_)
            | Kind::Project
            | Kind::Choice(_)
            | Kind::Moment => raw,
            Kind::Int(..) if whole(&raw).is_some() => {
                normalize(self.kind, raw.clone()).unwrap_or(raw)
            }
            Kind::Bool
            | Kind::Int(..)
            | Kind::Protocol
            | Kind::WrittenPrefix
            | Kind::Ethertype
            | Kind::PortNumber => self.normalize(raw)?,
            kind => normalize(kind, raw.clone()).unwrap_or(raw),
        })
    }
}

/// A value as Python prints it, since the texts are made for that.
fn shown(value: &Value) -> String {
    match value {
        Value::Null => "None".into(),
        Value::Bool(true) => "True".into(),
        Value::Bool(false) => "False".into(),
        Value::String(s) => s.clone(),
        other => other.to_string(),
    }
}

fn normalize(kind: Kind, value: Value) -> Checked {
    match kind {
        Kind::Text(max) => text(value, max),
        Kind::Name(max) => name(value, max),
        Kind::Domain(max) => domain(value, max),
        Kind::Bool => boolean(&value),
        Kind::Int(min, max) => integer(&value, min, max),
        Kind::Choice(choices) => choice(value, choices),
        Kind::Project => project(value),
        Kind::Uuid => uuid(&value),
        Kind::Uuids => list(value, "list", uuid_item),
        Kind::Mac => mac(&value),
        Kind::Ip => ip(&value),
        Kind::Cidr => cidr(&value),
        Kind::Addresses => list(null_to_list(value), "nameserver", nameserver),
        Kind::HostRoutes => list(null_to_list(value), "hostroute", host_route),
        Kind::Prefixes => list(value, "list", |item| cidr(&item)),
        Kind::Length => length(&value),
        Kind::ServiceTypes => list(null_to_list(value), "list", service_type),
        Kind::Pools => list(value, "IP pool", pool),
        Kind::FixedIps => list(value, "fixed IP", fixed_ip),
        Kind::AddressPairs => list(null_to_list(value), "list", address_pair),
        Kind::DhcpOptions => list(null_to_list(value), "list", dhcp_option),
        Kind::Protocol => protocol(&value),
        Kind::WrittenPrefix => written_prefix(&value),
        Kind::Ethertype => ethertype(&value),
        Kind::PortNumber => port_number(&value),
        Kind::PortRange => port_range(&value),
        Kind::Nat44 => nat44(value),
        Kind::Delegation => delegation(value),
        Kind::Metadata => metadata(value),
        Kind::Exposed => list(null_to_list(value), "list", exposure),
        Kind::Gateway => gateway(value),
        Kind::Gateways => list(none_to_list(value), "gateway", gateway),
        Kind::Tags => tags(value),
        Kind::Texts => list(value, "list", |item| text(item, MAX_TAG_LEN)),
        Kind::Object => object(value),
        Kind::List | Kind::Moment => Ok(value),
    }
}

fn text(value: Value, max: usize) -> Checked {
    match &value {
        Value::String(s) if s.chars().count() > max => {
            Err(reason(format!("'{s}' exceeds maximum length of {max}")))
        }
        Value::String(_) => Ok(value),
        other => Err(reason(format!("'{}' is not a valid string", shown(other)))),
    }
}

fn name(value: Value, max: usize) -> Checked {
    let value = text(value, max)?;
    match &value {
        Value::String(s) if s.trim() != s || s.chars().any(char::is_control) => {
            Err(reason(format!("'{s}' is not a valid string")))
        }
        _ => Ok(value),
    }
}

fn domain(value: Value, max: usize) -> Checked {
    let value = text(value, max)?;
    match value.as_str() {
        Some("") => Ok(value),
        Some(s) => match s.parse::<hextet_autoconf::DomainName>() {
            Ok(_) => Ok(json!(s.to_ascii_lowercase())),
            Err(e) => Err(reason(e.to_string())),
        },
        None => Ok(value),
    }
}

fn boolean(value: &Value) -> Checked {
    let truth = match value {
        Value::Bool(b) => Some(*b),
        Value::Number(n) => match n.as_i64() {
            Some(0) => Some(false),
            Some(1) => Some(true),
            _ => None,
        },
        Value::String(s) => match s.to_ascii_lowercase().as_str() {
            "true" | "1" | "t" | "yes" | "y" | "on" => Some(true),
            "false" | "0" | "f" | "no" | "n" | "off" => Some(false),
            _ => None,
        },
        _ => None,
    };
    truth
        .map(Value::Bool)
        .ok_or_else(|| Wrong::Input(format!("'{}' cannot be converted to boolean", shown(value))))
}

fn whole(value: &Value) -> Option<i64> {
    match value {
        Value::Number(n) => n.as_i64(),
        Value::String(s) => s.trim().parse().ok(),
        _ => None,
    }
}

fn integer(value: &Value, min: i64, max: i64) -> Checked {
    match whole(value) {
        None => Err(reason(format!("'{}' is not an integer", shown(value)))),
        Some(n) if n < min => Err(reason(format!(
            "'{n}' is too small - must be at least '{min}'"
        ))),
        Some(n) if n > max => Err(reason(format!(
            "'{n}' is too large - must be no larger than '{max}'"
        ))),
        Some(n) => Ok(json!(n)),
    }
}

fn length(value: &Value) -> Checked {
    let length = integer(value, 0, i64::from(i32::MAX))?;
    Ok(json!(length.to_string()))
}

/// What `device_owner` can begin with that is a service's.
const SERVICE_TYPES: &[&str] = &["network:", "neutron:", "compute:", "baremetal:", "manila:"];

fn service_type(value: Value) -> Checked {
    let Some(name) = value.as_str() else {
        let text = format!("Subnet service type {} is not a string.", shown(&value));
        return Err(Wrong::Named("InvalidInputSubnetServiceType", text));
    };
    if name.len() <= 255 && SERVICE_TYPES.iter().any(|s| name.starts_with(s)) {
        return Ok(value);
    }
    Err(Wrong::Named(
        "InvalidSubnetServiceType",
        format!("Subnet service type {name} does not correspond to a valid device owner."),
    ))
}

fn choice(value: Value, choices: &[&str]) -> Checked {
    match &value {
        Value::String(s) if choices.contains(&s.as_str()) => Ok(value),
        other => Err(reason(format!(
            "'{}' is not in {}",
            shown(other),
            python_list(choices)
        ))),
    }
}

fn project(value: Value) -> Checked {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    match value.as_str() {
        Some(s) if s.len() <= 64 && s.bytes().all(allowed) => Ok(value),
        _ => Err(reason(format!("'{}' is no project", shown(&value)))),
    }
}

fn uuid(value: &Value) -> Checked {
    let parsed = value.as_str().and_then(|s| s.parse::<Uuid>().ok());
    parsed
        .map(|u| json!(u))
        .ok_or_else(|| reason(format!("'{}' is not a valid UUID", shown(value))))
}

fn mac(value: &Value) -> Checked {
    let parsed = value.as_str().and_then(|s| bare_mac(s).parse::<Mac>().ok());
    parsed
        .filter(|m| m.octets() != [0; 6] && *m != Mac::BROADCAST)
        .map(|m| json!(m))
        .ok_or_else(|| reason(format!("'{}' is not a valid MAC address", shown(value))))
}

/// `fa163e000001` and `fa16.3e00.0001` as `fa:16:3e:00:00:01`; anything else as it is.
fn bare_mac(text: &str) -> String {
    let dotted = text.len() == 14 && text.split('.').all(|part| part.len() == 4);
    let digits = if dotted {
        text.replace('.', "")
    } else {
        text.to_owned()
    };
    if digits.len() != 12 || !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
        return text.to_owned();
    }
    let pairs: Vec<_> = digits
        .as_bytes()
        .chunks(2)
        .map(String::from_utf8_lossy)
        .collect();
    pairs.join(":")
}

fn parse_ip(value: &Value) -> std::result::Result<IpAddr, Wrong> {
    value
        .as_str()
        .and_then(|s| s.parse().ok())
        .ok_or_else(|| reason(format!("'{}' is not a valid IP address", shown(value))))
}

fn ip(value: &Value) -> Checked {
    parse_ip(value).map(|a| json!(a))
}

fn cidr(value: &Value) -> Checked {
    let given = value.as_str().filter(|s| s.contains('/'));
    let parsed = given.and_then(|_| written_prefix(value).ok());
    parsed
        .and_then(|written| written.as_str()?.parse::<Prefix>().ok())
        .map(|p| json!(p))
        .ok_or_else(|| reason(format!("'{}' is not a valid IP subnet", shown(value))))
}

/// Clients say that there are none by `{}`, too.
fn none_to_list(value: Value) -> Value {
    match value {
        Value::Object(map) if map.is_empty() => json!([]),
        other => null_to_list(other),
    }
}

fn null_to_list(value: Value) -> Value {
    if value.is_null() { json!([]) } else { value }
}

/// Each item's normal form; no item twice.
fn list(value: Value, what: &str, item: fn(Value) -> Checked) -> Checked {
    let Value::Array(items) = value else {
        let data = shown(&value);
        return Err(reason(match what {
            "list" => format!("'{data}' is not a list"),
            _ => format!("Invalid data format for {what}: '{data}'"),
        }));
    };
    if items.len() > MAX_LIST {
        return Err(reason(format!("a list of more than {MAX_LIST} items")));
    }
    let mut normal: Vec<Value> = Vec::with_capacity(items.len());
    for raw in items {
        let one = item(raw)?;
        // Several addresses out of one subnet are asked for by naming it several times.
        let address = |item: &Value| item.get("ip_address").cloned();
        let again = match what {
            "fixed IP" => {
                address(&one).is_some_and(|a| normal.iter().any(|n| address(n) == Some(a.clone())))
            }
            // A router may have several on one network.
            "gateway" => false,
            _ => normal.contains(&one),
        };
        if again {
            return Err(duplicate(what, &one));
        }
        normal.push(one);
    }
    Ok(Value::Array(normal))
}

fn duplicate(what: &str, item: &Value) -> Wrong {
    reason(match what {
        "list" => format!("Duplicate items in the list: '{}'", shown(item)),
        "fixed IP" => {
            let address = item.get("ip_address").unwrap_or(item);
            format!("Duplicate IP address '{}'", shown(address))
        }
        _ => format!("Duplicate {what} '{}'", shown(item)),
    })
}

fn uuid_item(value: Value) -> Checked {
    uuid(&value)
}

fn nameserver(value: Value) -> Checked {
    ip(&value).map_err(|_| {
        let host = shown(&value);
        reason(format!(
            "'{host}' is not a valid nameserver. '{host}' is not a valid IP address"
        ))
    })
}

/// An object with just these keys, those marked `true` required.
fn keyed(
    value: Value,
    what: &str,
    keys: &[(&str, bool)],
) -> std::result::Result<Map<String, Value>, Wrong> {
    let Value::Object(map) = value else {
        return Err(reason(format!(
            "Invalid data format for {what}: '{}'",
            shown(&value)
        )));
    };
    let unknown = map.keys().find(|k| !keys.iter().any(|(n, _)| n == k));
    let missing = keys.iter().find(|(n, need)| *need && !map.contains_key(*n));
    if unknown.is_some() || missing.is_some() {
        let expected: Vec<_> = keys.iter().map(|(n, _)| *n).collect();
        let provided: Vec<_> = map.keys().map(String::as_str).collect();
        return Err(reason(format!(
            "Validation of dictionary's keys failed. Expected keys: {} Provided keys: {}",
            python_list(&expected),
            python_list(&provided)
        )));
    }
    Ok(map)
}

fn part<'m>(map: &'m Map<String, Value>, key: &str) -> &'m Value {
    map.get(key).unwrap_or(&Value::Null)
}

fn host_route(value: Value) -> Checked {
    let map = keyed(
        value,
        "hostroute",
        &[("destination", true), ("nexthop", true)],
    )?;
    let destination = cidr(part(&map, "destination"))?;
    Ok(json!({"destination": destination, "nexthop": ip(part(&map, "nexthop"))?}))
}

fn pool(value: Value) -> Checked {
    let map = keyed(value, "IP pool", &[("start", true), ("end", true)])?;
    Ok(json!({"start": ip(part(&map, "start"))?, "end": ip(part(&map, "end"))?}))
}

fn fixed_ip(value: Value) -> Checked {
    let map = keyed(
        value,
        "fixed IP",
        &[("subnet_id", false), ("ip_address", false)],
    )?;
    let mut out = Map::new();
    if let Some(id) = map.get("subnet_id").filter(|v| !v.is_null()) {
        out.insert("subnet_id".into(), uuid(id)?);
    }
    if let Some(address) = map.get("ip_address").filter(|v| !v.is_null()) {
        out.insert("ip_address".into(), ip(address)?);
    }
    Ok(Value::Object(out))
}

fn address_pair(value: Value) -> Checked {
    let map = keyed(
        value,
        "allowed_address_pairs",
        &[
            ("ip_address", false),
            ("mac_address", false),
            ("active", false),
        ],
    )?;
    let Some(address) = map.get("ip_address").and_then(Value::as_str) else {
        return Err(Wrong::Input(
            "AllowedAddressPair must contain ip_address".into(),
        ));
    };
    let prefix: Prefix = address
        .parse()
        .map_err(|_| reason(format!("'{address}' is not a valid IP subnet")))?;
    if is_multicast(prefix) {
        return Err(Wrong::Input(format!(
            "{address} is a multicast address, which no port can have as its own"
        )));
    }
    let mut out = Map::new();
    let text = match (prefix.is_host(), prefix.is_default()) {
        (true, _) => json!(prefix.addr()),
        _ => json!(prefix),
    };
    out.insert("ip_address".into(), text);
    if let Some(address) = map.get("mac_address").filter(|v| !v.is_null()) {
        out.insert("mac_address".into(), mac(address)?);
    }
    Ok(Value::Object(out))
}

fn is_multicast(prefix: Prefix) -> bool {
    match prefix.addr() {
        IpAddr::V4(a) => a.is_multicast() && prefix.len() >= 4,
        IpAddr::V6(a) => a.is_multicast() && prefix.len() >= 8,
    }
}

/// Options that hextet's own answers carry; a port cannot replace them.
const OWN_OPTIONS: &[&str] = &["1", "50", "51", "53", "54", "61", "netmask", "lease-time"];

fn dhcp_option(value: Value) -> Checked {
    let keys = [
        ("opt_name", true),
        ("opt_value", true),
        ("ip_version", false),
    ];
    let map = keyed(value, "extra_dhcp_opts", &keys)?;
    let opt_name = part(&map, "opt_name").as_str().unwrap_or_default().trim();
    if opt_name.is_empty() || opt_name.len() > 64 || opt_name.contains(char::is_control) {
        return Err(reason(
            "'opt_name' needs 1 to 64 characters on one line".into(),
        ));
    }
    if OWN_OPTIONS.contains(&opt_name) {
        let text = format!("DHCP option '{opt_name}' follows from the port and cannot be set");
        return Err(reason(text));
    }
    let opt_value = match part(&map, "opt_value") {
        Value::Null => Value::Null,
        Value::String(s)
            if s.len() <= 255 && !s.trim().is_empty() && !s.contains(char::is_control) =>
        {
            json!(s)
        }
        other => {
            let text = format!("'{}' is no value of a DHCP option", shown(other));
            return Err(reason(text));
        }
    };
    let version = match map.get("ip_version") {
        None | Some(Value::Null) => 4,
        Some(v) => whole(v)
            .filter(|n| matches!(n, 4 | 6))
            .ok_or_else(|| reason(format!("'{}' is no ip_version: 4 or 6", shown(v))))?,
    };
    Ok(json!({"opt_name": opt_name, "opt_value": opt_value, "ip_version": version}))
}

/// Sorted, each once.
fn tags(value: Value) -> Checked {
    let Value::Array(items) = value else {
        return Err(reason(format!("'{}' is not a list", shown(&value))));
    };
    let mut set = BTreeSet::new();
    for item in items {
        let Value::String(tag) = text(item, MAX_TAG_LEN)? else {
            continue;
        };
        if tag.is_empty() {
            return Err(reason("a tag has at least one character".into()));
        }
        if !set.insert(tag.clone()) {
            return Err(duplicate("list", &json!(tag)));
        }
    }
    if set.len() > MAX_TAGS {
        return Err(reason(format!(
            "The number of tags exceed the per-resource limit of {MAX_TAGS}"
        )));
    }
    Ok(json!(set))
}

fn object(value: Value) -> Checked {
    const MAX_OCTETS: usize = 4095;
    match value {
        Value::Null => Ok(json!({})),
        Value::Object(_) if value.to_string().len() <= MAX_OCTETS => Ok(value),
        Value::Object(_) => Err(reason(format!("more than {MAX_OCTETS} octets"))),
        other => Err(reason(format!("'{}' is not a dictionary", shown(&other)))),
    }
}

/// Whether a subnet may have that prefix at all.
pub fn is_unusable(prefix: Prefix) -> Option<&'static str> {
    match prefix.addr() {
        _ if prefix.is_default() => Some("0 is not allowed as CIDR prefix length"),
        IpAddr::V4(a) if a.is_multicast() || a == Ipv4Addr::BROADCAST => {
            Some("Multicast IP subnet is not supported if enable_dhcp is True")
        }
        IpAddr::V6(a) if a.is_multicast() => {
            Some("Multicast IP subnet is not supported if enable_dhcp is True")
        }
        a if a.is_loopback() => Some("Loopback IP subnet is not supported if enable_dhcp is True"),
        IpAddr::V4(a) if a.octets()[0] == 0 => {
            Some("First IP '0.0.0.0' of network is not supported if enable_dhcp is True.")
        }
        IpAddr::V4(a) if a.is_link_local() => {
            Some("a link-local prefix cannot be a subnet: no router forwards it (RFC 3927)")
        }
        IpAddr::V6(a) if a.is_unspecified() => Some("IPv6 subnet '::' is not supported"),
        IpAddr::V6(a) if a.is_unicast_link_local() => {
            Some("a link-local prefix cannot be a subnet: every port has one already")
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests;
