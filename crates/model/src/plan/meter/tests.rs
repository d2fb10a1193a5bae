//! What is counted, against a plain reading of the rules: random rules and packets, and the chains done step by step.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use hextet_types::RouterId;
use proptest::prelude::*;
use uuid::Uuid;

use super::*;
use crate::{
    neutron::{self, Standard},
    state::{ChainName, CmpOp, CounterName, Lookup, SetName, Verdict},
};

#[derive(Clone, Copy, Debug)]
struct Passing {
    /// Comes from outside, goes there.
    outside: (bool, bool),
    source: IpAddr,
    destination: IpAddr,
}

fn router(meters: BTreeMap<MeteringLabelId, BTreeSet<MeterRule>>) -> Router {
    let standard = Standard {
        project_id: hextet_types::ProjectId("p".into()),
        name: String::new(),
        description: String::new(),
        tags: Vec::new(),
        revision_number: 1,
        created_at: jiff::Timestamp::UNIX_EPOCH,
        updated_at: jiff::Timestamp::UNIX_EPOCH,
    };
    Router {
        router: neutron::Router {
            id: RouterId(Uuid::from_u128(9)),
            standard,
            admin_state_up: true,
            gateways: Vec::new(),
            enable_snat: true,
            routes: Vec::new(),
            enable_ndp_proxy: false,
            enable_default_route_ecmp: false,
            enable_default_route_bfd: false,
            availability_zone_hints: Vec::new(),
        },
        interfaces: BTreeMap::new(),
        gateways: BTreeMap::new(),
        gateway_host: None,
        published: BTreeSet::new(),
        meters,
    }
}

/// The chains as a kernel does them.
#[derive(Default)]
struct Table {
    chains: BTreeMap<ChainName, Vec<NftRule>>,
    elements: BTreeSet<(SetName, Vec<Value>)>,
    counters: BTreeSet<CounterName>,
}

impl Table {
    fn of(objects: Vec<Object>) -> Table {
        let mut table = Table::default();
        for object in objects {
            match object {
                Object::Chain(_, chain) => drop(table.chains.insert(chain.name, chain.rules)),
                Object::Element(_, element) => {
                    assert!(table.elements.insert((element.set, element.key)));
                }
                Object::Counter(_, name) => assert!(table.counters.insert(name)),
                Object::Set(..) => {}
                other => panic!("{other:?}"),
            }
        }
        table
    }

    /// The counters that a packet passes. Whether the chain was left by a verdict that ends all.
    fn pass(&self, chain: &ChainName, packet: Passing, counted: &mut Vec<CounterName>) -> bool {
        for rule in &self.chains[chain] {
            for statement in &rule.statements {
                match statement {
                    Statement::Count(name) => {
                        assert!(self.counters.contains(name));
                        counted.push(name.clone());
                    }
                    Statement::Verdict(Verdict::Return) => return false,
                    Statement::Verdict(Verdict::Accept) => return true,
                    Statement::Verdict(Verdict::Jump(to)) => {
                        assert!(!self.pass(to, packet, counted));
                    }
                    condition if self.holds(condition, packet) => {}
                    _ => break,
                }
            }
        }
        false
    }

    fn holds(&self, condition: &Statement, packet: Passing) -> bool {
        match condition {
            Statement::Compare(part, CmpOp::Eq, value) => match (part.field, value) {
                (Field::IifName, _) => packet.outside.0,
                (Field::OifName, _) => packet.outside.1,
                (Field::NfProto, Value::Family(family)) => Family::of(packet.source) == *family,
                other => panic!("{other:?}"),
            },
            Statement::Lookup(Lookup { key, set, negate }) => {
                assert!(!negate);
                let key: Option<Vec<Value>> = key.iter().map(|part| read(part, packet)).collect();
                key.is_some_and(|key| self.elements.contains(&(set.clone(), key)))
            }
            other => panic!("{other:?}"),
        }
    }
}

fn read(part: &KeyPart, packet: Passing) -> Option<Value> {
    let (addr, family) = match part.field {
        Field::Saddr(family) => (packet.source, family),
        Field::Daddr(family) => (packet.destination, family),
        other => panic!("{other:?}"),
    };
    let masked = |octets: &mut [u8]| {
        if let Some(mask) = &part.mask {
            octets.iter_mut().zip(mask).for_each(|(o, m)| *o &= m);
        }
    };
    (Family::of(addr) == family).then(|| match addr {
        IpAddr::V4(addr) => {
            let mut octets = addr.octets();
            masked(&mut octets);
            Value::Addr(IpAddr::V4(octets.into()))
        }
        IpAddr::V6(addr) => {
            let mut octets = addr.octets();
            masked(&mut octets);
            Value::Addr(IpAddr::V6(octets.into()))
        }
    })
}

