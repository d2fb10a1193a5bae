use dhcproto::{
    Decodable,
    v6::{self, DhcpOption, OptionCode},
};
use proptest::{collection::vec, prelude::*};

use super::*;
use crate::{ExtraOption, samples};

const CLIENT: &[u8] = &[0, 3, 0, 1, 2, 0, 0, 0, 0, 9];

fn server() -> Duid {
    Duid::link_layer(samples::HOST)
}

fn stateful() -> PortConfig {
    let mut config = samples::port(Ipv6Mode::Dhcpv6Stateful);
    config.extra_dhcp_opts.clear();
    config
}

fn request(message_type: u8, options: &[(u16, &[u8])]) -> Message {
    let mut message = Message {
        message_type,
        transaction_id: [1, 2, 3],
        options: Options::default(),
    };
    for (code, data) in options {
        message.options.push(*code, data);
    }
    message
}

fn ask_at(config: &PortConfig, to: Ipv6Addr, message: &Message) -> Result<(Done, Message), Reason> {
    let reply = respond(config, &server(), to, &message.encode())?;
    Ok((reply.done, Message::decode(&reply.payload).unwrap()))
}

fn ask(config: &PortConfig, message: &Message) -> Result<(Done, Message), Reason> {
    ask_at(config, ALL_SERVERS, message)
}

/// An IA_NA, IA_TA or IA_PD with options in it, as hexadecimal octets.
fn ia(id: u8, times: bool, inner: &str) -> Vec<u8> {
    let times = if times { "00*8" } else { "" };
    samples::octets(&format!("000000{id:02x} {times} {inner}"))
}

const OURS: &str = "0005 0018 20010db800010002 00*7 77 00*8";
const FOREIGN: &str = "0005 0018 20010db800010002 00*7 78 00*8";
const OUR_PREFIX: &str = "001a 0019 00*8 38 20010db80077 00*10";
const FOREIGN_PREFIX: &str = "001a 0019 00*8 38 20010db80078 00*10";
/// What the port gives, T1 and T2 before it.
const GIVEN: &str = "00049d40 00076200 0005 0018 20010db800010002 00*7 77 00093a80 00278d00";
const GIVEN_PREFIX: &str = "00000708 00000b40 001a 0019 00000e10 00001c20 38 20010db80077 00*10";

fn status_of(options: &Options) -> Option<u16> {
    let data = options.get(code::STATUS_CODE)?;
    Some(u16::from_be_bytes([data[0], data[1]]))
}

/// The status in an IA_NA or IA_PD.
fn inner_status(ia: &[u8]) -> Option<u16> {
    status_of(&Options::decode(&ia[12..]).unwrap())
}

#[test]
fn a_real_client_is_offered_its_address() {
    let frame = samples::dhclient_solicit();
    let reply = respond(&stateful(), &server(), ALL_SERVERS, &frame[62..]).unwrap();
    assert_eq!(reply.done, Done::Dhcpv6Advertise);
    let expected = samples::octets(
        "02 4e91eb 0001000e000100013293cd3efa163eaabbcc 0002000a00030001020000000001 00070001ff \
         00030028 3eaabbcc 00049d40 00076200 0005 0018 20010db800010002 00*7 77 00093a80 00278d00 \
         00170010 20010db8 00*11 53 \
         0018001c 05636c6f7564076578616d706c6500 076578616d706c65036f726700 \
         001f0010 20010db8 00*10 0123",
    );
    assert_eq!(reply.payload, expected);
}

