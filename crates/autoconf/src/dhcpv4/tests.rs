use dhcproto::{
    Decodable,
    v4::{self, DhcpOption, OptionCode},
};
use proptest::{collection::vec, prelude::*};

use super::*;
use crate::{
    ExtraOption,
    config::{HostRoute, Ipv6Mode},
    samples,
};

const OURS: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 77);
const FOREIGN: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 78);
const SERVER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const ZERO: Ipv4Addr = Ipv4Addr::UNSPECIFIED;

fn port() -> PortConfig {
    samples::port(Ipv6Mode::Slaac)
}

/// A client's message with these options.
fn request(message_type: u8, options: &[(u8, &[u8])]) -> Message {
    let mut message = Message {
        xid: 7,
        ..Message::default()
    };
    message.chaddr[..6].copy_from_slice(&samples::GUEST.octets());
    message.options.set(code::MESSAGE_TYPE, &[message_type]);
    for (code, data) in options {
        message.options.set(*code, data);
    }
    message
}

fn ask(config: &PortConfig, message: &Message) -> Result<Response, Reason> {
    respond(config, Ipv4Addr::BROADCAST, &message.encode(1_400))
}

/// The answer, and the message in it.
fn answer(config: &PortConfig, message: &Message) -> (Reply, Message) {
    match ask(config, message) {
        Ok(Response::Reply(reply)) => {
            let message = Message::decode(&reply.payload).unwrap();
            (reply, message)
        }
        other => panic!("{other:?}"),
    }
}

fn codes(message: &Message) -> Vec<u8> {
    message.options.iter().map(|(code, _)| code).collect()
}

#[test]
fn a_real_client_is_offered_its_address() {
    let frame = samples::dhclient_discover();
    let Ok(Response::Reply(reply)) = respond(&port(), Ipv4Addr::BROADCAST, &frame[42..]) else {
        panic!("no reply");
    };
    assert_eq!(
        (reply.done, reply.source, reply.destination),
        (Done::Dhcpv4Offer, SERVER, OURS)
    );
    let expected = samples::octets(
        "02010600 c5053029 0000 0000 00*4 c000024d 00*8 fa163eaabbcc 00*10 \
         626f6f742e6578616d706c65 00*52 00*128 63825363 \
         350102 3604c0000201 330400015180 3a040000a8c0 3b0400012750 \
         0104ffffff80 1c04c000027f 790e 20a9fea9fec0000202 00c0000201 0304c0000201 \
         0f0d 636c6f75642e6578616d706c65 0604c6336435 \
         771c 05636c6f7564076578616d706c6500 076578616d706c65036f726700 0c05 7765622d31 \
         1a0205dc 2a04c633647b ff",
    );
    assert_eq!(reply.payload, expected);
}

#[test]
fn dhcproto_reads_the_same_from_it() {
    let Ok(Response::Reply(reply)) = respond(
        &port(),
        Ipv4Addr::BROADCAST,
        &samples::dhclient_request()[42..],
    ) else {
        panic!("no reply");
    };
    assert_eq!(reply.done, Done::Dhcpv4Ack);
    let read = v4::Message::from_bytes(&reply.payload).unwrap();
    let options = read.opts();
    let route = |net: &str, hop: &str| (net.parse().unwrap(), hop.parse().unwrap());
    for (code, expected) in [
        (
            OptionCode::SubnetMask,
            DhcpOption::SubnetMask([255, 255, 255, 128].into()),
        ),
        (OptionCode::Router, DhcpOption::Router(vec![SERVER])),
        (
            OptionCode::AddressLeaseTime,
            DhcpOption::AddressLeaseTime(86_400),
        ),
        (OptionCode::InterfaceMtu, DhcpOption::InterfaceMtu(1_500)),
        (
            OptionCode::DomainName,
            DhcpOption::DomainName("cloud.example".into()),
        ),
        (
            OptionCode::ClasslessStaticRoute,
            DhcpOption::ClasslessStaticRoute(vec![
                route("169.254.169.254/32", "192.0.2.2"),
                route("0.0.0.0/0", "192.0.2.1"),
            ]),
        ),
    ] {
        assert_eq!(options.get(code), Some(&expected));
    }
    assert_eq!(read.opts().msg_type(), Some(v4::MessageType::Ack));
    assert_eq!(read.yiaddr(), OURS);
}

