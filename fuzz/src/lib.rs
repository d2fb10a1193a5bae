//! What several targets ask of a decoder: no panic, bounded results, and that what was read is read the same
//! after it was written.

pub mod server;

use hextet_bgp::packet::{
    Context, Encoding, Families, Framer, HEADER_LEN, Message, MessageType, Notification, Open,
    Reach, RouteRefresh, Update, encode_reach,
};

/// What a BGP session has negotiated, out of the bits of an octet.
pub fn bgp_context(bits: u8) -> Context {
    let has = |bit: u8| bits & 1 << bit != 0;
    Context {
        four_octet_as: has(0),
        internal: has(1),
        families: if has(2) {
            Families::BOTH
        } else {
            Families::NONE
        },
        extended_next_hop: has(3),
    }
}

/// Reads the body of a BGP message, and what came of it again.
pub fn read_bgp(kind: MessageType, body: &[u8], context: &Context) {
    match kind {
        MessageType::Open => read_again(Open::decode_body, body, Message::Open),
        MessageType::Notification => {
            read_again(Notification::decode_body, body, Message::Notification);
        }
        MessageType::RouteRefresh => {
            read_again(RouteRefresh::decode_body, body, Message::RouteRefresh);
        }
        MessageType::Keepalive => {}
        MessageType::Update => read_update(body, context),
    }
}

fn read_again<T: Clone + PartialEq + std::fmt::Debug>(
    decode: fn(&[u8]) -> Result<T, Notification>,
    body: &[u8],
    message: fn(T) -> Message,
) {
    let Ok(value) = decode(body) else { return };
    let written = message(value.clone()).encode();
    assert_eq!(decode(&written[HEADER_LEN..]).as_ref(), Ok(&value));
}

fn read_update(body: &[u8], context: &Context) {
    let Ok(parsed) = Update::decode_body(body, context) else {
        return;
    };
    let prefixes: usize = parsed
        .update
        .reach
        .iter()
        .map(|reach| reach.prefixes.len())
        .sum();
    assert!(prefixes + parsed.update.withdrawn.len() <= body.len());
    assert!(parsed.problems.len() <= 16);
    for reach in &parsed.update.reach {
        write_again(reach, context);
    }
}

fn write_again(reach: &Reach, context: &Context) {
    let Some(family) = reach.prefixes.first().map(|prefix| prefix.family()) else {
        panic!("announced prefixes are never none")
    };
    let encoding = Encoding {
        four_octet_as: context.four_octet_as,
        extended: true,
    };
    let mut written = Vec::new();
    if encode_reach(
        &mut written,
        encoding,
        family,
        &reach.attributes,
        &reach.prefixes,
    )
    .is_err()
    {
        return;
    }
    let mut framer = Framer::new();
    framer.allow_extended();
    framer.push(&written);
    let mut prefixes = Vec::new();
    while let Ok(Some((MessageType::Update, body))) = framer.next_message() {
        let again = Update::decode_body(body, context);
        let again = again.unwrap_or_else(|error| panic!("{error:?} for {reach:?}"));
        assert!(
            again.problems.is_empty(),
            "{:?} for {reach:?}",
            again.problems
        );
        for part in again.update.reach {
            assert_eq!(part.attributes, reach.attributes);
            prefixes.extend(part.prefixes);
        }
    }
    assert_eq!(prefixes, reach.prefixes);
}
