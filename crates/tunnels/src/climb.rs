//! When UDP is tried for a peer that is heard by a stream: soon, and then less and less often. Decides only.

use std::time::{Duration, Instant};

const FIRST: Duration = Duration::from_secs(2);
const LONGEST: Duration = Duration::from_secs(60);

/// The next try.
#[derive(Debug, Default)]
pub struct Climb {
    next: Option<(Instant, Duration)>,
}

impl Climb {
    /// Whether it is to be tried now.
    pub fn is_due(&mut self, by_stream: bool, now: Instant) -> bool {
        if !by_stream {
            self.next = None;
            return false;
        }
        let (next, gap) = *self.next.get_or_insert((now + FIRST, FIRST));
        let is_due = now >= next;
        if is_due {
            let gap = (gap * 2).min(LONGEST);
            self.next = Some((now + gap, gap));
        }
        is_due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tries_become_rare_and_begin_anew_with_each_stream() {
        let (mut climb, began) = (Climb::default(), Instant::now());
        let tries = |climb: &mut Climb, from: u64| {
            let due = |secs: &u64| climb.is_due(true, began + Duration::from_secs(*secs));
            (from..from + 300)
                .filter(due)
                .map(|at| at - from)
                .collect::<Vec<_>>()
        };
        let expected: Vec<u64> = vec![2, 6, 14, 30, 62, 122, 182, 242];
        assert_eq!(expected, tries(&mut climb, 0));
        assert!(!climb.is_due(false, began + Duration::from_secs(400)));
        assert_eq!(expected, tries(&mut climb, 500));
    }
}
