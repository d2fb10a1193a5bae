//! The host's own ICMP errors: so many that none is kept from a neighbour because somebody else had the
//! host send others.
//!
//! Linux has one rate for those of all namespaces' addresses and both families, a thousand a second, and
//! whoever has more addresses than that uses it up alone. So this rate is set where no link gets; what it was
//! for is done here, for each by itself. A port causes so few errors about hops that its program lets in.
//! What leaves elsewhere, to the whole Internet, has a rate for all, and in that a share for each site. (An
//! address gets, from Linux itself, an error a second in IPv4, and ten in IPv6.) Errors about sizes have no
//! limit in either: connections depend on them.
//!
//! Shares are for 12 bits of a site's prefix, and not for the prefix itself, so that no number of sites fills
//! the set.

use hextet_types::Family;

use super::{
    names,
    nft::{self, ACCEPT, DROP, because, rule},
    why,
};
use crate::state::{
    CmpOp, DynOp, Field, KeyPart, KeyType, Limit, LimitUnit, NftRule, Object, Statement, Value,
};

/// The chain that limits.
const CHAIN: &str = "own-reports";
/// More than a host can send.
pub const SYSCTLS: [(&str, &str); 2] = [
    ("net/ipv4/icmp_msgs_per_sec", "1000000"),
    ("net/ipv4/icmp_msgs_burst", "100000"),
];
const ALL: Limit = Limit {
    rate: 1_000,
    unit: LimitUnit::Second,
    burst: 100,
};
const SHARE: Limit = Limit {
    rate: 20,
    unit: LimitUnit::Second,
    burst: 20,
};
/// More than there are, of 12 bits: for a set of up to 65,535 elements Linux makes a table of that size at once, 128 KiB for
/// 4,096 of them in each namespace; one for more begins small, and grows.
const ROOM: u32 = 65_536;
const UNREACHABLE_V4: u8 = 3;
const FRAGMENTATION_NEEDED: u8 = 4;
const TIME_EXCEEDED_V4: u8 = 11;
const PARAMETER_PROBLEM_V4: u8 = 12;
const PACKET_TOO_BIG: u8 = 2;

/// The last 12 bits of a /24 or a /48, such as a site usually has.
fn site(family: Family) -> KeyPart {
    let mask = match family {
        Family::V4 => vec![0, 0x0f, 0xff, 0],
        Family::V6 => [&[0, 0, 0, 0, 0x0f, 0xff][..], &[0; 10]].concat(),
    };
    KeyPart {
        field: Field::Daddr(family),
        mask: Some(mask),
    }
}

/// In output, behind what goes to ports.
pub fn output() -> Vec<NftRule> {
    let is = |kind| nft::compare(Field::IcmpType(Family::V4), Value::U8(kind));
    let is_not =
        |field: Field, value| Statement::Compare(field.into(), CmpOp::Ne, Value::U8(value));
    let not_about_sizes = is_not(Field::IcmpCode(Family::V4), FRAGMENTATION_NEEDED);
    let error = KeyPart {
        field: Field::IcmpType(Family::V6),
        mask: Some(vec![0x80]),
    };
    let limited = || nft::goto(CHAIN);
    vec![
        rule([is(UNREACHABLE_V4), not_about_sizes, limited()]),
        rule([is(TIME_EXCEEDED_V4), limited()]),
        rule([is(PARAMETER_PROBLEM_V4), limited()]),
        rule([
            nft::compare(error, Value::U8(0)),
            is_not(Field::IcmpType(Family::V6), PACKET_TOO_BIG),
            limited(),
        ]),
    ]
}

/// The chain, and what it counts in.
pub fn limit() -> Vec<Object> {
    let set = |family| {
        let key = [KeyType::Addr(family)];
        nft::dynamic_set(names::sites(family), key, ROOM)
    };
    let too_many = |limit| because([limit, Statement::Counter, DROP], why::TOO_MANY_ERRORS);
    let share = |family| {
        let over = DynOp::LimitOver(SHARE);
        Statement::Dynamic(vec![site(family)], names::sites(family), over)
    };
    let loopback = "lo"
        .parse()
        .map(|lo| nft::compare(Field::OifName, Value::IfName(lo)));
    let mut rules: Vec<NftRule> = loopback.into_iter().map(|to| rule([to, ACCEPT])).collect();
    rules.extend(Family::BOTH.map(|family| too_many(share(family))));
    rules.push(too_many(Statement::Limit(ALL, true)));
    let mut objects = Family::BOTH.map(set).to_vec();
    objects.push(nft::chain(CHAIN, rules));
    objects
}
