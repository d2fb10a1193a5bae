//! Routes: what neighbours tell of them, which are gone by, and who must know of it (RFC 8966 §3.5 to §3.7).

use std::{collections::BTreeSet, time::Duration};

use hextet_types::{Family, Prefix, Time};

use super::{Action, Due, Engine, Refusal, send::Haste};
use crate::{
    neighbour::Peer,
    number::{Interval, Metric},
    packet::{Destination, Update},
    source::Distance,
    table::{Choice, Entry, Hold, Route, Told, Way, overdue},
};

/// A metric that has grown by this part is told …
const WORSE: u16 = 8;
/// … and one that has shrunk by this: who tells of less binds himself to it.
const BETTER: u16 = 4;
/// What is gone is unreachable for so many intervals of updates at most, since by then nobody has an older one.
const HELD: u32 = 4;

/// What others and the kernel knew before something happened.
struct Before {
    way: Option<Way>,
    told: Option<Told>,
}

impl Engine {
    pub(super) fn originate(&mut self, to: Destination, metric: Option<Metric>, now: Time) {
        let before = self.before(to);
        let entry = self.table.entry(to).or_default();
        entry.own = metric.filter(|metric| !metric.is_infinite());
        self.settle(to, &before, now);
    }

    pub(super) fn update(&mut self, peer: Peer, update: Update, now: Time) {
        match update {
            Update::Retraction { to: None, .. } => {
                let neighbour = self.neighbours.get(&peer);
                let all = neighbour.map(|neighbour| neighbour.destinations.clone());
                for to in all.unwrap_or_default() {
                    self.remove_route(to, peer, now);
                }
            }
            Update::Retraction { to: Some(to), .. } => self.remove_route(to, peer, now),
            Update::Route { to, router_id, .. } if router_id == self.config.router_id => {
                self.remove_route(to, peer, now);
            }
            Update::Route {
                to,
                router_id,
                seqno,
                metric,
                interval,
                next_hop,
            } => {
                let distance = Distance { seqno, metric };
                let route = Route {
                    router_id,
                    distance,
                    next_hop,
                    interval,
                    is_late: false,
                };
                if is_routable(to) {
                    self.take_route(to, peer, route, now);
                }
            }
        }
    }

    fn take_route(&mut self, to: Destination, peer: Peer, route: Route, now: Time) {
        let is_new = !self.table.contains_key(&to);
        if is_new && self.table.len() >= self.config.destinations {
            self.refuse(Refusal::Destination { peer, to });
            return;
        }
        if !self.suspect(to, route.router_id, route.distance, now) {
            self.refuse(Refusal::Destination { peer, to });
            return;
        }
        let is_feasible = self
            .sources
            .is_feasible(to, route.router_id, route.distance);
        let entry = self.table.entry(to).or_default();
        let is_chosen = entry.choice == Some(Choice::Via(peer));
        let same_origin = (entry.routes.get(&peer)).is_some_and(|r| r.router_id == route.router_id);
        if is_chosen && same_origin && !is_feasible {
            self.doubt(to, peer, route, now);
            self.ask_newer(to, peer, route.router_id, now);
            return;
        }
        self.trust(to, peer);
        self.put_route(to, peer, route, now);
        if !is_feasible && self.is_better(to, peer, route) {
            self.ask_newer(to, peer, route.router_id, now);
        }
    }

    /// From now on that is what the neighbour tells.
    pub(super) fn put_route(&mut self, to: Destination, peer: Peer, route: Route, now: Time) {
        let before = self.before(to);
        let entry = self.table.entry(to).or_default();
        entry.routes.insert(peer, route);
        if let Some(neighbour) = self.neighbours.get_mut(&peer) {
            neighbour.destinations.insert(to);
            neighbour.kept.remove(&to);
        }
        let late = overdue(route.interval, now);
        self.timers.set(Due::Route(to, peer), late);
        self.settle(to, &before, now);
        self.answer_askers(to, now);
    }

