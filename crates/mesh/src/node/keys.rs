//! Keys of tunnels: each one's secret comes of the node's seed and a number, so that a run can be repeated.

use std::fmt;

use ring::hmac;
use x25519_dalek::{PublicKey, StaticSecret};

/// A tunnel's key at this end.
#[derive(Clone, PartialEq, Eq)]
pub struct Pair {
    pub private: [u8; 32],
    pub public: [u8; 32],
}

impl fmt::Debug for Pair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pair")
            .field("public", &self.public)
            .finish_non_exhaustive()
    }
}

/// Draws them.
pub struct Keys {
    seed: hmac::Key,
    drawn: u64,
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keys")
            .field("drawn", &self.drawn)
            .finish_non_exhaustive()
    }
}

impl Keys {
    pub fn new(seed: [u8; 32]) -> Keys {
        Keys {
            seed: hmac::Key::new(hmac::HMAC_SHA256, &seed),
            drawn: 0,
        }
    }

    pub fn draw(&mut self) -> Pair {
        let private = self.octets();
        let public = PublicKey::from(&StaticSecret::from(private)).to_bytes();
        Pair { private, public }
    }

    /// For what need not be secret.
    pub fn number(&mut self) -> u64 {
        let octets = self.octets();
        octets
            .first_chunk()
            .map_or(0, |first| u64::from_be_bytes(*first))
    }

    fn octets(&mut self) -> [u8; 32] {
        self.drawn += 1;
        let tag = hmac::sign(&self.seed, &self.drawn.to_be_bytes());
        let mut octets = [0; 32];
        for (to, from) in octets.iter_mut().zip(tag.as_ref()) {
            *to = *from;
        }
        octets
    }
}
