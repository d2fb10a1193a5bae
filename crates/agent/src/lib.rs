//! The agent: makes one host what the cloud means it to be.
//!
//! It follows the server's intent, plans, and keeps the kernel equal to the plan; it answers the ports'
//! RA and DHCP, speaks BGP and BFD, and tells the server how ports fare. The kernel forwards without it:
//! whenever the agent ends, nothing is torn down.
//!
//! Threads and tasks, each the only owner of its state:
//!
//! | who | owns |
//! |---|---|
//! | [`reconciler`] | planner, kernel, journal |
//! | [`lookout`] | sockets that read the whole kernel |
//! | [`flows`] | sockets that walk the connection table |
//! | [`responder`] | the RA and DHCP engine, the packet socket |
//! | [`bgp`] | the BGP engine and its connections |
//! | [`bfd`] | the BFD engine and its sockets |
//! | [`probe`] | the engine that watches other hosts' kernels, and its socket |
//! | [`arrival`] | sockets on standbys' links |
//! | [`subscription`], [`reporter`], [`herald`], [`rollcall`] | the connections to the server |

mod announcement;
mod arrival;

pub mod bfd;
pub mod bgp;
mod client;
pub use hextet_node::clock;
pub mod config;
mod control;
mod doubt;
mod explain;
mod flows;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
mod herald;
mod identity;
pub mod journal;
mod lookout;
mod membership;
mod mesh;
mod meters;
mod metrics;
mod monitor;
mod next_hop;
mod probe;
mod querier;
mod reconciler;
mod relay;
pub mod report;
mod reporter;
mod responder;
mod rollcall;
mod run;
mod subscription;
mod uplinks;

pub use mesh::forget as withdraw;
pub use run::{has_joined, join, leave, run, run_told};
pub use subscription::Update;