/// What the rules say, without chains and sets.
fn expected(router: &Router, packet: Passing) -> Vec<CounterName> {
    let mut counted = Vec::new();
    let ways = [
        (Direction::Ingress, packet.outside.0),
        (Direction::Egress, packet.outside.1),
    ];
    for (direction, passes) in ways {
        for (label, rules) in router.meters.iter().filter(|_| passes) {
            let matches = |rule: &&MeterRule| {
                let is = |end: Option<Prefix>, addr| end.is_none_or(|prefix| prefix.contains(addr));
                let named = [rule.source, rule.destination];
                rule.direction == direction
                    && named.iter().any(Option::is_some)
                    && is(rule.source, packet.source)
                    && is(rule.destination, packet.destination)
            };
            let mut matching = rules.iter().filter(matches).peekable();
            if matching.peek().is_some() && matching.all(|rule| !rule.excluded) {
                counted.push(names::meter(*label, router.router.id, direction));
            }
        }
    }
    counted
}

fn some_addr(family: Family) -> impl Strategy<Value = IpAddr> {
    // Few of them, so that rules and packets meet.
    (0u8..3, 0u8..3).prop_map(move |(a, b)| match family {
        Family::V4 => IpAddr::V4(Ipv4Addr::new(10, a, 0, b)),
        Family::V6 => IpAddr::V6(Ipv6Addr::new(0xfd00, a.into(), 0, 0, 0, 0, 0, b.into())),
    })
}

fn some_prefix(family: Family) -> impl Strategy<Value = Prefix> {
    let lengths = match family {
        Family::V4 => vec![0u8, 8, 15, 16, 32],
        Family::V6 => vec![0u8, 16, 31, 32, 128],
    };
    (some_addr(family), prop::sample::select(lengths))
        .prop_map(|(addr, len)| Prefix::new(addr, len).unwrap())
}

fn some_family() -> impl Strategy<Value = Family> {
    prop::sample::select(Family::BOTH.to_vec())
}

fn some_rule() -> impl Strategy<Value = MeterRule> {
    let ends = some_family().prop_flat_map(|family| {
        let end = || prop::option::of(some_prefix(family));
        (end(), end()).prop_filter("an end at least", |(a, b)| a.is_some() || b.is_some())
    });
    let directions = prop::sample::select(vec![Direction::Ingress, Direction::Egress]);
    (directions, prop::bool::weighted(0.3), ends).prop_map(|(direction, excluded, ends)| {
        MeterRule {
            direction,
            excluded,
            source: ends.0,
            destination: ends.1,
        }
    })
}

fn some_packet() -> impl Strategy<Value = Passing> {
    let ends = some_family().prop_flat_map(|family| (some_addr(family), some_addr(family)));
    (any::<(bool, bool)>(), ends).prop_map(|(outside, (source, destination))| Passing {
        outside,
        source,
        destination,
    })
}

proptest! {
    #[test]
    fn each_label_counts_what_its_rules_say_and_once(
        labels in prop::collection::vec(prop::collection::btree_set(some_rule(), 0..6), 0..4),
        packets in prop::collection::vec(some_packet(), 1..20),
    ) {
        let labels = labels.into_iter().zip(1u128..);
        let meters = labels.map(|(rules, n)| (MeteringLabelId(Uuid::from_u128(n)), rules));
        let router = router(meters.collect());
        let objects = super::meters(&router);
        let table = Table::of(objects);
        let main = ChainName::from(CHAIN);
        for packet in packets {
            let mut counted = Vec::new();
            if table.chains.contains_key(&main) {
                prop_assert!(table.pass(&main, packet, &mut counted), "nothing is dropped");
            }
            let mut expected = expected(&router, packet);
            counted.sort();
            expected.sort();
            prop_assert_eq!(counted, expected, "{:?}", packet);
        }
    }
}

fn rule_of(direction: Direction, excluded: bool, source: &str) -> MeterRule {
    MeterRule {
        direction,
        excluded,
        source: Some(source.parse().unwrap()),
        destination: None,
    }
}

#[test]
fn who_counts_nothing_has_nothing() {
    assert_eq!(meters(&router(BTreeMap::new())), []);
    let label = MeteringLabelId(Uuid::from_u128(1));
    let none = BTreeMap::from([(label, BTreeSet::new())]);
    assert_eq!(meters(&router(none)), []);
    let excluded = BTreeSet::from([rule_of(Direction::Egress, true, "10.0.0.0/8")]);
    assert_eq!(meters(&router(BTreeMap::from([(label, excluded)]))), []);
}

#[test]
fn rules_of_one_kind_are_one_look_and_labels_are_bounded() {
    let many = (0..200u8).map(|n| rule_of(Direction::Egress, false, &format!("10.0.{n}.0/24")));
    let label = MeteringLabelId(Uuid::from_u128(1));
    let objects = meters(&router(BTreeMap::from([(label, many.collect())])));
    let chain = names::meter_chain(label, Direction::Egress);
    let chains = objects.iter().filter_map(|object| match object {
        Object::Chain(_, found) if found.name == chain => Some(found.rules.len()),
        _ => None,
    });
    assert_eq!(chains.collect::<Vec<_>>(), [1]);
    let all = (0..300u128).map(|n| {
        let rules = BTreeSet::from([rule_of(Direction::Egress, false, "::/0")]);
        (MeteringLabelId(Uuid::from_u128(n)), rules)
    });
    let objects = meters(&router(all.collect()));
    let counters = objects.iter().filter(|o| matches!(o, Object::Counter(..)));
    assert_eq!(counters.count(), MAX_METERS);
}
