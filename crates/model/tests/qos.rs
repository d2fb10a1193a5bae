//! What a host does about QoS policies.

#![allow(clippy::unwrap_used, reason = "a test")]

mod world;

use std::collections::BTreeSet;

use hextet_model::{
    intent::Change,
    neutron::{Direction, QosRuleKind},
    plan::Planner,
    state::{Key, Netns, Object, table_text},
};
use world::{config, fixed, network, port, qos, subnet};

fn text(planner: &Planner) -> String {
    table_text(planner.state().objects.values(), &Netns::Main)
}

fn planner() -> Planner {
    let mut planner = Planner::new(config());
    let mut both = [
        port(1, vec![fixed(0, "192.0.2.1")], &[]),
        port(2, vec![fixed(0, "192.0.2.2")], &[]),
    ];
    both[1].qos_policy_id = Some(qos::policy_id(1));
    planner.apply(Change::PutNetwork(Box::new(network(0))));
    planner.apply(Change::PutSubnet(Box::new(subnet(0))));
    for port in both {
        planner.apply(Change::PutPort(Box::new(port)));
    }
    planner
}

fn put(planner: &mut Planner, n: u8, kinds: &[QosRuleKind]) -> BTreeSet<Key> {
    let policy = qos::policy(n, kinds.iter().copied());
    planner
        .apply(Change::PutQosPolicy(Box::new(policy)))
        .objects
}

#[test]
fn where_nothing_is_limited_there_is_nothing() {
    let mut planner = planner();
    let before = text(&planner);
    assert!(!before.contains("limits"));
    put(&mut planner, 0, &[qos::bandwidth(Direction::Egress, 8_000)]);
    assert_eq!(text(&planner), before, "nobody has that policy");
}

#[test]
fn a_port_is_limited_by_its_own_policy_or_by_its_network_s() {
    let mut planner = planner();
    put(
        &mut planner,
        1,
        &[
            qos::bandwidth(Direction::Egress, 8_000),
            QosRuleKind::DscpMarking { dscp_mark: 46 },
        ],
    );
    let own = text(&planner);
    assert!(
        own.contains("rate over 1000000 bytes/second burst 65536 bytes"),
        "{own}"
    );
    assert!(
        own.contains("limit name iifname map @limit-octets-egress counter drop"),
        "{own}"
    );
    assert!(own.contains("iifname @dscp-46 ip dscp set 46"), "{own}");
    put(
        &mut planner,
        0,
        &[qos::bandwidth(Direction::Ingress, 16_000)],
    );
    let limiters = |planner: &Planner| {
        let all = planner.state().objects.values();
        all.filter(|o| matches!(o, Object::Limiter(..))).count()
    };
    assert_eq!(limiters(&planner), 1);
    let mut with = network(0);
    with.qos_policy_id = Some(qos::policy_id(0));
    planner.apply(Change::PutNetwork(Box::new(with)));
    assert_eq!(limiters(&planner), 2, "the other port has the network's");
    planner.apply(Change::RemoveQosPolicy(qos::policy_id(1)));
    planner.apply(Change::RemoveQosPolicy(qos::policy_id(0)));
    assert_eq!(limiters(&planner), 0);
    assert!(!text(&planner).contains("limits"));
}

#[test]
fn what_does_not_change_of_a_policy_is_left_alone() {
    let mut planner = planner();
    let (egress, ingress) = (Direction::Egress, Direction::Ingress);
    put(
        &mut planner,
        1,
        &[
            qos::bandwidth(egress, 8_000),
            qos::bandwidth(ingress, 8_000),
        ],
    );
    let changed = put(
        &mut planner,
        1,
        &[
            qos::bandwidth(egress, 8_000),
            qos::bandwidth(ingress, 9_000),
        ],
    );
    let kinds: Vec<&str> = changed
        .iter()
        .map(|key| match key {
            Key::Limiter(..) => "limiter",
            Key::Element(..) => "element",
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(
        kinds,
        ["limiter", "limiter", "element"],
        "one direction's alone"
    );
    let renamed = put(
        &mut planner,
        1,
        &[
            qos::bandwidth(egress, 8_000),
            qos::bandwidth(ingress, 9_000),
        ],
    );
    assert_eq!(renamed, BTreeSet::new());
}
