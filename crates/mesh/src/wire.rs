//! Pieces that several encodings share. What is written here is read back the same, and nothing else is read as that.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use hextet_types::{Family, Prefix, octets::Reader};
use thiserror::Error;

/// Octets that are no encoding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Malformed {
    /// They end too early.
    #[error("{0} is cut short")]
    Short(&'static str),
    /// Something follows the end.
    #[error("octets follow the end")]
    Trailing,
    /// Of a version that this program does not know.
    #[error("version {0} is not known here")]
    Version(u8),
    /// A value that the field can't have, or a second way to write one.
    #[error("{0} has a value that it can't have")]
    Value(&'static str),
}

pub(crate) trait Field: Sized {
    fn need(self, what: &'static str) -> Result<<Self as Field>::Value, Malformed>;
    type Value;
}

impl<T> Field for Option<T> {
    type Value = T;

    fn need(self, what: &'static str) -> Result<T, Malformed> {
        self.ok_or(Malformed::Short(what))
    }
}

pub(crate) fn u64_of(reader: &mut Reader<'_>, what: &'static str) -> Result<u64, Malformed> {
    reader.array().map(u64::from_be_bytes).need(what)
}

/// A count of what follows, within its bound.
pub(crate) fn count(
    reader: &mut Reader<'_>,
    what: &'static str,
    least: usize,
    most: usize,
) -> Result<usize, Malformed> {
    let count = usize::from(reader.u8().need(what)?);
    match (least..=most).contains(&count) {
        true => Ok(count),
        false => Err(Malformed::Value(what)),
    }
}

/// One octet of length, then the text.
pub(crate) fn text<'a>(
    reader: &mut Reader<'a>,
    what: &'static str,
    most: usize,
) -> Result<&'a str, Malformed> {
    let len = count(reader, what, 1, most)?;
    let octets = reader.take(len).need(what)?;
    std::str::from_utf8(octets).map_err(|_| Malformed::Value(what))
}

pub(crate) fn put_text(out: &mut Vec<u8>, text: &str) {
    // Every text has a type that bounds it below this.
    out.push(u8::try_from(text.len()).unwrap_or(u8::MAX));
    out.extend_from_slice(text.as_bytes());
}

pub(crate) fn put_count(out: &mut Vec<u8>, count: usize) {
    out.push(u8::try_from(count).unwrap_or(u8::MAX));
}

/// The length in bits, then as few octets as hold them.
pub(crate) fn put_prefix(out: &mut Vec<u8>, prefix: Prefix) {
    out.push(prefix.len());
    let octets = usize::from(prefix.len().div_ceil(8));
    match prefix.addr() {
        IpAddr::V4(addr) => out.extend(addr.octets().iter().take(octets)),
        IpAddr::V6(addr) => out.extend(addr.octets().iter().take(octets)),
    }
}

pub(crate) fn prefix(
    reader: &mut Reader<'_>,
    family: Family,
    what: &'static str,
) -> Result<Prefix, Malformed> {
    let len = reader.u8().need(what)?;
    if len > family.bits() {
        return Err(Malformed::Value(what));
    }
    let given = reader.take(usize::from(len.div_ceil(8))).need(what)?;
    let mut octets = [0; 16];
    for (to, from) in octets.iter_mut().zip(given) {
        *to = *from;
    }
    let [a, b, c, d, ..] = octets;
    let addr = match family {
        Family::V4 => IpAddr::V4(Ipv4Addr::new(a, b, c, d)),
        Family::V6 => IpAddr::V6(Ipv6Addr::from(octets)),
    };
    match Prefix::new(addr, len) {
        Ok(prefix) if prefix.addr() == addr => Ok(prefix),
        _ => Err(Malformed::Value(what)),
    }
}

/// Whether each is above the one before, so that a set has one order.
pub(crate) fn ascends<T: Ord>(values: &[T]) -> bool {
    values.is_sorted_by(|a, b| a < b)
}
