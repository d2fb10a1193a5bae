//! Message authentication codes over packets and where they go from and to (RFC 8967 §4.1).
//!
//! A link may have several keys, so that a new one can come into use before the old one goes: all sign what is sent, any one is good
//! enough for what comes.

use std::{fmt, net::Ipv6Addr};

use blake2::{
    Blake2sMac,
    digest::{KeyInit, Mac as _, consts::U16},
};
use ring::hmac;
use thiserror::Error;

use crate::{PORT, packet::Frame};

/// How packets are signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    /// HMAC-SHA256 (RFC 8967 §4.1: to be had everywhere); 32 octets.
    HmacSha256,
    /// Keyed BLAKE2s with 128 bits (RFC 7693); 16 octets.
    Blake2s128,
}

/// A secret that the nodes of a link share.
#[derive(Clone, PartialEq, Eq)]
pub struct Key {
    algorithm: Algorithm,
    secret: Vec<u8>,
}

/// A key that is of no use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("a key for {algorithm:?} has 1 to {most} octets, not {len}")]
pub struct KeyError {
    algorithm: Algorithm,
    len: usize,
    most: usize,
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({:?})", self.algorithm)
    }
}

impl Key {
    /// Of those octets: 1 to 64 for HMAC-SHA256, 1 to 32 for BLAKE2s.
    ///
    /// # Errors
    ///
    /// There are too few or too many.
    pub fn new(algorithm: Algorithm, secret: Vec<u8>) -> Result<Key, KeyError> {
        let (len, most) = match algorithm {
            Algorithm::HmacSha256 => (secret.len(), 64),
            Algorithm::Blake2s128 => (secret.len(), 32),
        };
        if len == 0 || len > most {
            return Err(KeyError {
                algorithm,
                len,
                most,
            });
        }
        Ok(Key { algorithm, secret })
    }

    /// Octets of its codes.
    pub const fn mac_len(&self) -> usize {
        match self.algorithm {
            Algorithm::HmacSha256 => 32,
            Algorithm::Blake2s128 => 16,
        }
    }

    /// The code of a packet without its trailer.
    pub fn sign(&self, from: Ipv6Addr, to: Ipv6Addr, packet: &[u8]) -> Vec<u8> {
        let pseudo = pseudo_header(from, to);
        match self.algorithm {
            Algorithm::HmacSha256 => {
                let key = hmac::Key::new(hmac::HMAC_SHA256, &self.secret);
                let mut context = hmac::Context::with_key(&key);
                context.update(&pseudo);
                context.update(packet);
                context.sign().as_ref().to_vec()
            }
            Algorithm::Blake2s128 => self.blake2s(&[&pseudo, packet]).unwrap_or_default(),
        }
    }

    fn blake2s(&self, parts: &[&[u8]]) -> Option<Vec<u8>> {
        // `new` has bounded the length, which is all that there is to fail.
        let mut mac = Blake2sMac::<U16>::new_from_slice(&self.secret).ok()?;
        for part in parts {
            mac.update(part);
        }
        Some(mac.finalize().into_bytes().to_vec())
    }

    fn verifies(&self, from: Ipv6Addr, to: Ipv6Addr, packet: &[u8], mac: &[u8]) -> bool {
        let own = self.sign(from, to, packet);
        // All octets are looked at, wherever they differ: time tells nothing.
        let differ = own
            .iter()
            .zip(mac)
            .fold(0, |differ, (a, b)| differ | (a ^ b));
        own.len() == mac.len() && !own.is_empty() && differ == 0
    }
}

/// Octets that the codes of those keys need in a trailer.
pub fn trailer_len(keys: &[Key]) -> usize {
    keys.iter().map(|key| 2 + key.mac_len()).sum()
}

/// Puts the codes of all keys behind a packet.
pub fn sign(keys: &[Key], from: Ipv6Addr, to: Ipv6Addr, packet: &mut Vec<u8>) {
    let macs: Vec<_> = keys.iter().map(|key| key.sign(from, to, packet)).collect();
    for mac in macs {
        packet.extend([MAC, u8::try_from(mac.len()).unwrap_or(0)]);
        packet.extend(mac);
    }
}

