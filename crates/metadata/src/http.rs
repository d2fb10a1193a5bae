//! Requests and answers of HTTP/1 (RFC 9112), as far as documents need it: `GET` and `HEAD`, no bodies of requests.

use crate::document::{Document, Tree};

/// A request's line and headers take at most so many octets.
pub const MAX_HEAD: usize = 8192;
const MAX_HEADERS: usize = 64;

/// What came of the octets so far.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reading {
    /// More has to come.
    Incomplete,
    /// A request, of so many octets.
    Request(Request, usize),
    /// None that can be answered but by this status; nothing that follows can be read.
    Refused(Status),
}

/// A request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// `GET` or `HEAD`, or another.
    pub method: String,
    /// Without what follows `?`.
    pub path: String,
    /// Another request may follow.
    pub keep_alive: bool,
}

/// A status line's number and words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Status(pub u16, pub &'static str);

const OK: Status = Status(200, "OK");
const BAD_REQUEST: Status = Status(400, "Bad Request");
const NOT_FOUND: Status = Status(404, "Not Found");
const METHOD_NOT_ALLOWED: Status = Status(405, "Method Not Allowed");
const TOO_LARGE: Status = Status(431, "Request Header Fields Too Large");

/// Reads what has come on a connection.
pub fn read(octets: &[u8]) -> Reading {
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut request = httparse::Request::new(&mut headers);
    let head = match request.parse(octets) {
        Ok(httparse::Status::Complete(head)) if head <= MAX_HEAD => head,
        Ok(httparse::Status::Complete(_)) | Err(httparse::Error::TooManyHeaders) => {
            return Reading::Refused(TOO_LARGE);
        }
        Ok(httparse::Status::Partial) if octets.len() < MAX_HEAD => return Reading::Incomplete,
        Ok(httparse::Status::Partial) => return Reading::Refused(TOO_LARGE),
        Err(_) => return Reading::Refused(BAD_REQUEST),
    };
    let (Some(method), Some(target)) = (request.method, request.path) else {
        return Reading::Refused(BAD_REQUEST);
    };
    let has = |name: &str, token: &str| {
        let fields = request.headers.iter();
        let values = fields.filter(|field| field.name.eq_ignore_ascii_case(name));
        let mut tokens = values.flat_map(|field| field.value.split(|octet| *octet == b','));
        tokens.any(|value| value.trim_ascii().eq_ignore_ascii_case(token.as_bytes()))
    };
    // A body would be taken for the next request.
    let no_body = |field: &httparse::Header<'_>| {
        let length = field.name.eq_ignore_ascii_case("content-length");
        !field.name.eq_ignore_ascii_case("transfer-encoding") && (!length || field.value == b"0")
    };
    let keep_alive = match request.version {
        Some(1) => !has("connection", "close"),
        _ => has("connection", "keep-alive"),
    };
    let path = target.split(['?', '#']).next().unwrap_or_default();
    let request = Request {
        method: method.to_owned(),
        path: path.to_owned(),
        keep_alive: keep_alive && request.headers.iter().all(no_body),
    };
    Reading::Request(request, head)
}

/// The answer to a request.
pub fn answer(tree: &Tree<'_>, request: &Request) -> Vec<u8> {
    let document = tree.get(&request.path);
    let known = ["GET", "HEAD"].contains(&request.method.as_str());
    let (status, document) = match document {
        Some(document) if known => (OK, document),
        Some(_) => (METHOD_NOT_ALLOWED, Document::text("")),
        None => (NOT_FOUND, Document::text("")),
    };
    let body = document.body.as_slice();
    let shown = if request.method == "HEAD" { &[] } else { body };
    write(
        status,
        document.content_type,
        body.len(),
        shown,
        request.keep_alive,
    )
}

/// The answer to what is no request.
pub fn refusal(status: Status) -> Vec<u8> {
    write(status, Document::TEXT, 0, &[], false)
}

fn write(
    Status(number, words): Status,
    content_type: &str,
    length: usize,
    body: &[u8],
    keep_alive: bool,
) -> Vec<u8> {
    let connection = if keep_alive { "keep-alive" } else { "close" };
    let allow = match number {
        405 => "Allow: GET, HEAD\r\n",
        _ => "",
    };
    let head = format!(
        "HTTP/1.1 {number} {words}\r\nServer: hextet\r\nContent-Type: {content_type}\r\n\
         Content-Length: {length}\r\n{allow}Connection: {connection}\r\n\r\n"
    );
    [head.as_bytes(), body].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(text: &str) -> Reading {
        read(text.as_bytes())
    }

    fn get(path: &str, keep_alive: bool, octets: usize) -> Reading {
        let request = Request {
            method: "GET".to_owned(),
            path: path.to_owned(),
            keep_alive,
        };
        Reading::Request(request, octets)
    }

    #[test]
    fn requests_are_read() {
        let cases = [
            ("", Reading::Incomplete),
            ("GET / HTTP/1.1\r\nHost: a\r\n", Reading::Incomplete),
            ("GET / HTTP/1.1\r\n\r\n", get("/", true, 18)),
            ("GET /a?b#c HTTP/1.1\r\n\r\nGET", get("/a", true, 23)),
            ("GET / HTTP/1.0\r\n\r\n", get("/", false, 18)),
            (
                "GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n",
                get("/", true, 42),
            ),
            (
                "GET / HTTP/1.1\r\nconnection: te, close\r\n\r\n",
                get("/", false, 41),
            ),
            (
                "GET / HTTP/1.1\r\nContent-Length: 3\r\n\r\n",
                get("/", false, 37),
            ),
            ("\x16\x03\x01", Reading::Refused(BAD_REQUEST)),
            ("GET / HTTP/9\r\n\r\n", Reading::Refused(BAD_REQUEST)),
        ];
        for (text, reading) in cases {
            assert_eq!(request(text), reading, "{text:?}");
        }
    }

    #[test]
    fn a_head_has_its_bound() {
        let long = |len: usize| format!("GET /{} HTTP/1.1\r\n\r\n", "a".repeat(len - 18));
        assert!(matches!(
            request(&long(MAX_HEAD)),
            Reading::Request(_, MAX_HEAD)
        ));
        assert_eq!(request(&long(MAX_HEAD + 1)), Reading::Refused(TOO_LARGE));
        assert_eq!(
            request(&long(MAX_HEAD)[..MAX_HEAD - 1]),
            Reading::Incomplete
        );
        let many = format!(
            "GET / HTTP/1.1\r\n{}\r\n",
            "a: b\r\n".repeat(MAX_HEADERS + 1)
        );
        assert_eq!(request(&many), Reading::Refused(TOO_LARGE));
    }
}
