//! ROUTE-REFRESH (RFC 2918) and its enhancement (RFC 7313).

use super::{Afi, Code, Notification, Reader, put_u16};

/// What a ROUTE-REFRESH says (RFC 7313 §3.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RefreshKind {
    /// Send me your routes again.
    Request,
    /// Here they begin.
    Begin,
    /// Here they end.
    End,
}

/// A ROUTE-REFRESH message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RouteRefresh {
    /// The family meant.
    pub family: Afi,
    /// What it says; `None` for a subtype that must be ignored.
    pub kind: Option<RefreshKind>,
}

impl RouteRefresh {
    /// Reads the body of a message.
    ///
    /// # Errors
    ///
    /// The body is not four octets long.
    pub fn decode_body(body: &[u8]) -> Result<Self, Notification> {
        let mut reader = Reader::new(body);
        let (Some(afi), Some(subtype), Some(safi), true) =
            (reader.u16(), reader.u8(), reader.u8(), reader.is_empty())
        else {
            return Err(Notification::with_data(Code::REFRESH_LENGTH, body));
        };
        let kind = match subtype {
            0 => Some(RefreshKind::Request),
            1 => Some(RefreshKind::Begin),
            2 => Some(RefreshKind::End),
            _ => None,
        };
        let family = Afi { afi, safi };
        Ok(RouteRefresh { family, kind })
    }

    pub(crate) fn encode_body(&self, out: &mut Vec<u8>) {
        put_u16(out, self.family.afi);
        out.push(match self.kind {
            Some(RefreshKind::Request) => 0,
            Some(RefreshKind::Begin) => 1,
            Some(RefreshKind::End) => 2,
            None => u8::MAX,
        });
        out.push(self.family.safi);
    }
}
