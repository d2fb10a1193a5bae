//! Where a node is, for a registry to tell others.

use hextet_types::{Way, octets::Reader};

use super::{MAX_CANDIDATES, said};
use crate::{
    certificate::{NodeId, UnixTime},
    key::{Domain, NetworkId, SIGNATURE_LEN},
    signed::{Body, Malformed},
    wire,
};

/// What a node says of itself when it asks a registry who else is there. Signed by its key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Presence {
    /// The network.
    pub network: NetworkId,
    /// The node.
    pub node: NodeId,
    /// When it says so, by its clock.
    pub at: UnixTime,
    /// Where anybody can reach it; nowhere, if it only asks. [`MAX_CANDIDATES`] at most.
    pub candidates: Vec<Way>,
}

impl Body for Presence {
    const DOMAIN: Domain = Domain::Presence;
    const MAX_LEN: usize = 1 + 8 + 8 + 8 + 1 + MAX_CANDIDATES * (1 + 16 + 2) + 8 + SIGNATURE_LEN;

    fn put(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.network.0.to_be_bytes());
        out.extend_from_slice(&self.node.0.to_be_bytes());
        out.extend_from_slice(&self.at.0.to_be_bytes());
        wire::put_count(out, self.candidates.len());
        for candidate in &self.candidates {
            said::put_way(out, *candidate);
        }
    }

    fn read(reader: &mut Reader<'_>) -> Result<Presence, Malformed> {
        let network = NetworkId(wire::u64_of(reader, "the network")?);
        let node = NodeId(wire::u64_of(reader, "the node")?);
        let at = UnixTime(wire::u64_of(reader, "the time")?);
        let count = wire::count(reader, "the number of addresses", 0, MAX_CANDIDATES)?;
        let candidates = (0..count).map(|_| said::way(reader));
        let candidates = candidates.collect::<Result<_, _>>()?;
        Ok(Presence {
            network,
            node,
            at,
            candidates,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{key::SigningKey, signed::Signed};

    #[test]
    fn a_presence_is_read_as_it_was_written_and_has_a_longest() {
        let key = SigningKey::from_seed(&[4; 32]).unwrap();
        let longest = Presence {
            network: NetworkId(1),
            node: NodeId(2),
            at: UnixTime(3),
            candidates: vec!["[2001:db8::1]:6698".parse().unwrap(); MAX_CANDIDATES],
        };
        let short = Presence {
            candidates: vec!["192.0.2.1:1".parse().unwrap()],
            ..longest.clone()
        };
        for presence in [&longest, &short] {
            let signed = Signed::sign(presence.clone(), &key);
            assert!(signed.is_by(&key.public()));
            assert_eq!(Signed::decode(&signed.encode()), Ok(signed));
        }
        let octets = Signed::sign(longest.clone(), &key).encode();
        assert_eq!(octets.len(), Presence::MAX_LEN);
        let many = Presence {
            candidates: vec![longest.candidates[0]; MAX_CANDIDATES + 1],
            ..longest
        };
        let octets = Signed::sign(many, &key).encode();
        assert!(Signed::<Presence>::decode(&octets).is_err());
    }
}
