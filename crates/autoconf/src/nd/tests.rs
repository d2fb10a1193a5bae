use hextet_types::Mac;
use proptest::{collection::vec, prelude::*};

use super::*;
use crate::samples::octets;

fn prefix(text: &str) -> hextet_types::Prefix {
    text.parse().unwrap()
}

/// Options of RFC 4861 and RFC 4191 as they are drawn there.
fn vectors() -> Vec<(NdOption, Vec<u8>)> {
    let mac = Mac::new([2, 0, 0, 0, 0, 1]);
    vec![
        (NdOption::SourceLinkLayer(mac), octets("0101 020000000001")),
        (NdOption::TargetLinkLayer(mac), octets("0201 020000000001")),
        (
            NdOption::Prefix(PrefixInformation {
                prefix: prefix("2001:db8:1:2::/64"),
                on_link: false,
                autonomous: true,
                prefer_delegation: true,
                valid_lifetime_secs: 2_592_000,
                preferred_lifetime_secs: 604_800,
            }),
            octets("0304 40 50 00278d00 00093a80 00*4 20010db800010002 00*8"),
        ),
        (NdOption::Mtu(1_400), octets("0501 0000 00000578")),
        (
            NdOption::Nonce(vec![1, 2, 3, 4, 5, 6]),
            octets("0e01 010203040506"),
        ),
        (
            NdOption::Route(RouteInformation {
                prefix: prefix("::/0"),
                preference: Preference::Low,
                lifetime_secs: 9_000,
            }),
            octets("1801 00 18 00002328"),
        ),
        (
            NdOption::Route(RouteInformation {
                prefix: prefix("2001:db8::/40"),
                preference: Preference::High,
                lifetime_secs: 9_000,
            }),
            octets("1802 28 08 00002328 20010db8 00*4"),
        ),
        (
            NdOption::Route(RouteInformation {
                prefix: prefix("2001:db8::1/128"),
                preference: Preference::Medium,
                lifetime_secs: u32::MAX,
            }),
            octets("1803 80 00 ffffffff 20010db8 00*11 01"),
        ),
    ]
}

/// Options of RFC 8106 and RFC 8781 as they are drawn there, and one of nobody's.
fn younger_vectors() -> Vec<(NdOption, Vec<u8>)> {
    vec![
        (
            NdOption::Rdnss {
                lifetime_secs: 9_000,
                servers: vec!["2001:db8::53".parse().unwrap()],
            },
            octets("1903 0000 00002328 20010db8 00*11 53"),
        ),
        (
            NdOption::Dnssl {
                lifetime_secs: 9_000,
                domains: vec!["a.example".parse().unwrap()],
            },
            octets("1f03 0000 00002328 0161 07 6578616d706c65 00 00*5"),
        ),
        (
            NdOption::Pref64 {
                lifetime_secs: 9_000,
                prefix: prefix("64:ff9b::/96"),
            },
            octets("2602 2328 0064ff9b 00*8"),
        ),
        (
            NdOption::Pref64 {
                lifetime_secs: 65_528,
                prefix: prefix("2001:db8::/32"),
            },
            octets("2602 fffd 20010db8 00*8"),
        ),
        (
            NdOption::Unknown {
                kind: 200,
                body: vec![9; 14],
            },
            octets("c802 09*14"),
        ),
    ]
}

#[test]
fn options_are_as_the_rfcs_draw_them() {
    for (option, bytes) in vectors().into_iter().chain(younger_vectors()) {
        let mut out = Vec::new();
        option.encode(&mut out);
        assert_eq!(out, bytes, "{option:?}");
        assert_eq!(NdOption::decode_all(Reader::new(&bytes)), Ok(vec![option]));
    }
}

