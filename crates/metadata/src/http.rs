//! Requests and answers of HTTP/1 (RFC 9112), as far as documents need it: bodies of requests have a length, and are
//! short.

use std::fmt;

use crate::document::{Document, Tree};

/// A request's line and headers take at most so many octets.
pub const MAX_HEAD: usize = 8192;
/// So many octets a request may have after its headers.
pub const MAX_BODY: usize = 4096;
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
    /// As it was written.
    pub target: String,
    /// What follows its headers.
    pub body: Vec<u8>,
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
const LENGTH_REQUIRED: Status = Status(411, "Length Required");
const BODY_TOO_LARGE: Status = Status(413, "Content Too Large");
const TOO_LARGE: Status = Status(431, "Request Header Fields Too Large");
const UNAVAILABLE: Status = Status(503, "Service Unavailable");

/// What somebody else answers to a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// A status code.
    pub status: u16,
    /// A media type.
    pub content_type: String,
    /// Its octets.
    pub body: Vec<u8>,
}

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
    let named = |name: &'static str| {
        let fields = request.headers.iter();
        let named = fields.filter(move |field| field.name.eq_ignore_ascii_case(name));
        named.map(|field| field.value)
    };
    let has = |name, token: &str| {
        let mut tokens = named(name).flat_map(|value| value.split(|octet| *octet == b','));
        tokens.any(|value| value.trim_ascii().eq_ignore_ascii_case(token.as_bytes()))
    };
    if named("transfer-encoding").next().is_some() {
        return Reading::Refused(LENGTH_REQUIRED);
    }
    let length = match length(named("content-length")) {
        Some(length) if length <= MAX_BODY => length,
        Some(_) => return Reading::Refused(BODY_TOO_LARGE),
        None => return Reading::Refused(BAD_REQUEST),
    };
    let Some(body) = octets.get(head..head + length) else {
        return Reading::Incomplete;
    };
    let keep_alive = match request.version {
        Some(1) => !has("connection", "close"),
        _ => has("connection", "keep-alive"),
    };
    let request = Request {
        method: method.to_owned(),
        target: target.to_owned(),
        body: body.to_vec(),
        keep_alive,
    };
    Reading::Request(request, head + length)
}

/// How long a body is (RFC 9112 §6.3); none if it is said in several ways, or not by a number.
fn length<'a>(mut said: impl Iterator<Item = &'a [u8]>) -> Option<usize> {
    let Some(first) = said.next() else {
        return Some(0);
    };
    let digits = str::from_utf8(first).ok()?;
    let is_number = !digits.is_empty() && digits.bytes().all(|octet| octet.is_ascii_digit());
    if !is_number || said.any(|other| other != first) {
        return None;
    }
    Some(digits.parse().unwrap_or(usize::MAX))
}

/// The answer to a request.
pub fn answer(tree: &Tree<'_>, request: &Request) -> Vec<u8> {
    let path = request.target.split(['?', '#']).next().unwrap_or_default();
    let document = tree.get(path);
    let known = ["GET", "HEAD"].contains(&request.method.as_str());
    let (status, document) = match document {
        Some(document) if known => (OK, document),
        Some(_) => return not_allowed("GET, HEAD", request.keep_alive),
        None => (NOT_FOUND, Document::text("")),
    };
    let body = document.body.as_slice();
    let shown = if request.method == "HEAD" { &[] } else { body };
    let end = End(request.keep_alive);
    write(status, document.content_type, body.len(), shown, end)
}

/// The answer that somebody else gave; none if nobody could be asked. Without its octets where only the `head` was asked for.
pub fn relayed(answer: Option<&Answer>, head: bool, keep_alive: bool) -> Vec<u8> {
    let end = End(keep_alive);
    let Some(answer) = answer else {
        return write(UNAVAILABLE, Document::TEXT, 0, &[], end);
    };
    let printable = |octet: u8| octet == b' ' || octet.is_ascii_graphic();
    let content_type = match answer.content_type.as_str() {
        said if !said.is_empty() && said.bytes().all(printable) => said,
        _ => Document::OCTETS,
    };
    let shown = if head { &[] } else { answer.body.as_slice() };
    let status = Status(answer.status, words(answer.status));
    write(status, content_type, answer.body.len(), shown, end)
}