#[derive(Clone, Copy)]
enum Expected {
    Ack(Ipv4Addr),
    Nak,
    Drop(Reason),
}
use Expected::{Ack, Drop, Nak};

const BROADCAST: Ipv4Addr = Ipv4Addr::BROADCAST;
const OTHER_SERVER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 200);

/// RFC 2131 §4.3.2 and §4.3.6: what a client knows tells its state, and its state what is right. State,
/// server identifier, requested address, `ciaddr`, broadcast flag, and what it gets.
#[rustfmt::skip]
#[expect(clippy::type_complexity, reason = "a table")]
const STATES: &[(&str, Option<Ipv4Addr>, Option<Ipv4Addr>, Ipv4Addr, bool, Expected)] = &[
    ("SELECTING", Some(SERVER), Some(OURS), ZERO, false, Ack(OURS)),
    ("SELECTING, broadcast", Some(SERVER), Some(OURS), ZERO, true, Ack(BROADCAST)),
    ("SELECTING, foreign", Some(SERVER), Some(FOREIGN), ZERO, false, Nak),
    ("SELECTING, other server", Some(OTHER_SERVER), Some(OURS), ZERO, false, Drop(Reason::OtherServer)),
    ("INIT-REBOOT", None, Some(OURS), ZERO, false, Ack(OURS)),
    ("INIT-REBOOT, broadcast", None, Some(OURS), ZERO, true, Ack(BROADCAST)),
    ("INIT-REBOOT, foreign", None, Some(FOREIGN), ZERO, false, Nak),
    ("RENEWING", None, None, OURS, false, Ack(OURS)),
    ("REBINDING, broadcast flag", None, None, OURS, true, Ack(OURS)),
    ("RENEWING, foreign", None, None, FOREIGN, false, Nak),
    ("nothing", None, None, ZERO, false, Drop(Reason::Malformed)),
    ("nothing but a server", Some(SERVER), None, ZERO, false, Drop(Reason::Malformed)),
];

#[test]
fn the_states_of_a_client() {
    for (state, server, requested, ciaddr, flag, expected) in STATES {
        let mut message = request(message_type::REQUEST, &[]);
        message.ciaddr = *ciaddr;
        message.broadcast = *flag;
        for (code, addr) in [(54, server), (50, requested)] {
            if let Some(addr) = addr {
                message.options.set(code, &addr.octets());
            }
        }
        match (ask(&port(), &message), *expected) {
            (Ok(Response::Reply(reply)), Ack(destination)) => {
                let sent = (reply.done, reply.destination);
                assert_eq!(sent, (Done::Dhcpv4Ack, destination), "{state}");
                let message = Message::decode(&reply.payload).unwrap();
                assert_eq!((message.yiaddr, message.ciaddr), (OURS, *ciaddr), "{state}");
                let lease = message.options.get(code::LEASE_TIME);
                assert_eq!(lease, Some(&86_400_u32.to_be_bytes()[..]), "{state}");
            }
            (Ok(Response::Reply(reply)), Nak) => {
                let sent = (reply.done, reply.destination);
                assert_eq!(sent, (Done::Dhcpv4Nak, BROADCAST), "{state}");
                let message = Message::decode(&reply.payload).unwrap();
                assert_eq!(message.yiaddr, ZERO, "{state}");
                assert_eq!(codes(&message), [53, 54, 56], "{state}");
            }
            (Err(reason), Drop(expected)) => assert_eq!(reason, expected, "{state}"),
            (other, _) => panic!("{state}: {other:?}"),
        }
    }
}

