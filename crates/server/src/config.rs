//! The server's configuration: one TOML file, read and checked whole before anything starts.

mod nova;

use std::{
    collections::BTreeSet,
    fs, io,
    net::{IpAddr, Ipv6Addr, SocketAddr},
    ops::RangeInclusive,
    path::{Path, PathBuf},
};

use hextet_api::value::is_unusable;
use hextet_model::neutron::NetworkType;
use hextet_types::{Family, Prefix};
use serde::Deserialize;
use thiserror::Error;

pub use nova::NovaConfig;

/// The longest path of a UNIX socket (`sockaddr_un`), in octets.
const MAX_SOCKET_PATH: usize = 107;
/// What the store's cache can be.
const CACHE_BYTES: RangeInclusive<usize> = 1 << 16..=1 << 36;
/// What packets between hosts can be, in octets: a private network's carry IPv6 (1,280) in any case.
const PHYSNET_MTU: RangeInclusive<u16> = 1280 + 70..=65_535;

/// `hextet server --config FILE`. An empty file works.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ServerConfig {
    /// Where clients reach the networking and identity APIs.
    pub listen: SocketAddr,
    /// Certificate and key for `listen`; without them it speaks plain HTTP.
    pub tls: Option<TlsFiles>,
    /// How clients reach us, as `https://cloud.example:9696`, where it differs from what their
    /// requests say.
    pub public_url: Option<String>,
    /// Where agents reach us (mutual TLS).
    pub agents: SocketAddr,
    /// Where `/metrics` listens.
    pub metrics: SocketAddr,
    /// The store's file, and whatever else has no place of its own.
    pub data_dir: PathBuf,
    /// Where everything is kept.
    pub store: StoreKind,
    /// Octets of the store's file that are kept in memory.
    pub store_cache_bytes: usize,
    /// The first administrator's `clouds.yaml`; without it, in `data_dir`.
    pub clouds_yaml: Option<PathBuf>,
    /// The socket that `hextet server join-token` and `dump` ask.
    pub admin_socket: PathBuf,
    /// How long a token counts.
    pub token_lifetime_secs: u32,
    /// How long an agent's certificate counts; agents renew it when a third is left.
    pub certificate_days: u32,
    /// Where members may make subnets of routed networks. What a routed network has, hosts announce: elsewhere
    /// only administrators decide about it.
    pub member_prefixes: Vec<Prefix>,
    /// What members get who make a network: the first of these types that is to be had.
    pub tenant_network_types: Vec<NetworkType>,
    /// What networks may name as `provider:physical_network`; anything, if this is empty.
    pub physical_networks: BTreeSet<String>,
    /// VXLAN segments for private networks whose segment nobody chooses, as `"1000:1999"`.
    pub vni_ranges: Vec<VniRange>,
    /// The largest packets that all links between hosts carry, in octets.
    pub global_physnet_mtu: u16,
    /// The IP version of packets between hosts that carry private networks' ones: 4 or 6.
    pub overlay_ip_version: u8,
    /// Who is told what happens to the ports of servers.
    pub nova: Option<NovaConfig>,
}

/// VXLAN segments (RFC 7348 §5), both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct VniRange {
    first: u32,
    last: u32,
}

impl VniRange {
    /// All that there are: 24 bits, but for 0.
    pub const ALL: VniRange = VniRange {
        first: 1,
        last: (1 << 24) - 1,
    };

    /// The first and the last.
    pub fn ends(self) -> (u32, u32) {
        (self.first, self.last)
    }

    /// How many.
    pub fn size(self) -> u32 {
        self.last - self.first + 1
    }
}

impl TryFrom<String> for VniRange {
    type Error = String;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let ends = text.split_once(':');
        let ends = ends.and_then(|(a, b)| Some((a.trim().parse().ok()?, b.trim().parse().ok()?)));
        match ends {
            Some((first, last)) if first <= last && first >= 1 && last <= Self::ALL.last => {
                Ok(VniRange { first, last })
            }
            _ => Err(format!(
                "vni_ranges: '{text}' is no range of VXLAN segments, which go from 1 to {}; an example is \
                 \"1000:1999\"",
                Self::ALL.last
            )),
        }
    }
}

