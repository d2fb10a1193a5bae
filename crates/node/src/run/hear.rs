//! What the node is told: how tunnels stand, and which ways Babel has found.

use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
    sync::Arc,
    time::Duration,
};

use anyhow::Result;
use hextet_babel::{
    Cost, Link, LinkId,
    engine::Status as BabelStatus,
    number::{Interval, Metric},
    packet::Destination,
};
use hextet_mesh::{
    certificate::NodeId,
    letter::MAX_STRANDS,
    node::{Event, Strand},
    topology::Kind,
};
use hextet_tunnels::control::Status as TunnelStatus;
use hextet_types::{Family, IfName, Prefix, Time};
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
/// What is told as so many milliseconds ago is a little off, by how long the telling took.
const ROUNDED: Duration = Duration::from_millis(20);

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
            Report::Kernel => {
                self.has_kernel = true;
                Ok(())
            }
            Report::Streams(port) => self.tell(Event::Streams(Some(port))).await,
            Report::Lost => {
                self.letters = None;
                Ok(())
            }
            Report::Sent(all) => self.tell_traffic(&all).await,
            Report::Standing(all) => {
                let all = all.into_iter();
                let mut all: BTreeMap<IfName, TunnelStatus> =
                    all.map(|status| (status.name.clone(), status)).collect();
                if !self.is_settled {
                    self.settle(&all).await?;
                }
                for strand in self.tunnels.keys().copied().collect::<Vec<_>>() {
                    let tunnel = self.tunnels.get(&strand);
                    let status = tunnel.and_then(|tunnel| all.remove(&tunnel.name));
                    self.stands(strand, status).await?;
                }
                self.measure().await
            }
        }
    }

    /// How much went to each destination.
    async fn tell_traffic(&mut self, sent: &HashMap<IpAddr, u64>) -> Result<()> {
        let mut traffic: BTreeMap<Prefix, u64> = BTreeMap::new();
        for (address, octets) in sent {
            if let Some(prefix) = longest(&self.distances, *address) {
                *traffic.entry(prefix).or_default() += octets;
            }
        }
        for (prefix, octets) in traffic {
            self.tell(Event::Traffic(prefix, octets)).await?;
        }
        Ok(())
    }

    /// Takes over what an earlier run left, and begins.
    async fn settle(&mut self, standing: &BTreeMap<IfName, TunnelStatus>) -> Result<()> {
        self.is_settled = true;
        self.look_at_addresses().await?;
        self.look_at_segments().await?;
        let had = self.memory.had().into_iter();
        let strands = had.flat_map(|(node, kind, ours)| {
            (0..MAX_STRANDS).map(move |number| (Strand { node, number }, kind, ours))
        });
        let had: BTreeMap<IfName, (Strand, Kind, bool)> = strands
            .filter_map(|had| Some((interface(had.0)?, had)))
            .collect();
        for (name, status) in standing {
            let had = had.get(name);
            let index = host::index(name);
            let (Some((strand, kind, ours)), Some(index), Some(_)) =
                (had, index, status.handshake_secs)
            else {
                let _ = self.wishes.send(Wish::Down(name.clone()));
                continue;
            };
            info!(node = %strand.node, interface = %name, "a tunnel of an earlier run is taken over");
            let mut tunnel = Tunnel::asked(name.clone(), self.clock.now());
            tunnel.link = Some(LinkId(index));
            self.tunnels.insert(*strand, tunnel);
            self.speak(LinkId(index), status).await?;
            let event = Event::Adopted {
                strand: *strand,
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
    async fn stands(&mut self, strand: Strand, status: Option<TunnelStatus>) -> Result<()> {
        let now = self.clock.now();
        let Some(tunnel) = self.tunnels.get_mut(&strand) else {
            return Ok(());
        };
        let age = now.saturating_since(tunnel.asked);
        let Some(status) = status.filter(|status| !status.device_lost) else {
            if tunnel.status.is_some() || age > MAKING {
                return self.lost(strand).await;
            }
            return Ok(());
        };
        tunnel.status = Some(status.clone());
        match tunnel.link {
            Some(link) => {
                let silence = status.heard_millis.map(Duration::from_millis);
                if silence.unwrap_or(age) > DEAD && age > DEAD {
                    return self.lost(strand).await;
                }
                match tunnel.traffic(&status, now) {
                    Some((sent, heard)) => self.order(Order::Traffic(link, sent, heard)).await,
                    None => Ok(()),
                }
            }
            None if status.handshake_secs.is_some() => self.carries(strand, &status).await,
            None if age > HANDSHAKE => self.lost(strand).await,
            None => Ok(()),
        }
    }

    /// It carries from now on.
    async fn carries(&mut self, strand: Strand, status: &TunnelStatus) -> Result<()> {
        let Some(index) = host::index(&status.name) else {
            return Ok(());
        };
        let Some(tunnel) = self.tunnels.get_mut(&strand) else {
            return Ok(());
        };
        let link = LinkId(index);
        tunnel.link = Some(link);
        let is_draining = tunnel.is_draining;
        info!(node = %strand.node, interface = %status.name, endpoint = ?status.endpoint, "a tunnel carries");
        self.speak(link, status).await?;
        if is_draining {
            self.order(Order::Cost(link, Metric::DRAIN)).await?;
        }
        self.remember_tunnels();
        self.tell(Event::Up(strand)).await
    }

    async fn lost(&mut self, strand: Strand) -> Result<()> {
        self.close(strand).await?;
        self.tell(Event::Down(strand)).await
    }

    /// What Babel has found.
    pub(super) async fn babel_tells(&mut self, status: Arc<BabelStatus>) -> Result<()> {
        if self.babel.is_resuming && !status.is_resuming {
            self.ways.look(false);
        }
        self.babel = Arc::clone(&status);
        self.tell_serving();
        let by_link: BTreeMap<LinkId, Strand> = (self.tunnels.iter())
            .filter_map(|(strand, tunnel)| Some((tunnel.link?, *strand)))
            .collect();
        self.note_silent(&status, &by_link);
        let mut routes: BTreeMap<NodeId, usize> = BTreeMap::new();
        for link in &status.links {
            let Some(strand) = by_link.get(&link.link).copied() else {
                continue;
            };
            if let Some(round_trip) = link.neighbours.first().and_then(|peer| peer.rtt) {
                self.tell(Event::RoundTrip(strand.node, round_trip)).await?;
            }
            *routes.entry(strand.node).or_default() += link.routes;
            if let Some(tunnel) = self.tunnels.get_mut(&strand) {
                tunnel.routes = Some(link.routes);
            }
        }
        let told = std::mem::replace(&mut self.sharing.routes, routes.clone());
        for (node, count) in routes {
            if told.get(&node) != Some(&count) {
                self.tell(Event::Routes(node, count)).await?;
            }
        }
        self.share_flows(&status);
        self.tell_reached(&status).await?;
        self.tell_distances(&status).await
    }

    async fn tell_distances(&mut self, status: &BabelStatus) -> Result<()> {
        let chosen = status.routes.iter();
        let chosen = chosen
            .filter(|route| route.is_chosen && route.via.is_some())
            .filter(|route| route.to == Destination::of(route.to.prefix()));
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
        let (sent, came) = (at(status.sent_millis), at(status.heard_millis));
        let is_open = sent > came;
        // The same moment, seen later, is nothing new.
        let heard = match (came, self.told) {
            (Some(came), Some(told)) if came <= told + ROUNDED => Some(told),
            _ => came,
        };
        let has_come = heard > self.told;
        (is_open || has_come).then(|| {
            self.told = heard;
            (sent.filter(|_| is_open), heard)
        })
    }
}

/// The longest prefix with that address, in as many steps as it has bits.
fn longest<T>(all: &BTreeMap<Prefix, T>, address: IpAddr) -> Option<Prefix> {
    let lens = (0..=Family::of(address).bits()).rev();
    let mut prefixes = lens.filter_map(|len| Prefix::new(address, len).ok());
    prefixes.find(|prefix| all.contains_key(prefix))
}

#[cfg(test)]
mod tests {
    use super::*;
    use hextet_tunnels::Mtu;

    fn seen(sent: u64, heard: u64) -> TunnelStatus {
        TunnelStatus {
            name: "hxm0".parse().unwrap(),
            public_key: [1; 32].into(),
            peer_key: [2; 32].into(),
            link_local: "fe80::1".parse().unwrap(),
            peer_link_local: "fe80::2".parse().unwrap(),
            listen: Vec::new(),
            endpoint: None,
            endpoint_proven: false,
            candidates: Vec::new(),
            searching: false,
            mtu: Mtu::try_from(1_280).unwrap(),
            device_lost: false,
            handshake_secs: Some(1),
            sent_millis: Some(sent),
            heard_millis: Some(heard),
            octets_out: 0,
            octets_in: 0,
            unsent: 0,
            refused: 0,
            dropped: 0,
        }
    }

    /// The look at `now` says so many milliseconds ago, which was so many earlier.
    fn look(tunnel: &mut Tunnel, now: u64, ago: (u64, u64)) -> Option<(Option<u64>, Option<u64>)> {
        let told = tunnel.traffic(&seen(ago.0, ago.1), Time::from_millis(now));
        let millis = |at: Time| {
            let since = at.saturating_since(Time::ZERO).as_millis();
            u64::try_from(since).unwrap()
        };
        told.map(|(sent, heard)| (sent.map(millis), heard.map(millis)))
    }

    #[test]
    fn what_is_seen_late_is_not_heard_again() {
        let mut tunnel = Tunnel::asked("hxm0".parse().unwrap(), Time::ZERO);
        // Sent at 1,000, answered at 1,001: something has come, and nothing is open.
        assert_eq!(
            look(&mut tunnel, 1_050, (50, 49)),
            Some((None, Some(1_001)))
        );
        assert_eq!(look(&mut tunnel, 1_157, (150, 149)), None);
        // Then sent at 1,200 and without an answer: nothing has come since, however late it is looked.
        for (now, late) in [(1_250, 0), (1_354, 4), (1_459, 9), (1_552, 2)] {
            let ago = (now - late - 1_200, now - late - 1_001);
            let told = look(&mut tunnel, now, ago);
            assert_eq!(told, Some((Some(1_200 + late), Some(1_001))), "at {now}");
        }
        // An answer at 1,600.
        assert_eq!(
            look(&mut tunnel, 1_650, (450, 50)),
            Some((None, Some(1_600)))
        );
    }

    #[test]
    fn traffic_counts_for_the_longest_prefix_that_is_known() {
        let prefix = |text: &str| text.parse::<Prefix>().unwrap();
        let known = ["fd00::/48", "fd00:0:0:1::/64", "10.0.0.0/8"].map(|text| (prefix(text), ()));
        let known = BTreeMap::from(known);
        for (address, found) in [
            ("fd00:0:0:1::7", Some("fd00:0:0:1::/64")),
            ("fd00:0:0:2::7", Some("fd00::/48")),
            ("fd01::7", None),
            ("10.1.2.3", Some("10.0.0.0/8")),
            ("11.1.2.3", None),
        ] {
            assert_eq!(
                longest(&known, address.parse().unwrap()),
                found.map(prefix),
                "{address}"
            );
        }
    }
}
