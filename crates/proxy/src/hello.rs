//! The server's name in a TLS ClientHello (RFC 8446 §4.1.2, RFC 6066 §3), which may come in several records (RFC 8446 §5.1).

use crate::Reading;

const HANDSHAKE: u8 = 22;
const CLIENT_HELLO: u8 = 1;
const SERVER_NAME: u16 = 0;
const HOST_NAME: u8 = 0;
/// Of a record's text (RFC 8446 §5.1), and of a ClientHello that we read.
const MAX_RECORD: usize = 1 << 14;
/// `unrecognized_name`, fatal (RFC 6066 §3): what is said to who means nobody.
pub const UNRECOGNIZED_NAME: [u8; 7] = [21, 3, 3, 0, 2, 2, 112];

/// Reads what has come so far.
pub fn read(data: &[u8]) -> Reading {
    let mut handshake = Vec::new();
    let mut rest = data;
    loop {
        let Some((head, after)) = rest.split_at_checked(5) else {
            return if_more(rest.first().is_none_or(|kind| *kind == HANDSHAKE));
        };
        let length = usize::from(u16::from_be_bytes([head[3], head[4]]));
        if head[0] != HANDSHAKE || head[1] != 3 || length == 0 || length > MAX_RECORD {
            return Reading::Bad("no TLS handshake");
        }
        let text = &after[..length.min(after.len())];
        handshake.extend_from_slice(text);
        match whole(&handshake) {
            Whole::Hello(hello) => return name(hello),
            Whole::Other(why) => return Reading::Bad(why),
            Whole::NotYet if after.len() < length => return Reading::More,
            Whole::NotYet => rest = &after[length..],
        }
    }
}

fn if_more(fits: bool) -> Reading {
    match fits {
        true => Reading::More,
        false => Reading::Bad("no TLS handshake"),
    }
}

enum Whole<'a> {
    NotYet,
    Hello(&'a [u8]),
    Other(&'static str),
}

fn whole(handshake: &[u8]) -> Whole<'_> {
    let Some((head, body)) = handshake.split_at_checked(4) else {
        return Whole::NotYet;
    };
    let length = usize::from(head[1]) << 16 | usize::from(head[2]) << 8 | usize::from(head[3]);
    match body.get(..length) {
        _ if head[0] != CLIENT_HELLO => Whole::Other("no ClientHello"),
        _ if length > MAX_RECORD => Whole::Other("a ClientHello of more than 16 KiB"),
        Some(hello) => Whole::Hello(hello),
        None => Whole::NotYet,
    }
}

fn name(hello: &[u8]) -> Reading {
    match server_name(hello) {
        None => Reading::Bad("a ClientHello that ends early"),
        Some(None) => Reading::Name(None),
        Some(Some(name)) => match std::str::from_utf8(name).map(str::parse) {
            Ok(Ok(name)) => Reading::Name(Some(name)),
            _ => Reading::Bad("a server name that is none"),
        },
    }
}

/// None where a length leads outside; then none where there is no such extension.
fn server_name(hello: &[u8]) -> Option<Option<&[u8]>> {
    // The version and 32 octets of randomness.
    let mut rest = Octets(hello.get(34..)?);
    rest.with_length(1)?;
    rest.with_length(2)?;
    rest.with_length(1)?;
    if rest.0.is_empty() {
        return Some(None);
    }
    let mut extensions = Octets(rest.with_length(2)?);
    while !extensions.0.is_empty() {
        let kind = extensions.number(2)?;
        let data = extensions.with_length(2)?;
        if kind != usize::from(SERVER_NAME) {
            continue;
        }
        let mut names = Octets(Octets(data).with_length(2)?);
        while !names.0.is_empty() {
            let kind = names.number(1)?;
            let name = names.with_length(2)?;
            if kind == usize::from(HOST_NAME) {
                return Some(Some(name));
            }
        }
    }
    Some(None)
}

struct Octets<'a>(&'a [u8]);

impl<'a> Octets<'a> {
    fn number(&mut self, octets: usize) -> Option<usize> {
        let (number, rest) = self.0.split_at_checked(octets)?;
        self.0 = rest;
        Some(number.iter().fold(0, |n, b| n << 8 | usize::from(*b)))
    }

    fn with_length(&mut self, octets: usize) -> Option<&'a [u8]> {
        let length = self.number(octets)?;
        let (text, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(text)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;
    use rustls::{ClientConfig, ClientConnection, RootCertStore};

    use super::*;

    /// What rustls says first.
    fn hello(name: &str) -> Vec<u8> {
        let config = ClientConfig::builder()
            .with_root_certificates(RootCertStore::empty())
            .with_no_client_auth();
        let name = name.to_owned().try_into().unwrap();
        let mut client = ClientConnection::new(Arc::new(config), name).unwrap();
        let mut sent = Vec::new();
        client.write_tls(&mut sent).unwrap();
        sent
    }

    /// The same handshake in records of so many octets.
    fn in_records(hello: &[u8], size: usize) -> Vec<u8> {
        let mut out = Vec::new();
        for part in hello[5..].chunks(size) {
            out.extend_from_slice(&[HANDSHAKE, 3, 1]);
            out.extend_from_slice(&u16::try_from(part.len()).unwrap().to_be_bytes());
            out.extend_from_slice(part);
        }
        out
    }

    fn named(name: &str) -> Reading {
        Reading::Name(Some(name.parse().unwrap()))
    }

    #[test]
    fn a_name_is_read_and_its_absence_too() {
        assert_eq!(read(&hello("shop.example")), named("shop.example"));
        assert_eq!(read(&hello("192.0.2.1")), Reading::Name(None));
    }

    #[test]
    fn other_protocols_are_told_at_once() {
        assert_eq!(
            read(b"GET / HTTP/1.1\r\n"),
            Reading::Bad("no TLS handshake")
        );
        assert_eq!(read(b"S"), Reading::Bad("no TLS handshake"));
        let server_hello = [HANDSHAKE, 3, 3, 0, 4, 2, 0, 0, 0];
        assert_eq!(read(&server_hello), Reading::Bad("no ClientHello"));
    }

    proptest! {
        #[test]
        fn however_it_is_cut_it_is_the_same_name(size in 1..600usize, end in 0..2_000usize) {
            let whole = in_records(&hello("shop.example"), size);
            prop_assert_eq!(read(&whole), named("shop.example"));
            let part = &whole[..end.min(whole.len() - 1)];
            prop_assert_eq!(read(part), Reading::More);
        }

        #[test]
        fn nothing_makes_it_panic(data in prop::collection::vec(any::<u8>(), 0..300), at in 0..300usize) {
            read(&data);
            let mut changed = hello("shop.example");
            for (i, b) in data.iter().enumerate().take(4) {
                let at = (at + i * 7) % changed.len();
                changed[at] = *b;
            }
            read(&changed);
        }
    }
}
