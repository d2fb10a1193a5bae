//! Octets and what they mean, both ways; what is malformed; any octets at all.

use proptest::{collection::vec, option, prelude::*};

use super::*;

const FROM: IpAddr = IpAddr::V6(std::net::Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1));

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

fn to(text: &str) -> Destination {
    Destination::of(text.parse().expect("a prefix"))
}

fn router(n: u8) -> RouterId {
    RouterId::try_from([0, 0, 0, 0, 0, 0, 0, n]).expect("a router-id")
}

fn route(prefix: &str, next_hop: IpAddr, n: u8) -> Tlv {
    Tlv::Update(Update::Route {
        to: to(prefix),
        router_id: router(n),
        seqno: Seqno(0x0102),
        metric: Metric(0x0304),
        interval: Interval(0x0506),
        next_hop,
    })
}

fn retraction(prefix: Option<&str>) -> Tlv {
    Tlv::Update(Update::Retraction {
        to: prefix.map(to),
        seqno: Seqno(1),
        interval: Interval(100),
    })
}

fn packet(tlvs: &[Tlv]) -> Vec<u8> {
    let mut writer = Writer::new(1_400, FROM);
    for tlv in tlvs {
        writer.push(tlv).expect("room");
    }
    writer.finish()
}

fn body(octets: &[u8]) -> Decoded {
    decode(octets, FROM)
}

fn assert_both_ways(tlvs: &[Tlv], octets: &[u8]) {
    let packet = packet(tlvs);
    assert_eq!(&packet[HEADER_LEN..], octets);
    let frame = Frame::of(&packet).expect("a packet");
    let decoded = decode(frame.body, FROM);
    assert_eq!((decoded.tlvs.as_slice(), decoded.ignored), (tlvs, 0));
}

#[test]
fn what_is_said_of_neighbours() {
    assert_both_ways(
        &[Tlv::AckRequest {
            opaque: 0x1234,
            interval: Interval(5),
            start: None,
        }],
        &[2, 6, 0, 0, 0x12, 0x34, 0, 5],
    );
    for (start, octet) in [(Start::Fresh, 0), (Start::Resumed, 1)] {
        assert_both_ways(
            &[Tlv::AckRequest {
                opaque: 0x1234,
                interval: Interval(5),
                start: Some(start),
            }],
            &[2, 9, 0, 0, 0x12, 0x34, 0, 5, 112, 1, octet],
        );
    }
    assert_both_ways(&[Tlv::Ack { opaque: 0x1234 }], &[3, 2, 0x12, 0x34]);
    let hello = |unicast, timestamp| Tlv::Hello {
        unicast,
        seqno: Seqno(7),
        interval: Interval(400),
        timestamp,
    };
    assert_both_ways(&[hello(false, None)], &[4, 6, 0, 0, 0, 7, 1, 0x90]);
    assert_both_ways(
        &[hello(true, Some(0x0a0b_0c0d))],
        &[4, 12, 0x80, 0, 0, 7, 1, 0x90, 3, 4, 0x0a, 0x0b, 0x0c, 0x0d],
    );
    let ihu = |to, echo| Tlv::Ihu {
        to,
        rxcost: Metric(96),
        interval: Interval(1200),
        echo,
    };
    assert_both_ways(&[ihu(None, None)], &[5, 6, 0, 0, 0, 96, 4, 0xb0]);
    assert_both_ways(
        &[ihu(Some(ip("192.0.2.1")), None)],
        &[5, 10, 1, 0, 0, 96, 4, 0xb0, 192, 0, 2, 1],
    );
    let echo = Echo {
        origin: 1,
        received: 2,
    };
    assert_both_ways(
        &[ihu(Some(ip("fe80::2")), Some(echo))],
        &[
            5, 24, 3, 0, 0, 96, 4, 0xb0, 0, 0, 0, 0, 0, 0, 0, 2, 3, 8, 0, 0, 0, 1, 0, 0, 0, 2,
        ],
    );
}

