//! `struct virtio_net_hdr`: the note in front of each packet of a device (virtio 1.2 §5.1.6).

use super::Error;

const NEEDS_CHECKSUM: u8 = 1;
const ECN: u8 = 0x80;
const NONE: u8 = 0;

/// What is still to be done to a packet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Offload {
    /// Its checksum is not finished.
    pub checksum: Option<Partial>,
    /// It is to be cut.
    pub gso: Option<Gso>,
    /// How many octets of headers there are; advice only.
    pub headers: u16,
}

/// A checksum whose field holds the sum of the pseudo-header; all from `start` on belongs to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Partial {
    /// Octets from the packet's first to the first that counts.
    pub start: u16,
    /// Octets from there to the field.
    pub field: u16,
}

/// Into what a packet is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gso {
    /// Of what protocol it is.
    pub kind: Kind,
    /// Octets of payload in each segment but the last; not 0.
    pub size: u16,
    /// TCP's CWR is set, and belongs to the first segment alone.
    pub ecn: bool,
}

/// Protocols whose packets are cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// TCP over IPv4.
    Tcp4,
    /// TCP over IPv6.
    Tcp6,
    /// Datagrams of UDP over either, each segment one.
    Udp,
}

impl Kind {
    const fn number(self) -> u8 {
        match self {
            Kind::Tcp4 => 1,
            Kind::Tcp6 => 4,
            Kind::Udp => 5,
        }
    }
}

impl Offload {
    /// Octets of it.
    pub const LEN: usize = 10;

    /// The note, and the packet behind it.
    ///
    /// # Errors
    ///
    /// It is torn, of a kind that isn't known, or wants segments of nothing.
    pub fn decode(frame: &[u8]) -> Result<(Offload, &[u8]), Error> {
        let (header, packet) = frame
            .split_first_chunk::<{ Offload::LEN }>()
            .ok_or(Error::Offload)?;
        let [flags, kind, numbers @ ..] = *header;
        let [headers, size, start, field] = words(numbers);
        let gso = |which| Gso {
            kind: which,
            size,
            ecn: kind & ECN != 0,
        };
        let gso = match kind & !ECN {
            NONE if kind == NONE => None,
            1 => Some(gso(Kind::Tcp4)),
            4 => Some(gso(Kind::Tcp6)),
            5 if kind & ECN == 0 => Some(gso(Kind::Udp)),
            _ => return Err(Error::Offload),
        };
        if gso.is_some_and(|gso| gso.size == 0) {
            return Err(Error::Offload);
        }
        let checksum = (flags & NEEDS_CHECKSUM != 0).then_some(Partial { start, field });
        let offload = Offload {
            checksum,
            gso,
            headers,
        };
        Ok((offload, packet))
    }

    /// The note as the device takes it.
    pub fn encode(&self) -> [u8; Self::LEN] {
        let (start, field) = self.checksum.map_or((0, 0), |c| (c.start, c.field));
        let size = self.gso.map_or(0, |gso| gso.size);
        let mut header = [0; Self::LEN];
        header[0] = if self.checksum.is_some() {
            NEEDS_CHECKSUM
        } else {
            0
        };
        header[1] = self.gso.map_or(NONE, |gso| {
            gso.kind.number() | if gso.ecn { ECN } else { 0 }
        });
        let words = [self.headers, size, start, field];
        for (to, word) in header[2..].as_chunks_mut::<2>().0.iter_mut().zip(words) {
            *to = word.to_ne_bytes();
        }
        header
    }
}

/// The machine's order, unless a device was asked for another.
const fn words(octets: [u8; 8]) -> [u16; 4] {
    let [a, b, c, d, e, f, g, h] = octets;
    [
        u16::from_ne_bytes([a, b]),
        u16::from_ne_bytes([c, d]),
        u16::from_ne_bytes([e, f]),
        u16::from_ne_bytes([g, h]),
    ]
}