#[test]
fn other_messages() {
    let config = port();
    let (reply, message) = answer(&config, &request(message_type::DISCOVER, &[]));
    assert_eq!(reply.done, Done::Dhcpv4Offer);
    assert_eq!(
        (message.yiaddr, message.ciaddr, message.xid),
        (OURS, ZERO, 7)
    );
    assert_eq!(
        codes(&message),
        [53, 54, 51, 58, 59, 1, 121, 3, 6, 15, 26, 28]
    );
    // RFC 2131 §4.3.5: no address, no times, to the address that the client has.
    let mut inform = request(message_type::INFORM, &[]);
    assert_eq!(ask(&config, &inform), Err(Reason::Malformed));
    inform.ciaddr = OURS;
    let (reply, message) = answer(&config, &inform);
    assert_eq!((reply.done, reply.destination), (Done::Dhcpv4Ack, OURS));
    assert_eq!((message.yiaddr, message.ciaddr), (ZERO, OURS));
    assert_eq!(codes(&message), [53, 54, 1, 121, 3, 6, 15, 26, 28]);
    for (kind, done) in [
        (message_type::RELEASE, Done::Dhcpv4Release),
        (message_type::DECLINE, Done::Dhcpv4Decline),
    ] {
        assert_eq!(ask(&config, &request(kind, &[])), Ok(Response::Noted(done)));
    }
    for (kind, reason) in [
        (message_type::OFFER, Reason::UnexpectedMessage),
        (message_type::ACK, Reason::UnexpectedMessage),
        (message_type::NAK, Reason::UnexpectedMessage),
        (9, Reason::UnexpectedMessage),
        (255, Reason::UnexpectedMessage),
    ] {
        assert_eq!(ask(&config, &request(kind, &[])), Err(reason));
    }
}

#[test]
fn two_messages_are_enough_for_who_asks_for_it() {
    let (reply, message) = answer(&port(), &request(message_type::DISCOVER, &[(80, &[])]));
    assert_eq!(reply.done, Done::Dhcpv4Ack);
    assert_eq!(message.options.get(80), Some(&[][..]));
    assert_eq!(message.yiaddr, OURS);
    // In a REQUEST it means nothing.
    let options: &[(u8, &[u8])] = &[(80, &[]), (50, &OURS.octets())];
    let (_, message) = answer(&port(), &request(message_type::REQUEST, options));
    assert_eq!(message.options.get(80), None);
}

#[test]
fn what_is_not_from_this_workload_or_for_us_is_dropped() {
    let config = port();
    let good = request(message_type::DISCOVER, &[]);
    type Change = fn(&mut Message);
    let cases: [(Change, Reason); 9] = [
        (|m| m.op = BOOT_REPLY, Reason::UnexpectedMessage),
        (|m| m.giaddr = SERVER, Reason::Relayed),
        (|m| m.hops = 1, Reason::Relayed),
        (|m| m.chaddr[5] ^= 1, Reason::ForeignMac),
        (|m| m.hlen = 255, Reason::ForeignMac),
        (|m| m.htype = 6, Reason::ForeignMac),
        (|m| m.options.set(54, &[1, 2, 3]), Reason::Malformed),
        (|m| m.options.set(50, &[]), Reason::Malformed),
        (|m| m.options.set(53, &[1, 1]), Reason::Malformed),
    ];
    for (change, reason) in cases {
        let mut message = good.clone();
        change(&mut message);
        assert_eq!(ask(&config, &message), Err(reason));
    }
    let bytes = good.encode(300);
    for (destination, expected) in [
        (SERVER, Ok(())),
        (Ipv4Addr::BROADCAST, Ok(())),
        (FOREIGN, Err(Reason::NotForUs)),
        (Ipv4Addr::new(192, 0, 2, 127), Err(Reason::NotForUs)),
    ] {
        assert_eq!(respond(&config, destination, &bytes).map(|_| ()), expected);
    }
    let mut none = port();
    none.ipv4.clear();
    assert_eq!(ask(&none, &good), Err(Reason::NotOffered));
}

