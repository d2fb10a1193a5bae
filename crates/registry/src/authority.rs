//! The keys of a registry: made at the first start, kept in the store, printed nowhere. The first registry of a network has the root's key, too.

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

/// How long an issuing key issues: ten years.
const ISSUING_SECS: u64 = 10 * 365 * 86_400;

/// What the store keeps.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stored {
    /// At the first registry of a network.
    root_seed: Option<Blob>,
    /// The root's public key, at the others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    root: Option<Blob>,
    issuing_seed: Blob,
    tls_key: Blob,
    tls_certificate: Blob,
}

/// The keys.
#[derive(Debug)]
pub struct Authority {
    root: PublicKey,
    root_key: Option<SigningKey>,
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
    /// New keys, of a new network's first registry.
    ///
    /// # Errors
    ///
    /// None can be made.
    pub fn of_first(url: &RegistryUrl) -> Result<Self> {
        Ok(Stored {
            root_seed: Some(Blob(random::<32>()?.to_vec())),
            ..Stored::of_another(url)?
        })
    }

    /// New keys, of one more registry, which has yet to hear of its root ([`Stored::below`]).
    ///
    /// # Errors
    ///
    /// None can be made.
    pub fn of_another(url: &RegistryUrl) -> Result<Self> {
        let failed = |e: rcgen::Error| setup("make the registry's key for TLS", &e);
        let key = KeyPair::generate().map_err(failed)?;
        let mut params = CertificateParams::new([url.host().to_owned()]).map_err(failed)?;
        params.distinguished_name = DistinguishedName::new();
        params
            .distinguished_name
            .push(DnType::CommonName, "hextet registry");
        let certificate = params.self_signed(&key).map_err(failed)?;
        Ok(Stored {
            root_seed: None,
            root: None,
            issuing_seed: Blob(random::<32>()?.to_vec()),
            tls_key: Blob(key.serialize_der()),
            tls_certificate: Blob(certificate.der().to_vec()),
        })
    }

    /// With the root of a network whose first registry is another.
    pub fn below(self, root: PublicKey) -> Self {
        Stored {
            root: Some(Blob(root.0.to_vec())),
            ..self
        }
    }

    /// The issuing key, and the hash of the key that is shown to clients.
    ///
    /// # Errors
    ///
    /// They are damaged.
    pub fn issuing(&self) -> Result<(SigningKey, Pin)> {
        let certificate = CertificateDer::from(self.tls_certificate.0.as_slice());
        let pin = pin_of(&certificate).map_err(|e| RegistryError::Damaged(e.to_string()))?;
        Ok((key(&self.issuing_seed)?, pin))
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
        let root_key = stored.root_seed.as_ref().map(key).transpose()?;
        let told = stored.root.as_ref().map(|root| octets(root).map(PublicKey));
        let root = match (&root_key, told) {
            (Some(key), _) => key.public(),
            (None, Some(told)) => told?,
            (None, None) => return Err(RegistryError::Damaged("no root's key".into())),
        };
        let (issuing, pin) = stored.issuing()?;
        Ok(Authority {
            root,
            root_key,
            issuing,
            pin,
        })
    }

    /// The root's public key.
    pub fn root(&self) -> PublicKey {
        self.root
    }

    /// Whether the root's key itself is here.
    pub fn holds_root(&self) -> bool {
        self.root_key.is_some()
    }

    /// The network.
    pub fn network(&self) -> NetworkId {
        NetworkId::of(&self.root)
    }

    /// The first set of issuers: the issuing key.
    ///
    /// # Errors
    ///
    /// None in practice.
    pub fn issuers(&self, now: UnixTime) -> Result<Signed<Issuers>> {
        self.name(1, vec![issuer(self.issuing.public(), now)])
    }

    /// Names who issues certificates.
    ///
    /// # Errors
    ///
    /// The root's key is not here, or these can't be.
    pub fn name(&self, version: u32, keys: Vec<Issuer>) -> Result<Signed<Issuers>> {
        let root = self.root_key.as_ref().ok_or(RegistryError::NoRoot)?;
        let issuers = Issuers::new(self.network(), version, keys);
        let issuers =
            issuers.ok_or_else(|| RegistryError::Setup("make a set of issuers".into()))?;
        Ok(Signed::sign(issuers, root))
    }
}

/// A key that issues from now on, by clocks that may be a day behind.
pub fn issuer(key: PublicKey, now: UnixTime) -> Issuer {
    Issuer {
        key,
        not_before: UnixTime(now.0.saturating_sub(86_400)),
        not_after: now.plus(ISSUING_SECS),
    }
}

fn octets(blob: &Blob) -> Result<[u8; 32]> {
    let octets = blob.0.as_slice().try_into();
    octets.map_err(|_| RegistryError::Damaged("a key's length".into()))
}

fn key(seed: &Blob) -> Result<SigningKey> {
    SigningKey::from_seed(&octets(seed)?).map_err(|e| RegistryError::Damaged(e.to_string()))
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
