//! Network segments: who is on them, and who of those can be reached without a tunnel.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv6Addr,
    time::Duration,
};

use anyhow::Result;
use hextet_babel::{
    Link, LinkId,
    engine::Status as BabelStatus,
    mac::{Algorithm, Key},
};
use hextet_mesh::{
    certificate::NodeId,
    node::{Beside, Event},
};
use tracing::info;

use super::Runner;
use crate::{babel::Order, lan::Change};

/// Of all segments.
#[derive(Debug, Default)]
pub(super) struct Neighbours {
    /// With whom Babel is spoken there.
    pairs: BTreeMap<(LinkId, Ipv6Addr), NodeId>,
    /// To whom packets go as they are, as the node was told.
    pub(super) reached: BTreeMap<NodeId, Reached>,
}

/// By which way, and how far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Reached {
    pub(super) link: LinkId,
    pub(super) addr: Ipv6Addr,
    pub(super) round_trip: Option<Duration>,
}

impl Neighbours {
    pub(super) fn node(&self, link: LinkId, addr: Ipv6Addr) -> Option<NodeId> {
        self.pairs.get(&(link, addr)).copied()
    }
}

impl Runner {
    pub(super) async fn look_at_segments(&mut self) -> Result<()> {
        for change in self.segments.look() {
            let (link, wire) = match change {
                Change::Gone(link) => (link, None),
                Change::Here(link, wire) => (link, Some(wire)),
            };
            if wire.is_none() {
                self.neighbours.pairs.retain(|(of, _), _| of.0 != link);
                self.order(Order::Down(LinkId(link))).await?;
            }
            self.tell(Event::Wire(link, wire)).await?;
        }
        Ok(())
    }

    /// With whom Babel is spoken on a segment.
    pub(super) async fn beside(
        &mut self,
        link: u32,
        pairs: BTreeMap<Ipv6Addr, Beside>,
    ) -> Result<()> {
        let Some(addr) = self.segments.addr(link) else {
            return Ok(());
        };
        let link = LinkId(link);
        self.neighbours.pairs.retain(|(of, _), _| *of != link);
        let mut keys = BTreeMap::new();
        for (addr, beside) in pairs {
            let key = Key::new(Algorithm::HmacSha256, beside.secret.to_vec())?;
            keys.insert(addr, key);
            self.neighbours.pairs.insert((link, addr), beside.node);
        }
        self.order(Order::Up(link, Link::among(addr, keys))).await
    }

    /// Tells the node whom packets reach without a tunnel.
    pub(super) async fn tell_reached(&mut self, status: &BabelStatus) -> Result<()> {
        let mut reached = BTreeMap::new();
        for link in &status.links {
            for peer in link
                .neighbours
                .iter()
                .filter(|peer| !peer.cost.is_infinite())
            {
                if let Some(node) = self.neighbours.node(link.link, peer.addr) {
                    let (link, addr, round_trip) = (link.link, peer.addr, peer.rtt);
                    let way = Reached {
                        link,
                        addr,
                        round_trip,
                    };
                    reached.insert(node, way);
                }
            }
        }
        let before = std::mem::replace(&mut self.neighbours.reached, reached.clone());
        let (before, now): (BTreeSet<_>, BTreeSet<_>) =
            (before.into_keys().collect(), reached.into_keys().collect());
        for node in before.symmetric_difference(&now) {
            let is_reached = now.contains(node);
            info!(%node, is_reached, "without a tunnel, on the same network segment");
            self.tell(Event::Reached(*node, is_reached)).await?;
        }
        Ok(())
    }
}
