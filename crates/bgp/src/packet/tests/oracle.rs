//! Another implementation as an oracle: what we write it reads, and what it writes we read, and the
//! value is still the same.

use netgauze_bgp_pkt::{BgpMessage, wire::deserializer::BgpParsingContext};
use netgauze_parse_utils::{WritablePdu, reader::SliceReader, traits::ParseFromWithOneInput};

use super::*;

/// Reads with the other implementation, and writes what it has read.
fn through(octets: &[u8]) -> Result<Vec<u8>, String> {
    let mut context = BgpParsingContext::new(
        true,
        std::collections::HashMap::new(),
        std::collections::HashMap::new(),
        true,
        true,
        true,
        true,
    );
    let mut reader = SliceReader::new(octets);
    let message = BgpMessage::parse(&mut reader, &mut context).map_err(|e| format!("{e:?}"))?;
    if !reader.is_empty() {
        return Err(format!("{} octets left", reader.remaining()));
    }
    let mut written = Vec::new();
    message.write(&mut written).map_err(|e| format!("{e:?}"))?;
    Ok(written)
}

#[test]
fn messages_without_routes() {
    let refresh = |kind| {
        Message::RouteRefresh(RouteRefresh {
            family: Afi::unicast(Family::V6),
            kind: Some(kind),
        })
    };
    let mut stream = vec![
        Message::Keepalive.encode(),
        refresh(RefreshKind::Request).encode(),
        refresh(RefreshKind::End).encode(),
    ];
    for code in [Code::HOLD_TIMER, Code::REJECTED, Code::MAX_PREFIXES] {
        stream.push(Message::Notification(Notification::new(code)).encode());
    }
    for octets in stream {
        assert_eq!(through(&octets).as_ref(), Ok(&octets));
    }
}

#[test]
fn an_open_with_every_capability() {
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
        ],
    };
    let octets = Message::Open(open.clone()).encode();
    let back = through(&octets).unwrap();
    assert_eq!(Open::decode_body(&back[19..]), Ok(open));
}

proptest! {
    #[test]
    fn updates((family, mut attributes, mut announced) in any_reach()) {
        // The other one does not know confederations.
        attributes.as_path = attributes.as_path.without_confederations();
        // It writes some extended communities as others; route targets are safe.
        attributes.edit_rare(|rare| {
            for ExtendedCommunity([kind, subtype, ..]) in &mut rare.extended_communities {
                (*kind, *subtype) = (0, 2);
            }
        });
        // The other one refuses these in an UPDATE; we ignore them in the import.
        announced.retain(|p| !p.addr().is_multicast());
        let mut octets = Vec::new();
        encode_reach(&mut octets, encoding(), family, &attributes, &announced).unwrap();
        encode_withdraw(&mut octets, encoding(), family, &announced);
        let (mut read, mut withdrawn) = (Vec::new(), Vec::new());
        for (kind, body) in messages(&octets) {
            let mut whole = Vec::new();
            framed(&mut whole, kind, |b| b.extend_from_slice(&body));
            let back = through(&whole);
            prop_assert!(back.is_ok(), "{back:?}\n{attributes:?}");
            let parsed = Update::decode_body(&back.unwrap()[19..], &CONTEXT).unwrap();
            prop_assert_eq!(&parsed.problems, &[]);
            for reach in parsed.update.reach {
                prop_assert_eq!(&reach.attributes, &attributes);
                read.extend(reach.prefixes);
            }
            withdrawn.extend(parsed.update.withdrawn);
        }
        prop_assert_eq!(read, announced.clone());
        prop_assert_eq!(withdrawn, announced);
    }
}
