//! Server and agent of one host, in one process.

use std::{thread, time::Duration};

use anyhow::{Context, Result};
use hextet_server::{Server, admin};
use tracing::info;

use crate::{keeper, places::Places};

/// How long the host's own token is good for.
const TOKEN: Duration = Duration::from_secs(60);

/// Runs them until the process is told to end (SIGTERM, SIGINT).
///
/// # Errors
///
/// One of them can't be started, or fails.
pub async fn run(places: Places) -> Result<()> {
    let settings = places.settings()?;
    crate::places::make_directory(&places.run)?;
    let (server, agent) = (places.server()?, places.agent()?);
    let mut running = Server::start(server.clone()).await?;
    if !hextet_agent::has_joined(&agent) {
        let host = Some(agent.host_id().clone());
        let token = admin::join_token(&server, host, TOKEN).await?;
        hextet_agent::join(&agent, &token)
            .await
            .context("join this host to its own server")?;
    }
    let (kept, asked) = (places.clone(), settings.asked);
    thread::Builder::new()
        .name("keeper".to_owned())
        .spawn(move || keeper::run(&kept, &asked))
        .context("start the keeper's thread")?;
    let outcome = tokio::select! {
        ended = hextet_agent::run(agent) => ended,
        failed = running.failed() => failed.map_err(anyhow::Error::from),
    };
    info!("ending; what was programmed stands");
    let stopped = running.stop().await;
    outcome.and(stopped.map_err(anyhow::Error::from))
}
