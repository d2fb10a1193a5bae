//! `hextet up`, `down`, `run` and `expose`: one host by itself.

use std::path::PathBuf;

use clap::{Args, ValueHint};
use hextet_proxy::HostName;
use hextet_single::{Asked, Places};
use hextet_types::{IfName, Prefix};

use super::Output;

/// Where everything is kept.
#[derive(Clone, Debug, Args)]
pub struct PlacesOptions {
    /// The directory of what lasts.
    #[arg(long, env = "HEXTET_STATE_DIR", default_value = "/var/lib/hextet/single",
        value_name = "DIRECTORY", value_hint = ValueHint::DirPath)]
    pub state_dir: PathBuf,
    /// The directory of sockets.
    #[arg(long, env = "HEXTET_RUN_DIR", default_value = "/run/hextet",
        value_name = "DIRECTORY", value_hint = ValueHint::DirPath)]
    pub run_dir: PathBuf,
}

impl PlacesOptions {
    /// As the crate has it.
    pub fn places(&self) -> Places {
        Places {
            state: self.state_dir.clone(),
            run: self.run_dir.clone(),
        }
    }
}

/// `hextet up`.
#[derive(Debug, Args)]
pub struct Up {
    /// The link that leads outside; by default that of the default route.
    #[arg(long, value_name = "LINK")]
    pub uplink: Option<IfName>,
    /// Take addresses out of this part of the link's prefix only, from /64 to /120.
    #[arg(long, value_name = "PREFIX")]
    pub prefix: Option<Prefix>,
    /// The provider routes this prefix here.
    #[arg(long, value_name = "PREFIX")]
    pub routed: Option<Prefix>,
    /// Ask nobody on the link for a prefix (DHCPv6).
    #[arg(long)]
    pub no_delegation: bool,
    /// Show what would be done, and do nothing.
    #[arg(long)]
    pub dry_run: bool,
    /// Make no systemd unit: a process in the background, which does not come back after a reboot.
    #[arg(long)]
    pub background: bool,
    /// Run what was set up, until told to end: what the unit does.
    #[arg(long, conflicts_with_all = ["uplink", "prefix", "routed", "no_delegation", "dry_run", "background", "json"])]
    pub foreground: bool,
    /// How to answer.
    #[command(flatten)]
    pub output: Output,
    /// Where everything is kept.
    #[command(flatten)]
    pub places: PlacesOptions,
}

impl Up {
    /// What is asked for besides what is found.
    pub fn asked(&self) -> Asked {
        Asked {
            link: self.uplink.clone(),
            cut: self.prefix,
            routed: self.routed,
            no_delegation: self.no_delegation,
        }
    }
}

/// `hextet down`.
#[derive(Debug, Args)]
pub struct Down {
    /// Keep the networks, names and addresses for the next 'hextet up'.
    #[arg(long)]
    pub keep: bool,
    /// Where everything is kept.
    #[command(flatten)]
    pub places: PlacesOptions,
}

/// `hextet run`.
#[derive(Debug, Args)]
pub struct Run {
    /// The workload's name, by which it has the same addresses again next time; without one, it has new ones each time.
    #[arg(long)]
    pub name: Option<String>,
    /// The network; by default the best of this host.
    #[arg(long)]
    pub network: Option<String>,
    /// A security group; by default `open`, which anybody may reach. More than once for several.
    #[arg(long = "security-group", value_name = "GROUP")]
    pub groups: Vec<String>,
    /// Where everything is kept.
    #[command(flatten)]
    pub places: PlacesOptions,
    /// What to run in there.
    #[arg(last = true, required = true)]
    pub command: Vec<String>,
}

/// `hextet expose`.
#[derive(Debug, Args)]
pub struct Expose {
    /// The workload; without one, what is exposed is listed.
    pub name: Option<String>,
    /// The host's port.
    #[arg(value_parser = clap::value_parser!(u16).range(1..))]
    pub port: Option<u16>,
    /// The workload's port, where it is another.
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..), conflicts_with = "remove")]
    pub to: Option<u16>,
    /// tcp, udp, sctp or dccp.
    #[arg(long, default_value = "tcp", value_parser = ["tcp", "udp", "sctp", "dccp"])]
    pub protocol: String,
    /// Instead of a whole port: who asks for this name at port 80 or 443, by the Host field or TLS's server name; `*.example` for
    /// any beside it.
    #[arg(long, value_name = "NAME", requires = "name", conflicts_with_all = ["port", "to", "protocol"])]
    pub host: Option<HostName>,
    /// The workload's port for requests to port 80.
    #[arg(long, value_name = "PORT", default_value_t = 80, value_parser = clap::value_parser!(u16).range(1..))]
    pub http: u16,
    /// The workload's port for TLS to port 443, which is passed through.
    #[arg(long, value_name = "PORT", default_value_t = 443, value_parser = clap::value_parser!(u16).range(1..))]
    pub https: u16,
    /// Tell the workload the client's address first (the PROXY protocol, version 2).
    #[arg(long, requires = "host")]
    pub proxy_protocol: bool,
    /// Close it again.
    #[arg(long, requires = "name")]
    pub remove: bool,
    /// How to answer.
    #[command(flatten)]
    pub output: Output,
    /// Where everything is kept.
    #[command(flatten)]
    pub places: PlacesOptions,
}

/// `hextet proxy`.
#[derive(Debug, Args)]
pub struct Proxy {
    /// Where everything is kept.
    #[command(flatten)]
    pub places: PlacesOptions,
}
