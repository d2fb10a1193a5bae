//! Several uplinks: which door a strand has, and how flows are shared out over the strands of a tunnel that carry.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use anyhow::Result;
use hextet_babel::{
    LinkId,
    engine::{LinkStatus, Status as BabelStatus},
    number::Metric,
};
use hextet_kernel::ways::Share;
use hextet_mesh::{
    certificate::NodeId,
    node::{Event, KERNEL_STRAND, Strand},
};
use hextet_types::Time;
use tracing::{info, warn};

use super::Runner;
use crate::{babel::Order, capacity::weights, host};

/// Weights move flows from one uplink to another: not more often than that.
const STEADY: Duration = Duration::from_secs(30);

/// A link's cost for packets that are many: of so many octets per second.
const COST: f64 = 2.5e9;
/// Where nobody knows, as much as of 100 Mbit/s.
const UNKNOWN: Metric = Metric(200);
const DEAREST: f64 = 20_000.0;
/// What differs by less than this part is the same.
const STEADY_PART: u16 = 4;

fn cost(capacity: Option<f64>) -> Metric {
    let cost = capacity.map(|capacity| (COST / capacity.max(1.0)).round());
    cost.map_or(UNKNOWN, |cost| Metric(cost.clamp(1.0, DEAREST) as u16))
}

/// How flows are shared out now.
#[derive(Debug, Default)]
pub(super) struct Sharing {
    /// By link: the neighbour there, and how long it takes to it, at least and at present.
    carry: BTreeMap<LinkId, (IpAddr, Option<(Duration, Duration)>)>,
    /// The last weights, and when they were made.
    weights: BTreeMap<NodeId, (Vec<u8>, Time)>,
    bundles: BTreeMap<LinkId, Vec<Share>>,
    tells_apart: bool,
    /// Strands by which the other end is heard, and hears us.
    carrying: BTreeSet<Strand>,
    /// Those by which it is not heard any more, and when it is told.
    silent: Option<(Time, BTreeSet<Strand>)>,
    /// How many routes leave by tunnels with a node, as the node was told.
    pub(super) routes: BTreeMap<NodeId, usize>,
}

/// The way to tell the other end goes by another strand, or by others: these routes come first.
const ROUTED: Duration = Duration::from_millis(10);

impl Sharing {
    /// When somebody is to be told that nothing comes.
    pub(super) fn next_wakeup(&self) -> Option<Time> {
        self.silent.as_ref().map(|(at, _)| *at)
    }
}

impl Runner {
    /// Who is lost by a strand may still think that it carries: its own packets were answered by others.
    pub(super) fn note_silent(&mut self, status: &BabelStatus, by_link: &BTreeMap<LinkId, Strand>) {
        let carries = |link: &&LinkStatus| {
            let mut peers = link.neighbours.iter();
            peers.any(|peer| !peer.cost.is_infinite() && !peer.is_stale)
        };
        let carrying = status.links.iter().filter(carries);
        let carrying = carrying.filter_map(|link| by_link.get(&link.link).copied());
        let before = std::mem::replace(&mut self.sharing.carrying, carrying.collect());
        let is_there = |strand: &&Strand| by_link.values().any(|there| there == *strand);
        let lost = before.difference(&self.sharing.carrying).filter(is_there);
        let lost: BTreeSet<Strand> = lost.copied().collect();
        if lost.is_empty() {
            return;
        }
        let at = self.clock.now() + ROUTED;
        let (_, silent) = self.sharing.silent.get_or_insert((at, BTreeSet::new()));
        silent.extend(lost);
    }

    pub(super) async fn tell_silent(&mut self) -> Result<()> {
        let silent = self.sharing.silent.take();
        let silent: BTreeSet<Strand> = silent.into_iter().flat_map(|(_, silent)| silent).collect();
        for strand in &silent {
            info!(node = %strand.node, strand = strand.number, "nothing comes through a tunnel");
            self.tell(Event::Silent(*strand)).await?;
        }
        let nodes: BTreeSet<NodeId> = silent.iter().map(|strand| strand.node).collect();
        for node in nodes {
            let others = self.sharing.carrying.iter();
            let others: Vec<Strand> = others.filter(|other| other.node == node).copied().collect();
            if others.is_empty() {
                self.tell(Event::Missing(node)).await?;
            }
            // What was lost for one may be lost for all.
            for other in others {
                let link = self.tunnels.get(&other).and_then(|tunnel| tunnel.link);
                if let Some(link) = link {
                    self.order(Order::Suspect(link)).await?;
                }
            }
        }
        Ok(())
    }

    /// Of the uplink of that strand; of the first, if it is the other end that has several.
    pub(super) fn doors_of(&self, strand: Strand) -> Vec<SocketAddr> {
        let uplink = usize::from(strand.number) % self.doors.len().max(1);
        self.doors.get(uplink).cloned().unwrap_or_default()
    }

    /// Of uplinks by which something carries first: letters from outside are to be seen to come from the same place, while that is possible.
    pub(super) fn doors_for_letters(&self) -> impl Iterator<Item = SocketAddr> {
        let carries = |uplink: usize| {
            let mut tunnels = self.tunnels.iter();
            tunnels.any(|(strand, tunnel)| {
                let of_it = usize::from(strand.number) % self.doors.len().max(1) == uplink;
                let link = tunnel.link.filter(|_| of_it);
                link.is_some_and(|link| self.sharing.carry.contains_key(&link))
            })
        };
        let mut uplinks: Vec<usize> = (0..self.doors.len()).collect();
        uplinks.sort_by_key(|uplink| !carries(*uplink));
        let doors = uplinks
            .into_iter()
            .filter_map(|uplink| self.doors.get(uplink));
        doors.flatten().copied().collect::<Vec<_>>().into_iter()
    }

