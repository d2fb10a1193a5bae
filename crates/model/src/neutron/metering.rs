//! Metering labels: whose traffic is counted, and which.

use hextet_types::{MeteringLabelId, MeteringRuleId, Prefix, ProjectId};
use serde::{Deserialize, Serialize};

use super::Direction;

/// A Neutron metering label: it counts what passes between its project's routers and the outside, as its
/// rules say; nothing, while it has none.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MeteringLabel {
    /// Its identity.
    pub id: MeteringLabelId,
    /// Its owner.
    pub project_id: ProjectId,
    /// For people.
    pub name: String,
    /// For people.
    pub description: String,
    /// It counts for the routers of all projects.
    pub shared: bool,
}

/// A rule of a metering label, which is never changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MeteringRule {
    /// Its identity.
    pub id: MeteringRuleId,
    /// The label.
    pub metering_label_id: MeteringLabelId,
    /// Who made it.
    pub project_id: ProjectId,
    /// As the router's networks see it: what comes from outside is `ingress`.
    pub direction: Direction,
    /// What matches is not counted, whatever other rules say.
    pub excluded: bool,
    /// The end inside, under the name that Neutron gave it first; then neither of the others is there.
    pub remote_ip_prefix: Option<Prefix>,
    /// Where packets come from; of what leaves, before its source is translated.
    pub source_ip_prefix: Option<Prefix>,
    /// Where packets go; of what enters, after its destination is translated.
    pub destination_ip_prefix: Option<Prefix>,
}

impl MeteringRule {
    /// The prefixes of source and destination that it matches; of one family if there are both.
    pub fn ends(&self) -> (Option<Prefix>, Option<Prefix>) {
        match (self.remote_ip_prefix, self.direction) {
            (None, _) => (self.source_ip_prefix, self.destination_ip_prefix),
            (inside, Direction::Egress) => (inside, None),
            (inside, Direction::Ingress) => (None, inside),
        }
    }
}
