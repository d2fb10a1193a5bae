//! `hextet doctor`.

use std::net::IpAddr;

use clap::Args;
use hextet_types::IfName;

use super::Output;

/// `hextet doctor`.
#[derive(Debug, Args)]
pub struct Doctor {
    /// Look at this link alone; otherwise at all that are up, but for ports of workloads.
    #[arg(long)]
    pub link: Option<IfName>,
    /// Ask this address, too: whether somebody answers for it, and whether large packets come through. More than once for several.
    #[arg(long, value_name = "ADDRESS")]
    pub ask: Vec<IpAddr>,
    /// How to answer.
    #[command(flatten)]
    pub output: Output,
}
