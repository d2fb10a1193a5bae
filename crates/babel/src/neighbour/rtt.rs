//! How long it takes to a neighbour and back (RFC 9616).
//!
//! The least time of the last minute, since load only ever adds to it: a path that is chosen for being fast then does not lose by
//! being used.

use std::time::Duration;

use hextet_types::Time;

/// Half of the window in which the least counts.
const HALF_WINDOW: Duration = Duration::from_secs(30);
/// What takes longer says more about clocks than about a path.
const LONGEST: u32 = 60_000_000;

/// When four packets were sent and received, in microseconds modulo 2^32, by two clocks of which nothing else is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamps {
    /// Our Hello was sent, by our clock.
    pub origin: u32,
    /// It came there, by the neighbour's.
    pub received: u32,
    /// The neighbour's Hello was sent, by the same.
    pub answered: u32,
    /// It came here, by ours.
    pub now: u32,
}

impl Stamps {
    /// The time on the way; none where one of the clocks has gone backwards, or was not read for long.
    pub fn round_trip(self) -> Option<Duration> {
        let all = self.now.wrapping_sub(self.origin);
        let there = self.answered.wrapping_sub(self.received);
        let sound = all <= LONGEST && there <= LONGEST;
        let micros = all.checked_sub(there).filter(|_| sound)?;
        Some(Duration::from_micros(micros.into()))
    }
}

/// What samples say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rtt {
    least: Option<Duration>,
    /// Of the half before.
    least_before: Option<Duration>,
    half_ends: Time,
    smooth: Option<Smooth>,
}

/// RFC 6298 §2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Smooth {
    mean: Duration,
    variation: Duration,
}

impl Rtt {
    /// Takes one more.
    pub fn take(&mut self, sample: Duration, now: Time) {
        if now >= self.half_ends {
            let has_just_ended = now < self.half_ends + HALF_WINDOW;
            self.least_before = self.least.take().filter(|_| has_just_ended);
            self.half_ends = now + HALF_WINDOW;
        }
        self.least = Some(self.least.map_or(sample, |least| least.min(sample)));
        self.smooth = Some(match self.smooth {
            None => Smooth {
                mean: sample,
                variation: sample / 2,
            },
            Some(Smooth { mean, variation }) => Smooth {
                mean: (mean * 7 + sample) / 8,
                variation: (variation * 3 + mean.abs_diff(sample)) / 4,
            },
        });
    }

    /// The least in half a minute to a minute of samples.
    pub fn least(&self) -> Option<Duration> {
        let both = [self.least, self.least_before];
        both.into_iter().flatten().min()
    }

    /// What it takes now, load included.
    pub fn mean(&self) -> Option<Duration> {
        self.smooth.map(|smooth| smooth.mean)
    }

    /// Who has not answered within this time probably won't (RFC 6298's retransmission timeout, without its floor).
    pub fn patience(&self) -> Option<Duration> {
        let Smooth { mean, variation } = self.smooth?;
        Some(mean + variation * 4)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn stamps(origin: u32, received: u32, answered: u32, now: u32) -> Stamps {
        Stamps {
            origin,
            received,
            answered,
            now,
        }
    }

    #[test]
    fn the_time_at_the_neighbour_s_is_taken_off() {
        for (stamps, micros) in [
            (stamps(100, 5_000, 5_700, 1_000), Some(200)),
            // Both clocks begin anew.
            (stamps(u32::MAX - 99, u32::MAX - 9, 40, 900), Some(950)),
            // More time there than in all.
            (stamps(100, 5_000, 6_000, 1_000), None),
            // Backwards; too long ago.
            (stamps(100, 5_000, 4_999, 1_000), None),
            (stamps(1_000, 5_000, 5_001, 999), None),
            (stamps(0, 0, 0, LONGEST + 1), None),
        ] {
            let expected = micros.map(Duration::from_micros);
            assert_eq!(stamps.round_trip(), expected, "{stamps:?}");
        }
    }

    #[test]
    fn load_does_not_count_and_another_path_does() {
        let mut rtt = Rtt::default();
        assert_eq!((rtt.least(), rtt.patience()), (None, None));
        let mut take = |millis, secs| {
            rtt.take(Duration::from_millis(millis), Time::from_secs(secs));
            rtt.least().map(|least| least.as_millis())
        };
        assert_eq!(take(20, 100), Some(20));
        assert_eq!(take(90, 110), Some(20));
        assert_eq!(take(90, 131), Some(20), "half a window later");
        assert_eq!(take(90, 162), Some(90), "and another");
        assert_eq!(take(30, 163), Some(30));
        assert_eq!(take(90, 300), Some(90), "after a silence");
    }

    #[test]
    fn patience_grows_with_what_varies() {
        let mut rtt = Rtt::default();
        let mut take = |millis| {
            rtt.take(Duration::from_millis(millis), Time::ZERO);
            rtt.patience()
        };
        assert_eq!(take(80), Some(Duration::from_millis(240)));
        assert_eq!(take(80), Some(Duration::from_millis(200)));
        assert_eq!(take(160), Some(Duration::from_millis(90 + 170)));
    }
}
