//! Which sources a port may use. One lookup decides for an exact address; prefixes of address pairs
//! have one masked set for each length.
//!
//! The same sets say whose ICMP errors to believe: a port reports about connections that one of its sources
//! is an end of. One without port security may forward for others, and so report about theirs.

use hextet_types::{Family, Mac};
use std::net::{IpAddr, Ipv6Addr};

use super::{
    base,
    index::Name,
    names,
    nft::{self, DROP, because, rule},
    rules::icmp_of,
    unit::View,
    why,
};
use crate::{
    neutron::Port,
    state::{CtDirection, Field, KeyPart, KeyType, NftRule, Object, SetName, Statement, Value},
};

/// The chain for what comes from a port, which the kernel forwards nothing of that has not passed it, and
/// that for its errors.
pub fn check(view: View<'_>) -> Vec<Object> {
    let known = |(family, len, set)| {
        let found = nft::found(source_key(family, len), set, false);
        rule([found, nft::goto(base::CHECKED)])
    };
    let mut rules: Vec<NftRule> = lengths(view).map(known).collect();
    rules.extend(link_local_rules());
    rules.push(rule([
        nft::name_in(Field::IifName, names::UNCHECKED),
        nft::goto(base::CHECKED),
    ]));
    rules.extend(Family::BOTH.map(|family| {
        let none = nft::compare(Field::Saddr(family), Value::Addr(family.unspecified()));
        because([none, DROP], why::FOR_AGENT)
    }));
    rules.push(because([Statement::Counter, DROP], why::SPOOFED));
    vec![
        nft::chain(base::FROM_PORT, rules),
        nft::chain(base::ERRORS, errors(view)),
    ]
}

/// For what is related to a connection: an ICMP error, or what a helper of the operator's expects.
fn errors(view: View<'_>) -> Vec<NftRule> {
    let admit = || nft::goto(base::ADMIT);
    let mut rules = Vec::new();
    for (family, len, set) in lengths(view) {
        for direction in [CtDirection::Original, CtDirection::Reply] {
            let end = Field::CtSaddr(direction, family);
            let own = nft::found(key(end, family, len), set.clone(), false);
            rules.push(rule([own, admit()]));
        }
    }
    rules.push(rule([
        nft::name_in(Field::IifName, names::UNCHECKED),
        admit(),
    ]));
    rules.extend(Family::BOTH.map(|family| {
        let icmp = nft::protocol(icmp_of(family).0);
        because([icmp, Statement::Counter, DROP], why::FOREIGN)
    }));
    rules.push(rule([admit()]));
    rules
}

/// The sets of sources: those of exact addresses, then one for each length of a prefix.
fn lengths(view: View<'_>) -> impl Iterator<Item = (Family, u8, SetName)> {
    let exact = Family::BOTH.map(|f| (f, f.bits(), names::sources(f)));
    let wide = view.index.names().filter_map(|name| match name {
        Name::WidePair(f, len) => Some((*f, *len, names::wide_sources(*f, *len))),
        _ => None,
    });
    exact.into_iter().chain(wide)
}

fn source_key(family: Family, len: u8) -> Vec<KeyPart> {
    key(Field::Saddr(family), family, len)
}

/// An address as the sets of sources have it.
fn key(address: Field, family: Family, len: u8) -> Vec<KeyPart> {
    vec![
        Field::IifName.into(),
        Field::EtherSaddr.into(),
        nft::address_part(address, family, len),
    ]
}

/// A link-local source goes no further than its link: to a link-local address, or to a group of
/// link-local scope.
fn link_local_rules() -> [NftRule; 2] {
    let daddr = Field::Daddr(Family::V6);
    let unicast = nft::compare(
        nft::address_part(daddr, Family::V6, 10),
        Value::Addr(IpAddr::V6(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0))),
    );
    let mut scope = vec![0; 16];
    scope[..2].copy_from_slice(&[0xff, 0x0f]);
    let part = KeyPart {
        field: daddr,
        mask: Some(scope),
    };
    let group = nft::compare(
        part,
        Value::Addr(IpAddr::V6(Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0))),
    );
    [unicast, group].map(|to| {
        let own = nft::found(
            source_key(Family::V6, 128),
            names::LINK_LOCALS.into(),
            false,
        );
        rule([to, own, nft::goto(base::CHECKED)])
    })
}

/// The set of prefixes of one length.
pub fn wide_set(view: View<'_>, family: Family, len: u8) -> Vec<Object> {
    if !view.index.is_named(&Name::WidePair(family, len)) {
        return Vec::new();
    }
    let key = [KeyType::IfName, KeyType::EtherAddr, KeyType::Addr(family)];
    vec![nft::set(names::wide_sources(family, len), key)]
}

/// What a port may use: its addresses and its address pairs with their MACs, its link-local address;
/// anything where port security is off.
pub fn of_port(port: &Port) -> Vec<Object> {
    let name = port.if_name();
    if !port.port_security_enabled {
        return vec![nft::name_element(names::UNCHECKED, &name)];
    }
    let element = |set: SetName, mac: Mac, addr: IpAddr| {
        let key = [
            Value::IfName(name.clone()),
            Value::Mac(mac),
            Value::Addr(addr),
        ];
        nft::element(set, key)
    };
    let own = port.fixed_ips.iter().map(|f| {
        let family = Family::of(f.ip_address);
        element(names::sources(family), port.mac_address, f.ip_address)
    });
    let pairs = port.allowed_address_pairs.iter().map(|pair| {
        let prefix = pair.ip_address;
        let set = match prefix.is_host() {
            true => names::sources(prefix.family()),
            false => names::wide_sources(prefix.family(), prefix.len()),
        };
        element(set, pair.mac_address, prefix.addr())
    });
    let link_local = IpAddr::V6(port.mac_address.link_local());
    let link_local = element(names::LINK_LOCALS.into(), port.mac_address, link_local);
    own.chain(pairs).chain([link_local]).collect()
}