#[test]
fn several_subnets_are_told_apart_by_the_address_that_is_asked_for() {
    let mut config = port();
    let address = Ipv4Addr::new(10, 0, 0, 9);
    config
        .ipv4
        .push(Ipv4Subnet::new(address, "10.0.0.0/8".parse().unwrap()));
    let (_, message) = answer(&config, &request(message_type::DISCOVER, &[]));
    assert_eq!(message.yiaddr, OURS);
    let requested = [(50, &address.octets()[..])];
    let (reply, message) = answer(&config, &request(message_type::DISCOVER, &requested));
    assert_eq!(
        (message.yiaddr, reply.source),
        (address, Ipv4Addr::new(169, 254, 1, 1))
    );
    assert_eq!(message.options.get(1), Some(&[255, 0, 0, 0][..]));
    assert_eq!(message.options.get(3), None);
    // Either server may be chosen, and asked by unicast.
    let mut renew = request(message_type::REQUEST, &[]);
    renew.ciaddr = address;
    let renewed = respond(&config, Ipv4Addr::new(169, 254, 1, 1), &renew.encode(300));
    assert!(matches!(renewed, Ok(Response::Reply(r)) if r.done == Done::Dhcpv4Ack));
}

#[test]
fn a_gateway_outside_the_subnet_is_first_made_reachable() {
    let mut config = port();
    config.ipv4[0].gateway = Some(Ipv4Addr::new(169, 254, 1, 1));
    config.ipv4[0].host_routes.clear();
    let routes = |config: &PortConfig| {
        let (_, message) = answer(config, &request(message_type::DISCOVER, &[]));
        message.options.get(121).map(<[u8]>::to_vec)
    };
    let expected = "20 a9fe0101 00000000 00 a9fe0101";
    assert_eq!(routes(&config), Some(samples::octets(expected)));
    // A default route of the subnet's own replaces the gateway's.
    config.ipv4[0].host_routes = vec![HostRoute {
        destination: "0.0.0.0/0".parse().unwrap(),
        nexthop: Ipv4Addr::new(192, 0, 2, 3),
    }];
    assert_eq!(routes(&config), Some(samples::octets("00 c0000203")));
    // Nothing to say beyond option 3.
    config.ipv4[0].gateway = Some(SERVER);
    config.ipv4[0].host_routes.clear();
    assert_eq!(routes(&config), None);
}

#[test]
fn options_come_as_asked_for() {
    let mut config = port();
    config.extra_dhcp_opts.clear();
    config.ipv6_only_wait_secs = Some(1_800);
    let asked = |list: &[u8]| {
        let (_, message) = answer(&config, &request(message_type::DISCOVER, &[(55, list)]));
        codes(&message).split_off(5)
    };
    assert_eq!(asked(&[6, 3, 1]), [1, 6, 3]);
    assert_eq!(asked(&[3, 15, 108, 249, 119, 3]), [1, 3, 15, 108, 249, 119]);
    assert_eq!(asked(&[0, 255, 51, 53, 54, 58, 61, 82, 200]), [1]);
    assert_eq!(asked(&[]), [1]);
    // A link with a smaller MTU says so unasked.
    config.mtu = 1_400;
    let (_, message) = answer(&config, &request(message_type::DISCOVER, &[(55, &[3])]));
    assert_eq!(codes(&message).split_off(5), [1, 26, 3]);
    // RFC 6842: the client's identifier is repeated, also when refusing.
    let options: &[(u8, &[u8])] = &[(61, b"\x00me"), (50, &FOREIGN.octets())];
    let (_, message) = answer(&config, &request(message_type::REQUEST, options));
    assert_eq!(message.options.get(61), Some(&b"\x00me"[..]));
}

