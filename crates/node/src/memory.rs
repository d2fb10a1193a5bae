//! What a node knows when it starts: its key, its network, whom it met last, and which tunnels it had.
//!
//! What always holds: a file is written as a whole or not at all, and nobody but its owner reads it.

use std::{
    fs::{self, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail};
use hextet_mesh::{
    certificate::{Certificate, NodeId},
    key::{PublicKey, SigningKey},
    signed::Signed,
    topology::Kind,
    trust::Trust,
};
use hextet_registry::{
    authority::random,
    message::{Blob, Network},
};
use hextet_types::Way;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::served::Served;

/// Its directory.
#[derive(Clone, Debug)]
pub struct Memory(PathBuf);

/// Who it is, and what it knows of its network.
#[derive(Debug)]
pub struct Identity {
    /// Its key.
    pub key: SigningKey,
    /// Its certificate.
    pub certificate: Signed<Certificate>,
    /// What it knows of its network.
    pub trust: Trust,
}

/// A node that anybody can reach.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Met {
    node: String,
    at: Way,
}

/// A tunnel that stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Had {
    node: String,
    kind: String,
    ours: bool,
}

impl Memory {
    /// Of this directory, which is made if it is not there.
    ///
    /// # Errors
    ///
    /// It can't be made.
    pub fn open(directory: &Path) -> Result<Memory> {
        fs::create_dir_all(directory).with_context(|| format!("make {}", directory.display()))?;
        Ok(Memory(directory.to_owned()))
    }

    /// The node's key: drawn once, and on the disk before anybody hears of it.
    ///
    /// # Errors
    ///
    /// It can't be written, or what is there is no key.
    pub fn key(&self) -> Result<SigningKey> {
        let path = self.0.join("key");
        let what = || format!("keep this node's key in {}", path.display());
        if !path.exists() {
            let seed: [u8; 32] = random()?;
            self.write("key", &Blob(seed.to_vec()))?;
        }
        let text = fs::read(&path).with_context(what)?;
        let seed = serde_json::from_slice(&text).ok().map(|Blob(seed)| seed);
        let seed = seed.and_then(|seed| <[u8; 32]>::try_from(seed).ok());
        let Some(seed) = seed else {
            bail!(
                "{} holds no key: remove it, and ask for another token",
                path.display()
            );
        };
        SigningKey::from_seed(&seed).with_context(what)
    }

    /// Who this node is.
    ///
    /// # Errors
    ///
    /// It has not joined, or a file is damaged.
    pub fn identity(&self) -> Result<Identity> {
        let path = self.0.join("network.json");
        if !path.exists() {
            bail!(
                "this node has not joined a mesh: there is no {}. `hextet mesh token` beside the registry makes an invitation, `hextet mesh join` takes it",
                path.display()
            );
        }
        let read = || -> Result<(Trust, Signed<Certificate>)> {
            let network: Network = serde_json::from_slice(&fs::read(&path)?)?;
            let root = <[u8; 32]>::try_from(network.root.0.as_slice()).context("the root")?;
            let mut trust = Trust::new(PublicKey(root), network.parameters.read()?)?;
            for list in &network.revocations {
                trust.offer_revocations(list.read()?)?;
            }
            let certificate = network.certificate.context("no certificate")?;
            Ok((trust, certificate.read()?))
        };
        let (trust, certificate) =
            read().with_context(|| format!("understand {}", path.display()))?;
        let key = self.key()?;
        if key.public() != certificate.body.key {
            bail!("{}: the certificate is for another key", self.0.display());
        }
        Ok(Identity {
            key,
            certificate,
            trust,
        })
    }

    /// Writes down what it knows of its network.
    ///
    /// # Errors
    ///
    /// The disk.
    pub fn keep_identity(&self, trust: &Trust, certificate: &Signed<Certificate>) -> Result<()> {
        let network = Network {
            root: Blob(trust.root().0.to_vec()),
            parameters: Blob::of(trust.parameters()),
            revocations: trust.revocations().map(Blob::of).collect(),
            certificate: Some(Blob::of(certificate)),
        };
        self.write("network.json", &network)
    }

