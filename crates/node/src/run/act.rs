//! What the node wants done.

use std::{
    net::{Ipv6Addr, SocketAddr},
    time::Duration,
};

use anyhow::Result;
use hextet_babel::number::Metric;
use hextet_mesh::{
    certificate::NodeId,
    node::{Action, Plan, Strand},
    parameters::Change,
};
use hextet_tunnels::{Key, Listen, Mtu, Spec, letters::Letter};
use hextet_types::{IfName, Time, Way};
use tracing::{info, warn};

use super::{Runner, Tunnel};
use crate::{babel::Order, capacity::Meter, host::TUNNEL, tunnels::Wish};

/// Of a tunnel's interface, in octets: what every link of IPv6 carries (RFC 8200 §5); what else its path carries is found out.
const MTU: u16 = 1_280;
const MOST_MTU: u16 = 9_000;
/// Letters that are not believed are told at most this often.
const REFUSALS_TOLD: Duration = Duration::from_secs(10);

impl Runner {
    pub(super) async fn do_one(&mut self, action: Action) -> Result<()> {
        match action {
            Action::Send { to, octets } => self.send(to, octets),
            Action::Beacon { link, to, octets } => self.segments.send(link, to, &octets),
            Action::Beside { link, pairs } => self.beside(link, pairs).await?,
            Action::Open(plan) => self.open(*plan).await?,
            Action::Close { strand, reason } => {
                if let Some(tunnel) = self.tunnels.get(&strand) {
                    let node = strand.node;
                    info!(%node, interface = %tunnel.name, reason, "a tunnel is closed");
                }
                self.close(strand).await?;
            }
            Action::Suspect(strand) => {
                let link = self.tunnels.get(&strand).and_then(|tunnel| tunnel.link);
                if let Some(link) = link {
                    self.order(Order::Suspect(link)).await?;
                }
            }
            Action::Drain { node, reason } => self.cost(node, Metric::DRAIN, &reason).await?,
            Action::Resume { node, reason } => self.cost(node, Metric::ZERO, &reason).await?,
            Action::AskRegistry => self.ask_registry(),
            Action::Surveyed(found) => self.surveyed(&found),
            Action::Remember => self.to_remember = true,
            Action::Learned { changes } => self.learned(&changes),
            Action::Rumour { from, fault } => warn!(?from, %fault, "what was promised is refused"),
            Action::Refused { from, refusal } => {
                let why = refusal.to_string();
                self.refusals.tell(from, &why, self.clock.now());
            }
        }
        Ok(())
    }

    /// Over the mesh, or by a door of the process for tunnels.
    fn send(&mut self, to: Way, octets: Vec<u8>) {
        let network = &self.node.trust().parameters().body;
        let at = to.address();
        if network.prefix.contains(at.ip()) {
            // It is lost where there is no way, as on any network.
            let _ = self.inner.try_send_to(&octets, at);
            return;
        }
        let mut doors = self.doors_for_letters();
        let door = doors.find(|door| door.is_ipv4() == at.is_ipv4());
        if let (Some(letters), Some(door)) = (&self.letters, door) {
            letters.send(&Letter {
                door,
                other: to,
                octets,
            });
        }
    }

    async fn open(&mut self, plan: Plan) -> Result<()> {
        let strand = plan.strand;
        self.close(strand).await?;
        let Some(name) = interface(strand) else {
            return Ok(());
        };
        let Ok(mtu) = Mtu::try_from(MTU) else {
            return Ok(());
        };
        let node = strand.node;
        info!(%node, interface = %name, ours = plan.ours, reason = plan.reason, kernel = plan.kernel.is_some(), "a tunnel is opened");
        let (listen, endpoint, candidates) = match plan.kernel {
            Some(port) => {
                let all = SocketAddr::from((Ipv6Addr::UNSPECIFIED, port));
                (Listen::Own(all), self.surest(&plan), Vec::new())
            }
            None => (Listen::Doors(self.doors_of(strand)), None, plan.candidates),
        };
        let spec = Spec {
            name: name.clone(),
            private_key: Key::from(plan.private_key),
            peer_key: Key::from(plan.peer_key),
            preshared_key: None,
            listen,
            uplink: None,
            endpoint,
            candidates,
            keepalive_secs: plan.keepalive_secs,
            mtu,
            most_mtu: Mtu::try_from(MOST_MTU).ok(),
            segments: true,
        };
        let _ = self.wishes.send(Wish::Up(Box::new(spec)));
        let tunnel = Tunnel::asked(name, self.clock.now());
        self.tunnels.insert(strand, tunnel);
        self.to_remember = true;
        Ok(())
    }

