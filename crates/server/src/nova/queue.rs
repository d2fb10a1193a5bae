//! Events that Nova has not taken yet: which are due, and what follows from its answer. Knows no sockets.
//!
//! An event waits at most once. What Nova does not know (yet) is tried again a few times; a Nova that cannot be
//! reached keeps all of them waiting.

use std::{collections::BTreeMap, time::Duration};

use hextet_types::{PortId, Time};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// Events that wait; beyond it new ones are lost.
pub const MAX_WAITING: usize = 50_000;
/// Events in one request.
pub const BATCH: usize = 100;
/// How often Nova may say that it does not know an event's server.
const ATTEMPTS: u32 = 6;
/// Before the second attempt; doubled for each further one.
const FIRST: Duration = Duration::from_secs(1);
/// The longest wait between two attempts.
const LONGEST: Duration = Duration::from_secs(30);

/// What happened to a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Kind {
    /// An interface of it is there, and its rules stand.
    #[serde(rename = "network-vif-plugged")]
    Plugged,
    /// It is deleted.
    #[serde(rename = "network-vif-deleted")]
    Deleted,
    /// Its addresses are others.
    #[serde(rename = "network-changed")]
    Changed,
}

/// Something that Nova is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Event {
    /// The server that the port is of.
    pub server: Uuid,
    /// The port.
    pub port: PortId,
    /// What happened.
    pub kind: Kind,
}

/// What Nova says to an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It has it.
    Taken,
    /// It does not know the server, or not where it is: it may know soon.
    Unknown,
    /// It does not want it.
    Refused,
    /// Nothing that concerns the event: it could not be asked.
    Silence,
}

#[derive(Clone, Copy, Debug)]
struct Waiting {
    due: Time,
    unknown: u32,
    /// Said again while it was on its way.
    again: bool,
    under_way: bool,
}

/// Events that wait.
#[derive(Debug, Default)]
pub struct Queue {
    waiting: BTreeMap<Event, Waiting>,
    due: BTreeMap<(Time, Event), ()>,
    /// Requests in a row that were not answered.
    silent: u32,
    /// No request before.
    pause: Option<Time>,
}

/// What became of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Nova has it.
    Delivered,
    /// It waits.
    Waits,
    /// It is given up.
    GivenUp,
}

impl Queue {
    /// How many wait.
    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Something has happened; false when it is lost, because too much waits.
    pub fn push(&mut self, event: Event, now: Time) -> bool {
        if let Some(waiting) = self.waiting.get_mut(&event) {
            waiting.again = waiting.under_way;
            return true;
        }
        if self.waiting.len() >= MAX_WAITING {
            return false;
        }
        self.wait(event, now, 0);
        true
    }

    fn wait(&mut self, event: Event, due: Time, unknown: u32) {
        let waiting = Waiting {
            due,
            unknown,
            again: false,
            under_way: false,
        };
        self.waiting.insert(event, waiting);
        self.due.insert((due, event), ());
    }

    /// What goes into a request now; each of these has to be answered by [`Queue::answer`].
    pub fn batch(&mut self, now: Time) -> Vec<Event> {
        if self.pause.is_some_and(|pause| pause > now) {
            return Vec::new();
        }
        let due = self.due.keys().take_while(|(due, _)| *due <= now);
        let batch: Vec<Event> = due.take(BATCH).map(|(_, event)| *event).collect();
        for event in &batch {
            if let Some(waiting) = self.waiting.get_mut(event) {
                self.due.remove(&(waiting.due, *event));
                waiting.under_way = true;
            }
        }
        batch
    }

    /// When [`Queue::batch`] has something, if nothing else happens.
    pub fn next_wakeup(&self) -> Option<Time> {
        let ((due, _), ()) = self.due.first_key_value()?;
        Some((*due).max(self.pause.unwrap_or(*due)))
    }

    /// A request was answered, or was not.
    pub fn answered(&mut self, at_all: bool, now: Time) {
        if at_all {
            (self.silent, self.pause) = (0, None);
        } else {
            self.pause = Some(now + delay(self.silent));
            self.silent = self.silent.saturating_add(1);
        }
    }

