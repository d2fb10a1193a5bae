//! The short forms in which the planner writes rules, sets and elements.

use hextet_types::{Family, IfName};

use crate::state::{
    Chain, ChainHook, ChainName, CmpOp, CtState, Element, Field, Hook, KeyPart, KeyType, Lookup,
    Netns, NftRule, Object, Policy, Set, SetName, Statement, Value, Verdict,
};

/// The first `len` bits set, in network order, as long as an address of the family.
pub fn address_mask(family: Family, len: u8) -> Vec<u8> {
    (0..family.bits() / 8)
        .map(|octet| {
            let bits = len.saturating_sub(octet * 8).min(8);
            u8::MAX.checked_shl(u32::from(8 - bits)).unwrap_or(0)
        })
        .collect()
}

/// An address field, or its first `len` bits.
pub fn address_part(field: Field, family: Family, len: u8) -> KeyPart {
    KeyPart {
        field,
        mask: (len < family.bits()).then(|| address_mask(family, len)),
    }
}

pub fn compare(part: impl Into<KeyPart>, value: Value) -> Statement {
    Statement::Compare(part.into(), CmpOp::Eq, value)
}

/// Whether that bit of the mark is set.
pub fn marked(bit: u32) -> Statement {
    let part = KeyPart {
        field: Field::Mark,
        mask: Some(bit.to_be_bytes().to_vec()),
    };
    compare(part, Value::U32(bit))
}

/// The connection's destination was translated (`IPS_DST_NAT`).
const DESTINATION_TRANSLATED: u32 = 0x20;

/// The connection came to a floating IP, or to a port that leads elsewhere.
pub fn is_translated() -> Statement {
    let part = KeyPart {
        field: Field::CtStatus,
        mask: Some(DESTINATION_TRANSLATED.to_be_bytes().to_vec()),
    };
    compare(part, Value::U32(DESTINATION_TRANSLATED))
}

pub fn protocol(number: u8) -> Statement {
    compare(Field::L4Proto, Value::U8(number))
}

pub fn name_in(field: Field, set: &str) -> Statement {
    found(vec![field.into()], set.into(), false)
}

pub fn name_not_in(field: Field, set: &str) -> Statement {
    found(vec![field.into()], set.into(), true)
}

pub fn found(key: Vec<KeyPart>, set: SetName, negate: bool) -> Statement {
    Statement::Lookup(Lookup { key, set, negate })
}

/// Whether a packet of that protocol is whole and has no extension headers. Of a packet that is no later fragment.
pub fn is_plain(family: Family, protocol: u8) -> Statement {
    match family {
        Family::V4 => {
            let part = KeyPart {
                field: Field::Ip4Fragment,
                mask: Some(vec![0x3f, 0xff]),
            };
            compare(part, Value::Port(0))
        }
        Family::V6 => compare(Field::Ip6NextHeader, Value::U8(protocol)),
    }
}

pub fn state_in(states: &[CtState]) -> Statement {
    Statement::CtStateIn(states.to_vec())
}

pub fn goto(chain: impl Into<ChainName>) -> Statement {
    Statement::Verdict(Verdict::Goto(chain.into()))
}

pub fn jump(chain: impl Into<ChainName>) -> Statement {
    Statement::Verdict(Verdict::Jump(chain.into()))
}

pub const ACCEPT: Statement = Statement::Verdict(Verdict::Accept);
pub const DROP: Statement = Statement::Verdict(Verdict::Drop);
pub const RETURN: Statement = Statement::Verdict(Verdict::Return);

pub fn rule(statements: impl Into<Vec<Statement>>) -> NftRule {
    NftRule {
        statements: statements.into(),
        comment: None,
    }
}

pub fn because(statements: impl Into<Vec<Statement>>, comment: impl Into<String>) -> NftRule {
    NftRule {
        statements: statements.into(),
        comment: Some(comment.into()),
    }
}

