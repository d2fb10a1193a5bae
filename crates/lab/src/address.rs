//! An address as an interface has it: with the length of its subnet.

use std::{fmt, net::IpAddr, str::FromStr};

use hextet_types::Family;
use serde::Deserialize;
use thiserror::Error;

/// An address and the length of the subnet it is in; keeps the host's bits, unlike a prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct InterfaceAddress {
    addr: IpAddr,
    len: u8,
}

/// A text that is no interface address.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error(
    "'{0}' is no interface address: an address, '/' and a length, as in 2001:db8::5/64 or 192.0.2.5/24"
)]
pub struct InterfaceAddressError(String);

impl InterfaceAddress {
    /// The address alone.
    pub fn addr(self) -> IpAddr {
        self.addr
    }

    /// Its family.
    pub fn family(self) -> Family {
        Family::of(self.addr)
    }

    /// Whether it is in `fe80::/10`.
    pub fn is_link_local(self) -> bool {
        match self.addr {
            IpAddr::V4(_) => false,
            IpAddr::V6(addr) => addr.is_unicast_link_local(),
        }
    }
}

impl FromStr for InterfaceAddress {
    type Err = InterfaceAddressError;

    fn from_str(s: &str) -> Result<Self, InterfaceAddressError> {
        let parsed = s.split_once('/').and_then(|(addr, len)| {
            let addr: IpAddr = addr.parse().ok()?;
            let len: u8 = len.parse().ok()?;
            (len <= Family::of(addr).bits()).then_some(InterfaceAddress { addr, len })
        });
        parsed.ok_or_else(|| InterfaceAddressError(s.to_owned()))
    }
}

impl TryFrom<String> for InterfaceAddress {
    type Error = InterfaceAddressError;

    fn try_from(s: String) -> Result<Self, InterfaceAddressError> {
        s.parse()
    }
}

impl fmt::Display for InterfaceAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.addr, self.len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hosts_bits_stay() {
        for text in ["192.0.2.5/24", "2001:db8::5/64", "fe80::1/128", "0.0.0.0/0"] {
            assert_eq!(text.parse::<InterfaceAddress>().unwrap().to_string(), text);
        }
        for text in [
            "192.0.2.5",
            "192.0.2.5/33",
            "2001:db8::/129",
            "x/8",
            "1.2.3.4/-1",
            "",
        ] {
            assert!(text.parse::<InterfaceAddress>().is_err(), "{text}");
        }
    }
}
