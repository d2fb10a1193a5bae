//! A letter on its way: with its writer's certificate, where its reader may not have that.

use hextet_types::octets::{Reader, put_u16};

use super::{Letter, MAX_DATAGRAM};
use crate::{
    certificate::Certificate,
    signed::{Malformed, Signed},
    wire::Field,
};

/// What goes into a datagram.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Envelope {
    /// The writer's.
    pub certificate: Option<Signed<Certificate>>,
    /// The letter.
    pub letter: Signed<Letter>,
}

impl Envelope {
    /// Its octets: the length of the certificate, which may be 0, the certificate, the letter.
    pub fn encode(&self) -> Vec<u8> {
        let certificate = self.certificate.as_ref().map(Signed::encode);
        let certificate = certificate.unwrap_or_default();
        let mut out = Vec::new();
        put_u16(
            &mut out,
            u16::try_from(certificate.len()).unwrap_or(u16::MAX),
        );
        out.extend(certificate);
        out.extend(self.letter.encode());
        out
    }

    /// Reads what [`Envelope::encode`] writes, and nothing else.
    ///
    /// # Errors
    ///
    /// The octets are none, or too many.
    pub fn decode(octets: &[u8]) -> Result<Envelope, Malformed> {
        if octets.len() > MAX_DATAGRAM {
            return Err(Malformed::Trailing);
        }
        let mut reader = Reader::new(octets);
        let len = reader.u16().need("the certificate's length")?;
        let certificate = reader.take(len.into()).need("the certificate")?;
        let certificate = match len {
            0 => None,
            _ => Some(Signed::decode(certificate)?),
        };
        Ok(Envelope {
            certificate,
            letter: Signed::decode(reader.rest())?,
        })
    }
}