pub fn chain(name: impl Into<ChainName>, rules: Vec<NftRule>) -> Object {
    let chain = Chain {
        name: name.into(),
        hook: None,
        rules,
    };
    Object::Chain(Netns::Main, chain)
}

pub fn base_chain(name: &str, hook: Hook, priority: i32, rules: Vec<NftRule>) -> Object {
    let chain = Chain {
        name: name.into(),
        hook: Some(ChainHook {
            hook,
            priority,
            policy: match hook {
                Hook::Forward => Policy::Drop,
                _ => Policy::Accept,
            },
            nat: priority == SRCNAT || priority == DSTNAT,
        }),
        rules,
    };
    Object::Chain(Netns::Main, chain)
}

/// Before the kernel puts fragments together, for which it goes by their addresses alone, whoever they are from.
pub const EACH_FRAGMENT: i32 = -450;
/// Before connection tracking.
pub const RAW: i32 = -300;
/// `dstnat`.
pub const DSTNAT: i32 = -100;
/// `filter`.
pub const FILTER: i32 = 0;
/// After `filter`: what is dropped there counts against no limit.
pub const LIMITS: i32 = 10;
/// After the limits: what is dropped is not metered.
pub const METERS: i32 = 20;
/// `srcnat`.
pub const SRCNAT: i32 = 100;

pub fn set(name: impl Into<SetName>, key: impl Into<Vec<KeyType>>) -> Object {
    set_of(name.into(), key.into(), false, None)
}

pub fn verdict_map(name: impl Into<SetName>, key: impl Into<Vec<KeyType>>) -> Object {
    set_of(name.into(), key.into(), true, None)
}

pub fn dynamic_set(name: impl Into<SetName>, key: impl Into<Vec<KeyType>>, size: u32) -> Object {
    set_of(name.into(), key.into(), false, Some(size))
}

/// A map from keys to values.
pub fn data_map(
    name: impl Into<SetName>,
    key: impl Into<Vec<KeyType>>,
    data: impl Into<Vec<KeyType>>,
) -> Object {
    let set = Set {
        name: name.into(),
        key: key.into(),
        verdicts: false,
        data: data.into(),
        dynamic: None,
    };
    Object::Set(Netns::Main, set)
}

fn set_of(name: SetName, key: Vec<KeyType>, verdicts: bool, dynamic: Option<u32>) -> Object {
    let set = Set {
        name,
        key,
        verdicts,
        data: Vec::new(),
        dynamic,
    };
    Object::Set(Netns::Main, set)
}

pub fn element(set: impl Into<SetName>, key: impl Into<Vec<Value>>) -> Object {
    element_of(set.into(), key.into(), None)
}

pub fn map_element(set: impl Into<SetName>, key: impl Into<Vec<Value>>, to: Verdict) -> Object {
    element_of(set.into(), key.into(), Some(to))
}

fn element_of(set: SetName, key: Vec<Value>, verdict: Option<Verdict>) -> Object {
    let data = Vec::new();
    Object::Element(
        Netns::Main,
        Element {
            set,
            key,
            verdict,
            data,
        },
    )
}

/// Where a key of a map leads to.
pub fn data_element(
    set: impl Into<SetName>,
    key: impl Into<Vec<Value>>,
    data: impl Into<Vec<Value>>,
) -> Object {
    let element = Element {
        set: set.into(),
        key: key.into(),
        verdict: None,
        data: data.into(),
    };
    Object::Element(Netns::Main, element)
}

pub fn name_element(set: &str, name: &IfName) -> Object {
    element(set, [Value::IfName(name.clone())])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masks_have_their_first_bits_set() {
        assert_eq!(address_mask(Family::V4, 0), [0, 0, 0, 0]);
        assert_eq!(address_mask(Family::V4, 20), [255, 255, 240, 0]);
        assert_eq!(address_mask(Family::V4, 32), [255; 4]);
        let mask = address_mask(Family::V6, 65);
        assert_eq!(&mask[..9], [255, 255, 255, 255, 255, 255, 255, 255, 128]);
        assert_eq!(&mask[9..], [0; 7]);
    }
}
