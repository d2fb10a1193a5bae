//! Labels: what communities and groups are called. 1 to 32 of `a` to `z`, digits and `-`.

use std::{fmt, str::FromStr};

use hextet_types::octets::Reader;
use thiserror::Error;

use crate::wire::{self, Malformed};

/// Octets in the longest.
pub const MAX_LEN: usize = 32;

/// A checked label.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Label(String);

/// A text that is no label.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("'{0}' is no label: 1 to 32 lower-case letters, digits and '-'")]
pub struct BadLabel(String);

impl Label {
    /// As text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    pub(crate) fn read(reader: &mut Reader<'_>, what: &'static str) -> Result<Self, Malformed> {
        let text = wire::text(reader, what, MAX_LEN)?;
        text.parse().map_err(|_| Malformed::Value(what))
    }

    pub(crate) fn put(&self, out: &mut Vec<u8>) {
        wire::put_text(out, &self.0);
    }
}

impl FromStr for Label {
    type Err = BadLabel;

    fn from_str(text: &str) -> Result<Self, BadLabel> {
        let good = |b: u8| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-');
        if (1..=MAX_LEN).contains(&text.len()) && text.bytes().all(good) {
            return Ok(Label(text.to_owned()));
        }
        Err(BadLabel(text.chars().take(2 * MAX_LEN).collect()))
    }
}

impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_a_label() {
        for good in ["eu", "fr-75", "7", &"x".repeat(32)] {
            assert_eq!(good.parse::<Label>().unwrap().as_str(), good);
        }
        for bad in ["", "EU", "a b", "é", "a/b", "*", &"x".repeat(33)] {
            assert!(bad.parse::<Label>().is_err(), "{bad}");
        }
    }
}
