//! Tells the server how this host's ports fare: at once when one changes, and every few seconds anyway.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use anyhow::Result;
use hextet_api::agent::{PortState, StatusReport};
use hextet_types::PortId;
use tokio::{
    sync::watch,
    time::{MissedTickBehavior, interval, sleep},
};
use tracing::debug;

use crate::{client, identity::Identity};

/// The server counts an agent as away after several of these.
const HEARTBEAT: Duration = Duration::from_secs(8);
/// After a failed attempt.
const RETRY: Duration = Duration::from_secs(2);
/// Changes that come together go together.
const GATHER: Duration = Duration::from_millis(20);

/// What there is to tell.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// Every port that this host has been told of.
    pub ports: Arc<BTreeMap<PortId, PortState>>,
    /// The revision that the kernel stands at.
    pub applied_revision: u64,
    /// For the agent list.
    pub configurations: BTreeMap<String, serde_json::Value>,
}

/// Runs until nobody has anything to tell any more.
pub async fn run(server: String, identity: Identity, mut standing: watch::Receiver<Standing>) {
    while standing.has_changed().is_ok() {
        if let Err(error) = report(&server, &identity, &mut standing).await {
            debug!(
                error = format!("{error:#}"),
                "the server was not told how ports fare"
            );
            sleep(RETRY).await;
        }
    }
}

/// Over one connection: everything first, then what changes. Ends well only with the agent.
async fn report(
    server: &str,
    identity: &Identity,
    standing: &mut watch::Receiver<Standing>,
) -> Result<()> {
    let mut connection = client::connect(server, identity.tls()?).await?;
    let mut told = standing.borrow_and_update().clone();
    connection
        .report(&StatusReport {
            complete: true,
            ..message(&told, &BTreeMap::new())
        })
        .await?;
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
            _ = heartbeat.tick() => {}
        }
        let now = standing.borrow_and_update().clone();
        connection.report(&message(&now, &told.ports)).await?;
        told = now;
    }
}

/// What is new in `now` against the ports as they were told before.
fn message(now: &Standing, before: &BTreeMap<PortId, PortState>) -> StatusReport {
    let news = now
        .ports
        .iter()
        .filter(|(id, state)| before.get(id) != Some(state));
    StatusReport {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        ports: news.map(|(id, state)| (*id, state.clone())).collect(),
        complete: false,
        applied_revision: now.applied_revision,
        configurations: now.configurations.clone(),
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    #[test]
    fn only_what_changed_is_told_again() {
        let port = |n| PortId(Uuid::from_u128(n));
        let down = PortState::Down {
            reason: "no link".to_owned(),
        };
        let before = BTreeMap::from([(port(1), down.clone()), (port(2), PortState::Active)]);
        let ports = BTreeMap::from([
            (port(1), PortState::Active),
            (port(2), PortState::Active),
            (port(3), down),
        ]);
        let now = Standing {
            ports: Arc::new(ports),
            applied_revision: 7,
            ..Standing::default()
        };
        let told = message(&now, &before);
        assert_eq!(
            told.ports.keys().copied().collect::<Vec<_>>(),
            [port(1), port(3)]
        );
        assert_eq!((told.complete, told.applied_revision), (false, 7));
    }
}
