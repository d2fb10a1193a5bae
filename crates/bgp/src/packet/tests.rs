//! Byte vectors both ways, round trips, and octets from nowhere.

mod malformed;
mod oracle;

use std::net::{Ipv4Addr, Ipv6Addr};

use hextet_types::{Asn, Family, Prefix};
use proptest::{collection::vec, option, prelude::*};

use super::*;

pub(crate) const CONTEXT: Context = Context {
    four_octet_as: true,
    internal: true,
    families: Families::BOTH,
    extended_next_hop: true,
};

fn encoding() -> Encoding {
    Encoding {
        four_octet_as: true,
        extended: false,
    }
}

fn messages(stream: &[u8]) -> Vec<(MessageType, Vec<u8>)> {
    let mut framer = Framer::new();
    framer.allow_extended();
    framer.push(stream);
    let mut found = Vec::new();
    while let Some((kind, body)) = framer.next_message().unwrap() {
        found.push((kind, body.to_vec()));
    }
    assert_eq!(framer.buffered(), 0);
    found
}

fn prefixes(texts: &[&str]) -> Vec<Prefix> {
    texts.iter().map(|t| t.parse().unwrap()).collect()
}

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<char> = text.chars().filter(|c| !c.is_whitespace()).collect();
    digits
        .chunks(2)
        .map(|pair| u8::from_str_radix(&pair.iter().collect::<String>(), 16).unwrap())
        .collect()
}

#[test]
fn open_both_ways() {
    let open = Open {
        my_as: 23456,
        hold_time_secs: 90,
        identifier: Ipv4Addr::new(192, 0, 2, 1),
        capabilities: vec![
            Capability::Multiprotocol(Afi::unicast(Family::V4)),
            Capability::Multiprotocol(Afi::unicast(Family::V6)),
            Capability::RouteRefresh,
            Capability::ExtendedNextHop(vec![ExtendedNextHop {
                family: Afi::unicast(Family::V4),
                next_hop_afi: 2,
            }]),
            Capability::ExtendedMessage,
            Capability::GracefulRestart(GracefulRestart {
                restarting: true,
                notification: true,
                time_secs: 120,
                families: vec![RestartFamily {
                    family: Afi::unicast(Family::V6),
                    forwarding: true,
                }],
            }),
            Capability::FourOctetAs(Asn(4_200_000_001)),
            Capability::EnhancedRouteRefresh,
            Capability::LongLived(vec![LongLivedFamily {
                family: Afi::unicast(Family::V6),
                forwarding: true,
                stale_secs: 86_400,
            }]),
        ],
    };
    let octets = hex(
        "ffffffffffffffffffffffffffffffff 0050 01  04 5ba0 005a c0000201 33
         02 31  0104 0001 00 01  0104 0002 00 01  0200  0506 0001 0001 0002  0600
         4006 c078 0002 01 80  4104 fa56ea01  4600  4707 0002 01 80 015180",
    );
    assert_eq!(Message::Open(open.clone()).encode(), octets);
    let (kind, body) = messages(&octets).remove(0);
    assert_eq!(kind, MessageType::Open);
    assert_eq!(open.asn(), Asn(4_200_000_001));
    assert_eq!(Open::decode_body(&body), Ok(open));
}

#[test]
fn parameters_over_an_octet_take_the_extended_format() {
    let open = Open {
        my_as: 1,
        hold_time_secs: 0,
        identifier: Ipv4Addr::new(1, 1, 1, 1),
        capabilities: vec![
            Capability::Unknown {
                code: 200,
                value: vec![7; 250],
            },
            Capability::Unknown {
                code: 201,
                value: vec![8; 250],
            },
        ],
    };
    let octets = Message::Open(open.clone()).encode();
    assert_eq!(octets[28..35], hex("ff ff 01fb 02 01f8"));
    assert_eq!(Open::decode_body(&octets[19..]), Ok(open));
}

