//! Watching kernels by ICMP echo (RFC 792, RFC 4443 §4): a host whose agent is away still answers.
//!
//! Unlike a session of [`crate::session`] this takes nobody at the other end, crosses routers, and says nothing of a
//! path's other direction. Detection is BFD's: so many probes in a row without an answer. Pure, as the rest of the
//! crate. What always holds: at most [`MAX_WATCHED`] hosts; one probe to each in [`INTERVAL`], an answer or not;
//! an answer counts only from the watched address, with the token that its probes carry.
//!
//! The driver hands in all answers that wait before [`Event::Timer`], or takes its own sleep for the kernel's.

use std::{collections::BTreeMap, net::IpAddr, time::Duration};

use hextet_types::{HostId, Time};

use crate::random::Random;

#[cfg(test)]
mod tests;

/// Hosts that are watched at once; more are left out, the last in the order of names.
pub const MAX_WATCHED: usize = 256;
/// Between two probes, less up to a quarter of it (as RFC 5880 §6.8.7 has it).
pub const INTERVAL: Duration = Duration::from_millis(300);
/// Probes in a row without an answer after which a kernel counts as silent, once it is time for the next.
pub const MISSES: u8 = 3;

/// What the engine is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// These hosts are to be watched, each at its address, and no others.
    Watch(BTreeMap<HostId, IpAddr>),
    /// An echo reply came.
    Answer {
        /// From where.
        from: IpAddr,
        /// What it carried.
        token: u64,
    },
    /// The time that [`Engine::next_wakeup`] named has come. Harmless when it has not.
    Timer,
}

/// What the driver must do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Send an echo request.
    Send {
        /// To where.
        to: IpAddr,
        /// To be carried, and brought back.
        token: u64,
        /// Counts the probes to one host.
        sequence: u16,
    },
    /// A host's kernel answers, for the first time or again, or is silent.
    Changed {
        /// Which.
        host: HostId,
        /// Whether it answers.
        answers: bool,
    },
    /// This host is not watched: there are too many.
    Refused(HostId),
}

#[derive(Clone, Debug)]
struct Watched {
    address: IpAddr,
    token: u64,
    sequence: u16,
    next: Time,
    /// Probes since the last answer.
    unanswered: u8,
    /// None before anything is known: what never answered may never have been there.
    answers: Option<bool>,
}

/// All kernels that a host watches.
#[derive(Clone, Debug)]
pub struct Engine {
    random: Random,
    watched: BTreeMap<HostId, Watched>,
}

impl Engine {
    /// None yet. `seed` is for tokens and jitter: take it from the system's randomness at each start.
    pub const fn new(seed: u64) -> Self {
        Engine {
            random: Random::new(seed),
            watched: BTreeMap::new(),
        }
    }

    /// Takes one event; `now` never goes back.
    pub fn handle(&mut self, event: Event, now: Time) -> Vec<Action> {
        match event {
            Event::Watch(hosts) => self.watch(hosts, now),
            Event::Answer { from, token } => self.answer(from, token).into_iter().collect(),
            Event::Timer => self.timer(now),
        }
    }

    /// When [`Event::Timer`] is due; `None` if nobody is watched.
    pub fn next_wakeup(&self) -> Option<Time> {
        self.watched.values().map(|watched| watched.next).min()
    }

    /// Whether each host's kernel answers, of those of which that is known.
    pub fn known(&self) -> impl Iterator<Item = (&HostId, bool)> {
        let known = self.watched.iter();
        known.filter_map(|(host, watched)| Some((host, watched.answers?)))
    }

    fn watch(&mut self, hosts: BTreeMap<HostId, IpAddr>, now: Time) -> Vec<Action> {
        self.watched
            .retain(|host, watched| hosts.get(host) == Some(&watched.address));
        let mut refused = Vec::new();
        for (nth, (host, address)) in hosts.into_iter().enumerate() {
            if nth >= MAX_WATCHED {
                self.watched.remove(&host);
                refused.push(Action::Refused(host));
                continue;
            }
            let random = &mut self.random;
            self.watched.entry(host).or_insert_with(|| Watched {
                address,
                token: random.next_u64(),
                sequence: 0,
                // So that probes to many do not go out at once.
                next: now + part_of(random.next_u32(), INTERVAL),
                unanswered: 0,
                answers: None,
            });
        }
        refused
    }

    fn answer(&mut self, from: IpAddr, token: u64) -> Option<Action> {
        let is = |watched: &Watched| watched.token == token && watched.address == from;
        let mut all = self.watched.iter_mut();
        let (host, watched) = all.find(|(_, watched)| is(watched))?;
        watched.unanswered = 0;
        let news = watched.answers.replace(true) != Some(true);
        news.then(|| Action::Changed {
            host: host.clone(),
            answers: true,
        })
    }

    fn timer(&mut self, now: Time) -> Vec<Action> {
        let mut actions = Vec::new();
        for (host, watched) in &mut self.watched {
            if now < watched.next {
                continue;
            }
            if watched.unanswered >= MISSES && watched.answers == Some(true) {
                watched.answers = Some(false);
                actions.push(Action::Changed {
                    host: host.clone(),
                    answers: false,
                });
            }
            watched.unanswered = watched.unanswered.saturating_add(1);
            watched.sequence = watched.sequence.wrapping_add(1);
            actions.push(Action::Send {
                to: watched.address,
                token: watched.token,
                sequence: watched.sequence,
            });
            let early = part_of(self.random.next_u32(), INTERVAL / 4);
            watched.next = now + (INTERVAL - early);
        }
        actions
    }
}

/// As large a part of `whole` as `random` is of all numbers.
fn part_of(random: u32, whole: Duration) -> Duration {
    whole.mul_f64(f64::from(random) / (f64::from(u32::MAX) + 1.0))
}
