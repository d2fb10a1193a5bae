//! Which of a neighbour's Hellos came: what is known of the way from it (RFC 8966 appendix A.1).
//!
//! Hellos to all and Hellos to us alone have a history each.

use std::time::Duration;

use hextet_types::Time;

use crate::number::{Interval, Seqno};

/// How many are remembered.
const LEN: u16 = 16;
/// A Hello counts as missed when so much of its interval has passed after it was due, in hundredths.
const PATIENCE: u32 = 50;

/// The last Hellos of a series.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct History {
    /// The last one in the lowest bit: 1 if it came.
    came: u16,
    /// Of the next one.
    expected: Option<Seqno>,
    interval: Interval,
    /// When the next one counts as missed.
    deadline: Option<Time>,
}

impl History {
    /// One came. Whether its number is far from the one that was expected: then the neighbour has probably begun anew, and has forgotten
    /// all that it said (RFC 8966 appendix A.1).
    pub fn hear(&mut self, seqno: Seqno, interval: Interval, now: Time) -> bool {
        let ahead = seqno.since(self.expected.unwrap_or(seqno));
        let behind = ahead.wrapping_neg();
        let is_new = ahead > LEN && behind > LEN;
        let undone = 1_u16
            .checked_shl(behind.into())
            .map_or(u16::MAX, |bit| bit - 1);
        if ahead <= LEN {
            self.came = self.came.checked_shl(ahead.into()).unwrap_or(0);
        } else if behind <= LEN && self.came & undone != 0 {
            // Others have overtaken it.
            self.came |= 1 << (behind - 1);
            return false;
        } else if behind <= LEN {
            // It has become slower, and those that we missed were never sent.
            self.came = self.came.checked_shr(behind.into()).unwrap_or(0);
        } else {
            self.came = 0;
        }
        self.came = self.came << 1 | 1;
        self.expected = Some(seqno.plus(1));
        self.interval = interval;
        self.deadline = self.next_deadline(now);
        is_new
    }

    /// Counts what has not come. Nothing, as long as nothing is due.
    pub fn miss(&mut self, now: Time) {
        while let Some(deadline) = self.deadline.filter(|deadline| *deadline <= now) {
            self.came <<= 1;
            self.expected = self.expected.map(|seqno| seqno.plus(1));
            self.deadline = match self.came {
                0 => None,
                _ => Some(deadline + self.interval.duration()),
            };
        }
    }

    /// When to call [`History::miss`].
    pub const fn deadline(&self) -> Option<Time> {
        self.deadline
    }

    /// How many of the last `of` came.
    pub fn came(&self, of: u32) -> u32 {
        let forgotten = u32::from(LEN).saturating_sub(of);
        self.came.checked_shl(forgotten).map_or(0, u16::count_ones)
    }

    /// Whether any that is remembered did.
    pub const fn is_silent(&self) -> bool {
        self.came == 0
    }

    fn next_deadline(&self, now: Time) -> Option<Time> {
        let interval = self.interval.duration();
        let patience = interval * PATIENCE / 100;
        (interval > Duration::ZERO).then(|| now + interval + patience)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Time {
        Time::from_millis(millis)
    }

    fn heard(seqnos: &[u16]) -> History {
        let mut history = History::default();
        for seqno in seqnos {
            let _is_new = history.hear(Seqno(*seqno), Interval(400), at(0));
        }
        history
    }

    #[test]
    fn what_did_not_come_in_between_was_missed() {
        for (seqnos, came) in [
            (&[][..], 0b0),
            (&[7], 0b1),
            (&[7, 8, 9], 0b111),
            (&[7, 9], 0b101),
            (&[65_535, 0], 0b11),
            (&[7, 7 + 16], 1 << 0),
            // Another start.
            (&[7, 8, 100], 0b1),
            (&[100, 101, 7], 0b1),
        ] {
            assert_eq!(heard(seqnos).came, came, "{seqnos:?}");
        }
    }

    #[test]
    fn who_becomes_slower_has_missed_nothing() {
        let mut history = heard(&[7, 8]);
        history.miss(at(6_000));
        history.miss(at(10_000));
        assert_eq!(history.came, 0b1100);
        history.hear(Seqno(9), Interval(2_000), at(10_000));
        assert_eq!(history.came, 0b111);
        assert_eq!(history.deadline(), Some(at(40_000)));
    }

    #[test]
    fn what_is_due_is_missed_once_for_each_interval_until_nothing_is_left() {
        let mut history = heard(&[7]);
        assert_eq!(history.deadline(), Some(at(6_000)));
        history.miss(at(5_999));
        assert_eq!(history.came, 0b1);
        history.miss(at(6_000));
        assert_eq!((history.came, history.deadline()), (0b10, Some(at(10_000))));
        assert_eq!(
            (history.came(1), history.came(2), history.came(3)),
            (0, 1, 1)
        );
        assert_eq!((history.came(0), history.came(99)), (0, 1));
        history.miss(at(1_000_000));
        assert!(history.is_silent());
        assert_eq!(history.deadline(), None);
    }

    #[test]
    fn what_is_not_promised_is_never_missed() {
        let mut history = History::default();
        history.hear(Seqno(1), Interval(0), at(0));
        assert_eq!(history.deadline(), None);
        history.miss(at(1_000_000));
        assert!(!history.is_silent());
    }
}
