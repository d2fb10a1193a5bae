//! Ethernet addresses and the IPv6 addresses made from them.

use std::{fmt, net::Ipv6Addr, str::FromStr};

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// A 48-bit Ethernet address.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Mac([u8; 6]);

/// A text that is no Ethernet address.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("'{0}' is no MAC address: six pairs of hexadecimal digits, as in fa:16:3e:00:00:01")]
pub struct MacError(String);

impl Mac {
    /// `ff:ff:ff:ff:ff:ff`.
    pub const BROADCAST: Mac = Mac([0xff; 6]);

    /// The address with these octets.
    pub const fn new(octets: [u8; 6]) -> Self {
        Mac(octets)
    }

    /// Its octets, in the order they are sent.
    pub const fn octets(self) -> [u8; 6] {
        self.0
    }

    /// Whether the group bit is set; broadcast is a group, too.
    pub const fn is_multicast(self) -> bool {
        self.0[0] & 1 == 1
    }

    /// The modified EUI-64 interface identifier (RFC 4291 appendix A).
    pub const fn eui64(self) -> [u8; 8] {
        let m = self.0;
        [m[0] ^ 2, m[1], m[2], 0xff, 0xfe, m[3], m[4], m[5]]
    }

    /// `fe80::` and the EUI-64 identifier (RFC 4862 §5.3).
    pub fn link_local(self) -> Ipv6Addr {
        self.slaac(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0))
    }

    /// The address that SLAAC forms from the upper 64 bits of `prefix` (RFC 4862 §5.5.3).
    pub fn slaac(self, prefix: Ipv6Addr) -> Ipv6Addr {
        let mut octets = prefix.octets();
        octets[8..].copy_from_slice(&self.eui64());
        Ipv6Addr::from(octets)
    }

    /// The Ethernet address of an IPv6 group (RFC 2464 §7).
    pub fn for_ipv6_multicast(group: Ipv6Addr) -> Mac {
        let g = group.octets();
        Mac([0x33, 0x33, g[12], g[13], g[14], g[15]])
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl fmt::Debug for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Mac {
    type Err = MacError;

    fn from_str(s: &str) -> Result<Self, MacError> {
        let error = || MacError(s.to_owned());
        let separator = if s.contains('-') { '-' } else { ':' };
        let mut octets = [0; 6];
        let mut parts = s.split(separator);
        for octet in &mut octets {
            let part = parts.next().ok_or_else(error)?;
            if part.len() != 2 || !part.bytes().all(|b| b.is_ascii_hexdigit()) {
                return Err(error());
            }
            *octet = u8::from_str_radix(part, 16).map_err(|_| error())?;
        }
        if parts.next().is_some() {
            Err(error())
        } else {
            Ok(Mac(octets))
        }
    }
}

impl TryFrom<String> for Mac {
    type Error = MacError;

    fn try_from(s: String) -> Result<Self, MacError> {
        s.parse()
    }
}

impl From<Mac> for String {
    fn from(mac: Mac) -> String {
        mac.to_string()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn slaac_flips_the_universal_bit_and_inserts_fffe() -> Result<(), Box<dyn std::error::Error>> {
        let mac: Mac = "fa:16:3e:aa:bb:cc".parse()?;
        assert_eq!(
            mac.link_local(),
            "fe80::f816:3eff:feaa:bbcc".parse::<Ipv6Addr>()?
        );
        assert_eq!(
            mac.slaac("2001:db8:1:2::".parse()?),
            "2001:db8:1:2:f816:3eff:feaa:bbcc".parse::<Ipv6Addr>()?
        );
        Ok(())
    }

    #[test]
    fn refuses_what_is_no_mac() {
        for bad in [
            "",
            "fa:16:3e:aa:bb",
            "fa:16:3e:aa:bb:cc:dd",
            "fa:16:3e:aa:bb:+c",
            "fa-16:3e:aa:bb:cc",
        ] {
            assert!(bad.parse::<Mac>().is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn text_round_trips(octets: [u8; 6]) {
            prop_assert_eq!(Mac::new(octets).to_string().parse(), Ok(Mac::new(octets)));
        }
    }
}
