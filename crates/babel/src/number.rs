//! Numbers of the protocol: sequence numbers, which wrap; costs and metrics, which may be infinite; intervals, in hundredths of
//! a second; names of routers.

use std::{fmt, time::Duration};

use thiserror::Error;

/// A sequence number, of routes or of Hellos (RFC 8966 §3.2.1). There is no order among all of them, only between two.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Seqno(pub u16);

impl Seqno {
    /// That many later, modulo 65,536.
    #[must_use]
    pub const fn plus(self, n: u16) -> Seqno {
        Seqno(self.0.wrapping_add(n))
    }

    /// How many later than another, modulo 65,536.
    pub const fn since(self, other: Seqno) -> u16 {
        self.0.wrapping_sub(other.0)
    }

    /// Whether it comes after another: by less than half of all numbers.
    pub const fn is_after(self, other: Seqno) -> bool {
        let since = self.since(other);
        since != 0 && since < 0x8000
    }
}

impl fmt::Display for Seqno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A link's cost or a route's metric (RFC 8966 §3.5.2): the lower, the better.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Metric(pub u16);

impl Metric {
    /// The destination is reached at no cost: it is here.
    pub const ZERO: Metric = Metric(0);
    /// There is no way; a route with it is a retraction.
    pub const INFINITE: Metric = Metric(0xffff);

    /// Added to a link, more than nearly any way besides costs, and little enough that several such links are one.
    pub const DRAIN: Metric = Metric(8_192);

    /// Whether there is no way.
    pub const fn is_infinite(self) -> bool {
        self.0 == Metric::INFINITE.0
    }

    /// Both together; infinite, if either is, or if they are too much for a number.
    #[must_use]
    pub const fn plus(self, other: Metric) -> Metric {
        Metric(self.0.saturating_add(other.0))
    }
}

impl fmt::Display for Metric {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_infinite() {
            f.pad("infinite")
        } else {
            self.0.fmt(f)
        }
    }
}

impl fmt::Debug for Metric {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// An interval in hundredths of a second (RFC 8966 §4.1.1): 0 to 655.35 s.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Interval(pub u16);

impl Interval {
    /// The longest.
    pub const MAX: Interval = Interval(u16::MAX);

    /// As near to a duration as one gets from above: no promise that is told is then broken by rounding.
    pub fn at_least(duration: Duration) -> Interval {
        let hundredths = duration.as_millis().div_ceil(10);
        u16::try_from(hundredths).map_or(Interval::MAX, Interval)
    }

    /// Its duration.
    pub const fn duration(self) -> Duration {
        Duration::from_millis(self.0 as u64 * 10)
    }
}

/// The name of a router, which is unique in the mesh (RFC 8966 §3, §4.1.3).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RouterId([u8; 8]);

/// All zeros, or all ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("a router-id may be neither all zeros nor all ones")]
pub struct RouterIdError;

impl RouterId {
    /// Before all others, in their order.
    pub const LEAST: RouterId = RouterId([0, 0, 0, 0, 0, 0, 0, 1]);

    /// Its octets.
    pub const fn octets(self) -> [u8; 8] {
        self.0
    }
}

impl TryFrom<[u8; 8]> for RouterId {
    type Error = RouterIdError;

    fn try_from(octets: [u8; 8]) -> Result<RouterId, RouterIdError> {
        match octets {
            [0, 0, 0, 0, 0, 0, 0, 0] | [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff] => {
                Err(RouterIdError)
            }
            octets => Ok(RouterId(octets)),
        }
    }
}

impl fmt::Display for RouterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, octet) in self.0.iter().enumerate() {
            if n > 0 {
                f.write_str(":")?;
            }
            write!(f, "{octet:02x}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for RouterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn later_is_what_is_less_than_half_a_turn_ahead() {
        for (of, than, is_after) in [
            (1, 0, true),
            (0, 0, false),
            (0, 1, false),
            (0, 65_535, true),
            (0x7fff, 0, true),
            (0x8000, 0, false),
            (0, 0x8000, false),
            (0, 0x8001, true),
        ] {
            assert_eq!(Seqno(of).is_after(Seqno(than)), is_after, "{of} {than}");
        }
        assert_eq!(Seqno(65_535).plus(2), Seqno(1));
    }

    #[test]
    fn metrics_add_up_to_infinity() {
        assert_eq!(Metric(1).plus(Metric(2)), Metric(3));
        for (one, other) in [(0xfffe, 1), (0xffff, 0), (0x8000, 0x8000)] {
            assert!(Metric(one).plus(Metric(other)).is_infinite());
        }
        assert!(!Metric(0xfffe).is_infinite());
    }

    #[test]
    fn an_interval_is_never_shorter_than_what_it_says() {
        for (millis, hundredths) in [
            (0, 0),
            (1, 1),
            (10, 1),
            (11, 2),
            (4_000, 400),
            (655_350, 65_535),
            (700_000, 65_535),
        ] {
            let interval = Interval::at_least(Duration::from_millis(millis));
            assert_eq!(interval, Interval(hundredths), "{millis}");
        }
        assert_eq!(Interval(250).duration(), Duration::from_millis(2_500));
    }

    #[test]
    fn a_router_has_a_name() {
        assert_eq!(RouterId::try_from([0; 8]), Err(RouterIdError));
        assert_eq!(RouterId::try_from([0xff; 8]), Err(RouterIdError));
        let id = RouterId::try_from([0, 1, 2, 3, 4, 5, 6, 0xff]).map(|id| id.to_string());
        assert_eq!(id.as_deref(), Ok("00:01:02:03:04:05:06:ff"));
    }
}
