//! The administrator's socket: a Unix socket with mode 0600, for those who may read the server's
//! files anyway. `POST /join-tokens`, `GET /dump` and `GET /meters`; and the client's side of them.

use std::{
    io::{self, BufRead, Write},
    os::unix::fs::PermissionsExt,
    path::Path,
    sync::Arc,
    time::Duration,
};

use axum::{
    Json, Router,
    body::{Body, Bytes},
    extract::State as Shared,
    response::Response,
    routing::{get, post},
};
use hextet_store::{DumpSummary, RedbOptions, RedbStore, Store};
use hextet_types::HostId;
use http_body_util::{BodyExt, Full};
use hyper::{Request, client::conn::http1};
use hyper_util::rt::TokioIo;
use serde::{Deserialize, Serialize};
use thiserror::Error;
use tokio::{
    net::{UnixListener, UnixStream},
    sync::mpsc,
};
use tracing::warn;

use crate::{
    agents::{AgentError, join},
    app::App,
    config::{ServerConfig, StoreKind},
    networking::metering::sums,
};

pub use crate::networking::metering::sums::Metered;

/// Asks for a join token.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct TokenRequest {
    host: Option<HostId>,
    lifetime_secs: u64,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct TokenAnswer {
    token: String,
}

/// Everything on the socket.
pub fn routes() -> Router<Arc<App>> {
    Router::new()
        .route("/join-tokens", post(create_token))
        .route("/dump", get(write_dump))
        .route("/meters", get(meters))
}

/// Binds the socket, in place of one that a former server left.
///
/// # Errors
///
/// The directory or the socket cannot be made.
pub fn bind(path: &Path) -> io::Result<UnixListener> {
    if let Some(directory) = path.parent() {
        std::fs::create_dir_all(directory)?;
    }
    if std::os::unix::net::UnixStream::connect(path).is_ok() {
        return Err(io::Error::new(
            io::ErrorKind::AddrInUse,
            "another server listens there",
        ));
    }
    match std::fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    // Made beside, so that it is never there with a wider mode.
    let beside = path.with_extension(format!("{}.new", std::process::id()));
    let listener = UnixListener::bind(&beside)?;
    std::fs::set_permissions(&beside, std::fs::Permissions::from_mode(0o600))?;
    std::fs::rename(&beside, path)?;
    Ok(listener)
}

async fn create_token(
    Shared(app): Shared<Arc<App>>,
    Json(request): Json<TokenRequest>,
) -> Result<Json<TokenAnswer>, AgentError> {
    let lifetime = Duration::from_secs(request.lifetime_secs);
    let token = join::create_token(&app, request.host, lifetime).await?;
    Ok(Json(TokenAnswer { token }))
}

async fn meters(Shared(app): Shared<Arc<App>>) -> Json<Vec<Metered>> {
    Json(sums::all(&app.cloud.state()))
}

async fn write_dump(Shared(app): Shared<Arc<App>>) -> Response {
    let (sender, receiver) = mpsc::channel::<io::Result<Bytes>>(8);
    let store = Arc::clone(app.cloud.store());
    tokio::spawn(async move {
        let mut pipe = Pipe {
            sender: sender.clone(),
            piece: Vec::new(),
        };
        let dumped = tokio::task::spawn_blocking(move || {
            let runtime = tokio::runtime::Handle::current();
            runtime
                .block_on(hextet_store::dump(store.as_ref(), &mut pipe))
                .map(drop)?;
            pipe.flush().map_err(hextet_store::DumpError::Write)
        });
        if let Ok(Err(error)) = dumped.await {
            warn!(%error, "dump");
            // An error ends the answer in its middle, so that nobody takes it for whole.
            let _ = sender.send(Err(io::Error::other(error.to_string()))).await;
        }
    });
    let stream = futures::stream::unfold(receiver, |mut receiver| async {
        Some((receiver.recv().await?, receiver))
    });
    Response::new(Body::from_stream(stream))
}

/// Hands what is written to a stream; used in a thread that may block.
struct Pipe {
    sender: mpsc::Sender<io::Result<Bytes>>,
    piece: Vec<u8>,
}

impl Write for Pipe {
    fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
        self.piece.extend_from_slice(octets);
        if self.piece.len() >= 64 * 1024 {
            self.flush()?;
        }
        Ok(octets.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        let piece = Bytes::from(std::mem::take(&mut self.piece));
        if piece.is_empty() {
            return Ok(());
        }
        let gone = |_| io::Error::new(io::ErrorKind::BrokenPipe, "nobody reads the dump");
        self.sender.try_send(Ok(piece)).or_else(|e| match e {
            mpsc::error::TrySendError::Full(piece) => {
                futures::executor::block_on(self.sender.send(piece)).map_err(gone)
            }
            mpsc::error::TrySendError::Closed(piece) => Err(gone(mpsc::error::SendError(piece))),
        })
    }
}

