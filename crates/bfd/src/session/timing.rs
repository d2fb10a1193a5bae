//! Which intervals hold, and when the next packet is due (RFC 5880 §6.5, §6.8.2, §6.8.3, §6.8.7).
//!
//! Knows neither states nor packets. What always holds: an interval that the peer counts on is kept
//! until a Poll Sequence has shown that the peer knows the new one; periodic packets are never
//! closer together than three quarters of the interval, and the others are rationed.

use std::{num::NonZeroU8, time::Duration};

use hextet_types::Time;

use crate::{packet::Micros, random::Random};

/// One packet out of turn (a Final, or news) is earned every 10 ms, …
const EXTRA_EVERY: Duration = Duration::from_millis(10);
/// … and at most eight can be saved.
const EXTRA_BURST: u32 = 8;

/// The two intervals that a system states in its packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Intervals {
    pub(super) desired_min_tx: Micros,
    pub(super) required_min_rx: Micros,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Poll {
    Idle,
    Running,
    /// The intervals changed while a Poll Sequence ran: its end proves nothing about the new ones.
    RunningThenAgain,
}

/// What we state and what we act on, which differ while a Poll Sequence runs.
#[derive(Clone, Debug)]
pub(super) struct Timing {
    stated: Intervals,
    in_use: Intervals,
    poll: Poll,
}

impl Timing {
    pub(super) const fn new(intervals: Intervals) -> Self {
        Timing {
            stated: intervals,
            in_use: intervals,
            poll: Poll::Idle,
        }
    }

    pub(super) const fn stated(&self) -> Intervals {
        self.stated
    }

    pub(super) const fn in_use(&self) -> Intervals {
        self.in_use
    }

    pub(super) fn is_polling(&self) -> bool {
        self.poll != Poll::Idle
    }

    /// States other intervals. While Up, sending less often and expecting packets more often wait
    /// for the end of the Poll Sequence that this begins (RFC 5880 §6.8.3).
    pub(super) fn state(&mut self, wanted: Intervals, up: bool) {
        if wanted != self.stated {
            self.stated = wanted;
            self.poll = match self.poll {
                Poll::Idle => Poll::Running,
                Poll::Running | Poll::RunningThenAgain => Poll::RunningThenAgain,
            };
        }
        self.in_use = if up {
            Intervals {
                desired_min_tx: self.in_use.desired_min_tx.min(wanted.desired_min_tx),
                required_min_rx: self.in_use.required_min_rx.max(wanted.required_min_rx),
            }
        } else {
            wanted
        };
    }

    /// A packet with F came (RFC 5880 §6.5).
    pub(super) fn finish_poll(&mut self) {
        match self.poll {
            Poll::Idle => {}
            Poll::Running => {
                self.poll = Poll::Idle;
                self.in_use = self.stated;
            }
            Poll::RunningThenAgain => self.poll = Poll::Running,
        }
    }

    /// There is nobody who could answer.
    pub(super) fn abandon_poll(&mut self) {
        self.poll = Poll::Idle;
    }
}

/// When we sent periodically, when we shall next, and what we may send in between.
#[derive(Clone, Debug)]
pub(super) struct Schedule {
    random: Random,
    fraction: u32,
    start: Time,
    last_periodic: Option<Time>,
    credit: Duration,
    credited: Time,
}

impl Schedule {
    pub(super) fn new(seed: u64, now: Time) -> Self {
        let mut random = Random::new(seed);
        Schedule {
            fraction: random.next_u32(),
            random,
            start: now,
            last_periodic: None,
            credit: EXTRA_EVERY * EXTRA_BURST,
            credited: now,
        }
    }

    /// When the next periodic packet is due. Asked anew at each event, so that a shorter interval
    /// holds at once (RFC 5880 §6.8.3); the jitter of one packet is drawn only once.
    pub(super) fn due(&self, interval: Micros, detect_mult: NonZeroU8) -> Time {
        self.last_periodic.map_or(self.start, |last| {
            last + jittered(interval, detect_mult, self.fraction)
        })
    }

    pub(super) fn sent_periodic(&mut self, now: Time) {
        self.last_periodic = Some(now);
        self.fraction = self.random.next_u32();
    }

