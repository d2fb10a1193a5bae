//! Reading and writing octets within bounds.

pub(crate) use hextet_types::octets::{Reader, put_u16, put_u32};

/// Writes a length over the two octets at `at`. Encoders keep every message within 65,535 octets, so
/// the clamp never acts.
pub(crate) fn patch_u16(out: &mut [u8], at: usize, value: usize) {
    let value = u16::try_from(value).unwrap_or(u16::MAX);
    if let Some(place) = out.get_mut(at..at + 2) {
        place.copy_from_slice(&value.to_be_bytes());
    }
}

/// Writes how many octets there are from `from` to the end over the two octets at `at`.
pub(crate) fn patch_len(out: &mut [u8], at: usize, from: usize) {
    let len = out.len().saturating_sub(from);
    patch_u16(out, at, len);
}

/// The length of something whose caller has bounded it to an octet.
pub(crate) fn len_u8(len: usize) -> u8 {
    u8::try_from(len).unwrap_or(u8::MAX)
}
