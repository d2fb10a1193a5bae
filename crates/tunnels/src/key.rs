//! WireGuard's keys.

use std::{fmt, net::Ipv6Addr, str::FromStr};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use boringtun::x25519::{PublicKey, StaticSecret};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

/// 32 octets, which are written as base64. What is secret in them is not shown by `Debug`.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Key([u8; 32]);

/// A text that is no key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no key of WireGuard: 32 octets in base64")]
pub struct KeyError;

impl Key {
    /// The public key of this private one.
    pub fn public(&self) -> Key {
        Key(PublicKey::from(&StaticSecret::from(self.0)).to_bytes())
    }

    /// The link-local address of whoever has this public key, on each of its tunnels: the other end knows it beforehand.
    pub fn link_local(&self) -> Ipv6Addr {
        let hash = Sha256::digest(self.0);
        let mut octets = [0; 16];
        octets[..2].copy_from_slice(&[0xfe, 0x80]);
        for (to, from) in octets[8..].iter_mut().zip(hash) {
            *to = from;
        }
        octets.into()
    }

    pub(crate) fn secret(&self) -> StaticSecret {
        StaticSecret::from(self.0)
    }

    pub(crate) fn public_key(&self) -> PublicKey {
        PublicKey::from(self.0)
    }

    pub(crate) const fn octets(&self) -> [u8; 32] {
        self.0
    }
}

impl From<[u8; 32]> for Key {
    fn from(octets: [u8; 32]) -> Key {
        Key(octets)
    }
}

impl FromStr for Key {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Key, KeyError> {
        let octets = STANDARD.decode(text).map_err(|_| KeyError)?;
        octets.try_into().map(Key).map_err(|_| KeyError)
    }
}

impl TryFrom<String> for Key {
    type Error = KeyError;

    fn try_from(text: String) -> Result<Key, KeyError> {
        text.parse()
    }
}

impl From<Key> for String {
    fn from(key: Key) -> String {
        STANDARD.encode(key.0)
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_read_as_it_was_written_and_not_shown() {
        let key = Key::from([7; 32]);
        let text = String::from(key.clone());
        assert_eq!(text.parse(), Ok(key.clone()));
        assert_eq!(text[..42].parse::<Key>(), Err(KeyError));
        assert_eq!(STANDARD.encode([7; 31]).parse::<Key>(), Err(KeyError));
        assert_eq!(format!("{key:?}"), "Key(…)");
    }

    /// RFC 7748 §6.1: Alice's keys.
    #[test]
    fn the_public_key_is_that_of_x25519() {
        let private = "dwdtCnMYpX08FsFyUbJmRd9ML4frwJkqsXf7pR25LCo=";
        let public = "hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmo=";
        let key: Key = private.parse().unwrap();
        assert_eq!(String::from(key.public()), public);
    }

    #[test]
    fn each_key_has_a_link_local_address_of_its_own() {
        let (one, other) = (Key::from([1; 32]), Key::from([2; 32]));
        assert_eq!(one.link_local().segments()[..4], [0xfe80, 0, 0, 0]);
        assert_ne!(one.link_local(), other.link_local());
        assert_eq!(one.link_local(), one.clone().link_local());
    }
}
