//! Subnet pools: prefixes out of which subnets get theirs.

use hextet_types::{AddressScopeId, Family, Prefix, SubnetPoolId};
use serde::{Deserialize, Serialize};

use super::Standard;

/// A Neutron subnet pool.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SubnetPool {
    /// Its identity.
    pub id: SubnetPoolId,
    /// Owner, name, tags, revision and times.
    #[serde(flatten)]
    pub standard: Standard,
    /// The family of its prefixes (`ip_version`).
    pub family: Family,
    /// Disjoint, ascending, as few as possible; all of its family.
    pub prefixes: Vec<Prefix>,
    /// The length of the largest subnet.
    pub min_prefixlen: u8,
    /// The length of the smallest subnet.
    pub max_prefixlen: u8,
    /// The length where a request does not say; between the two.
    pub default_prefixlen: u8,
    /// What each project may have of it: addresses (IPv4) or /64s (IPv6).
    #[serde(default)]
    pub default_quota: Option<u64>,
    /// The pool of its family for those who do not choose; there is at most one.
    #[serde(default)]
    pub is_default: bool,
    /// Every project may have subnets out of it: a policy for `*` says so.
    #[serde(default)]
    pub shared: bool,
    /// The scope that it is in.
    #[serde(default)]
    pub address_scope_id: Option<AddressScopeId>,
    /// An administrator made it, so hosts announce what is out of it, whoever makes the subnet. Not
    /// shown.
    #[serde(default)]
    pub made_by_admin: bool,
}
