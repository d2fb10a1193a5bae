//! The registry of a mesh: lets nodes in, gives them addresses and certificates, revokes them, and signs what holds for all.
//!
//! It may not know the kernel. It is on no packet's way: while it is down, nodes go on.
//!
//! What always holds: no prefix is given twice; what was answered is in the store; who lost an answer asks again and gets the same.
//!
//! [`accession`] makes a registry one of a network that is there, [`sisters`] keeps it up to date with the others. [`book`] decides and remembers, [`rules`] are what administrators write of who may talk to whom, `presence` knows where nodes are by now, [`http`] is for nodes, [`admin`] for administrators, [`client`] asks.

pub mod accession;
pub mod admin;
pub mod authority;
pub mod book;
pub mod client;
pub mod clock;
pub mod config;
pub mod error;
pub mod http;
pub mod listener;
pub mod mail;
pub mod message;
pub mod pace;
pub mod plan;
mod presence;
mod record;
pub mod rules;
pub mod sisters;
pub mod told;

use std::{io::BufRead, os::unix::fs::PermissionsExt, path::Path, sync::Arc, time::Duration};

use bytes::Bytes;
use hextet_store::{RedbOptions, RedbStore, Store, load};
use tokio::{
    net::{TcpListener, UnixListener},
    sync::watch,
    time::interval,
};
use tracing::{info, warn};

use crate::{
    book::Book,
    clock::now,
    config::Config,
    error::{RegistryError, Result},
    http::App,
    mail::Mailer,
};

/// Between looks for tokens and nodes whose time is over.
const SWEEP: Duration = Duration::from_secs(60);

/// A registry that listens.
#[derive(Debug)]
pub struct Registry {
    app: Arc<App>,
    public: TcpListener,
    admin: UnixListener,
    tls: Arc<rustls::ServerConfig>,
}

impl Registry {
    /// Opens the store and listens.
    ///
    /// # Errors
    ///
    /// The store, the configuration, an address that is in use.
    pub async fn open(config: &Config) -> Result<Self> {
        let store = open_store(&config.store)?;
        accession::join(&store, config).await?;
        let (book, tls) = Book::open(store, config, now()).await?;
        let mailer = config.mail.as_ref().map(Mailer::new).transpose()?;
        let app = App::new(book, mailer);
        let setup = |what: String, e: std::io::Error| RegistryError::Setup(format!("{what}: {e}"));
        let public = TcpListener::bind(config.listen).await;
        let public = public.map_err(|e| setup(format!("listen on {}", config.listen), e))?;
        let admin = bind_unix(&config.socket)
            .map_err(|e| setup(format!("listen on {}", config.socket.display()), e))?;
        Ok(Registry {
            app,
            public,
            admin,
            tls,
        })
    }

    /// Serves until `told_to_end`.
    pub async fn run(self, told_to_end: impl Future<Output = ()>) {
        let (stop, stopping) = watch::channel(false);
        let book = Arc::clone(&self.app.book);
        let door = self.app.book.lock().await.door().text();
        info!(door, "the registry listens");
        let public = tokio::spawn(listener::serve(
            self.public,
            self.tls,
            http::router(Arc::clone(&self.app)),
            stopping.clone(),
        ));
        let following = sisters::follow(Arc::clone(&book), Arc::clone(&self.app.heard));
        let following = tokio::spawn(following);
        let admin = admin::router(self.app);
        let admin = tokio::spawn(listener::serve_unix(self.admin, admin, stopping));
        let sweeping = tokio::spawn(async move {
            let mut ticks = interval(SWEEP);
            loop {
                ticks.tick().await;
                if let Err(error) = book.lock().await.sweep(now()).await {
                    warn!(%error, "what is over was not removed");
                }
            }
        });
        told_to_end.await;
        sweeping.abort();
        following.abort();
        let _ = stop.send(true);
        let _ = tokio::join!(public, admin, sweeping, following);
    }
}

/// Fills a registry's store from a backup; the registry must not be running.
///
/// # Errors
///
/// The backup is damaged, or the store is not empty and not to be overwritten.
pub async fn restore(config: &Config, from: impl BufRead, overwrite: bool) -> Result<u64> {
    let store = open_store(&config.store)?;
    let setup = |e: &dyn std::fmt::Display| RegistryError::Setup(format!("restore: {e}"));
    let loaded = load(&*store, from, overwrite)
        .await
        .map_err(|e| setup(&e))?;
    let at = serde_json::to_vec(&now().0).map_err(|e| setup(&e))?;
    let key = Bytes::from_static(record::RESTORED.as_bytes());
    store.put(key, at.into()).await?;
    Ok(loaded.keys)
}

fn open_store(path: &Path) -> Result<Arc<dyn Store>> {
    if let Some(directory) = path.parent() {
        std::fs::create_dir_all(directory)
            .map_err(|e| RegistryError::Setup(format!("make {}: {e}", directory.display())))?;
    }
    Ok(Arc::new(RedbStore::open(path, &RedbOptions::default())?))
}

/// A socket of a registry that was killed is in the way. The store's lock says that no other is running.
fn bind_unix(path: &Path) -> std::io::Result<UnixListener> {
    if let Some(directory) = path.parent() {
        std::fs::create_dir_all(directory)?;
    }
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    // Nobody else gets in between: it is bound under another name, and moved when it is private.
    let private = path.with_extension("new");
    let _ = std::fs::remove_file(&private);
    let listener = UnixListener::bind(&private)?;
    std::fs::set_permissions(&private, std::fs::Permissions::from_mode(0o600))?;
    std::fs::rename(&private, path)?;
    Ok(listener)
}