/// What the configuration says of networks.
#[derive(Clone, Debug)]
pub struct NetworkPolicy {
    /// See [`ServerConfig::member_prefixes`].
    pub member_prefixes: Vec<Prefix>,
    /// See [`ServerConfig::tenant_network_types`].
    pub tenant_network_types: Vec<NetworkType>,
    /// See [`ServerConfig::physical_networks`].
    pub physical_networks: BTreeSet<String>,
    /// See [`ServerConfig::vni_ranges`].
    pub vni_ranges: Vec<VniRange>,
    /// See [`ServerConfig::global_physnet_mtu`].
    pub global_physnet_mtu: u16,
    /// See [`ServerConfig::overlay_ip_version`].
    pub overlay: Family,
}

impl NetworkPolicy {
    /// The largest packets that a network's ports can send to each other, in octets. A private network's
    /// travel behind an Ethernet header (14), VXLAN's (8), UDP's (8), and IPv4's (20) or IPv6's (40).
    pub fn max_mtu(&self, network_type: NetworkType) -> u16 {
        let overhead = match (network_type, self.overlay) {
            (NetworkType::Routed | NetworkType::Flat, _) => 0,
            (NetworkType::Vxlan, Family::V4) => 50,
            (NetworkType::Vxlan, Family::V6) => 70,
        };
        self.global_physnet_mtu.saturating_sub(overhead)
    }
}

/// Where everything is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum StoreKind {
    /// In a file under `data_dir`.
    Redb,
    /// Nowhere: for tests.
    Memory,
}

/// PEM files.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TlsFiles {
    /// The chain, the server's own certificate first.
    pub certificate: PathBuf,
    /// Its key.
    pub key: PathBuf,
}

/// Why a configuration does not count.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("read the server's configuration {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file is no TOML, or has a key that we do not know.
    #[error("in {}: {source}", path.display())]
    Parse {
        /// The file.
        path: PathBuf,
        /// Where and why.
        source: Box<toml::de::Error>,
    },
    /// What it says cannot be.
    #[error("in the server's configuration: {0}")]
    Value(String),
}

impl Default for ServerConfig {
    fn default() -> Self {
        let everywhere = IpAddr::V6(Ipv6Addr::UNSPECIFIED);
        ServerConfig {
            listen: SocketAddr::new(everywhere, 9696),
            tls: None,
            public_url: None,
            agents: SocketAddr::new(everywhere, 9697),
            metrics: SocketAddr::new(IpAddr::V6(Ipv6Addr::LOCALHOST), 9799),
            data_dir: "/var/lib/hextet/server".into(),
            store: StoreKind::Redb,
            store_cache_bytes: 2 * 1024 * 1024,
            clouds_yaml: None,
            admin_socket: "/run/hextet/server.sock".into(),
            token_lifetime_secs: 12 * 3600,
            certificate_days: 30,
            member_prefixes: Vec::new(),
            tenant_network_types: vec![NetworkType::Routed],
            physical_networks: BTreeSet::new(),
            vni_ranges: vec![VniRange::ALL],
            global_physnet_mtu: 1500,
            overlay_ip_version: 6,
            nova: None,
        }
    }
}

impl ServerConfig {
    /// Reads the file.
    ///
    /// # Errors
    ///
    /// It can't be read, is no TOML, has an unknown key (with its line), or says what cannot be.
    pub fn load(path: &Path) -> Result<ServerConfig, ConfigError> {
        let text = fs::read_to_string(path).map_err(|source| ConfigError::Read {
            path: path.to_owned(),
            source,
        })?;
        let config: ServerConfig = toml::from_str(&text).map_err(|e| ConfigError::Parse {
            path: path.to_owned(),
            source: Box::new(e),
        })?;
        config.check()?;
        Ok(config)
    }

