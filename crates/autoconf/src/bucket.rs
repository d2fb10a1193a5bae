//! A token bucket: how often a port is answered.

use std::time::Duration;

use hextet_types::Time;

/// Answers in one go.
pub(crate) const BURST: u32 = 32;
/// One more each.
pub(crate) const REFILL: Duration = Duration::from_millis(100);

/// Holds up to [`BURST`] tokens; one more comes each [`REFILL`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bucket {
    /// When it is, or was, full.
    full_at: Time,
}

impl Bucket {
    pub(crate) const fn new(now: Time) -> Bucket {
        Bucket { full_at: now }
    }

    /// Takes a token, if there is one.
    pub(crate) fn take(&mut self, now: Time) -> bool {
        let full_at = self.full_at.max(now) + REFILL;
        let allowed = full_at - now <= REFILL * BURST;
        if allowed {
            self.full_at = full_at;
        }
        allowed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gives_a_burst_and_then_one_for_each_refill() {
        let start = Time::from_secs(5);
        let mut bucket = Bucket::new(start);
        let taken = (0..1_000).filter(|_| bucket.take(start)).count();
        assert_eq!(taken, BURST as usize);
        assert!(!bucket.take(start + (REFILL - Duration::from_nanos(1))));
        assert!(bucket.take(start + REFILL));
        assert!(!bucket.take(start + REFILL));
        let later = start + Duration::from_secs(3_600);
        let taken = (0..1_000).filter(|_| bucket.take(later)).count();
        assert_eq!(taken, BURST as usize);
    }
}