    /// Whether a packet may be sent out of turn now; if so, it is counted.
    pub(super) fn take_extra(&mut self, now: Time) -> bool {
        self.credit = (self.credit + (now - self.credited)).min(EXTRA_EVERY * EXTRA_BURST);
        self.credited = now;
        let rest = self.credit.checked_sub(EXTRA_EVERY);
        self.credit = rest.unwrap_or(self.credit);
        rest.is_some()
    }
}

/// 75 % of the interval, and of the part up to 100 % (90 % where one lost packet is a lost peer)
/// the share `fraction` / 2³² (RFC 5880 §6.8.7).
fn jittered(interval: Micros, detect_mult: NonZeroU8, fraction: u32) -> Duration {
    let nanos = u128::from(interval.0) * 1000;
    let room = if detect_mult == NonZeroU8::MIN {
        nanos * 15 / 100
    } else {
        nanos / 4
    };
    let jittered = nanos * 3 / 4 + ((room * u128::from(fraction)) >> 32);
    Duration::from_nanos(u64::try_from(jittered).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn intervals(tx: u32, rx: u32) -> Intervals {
        Intervals {
            desired_min_tx: Micros(tx),
            required_min_rx: Micros(rx),
        }
    }

    #[test]
    fn jitter_ends_at_its_bounds() {
        let millis = |mult, fraction| {
            jittered(Micros(100_000), NonZeroU8::new(mult).unwrap(), fraction).as_micros()
        };
        assert_eq!([millis(3, 0), millis(3, u32::MAX)], [75_000, 99_999]);
        assert_eq!([millis(1, 0), millis(1, u32::MAX)], [75_000, 89_999]);
        let longest = jittered(Micros(u32::MAX), NonZeroU8::MAX, u32::MAX);
        assert!(longest < Micros(u32::MAX).as_duration());
    }

    #[test]
    fn what_a_poll_holds_back_while_up() {
        // (from, to, in use before the Final)
        let cases = [
            (
                intervals(100, 100),
                intervals(500, 100),
                intervals(100, 100),
            ),
            (
                intervals(500, 100),
                intervals(100, 100),
                intervals(100, 100),
            ),
            (
                intervals(100, 500),
                intervals(100, 100),
                intervals(100, 500),
            ),
            (
                intervals(100, 100),
                intervals(100, 500),
                intervals(100, 500),
            ),
        ];
        for (from, to, before) in cases {
            let mut timing = Timing::new(from);
            timing.state(to, true);
            assert_eq!(
                (timing.stated(), timing.in_use()),
                (to, before),
                "{from:?} to {to:?}"
            );
            assert!(timing.is_polling());
            timing.finish_poll();
            assert_eq!(timing.in_use(), to, "{from:?} to {to:?}");
            assert!(!timing.is_polling());
        }
    }

    #[test]
    fn nothing_is_held_back_when_not_up() {
        let mut timing = Timing::new(intervals(100, 500));
        timing.state(intervals(500, 100), false);
        assert_eq!(timing.in_use(), intervals(500, 100));
    }

    #[test]
    fn a_change_during_a_poll_asks_for_another() {
        let mut timing = Timing::new(intervals(100, 100));
        timing.state(intervals(500, 100), true);
        timing.state(intervals(900, 100), true);
        timing.finish_poll();
        assert_eq!(
            timing.in_use(),
            intervals(100, 100),
            "the Final was for 500"
        );
        timing.finish_poll();
        assert_eq!(timing.in_use(), intervals(900, 100));
    }

    #[test]
    fn extra_packets_are_rationed() {
        let mut schedule = Schedule::new(1, Time::ZERO);
        let taken =
            |schedule: &mut Schedule, now| (0..1000).filter(|_| schedule.take_extra(now)).count();
        assert_eq!(taken(&mut schedule, Time::ZERO), 8);
        assert_eq!(taken(&mut schedule, Time::from_millis(9)), 0);
        assert_eq!(taken(&mut schedule, Time::from_millis(25)), 2);
        assert_eq!(taken(&mut schedule, Time::from_secs(9)), 8);
    }
}
