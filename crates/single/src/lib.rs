//! One host by itself: server and agent in one process, and the networks that follow from what its uplink has.
//!
//! * [`uplink`], [`network`], [`proposal`]: pure; what the host has, the networks that follow, and those in words.
//! * [`keeper`]: keeps the networks as the uplink has them, while prefixes come and go; [`delegation`]: asks for prefixes.
//! * [`serve`], [`service`], [`down`]: the process, what starts it, and putting everything back.
//! * [`workload`], [`expose`], [`sites`]: what people ask for.
//!
//! What always holds: nothing here touches the kernel but through the agent, except for the namespaces that workloads
//! are started in; nobody needs to ask before `up`, and nothing is left after `down`.

pub mod cloud;
pub mod delegation;
pub mod down;
pub mod expose;
pub mod keeper;
pub mod network;
pub mod places;
pub mod proposal;
pub mod serve;
pub mod service;
pub mod sites;
pub mod uplink;
pub mod workload;

pub use cloud::Cloud;
pub use places::{Places, Settings};
pub use uplink::{Asked, Uplink};
