//! Nova's and Keystone's HTTP, as far as events need it.

use std::{io, path::Path, sync::Arc, time::Duration};

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::{HeaderMap, Request, Uri, client::conn::http1};
use hyper_util::rt::TokioIo;
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, ServerName, pem::PemObject},
};
use serde::Deserialize;
use serde_json::{Value, json};
use thiserror::Error;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::TlsConnector;

use super::queue::{Answer, Event};
use crate::config::NovaConfig;

/// For a whole request.
const PATIENCE: Duration = Duration::from_secs(10);
/// The largest answer that is read, in octets.
const MAX_ANSWER: usize = 1 << 20;
/// Where Linux distributions keep the authorities that they trust.
const SYSTEM_ROOTS: [&str; 3] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
];

/// Why there is no answer.
#[derive(Debug, Error)]
pub enum ClientError {
    /// The password's file.
    #[error("read the password from {path} (`nova.password_file`): {source}")]
    Password {
        /// The file.
        path: String,
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

/// A client with a token, once it has asked for one.
pub struct Client {
    config: NovaConfig,
    auth_url: String,
    tls: Option<Arc<ClientConfig>>,
    token: Option<String>,
}

struct Response {
    status: u16,
    headers: HeaderMap,
    body: Bytes,
}

/// What Nova answers to several events, in their order.
#[derive(Deserialize)]
struct Verdicts {
    events: Vec<Verdict>,
}

#[derive(Deserialize)]
struct Verdict {
    code: u16,
}

impl Client {
    /// A client that asks this identity service unless the configuration names another.
    ///
    /// # Errors
    ///
    /// HTTPS is asked for, and the authorities cannot be read.
    pub fn new(config: NovaConfig, own_identity: &str) -> Result<Client, ClientError> {
        let auth_url = config.auth_url.as_deref().unwrap_or(own_identity);
        let auth_url = auth_url.trim_end_matches('/').to_owned();
        let encrypted = [&config.url, &auth_url]
            .iter()
            .any(|url| url.starts_with("https:"));
        let tls = match encrypted {
            true => Some(tls(config.ca_file.as_deref())?),
            false => None,
        };
        Ok(Client {
            config,
            auth_url,
            tls,
            token: None,
        })
    }

    /// Tells Nova of events; answers what it says to each.
    ///
    /// # Errors
    ///
    /// It does not answer, or has trouble of its own.
    pub async fn tell(&mut self, events: &[Event]) -> Result<Vec<Answer>, ClientError> {
        let bodies: Vec<Value> = events.iter().map(body).collect();
        let body = json!({"events": bodies});
        let url = self.config.events_url();
        let fresh = self.token.is_none();
        let mut response = self.post_with_token(&url, &body).await?;
        if response.status == 401 && !fresh {
            self.token = None;
            response = self.post_with_token(&url, &body).await?;
        }
        let all = |answer| Ok(vec![answer; events.len()]);
        match response.status {
            200 | 207 => match serde_json::from_slice::<Verdicts>(&response.body) {
                Ok(verdicts) if verdicts.events.len() == events.len() => {
                    Ok(verdicts.events.iter().map(|v| answer(v.code)).collect())
                }
                _ if response.status == 200 => all(Answer::Taken),
                _ => all(Answer::Unknown),
            },
            404 | 422 => all(Answer::Unknown),
            400 => all(Answer::Refused),
            status => {
                if status == 401 || status == 403 {
                    self.token = None;
                }
                let words = String::from_utf8_lossy(&response.body);
                Err(ClientError::Status {
                    url,
                    status,
                    words: words.chars().take(200).collect(),
                })
            }
        }
    }

    async fn post_with_token(&mut self, url: &str, body: &Value) -> Result<Response, ClientError> {
        let token = match &self.token {
            Some(token) => token.clone(),
            None => self.authenticate().await?,
        };
        let response = self.post(url, Some(&token), body).await?;
        self.token = Some(token);
        Ok(response)
    }

    /// Keystone's API v3, by password.
    async fn authenticate(&self) -> Result<String, ClientError> {
        let config = &self.config;
        let file = &config.password_file;
        let password = tokio::fs::read_to_string(file).await;
        let password = password.map_err(|source| ClientError::Password {
            path: file.display().to_string(),
            source,
        })?;
        let password = password.trim_end_matches(['\r', '\n']);
        let user = json!({"name": config.username, "password": password,
            "domain": {"id": config.user_domain_id}});
        let project = json!({"name": config.project, "domain": {"id": config.project_domain_id}});
        let body = json!({"auth": {
            "identity": {"methods": ["password"], "password": {"user": user}},
            "scope": {"project": project}}});
        let url = format!("{}/auth/tokens", self.auth_url);
        let response = self.post(&url, None, &body).await?;
        let token = response.headers.get("x-subject-token");
        let token = token.and_then(|t| t.to_str().ok());
        match token.filter(|_| response.status == 201) {
            Some(token) => Ok(token.to_owned()),
            None => Err(ClientError::NoToken {
                url,
                user: config.username.clone(),
                project: config.project.clone(),
                status: response.status,
            }),
        }
    }

    async fn post(
        &self,
        url: &str,
        token: Option<&str>,
        body: &Value,
    ) -> Result<Response, ClientError> {
        let unreachable = |reason: String| ClientError::Unreachable {
            url: url.to_owned(),
            reason,
        };
        match timeout(PATIENCE, self.exchange(url, token, body)).await {
            Ok(Ok(Ok(response))) => Ok(response),
            Ok(Ok(Err(error))) => Err(unreachable(error.to_string())),
            Ok(Err(error)) => Err(error),
            Err(_) => Err(unreachable(format!(
                "no answer within {} s",
                PATIENCE.as_secs()
            ))),
        }
    }

    async fn exchange(
        &self,
        url: &str,
        token: Option<&str>,
        body: &Value,
    ) -> Result<Result<Response, Trouble>, ClientError> {
        let bad = || ClientError::Url(url.to_owned());
        let uri: Uri = url.parse().map_err(|_| bad())?;
        let authority = uri.authority().ok_or_else(bad)?;
        let host = authority.host().trim_matches(['[', ']']);
        let encrypted = uri.scheme_str() == Some("https");
        let port = authority.port_u16();
        let port = port.unwrap_or(if encrypted { 443 } else { 80 });
        let path = uri.path_and_query().map_or("/", |p| p.as_str());
        let mut request = Request::builder()
            .method("POST")
            .uri(path)
            .header("host", authority.as_str())
            .header("content-type", "application/json")
            .header("accept", "application/json");
        if let Some(token) = token {
            request = request.header("x-auth-token", token);
        }
        let request = request.body(Full::new(Bytes::from(body.to_string())));
        let request = request.map_err(|_| bad())?;
        let work = async {
            let tcp = TcpStream::connect((host, port)).await?;
            tcp.set_nodelay(true)?;
            match self.tls.clone().filter(|_| encrypted) {
                Some(tls) => {
                    let name = ServerName::try_from(host.to_owned())?;
                    let stream = TlsConnector::from(tls).connect(name, tcp).await?;
                    send(stream, request).await
                }
                None => send(tcp, request).await,
            }
        };
        Ok(work.await)
    }
}

type Trouble = Box<dyn std::error::Error + Send + Sync>;

async fn send(
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    request: Request<Full<Bytes>>,
) -> Result<Response, Trouble> {
    let (mut sender, driver) = http1::handshake(TokioIo::new(stream)).await?;
    let driver = tokio::spawn(driver);
    let response = sender.send_request(request).await?;
    let (parts, body) = response.into_parts();
    let body = Limited::new(body, MAX_ANSWER).collect().await?;
    driver.abort();
    Ok(Response {
        status: parts.status.as_u16(),
        headers: parts.headers,
        body: body.to_bytes(),
    })
}

/// As Nova takes it. Never `failed`: Nova would give the server up, whatever comes later.
fn body(event: &Event) -> Value {
    json!({
        "name": event.kind,
        "server_uuid": event.server,
        "tag": event.port,
        "status": "completed",
    })
}

fn answer(code: u16) -> Answer {
    match code {
        200..=299 => Answer::Taken,
        404 | 422 => Answer::Unknown,
        500.. => Answer::Silence,
        _ => Answer::Refused,
    }
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
