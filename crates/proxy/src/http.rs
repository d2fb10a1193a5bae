//! The host in the head of an HTTP/1.x request (RFC 9112 §3.2), and what is said to who means nobody.

use crate::{HostName, Reading};

const MAX_HEADERS: usize = 100;

/// Reads what has come so far.
pub fn read(data: &[u8]) -> Reading {
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut request = httparse::Request::new(&mut headers);
    match request.parse(data) {
        Ok(httparse::Status::Partial) => Reading::More,
        Ok(httparse::Status::Complete(_)) => host(&request),
        Err(httparse::Error::TooManyHeaders) => Reading::Bad("more than 100 header fields"),
        Err(_) => Reading::Bad("no HTTP/1.1 request"),
    }
}

/// A target in absolute form counts before the field (RFC 9112 §3.2.2).
fn host(request: &httparse::Request<'_, '_>) -> Reading {
    let path = request.path.unwrap_or_default();
    let absolute = path
        .split_once("://")
        .filter(|(scheme, _)| scheme.bytes().all(|b| b.is_ascii_alphanumeric()))
        .map(|(_, rest)| rest.split(['/', '?', '#']).next().unwrap_or_default());
    let is_host = |h: &&httparse::Header<'_>| h.name.eq_ignore_ascii_case("host");
    let mut fields = request.headers.iter().filter(is_host);
    let field = match (fields.next(), fields.next()) {
        (Some(_), Some(_)) => return Reading::Bad("several Host fields"),
        (Some(field), None) => match std::str::from_utf8(field.value) {
            Ok(text) => Some(text.trim()),
            Err(_) => return Reading::Bad("a Host field that is no text"),
        },
        (None, _) => None,
    };
    match absolute.or(field) {
        None | Some("") => Reading::Name(None),
        Some(authority) => match name(authority) {
            Some(name) => Reading::Name(Some(name)),
            // An address is nobody's name.
            None => Reading::Name(None),
        },
    }
}

fn name(authority: &str) -> Option<HostName> {
    let after_user = authority
        .rsplit_once('@')
        .map_or(authority, |(_, host)| host);
    let host = match after_user.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|b| b.is_ascii_digit()) => host,
        _ => after_user,
    };
    let name: HostName = host.parse().ok()?;
    let is_number = name
        .as_str()
        .bytes()
        .all(|b| b.is_ascii_digit() || b == b'.');
    (!is_number && !name.as_str().starts_with("*.")).then_some(name)
}

/// A whole answer that ends the connection.
pub fn refusal(status: u16, reason: &str, words: &str) -> String {
    format!(
        "HTTP/1.1 {status} {reason}\r\nContent-Type: text/plain\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{words}\n",
        words.len() + 1
    )
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(head: &str) -> Reading {
        read(head.as_bytes())
    }

    fn named(name: &str) -> Reading {
        Reading::Name(Some(name.parse().unwrap()))
    }

    #[test]
    fn the_host_is_read() {
        let head = "GET / HTTP/1.1\r\nAccept: */*\r\nhOst: Shop.Example:80 \r\n\r\n";
        assert_eq!(of(head), named("shop.example"));
        let head = "GET http://other.example/x HTTP/1.1\r\nHost: shop.example\r\n\r\n";
        assert_eq!(of(head), named("other.example"));
        assert_eq!(of("GET / HTTP/1.0\r\n\r\n"), Reading::Name(None));
        assert_eq!(
            of("GET / HTTP/1.1\r\nHost: 192.0.2.1\r\n\r\n"),
            Reading::Name(None)
        );
        assert_eq!(of("GET / HTTP/1.1\r\nHost: sh"), Reading::More);
    }

    #[test]
    fn what_is_no_request_or_names_two_is_told() {
        let twice = "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n";
        assert_eq!(of(twice), Reading::Bad("several Host fields"));
        assert_eq!(
            of("PRI * HTTP/2.0\r\n\r\n"),
            Reading::Bad("no HTTP/1.1 request")
        );
        assert_eq!(read(&[22, 3, 1]), Reading::Bad("no HTTP/1.1 request"));
    }

    proptest! {
        #[test]
        fn nothing_makes_it_panic(data in prop::collection::vec(any::<u8>(), 0..300)) {
            read(&data);
            let mut head = b"GET / HTTP/1.1\r\nHost: ".to_vec();
            head.extend(&data);
            head.extend(b"\r\n\r\n");
            read(&head);
        }
    }
}
