//! Babel (RFC 8966): the best path through a mesh, by distance vectors that never loop.
//!
//! A pure crate: no socket, no clock, no randomness of its own.
//!
//! From the wire upwards: [`number`] has the numbers that wrap or are infinite, [`packet`] is the codec, [`mac`] signs, [`neighbour`] what packets say
//! of the links that they come by, [`source`] what keeps routes from looping, [`table`] which routes there are, [`engine`] a node,
//! [`config`] what may be said of it.

pub mod config;
pub mod engine;
pub mod mac;
pub mod neighbour;
pub mod number;
pub mod packet;
mod random;
pub mod source;
pub mod table;
mod timers;

use std::net::Ipv6Addr;

pub use config::{Config, Cost, Link, LinkId, NextHopV4, RttCost, Start};
pub use engine::{Action, Engine, Event};
pub use table::Way;

/// The UDP port that Babel is spoken from and to (RFC 8966 §4).
pub const PORT: u16 = 6696;

/// The group that all nodes of a link hear (RFC 8966 §4).
pub const GROUP: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 1, 6);
