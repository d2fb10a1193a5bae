//! The control socket: what `hextet status`, `plan`, `port` and `explain` ask, over HTTP.
//!
//! Only the owner of the socket (root) can open it. Nothing that is asked changes anything, but whether this
//! host is drained (`hextet agent drain`).

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::PermissionsExt,
    path::Path,
    sync::{Arc, mpsc},
    time::Instant,
};

use anyhow::{Context, Result};
use axum::{
    Json, Router,
    extract::State,
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::{get, post},
};
use hextet_bgp::speaker::SpeakerStatus;
use hextet_types::HostId;
use tokio::{
    net::UnixListener,
    sync::{oneshot, watch},
};

use crate::{
    bfd::Sessions,
    bgp::{Drain, Drains},
    clock::Clock,
    config::PeerConfig,
    reconciler::{Input, Question, Standpoint},
    report::{ExplainRequest, Explained, MeshStatus, PeerStatus, PlannedWrite, Status},
};

/// What the answers are made of.
#[derive(Clone)]
pub struct Sources {
    /// This host.
    pub host: HostId,
    /// The peers as configured.
    pub peers: Arc<[PeerConfig]>,
    /// The loop.
    pub reconciler: mpsc::SyncSender<Input>,
    /// The speaker; none where there is no BGP.
    pub bgp: Option<watch::Receiver<Option<Arc<SpeakerStatus>>>>,
    /// BFD sessions.
    pub bfd: Option<watch::Receiver<Arc<Sessions>>>,
    /// The mesh; none where that is not the uplink.
    pub mesh: Option<watch::Receiver<MeshStatus>>,
    /// Whether this host is drained.
    pub drains: Arc<Drains>,
    /// The engines' clock.
    pub clock: Clock,
}

/// Listens on the socket and answers until the process ends.
///
/// # Errors
///
/// The socket can't be made.
pub fn serve(path: &Path, sources: Sources) -> Result<()> {
    let listener = bind(path).with_context(|| format!("listen on {}", path.display()))?;
    let router = Router::new()
        .route("/status", get(status))
        .route("/plan", get(plan))
        .route("/explain", post(explain))
        .route("/drain", post(drain))
        .with_state(sources);
    tokio::spawn(async move { axum::serve(listener, router).await });
    Ok(())
}

/// A socket that a former process left is replaced; one that somebody listens on is not.
fn bind(path: &Path) -> Result<UnixListener> {
    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory)?;
    }
    if std::os::unix::net::UnixStream::connect(path).is_ok() {
        anyhow::bail!("another agent answers there");
    }
    if path.exists() {
        fs::remove_file(path)?;
    }
    let listener = UnixListener::bind(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// An error, in words.
struct Failure(anyhow::Error);

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        (StatusCode::INTERNAL_SERVER_ERROR, format!("{:#}", self.0)).into_response()
    }
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Failure {
        Failure(error)
    }
}

impl Sources {
    async fn ask<T>(&self, question: impl FnOnce(oneshot::Sender<T>) -> Question) -> Result<T> {
        let (sender, answer) = oneshot::channel();
        let input = Input::Ask(question(sender));
        self.reconciler
            .try_send(input)
            .context("the reconciler is busy; ask again in a moment")?;
        answer.await.context("the reconciler has ended")
    }

    fn peers(&self) -> Vec<PeerStatus> {
        let Some(bgp) = self.bgp.as_ref().and_then(|s| s.borrow().clone()) else {
            return Vec::new();
        };
        let bfd = self.bfd.as_ref().map(|s| s.borrow().clone());
        self.peers
            .iter()
            .map(|peer| self.peer(peer, &bgp, bfd.as_deref()))
            .collect()
    }

    fn peer(&self, peer: &PeerConfig, bgp: &SpeakerStatus, bfd: Option<&Sessions>) -> PeerStatus {
        let known = bgp.peers.iter().find(|p| {
            p.address == Some(peer.address)
                && (peer.interface.is_none()
                    || p.peer.interface().is_none()
                    || p.peer.interface() == peer.interface.as_ref())
        });
        let since = known.and_then(|p| p.up_since.or(p.last_down.as_ref().map(|d| d.at)));
        let session = peer
            .interface
            .clone()
            .map(|interface| (interface, peer.address));
        PeerStatus {
            name: peer.name.clone(),
            address: peer.address,
            interface: peer.interface.clone(),
            asn: peer.asn,
            state: known.map_or_else(|| "Idle".to_owned(), |p| format!("{:?}", p.state)),
            for_secs: since.map_or(0, |at| self.clock.now().saturating_since(at).as_secs()),
            received: count(known, |f| f.accepted),
            sent: count(known, |f| {
                usize::try_from(f.advertised).unwrap_or(usize::MAX)
            }),
            last_error: known
                .and_then(|p| p.last_down.as_ref())
                .map(|d| d.text.clone()),
            bfd: peer
                .bfd
                .then(|| bfd.zip(session).and_then(|(all, s)| all.get(&s).cloned()))
                .map(|state| state.unwrap_or_else(|| "Down".to_owned())),
        }
    }
}

fn count(
    peer: Option<&hextet_bgp::speaker::PeerStatus>,
    of: impl Fn(&hextet_bgp::speaker::FamilyStatus) -> usize,
) -> BTreeMap<String, usize> {
    let families = peer.iter().flat_map(|p| &p.families);
    families.map(|f| (f.family.to_string(), of(f))).collect()
}

async fn status(State(sources): State<Sources>) -> Result<Json<Status>, Failure> {
    let standpoint: Standpoint = sources.ask(Question::Status).await?;
    Ok(Json(Status {
        host: sources.host.clone(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        revision: standpoint.revision,
        server_silent_secs: standpoint
            .server_heard
            .map(|at| Instant::now().saturating_duration_since(at).as_secs()),
        kernel: standpoint.kernel,
        ports: standpoint.ports,
        routers: standpoint.routers,
        drain: sources.drains.state(),
        peers: sources.peers(),
        mesh: sources.mesh.as_ref().map(|mesh| mesh.borrow().clone()),
    }))
}

async fn plan(State(sources): State<Sources>) -> Result<Json<Vec<PlannedWrite>>, Failure> {
    Ok(Json(sources.ask(Question::Plan).await??))
}

async fn explain(
    State(sources): State<Sources>,
    Json(request): Json<ExplainRequest>,
) -> Result<Json<Explained>, Failure> {
    Ok(Json(
        sources
            .ask(|answer| Question::Explain(request, answer))
            .await??,
    ))
}

async fn drain(
    State(sources): State<Sources>,
    Json(state): Json<Drain>,
) -> Result<Json<Drain>, Failure> {
    let drains = Arc::clone(&sources.drains);
    // It waits for the disk.
    tokio::task::spawn_blocking(move || drains.set(state))
        .await
        .context("decide whether this host is drained")??;
    Ok(Json(sources.drains.state()))
}