#[test]
fn dhcproto_reads_the_same_from_it() {
    let frame = samples::dhclient_request6();
    let reply = respond(&stateful(), &server(), ALL_SERVERS, &frame[62..]).unwrap();
    assert_eq!(reply.done, Done::Dhcpv6Reply);
    let read = v6::Message::from_bytes(&reply.payload).unwrap();
    assert_eq!(read.msg_type(), v6::MessageType::Reply);
    assert_eq!(read.xid(), [0x98, 0xe3, 0xdf]);
    let Some(DhcpOption::IANA(ia)) = read.opts().get(OptionCode::IANA) else {
        panic!("{read:?}");
    };
    let Some(DhcpOption::IAAddr(addr)) = ia.opts.get(OptionCode::IAAddr) else {
        panic!("{ia:?}");
    };
    assert_eq!(addr.addr, "2001:db8:1:2::77".parse::<Ipv6Addr>().unwrap());
    assert_eq!((addr.preferred_life, addr.valid_life), (604_800, 2_592_000));
    assert_eq!(
        read.opts().get(OptionCode::DomainNameServers),
        Some(&DhcpOption::DomainNameServers(vec![
            "2001:db8::53".parse().unwrap()
        ]))
    );
}

const OTHER: &[u8] = &[0, 3, 0, 1, 9, 9, 9, 9, 9, 9];
const ME: Option<&[u8]> = Some(CLIENT);
/// What [`server`] is called.
const US: Option<&[u8]> = Some(&[0, 3, 0, 1, 2, 0, 0, 0, 0, 1]);
const THEM: Option<&[u8]> = Some(OTHER);

/// RFC 8415 §16: each section's table of what makes a server discard a message. Section, message type,
/// client identifier, server identifier, whether there is an identity association, and what becomes of it.
#[rustfmt::skip]
#[expect(clippy::type_complexity, reason = "a table")]
const VALIDATION: &[(&str, u8, Option<&[u8]>, Option<&[u8]>, bool, Result<Done, Reason>)] = &[
    ("16.2", 1, ME, None, true, Ok(Done::Dhcpv6Advertise)),
    ("16.2", 1, None, None, true, Err(Reason::NoClientId)),
    ("16.2", 1, ME, US, true, Err(Reason::UnexpectedServerId)),
    ("16.3", 2, ME, US, true, Err(Reason::UnexpectedMessage)),
    ("16.4", 3, ME, US, true, Ok(Done::Dhcpv6Reply)),
    ("16.4", 3, ME, None, true, Err(Reason::NoServerId)),
    ("16.4", 3, ME, THEM, true, Err(Reason::OtherServer)),
    ("16.4", 3, None, US, true, Err(Reason::NoClientId)),
    ("16.5", 4, ME, None, true, Ok(Done::Dhcpv6Reply)),
    ("16.5", 4, None, None, true, Err(Reason::NoClientId)),
    ("16.5", 4, ME, US, true, Err(Reason::UnexpectedServerId)),
    ("16.6", 5, ME, US, true, Ok(Done::Dhcpv6Reply)),
    ("16.6", 5, ME, None, true, Err(Reason::NoServerId)),
    ("16.6", 5, ME, THEM, true, Err(Reason::OtherServer)),
    ("16.6", 5, None, US, true, Err(Reason::NoClientId)),
    ("16.7", 6, ME, None, true, Ok(Done::Dhcpv6Reply)),
    ("16.7", 6, None, None, true, Err(Reason::NoClientId)),
    ("16.7", 6, ME, US, true, Err(Reason::UnexpectedServerId)),
    ("16.8", 9, ME, US, true, Ok(Done::Dhcpv6Decline)),
    ("16.8", 9, ME, None, true, Err(Reason::NoServerId)),
    ("16.8", 9, ME, THEM, true, Err(Reason::OtherServer)),
    ("16.8", 9, None, US, true, Err(Reason::NoClientId)),
    ("16.9", 8, ME, US, true, Ok(Done::Dhcpv6Reply)),
    ("16.9", 8, ME, None, true, Err(Reason::NoServerId)),
    ("16.9", 8, ME, THEM, true, Err(Reason::OtherServer)),
    ("16.9", 8, None, US, true, Err(Reason::NoClientId)),
    ("16.10", 7, ME, US, true, Err(Reason::UnexpectedMessage)),
    ("16.11", 10, ME, US, true, Err(Reason::UnexpectedMessage)),
    ("16.12", 11, ME, None, false, Ok(Done::Dhcpv6Reply)),
    ("16.12", 11, None, None, false, Ok(Done::Dhcpv6Reply)),
    ("16.12", 11, ME, US, false, Ok(Done::Dhcpv6Reply)),
    ("16.12", 11, ME, THEM, false, Err(Reason::OtherServer)),
    ("16.12", 11, ME, None, true, Err(Reason::UnexpectedIa)),
    ("16.13", 12, ME, None, true, Err(Reason::Relayed)),
    ("16.14", 13, ME, None, true, Err(Reason::Relayed)),
    ("7.3", 0, ME, None, true, Err(Reason::UnexpectedMessage)),
    ("7.3", 99, ME, None, true, Err(Reason::UnexpectedMessage)),
];

