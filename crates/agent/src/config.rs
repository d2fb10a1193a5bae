//! The agent's configuration: one TOML file, read and checked whole before anything starts.

mod check;

use std::{
    fs,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use hextet_model::plan::HostConfig;
use hextet_types::{Asn, HostId, IfName};
use serde::Deserialize;

/// `hextet agent --config FILE`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AgentConfig {
    /// Where the server's listener for agents is: `ADDRESS:PORT`, `NAME:PORT` or `[ADDRESS]:PORT`.
    pub server: String,
    /// Certificate, key, last intent and former sysctls.
    #[serde(default = "default_state_dir")]
    pub state_dir: PathBuf,
    /// The socket that `hextet status`, `plan` and `explain` ask.
    #[serde(default = "default_control_socket")]
    pub control_socket: PathBuf,
    /// Where `/metrics` listens.
    #[serde(default = "default_metrics")]
    pub metrics: SocketAddr,
    /// Whether ports' programs run by TCX where the kernel has it (Linux 6.6), which costs a packet less than
    /// tc does.
    #[serde(default = "default_tcx")]
    pub tcx: bool,
    /// The host's own address of the underlay by which others reach it by tunnels; without one it takes no ports of
    /// private networks. With the mesh as uplink it is the node's address unless said otherwise.
    pub tunnel_address: Option<IpAddr>,
    /// Whether routers may translate for others on this host.
    #[serde(default = "default_gateway")]
    pub gateway: bool,
    /// What planning needs to know of this host.
    pub host: HostConfig,
    /// What makes workloads reachable, where that is not BGP.
    pub uplink: Option<Uplink>,
    /// The node's socket, where the mesh is the uplink.
    #[serde(default = "default_mesh_socket")]
    pub mesh_socket: PathBuf,
    /// The BGP speaker; without it, and without another uplink, nothing is announced.
    pub bgp: Option<BgpConfig>,
}

/// What makes workloads reachable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Uplink {
    /// The node of a mesh on this host (`hextet mesh run`).
    Mesh,
}

/// `[bgp]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BgpConfig {
    /// Our autonomous system.
    pub asn: Asn,
    /// Unique among the speakers (RFC 4271 §4.2).
    pub router_id: Ipv4Addr,
    /// Seconds; 0, or at least 3.
    #[serde(default = "default_hold_time")]
    pub hold_time_secs: u16,
    /// How long our routes stay in use at peers while no agent runs (RFC 4724); at most 4,095.
    #[serde(default = "default_restart_time")]
    pub restart_time_secs: u16,
    /// How long after that (RFC 9494).
    #[serde(default = "default_long_lived")]
    pub long_lived_stale_secs: u32,
    /// Equal paths used at once.
    #[serde(default = "default_maximum_paths")]
    pub maximum_paths: u8,
    /// Whether paths through different systems, but through equally many, are equal, too.
    #[serde(default)]
    pub multipath_relax: bool,
    /// What is taken from peers.
    #[serde(default)]
    pub import: Import,
    /// Whom we talk to; at least one.
    pub peers: Vec<PeerConfig>,
}

/// What is taken from peers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Import {
    /// Every route.
    #[default]
    All,
    /// Only a default route of each family.
    DefaultOnly,
}

/// `[[bgp.peers]]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PeerConfig {
    /// For status and logs.
    pub name: String,
    /// The peer's address; link-local ones need `interface`.
    pub address: IpAddr,
    /// The interface that the peer is on.
    pub interface: Option<IfName>,
    /// Its autonomous system.
    pub asn: Asn,
    /// Watch it by BFD.
    #[serde(default)]
    pub bfd: bool,
    /// Transmit and receive interval; detection takes three of them.
    #[serde(default = "default_bfd_interval")]
    pub bfd_interval_millis: u32,
    /// A file with the TCP MD5 password (RFC 2385), readable by its owner only.
    pub password_file: Option<PathBuf>,
    /// Accept only packets from directly connected peers (RFC 5082).
    #[serde(default)]
    pub gtsm: bool,
    /// Prefixes of one family beyond which the session is ended.
    #[serde(default = "default_maximum_prefixes")]
    pub maximum_prefixes: u32,
}

fn default_state_dir() -> PathBuf {
    "/var/lib/hextet/agent".into()
}

fn default_control_socket() -> PathBuf {
    "/run/hextet/agent.sock".into()
}

fn default_mesh_socket() -> PathBuf {
    "/run/hextet/mesh.sock".into()
}

fn default_metrics() -> SocketAddr {
    SocketAddr::from(([0, 0, 0, 0, 0, 0, 0, 1], 9798))
}

const fn default_tcx() -> bool {
    true
}

const fn default_gateway() -> bool {
    true
}

const fn default_hold_time() -> u16 {
    30
}

const fn default_restart_time() -> u16 {
    600
}

const fn default_long_lived() -> u32 {
    86_400
}

const fn default_maximum_paths() -> u8 {
    8
}

const fn default_bfd_interval() -> u32 {
    100
}

const fn default_maximum_prefixes() -> u32 {
    2_000_000
}

impl AgentConfig {
    /// Reads the file.
    ///
    /// # Errors
    ///
    /// It can't be read, is no TOML, has an unknown or missing key (with its line), or says something
    /// that cannot be.
    pub fn load(path: &Path) -> Result<AgentConfig> {
        let text = fs::read_to_string(path)
            .with_context(|| format!("read the agent's configuration {}", path.display()))?;
        let config: AgentConfig =
            toml::from_str(&text).with_context(|| format!("in {}", path.display()))?;
        check::check(&config).with_context(|| format!("in {}", path.display()))?;
        Ok(config)
    }

    /// The socket of the node of a mesh, where that is the uplink.
    pub fn mesh(&self) -> Option<&Path> {
        let Uplink::Mesh = self.uplink?;
        Some(&self.mesh_socket)
    }

    /// The name of this host.
    pub fn host_id(&self) -> &HostId {
        &self.host.host
    }
}
