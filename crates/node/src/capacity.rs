//! How much each of several links to one neighbour carries, from what was sent while it was full; and the shares of flows that follow.
//!
//! What always holds: a link that was never seen full counts for as much as the best, so that it gets flows and is found out; and
//! one that counts for less, and is not full while another is, counts for more and more.

use std::{collections::VecDeque, time::Duration};

use hextet_types::Time;

/// What was sent is reckoned over so long.
const WINDOW: Duration = Duration::from_secs(2);
/// A link is full when a round trip takes so much longer than it may.
const QUEUE: Duration = Duration::from_millis(5);
/// Whatever makes round trips long where less than that is sent, in octets per second: it is not what is sent.
const LEAST: f64 = 64_000.0;
/// So often a link that is not full may come to count for twice as much.
const RAISE: Duration = Duration::from_secs(4);
/// For so long, to twice as long, it counts what was seen.
const HALF: Duration = Duration::from_secs(1_800);
/// The best link's weight.
const FULL: f64 = 16.0;

/// Of one link.
#[derive(Clone, Debug, Default)]
pub struct Meter {
    /// How much by when, and whether packets took long then.
    sent: VecDeque<(Time, u64, bool)>,
    is_full: bool,
    raised: Option<Time>,
    /// The most octets per second since that time, and in the half before.
    most: Option<(f64, Time)>,
    most_before: Option<f64>,
}

impl Meter {
    /// So many octets were sent through it in all, and a round trip takes so long, at least and at present.
    pub fn look(&mut self, octets: u64, (least, present): (Duration, Duration), now: Time) {
        if self
            .sent
            .back()
            .is_some_and(|(_, before, _)| octets < *before)
        {
            self.sent.clear();
        }
        let takes_long = present > least + least / 2 + QUEUE;
        self.sent.push_back((now, octets, takes_long));
        while self.sent.get(1).is_some_and(|(at, ..)| *at + WINDOW <= now) {
            self.sent.pop_front();
        }
        self.is_full = false;
        let Some((begin, before, _)) = self.sent.front().copied() else {
            return;
        };
        let span = now.saturating_since(begin);
        if span < WINDOW || !self.sent.iter().all(|(.., long)| *long) {
            return;
        }
        let rate = octets.saturating_sub(before) as f64 / span.as_secs_f64();
        if rate < LEAST {
            return;
        }
        self.is_full = true;
        self.forget(now);
        let since = self.most.map_or(now, |(_, since)| since);
        let most = self.most.map_or(rate, |(most, _)| most.max(rate));
        self.most = Some((most, since));
    }

    /// Whether it has carried all that it can, for some time up to now.
    pub fn is_full(&self) -> bool {
        self.is_full
    }

    /// Another link is full with so many octets per second, and this one is not: it carries more than was seen.
    pub fn raise(&mut self, full: f64, now: Time) {
        let recently = |at: Time| now.saturating_since(at) < RAISE;
        if self.is_full || self.raised.is_some_and(recently) {
            return;
        }
        self.raised = Some(now);
        let more = |most: f64| (2.0 * most).min(full).max(most);
        self.most = self.most.map(|(most, since)| (more(most), since));
        self.most_before = self.most_before.map(more);
    }

    fn forget(&mut self, now: Time) {
        if let Some((most, since)) = self.most
            && now >= since + HALF
        {
            self.most_before = (now < since + 2 * HALF).then_some(most);
            self.most = None;
        }
    }

    /// Octets per second; none where it was not full for long.
    pub fn capacity(&self, now: Time) -> Option<f64> {
        let (most, since) = self.most?;
        let before = self.most_before.filter(|_| now < since + HALF);
        let last = (now < since + 2 * HALF).then_some(most);
        last.into_iter().chain(before).reduce(f64::max)
    }
}