#[test]
fn the_validation_table() {
    let addr = ia(1, true, OURS);
    for (section, kind, client, server, with_ia, expected) in VALIDATION {
        let mut message = request(*kind, &[]);
        let ia = with_ia.then_some(&addr[..]);
        let ids = [
            (code::CLIENT_ID, *client),
            (code::SERVER_ID, *server),
            (code::IA_NA, ia),
        ];
        for (code, data) in ids {
            if let Some(data) = data {
                message.options.push(code, data);
            }
        }
        let done = ask(&stateful(), &message).map(|(done, reply)| {
            assert_eq!(reply.options.get(code::CLIENT_ID), *client, "{section}");
            assert_eq!(reply.options.get(code::SERVER_ID), US, "{section}");
            assert_eq!(reply.transaction_id, [1, 2, 3], "{section}");
            done
        });
        assert_eq!(done, *expected, "RFC 8415 §{section}, type {kind}");
    }
}

/// RFC 8415 §18.4.
#[test]
fn unicast_is_refused() {
    let config = stateful();
    let server_id = server();
    let addr = ia(1, true, OURS);
    for (kind, with_server, expected) in [
        (1, false, Err(Reason::Unicast)),
        (4, false, Err(Reason::Unicast)),
        (6, false, Err(Reason::Unicast)),
        (11, false, Err(Reason::Unicast)),
        (3, true, Ok(())),
        (5, true, Ok(())),
        (8, true, Ok(())),
        (9, true, Ok(())),
    ] {
        let mut message = request(kind, &[(code::CLIENT_ID, CLIENT)]);
        if with_server {
            message.options.push(code::SERVER_ID, server_id.as_bytes());
        }
        if kind != 11 {
            message.options.push(code::IA_NA, &addr);
        }
        let answered = ask_at(&config, config.link_local, &message).map(|(_, reply)| {
            let codes: Vec<u16> = reply.options.iter().map(|(code, _)| code).collect();
            assert_eq!(codes, [code::CLIENT_ID, code::SERVER_ID, code::STATUS_CODE]);
            assert_eq!(status_of(&reply.options), Some(5));
        });
        assert_eq!(answered, expected, "type {kind}");
    }
    let message = request(11, &[]);
    let elsewhere = "fe80::2".parse().unwrap();
    assert_eq!(
        ask_at(&config, elsewhere, &message).err(),
        Some(Reason::NotForUs)
    );
}

