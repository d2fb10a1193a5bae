//! Address families and prefixes.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    str::FromStr,
};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// IPv4 or IPv6; code that is about one is written over this.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// Both, in the order in which we list them.
    pub const BOTH: [Family; 2] = [Family::V4, Family::V6];

    /// The family of an address.
    pub const fn of(addr: IpAddr) -> Family {
        match addr {
            IpAddr::V4(_) => Family::V4,
            IpAddr::V6(_) => Family::V6,
        }
    }

    /// Bits in an address: 32 or 128.
    pub const fn bits(self) -> u8 {
        match self {
            Family::V4 => 32,
            Family::V6 => 128,
        }
    }

    /// `0.0.0.0` or `::`.
    pub const fn unspecified(self) -> IpAddr {
        match self {
            Family::V4 => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            Family::V6 => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        }
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Family::V4 => "IPv4",
            Family::V6 => "IPv6",
        })
    }
}

/// A prefix of either family; bits behind its length are always zero.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Prefix(IpNet);

/// A text that is no prefix, or a length that does not fit its family.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("'{0}' is no prefix: an address, '/' and a length, as in 2001:db8::/64 or 192.0.2.0/24")]
pub struct PrefixError(String);

#[expect(
    clippy::len_without_is_empty,
    reason = "a prefix always holds at least one address"
)]
impl Prefix {
    /// The prefix of `len` bits that `addr` lies in; bits behind the length are cleared.
    ///
    /// # Errors
    ///
    /// `len` is longer than the family's addresses.
    pub fn new(addr: IpAddr, len: u8) -> Result<Self, PrefixError> {
        IpNet::new(addr, len)
            .map(|net| Prefix(net.trunc()))
            .map_err(|_| PrefixError(format!("{addr}/{len}")))
    }

    /// The host route: /32 or /128.
    pub fn host(addr: IpAddr) -> Self {
        Prefix(IpNet::from(addr))
    }

    /// `0.0.0.0/0` or `::/0`.
    pub fn default_route(family: Family) -> Self {
        match family {
            Family::V4 => Prefix(IpNet::V4(ipnet::Ipv4Net::default())),
            Family::V6 => Prefix(IpNet::V6(ipnet::Ipv6Net::default())),
        }
    }

    /// The first address, which is the prefix's own bits.
    pub fn addr(self) -> IpAddr {
        self.0.network()
    }

    /// The last address (in IPv4 subnets: the broadcast address).
    pub fn last(self) -> IpAddr {
        self.0.broadcast()
    }

    /// Its length in bits.
    pub fn len(self) -> u8 {
        self.0.prefix_len()
    }

    /// Whether it is a default route.
    pub fn is_default(self) -> bool {
        self.len() == 0
    }

    /// Whether it is one address.
    pub fn is_host(self) -> bool {
        self.len() == self.family().bits()
    }

    /// Its family.
    pub const fn family(self) -> Family {
        match self.0 {
            IpNet::V4(_) => Family::V4,
            IpNet::V6(_) => Family::V6,
        }
    }

    /// The netmask as an address.
    pub fn netmask(self) -> IpAddr {
        self.0.netmask()
    }

    /// Whether the address lies in it; never for the other family.
    pub fn contains(self, addr: IpAddr) -> bool {
        self.0.contains(&addr)
    }

    /// Whether every address of `other` lies in it.
    pub fn covers(self, other: Prefix) -> bool {
        self.0.contains(&other.0)
    }

    /// Whether the two share an address.
    pub fn overlaps(self, other: Prefix) -> bool {
        self.covers(other) || other.covers(self)
    }

    /// The same, as `ipnet` has it.
    pub fn as_ipnet(self) -> IpNet {
        self.0
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Reads `address/length`, or a bare address as its host prefix; clears bits behind the length.
impl FromStr for Prefix {
    type Err = PrefixError;

    fn from_str(s: &str) -> Result<Self, PrefixError> {
        let error = || PrefixError(s.to_owned());
        match s.split_once('/') {
            None => s.parse().map(Prefix::host).map_err(|_| error()),
            Some((addr, len)) if len.bytes().all(|b| b.is_ascii_digit()) => {
                let addr = addr.parse().map_err(|_| error())?;
                Prefix::new(addr, len.parse().map_err(|_| error())?).map_err(|_| error())
            }
            Some(_) => Err(error()),
        }
    }
}

impl TryFrom<String> for Prefix {
    type Error = PrefixError;

    fn try_from(s: String) -> Result<Self, PrefixError> {
        s.parse()
    }
}

impl From<Prefix> for String {
    fn from(prefix: Prefix) -> String {
        prefix.to_string()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn bits_behind_the_length_are_cleared() -> Result<(), PrefixError> {
        assert_eq!(
            "2001:db8::77/64".parse::<Prefix>()?.to_string(),
            "2001:db8::/64"
        );
        assert_eq!("192.0.2.77".parse::<Prefix>()?.to_string(), "192.0.2.77/32");
        assert!(
            "192.0.2.0/24"
                .parse::<Prefix>()?
                .contains("192.0.2.255".parse().unwrap())
        );
        Ok(())
    }

    #[test]
    fn refuses_what_is_no_prefix() {
        for bad in [
            "",
            "/",
            "::/129",
            "1.2.3.4/33",
            "1.2.3.4/+8",
            "1.2.3/8",
            "::/",
            "x/64",
        ] {
            assert!(bad.parse::<Prefix>().is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn text_round_trips(addr: IpAddr, len in 0u8..=128) {
            let len = len % (Family::of(addr).bits() + 1);
            let prefix = Prefix::new(addr, len).unwrap();
            prop_assert!(prefix.contains(addr));
            prop_assert_eq!(prefix.to_string().parse(), Ok(prefix));
        }
    }
}
