//! The server's configuration: one TOML file, read and checked whole before anything starts.

use std::{
    fs, io,
    net::{IpAddr, Ipv6Addr, SocketAddr},
    path::{Path, PathBuf},
};

use hextet_types::Prefix;
use serde::Deserialize;
use thiserror::Error;

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
            store_cache_bytes: 8 * 1024 * 1024,
            clouds_yaml: None,
            admin_socket: "/run/hextet/server.sock".into(),
            token_lifetime_secs: 12 * 3600,
            certificate_days: 30,
            member_prefixes: Vec::new(),
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
        if let Some(url) = &self.public_url {
            let (scheme, rest) = url.split_once("://").unwrap_or_default();
            if !matches!(scheme, "http" | "https") || rest.is_empty() {
                return refuse("public_url must begin with http:// or https:// and name a host");
            }
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
        for text in [
            "token_lifetime_secs = 5",
            "certificate_days = 0",
            "public_url = \"cloud\"",
        ] {
            let config: ServerConfig = toml::from_str(text).unwrap();
            assert!(config.check().is_err(), "{text}");
        }
    }
}
