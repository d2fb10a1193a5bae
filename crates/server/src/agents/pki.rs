//! The authority for agents: made at the first start, kept in the store.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use hextet_api::{
    agent::SERVER_NAME,
    error::{ApiError, Result},
};
use hextet_store::{Compare, Op, Store, StoreError, Txn};
use hextet_types::HostId;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName,
    DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
};
use rustls::{
    RootCertStore, ServerConfig,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, pem::PemObject},
    server::WebPkiClientVerifier,
};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use thiserror::Error;
use uuid::Uuid;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::PeerCertificate;
use crate::keys::{self, hexadecimal};

const DAY: Duration = Duration::from_secs(86_400);
const AUTHORITY_DAYS: u32 = 7_300;
const SERVER_DAYS: u32 = 1_825;
/// Clocks of hosts may be behind ours by so much.
const SKEW: Duration = Duration::from_secs(300);

/// What the store keeps of the authority.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stored {
    certificate_pem: String,
    key_pem: String,
}

/// The authority.
pub struct Pki {
    issuer: Issuer<'static, KeyPair>,
    certificate_pem: String,
    certificate: CertificateDer<'static>,
}

impl std::fmt::Debug for Pki {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pki")
            .field("fingerprint", &self.fingerprint())
            .finish_non_exhaustive()
    }
}

/// Why there is no authority.
#[derive(Debug, Error)]
pub enum PkiError {
    /// The store.
    #[error("keep the authority for agents: {0}")]
    Store(#[from] StoreError),
    /// A key or a certificate cannot be made.
    #[error("make the authority for agents: {0}")]
    Make(#[from] rcgen::Error),
    /// What is stored is none.
    #[error("the store's authority for agents is damaged ({0}): restore from a dump")]
    Damaged(String),
    /// TLS.
    #[error("set up TLS for agents: {0}")]
    Tls(String),
}

impl Pki {
    /// The authority in the store; a new one when there is none.
    ///
    /// # Errors
    ///
    /// The store fails, or what it holds is damaged.
    pub async fn open(store: &dyn Store) -> Result<Pki, PkiError> {
        let key = keys::authority();
        if store.get(key.clone()).await?.is_none() {
            let made =
                serde_json::to_vec(&make()?).map_err(|e| PkiError::Damaged(e.to_string()))?;
            // Another server may have been faster; then there is one, too.
            let txn = Txn::of([Op::put(key.clone(), made)]).when(Compare::absent(key.clone()));
            store.txn(txn).await?;
        }
        let kv = store
            .get(key)
            .await?
            .ok_or_else(|| PkiError::Damaged("it is gone".into()))?;
        let stored: Stored =
            serde_json::from_slice(&kv.value).map_err(|e| PkiError::Damaged(e.to_string()))?;
        let key = KeyPair::from_pem(&stored.key_pem)?;
        let certificate = CertificateDer::from_pem_slice(stored.certificate_pem.as_bytes())
            .map_err(|e| PkiError::Damaged(e.to_string()))?;
        let issuer = Issuer::from_ca_cert_der(&certificate, key)?;
        Ok(Pki {
            issuer,
            certificate_pem: stored.certificate_pem,
            certificate,
        })
    }

    /// SHA-256 of the authority's certificate, which ends every join token.
    pub fn fingerprint(&self) -> String {
        hexadecimal(&Sha256::digest(&self.certificate))
    }

    /// In PEM.
    pub fn certificate_pem(&self) -> &str {
        &self.certificate_pem
    }

    /// A certificate for a host, for the key that the request is signed with. Nothing else of the
    /// request counts.
    ///
    /// # Errors
    ///
    /// 400: it is no request, or not signed by its key.
    pub fn issue(&self, csr_pem: &str, host: &HostId, agent: Uuid, days: u32) -> Result<String> {
        let refuse = |e: rcgen::Error| {
            ApiError::new(
                400,
                "BadRequest",
                format!("the certificate signing request: {e}"),
            )
        };
        let request = CertificateSigningRequestParams::from_pem(csr_pem).map_err(refuse)?;
        let mut params = CertificateParams::new([host.to_string()]).map_err(refuse)?;
        params.distinguished_name = DistinguishedName::new();
        params
            .distinguished_name
            .push(DnType::CommonName, host.to_string());
        params
            .distinguished_name
            .push(DnType::OrganizationalUnitName, agent.to_string());
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        set_validity(&mut params, days);
        let certificate = params
            .signed_by(&request.public_key, &self.issuer)
            .map_err(refuse)?;
        Ok(certificate.pem())
    }

    /// TLS for the listener: our chain with the authority, and clients with or without a certificate
    /// (a host that joins has none yet).
    ///
    /// # Errors
    ///
    /// A key or certificate cannot be made.
    pub fn server_config(&self) -> Result<Arc<ServerConfig>, PkiError> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::new([SERVER_NAME.to_owned()])?;
        params.distinguished_name = DistinguishedName::new();
        params
            .distinguished_name
            .push(DnType::CommonName, SERVER_NAME);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        set_validity(&mut params, SERVER_DAYS);
        let certificate = params.signed_by(&key, &self.issuer)?;
        let tls = |e: &dyn std::fmt::Display| PkiError::Tls(e.to_string());
        let mut roots = RootCertStore::empty();
        roots.add(self.certificate.clone()).map_err(|e| tls(&e))?;
        let provider = Arc::new(ring::default_provider());
        let verifier =
            WebPkiClientVerifier::builder_with_provider(roots.into(), Arc::clone(&provider))
                .allow_unauthenticated()
                .build()
                .map_err(|e| tls(&e))?;
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let chain = vec![certificate.der().clone(), self.certificate.clone()];
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|e| tls(&e))?
            .with_client_cert_verifier(verifier)
            .with_single_cert(chain, key)
            .map_err(|e| tls(&e))?;
        Ok(Arc::new(config))
    }
}

fn make() -> Result<Stored, rcgen::Error> {
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params
        .distinguished_name
        .push(DnType::CommonName, "hextet agents");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    set_validity(&mut params, AUTHORITY_DAYS);
    let certificate = params.self_signed(&key)?;
    Ok(Stored {
        certificate_pem: certificate.pem(),
        key_pem: key.serialize_pem(),
    })
}

fn set_validity(params: &mut CertificateParams, days: u32) {
    let now = SystemTime::now();
    params.not_before = (now - SKEW).into();
    params.not_after = (now + DAY * days).into();
}

/// The host and the agent that a certificate of ours names.
pub fn read_peer(certificate: &CertificateDer<'_>) -> Option<PeerCertificate> {
    let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
    let subject = parsed.subject();
    let host = subject
        .iter_common_name()
        .next()?
        .as_str()
        .ok()?
        .parse()
        .ok()?;
    let agent = subject
        .iter_organizational_unit()
        .next()?
        .as_str()
        .ok()?
        .parse()
        .ok()?;
    Some(PeerCertificate { host, agent })
}
