//! What a registry's store holds, and under which keys.

use bytes::Bytes;
use hextet_mesh::{
    certificate::{Certificate, Class, NodeId, UnixTime},
    key::{KeyId, PublicKey},
    label::Label,
    request::Enrolment,
    signed::Signed,
};
use hextet_store::KeyValue;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::{
    error::{RegistryError, Result},
    message::Blob,
};

/// The authority's keys.
pub const AUTHORITY: &str = "registry/authority";
/// The newest parameters.
pub const PARAMETERS: &str = "registry/parameters";
/// The newest list of revocations of our own.
pub const REVOCATIONS: &str = "registry/revocations";
/// Under it, the newest lists of other registries.
pub const LISTS: &str = "registry/list/";
/// How addresses are cut, as the registry with the root key told.
pub const PLAN: &str = "registry/plan";
/// Keys with which this registry asks to be one of a network.
pub const JOINING: &str = "registry/joining";
/// Until this registry has heard of all nodes that were there before it.
pub const LEARNING: &str = "registry/learning";
/// When this store was filled from a backup.
pub const RESTORED: &str = "registry/restored";
/// Under it, nodes.
pub const NODES: &str = "registry/node/";
/// Under it, tokens.
pub const TOKENS: &str = "registry/token/";
/// Under it, requests that wait for an approval.
pub const WAITING: &str = "registry/waiting/";

/// A node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Its newest certificate, in which everything stands that is said of it.
    pub certificate: Signed<Certificate>,
    /// What it calls itself.
    pub name: Option<Label>,
    /// Its certificates up to this serial count no more.
    pub revoked: Option<u32>,
}

/// A token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token {
    /// It counts up to then.
    pub not_after: UnixTime,
    /// What its bearer becomes.
    pub class: Class,
    /// The groups that its bearer is in.
    pub groups: Vec<Label>,
    /// Who came by it; a registry by its key's hash. Kept to its end, so that whoever lost the answer may ask again.
    pub used_by: Option<NodeId>,
}

/// Somebody who waits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Waiting {
    /// The request.
    pub enrolment: Signed<Enrolment>,
    /// When it came.
    pub since: UnixTime,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StoredNode {
    certificate: Blob,
    name: Option<String>,
    revoked: Option<u32>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StoredToken {
    not_after: u64,
    class: String,
    groups: Vec<String>,
    used_by: Option<String>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StoredWaiting {
    enrolment: Blob,
    since: u64,
}

impl Node {
    /// Whether its newest certificate is revoked.
    pub fn is_out(&self) -> bool {
        self.revoked
            .is_some_and(|last| self.certificate.body.serial <= last)
    }

    /// As it is stored.
    pub fn write(&self) -> Result<Bytes> {
        json(&StoredNode {
            certificate: Blob::of(&self.certificate),
            name: self.name.as_ref().map(Label::to_string),
            revoked: self.revoked,
        })
    }

    /// As it was stored.
    pub fn read(kv: &KeyValue) -> Result<Self> {
        let stored: StoredNode = parse(kv)?;
        Ok(Node {
            certificate: stored.certificate.read().map_err(|e| damaged(kv, &e))?,
            name: label(kv, stored.name)?,
            revoked: stored.revoked,
        })
    }
}

impl Token {
    /// As it is stored.
    pub fn write(&self) -> Result<Bytes> {
        json(&StoredToken {
            not_after: self.not_after.0,
            class: self.class.to_string(),
            groups: self.groups.iter().map(Label::to_string).collect(),
            used_by: self.used_by.map(|node| node.to_string()),
        })
    }

    /// As it was stored.
    pub fn read(kv: &KeyValue) -> Result<Self> {
        let stored: StoredToken = parse(kv)?;
        let groups = stored.groups.iter().map(|group| group.parse::<Label>());
        let used_by = stored.used_by.map(|node| node.parse());
        Ok(Token {
            not_after: UnixTime(stored.not_after),
            class: stored.class.parse().map_err(|e| damaged(kv, &e))?,
            groups: groups
                .collect::<Result<_, _>>()
                .map_err(|e| damaged(kv, &e))?,
            used_by: used_by.transpose().map_err(|e| damaged(kv, &e))?,
        })
    }
}

impl Waiting {
    /// As it is stored.
    pub fn write(&self) -> Result<Bytes> {
        json(&StoredWaiting {
            enrolment: Blob::of(&self.enrolment),
            since: self.since.0,
        })
    }

    /// As it was stored.
    pub fn read(kv: &KeyValue) -> Result<Self> {
        let stored: StoredWaiting = parse(kv)?;
        Ok(Waiting {
            enrolment: stored.enrolment.read().map_err(|e| damaged(kv, &e))?,
            since: UnixTime(stored.since),
        })
    }
}

/// Where a node is stored.
pub fn node_key(node: NodeId) -> String {
    format!("{NODES}{node}")
}

/// Where the list of another registry is stored.
pub fn list_key(signer: KeyId) -> String {
    format!("{LISTS}{signer}")
}

/// Where a token is stored: under its hash.
pub fn token_key(hash: &[u8; 32]) -> String {
    format!("{TOKENS}{}", String::from(Blob(hash.to_vec())))
}

/// The hash of a token that is stored there.
pub fn token_hash(key: &[u8]) -> Result<[u8; 32]> {
    let name = std::str::from_utf8(key).ok();
    let name = name.and_then(|key| key.strip_prefix(TOKENS));
    name.and_then(|name| Blob::try_from(name.to_owned()).ok())
        .and_then(|hash| hash.0.try_into().ok())
        .ok_or_else(|| RegistryError::Damaged("the name of a token".into()))
}

/// Where a request is stored that waits.
pub fn waiting_key(key: PublicKey) -> String {
    format!("{WAITING}{key}")
}

/// As JSON.
pub fn json(value: &impl Serialize) -> Result<Bytes> {
    serde_json::to_vec(value)
        .map(Bytes::from)
        .map_err(|e| RegistryError::Damaged(e.to_string()))
}

/// From JSON.
pub fn parse<T: DeserializeOwned>(kv: &KeyValue) -> Result<T> {
    serde_json::from_slice(&kv.value).map_err(|e| damaged(kv, &e))
}

fn label(kv: &KeyValue, text: Option<String>) -> Result<Option<Label>> {
    let label = text.map(|text| text.parse());
    label.transpose().map_err(|e| damaged(kv, &e))
}

fn damaged(kv: &KeyValue, error: &dyn std::fmt::Display) -> RegistryError {
    RegistryError::Damaged(format!("{}: {error}", String::from_utf8_lossy(&kv.key)))
}