    /// Nodes that were met last. What can't be read is forgotten: the registry knows others.
    pub fn met(&self) -> Vec<(NodeId, Way)> {
        let all: Vec<Met> = self.read("nodes.json");
        let all = all.into_iter();
        all.filter_map(|met| Some((met.node.parse().ok()?, met.at)))
            .collect()
    }

    /// Writes those down.
    ///
    /// # Errors
    ///
    /// The disk.
    pub fn keep_met(&self, met: &[(NodeId, Way)]) -> Result<()> {
        let met = met.iter().map(|(node, at)| Met {
            node: node.to_string(),
            at: *at,
        });
        self.write("nodes.json", &met.collect::<Vec<Met>>())
    }

    /// Tunnels of an earlier run: with whom, what for, and who asked.
    pub fn had(&self) -> Vec<(NodeId, Kind, bool)> {
        let all: Vec<Had> = self.read("tunnels.json");
        let all = all.into_iter();
        all.filter_map(|had| Some((had.node.parse().ok()?, kind(&had.kind)?, had.ours)))
            .collect()
    }

    /// Writes those down.
    ///
    /// # Errors
    ///
    /// The disk.
    pub fn keep_had(&self, had: &[(NodeId, Kind, bool)]) -> Result<()> {
        let had = had.iter().map(|(node, kind, ours)| Had {
            node: node.to_string(),
            kind: kind.to_string(),
            ours: *ours,
        });
        self.write("tunnels.json", &had.collect::<Vec<Had>>())
    }

    /// What another program on this host has the node do.
    pub fn served(&self) -> Served {
        self.read("served.json")
    }

    /// Writes that down.
    ///
    /// # Errors
    ///
    /// The disk.
    pub fn keep_served(&self, served: &Served) -> Result<()> {
        self.write("served.json", served)
    }

    fn read<T: DeserializeOwned + Default>(&self, name: &str) -> T {
        let text = fs::read(self.0.join(name)).unwrap_or_default();
        serde_json::from_slice(&text).unwrap_or_default()
    }

    fn write(&self, name: &str, what: &impl Serialize) -> Result<()> {
        let path = self.0.join(name);
        let text = serde_json::to_vec_pretty(what)?;
        write_private(&path, &text).with_context(|| format!("write {}", path.display()))
    }
}

fn kind(text: &str) -> Option<Kind> {
    let all = [Kind::Entry, Kind::Random, Kind::Near, Kind::Gain];
    all.into_iter().find(|kind| kind.to_string() == text)
}

/// As a whole or not at all.
fn write_private(path: &Path, octets: &[u8]) -> io::Result<()> {
    let fresh = path.with_extension("new");
    let mut options = OpenOptions::new();
    let mut file = options
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&fresh)?;
    file.write_all(octets)?;
    file.sync_all()?;
    fs::rename(&fresh, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_read_again_and_what_is_damaged_forgotten() {
        let directory = tempfile::tempdir().unwrap();
        let memory = Memory::open(&directory.path().join("mesh")).unwrap();
        assert_eq!(memory.met(), []);
        let met = vec![
            (NodeId(7), "192.0.2.1:6698".parse().unwrap()),
            (NodeId(u64::MAX), "tls:[2001:db8::1]:1".parse().unwrap()),
        ];
        memory.keep_met(&met).unwrap();
        assert_eq!(memory.met(), met);
        let had = vec![
            (NodeId(7), Kind::Near, true),
            (NodeId(8), Kind::Entry, false),
        ];
        memory.keep_had(&had).unwrap();
        assert_eq!(memory.had(), had);
        fs::write(directory.path().join("mesh/tunnels.json"), "[{").unwrap();
        assert_eq!(memory.had(), []);
        assert_eq!(
            memory.key().unwrap().public(),
            memory.key().unwrap().public()
        );
        let error = memory.identity().unwrap_err().to_string();
        assert!(error.contains("hextet mesh join"), "{error}");
        fs::write(directory.path().join("mesh/key"), "\"AA\"").unwrap();
        let error = memory.key().unwrap_err().to_string();
        assert!(error.contains("holds no key"), "{error}");
    }
}
