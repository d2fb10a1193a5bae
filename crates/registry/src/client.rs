//! What a node does to be let in and to stay: asks a registry over TLS 1.3, and knows it by its key's hash, whatever its certificate says.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use hextet_mesh::{
    certificate::{Certificate, NodeId, UnixTime},
    key::{PublicKey, SigningKey},
    label::Label,
    letter::{Known, MAX_INTRODUCED, Presence},
    parameters::RegistryAt,
    request::{Enrolment, Renewal},
    signed::Signed,
    token::{Invitation, Pin},
    trust::Trust,
};
use hextet_types::Way;
use http_body_util::{BodyExt, Full, Limited};
use hyper::{Request, client::conn::http1};
use hyper_util::rt::TokioIo;
use rustls::{
    ClientConfig, DigitallySignedStruct, Error, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{CryptoProvider, ring, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime as TlsTime},
    version::TLS13,
};
use serde::{Serialize, de::DeserializeOwned};
use thiserror::Error as ThisError;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpStream, UnixStream},
    time::timeout,
};
use tokio_rustls::TlsConnector;

use crate::{
    authority::pin_of,
    message::{
        Blob, EnrolRequest, Network, PresenceAnswer, PresenceRequest, Refused, RenewRequest,
    },
};

/// For a whole question and its answer.
const PATIENCE: Duration = Duration::from_secs(30);
/// Until somebody is there at all.
const CONNECTING: Duration = Duration::from_secs(5);
/// Octets of an answer: lists of three keys in base64 fit.
const MAX_ANSWER: usize = 512 * 1024;
/// Octets of a backup.
const MAX_BACKUP: usize = 1 << 30;

/// Why there is no answer.
#[derive(Debug, ThisError)]
pub enum ClientError {
    /// Nobody answers, or not what they should.
    #[error("ask {whom}: {why}")]
    Unreachable {
        /// Whom.
        whom: String,
        /// Why.
        why: String,
    },
    /// It says no.
    #[error("{0}")]
    Refused(String),
    /// It says what can't be true.
    #[error("the registry's answer does not hold: {0}")]
    Answer(String),
}

type Result<T, E = ClientError> = std::result::Result<T, E>;

/// What a node has got.
#[derive(Clone, Debug)]
pub struct Joined {
    /// What it knows of its network.
    pub trust: Trust,
    /// Its certificate; none while an administrator has to approve.
    pub certificate: Option<Signed<Certificate>>,
}

/// What a node says of itself.
#[derive(Clone, Debug, Default)]
pub struct About {
    /// For administrators.
    pub name: Option<Label>,
    /// Where it is, the closest first.
    pub communities: Vec<Label>,
    /// Whether it forwards for nobody.
    pub client: bool,
}

/// Asks to be let in. May be asked again with the same key: the answer is the same.
///
/// # Errors
///
/// The registry is not there, is another, refuses, or answers what does not hold.
pub async fn join(
    invitation: &Invitation,
    key: &SigningKey,
    about: About,
    now: UnixTime,
) -> Result<Joined> {
    let enrolment = Enrolment {
        token: invitation.token.clone(),
        key: key.public(),
        name: about.name,
        communities: about.communities,
        client: about.client,
    };
    let request = EnrolRequest {
        enrolment: Blob::of(&Signed::sign(enrolment, key)),
    };
    let network = ask(invitation, "/mesh/v1/enrol", Some(&request)).await?;
    judge(&network, None, key, now)
}

/// Asks for the next certificate.
///
/// # Errors
///
/// As [`join`].
pub async fn renew(
    registry: impl Into<RegistryAt>,
    key: &SigningKey,
    newest: &Signed<Certificate>,
    root: PublicKey,
    now: UnixTime,
) -> Result<Joined> {
    let renewal = Renewal {
        network: newest.body.network,
        node: newest.body.node,
        serial: newest.body.serial,
        at: now,
    };
    let request = RenewRequest {
        certificate: Blob::of(newest),
        renewal: Blob::of(&Signed::sign(renewal, key)),
    };
    let network = ask(registry, "/mesh/v1/renew", Some(&request)).await?;
    judge(&network, Some(root), key, now)
}

/// What a registry says to a node that is in.
#[derive(Clone, Debug)]
pub struct Presented {
    /// What it knows of the network.
    pub trust: Trust,
    /// Nodes that anybody can reach, and where.
    pub others: Vec<(NodeId, Way)>,
    /// Whether the registry waited for news, as it was asked to.
    pub waited: bool,
}

/// Says where a node can be reached by anybody, if it can, and asks who else is there. With `known`, the answer comes when there is something
/// newer than that, or after 20 s.
///
/// # Errors
///
/// As [`join`].
pub async fn present(
    registry: impl Into<RegistryAt>,
    key: &SigningKey,
    certificate: &Signed<Certificate>,
    root: PublicKey,
    candidates: Vec<Way>,
    known: Option<Known>,
    now: UnixTime,
) -> Result<Presented> {
    let presence = Presence {
        network: certificate.body.network,
        node: certificate.body.node,
        at: now,
        candidates,
    };
    let request = PresenceRequest {
        certificate: Blob::of(certificate),
        presence: Blob::of(&Signed::sign(presence, key)),
        known: known.map(|Known(known)| known),
    };
    let answer: PresenceAnswer = ask(registry, "/mesh/v1/presence", Some(&request)).await?;
    let joined = judge(&answer.network, Some(root), key, now)?;
    // One by datagrams and one by a stream of each.
    let others = answer.others.into_iter().take(2 * MAX_INTRODUCED);
    let others = others.filter_map(|other| Some((other.node.parse().ok()?, other.at)));
    Ok(Presented {
        trust: joined.trust,
        others: others.collect(),
        waited: answer.waited,
    })
}

