//! Numbers with a meaning: autonomous systems and VXLAN segments.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// A four-octet autonomous system number (RFC 6793).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Asn(pub u32);

impl Asn {
    /// What a two-octet speaker sees of a number that does not fit (RFC 6793 §9).
    pub const TRANS: Asn = Asn(23456);
}

impl fmt::Display for Asn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for Asn {
    type Err = std::num::ParseIntError;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        s.strip_prefix("AS").unwrap_or(s).parse().map(Asn)
    }
}

/// A VXLAN network identifier: 1 to 16,777,215 (RFC 7348 §5).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "u32", into = "u32")]
pub struct Vni(u32);

/// A number that is no VXLAN network identifier.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{0} is no VXLAN network identifier: it lies between 1 and 16777215")]
pub struct VniError(u32);

impl TryFrom<u32> for Vni {
    type Error = VniError;

    fn try_from(value: u32) -> Result<Self, VniError> {
        if (1..1 << 24).contains(&value) {
            Ok(Vni(value))
        } else {
            Err(VniError(value))
        }
    }
}

impl From<Vni> for u32 {
    fn from(vni: Vni) -> u32 {
        vni.0
    }
}

impl fmt::Display for Vni {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vni_is_24_bits_and_not_zero() {
        assert!(Vni::try_from(0).is_err());
        assert!(Vni::try_from(1 << 24).is_err());
        assert_eq!(Vni::try_from(77).map(u32::from), Ok(77));
    }

    #[test]
    fn asn_reads_with_and_without_its_prefix() {
        assert_eq!("AS64512".parse(), Ok(Asn(64512)));
        assert_eq!("4200000000".parse(), Ok(Asn(4_200_000_000)));
    }
}