fn words(status: u16) -> &'static str {
    match status {
        200 => "OK",
        204 => "No Content",
        400 => "Bad Request",
        403 => "Forbidden",
        404 => "Not Found",
        409 => "Conflict",
        429 => "Too Many Requests",
        500 => "Internal Server Error",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        _ => "",
    }
}

/// The answer to a method that is not one of these.
pub fn not_allowed(methods: &'static str, keep_alive: bool) -> Vec<u8> {
    let more = format!("Allow: {methods}\r\n{}", End(keep_alive));
    write(METHOD_NOT_ALLOWED, Document::TEXT, 0, &[], more)
}

/// The answer to what is no request.
pub fn refusal(status: Status) -> Vec<u8> {
    write(status, Document::TEXT, 0, &[], End(false))
}

/// Whether another request may follow, as a header.
struct End(bool);

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let connection = if self.0 { "keep-alive" } else { "close" };
        write!(f, "Connection: {connection}\r\n")
    }
}

fn write(
    Status(number, words): Status,
    content_type: &str,
    length: usize,
    body: &[u8],
    more: impl fmt::Display,
) -> Vec<u8> {
    let head = format!(
        "HTTP/1.1 {number} {words}\r\nServer: hextet\r\nContent-Type: {content_type}\r\n\
         Content-Length: {length}\r\n{more}\r\n"
    );
    [head.as_bytes(), body].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(text: &str) -> Reading {
        read(text.as_bytes())
    }

    fn get(target: &str, keep_alive: bool, octets: usize) -> Reading {
        let request = Request {
            method: "GET".to_owned(),
            target: target.to_owned(),
            body: Vec::new(),
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
            ("GET /a?b#c HTTP/1.1\r\n\r\nGET", get("/a?b#c", true, 23)),
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
                "GET / HTTP/1.1\r\nContent-Length: 0\r\n\r\n",
                get("/", true, 37),
            ),
            ("\x16\x03\x01", Reading::Refused(BAD_REQUEST)),
            ("GET / HTTP/9\r\n\r\n", Reading::Refused(BAD_REQUEST)),
        ];
        for (text, reading) in cases {
            assert_eq!(request(text), reading, "{text:?}");
        }
    }

    #[test]
    fn a_body_has_a_length_and_a_bound() {
        let post = |headers: &str, body: &str| {
            request(&format!("POST /p HTTP/1.1\r\n{headers}\r\n{body}"))
        };
        let length = |of: usize| format!("Content-Length: {of}\r\n");
        assert_eq!(post(&length(4), "abc"), Reading::Incomplete);
        let Reading::Request(read, octets) = post(&length(4), "abcdGET /") else {
            panic!("no request");
        };
        assert_eq!((read.body, octets), (b"abcd".to_vec(), 18 + 19 + 2 + 4));
        let both = length(4).repeat(2);
        assert!(matches!(post(&both, "abcd"), Reading::Request(..)));
        let refused = [
            (length(MAX_BODY + 1), BODY_TOO_LARGE),
            (format!("{}{}", length(4), length(5)), BAD_REQUEST),
            ("Content-Length: -1\r\n".to_owned(), BAD_REQUEST),
            ("Content-Length: \r\n".to_owned(), BAD_REQUEST),
            ("Content-Length: 4, 4\r\n".to_owned(), BAD_REQUEST),
            (length(9).replace('9', &"9".repeat(30)), BODY_TOO_LARGE),
            ("Transfer-Encoding: chunked\r\n".to_owned(), LENGTH_REQUIRED),
        ];
        for (headers, status) in refused {
            assert_eq!(
                post(&headers, "abcd"),
                Reading::Refused(status),
                "{headers}"
            );
        }
    }

    #[test]
    fn what_others_answer_is_handed_on() {
        let answer = Answer {
            status: 200,
            content_type: "text/x\r\nSet-Cookie: a".to_owned(),
            body: b"abc".to_vec(),
        };
        let text = |answer, head| String::from_utf8(relayed(answer, head, true)).unwrap();
        let whole = text(Some(&answer), false);
        assert!(whole.starts_with("HTTP/1.1 200 OK\r\n"), "{whole}");
        assert!(!whole.contains("Set-Cookie"), "{whole}");
        assert!(whole.ends_with("\r\n\r\nabc"), "{whole}");
        let head = text(Some(&answer), true);
        assert!(head.contains("Content-Length: 3\r\n"), "{head}");
        assert!(head.ends_with("\r\n\r\n"), "{head}");
        assert!(text(None, false).starts_with("HTTP/1.1 503 "));
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
