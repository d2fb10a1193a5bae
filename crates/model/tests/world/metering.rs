//! What is counted of a router's traffic.

use std::collections::{BTreeMap, BTreeSet};

use hextet_model::{intent::MeterRule, neutron::Direction};
use hextet_types::MeteringLabelId;
use uuid::Uuid;

/// Some labels, or none.
pub fn meters(n: u8) -> BTreeMap<MeteringLabelId, BTreeSet<MeterRule>> {
    let rule = |direction, excluded, source: &str| MeterRule {
        direction,
        excluded,
        source: Some(source.parse().unwrap()),
        destination: None,
    };
    let labels = (0..n % 4).map(|label| {
        let mut rules = BTreeSet::from([rule(Direction::Egress, false, "::/0")]);
        if n > 3 {
            rules.insert(rule(Direction::Egress, true, "10.0.1.0/24"));
            rules.insert(rule(Direction::Ingress, false, "0.0.0.0/0"));
        }
        let id = MeteringLabelId(Uuid::from_u128(u128::from(label) + 1));
        (id, rules)
    });
    labels.collect()
}
