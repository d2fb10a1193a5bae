//! Address families on the wire, and prefixes as NLRI (RFC 4271 §4.3, RFC 4760 §5).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use hextet_types::{Family, Prefix};
use serde::{Serialize, Serializer};

use super::wire::Reader;

/// SAFI 1: unicast, the only one this speaker has routes of.
pub(crate) const SAFI_UNICAST: u8 = 1;

/// An address family and subsequent family as they stand in messages; any may be received.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Afi {
    /// IANA's address family number: 1 is IPv4, 2 is IPv6.
    pub afi: u16,
    /// Subsequent family: 1 is unicast.
    pub safi: u8,
}

impl Afi {
    /// The unicast family on the wire.
    pub const fn unicast(family: Family) -> Afi {
        let afi = match family {
            Family::V4 => 1,
            Family::V6 => 2,
        };
        Afi {
            afi,
            safi: SAFI_UNICAST,
        }
    }

    /// The family, if it is one of the two that this speaker has.
    pub const fn family(self) -> Option<Family> {
        match (self.afi, self.safi) {
            (1, SAFI_UNICAST) => Some(Family::V4),
            (2, SAFI_UNICAST) => Some(Family::V6),
            _ => None,
        }
    }
}

/// A set of unicast families.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Families(u8);

impl Families {
    /// None.
    pub const NONE: Families = Families(0);
    /// IPv4 and IPv6.
    pub const BOTH: Families = Families(3);

    const fn bit(family: Family) -> u8 {
        match family {
            Family::V4 => 1,
            Family::V6 => 2,
        }
    }

    /// Whether the family is in it.
    pub const fn contains(self, family: Family) -> bool {
        self.0 & Self::bit(family) != 0
    }

    /// Puts a family into it.
    pub const fn insert(&mut self, family: Family) {
        self.0 |= Self::bit(family);
    }

    /// Takes a family out of it.
    pub const fn remove(&mut self, family: Family) {
        self.0 &= !Self::bit(family);
    }

    /// Those in both.
    #[must_use]
    pub const fn intersection(self, other: Families) -> Families {
        Families(self.0 & other.0)
    }

    /// Whether there is none in it.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// How many are in it.
    pub const fn len(self) -> u32 {
        self.0.count_ones()
    }

    /// Those in it, IPv4 first.
    pub fn iter(self) -> impl Iterator<Item = Family> {
        Family::BOTH.into_iter().filter(move |f| self.contains(*f))
    }
}

impl FromIterator<Family> for Families {
    fn from_iter<I: IntoIterator<Item = Family>>(families: I) -> Self {
        let mut set = Families::NONE;
        for family in families {
            set.insert(family);
        }
        set
    }
}

impl Serialize for Families {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.iter())
    }
}

/// Reads one prefix: a length in bits and as many octets as it needs. `None` when the length is
/// longer than the family's addresses or the octets end too early.
pub(crate) fn read_prefix(reader: &mut Reader<'_>, family: Family) -> Option<Prefix> {
    let len = reader.u8()?;
    if len > family.bits() {
        return None;
    }
    let octets = reader.take(usize::from(len).div_ceil(8))?;
    let addr = match family {
        Family::V4 => IpAddr::V4(Ipv4Addr::from(padded::<4>(octets))),
        Family::V6 => IpAddr::V6(Ipv6Addr::from(padded::<16>(octets))),
    };
    Prefix::new(addr, len).ok()
}

/// Reads prefixes up to the end; `None` when one of them is malformed.
pub(crate) fn read_prefixes(octets: &[u8], family: Family) -> Option<Vec<Prefix>> {
    let mut reader = Reader::new(octets);
    let mut prefixes = Vec::with_capacity(octets.len() / 4);
    while !reader.is_empty() {
        prefixes.push(read_prefix(&mut reader, family)?);
    }
    Some(prefixes)
}

/// Octets of a prefix as NLRI.
pub(crate) fn wire_len(prefix: Prefix) -> usize {
    1 + usize::from(prefix.len()).div_ceil(8)
}

pub(crate) fn put_prefix(out: &mut Vec<u8>, prefix: Prefix) {
    out.push(prefix.len());
    let octets = usize::from(prefix.len()).div_ceil(8);
    match prefix.addr() {
        IpAddr::V4(addr) => out.extend(addr.octets().iter().take(octets)),
        IpAddr::V6(addr) => out.extend(addr.octets().iter().take(octets)),
    }
}

fn padded<const N: usize>(octets: &[u8]) -> [u8; N] {
    let mut array = [0; N];
    for (place, octet) in array.iter_mut().zip(octets) {
        *place = *octet;
    }
    array
}