    /// What Nova says to an event of a batch.
    pub fn answer(&mut self, event: Event, answer: Answer, now: Time) -> Fate {
        let Some(waiting) = self.waiting.remove(&event) else {
            return Fate::GivenUp;
        };
        let fate = match answer {
            Answer::Taken => Fate::Delivered,
            Answer::Silence => {
                self.wait(event, now, waiting.unknown);
                return Fate::Waits;
            }
            Answer::Unknown if waiting.unknown + 1 < ATTEMPTS => {
                let due = now + delay(waiting.unknown);
                self.wait(event, due, waiting.unknown + 1);
                return Fate::Waits;
            }
            Answer::Unknown | Answer::Refused => Fate::GivenUp,
        };
        if waiting.again {
            self.wait(event, now, 0);
        }
        fate
    }
}

fn delay(before: u32) -> Duration {
    FIRST.saturating_mul(1 << before.min(10)).min(LONGEST)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(n: u128) -> Event {
        Event {
            server: Uuid::from_u128(n),
            port: PortId(Uuid::from_u128(n)),
            kind: Kind::Plugged,
        }
    }

    fn at(secs: u64) -> Time {
        Time::ZERO + Duration::from_secs(secs)
    }

    #[test]
    fn what_nova_does_not_know_is_tried_a_few_times() {
        let mut queue = Queue::default();
        assert!(queue.push(event(1), at(0)));
        let mut now = at(0);
        for wait in [1, 2, 4, 8, 16] {
            assert_eq!(queue.batch(now), [event(1)]);
            assert_eq!(queue.answer(event(1), Answer::Unknown, now), Fate::Waits);
            assert_eq!(queue.batch(now), []);
            now += Duration::from_secs(wait);
            assert_eq!(queue.next_wakeup(), Some(now));
        }
        assert_eq!(queue.batch(now), [event(1)]);
        assert_eq!(queue.answer(event(1), Answer::Unknown, now), Fate::GivenUp);
        assert_eq!((queue.len(), queue.next_wakeup()), (0, None));
    }

    #[test]
    fn a_silent_nova_loses_nothing_and_is_asked_less_and_less() {
        let mut queue = Queue::default();
        queue.push(event(1), at(0));
        let mut now = at(0);
        for wait in [1, 2, 4, 8, 16, 30, 30, 30] {
            assert_eq!(queue.batch(now), [event(1)]);
            queue.answered(false, now);
            assert_eq!(queue.answer(event(1), Answer::Silence, now), Fate::Waits);
            queue.push(event(2), now);
            assert_eq!(queue.batch(now), []);
            now += Duration::from_secs(wait);
            assert_eq!(queue.next_wakeup(), Some(now));
            let both = queue.batch(now);
            assert_eq!(both, [event(1), event(2)]);
            queue.answer(event(2), Answer::Taken, now);
            queue.answer(event(1), Answer::Silence, now);
        }
        queue.batch(now);
        queue.answered(true, now);
        assert_eq!(queue.answer(event(1), Answer::Taken, now), Fate::Delivered);
        queue.push(event(3), now);
        assert_eq!(queue.batch(now), [event(3)]);
    }

    #[test]
    fn an_event_waits_once_and_comes_again_if_it_is_said_under_way() {
        let mut queue = Queue::default();
        queue.push(event(1), at(0));
        queue.push(event(1), at(0));
        assert_eq!(queue.batch(at(0)), [event(1)]);
        assert_eq!(queue.batch(at(0)), []);
        queue.push(event(1), at(0));
        assert_eq!(
            queue.answer(event(1), Answer::Taken, at(1)),
            Fate::Delivered
        );
        assert_eq!(queue.batch(at(1)), [event(1)]);
        assert_eq!(
            queue.answer(event(1), Answer::Refused, at(1)),
            Fate::GivenUp
        );
        assert_eq!(queue.len(), 0);
    }

    #[test]
    fn what_waits_is_bounded_and_goes_in_batches() {
        let mut queue = Queue::default();
        for n in 0..MAX_WAITING {
            assert!(queue.push(event(n as u128), at(0)));
        }
        assert!(!queue.push(event(MAX_WAITING as u128), at(0)));
        assert!(queue.push(event(0), at(0)), "that one waits already");
        let batch = queue.batch(at(0));
        assert_eq!(batch.len(), BATCH);
        for event in batch {
            queue.answer(event, Answer::Taken, at(0));
        }
        assert_eq!(queue.len(), MAX_WAITING - BATCH);
        assert!(queue.push(event(MAX_WAITING as u128), at(0)));
    }
}
