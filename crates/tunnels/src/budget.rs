//! How much of something there may be each second.

use std::{
    sync::{Mutex, PoisonError},
    time::Instant,
};

/// As many as are granted each second, and as many at once.
#[derive(Debug)]
pub struct Budget {
    each_second: u32,
    left: Mutex<(f64, Instant)>,
}

impl Budget {
    pub fn new(each_second: u32, now: Instant) -> Budget {
        Budget {
            each_second,
            left: Mutex::new((each_second.into(), now)),
        }
    }

    /// Takes one out of it, if there is one.
    pub fn takes(&self, now: Instant) -> bool {
        let mut guard = self.left.lock().unwrap_or_else(PoisonError::into_inner);
        let (left, at) = &mut *guard;
        let granted =
            now.saturating_duration_since(*at).as_secs_f64() * f64::from(self.each_second);
        *left = f64::from(self.each_second).min(*left + granted);
        *at = now.max(*at);
        let takes = *left >= 1.0;
        if takes {
            *left -= 1.0;
        }
        takes
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn no_more_is_granted_than_each_second() {
        let began = Instant::now();
        let budget = Budget::new(10, began);
        let granted = |at: u64| {
            let now = began + Duration::from_millis(at);
            (0..100).filter(|_| budget.takes(now)).count()
        };
        assert_eq!(granted(0), 10);
        assert_eq!(granted(500), 5);
        assert_eq!(granted(60_000), 10);
        assert_eq!(granted(0), 0, "time does not go back");
    }
}
