//! QoS policies, and who has them.

use hextet_model::{
    intent::Change,
    neutron::{Direction, QosPolicy, QosRule, QosRuleKind},
};
use hextet_types::{QosPolicyId, QosRuleId};
use proptest::{prelude::*, sample::subsequence};
use uuid::Uuid;

use super::standard;

pub fn policy_id(n: u8) -> QosPolicyId {
    QosPolicyId(Uuid::from_u128(0x9000 + u128::from(n)))
}

pub fn policy(n: u8, kinds: impl IntoIterator<Item = QosRuleKind>) -> QosPolicy {
    let id = QosRuleId(Uuid::nil());
    QosPolicy {
        id: policy_id(n),
        standard: standard(),
        shared: false,
        is_default: false,
        rules: kinds.into_iter().map(|kind| QosRule { id, kind }).collect(),
    }
}

pub fn bandwidth(direction: Direction, max_kbps: u32) -> QosRuleKind {
    QosRuleKind::BandwidthLimit {
        direction,
        max_kbps,
        max_burst_kbps: 0,
    }
}

/// A policy comes, becomes another or goes.
pub fn some_change() -> impl Strategy<Value = Change> {
    let packets = |max_kpps| QosRuleKind::PacketRateLimit {
        direction: Direction::Egress,
        max_kpps,
        max_burst_kpps: 1,
    };
    let rules = (0u32..3, 1u32..3, prop::sample::select(vec![0u8, 46])).prop_map(
        move |(kbps, kpps, dscp_mark)| {
            vec![
                bandwidth(Direction::Egress, kbps),
                bandwidth(Direction::Ingress, 8_000),
                packets(kpps),
                QosRuleKind::DscpMarking { dscp_mark },
            ]
        },
    );
    let some = rules.prop_flat_map(|rules| subsequence(rules, 0..4));
    prop_oneof![
        3 => (0u8..3, some).prop_map(|(n, rules)| Change::PutQosPolicy(Box::new(policy(n, rules)))),
        1 => (0u8..3).prop_map(|n| Change::RemoveQosPolicy(policy_id(n))),
    ]
}

/// Of what may have a policy, some has.
pub fn with_policy(change: Change, n: u8) -> Change {
    let policy = (n < 4).then(|| policy_id(n));
    let mut change = change;
    match &mut change {
        Change::PutNetwork(network) => network.qos_policy_id = policy,
        Change::PutPort(port) => port.qos_policy_id = policy,
        Change::PutFloatingIp(ip) => ip.qos_policy_id = policy,
        Change::PutRouter(router) => {
            for gateway in &mut router.router.gateways {
                gateway.qos_policy_id = policy;
            }
            router.meters = super::metering::meters(n);
        }
        _ => {}
    }
    change
}
