//! One loop for every listener: accepts up to a bound, encrypts if told to, serves HTTP/1 and
//! HTTP/2, and drains when it is to end. No client holds a place by silence, nor all places.

use std::{
    collections::HashMap,
    io,
    net::{IpAddr, Ipv6Addr, SocketAddr},
    os::unix::fs::PermissionsExt,
    path::Path,
    pin::pin,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use axum::Router;
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto,
};
use rustls::{
    ServerConfig,
    pki_types::{
        CertificateDer, PrivateKeyDer,
        pem::{self, PemObject},
    },
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream, UnixListener},
    sync::{OwnedSemaphorePermit, Semaphore, watch},
    time::{sleep, timeout},
};
use tokio_rustls::TlsAcceptor;
use tower::ServiceExt;
use tracing::{debug, warn};

use super::patience::{Patient, within_patience};
use crate::{
    agents::{PeerCertificate, pki::read_peer},
    app::Connection,
    config::TlsFiles,
};

/// Connections of one listener.
const MAX_CONNECTIONS: usize = 4_096;
/// Connections of one source.
const MAX_OF_SOURCE: usize = MAX_CONNECTIONS / 4;
/// For a TLS handshake, and for a request's header to arrive.
const PATIENCE: Duration = Duration::from_secs(10);
/// For requests under way when the server is to end.
const DRAIN: Duration = Duration::from_secs(5);
/// After an error of `accept`, such as too many open files.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);

/// TLS for clients, from files.
///
/// # Errors
///
/// A file is missing or damaged, or the key is another certificate's.
pub fn tls_from_files(files: &TlsFiles) -> Result<Arc<ServerConfig>, String> {
    let unreadable = |path: &Path, what: &str, error: pem::Error| match error {
        pem::Error::NoItemsFound => format!("{} holds no {what} in PEM form", path.display()),
        other => format!("read {}: {other}", path.display()),
    };
    let chain = CertificateDer::pem_file_iter(&files.certificate)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .and_then(|chain| match chain.is_empty() {
            true => Err(pem::Error::NoItemsFound),
            false => Ok(chain),
        })
        .map_err(|e| unreadable(&files.certificate, "certificate", e))?;
    check_private(&files.key)?;
    let key = PrivateKeyDer::from_pem_file(&files.key)
        .map_err(|e| unreadable(&files.key, "private key", e))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| e.to_string())?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .map_err(|e| format!("use {} with its key: {e}", files.certificate.display()))?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

/// A key that everybody on this machine can read is no key.
fn check_private(path: &Path) -> Result<(), String> {
    let metadata = std::fs::metadata(path).map_err(|e| format!("read {}: {e}", path.display()))?;
    let mode = metadata.permissions().mode() & 0o777;
    if mode & 0o007 == 0 {
        return Ok(());
    }
    let path = path.display();
    Err(format!(
        "{path}, the private key, is open to everybody (mode {mode:o}): chmod o= {path}"
    ))
}

/// What counts as one source besides an IPv4 address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// A /64: nobody who has one is short of addresses.
    Network,
    /// An IPv6 address: a thousand hosts may share a /64.
    Host,
}

/// Serves until `stopping`, then drains.
pub async fn serve(
    listener: TcpListener,
    source: Source,
    tls: Option<Arc<ServerConfig>>,
    router: Router,
    mut stopping: watch::Receiver<bool>,
) {
    let acceptor = tls.map(TlsAcceptor::from);
    let room = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let sources = Arc::new(Sources::default());
    loop {
        let accepted = tokio::select! {
            accepted = accept(&listener, &room) => accepted,
            _ = stopping.wait_for(|stopping| *stopping) => break,
        };
        let Ok((stream, peer, permit)) = accepted else {
            sleep(ACCEPT_RETRY).await;
            continue;
        };
        let Some(place) = sources.take(source.of(peer.ip())) else {
            debug!(%peer, "refused: {MAX_OF_SOURCE} connections from there already");
            continue;
        };
        let (acceptor, router, stopping) = (acceptor.clone(), router.clone(), stopping.clone());
        tokio::spawn(async move {
            if let Err(error) = converse(stream, peer, acceptor, router, stopping).await {
                debug!(%peer, error, "a connection ends");
            }
            drop((place, permit));
        });
    }
    drop(listener);
    // Every connection holds a place; having them all means that none is left.
    let all = u32::try_from(MAX_CONNECTIONS).unwrap_or(u32::MAX);
    let _ = timeout(DRAIN + PATIENCE, room.acquire_many(all)).await;
}

