use proptest::{collection::btree_set, option, prelude::*};

use super::*;
use crate::{key::SigningKey, signed::Signed};

pub(crate) fn certificate() -> Certificate {
    Certificate {
        network: NetworkId(0x0102_0304_0506_0708),
        node: NodeId(0x1112_1314_1516_1718),
        serial: 0x2122_2324,
        class: Class::Client,
        not_before: UnixTime(0x3132),
        not_after: UnixTime(0x4142),
        key: PublicKey([0x51; 32]),
        community: Some("eu".parse().unwrap()),
        prefixes: vec!["2001:db8:61::/48".parse().unwrap()],
        ipv4: Some("10.71.0.0/20".parse().unwrap()),
        groups: vec!["a".parse().unwrap(), "db".parse().unwrap()],
    }
}

fn any_label() -> impl Strategy<Value = Label> {
    "[a-z0-9-]{1,32}".prop_map(|text| text.parse().unwrap())
}

pub(crate) fn any_certificate() -> impl Strategy<Value = Certificate> {
    let ids = (any::<u64>(), any::<u64>(), any::<u32>(), 0usize..4);
    let span = (any::<u32>(), any::<u32>(), any::<[u8; 32]>());
    let prefixes = btree_set(any::<u16>(), 1..=MAX_PREFIXES);
    let groups = btree_set(any_label(), 0..=MAX_GROUPS);
    let ipv4 = option::of((any::<u16>(), 8u8..=32));
    (ids, span, option::of(any_label()), prefixes, ipv4, groups).prop_map(
        |(
            (network, node, serial, class),
            (begin, span, key),
            community,
            prefixes,
            ipv4,
            groups,
        )| {
            Certificate {
                network: NetworkId(network),
                node: NodeId(node),
                serial,
                class: Class::ALL[class],
                not_before: UnixTime(begin.into()),
                not_after: UnixTime(u64::from(begin) + u64::from(span)),
                key: PublicKey(key),
                community,
                prefixes: prefixes
                    .iter()
                    .map(|n| format!("2001:db8:{n:x}::/{}", 48 + n % 17).parse().unwrap())
                    .collect(),
                ipv4: ipv4.map(|(n, len)| {
                    format!("10.{}.{}.0/{len}", n >> 8, n & 255)
                        .parse()
                        .unwrap()
                }),
                groups: groups.into_iter().collect(),
            }
        },
    )
}

/// Each field where it belongs; a change here is a change of what nodes of today read.
#[test]
fn octets() {
    let key = SigningKey::from_seed(&[1; 32]).unwrap();
    let signed = Signed::sign(certificate(), &key);
    let octets = signed.encode();
    let mut expected = vec![1, 1, 2, 3, 4, 5, 6, 7, 8];
    expected.extend([0x11, 0x12, 0x13, 0x14, 0x15, 0x16, 0x17, 0x18]);
    expected.extend([0x21, 0x22, 0x23, 0x24, 1]);
    expected.extend([0, 0, 0, 0, 0, 0, 0x31, 0x32, 0, 0, 0, 0, 0, 0, 0x41, 0x42]);
    expected.extend([0x51; 32]);
    expected.extend([1, 2, b'e', b'u', 1, 48, 0x20, 0x01, 0x0d, 0xb8, 0, 0x61]);
    expected.extend([1, 20, 10, 71, 0, 2, 1, b'a', 2, b'd', b'b']);
    expected.extend(key.public().id().0);
    expected.extend(signed.signature);
    assert_eq!(octets, expected);
    assert_eq!(octets.len(), 165);
    assert_eq!(Signed::decode(&octets), Ok(signed));
}

#[test]
fn one_encoding_for_each_value() {
    let key = SigningKey::from_seed(&[1; 32]).unwrap();
    let good = Signed::sign(certificate(), &key).encode();
    let read = |octets: &[u8]| Signed::<Certificate>::decode(octets).map(drop);
    let changed = |at: usize, to: u8| {
        let mut octets = good.clone();
        octets[at] = to;
        read(&octets)
    };
    assert_eq!(
        read(&[good.clone(), vec![0]].concat()),
        Err(Malformed::Trailing)
    );
    assert_eq!(changed(0, 2), Err(Malformed::Version(2)));
    assert_eq!(changed(21, 4), Err(Malformed::Value("the class")));
    assert_eq!(changed(70, 2), Err(Malformed::Value("the community")));
    assert_eq!(changed(72, b'E'), Err(Malformed::Value("the community")));
    assert_eq!(
        changed(74, 0),
        Err(Malformed::Value("the number of prefixes"))
    );
    assert_eq!(changed(75, 47), Err(Malformed::Value("a prefix")));
    assert_eq!(changed(75, 129), Err(Malformed::Value("a prefix")));
    assert_eq!(
        changed(87, 17),
        Err(Malformed::Value("the number of groups"))
    );
    assert_eq!(
        changed(89, b'z'),
        Err(Malformed::Value("the order of groups"))
    );
    for len in 0..good.len() {
        assert!(read(&good[..len]).is_err(), "{len}");
    }
}

#[test]
fn prefixes_lie_apart() {
    let mut bad = certificate();
    bad.prefixes.push("2001:db8:61:1::/64".parse().unwrap());
    assert_eq!(bad.check(), Err(Malformed::Value("the order of prefixes")));
    let mut bad = certificate();
    bad.ipv4 = bad.prefixes.first().copied();
    assert_eq!(bad.check(), Err(Malformed::Value("the IPv4 prefix")));
    let mut bad = certificate();
    bad.not_before = bad.not_after.plus(1);
    assert_eq!(bad.check(), Err(Malformed::Value("the span")));
}

#[test]
fn renews_at_a_third_left() {
    let mut body = certificate();
    (body.not_before, body.not_after) = (UnixTime(1_000), UnixTime(1_900));
    assert_eq!(body.renew_at(), UnixTime(1_600));
}

#[test]
fn names_of_nodes_and_classes() {
    for class in Class::ALL {
        assert_eq!(class.to_string().parse(), Ok(class));
    }
    assert!("root".parse::<Class>().is_err());
    assert_eq!("00000000000000ff".parse(), Ok(NodeId(255)));
    for bad in ["ff", "+0000000000000ff", "00000000000000fg", ""] {
        assert_eq!(bad.parse::<NodeId>(), Err(BadNodeId));
    }
}

proptest! {
    #[test]
    fn round_trips(body in any_certificate()) {
        prop_assert_eq!(body.check(), Ok(()));
        let signed = Signed::sign(body, &SigningKey::from_seed(&[1; 32]).unwrap());
        let octets = signed.encode();
        prop_assert!(octets.len() <= Certificate::MAX_LEN);
        prop_assert_eq!(Signed::decode(&octets), Ok(signed));
    }

    #[test]
    fn what_is_read_is_written_the_same(octets in proptest::collection::vec(any::<u8>(), 0..300)) {
        if let Ok(read) = Signed::<Certificate>::decode(&octets) {
            prop_assert_eq!(read.encode(), octets);
        }
    }
}