    /// Whether everything can be as it says.
    ///
    /// # Errors
    ///
    /// What cannot be, and what could.
    pub fn check(&self) -> Result<(), ConfigError> {
        let refuse = |text: &str| Err(ConfigError::Value(text.to_owned()));
        if !(60..=30 * 86_400).contains(&self.token_lifetime_secs) {
            return refuse("token_lifetime_secs must lie between 60 and 2592000");
        }
        if !(1..=3650).contains(&self.certificate_days) {
            return refuse("certificate_days must lie between 1 and 3650");
        }
        if !CACHE_BYTES.contains(&self.store_cache_bytes) {
            return refuse("store_cache_bytes must lie between 65536 and 68719476736");
        }
        if let Some(url) = &self.public_url {
            check_url(url)?;
        }
        if let Some(prefix) = self
            .member_prefixes
            .iter()
            .find(|p| is_unusable(**p).is_some_and(|_| !p.is_default()))
        {
            return refuse(&format!(
                "member_prefixes has {prefix}, in which no subnet can lie: leave it out"
            ));
        }
        if let Some(kind) = self.tenant_network_types.iter().find(|t| t.is_physical()) {
            let kind = format!("{kind:?}").to_lowercase();
            return refuse(&format!(
                "tenant_network_types has \"{kind}\": such a network names the physical network that it is, which \
                 only an administrator can say; leave it out"
            ));
        }
        if !PHYSNET_MTU.contains(&self.global_physnet_mtu) {
            return refuse(
                "global_physnet_mtu must lie between 1350 and 65535: private networks need 70 octets of it \
                 for themselves, and IPv6 1280",
            );
        }
        if !matches!(self.overlay_ip_version, 4 | 6) {
            return refuse("overlay_ip_version must be 4 or 6");
        }
        if let Some(nova) = &self.nova {
            nova.check()?;
        }
        self.check_places()
    }

    /// What it says of networks.
    pub fn network_policy(&self) -> NetworkPolicy {
        NetworkPolicy {
            member_prefixes: self.member_prefixes.clone(),
            tenant_network_types: self.tenant_network_types.clone(),
            physical_networks: self.physical_networks.clone(),
            vni_ranges: self.vni_ranges.clone(),
            global_physnet_mtu: self.global_physnet_mtu,
            overlay: match self.overlay_ip_version {
                4 => Family::V4,
                _ => Family::V6,
            },
        }
    }

    /// No two listeners at one place, and sockets and files where they can be.
    fn check_places(&self) -> Result<(), ConfigError> {
        let refuse = |text: String| Err(ConfigError::Value(text));
        let tcp = [
            ("listen", self.listen),
            ("agents", self.agents),
            ("metrics", self.metrics),
        ];
        for (at, (key, address)) in tcp.iter().enumerate() {
            let earlier = tcp
                .iter()
                .take(at)
                .find(|(_, a)| a == address && a.port() != 0);
            if let Some((other, _)) = earlier {
                return refuse(format!(
                    "{other} and {key} are both \"{address}\": give one of them another port"
                ));
            }
        }
        let socket = self.admin_socket.as_os_str().len();
        if !(1..=MAX_SOCKET_PATH).contains(&socket) {
            return refuse(format!(
                "admin_socket = \"{}\": the path of a socket has 1 to {MAX_SOCKET_PATH} octets, not {socket}",
                self.admin_socket.display()
            ));
        }
        Ok(())
    }

    /// The store's file.
    pub fn store_file(&self) -> PathBuf {
        self.data_dir.join("store.redb")
    }

    /// The first administrator's `clouds.yaml`.
    pub fn clouds_file(&self) -> PathBuf {
        self.clouds_yaml
            .clone()
            .unwrap_or_else(|| self.data_dir.join("clouds.yaml"))
    }
}

/// What paths are put behind: a scheme, a host, perhaps a port and a path, nothing else.
///
/// # Errors
///
/// What it is instead.
fn check_place(url: &str) -> Result<(), String> {
    match url.parse::<axum::http::Uri>() {
        Err(error) => Err(error.to_string()),
        Ok(uri) if !matches!(uri.scheme_str(), Some("http" | "https")) => {
            Err("it must begin with http:// or https:// and name a host".into())
        }
        Ok(uri) if uri.host().is_none_or(str::is_empty) => Err("it names no host".into()),
        Ok(uri) if uri.query().is_some() || url.contains('#') => {
            Err("clients append paths to it, so it ends before '?' and '#'".into())
        }
        Ok(_) => Ok(()),
    }
}

