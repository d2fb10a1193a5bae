//! A peer that speaks nonsense: it has the effects that RFC 7606 allows it, and no others.
//!
//! Messages are written octet by octet here, so that no encoder of ours stands between.

use std::{
    io::{ErrorKind, Read, Write},
    net::{SocketAddr, TcpStream},
    time::{Duration, Instant},
};

use crate::{
    bird::{self, Bird},
    fabric::{ASN, Fabric, LIMIT, wait_for},
    speaker::{Peer, Speaker, peers},
};

const OPEN: u8 = 1;
const UPDATE: u8 = 2;
const NOTIFICATION: u8 = 3;
const KEEPALIVE: u8 = 4;

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(|b| *b != b' ').collect();
    let octet = |pair: &[u8]| u8::from_str_radix(str::from_utf8(pair).unwrap(), 16).unwrap();
    digits.chunks(2).map(octet).collect()
}

fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    let length = u16::try_from(19 + body.len()).unwrap();
    [&[0xff; 16][..], &length.to_be_bytes(), &[kind], body].concat()
}

/// AS 64512, hold time 90 s, identifier 192.0.2.2; both families, four-octet AS.
const OUR_OPEN: &str = "04 fc00 005a c0000202 14 0212 010400010001 010400020001 41040000fc00";

/// Path attributes, and 203.0.113.0/24.
fn update(attributes: &str) -> Vec<u8> {
    update_for(attributes, "18cb0071")
}

fn update_for(attributes: &str, prefixes: &str) -> Vec<u8> {
    let attributes = hex(attributes);
    let length = u16::try_from(attributes.len()).unwrap().to_be_bytes();
    message(
        UPDATE,
        &[&[0, 0][..], &length, &attributes, &hex(prefixes)].concat(),
    )
}

const PREFIX: &str = "203.0.113.0/24";
const ORIGIN: &str = "40010100";
const AS_PATH: &str = "400200";
const NEXT_HOP: &str = "400304c0000209";
const LOCAL_PREF: &str = "40050400000064";

/// Well-formed attributes, and more.
fn with(more: &str) -> String {
    [ORIGIN, AS_PATH, NEXT_HOP, LOCAL_PREF, more].concat()
}

/// The hostile end of a session.
struct Hostile {
    stream: TcpStream,
}

impl Hostile {
    /// Connects to h1 from s1, until an OPEN has come.
    fn connect(fabric: &Fabric) -> Hostile {
        let [_, address] = fabric.addresses("h1", "s1");
        let to: SocketAddr = format!("[{address}]:179").parse().unwrap();
        let mut stream = None;
        wait_for("a connection", || {
            stream = fabric
                .node("s1")
                .enter(|| TcpStream::connect(to).ok())
                .unwrap();
            stream.is_some()
        });
        let stream = stream.unwrap();
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        let mut hostile = Hostile { stream };
        assert_eq!(hostile.next().map(|(kind, _)| kind), Some(OPEN));
        hostile
    }

    /// As far as a session that is up.
    fn establish(fabric: &Fabric, h1: &Speaker) -> Hostile {
        let mut hostile = Hostile::connect(fabric);
        hostile.send(&message(OPEN, &hex(OUR_OPEN)));
        hostile.send(&message(KEEPALIVE, &[]));
        let [_, address] = fabric.addresses("s1", "h1");
        h1.wait_until("the session is up", |seen| seen.established(&address));
        hostile
    }

    fn send(&mut self, octets: &[u8]) {
        self.stream.write_all(octets).unwrap();
    }

    /// The next message; none at the end.
    fn next(&mut self) -> Option<(u8, Vec<u8>)> {
        let mut header = [0; 19];
        match self.stream.read_exact(&mut header) {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => panic!("no end came"),
            Err(_) => return None,
        }
        let length = usize::from(u16::from_be_bytes([header[16], header[17]]));
        let mut body = vec![0; length - 19];
        self.stream.read_exact(&mut body).unwrap();
        Some((header[18], body))
    }

