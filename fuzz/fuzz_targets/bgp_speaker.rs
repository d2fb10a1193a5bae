//! Octets from a BGP peer whose session is up, into the whole engine: no panic, and what it counts is
//! what it has.
//!
//! The first octet says which peer it is, the second how large the pieces are, the third how long the
//! pauses between them are.

#![no_main]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use bytes::Bytes;
use hextet_bgp::{
    Event, Speaker,
    config::{PeerConfig, PeerKey, RemoteAs, SpeakerConfig},
    packet::{Afi, Capability, ExtendedNextHop, GracefulRestart, Message, Open, RestartFamily},
    policy::Policy,
    session::Endpoint,
};
use hextet_types::{Asn, Family, Time};
use libfuzzer_sys::fuzz_target;

const LOCAL: Asn = Asn(64512);

fn greeting(asn: Asn) -> Vec<u8> {
    let restart = |f| RestartFamily {
        family: Afi::unicast(f),
        forwarding: true,
    };
    let open = Open {
        my_as: Open::two_octets(asn),
        hold_time_secs: 90,
        identifier: Ipv4Addr::new(10, 0, 0, 2),
        capabilities: vec![
            Capability::Multiprotocol(Afi::unicast(Family::V4)),
            Capability::Multiprotocol(Afi::unicast(Family::V6)),
            Capability::FourOctetAs(asn),
            Capability::ExtendedMessage,
            Capability::EnhancedRouteRefresh,
            Capability::ExtendedNextHop(vec![ExtendedNextHop {
                family: Afi::unicast(Family::V4),
                next_hop_afi: 2,
            }]),
            Capability::GracefulRestart(GracefulRestart {
                notification: true,
                time_secs: 30,
                families: Family::BOTH.map(restart).to_vec(),
                ..GracefulRestart::default()
            }),
        ],
    };
    let mut octets = Message::Open(open).encode();
    octets.extend(Message::Keepalive.encode());
    octets
}

fuzz_target!(|input: &[u8]| {
    let [peer, piece, pause, octets @ ..] = input else {
        return;
    };
    let asn = if peer & 1 == 0 { LOCAL } else { Asn(1) };
    let remote = IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 2));
    let endpoint = Endpoint {
        local: IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1)),
        remote,
        interface: None,
    };
    let config = SpeakerConfig::new(LOCAL, Ipv4Addr::new(10, 0, 0, 1), 1);
    let mut speaker = Speaker::new(config, Time::ZERO);
    let mut config = PeerConfig::new(PeerKey::Address(remote), RemoteAs::Is(asn));
    config.import = Policy::accept_all().into();
    config.export = Policy::accept_all().into();
    config.passive = true;
    speaker.handle(Event::Configure(Box::new(config)), Time::ZERO);
    let conn = speaker.new_connection();
    speaker.handle(Event::Accepted { conn, endpoint }, Time::ZERO);
    let octets = [greeting(asn), octets.to_vec()].concat();
    let mut now = Time::ZERO;
    for piece in octets.chunks(usize::from(*piece).max(1) * 16) {
        let octets = Bytes::copy_from_slice(piece);
        speaker.handle(Event::Received { conn, octets }, now);
        now += std::time::Duration::from_millis(u64::from(*pause) * 10);
        speaker.handle(Event::Timer, now);
    }
    let status = speaker.status();
    for family in Family::BOTH {
        let has = |f: &&hextet_bgp::speaker::FamilyStatus| f.family == family;
        let counted: usize = status.peers[0]
            .families
            .iter()
            .filter(has)
            .map(|f| f.accepted)
            .sum();
        let there: usize = speaker.routes(family).map(|r| r.paths.len()).sum();
        assert_eq!(counted, there);
    }
});
