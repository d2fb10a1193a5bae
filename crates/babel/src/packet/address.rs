//! Addresses and prefixes as packets have them, by address encodings (RFC 8966 §4.1.4, RFC 9229).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use hextet_types::{Family, Prefix, octets::Reader};

/// How an address is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Encoding {
    /// 0: none at all.
    Wildcard,
    /// 1: four octets.
    V4,
    /// 2: sixteen.
    V6,
    /// 3: the last eight of fe80::/64.
    LinkLocal,
    /// 4: as 1, of routes whose next hop is one of IPv6.
    V4ViaV6,
}

impl Encoding {
    /// Those that prefixes have.
    pub const OF_PREFIXES: [Encoding; 3] = [Encoding::V4, Encoding::V6, Encoding::V4ViaV6];

    pub const fn of_octet(octet: u8) -> Option<Encoding> {
        match octet {
            0 => Some(Encoding::Wildcard),
            1 => Some(Encoding::V4),
            2 => Some(Encoding::V6),
            3 => Some(Encoding::LinkLocal),
            4 => Some(Encoding::V4ViaV6),
            _ => None,
        }
    }

    pub const fn octet(self) -> u8 {
        match self {
            Encoding::Wildcard => 0,
            Encoding::V4 => 1,
            Encoding::V6 => 2,
            Encoding::LinkLocal => 3,
            Encoding::V4ViaV6 => 4,
        }
    }

    /// The shortest for an address.
    pub fn of_address(addr: IpAddr) -> Encoding {
        match addr {
            IpAddr::V4(_) => Encoding::V4,
            IpAddr::V6(v6) if v6.segments()[..4] == [0xfe80, 0, 0, 0] => Encoding::LinkLocal,
            IpAddr::V6(_) => Encoding::V6,
        }
    }

    /// The family of prefixes with it; none of those that no prefix has.
    pub const fn family(self) -> Option<Family> {
        match self {
            Encoding::V4 | Encoding::V4ViaV6 => Some(Family::V4),
            Encoding::V6 => Some(Family::V6),
            Encoding::Wildcard | Encoding::LinkLocal => None,
        }
    }
}

/// An address; none of the wildcard and where the octets do not suffice.
pub fn read(encoding: Encoding, octets: &mut Reader<'_>) -> Option<IpAddr> {
    match encoding {
        Encoding::Wildcard | Encoding::V4ViaV6 => None,
        Encoding::V4 => octets.array::<4>().map(|a| Ipv4Addr::from(a).into()),
        Encoding::V6 => octets.array::<16>().map(|a| Ipv6Addr::from(a).into()),
        Encoding::LinkLocal => octets.array::<8>().map(|a| {
            let interface = u64::from_be_bytes(a);
            Ipv6Addr::from((0xfe80_u128 << 112) | u128::from(interface)).into()
        }),
    }
}

pub fn put(out: &mut Vec<u8>, encoding: Encoding, addr: IpAddr) {
    match addr {
        IpAddr::V4(v4) => out.extend(v4.octets()),
        IpAddr::V6(v6) if encoding == Encoding::LinkLocal => out.extend(&v6.octets()[8..]),
        IpAddr::V6(v6) => out.extend(v6.octets()),
    }
}

/// The octets that say a prefix of that length.
pub const fn octets_of(len: u8) -> usize {
    (len as usize).div_ceil(8)
}

/// A prefix, the first octets of which are those of another; none where that is too short, or this too long.
pub fn read_prefix(
    family: Family,
    len: u8,
    omitted: usize,
    base: Option<Prefix>,
    octets: &mut Reader<'_>,
) -> Option<Prefix> {
    if len > family.bits() {
        return None;
    }
    let wanted = octets_of(len).checked_sub(omitted)?;
    let mut whole = [0_u8; 16];
    if omitted > 0 {
        let base = octets_of_addr(base?.addr());
        whole[..omitted].copy_from_slice(base.get(..omitted)?);
    }
    whole[omitted..omitted + wanted].copy_from_slice(octets.take(wanted)?);
    Prefix::new(addr_of(family, whole), len).ok()
}

/// Of a prefix, all but the first `omitted` octets that say it.
pub fn put_prefix(out: &mut Vec<u8>, prefix: Prefix, omitted: usize) {
    let octets = octets_of_addr(prefix.addr());
    out.extend(
        octets
            .get(omitted..octets_of(prefix.len()))
            .unwrap_or_default(),
    );
}

/// How many octets two prefixes begin with alike, of those that say them.
pub fn alike(base: Prefix, prefix: Prefix) -> usize {
    let (one, other) = (octets_of_addr(base.addr()), octets_of_addr(prefix.addr()));
    let said = octets_of(prefix.len().min(base.len()));
    let pairs = one.iter().zip(&other).take(said);
    pairs.take_while(|(a, b)| a == b).count()
}

fn octets_of_addr(addr: IpAddr) -> Vec<u8> {
    match addr {
        IpAddr::V4(v4) => v4.octets().into(),
        IpAddr::V6(v6) => v6.octets().into(),
    }
}

fn addr_of(family: Family, octets: [u8; 16]) -> IpAddr {
    match family {
        Family::V4 => {
            let [a, b, c, d, ..] = octets;
            Ipv4Addr::new(a, b, c, d).into()
        }
        Family::V6 => Ipv6Addr::from(octets).into(),
    }
}