    /// The NOTIFICATION that ends the session: code and subcode.
    fn end(mut self) -> (u8, u8) {
        loop {
            match self.next().expect("a NOTIFICATION") {
                (NOTIFICATION, body) => {
                    assert_eq!(self.next(), None, "and nothing behind it");
                    return (body[0], body[1]);
                }
                (KEEPALIVE | UPDATE | 5, _) => {}
                other => panic!("unexpected: {other:?}"),
            }
        }
    }
}

fn start(fabric: &Fabric) -> Speaker {
    let [_, address] = fabric.addresses("s1", "h1");
    let peer = Peer {
        name: "hostile".to_owned(),
        address,
        interface: "s1".to_owned(),
        more: format!("asn = {ASN}\n"),
    };
    Speaker::start(fabric, "h1", &peers([peer]), &["2001:db8:1::5/128"])
}

/// What an UPDATE does to a route that was there before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Effect {
    /// It stays.
    Kept,
    /// "Treat-as-withdraw".
    Gone,
}

/// Sections are those of RFC 7606; each UPDATE is for a route that is there.
#[allow(clippy::too_many_lines, reason = "a table")]
fn malformed() -> Vec<(&'static str, String, Effect)> {
    use Effect::{Gone, Kept};
    let without = |attribute: &str| with("").replacen(attribute, "", 1);
    let instead = |attribute: &str, other: &str| with("").replacen(attribute, other, 1);
    vec![
        ("well-formed", with(""), Kept),
        (
            "3(c): ORIGIN with the optional bit",
            instead(ORIGIN, "c0010100"),
            Gone,
        ),
        ("3(d): no ORIGIN", without(ORIGIN), Gone),
        ("3(d): no AS_PATH", without(AS_PATH), Gone),
        ("3(d): no NEXT_HOP", without(NEXT_HOP), Gone),
        ("3(g): ORIGIN twice", with(ORIGIN), Kept),
        (
            "4: an attribute longer than the rest",
            with("c00890 0001"),
            Gone,
        ),
        (
            "7.1: ORIGIN of two octets",
            instead(ORIGIN, "4001020000"),
            Gone,
        ),
        ("7.1: ORIGIN 3", instead(ORIGIN, "40010103"), Gone),
        (
            "7.2: AS_PATH segment of type 9",
            instead(AS_PATH, "4002060901 0000fc00"),
            Gone,
        ),
        (
            "7.2: AS_PATH segment overrun",
            instead(AS_PATH, "4002060202 0000fc00"),
            Gone,
        ),
        (
            "7.2: AS_PATH segment without an AS",
            instead(AS_PATH, "4002020200"),
            Gone,
        ),
        (
            "7.3: NEXT_HOP of three octets",
            instead(NEXT_HOP, "400303c00002"),
            Gone,
        ),
        ("7.4: MED of three octets", with("800403 000001"), Gone),
        (
            "7.5: LOCAL_PREF of five octets",
            instead(LOCAL_PREF, "400505 0000000064"),
            Gone,
        ),
        (
            "7.6: ATOMIC_AGGREGATE of one octet",
            with("400601 00"),
            Kept,
        ),
        (
            "7.7: AGGREGATOR of five octets",
            with("c00705 0000fc0001"),
            Kept,
        ),
        (
            "7.8: COMMUNITIES of three octets",
            with("c00803 fc0000"),
            Gone,
        ),
        (
            "7.9: ORIGINATOR_ID of three octets",
            with("800903 c00002"),
            Gone,
        ),
        (
            "7.10: CLUSTER_LIST of five octets",
            with("800a05 c000020100"),
            Gone,
        ),
        (
            "7.14: EXTENDED COMMUNITIES of seven octets",
            with("c01007 00020000000000"),
            Gone,
        ),
        (
            "RFC 8092: LARGE_COMMUNITIES of eleven octets",
            with("c0200b 0000000100000002000000"),
            Gone,
        ),
        (
            "RFC 4271: an optional attribute nobody knows",
            with("c0fd03 010203"),
            Kept,
        ),
    ]
}