#[test]
fn an_open_is_refused_with_the_code_of_the_rfc() {
    let cases = [
        ("03 0001 005a 01010101 00", Code::OPEN_VERSION, "0004"),
        ("04 0000 005a 01010101 00", Code::OPEN_PEER_AS, ""),
        ("04 0001 0001 01010101 00", Code::OPEN_HOLD_TIME, ""),
        ("04 0001 0002 01010101 00", Code::OPEN_HOLD_TIME, ""),
        ("04 0001 0003 00000000 00", Code::OPEN_BGP_ID, ""),
        ("04 0001 0003 01010101 02 0100", Code::OPEN_PARAMETER, "01"),
        ("04 0001 0003 01010101 01 02", Code::OPEN_MALFORMED, ""),
        ("04 0001 0003 01010101 03 0201 02", Code::OPEN_MALFORMED, ""),
        ("04 0001 0003 01010101 00 00", Code::OPEN_MALFORMED, ""),
        ("04 0001 0003 01010101 ff ff", Code::OPEN_MALFORMED, ""),
    ];
    for (body, code, data) in cases {
        let data = hex(data);
        assert_eq!(
            Open::decode_body(&hex(body)),
            Err(Notification { code, data }),
            "{body}"
        );
    }
}

#[test]
fn a_capability_of_the_wrong_length_is_unknown() {
    let body = hex("04 0001 0003 01010101 09 02 07 4103000001 0103");
    assert_eq!(
        Open::decode_body(&body).unwrap_err().code,
        Code::OPEN_MALFORMED
    );
    let body = hex("04 0001 0003 01010101 07 02 05 4103000001");
    let open = Open::decode_body(&body).unwrap();
    assert_eq!(open.asn(), Asn(1));
    assert!(matches!(
        open.capabilities[..],
        [Capability::Unknown { code: 65, .. }]
    ));
}

#[test]
fn route_refresh_both_ways() {
    let refresh = RouteRefresh {
        family: Afi::unicast(Family::V6),
        kind: Some(RefreshKind::Begin),
    };
    let octets = Message::RouteRefresh(refresh).encode();
    assert_eq!(octets[16..], hex("0017 05 0002 01 01"));
    assert_eq!(RouteRefresh::decode_body(&octets[19..]), Ok(refresh));
    assert_eq!(
        RouteRefresh::decode_body(&[0, 1, 0]).unwrap_err().code,
        Code::REFRESH_LENGTH
    );
}

#[test]
fn a_classic_update_both_ways() {
    let mut attributes = PathAttributes::new(NextHop::V4(Ipv4Addr::new(192, 0, 2, 9)));
    attributes.as_path = AsPath::sequence(&[Asn(64512), Asn(4_200_000_000)]);
    attributes.local_pref = Some(100);
    attributes.med = Some(5);
    attributes.communities = Box::new([Community::new(64512, 1), Community::NO_EXPORT]);
    let announced = prefixes(&["0.0.0.0/0", "198.51.100.0/25", "203.0.113.7/32"]);
    let mut octets = Vec::new();
    encode_reach(&mut octets, encoding(), Family::V4, &attributes, &announced).unwrap();
    assert_eq!(
        octets[19..],
        hex(
            "0000 0031  40 01 01 00  40 02 0a 02 02 0000fc00 fa56ea00  40 03 04 c0000209
             80 04 04 00000005  40 05 04 00000064  c0 08 08 fc000001 ffffff01
             00  19 c6336400  20 cb007107"
        )
    );
    let parsed = Update::decode_body(&octets[19..], &CONTEXT).unwrap();
    assert_eq!(parsed.problems, []);
    assert_eq!(
        parsed.update.reach,
        [Reach {
            attributes,
            prefixes: announced
        }]
    );
}