/// Believes nothing that the root did not vouch for; the root itself is believed at the first time alone.
fn judge(
    network: &Network,
    root: Option<PublicKey>,
    key: &SigningKey,
    now: UnixTime,
) -> Result<Joined> {
    let bad = |why: &dyn std::fmt::Display| ClientError::Answer(why.to_string());
    let told = <[u8; 32]>::try_from(network.root.0.as_slice());
    let told = PublicKey(told.map_err(|_| bad(&"the root's length"))?);
    if root.is_some_and(|root| root != told) {
        return Err(bad(&"the root is another"));
    }
    let parameters = network.parameters.read().map_err(|e| bad(&e))?;
    let mut trust = Trust::new(told, parameters).map_err(|e| bad(&e))?;
    for list in &network.revocations {
        let list = list.read().map_err(|e| bad(&e))?;
        trust.offer_revocations(list).map_err(|e| bad(&e))?;
    }
    let certificate = network.certificate.as_ref().map(Blob::read);
    let certificate: Option<Signed<Certificate>> = certificate.transpose().map_err(|e| bad(&e))?;
    if let Some(certificate) = &certificate {
        trust.verify(certificate, now).map_err(|e| bad(&e))?;
        if certificate.body.key != key.public() {
            return Err(bad(&"the certificate is for another key"));
        }
    }
    Ok(Joined { trust, certificate })
}

/// Asks a registry that is known by its key.
///
/// # Errors
///
/// It is not there, is another, or refuses.
pub async fn ask<A: DeserializeOwned>(
    registry: impl Into<RegistryAt>,
    path: &str,
    body: Option<&impl Serialize>,
) -> Result<A> {
    let registry = registry.into();
    let url = &registry.url;
    let fail = |why: &dyn std::fmt::Display| ClientError::Unreachable {
        whom: url.to_string(),
        why: why.to_string(),
    };
    let talk = async {
        let connecting = async {
            let stream = TcpStream::connect((url.host(), url.port()));
            let stream = stream.await.map_err(|e| fail(&e))?;
            let name = ServerName::try_from(url.host().to_owned()).map_err(|e| fail(&e))?;
            let tls = tls(registry.pin).map_err(|e| fail(&e))?;
            let stream = TlsConnector::from(tls).connect(name, stream).await;
            stream.map_err(|e| fail(&e))
        };
        let stream = timeout(CONNECTING, connecting).await;
        let stream = stream.map_err(|_| fail(&"no connection within 5 s"))??;
        talk(stream, &url.to_string(), path, body, MAX_ANSWER).await
    };
    let answer = timeout(PATIENCE, talk).await;
    let answer = answer.map_err(|_| fail(&"no answer within 30 s"))??;
    serde_json::from_slice(&answer).map_err(|e| ClientError::Answer(e.to_string()))
}

/// Asks a registry on its socket; answers octets.
///
/// # Errors
///
/// It is not there, or refuses.
pub async fn ask_admin(
    socket: &std::path::Path,
    path: &str,
    body: Option<&impl Serialize>,
) -> Result<Bytes> {
    let whom = format!("the registry at {}", socket.display());
    let stream = UnixStream::connect(socket).await;
    let stream = stream.map_err(|e| ClientError::Unreachable {
        whom: whom.clone(),
        why: format!("{e}; does `hextet registry` run, with that `socket`?"),
    })?;
    talk(stream, &whom, path, body, MAX_BACKUP).await
}

async fn talk<S>(
    stream: S,
    whom: &str,
    path: &str,
    body: Option<&impl Serialize>,
    most: usize,
) -> Result<Bytes>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let fail = |why: &dyn std::fmt::Display| ClientError::Unreachable {
        whom: whom.to_owned(),
        why: why.to_string(),
    };
    let (mut sender, driver) = http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|e| fail(&e))?;
    let driver = tokio::spawn(driver);
    let method = if body.is_some() { "POST" } else { "GET" };
    let octets = body.map(serde_json::to_vec).transpose();
    let octets = octets.map_err(|e| fail(&e))?.unwrap_or_default();
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header("host", "registry")
        .header("content-type", "application/json")
        .body(Full::new(Bytes::from(octets)))
        .map_err(|e| fail(&e))?;
    let answer = sender.send_request(request).await.map_err(|e| fail(&e))?;
    let status = answer.status();
    let body = Limited::new(answer.into_body(), most).collect().await;
    let body = body.map_err(|e| fail(&e))?.to_bytes();
    driver.abort();
    if status.is_success() {
        return Ok(body);
    }
    let refused = serde_json::from_slice::<Refused>(&body);
    Err(ClientError::Refused(refused.map_or_else(
        |_| status.to_string(),
        |refused| refused.error,
    )))
}

fn tls(pin: Pin) -> Result<Arc<ClientConfig>, Error> {
    let provider = Arc::new(ring::default_provider());
    let verifier = Arc::new(Pinned {
        pin,
        provider: Arc::clone(&provider),
    });
    let config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth();
    Ok(Arc::new(config))
}

/// Names and dates in the certificate say nothing: the key is the one that the invitation names, or it isn't.
#[derive(Debug)]
struct Pinned {
    pin: Pin,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: TlsTime,
    ) -> Result<ServerCertVerified, Error> {
        match pin_of(certificate)? == self.pin {
            true => Ok(ServerCertVerified::assertion()),
            false => Err(Error::General(
                "its key is not the one that the invitation names".into(),
            )),
        }
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::General("TLS 1.2 is not spoken".into()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}