/// Malformed attributes cost the route or the attribute, never the session.
#[test]
fn malformed_updates_cost_no_session() {
    let fabric = Fabric::new(&[("h1", "s1")]);
    let h1 = start(&fabric);
    let [_, address] = fabric.addresses("s1", "h1");
    let mut hostile = Hostile::establish(&fabric, &h1);
    for (number, (what, attributes, effect)) in malformed().into_iter().enumerate() {
        hostile.send(&update(&with("")));
        h1.wait_route(PREFIX, &["192.0.2.9"]);
        hostile.send(&update(&attributes));
        // What comes behind it shows that it was read, and that the session goes on.
        hostile.send(&update_for(&with(""), &format!("20 0a0000{number:02x}")));
        h1.wait_route(&format!("10.0.0.{number}/32"), &["192.0.2.9"]);
        let is = h1.seen(|seen| {
            if seen.hops(PREFIX).is_empty() {
                Effect::Gone
            } else {
                Effect::Kept
            }
        });
        assert_eq!(is, effect, "{what}");
    }
    h1.wait_until("the malformed ones were counted", |seen| {
        seen.peer(&address)["messages"]["malformed_updates"].as_u64() >= Some(20)
    });
    assert!(h1.seen(|seen| seen.established(&address) && seen.peer(&address)["flaps"] == 0));
}

/// What can't be read as messages or prefixes ends the session, with the code that says so, and the
/// routes with it; then the peer may try again.
#[test]
fn what_cannot_be_read_ends_the_session() {
    let fabric = Fabric::new(&[("h1", "s1")]);
    let h1 = start(&fabric);
    let mut bad_marker = message(KEEPALIVE, &[]);
    bad_marker[3] = 0;
    let mut too_short = message(KEEPALIVE, &[]);
    too_short[17] = 18;
    let mut too_long = message(UPDATE, &[0; 4]);
    too_long[16..18].copy_from_slice(&5000u16.to_be_bytes());
    let mp_reach = "800e15 000101 10 20010db8000000000000000000000009 00";
    let cases = [
        ("a marker that is none", bad_marker, (1, 1)),
        ("length 18", too_short, (1, 2)),
        ("length 5000, without extended messages", too_long, (1, 2)),
        ("a KEEPALIVE with a body", message(KEEPALIVE, &[0]), (1, 2)),
        ("type 9", message(9, &[]), (1, 3)),
        (
            "an OPEN in a session",
            message(OPEN, &hex(OUR_OPEN)),
            (5, 3),
        ),
        (
            "withdrawn routes longer than the message",
            message(UPDATE, &hex("0009 0000")),
            (3, 1),
        ),
        (
            "attributes longer than the message",
            message(UPDATE, &hex("0000 0009")),
            (3, 1),
        ),
        (
            "a prefix of 33 bits",
            update_for(&with(""), "21 0a00000000"),
            (3, 10),
        ),
        (
            "MP_REACH_NLRI twice",
            update_for(&with(&[mp_reach, mp_reach].concat()), ""),
            (3, 1),
        ),
    ];
    for (what, octets, code) in cases {
        let mut hostile = Hostile::establish(&fabric, &h1);
        hostile.send(&update(&with("")));
        h1.wait_route(PREFIX, &["192.0.2.9"]);
        hostile.send(&octets);
        assert_eq!(hostile.end(), code, "{what}");
        h1.wait_route(PREFIX, &[]);
    }
}