#[test]
fn ipv4_over_an_ipv6_next_hop_both_ways() {
    let attributes = PathAttributes::new(NextHop::V6 {
        global: Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1),
        link_local: Some(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1)),
    });
    let announced = prefixes(&["192.0.2.1/32"]);
    let mut octets = Vec::new();
    encode_reach(&mut octets, encoding(), Family::V4, &attributes, &announced).unwrap();
    assert_eq!(
        octets[19..],
        hex(
            "0000 0035  90 0e 002a 0001 01 20 20010db8000000000000000000000001
             fe800000000000000000000000000001 00 20c0000201  400101 00  400200"
        )
    );
    let parsed = Update::decode_body(&octets[19..], &CONTEXT).unwrap();
    assert_eq!(parsed.update.reach[0].prefixes, announced);
    assert_eq!(parsed.update.reach[0].attributes, attributes);
    let without = Context {
        extended_next_hop: false,
        ..CONTEXT
    };
    let parsed = Update::decode_body(&octets[19..], &without).unwrap();
    assert_eq!(parsed.disabled.map(|(f, _)| f), Some(Family::V4));
}

#[test]
fn end_of_rib_both_ways() {
    for (family, body) in [
        (Family::V4, "0000 0000"),
        (Family::V6, "0000 0007 900f 0003 0002 01"),
    ] {
        let mut octets = Vec::new();
        encode_end_of_rib(&mut octets, family);
        assert_eq!(octets[19..], hex(body));
        let parsed = Update::decode_body(&octets[19..], &CONTEXT).unwrap();
        assert_eq!(parsed.update.end_of_rib, Some(family));
    }
    let short = hex("0000 0006 800f 03 0002 01");
    let parsed = Update::decode_body(&short, &CONTEXT).unwrap();
    assert_eq!(parsed.update.end_of_rib, Some(Family::V6));
}

#[test]
fn an_unknown_transitive_attribute_is_kept_with_the_partial_bit() {
    let body = hex("0000 0016 40010100 400200 400304c0000201 c0630201ff 80620109 10 0a00");
    let mut body = body;
    body[3] = 0x18 - 1;
    let parsed = Update::decode_body(&body, &CONTEXT).unwrap();
    let attributes = &parsed.update.reach[0].attributes;
    assert_eq!(attributes.rare().unknown.len(), 1);
    let mut out = Vec::new();
    let announced = &parsed.update.reach[0].prefixes;
    encode_reach(&mut out, encoding(), Family::V4, attributes, announced).unwrap();
    assert!(out.windows(5).any(|w| w == hex("e0630201ff")));
}

#[test]
fn many_prefixes_share_messages_of_the_session_s_length() {
    let attributes = PathAttributes::new(NextHop::V4(Ipv4Addr::new(192, 0, 2, 9)));
    let announced: Vec<Prefix> = (0u32..10_000)
        .map(|n| Prefix::host(Ipv4Addr::from(0x0a00_0000 + n).into()))
        .collect();
    for (extended, limit, count) in [(false, MAX_LEN, 13), (true, MAX_EXTENDED_LEN, 1)] {
        let encoding = Encoding {
            four_octet_as: true,
            extended,
        };
        let mut octets = Vec::new();
        encode_reach(&mut octets, encoding, Family::V4, &attributes, &announced).unwrap();
        let found = messages(&octets);
        assert_eq!(found.len(), count);
        assert!(found.iter().all(|(_, b)| b.len() + HEADER_LEN <= limit));
        let read: Vec<Prefix> = found
            .iter()
            .flat_map(|(_, b)| Update::decode_body(b, &CONTEXT).unwrap().update.reach)
            .flat_map(|r| r.prefixes)
            .collect();
        assert_eq!(read, announced);
        let mut octets = Vec::new();
        encode_withdraw(&mut octets, encoding, Family::V4, &announced);
        let read: Vec<Prefix> = messages(&octets)
            .iter()
            .flat_map(|(_, b)| Update::decode_body(b, &CONTEXT).unwrap().update.withdrawn)
            .collect();
        assert_eq!(read, announced);
    }
}

