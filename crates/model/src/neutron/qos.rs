//! QoS policies: how much may be sent and received, and how it is marked.

use hextet_types::{QosPolicyId, QosRuleId};
use serde::{Deserialize, Serialize};

use super::{Direction, Standard};

/// What a rule of a QoS policy says. A limit of 0 is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum QosRuleKind {
    /// So much at most.
    BandwidthLimit {
        /// As the workload sees it: what it sends is `egress`.
        direction: Direction,
        /// In 1,000 bits a second.
        max_kbps: u32,
        /// In 1,000 bits; 0 for 80 % of what passes in a second.
        max_burst_kbps: u32,
    },
    /// So many packets at most.
    PacketRateLimit {
        /// As the workload sees it.
        direction: Direction,
        /// In 1,000 packets a second.
        max_kpps: u32,
        /// In 1,000 packets; 0 for 80 % of what passes in a second.
        max_burst_kpps: u32,
    },
    /// What it sends gets this code point (RFC 2474).
    DscpMarking {
        /// One of [`QosRuleKind::DSCP_MARKS`].
        dscp_mark: u8,
    },
}

impl QosRuleKind {
    /// Code points that rules may set.
    pub const DSCP_MARKS: [u8; 22] = [
        0, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30, 32, 34, 36, 38, 40, 44, 46, 48, 56,
    ];

    /// As the API has it.
    pub const fn name(self) -> &'static str {
        match self {
            QosRuleKind::BandwidthLimit { .. } => "bandwidth_limit",
            QosRuleKind::PacketRateLimit { .. } => "packet_rate_limit",
            QosRuleKind::DscpMarking { .. } => "dscp_marking",
        }
    }

    /// Of which direction.
    pub const fn direction(self) -> Direction {
        match self {
            QosRuleKind::BandwidthLimit { direction, .. }
            | QosRuleKind::PacketRateLimit { direction, .. } => direction,
            QosRuleKind::DscpMarking { .. } => Direction::Egress,
        }
    }

    /// Whether both say something of the same: a policy has one such rule.
    pub fn conflicts(self, other: QosRuleKind) -> bool {
        self.name() == other.name() && self.direction() == other.direction()
    }
}

/// A rule of a QoS policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct QosRule {
    /// Its identity.
    pub id: QosRuleId,
    /// What it says.
    #[serde(flatten)]
    pub kind: QosRuleKind,
}

/// A Neutron QoS policy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct QosPolicy {
    /// Its identity.
    pub id: QosPolicyId,
    /// Owner, name, tags, revision and times.
    #[serde(flatten)]
    pub standard: Standard,
    /// Every project may use it.
    pub shared: bool,
    /// New networks of its project have it.
    pub is_default: bool,
    /// No two of them conflict, so there are at most five.
    #[serde(default)]
    pub rules: Vec<QosRule>,
}
