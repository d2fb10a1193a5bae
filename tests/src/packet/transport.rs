//! TCP and UDP.

use super::{Ends, Payload, checksum};

/// A TCP header without options.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tcp {
    /// Source port.
    pub sport: u16,
    /// Destination port.
    pub dport: u16,
    /// Sequence number.
    pub seq: u32,
    /// Acknowledged.
    pub ack: u32,
    /// The low octet: FIN 1, SYN 2, RST 4, PSH 8, ACK 16.
    pub flags: u8,
}

impl Tcp {
    /// FIN.
    pub const FIN: u8 = 1;
    /// SYN.
    pub const SYN: u8 = 2;
    /// RST.
    pub const RST: u8 = 4;
    /// ACK.
    pub const ACK: u8 = 16;

    /// The first segment of a connection.
    pub fn syn(sport: u16, dport: u16) -> Tcp {
        Tcp {
            sport,
            dport,
            seq: 1000,
            ack: 0,
            flags: Tcp::SYN,
        }
    }
}

/// A segment.
pub fn tcp(ends: Ends, header: Tcp, data: &[u8]) -> Payload {
    let mut octets = Vec::new();
    octets.extend(header.sport.to_be_bytes());
    octets.extend(header.dport.to_be_bytes());
    octets.extend(header.seq.to_be_bytes());
    octets.extend(header.ack.to_be_bytes());
    octets.extend([5 << 4, header.flags, 0xff, 0xff, 0, 0, 0, 0]);
    octets.extend(data);
    let sum = checksum(&[&ends.pseudo_header(6, octets.len()), &octets]);
    octets[16..18].copy_from_slice(&sum);
    Payload {
        protocol: 6,
        octets,
    }
}

/// A datagram.
pub fn udp(ends: Ends, sport: u16, dport: u16, data: &[u8]) -> Payload {
    let mut octets = Vec::new();
    octets.extend(sport.to_be_bytes());
    octets.extend(dport.to_be_bytes());
    octets.extend(
        u16::try_from(data.len() + 8)
            .expect("a datagram")
            .to_be_bytes(),
    );
    octets.extend([0, 0]);
    octets.extend(data);
    let sum = match checksum(&[&ends.pseudo_header(17, octets.len()), &octets]) {
        [0, 0] => [0xff, 0xff],
        sum => sum,
    };
    octets[6..8].copy_from_slice(&sum);
    Payload {
        protocol: 17,
        octets,
    }
}