#[test]
fn attributes_that_leave_no_room_are_refused_and_nothing_is_written() {
    let mut attributes = PathAttributes::new(NextHop::V4(Ipv4Addr::new(192, 0, 2, 9)));
    attributes.communities = (0..1100).map(Community).collect();
    let announced = prefixes(&["192.0.2.0/24"]);
    let mut octets = Vec::new();
    let result = encode_reach(&mut octets, encoding(), Family::V4, &attributes, &announced);
    assert_eq!((result, octets.len()), (Err(Oversized), 0));
    let long = Encoding {
        four_octet_as: true,
        extended: true,
    };
    encode_reach(&mut octets, long, Family::V4, &attributes, &announced).unwrap();
    let parsed = Update::decode_body(&octets[19..], &CONTEXT).unwrap();
    assert_eq!(parsed.update.reach[0].attributes, attributes);
}

pub(crate) fn any_prefix(family: Family) -> impl Strategy<Value = Prefix> {
    (any::<u128>(), 0..=family.bits()).prop_map(move |(bits, len)| {
        let addr = match family {
            Family::V4 => Ipv4Addr::from(u32::try_from(bits >> 96).unwrap()).into(),
            Family::V6 => Ipv6Addr::from(bits).into(),
        };
        Prefix::new(addr, len).unwrap()
    })
}

fn any_path() -> impl Strategy<Value = AsPath> {
    let kind = prop_oneof![
        3 => Just(SegmentKind::Sequence),
        1 => Just(SegmentKind::Set),
        1 => Just(SegmentKind::ConfedSequence)
    ];
    let asn = prop_oneof![1u32..70_000, any::<u32>()].prop_map(Asn);
    vec((kind, vec(asn, 1..6)), 0..4).prop_map(|s| AsPath::from_segments(&s))
}

fn any_rare() -> impl Strategy<Value = Rare> {
    let unknown =
        (100u8..120, vec(any::<u8>(), 0..300)).prop_map(|(code, value)| UnknownAttribute {
            code,
            value: value.into(),
        });
    (
        option::of((prop_oneof![1u32..60_000, 1u32..], any::<u32>())),
        option::of(any::<Ipv4Addr>()),
        vec(any::<Ipv4Addr>(), 0..4),
        vec(any::<[u8; 8]>().prop_map(ExtendedCommunity), 0..4),
        vec(any::<(u32, u32, u32)>(), 0..4),
        option::of(unknown),
    )
        .prop_map(
            |(aggregator, originator_id, cluster_list, ext, large, unknown)| Rare {
                aggregator: aggregator.map(|(asn, id)| Aggregator {
                    asn: Asn(asn),
                    identifier: id.into(),
                }),
                originator_id,
                cluster_list,
                extended_communities: ext,
                large_communities: large
                    .into_iter()
                    .map(|(global, data1, data2)| LargeCommunity {
                        global,
                        data1,
                        data2,
                    })
                    .collect(),
                unknown: unknown.into_iter().collect(),
            },
        )
}

fn any_attributes(family: Family) -> impl Strategy<Value = PathAttributes> {
    let v6 = (any::<u64>(), option::of(any::<u64>())).prop_map(|(global, local)| NextHop::V6 {
        global: Ipv6Addr::from(0x2001_0db8_u128 << 96 | u128::from(global)),
        link_local: local.map(|l| Ipv6Addr::from(0xfe80_u128 << 112 | u128::from(l))),
    });
    let v4 = (0u32..1000).prop_map(|n| NextHop::V4(Ipv4Addr::from(0xc000_0200 + n)));
    let next_hop = match family {
        Family::V4 => prop_oneof![v4, v6].boxed(),
        Family::V6 => v6.boxed(),
    };
    (
        next_hop,
        any_path(),
        0u8..3,
        any::<bool>(),
        option::of(any::<u32>()),
        option::of(any::<u32>()),
        vec(any::<u32>(), 0..80),
        any_rare(),
    )
        .prop_map(
            |(next_hop, as_path, origin, atomic, med, pref, communities, rare)| {
                let mut attributes = PathAttributes::new(next_hop);
                attributes.as_path = as_path;
                attributes.origin = [Origin::Igp, Origin::Egp, Origin::Incomplete][origin as usize];
                attributes.atomic_aggregate = atomic;
                attributes.med = med;
                attributes.local_pref = pref;
                attributes.communities = communities.into_iter().map(Community).collect();
                attributes.edit_rare(|r| *r = rare);
                attributes
            },
        )
}

