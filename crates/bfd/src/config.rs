//! What an operator says about a session, checked.

use std::{fmt, num::NonZeroU8, time::Duration};

use thiserror::Error;

use crate::packet::Micros;

/// Who begins (RFC 5880 §6.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Sends at once, whether or not the peer has been heard. At least one end must be active.
    Active,
    /// Sends nothing before the peer has been heard.
    Passive,
}

/// An interval that we may ask for or offer: whole microseconds, 10 ms to 60 s.
///
/// The lower end bounds our packet rate and the load of a peer's packets; zero, which on the wire
/// switches periodic packets off, is not offered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Interval(Micros);

/// An interval that is too short or too long.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("BFD interval {0:?}: it lies between {min} and {max}", min = Interval::MIN, max = Interval::MAX)]
pub struct IntervalError(Duration);

impl Interval {
    /// 10 ms.
    pub const MIN: Interval = Interval(Micros(10_000));
    /// 60 s.
    pub const MAX: Interval = Interval(Micros(60_000_000));

    /// As it stands in packets.
    pub const fn micros(self) -> Micros {
        self.0
    }
}

impl TryFrom<Duration> for Interval {
    type Error = IntervalError;

    fn try_from(duration: Duration) -> Result<Self, IntervalError> {
        u32::try_from(duration.as_micros())
            .map(|micros| Interval(Micros(micros)))
            .ok()
            .filter(|interval| (Interval::MIN..=Interval::MAX).contains(interval))
            .ok_or(IntervalError(duration))
    }
}

impl fmt::Display for Interval {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What is configured for a session; every field may change while the session lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// Who begins.
    pub role: Role,
    /// The shortest interval at which we like to send while Up. Slower, at least 1 s, otherwise
    /// (RFC 5880 §6.8.3).
    pub desired_min_tx: Interval,
    /// The shortest interval at which the peer may send.
    pub required_min_rx: Interval,
    /// How many of our intervals without a packet mean to the peer that we are lost.
    pub detect_mult: NonZeroU8,
    /// C: this program's BFD lives on when its control plane does not (RFC 5882 §4.3). False for
    /// whatever runs this engine in the process that also speaks the routing protocol.
    pub control_plane_independent: bool,
    /// Administratively up; if false, the session is held in AdminDown and says so.
    pub enabled: bool,
}

impl Default for Config {
    /// Active, enabled, 200 ms both ways, three misses: a loss is seen within 600 ms.
    fn default() -> Self {
        Config {
            role: Role::Active,
            desired_min_tx: Interval(Micros(200_000)),
            required_min_rx: Interval(Micros(200_000)),
            detect_mult: NonZeroU8::MIN.saturating_add(2),
            control_plane_independent: false,
            enabled: true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_end_at_their_bounds() {
        for good in [10_000, 60_000_000] {
            let interval = Interval::try_from(Duration::from_micros(good)).unwrap();
            assert_eq!(interval.micros(), Micros(good as u32));
        }
        for bad in [0, 9_999, 60_000_001, u64::MAX] {
            let error = Interval::try_from(Duration::from_micros(bad)).unwrap_err();
            assert!(
                error.to_string().ends_with("between 10ms and 60s"),
                "{error}"
            );
        }
    }
}
