//! Accepts connections up to a bound, by TLS or on a Unix socket, and serves HTTP on them. Who is silent is cut off.

use std::{io, net::SocketAddr, pin::pin, sync::Arc, time::Duration};

use axum::Router;
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto,
};
use rustls::ServerConfig;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, UnixListener},
    sync::{OwnedSemaphorePermit, Semaphore, watch},
    time::{sleep, timeout},
};
use tokio_rustls::TlsAcceptor;
use tower::ServiceExt;
use tracing::{debug, warn};

/// Connections at one time.
const MAX_CONNECTIONS: usize = 1_024;
/// For a TLS handshake, and for a request's header.
const PATIENCE: Duration = Duration::from_secs(10);
/// For everything on one connection.
const WHOLE: Duration = Duration::from_secs(60);
/// For requests under way when the registry is to end.
const DRAIN: Duration = Duration::from_secs(5);
/// After an error of `accept`, such as too many open files.
const RETRY: Duration = Duration::from_millis(100);

/// Who asks; none on the Unix socket.
#[derive(Clone, Copy, Debug)]
pub struct Peer(pub SocketAddr);

/// Serves until `stopping`.
pub async fn serve(
    listener: TcpListener,
    tls: Arc<ServerConfig>,
    router: Router,
    mut stopping: watch::Receiver<bool>,
) {
    let acceptor = TlsAcceptor::from(tls);
    let room = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    while let Some((permit, accepted)) = place(&room, listener.accept(), &mut stopping).await {
        let Some((stream, peer)) = accepted else {
            sleep(RETRY).await;
            continue;
        };
        let (acceptor, router, stopping) = (acceptor.clone(), router.clone(), stopping.clone());
        tokio::spawn(async move {
            match timeout(PATIENCE, acceptor.accept(stream)).await {
                Ok(Ok(stream)) => http(stream, Some(Peer(peer)), router, stopping).await,
                Ok(Err(error)) => debug!(%peer, %error, "no TLS"),
                Err(_) => debug!(%peer, "no TLS handshake within 10 s"),
            }
            drop(permit);
        });
    }
    drain(&room).await;
}

/// Serves administrators until `stopping`.
pub async fn serve_unix(
    listener: UnixListener,
    router: Router,
    mut stopping: watch::Receiver<bool>,
) {
    let room = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    while let Some((permit, accepted)) = place(&room, listener.accept(), &mut stopping).await {
        let Some((stream, _)) = accepted else {
            sleep(RETRY).await;
            continue;
        };
        let (router, stopping) = (router.clone(), stopping.clone());
        tokio::spawn(async move {
            http(stream, None, router, stopping).await;
            drop(permit);
        });
    }
    drain(&room).await;
}

/// The next connection, once there is room for it; none when it is time to end.
async fn place<T>(
    room: &Arc<Semaphore>,
    accept: impl Future<Output = io::Result<T>>,
    stopping: &mut watch::Receiver<bool>,
) -> Option<(OwnedSemaphorePermit, Option<T>)> {
    let next = async {
        let permit = Arc::clone(room).acquire_owned().await.ok()?;
        let accepted = accept.await.inspect_err(|error| warn!(%error, "accept"));
        Some((permit, accepted.ok()))
    };
    tokio::select! {
        next = next => next,
        _ = stopping.wait_for(|stopping| *stopping) => None,
    }
}

/// Every connection has a place; having them all means that none is left.
async fn drain(room: &Semaphore) {
    let all = u32::try_from(MAX_CONNECTIONS).unwrap_or(u32::MAX);
    let _ = timeout(DRAIN, room.acquire_many(all)).await;
}

async fn http<S>(stream: S, peer: Option<Peer>, router: Router, mut stopping: watch::Receiver<bool>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = service_fn(move |mut request: hyper::Request<Incoming>| {
        peer.map(|peer| request.extensions_mut().insert(peer));
        router.clone().oneshot(request)
    });
    let mut builder = auto::Builder::new(TokioExecutor::new()).http1_only();
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(PATIENCE);
    let mut served = pin!(builder.serve_connection(TokioIo::new(stream), service));
    let whole = async {
        tokio::select! {
            result = served.as_mut() => return result,
            _ = stopping.wait_for(|stopping| *stopping) => served.as_mut().graceful_shutdown(),
        }
        served.await
    };
    if let Ok(Err(error)) = timeout(WHOLE, whole).await {
        debug!(error, "a connection ends");
    }
}