#[test]
fn messages_are_as_the_rfc_draws_them() {
    let target = "2001:db8::7".parse().unwrap();
    let ns = NeighbourSolicitation {
        target,
        options: vec![NdOption::SourceLinkLayer(Mac::new([2, 0, 0, 0, 0, 1]))],
    };
    let bytes = octets("87000000 00*4 20010db8 00*11 07 0101020000000001");
    assert_eq!(ns.encode(), bytes);
    assert_eq!(NeighbourSolicitation::decode(&bytes), Ok(ns));
    for (flags, router, solicited, override_entry) in [
        ("80", true, false, false),
        ("40", false, true, false),
        ("20", false, false, true),
    ] {
        let na = NeighbourAdvertisement {
            router,
            solicited,
            override_entry,
            target,
            options: Vec::new(),
        };
        let bytes = octets(&format!("88000000 {flags}000000 20010db8 00*11 07"));
        assert_eq!(na.encode(), bytes);
        assert_eq!(NeighbourAdvertisement::decode(&bytes), Ok(na));
    }
    assert_eq!(
        RouterSolicitation::default().encode(),
        octets("85000000 00*4")
    );
}

#[test]
fn malformed_options_make_the_message_malformed() {
    for (bytes, kind) in [
        ("0100 020000000001", 1),       // length 0
        ("0102 020000000001", 1),       // beyond the end
        ("0102 020000000001 00*8", 1),  // not an Ethernet address
        ("03", 3),                      // no length
        ("0303 40c0 00*20", 3),         // too short for a prefix
        ("0304 81c0 00*28", 3),         // 129 bits
        ("0305 40c0 00*36", 3),         // too long
        ("0502 0000 00000578 00*8", 5), // too long
        ("1801 40 00 00002328", 24),    // 64 bits without a prefix
        ("1804 80 00 00002328 00*24", 24),
        ("1901 0000 00002328", 25),      // no server
        ("1902 0000 00002328 00*8", 25), // half a server
        ("1f01 0000 00002328", 31),      // no domain
        ("1f02 0000 00002328 0161 05 6161616161", 31),
        ("1f02 0000 00002328 0161 00 01 00*4", 31),
        ("2601 2328 0064ff9b", 38),
        ("2602 232e 0064ff9b 00*8", 38), // reserved length code
    ] {
        let bytes = octets(bytes);
        assert_eq!(
            NdOption::decode_all(Reader::new(&bytes)),
            Err(NdError::Option(kind)),
            "{bytes:02x?}"
        );
    }
}

#[test]
fn a_route_with_the_reserved_preference_is_passed_over() {
    let bytes = octets("1801 00 10 00002328");
    let options = NdOption::decode_all(Reader::new(&bytes)).unwrap();
    assert!(matches!(options[..], [NdOption::Unknown { kind: 24, .. }]));
}

#[test]
fn types_codes_and_lengths_are_checked() {
    assert_eq!(
        RouterSolicitation::decode(&[133, 0, 0]),
        Err(NdError::Truncated)
    );
    assert_eq!(
        RouterSolicitation::decode(&[134, 0, 0, 0]),
        Err(NdError::Type(134))
    );
    assert_eq!(
        RouterSolicitation::decode(&[133, 1, 0, 0]),
        Err(NdError::Code(1))
    );
    let ns = NeighbourSolicitation {
        target: Ipv6Addr::LOCALHOST,
        options: Vec::new(),
    };
    for len in 0..24 {
        assert_eq!(
            NeighbourSolicitation::decode(&ns.encode()[..len]),
            Err(NdError::Truncated)
        );
    }
}

fn any_prefix() -> impl Strategy<Value = hextet_types::Prefix> {
    (any::<[u8; 16]>(), 0..=128_u8).prop_map(|(addr, len)| {
        hextet_types::Prefix::new(Ipv6Addr::from(addr).into(), len).unwrap()
    })
}

fn any_preference() -> impl Strategy<Value = Preference> {
    prop_oneof![
        Just(Preference::Low),
        Just(Preference::Medium),
        Just(Preference::High)
    ]
}

