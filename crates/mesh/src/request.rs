//! What a registry is asked for, signed by who asks: by nodes the first certificate, and the next one; by other registries to be one of them,
//! and what it knows.

use std::fmt;

use hextet_types::octets::{Reader, put_u32};

use crate::{
    certificate::{NodeId, UnixTime},
    key::{Domain, NetworkId, PublicKey},
    label::{self, Label},
    parameters::RegistryAt,
    signed::{Body, Malformed, Signed},
    token::{SECRET_LEN, Secret},
    wire::{self, Field},
};

/// Labels that say where a node is, the closest first: a country, then its continent.
pub const MAX_COMMUNITIES: usize = 4;

/// A request for a node's first certificate.
#[derive(Clone, PartialEq, Eq)]
pub struct Enrolment {
    /// What lets it in.
    pub token: Option<Secret>,
    /// The node's key, by which this is signed.
    pub key: PublicKey,
    /// What an administrator sees; nothing depends on it.
    pub name: Option<Label>,
    /// Where it is, the closest first.
    pub communities: Vec<Label>,
    /// Whether it forwards for nobody.
    pub client: bool,
}

impl fmt::Debug for Enrolment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Enrolment")
            .field("key", &self.key)
            .field("name", &self.name)
            .field("communities", &self.communities)
            .field("client", &self.client)
            .finish_non_exhaustive()
    }
}

impl Body for Enrolment {
    const DOMAIN: Domain = Domain::Enrolment;
    const MAX_LEN: usize =
        1 + 1 + SECRET_LEN + 32 + 1 + (1 + MAX_COMMUNITIES) * (1 + label::MAX_LEN) + 1 + 1 + 72;

    fn put(&self, out: &mut Vec<u8>) {
        wire::put_count(out, usize::from(self.token.is_some()));
        self.token
            .iter()
            .for_each(|token| out.extend_from_slice(&token.0));
        out.extend_from_slice(&self.key.0);
        wire::put_count(out, usize::from(self.name.is_some()));
        self.name.iter().for_each(|name| name.put(out));
        wire::put_count(out, self.communities.len());
        self.communities.iter().for_each(|label| label.put(out));
        out.push(u8::from(self.client));
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        let token = match wire::count(reader, "the token", 0, 1)? {
            0 => None,
            _ => Some(Secret(reader.array().need("the token")?)),
        };
        let key = PublicKey(reader.array().need("the key")?);
        let name = match wire::count(reader, "the name", 0, 1)? {
            0 => None,
            _ => Some(Label::read(reader, "the name")?),
        };
        let count = wire::count(reader, "the number of communities", 0, MAX_COMMUNITIES)?;
        let communities = (0..count).map(|_| Label::read(reader, "a community"));
        let communities = communities.collect::<Result<_, _>>()?;
        let client = wire::count(reader, "the class", 0, 1)? == 1;
        Ok(Enrolment {
            token,
            key,
            name,
            communities,
            client,
        })
    }
}

/// A request for the certificate after the one with this serial.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Renewal {
    /// The network.
    pub network: NetworkId,
    /// The node.
    pub node: NodeId,
    /// Of the newest certificate that it has.
    pub serial: u32,
    /// When it asks, by its clock.
    pub at: UnixTime,
}

impl Body for Renewal {
    const DOMAIN: Domain = Domain::Renewal;
    const MAX_LEN: usize = 1 + 8 + 8 + 4 + 8 + 72;

    fn put(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.network.0.to_be_bytes());
        out.extend_from_slice(&self.node.0.to_be_bytes());
        put_u32(out, self.serial);
        out.extend_from_slice(&self.at.0.to_be_bytes());
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        Ok(Renewal {
            network: NetworkId(wire::u64_of(reader, "the network")?),
            node: NodeId(wire::u64_of(reader, "the node")?),
            serial: reader.u32().need("the serial")?,
            at: UnixTime(wire::u64_of(reader, "the time")?),
        })
    }
}

/// A registry's request to be one of a network's, signed by the key that it will issue certificates with.
#[derive(Clone, PartialEq, Eq)]
pub struct Accession {
    /// What lets it in.
    pub token: Secret,
    /// Its issuing key.
    pub key: PublicKey,
    /// Where nodes reach it.
    pub at: RegistryAt,
}

