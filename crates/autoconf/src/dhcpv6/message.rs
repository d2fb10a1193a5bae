//! The DHCPv6 message between client and server: type, transaction, options (RFC 8415 §8, §21.1).
//!
//! Options stay octets: only what the responder needs is interpreted, one level deep, so that nothing
//! a client nests can cost more than its length. What always holds: decoding ends, whatever the octets;
//! `decode(encode(x)) == x`.

use crate::reader::Reader;

/// Message types (RFC 8415 §7.3).
pub mod message_type {
    /// A client looks for servers.
    pub const SOLICIT: u8 = 1;
    /// A server offers.
    pub const ADVERTISE: u8 = 2;
    /// A client wants what was offered.
    pub const REQUEST: u8 = 3;
    /// A client asks whether its addresses fit the link.
    pub const CONFIRM: u8 = 4;
    /// A client extends with its server.
    pub const RENEW: u8 = 5;
    /// A client extends with any server.
    pub const REBIND: u8 = 6;
    /// A server answers.
    pub const REPLY: u8 = 7;
    /// A client gives back.
    pub const RELEASE: u8 = 8;
    /// A client found that somebody else has the address.
    pub const DECLINE: u8 = 9;
    /// A client wants everything but addresses.
    pub const INFORMATION_REQUEST: u8 = 11;
    /// A relay passes a client's message on.
    pub const RELAY_FORW: u8 = 12;
    /// A server answers by way of a relay.
    pub const RELAY_REPL: u8 = 13;
}

/// Numbers of options (RFC 8415 §21, and as noted).
pub mod code {
    /// The client's DUID.
    pub const CLIENT_ID: u16 = 1;
    /// The server's DUID.
    pub const SERVER_ID: u16 = 2;
    /// Identity association for addresses.
    pub const IA_NA: u16 = 3;
    /// Identity association for temporary addresses.
    pub const IA_TA: u16 = 4;
    /// An address in an identity association.
    pub const IA_ADDR: u16 = 5;
    /// Options that a client wants.
    pub const OPTION_REQUEST: u16 = 6;
    /// How much a server wants to be chosen.
    pub const PREFERENCE: u16 = 7;
    /// Hundredths of seconds that a client has been trying.
    pub const ELAPSED_TIME: u16 = 8;
    /// How something went.
    pub const STATUS_CODE: u16 = 13;
    /// Two messages instead of four.
    pub const RAPID_COMMIT: u16 = 14;
    /// DNS servers (RFC 3646).
    pub const DNS_SERVERS: u16 = 23;
    /// Domains to search (RFC 3646).
    pub const DOMAIN_LIST: u16 = 24;
    /// Identity association for prefixes.
    pub const IA_PD: u16 = 25;
    /// A prefix in an identity association.
    pub const IA_PREFIX: u16 = 26;
    /// SNTP servers (RFC 4075).
    pub const SNTP_SERVERS: u16 = 31;
    /// Seconds until a stateless client asks again.
    pub const INFORMATION_REFRESH_TIME: u16 = 32;
    /// NTP servers (RFC 5908).
    pub const NTP_SERVER: u16 = 56;
    /// The longest wait between Solicits.
    pub const SOL_MAX_RT: u16 = 82;
}

/// Status codes (RFC 8415 §21.13) with the text that goes with them.
pub mod status {
    /// A code and its text.
    pub type Status = (u16, &'static str);

    /// All went well.
    pub const SUCCESS: Status = (0, "");
    /// No address for this identity association.
    pub const NO_ADDRS_AVAIL: Status = (2, "no address for this IA on this port");
    /// No such identity association here.
    pub const NO_BINDING: Status = (3, "nothing of this port in this IA");
    /// An address that does not belong here.
    pub const NOT_ON_LINK: Status = (4, "not an address of this port");
    /// To be sent to all servers.
    pub const USE_MULTICAST: Status = (5, "use ff02::1:2");
    /// No prefix for this identity association.
    pub const NO_PREFIX_AVAIL: Status = (6, "no prefix for this IA on this port");
}

/// Options in the order of the message; a number may occur more than once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options(Vec<(u16, Vec<u8>)>);

impl Options {
    /// Adds an option at the end, unless it is longer than any option can be.
    pub fn push(&mut self, code: u16, data: &[u8]) {
        if data.len() <= usize::from(u16::MAX) {
            self.0.push((code, data.to_owned()));
        }
    }

    /// Leaves out what does not fit into so many octets, the last first.
    pub(super) fn fit(&mut self, room: usize) {
        let mut left = room;
        self.0
            .retain(|(_, data)| match left.checked_sub(data.len() + 4) {
                Some(rest) => {
                    left = rest;
                    true
                }
                None => false,
            });
    }

    /// Adds a status code with its text.
    pub fn push_status(&mut self, (code, text): status::Status) {
        let data = [&code.to_be_bytes()[..], text.as_bytes()].concat();
        self.push(code::STATUS_CODE, &data);
    }

    /// The octets of the first option of this number.
    pub fn get(&self, code: u16) -> Option<&[u8]> {
        self.iter().find(|(c, _)| *c == code).map(|(_, data)| data)
    }

    /// Each option, in order.
    pub fn iter(&self) -> impl Iterator<Item = (u16, &[u8])> {
        self.0.iter().map(|(code, data)| (*code, data.as_slice()))
    }

    /// Reads options until the end; `None` if the last one is cut off.
    pub fn decode(octets: &[u8]) -> Option<Options> {
        let mut reader = Reader::new(octets);
        let mut list = Vec::new();
        while !reader.is_empty() {
            let code = reader.u16()?;
            let len = reader.u16()?;
            list.push((code, reader.take(usize::from(len))?.to_owned()));
        }
        Some(Options(list))
    }

    /// Their octets.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        for (code, data) in self.iter() {
            out.extend_from_slice(&code.to_be_bytes());
            let len = u16::try_from(data.len()).unwrap_or(u16::MAX);
            out.extend_from_slice(&len.to_be_bytes());
            out.extend_from_slice(data);
        }
        out
    }
}

/// A DHCPv6 message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// One of [`message_type`].
    pub message_type: u8,
    /// The transaction, as the client numbers it.
    pub transaction_id: [u8; 3],
    /// All options.
    pub options: Options,
}

impl Message {
    /// Octets before the options.
    pub const HEADER_LEN: usize = 4;

    /// Reads a UDP payload; `None` if it is cut off.
    pub fn decode(payload: &[u8]) -> Option<Message> {
        let mut reader = Reader::new(payload);
        let message_type = reader.u8()?;
        let transaction_id = reader.array()?;
        Some(Message {
            message_type,
            transaction_id,
            options: Options::decode(reader.rest())?,
        })
    }

    /// Writes a UDP payload.
    pub fn encode(&self) -> Vec<u8> {
        let [a, b, c] = self.transaction_id;
        let mut out = vec![self.message_type, a, b, c];
        out.extend(self.options.encode());
        out
    }

    /// Whether it has an identity association of any kind.
    pub(super) fn has_ia(&self) -> bool {
        let ia = |code| matches!(code, code::IA_NA | code::IA_TA | code::IA_PD);
        self.options.iter().any(|(code, _)| ia(code))
    }

    /// The options that the client wants, if it says so.
    pub(super) fn requested(&self) -> Option<Vec<u16>> {
        let list = self.options.get(code::OPTION_REQUEST)?;
        let (codes, _) = list.as_chunks::<2>();
        Some(codes.iter().map(|code| u16::from_be_bytes(*code)).collect())
    }
}
