//! Address groups: prefixes that rules of security groups name together.

use hextet_types::{AddressGroupId, Prefix};
use serde::{Deserialize, Serialize};

use super::Standard;

/// A Neutron address group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AddressGroup {
    /// Its identity.
    pub id: AddressGroupId,
    /// Owner, name, revision and times.
    #[serde(flatten)]
    pub standard: Standard,
    /// Ascending, each once; of both families.
    pub addresses: Vec<Prefix>,
    /// Every project may name it in rules: a policy for `*` says so.
    #[serde(default)]
    pub shared: bool,
}
