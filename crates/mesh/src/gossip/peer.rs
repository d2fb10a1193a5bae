//! What is remembered of one with whom documents may be exchanged.

use std::time::Duration;

use hextet_types::{Bucket, Time};

use crate::letter::Known;

/// Until what somebody lacks is told him again; after so many times twice as long each time, since he may be unable to take it.
const FIRST_WAIT: Duration = Duration::from_millis(200);
const PATIENCE: u32 = 8;
const LAST_WAIT: Duration = Duration::from_secs(60);
/// Answers to one node at once, and how often one more.
const BURST: u32 = 256;
const REFILL: Duration = Duration::from_millis(5);

#[derive(Debug)]
pub struct Peer {
    pub is_neighbour: bool,
    /// By its last letter.
    known: Option<Known>,
    told: Option<Time>,
    /// How often, since something changed.
    times: u32,
    answers: Bucket,
    /// Nothing is fetched from it before.
    shunned: Option<Time>,
    pub heard: Time,
    /// Of what was fetched from it.
    pub round_trip: Option<Duration>,
}

impl Peer {
    pub const fn new(now: Time) -> Peer {
        Peer {
            is_neighbour: false,
            known: None,
            told: None,
            times: 0,
            answers: Bucket::new(BURST, REFILL, now),
            shunned: None,
            heard: now,
            round_trip: None,
        }
    }

    /// It has written, and says to know this.
    pub fn hear(&mut self, known: Known, ours: Known, now: Time) {
        self.heard = now;
        if known == ours || self.known != Some(known) {
            self.times = 0;
        }
        self.known = Some(known);
    }

    /// What is known here has changed.
    pub const fn renew(&mut self) {
        self.told = None;
        self.times = 0;
    }

    pub fn lacks(&self, ours: Known) -> bool {
        self.known != Some(ours)
    }

    /// When it is to be told what is known here.
    pub fn due(&self) -> Option<Time> {
        let doubled = self.times.saturating_sub(PATIENCE).min(8);
        let wait = (FIRST_WAIT * (1 << doubled)).min(LAST_WAIT);
        self.told.map(|told| told + wait)
    }

    pub fn is_due(&self, now: Time) -> bool {
        self.due().is_none_or(|due| due <= now)
    }

    pub const fn tell(&mut self, now: Time) {
        self.times = self.times.saturating_add(1);
        self.told = Some(now);
    }

    /// Whether it may have an answer now.
    pub fn take_answer(&mut self, now: Time) -> bool {
        self.answers.take(now)
    }

    pub fn shun(&mut self, until: Time) {
        self.shunned = self.shunned.max(Some(until));
    }

    pub fn is_shunned(&self, now: Time) -> bool {
        self.shunned.is_some_and(|until| now < until)
    }
}
