//! XFRM policies (RFC 4301 §4.4.1) that discard what comes to the host itself with a mark of ours.
//!
//! A policy with a direction of `in` costs forwarded packets nothing: the kernel counts policies by
//! direction, and looks none up where there are none. Ours are told from all others by their mark alone.

use hextet_model::state::{XfrmPolicy, marks};
use hextet_types::Family;

use crate::{
    netlink::{Answer, Attrs, Batch, flags, ne32},
    route::{af, family},
};

const XFRM_MSG_NEWPOLICY: u16 = 0x13;
const XFRM_MSG_DELPOLICY: u16 = 0x14;
const XFRM_MSG_GETPOLICY: u16 = 0x15;
const XFRM_MSG_UPDPOLICY: u16 = 0x19;
const XFRM_MSG_FLUSHPOLICY: u16 = 0x1d;
const XFRMA_TMPL: u16 = 5;
const XFRMA_MARK: u16 = 21;
const XFRMA_IF_ID: u16 = 31;
/// `struct xfrm_selector`, and where it says the family.
const SELECTOR: usize = 56;
const SELECTOR_FAMILY: usize = 40;
/// `struct xfrm_userpolicy_info`, and where its fields are.
const POLICY: usize = 168;
const LIMITS: std::ops::Range<usize> = SELECTOR..SELECTOR + 32;
const PRIORITY: usize = 152;
const INDEX: usize = 156;
const DIRECTION: usize = 160;
const ACTION: usize = 161;
/// `struct xfrm_userpolicy_id`: selector, index, direction.
const POLICY_ID: usize = 64;
const BLOCK: u8 = 1;

/// A policy with a mark of ours, as the kernel has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Its family.
    pub family: Family,
    /// (value, mask).
    pub mark: (u32, u32),
    /// Lower comes first.
    pub priority: u32,
    /// Whether it discards all that comes to the host with that mark.
    pub discards: bool,
    index: u32,
    direction: u8,
}

/// Asks for all policies.
pub fn request_all(batch: &mut Batch) {
    batch.message(XFRM_MSG_GETPOLICY, 0, &[0; POLICY_ID]);
}

/// Reads a policy; none, where it is not ours.
pub fn read(answer: &Answer<'_>) -> Option<Found> {
    if answer.kind != XFRM_MSG_NEWPOLICY {
        return None;
    }
    let head = answer.payload.get(..POLICY)?;
    let attrs = Attrs::after(answer.payload, POLICY);
    let mark = our_mark(attrs)?;
    let of = head.get(SELECTOR_FAMILY).copied()?;
    let selector = head.get(..SELECTOR)?.iter().enumerate();
    let all = selector
        .filter(|(at, _)| *at != SELECTOR_FAMILY)
        .all(|(_, octet)| *octet == 0);
    let plain = attrs.get(XFRMA_TMPL).is_none() && attrs.get(XFRMA_IF_ID).is_none();
    let [direction, action] = [*head.get(DIRECTION)?, *head.get(ACTION)?];
    Some(Found {
        family: family(of)?,
        mark,
        priority: ne32(head.get(PRIORITY..)?)?,
        discards: all && plain && direction == 0 && action == BLOCK,
        index: ne32(head.get(INDEX..)?)?,
        direction,
    })
}

/// Whether a notification may be about a policy of ours.
pub fn concerns_us(answer: &Answer<'_>) -> bool {
    let header = match answer.kind {
        XFRM_MSG_FLUSHPOLICY => return true,
        XFRM_MSG_NEWPOLICY | XFRM_MSG_UPDPOLICY => POLICY,
        XFRM_MSG_DELPOLICY => POLICY_ID,
        _ => return false,
    };
    our_mark(Attrs::after(answer.payload, header)).is_some()
}

/// A mark that looks at our bits and no others.
fn our_mark(attrs: Attrs<'_>) -> Option<(u32, u32)> {
    let mark = attrs.get(XFRMA_MARK)?;
    let (value, mask) = (ne32(mark)?, ne32(mark.get(4..)?)?);
    (mask != 0 && mask & !marks::MASK == 0).then_some((value, mask))
}

/// Adds a policy.
pub fn add(batch: &mut Batch, policy: &XfrmPolicy) {
    let mut header = [0; POLICY];
    header[SELECTOR_FAMILY] = af(policy.family);
    header[LIMITS].fill(0xff);
    header[PRIORITY..INDEX].copy_from_slice(&policy.priority.to_ne_bytes());
    header[ACTION] = BLOCK;
    batch
        .message(XFRM_MSG_NEWPOLICY, flags::EXCL, &header)
        .attr(XFRMA_MARK, &mark_octets(policy.mark));
}

/// Deletes a policy that was found.
pub fn delete(batch: &mut Batch, found: &Found) {
    let mut header = [0; POLICY_ID];
    header[SELECTOR_FAMILY] = af(found.family);
    header[SELECTOR..SELECTOR + 4].copy_from_slice(&found.index.to_ne_bytes());
    header[SELECTOR + 4] = found.direction;
    batch
        .message(XFRM_MSG_DELPOLICY, 0, &header)
        .attr(XFRMA_MARK, &mark_octets(found.mark));
}

fn mark_octets((value, mask): (u32, u32)) -> [u8; 8] {
    let mut octets = [0; 8];
    octets[..4].copy_from_slice(&value.to_ne_bytes());
    octets[4..].copy_from_slice(&mask.to_ne_bytes());
    octets
}

#[cfg(test)]
mod tests {
    use hextet_model::state::Netns;
    use proptest::prelude::*;

    use super::*;

    fn answer(kind: u16, payload: &[u8]) -> Answer<'_> {
        Answer {
            kind,
            flags: 0,
            seq: 0,
            port: 0,
            payload,
        }
    }

    fn policy(mark: (u32, u32)) -> XfrmPolicy {
        XfrmPolicy {
            netns: Netns::Main,
            family: Family::V6,
            mark,
            priority: 7,
        }
    }

    #[test]
    fn a_policy_reads_as_it_was_written_and_foreign_ones_do_not() {
        let ours = (marks::FROM_PORT, marks::FROM_PORT | marks::ADMITTED);
        for (mark, is_ours) in [
            (ours, true),
            ((1, 1), false),
            ((0, u32::MAX), false),
            ((0, 0), false),
        ] {
            let mut batch = Batch::default();
            add(&mut batch, &policy(mark));
            let octets = batch.octets_of_last();
            let found = read(&answer(XFRM_MSG_NEWPOLICY, octets));
            let read_back = found
                .filter(|f| f.discards)
                .map(|f| (f.family, f.mark, f.priority));
            assert_eq!(
                read_back,
                is_ours.then_some((Family::V6, mark, 7)),
                "{mark:?}"
            );
            assert_eq!(concerns_us(&answer(XFRM_MSG_NEWPOLICY, octets)), is_ours);
        }
    }

    proptest! {
        #[test]
        fn no_octets_make_it_panic(kind in 0x10u16..0x20, payload: Vec<u8>) {
            let _ = (read(&answer(kind, &payload)), concerns_us(&answer(kind, &payload)));
        }
    }
}