/// Whether any key has made any of the codes of a packet.
pub fn verify(keys: &[Key], from: Ipv6Addr, to: Ipv6Addr, datagram: &[u8]) -> bool {
    let Ok(frame) = Frame::of(datagram) else {
        return false;
    };
    let signed = datagram.len() - frame.trailer.len();
    let packet = &datagram[..signed];
    // Nobody has more keys; whoever sends more codes wants to keep us busy.
    let macs = frame.macs().take(MAX_MACS);
    macs.into_iter()
        .any(|mac| (keys.iter()).any(|key| key.verifies(from, to, packet, mac)))
}

/// The type of the TLV (RFC 8967 §6.1).
const MAC: u8 = 16;
const MAX_MACS: usize = 4;

/// RFC 8967 §4.1.
fn pseudo_header(from: Ipv6Addr, to: Ipv6Addr) -> [u8; 36] {
    let mut octets = [0; 36];
    octets[..16].copy_from_slice(&from.octets());
    octets[16..18].copy_from_slice(&PORT.to_be_bytes());
    octets[18..34].copy_from_slice(&to.octets());
    octets[34..].copy_from_slice(&PORT.to_be_bytes());
    octets
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{GROUP, packet::Writer};

    const FROM: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);

    fn keys() -> [Key; 3] {
        let key = |algorithm, octet| Key::new(algorithm, vec![octet; 32]).expect("a key");
        [
            key(Algorithm::HmacSha256, 1),
            key(Algorithm::HmacSha256, 2),
            key(Algorithm::Blake2s128, 1),
        ]
    }

    fn packet(keys: &[Key]) -> Vec<u8> {
        let mut packet = Writer::new(600, FROM.into()).finish();
        sign(keys, FROM, GROUP, &mut packet);
        packet
    }

    #[test]
    fn a_code_is_of_one_key_one_packet_and_one_way() {
        for key in keys() {
            let packet = packet(std::slice::from_ref(&key));
            assert_eq!(packet.len(), 4 + 2 + key.mac_len());
            assert!(verify(&keys(), FROM, GROUP, &packet));
            assert!(!verify(&keys(), FROM, FROM, &packet));
            assert!(!verify(&keys(), GROUP, GROUP, &packet));
            let others: Vec<Key> = keys().into_iter().filter(|other| *other != key).collect();
            assert!(!verify(&others, FROM, GROUP, &packet));
            for n in 0..packet.len() {
                let mut changed = packet.clone();
                changed[n] ^= 1;
                assert!(!verify(&keys(), FROM, GROUP, &changed), "octet {n}");
            }
            assert!(!verify(&keys(), FROM, GROUP, &packet[..packet.len() - 1]));
        }
        assert!(!verify(&keys(), FROM, GROUP, &packet(&[])));
    }

    #[test]
    fn old_and_new_keys_overlap() {
        let [old, new, _] = keys();
        let both = packet(&[old.clone(), new.clone()]);
        assert_eq!(both.len(), 4 + trailer_len(&[old.clone(), new.clone()]));
        for key in [old, new] {
            assert!(verify(&[key], FROM, GROUP, &both));
        }
    }

    /// By Python's `hashlib` and `hmac`, over the pseudo-header and the four octets of an empty packet.
    #[test]
    fn codes_are_those_of_others() {
        let hex = |octets: &[u8]| octets.iter().map(|octet| format!("{octet:02x}")).collect();
        let codes = keys().map(|key| -> String { hex(&key.sign(FROM, GROUP, &[42, 2, 0, 0])) });
        assert_eq!(codes, PYTHON);
    }

    const PYTHON: [&str; 3] = [
        "3124d42c5bf7facbf361d9922f60036e60fc008df0394a3bdc7edecad2713137",
        "2ef394e42a4032d375f6bcc96220ffbe0dda90b8538daeb36fcd22a653ca78da",
        "18f1aaa245074f79c4ee04c235b029ae",
    ];

    #[test]
    fn a_key_has_bounds_and_says_nothing() {
        assert!(Key::new(Algorithm::HmacSha256, vec![1; 64]).is_ok());
        for (algorithm, len) in [
            (Algorithm::HmacSha256, 0),
            (Algorithm::HmacSha256, 65),
            (Algorithm::Blake2s128, 33),
        ] {
            let error = Key::new(algorithm, vec![7; len]).expect_err("no key");
            assert!(
                error.to_string().ends_with(&format!("not {len}")),
                "{error}"
            );
        }
        assert_eq!(format!("{:?}", keys()[0]), "Key(HmacSha256)");
    }
}
