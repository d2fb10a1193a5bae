//! A host that joins, follows its intent and reports, as an agent does.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use bytes::{Bytes, BytesMut};
use hextet_api::agent::{INTENT, IntentMessage, JoinResponse, SERVER_NAME};
use hextet_model::intent::Intent;
use hextet_server::admin;
use hextet_types::HostId;
use http_body_util::{BodyExt, Full};
use hyper::{Request, body::Incoming, client::conn::http1};
use hyper_util::rt::TokioIo;
use rcgen::{CertificateParams, KeyPair};
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, pem::PemObject},
};
use serde::Serialize;
use serde_json::json;
use tokio::{net::TcpStream, time::timeout};
use tokio_rustls::TlsConnector;

use super::{PATIENCE, TestCloud};

/// A host as the server sees it: an address, an authority that it trusts, a certificate or none.
pub struct Host {
    pub address: SocketAddr,
    pub authority: CertificateDer<'static>,
    pub identity: Option<(CertificateDer<'static>, Vec<u8>)>,
}

/// Learns the authority from the handshake, as a host with a join token does.
#[derive(Debug)]
struct Anyone;

impl rustls::client::danger::ServerCertVerifier for Anyone {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: rustls::pki_types::UnixTime,
    ) -> Result<rustls::client::danger::ServerCertVerified, rustls::Error> {
        Ok(rustls::client::danger::ServerCertVerified::assertion())
    }
    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        Ok(rustls::client::danger::HandshakeSignatureValid::assertion())
    }
    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        Ok(rustls::client::danger::HandshakeSignatureValid::assertion())
    }
    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        provider()
            .signature_verification_algorithms
            .supported_schemes()
    }
}

pub fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// The authority that the listener shows, and its fingerprint.
pub async fn shown_authority(address: SocketAddr) -> (CertificateDer<'static>, String) {
    let config = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anyone))
        .with_no_client_auth();
    let tcp = TcpStream::connect(address).await.unwrap();
    let name = ServerName::try_from(SERVER_NAME).unwrap();
    let stream = TlsConnector::from(Arc::new(config))
        .connect(name, tcp)
        .await
        .unwrap();
    let chain = stream.get_ref().1.peer_certificates().unwrap();
    let authority = chain.last().unwrap().clone().into_owned();
    let digest = <sha2::Sha256 as sha2::Digest>::digest(&authority);
    (
        authority,
        digest.iter().map(|b| format!("{b:02x}")).collect(),
    )
}

pub fn signing_request(name: &str) -> (String, KeyPair) {
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new([name.to_owned()]).unwrap();
    (params.serialize_request(&key).unwrap().pem().unwrap(), key)
}

impl Host {
    pub async fn new(cloud: &TestCloud) -> Host {
        let address = cloud.server.addresses.agents;
        let (authority, _) = shown_authority(address).await;
        Host {
            address,
            authority,
            identity: None,
        }
    }

    /// Joins with a token made for any host.
    pub async fn joined(cloud: &TestCloud, name: &str) -> Host {
        let mut host = Host::new(cloud).await;
        let token = token(cloud, None).await;
        assert_eq!(host.join(&token, name).await, 200);
        host
    }

    pub async fn join(&mut self, token: &str, name: &str) -> u16 {
        let (csr_pem, key) = signing_request(name);
        let body = json!({"token": token, "host": name, "csr_pem": csr_pem});
        let (status, body) = self.post("/v1/join", &body).await;
        if status == 200 {
            let answer: JoinResponse = serde_json::from_slice(&body).unwrap();
            let pem = answer.certificate_pem.as_bytes();
            let certificate = CertificateDer::from_pem_slice(pem).unwrap();
            self.identity = Some((certificate, key.serialize_der()));
        }
        status
    }

    pub async fn connect(&self) -> http1::SendRequest<Full<Bytes>> {
        let mut roots = RootCertStore::empty();
        roots.add(self.authority.clone()).unwrap();
        let config = ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots);
        let config = match &self.identity {
            Some((certificate, key)) => {
                let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.clone()));
                config
                    .with_client_auth_cert(vec![certificate.clone()], key)
                    .unwrap()
            }
            None => config.with_no_client_auth(),
        };
        let tcp = TcpStream::connect(self.address).await.unwrap();
        let name = ServerName::try_from(SERVER_NAME).unwrap();
        let stream = TlsConnector::from(Arc::new(config))
            .connect(name, tcp)
            .await
            .unwrap();
        let (sender, driver) = http1::handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(driver);
        sender
    }

    pub async fn send(&self, method: &str, path: &str, body: Vec<u8>) -> hyper::Response<Incoming> {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", SERVER_NAME)
            .header("content-type", "application/json")
            .body(Full::new(Bytes::from(body)))
            .unwrap();
        let mut sender = self.connect().await;
        let response = timeout(PATIENCE, sender.send_request(request))
            .await
            .unwrap()
            .unwrap();
        // Streams go on after this returns.
        tokio::spawn(async move {
            sender.ready().await.ok();
            std::future::pending::<()>().await;
        });
        response
    }

    pub async fn post(&self, path: &str, body: &impl Serialize) -> (u16, Bytes) {
        let response = self
            .send("POST", path, serde_json::to_vec(body).unwrap())
            .await;
        let status = response.status().as_u16();
        (
            status,
            response.into_body().collect().await.unwrap().to_bytes(),
        )
    }

    pub async fn intent(&self) -> Stream {
        let response = self.send("GET", INTENT, Vec::new()).await;
        assert_eq!(response.status().as_u16(), 200);
        Stream {
            body: response.into_body(),
            buffer: BytesMut::new(),
            intent: Intent::default(),
        }
    }
}

/// An intent stream, and the intent that it has told.
pub struct Stream {
    body: Incoming,
    buffer: BytesMut,
    pub intent: Intent,
}

impl Stream {
    /// The next message; none when the stream ends.
    pub async fn next(&mut self) -> Option<IntentMessage> {
        loop {
            if let Some(at) = self.buffer.iter().position(|b| *b == b'\n') {
                return Some(serde_json::from_slice(&self.buffer.split_to(at + 1)).unwrap());
            }
            let frame = timeout(PATIENCE, self.body.frame()).await.unwrap()?;
            self.buffer
                .extend_from_slice(&frame.ok()?.into_data().unwrap());
        }
    }

    /// Applies messages until, after a whole group, the intent is as it has to be.
    pub async fn until(&mut self, what: &str, holds: impl Fn(&Intent) -> bool) {
        let work = async {
            loop {
                match self
                    .next()
                    .await
                    .unwrap_or_else(|| panic!("{what}: the stream ended"))
                {
                    IntentMessage::Reset => self.intent = Intent::default(),
                    IntentMessage::Change(change) => self.intent.apply(change),
                    IntentMessage::Synced { .. } if holds(&self.intent) => return,
                    IntentMessage::Synced { .. } => {}
                }
            }
        };
        timeout(PATIENCE, work)
            .await
            .unwrap_or_else(|_| panic!("never: {what}"));
    }
}

pub async fn token(cloud: &TestCloud, host: Option<&str>) -> String {
    let host = host.map(|h| h.parse::<HostId>().unwrap());
    let whole = admin::join_token(&cloud.config, host, Duration::from_secs(60))
        .await
        .unwrap();
    let (credential, fingerprint) = whole.rsplit_once('.').unwrap();
    let (_, shown) = shown_authority(cloud.server.addresses.agents).await;
    assert_eq!(
        fingerprint, shown,
        "the token names the authority that the listener shows"
    );
    credential.to_owned()
}
