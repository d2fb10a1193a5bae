//! What rules of security groups say: protocols, families, prefixes and ports, in Neutron's words.

use std::net::IpAddr;

use hextet_types::Prefix;
use serde_json::{Value, json};

use super::{Checked, Wrong, shown, whole};

/// In the words of its author: a number stays one, and `ip` stays, although it is any.
pub(super) fn protocol(value: &Value) -> Checked {
    let text = match value {
        Value::Null => return Ok(Value::Null),
        Value::Number(n) => n.to_string(),
        Value::String(s) => s.to_ascii_lowercase(),
        other => shown(other),
    };
    if text == "any" {
        return Ok(Value::Null);
    }
    if let Ok(number) = text.trim().parse::<u8>() {
        return Ok(json!(number.to_string()));
    }
    match text.parse::<hextet_model::neutron::Protocol>() {
        Ok(p) => Ok(json!(p)),
        Err(_) if text == "ip" => Ok(json!(text)),
        Err(_) => Err(Wrong::Named(
            "SecurityGroupRuleInvalidProtocol",
            format!(
                "Security group rule protocol {text} not supported. Only protocol values [None, 'any', \
                 'ah', 'dccp', 'egp', 'esp', 'gre', 'hopopt', 'icmp', 'igmp', 'ip', 'ipip', \
                 'ipv6-encap', 'ipv6-frag', 'ipv6-icmp', 'icmpv6', 'ipv6-nonxt', 'ipv6-opts', \
                 'ipv6-route', 'ospf', 'pgm', 'rsvp', 'sctp', 'tcp', 'udp', 'udplite', 'vrrp'] and \
                 integer representations [0 to 255] are supported."
            ),
        )),
    }
}

/// An address and a length; for the length, a netmask or its inverse will do.
pub(super) fn written_prefix(value: &Value) -> Checked {
    let invalid = || {
        let text = format!("Invalid CIDR {} given as IP prefix.", shown(value));
        Wrong::Named("InvalidCIDR", text)
    };
    let text = match value {
        Value::Null => return Ok(Value::Null),
        Value::String(s) if s.is_empty() => return Ok(Value::Null),
        Value::String(s) => s,
        _ => return Err(invalid()),
    };
    let (address, len) = match text.split_once('/') {
        None => (text.as_str(), None),
        Some((address, len)) => (address, Some(len)),
    };
    let address: IpAddr = address.parse().map_err(|_| invalid())?;
    let bits = Prefix::host(address).len();
    let len = match len {
        None => bits,
        Some(len) => mask_len(len, address)
            .filter(|l| *l <= bits)
            .ok_or_else(invalid)?,
    };
    Ok(json!(format!("{address}/{len}")))
}

/// The length that a number, a netmask or a netmask's inverse says.
fn mask_len(text: &str, of: IpAddr) -> Option<u8> {
    if text.bytes().all(|b| b.is_ascii_digit()) {
        return text.parse().ok();
    }
    let (mask, bits) = match (text.parse::<IpAddr>().ok()?, of) {
        (IpAddr::V4(mask), IpAddr::V4(_)) => (u128::from(mask.to_bits()) << 96, 32),
        (IpAddr::V6(mask), IpAddr::V6(_)) => (mask.to_bits(), 128),
        _ => return None,
    };
    let whole = u128::MAX << (128 - bits);
    let len = |mask: u128| {
        (mask.leading_ones() + mask.trailing_zeros() >= 128).then_some(mask.leading_ones())
    };
    let len = len(mask).or_else(|| len(!mask & whole))?;
    u8::try_from(len).ok()
}

pub(super) fn ethertype(value: &Value) -> Checked {
    match value.as_str().map(str::to_ascii_lowercase).as_deref() {
        Some("ipv4") => Ok(json!("IPv4")),
        Some("ipv6") => Ok(json!("IPv6")),
        _ => Err(Wrong::Named(
            "SecurityGroupRuleInvalidEtherType",
            format!(
                "Security group rule for ethertype '{}' not supported. Allowed values are ['IPv4', \
                 'IPv6'].",
                shown(value)
            ),
        )),
    }
}

pub(super) fn port_number(value: &Value) -> Checked {
    whole(value)
        .and_then(|n| u16::try_from(n).ok())
        .map(|n| json!(n))
        .ok_or_else(|| {
            let text = format!("Invalid value for port {}", shown(value));
            Wrong::Named("SecurityGroupInvalidPortValue", text)
        })
}
