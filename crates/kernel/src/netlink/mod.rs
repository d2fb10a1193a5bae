//! Netlink as all of the kernel's network interfaces speak it: messages, attributes, sockets.
//!
//! It knows nothing of routes or tables. One codec serves rtnetlink, nf_tables, ctnetlink and tc: it
//! takes what it knows from a message and leaves the rest, so that a newer kernel's attributes do not
//! hurt. Reading never panics, whatever the bytes.

mod attr;
mod carrier;
mod message;
mod monitor;
mod numbered;
mod socket;

pub use attr::{Attrs, addr, be16, be32, be64, ne16, ne32, text, u8 as octet};
pub use carrier::CarrierMonitor;
pub use message::{Batch, Message, flags};
pub use monitor::{Everywhere, Heard, LinkSettings, MAX_IGNORED, Monitor, TableHearing, Wake};
pub use socket::{Answer, Outcome, Socket};
#[cfg(feature = "fuzzing")]
pub use {monitor::hear, socket::answers};
