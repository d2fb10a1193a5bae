//! From a stream of octets to messages.

use super::{Code, HEADER_LEN, MAX_EXTENDED_LEN, MAX_LEN, MessageType, Notification};

/// Cuts the octets of one connection into messages and checks their headers (RFC 4271 §6.1).
///
/// Between two calls it holds less than one message, so at most 65,534 octets, and while it is read
/// it holds what was pushed besides.
#[derive(Debug, Default)]
pub struct Framer {
    buffer: Vec<u8>,
    start: usize,
    extended: bool,
}

impl Framer {
    /// An empty one for messages of at most 4,096 octets.
    pub fn new() -> Self {
        Framer::default()
    }

    /// From now on messages may have 65,535 octets, except OPEN and KEEPALIVE (RFC 8654 §4).
    pub fn allow_extended(&mut self) {
        self.extended = true;
    }

    /// Octets waiting.
    pub fn buffered(&self) -> usize {
        self.buffer.len() - self.start.min(self.buffer.len())
    }

    /// Adds received octets; call [`Framer::next_message`] until it has none.
    pub fn push(&mut self, octets: &[u8]) {
        if self.start >= self.buffer.len() {
            self.buffer.clear();
        } else if self.start > 0 {
            self.buffer.drain(..self.start);
        }
        self.start = 0;
        self.buffer.extend_from_slice(octets);
    }

    /// The next whole message: its type and body.
    ///
    /// # Errors
    ///
    /// The NOTIFICATION to send; the connection is to be closed and the framer with it.
    pub fn next_message(&mut self) -> Result<Option<(MessageType, &[u8])>, Notification> {
        let pending = self.buffer.get(self.start..).unwrap_or_default();
        let Some((header, _)) = pending.split_first_chunk::<HEADER_LEN>() else {
            return Ok(None);
        };
        let (kind, len) = check_header(header, self.extended)?;
        let Some(body) = pending.get(HEADER_LEN..len) else {
            return Ok(None);
        };
        self.start += len;
        Ok(Some((kind, body)))
    }
}

fn check_header(
    header: &[u8; HEADER_LEN],
    extended: bool,
) -> Result<(MessageType, usize), Notification> {
    let [marker @ .., len_high, len_low, kind] = header;
    if marker.iter().any(|octet| *octet != 0xff) {
        return Err(Notification::new(Code::HEADER_NOT_SYNCHRONIZED));
    }
    let bad_length = || Notification::with_data(Code::HEADER_BAD_LENGTH, &[*len_high, *len_low]);
    let len = usize::from(u16::from_be_bytes([*len_high, *len_low]));
    if len < HEADER_LEN {
        return Err(bad_length());
    }
    let Some(kind) = MessageType::from_octet(*kind) else {
        return Err(Notification::with_data(Code::HEADER_BAD_TYPE, &[*kind]));
    };
    let longest = match kind {
        MessageType::Keepalive => HEADER_LEN,
        MessageType::Open => MAX_LEN,
        _ if extended => MAX_EXTENDED_LEN,
        _ => MAX_LEN,
    };
    // A ROUTE-REFRESH of another length has an error code of its own (RFC 7313 §5).
    let shortest = match kind {
        MessageType::RouteRefresh => HEADER_LEN,
        _ => kind.min_len(),
    };
    if (shortest..=longest).contains(&len) {
        Ok((kind, len))
    } else {
        Err(bad_length())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::Message;

    #[test]
    fn finds_messages_however_they_are_cut() {
        let mut stream = Message::Keepalive.encode();
        stream.extend(
            Message::Notification(Notification::with_data(Code::REJECTED, &[1, 2, 3])).encode(),
        );
        stream.extend(Message::Keepalive.encode());
        for cut in 1..stream.len() {
            let mut framer = Framer::new();
            let mut kinds = Vec::new();
            for chunk in stream.chunks(cut) {
                framer.push(chunk);
                while let Some((kind, body)) = framer.next_message().unwrap() {
                    kinds.push((kind, body.len()));
                }
                assert!(framer.buffered() < MAX_LEN);
            }
            assert_eq!(
                kinds,
                [
                    (MessageType::Keepalive, 0),
                    (MessageType::Notification, 5),
                    (MessageType::Keepalive, 0)
                ]
            );
        }
    }

    #[test]
    fn bad_headers_get_the_notification_of_the_rfc() {
        let header = |len: u16, kind: u8| {
            let mut h = vec![0xff; 16];
            h.extend(len.to_be_bytes());
            h.push(kind);
            h
        };
        let mut unsynchronized = header(19, 4);
        unsynchronized[3] = 0;
        let cases = [
            (unsynchronized, Code::HEADER_NOT_SYNCHRONIZED, vec![]),
            (header(18, 4), Code::HEADER_BAD_LENGTH, vec![0, 18]),
            (header(20, 4), Code::HEADER_BAD_LENGTH, vec![0, 20]),
            (header(28, 1), Code::HEADER_BAD_LENGTH, vec![0, 28]),
            (header(22, 2), Code::HEADER_BAD_LENGTH, vec![0, 22]),
            (header(20, 3), Code::HEADER_BAD_LENGTH, vec![0, 20]),
            (header(4097, 2), Code::HEADER_BAD_LENGTH, vec![0x10, 1]),
            (header(19, 6), Code::HEADER_BAD_TYPE, vec![6]),
            (header(19, 0), Code::HEADER_BAD_TYPE, vec![0]),
        ];
        for (octets, code, data) in cases {
            let mut framer = Framer::new();
            framer.push(&octets);
            assert_eq!(
                framer.next_message().unwrap_err(),
                Notification { code, data },
                "{octets:?}"
            );
        }
    }

    #[test]
    fn long_messages_only_once_they_are_allowed_and_never_an_open() {
        let mut framer = Framer::new();
        framer.allow_extended();
        let mut update = Vec::new();
        crate::packet::framed(&mut update, MessageType::Update, |b| b.resize(65_535, 0));
        update.truncate(MAX_EXTENDED_LEN);
        crate::packet::wire::patch_u16(&mut update, 16, MAX_EXTENDED_LEN);
        framer.push(&update);
        let (kind, body) = framer.next_message().unwrap().unwrap();
        assert_eq!((kind, body.len()), (MessageType::Update, 65_516));
        let mut open = vec![0xff; 16];
        open.extend([0x10, 1, 1]);
        framer.push(&open);
        assert!(framer.next_message().is_err());
    }
}
