//! What an operator says of a node: a file in TOML, in which nothing is necessary.

use std::{
    collections::BTreeMap,
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use hextet_mesh::{letter::MAX_STRANDS, topology::Reach};
use hextet_types::{IfName, Prefix};
use serde::Deserialize;

/// The port of UDP by which nodes are reached from outside of the mesh.
pub const PORT: u16 = 6698;

/// The port of TCP by which nodes are reached whose UDP is blocked: that of HTTPS passes nearly everywhere.
pub const TLS_PORT: u16 = 443;

/// The configuration.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Where `hextet mesh join` put the key and what the registry answered.
    pub directory: PathBuf,
    /// Where people ask how it stands.
    pub socket: PathBuf,
    /// The socket of the process that holds userspace tunnels. If none listens there, one is started.
    pub tunnels: PathBuf,
    /// The port of UDP by which others reach this node, of both families.
    pub port: u16,
    /// The interfaces towards the world, if there are several to be used at once: 2 to 4. The second has a port that is ten more, and so on.
    pub uplinks: Vec<IfName>,
    /// Whether the kernel's WireGuard carries what it can, where there is one and no `uplinks` are named.
    pub kernel: bool,
    /// Where streams of TLS are taken, for those whose UDP is blocked, if anybody can reach this node.
    pub tls: Streams,
    /// Whether the gateway in front of this host is asked to let others reach this node: by PCP, NAT-PMP or UPnP.
    pub port_mapping: bool,
    /// Who can reach it; found out if it is left out.
    #[serde(deserialize_with = "reach")]
    pub reach: Option<Reach>,
    /// Whether packets of others are forwarded.
    pub forward: bool,
    /// Destinations outside of the network's own prefixes to which ways by the mesh are taken.
    pub accept: Vec<Prefix>,
    /// Prefixes besides its own to which others are shown the way.
    pub announce: Vec<Prefix>,
    /// Whether others leave the network by this host.
    pub gateway: bool,
    /// Whether what this host sends leaves the network by others, where it has the network's addresses or no other way.
    pub default: bool,
    /// Interfaces on whose networks other nodes are looked for, and how packets go to those.
    pub lan: BTreeMap<IfName, Mode>,
    /// Interfaces whose addresses are told to nobody.
    pub hide: Vec<IfName>,
    /// Where `/metrics` is served, without any authentication; nowhere if it is left out.
    pub metrics: Option<SocketAddr>,
}

/// How packets go on a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// As they are: whoever is on that network can read and forge them.
    Bare,
    /// In tunnels, as everywhere.
    Tunnels,
}

/// Whether streams are taken, and at which port of TCP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
pub enum Streams {
    /// At [`TLS_PORT`], or nowhere.
    Whether(bool),
    /// There.
    At(u16),
}

impl Default for Streams {
    fn default() -> Streams {
        Streams::Whether(true)
    }
}

impl Streams {
    /// The port, if they are.
    pub const fn port(self) -> Option<u16> {
        match self {
            Streams::Whether(true) => Some(TLS_PORT),
            Streams::Whether(false) => None,
            Streams::At(port) => Some(port),
        }
    }
}

impl Default for Config {
    fn default() -> Config {
        Config {
            directory: "/var/lib/hextet/mesh".into(),
            socket: "/run/hextet/mesh.sock".into(),
            tunnels: "/run/hextet/tunnels.sock".into(),
            port: PORT,
            uplinks: Vec::new(),
            kernel: true,
            tls: Streams::default(),
            port_mapping: true,
            reach: None,
            forward: true,
            accept: Vec::new(),
            announce: Vec::new(),
            gateway: false,
            default: false,
            lan: BTreeMap::new(),
            hide: Vec::new(),
            metrics: None,
        }
    }
}

fn reach<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Option<Reach>, D::Error> {
    #[derive(Deserialize)]
    #[serde(rename_all = "kebab-case")]
    enum Word {
        Public,
        Punchable,
        Closed,
    }
    Ok(Some(match Word::deserialize(from)? {
        Word::Public => Reach::Public,
        Word::Punchable => Reach::Punchable,
        Word::Closed => Reach::Closed,
    }))
}

impl Config {
    /// Reads it.
    ///
    /// # Errors
    ///
    /// There is none, or a line of it says nothing that is known.
    pub fn load(path: &Path) -> Result<Config> {
        let text = fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
        Config::parse(&text).with_context(|| format!("understand {}", path.display()))
    }

    pub(crate) fn parse(text: &str) -> Result<Config> {
        let config: Config = toml::from_str(text)?;
        anyhow::ensure!(
            config.port != 0,
            "port = 0: others have to know it, 1 to 65535"
        );
        anyhow::ensure!(
            config.tls != Streams::At(0),
            "tls = 0: a port from 1 to 65535, true (443) or false"
        );
        let most = usize::from(MAX_STRANDS);
        anyhow::ensure!(
            config.uplinks.len() <= most,
            "uplinks names {} interfaces: {most} at most are used at once",
            config.uplinks.len()
        );
        anyhow::ensure!(
            !(config.gateway && config.default),
            "gateway and default are both true: who leads others out does not leave by others"
        );
        let mut names = config.uplinks.clone();
        names.sort_unstable();
        names.dedup();
        anyhow::ensure!(
            names.len() == config.uplinks.len(),
            "uplinks names an interface twice"
        );
        let last = config.uplinks.len().saturating_sub(1);
        anyhow::ensure!(
            port_of(config.port, last).is_some(),
            "port = {}: the port of the last uplink, ten more for each, is beyond 65535",
            config.port
        );
        Ok(config)
    }
}

/// The port of an uplink.
pub fn port_of(port: u16, uplink: usize) -> Option<u16> {
    let step = u16::try_from(uplink).ok()?.checked_mul(10)?;
    port.checked_add(step)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_necessary_and_what_is_unknown_is_named() {
        let config = Config::parse("").unwrap();
        assert_eq!((config.port, config.reach), (PORT, None));
        let config = Config::parse("reach = \"closed\"\naccept = [\"2001:db8::/32\"]").unwrap();
        assert_eq!(config.reach, Some(Reach::Closed));
        let port = |text: &str| Config::parse(text).unwrap().tls.port();
        assert_eq!((port(""), port("tls = 8443")), (Some(443), Some(8_443)));
        assert_eq!((port("tls = true"), port("tls = false")), (Some(443), None));
        let config = Config::parse("lan.eth0 = \"bare\"\nlan.eth1 = \"tunnels\"").unwrap();
        assert_eq!(config.lan[&"eth0".parse().unwrap()], Mode::Bare);
        for (wrong, named) in [
            ("reach = \"far\"", "far"),
            ("gateway = true\ndefault = true", "leads others out"),
            ("port = 0", "1 to 65535"),
            ("tls = 0", "tls = 0"),
            ("prot = 1", "prot"),
            ("uplinks = ['a', 'b', 'c', 'd', 'e']", "4 at most"),
            ("uplinks = ['a', 'a']", "twice"),
            ("metrics = 'here'", "socket address"),
            ("uplinks = ['a', 'b']\nport = 65530", "beyond 65535"),
            ("lan.eth0 = \"naked\"", "naked"),
            ("lan.\"a/b\" = \"bare\"", "a/b"),
        ] {
            let error = Config::parse(wrong).unwrap_err().to_string();
            assert!(error.contains(named), "{error}");
        }
    }
}