#[test]
fn what_is_asked_for() {
    assert_both_ways(&[Tlv::RouteRequest(None)], &[9, 2, 0, 0]);
    assert_both_ways(
        &[Tlv::RouteRequest(Some(to("192.0.2.0/23")))],
        &[9, 5, 1, 23, 192, 0, 2],
    );
    let from = Destination::from_source(
        "::/0".parse().expect("a prefix"),
        "2001:db8::/32".parse().expect("a prefix"),
    );
    assert_both_ways(
        &[Tlv::RouteRequest(from.ok())],
        &[9, 9, 2, 0, 128, 5, 32, 0x20, 1, 0x0d, 0xb8],
    );
    assert_both_ways(
        &[Tlv::SeqnoRequest {
            to: to("2001:db8::/32"),
            seqno: Seqno(2),
            hop_count: 64,
            router_id: router(9),
        }],
        &[
            10, 18, 2, 32, 0, 2, 64, 0, 0, 0, 0, 0, 0, 0, 0, 9, 0x20, 1, 0x0d, 0xb8,
        ],
    );
}

#[test]
fn what_makes_packets_genuine() {
    assert_both_ways(
        &[
            Tlv::PacketCounter {
                counter: 1,
                index: vec![8, 9],
            },
            Tlv::ChallengeRequest(vec![1]),
            Tlv::ChallengeReply(vec![]),
        ],
        &[17, 6, 0, 0, 0, 1, 8, 9, 18, 1, 1, 19, 0],
    );
}

/// The second shares five octets and the router with the first; the third has another router and next hop.
#[test]
fn updates_share_what_is_alike() {
    let via = ip("2001:db8::99");
    let numbers = [5, 6, 1, 2, 3, 4];
    let octets = [
        &[6, 10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1][..],
        &[8, 16, 2, 0x80, 48, 0],
        &numbers,
        &[0x20, 1, 0x0d, 0xb8, 0, 1],
        &[8, 13, 2, 0, 64, 5],
        &numbers,
        &[2, 0, 3],
        &[6, 10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2],
        &[
            7, 18, 2, 0, 0x20, 1, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x99,
        ],
        &[8, 11, 2, 0, 48, 5],
        &numbers,
        &[7],
    ];
    let tlvs = [
        route("2001:db8:1::/48", FROM, 1),
        route("2001:db8:2:3::/64", FROM, 1),
        route("2001:db8:7::/48", via, 2),
    ];
    assert_both_ways(&tlvs, &octets.concat());
}

#[test]
fn routes_of_ipv4_by_next_hops_of_either_family() {
    let numbers = [5, 6, 1, 2, 3, 4];
    let octets = [
        &[6, 10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1][..],
        &[8, 13, 4, 0x80, 24, 0],
        &numbers,
        &[10, 0, 1],
        &[7, 6, 1, 0, 192, 0, 2, 1],
        &[8, 13, 1, 0x80, 24, 0],
        &numbers,
        &[10, 0, 2],
    ];
    let tlvs = [
        route("10.0.1.0/24", FROM, 1),
        route("10.0.2.0/24", ip("192.0.2.1"), 1),
    ];
    assert_both_ways(&tlvs, &octets.concat());
}

#[test]
fn retractions_need_neither_router_nor_next_hop() {
    assert_both_ways(
        &[retraction(Some("10.0.0.0/8"))],
        &[8, 11, 1, 0x80, 8, 0, 0, 100, 0, 1, 0xff, 0xff, 10],
    );
    assert_both_ways(
        &[retraction(None)],
        &[8, 10, 0, 0, 0, 0, 0, 100, 0, 1, 0xff, 0xff],
    );
}

/// RFC 8966 §4.6.9: the end of the prefix is the router's name.
#[test]
fn a_prefix_may_name_its_router() {
    let update = [8, 26, 2, 0x40, 128, 0, 5, 6, 1, 2, 3, 4];
    let addr = [0x20, 1, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7];
    let decoded = body(&[&update[..], &addr].concat());
    assert_eq!(decoded.tlvs, [route("2001:db8::7/128", FROM, 7)]);
}

