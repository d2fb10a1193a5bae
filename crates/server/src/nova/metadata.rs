//! Nova's metadata service, which believes who asks because the question is signed.

use std::{
    net::IpAddr,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use hextet_api::agent::{MetadataAnswer, MetadataRequest};
use hextet_model::neutron::Port;
use hextet_types::Family;
use hyper::{header::CONTENT_TYPE, http::uri::PathAndQuery};
use ring::hmac;
use tokio::sync::Semaphore;
use tracing::{info, warn};
use uuid::Uuid;

use super::http::{ClientError, Http, Outgoing, Response, secret};
use crate::{config::NovaConfig, metrics::Metrics};

/// For a whole question: agents wait a little longer.
const PATIENCE: Duration = Duration::from_secs(8);
/// The largest answer, in octets.
const MAX_ANSWER: usize = 256 << 10;
/// Questions at a time.
const AT_A_TIME: usize = 64;

/// Nova's metadata service.
#[derive(Debug)]
pub struct Metadata {
    config: NovaConfig,
    http: Http,
    room: Semaphore,
    /// What is wrong, as it was said last.
    trouble: Mutex<Option<Trouble>>,
}

/// What keeps Nova from telling servers of themselves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Trouble {
    /// It cannot be asked.
    Unreachable,
    /// Questions cannot be made out of the configuration.
    Configuration,
    /// It does not believe the signature.
    Signature,
}

impl Metadata {
    /// Where the configuration says that it is; none if Nova tells nobody of himself.
    ///
    /// # Errors
    ///
    /// HTTPS is asked for, and the authorities cannot be read.
    pub fn new(config: &NovaConfig) -> Result<Option<Metadata>, ClientError> {
        let Some(url) = &config.metadata_url else {
            return Ok(None);
        };
        let http = Http::new(&[url], config.ca_file.as_deref(), PATIENCE, MAX_ANSWER)?;
        Ok(Some(Metadata {
            config: config.clone(),
            http,
            room: Semaphore::new(AT_A_TIME),
            trouble: Mutex::default(),
        }))
    }

    /// Whether that can be asked for: a path, perhaps with a query (RFC 3986, section 3.3).
    pub fn is_target(target: &str) -> bool {
        target.starts_with('/') && PathAndQuery::try_from(target).is_ok()
    }

    /// Asks as that port's server. What goes wrong is an answer, too: 502, 503 or 504.
    pub async fn ask(
        &self,
        (server, port): (Uuid, &Port),
        asked: MetadataRequest,
        metrics: &Metrics,
    ) -> MetadataAnswer {
        let Ok(_permit) = self.room.try_acquire() else {
            metrics.asked_nova("busy");
            return failure(503);
        };
        let answer = self.relay(server, port, asked).await;
        let trouble = self.note(&answer);
        metrics.asked_nova(match trouble {
            None => "answered",
            Some(Trouble::Signature) => "refused",
            Some(_) => "failed",
        });
        match answer {
            Ok(answer) => understood(answer),
            Err(ClientError::Unreachable { .. }) => failure(504),
            Err(_) => failure(502),
        }
    }

    async fn relay(
        &self,
        server: Uuid,
        port: &Port,
        asked: MetadataRequest,
    ) -> Result<Response, ClientError> {
        let (url, file) = (&self.config.metadata_url, &self.config.metadata_secret_file);
        let url = url.as_deref().unwrap_or_default().trim_end_matches('/');
        let file = file.as_deref().unwrap_or(std::path::Path::new(""));
        let secret = secret(file, "nova.metadata_secret_file").await?;
        let server = server.to_string();
        let mut headers = vec![
            ("x-instance-id-signature", signature(&secret, &server)),
            ("x-instance-id", server),
            ("x-tenant-id", port.standard.project_id.to_string()),
        ];
        headers.extend(address(port).map(|address| ("x-forwarded-for", address.to_string())));
        let outgoing = Outgoing {
            method: &asked.method,
            url: &format!("{url}{}", asked.target),
            headers,
            body: asked.body,
        };
        self.http.send(outgoing).await
    }

    /// Says what is wrong once, and when it is not any more.
    fn note(&self, answer: &Result<Response, ClientError>) -> Option<Trouble> {
        let trouble = match answer {
            Ok(answer) => (answer.status == 403).then_some(Trouble::Signature),
            Err(ClientError::Unreachable { .. }) => Some(Trouble::Unreachable),
            Err(_) => Some(Trouble::Configuration),
        };
        let last = {
            let mut last = self.trouble.lock().unwrap_or_else(PoisonError::into_inner);
            std::mem::replace(&mut *last, trouble)
        };
        match (trouble, answer) {
            _ if trouble == last => {}
            (None, _) => info!("Nova answers servers again"),
            (_, Err(error)) => warn!(%error, "Nova does not answer what servers ask"),
            (_, Ok(_)) => warn!(
                "Nova answers servers 403: it does not believe their questions' signature; see that \
                 `nova.metadata_secret_file` holds what Nova has as `metadata_proxy_shared_secret` in [neutron], and that \
                 `service_metadata_proxy` is true there"
            ),
        }
        trouble
    }
}

/// HMAC (RFC 2104) with SHA-256, in hexadecimal.
fn signature(secret: &str, server: &str) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
    let tag = hmac::sign(&key, server.as_bytes());
    tag.as_ref().iter().map(|b| format!("{b:02x}")).collect()
}

/// What Nova takes for the server's own; IPv4 first.
fn address(port: &Port) -> Option<IpAddr> {
    let mut all = Family::BOTH.into_iter().flat_map(|f| port.addresses(f));
    all.next()
}

fn understood(answer: Response) -> MetadataAnswer {
    let content_type = answer.headers.get(CONTENT_TYPE);
    let content_type = content_type.and_then(|value| value.to_str().ok());
    MetadataAnswer {
        status: answer.status,
        content_type: content_type.unwrap_or_default().to_owned(),
        body: answer.body.to_vec(),
    }
}

fn failure(status: u16) -> MetadataAnswer {
    MetadataAnswer {
        status,
        content_type: "text/plain".to_owned(),
        body: Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As `hmac.new(b"secret", b"…", hashlib.sha256).hexdigest()` has it.
    #[test]
    fn servers_are_signed_as_nova_checks_it() {
        assert_eq!(
            signature("secret", "0c0a1f1e-8f2e-4b2a-9d5c-0a6f0a2b3c4d"),
            "5fa9cc3718d39b153c2507a798ad9fc0755da841e66a49d66a5765f085e4d627"
        );
    }
}
