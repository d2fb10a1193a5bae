//! The keys of a registry: made at the first start, kept in the store, printed nowhere.

use std::{net::IpAddr, sync::Arc};

use hextet_mesh::{
    certificate::UnixTime,
    issuers::{Issuer, Issuers},
    key::{NetworkId, PublicKey, SigningKey},
    signed::Signed,
    token::{Pin, RegistryUrl},
};
use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair};
use ring::rand::{SecureRandom, SystemRandom};
use rustls::{
    ServerConfig,
    crypto::ring as provider,
    pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer},
    server::ParsedCertificate,
    version::TLS13,
};
use serde::{Deserialize, Serialize};

use crate::{
    error::{RegistryError, Result},
    message::Blob,
};

/// How long the first issuing key issues: ten years.
const ISSUING_SECS: u64 = 10 * 365 * 86_400;

/// What the store keeps.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stored {
    root_seed: Blob,
    issuing_seed: Blob,
    tls_key: Blob,
    tls_certificate: Blob,
}

/// The keys.
#[derive(Debug)]
pub struct Authority {
    root: SigningKey,
    /// Signs certificates, parameters and revocations.
    pub issuing: SigningKey,
    /// The hash of the key that is shown to clients.
    pub pin: Pin,
}

/// Random octets.
///
/// # Errors
///
/// The system has none.
pub fn random<const N: usize>() -> Result<[u8; N]> {
    let mut octets = [0; N];
    SystemRandom::new()
        .fill(&mut octets)
        .map_err(|_| RegistryError::Setup("draw random octets from the system".into()))?;
    Ok(octets)
}

fn setup(what: &str, error: &dyn std::fmt::Display) -> RegistryError {
    RegistryError::Setup(format!("{what}: {error}"))
}

impl Stored {
    /// New keys.
    ///
    /// # Errors
    ///
    /// None can be made.
    pub fn make(url: &RegistryUrl) -> Result<Self> {
        let failed = |e: rcgen::Error| setup("make the registry's key for TLS", &e);
        let key = KeyPair::generate().map_err(failed)?;
        let mut params = CertificateParams::new([url.host().to_owned()]).map_err(failed)?;
        params.distinguished_name = DistinguishedName::new();
        params
            .distinguished_name
            .push(DnType::CommonName, "hextet registry");
        let certificate = params.self_signed(&key).map_err(failed)?;
        Ok(Stored {
            root_seed: Blob(random::<32>()?.to_vec()),
            issuing_seed: Blob(random::<32>()?.to_vec()),
            tls_key: Blob(key.serialize_der()),
            tls_certificate: Blob(certificate.der().to_vec()),
        })
    }

    /// TLS 1.3 with the self-signed certificate, which clients know by its key.
    ///
    /// # Errors
    ///
    /// The key or the certificate is damaged.
    pub fn tls(&self) -> Result<Arc<ServerConfig>> {
        let failed = |e: rustls::Error| setup("set up TLS", &e);
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(self.tls_key.0.clone()));
        let chain = vec![CertificateDer::from(self.tls_certificate.0.clone())];
        let config = ServerConfig::builder_with_provider(Arc::new(provider::default_provider()))
            .with_protocol_versions(&[&TLS13])
            .map_err(failed)?
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .map_err(failed)?;
        Ok(Arc::new(config))
    }
}

impl Authority {
    /// The keys out of the store.
    ///
    /// # Errors
    ///
    /// They are damaged.
    pub fn open(stored: &Stored) -> Result<Self> {
        let key = |seed: &Blob| {
            let seed = <[u8; 32]>::try_from(seed.0.as_slice());
            let seed = seed.map_err(|_| RegistryError::Damaged("a key's length".into()))?;
            SigningKey::from_seed(&seed).map_err(|e| RegistryError::Damaged(e.to_string()))
        };
        let certificate = CertificateDer::from(stored.tls_certificate.0.as_slice());
        let pin = pin_of(&certificate).map_err(|e| RegistryError::Damaged(e.to_string()))?;
        Ok(Authority {
            root: key(&stored.root_seed)?,
            issuing: key(&stored.issuing_seed)?,
            pin,
        })
    }

    /// The root's public key.
    pub fn root(&self) -> PublicKey {
        self.root.public()
    }

    /// The network.
    pub fn network(&self) -> NetworkId {
        NetworkId::of(&self.root.public())
    }

    /// The first set of issuers: the issuing key.
    ///
    /// # Errors
    ///
    /// None in practice.
    pub fn issuers(&self, now: UnixTime) -> Result<Signed<Issuers>> {
        let issuer = Issuer {
            key: self.issuing.public(),
            not_before: UnixTime(now.0.saturating_sub(86_400)),
            not_after: now.plus(ISSUING_SECS),
        };
        let issuers = Issuers::new(self.network(), 1, vec![issuer]);
        let issuers =
            issuers.ok_or_else(|| RegistryError::Setup("make a set of issuers".into()))?;
        Ok(Signed::sign(issuers, &self.root))
    }
}

/// The hash of a certificate's key.
///
/// # Errors
///
/// It is no certificate.
pub fn pin_of(certificate: &CertificateDer<'_>) -> Result<Pin, rustls::Error> {
    let parsed = ParsedCertificate::try_from(certificate)?;
    Ok(Pin::of(&parsed.subject_public_key_info()))
}

/// A ULA's prefix of 48 bits (RFC 4193 §3.2).
///
/// # Errors
///
/// The system has no random octets.
pub fn draw_prefix() -> Result<hextet_types::Prefix> {
    let [a, b, c, d, e] = random()?;
    let octets = [0xfd, a, b, c, d, e, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    hextet_types::Prefix::new(IpAddr::from(octets), 48)
        .map_err(|e| RegistryError::Setup(e.to_string()))
}