/// An OPEN that can't be agreed with is answered with why.
#[test]
fn an_open_that_cannot_be_is_refused() {
    let fabric = Fabric::new(&[("h1", "s1")]);
    let _h1 = start(&fabric);
    let cases = [
        ("version 3", OUR_OPEN.replacen("04", "03", 1), (2, 1)),
        ("another AS", OUR_OPEN.replace("fc00", "fc01"), (2, 2)),
        (
            "identifier 0.0.0.0",
            OUR_OPEN.replace("c0000202", "00000000"),
            (2, 3),
        ),
        (
            "a hold time of one second",
            OUR_OPEN.replace("005a", "0001"),
            (2, 6),
        ),
        (
            "parameters longer than the message",
            OUR_OPEN.replace(" 14 ", " ff "),
            (2, 0),
        ),
    ];
    for (what, open, code) in cases {
        let mut hostile = Hostile::connect(&fabric);
        hostile.send(&message(OPEN, &hex(&open)));
        assert_eq!(hostile.end(), code, "{what}");
    }
}

/// Octets without sense, on many connections: the process lives, and then takes a session that has some.
#[test]
fn noise_is_survived() {
    let fabric = Fabric::new(&[("h1", "s1")]);
    let h1 = start(&fabric);
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut noise = move || {
        // xorshift64: the same noise in each run.
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    for round in 0..100 {
        let mut hostile = Hostile::connect(&fabric);
        let mut octets: Vec<u8> = (0..200).flat_map(|_| noise()).collect();
        if round % 2 == 0 {
            // Well-framed noise gets further.
            octets = octets
                .chunks(80)
                .map(|body| message(1 + round % 5, body))
                .collect::<Vec<_>>()
                .concat();
        }
        // It may end while we still write.
        drop(hostile.stream.write_all(&octets));
    }
    let mut hostile = Hostile::establish(&fabric, &h1);
    hostile.send(&update(&with("")));
    h1.wait_route(PREFIX, &["192.0.2.9"]);
}

/// A peer that sends as fast as it can is read no faster than the engine works; meanwhile another's BFD,
/// at 100 ms, misses nothing, and what it announces is heard.
#[test]
fn a_flood_starves_nobody() {
    let fabric = Fabric::new(&[("h1", "s1"), ("h1", "s2")]);
    let config = bird::preamble(&fabric, "s2")
        + &bird::routes(&[], &["::/0"])
        + &bird::client(&fabric, "s2", "h1");
    let _s2 = Bird::start(&fabric, "s2", &config);
    let [_, address] = fabric.addresses("s1", "h1");
    let flooder = Peer {
        name: "flooder".to_owned(),
        address: address.clone(),
        interface: "s1".to_owned(),
        more: format!("asn = {ASN}\n"),
    };
    let s2 = Peer::link_local(&fabric, "s2").with("bfd = true");
    let h1 = Speaker::start(&fabric, "h1", &peers([flooder, s2]), &[]);
    h1.wait_until("BFD is up", |seen| {
        seen.bfd.values().any(|state| state == "Up")
    });
    h1.wait_route("::/0", &["fe80::3%s2"]);
    let changes = h1.seen(|seen| seen.bfd_changes);
    let mut hostile = Hostile::establish(&fabric, &h1);
    let updates: Vec<u8> = (0..=255)
        .flat_map(|n: u8| {
            let prefixes: String = (0..=255)
                .map(|m: u8| format!("20 0b00{n:02x}{m:02x}"))
                .collect();
            update_for(&with(&format!("8004040000{n:02x}00")), &prefixes)
        })
        .collect();
    let end = Instant::now() + Duration::from_secs(2);
    let mut sent = 0;
    while Instant::now() < end {
        hostile.send(&updates);
        sent += 65_536;
    }
    println!("{sent} routes sent in two seconds");
    h1.wait_until("what was sent is used", |seen| {
        seen.hops("11.0.255.255/32").len() == 1
    });
    let (now, established) = h1.seen(|seen| {
        (
            seen.bfd_changes,
            seen.established("fe80::3") && seen.peer("fe80::3")["flaps"] == 0,
        )
    });
    assert_eq!(now, changes, "BFD was up all the time");
    assert!(established);
}