fn any_reach() -> impl Strategy<Value = (Family, PathAttributes, Vec<Prefix>)> {
    any::<bool>().prop_flat_map(|v6| {
        let family = if v6 { Family::V6 } else { Family::V4 };
        (
            Just(family),
            any_attributes(family),
            vec(any_prefix(family), 1..400),
        )
    })
}

fn small_confederations(path: &AsPath) -> AsPath {
    let small = |kind, asn: Asn| match kind {
        SegmentKind::ConfedSequence | SegmentKind::ConfedSet => Asn(asn.0 & 0xffff),
        _ => asn,
    };
    let segments: Vec<_> = path
        .segments()
        .map(|s| (s.kind, s.asns().map(|a| small(s.kind, a)).collect()))
        .collect();
    AsPath::from_segments(&segments)
}

proptest! {
    #[test]
    fn updates_round_trip((family, attributes, announced) in any_reach()) {
        let mut octets = Vec::new();
        encode_reach(&mut octets, encoding(), family, &attributes, &announced).unwrap();
        let mut read = Vec::new();
        for (_, body) in messages(&octets) {
            let parsed = Update::decode_body(&body, &CONTEXT).unwrap();
            prop_assert_eq!(&parsed.problems, &[]);
            for reach in parsed.update.reach {
                prop_assert_eq!(&reach.attributes, &attributes);
                read.extend(reach.prefixes);
            }
        }
        prop_assert_eq!(read, announced);
    }

    #[test]
    fn four_octet_numbers_survive_a_two_octet_session((_, mut attributes, _) in any_reach()) {
        // Numbers in confederations have no place in AS4_PATH.
        attributes.as_path = small_confederations(&attributes.as_path);
        attributes.next_hop = NextHop::V4(Ipv4Addr::new(192, 0, 2, 1));
        let old = Encoding { four_octet_as: false, extended: false };
        let mut octets = Vec::new();
        let announced = prefixes(&["192.0.2.0/24"]);
        encode_reach(&mut octets, old, Family::V4, &attributes, &announced).unwrap();
        let context = Context { four_octet_as: false, ..CONTEXT };
        let parsed = Update::decode_body(&octets[19..], &context).unwrap();
        let read = &parsed.update.reach[0].attributes;
        prop_assert_eq!(&parsed.problems, &[]);
        prop_assert_eq!(read, &attributes);
    }

    #[test]
    fn withdrawals_round_trip(announced in vec(any_prefix(Family::V6), 1..600)) {
        let mut octets = Vec::new();
        encode_withdraw(&mut octets, encoding(), Family::V6, &announced);
        let mut read = Vec::new();
        for (_, body) in messages(&octets) {
            read.extend(Update::decode_body(&body, &CONTEXT).unwrap().update.withdrawn);
        }
        prop_assert_eq!(read, announced);
    }

    #[test]
    fn no_octets_cause_a_panic(octets in vec(any::<u8>(), 0..200), four: bool, internal: bool) {
        let context = Context { four_octet_as: four, internal, ..CONTEXT };
        let _ = Open::decode_body(&octets);
        let _ = Update::decode_body(&octets, &context);
        let _ = Notification::decode_body(&octets).map(|n| n.to_string());
        let _ = RouteRefresh::decode_body(&octets);
        let mut framer = Framer::new();
        framer.push(&octets);
        while let Ok(Some(_)) = framer.next_message() {}
    }

    #[test]
    fn a_damaged_update_causes_no_panic(
        (family, attributes, announced) in any_reach(),
        damage in vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
    ) {
        let mut octets = Vec::new();
        encode_reach(&mut octets, encoding(), family, &attributes, &announced).unwrap();
        let (_, mut body) = messages(&octets).remove(0);
        for (at, octet) in damage {
            let at = at.index(body.len());
            body[at] = octet;
        }
        let _ = Update::decode_body(&body, &CONTEXT);
    }
}
