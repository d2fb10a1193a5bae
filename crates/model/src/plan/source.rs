//! Which sources a port may use. For an exact address one lookup of the port's eBPF program decides, and rules
//! see its mark; prefixes of address pairs have one masked set for each length.
//!
//! The same say whose ICMP errors to believe: a port reports about connections that one of its sources
//! is an end of, or about a packet that one of them is an end of, which the program sees. One without port
//! security may forward for others, and so report about theirs.
//!
//! A link-local source goes no further than its link, whoever may use it.

use hextet_types::{Family, Mac};
use std::net::{IpAddr, Ipv6Addr};

use super::{
    base,
    index::Name,
    names,
    nft::{self, ACCEPT, DROP, because, rule},
    rules::icmp_of,
    unit::View,
    why,
};
use crate::{
    neutron::Port,
    state::{
        CmpOp, CtDirection, Field, KeyPart, KeyType, Netns, NftRule, Object, SetName, Source,
        Statement, Value, marks,
    },
};

/// For sources that are right by a prefix, or because nobody checks them.
const WIDELY_CHECKED: &str = "widely-checked";
const LINK_LOCAL: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0);
const GROUPS: Ipv6Addr = Ipv6Addr::new(0xff00, 0, 0, 0, 0, 0, 0, 0);

/// The chain for what comes from a port, which the kernel forwards nothing of that has not passed it, and
/// that for its errors.
pub fn check(view: View<'_>) -> Vec<Object> {
    let known = |(family, len, set)| {
        let found = nft::found(source_key(family, len), set, false);
        rule([found, nft::goto(WIDELY_CHECKED)])
    };
    let mut rules: Vec<NftRule> = lengths(view).map(known).collect();
    rules.extend(link_local_rules());
    rules.push(rule([
        nft::name_in(Field::IifName, names::UNCHECKED),
        nft::goto(WIDELY_CHECKED),
    ]));
    rules.extend(Family::BOTH.map(|family| {
        let none = nft::compare(Field::Saddr(family), Value::Addr(family.unspecified()));
        because([none, DROP], why::FOR_AGENT)
    }));
    rules.push(because([Statement::Counter, DROP], why::SPOOFED));
    vec![
        nft::chain(base::FROM_PORT, rules),
        nft::chain(
            WIDELY_CHECKED,
            vec![
                link_local_stays(),
                rule([link_local_source(), ACCEPT]),
                rule([nft::goto(base::CHECKED)]),
            ],
        ),
        nft::chain(base::ERRORS, errors(view)),
    ]
}

fn link_local_source() -> Statement {
    let source = nft::address_part(Field::Saddr(Family::V6), Family::V6, 10);
    nft::compare(source, Value::Addr(IpAddr::V6(LINK_LOCAL)))
}

/// Of all sources that a prefix covers, or that nobody checks, link-local ones reach only their link.
fn link_local_stays() -> NftRule {
    let to_others = [(LINK_LOCAL, 10), (GROUPS, 8)].map(|(prefix, len)| {
        Statement::Compare(
            nft::address_part(Field::Daddr(Family::V6), Family::V6, len),
            CmpOp::Ne,
            Value::Addr(IpAddr::V6(prefix)),
        )
    });
    let mut statements = vec![link_local_source()];
    statements.extend(to_others);
    statements.extend([Statement::Counter, DROP]);
    because(statements, why::LINK_LOCAL)
}

/// For what is related to a connection: an ICMP error, or what a helper of the operator's expects.
fn errors(view: View<'_>) -> Vec<NftRule> {
    let admit = || nft::goto(base::ADMIT);
    let mut rules = vec![rule([nft::marked(marks::OWN_REPORT), admit()])];
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
    rules.push(rule([nft::goto(base::EXPECTED)]));
    rules
}

/// The sets of sources, one for each length of a prefix.
fn lengths(view: View<'_>) -> impl Iterator<Item = (Family, u8, SetName)> {
    view.index.names().filter_map(|name| match name {
        Name::WidePair(f, len) => Some((*f, *len, names::wide_sources(*f, *len))),
        _ => None,
    })
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
/// link-local scope. It remains a packet that the kernel does not forward, also not back to where it came from.
fn link_local_rules() -> [NftRule; 2] {
    let daddr = Field::Daddr(Family::V6);
    let unicast = nft::compare(
        nft::address_part(daddr, Family::V6, 10),
        Value::Addr(IpAddr::V6(LINK_LOCAL)),
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
        rule([to, own, ACCEPT])
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
    let exact = |mac: Mac, addr: IpAddr| match addr {
        IpAddr::V6(v6) if v6.is_unicast_link_local() => {
            element(names::LINK_LOCALS.into(), mac, addr)
        }
        _ => Object::Source(Source {
            netns: Netns::Main,
            link: name.clone(),
            mac,
            addr,
        }),
    };
    let own = port
        .fixed_ips
        .iter()
        .map(|f| exact(port.mac_address, f.ip_address));
    let pairs = port.pairs().map(|pair| {
        let (prefix, mac) = (pair.ip_address, pair.mac_address);
        match prefix.is_host() {
            true => exact(mac, prefix.addr()),
            false => {
                let set = names::wide_sources(prefix.family(), prefix.len());
                element(set, mac, prefix.addr())
            }
        }
    });
    let link_local = IpAddr::V6(port.mac_address.link_local());
    let link_local = exact(port.mac_address, link_local);
    own.chain(pairs).chain([link_local]).collect()
}
