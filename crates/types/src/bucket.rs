//! A token bucket: how often somebody is answered.

use std::time::Duration;

use crate::Time;

/// Holds a burst of tokens; one more comes each refill.
#[derive(Clone, Copy, Debug)]
pub struct Bucket {
    burst: u32,
    refill: Duration,
    /// When it is, or was, full.
    full_at: Time,
}

impl Bucket {
    /// A full one.
    pub const fn new(burst: u32, refill: Duration, now: Time) -> Bucket {
        Bucket {
            burst,
            refill,
            full_at: now,
        }
    }

    /// Takes a token, if there is one.
    pub fn take(&mut self, now: Time) -> bool {
        let full_at = self.full_at.max(now) + self.refill;
        let allowed = full_at - now <= self.refill * self.burst;
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
        const BURST: u32 = 32;
        const REFILL: Duration = Duration::from_millis(100);
        let start = Time::from_secs(5);
        let mut bucket = Bucket::new(BURST, REFILL, start);
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