    /// What goes through tunnels while they are full, and what that means for packets that are many.
    pub(super) async fn measure(&mut self) -> Result<()> {
        let now = self.clock.now();
        let mut orders = Vec::new();
        for tunnel in self.tunnels.values_mut() {
            let Some(link) = tunnel.link else { continue };
            let times = self.sharing.carry.get(&link).and_then(|(_, times)| *times);
            if let (Some(status), Some(times)) = (&tunnel.status, times) {
                tunnel.meter.look(status.octets_out, times, now);
            }
            let cost = cost(tunnel.meter.capacity(now));
            let told = tunnel.carries.unwrap_or(Metric::ZERO);
            if cost.0.abs_diff(told.0) > told.0 / STEADY_PART {
                tunnel.carries = Some(cost);
                orders.push(Order::Carries(link, cost));
            }
        }
        self.raise_idle(now);
        for order in orders {
            self.order(order).await?;
        }
        Ok(())
    }

    /// Of a tunnel's strands that carry, those that have room while others have none.
    fn raise_idle(&mut self, now: Time) {
        let mut full = BTreeMap::<NodeId, f64>::new();
        for (strand, tunnel) in &self.tunnels {
            let capacity = tunnel.meter.capacity(now);
            if let Some(capacity) = capacity.filter(|_| tunnel.meter.is_full()) {
                let most = full.entry(strand.node).or_default();
                *most = most.max(capacity);
            }
        }
        for (strand, tunnel) in &mut self.tunnels {
            let carry = &self.sharing.carry;
            let carries = tunnel.link.is_some_and(|link| carry.contains_key(&link));
            if let Some(capacity) = full.get(&strand.node).filter(|_| carries) {
                tunnel.meter.raise(*capacity, now);
            }
        }
    }

    /// Flows go by all strands of a tunnel that carry.
    pub(super) fn share_flows(&mut self, status: &BabelStatus) {
        let reached = status.links.iter().filter_map(|link| {
            let mut peers = link.neighbours.iter();
            let peer = peers.find(|peer| !peer.cost.is_infinite())?;
            let times = peer.rtt.zip(peer.rtt_now);
            Some((link.link, (IpAddr::V6(peer.addr), times)))
        });
        self.sharing.carry = reached.collect();
        let nodes: BTreeSet<NodeId> = self.tunnels.keys().map(|strand| strand.node).collect();
        let mut bundles = BTreeMap::new();
        for node in nodes {
            let (links, shares) = self.shares(node);
            bundles.extend(links.into_iter().map(|link| (link, shares.clone())));
        }
        if bundles == self.sharing.bundles {
            return;
        }
        if !std::mem::replace(&mut self.sharing.tells_apart, true)
            && let Err(error) = host::tell_flows_apart()
        {
            warn!("{error:#}");
        }
        info!(links = bundles.len(), "flows are shared out anew");
        self.sharing.bundles.clone_from(&bundles);
        self.ways.share(bundles);
    }

    /// Of all links that carry; none, unless there are several. Where one of two is the kernel's it has all.
    fn shares(&mut self, node: NodeId) -> (Vec<LinkId>, Vec<Share>) {
        let tunnels = self
            .tunnels
            .iter()
            .filter(|(strand, _)| strand.node == node);
        let carry: Vec<_> = tunnels
            .filter_map(|(strand, tunnel)| {
                let link = tunnel.link.filter(|_| !tunnel.is_draining)?;
                let (next_hop, _) = self.sharing.carry.get(&link)?;
                Some((strand.number, link, *next_hop, &tunnel.meter))
            })
            .collect();
        if carry.len() < 2 {
            return (Vec::new(), Vec::new());
        }
        let links: Vec<LinkId> = carry.iter().map(|(_, link, ..)| *link).collect();
        let kernel = carry
            .iter()
            .position(|(strand, ..)| *strand == KERNEL_STRAND);
        let carry: Vec<_> = match (kernel, carry.len()) {
            (Some(kernel), 2) => carry.into_iter().skip(kernel).take(1).collect(),
            (Some(_), _) => {
                let others = carry.into_iter();
                others
                    .filter(|(strand, ..)| *strand != KERNEL_STRAND)
                    .collect()
            }
            (None, _) => carry,
        };
        let now = self.clock.now();
        let fresh = weights(carry.iter().map(|(.., meter)| *meter), now);
        let last = self.sharing.weights.get(&node);
        let stay = last.filter(|(weights, at)| {
            weights.len() == fresh.len() && now.saturating_since(*at) < STEADY
        });
        let weights = match stay {
            Some((weights, _)) => weights.clone(),
            None => {
                self.sharing.weights.insert(node, (fresh.clone(), now));
                fresh
            }
        };
        let shares = carry.into_iter().zip(weights);
        let mut shares: Vec<Share> = shares
            .map(|((_, link, next_hop, _), weight)| Share {
                link: link.0,
                next_hop,
                weight,
            })
            .collect();
        shares.sort_unstable();
        (links, shares)
    }
}
