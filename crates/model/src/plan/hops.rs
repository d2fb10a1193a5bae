//! So many packets whose hops are spent, by uplinks, so that nobody outside uses up the errors that the host
//! may send: Linux has one rate for all errors of both families (but those about sizes), and one address gets
//! a few a second of them.
//!
//! What comes from ports their program limits, each port by itself. By uplinks come the packets of the whole
//! Internet: together they get a tenth of the rate, and of that each source's prefix a share. Shares are
//! for 12 bits of the prefix, and not for the prefix itself, so that no number of sources fills the set.
//!
//! What is for the host itself is let alone: BGP sends with one hop (RFC 4271), and so do others.

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
const CHAIN: &str = "spent";
/// Errors of the host a second, of both families, and how many in one go. A host says more to its ports
/// than to anybody else: each gets 20 a second from its program.
pub const SYSCTLS: [(&str, &str); 2] = [
    ("net/ipv4/icmp_msgs_per_sec", "10000"),
    ("net/ipv4/icmp_msgs_burst", "1000"),
];
const OUTSIDE: Limit = Limit {
    rate: 1_000,
    unit: LimitUnit::Second,
    burst: 100,
};
const SHARE: Limit = Limit {
    rate: 20,
    unit: LimitUnit::Second,
    burst: 20,
};
/// Of 12 bits.
const SHARES: u32 = 4_096;
/// `RTN_UNICAST` of rtnetlink(7): what is forwarded.
const UNICAST: u32 = 1;

/// The last 12 bits of a /24 or a /48, such as a site usually has.
fn site(family: Family) -> KeyPart {
    let mask = match family {
        Family::V4 => vec![0, 0x0f, 0xff, 0],
        Family::V6 => [&[0, 0, 0, 0, 0x0f, 0xff][..], &[0; 10]].concat(),
    };
    KeyPart {
        field: Field::Saddr(family),
        mask: Some(mask),
    }
}

/// In prerouting, behind what comes from ports: routing finds spent packets before any later hook.
pub fn prerouting() -> [NftRule; 2] {
    Family::BOTH.map(|family| {
        let all_but_the_last = KeyPart {
            field: Field::HopLimit(family),
            mask: Some(vec![0xfe]),
        };
        rule([
            nft::compare(all_but_the_last, Value::U8(0)),
            nft::goto(CHAIN),
        ])
    })
}

/// The chain, and what it counts in.
pub fn limit() -> Vec<Object> {
    let set = |family| {
        let key = [KeyType::Addr(family)];
        nft::dynamic_set(names::spent(family), key, SHARES)
    };
    let elsewhere = Statement::Compare(Field::FibDaddrType.into(), CmpOp::Ne, Value::U32(UNICAST));
    let too_many = |limit| because([limit, Statement::Counter, DROP], why::SPENT);
    let share = |family| {
        let over = DynOp::LimitOver(SHARE);
        Statement::Dynamic(vec![site(family)], names::spent(family), over)
    };
    let mut rules = vec![rule([elsewhere, ACCEPT])];
    rules.extend(Family::BOTH.map(|family| too_many(share(family))));
    rules.push(too_many(Statement::Limit(OUTSIDE, true)));
    let mut objects = Family::BOTH.map(set).to_vec();
    objects.push(nft::chain(CHAIN, rules));
    objects
}
