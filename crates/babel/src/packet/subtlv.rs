//! What follows a TLV's fixed part (RFC 8966 §4.4).
//!
//! A type with the first bit set must be understood, or the whole TLV is ignored.

use super::decode::Walk;

/// RFC 9616 §3.
pub const TIMESTAMP: u8 = 3;
/// Experimental (RFC 8966 §5), in acknowledgment requests, of which babeld reads no sub-TLVs: one octet, 1 if the routes of an earlier
/// run are forwarded.
pub const START: u8 = 112;
/// RFC 9079 §5.1.
pub const SOURCE_PREFIX: u8 = 128;
const MANDATORY: u8 = 0x80;

/// The first that is of the type asked for.
///
/// # Errors
///
/// One must be understood and is not, or is there twice; or they can't be read.
pub fn find(octets: &[u8], wanted: u8) -> Result<Option<&[u8]>, ()> {
    let mut walk = Walk::new(octets);
    let mut found = None;
    for (kind, body) in walk.by_ref() {
        let is_first = kind == wanted && found.is_none();
        if is_first {
            found = Some(body);
        } else if kind & MANDATORY != 0 {
            return Err(());
        }
    }
    if walk.is_torn() { Err(()) } else { Ok(found) }
}
