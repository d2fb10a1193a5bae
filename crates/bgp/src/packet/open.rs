//! OPEN (RFC 4271 §4.2, §6.2).

use std::net::Ipv4Addr;

use hextet_types::Asn;

use super::{
    Capability, Code, HEADER_LEN, MAX_LEN, Notification, Reader,
    capability::{ParameterError, decode_parameters, encode_parameters},
    put_u16,
};

/// An OPEN message of version 4.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Open {
    /// The two-octet field; [`Open::asn`] is the sender's number.
    pub my_as: u16,
    /// Seconds; 0, or at least 3.
    pub hold_time_secs: u16,
    /// The sender's BGP identifier; never 0.0.0.0 (RFC 6286).
    pub identifier: Ipv4Addr,
    /// In the order they came.
    pub capabilities: Vec<Capability>,
}

const VERSION: u8 = 4;

impl Open {
    /// The two-octet field for a number (RFC 6793 §9).
    pub fn two_octets(asn: Asn) -> u16 {
        u16::try_from(asn.0).unwrap_or(23_456)
    }

    /// The sender's AS: the four-octet capability's, else the two-octet field's.
    pub fn asn(&self) -> Asn {
        let four = self.capabilities.iter().find_map(|c| match c {
            Capability::FourOctetAs(asn) => Some(*asn),
            _ => None,
        });
        four.unwrap_or(Asn(u32::from(self.my_as)))
    }

    /// Reads the body of a message.
    ///
    /// # Errors
    ///
    /// The NOTIFICATION to send (RFC 4271 §6.2).
    pub fn decode_body(body: &[u8]) -> Result<Self, Notification> {
        let malformed = || Notification::new(Code::OPEN_MALFORMED);
        if body.len() > MAX_LEN - HEADER_LEN {
            return Err(malformed());
        }
        let mut r = Reader::new(body);
        let version = r.u8().ok_or_else(malformed)?;
        if version != VERSION {
            return Err(Notification::with_data(Code::OPEN_VERSION, &[0, VERSION]));
        }
        let my_as = r.u16().ok_or_else(malformed)?;
        let hold_time_secs = r.u16().ok_or_else(malformed)?;
        let identifier = Ipv4Addr::from(r.u32().ok_or_else(malformed)?);
        let capabilities = decode_parameters(&mut r).map_err(|error| match error {
            ParameterError::Malformed => malformed(),
            ParameterError::Unsupported(kind) => {
                Notification::with_data(Code::OPEN_PARAMETER, &[kind])
            }
        })?;
        let open = Open {
            my_as,
            hold_time_secs,
            identifier,
            capabilities,
        };
        if open.asn() == Asn(0) {
            return Err(Notification::new(Code::OPEN_PEER_AS));
        }
        if matches!(hold_time_secs, 1 | 2) {
            return Err(Notification::new(Code::OPEN_HOLD_TIME));
        }
        if identifier.is_unspecified() {
            return Err(Notification::new(Code::OPEN_BGP_ID));
        }
        Ok(open)
    }

    pub(crate) fn encode_body(&self, out: &mut Vec<u8>) {
        out.push(VERSION);
        put_u16(out, self.my_as);
        put_u16(out, self.hold_time_secs);
        out.extend_from_slice(&self.identifier.octets());
        encode_parameters(&self.capabilities, MAX_LEN - HEADER_LEN - 9, out);
    }
}
