//! How often a source is answered: at once, but not for ever.

use std::{
    collections::HashMap,
    hash::Hash,
    net::{IpAddr, Ipv6Addr},
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use hextet_types::{Bucket, Time};

/// Sources that are kept in mind.
const MAX_KNOWN: usize = 10_000;

/// A bucket for each of some things.
#[derive(Debug)]
pub struct Pace<K> {
    burst: u32,
    refill: Duration,
    known: Mutex<HashMap<K, (Bucket, Time)>>,
    origin: Instant,
}

impl<K: Eq + Hash> Pace<K> {
    /// So many at once, then one each `refill`.
    pub fn new(burst: u32, refill: Duration) -> Self {
        Pace {
            burst,
            refill,
            known: Mutex::default(),
            origin: Instant::now(),
        }
    }

    /// Whether it may now, which counts.
    pub fn admit(&self, key: K) -> bool {
        self.admit_at(key, Time::ZERO + self.origin.elapsed())
    }

    fn admit_at(&self, key: K, now: Time) -> bool {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= MAX_KNOWN && !known.contains_key(&key) {
            // A bucket that was not asked for so long is full, as a new one is.
            let full = self.refill * self.burst;
            known.retain(|_, (_, last)| now - *last < full);
            if known.len() >= MAX_KNOWN {
                return false;
            }
        }
        let fresh = (Bucket::new(self.burst, self.refill, now), now);
        let (bucket, last) = known.entry(key).or_insert(fresh);
        *last = now;
        bucket.take(now)
    }
}

/// What counts as one source: an IPv4 address, or a /64, since nobody who has one is short of addresses.
pub fn source(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(a) => Ipv6Addr::from_bits(a.to_bits() >> 64 << 64).into(),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_in_mind_is_bounded() {
        let pace = Pace::new(2, Duration::from_secs(1));
        for n in 0..MAX_KNOWN {
            assert!(pace.admit_at(n, Time::ZERO));
        }
        assert!(!pace.admit_at(MAX_KNOWN, Time::ZERO));
        assert!(pace.admit_at(0, Time::ZERO));
        assert!(!pace.admit_at(0, Time::ZERO));
        assert!(pace.admit_at(MAX_KNOWN, Time::from_secs(2)));
        assert_eq!(pace.known.lock().unwrap().len(), 1);
    }

    #[test]
    fn a_network_is_one_source() {
        let of = |text: &str| source(text.parse().unwrap());
        assert_eq!(of("2001:db8::1"), of("2001:db8::2:3:4:5"));
        assert_ne!(of("2001:db8::1"), of("2001:db8:0:1::1"));
        assert_ne!(of("192.0.2.1"), of("192.0.2.2"));
        assert_eq!(of("::ffff:192.0.2.1"), of("192.0.2.1"));
    }
}
