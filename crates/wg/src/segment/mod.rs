//! Super-packets: what a TUN device with `IFF_VNET_HDR` gives and takes.
//!
//! The kernel hands over TCP and UDP in pieces of up to 64 KiB, each with one set of headers and a note ([`Offload`]) how to cut it.
//! [`Split`] cuts it straight into slots of a buffer, headers and checksums finished; [`Merger`] puts neighbouring packets of one flow
//! together again. What is cut and then merged is what it was, and what is merged and then cut, too (of IPv4 identifications only
//! where they mean something, RFC 6864 §4).
//!
//! Packets begin with their IP header. They may come from anybody: no sequence of octets makes this panic, or write past a slot.

mod checksum;
mod headers;
mod merge;
mod offload;
mod split;
#[cfg(test)]
mod tests;

pub use merge::Merger;
pub use offload::{Gso, Kind, Offload, Partial};
pub use split::{Batch, Room, Split};

/// What can't be cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The note in front of the packet is torn, or of a kind that nobody asked for.
    #[error("no header of the device before the packet")]
    Offload,
    /// The packet is not what the note says of it.
    #[error("the packet is not of the kind, or not as long, as the device says")]
    Packet,
    /// Not one segment fits into the buffer that was given.
    #[error("a segment is longer than the buffer for all of them")]
    Room,
}
