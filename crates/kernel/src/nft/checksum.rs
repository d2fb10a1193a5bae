//! Which checksum follows what a rule writes into a packet.

/// `NFT_PAYLOAD_L4CSUM_PSEUDOHDR`.
const CSUM_PSEUDO_HEADER: u32 = 1;

/// Which checksum follows what is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Checksum {
    /// None.
    None,
    /// That of an IPv4 header.
    Ipv4Header,
    /// That of the transport, where the pseudo-header changes.
    PseudoHeader,
}

impl Checksum {
    pub(super) const ALL: [Checksum; 3] =
        [Checksum::None, Checksum::Ipv4Header, Checksum::PseudoHeader];

    /// Type (`NFT_PAYLOAD_CSUM_INET` is 1), offset and flags.
    pub(super) const fn numbers(self) -> [u32; 3] {
        match self {
            Checksum::None => [0, 0, 0],
            Checksum::Ipv4Header => [1, 10, 0],
            Checksum::PseudoHeader => [0, 0, CSUM_PSEUDO_HEADER],
        }
    }

    pub(super) fn of(numbers: [u32; 3]) -> Option<Checksum> {
        Self::ALL.into_iter().find(|c| c.numbers() == numbers)
    }
}
