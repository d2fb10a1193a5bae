//! What all that is signed has in common: a version, a body, who signed, the signature.
//!
//! A value has one encoding, so what was decoded and is encoded again is what came, and its signature still holds.

use hextet_types::octets::Reader;

pub use crate::wire::Malformed;
use crate::{
    key::{Domain, KeyId, PublicKey, SIGNATURE_LEN, SigningKey},
    wire::Field,
};

/// The version of every encoding so far.
pub const VERSION: u8 = 1;

/// Something to be signed.
pub trait Body: Sized {
    /// What its signatures are for.
    const DOMAIN: Domain;
    /// Octets in the longest encoding, signature included.
    const MAX_LEN: usize;

    /// Appends it.
    fn put(&self, out: &mut Vec<u8>);

    /// Reads what [`Body::put`] writes, and nothing else.
    ///
    /// # Errors
    ///
    /// Something is missing or out of its bounds.
    fn read(reader: &mut Reader<'_>) -> Result<Self, Malformed>;
}

/// A body and its signature, which nobody has checked yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signed<B> {
    /// What is signed.
    pub body: B,
    /// Who says to have signed.
    pub signer: KeyId,
    /// Of the version, the body and the signer.
    pub signature: [u8; SIGNATURE_LEN],
}

impl<B: Body> Signed<B> {
    /// Signs.
    pub fn sign(body: B, key: &SigningKey) -> Self {
        let signer = key.public().id();
        let signature = key.sign(B::DOMAIN, &message(&body, signer));
        Signed {
            body,
            signer,
            signature,
        }
    }

    /// Whether this key signed it.
    pub fn is_by(&self, key: &PublicKey) -> bool {
        key.id() == self.signer
            && key.verify(
                B::DOMAIN,
                &message(&self.body, self.signer),
                &self.signature,
            )
    }

    /// As it goes over the wire.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = message(&self.body, self.signer);
        out.extend_from_slice(&self.signature);
        out
    }

    /// Reads one that fills all octets.
    ///
    /// # Errors
    ///
    /// The octets are no encoding of one.
    pub fn decode(octets: &[u8]) -> Result<Self, Malformed> {
        if octets.len() > B::MAX_LEN {
            return Err(Malformed::Trailing);
        }
        let mut reader = Reader::new(octets);
        match reader.u8().need("the version")? {
            VERSION => {}
            other => return Err(Malformed::Version(other)),
        }
        let body = B::read(&mut reader)?;
        let signer = KeyId(reader.array().need("the signer")?);
        let signature = reader.array().need("the signature")?;
        match reader.is_empty() {
            true => Ok(Signed {
                body,
                signer,
                signature,
            }),
            false => Err(Malformed::Trailing),
        }
    }
}

fn message<B: Body>(body: &B, signer: KeyId) -> Vec<u8> {
    let mut out = vec![VERSION];
    body.put(&mut out);
    out.extend_from_slice(&signer.0);
    out
}
