//! Names of hosts, as certificates and requests have them (RFC 1123 §2.1, RFC 5890 §2.3).

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Of a name, and of each of its parts, in octets (RFC 1035 §2.3.4).
const MAX_NAME: usize = 253;
const MAX_LABEL: usize = 63;

/// A host's name in lower case, without a dot at its end; `*.` stands before those of which any will do.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct HostName(String);

/// No name of a host.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error(
    "'{0}' is no host's name: letters, digits and '-' between dots, up to 63 in each part; write others as xn--…"
)]
pub struct NameError(String);

impl HostName {
    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// That which stands for all names beside it: `*.example` of `shop.example`.
    pub fn any_beside(&self) -> Option<HostName> {
        let (_, rest) = self.0.split_once('.')?;
        Some(HostName(format!("*.{rest}")))
    }
}

impl FromStr for HostName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let name = text.strip_suffix('.').unwrap_or(text);
        let after = name.strip_prefix("*.").unwrap_or(name);
        let fits = |label: &str| {
            let edge = label.starts_with('-') || label.ends_with('-');
            let octet = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
            (1..=MAX_LABEL).contains(&label.len()) && !edge && label.bytes().all(octet)
        };
        if name.len() > MAX_NAME || !after.split('.').all(fits) {
            return Err(NameError(text.chars().take(MAX_NAME).collect()));
        }
        Ok(HostName(name.to_ascii_lowercase()))
    }
}

impl TryFrom<String> for HostName {
    type Error = NameError;

    fn try_from(text: String) -> Result<Self, NameError> {
        text.parse()
    }
}

impl From<HostName> for String {
    fn from(name: HostName) -> String {
        name.0
    }
}

impl fmt::Display for HostName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_lower_case_and_have_no_dot_at_the_end() {
        let name: HostName = "Shop.Example.".parse().unwrap();
        assert_eq!(name.as_str(), "shop.example");
        assert_eq!(name.any_beside().unwrap().as_str(), "*.example");
        assert!("*.shop.example".parse::<HostName>().is_ok());
    }

    #[test]
    fn what_is_no_name_is_refused() {
        let long = "a".repeat(64);
        for bad in [
            "",
            ".",
            "a..b",
            "-a",
            "a-",
            "a b",
            "ä.example",
            "*",
            "a.*.b",
            &long,
            "a/b",
        ] {
            assert!(bad.parse::<HostName>().is_err(), "{bad}");
        }
    }
}
