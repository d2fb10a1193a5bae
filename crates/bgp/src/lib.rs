//! BGP-4 as an engine without I/O.

pub mod config;
mod jitter;
pub mod packet;
pub mod policy;
mod rib;
pub mod session;
pub mod speaker;

pub use rib::Hop;
pub use speaker::{Action, Event, RouteChange, Speaker};