/// One identity association in, one out: message type, kind of association, what it holds, and what it
/// gets; statuses follow behind `status`. Server identifiers are there where they belong.
#[rustfmt::skip]
const ASSOCIATIONS: &[(u8, u16, &str, &[&str])] = &[
    // Solicit: hints do not matter.
    (1, code::IA_NA, "", &[GIVEN]),
    (1, code::IA_NA, OURS, &[GIVEN]),
    (1, code::IA_NA, FOREIGN, &[GIVEN]),
    (1, code::IA_PD, "", &[GIVEN_PREFIX]),
    (1, code::IA_PD, FOREIGN_PREFIX, &[GIVEN_PREFIX]),
    (1, code::IA_PD, "001a 0019 00*8 38 00*16", &[GIVEN_PREFIX]),
    (1, code::IA_TA, "", &["status", "2"]),
    // Request.
    (3, code::IA_NA, "", &[GIVEN]),
    (3, code::IA_NA, OURS, &[GIVEN]),
    (3, code::IA_NA, FOREIGN, &[NO_TIMES, "status", "4"]),
    (3, code::IA_PD, OUR_PREFIX, &[GIVEN_PREFIX]),
    (3, code::IA_PD, FOREIGN_PREFIX, &[GIVEN_PREFIX]),
    (3, code::IA_TA, "", &["status", "2"]),
    // Renew and Rebind: what is not the port's ends, what is goes on.
    (5, code::IA_NA, OURS, &[GIVEN]),
    (5, code::IA_NA, "", &[GIVEN]),
    (5, code::IA_NA, FOREIGN, &[GIVEN, FOREIGN]),
    (6, code::IA_NA, OURS, &[GIVEN]),
    (6, code::IA_NA, FOREIGN, &[GIVEN, FOREIGN]),
    (5, code::IA_PD, OUR_PREFIX, &[GIVEN_PREFIX]),
    (6, code::IA_PD, FOREIGN_PREFIX, &[GIVEN_PREFIX, FOREIGN_PREFIX]),
    (5, code::IA_TA, "", &["status", "3"]),
    // Release and Decline: only what was never held is mentioned.
    (8, code::IA_NA, OURS, &[]),
    (8, code::IA_NA, FOREIGN, &[NO_TIMES, "status", "3"]),
    (9, code::IA_NA, OURS, &[]),
    (8, code::IA_PD, OUR_PREFIX, &[]),
    (8, code::IA_PD, FOREIGN_PREFIX, &[NO_TIMES, "status", "3"]),
    (8, code::IA_TA, "", &["status", "3"]),
];

/// The same on a port with neither an address nor a prefix to give.
#[rustfmt::skip]
const NOTHING_TO_GIVE: &[(u8, u16, &str, &[&str])] = &[
    (1, code::IA_NA, "", &[NO_TIMES, "status", "2"]),
    (1, code::IA_PD, "", &[NO_TIMES, "status", "6"]),
    (3, code::IA_NA, FOREIGN, &[NO_TIMES, "status", "2"]),
    (3, code::IA_PD, "", &[NO_TIMES, "status", "6"]),
    (5, code::IA_NA, FOREIGN, &[NO_TIMES, FOREIGN, "status", "3"]),
    (6, code::IA_PD, "", &[NO_TIMES, "status", "3"]),
];

/// T1 and T2 where nothing goes on.
const NO_TIMES: &str = "00*8";

fn check_association(config: &PortConfig, (kind, code, held, expected): (u8, u16, &str, &[&str])) {
    let mut message = request(kind, &[(code::CLIENT_ID, CLIENT)]);
    if matches!(kind, 3 | 5 | 8 | 9) {
        message.options.push(code::SERVER_ID, server().as_bytes());
    }
    message
        .options
        .push(code, &ia(9, code != code::IA_TA, held));
    let (_, reply) = ask(config, &message).unwrap();
    let what = format!("type {kind}, option {code}, held '{held}'");
    let got = reply.options.get(code);
    if expected.is_empty() {
        assert_eq!(got, None, "{what}");
        assert_eq!(status_of(&reply.options), Some(0), "{what}");
        return;
    }
    let mut parts = expected.split(|part| *part == "status");
    let items = parts.next().unwrap().join(" ");
    let mut octets = samples::octets(&format!("00000009 {items}"));
    if let Some([status]) = parts.next() {
        let known = [
            status::NO_ADDRS_AVAIL,
            status::NO_BINDING,
            status::NOT_ON_LINK,
            status::NO_PREFIX_AVAIL,
        ];
        let number: u16 = status.parse().unwrap();
        let status = known.into_iter().find(|(code, _)| *code == number);
        let mut inner = Options::default();
        inner.push_status(status.unwrap());
        octets.extend(inner.encode());
    }
    assert_eq!(got, Some(&octets[..]), "{what}");
}