/// The weights of links, 1 to 16.
pub fn weights<'a>(meters: impl Iterator<Item = &'a Meter>, now: Time) -> Vec<u8> {
    let known: Vec<Option<f64>> = meters.map(|meter| meter.capacity(now)).collect();
    let best = known.iter().flatten().copied().fold(0.0, f64::max);
    let weight = |capacity: Option<f64>| match capacity {
        Some(capacity) if best > 0.0 => (capacity / best * FULL).round().clamp(1.0, FULL) as u8,
        _ => FULL as u8,
    };
    known.into_iter().map(weight).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUICK: Duration = Duration::from_millis(10);
    const SLOW: Duration = Duration::from_millis(50);

    /// So many octets a second for ten seconds.
    fn run(meter: &mut Meter, rate: u64, round_trip: Duration, begin: u64) {
        for tenth in 0..100 {
            let now = Time::from_millis(begin * 1_000 + tenth * 100);
            meter.look(begin * rate + tenth * rate / 10, (QUICK, round_trip), now);
        }
    }

    fn both(one: &Meter, other: &Meter, now: u64) -> Vec<u8> {
        weights([one, other].into_iter(), Time::from_secs(now))
    }

    #[test]
    fn shares_follow_what_full_links_carry() {
        let (mut one, mut other) = (Meter::default(), Meter::default());
        assert_eq!(both(&one, &other, 1), [16, 16]);
        // A link that was away: packets are slow, and few.
        let mut away = Meter::default();
        run(&mut away, 1_000, SLOW, 0);
        assert_eq!(away.capacity(Time::from_secs(10)), None);
        // Nothing is known of a link that could carry more.
        run(&mut one, 1_000_000, QUICK, 0);
        assert_eq!(both(&one, &other, 10), [16, 16]);
        run(&mut one, 1_000_000, SLOW, 10);
        assert_eq!(both(&one, &other, 20), [16, 16]);
        run(&mut other, 4_000_000, SLOW, 10);
        assert_eq!(both(&one, &other, 20), [4, 16]);
        // What is less, later, may be all that there was to send.
        run(&mut other, 2_000_000, SLOW, 30);
        assert_eq!(both(&one, &other, 40), [4, 16]);
        // Unless there is never more.
        for begin in [2_000, 4_000, 6_000] {
            run(&mut other, 2_000_000, SLOW, begin);
            run(&mut one, 1_000_000, SLOW, begin);
        }
        assert_eq!(both(&one, &other, 6_010), [8, 16]);
        assert_eq!(both(&one, &other, 16_000), [16, 16], "long ago");
    }

    #[test]
    fn one_that_counts_for_too_little_comes_to_count_for_more() {
        let (mut one, mut other) = (Meter::default(), Meter::default());
        run(&mut one, 4_000_000, SLOW, 0);
        // Packets were slow for another reason than that they were many.
        run(&mut other, 100_000, SLOW, 0);
        assert_eq!(both(&one, &other, 10), [16, 1]);
        assert!(one.is_full() && other.is_full());
        run(&mut other, 200_000, QUICK, 10);
        assert!(!other.is_full());
        let mut weight = 1;
        for second in 20..60 {
            other.raise(4_000_000.0, Time::from_secs(second));
            let now = both(&one, &other, second)[1];
            assert!(now >= weight);
            weight = now;
        }
        assert_eq!(weight, 16);
        // Those that are full know best.
        one.raise(4_000_000.0, Time::from_secs(60));
        assert_eq!(both(&one, &other, 60), [16, 16]);
    }

    #[test]
    fn one_slow_packet_makes_no_full_link() {
        let mut one = Meter::default();
        run(&mut one, 100_000, QUICK, 0);
        one.look(1_100_000, (QUICK, SLOW), Time::from_secs(11));
        assert_eq!(one.capacity(Time::from_secs(11)), None);
        assert!(!one.is_full());
    }

    #[test]
    fn a_process_that_began_anew_is_no_reason_for_anything() {
        let mut one = Meter::default();
        run(&mut one, 1_000_000, QUICK, 100);
        one.look(5, (QUICK, SLOW), Time::from_secs(111));
        assert_eq!(one.capacity(Time::from_secs(111)), None);
    }
}