fn check_url(url: &str) -> Result<(), ConfigError> {
    let place = url.trim_end_matches('/');
    let of_service = ["/networking", "/identity"];
    let checked = match check_place(url) {
        Ok(()) if of_service.iter().any(|of| place.ends_with(of)) => {
            Err("it is what comes before /networking and /identity".into())
        }
        checked => checked,
    };
    checked.map_err(|reason| {
        ConfigError::Value(format!(
            "public_url = \"{url}\": {reason}; an example is https://cloud.example:9696"
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_file_works_and_an_unknown_key_is_told_with_its_line() {
        let config: ServerConfig = toml::from_str("").unwrap();
        assert!(config.check().is_ok());
        assert!(
            config.metrics.ip().is_loopback(),
            "metrics are nobody else's by default"
        );
        let error =
            toml::from_str::<ServerConfig>("\nlisten = \"[::]:1\"\nlissten = 1").unwrap_err();
        assert!(error.to_string().contains("line 3"), "{error}");
    }

    #[test]
    fn what_cannot_be_is_refused() {
        let long = format!("admin_socket = '/{}'", "x".repeat(107));
        for (text, words) in [
            ("token_lifetime_secs = 5", "between 60 and"),
            ("certificate_days = 0", "between 1 and"),
            ("store_cache_bytes = 0", "between 65536 and"),
            ("public_url = 'cloud'", "must begin with http"),
            ("public_url = 'ftp://cloud'", "must begin with http"),
            ("public_url = 'https://'", "https://cloud.example:9696"),
            ("public_url = 'https://cloud/?a=b'", "ends before '?'"),
            (
                "public_url = 'https://cloud/networking'",
                "comes before /networking",
            ),
            (
                "listen = '[::1]:9697'\nagents = '[::1]:9697'",
                "listen and agents are both",
            ),
            ("agents = '[::1]:9799'", "agents and metrics are both"),
            ("member_prefixes = ['fe80::/10']", "no subnet can lie"),
            ("global_physnet_mtu = 1349", "between 1350 and"),
            ("overlay_ip_version = 5", "must be 4 or 6"),
            (&long, "1 to 107 octets"),
            (
                "[nova]\nurl = 'nova'\nusername = 'n'\npassword_file = 'p'",
                "http://nova.example:8774/v2.1",
            ),
            (
                "[nova]\nurl = 'http://n'\nauth_url = 'ftp://k'\nusername = 'n'\npassword_file = 'p'",
                "nova.auth_url",
            ),
            (
                "[nova]\nurl = 'http://n'\nmetadata_url = 'n:8775'\nusername = 'n'\npassword_file = 'p'",
                "nova.metadata_url",
            ),
            (
                "[nova]\nurl = 'http://n'\nmetadata_url = 'http://n'\nusername = 'n'\npassword_file = 'p'",
                "nova.metadata_secret_file is not",
            ),
            (
                "[nova]\nurl = 'http://n'\nmetadata_secret_file = 's'\nusername = 'n'\npassword_file = 'p'",
                "nova.metadata_url is not",
            ),
        ] {
            let config: ServerConfig = toml::from_str(text).unwrap();
            let error = config.check().unwrap_err().to_string();
            assert!(error.contains(words), "{text}: {error}");
        }
        for text in [
            "public_url = 'https://cloud.example:9696/'",
            "listen = '[::1]:0'\nagents = '[::1]:0'",
            "member_prefixes = ['::/0']",
            "global_physnet_mtu = 1350\noverlay_ip_version = 4\ntenant_network_types = ['vxlan', 'routed']",
            "vni_ranges = ['1:16777215', '5 : 5']\ntenant_network_types = []",
        ] {
            let config: ServerConfig = toml::from_str(text).unwrap();
            assert!(config.check().is_ok(), "{text}");
        }
        for text in ["0:5", "5:4", "1:16777216", "7", "a:b", ""] {
            let error = toml::from_str::<ServerConfig>(&format!("vni_ranges = ['{text}']"));
            let error = error.unwrap_err().to_string();
            assert!(error.contains("1000:1999"), "{text}: {error}");
        }
        let error = toml::from_str::<ServerConfig>("tenant_network_types = ['vlan']").unwrap_err();
        assert!(error.to_string().contains("routed"), "{error}");
    }

    #[test]
    fn private_networks_pay_for_their_tunnels() {
        for (text, vxlan) in [
            ("", 1430),
            ("overlay_ip_version = 4", 1450),
            ("global_physnet_mtu = 9000", 8930),
        ] {
            let config: ServerConfig = toml::from_str(text).unwrap();
            let policy = config.network_policy();
            assert_eq!(policy.max_mtu(NetworkType::Vxlan), vxlan, "{text}");
            let routed = policy.max_mtu(NetworkType::Routed);
            assert_eq!(routed, config.global_physnet_mtu, "{text}");
        }
    }
}