#[test]
fn what_identity_associations_get() {
    for row in ASSOCIATIONS {
        check_association(&stateful(), *row);
    }
    let mut config = stateful();
    config.ipv6[0].mode = Ipv6Mode::Dhcpv6Stateless;
    config.delegated.clear();
    for row in NOTHING_TO_GIVE {
        check_association(&config, *row);
    }
}

#[test]
fn confirm_is_about_the_port_s_own_addresses() {
    let foreign_pair = format!("{OURS} {FOREIGN}");
    for (held, expected) in [
        (OURS, Ok(Some(0))),
        (FOREIGN, Ok(Some(4))),
        (&foreign_pair, Ok(Some(4))),
        ("", Err(Reason::Malformed)),
    ] {
        let addr = ia(1, true, held);
        let options: &[(u16, &[u8])] = &[(code::CLIENT_ID, CLIENT), (code::IA_NA, &addr)];
        let answered = ask(&stateful(), &request(4, options));
        assert_eq!(
            answered.map(|(_, reply)| status_of(&reply.options)),
            expected,
            "{held}"
        );
    }
}

#[test]
fn one_identity_association_gets_all_and_keeps_it() {
    let mut config = stateful();
    let second = "2001:db8:9::/64".parse().unwrap();
    let address = "2001:db8:9::5".parse().unwrap();
    config.ipv6.push(crate::config::Ipv6Subnet::new(
        second,
        Ipv6Mode::Dhcpv6Stateful,
        Some(address),
    ));
    let server_id = server();
    let ids = |message: &Message| {
        let (_, reply) = ask(&config, message).unwrap();
        let all = reply.options.iter().filter(|(c, _)| *c == code::IA_NA);
        all.map(|(_, ia)| {
            (
                ia[3],
                Options::decode(&ia[12..]).unwrap().iter().count(),
                inner_status(ia),
            )
        })
        .collect::<Vec<_>>()
    };
    let (empty, holder) = (ia(1, true, ""), ia(2, true, OURS));
    let solicit: &[(u16, &[u8])] = &[
        (code::CLIENT_ID, CLIENT),
        (code::IA_NA, &empty),
        (code::IA_NA, &ia(2, true, "")),
    ];
    assert_eq!(ids(&request(1, solicit)), [(1, 2, None), (2, 1, Some(2))]);
    let renew: &[(u16, &[u8])] = &[
        (code::CLIENT_ID, CLIENT),
        (code::SERVER_ID, server_id.as_bytes()),
        (code::IA_NA, &empty),
        (code::IA_NA, &holder),
    ];
    assert_eq!(ids(&request(5, renew)), [(1, 1, Some(3)), (2, 2, None)]);
}

#[test]
fn two_messages_are_enough_for_who_asks_for_it() {
    let empty = ia(1, true, "");
    let options: &[(u16, &[u8])] = &[
        (code::CLIENT_ID, CLIENT),
        (code::RAPID_COMMIT, &[]),
        (code::IA_NA, &empty),
    ];
    let (done, reply) = ask(&stateful(), &request(1, options)).unwrap();
    assert_eq!((done, reply.message_type), (Done::Dhcpv6Reply, 7));
    assert_eq!(reply.options.get(code::RAPID_COMMIT), Some(&[][..]));
    assert_eq!(reply.options.get(code::PREFERENCE), None);
    // Not where there is nothing to commit to.
    let mut config = stateful();
    config.ipv6[0].mode = Ipv6Mode::Dhcpv6Stateless;
    let (done, reply) = ask(&config, &request(1, options)).unwrap();
    assert_eq!((done, reply.message_type), (Done::Dhcpv6Advertise, 2));
    assert_eq!(reply.options.get(code::RAPID_COMMIT), None);
}