    /// Where the other end of a further strand is: where that of the first is, if it says so.
    fn surest(&self, plan: &Plan) -> Option<Way> {
        let first = self.tunnels.get(&Strand::first(plan.strand.node));
        let status = first.and_then(|first| first.status.as_ref());
        let endpoint = status.and_then(|status| status.endpoint);
        let is_there =
            |at: &Way| endpoint.is_some_and(|end| end.address().ip() == at.address().ip());
        let mut candidates = plan.candidates.iter().filter(|at| at.udp().is_some());
        let found = candidates.clone().find(|at| is_there(at));
        found.or_else(|| candidates.next()).copied()
    }

    pub(super) async fn close(&mut self, strand: Strand) -> Result<()> {
        let Some(tunnel) = self.tunnels.remove(&strand) else {
            return Ok(());
        };
        self.to_remember = true;
        if let Some(link) = tunnel.link {
            self.order(Order::Down(link)).await?;
        }
        let _ = self.wishes.send(Wish::Down(tunnel.name));
        Ok(())
    }

    async fn cost(&mut self, node: NodeId, cost: Metric, reason: &str) -> Result<()> {
        let is_draining = cost != Metric::ZERO;
        info!(%node, draining = is_draining, reason, "a tunnel's routes");
        let strands = self.tunnels.iter_mut();
        let strands = strands.filter(|(strand, _)| strand.node == node);
        let links = strands.filter_map(|(_, tunnel)| {
            tunnel.is_draining = is_draining;
            tunnel.link
        });
        for link in links.collect::<Vec<_>>() {
            self.order(Order::Cost(link, cost)).await?;
        }
        Ok(())
    }

    fn learned(&mut self, changes: &[Change]) {
        let version = self.node.trust().parameters().body.version;
        info!(version, ?changes, "what holds for the network is newer");
        if changes.iter().any(|change| change.takes_restart()) {
            warn!("the network's prefixes are others now: start this node anew");
        }
        let kept = self
            .memory
            .keep_identity(self.node.trust(), self.node.certificate());
        if let Err(error) = kept {
            warn!("{error:#}");
        }
    }

    /// Writes down what has changed since the last time.
    pub(super) fn remember(&mut self) {
        if !std::mem::take(&mut self.to_remember) {
            return;
        }
        self.remember_tunnels();
        if let Err(error) = self.memory.keep_met(&self.node.remembered()) {
            warn!("{error:#}");
        }
    }

    /// A tunnel that carries is remembered at once: the next run is to take it over, whenever this one ends.
    pub(super) fn remember_tunnels(&self) {
        let tunnels = self.node.status().tunnels.into_iter();
        let had: Vec<_> = tunnels
            .filter(|tunnel| self.tunnels.keys().any(|strand| strand.node == tunnel.node))
            .map(|tunnel| (tunnel.node, tunnel.kind, tunnel.ours))
            .collect();
        if let Err(error) = self.memory.keep_had(&had) {
            warn!("{error:#}");
        }
    }
}

impl Tunnel {
    pub(super) fn asked(name: IfName, asked: Time) -> Tunnel {
        Tunnel {
            name,
            asked,
            link: None,
            is_draining: false,
            status: None,
            told: None,
            routes: None,
            meter: Meter::default(),
            carries: None,
        }
    }
}

/// The interface of a tunnel with that node: its number's last twelve digits; of a further strand a letter that is no digit, and eleven.
pub(super) fn interface(strand: Strand) -> Option<IfName> {
    const FURTHER: [&str; 4] = ["", "x", "y", "z"];
    let digits = strand.node.to_string();
    let mark = FURTHER.get(usize::from(strand.number))?;
    let last = digits.get(digits.len().saturating_sub(12 - mark.len())..)?;
    format!("{TUNNEL}{mark}{last}").parse().ok()
}

/// Counts what the network decides the rate of, and logs it at a rate of ours.
#[derive(Debug, Default)]
pub(super) struct Refusals {
    /// In all.
    pub(super) count: u64,
    next: Time,
}

impl Refusals {
    fn tell(&mut self, from: Way, refusal: &str, now: Time) {
        self.count += 1;
        if now >= self.next {
            warn!(%from, refusal, count = self.count, "a letter is not believed");
            self.next = now + REFUSALS_TOLD;
        }
    }
}