/// All who read a packet have to agree on what its later parts mean (RFC 8966 §4.5).
#[test]
fn what_is_ignored_still_holds_for_those_after_it() {
    let router_id = [6, 10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
    // With a sub-TLV that must be understood, and is of no kind that there is.
    let strange = [8, 14, 1, 0x80, 16, 0, 5, 6, 1, 2, 3, 4, 10, 1, 0xf0, 0];
    let after = [8, 11, 1, 0, 24, 2, 5, 6, 1, 2, 3, 4, 9];
    let next_hop = [7, 6, 1, 0, 192, 0, 2, 1];
    let decoded = body(&[&router_id[..], &next_hop, &strange, &after].concat());
    assert_eq!(decoded.tlvs, [route("10.1.9.0/24", ip("192.0.2.1"), 1)]);
    assert_eq!(decoded.ignored, 1);
}

#[test]
fn a_class_has_to_be_known() {
    let to = to("2001:db8::/48").in_class(Class::Throughput);
    let request = [9, 11, 2, 48, 0x20, 0x01, 0x0d, 0xb8, 0, 0, 240, 1, 1];
    assert_both_ways(&[Tlv::RouteRequest(Some(to))], &request);
    for (place, wrong) in [(12, 0), (12, 2), (10, 241)] {
        let mut octets = request;
        octets[place] = wrong;
        let decoded = body(&octets);
        assert_eq!((decoded.tlvs.len(), decoded.ignored), (0, 1), "{octets:?}");
    }
    let twice = [&request[..10], &[240, 1, 1, 240, 1, 1]].concat();
    let mut twice = twice;
    twice[1] = 14;
    assert_eq!(body(&twice).ignored, 1);
}

#[test]
fn what_is_malformed_is_left_out_and_the_rest_is_not() {
    let ack = [3, 2, 0, 9];
    let malformed: [&[u8]; 22] = [
        &[2, 5, 0, 0, 0, 0, 0],
        &[3, 1, 0],
        &[4, 5, 0, 0, 0, 0, 0],
        // An interval of 0, an address that is cut off, an encoding that is not known.
        &[5, 6, 0, 0, 0, 96, 0, 0],
        &[5, 9, 1, 0, 0, 96, 0, 1, 10, 0, 0],
        &[5, 6, 9, 0, 0, 96, 0, 1],
        // A router-id of zeros; a next hop that is a wildcard.
        &[6, 10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        &[7, 2, 0, 0],
        // Longer than the family's addresses, more left out than there is, left out of nothing, link-local.
        &[8, 15, 1, 0, 33, 0, 0, 1, 0, 1, 0xff, 0xff, 10, 0, 0, 0, 0],
        &[8, 10, 1, 0, 8, 2, 0, 1, 0, 1, 0xff, 0xff],
        &[8, 10, 1, 0, 8, 1, 0, 1, 0, 1, 0xff, 0xff],
        &[8, 11, 3, 0, 8, 0, 0, 1, 0, 1, 0xff, 0xff, 1],
        // No interval; a wildcard that retracts nothing; a route of nobody.
        &[8, 11, 1, 0, 8, 0, 0, 0, 0, 1, 0xff, 0xff, 10],
        &[8, 10, 0, 0, 0, 0, 0, 1, 0, 1, 0, 1],
        &[8, 11, 2, 0, 8, 0, 0, 1, 0, 1, 0, 1, 0x20],
        // Sources of no length, of more than there is, twice.
        &[9, 6, 1, 8, 10, 128, 1, 0],
        &[9, 6, 1, 8, 10, 128, 1, 8],
        &[9, 11, 1, 8, 10, 128, 2, 8, 10, 128, 2, 8, 10],
        // A sub-TLV longer than its TLV.
        &[3, 4, 0, 1, 3, 4],
        // To be handed on no more.
        &[10, 15, 1, 8, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 10],
        &[17, 3, 0, 0, 0],
        &[99, 1, 0],
    ];
    for octets in malformed {
        let decoded = body(&[octets, &ack].concat());
        assert_eq!(decoded.tlvs, [Tlv::Ack { opaque: 9 }], "{octets:?}");
        assert_eq!(decoded.ignored, 1, "{octets:?}");
    }
}

#[test]
fn padding_is_nothing_and_what_is_torn_ends_the_packet() {
    let decoded = body(&[0, 0, 1, 2, 0, 0, 3, 2, 0, 9, 3, 9, 0]);
    assert_eq!(decoded.tlvs, [Tlv::Ack { opaque: 9 }]);
    assert_eq!(decoded.ignored, 1);
}

#[test]
fn what_is_no_packet_is_told_apart() {
    assert_eq!(Frame::of(&[42, 2, 0]), Err(FrameError::Short(3)));
    assert_eq!(Frame::of(&[41, 2, 0, 0]), Err(FrameError::Magic(41)));
    assert_eq!(Frame::of(&[42, 3, 0, 0]), Err(FrameError::Version(3)));
    assert_eq!(
        Frame::of(&[42, 2, 0, 2, 0]),
        Err(FrameError::Truncated { said: 2, has: 1 })
    );
}

#[test]
fn macs_are_in_the_trailer() {
    let packet = [42, 2, 0, 1, 0, 0, 16, 2, 7, 8, 99, 1, 1, 16, 1, 9];
    let frame = Frame::of(&packet).expect("a packet");
    let macs: Vec<&[u8]> = frame.macs().collect();
    assert_eq!(macs, [&[7, 8][..], &[9]]);
    assert_eq!(decode(frame.body, FROM), Decoded::default());
}

#[test]
fn what_does_not_fit_leaves_the_packet_as_it_was() {
    let mut writer = Writer::new(HEADER_LEN + 30, FROM);
    assert!(writer.is_empty());
    let first = route("10.0.0.0/8", ip("192.0.2.1"), 1);
    assert_eq!(writer.push(&first), Err(Oversized { limit: 34 }));
    assert!(writer.is_empty());
    writer.push(&retraction(Some("10.0.0.0/8"))).expect("room");
    assert!(writer.push(&first).is_err());
    writer.push(&Tlv::Ack { opaque: 1 }).expect("room");
    let decoded = decode(&writer.finish()[HEADER_LEN..], FROM);
    assert_eq!(
        decoded.tlvs,
        [retraction(Some("10.0.0.0/8")), Tlv::Ack { opaque: 1 }]
    );
}

fn any_prefix() -> impl Strategy<Value = Prefix> {
    let v4 = (0x0a00_0000_u32..0x0a00_0400, 0..=32_u8)
        .prop_map(|(bits, len)| Prefix::new(std::net::Ipv4Addr::from(bits).into(), len));
    let v6 = (0..4_u16, any::<u8>(), 0..=128_u8).prop_map(|(net, host, len)| {
        let addr = std::net::Ipv6Addr::new(0x2001, 0xdb8, net, 0, 0, 0, 0, host.into());
        Prefix::new(addr.into(), len)
    });
    prop_oneof![v4, v6].prop_map(|prefix| prefix.expect("a prefix"))
}

fn any_destination() -> impl Strategy<Value = Destination> {
    let parts = (any_prefix(), option::of(any_prefix()), any::<bool>());
    parts.prop_map(|(prefix, source, is_many)| {
        let from = source.map(|source| Destination::from_source(prefix, source));
        let to = from.and_then(Result::ok).unwrap_or(Destination::of(prefix));
        to.in_class([Class::Latency, Class::Throughput][usize::from(is_many)])
    })
}

fn any_next_hop(family: Family) -> BoxedStrategy<IpAddr> {
    let v6 = prop_oneof![Just(FROM), Just(ip("fe80::2")), Just(ip("2001:db8::1"))];
    match family {
        Family::V4 => prop_oneof![v6, Just(ip("192.0.2.1"))].boxed(),
        Family::V6 => v6.boxed(),
    }
}

fn any_update() -> impl Strategy<Value = Update> {
    let numbers = (any::<u16>(), 0..0xffff_u16, 1_u16..);
    let route = any_destination().prop_flat_map(move |to| {
        let parts = (any_next_hop(to.family()), 1..4_u8, numbers.clone());
        parts.prop_map(
            move |(next_hop, id, (seqno, metric, interval))| Update::Route {
                to,
                router_id: router(id),
                seqno: Seqno(seqno),
                metric: Metric(metric),
                interval: Interval(interval),
                next_hop,
            },
        )
    });
    let retraction =
        (option::of(any_destination()), any::<u16>(), 1_u16..).prop_map(|(to, seqno, interval)| {
            Update::Retraction {
                to,
                seqno: Seqno(seqno),
                interval: Interval(interval),
            }
        });
    prop_oneof![4 => route, 1 => retraction]
}

fn any_tlv() -> impl Strategy<Value = Tlv> {
    let hello = (
        any::<bool>(),
        any::<u16>(),
        any::<u16>(),
        any::<Option<u32>>(),
    )
        .prop_map(|(unicast, seqno, interval, timestamp)| Tlv::Hello {
            unicast,
            seqno: Seqno(seqno),
            interval: Interval(interval),
            timestamp,
        });
    let to = option::of(prop_oneof![
        any_next_hop(Family::V4),
        any_next_hop(Family::V6)
    ]);
    let echo = any::<Option<(u32, u32)>>();
    let ihu = (to, any::<u16>(), 1_u16.., echo).prop_map(|(to, rxcost, interval, echo)| Tlv::Ihu {
        to,
        rxcost: Metric(rxcost),
        interval: Interval(interval),
        echo: echo.map(|(origin, received)| Echo { origin, received }),
    });
    let request = (any_destination(), any::<u16>(), 1_u8.., 1..9_u8).prop_map(
        |(to, seqno, hop_count, id)| Tlv::SeqnoRequest {
            to,
            seqno: Seqno(seqno),
            hop_count,
            router_id: router(id),
        },
    );
    prop_oneof![
        4 => any_update().prop_map(Tlv::Update),
        1 => hello,
        1 => ihu,
        1 => request,
        1 => option::of(any_destination()).prop_map(Tlv::RouteRequest),
        1 => vec(any::<u8>(), 0..=MAX_NONCE_LEN).prop_map(Tlv::ChallengeRequest),
    ]
}

proptest! {
    /// However they are compressed, and over as many packets as they take.
    #[test]
    fn what_is_written_is_read(tlvs in vec(any_tlv(), 0..60), limit in 512..1500_usize) {
        let mut read = Vec::new();
        let mut rest = tlvs.iter().peekable();
        while rest.peek().is_some() {
            let mut writer = Writer::new(limit, FROM);
            while let Some(tlv) = rest.peek() {
                if writer.push(tlv).is_err() {
                    prop_assert!(!writer.is_empty(), "it fits alone");
                    break;
                }
                rest.next();
            }
            let packet = writer.finish();
            prop_assert!(packet.len() <= limit);
            let frame = Frame::of(&packet).expect("a packet");
            let decoded = decode(frame.body, FROM);
            prop_assert_eq!(decoded.ignored, 0);
            read.extend(decoded.tlvs);
        }
        prop_assert_eq!(read, tlvs);
    }

    /// What is read of any octets, written and read again, is the same.
    #[test]
    fn any_octets_are_taken(octets in vec(any::<u8>(), 0..300)) {
        let decoded = decode(&octets, FROM);
        let again = decode(&packet(&decoded.tlvs)[HEADER_LEN..], FROM);
        prop_assert_eq!(again.tlvs, decoded.tlvs);
    }

    /// Octets that are TLVs from their first one on.
    #[test]
    fn any_tlvs_are_taken(tlvs in vec((2..20_u8, vec(0..20_u8, 0..30)), 0..20)) {
        let framed = tlvs.iter().flat_map(|(kind, body)| [&[*kind, body.len() as u8], &body[..]].concat());
        let octets: Vec<u8> = framed.collect();
        let decoded = decode(&octets, FROM);
        prop_assert!(decoded.tlvs.len() + decoded.ignored <= tlvs.len() + 1);
        let again = decode(&packet(&decoded.tlvs)[HEADER_LEN..], FROM);
        prop_assert_eq!(again.tlvs, decoded.tlvs);
    }
}
