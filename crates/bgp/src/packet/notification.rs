//! NOTIFICATION: why a session ends (RFC 4271 §4.5, §6; RFC 4486, 8538, 9003).

use std::fmt;

use serde::Serialize;

use super::wire::Reader;

/// An error code and its subcode.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize)]
pub struct Code(pub u8, pub u8);

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = ($code:literal, $sub:literal), $text:literal;)*) => {
        impl Code {
            $($(#[$doc])* pub const $name: Code = Code($code, $sub);)*

            const fn text(self) -> Option<&'static str> {
                match (self.0, self.1) {
                    $(($code, $sub) => Some($text),)*
                    _ => None,
                }
            }
        }
    };
}

codes! {
    /// The marker is not all ones.
    HEADER_NOT_SYNCHRONIZED = (1, 1), "connection not synchronized";
    /// The length does not fit the type, or is over the maximum.
    HEADER_BAD_LENGTH = (1, 2), "bad message length";
    /// No such message type.
    HEADER_BAD_TYPE = (1, 3), "bad message type";
    /// An OPEN that cannot be read.
    OPEN_MALFORMED = (2, 0), "malformed OPEN";
    /// A version other than 4.
    OPEN_VERSION = (2, 1), "unsupported version number";
    /// Not the AS that was configured.
    OPEN_PEER_AS = (2, 2), "bad peer AS";
    /// Zero, or our own where it must differ.
    OPEN_BGP_ID = (2, 3), "bad BGP identifier";
    /// A parameter that is no capability.
    OPEN_PARAMETER = (2, 4), "unsupported optional parameter";
    /// One or two seconds.
    OPEN_HOLD_TIME = (2, 6), "unacceptable hold time";
    /// No family in common (RFC 5492 §3).
    OPEN_CAPABILITY = (2, 7), "unsupported capability";
    /// Lengths that contradict one another, or an attribute twice.
    UPDATE_ATTRIBUTE_LIST = (3, 1), "malformed attribute list";
    /// A well-known attribute that nobody knows.
    UPDATE_UNRECOGNIZED = (3, 2), "unrecognized well-known attribute";
    /// ORIGIN, AS_PATH or NEXT_HOP is not there.
    UPDATE_MISSING = (3, 3), "missing well-known attribute";
    /// Flags that do not fit the type.
    UPDATE_FLAGS = (3, 4), "attribute flags error";
    /// A length that does not fit the type.
    UPDATE_LENGTH = (3, 5), "attribute length error";
    /// ORIGIN over 2.
    UPDATE_ORIGIN = (3, 6), "invalid ORIGIN attribute";
    /// A next hop that is no host's address.
    UPDATE_NEXT_HOP = (3, 8), "invalid NEXT_HOP attribute";
    /// MP_REACH_NLRI, MP_UNREACH_NLRI or another optional attribute.
    UPDATE_OPTIONAL = (3, 9), "optional attribute error";
    /// NLRI or withdrawn routes that cannot be read.
    UPDATE_NETWORK = (3, 10), "invalid network field";
    /// An AS_PATH that cannot be read.
    UPDATE_AS_PATH = (3, 11), "malformed AS_PATH";
    /// Nothing heard for the hold time.
    HOLD_TIMER = (4, 0), "hold timer expired";
    /// A message that the state has no place for.
    FSM = (5, 0), "finite state machine error";
    /// The same in OpenSent (RFC 6608).
    FSM_OPEN_SENT = (5, 1), "unexpected message in OpenSent";
    /// The same in OpenConfirm (RFC 6608).
    FSM_OPEN_CONFIRM = (5, 2), "unexpected message in OpenConfirm";
    /// The same in Established (RFC 6608).
    FSM_ESTABLISHED = (5, 3), "unexpected message in Established";
    /// More routes than configured; data: AFI, SAFI, the limit (RFC 4486).
    MAX_PREFIXES = (6, 1), "maximum number of prefixes reached";
    /// Shut down by its operator; may carry a text (RFC 9003).
    ADMIN_SHUTDOWN = (6, 2), "administrative shutdown";
    /// The peer is no longer configured.
    PEER_DECONFIGURED = (6, 3), "peer de-configured";
    /// Reset by its operator; may carry a text (RFC 9003).
    ADMIN_RESET = (6, 4), "administrative reset";
    /// Not now.
    REJECTED = (6, 5), "connection rejected";
    /// The configuration changed.
    CONFIGURATION = (6, 6), "other configuration change";
    /// The other of two connections stays (RFC 4271 §6.8).
    COLLISION = (6, 7), "connection collision resolution";
    /// No more memory, or no more of what is bounded.
    RESOURCES = (6, 8), "out of resources";
    /// Ends graceful restart, too; data: the code and data meant (RFC 8538 §3).
    HARD_RESET = (6, 9), "hard reset";
    /// BFD says that the path is gone (RFC 9384).
    BFD_DOWN = (6, 10), "BFD down";
    /// A ROUTE-REFRESH of the wrong length (RFC 7313 §5).
    REFRESH_LENGTH = (7, 1), "invalid ROUTE-REFRESH length";
    /// Nothing could be sent for too long (RFC 9687).
    SEND_HOLD_TIMER = (8, 0), "send hold timer expired";
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.text() {
            Some(text) => f.write_str(text),
            None => write!(f, "error {}/{}", self.0, self.1),
        }
    }
}

