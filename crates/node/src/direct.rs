//! Direct routes: where the host has a way of its own to another node, that the mesh did not give it, the mesh takes over while it fails.
//!
//! A way of the kernel goes before the mesh's if its metric is less, or its prefix longer. It is probed some seven times a second, by its interface,
//! at the first address of the node behind it; pure: [`Direct`] is told what was looked up and what was answered, and says what to ask and what
//! to take over.
//!
//! What always holds: at most [`MAX_DIRECT`] are watched; nothing is taken over that has not answered before, or to which the mesh has no way;
//! what answers again has to do so for a while.

pub mod echo;

use std::{
    collections::{BTreeMap, VecDeque},
    net::IpAddr,
    time::Duration,
};

use hextet_types::{Prefix, Time};

/// Direct routes that are watched.
pub const MAX_DIRECT: usize = 64;
/// From one echo request to the next, unless a round trip takes longer.
const INTERVAL: Duration = Duration::from_millis(150);
/// So many without an answer, and it has failed.
const MISSED: u32 = 3;
/// So many with one, and it is good again.
const ANSWERED: u32 = 12;
/// Requests whose answer is waited for.
const MAX_OPEN: usize = 8;
/// The longest round trip that is reckoned with.
const SLOW: Duration = Duration::from_secs(2);

/// A route that is not the mesh's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Route {
    /// Where to.
    pub to: Prefix,
    /// By which interface.
    pub link: u32,
    /// The way of the mesh that it goes before.
    pub way: Prefix,
    /// An address there that answers.
    pub target: IpAddr,
}

/// What to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Send an echo request by that interface.
    Ask {
        link: u32,
        target: IpAddr,
        number: u16,
    },
    /// The mesh's way is to be taken for this destination, before all others.
    TakeOver { to: Prefix, way: Prefix, link: u32 },
    /// The direct route is good, or gone.
    GiveBack { to: Prefix },
}

#[derive(Clone, Debug)]
struct Watched {
    route: Route,
    /// None until it has answered.
    is_good: Option<bool>,
    next: Time,
    number: u16,
    /// Requests that wait for an answer.
    open: VecDeque<(u16, Time)>,
    missed: u32,
    answered: u32,
    round_trip: Duration,
}

/// All that are watched.
#[derive(Debug, Default)]
pub struct Direct {
    watched: BTreeMap<Prefix, Watched>,
}

impl Direct {
    /// These are there now, and no others.
    pub fn found(&mut self, routes: &[Route], now: Time) -> Vec<Action> {
        let mut actions = Vec::new();
        let before = std::mem::take(&mut self.watched);
        for route in routes.iter().take(MAX_DIRECT) {
            let same = before.get(&route.to).filter(|known| known.route == *route);
            let new = || Watched::new(*route, now);
            self.watched
                .insert(route.to, same.cloned().unwrap_or_else(new));
        }
        for (to, known) in before {
            let stays = self
                .watched
                .get(&to)
                .is_some_and(|now| now.route == known.route);
            if !stays && known.is_good == Some(false) {
                actions.push(Action::GiveBack { to });
            }
        }
        actions
    }

    /// When [`Direct::wake`] is due.
    pub fn next_wakeup(&self) -> Option<Time> {
        self.watched.values().map(|watched| watched.next).min()
    }

    /// Asks whom it is time to ask.
    pub fn wake(&mut self, now: Time) -> Vec<Action> {
        let mut actions = Vec::new();
        for watched in self.watched.values_mut() {
            if watched.next > now {
                continue;
            }
            if !watched.open.is_empty() {
                (watched.missed, watched.answered) = (watched.missed.saturating_add(1), 0);
            }
            if watched.missed >= MISSED && watched.is_good == Some(true) {
                watched.is_good = Some(false);
                let Route { to, link, way, .. } = watched.route;
                actions.push(Action::TakeOver { to, way, link });
            }
            actions.push(watched.ask(now));
        }
        actions
    }

    /// Somebody has answered by that interface.
    pub fn answered(&mut self, link: u32, target: IpAddr, number: u16, now: Time) -> Vec<Action> {
        let mut actions = Vec::new();
        for (to, watched) in &mut self.watched {
            let is_it = (watched.route.link, watched.route.target) == (link, target);
            let place = watched.open.iter().position(|(open, _)| *open == number);
            let Some(place) = place.filter(|_| is_it) else {
                continue;
            };
            let asked = watched
                .open
                .drain(..=place)
                .next_back()
                .map_or(now, |(_, at)| at);
            watched.round_trip = now.saturating_since(asked).min(SLOW);
            (watched.missed, watched.answered) = (0, watched.answered.saturating_add(1));
            match watched.is_good {
                None => watched.is_good = Some(true),
                Some(false) if watched.answered >= ANSWERED => {
                    watched.is_good = Some(true);
                    actions.push(Action::GiveBack { to: *to });
                }
                Some(_) => {}
            }
        }
        actions
    }

