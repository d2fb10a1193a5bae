//! What the node is told: how tunnels stand, and which ways Babel has found.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use anyhow::Result;
use hextet_babel::{
    Cost, Link, LinkId,
    engine::Status as BabelStatus,
    number::{Interval, Metric},
};
use hextet_mesh::{certificate::NodeId, node::Event, topology::Kind};
use hextet_tunnels::control::Status as TunnelStatus;
use hextet_types::{IfName, Prefix, Time};
use tracing::{info, warn};

use super::{Runner, Tunnel, act::interface};
use crate::{
    babel::Order,
    host,
    tunnels::{Letters, Report, Wish},
};

/// A handshake takes no longer.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// What was asked for stands after that, or does not come.
const MAKING: Duration = Duration::from_secs(2);
/// A tunnel through which nothing came for so long is none: Babel says Hello every few seconds.
const DEAD: Duration = Duration::from_secs(60);
/// What is told in milliseconds is a little off.
const ROUNDED: Duration = Duration::from_millis(5);

impl Runner {
    pub(super) async fn report(&mut self, report: Report) -> Result<()> {
        match report {
            Report::Ready(doors) => {
                self.doors = doors;
                match Letters::open(&self.place) {
                    Ok(letters) => self.letters = Some(letters),
                    Err(error) => warn!("{error:#}"),
                }
                Ok(())
            }
            Report::Lost => {
                self.letters = None;
                Ok(())
            }
            Report::Standing(all) => {
                let all = all.into_iter();
                let mut all: BTreeMap<IfName, TunnelStatus> =
                    all.map(|status| (status.name.clone(), status)).collect();
                if !self.is_settled {
                    self.settle(&all).await?;
                }
                for node in self.tunnels.keys().copied().collect::<Vec<_>>() {
                    let tunnel = self.tunnels.get(&node);
                    let status = tunnel.and_then(|tunnel| all.remove(&tunnel.name));
                    self.stands(node, status).await?;
                }
                Ok(())
            }
        }
    }

    /// Takes over what an earlier run left, and begins.
    async fn settle(&mut self, standing: &BTreeMap<IfName, TunnelStatus>) -> Result<()> {
        self.is_settled = true;
        self.look_at_addresses().await?;
        let had: BTreeMap<IfName, (NodeId, Kind, bool)> = (self.memory.had().into_iter())
            .filter_map(|had| Some((interface(had.0)?, had)))
            .collect();
        for (name, status) in standing {
            let had = had.get(name);
            let index = host::index(name);
            let (Some((node, kind, ours)), Some(index), Some(_)) =
                (had, index, status.handshake_secs)
            else {
                let _ = self.wishes.send(Wish::Down(name.clone()));
                continue;
            };
            info!(%node, interface = %name, "a tunnel of an earlier run is taken over");
            let mut tunnel = Tunnel::asked(name.clone(), self.clock.now());
            tunnel.link = Some(LinkId(index));
            self.tunnels.insert(*node, tunnel);
            self.speak(LinkId(index), status).await?;
            let event = Event::Adopted {
                node: *node,
                kind: *kind,
                ours: *ours,
            };
            self.tell(event).await?;
        }
        let met = self.memory.met();
        self.tell(Event::Introduced(met)).await?;
        self.tell(Event::Timer).await
    }

    /// Babel is spoken on it.
    async fn speak(&self, link: LinkId, status: &TunnelStatus) -> Result<()> {
        let hello_secs = self.node.trust().parameters().body.hello_secs;
        let spoken = Link {
            hello: Interval(hello_secs.saturating_mul(100)),
            ..Link::tunnel(status.link_local)
        };
        self.order(Order::Up(link, spoken)).await
    }

    /// How a tunnel stands now, if it does.
    async fn stands(&mut self, node: NodeId, status: Option<TunnelStatus>) -> Result<()> {
        let now = self.clock.now();
        let Some(tunnel) = self.tunnels.get_mut(&node) else {
            return Ok(());
        };
        let age = now.saturating_since(tunnel.asked);
        let Some(status) = status.filter(|status| !status.device_lost) else {
            if tunnel.status.is_some() || age > MAKING {
                return self.lost(node).await;
            }
            return Ok(());
        };
        tunnel.status = Some(status.clone());
        match tunnel.link {
            Some(link) => {
                let silence = status.heard_millis.map(Duration::from_millis);
                if silence.unwrap_or(age) > DEAD && age > DEAD {
                    return self.lost(node).await;
                }
                match tunnel.traffic(&status, now) {
                    Some((sent, heard)) => self.order(Order::Traffic(link, sent, heard)).await,
                    None => Ok(()),
                }
            }
            None if status.handshake_secs.is_some() => self.carries(node, &status).await,
            None if age > HANDSHAKE => self.lost(node).await,
            None => Ok(()),
        }
    }

