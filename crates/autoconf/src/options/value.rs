//! From an option's text to its octets.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use hextet_types::{Family, Prefix};

use super::name::Kind;
use crate::domain::DomainName;

/// The octets of a value; the error says what is needed instead.
pub(super) fn encode(kind: Kind, text: &str, family: Family) -> Result<Vec<u8>, &'static str> {
    if text.is_empty() {
        return Ok(Vec::new());
    }
    match kind {
        Kind::Protocol => Err("nothing: it cannot be set"),
        Kind::Address => match items(text).as_slice() {
            [one] => address(one, family),
            _ => Err(one_address(family)),
        },
        Kind::Addresses => each(text, |item| address(item, family)),
        Kind::AddressPairs => pairs(text),
        Kind::U8 => number(text, 1),
        Kind::U16 => number(text, 2),
        Kind::U32 => number(text, 4),
        Kind::I32 => text
            .parse::<i32>()
            .map(|n| n.to_be_bytes().to_vec())
            .map_err(|_| "a number of seconds between -2147483648 and 2147483647"),
        Kind::Seconds => seconds(text),
        Kind::Text => plain(text),
        Kind::Domains => each(text, domain),
        Kind::Routes => routes(text),
        Kind::Ntp => each(text, ntp),
        Kind::Params => each(text, param),
        Kind::Any => any(text, family),
    }
}

fn items(text: &str) -> Vec<&str> {
    text.split(',').map(str::trim).collect()
}

fn each<F>(text: &str, f: F) -> Result<Vec<u8>, &'static str>
where
    F: Fn(&str) -> Result<Vec<u8>, &'static str>,
{
    items(text)
        .into_iter()
        .map(f)
        .collect::<Result<Vec<_>, _>>()
        .map(|parts| parts.concat())
}

const fn one_address(family: Family) -> &'static str {
    match family {
        Family::V4 => "an IPv4 address",
        Family::V6 => "an IPv6 address",
    }
}

fn address(text: &str, family: Family) -> Result<Vec<u8>, &'static str> {
    match family {
        Family::V4 => v4(text).map(|addr| addr.octets().to_vec()),
        // dnsmasq wants IPv6 addresses in brackets, people leave them out.
        Family::V6 => text
            .strip_prefix('[')
            .and_then(|inner| inner.strip_suffix(']'))
            .unwrap_or(text)
            .parse::<Ipv6Addr>()
            .map(|addr| addr.octets().to_vec())
            .map_err(|_| one_address(family)),
    }
}

fn v4(text: &str) -> Result<Ipv4Addr, &'static str> {
    text.parse().map_err(|_| one_address(Family::V4))
}

fn pairs(text: &str) -> Result<Vec<u8>, &'static str> {
    let addrs = items(text);
    if !addrs.len().is_multiple_of(2) {
        return Err("pairs of IPv4 addresses, with commas");
    }
    each(text, |item| address(item, Family::V4))
}

fn number(text: &str, octets: usize) -> Result<Vec<u8>, &'static str> {
    let needed = match octets {
        1 => "a number between 0 and 255",
        2 => "a number between 0 and 65535",
        _ => "a number between 0 and 4294967295",
    };
    let parsed = match text.strip_prefix("0x") {
        Some(hex) => u32::from_str_radix(hex, 16),
        None => text.parse::<u32>(),
    };
    let all = parsed.map_err(|_| needed)?.to_be_bytes();
    let (high, low) = all.split_at(4 - octets);
    if high.iter().any(|octet| *octet != 0) {
        return Err(needed);
    }
    Ok(low.to_vec())
}

fn seconds(text: &str) -> Result<Vec<u8>, &'static str> {
    const NEEDED: &str = "seconds, or a number with m, h, d or w behind it, or 'infinite'";
    if text == "infinite" {
        return Ok(u32::MAX.to_be_bytes().to_vec());
    }
    let (digits, factor) = match text.split_at_checked(text.len().saturating_sub(1)) {
        Some((digits, "s")) => (digits, 1),
        Some((digits, "m")) => (digits, 60),
        Some((digits, "h")) => (digits, 3_600),
        Some((digits, "d")) => (digits, 86_400),
        Some((digits, "w")) => (digits, 604_800),
        _ => (text, 1),
    };
    digits
        .parse::<u32>()
        .ok()
        .and_then(|n| n.checked_mul(factor))
        .map(|n| n.to_be_bytes().to_vec())
        .ok_or(NEEDED)
}