    /// All of them, and whether they are good; none of those that never answered.
    pub fn status(&self) -> impl Iterator<Item = (Route, bool)> {
        let watched = self.watched.values();
        watched.filter_map(|watched| Some((watched.route, watched.is_good?)))
    }
}

impl Watched {
    const fn new(route: Route, now: Time) -> Watched {
        Watched {
            route,
            is_good: None,
            next: now,
            number: 0,
            open: VecDeque::new(),
            missed: 0,
            answered: 0,
            round_trip: Duration::ZERO,
        }
    }

    fn ask(&mut self, now: Time) -> Action {
        // A slow answer is waited for.
        self.next = now + (self.round_trip * 2).max(INTERVAL);
        self.number = self.number.checked_add(1).unwrap_or(1);
        self.open.push_back((self.number, now));
        if self.open.len() > MAX_OPEN {
            self.open.pop_front();
        }
        Action::Ask {
            link: self.route.link,
            target: self.route.target,
            number: self.number,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route() -> Route {
        Route {
            to: "2001:db8:1::/64".parse().unwrap(),
            link: 7,
            way: "2001:db8:1::/64".parse().unwrap(),
            target: "2001:db8:1::1".parse().unwrap(),
        }
    }

    /// Lets it run; each question is answered after so long, if at all.
    fn run(
        direct: &mut Direct,
        now: &mut Time,
        duration: Duration,
        answer: Option<Duration>,
    ) -> Vec<(Duration, Action)> {
        let begin = *now;
        let end = begin + duration;
        let mut answers: Vec<(Time, u16)> = Vec::new();
        let mut done = Vec::new();
        loop {
            let wake = direct.next_wakeup();
            let next = answers.iter().map(|(at, _)| *at).chain(wake).min();
            let Some(next) = next.filter(|next| *next <= end) else {
                break;
            };
            *now = next;
            let due = answers.iter().position(|(at, _)| *at <= next);
            let actions = match due.map(|place| answers.remove(place)) {
                Some((_, number)) => direct.answered(7, route().target, number, next),
                None => direct.wake(next),
            };
            for action in actions {
                match (action, answer) {
                    (Action::Ask { number, .. }, Some(after)) => {
                        answers.push((next + after, number))
                    }
                    (Action::Ask { .. }, None) => {}
                    (action, _) => done.push((next.saturating_since(begin), action)),
                }
            }
        }
        *now = end;
        done
    }

    #[test]
    fn what_fails_is_taken_over_within_a_second_and_given_back_when_it_is_good() {
        let (mut direct, mut now) = (Direct::default(), Time::from_secs(1));
        assert_eq!(direct.found(&[route()], now), []);
        let (to, way) = (route().to, route().way);
        for rtt in [1, 100, 400] {
            let slow = Duration::from_millis(rtt);
            let rtt = Some(slow);
            let minute = Duration::from_secs(60);
            assert_eq!(run(&mut direct, &mut now, minute, rtt), []);
            assert_eq!(direct.status().collect::<Vec<_>>(), [(route(), true)]);
            let done = run(&mut direct, &mut now, minute, None);
            let [(after, action)] = done[..] else {
                panic!("{done:?}");
            };
            assert_eq!(action, Action::TakeOver { to, way, link: 7 });
            let limit = Duration::from_secs(1).max(slow * 2 * (MISSED + 1));
            assert!(after <= limit, "{rtt:?}: {after:?}");
            let done = run(&mut direct, &mut now, minute, rtt);
            assert_eq!(done.len(), 1);
            assert_eq!(done[0].1, Action::GiveBack { to });
            assert!(done[0].0 >= INTERVAL * (ANSWERED - 1));
        }
    }

    #[test]
    fn one_lost_answer_is_nothing_and_what_never_answered_is_left_alone() {
        let (mut direct, mut now) = (Direct::default(), Time::from_secs(1));
        direct.found(&[route()], now);
        assert_eq!(
            run(&mut direct, &mut now, Duration::from_secs(60), None),
            []
        );
        assert_eq!(direct.status().count(), 0);
        let quick = Some(Duration::from_millis(1));
        for _ in 0..20 {
            assert_eq!(
                run(&mut direct, &mut now, Duration::from_secs(3), quick),
                []
            );
            assert_eq!(run(&mut direct, &mut now, INTERVAL, None), []);
        }
    }

    #[test]
    fn what_is_gone_is_given_back() {
        let (mut direct, mut now) = (Direct::default(), Time::from_secs(1));
        direct.found(&[route()], now);
        let quick = Some(Duration::from_millis(1));
        run(&mut direct, &mut now, Duration::from_secs(2), quick);
        assert_eq!(
            run(&mut direct, &mut now, Duration::from_secs(2), None).len(),
            1
        );
        let (to, other) = (route().to, Route { link: 8, ..route() });
        assert_eq!(direct.found(&[route()], now), []);
        assert_eq!(direct.found(&[other], now), [Action::GiveBack { to }]);
        assert_eq!(direct.found(&[], now), []);
        assert_eq!(direct.next_wakeup(), None);
    }
}