    /// Whether a route that may not be taken would be worth it.
    pub(super) fn is_better(&self, to: Destination, peer: Peer, route: Route) -> bool {
        let through = route.distance.metric.plus(self.cost_to(peer, to));
        let present = self.told_of(to).map(|told| told.distance.metric);
        present.is_some_and(|present| through.0 < present.0 - present.0 / WORSE)
    }

    pub(super) fn remove_route(&mut self, to: Destination, peer: Peer, now: Time) {
        self.timers.cancel(Due::Route(to, peer));
        self.trust(to, peer);
        if let Some(neighbour) = self.neighbours.get_mut(&peer) {
            neighbour.destinations.remove(&to);
            neighbour.kept.remove(&to);
        }
        let before = self.before(to);
        let removed = (self.table.get_mut(&to)).and_then(|entry| entry.routes.remove(&peer));
        if removed.is_some() {
            self.settle(to, &before, now);
        }
    }

    /// A neighbour has not said a route again: it is asked once, and then has no time left.
    pub(super) fn route_is_late(&mut self, to: Destination, peer: Peer, now: Time) {
        let entry = self.table.get_mut(&to);
        let Some(route) = entry.and_then(|entry| entry.routes.get_mut(&peer)) else {
            return;
        };
        if self.neighbours.get(&peer).is_some_and(|n| n.is_stale()) {
            let late = overdue(route.interval, now);
            self.timers.set(Due::Route(to, peer), late);
            return;
        }
        if route.is_late {
            self.remove_route(to, peer, now);
            return;
        }
        route.is_late = true;
        let grace = route.interval.duration() / 2;
        self.timers.set(Due::Route(to, peer), now + grace);
        self.ask_for_route(to, peer, now);
    }

    /// Chooses anew, since a cost has changed.
    pub(super) fn choose(&mut self, to: Destination, now: Time) {
        let before = self.before(to);
        self.settle(to, &before, now);
    }

    fn before(&self, to: Destination) -> Before {
        let entry = self.table.get(&to);
        Before {
            way: entry.and_then(Entry::way),
            told: self.told_of(to),
        }
    }

    /// What others are to be told of a destination, if there is a way.
    pub(super) fn told_of(&self, to: Destination) -> Option<Told> {
        let own = (self.config.router_id, self.seqno);
        let entry = self.table.get(&to)?;
        if !self.config.transit && matches!(entry.choice, Some(Choice::Via(_))) {
            return None;
        }
        entry.to_tell(own, |peer| self.cost_to(peer, to))
    }

    /// Chooses, and lets all know for whom it makes a difference.
    fn settle(&mut self, to: Destination, before: &Before, now: Time) {
        let Some(entry) = self.table.get(&to) else {
            return;
        };
        let choice = entry.best(to, &self.sources, |peer| self.cost_to(peer, to));
        let had_choice = entry.choice.is_some();
        let hold = match (choice, &entry.hold) {
            (Some(_), _) => None,
            (None, None) if had_choice => Some(Hold {
                since: now,
                waiting: match self.config.transit {
                    true => self.neighbours.keys().copied().collect(),
                    // Nobody thought that it was here.
                    false => BTreeSet::new(),
                },
            }),
            (None, hold) => hold.clone(),
        };
        self.keep(to, hold.as_ref(), now);
        if let Some(entry) = self.table.get_mut(&to) {
            entry.choice = choice;
            entry.hold = hold;
        }
        self.tell_kernel(to, before.way);
        self.tell_others(to, before.told, now);
        if choice.is_none() {
            self.starve(to, now);
        }
        self.tidy(to);
    }

    fn keep(&mut self, to: Destination, hold: Option<&Hold>, now: Time) {
        let due = Due::Hold(to);
        match (hold, self.timers.at(due)) {
            (None, _) => self.timers.cancel(due),
            (Some(hold), _) if hold.waiting.is_empty() => self.timers.set(due, now),
            (Some(_), Some(_)) => {}
            (Some(_), None) => {
                let longest = self.longest_update().duration() * HELD;
                self.timers.set(due, now + longest);
            }
        }
    }

