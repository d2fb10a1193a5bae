//! The table `inet hextet` in the kernel's nf_tables: writing it in atomic transactions, reading it back
//! so that wished and actual compare.
//!
//! The table is not flagged as owned by a socket: it must outlive us.

mod checksum;
mod counter;
mod expr;
mod lower;
mod read;
mod transaction;
mod value;

use hextet_model::state::KeyType;
use hextet_types::Family;

pub use counter::read_counters;
#[cfg(feature = "fuzzing")]
pub use read::read_any;
pub use read::{generation, key_types, read_table, table_use};
pub use transaction::{Change, Exists, delete_table, replace_table, transact};

const NFNL_SUBSYS_NFTABLES: u16 = 10;
const NFPROTO_INET: u8 = 1;
/// `struct nfgenmsg` of the inet family.
const HEADER: [u8; 4] = [NFPROTO_INET, 0, 0, 0];

const fn kind(message: u16) -> u16 {
    (NFNL_SUBSYS_NFTABLES << 8) | message
}

/// Message types, `enum nf_tables_msg_types`.
mod msg {
    pub const NEWTABLE: u16 = super::kind(0);
    pub const GETTABLE: u16 = super::kind(1);
    pub const DELTABLE: u16 = super::kind(2);
    pub const NEWCHAIN: u16 = super::kind(3);
    pub const GETCHAIN: u16 = super::kind(4);
    pub const DELCHAIN: u16 = super::kind(5);
    pub const NEWRULE: u16 = super::kind(6);
    pub const GETRULE: u16 = super::kind(7);
    pub const DELRULE: u16 = super::kind(8);
    pub const NEWSET: u16 = super::kind(9);
    pub const GETSET: u16 = super::kind(10);
    pub const DELSET: u16 = super::kind(11);
    pub const NEWSETELEM: u16 = super::kind(12);
    pub const GETSETELEM: u16 = super::kind(13);
    pub const DELSETELEM: u16 = super::kind(14);
    pub const GETGEN: u16 = super::kind(16);
    pub const NEWOBJ: u16 = super::kind(18);
    pub const GETOBJ: u16 = super::kind(19);
    pub const DELOBJ: u16 = super::kind(20);
}

/// Set flags, `enum nft_set_flags`.
mod set_flag {
    pub const MAP: u32 = 0x8;
    pub const EVAL: u32 = 0x20;
    pub const OBJECT: u32 = 0x40;
}

/// Counters, `NFT_OBJECT_COUNTER`.
const OBJECT_COUNTER: u32 = 1;
/// Limiters, `NFT_OBJECT_LIMIT`.
const OBJECT_LIMIT: u32 = 4;

/// The data type of verdict maps, `NFT_DATA_VERDICT`.
const DATA_VERDICT: u32 = 0xffff_ff00;

/// nft's number for a type; the kernel keeps it for those who list.
fn type_number(kind: KeyType) -> u32 {
    match kind {
        KeyType::NfProto => 2,
        KeyType::Addr(Family::V4) => 7,
        KeyType::Addr(Family::V6) => 8,
        KeyType::EtherAddr => 9,
        KeyType::InetProto => 12,
        KeyType::InetService => 13,
        KeyType::IcmpType(Family::V4) => 14,
        KeyType::Mark => 19,
        KeyType::IcmpType(Family::V6) => 29,
        KeyType::IcmpCode(Family::V4) => 32,
        KeyType::IcmpCode(Family::V6) => 33,
        KeyType::DevGroup => 35,
        KeyType::IfName => 41,
        // Nothing that a register holds.
        KeyType::Limiter => 0,
    }
}

const ALL_TYPES: [KeyType; 13] = [
    KeyType::DevGroup,
    KeyType::NfProto,
    KeyType::Addr(Family::V4),
    KeyType::Addr(Family::V6),
    KeyType::EtherAddr,
    KeyType::InetProto,
    KeyType::InetService,
    KeyType::IcmpType(Family::V4),
    KeyType::Mark,
    KeyType::IcmpType(Family::V6),
    KeyType::IcmpCode(Family::V4),
    KeyType::IcmpCode(Family::V6),
    KeyType::IfName,
];

/// Bits of a type's number in a concatenation (nft's `TYPE_BITS`).
const TYPE_BITS: u32 = 6;

/// A concatenation's type number.
fn key_type_number(key: &[KeyType]) -> u32 {
    key.iter()
        .fold(0, |number, kind| (number << TYPE_BITS) | type_number(*kind))
}

/// The types in a concatenation's number.
fn read_key_type(mut number: u32) -> Option<Vec<KeyType>> {
    let mut key = Vec::new();
    while number != 0 {
        let last = number & ((1 << TYPE_BITS) - 1);
        key.push(*ALL_TYPES.iter().find(|kind| type_number(**kind) == last)?);
        number >>= TYPE_BITS;
    }
    key.reverse();
    Some(key)
}

/// Octets of a whole key.
fn key_len(key: &[KeyType]) -> u32 {
    let octets = match key {
        [one] => value::len_of(*one),
        parts => parts
            .iter()
            .map(|part| value::len_of(*part).next_multiple_of(4))
            .sum(),
    };
    u32::try_from(octets).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn concatenations_read_back_from_their_number() {
        for first in ALL_TYPES {
            assert_eq!(read_key_type(type_number(first)), Some(vec![first]));
            let key = vec![first, KeyType::EtherAddr, KeyType::Mark];
            assert_eq!(read_key_type(key_type_number(&key)), Some(key));
        }
        assert_eq!(read_key_type(63), None);
    }
}
