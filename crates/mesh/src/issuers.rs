//! Which keys may issue certificates: one to three, named by the root, whose own key can stay offline.
//!
//! A key's span bounds when certificates may begin that it signs. Certificates that exist outlive it, so that nothing stands still because an
//! authority's time is over. A key is taken out by a newer set without it.

use hextet_types::octets::{Reader, put_u32};

use crate::{
    certificate::UnixTime,
    key::{Domain, KeyId, NetworkId, PublicKey},
    signed::{Body, Malformed},
    wire::{self, Field},
};

/// Keys at one time: two registries, and one that is to take over.
pub const MAX_KEYS: usize = 3;

/// A key and when it issues.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Issuer {
    /// The key.
    pub key: PublicKey,
    /// No certificate of it begins before this.
    pub not_before: UnixTime,
    /// No certificate of it begins after this.
    pub not_after: UnixTime,
}

/// The set that is in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Issuers {
    /// Of this network.
    pub network: NetworkId,
    /// A newer one replaces it.
    pub version: u32,
    keys: Vec<Issuer>,
}

impl Issuers {
    /// A set; none where there are no keys, or more than [`MAX_KEYS`], or one of them twice, or one whose span ends before it begins.
    pub fn new(network: NetworkId, version: u32, mut keys: Vec<Issuer>) -> Option<Self> {
        keys.sort();
        let once = keys.is_sorted_by(|a, b| a.key < b.key);
        let spans = keys.iter().all(|k| k.not_before <= k.not_after);
        let set = Issuers {
            network,
            version,
            keys,
        };
        ((1..=MAX_KEYS).contains(&set.keys.len()) && once && spans).then_some(set)
    }

    /// By their octets.
    pub fn keys(&self) -> &[Issuer] {
        &self.keys
    }

    /// The one with this identifier.
    pub fn find(&self, id: KeyId) -> Option<&Issuer> {
        self.keys.iter().find(|issuer| issuer.key.id() == id)
    }
}

impl Body for Issuers {
    const DOMAIN: Domain = Domain::Issuers;
    const MAX_LEN: usize = 1 + 8 + 4 + 1 + MAX_KEYS * 48 + 72;

    fn put(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.network.0.to_be_bytes());
        put_u32(out, self.version);
        wire::put_count(out, self.keys.len());
        for issuer in &self.keys {
            out.extend_from_slice(&issuer.key.0);
            out.extend_from_slice(&issuer.not_before.0.to_be_bytes());
            out.extend_from_slice(&issuer.not_after.0.to_be_bytes());
        }
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        let network = NetworkId(wire::u64_of(reader, "the network")?);
        let version = reader.u32().need("the version of the issuers")?;
        let count = wire::count(reader, "the number of issuers", 1, MAX_KEYS)?;
        let mut keys = Vec::with_capacity(count);
        for _ in 0..count {
            keys.push(Issuer {
                key: PublicKey(reader.array().need("an issuer's key")?),
                not_before: UnixTime(wire::u64_of(reader, "an issuer's begin")?),
                not_after: UnixTime(wire::u64_of(reader, "an issuer's end")?),
            });
        }
        if !wire::ascends(&keys) {
            return Err(Malformed::Value("the order of issuers"));
        }
        Issuers::new(network, version, keys).ok_or(Malformed::Value("the set of issuers"))
    }
}
