//! The server: the networking and identity APIs, and the agents' intent.
//!
//! * [`cloud`]: store and state held together; every write goes to the store and comes back by its
//!   watch, into [`state`].
//! * [`networking`], [`identity`]: what clients ask.
//! * [`agents`]: what hosts are told, and what they tell.
//! * [`admin`]: what the administrator of this machine asks.
//!
//! Knows nothing of kernels. Ends by draining; nothing that runs in the cloud depends on it.

pub mod admin;
mod agents;
mod app;
mod cloud;
mod config;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
mod http;
mod identity;
mod keys;
mod metered;
mod metrics;
mod networking;
mod nova;
mod state;
mod write;

use std::{
    io,
    net::SocketAddr,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use axum::{
    Router,
    extract::{DefaultBodyLimit, Request, State as Shared},
    middleware::{Next, from_fn, from_fn_with_state},
    response::Response,
    routing::get,
};
use hextet_store::{Store, StoreError};
use hextet_types::Time;
use thiserror::Error;
use tokio::{
    net::TcpListener,
    sync::{mpsc, watch},
    task::JoinSet,
    time::{MissedTickBehavior, interval},
};
use tracing::{error, info, warn};

pub use crate::config::{ConfigError, NovaConfig, ServerConfig, StoreKind, TlsFiles, VniRange};
pub use crate::nova::ClientError as NovaError;
use crate::{
    agents::pki::{Pki, PkiError},
    app::{App, Gate, Settings},
    cloud::{Cloud, FollowError},
    http::listener::{self, Source},
    identity::bootstrap::{BootstrapError, bootstrap},
};

/// A request's body; the largest bulk request takes about 1 MiB.
const MAX_BODY: usize = 4 * 1024 * 1024;
/// A request's body to the identity API, which anybody can send.
const MAX_IDENTITY_BODY: usize = 64 * 1024;
/// How often what has ended is cleared away.
const SWEEP: Duration = Duration::from_secs(60);
/// For a former server that is ending to let go of the store.
const HANDOVER: Duration = Duration::from_secs(2);

/// Why the server cannot start, or had to end.
#[derive(Debug, Error)]
pub enum ServerError {
    /// The configuration.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The data directory.
    #[error("make the directory {} (`data_dir` in the configuration): {source}", path.display())]
    DataDir {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Reading the store, or following it.
    #[error(transparent)]
    Follow(#[from] FollowError),
    /// The authority for agents.
    #[error(transparent)]
    Pki(#[from] PkiError),
    /// The first start.
    #[error("first start: {0}")]
    Bootstrap(#[from] BootstrapError),
    /// What is said of Nova.
    #[error("talk to Nova (`[nova]` in the configuration): {0}")]
    Nova(#[from] NovaError),
    /// TLS for clients.
    #[error("TLS for clients: {0}")]
    Tls(String),
    /// A listener.
    #[error("listen for {what} on {address} (`{key}` in the configuration): {source}")]
    Listen {
        /// For whom.
        what: &'static str,
        /// What says where.
        key: &'static str,
        /// Where.
        address: String,
        /// Why.
        source: io::Error,
    },
}

/// Where a running server listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Addresses {
    /// For clients.
    pub clients: SocketAddr,
    /// For agents.
    pub agents: SocketAddr,
    /// For `/metrics`.
    pub metrics: SocketAddr,
}

/// A server that runs.
#[derive(Debug)]
pub struct RunningServer {
    /// Where it listens; ports that were 0 are those that the kernel chose.
    pub addresses: Addresses,
    stop: watch::Sender<bool>,
    tasks: JoinSet<Result<(), ServerError>>,
}

/// Starts servers.
#[derive(Clone, Copy, Debug)]
pub struct Server;

struct Listeners {
    clients: TcpListener,
    agents: TcpListener,
    metrics: TcpListener,
    admin: tokio::net::UnixListener,
}

impl Server {
    /// Opens the store and starts all listeners. Needs a multi-threaded tokio runtime.
    ///
    /// # Errors
    ///
    /// [`ServerError`]; then nothing listens.
    pub async fn start(config: ServerConfig) -> Result<RunningServer, ServerError> {
        config.check()?;
        if config.store == StoreKind::Redb {
            std::fs::create_dir_all(&config.data_dir).map_err(|source| ServerError::DataDir {
                path: config.data_dir.clone(),
                source,
            })?;
        }
        let store = open_store(&config).await?;
        Server::start_on(config, store).await
    }

    /// As [`Server::start`], on a store that is open already.
    ///
    /// # Errors
    ///
    /// As [`Server::start`].
    pub async fn start_on(
        config: ServerConfig,
        store: Arc<dyn Store>,
    ) -> Result<RunningServer, ServerError> {
        config.check()?;
        let tls = config
            .tls
            .as_ref()
            .map(listener::tls_from_files)
            .transpose();
        let tls = tls.map_err(ServerError::Tls)?;
        let (notifier, events) = match config.nova.as_ref().filter(|nova| nova.events) {
            Some(_) => nova::Notifier::new(),
            None => nova::Notifier::off(),
        };
        let cloud = Cloud::open(Arc::clone(&store), config.network_policy(), notifier).await?;
        let pki = Pki::open(store.as_ref()).await?;
        let agents_tls = pki.server_config()?;
        let listeners = bind(&config).await?;
        let addresses = listeners.addresses()?;

        let (stop, stopping) = watch::channel(false);
        let mut tasks = JoinSet::new();
        let following = Arc::clone(&cloud);
        tasks.spawn(async move { following.follow().await.map_err(ServerError::from) });
        let url = auth_url(&config, addresses.clients);
        if bootstrap(&cloud, &url, &config.clouds_file()).await? {
            info!(file = %config.clouds_file().display(), "made the first administrator");
        }
        let nova_metadata = config.nova.as_ref().map(nova::Metadata::new).transpose()?;
        let app = Arc::new(App {
            cloud,
            settings: Settings {
                token_lifetime_secs: config.token_lifetime_secs,
                certificate_days: config.certificate_days,
                public_url: config.public_url.clone(),
            },
            attempts: Gate::default(),
            live: agents::live::Live::default(),
            pki,
            reports: agents::status::Reports::default(),
            pace: agents::pace::Pace::of_ports(),
            joins: agents::joined::Bounds::default(),
            nova_metadata: nova_metadata.flatten(),
            metrics: metrics::Metrics::default(),
            stopping: stopping.clone(),
        });
        spawn_listeners(&mut tasks, listeners, &app, tls, agents_tls, &stopping);
        if let Some((nova, events)) = config.nova.zip(events) {
            spawn_notifier(&mut tasks, &app, (nova, url, events), stopping.clone());
        }
        spawn_housekeeping(&mut tasks, &app, store, stopping);
        info!(clients = %addresses.clients, agents = %addresses.agents, metrics = %addresses.metrics,
              "the server runs");
        Ok(RunningServer {
            addresses,
            stop,
            tasks,
        })
    }
}

impl RunningServer {
    /// Stops taking requests, lets those under way finish, and ends.
    ///
    /// # Errors
    ///
    /// What went wrong while it ran.
    pub async fn stop(mut self) -> Result<(), ServerError> {
        self.stop.send_replace(true);
        let mut outcome = Ok(());
        // Following the store ends when the store does: that one is not waited for.
        let drained = async {
            while self.tasks.len() > 1 {
                if let Some(Ok(Err(e))) = self.tasks.join_next().await {
                    outcome = Err(e);
                }
            }
        };
        let patience = Duration::from_secs(30);
        if tokio::time::timeout(patience, drained).await.is_err() {
            warn!("something did not end within 30 s");
        }
        self.tasks.shutdown().await;
        outcome
    }

    /// Waits until something ends that should not.
    ///
    /// # Errors
    ///
    /// What it was.
    pub async fn failed(&mut self) -> Result<(), ServerError> {
        while let Some(ended) = self.tasks.join_next().await {
            match ended {
                Ok(Ok(())) => {}
                Ok(Err(e)) => return Err(e),
                Err(e) => error!(error = %e, "a task of the server ended"),
            }
        }
        Ok(())
    }
}

/// Runs a server until it fails or `stop` is ready, then drains it.
///
/// # Errors
///
/// [`ServerError`].
pub async fn run(config: ServerConfig, stop: impl Future<Output = ()>) -> Result<(), ServerError> {
    let mut server = Server::start(config).await?;
    let failed = tokio::select! {
        failed = server.failed() => failed,
        () = stop => Ok(()),
    };
    let stopped = server.stop().await;
    failed.and(stopped)
}

/// Opens the store; waits a moment for a process that is ending and still has it.
async fn open_store(config: &ServerConfig) -> Result<Arc<dyn Store>, StoreError> {
    let begun = Instant::now();
    loop {
        match admin::open_store(config) {
            Err(StoreError::Locked { .. }) if begun.elapsed() < HANDOVER => {
                tokio::time::sleep(HANDOVER / 20).await;
            }
            opened => return opened,
        }
    }
}

/// How the first administrator reaches us.
fn auth_url(config: &ServerConfig, address: SocketAddr) -> String {
    let scheme = if config.tls.is_some() {
        "https"
    } else {
        "http"
    };
    let base = config.public_url.clone().unwrap_or_else(|| {
        let mut address = address;
        if address.ip().is_unspecified() {
            address.set_ip(match address {
                SocketAddr::V4(_) => std::net::Ipv4Addr::LOCALHOST.into(),
                SocketAddr::V6(_) => std::net::Ipv6Addr::LOCALHOST.into(),
            });
        }
        format!("{scheme}://{address}")
    });
    format!("{}/identity/v3", base.trim_end_matches('/'))
}

async fn bind(config: &ServerConfig) -> Result<Listeners, ServerError> {
    let tcp = async |what, key, address: SocketAddr| {
        TcpListener::bind(address)
            .await
            .map_err(|source| ServerError::Listen {
                what,
                key,
                address: address.to_string(),
                source,
            })
    };
    Ok(Listeners {
        clients: tcp("clients", "listen", config.listen).await?,
        agents: tcp("agents", "agents", config.agents).await?,
        metrics: tcp("metrics", "metrics", config.metrics).await?,
        admin: admin::bind(&config.admin_socket).map_err(|source| ServerError::Listen {
            what: "the administrator",
            key: "admin_socket",
            address: config.admin_socket.display().to_string(),
            source,
        })?,
    })
}

impl Listeners {
    fn addresses(&self) -> Result<Addresses, ServerError> {
        let of = |what, listener: &TcpListener| {
            listener.local_addr().map_err(|source| ServerError::Listen {
                what,
                key: what,
                address: String::new(),
                source,
            })
        };
        Ok(Addresses {
            clients: of("clients", &self.clients)?,
            agents: of("agents", &self.agents)?,
            metrics: of("metrics", &self.metrics)?,
        })
    }
}

fn spawn_listeners(
    tasks: &mut JoinSet<Result<(), ServerError>>,
    listeners: Listeners,
    app: &Arc<App>,
    tls: Option<Arc<rustls::ServerConfig>>,
    agents_tls: Arc<rustls::ServerConfig>,
    stopping: &watch::Receiver<bool>,
) {
    let Listeners {
        clients,
        agents,
        metrics,
        admin,
    } = listeners;
    let metrics_routes = Router::new().route("/metrics", get(metrics::metrics));
    let tcp = [
        (clients, Source::Network, tls, client_routes(app)),
        (
            agents,
            Source::Host,
            Some(agents_tls),
            agents::routes().with_state(Arc::clone(app)),
        ),
        (
            metrics,
            Source::Network,
            None,
            metrics_routes.with_state(Arc::clone(app)),
        ),
    ];
    for (listener, source, tls, router) in tcp {
        let stopping = stopping.clone();
        tasks.spawn(async move {
            listener::serve(listener, source, tls, router, stopping).await;
            Ok(())
        });
    }
    let (router, stopping) = (
        admin::routes().with_state(Arc::clone(app)),
        stopping.clone(),
    );
    tasks.spawn(async move {
        listener::serve_unix(admin, router, stopping).await;
        Ok(())
    });
}

fn client_routes(app: &Arc<App>) -> Router {
    let identity = identity::routes().layer(DefaultBodyLimit::max(MAX_IDENTITY_BODY));
    Router::new()
        .route("/", get(identity::tokens::versions))
        .nest("/identity", identity)
        .route("/identity/", get(identity::tokens::versions))
        .nest("/networking", networking::routes())
        .route("/networking/", get(networking::catalogue::versions))
        .fallback(networking::nothing_of_identity)
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .layer(from_fn(http::answer::in_shape))
        .layer(from_fn_with_state(Arc::clone(app), observe))
        .with_state(Arc::clone(app))
}

/// Counts requests, and gives each an identifier that people can name.
async fn observe(Shared(app): Shared<Arc<App>>, request: Request, next: Next) -> Response {
    let begun = Instant::now();
    let method = request.method().clone();
    let id = format!("req-{}", uuid::Uuid::new_v4());
    let mut response = next.run(request).await;
    app.metrics.answered(
        &method,
        response.status().as_u16(),
        begun.elapsed().as_secs_f64(),
    );
    if let Ok(value) = axum::http::HeaderValue::from_str(&id) {
        response
            .headers_mut()
            .insert("x-openstack-request-id", value);
    }
    response
}

fn spawn_housekeeping(
    tasks: &mut JoinSet<Result<(), ServerError>>,
    app: &Arc<App>,
    store: Arc<dyn Store>,
    stopping: watch::Receiver<bool>,
) {
    let until = |mut stopping: watch::Receiver<bool>| async move {
        let _ = stopping.wait_for(|stopping| *stopping).await;
    };
    let (own, stop) = (Arc::clone(app), until(stopping.clone()));
    tasks.spawn(async move {
        tokio::select! { () = own.reports.run(&own.cloud) => {}, () = stop => {} }
        Ok(())
    });
    let (own, stop) = (Arc::clone(app), until(stopping.clone()));
    tasks.spawn(async move {
        tokio::select! { () = agents::nat44::run(&own.cloud) => {}, () = stop => {} }
        Ok(())
    });
    let (own, stop) = (Arc::clone(app), until(stopping.clone()));
    tasks.spawn(async move {
        tokio::select! { () = agents::gateway::run(&own.cloud, &own.live) => {}, () = stop => {} }
        Ok(())
    });
    let (own, stop) = (Arc::clone(app), until(stopping));
    tasks.spawn(async move {
        tokio::select! { () = keep_house(&own, store.as_ref()) => {}, () = stop => {} }
        Ok(())
    });
}

/// Tells Nova of events: as a user of the identity service at the URL, unless the configuration names another.
fn spawn_notifier(
    tasks: &mut JoinSet<Result<(), ServerError>>,
    app: &Arc<App>,
    (config, url, events): (NovaConfig, String, mpsc::Receiver<nova::Event>),
    mut stopping: watch::Receiver<bool>,
) {
    let app = Arc::clone(app);
    tasks.spawn(async move {
        tokio::select! {
            told = nova::run(config, &url, events, &app.metrics) => told.map_err(ServerError::from),
            _ = stopping.wait_for(|stopping| *stopping) => Ok(()),
        }
    });
}

/// Mends what a former server may have left half done, then tells the store the time and clears
/// away what has ended.
async fn keep_house(app: &App, store: &dyn Store) {
    let networks: Vec<_> = app.cloud.state().networks.ids().copied().collect();
    for network in networks {
        if let Err(error) = networking::allocate::attach_automatic(&app.cloud, network).await {
            warn!(%network, %error, "give ports their automatic addresses");
        }
    }
    let begun = Instant::now();
    let mut ticks = interval(Duration::from_secs(1));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut swept = Instant::now();
    loop {
        ticks.tick().await;
        if let Err(error) = store.tick(Time::ZERO + begun.elapsed()).await {
            warn!(%error, "tell the store the time");
        }
        if swept.elapsed() < SWEEP {
            continue;
        }
        swept = Instant::now();
        if let Err(error) = identity::sweep::sweep(&app.cloud).await {
            warn!(%error, "clear ended tokens away");
        }
        if let Err(error) = agents::join::sweep(&app.cloud).await {
            warn!(%error, "clear expired join tokens away");
        }
        if let Err(error) = agents::metered::sweep(&app.cloud).await {
            warn!(%error, "clear away what deleted metering labels had counted");
        }
    }
}