#[test]
fn the_stateless_service() {
    let mut config = samples::port(Ipv6Mode::Dhcpv6Stateless);
    config.delegated.clear();
    let codes = |config: &PortConfig, list: Option<&str>| {
        let list = list.map(samples::octets);
        let options: Vec<(u16, &[u8])> = list
            .iter()
            .map(|l| (code::OPTION_REQUEST, &l[..]))
            .collect();
        let (_, reply) = ask(config, &request(11, &options)).unwrap();
        reply
            .options
            .iter()
            .map(|(code, _)| code)
            .collect::<Vec<_>>()
    };
    assert_eq!(codes(&config, None), [2, 23, 24, 59]);
    assert_eq!(
        codes(&config, Some("0017 0018 001f 0038 0020")),
        [2, 23, 24, 31, 56, 32, 59]
    );
    assert_eq!(codes(&config, Some("0001 0003 00ff 00")), [2, 59]);
    let frame = samples::dhclient_information_request();
    let reply = respond(&config, &server(), ALL_SERVERS, &frame[62..]).unwrap();
    assert_eq!(reply.done, Done::Dhcpv6Reply);
    // Extra options replace ours, and take away.
    config.extra_dhcp_opts = vec![
        ExtraOption::parse("dns-server", "2001:db8::9", 6).unwrap(),
        ExtraOption::parse("domain-search", "", 6).unwrap(),
    ];
    let (_, reply) = ask(&config, &request(11, &[])).unwrap();
    assert_eq!(
        reply.options.get(23),
        Some(&samples::octets("20010db8 00*11 09")[..])
    );
    assert_eq!(reply.options.get(24), None);
    for mode in [Ipv6Mode::Slaac, Ipv6Mode::None] {
        config.ipv6[0].mode = mode;
        assert_eq!(
            ask(&config, &request(11, &[])).err(),
            Some(Reason::NotOffered)
        );
    }
}

#[test]
fn answers_fit_the_link() {
    let mut config = stateful();
    config.mtu = 1_280;
    config.extra_dhcp_opts = (1_000..1_060)
        .map(|code| ExtraOption::parse(&code.to_string(), &"x".repeat(250), 6).unwrap())
        .collect();
    let addr = ia(1, true, OURS);
    let options: &[(u16, &[u8])] = &[(code::CLIENT_ID, CLIENT), (code::IA_NA, &addr)];
    let reply = respond(
        &config,
        &server(),
        ALL_SERVERS,
        &request(1, options).encode(),
    )
    .unwrap();
    assert!(reply.payload.len() <= 1_280 - 48, "{}", reply.payload.len());
    let message = Message::decode(&reply.payload).unwrap();
    assert!(message.options.get(code::IA_NA).is_some());
    assert!(message.options.get(1_000).is_some());
    // As many identity associations as a packet holds are no more than MAX_IAS answers.
    let mut many = request(1, &[(code::CLIENT_ID, CLIENT)]);
    for id in 0..100 {
        many.options.push(code::IA_NA, &ia(id, true, ""));
    }
    config.extra_dhcp_opts.clear();
    config.mtu = 9_000;
    let (_, reply) = ask(&config, &many).unwrap();
    assert_eq!(
        reply
            .options
            .iter()
            .filter(|(c, _)| *c == code::IA_NA)
            .count(),
        MAX_IAS
    );
}

