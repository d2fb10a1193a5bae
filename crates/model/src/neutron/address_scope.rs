//! Address scopes: where prefixes mean the same to everybody.

use hextet_types::{AddressScopeId, Family, ProjectId};
use serde::{Deserialize, Serialize};

/// A Neutron address scope: the pools in it have no address in common.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AddressScope {
    /// Its identity.
    pub id: AddressScopeId,
    /// Its owner.
    pub project_id: ProjectId,
    /// A name for people, at most 255 characters; need not be unique.
    pub name: String,
    /// The family of its pools (`ip_version`).
    pub family: Family,
    /// Every project may put pools into it: a policy for `*` says so.
    pub shared: bool,
    /// Grows with each change; not shown.
    pub revision_number: u64,
}