    /// It carries from now on.
    async fn carries(&mut self, node: NodeId, status: &TunnelStatus) -> Result<()> {
        let Some(index) = host::index(&status.name) else {
            return Ok(());
        };
        let Some(tunnel) = self.tunnels.get_mut(&node) else {
            return Ok(());
        };
        let link = LinkId(index);
        tunnel.link = Some(link);
        let is_draining = tunnel.is_draining;
        info!(%node, interface = %status.name, endpoint = ?status.endpoint, "a tunnel carries");
        self.speak(link, status).await?;
        if is_draining {
            self.order(Order::Cost(link, Metric::DRAIN)).await?;
        }
        self.to_remember = true;
        self.tell(Event::Up(node)).await
    }

    async fn lost(&mut self, node: NodeId) -> Result<()> {
        self.close(node).await?;
        self.tell(Event::Down(node)).await
    }

    /// What Babel has found.
    pub(super) async fn babel_tells(&mut self, status: Arc<BabelStatus>) -> Result<()> {
        if self.babel.is_resuming && !status.is_resuming {
            self.ways.look(false);
        }
        self.babel = Arc::clone(&status);
        let by_link: BTreeMap<LinkId, NodeId> = (self.tunnels.iter())
            .filter_map(|(node, tunnel)| Some((tunnel.link?, *node)))
            .collect();
        for link in &status.links {
            let Some(node) = by_link.get(&link.link).copied() else {
                continue;
            };
            if let Some(round_trip) = link.neighbours.first().and_then(|peer| peer.rtt) {
                self.tell(Event::RoundTrip(node, round_trip)).await?;
            }
            let tunnel = self.tunnels.get_mut(&node);
            let told = tunnel.map(|tunnel| tunnel.routes.replace(link.routes));
            if told.is_some_and(|told| told != Some(link.routes)) {
                self.tell(Event::Routes(node, link.routes)).await?;
            }
        }
        self.tell_distances(&status).await
    }

    async fn tell_distances(&mut self, status: &BabelStatus) -> Result<()> {
        let chosen = status.routes.iter();
        let chosen = chosen
            .filter(|route| route.is_chosen && route.via.is_some() && route.to.source().is_none());
        let distances: BTreeMap<Prefix, Metric> = chosen
            .map(|route| (route.to.prefix(), route.metric))
            .filter(|(_, metric)| !metric.is_infinite())
            .collect();
        let before = std::mem::replace(&mut self.distances, distances.clone());
        for prefix in before.keys().filter(|to| !distances.contains_key(to)) {
            let event = Event::Way {
                prefix: *prefix,
                distance: None,
            };
            self.tell(event).await?;
        }
        for (prefix, metric) in distances {
            if before.get(&prefix) != Some(&metric) {
                let distance = Some(Cost::BY_TIME.time(metric).into());
                self.tell(Event::Way { prefix, distance }).await?;
            }
        }
        Ok(())
    }
}

impl Tunnel {
    /// When something was sent and heard last, if Babel is to know: while the first is later, and when something has come.
    fn traffic(
        &mut self,
        status: &TunnelStatus,
        now: Time,
    ) -> Option<(Option<Time>, Option<Time>)> {
        let at = |millis: Option<u64>| {
            let before = Duration::from_millis(millis?);
            let since = now.saturating_since(Time::ZERO).checked_sub(before)?;
            Some(Time::ZERO + since)
        };
        let (sent, heard) = (at(status.sent_millis), at(status.heard_millis));
        let has_come = match (heard, self.told.1) {
            (Some(heard), Some(told)) => heard > told + ROUNDED,
            (heard, _) => heard.is_some(),
        };
        (sent > heard || has_come).then(|| {
            self.told = (sent, heard);
            self.told
        })
    }
}