async fn accept(
    listener: &TcpListener,
    room: &Arc<Semaphore>,
) -> io::Result<(TcpStream, SocketAddr, OwnedSemaphorePermit)> {
    let permit = Arc::clone(room)
        .acquire_owned()
        .await
        .map_err(io::Error::other)?;
    let (stream, peer) = listener
        .accept()
        .await
        .inspect_err(|e| warn!(error = %e, "accept"))?;
    stream.set_nodelay(true)?;
    Ok((stream, peer, permit))
}

/// How many connections each source has.
#[derive(Debug, Default)]
struct Sources(Mutex<HashMap<IpAddr, usize>>);

/// A source's connection; dropping it gives the place back.
#[derive(Debug)]
struct Place(Arc<Sources>, IpAddr);

impl Source {
    fn of(self, address: IpAddr) -> IpAddr {
        match (address.to_canonical(), self) {
            (IpAddr::V6(a), Source::Network) => Ipv6Addr::from_bits(a.to_bits() >> 64 << 64).into(),
            (other, _) => other,
        }
    }
}

impl Sources {
    /// None when the source has as many as it may.
    fn take(self: &Arc<Self>, source: IpAddr) -> Option<Place> {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry(source).or_insert(0);
        if *count >= MAX_OF_SOURCE {
            return None;
        }
        *count += 1;
        Some(Place(Arc::clone(self), source))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut counts = self.0.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(&self.1) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.1);
            }
        }
    }
}

/// What a request's connection is known by.
#[derive(Clone)]
struct Ends {
    connection: Option<Connection>,
    certificate: Option<PeerCertificate>,
}

async fn converse(
    stream: TcpStream,
    peer: SocketAddr,
    acceptor: Option<TlsAcceptor>,
    router: Router,
    stopping: watch::Receiver<bool>,
) -> Result<(), String> {
    let connection = Some(Connection {
        peer,
        tls: acceptor.is_some(),
    });
    let Some(acceptor) = acceptor else {
        return http(
            stream,
            Ends {
                connection,
                certificate: None,
            },
            router,
            stopping,
        )
        .await;
    };
    let stream = timeout(PATIENCE, acceptor.accept(stream))
        .await
        .map_err(|_| "no TLS handshake within 10 s".to_owned())?
        .map_err(|e| format!("TLS handshake: {e}"))?;
    let certificates = stream.get_ref().1.peer_certificates();
    let certificate = certificates.and_then(|c| c.first()).and_then(read_peer);
    http(
        stream,
        Ends {
            connection,
            certificate,
        },
        router,
        stopping,
    )
    .await
}

/// Serves one connection; when the server is to end, what is under way may finish.
async fn http<S>(
    stream: S,
    ends: Ends,
    router: Router,
    mut stopping: watch::Receiver<bool>,
) -> Result<(), String>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = service_fn(move |request: hyper::Request<Incoming>| {
        let mut request = request.map(within_patience);
        let Ends {
            connection,
            certificate,
        } = ends.clone();
        connection.map(|c| request.extensions_mut().insert(c));
        certificate.map(|c| request.extensions_mut().insert(c));
        router.clone().oneshot(request)
    });
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(PATIENCE);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(100);
    let mut served = pin!(builder.serve_connection(TokioIo::new(Patient::new(stream)), service));
    tokio::select! {
        result = served.as_mut() => return result.map_err(|e| e.to_string()),
        _ = stopping.wait_for(|stopping| *stopping) => served.as_mut().graceful_shutdown(),
    }
    timeout(DRAIN, served)
        .await
        .map_err(|_| "cut while a request was under way".to_owned())?
        .map_err(|e| e.to_string())
}

/// Serves on a Unix socket until `stopping`.
pub async fn serve_unix(
    listener: UnixListener,
    router: Router,
    mut stopping: watch::Receiver<bool>,
) {
    let ends = Ends {
        connection: None,
        certificate: None,
    };
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = stopping.wait_for(|stopping| *stopping) => return,
        };
        let Ok((stream, _)) = accepted else {
            sleep(ACCEPT_RETRY).await;
            continue;
        };
        tokio::spawn(http(stream, ends.clone(), router.clone(), stopping.clone()));
    }
}

#[cfg(test)]
mod tests;
