//! Which certificates count no more: of a node, all up to a serial.
//!
//! Each issuing key has one list, and a newer one of the same key replaces it; what counts is what any of them names. So two registries never
//! have to agree on a list, and a node's next certificate is not revoked with its last.

use hextet_types::octets::{Reader, put_u32};

use crate::{
    certificate::NodeId,
    key::{Domain, NetworkId},
    signed::{Body, Malformed},
    wire::{self, Field},
};

/// Nodes in one list.
pub const MAX_ENTRIES: usize = 5_000;
const ENTRY_LEN: usize = 12;

/// One key's list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Revocations {
    /// In this network.
    pub network: NetworkId,
    /// A newer one replaces it.
    pub version: u64,
    entries: Vec<(NodeId, u32)>,
}

impl Revocations {
    /// Of each node the highest serial; none with more than [`MAX_ENTRIES`] nodes.
    pub fn new(network: NetworkId, version: u64, mut entries: Vec<(NodeId, u32)>) -> Option<Self> {
        entries.sort_by_key(|&(node, serial)| (node, u32::MAX - serial));
        entries.dedup_by_key(|entry| entry.0);
        (entries.len() <= MAX_ENTRIES).then_some(Revocations {
            network,
            version,
            entries,
        })
    }

    /// Nodes, ascending, and their last serial that is revoked.
    pub fn entries(&self) -> &[(NodeId, u32)] {
        &self.entries
    }

    /// Whether it names this certificate.
    pub fn names(&self, node: NodeId, serial: u32) -> bool {
        let found = self.entries.binary_search_by_key(&node, |entry| entry.0);
        found
            .ok()
            .and_then(|at| self.entries.get(at))
            .is_some_and(|(_, last)| serial <= *last)
    }
}

impl Body for Revocations {
    const DOMAIN: Domain = Domain::Revocations;
    const MAX_LEN: usize = 1 + 8 + 8 + 2 + MAX_ENTRIES * ENTRY_LEN + 72;

    fn put(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.network.0.to_be_bytes());
        out.extend_from_slice(&self.version.to_be_bytes());
        let count = u16::try_from(self.entries.len()).unwrap_or(u16::MAX);
        out.extend_from_slice(&count.to_be_bytes());
        for (node, serial) in &self.entries {
            out.extend_from_slice(&node.0.to_be_bytes());
            put_u32(out, *serial);
        }
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        let network = NetworkId(wire::u64_of(reader, "the network")?);
        let version = wire::u64_of(reader, "the version of the revocations")?;
        let count = usize::from(reader.u16().need("the number of revocations")?);
        if count > MAX_ENTRIES {
            return Err(Malformed::Value("the number of revocations"));
        }
        if reader.len() < count * ENTRY_LEN {
            return Err(Malformed::Short("the list of revocations"));
        }
        let mut entries = Vec::with_capacity(count);
        for _ in 0..count {
            let node = NodeId(wire::u64_of(reader, "a revoked node")?);
            entries.push((node, reader.u32().need("a revoked serial")?));
        }
        if !entries.is_sorted_by(|a, b| a.0 < b.0) {
            return Err(Malformed::Value("the order of revocations"));
        }
        Ok(Revocations {
            network,
            version,
            entries,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;
    use crate::{key::SigningKey, signed::Signed};

    #[test]
    fn a_list_has_a_bound() {
        let entries = |n: usize| (0..n as u64).map(|n| (NodeId(n), 1)).collect();
        let key = SigningKey::from_seed(&[1; 32]).unwrap();
        let full = Revocations::new(NetworkId(1), 1, entries(MAX_ENTRIES)).unwrap();
        let octets = Signed::sign(full.clone(), &key).encode();
        assert_eq!(octets.len(), Revocations::MAX_LEN);
        assert_eq!(Signed::<Revocations>::decode(&octets).unwrap().body, full);
        assert_eq!(
            Revocations::new(NetworkId(1), 1, entries(MAX_ENTRIES + 1)),
            None
        );
    }

    proptest! {
        #[test]
        fn names_what_was_revoked_and_nothing_else(
            revoked in vec((0u64..8, 0u32..8), 0..12), node in 0u64..10, serial in 0u32..10
        ) {
            let entries = revoked.iter().map(|&(n, s)| (NodeId(n), s)).collect();
            let list = Revocations::new(NetworkId(7), 3, entries).unwrap();
            let expected = revoked.iter().any(|&(n, s)| n == node && serial <= s);
            prop_assert_eq!(list.names(NodeId(node), serial), expected);
            let key = SigningKey::from_seed(&[2; 32]).unwrap();
            let signed = Signed::sign(list, &key);
            prop_assert_eq!(Signed::decode(&signed.encode()), Ok(signed));
        }
    }
}
