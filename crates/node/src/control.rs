//! Where people ask a node how it stands: a Unix socket, which answers each connection with a line of JSON.

use std::{fs, io, os::unix::fs::PermissionsExt as _, path::Path};

use anyhow::{Context as _, Result, anyhow};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{UnixListener, UnixStream},
};

use crate::status::Status;

/// Octets of an answer at most.
const MAX_ANSWER: u64 = 256 << 20;

/// Listens; what a node that was killed left there is in the way.
///
/// # Errors
///
/// Another node listens there, or the path can't be used.
pub async fn bind(path: &Path) -> Result<UnixListener> {
    let what = || format!("listen at {}", path.display());
    if UnixStream::connect(path).await.is_ok() {
        return Err(anyhow!("another node runs on this host").context(what()));
    }
    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory).with_context(what)?;
    }
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(error).with_context(what);
        }
        _ => {}
    }
    let listener = UnixListener::bind(path).with_context(what)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).with_context(what)?;
    Ok(listener)
}

/// Answers one who asks.
pub async fn answer(mut stream: UnixStream, status: Status) {
    if let Ok(text) = serde_json::to_vec(&status) {
        // Whoever does not wait for it does not get it.
        let _ = stream.write_all(&text).await;
    }
}

/// Asks the node at this socket.
///
/// # Errors
///
/// None runs.
pub async fn ask(path: &Path) -> Result<Status> {
    let stream = UnixStream::connect(path).await;
    let stream = stream.with_context(|| {
        format!(
            "no node of a mesh answers at {}: is `hextet mesh run` running on this host, with that `socket`? --socket names another",
            path.display()
        )
    })?;
    let mut text = Vec::new();
    stream.take(MAX_ANSWER).read_to_end(&mut text).await?;
    serde_json::from_slice(&text).context("understand the node's answer")
}
