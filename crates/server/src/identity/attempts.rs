//! How often somebody may fail to log in: a bucket for each name at each address, and for each
//! address. Pure: time comes as an argument.

use std::{
    collections::{HashMap, VecDeque},
    net::IpAddr,
    time::Duration,
};

use hextet_types::Time;

/// Failures within [`WINDOW`] after which a name at an address has to wait.
const PER_NAME: u32 = 10;
/// Failures within [`WINDOW`] after which an address has to wait.
const PER_ADDRESS: u32 = 60;
const WINDOW: Duration = Duration::from_secs(60);
/// Buckets that are remembered; the oldest are forgotten first.
const MAX_BUCKETS: usize = 10_000;

type Who = (IpAddr, Option<String>);

/// The buckets.
#[derive(Debug, Default)]
pub struct Attempts {
    buckets: HashMap<Who, Bucket>,
    /// In the order in which they began.
    order: VecDeque<(Time, Who)>,
}

#[derive(Clone, Copy, Debug)]
struct Bucket {
    began: Time,
    failures: u32,
}

impl Attempts {
    /// Whether that name at that address may try now.
    pub fn may_try(&mut self, address: IpAddr, name: &str, now: Time) -> bool {
        self.forget(now);
        let count = |who: &Who| self.buckets.get(who).map_or(0, |b| b.failures);
        count(&(address, Some(name.to_lowercase()))) < PER_NAME
            && count(&(address, None)) < PER_ADDRESS
    }

    /// Remembers a failure.
    pub fn failed(&mut self, address: IpAddr, name: &str, now: Time) {
        self.forget(now);
        for who in [(address, Some(name.to_lowercase())), (address, None)] {
            let bucket = self.buckets.entry(who.clone()).or_insert_with(|| {
                self.order.push_back((now, who));
                Bucket {
                    began: now,
                    failures: 0,
                }
            });
            bucket.failures = bucket.failures.saturating_add(1);
        }
        while self.buckets.len() > MAX_BUCKETS {
            self.forget_first();
        }
    }

    fn forget(&mut self, now: Time) {
        while self
            .order
            .front()
            .is_some_and(|(began, _)| now - *began > WINDOW)
        {
            self.forget_first();
        }
    }

    fn forget_first(&mut self) {
        if let Some((began, who)) = self.order.pop_front()
            && self.buckets.get(&who).is_some_and(|b| b.began == began)
        {
            self.buckets.remove(&who);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

    #[test]
    fn a_name_waits_after_its_last_failure_and_others_do_not() {
        let mut attempts = Attempts::default();
        let now = Time::from_secs(100);
        for _ in 0..PER_NAME {
            assert!(attempts.may_try(HERE, "ann", now));
            attempts.failed(HERE, "Ann", now);
        }
        assert!(!attempts.may_try(HERE, "ann", now));
        assert!(attempts.may_try(HERE, "bob", now));
        assert!(attempts.may_try([10, 0, 0, 1].into(), "ann", now));
        assert!(attempts.may_try(HERE, "ann", now + WINDOW + Duration::from_secs(1)));
    }

    #[test]
    fn an_address_waits_whatever_names_it_tries() {
        let mut attempts = Attempts::default();
        for n in 0..PER_ADDRESS {
            assert!(attempts.may_try(HERE, &n.to_string(), Time::ZERO));
            attempts.failed(HERE, &n.to_string(), Time::ZERO);
        }
        assert!(!attempts.may_try(HERE, "somebody else", Time::ZERO));
    }

    #[test]
    fn memory_is_bounded() {
        let mut attempts = Attempts::default();
        for n in 0..20_000u32 {
            attempts.failed(IpAddr::V4(n.into()), "x", Time::ZERO);
        }
        assert!(attempts.buckets.len() <= MAX_BUCKETS);
        assert_eq!(attempts.order.len(), attempts.buckets.len());
    }
}