#[test]
fn extra_options_replace_add_and_take_away() {
    let mut config = port();
    config.extra_dhcp_opts = [
        ("mtu", "1300"),
        ("router", ""),
        ("lease-time", "600"),
        ("T1", "200"),
        ("bootfile-name", "pxelinux.0"),
        ("tftp-server", "boot.example"),
        ("server-ip-address", "198.51.100.9"),
        ("224", "01:02"),
    ]
    .map(|(name, value)| ExtraOption::parse(name, value, 4).unwrap())
    .to_vec();
    let six = ExtraOption::parse("dns-server", "2001:db8::9", 6).unwrap();
    config.extra_dhcp_opts.push(six);
    let (_, message) = answer(
        &config,
        &request(message_type::DISCOVER, &[(55, &[3, 6, 26])]),
    );
    assert_eq!(codes(&message), [53, 54, 51, 58, 59, 1, 6, 26, 224]);
    let u32_of = |code| u32::from_be_bytes(message.options.get(code).unwrap().try_into().unwrap());
    assert_eq!((u32_of(51), u32_of(58), u32_of(59)), (600, 200, 525));
    assert_eq!(message.options.get(26), Some(&1_300_u16.to_be_bytes()[..]));
    assert_eq!(message.siaddr, Ipv4Addr::new(198, 51, 100, 9));
    assert!(message.file.starts_with(b"pxelinux.0\0"));
    assert!(message.sname.starts_with(b"boot.example\0"));
    // Who asks for the options gets them as options.
    let (_, message) = answer(
        &config,
        &request(message_type::DISCOVER, &[(55, &[66, 67])]),
    );
    assert_eq!(message.options.get(67), Some(&b"pxelinux.0"[..]));
    assert_eq!(message.options.get(66), Some(&b"boot.example"[..]));
    assert_eq!((message.file[0], message.sname[0]), (0, 0));
}

#[test]
fn answers_fit_what_the_client_takes() {
    let mut config = port();
    let hop = Ipv4Addr::new(192, 0, 2, 9);
    config.ipv4[0].host_routes = (0..64)
        .map(|i| HostRoute {
            destination: format!("10.{i}.0.0/16").parse().unwrap(),
            nexthop: hop,
        })
        .collect();
    config.extra_dhcp_opts.clear();
    for (max, limit, routes) in [
        (None, 576, false),
        (Some(0_u16), 576, false),
        (Some(1_200), 1_200, true),
        (Some(u16::MAX), 1_500, true),
    ] {
        let max = max.map(u16::to_be_bytes);
        let options: Vec<(u8, &[u8])> = max.iter().map(|m| (57, &m[..])).collect();
        let (reply, message) = answer(&config, &request(message_type::DISCOVER, &options));
        assert!(
            (300..=limit - 28).contains(&reply.payload.len()),
            "{}",
            reply.payload.len()
        );
        assert_eq!(message.options.get(121).is_some(), routes, "{max:?}");
        assert!(message.options.get(3).is_some());
    }
}

#[test]
fn times_do_not_overflow() {
    let mut config = port();
    config.ipv4[0].lease_secs = u32::MAX;
    let (_, message) = answer(&config, &request(message_type::DISCOVER, &[]));
    for code in [51, 58, 59] {
        assert_eq!(message.options.get(code), Some(&[255; 4][..]));
    }
}

proptest! {
    /// Whatever a client sends, it is never given an address that is not the port's.
    #[test]
    fn only_the_port_s_address_is_ever_given(
        kind in 0..20_u8,
        options in vec((1..=254_u8, vec(any::<u8>(), 0..8)), 0..8),
        ciaddr: u32,
        broadcast: bool,
    ) {
        let options: Vec<(u8, &[u8])> = options.iter().map(|(c, d)| (*c, &d[..])).collect();
        let mut message = request(kind, &options);
        message.ciaddr = ciaddr.into();
        message.broadcast = broadcast;
        if let Ok(Response::Reply(reply)) = ask(&port(), &message) {
            let reply = Message::decode(&reply.payload).unwrap();
            prop_assert!(reply.yiaddr == OURS || reply.yiaddr == ZERO);
            prop_assert_eq!(reply.op, BOOT_REPLY);
        }
    }

    #[test]
    fn any_octets_end(bytes in vec(any::<u8>(), 0..600)) {
        let _ = respond(&port(), Ipv4Addr::BROADCAST, &bytes);
    }
}