fn plain(text: &str) -> Result<Vec<u8>, &'static str> {
    if text.chars().any(char::is_control) {
        return Err("text without control characters");
    }
    Ok(text.as_bytes().to_vec())
}

fn domain(text: &str) -> Result<Vec<u8>, &'static str> {
    let name: DomainName = text
        .parse()
        .map_err(|_| "domain names with commas between them")?;
    let mut out = Vec::new();
    name.encode(&mut out);
    Ok(out)
}

fn routes(text: &str) -> Result<Vec<u8>, &'static str> {
    const NEEDED: &str = "a destination and its router in turn, as in 10.0.0.0/8,192.0.2.1";
    let items = items(text);
    let (pairs, odd) = items.as_chunks::<2>();
    if !odd.is_empty() {
        return Err(NEEDED);
    }
    let mut out = Vec::new();
    for [destination, router] in pairs {
        let destination = match destination.parse::<Prefix>() {
            Ok(prefix) if prefix.family() == Family::V4 => prefix,
            _ => Prefix::host(IpAddr::V4(v4(destination).map_err(|_| NEEDED)?)),
        };
        encode_route(destination, v4(router).map_err(|_| NEEDED)?, &mut out);
    }
    Ok(out)
}

/// Appends a route as RFC 3442 has it: the length, as many octets as it needs, the router.
pub(crate) fn encode_route(destination: Prefix, router: Ipv4Addr, out: &mut Vec<u8>) {
    let IpAddr::V4(addr) = destination.addr() else {
        return;
    };
    out.push(destination.len());
    let significant = usize::from(destination.len().div_ceil(8));
    out.extend(addr.octets().into_iter().take(significant));
    out.extend_from_slice(&router.octets());
}

fn ntp(text: &str) -> Result<Vec<u8>, &'static str> {
    const NEEDED: &str = "IPv6 addresses or domain names, with commas between them";
    let (suboption, data) = match address(text, Family::V6) {
        // RFC 5908 §4.2: groups have a suboption of their own.
        Ok(addr) if addr.first() == Some(&0xff) => (2_u8, addr),
        Ok(addr) => (1, addr),
        Err(_) => (3, domain(text).map_err(|_| NEEDED)?),
    };
    let mut out = vec![
        0,
        suboption,
        0,
        u8::try_from(data.len()).map_err(|_| NEEDED)?,
    ];
    out.extend_from_slice(&data);
    Ok(out)
}

fn param(text: &str) -> Result<Vec<u8>, &'static str> {
    let octets = plain(text)?;
    let len = u16::try_from(octets.len()).map_err(|_| "shorter texts")?;
    Ok([&len.to_be_bytes()[..], &octets].concat())
}

fn any(text: &str, family: Family) -> Result<Vec<u8>, &'static str> {
    if let Some(octets) = hex(text) {
        return Ok(octets);
    }
    if let Ok(addrs) = each(text, |item| address(item, family)) {
        return Ok(addrs);
    }
    for octets in [1, 2, 4] {
        if let Ok(number) = number(text, octets) {
            return Ok(number);
        }
    }
    plain(text)
}

/// `01:23:ab`, at least two octets.
fn hex(text: &str) -> Option<Vec<u8>> {
    let octet = |part: &str| {
        let digits = (1..=2).contains(&part.len()) && part.bytes().all(|b| b.is_ascii_hexdigit());
        digits.then(|| u8::from_str_radix(part, 16).ok()).flatten()
    };
    let octets: Vec<u8> = text.split(':').map(octet).collect::<Option<_>>()?;
    (octets.len() > 1).then_some(octets)
}
