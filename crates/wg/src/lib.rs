//! What a userspace WireGuard tunnel does to packets, over slices.
//!
//! A pure crate: no socket, no device, no clock, no randomness of its own.
//!
//! [`segment`] takes apart what the kernel hands over in pieces of up to 64 KiB, and puts it together again at the other end, so that a
//! system call moves dozens of packets.

pub mod segment;
