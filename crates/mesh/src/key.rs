//! Keys: Ed25519, by `ring`. A signature is made for one purpose and counts for no other; a key that signs is never printed.

use std::fmt;

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use ring::{
    digest::{SHA256, digest},
    signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey},
};
use thiserror::Error;

/// Octets of a signature.
pub const SIGNATURE_LEN: usize = 64;

/// What a signature is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Domain {
    /// A node's certificate.
    Certificate,
    /// Which keys issue certificates.
    Issuers,
    /// A network's parameters.
    Parameters,
    /// Which certificates count no more.
    Revocations,
    /// A request for the first certificate.
    Enrolment,
    /// A request for the next one.
    Renewal,
    /// What nodes write to each other.
    Letter,
    /// Where a node is.
    Presence,
    /// A registry's request to be one of a network.
    Accession,
    /// A registry's question for what another one knows.
    Pull,
}

impl Domain {
    const fn name(self) -> &'static [u8] {
        match self {
            Domain::Certificate => b"hextet mesh certificate\0",
            Domain::Issuers => b"hextet mesh issuers\0",
            Domain::Parameters => b"hextet mesh parameters\0",
            Domain::Revocations => b"hextet mesh revocations\0",
            Domain::Enrolment => b"hextet mesh enrolment\0",
            Domain::Renewal => b"hextet mesh renewal\0",
            Domain::Letter => b"hextet mesh letter\0",
            Domain::Presence => b"hextet mesh presence\0",
            Domain::Accession => b"hextet mesh accession\0",
            Domain::Pull => b"hextet mesh pull\0",
        }
    }
}

/// A key that signatures are checked with.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PublicKey(pub [u8; 32]);

impl PublicKey {
    /// By which what is signed names its signer.
    pub fn id(&self) -> KeyId {
        let digest = digest(&SHA256, &self.0);
        KeyId(digest.as_ref().first_chunk().copied().unwrap_or_default())
    }

    /// Whether the key's owner signed this, for this.
    pub fn verify(&self, domain: Domain, message: &[u8], signature: &[u8; SIGNATURE_LEN]) -> bool {
        let message = [domain.name(), message].concat();
        UnparsedPublicKey::new(&ED25519, self.0)
            .verify(&message, signature)
            .is_ok()
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&BASE64_URL_SAFE_NO_PAD.encode(self.0))
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The first octets of a public key's SHA-256. It finds a key among those that are trusted already, and proves nothing.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyId(pub [u8; 8]);

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", u64::from_be_bytes(self.0))
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A network, by the first octets of its root key's hash: no two roots can claim one network by mistake.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NetworkId(pub u64);

impl NetworkId {
    /// The network whose root this is.
    pub fn of(root: &PublicKey) -> Self {
        NetworkId(u64::from_be_bytes(root.id().0))
    }
}

impl fmt::Display for NetworkId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Debug for NetworkId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A seed that no key comes of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("no key comes of this seed")]
pub struct BadSeed;

/// A key that signs.
pub struct SigningKey(Ed25519KeyPair);

impl SigningKey {
    /// The key of a seed, which has to be secret and random.
    ///
    /// # Errors
    ///
    /// The library refuses it.
    pub fn from_seed(seed: &[u8; 32]) -> Result<Self, BadSeed> {
        Ed25519KeyPair::from_seed_unchecked(seed)
            .map(SigningKey)
            .map_err(|_| BadSeed)
    }

    /// What others check its signatures with.
    pub fn public(&self) -> PublicKey {
        let mut octets = [0; 32];
        for (to, from) in octets.iter_mut().zip(self.0.public_key().as_ref()) {
            *to = *from;
        }
        PublicKey(octets)
    }

    /// Signs this, for this.
    pub fn sign(&self, domain: Domain, message: &[u8]) -> [u8; SIGNATURE_LEN] {
        let message = [domain.name(), message].concat();
        let mut octets = [0; SIGNATURE_LEN];
        for (to, from) in octets.iter_mut().zip(self.0.sign(&message).as_ref()) {
            *to = *from;
        }
        octets
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SigningKey(of {})", self.public())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 8032 §7.1, the key of test 1.
    #[test]
    fn a_key_of_the_rfc() {
        let seed = [
            0x9d, 0x61, 0xb1, 0x9d, 0xef, 0xfd, 0x5a, 0x60, 0xba, 0x84, 0x4a, 0xf4, 0x92, 0xec,
            0x2c, 0xc4, 0x44, 0x49, 0xc5, 0x69, 0x7b, 0x32, 0x69, 0x19, 0x70, 0x3b, 0xac, 0x03,
            0x1c, 0xae, 0x7f, 0x60,
        ];
        let public = SigningKey::from_seed(&seed).unwrap().public();
        assert_eq!(public.0[..4], [0xd7, 0x5a, 0x98, 0x01]);
        assert_eq!(public.0[28..], [0xf7, 0x07, 0x51, 0x1a]);
    }

    #[test]
    fn a_signature_counts_for_its_purpose_only() {
        let key = SigningKey::from_seed(&[7; 32]).unwrap();
        let signature = key.sign(Domain::Enrolment, b"words");
        assert!(key.public().verify(Domain::Enrolment, b"words", &signature));
        assert!(!key.public().verify(Domain::Renewal, b"words", &signature));
        assert!(!key.public().verify(Domain::Enrolment, b"word", &signature));
        let other = SigningKey::from_seed(&[8; 32]).unwrap().public();
        assert!(!other.verify(Domain::Enrolment, b"words", &signature));
    }

    #[test]
    fn a_signing_key_is_not_printed() {
        let seed = [0x41; 32];
        let key = SigningKey::from_seed(&seed).unwrap();
        let printed = format!("{key:?} {key:#?}");
        for secret in [
            BASE64_URL_SAFE_NO_PAD.encode(seed),
            "41414141".to_owned(),
            "65, 65".to_owned(),
        ] {
            assert!(!printed.contains(&secret), "{printed}");
        }
        assert!(printed.contains(&key.public().to_string()));
    }
}