/// Why the administrator's request was not done.
#[derive(Debug, Error)]
pub enum AdminError {
    /// No server listens on the socket.
    #[error(
        "no server listens at {path} ({source}): is `hextet server` running, and are you its user?"
    )]
    NoServer {
        /// The socket.
        path: String,
        /// Why.
        source: io::Error,
    },
    /// Neither does a server listen, nor is there a store.
    #[error(
        "no server listens at {path} ({source}), and there is no store {file} either: is this the \
         configuration that the server runs with?"
    )]
    Nothing {
        /// The socket.
        path: String,
        /// Why.
        source: io::Error,
        /// The store's file.
        file: String,
    },
    /// The server refuses.
    #[error("the server says {status}: {words}")]
    Refused {
        /// The HTTP status.
        status: u16,
        /// Its words.
        words: String,
    },
    /// The conversation breaks off.
    #[error("talk to the server: {0}")]
    Broken(String),
    /// The store.
    #[error(transparent)]
    Store(#[from] hextet_store::StoreError),
    /// Dumping or loading.
    #[error(transparent)]
    Dump(#[from] hextet_store::DumpError),
}

fn broken(error: impl std::fmt::Display) -> AdminError {
    AdminError::Broken(error.to_string())
}

async fn ask(
    config: &ServerConfig,
    method: &str,
    path: &str,
    body: Vec<u8>,
) -> Result<hyper::Response<hyper::body::Incoming>, AdminError> {
    let socket = &config.admin_socket;
    let stream = UnixStream::connect(socket)
        .await
        .map_err(|source| AdminError::NoServer {
            path: socket.display().to_string(),
            source,
        })?;
    let (mut sender, driver) = http1::handshake(TokioIo::new(stream))
        .await
        .map_err(broken)?;
    tokio::spawn(driver);
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header("host", "localhost")
        .header("content-type", "application/json")
        .body(Full::new(Bytes::from(body)))
        .map_err(broken)?;
    let response = sender.send_request(request).await.map_err(broken)?;
    // The connection lives as long as its sender: until the answer is read.
    let status = response.status().as_u16();
    if status == 200 {
        return Ok(response);
    }
    let words = response
        .into_body()
        .collect()
        .await
        .map_err(broken)?
        .to_bytes();
    Err(AdminError::Refused {
        status,
        words: String::from_utf8_lossy(&words).into_owned(),
    })
}

/// Asks the running server for a join token, `ID.SECRET.FINGERPRINT`: for this host, which may have
/// joined before, or for any that has not.
///
/// # Errors
///
/// No server runs, or it refuses.
pub async fn join_token(
    config: &ServerConfig,
    host: Option<HostId>,
    lifetime: Duration,
) -> Result<String, AdminError> {
    let request = TokenRequest {
        host,
        lifetime_secs: lifetime.as_secs(),
    };
    let body = serde_json::to_vec(&request).map_err(broken)?;
    let response = ask(config, "POST", "/join-tokens", body).await?;
    let body = response
        .into_body()
        .collect()
        .await
        .map_err(broken)?
        .to_bytes();
    let answer: TokenAnswer = serde_json::from_slice(&body).map_err(broken)?;
    Ok(answer.token)
}

/// Asks the running server for what metering labels have counted.
///
/// # Errors
///
/// No server runs, or it refuses.
pub async fn metered(config: &ServerConfig) -> Result<Vec<Metered>, AdminError> {
    let response = ask(config, "GET", "/meters", Vec::new()).await?;
    let body = response.into_body().collect().await.map_err(broken)?;
    serde_json::from_slice(&body.to_bytes()).map_err(broken)
}

/// Writes everything that the store holds: by the running server, or from the file when none runs.
///
/// # Errors
///
/// The store cannot be read, or `out` not be written.
pub async fn dump(config: &ServerConfig, out: &mut (impl Write + Send)) -> Result<(), AdminError> {
    let response = match ask(config, "GET", "/dump", Vec::new()).await {
        Err(AdminError::NoServer { path, source }) => {
            let file = config.store_file();
            if config.store == StoreKind::Memory || !file.exists() {
                return Err(AdminError::Nothing {
                    path,
                    source,
                    file: file.display().to_string(),
                });
            }
            let store = open_store(config)?;
            hextet_store::dump(store.as_ref(), out).await?;
            return Ok(());
        }
        other => other?,
    };
    let mut body = response.into_body();
    while let Some(frame) = body.frame().await {
        if let Ok(octets) = frame.map_err(broken)?.into_data() {
            out.write_all(&octets).map_err(broken)?;
        }
    }
    out.flush().map_err(broken)
}

/// Fills the store's file from a dump; no server may be running.
///
/// # Errors
///
/// A server runs, the dump is damaged, or the store holds something and `overwrite` is not given.
pub async fn load(
    config: &ServerConfig,
    input: &mut (impl BufRead + Send),
    overwrite: bool,
) -> Result<DumpSummary, AdminError> {
    let store = open_store(config)?;
    Ok(hextet_store::load(store.as_ref(), input, overwrite).await?)
}

/// Opens the store that the configuration names.
///
/// # Errors
///
/// The file cannot be opened, or another process has it.
pub fn open_store(config: &ServerConfig) -> Result<Arc<dyn Store>, hextet_store::StoreError> {
    match config.store {
        StoreKind::Memory => Ok(Arc::new(hextet_store::MemoryStore::default())),
        StoreKind::Redb => {
            let options = RedbOptions {
                cache_bytes: config.store_cache_bytes,
                ..RedbOptions::default()
            };
            Ok(Arc::new(RedbStore::open(config.store_file(), &options)?))
        }
    }
}
