//! Communities: plain (RFC 1997), large (RFC 8092), extended (RFC 4360, opaque to us).

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// A community: 16 bits of AS, 16 bits of meaning.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Community(pub u32);

const NAMES: [(Community, &str); 7] = [
    (Community::GRACEFUL_SHUTDOWN, "graceful-shutdown"),
    (Community::LLGR_STALE, "llgr-stale"),
    (Community::NO_LLGR, "no-llgr"),
    (Community::BLACKHOLE, "blackhole"),
    (Community::NO_EXPORT, "no-export"),
    (Community::NO_ADVERTISE, "no-advertise"),
    (Community::NO_EXPORT_SUBCONFED, "no-export-subconfederation"),
];

impl Community {
    /// The sender is about to go (RFC 8326).
    pub const GRACEFUL_SHUTDOWN: Community = Community(0xffff_0000);
    /// Kept past a restart, to be used last (RFC 9494 §3.3).
    pub const LLGR_STALE: Community = Community(0xffff_0006);
    /// Not to be kept as long-lived stale (RFC 9494 §3.4).
    pub const NO_LLGR: Community = Community(0xffff_0007);
    /// Discard what goes there (RFC 7999).
    pub const BLACKHOLE: Community = Community(0xffff_029a);
    /// Not to other autonomous systems.
    pub const NO_EXPORT: Community = Community(0xffff_ff01);
    /// To nobody.
    pub const NO_ADVERTISE: Community = Community(0xffff_ff02);
    /// Not to other autonomous systems, not even of the confederation.
    pub const NO_EXPORT_SUBCONFED: Community = Community(0xffff_ff03);

    /// `asn:value`.
    pub const fn new(asn: u16, value: u16) -> Self {
        Community((asn as u32) << 16 | value as u32)
    }
}

/// A text that is no community.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("'{0}' is no community: ASN:VALUE as in 64512:100, or a well-known name such as no-export")]
pub struct CommunityError(String);

impl fmt::Display for Community {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match NAMES.iter().find(|(c, _)| c == self) {
            Some((_, name)) => f.write_str(name),
            None => write!(f, "{}:{}", self.0 >> 16, self.0 & 0xffff),
        }
    }
}

impl fmt::Debug for Community {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Community {
    type Err = CommunityError;

    fn from_str(s: &str) -> Result<Self, CommunityError> {
        if let Some((community, _)) = NAMES.iter().find(|(_, name)| *name == s) {
            return Ok(*community);
        }
        let parse = || {
            let (asn, value) = s.split_once(':')?;
            Some(Community::new(asn.parse().ok()?, value.parse().ok()?))
        };
        parse().ok_or_else(|| CommunityError(s.to_owned()))
    }
}

impl TryFrom<String> for Community {
    type Error = CommunityError;

    fn try_from(s: String) -> Result<Self, CommunityError> {
        s.parse()
    }
}

impl From<Community> for String {
    fn from(community: Community) -> String {
        community.to_string()
    }
}

/// A large community: three numbers of 32 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct LargeCommunity {
    /// The AS that gives the rest its meaning.
    pub global: u32,
    /// Usually a function.
    pub data1: u32,
    /// Usually its parameter.
    pub data2: u32,
}

/// An extended community, passed on as it came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ExtendedCommunity(pub [u8; 8]);

impl ExtendedCommunity {
    /// Whether it may leave the AS (RFC 4360 §2, §6).
    pub const fn is_transitive(self) -> bool {
        self.0[0] & 0x40 == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_and_prints_numbers_and_names() -> Result<(), CommunityError> {
        assert_eq!("64512:7".parse::<Community>()?, Community::new(64512, 7));
        assert_eq!("no-export".parse::<Community>()?, Community::NO_EXPORT);
        assert_eq!(Community::BLACKHOLE.to_string(), "blackhole");
        for bad in ["", "1", "1:65536", "70000:1", "a:b", "1:2:3"] {
            assert!(bad.parse::<Community>().is_err(), "{bad}");
        }
        Ok(())
    }
}
