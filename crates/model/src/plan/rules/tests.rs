use hextet_types::AddressGroupId;
use jiff::Timestamp;
use proptest::prelude::*;
use uuid::Uuid;

use super::*;
use crate::neutron::{SecurityGroup, Standard};

/// What it allows in a group whose address group 1 is of these prefixes.
fn matched_with(prefixes: &[&str], rule: &SecurityGroupRule) -> Vec<Match> {
    let prefixes = prefixes.iter().map(|p| p.parse().unwrap()).collect();
    let group = Group {
        group: SecurityGroup {
            id: rule.security_group_id,
            standard: Standard {
                project_id: hextet_types::ProjectId(String::new()),
                name: String::new(),
                description: String::new(),
                tags: Vec::new(),
                revision_number: 0,
                created_at: Timestamp::UNIX_EPOCH,
                updated_at: Timestamp::UNIX_EPOCH,
            },
            stateful: true,
            shared: false,
        },
        rules: [].into(),
        addresses: [(AddressGroupId(Uuid::from_u128(1)), prefixes)].into(),
    };
    matches(&group, rule)
}

fn matched(rule: &SecurityGroupRule) -> Vec<Match> {
    matched_with(&[], rule)
}

fn rule(
    family: Family,
    protocol: Option<u8>,
    range: (Option<u16>, Option<u16>),
) -> SecurityGroupRule {
    SecurityGroupRule {
        id: hextet_types::SecurityGroupRuleId(Uuid::nil()),
        security_group_id: SecurityGroupId(Uuid::nil()),
        project_id: hextet_types::ProjectId(String::new()),
        description: String::new(),
        direction: Direction::Ingress,
        ethertype: family,
        protocol: protocol.map(Protocol),
        port_range_min: range.0,
        port_range_max: range.1,
        remote_ip_prefix: None,
        remote_group_id: None,
        remote_address_group_id: None,
        as_written: None,
        revision_number: 0,
        created_at: Timestamp::UNIX_EPOCH,
        updated_at: Timestamp::UNIX_EPOCH,
    }
}

