//! What the cloud is meant to be, and what one host has to do for it.
//!
//! * [`neutron`]: the resources, as the networking API shows them.
//! * [`intent`]: what one host is told of them, as a snapshot and as changes.
//! * [`plan`]: from intent to state, at once or change by change; both give the same.
//! * [`state`]: everything that must stand in one host's kernel and engines.
//! * [`explain`]: what becomes of a packet there, and why.
//!
//! Nothing here does I/O, reads a clock or draws a random number.

pub mod explain;
pub mod intent;
pub mod neutron;
pub mod plan;
pub mod state;