impl fmt::Debug for Accession {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Accession")
            .field("key", &self.key)
            .field("at", &self.at)
            .finish_non_exhaustive()
    }
}

impl Body for Accession {
    const DOMAIN: Domain = Domain::Accession;
    const MAX_LEN: usize = 1 + SECRET_LEN + 32 + RegistryAt::MAX_LEN + 72;

    fn put(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.token.0);
        out.extend_from_slice(&self.key.0);
        self.at.put(out);
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        Ok(Accession {
            token: Secret(reader.array().need("the token")?),
            key: PublicKey(reader.array().need("the key")?),
            at: RegistryAt::read(reader)?,
        })
    }
}

/// A registry's question for what another one has learned, signed by its issuing key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pull {
    /// The network.
    pub network: NetworkId,
    /// When it asks, by its clock.
    pub at: UnixTime,
    /// Which run of the other's program the next field is of.
    pub run: u64,
    /// All changes up to this one it has heard of.
    pub heard: u64,
}

impl Body for Pull {
    const DOMAIN: Domain = Domain::Pull;
    const MAX_LEN: usize = 1 + 8 + 8 + 8 + 8 + 72;

    fn put(&self, out: &mut Vec<u8>) {
        for number in [self.network.0, self.at.0, self.run, self.heard] {
            out.extend_from_slice(&number.to_be_bytes());
        }
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        Ok(Pull {
            network: NetworkId(wire::u64_of(reader, "the network")?),
            at: UnixTime(wire::u64_of(reader, "the time")?),
            run: wire::u64_of(reader, "the run")?,
            heard: wire::u64_of(reader, "what was heard")?,
        })
    }
}

impl Signed<Accession> {
    /// Whether the key that it names signed it.
    pub fn is_by_its_key(&self) -> bool {
        self.is_by(&self.body.key)
    }
}

impl Signed<Enrolment> {
    /// Whether the key that it names signed it.
    pub fn is_by_its_key(&self) -> bool {
        self.is_by(&self.body.key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{key::SigningKey, token::Pin};

    #[test]
    fn requests_round_trip_and_hide_their_token() {
        let key = SigningKey::from_seed(&[4; 32]).unwrap();
        let label = |text: &str| text.parse::<Label>().unwrap();
        let enrolment = Enrolment {
            token: Some(Secret([0x41; SECRET_LEN])),
            key: key.public(),
            name: Some(label("paris-1")),
            communities: vec![label("fr"), label("eu")],
            client: true,
        };
        let signed = Signed::sign(enrolment, &key);
        assert!(signed.is_by_its_key());
        let printed = format!("{signed:?}");
        assert!(
            !printed.contains("QUFB") && !printed.contains("65, 65"),
            "{printed}"
        );
        assert_eq!(Signed::decode(&signed.encode()), Ok(signed.clone()));
        let other = SigningKey::from_seed(&[5; 32]).unwrap();
        assert!(!Signed::sign(signed.body, &other).is_by_its_key());
        let renewal = Renewal {
            network: NetworkId(1),
            node: NodeId(2),
            serial: 3,
            at: UnixTime(4),
        };
        let signed = Signed::sign(renewal, &key);
        assert_eq!(signed.encode().len(), Renewal::MAX_LEN);
        assert_eq!(Signed::decode(&signed.encode()), Ok(signed));
    }

    #[test]
    fn what_registries_ask_round_trips_and_hides_its_token() {
        let key = SigningKey::from_seed(&[6; 32]).unwrap();
        let accession = Accession {
            token: Secret([0x41; SECRET_LEN]),
            key: key.public(),
            at: RegistryAt {
                url: "https://b.example:8443".parse().unwrap(),
                pin: Pin([7; 32]),
            },
        };
        let signed = Signed::sign(accession, &key);
        assert!(signed.is_by_its_key());
        let printed = format!("{signed:?}");
        assert!(
            !printed.contains("QUFB") && !printed.contains("65, 65"),
            "{printed}"
        );
        assert_eq!(Signed::decode(&signed.encode()), Ok(signed));
        let pull = Pull {
            network: NetworkId(1),
            at: UnixTime(2),
            run: 3,
            heard: 4,
        };
        let signed = Signed::sign(pull, &key);
        assert_eq!(signed.encode().len(), Pull::MAX_LEN);
        assert_eq!(Signed::decode(&signed.encode()), Ok(signed));
    }
}
