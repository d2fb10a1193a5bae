//! Who this host is to the server: its key, its certificate, and how it got them.
//!
//! The key is made here and never leaves the host. A join token brings the fingerprint of the server's
//! authority along, so that the very first connection is already checked from both sides.

use std::{
    fs,
    io::Write,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, Result, bail};
use hextet_api::agent::{JoinRequest, JoinResponse, RenewRequest};
use hextet_types::HostId;
use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair};
use rustls::{
    ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    client::{WebPkiServerVerifier, verify_server_name},
    crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature},
    server::ParsedCertificate,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem::PemObject};
use sha2::{Digest, Sha256};
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::client;

/// The files under the agent's state directory.
#[derive(Clone, Debug)]
pub struct Identity {
    key: PathBuf,
    certificate: PathBuf,
    authority: PathBuf,
}

/// A join token, apart: `ID.SECRET.FINGERPRINT`.
pub(crate) struct JoinToken {
    credential: String,
    fingerprint: [u8; 32],
}

impl Identity {
    /// The identity kept in that directory, whether it is there yet or not.
    pub fn in_dir(state_dir: &Path) -> Identity {
        Identity {
            key: state_dir.join("host.key"),
            certificate: state_dir.join("host.pem"),
            authority: state_dir.join("authority.pem"),
        }
    }

    /// Whether the host has joined.
    pub fn exists(&self) -> bool {
        self.certificate.exists() && self.key.exists() && self.authority.exists()
    }

    /// Joins: makes a key, sends a request with the token, keeps the answer.
    ///
    /// # Errors
    ///
    /// The token is malformed, the server is not the one that issued it, or refuses it; nothing is kept.
    pub async fn join(&self, server: &str, host: &HostId, token: &str) -> Result<()> {
        let token = JoinToken::parse(token)?;
        let key = KeyPair::generate().context("make a key")?;
        let request = JoinRequest {
            token: token.credential.clone(),
            host: host.clone(),
            csr_pem: signing_request(host, &key)?,
        };
        let tls = ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Pinned(token.fingerprint)))
            .with_no_client_auth();
        let answer: JoinResponse = client::connect(server, Arc::new(tls))
            .await?
            .post("/v1/join", &request)
            .await
            .context("join the cloud")?;
        check_fingerprint(&answer.ca_pem, &token.fingerprint)?;
        self.keep(&key.serialize_pem(), &answer)
    }

    /// Gets a new certificate for a new key by means of the present one.
    ///
    /// # Errors
    ///
    /// The server can't be reached or refuses; the present certificate stays.
    pub async fn renew(&self, server: &str, host: &HostId) -> Result<()> {
        let key = KeyPair::generate().context("make a key")?;
        let request = RenewRequest {
            csr_pem: signing_request(host, &key)?,
        };
        let answer: JoinResponse = client::connect(server, self.tls()?)
            .await?
            .post("/v1/renew", &request)
            .await
            .context("renew the host's certificate")?;
        self.keep(&key.serialize_pem(), &answer)
    }

    /// What a connection to the server needs.
    ///
    /// # Errors
    ///
    /// A file is missing or damaged.
    pub fn tls(&self) -> Result<Arc<ClientConfig>> {
        let mut roots = RootCertStore::empty();
        for certificate in self.read_certificates(&self.authority)? {
            roots
                .add(certificate)
                .context("trust the server's authority")?;
        }
        let key = PrivateKeyDer::from_pem_file(&self.key)
            .with_context(|| format!("read the host's key {}", self.key.display()))?;
        let config = ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_client_auth_cert(self.read_certificates(&self.certificate)?, key)
            .context("use the host's certificate with its key")?;
        Ok(Arc::new(config))
    }

    /// How long until a third of the certificate's life is left: when to renew it.
    ///
    /// # Errors
    ///
    /// The certificate is missing or damaged.
    pub fn renewal_due_in(&self) -> Result<Duration> {
        let chain = self.read_certificates(&self.certificate)?;
        let first = chain
            .first()
            .context("the host's certificate file is empty")?;
        let due = renewal_due(first)?;
        let now = UnixTime::now().as_secs();
        Ok(Duration::from_secs(due.saturating_sub(now)))
    }

    fn read_certificates(&self, path: &Path) -> Result<Vec<CertificateDer<'static>>> {
        CertificateDer::pem_file_iter(path)
            .and_then(Iterator::collect)
            .with_context(|| {
                format!(
                    "read {}; has this host joined? (hextet agent join)",
                    path.display()
                )
            })
    }

    fn keep(&self, key_pem: &str, answer: &JoinResponse) -> Result<()> {
        for (path, text) in [
            (&self.authority, answer.ca_pem.as_str()),
            (&self.certificate, answer.certificate_pem.as_str()),
            (&self.key, key_pem),
        ] {
            write_beside(path, text)?;
        }
        for path in [&self.authority, &self.certificate, &self.key] {
            fs::rename(beside(path), path)
                .with_context(|| format!("put {} in place", path.display()))?;
        }
        Ok(())
    }
}