impl fmt::Debug for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{} {self}", self.0, self.1)
    }
}

/// A NOTIFICATION message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Notification {
    /// What went wrong.
    pub code: Code,
    /// What belongs to it; at most as much as fits a message of 4,096 octets.
    pub data: Vec<u8>,
}

/// The longest data of a NOTIFICATION.
const MAX_DATA: usize = super::MAX_LEN - super::HEADER_LEN - 2;
/// The longest shutdown communication in octets (RFC 9003 §2).
const MAX_TEXT: usize = 255;

impl Notification {
    /// One without data.
    pub const fn new(code: Code) -> Self {
        Notification {
            code,
            data: Vec::new(),
        }
    }

    /// One with data, cut to what a message holds.
    pub fn with_data(code: Code, data: &[u8]) -> Self {
        let data = data.get(..MAX_DATA).unwrap_or(data).to_vec();
        Notification { code, data }
    }

    /// An administrative shutdown or reset with a text of at most 255 octets, cut at a character.
    pub fn with_communication(code: Code, text: &str) -> Self {
        let text = text
            .char_indices()
            .map(|(at, c)| at + c.len_utf8())
            .take_while(|end| *end <= MAX_TEXT)
            .last()
            .and_then(|end| text.get(..end))
            .unwrap_or_default();
        if text.is_empty() {
            return Notification::new(code);
        }
        let mut data = vec![super::wire::len_u8(text.len())];
        data.extend_from_slice(text.as_bytes());
        Notification { code, data }
    }

    /// The same as a Hard Reset: it ends graceful restart, too (RFC 8538 §3).
    #[must_use]
    pub fn into_hard_reset(self) -> Self {
        let mut data = vec![self.code.0, self.code.1];
        data.extend_from_slice(&self.data);
        Notification::with_data(Code::HARD_RESET, &data)
    }

    /// What a Hard Reset means, or the notification itself.
    #[must_use]
    pub fn inner(&self) -> Notification {
        match (self.code, self.data.as_slice()) {
            (Code::HARD_RESET, [code, sub, data @ ..]) => {
                Notification::with_data(Code(*code, *sub), data)
            }
            _ => self.clone(),
        }
    }

    /// The operator's text of a shutdown or reset (RFC 9003 §2); what is no UTF-8 is replaced, and
    /// control characters are, too, since it goes to logs and terminals.
    pub fn communication(&self) -> Option<String> {
        let inner = self.inner();
        if !matches!(inner.code, Code::ADMIN_SHUTDOWN | Code::ADMIN_RESET) {
            return None;
        }
        let mut reader = Reader::new(&inner.data);
        let len = reader.u8()?;
        let text = String::from_utf8_lossy(reader.take(usize::from(len))?).into_owned();
        let clean = |c: char| {
            if c.is_control() {
                char::REPLACEMENT_CHARACTER
            } else {
                c
            }
        };
        (!text.is_empty()).then(|| text.chars().map(clean).collect())
    }

    /// Reads the body of a message.
    ///
    /// # Errors
    ///
    /// The body has fewer than two octets; the answer is what the header check would have said.
    pub fn decode_body(body: &[u8]) -> Result<Self, Notification> {
        match body {
            [code, sub, data @ ..] => Ok(Notification::with_data(Code(*code, *sub), data)),
            _ => Err(Notification::new(Code::HEADER_BAD_LENGTH)),
        }
    }

    pub(crate) fn encode_body(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&[self.code.0, self.code.1]);
        out.extend(self.data.iter().take(MAX_DATA));
    }
}

impl fmt::Display for Notification {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.code == Code::HARD_RESET && self.data.len() >= 2 {
            write!(f, "hard reset: {}", self.inner().code)?;
        } else {
            write!(f, "{}", self.code)?;
        }
        match self.communication() {
            Some(text) => write!(f, " (\"{text}\")"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shutdown_text_is_cut_at_a_character_and_cleaned() {
        let long = "é".repeat(200);
        let n = Notification::with_communication(Code::ADMIN_SHUTDOWN, &long);
        assert_eq!(n.data.len(), 255);
        assert_eq!(n.communication(), Some("é".repeat(127)));
        let n = Notification::with_data(Code::ADMIN_RESET, b"\x05a\x1b[2Jxyz");
        assert_eq!(n.communication().as_deref(), Some("a\u{fffd}[2J"));
        let n = Notification::with_data(Code::ADMIN_RESET, b"\x09short");
        assert_eq!(n.communication(), None);
    }

    #[test]
    fn a_hard_reset_carries_what_it_means() {
        let n = Notification::with_communication(Code::ADMIN_SHUTDOWN, "moving");
        let hard = n.clone().into_hard_reset();
        assert_eq!(hard.code, Code::HARD_RESET);
        assert_eq!(hard.inner(), n);
        assert_eq!(
            hard.to_string(),
            "hard reset: administrative shutdown (\"moving\")"
        );
    }

    #[test]
    fn data_over_a_message_is_cut() {
        let n = Notification::with_data(Code::UPDATE_NETWORK, &[7; 9000]);
        assert_eq!(n.data.len(), MAX_DATA);
    }
}
