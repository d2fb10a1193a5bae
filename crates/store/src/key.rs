//! Keys, ranges of keys, and what is stored under a key.

use std::{fmt, ops::Bound};

use bytes::Bytes;

use crate::{LeaseId, Result, StoreError, limits};

/// A key with its value and its history in numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyValue {
    /// The key; 1 to [`limits::KEY_BYTES`] octets.
    pub key: Bytes,
    /// The value; up to [`limits::VALUE_BYTES`] octets.
    pub value: Bytes,
    /// The revision that made the key (since it was last deleted).
    pub create_revision: u64,
    /// The revision that wrote it last.
    pub mod_revision: u64,
    /// How often it was written since it was made; 1 for a new key.
    pub version: u64,
    /// The lease whose end deletes the key.
    pub lease: Option<LeaseId>,
}

impl KeyValue {
    pub(crate) fn size(&self) -> usize {
        self.key.len() + self.value.len()
    }
}

/// Keys from `start`, up to and without `end`; compared octet by octet.
#[derive(Clone, PartialEq, Eq)]
pub struct KeyRange {
    start: Bytes,
    end: Option<Bytes>,
}

impl KeyRange {
    /// Every key.
    pub fn all() -> Self {
        KeyRange {
            start: Bytes::new(),
            end: None,
        }
    }

    /// One key.
    pub fn key(key: impl Into<Bytes>) -> Self {
        let start = key.into();
        let end = [start.as_ref(), &[0]].concat();
        KeyRange {
            start,
            end: Some(end.into()),
        }
    }

    /// Every key that starts with `prefix`; with an empty one, every key.
    pub fn prefix(prefix: impl Into<Bytes>) -> Self {
        let start = prefix.into();
        let end = start.iter().rposition(|&b| b != 0xff).and_then(|last| {
            let (head, tail) = start.get(..last).zip(start.get(last))?;
            Some([head, &[tail + 1]].concat().into())
        });
        KeyRange { start, end }
    }

    /// Keys from `start`, up to and without `end`. Empty when `end` is not above `start`.
    pub fn between(start: impl Into<Bytes>, end: impl Into<Bytes>) -> Self {
        KeyRange {
            start: start.into(),
            end: Some(end.into()),
        }
    }

    /// Every key from `start`.
    pub fn from(start: impl Into<Bytes>) -> Self {
        KeyRange {
            start: start.into(),
            end: None,
        }
    }

    /// Whether the key lies in the range.
    pub fn contains(&self, key: &[u8]) -> bool {
        key >= self.start.as_ref() && self.end.as_deref().is_none_or(|end| key < end)
    }

    /// The first key that could lie in it.
    pub fn start(&self) -> &Bytes {
        &self.start
    }

    /// The first key behind it; none when it has no upper end.
    pub fn end(&self) -> Option<&Bytes> {
        self.end.as_ref()
    }

    pub(crate) fn bounds(&self) -> (Bound<&[u8]>, Bound<&[u8]>) {
        let end = match self.end.as_deref() {
            // A start above the end would make the tables panic: an empty range instead.
            Some(end) => Bound::Excluded(end.max(self.start.as_ref())),
            None => Bound::Unbounded,
        };
        (Bound::Included(self.start.as_ref()), end)
    }

    pub(crate) fn size(&self) -> usize {
        self.start.len() + self.end.as_ref().map_or(0, Bytes::len)
    }

    /// The end of a range of one key is one octet longer than the key.
    pub(crate) fn check(&self) -> Result<()> {
        let ends = [
            Some((&self.start, 0)),
            self.end.as_ref().map(|end| (end, 1)),
        ];
        for (bound, spare) in ends.into_iter().flatten() {
            if bound.len() > limits::KEY_BYTES + spare {
                return Err(too_long(bound));
            }
        }
        Ok(())
    }
}

impl fmt::Debug for KeyRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{}, ", self.start.escape_ascii())?;
        match &self.end {
            Some(end) => write!(f, "{})", end.escape_ascii()),
            None => f.write_str("∞)"),
        }
    }
}

pub(crate) fn check_key(key: &Bytes) -> Result<()> {
    match key.len() {
        0 => Err(StoreError::KeyEmpty),
        1..=limits::KEY_BYTES => Ok(()),
        _ => Err(too_long(key)),
    }
}

pub(crate) fn check_value(key: &Bytes, value: &Bytes) -> Result<()> {
    if value.len() <= limits::VALUE_BYTES {
        return Ok(());
    }
    Err(StoreError::ValueTooLong {
        key: key.clone(),
        len: value.len(),
    })
}

fn too_long(key: &Bytes) -> StoreError {
    StoreError::KeyTooLong {
        start: key.slice(..key.len().min(32)),
        len: key.len(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_ends_at_the_next_key_that_lacks_it() {
        for (prefix, end) in [
            (&b"a/"[..], Some(&b"a0"[..])),
            (b"a\xff", Some(b"b")),
            (b"\xff\xff", None),
            (b"", None),
        ] {
            assert_eq!(KeyRange::prefix(prefix).end().map(Bytes::as_ref), end);
        }
    }

    #[test]
    fn a_range_holds_its_start_and_not_its_end() {
        let range = KeyRange::between("b", "d");
        for (key, inside) in [("a", false), ("b", true), ("c\u{7f}", true), ("d", false)] {
            assert_eq!(range.contains(key.as_bytes()), inside, "{key}");
        }
        assert!(!KeyRange::between("d", "b").contains(b"c"));
        assert!(!KeyRange::key("a").contains(b"a\0"));
    }

    #[test]
    fn bounds_of_a_range_are_checked_at_the_bound() {
        let longest = vec![b'k'; limits::KEY_BYTES];
        assert!(KeyRange::key(longest.clone()).check().is_ok());
        assert!(check_key(&longest.clone().into()).is_ok());
        let longer = [longest, vec![b'k']].concat();
        assert!(KeyRange::key(longer.clone()).check().is_err());
        assert!(check_key(&longer.into()).is_err());
        assert!(matches!(
            check_key(&Bytes::new()),
            Err(StoreError::KeyEmpty)
        ));
    }
}
