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
/// Experimental (RFC 8966 §5): one octet, 1 for [`Class::Throughput`](super::Class::Throughput). Who does not know it leaves the whole TLV out.
pub const CLASS: u8 = 240;
pub const THROUGHPUT: u8 = 1;
const MANDATORY: u8 = 0x80;

/// The first of each type that is asked for.
///
/// # Errors
///
/// One must be understood and is not, or is there twice; or they can't be read.
pub fn find<const N: usize>(octets: &[u8], wanted: [u8; N]) -> Result<[Option<&[u8]>; N], ()> {
    let mut walk = Walk::new(octets);
    let mut found = [None; N];
    for (kind, body) in walk.by_ref() {
        let place = wanted.iter().position(|wanted| *wanted == kind);
        match place.and_then(|place| found.get_mut(place)) {
            Some(free @ None) => *free = Some(body),
            _ if kind & MANDATORY != 0 => return Err(()),
            _ => {}
        }
    }
    if walk.is_torn() { Err(()) } else { Ok(found) }
}
