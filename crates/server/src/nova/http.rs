//! One HTTP request and its answer.

use std::{fmt, io, path::Path, sync::Arc, time::Duration};

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::{HeaderMap, Request, Uri, client::conn::http1};
use hyper_util::rt::TokioIo;
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, ServerName, pem::PemObject},
};
use thiserror::Error;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::TlsConnector;

/// Where Linux distributions keep the authorities that they trust.
const SYSTEM_ROOTS: [&str; 3] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
];

/// Why there is no answer.
#[derive(Debug, Error)]
pub enum ClientError {
    /// The file of a password or another secret.
    #[error("read {path} (`{key}`): {source}")]
    Secret {
        /// The file.
        path: String,
        /// What names it in the configuration.
        key: &'static str,
        /// Why.
        source: io::Error,
    },
    /// Authorities.
    #[error("read the authorities that certificates are checked against (`nova.ca_file`): {0}")]
    Authorities(String),
    /// No request can go there.
    #[error("{0} is no URL of http or https with a host")]
    Url(String),
    /// It cannot be reached, or does not talk HTTP.
    #[error("ask {url}: {reason}")]
    Unreachable {
        /// Where.
        url: String,
        /// Why.
        reason: String,
    },
    /// The identity service gives no token.
    #[error(
        "{url} gives no token to user {user} in project {project}: it answers {status}; check `nova.username`, \
         `nova.password_file` and `nova.project`"
    )]
    NoToken {
        /// The identity service.
        url: String,
        /// Who asks.
        user: String,
        /// In which project.
        project: String,
        /// What it answers.
        status: u16,
    },
    /// Nova answers something else.
    #[error("{url} answers {status}: {words}")]
    Status {
        /// Nova.
        url: String,
        /// Its status.
        status: u16,
        /// Its words.
        words: String,
    },
}

/// A request.
#[derive(Debug)]
pub struct Outgoing<'a> {
    /// `GET` or `POST`.
    pub method: &'a str,
    /// Where.
    pub url: &'a str,
    /// Its headers, without `Host`.
    pub headers: Vec<(&'static str, String)>,
    /// What it carries.
    pub body: Vec<u8>,
}

/// An answer.
#[derive(Debug)]
pub struct Response {
    /// Its status code.
    pub status: u16,
    /// Its headers.
    pub headers: HeaderMap,
    /// What it carries.
    pub body: Bytes,
}

/// How requests are sent.
#[derive(Clone)]
pub struct Http {
    tls: Option<Arc<ClientConfig>>,
    /// For a whole request.
    patience: Duration,
    /// The largest answer, in octets.
    max_answer: usize,
}

impl fmt::Debug for Http {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Http").finish_non_exhaustive()
    }
}

impl Http {
    /// For requests to these places, whose certificates come from the authorities in a file, or from those that this
    /// machine trusts.
    ///
    /// # Errors
    ///
    /// One of them is HTTPS, and the authorities cannot be read.
    pub fn new(
        urls: &[&str],
        ca_file: Option<&Path>,
        patience: Duration,
        max_answer: usize,
    ) -> Result<Http, ClientError> {
        let encrypted = urls.iter().any(|url| url.starts_with("https:"));
        let tls = match encrypted {
            true => Some(tls(ca_file)?),
            false => None,
        };
        Ok(Http {
            tls,
            patience,
            max_answer,
        })
    }

    /// Sends a request; any answer will do.
    ///
    /// # Errors
    ///
    /// No answer comes in time, or none that can be understood.
    pub async fn send(&self, outgoing: Outgoing<'_>) -> Result<Response, ClientError> {
        let url = outgoing.url.to_owned();
        let unreachable = |reason: String| ClientError::Unreachable { url, reason };
        match timeout(self.patience, self.exchange(outgoing)).await {
            Ok(Ok(Ok(response))) => Ok(response),
            Ok(Ok(Err(error))) => Err(unreachable(error.to_string())),
            Ok(Err(error)) => Err(error),
            Err(_) => Err(unreachable(format!(
                "no answer within {} s",
                self.patience.as_secs()
            ))),
        }
    }

    async fn exchange(
        &self,
        outgoing: Outgoing<'_>,
    ) -> Result<Result<Response, Trouble>, ClientError> {
        let bad = || ClientError::Url(outgoing.url.to_owned());
        let uri: Uri = outgoing.url.parse().map_err(|_| bad())?;
        let authority = uri.authority().ok_or_else(bad)?;
        let host = authority.host().trim_matches(['[', ']']);
        let encrypted = uri.scheme_str() == Some("https");
        let port = authority.port_u16();
        let port = port.unwrap_or(if encrypted { 443 } else { 80 });
        let path = uri.path_and_query().map_or("/", |p| p.as_str());
        let mut request = Request::builder()
            .method(outgoing.method)
            .uri(path)
            .header("host", authority.as_str());
        for (name, value) in outgoing.headers {
            request = request.header(name, value);
        }
        let request = request.body(Full::new(Bytes::from(outgoing.body)));
        let request = request.map_err(|_| bad())?;
        let work = async {
            let tcp = TcpStream::connect((host, port)).await?;
            tcp.set_nodelay(true)?;
            match self.tls.clone().filter(|_| encrypted) {
                Some(tls) => {
                    let name = ServerName::try_from(host.to_owned())?;
                    let stream = TlsConnector::from(tls).connect(name, tcp).await?;
                    send(stream, request, self.max_answer).await
                }
                None => send(tcp, request, self.max_answer).await,
            }
        };
        Ok(work.await)
    }
}

/// What a file holds, without the end of its line.
///
/// # Errors
///
/// It cannot be read; the configuration names it by the key.
pub async fn secret(file: &Path, key: &'static str) -> Result<String, ClientError> {
    let text = tokio::fs::read_to_string(file).await;
    let text = text.map_err(|source| ClientError::Secret {
        path: file.display().to_string(),
        key,
        source,
    })?;
    Ok(text.trim_end_matches(['\r', '\n']).to_owned())
}

type Trouble = Box<dyn std::error::Error + Send + Sync>;

async fn send(
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    request: Request<Full<Bytes>>,
    max_answer: usize,
) -> Result<Response, Trouble> {
    let (mut sender, driver) = http1::handshake(TokioIo::new(stream)).await?;
    let driver = tokio::spawn(driver);
    let response = sender.send_request(request).await?;
    let (parts, body) = response.into_parts();
    let body = Limited::new(body, max_answer).collect().await?;
    driver.abort();
    Ok(Response {
        status: parts.status.as_u16(),
        headers: parts.headers,
        body: body.to_bytes(),
    })
}

fn tls(ca_file: Option<&Path>) -> Result<Arc<ClientConfig>, ClientError> {
    let system = || SYSTEM_ROOTS.iter().map(Path::new).find(|p| p.exists());
    let file = ca_file.or_else(system).ok_or_else(|| {
        ClientError::Authorities("this machine has no list of them; name one".to_owned())
    })?;
    let trouble =
        |e: &dyn std::fmt::Display| ClientError::Authorities(format!("{}: {e}", file.display()));
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(file).map_err(|e| trouble(&e))? {
        let certificate = certificate.map_err(|e| trouble(&e))?;
        // What the library does not understand may stand in a system's list.
        let _ = roots.add(certificate);
    }
    if roots.is_empty() {
        return Err(trouble(&"there is none in it"));
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| trouble(&e))?;
    let config = config.with_root_certificates(roots).with_no_client_auth();
    Ok(Arc::new(config))
}