pub(crate) fn any_option() -> impl Strategy<Value = NdOption> {
    let lengths = prop::sample::select(vec![32_u8, 40, 48, 56, 64, 96]);
    let name = "[a-z0-9-]{1,20}(\\.[a-z]{1,10}){0,3}";
    prop_oneof![
        any::<[u8; 6]>().prop_map(|m| NdOption::SourceLinkLayer(Mac::new(m))),
        any::<[u8; 6]>().prop_map(|m| NdOption::TargetLinkLayer(Mac::new(m))),
        (any_prefix(), any::<[bool; 3]>(), any::<[u32; 2]>()).prop_map(|(prefix, flags, secs)| {
            NdOption::Prefix(PrefixInformation {
                prefix,
                on_link: flags[0],
                autonomous: flags[1],
                prefer_delegation: flags[2],
                valid_lifetime_secs: secs[0],
                preferred_lifetime_secs: secs[1],
            })
        }),
        any::<u32>().prop_map(NdOption::Mtu),
        (0..4_usize, any::<[u8; 30]>()).prop_map(|(n, b)| NdOption::Nonce(b[..8 * n + 6].to_vec())),
        (any_prefix(), any_preference(), any::<u32>()).prop_map(
            |(prefix, preference, lifetime_secs)| {
                NdOption::Route(RouteInformation {
                    prefix,
                    preference,
                    lifetime_secs,
                })
            }
        ),
        (any::<u32>(), vec(any::<[u8; 16]>(), 1..10)).prop_map(|(lifetime_secs, servers)| {
            NdOption::Rdnss {
                lifetime_secs,
                servers: servers.into_iter().map(Ipv6Addr::from).collect(),
            }
        }),
        (any::<u32>(), vec(name, 1..10)).prop_map(|(lifetime_secs, names)| NdOption::Dnssl {
            lifetime_secs,
            domains: names.iter().map(|n| n.parse().unwrap()).collect(),
        }),
        (0..0x2000_u16, any::<[u8; 16]>(), lengths).prop_map(|(units, addr, len)| {
            NdOption::Pref64 {
                lifetime_secs: units * 8,
                prefix: hextet_types::Prefix::new(Ipv6Addr::from(addr).into(), len).unwrap(),
            }
        }),
        (100..=255_u8, 0..4_usize, any::<[u8; 30]>()).prop_map(|(kind, n, b)| NdOption::Unknown {
            kind,
            body: b[..8 * n + 6].to_vec(),
        }),
    ]
}

proptest! {
    #[test]
    fn messages_round_trip(
        options in vec(any_option(), 0..5),
        target: [u8; 16],
        [router, solicited, override_entry]: [bool; 3],
    ) {
        let target = Ipv6Addr::from(target);
        let rs = RouterSolicitation { options: options.clone() };
        prop_assert_eq!(RouterSolicitation::decode(&rs.encode()), Ok(rs));
        let ns = NeighbourSolicitation { target, options: options.clone() };
        prop_assert_eq!(NeighbourSolicitation::decode(&ns.encode()), Ok(ns));
        let na = NeighbourAdvertisement { router, solicited, override_entry, target, options };
        prop_assert_eq!(NeighbourAdvertisement::decode(&na.encode()), Ok(na));
    }

    #[test]
    fn any_octets_end(bytes in vec(any::<u8>(), 0..300), kind in 133..=137_u8) {
        let mut bytes = bytes;
        let options = NdOption::decode_all(Reader::new(&bytes));
        // What was understood is written so that it is understood the same again.
        if let Ok(options) = options {
            let rs = RouterSolicitation { options };
            prop_assert_eq!(RouterSolicitation::decode(&rs.encode()), Ok(rs));
        }
        for (octet, value) in bytes.iter_mut().zip([kind, 0]) {
            *octet = value;
        }
        let _ = RouterSolicitation::decode(&bytes);
        let _ = NeighbourSolicitation::decode(&bytes);
        let _ = NeighbourAdvertisement::decode(&bytes);
        let _ = crate::ra::RouterAdvertisement::decode(&bytes);
    }
}
