//! Tells the server what workloads have said on their links, at once, and again as long as it cannot be told.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::Duration,
};

use anyhow::Result;
use hextet_api::agent::Heard;
use hextet_types::PortId;
use tokio::{sync::mpsc, time::sleep};
use tracing::{debug, warn};

use crate::{
    client::{self, Connection},
    identity::Identity,
};

/// What waits to be told; more is heard again.
pub const QUEUE: usize = 1_024;
/// Ports in one report, and addresses of each, as the server has it.
const MAX_PORTS: usize = 1_000;
const MAX_ADDRESSES: usize = 64;
/// After a failed attempt.
const RETRY: Duration = Duration::from_secs(1);
/// Attempts before what was heard is too old.
const ATTEMPTS: u32 = 5;

/// A port, and the addresses that it has said it has.
pub type News = (PortId, BTreeSet<IpAddr>);

/// Runs until nobody hears anything any more.
pub async fn run(server: String, identity: Identity, mut news: mpsc::Receiver<News>) {
    let mut connection = None;
    while let Some(first) = news.recv().await {
        let mut ports = BTreeMap::new();
        gather(&mut ports, first);
        while ports.len() < MAX_PORTS
            && let Ok(more) = news.try_recv()
        {
            gather(&mut ports, more);
        }
        let heard = Heard { ports };
        for attempt in 1..=ATTEMPTS {
            match tell(&server, &identity, &mut connection, &heard).await {
                Ok(()) => break,
                Err(error) if attempt == ATTEMPTS => {
                    warn!(
                        error = format!("{error:#}"),
                        "the server can't be told what was heard"
                    );
                }
                Err(error) => {
                    debug!(
                        error = format!("{error:#}"),
                        "what was heard is told once more"
                    );
                    sleep(RETRY).await;
                }
            }
        }
    }
}

fn gather(ports: &mut BTreeMap<PortId, BTreeSet<IpAddr>>, (port, addresses): News) {
    let all = ports.entry(port).or_default();
    let room = MAX_ADDRESSES.saturating_sub(all.len());
    all.extend(addresses.into_iter().take(room));
}

/// By the connection that there is, or else by a new one.
async fn tell(
    server: &str,
    identity: &Identity,
    connection: &mut Option<Connection>,
    heard: &Heard,
) -> Result<()> {
    if let Some(open) = connection {
        match open.heard(heard).await {
            Ok(()) => return Ok(()),
            Err(_) => *connection = None,
        }
    }
    let mut new = client::connect(server, identity.tls()?).await?;
    new.heard(heard).await?;
    *connection = Some(new);
    Ok(())
}
