//! The search for a peer that may be at several addresses, behind devices that let in only what answers: both ends send the first message of
//! a handshake to all addresses of the other, until one is heard.
//!
//! The same octets go out again and again for a second, since the first of them may only open the way for the other end's; an answer to
//! any is an answer to all. Decides only: time is given, and others send.

use std::time::{Duration, Instant};

use hextet_types::Way;

use crate::session::HANDSHAKE;

/// Addresses at most.
pub const MAX_CANDIDATES: usize = 8;
/// Between two of the same octets.
const GAP: Duration = Duration::from_millis(50);
/// How often they go out after the first time.
const REPEATS: u8 = 19;
/// A peer that was there is searched for when it has not answered for so long.
const PATIENCE: Duration = Duration::from_secs(15);

/// Where a peer may be, and what is known about it.
#[derive(Debug, Default)]
pub struct Search {
    candidates: Vec<Way>,
    found: bool,
    /// Since when it has been asked, and not heard.
    asked: Option<Instant>,
    repeated: Option<Repeated>,
}

#[derive(Debug)]
struct Repeated {
    message: [u8; HANDSHAKE],
    next: Instant,
    left: u8,
}

impl Search {
    /// The peer may be at these, and is not found yet.
    pub fn new(candidates: Vec<Way>) -> Search {
        Search {
            candidates,
            ..Search::default()
        }
    }

    /// It may be elsewhere. One that is there is not disturbed.
    pub fn replace(&mut self, candidates: Vec<Way>) {
        self.candidates = candidates;
        self.repeated = None;
    }

    /// Where it may be.
    pub fn candidates(&self) -> &[Way] {
        &self.candidates
    }

    /// Whether all addresses are tried.
    pub const fn is_on(&self) -> bool {
        !self.candidates.is_empty() && !self.found
    }

    /// A handshake's first message is about to be sent: whether to all candidates.
    pub fn greets(&mut self, message: &[u8], now: Instant) -> bool {
        let since = *self.asked.get_or_insert(now);
        let lost = now.saturating_duration_since(since) >= PATIENCE;
        if self.candidates.is_empty() || self.found && !lost {
            return false;
        }
        // Until it is heard, as if it had never been.
        self.found = false;
        let left = self.repeated.as_ref().map_or(REPEATS, |before| before.left);
        if let Ok(message) = message.try_into() {
            let next = now + GAP;
            self.repeated = Some(Repeated {
                message,
                next,
                left,
            });
        }
        true
    }

    /// What is to go to all candidates now.
    pub fn repeats(&mut self, now: Instant) -> Option<[u8; HANDSHAKE]> {
        let repeated = self.repeated.as_mut()?;
        if repeated.left == 0 || now < repeated.next {
            return None;
        }
        repeated.left -= 1;
        repeated.next = now + GAP;
        Some(repeated.message)
    }

    /// When something is to go out next.
    pub fn next(&self) -> Option<Instant> {
        let repeated = self.repeated.as_ref()?;
        (repeated.left > 0).then_some(repeated.next)
    }

    /// The peer has been heard.
    pub fn heard(&mut self) {
        self.found = true;
        self.asked = None;
        self.repeated = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn searching() -> (Search, Instant) {
        let candidates = vec!["192.0.2.1:1".parse().unwrap()];
        (Search::new(candidates), Instant::now())
    }

    /// The milliseconds at which something goes out again.
    fn repeats(search: &mut Search, began: Instant) -> Vec<u64> {
        let mut at = Vec::new();
        while let Some(next) = search.next() {
            assert_eq!(search.repeats(next - Duration::from_millis(1)), None);
            assert!(search.repeats(next).is_some());
            at.push((next - began).as_millis() as u64);
        }
        at
    }

    #[test]
    fn the_first_message_goes_out_for_a_second_and_later_ones_once() {
        let (mut search, began) = searching();
        assert!(search.is_on());
        assert!(search.greets(&[1; HANDSHAKE], began));
        let at = repeats(&mut search, began);
        assert_eq!((at.len(), at[0], at[18]), (19, 50, 950));
        for seconds in [5, 10, 15, 20] {
            let now = began + Duration::from_secs(seconds);
            assert!(search.greets(&[2; HANDSHAKE], now));
            assert_eq!(search.next(), None);
        }
    }

    #[test]
    fn who_was_found_is_searched_for_again_after_a_quarter_of_a_minute() {
        let (mut search, began) = searching();
        search.greets(&[1; HANDSHAKE], began);
        search.heard();
        assert!(!search.is_on() && search.next().is_none());
        for (seconds, to_all) in [(100, false), (105, false), (110, false), (115, true)] {
            let now = began + Duration::from_secs(seconds);
            assert_eq!(search.greets(&[2; HANDSHAKE], now), to_all, "{seconds}");
        }
        assert!(search.is_on());
        assert_eq!(repeats(&mut search, began).len(), 19);
        assert!(search.greets(&[3; HANDSHAKE], began + Duration::from_secs(120)));
        assert_eq!(search.next(), None);
        search.heard();
        assert!(!search.greets(&[4; HANDSHAKE], began + Duration::from_secs(300)));
    }

    #[test]
    fn without_candidates_nothing_is_searched_for_and_new_ones_are_tried_at_once() {
        let (mut search, began) = searching();
        let mut none = Search::new(Vec::new());
        assert!(!none.greets(&[1; HANDSHAKE], began) && !none.is_on());
        search.greets(&[1; HANDSHAKE], began);
        repeats(&mut search, began);
        search.replace(vec!["[2001:db8::1]:1".parse().unwrap()]);
        assert!(search.greets(&[2; HANDSHAKE], began + Duration::from_secs(7)));
        assert_eq!(repeats(&mut search, began).len(), 19);
    }
}
