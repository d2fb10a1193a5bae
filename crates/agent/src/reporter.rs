//! Tells the server how this host's ports fare: at once when one changes, and every few seconds anyway.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::Duration,
};

use anyhow::Result;
use hextet_api::agent::{PortState, StatusReport};
use hextet_types::{Mac, PortId};
use tokio::{
    sync::watch,
    time::{MissedTickBehavior, interval, sleep},
};
use tracing::{debug, warn};

use crate::{client, identity::Identity, probe::Pulses};

/// The server counts an agent as away after several of these.
const HEARTBEAT: Duration = Duration::from_secs(8);
/// After a failed attempt.
const RETRY: Duration = Duration::from_secs(2);
/// Changes that come together go together.
const GATHER: Duration = Duration::from_millis(20);

/// What is told of the host itself.
#[derive(Clone, Debug)]
pub struct Host {
    /// The Ethernet address of its end of ports.
    pub gateway_mac: Mac,
    /// Where it is reached by tunnels.
    pub tunnel_address: Option<IpAddr>,
    /// Whether routers may translate for others on it.
    pub gateway: bool,
    /// The physical networks that it is on.
    pub physical_networks: BTreeSet<String>,
}

/// How a port fares.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plug {
    /// Whether its packets pass.
    pub state: PortState,
    /// The index of its interface, if that is there.
    pub link: Option<u32>,
}

/// What there is to tell.
#[derive(Clone, Debug, Default)]
pub struct Standing {
    /// Every port that this host has been told of, and the number of its last change.
    ports: BTreeMap<PortId, (u64, Plug)>,
    /// The port of each of those changes, so that what is new is found without looking at the rest.
    changes: BTreeMap<u64, PortId>,
    last_change: u64,
    /// The revision that the kernel stands at.
    pub applied_revision: u64,
    /// For the agent list.
    pub configurations: BTreeMap<String, serde_json::Value>,
}

impl Standing {
    /// How a port fares now, none when the port is gone; whether that is news.
    pub fn set(&mut self, port: PortId, plug: Option<Plug>) -> bool {
        match (self.ports.get(&port), &plug) {
            (None, None) => return false,
            (Some((_, is)), Some(plug)) if is == plug => return false,
            (Some((change, _)), _) => drop(self.changes.remove(change)),
            _ => {}
        }
        self.last_change += 1;
        match plug {
            Some(plug) => {
                self.changes.insert(self.last_change, port);
                self.ports.insert(port, (self.last_change, plug));
            }
            None => drop(self.ports.remove(&port)),
        }
        true
    }

    /// How many ports there are.
    pub fn ports(&self) -> usize {
        self.ports.len()
    }

    /// What is new since that change, and the last change by now. Since none, it is everything.
    fn since(&self, change: Option<u64>) -> (StatusReport, u64) {
        let first = change.map_or(0, |change| change + 1);
        let news = self.changes.range(first..).filter_map(|(_, port)| {
            let (_, plug) = self.ports.get(port)?;
            Some((*port, plug))
        });
        let links = news.clone().filter_map(|(port, plug)| {
            let passes = plug.state == PortState::Active;
            Some((port, plug.link.filter(|_| passes)?))
        });
        let report = StatusReport {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            plugs: links.collect(),
            ports: news
                .map(|(port, plug)| (port, plug.state.clone()))
                .collect(),
            complete: change.is_none(),
            applied_revision: self.applied_revision,
            gateway_mac: None,
            gateway: None,
            tunnel_address: None,
            physical_networks: BTreeSet::new(),
            watched: Pulses::new(),
            configurations: self.configurations.clone(),
        };
        (report, self.last_change)
    }
}

/// Runs until nobody has anything to tell any more.
pub async fn run(
    (server, host): (String, Host),
    identity: Identity,
    (mut standing, mut pulses): (watch::Receiver<Standing>, watch::Receiver<Pulses>),
) {
    let mut last = String::new();
    while standing.has_changed().is_ok() {
        if let Err(error) = report(&server, &host, &identity, (&mut standing, &mut pulses)).await {
            let error = format!("{error:#}");
            if error == last {
                debug!(error, "a report to the server failed");
            } else {
                warn!(error, "a report to the server failed");
            }
            last = error;
            sleep(RETRY).await;
        }
    }
}

/// Over one connection: everything first, then what changes. Ends well only with the agent.
async fn report(
    server: &str,
    host: &Host,
    identity: &Identity,
    (standing, pulses): (&mut watch::Receiver<Standing>, &mut watch::Receiver<Pulses>),
) -> Result<()> {
    let mut connection = client::connect(server, identity.tls()?).await?;
    let (mut everything, mut told) = standing.borrow_and_update().since(None);
    everything.gateway_mac = Some(host.gateway_mac);
    everything.tunnel_address = host.tunnel_address;
    everything.gateway = Some(host.gateway);
    everything
        .physical_networks
        .clone_from(&host.physical_networks);
    everything.watched = pulses.borrow_and_update().clone();
    connection.report(&everything).await?;
    let mut heartbeat = interval(HEARTBEAT);
    heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    heartbeat.reset();
    loop {
        tokio::select! {
            changed = standing.changed() => {
                if changed.is_err() {
                    return Ok(());
                }
                sleep(GATHER).await;
            }
            // How kernels fare is told at once.
            Ok(()) = pulses.changed() => {}
            _ = heartbeat.tick() => {}
        }
        let (mut news, last) = standing.borrow_and_update().since(Some(told));
        news.watched = pulses.borrow_and_update().clone();
        connection.report(&news).await?;
        told = last;
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn down() -> Plug {
        Plug {
            state: PortState::Down {
                reason: "no link".to_owned(),
            },
            link: Some(1),
        }
    }

    fn active(link: u32) -> Plug {
        Plug {
            state: PortState::Active,
            link: Some(link),
        }
    }

    #[test]
    fn only_what_changed_is_told_again() {
        let port = |n| PortId(Uuid::from_u128(n));
        let mut standing = Standing {
            applied_revision: 7,
            ..Standing::default()
        };
        assert!(standing.set(port(1), Some(down())));
        assert!(standing.set(port(2), Some(active(7))));
        assert!(!standing.set(port(9), None));
        let (everything, told) = standing.since(None);
        assert_eq!((everything.ports.len(), everything.complete), (2, true));

        assert!(!standing.set(port(2), Some(active(7))));
        assert!(standing.set(port(1), Some(active(7))));
        assert!(standing.set(port(3), Some(down())));
        let (news, last) = standing.since(Some(told));
        assert_eq!(
            news.ports.keys().copied().collect::<Vec<_>>(),
            [port(1), port(3)]
        );
        assert_eq!((news.complete, news.applied_revision), (false, 7));
        assert_eq!(
            news.plugs,
            [(port(1), 7)].into(),
            "and none of what is down"
        );
        let (nothing, last) = standing.since(Some(last));
        assert_eq!(nothing.ports.len(), 0);
        // Another interface is news, also while the port passes packets all the time.
        assert!(standing.set(port(1), Some(active(8))));
        assert_eq!(standing.since(Some(last)).0.plugs, [(port(1), 8)].into());
    }

    #[test]
    fn however_often_a_port_changes_it_is_kept_once() {
        let mut standing = Standing::default();
        let port = PortId(Uuid::from_u128(1));
        for _ in 0..10 {
            standing.set(port, Some(down()));
            standing.set(port, Some(active(7)));
        }
        assert_eq!((standing.ports(), standing.changes.len()), (1, 1));
        standing.set(port, None);
        assert_eq!((standing.ports(), standing.changes.len()), (0, 0));
    }
}