/// When a third of a certificate's life is left, in seconds since 1970.
pub(crate) fn renewal_due(certificate: &[u8]) -> Result<u64> {
    let (_, certificate) = X509Certificate::from_der(certificate)?;
    let validity = certificate.validity();
    let (begin, end) = (
        validity.not_before.timestamp(),
        validity.not_after.timestamp(),
    );
    Ok(u64::try_from(end - (end - begin) / 3).unwrap_or(0))
}

impl JoinToken {
    pub(crate) fn parse(text: &str) -> Result<JoinToken> {
        let malformed =
            "a join token is ID.SECRET.FINGERPRINT, as `hextet server join-token` prints it";
        let (credential, fingerprint) = text.trim().rsplit_once('.').context(malformed)?;
        let octets = (0..64)
            .step_by(2)
            .map(|at| u8::from_str_radix(fingerprint.get(at..at + 2)?, 16).ok())
            .collect::<Option<Vec<u8>>>();
        match octets.map(<[u8; 32]>::try_from) {
            Some(Ok(fingerprint)) => Ok(JoinToken {
                credential: credential.to_owned(),
                fingerprint,
            }),
            _ => bail!("{malformed}; its last part must be 64 hexadecimal digits"),
        }
    }
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

fn signing_request(host: &HostId, key: &KeyPair) -> Result<String> {
    let mut params = CertificateParams::new([host.to_string()]).context("name the host")?;
    params.distinguished_name = DistinguishedName::new();
    params
        .distinguished_name
        .push(DnType::CommonName, host.to_string());
    let request = params
        .serialize_request(key)
        .with_context(|| format!("sign a request with the {:?} key", key.algorithm()))?;
    request.pem().context("encode the request")
}

fn check_fingerprint(ca_pem: &str, expected: &[u8; 32]) -> Result<()> {
    let ca = CertificateDer::from_pem_slice(ca_pem.as_bytes()).context("read the authority")?;
    if Sha256::digest(&ca).as_slice() != expected {
        bail!("the server sent another authority than the one the join token names");
    }
    Ok(())
}

fn beside(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".new");
    name.into()
}

fn write_beside(path: &Path, text: &str) -> Result<()> {
    let beside = beside(path);
    let write = || {
        let mut file = fs::OpenOptions::new()
            .create(true)
            .truncate(true)
            .write(true)
            .mode(0o600)
            .open(&beside)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()
    };
    write().with_context(|| format!("write {}", beside.display()))
}

/// Trusts the one authority with this SHA-256 fingerprint, which the server has to show.
#[derive(Debug)]
struct Pinned([u8; 32]);

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let authority = intermediates
            .iter()
            .find(|c| Sha256::digest(c).as_slice() == self.0)
            .ok_or_else(|| {
                rustls::Error::General(
                    "this server is not the one that issued the join token: it does not show the \
                 authority that the token names"
                        .to_owned(),
                )
            })?;
        let mut roots = RootCertStore::empty();
        roots.add(authority.clone().into_owned())?;
        let webpki = WebPkiServerVerifier::builder_with_provider(roots.into(), provider())
            .build()
            .map_err(|e| rustls::Error::General(e.to_string()))?;
        verify_server_name(&ParsedCertificate::try_from(end_entity)?, server_name)?;
        webpki.verify_server_cert(end_entity, intermediates, server_name, ocsp, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &provider().signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &provider().signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        provider()
            .signature_verification_algorithms
            .supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn join_tokens_carry_a_fingerprint() {
        let token = JoinToken::parse(&format!("id.secret.{}", "0f".repeat(32))).unwrap();
        assert_eq!(
            (token.credential.as_str(), token.fingerprint),
            ("id.secret", [0x0f; 32])
        );
        for bad in [
            "",
            "id.secret",
            "id.secret.xyz",
            &format!("id.s.{}", "é".repeat(32)),
        ] {
            assert!(JoinToken::parse(bad).is_err(), "{bad}");
        }
    }
}
