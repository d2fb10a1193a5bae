//! Forwarding, measured from outside: what passes between two workloads, and what that costs, whoever forwards.

pub mod contest;
mod flood;
mod meter;
mod traffic;
pub mod workload;

use anyhow::Result;
use hextet_lab::Node;

pub use contest::{Contest, Kind};
pub use meter::Meter;
pub use traffic::Traffic;
pub use workload::{DISCARD, GATEWAY, Workload};

/// Two workloads that reach each other.
pub struct Path {
    /// The one that begins.
    pub one: Workload,
    /// The one that answers.
    pub two: Workload,
    /// Where connections are tracked between them, as far as they are: on a host, in its own namespace or in one
    /// that has a name there.
    pub tracking: Vec<(Node, Option<String>)>,
}

impl Path {
    /// Forgets all connections.
    ///
    /// # Errors
    ///
    /// `conntrack` fails.
    pub fn forget_connections(&self) -> Result<()> {
        for (host, netns) in &self.tracking {
            let mut words = Vec::new();
            if let Some(netns) = netns {
                words.extend(["ip", "netns", "exec", netns]);
            }
            words.extend(["conntrack", "-F"]);
            host.run(&words)?;
        }
        Ok(())
    }
}
