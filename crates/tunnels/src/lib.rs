//! Userspace tunnels: WireGuard between TUN devices and UDP sockets, in a process of its own.
//!
//! The process does what a kernel without WireGuard can't, and therefore lives as a kernel does: whoever controls it may go and come back
//! ([`control`]), and no packet is lost by it. It knows nothing of meshes, routes or certificates. Each tunnel has one interface
//! and one peer, and carries everything that is routed to it, of both families, multicast included. All of them may share one port, by
//! which letters between nodes come as well ([`letters`]). Where UDP does not pass, both go by streams of TLS ([`streams`]).
//!
//! Packets move in pieces of up to 64 KiB: from a device as super-packets, which are cut, sealed and sent in one call ([`outward`]); from
//! the socket as many datagrams at once, which are opened, merged and written in one ([`inward`]). Each way of a tunnel has one thread, so
//! that nothing is reordered.

mod budget;
mod climb;
pub mod control;
mod datagrams;
mod door;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
mod inbox;
mod inward;
pub mod kernel;
mod key;
pub mod letters;
mod outward;
mod path;
pub mod process;
mod reception;
mod search;
mod session;
mod sockets;
mod spec;
mod streams;
mod tally;
mod tunnel;
mod ways;
mod wire;

pub use key::{Key, KeyError};
pub use spec::{Listen, Mtu, MtuError, Spec};
