//! RBAC policies: who else may see and use something.

use hextet_types::{ProjectId, RbacPolicyId};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// What can be shared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RbacType {
    /// A network.
    Network,
    /// A security group.
    SecurityGroup,
    /// A subnet pool.
    #[serde(rename = "subnetpool")]
    SubnetPool,
    /// An address scope.
    AddressScope,
    /// An address group.
    AddressGroup,
    /// A QoS policy.
    QosPolicy,
}

/// How it is shared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RbacAction {
    /// To be seen and used.
    AccessAsShared,
    /// Networks alone: for gateways of routers.
    AccessAsExternal,
}

impl RbacAction {
    /// As the API has it.
    pub const fn name(self) -> &'static str {
        match self {
            RbacAction::AccessAsShared => "access_as_shared",
            RbacAction::AccessAsExternal => "access_as_external",
        }
    }
}

/// A Neutron RBAC policy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RbacPolicy {
    /// Its identity.
    pub id: RbacPolicyId,
    /// Who made it.
    pub project_id: ProjectId,
    /// What kind of thing is shared.
    pub object_type: RbacType,
    /// What is shared.
    pub object_id: Uuid,
    /// How.
    pub action: RbacAction,
    /// With whom: a project, or `*`.
    pub target_project: ProjectId,
    /// Grows with each change; not shown.
    pub revision_number: u64,
}

impl RbacPolicy {
    /// The target that stands for every project.
    pub const EVERYBODY: &'static str = "*";
}