#[test]
fn malformed_messages_are_dropped() {
    let short: &[u8] = &[0, 3];
    let long = [0; 131];
    for (code, data) in [
        (code::CLIENT_ID, short),
        (code::CLIENT_ID, &long),
        (code::CLIENT_ID, &[]),
    ] {
        assert_eq!(
            ask(&stateful(), &request(1, &[(code, data)])).err(),
            Some(Reason::Malformed)
        );
    }
    for (code, data) in [
        (code::IA_NA, "00000001 00*7"),
        (code::IA_TA, "000001"),
        (code::IA_NA, "00000001 00*8 0005"),
        (code::IA_NA, "00000001 00*8 0005 0018 00*23"),
        (code::IA_NA, "00000001 00*8 0005 0004 00*4"),
        (code::IA_PD, "00000001 00*8 001a 0019 00*8 81 00*16"),
    ] {
        let data = samples::octets(data);
        let options: &[(u16, &[u8])] = &[(code::CLIENT_ID, CLIENT), (code, &data)];
        assert_eq!(
            ask(&stateful(), &request(1, options)).err(),
            Some(Reason::Malformed),
            "{data:02x?}"
        );
    }
    let frame = samples::dhclient_request6();
    let payload = &frame[62..];
    let whole = Message::decode(payload).unwrap();
    let mut boundary = Message::HEADER_LEN;
    let boundaries: Vec<usize> = std::iter::once(boundary)
        .chain(whole.options.iter().map(|(_, data)| {
            boundary += data.len() + 4;
            boundary
        }))
        .collect();
    for len in 0..payload.len() {
        let decoded = Message::decode(&payload[..len]).is_some();
        assert_eq!(decoded, boundaries.contains(&len), "{len}");
        // Client and server identifier are the first two.
        let answered = respond(&stateful(), &server(), ALL_SERVERS, &payload[..len]);
        assert_eq!(answered.is_ok(), decoded && len >= boundaries[2], "{len}");
    }
}

fn any_options() -> impl Strategy<Value = Vec<(u16, Vec<u8>)>> {
    let code = prop_oneof![0..60_u16, any::<u16>()];
    vec((code, vec(any::<u8>(), 0..60)), 0..8)
}

proptest! {
    #[test]
    fn messages_round_trip(kind: u8, transaction_id: [u8; 3], list in any_options()) {
        let mut message = Message { message_type: kind, transaction_id, options: Options::default() };
        for (code, data) in &list {
            message.options.push(*code, data);
        }
        prop_assert_eq!(Message::decode(&message.encode()), Some(message));
    }

    #[test]
    fn any_octets_end(bytes in vec(any::<u8>(), 0..400), kind in 0..14_u8) {
        let mut bytes = bytes;
        let _ = respond(&stateful(), &server(), ALL_SERVERS, &bytes);
        if let Some(first) = bytes.first_mut() {
            *first = kind;
        }
        let _ = respond(&stateful(), &server(), ALL_SERVERS, &bytes);
    }

    #[test]
    fn any_options_end_and_give_nothing_foreign(kind in 1..12_u8, list in any_options()) {
        let mut message = request(kind, &[(code::CLIENT_ID, CLIENT)]);
        for (code, data) in &list {
            message.options.push(*code, data);
        }
        if let Ok((_, reply)) = ask(&stateful(), &message) {
            let ours = leases_with_lifetime(&reply);
            prop_assert!(ours.iter().all(|a| *a == "2001:db8:1:2::77".parse::<Ipv6Addr>().unwrap()));
        }
    }
}

/// Addresses in IA_NAs that may be used.
fn leases_with_lifetime(reply: &Message) -> Vec<Ipv6Addr> {
    let ias = reply.options.iter().filter(|(c, _)| *c == code::IA_NA);
    let inner = ias.flat_map(|(_, ia)| {
        let options = Options::decode(&ia[12..]).unwrap();
        options
            .iter()
            .map(|(c, d)| (c, d.to_vec()))
            .collect::<Vec<_>>()
    });
    inner
        .filter(|(c, d)| *c == code::IA_ADDR && d[20..24] != [0; 4])
        .map(|(_, d)| Ipv6Addr::from(<[u8; 16]>::try_from(&d[..16]).unwrap()))
        .collect()
}
