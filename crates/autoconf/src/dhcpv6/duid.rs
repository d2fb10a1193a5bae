//! DHCP unique identifiers (RFC 8415 §11).

use std::fmt;

use hextet_types::Mac;
use thiserror::Error;

/// A DUID: its type and at most 128 octets more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Duid(Vec<u8>);

/// An identifier that makes a DUID too long or leaves it empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("{0} octets make no DUID: it has 3 to 130")]
pub struct DuidError(usize);

impl Duid {
    /// DUID-LL (RFC 8415 §11.4) of an Ethernet address.
    pub fn link_layer(mac: Mac) -> Duid {
        Duid([&[0, 3, 0, 1][..], &mac.octets()].concat())
    }

    /// DUID-EN (RFC 8415 §11.3): an enterprise's number and an identifier that it chose.
    ///
    /// # Errors
    ///
    /// The identifier has more than 124 octets.
    pub fn enterprise(number: u32, identifier: &[u8]) -> Result<Duid, DuidError> {
        let duid = [&[0, 2][..], &number.to_be_bytes(), identifier].concat();
        if Duid::is_len(duid.len()) {
            Ok(Duid(duid))
        } else {
            Err(DuidError(duid.len()))
        }
    }

    /// DUID-UUID (RFC 6355 §4).
    pub fn uuid(uuid: [u8; 16]) -> Duid {
        Duid([&[0, 4][..], &uuid].concat())
    }

    /// The octets, type included.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    pub(crate) fn is_len(len: usize) -> bool {
        (3..=130).contains(&len)
    }
}

impl fmt::Display for Duid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, octet) in self.0.iter().enumerate() {
            let separator = if i == 0 { "" } else { ":" };
            write!(f, "{separator}{octet:02x}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_written_as_the_rfc_has_it() {
        let mac = Mac::new([2, 0, 0, 0, 0, 1]);
        assert_eq!(
            Duid::link_layer(mac).to_string(),
            "00:03:00:01:02:00:00:00:00:01"
        );
        assert_eq!(
            Duid::uuid([0x11; 16]).to_string(),
            format!("00:04{}", ":11".repeat(16))
        );
        // RFC 8415 §11.3's example.
        let example = Duid::enterprise(9, &[0x0c, 0xc0, 0x84, 0xd3, 3, 0, 9, 0x12]);
        assert_eq!(
            example.map(|duid| duid.to_string()).as_deref(),
            Ok("00:02:00:00:00:09:0c:c0:84:d3:03:00:09:12")
        );
        assert!(Duid::enterprise(9, &[0; 124]).is_ok());
        assert_eq!(Duid::enterprise(9, &[0; 125]), Err(DuidError(131)));
    }
}
