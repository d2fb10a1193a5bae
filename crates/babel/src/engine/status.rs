//! What a node is like, for people.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv6Addr},
    time::Duration,
};

use super::Engine;
use crate::{
    config::LinkId,
    number::{Metric, RouterId, Seqno},
    packet::Destination,
    table::Choice,
};

/// All of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// Its name.
    pub router_id: RouterId,
    /// The version of what it originates.
    pub seqno: Seqno,
    /// Whether the kernel may forward by routes of an earlier run still.
    pub is_resuming: bool,
    /// Its links, by index.
    pub links: Vec<LinkStatus>,
    /// By destination, the chosen one of each first.
    pub routes: Vec<RouteStatus>,
}

/// Of a link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkStatus {
    /// Which.
    pub link: LinkId,
    /// From where this node sends.
    pub addr: Ipv6Addr,
    /// What it costs more than its kind does.
    pub extra: Metric,
    /// How many destinations are reached by it from here.
    pub routes: usize,
    /// Who is there.
    pub neighbours: Vec<NeighbourStatus>,
}

/// Of a neighbour.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NeighbourStatus {
    /// From where it sends.
    pub addr: Ipv6Addr,
    /// What it costs to send to it; infinite, unless both hear each other.
    pub cost: Metric,
    /// The least round trip of the last half minute to a minute.
    pub rtt: Option<Duration>,
    /// What it takes now, load included.
    pub rtt_now: Option<Duration>,
    /// Whether it says nothing, and is gone by as it was.
    pub is_stale: bool,
    /// How many destinations it has told of.
    pub destinations: usize,
}

/// Of a route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteStatus {
    /// Where to.
    pub to: Destination,
    /// On that link, by that address; none if it is here.
    pub via: Option<(LinkId, IpAddr)>,
    /// Who originates it.
    pub router_id: RouterId,
    /// Of which version.
    pub seqno: Seqno,
    /// How far it is from here.
    pub metric: Metric,
    /// Whether it may be taken (RFC 8966 §3.5.1).
    pub is_feasible: bool,
    /// Whether it is.
    pub is_chosen: bool,
}

impl Engine {
    /// What it is like.
    pub fn status(&self) -> Status {
        let (links, used) = (self.links.keys(), self.used());
        Status {
            router_id: self.config.router_id,
            seqno: self.seqno,
            is_resuming: self.is_resuming(),
            links: links.map(|id| self.link_status(*id, &used)).collect(),
            routes: self
                .table
                .keys()
                .flat_map(|to| self.route_status(*to))
                .collect(),
        }
    }

    /// How many of the chosen routes leave by each link.
    fn used(&self) -> BTreeMap<LinkId, usize> {
        let mut used = BTreeMap::new();
        for entry in self.table.values() {
            if let Some(Choice::Via(peer)) = entry.choice {
                *used.entry(peer.link).or_default() += 1;
            }
        }
        used
    }

    fn link_status(&self, link: LinkId, used: &BTreeMap<LinkId, usize>) -> LinkStatus {
        let running = self.links.get(&link);
        let neighbours = self.peers_on(link).into_iter().filter_map(|peer| {
            let neighbour = self.neighbours.get(&peer)?;
            Some(NeighbourStatus {
                addr: peer.addr,
                cost: neighbour.cost(),
                rtt: neighbour.rtt().least(),
                rtt_now: neighbour.rtt().mean(),
                is_stale: neighbour.is_stale(),
                destinations: neighbour.destinations.len(),
            })
        });
        LinkStatus {
            link,
            addr: running.map_or(Ipv6Addr::UNSPECIFIED, |running| running.link.addr),
            extra: running.map_or(Metric::ZERO, |running| running.extra),
            routes: used.get(&link).copied().unwrap_or_default(),
            neighbours: neighbours.collect(),
        }
    }

    fn route_status(&self, to: Destination) -> Vec<RouteStatus> {
        let Some(entry) = self.table.get(&to) else {
            return Vec::new();
        };
        let own = entry.own.map(|metric| RouteStatus {
            to,
            via: None,
            router_id: self.config.router_id,
            seqno: self.seqno,
            metric,
            is_feasible: true,
            is_chosen: entry.choice == Some(Choice::Own),
        });
        let learnt = entry.routes.iter().map(|(peer, route)| RouteStatus {
            to,
            via: Some((peer.link, route.next_hop)),
            router_id: route.router_id,
            seqno: route.distance.seqno,
            metric: route.distance.metric.plus(self.cost_to(*peer, to)),
            is_feasible: (self.sources).is_feasible(to, route.router_id, route.distance),
            is_chosen: entry.choice == Some(Choice::Via(*peer)),
        });
        let mut all: Vec<RouteStatus> = own.into_iter().chain(learnt).collect();
        all.sort_by_key(|route| (!route.is_chosen, route.metric));
        all
    }
}
