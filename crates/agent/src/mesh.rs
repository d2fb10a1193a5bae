//! The mesh as an uplink: the node of a mesh that runs on this host shows others the way to what the host serves, and takes their ways to what
//! the cloud has elsewhere.
//!
//! What always holds: an agent that ends takes nothing back, and the node remembers what it was told last. Who wants the routes gone drains the
//! host ([`Drain`]).

use std::{
    collections::BTreeSet,
    fs,
    net::{IpAddr, Ipv6Addr},
    path::{Path, PathBuf},
    sync::mpsc,
    time::Duration,
};

use anyhow::{Context, Result};
use hextet_node::{
    control::Service,
    served::{Served, Serving},
};
use hextet_types::Prefix;
use tokio::{
    sync::watch,
    time::{sleep, timeout},
};
use tracing::{info, warn};

use crate::{
    bgp::{Announcements, Drain},
    config::AgentConfig,
    reconciler::Input,
    report::MeshStatus,
};

/// After a failure.
const AGAIN: Duration = Duration::from_secs(1);
/// How long a node may take to say its address.
const PATIENCE: Duration = Duration::from_secs(5);
/// Announced together.
const TOGETHER: Duration = Duration::from_millis(20);

/// The prefixes that the cloud routes: whatever lies in them is reached by the uplink.
pub type Inside = BTreeSet<Prefix>;

/// What the node is to be told of.
pub struct Wanted {
    /// What this host serves.
    pub announcements: watch::Receiver<Announcements>,
    /// What the cloud has.
    pub inside: watch::Receiver<Inside>,
    /// Whether this host is drained.
    pub drain: watch::Receiver<Drain>,
}

impl Wanted {
    fn now(&mut self) -> Served {
        let announce = match *self.drain.borrow_and_update() {
            Drain::No | Drain::Leaving => {
                let all = self.announcements.borrow_and_update();
                all.keys().copied().collect()
            }
            Drain::Drained => BTreeSet::new(),
        };
        Served {
            announce,
            accept: self.inside.borrow_and_update().clone(),
        }
    }

    /// Until it is something else, or never again (an error).
    async fn changed(&mut self) -> Result<(), watch::error::RecvError> {
        tokio::select! {
            changed = self.announcements.changed() => changed,
            changed = self.inside.changed() => changed,
            changed = self.drain.changed() => changed,
        }?;
        sleep(TOGETHER).await;
        Ok(())
    }
}

/// Where others reach this host by tunnels: what the configuration says, else the node's address. While no node runs, the one that it had before.
///
/// # Errors
///
/// There is none.
pub async fn tunnel_address(config: &AgentConfig) -> Result<Option<IpAddr>> {
    let Some(socket) = config.mesh().filter(|_| config.tunnel_address.is_none()) else {
        return Ok(config.tunnel_address);
    };
    let kept = config.state_dir.join("mesh-address");
    let home = match timeout(PATIENCE, home(socket)).await {
        Ok(Ok(home)) => {
            fs::write(&kept, home.to_string())
                .with_context(|| format!("write {}", kept.display()))?;
            home
        }
        Ok(Err(error)) => remembered(&kept).ok_or(error)?,
        Err(_) => remembered(&kept).with_context(|| {
            format!("the node of a mesh at {} does not answer", socket.display())
        })?,
    };
    Ok(Some(home.into()))
}

fn remembered(kept: &Path) -> Option<Ipv6Addr> {
    fs::read_to_string(kept).ok()?.trim().parse().ok()
}

async fn home(socket: &Path) -> Result<Ipv6Addr> {
    let status = hextet_node::control::ask(socket).await?;
    match status.home {
        Some(IpAddr::V6(home)) => Ok(home),
        _ => anyhow::bail!("the node of a mesh at {} has no address", socket.display()),
    }
}

/// Has the node announce nothing for a cloud any more, and take no more ways for one, if it runs.
pub async fn forget(config: &AgentConfig) {
    let Some(socket) = config.mesh() else {
        return;
    };
    let told = async {
        let mut service = Service::connect(socket).await?;
        service.serve(Served::default()).await?;
        service.next().await
    };
    if let Err(error) = told.await {
        warn!("{error:#}");
    }
}

/// Keeps the node told, until nobody says any more what it is to be told.
pub async fn run(
    socket: PathBuf,
    mut wanted: Wanted,
    inputs: mpsc::SyncSender<Input>,
    status: watch::Sender<MeshStatus>,
) {
    loop {
        let Err(error) = serve(&socket, &mut wanted, &inputs, &status).await else {
            return;
        };
        let was = status.send_replace(MeshStatus {
            away: Some(format!("{error:#}")),
            ..*status.borrow()
        });
        if was.away.is_none() {
            warn!("the mesh: {error:#}; asked again every second");
            there(&inputs, false).await;
        }
        sleep(AGAIN).await;
    }
}

async fn serve(
    socket: &Path,
    wanted: &mut Wanted,
    inputs: &mpsc::SyncSender<Input>,
    status: &watch::Sender<MeshStatus>,
) -> Result<()> {
    let mut service = Service::connect(socket).await?;
    service.serve(wanted.now()).await?;
    loop {
        tokio::select! {
            serving = service.next() => {
                let Serving { home, is_connected } = serving?;
                let was = status.send_replace(MeshStatus {
                    home: Some(home),
                    is_connected,
                    away: None,
                });
                if (was.is_connected, was.away.is_none()) != (is_connected, true) {
                    info!(%home, is_connected, "the mesh carries for this host");
                    there(inputs, is_connected).await;
                }
            }
            changed = wanted.changed() => match changed {
                Ok(()) => service.serve(wanted.now()).await?,
                Err(_) => return Ok(()),
            },
        }
    }
}

async fn there(inputs: &mpsc::SyncSender<Input>, there: bool) {
    let inputs = inputs.clone();
    let tell = move || inputs.send(Input::Peers(there));
    drop(tokio::task::spawn_blocking(tell).await);
}
