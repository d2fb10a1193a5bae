//! A node of a mesh as it runs on a host: the driver of [`hextet_mesh::node::Node`] and of Babel.
//!
//! [`run`] is one task that owns the node and what it knows; [`babel`] has a thread of its own, [`tunnels`] another, which talks to the
//! process that holds userspace tunnels; [`lan`] finds others on the same network; [`ways`] are the kernel's routes, [`direct`] watches those that are not the mesh's, [`rules`] whom it lets in; [`mapping`] keeps a port open at the gateway in front of it, [`gateway`] is one for others, [`map`] draws the whole mesh. [`memory`] is what outlives it on the disk.
//!
//! What always holds: its end, however it comes, changes nothing in the kernel nor in the tunnels. Whoever starts next takes over what
//! stands.

pub mod babel;
mod capacity;
mod classes;
pub mod clock;
pub mod config;
pub mod control;
mod direct;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
mod gateway;
mod host;
mod lan;
pub mod map;
pub mod mapping;
pub mod memory;
mod metrics;
mod rules;
mod run;
pub mod served;
pub mod status;
pub mod trace;
mod tunnels;
mod ways;

pub use run::run;
