//! Many hosts on one machine: a lab of network namespaces, links between them, and programs in them.
//!
//! A lab is a small TOML file ([`LabFile`]), brought up by [`Lab::up`] and torn down by [`Lab::down`] or
//! by a [`LabGuard`] that goes out of scope. Everything that a lab makes is found again by its name alone:
//! namespaces `hxlab-LAB-NODE`, and files below `/run/hextet/labs/LAB`. So `down` also works after a crash,
//! from another process, and any number of times.
//!
//! This crate knows nothing of hextet's server, agent or engines; to a lab they are programs like any
//! other. It does not look at the machine's own network and changes nothing in it. All calls block: from
//! asynchronous code, wrap them in `spawn_blocking`.
//!
//! ```no_run
//! use hextet_lab::{Lab, LabFile};
//!
//! let file = LabFile::read("labs/fabric.toml".as_ref())?.named("fabric-test")?;
//! let lab = Lab::up(file)?.guard();
//! let h1 = lab.node("h1")?;
//! assert!(h1.ping("fe80::2%up1".as_ref())?);
//! # Ok::<(), hextet_lab::Error>(())
//! ```

mod address;
mod error;
mod fault;
mod file;
pub mod guest;
mod lab;
mod node;
mod ping;
mod process;
mod record;
mod template;
mod wait;
mod wiring;

pub use address::{InterfaceAddress, InterfaceAddressError};
pub use error::Error;
pub use fault::Fault;
pub use file::{Bridge, LabFile, Link, LinkEnd, NodeSpec, ProcessSpec, Ready};
pub use lab::{Downed, Lab, LabGuard, LabSummary, list};
pub use node::Node;
pub use ping::{PingReport, PingStream};
pub use process::Process;
pub use wait::wait_until;
