//! Spread for timers from a seed (RFC 4271 §10): the same seed, the same run.

use std::time::Duration;

/// A splitmix64 sequence; enough for timers, for nothing secret.
#[derive(Clone, Debug)]
pub(crate) struct Jitter(u64);

impl Jitter {
    pub(crate) const fn new(seed: u64) -> Self {
        Jitter(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Between three quarters and the whole of a time.
    pub(crate) fn spread(&mut self, whole: Duration) -> Duration {
        let part = u32::try_from(self.next() % 257).unwrap_or(0);
        whole * (768 + part) / 1024
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lies_between_three_quarters_and_the_whole() {
        let mut jitter = Jitter::new(7);
        let whole = Duration::from_secs(100);
        let spread: Vec<_> = (0..1000).map(|_| jitter.spread(whole)).collect();
        let (least, most) = (spread.iter().min().unwrap(), spread.iter().max().unwrap());
        assert!(*least >= Duration::from_secs(75) && *least < Duration::from_secs(77));
        assert!(*most <= whole && *most > Duration::from_secs(98));
    }
}
