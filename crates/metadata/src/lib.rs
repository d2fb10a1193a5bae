//! The metadata service: what a workload asks of itself at 169.254.169.254, `fe80::a9fe:a9fe` and `fd00:ec2::254`.
//!
//! Who asks is known by the port on which a frame came in, and by nothing in it: no address, no header. So frames are
//! answered here, by a TCP of our own, before any namespace, route or rule: in overlapping networks alike, without
//! port security alike, and without an address of ours in any table of the kernel. The port's program drops in the
//! kernel what is answered here.
//!
//! [`Metadata`] takes frames and the time, and returns frames: no socket, no clock, no task. From the wire upwards:
//! [`frame`] tells what is for us, `stack` is one port's TCP (smoltcp's), [`http`] reads requests and writes answers,
//! [`document`] knows the tree of documents, as OpenStack and EC2 have it. Where Nova is to tell a workload of itself, what it
//! asks is given to the driver, and with the answer it goes on.
//!
//! What always holds: a port gets its own documents alone; connections, octets that wait, and stacks are bounded, a
//! port's and all together; a port that has no connection takes no memory.

pub mod document;
mod engine;
pub mod frame;
pub mod http;
#[cfg(test)]
mod samples;
mod stack;

use std::net::{Ipv4Addr, Ipv6Addr};

pub use document::Facts;
pub use engine::{Action, Event, Metadata, PortConfig};
pub use stack::{Question, QuestionId};

/// Where metadata is asked for in IPv4.
pub const ADDRESS_V4: Ipv4Addr = Ipv4Addr::new(169, 254, 169, 254);
/// On the link, as OpenStack has it.
pub const ADDRESS_LINK_LOCAL: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0xa9fe, 0xa9fe);
/// A unique local address, for clients that cannot use one that has a zone; EC2's.
pub const ADDRESS_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0x0ec2, 0, 0, 0, 0, 0, 0x254);