#[test]
fn ranges_split_into_the_fewest_blocks() {
    type Case = (u16, u16, &'static [(u16, u16)]);
    let cases: &[Case] = &[
        (0, 65535, &[(0, 0)]),
        (22, 22, &[(22, 0xffff)]),
        (80, 81, &[(80, 0xfffe)]),
        (81, 82, &[(81, 0xffff), (82, 0xffff)]),
        (
            1024,
            65535,
            &[
                (1024, 0xfc00),
                (2048, 0xf800),
                (4096, 0xf000),
                (8192, 0xe000),
                (16384, 0xc000),
                (32768, 0x8000),
            ],
        ),
        (32768, 65535, &[(32768, 0x8000)]),
        (65535, 65535, &[(65535, 0xffff)]),
        (9, 8, &[]),
    ];
    for (first, last, blocks) in cases {
        assert_eq!(port_blocks(*first, *last), *blocks, "{first}-{last}");
    }
    assert_eq!(port_blocks(1, 65534).len(), 30, "the most there can be");
}

#[test]
fn a_rule_has_the_shape_of_what_it_says() {
    use Family::{V4, V6};
    let u8s = |n: &[u8]| n.iter().map(|n| Value::U8(*n)).collect::<Vec<_>>();
    let cases = [
        (rule(V4, None, (None, None)), Service::Any, vec![]),
        (
            rule(V6, Some(6), (None, None)),
            Service::Protocol,
            u8s(&[6]),
        ),
        (
            rule(V4, Some(0), (None, None)),
            Service::Protocol,
            u8s(&[0]),
        ),
        (
            rule(V4, Some(1), (Some(8), None)),
            Service::IcmpType,
            u8s(&[8]),
        ),
        (
            rule(V4, Some(1), (Some(3), Some(4))),
            Service::IcmpCode,
            u8s(&[3, 4]),
        ),
        (
            rule(V6, Some(1), (None, None)),
            Service::Protocol,
            u8s(&[58]),
        ),
        (
            rule(V6, Some(1), (Some(128), Some(0))),
            Service::IcmpCode,
            u8s(&[128, 0]),
        ),
        (
            rule(V6, Some(58), (Some(128), None)),
            Service::IcmpType,
            u8s(&[128]),
        ),
        (
            rule(V4, Some(17), (Some(0), Some(65535))),
            Service::Protocol,
            u8s(&[17]),
        ),
        (
            rule(V4, Some(6), (Some(443), None)),
            Service::Port(0xffff),
            vec![Value::U8(6), Value::Port(443)],
        ),
    ];
    for (rule, service, key) in cases {
        let found = matched(&rule);
        assert_eq!(found.len(), 1, "{rule:?}");
        assert_eq!(found[0].shape.service, service, "{rule:?}");
        assert_eq!(found[0].key, key, "{rule:?}");
        assert_eq!(found[0].shape.key_types().len(), key.len(), "{rule:?}");
        let parts = found[0].shape.key_parts(Direction::Egress);
        assert_eq!(parts.len(), key.len(), "{rule:?}");
    }
}

#[test]
fn a_rule_that_makes_no_sense_opens_nothing() {
    use Family::{V4, V6};
    let foreign = SecurityGroupRule {
        remote_ip_prefix: "2001:db8::/64".parse().ok(),
        ..rule(V4, None, (None, None))
    };
    for rule in [
        foreign,
        rule(V4, None, (Some(80), Some(80))),
        rule(V4, Some(47), (Some(80), Some(80))),
        rule(V4, Some(6), (Some(81), Some(80))),
        rule(V4, Some(58), (Some(128), None)),
        rule(V4, Some(1), (Some(256), None)),
        rule(V4, Some(1), (Some(8), Some(256))),
        rule(V6, Some(58), (None, Some(0))),
    ] {
        assert_eq!(matched(&rule), [], "{rule:?}");
    }
}

#[test]
fn a_prefix_of_no_bits_is_no_prefix() {
    let all = SecurityGroupRule {
        remote_ip_prefix: "::/0".parse().ok(),
        ..rule(Family::V6, None, (None, None))
    };
    assert_eq!(
        matched(&all),
        matched(&rule(Family::V6, None, (None, None)))
    );
}

#[test]
fn an_address_group_opens_each_of_its_prefixes_and_no_more() {
    use Family::{V4, V6};
    let named = |family| SecurityGroupRule {
        remote_address_group_id: Some(AddressGroupId(Uuid::from_u128(1))),
        ..rule(family, Some(6), (Some(443), None))
    };
    let prefixes = ["192.0.2.0/24", "198.51.100.7/32", "2001:db8::/48"];
    let lengths = |found: &[Match]| found.iter().map(|m| m.shape.prefix_len).collect::<Vec<_>>();
    assert_eq!(
        lengths(&matched_with(&prefixes, &named(V4))),
        [Some(24), Some(32)]
    );
    assert_eq!(lengths(&matched_with(&prefixes, &named(V6))), [Some(48)]);
    assert_eq!(matched_with(&[], &named(V4)), []);
    assert_eq!(matched_with(&prefixes[..2], &named(V6)), []);
    let unknown = SecurityGroupRule {
        remote_address_group_id: Some(AddressGroupId(Uuid::from_u128(2))),
        ..named(V4)
    };
    assert_eq!(matched_with(&prefixes, &unknown), []);
    let all = matched_with(&["192.0.2.0/24", "0.0.0.0/0"], &named(V4));
    assert_eq!(all, matched(&rule(V4, Some(6), (Some(443), None))));
}

#[test]
fn an_extent_is_what_the_matches_are() {
    let prefixes = [
        "192.0.2.0/24",
        "198.51.100.7/32",
        "203.0.113.9/32",
        "2001:db8::/48",
    ];
    let addresses: Vec<Prefix> = prefixes.iter().map(|p| p.parse().unwrap()).collect();
    for family in Family::BOTH {
        let rule = SecurityGroupRule {
            remote_address_group_id: Some(AddressGroupId(Uuid::from_u128(1))),
            ..rule(family, Some(6), (Some(81), Some(82)))
        };
        let found = matched_with(&prefixes, &rule);
        let mut extent = Extent::default();
        extent.add(&rule, &addresses);
        assert_eq!(extent.elements, found.len());
        let shapes: BTreeSet<Shape> = found.iter().map(|m| m.shape).collect();
        assert_eq!(extent.shapes, shapes);
    }
}

#[test]
fn shapes_have_distinct_codes() {
    let services = [
        Service::Any,
        Service::Protocol,
        Service::Port(0xffff),
        Service::Port(0x8000),
        Service::IcmpType,
        Service::IcmpCode,
    ];
    let mut codes = std::collections::BTreeSet::new();
    for service in services {
        for prefix_len in [None, Some(1), Some(12)] {
            for remote in [None, Some(SecurityGroupId(Uuid::nil()))] {
                let shape = Shape {
                    family: Family::V4,
                    service,
                    prefix_len,
                    remote,
                };
                assert!(codes.insert(shape.code()), "{shape:?}");
            }
        }
    }
}

proptest! {
    #[test]
    fn blocks_hold_the_range_and_nothing_else(first: u16, last: u16, port: u16) {
        let blocks = port_blocks(first, last);
        let held = blocks.iter().filter(|(base, mask)| port & mask == *base).count();
        prop_assert_eq!(held, usize::from((first..=last).contains(&port)));
    }
}
