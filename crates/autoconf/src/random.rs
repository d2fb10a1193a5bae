//! Numbers that look random and come from a seed: the same seed, the same run.

use std::time::Duration;

/// A splitmix64 sequence: enough to spread timers, not for secrets.
#[derive(Clone, Debug)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) const fn new(seed: u64) -> Self {
        Random(seed)
    }

    /// Between the two, both included.
    pub(crate) fn between(&mut self, shortest: Duration, longest: Duration) -> Duration {
        let span = longest.saturating_sub(shortest).as_millis();
        let millis = (u128::from(self.next()) * (span + 1)) >> 64;
        shortest + Duration::from_millis(u64::try_from(millis).unwrap_or(u64::MAX))
    }

    /// Three, as of a transaction's number.
    pub(crate) const fn octets(&mut self) -> [u8; 3] {
        let [a, b, c, ..] = self.next().to_be_bytes();
        [a, b, c]
    }

    const fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stays_between_the_ends_and_reaches_both() {
        let mut random = Random::new(1);
        let (shortest, longest) = (Duration::from_millis(7), Duration::from_millis(9));
        let mut seen = [0; 3];
        for _ in 0..100 {
            let millis = random.between(shortest, longest).as_millis();
            seen[usize::try_from(millis).unwrap() - 7] += 1;
        }
        assert!(seen.iter().all(|n| *n > 0), "{seen:?}");
        assert_eq!(random.between(longest, longest), longest);
    }
}
