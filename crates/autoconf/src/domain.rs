//! Domain names as configuration has them and as DHCP and RA carry them.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::reader::Reader;

/// A domain name: labels of 1 to 63 letters, digits, `-` and `_`, at most 255 octets on the wire
/// (RFC 1035 §2.3.4). A dot at its end may be given and is dropped; it is never the root.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct DomainName(String);

/// A text that is no domain name.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error(
    "'{0}' is no domain name: labels of 1 to 63 letters, digits, '-' and '_', joined by dots, \
     at most 253 characters"
)]
pub struct DomainNameError(String);

impl DomainName {
    /// The name, without a dot at its end.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Octets that [`encode`](Self::encode) appends.
    pub fn encoded_len(&self) -> usize {
        self.0.len() + 2
    }

    /// Appends its labels and the root (RFC 1035 §3.1), uncompressed as RFC 8106 §5.2, RFC 8415 §10
    /// ask for and RFC 3397 allows.
    pub fn encode(&self, out: &mut Vec<u8>) {
        for label in self.0.split('.') {
            out.push(u8::try_from(label.len()).unwrap_or(0));
            out.extend_from_slice(label.as_bytes());
        }
        out.push(0);
    }

    /// Takes one uncompressed name; `None` if it is cut off, compressed, the root, or not what
    /// [`DomainName`] allows.
    pub(crate) fn decode(reader: &mut Reader<'_>) -> Option<DomainName> {
        let mut name = String::new();
        loop {
            let len = usize::from(reader.u8()?);
            if len == 0 {
                return name.parse().ok();
            }
            let label = reader.take(len).filter(|_| len < 64)?;
            if !name.is_empty() {
                name.push('.');
            }
            name.push_str(
                std::str::from_utf8(label)
                    .ok()
                    .filter(|l| !l.contains('.'))?,
            );
            if name.len() > 253 {
                return None;
            }
        }
    }
}

impl FromStr for DomainName {
    type Err = DomainNameError;

    fn from_str(s: &str) -> Result<Self, DomainNameError> {
        let name = s.strip_suffix('.').unwrap_or(s);
        let allowed = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
        let label = |l: &str| (1..=63).contains(&l.len()) && l.bytes().all(allowed);
        if name.len() <= 253 && name.split('.').all(label) {
            Ok(DomainName(name.to_owned()))
        } else {
            Err(DomainNameError(s.to_owned()))
        }
    }
}

impl TryFrom<String> for DomainName {
    type Error = DomainNameError;

    fn try_from(s: String) -> Result<Self, DomainNameError> {
        s.parse()
    }
}

impl From<DomainName> for String {
    fn from(name: DomainName) -> String {
        name.0
    }
}

impl fmt::Display for DomainName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn writes_labels_with_their_lengths() {
        let mut out = Vec::new();
        let name: DomainName = "cloud.example.".parse().unwrap();
        name.encode(&mut out);
        assert_eq!(out, b"\x05cloud\x07example\x00");
        assert_eq!(name.encoded_len(), out.len());
    }

    #[test]
    fn refuses_what_is_no_name() {
        let long = format!("{}.a", "a".repeat(64));
        let longest = vec!["a".repeat(63); 4].join(".");
        for bad in ["", ".", "a..b", ".a", "a b", "é", &long, &longest] {
            assert!(bad.parse::<DomainName>().is_err(), "{bad}");
        }
        assert!(longest[..253].parse::<DomainName>().is_ok());
    }

    #[test]
    fn hostile_names_end() {
        for bad in [
            &b"\x05clou"[..],
            b"\xc0\x00",
            b"\x40",
            b"\x00",
            b"\x03a.b\x00",
            b"\x01\xff\x00",
            b"",
        ] {
            assert_eq!(DomainName::decode(&mut Reader::new(bad)), None, "{bad:?}");
        }
        let endless = b"\x3f".repeat(10_000);
        assert_eq!(DomainName::decode(&mut Reader::new(&endless)), None);
    }

    proptest! {
        #[test]
        fn round_trips(name in "[a-zA-Z0-9_-]{1,63}(\\.[a-zA-Z0-9_-]{1,20}){0,4}") {
            let name: DomainName = name.parse().unwrap();
            let mut out = Vec::new();
            name.encode(&mut out);
            prop_assert_eq!(DomainName::decode(&mut Reader::new(&out)), Some(name));
        }
    }
}
