//! What a node knows of each destination, and which of its routes it goes by (RFC 8966 §3.2.6, §3.6).
//!
//! Every route that a neighbour tells of is kept, the unfeasible ones too: they say whom to ask when no other is left. Only a route
//! that is feasible *now* is ever chosen, whatever it was when it came.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use hextet_types::Time;

use crate::{
    config::LinkId,
    neighbour::Peer,
    number::{Interval, Metric, RouterId, Seqno},
    packet::Destination,
    source::{Distance, Sources},
};

/// Another neighbour's route has to be better by this part, or the present one stays.
const MARGIN: u16 = 8;

/// What a neighbour tells of a destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Route {
    /// Who originates it.
    pub router_id: RouterId,
    /// How far the neighbour says that it is.
    pub distance: Distance,
    /// By which address.
    pub next_hop: IpAddr,
    /// Until when it is said again.
    pub interval: Interval,
    /// Whether the neighbour was asked, because it is late with that.
    pub is_late: bool,
}

/// What is gone by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Choice {
    /// It is here.
    Own,
    /// That neighbour's.
    Via(Peer),
}

/// A destination that was told and is no more: unreachable until nobody can think otherwise.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hold {
    /// Since when.
    pub since: Time,
    /// Who has not acknowledged it.
    pub waiting: BTreeSet<Peer>,
}

/// How packets get to a destination, for the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// By a neighbour.
    Via {
        /// On that link.
        link: LinkId,
        /// At that address: of IPv6 for IPv4, too, where the link has none (RFC 9229).
        next_hop: IpAddr,
    },
    /// Not at all, and by no route to a shorter prefix either (RFC 8966 §2.8).
    Unreachable,
}

/// What others are told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Told {
    /// Who originates it.
    pub router_id: RouterId,
    /// How far it is from here.
    pub distance: Distance,
}

/// All that is known of a destination.
#[derive(Clone, Debug, Default)]
pub struct Entry {
    /// At which metric it is here, if it is.
    pub own: Option<Metric>,
    /// What neighbours say.
    pub routes: BTreeMap<Peer, Route>,
    /// Which of that is gone by.
    pub choice: Option<Choice>,
    /// If none, and others believe that there is one.
    pub hold: Option<Hold>,
    /// What others were told last, at once or in a moment.
    pub told: Option<Told>,
}

impl Entry {
    /// Whether there is nothing to know.
    pub fn is_idle(&self) -> bool {
        self.own.is_none() && self.routes.is_empty() && self.hold.is_none()
    }

    /// Whether nothing is known to go by, nor that there is nothing any more.
    pub fn is_unsettled(&self) -> bool {
        self.choice.is_none() && self.hold.is_none()
    }

    /// The best that may be taken: the present one, unless another is clearly better.
    pub fn best(
        &self,
        to: Destination,
        sources: &Sources,
        cost: impl Fn(Peer) -> Metric,
    ) -> Option<Choice> {
        if self.own.is_some() {
            return Some(Choice::Own);
        }
        let feasible = self.routes.iter().filter_map(|(peer, route)| {
            let metric = route.distance.metric.plus(cost(*peer));
            let is_feasible = sources.is_feasible(to, route.router_id, route.distance);
            (is_feasible && !metric.is_infinite()).then_some((metric, *peer))
        });
        let feasible: Vec<_> = feasible.collect();
        let (least, best) = *feasible.iter().min()?;
        let present = feasible
            .iter()
            .find(|(_, peer)| self.choice == Some(Choice::Via(*peer)));
        let stays = present.filter(|(metric, _)| metric.0 - least.0 <= metric.0 / MARGIN);
        Some(Choice::Via(stays.map_or(best, |(_, peer)| *peer)))
    }

    /// The best that may not be taken, nor from that neighbour: whom to ask for a newer one.
    pub fn best_unfeasible(
        &self,
        not: Option<Peer>,
        cost: impl Fn(Peer) -> Metric,
    ) -> Option<(Peer, Route)> {
        let all = self.routes.iter().filter_map(|(peer, route)| {
            let metric = route.distance.metric.plus(cost(*peer));
            (!metric.is_infinite() && Some(*peer) != not).then_some((metric, *peer, *route))
        });
        let best = all.min_by_key(|(metric, peer, _)| (*metric, *peer))?;
        Some((best.1, best.2))
    }

    /// What others are told, if there is a way.
    pub fn to_tell(
        &self,
        (own_id, own_seqno): (RouterId, Seqno),
        cost: impl Fn(Peer) -> Metric,
    ) -> Option<Told> {
        match self.choice? {
            Choice::Own => Some(Told {
                router_id: own_id,
                distance: Distance {
                    seqno: own_seqno,
                    metric: self.own?,
                },
            }),
            Choice::Via(peer) => {
                let route = self.routes.get(&peer)?;
                Some(Told {
                    router_id: route.router_id,
                    distance: Distance {
                        seqno: route.distance.seqno,
                        metric: route.distance.metric.plus(cost(peer)),
                    },
                })
            }
        }
    }

    /// For the kernel; nothing of what is here.
    pub fn way(&self) -> Option<Way> {
        match self.choice {
            Some(Choice::Own) => None,
            Some(Choice::Via(peer)) => self.routes.get(&peer).map(|route| Way::Via {
                link: peer.link,
                next_hop: route.next_hop,
            }),
            None => self.hold.as_ref().map(|_| Way::Unreachable),
        }
    }
}

/// A time after which something that is promised for each interval will not come (RFC 8966 appendix B: three and a half).
pub fn overdue(interval: Interval, now: Time) -> Time {
    now + interval.duration() * 7 / 2
}
