//! What registries of one network say to each other.

use hextet_mesh::{parameters::Parameters, revocation::Revocations, signed::Signed};
use serde::{Deserialize, Serialize};

use crate::{
    error::{RegistryError, Result},
    message::{Blob, Network},
    plan::Plan,
    record::Node,
};

/// Nodes that are told at once.
pub const MAX_NODES_TOLD: usize = 200;

/// `POST /mesh/v1/accede`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AccessionRequest {
    /// A signed [`hextet_mesh::request::Accession`].
    pub accession: Blob,
}

/// The answer.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct AccessionAnswer {
    /// In which the new registry is one.
    pub network: Network,
    /// How addresses are cut.
    pub plan: Plan,
}

/// `POST /mesh/v1/pull`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PullRequest {
    /// A signed [`hextet_mesh::request::Pull`].
    pub pull: Blob,
    /// The newest parameters that the asking registry has: the one that is asked may be restored from a backup in which it does not know the other.
    pub parameters: Blob,
}

/// The answer: at once where there is something new, else when there is, or after 20 s.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PullAnswer {
    /// What everybody may know.
    pub network: Network,
    /// From the one that holds the root key.
    pub plan: Option<Plan>,
    /// Which run of its program the next field is of.
    pub run: u64,
    /// Everything up to this change was told.
    pub upto: u64,
    /// Whether there is more.
    pub more: bool,
    /// What changed.
    pub nodes: Vec<NodeTold>,
}

/// A node.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NodeTold {
    certificate: Blob,
    name: Option<String>,
    revoked: Option<u32>,
}

/// An answer that was understood.
#[derive(Debug)]
pub struct Told {
    /// The parameters.
    pub parameters: Signed<Parameters>,
    /// All lists.
    pub revocations: Vec<Signed<Revocations>>,
    /// How addresses are cut.
    pub plan: Option<Plan>,
    /// What changed.
    pub nodes: Vec<Node>,
}

impl NodeTold {
    /// As it is told.
    pub fn of(node: &Node) -> NodeTold {
        NodeTold {
            certificate: Blob::of(&node.certificate),
            name: node.name.as_ref().map(ToString::to_string),
            revoked: node.revoked,
        }
    }

    fn read(self) -> Result<Node> {
        let certificate = self.certificate.read()?;
        let name = self.name.map(|name| name.parse()).transpose();
        Ok(Node {
            certificate,
            name: name.map_err(|e| RegistryError::Invalid(format!("a node's name: {e}")))?,
            revoked: self.revoked,
        })
    }
}

impl PullAnswer {
    /// Understands it.
    ///
    /// # Errors
    ///
    /// Something in it is damaged, or there is more than may be.
    pub fn read(self) -> Result<Told> {
        if self.nodes.len() > MAX_NODES_TOLD {
            return Err(RegistryError::Invalid(format!(
                "more than {MAX_NODES_TOLD} nodes at once"
            )));
        }
        let lists = self.network.revocations.iter().map(Blob::read);
        Ok(Told {
            parameters: self.network.parameters.read()?,
            revocations: lists.collect::<Result<_, _>>()?,
            plan: self.plan,
            nodes: (self.nodes.into_iter().map(NodeTold::read)).collect::<Result<_, _>>()?,
        })
    }
}

/// `GET /registries`: all of the network.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Registries {
    /// Each.
    pub registries: Vec<RegistryShown>,
}

/// A registry as administrators see it.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
pub struct RegistryShown {
    /// Where nodes reach it.
    pub url: String,
    /// The hash of its key for TLS.
    pub pin: String,
    /// Whether it is the one that was asked.
    pub is_this: bool,
    /// Whether the one that was asked holds the network's root key.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub holds_root: Option<bool>,
    /// When it was heard last, in seconds since 1970; of another one alone.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub heard: Option<u64>,
    /// Why it was not heard since.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub away: Option<String>,
}

/// `POST /registries/remove`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Removal {
    /// Which.
    pub url: String,
    /// Whether certificates that it signed count no more from now on.
    pub distrust: bool,
}

/// The answer.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Removed {
    /// Whether its key signs no more certificates that count: that takes the root key.
    pub is_closed: bool,
}
