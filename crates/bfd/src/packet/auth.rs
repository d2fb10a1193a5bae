//! The authentication section (RFC 5880 §4.2 to §4.4), read and written but never verified.
//!
//! No session of this crate has a key, so each of them refuses a packet that has this section
//! (RFC 5880 §6.8.6). It is decoded all the same, so that a refusal can tell the operator what the
//! peer wants.

use std::fmt;

use thiserror::Error;

use super::DecodeError;

const SIMPLE_PASSWORD: u8 = 1;
const KEYED_MD5: u8 = 2;
const METICULOUS_KEYED_MD5: u8 = 3;
const KEYED_SHA1: u8 = 4;
const METICULOUS_KEYED_SHA1: u8 = 5;

/// An authentication section of one of the types that RFC 5880 defines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Authentication {
    /// Auth Type 1 (RFC 5880 §4.2).
    SimplePassword {
        /// Auth Key ID.
        key_id: u8,
        /// The password, in the clear.
        password: Password,
    },
    /// Auth Type 2, or 3 when meticulous (RFC 5880 §4.3).
    KeyedMd5 {
        /// The sequence number grows with every packet.
        meticulous: bool,
        /// Auth Key ID.
        key_id: u8,
        /// Sequence Number.
        sequence: u32,
        /// Auth Key/Digest.
        digest: [u8; 16],
    },
    /// Auth Type 4, or 5 when meticulous (RFC 5880 §4.4).
    KeyedSha1 {
        /// The sequence number grows with every packet.
        meticulous: bool,
        /// Auth Key ID.
        key_id: u8,
        /// Sequence Number.
        sequence: u32,
        /// Auth Key/Hash.
        digest: [u8; 20],
    },
}

/// A password of 1 to 16 octets (RFC 5880 §4.2); its text is never printed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Password {
    octets: [u8; 16],
    len: u8,
}

/// A password that is empty or too long, with its length.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("a BFD password has 1 to 16 octets, not {0}")]
pub struct PasswordError(pub usize);

impl Password {
    /// Its octets.
    pub fn as_bytes(&self) -> &[u8] {
        self.octets
            .get(..usize::from(self.len))
            .unwrap_or(&self.octets)
    }
}

impl TryFrom<&[u8]> for Password {
    type Error = PasswordError;

    fn try_from(password: &[u8]) -> Result<Self, PasswordError> {
        let mut octets = [0; 16];
        match octets.get_mut(..password.len()) {
            Some(room) if !password.is_empty() => room.copy_from_slice(password),
            _ => return Err(PasswordError(password.len())),
        }
        Ok(Password {
            octets,
            len: password.len() as u8,
        })
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password(..)")
    }
}

impl Authentication {
    /// Auth Type.
    pub const fn kind(&self) -> u8 {
        match self {
            Authentication::SimplePassword { .. } => SIMPLE_PASSWORD,
            Authentication::KeyedMd5 {
                meticulous: false, ..
            } => KEYED_MD5,
            Authentication::KeyedMd5 {
                meticulous: true, ..
            } => METICULOUS_KEYED_MD5,
            Authentication::KeyedSha1 {
                meticulous: false, ..
            } => KEYED_SHA1,
            Authentication::KeyedSha1 {
                meticulous: true, ..
            } => METICULOUS_KEYED_SHA1,
        }
    }

    /// Auth Len: octets of the whole section, 4 to 28.
    pub(super) const fn len(&self) -> u8 {
        match self {
            Authentication::SimplePassword { password, .. } => 3 + password.len,
            Authentication::KeyedMd5 { .. } => 24,
            Authentication::KeyedSha1 { .. } => 28,
        }
    }

    /// Reads the section: what stands behind the mandatory one, up to the packet's length.
    pub(super) fn decode(section: &[u8]) -> Result<Authentication, DecodeError> {
        let (kind, len) = match section {
            [kind, len, ..] => (*kind, *len),
            _ => return Err(DecodeError::AuthLen { kind: 0, len: 0 }),
        };
        let bad_len = DecodeError::AuthLen { kind, len };
        let section = section.get(..usize::from(len)).ok_or(bad_len)?;
        let meticulous = matches!(kind, METICULOUS_KEYED_MD5 | METICULOUS_KEYED_SHA1);
        match kind {
            SIMPLE_PASSWORD => {
                let [_, _, key_id, password @ ..] = section else {
                    return Err(bad_len);
                };
                let password = Password::try_from(password).map_err(|_| bad_len)?;
                Ok(Authentication::SimplePassword {
                    key_id: *key_id,
                    password,
                })
            }
            KEYED_MD5 | METICULOUS_KEYED_MD5 => {
                let (key_id, sequence, digest) = keyed(section).ok_or(bad_len)?;
                Ok(Authentication::KeyedMd5 {
                    meticulous,
                    key_id,
                    sequence,
                    digest,
                })
            }
            KEYED_SHA1 | METICULOUS_KEYED_SHA1 => {
                let (key_id, sequence, digest) = keyed(section).ok_or(bad_len)?;
                Ok(Authentication::KeyedSha1 {
                    meticulous,
                    key_id,
                    sequence,
                    digest,
                })
            }
            other => Err(DecodeError::AuthType(other)),
        }
    }

    /// Appends the section.
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        out.extend([self.kind(), self.len()]);
        match self {
            Authentication::SimplePassword { key_id, password } => {
                out.push(*key_id);
                out.extend(password.as_bytes());
            }
            Authentication::KeyedMd5 {
                key_id,
                sequence,
                digest,
                ..
            } => {
                out.extend([*key_id, 0]);
                out.extend(sequence.to_be_bytes());
                out.extend(digest);
            }
            Authentication::KeyedSha1 {
                key_id,
                sequence,
                digest,
                ..
            } => {
                out.extend([*key_id, 0]);
                out.extend(sequence.to_be_bytes());
                out.extend(digest);
            }
        }
    }
}

/// Key id, sequence number and digest of a section that has exactly the length of its type.
fn keyed<const N: usize>(section: &[u8]) -> Option<(u8, u32, [u8; N])> {
    let ([_, _, key_id, _reserved, sequence @ ..], digest) = section.split_first_chunk::<8>()?;
    Some((
        *key_id,
        u32::from_be_bytes(*sequence),
        digest.try_into().ok()?,
    ))
}

impl fmt::Display for Authentication {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self.kind() {
            SIMPLE_PASSWORD => "Simple Password",
            KEYED_MD5 => "Keyed MD5",
            METICULOUS_KEYED_MD5 => "Meticulous Keyed MD5",
            KEYED_SHA1 => "Keyed SHA1",
            _ => "Meticulous Keyed SHA1",
        })
    }
}
