//! What a registry is told once, in a file.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use hextet_mesh::{allocator::Share, label::Label, token::RegistryUrl};
use hextet_types::{Family, Prefix};
use serde::Deserialize;

use crate::error::{RegistryError, Result};

/// The configuration file.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Where nodes reach it; a name or an address.
    pub url: String,
    /// Where it listens.
    #[serde(default = "listen")]
    pub listen: SocketAddr,
    /// Its store.
    #[serde(default = "store")]
    pub store: PathBuf,
    /// Where administrators ask; for this user alone.
    #[serde(default = "socket")]
    pub socket: PathBuf,
    /// All IPv6 addresses of nodes lie in it. Read at the first start; without it a ULA is drawn (RFC 4193).
    pub prefix: Option<Prefix>,
    /// Bits of a node's IPv6 prefix.
    #[serde(default = "prefix_len")]
    pub prefix_len: u8,
    /// All IPv4 addresses of nodes lie in it. Read at the first start.
    pub ipv4: Option<Prefix>,
    /// Bits of a node's IPv4 prefix.
    #[serde(default = "ipv4_len")]
    pub ipv4_len: u8,
    /// Parts of the IPv6 prefix for countries, continents or anything else that nodes name.
    #[serde(default)]
    pub communities: BTreeMap<String, Prefix>,
    /// Which half of all free addresses this registry gives from.
    #[serde(default)]
    pub share: Half,
    /// What becomes of those without a token.
    #[serde(default)]
    pub strangers: Strangers,
    /// How long a restored registry lets nobody new in, so that it hears first of nodes that its backup does not know.
    #[serde(default = "settle_secs")]
    pub settle_secs: u64,
    /// Sends invitations.
    pub mail: Option<Mail>,
}

/// What becomes of those without a token.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Strangers {
    /// They are sent away.
    #[default]
    Refuse,
    /// They wait until an administrator approves.
    Ask,
    /// They are let in, as anonymous.
    Welcome,
}

/// As [`Share`], in the file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Half {
    /// Both.
    #[default]
    Whole,
    /// The lower.
    Lower,
    /// The upper.
    Upper,
}

/// How mail leaves.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mail {
    /// The relay, by name or address.
    pub relay: String,
    /// Its port.
    pub port: u16,
    /// Whom mail is from.
    pub from: String,
    /// Whether it is encrypted.
    #[serde(default)]
    pub security: Security,
    /// Whom the relay knows us as.
    pub user: Option<String>,
    /// A file with the password.
    pub password_file: Option<PathBuf>,
    /// Who may ask for an invitation: addresses of these domains; without any, nobody, and only administrators send some.
    #[serde(default)]
    pub domains: Vec<String>,
}

/// How mail is protected on its way to the relay.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Security {
    /// TLS from the first octet.
    #[default]
    Tls,
    /// TLS after a greeting; without it, no mail.
    Starttls,
    /// None: for a relay on this machine.
    None,
}

fn listen() -> SocketAddr {
    SocketAddr::from(([0u16; 8], 8443))
}

fn store() -> PathBuf {
    "/var/lib/hextet/registry.redb".into()
}

fn socket() -> PathBuf {
    "/run/hextet/registry.sock".into()
}

const fn prefix_len() -> u8 {
    64
}

const fn ipv4_len() -> u8 {
    32
}

const fn settle_secs() -> u64 {
    600
}

impl Config {
    /// Reads a file.
    ///
    /// # Errors
    ///
    /// It can't be read, or says what can't be.
    pub fn load(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path)
            .map_err(|e| RegistryError::Setup(format!("read {}: {e}", path.display())))?;
        Self::parse(&text).map_err(|e| RegistryError::Setup(format!("{}: {e}", path.display())))
    }

    /// Reads a file's text.
    ///
    /// # Errors
    ///
    /// It says what can't be.
    pub fn parse(text: &str) -> Result<Self> {
        let config: Config =
            toml::from_str(text).map_err(|e| RegistryError::Setup(e.to_string()))?;
        config.url()?;
        config.communities()?;
        let families = [
            (config.prefix, Family::V6, "prefix"),
            (config.ipv4, Family::V4, "ipv4"),
        ];
        for (prefix, family, field) in families {
            if let Some(prefix) = prefix.filter(|p| p.family() != family) {
                let why = format!("`{field}` is of {family}, and {prefix} is not");
                return Err(RegistryError::Setup(why));
            }
        }
        Ok(config)
    }

    /// Where nodes reach it.
    ///
    /// # Errors
    ///
    /// It is no URL of a registry.
    pub fn url(&self) -> Result<RegistryUrl> {
        self.url
            .parse()
            .map_err(|e| RegistryError::Setup(format!("`url`: {e}")))
    }

    /// Labels and their prefixes.
    ///
    /// # Errors
    ///
    /// A name is no label.
    pub fn communities(&self) -> Result<Vec<(Label, Prefix)>> {
        let pair = |(name, prefix): (&String, &Prefix)| {
            let label = name.parse::<Label>();
            let label = label.map_err(|e| RegistryError::Setup(format!("`communities`: {e}")))?;
            Ok((label, *prefix))
        };
        self.communities.iter().map(pair).collect()
    }
}

impl From<Half> for Share {
    fn from(half: Half) -> Share {
        match half {
            Half::Whole => Share::Whole,
            Half::Lower => Share::Lower,
            Half::Upper => Share::Upper,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_is_enough_and_nonsense_is_refused() {
        let config = Config::parse("url = 'https://registry.example:8443'").unwrap();
        assert_eq!(config.strangers, Strangers::Refuse);
        let bad = [
            "",
            "url = 'http://a'",
            "url = 'https://a'\nprefix = '10.0.0.0/8'",
            "url = 'https://a'\nipv4 = '2001:db8::/32'",
            "url = 'https://a'\ncommunities = { 'E U' = '2001:db8::/40' }",
            "url = 'https://a'\nunknown = 1",
        ];
        for text in bad {
            assert!(Config::parse(text).is_err(), "{text}");
        }
    }
}
