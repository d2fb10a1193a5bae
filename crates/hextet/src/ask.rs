//! Asks this host's agent, by HTTP over its control socket.

use std::{io, path::Path};

use anyhow::{Context, Result, anyhow, bail};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{Request, client::conn::http1};
use hyper_util::rt::TokioIo;
use serde::{Serialize, de::DeserializeOwned};
use tokio::net::UnixStream;

/// Asks and understands the answer; with a body, where there is one, in JSON.
///
/// # Errors
///
/// No agent listens there, or it refuses; with its words.
pub async fn agent<A: DeserializeOwned>(
    socket: &Path,
    path: &str,
    body: Option<&impl Serialize>,
) -> Result<A> {
    let stream = UnixStream::connect(socket).await;
    let stream = stream.map_err(|e| unreachable_agent(socket, &e))?;
    let (mut sender, driver) = http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(driver);
    let request = Request::builder()
        .method(if body.is_some() { "POST" } else { "GET" })
        .uri(path)
        .header("host", "agent")
        .header("content-type", "application/json");
    let body = body
        .map(serde_json::to_vec)
        .transpose()?
        .unwrap_or_default();
    let answer = sender
        .send_request(request.body(Full::new(Bytes::from(body)))?)
        .await?;
    let status = answer.status();
    let body = answer.into_body().collect().await?.to_bytes();
    if !status.is_success() && body.is_empty() {
        bail!(
            "what listens at {} is no agent: it answers {path} with {status}; `control_socket` in \
             the agent's configuration says where the agent does",
            socket.display()
        );
    }
    if !status.is_success() {
        bail!("{}", String::from_utf8_lossy(&body));
    }
    serde_json::from_slice(&body)
        .with_context(|| format!("understand the agent's answer to {path}"))
}

fn unreachable_agent(socket: &Path, error: &io::Error) -> anyhow::Error {
    let socket = socket.display();
    match error.kind() {
        io::ErrorKind::PermissionDenied => {
            anyhow!(
                "the agent's socket {socket} is not for you: ask as the user that it runs as, root"
            )
        }
        _ => anyhow!(
            "no agent listens at {socket} ({error}): is `hextet agent` running on this host, and \
             with that `control_socket`? --agent names another"
        ),
    }
}
