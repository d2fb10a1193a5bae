//! What a datagram at a door claims to be, from its first octets: nothing here is proven.

/// For whom a datagram is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// For whoever drives the node.
    Letter,
    /// A handshake's first message.
    Greeting,
    /// For whoever gave a session this index.
    Session(u32),
    /// For nobody.
    Nothing,
}

impl Kind {
    /// Of a datagram.
    pub fn of(datagram: &[u8]) -> Kind {
        let index_at = match datagram.first() {
            Some(0) => return Kind::Letter,
            Some(1) => return Kind::Greeting,
            Some(2) => 8,
            Some(3 | 4) => 4,
            _ => return Kind::Nothing,
        };
        let index = datagram.get(index_at..).and_then(<[u8]>::first_chunk);
        index.map_or(Kind::Nothing, |index| {
            Kind::Session(u32::from_le_bytes(*index))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_receiver_s_index_stands_where_the_message_has_it() {
        let mut datagram: Vec<u8> = (0..20).collect();
        for (first, kind) in [
            (0, Kind::Letter),
            (1, Kind::Greeting),
            (2, Kind::Session(0x0b0a_0908)),
            (3, Kind::Session(0x0706_0504)),
            (4, Kind::Session(0x0706_0504)),
            (5, Kind::Nothing),
        ] {
            datagram[0] = first;
            assert_eq!(Kind::of(&datagram), kind);
        }
        assert_eq!(Kind::of(&[]), Kind::Nothing);
        assert_eq!(Kind::of(&[4, 0, 0, 0, 1, 2, 3]), Kind::Nothing);
        assert_eq!(Kind::of(&[2, 0, 0, 0, 1, 2, 3, 4, 5]), Kind::Nothing);
    }
}