    /// Of all links, what others were told to expect.
    pub(super) fn longest_update(&self) -> Interval {
        let all = self.links.values().map(|running| running.link.update);
        all.max().unwrap_or_default()
    }

    fn tell_kernel(&mut self, to: Destination, before: Option<Way>) {
        let way = self.table.get(&to).and_then(Entry::way);
        if way != before {
            self.actions.push(Action::Route(to, way));
        }
    }

    fn tell_others(&mut self, to: Destination, before: Option<Told>, now: Time) {
        let after = self.told_of(to);
        let last = self.table.get(&to).and_then(|entry| entry.told);
        let haste = match (after, last) {
            (None, _) => before.map(|_| Haste::Urgent),
            (Some(_), None) => Some(Haste::Urgent),
            (Some(after), Some(last)) => change(after, last),
        };
        let Some(haste) = haste else {
            return;
        };
        if let Some(entry) = self.table.get_mut(&to) {
            entry.told = after;
        }
        self.announce(to, haste, now);
    }

    /// A neighbour knows that a destination is gone, by what it was told then; or it is gone itself.
    pub(super) fn has_learnt(&mut self, to: Destination, peer: Peer, told: Time, now: Time) {
        let hold = self
            .table
            .get_mut(&to)
            .and_then(|entry| entry.hold.as_mut());
        let Some(hold) = hold else {
            return;
        };
        let is_news = hold.since <= told;
        if is_news && hold.waiting.remove(&peer) && hold.waiting.is_empty() {
            self.timers.set(Due::Hold(to), now);
        }
    }

    /// Nobody believes any more that a destination can be reached from here.
    pub(super) fn release(&mut self, to: Destination, now: Time) {
        let hold = self.table.get(&to).and_then(|entry| entry.hold.as_ref());
        if hold.is_some_and(|hold| hold.waiting.iter().any(|peer| self.is_stale(*peer))) {
            let again = now + self.longest_update().duration() * HELD;
            self.timers.set(Due::Hold(to), again);
            return;
        }
        let before = self.before(to);
        if let Some(entry) = self.table.get_mut(&to) {
            entry.hold = None;
        }
        self.settle(to, &before, now);
    }

    fn tidy(&mut self, to: Destination) {
        if self.table.get(&to).is_some_and(Entry::is_idle) {
            self.table.remove(&to);
        }
    }

    /// How long neighbours may go by what they are being told now.
    pub(super) fn told_until(&self, now: Time) -> Time {
        let longest = self.longest_update().duration() * HELD;
        now + longest.max(crate::source::KEPT) + Duration::from_secs(30)
    }
}

/// How urgent it is that others learn of a change. A newer number has to spread before it is of use: until then, whoever has it takes a
/// route from nobody who has not.
fn change(now: Told, then: Told) -> Option<Haste> {
    if now.router_id != then.router_id {
        return Some(Haste::Urgent);
    }
    let is_newer = now.distance.seqno.is_after(then.distance.seqno);
    let (now, then) = (now.distance.metric.0, then.distance.metric.0);
    let is_worse = now > then && now - then > then / WORSE;
    let is_better = now < then && then - now > then / BETTER;
    (is_newer || is_worse || is_better).then_some(Haste::Calm)
}

/// Whether packets to it may be routed at all: no group, nothing that stays on a link or on a host.
fn is_routable(to: Destination) -> bool {
    let text = match to.family() {
        Family::V4 => &["127.0.0.0/8", "169.254.0.0/16", "224.0.0.0/4"][..],
        Family::V6 => &["::1/128", "::/128", "fe80::/10", "ff00::/8"],
    };
    let never = text.iter().filter_map(|text| text.parse::<Prefix>().ok());
    !never.into_iter().any(|never| never.covers(to.prefix()))
}
