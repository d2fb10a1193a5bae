//! What a registry is told once, in a file.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use hextet_mesh::token::{Invitation, RegistryUrl};
use hextet_types::{Family, Prefix};
use serde::{Deserialize, Deserializer, de::Error};

use crate::{
    error::{RegistryError, Result},
    plan::Plan,
};

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
    /// An invitation to be one more registry of a network that is there. Read at the first start; then `prefix`, `ipv4`, their lengths and
    /// `communities` are not said here: they are the first registry's.
    #[serde(default, deserialize_with = "invitation")]
    pub join: Option<Invitation>,
    /// Bits of a node's IPv6 prefix; 64 without it.
    pub prefix_len: Option<u8>,
    /// All IPv4 addresses of nodes lie in it. Read at the first start.
    pub ipv4: Option<Prefix>,
    /// Bits of a node's IPv4 prefix; 32 without it.
    pub ipv4_len: Option<u8>,
    /// Parts of the IPv6 prefix for countries, continents or anything else that nodes name.
    #[serde(default)]
    pub communities: BTreeMap<String, Prefix>,
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

/// The line is named, not shown: it may hold a secret.
fn wrong(text: &str, error: &toml::de::Error) -> RegistryError {
    let before = error.span().and_then(|span| text.get(..span.start));
    let line = before.map(|before| before.matches('\n').count() + 1);
    let line = line.map_or_else(String::new, |line| format!("line {line}: "));
    RegistryError::Setup(format!("{line}{}", error.message()))
}

/// Whatever is wrong with it, the text itself is not printed: it holds a token.
fn invitation<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Invitation>, D::Error> {
    let invitation: Invitation = String::deserialize(from)?
        .parse()
        .map_err(D::Error::custom)?;
    match invitation.token {
        Some(_) => Ok(Some(invitation)),
        None => Err(D::Error::custom(
            "`join` takes what `hextet mesh token --class registry` prints beside the other registry",
        )),
    }
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
        let config: Config = toml::from_str(text).map_err(|e| wrong(text, &e))?;
        config.url()?;
        Plan::of(&config).communities()?;
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
        let is_planned = config.prefix.is_some()
            || config.ipv4.is_some()
            || config.prefix_len.is_some()
            || config.ipv4_len.is_some()
            || !config.communities.is_empty();
        if config.join.is_some() && is_planned {
            return Err(RegistryError::Setup(
                "a registry with `join` has the first registry's `prefix`, `prefix_len`, `ipv4`, `ipv4_len` and `communities`: leave them out here".into(),
            ));
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
            "url = 'https://a'\njoin = 'https://b'",
        ];
        for text in bad {
            assert!(Config::parse(text).is_err(), "{text}");
        }
        let hash = "A".repeat(43);
        let (door, invitation) = (
            format!("https://b#.{hash}"),
            format!("https://b#{}.{hash}", "B".repeat(32)),
        );
        let joins = |invitation: &str, more: &str| {
            Config::parse(&format!("url = 'https://a'\njoin = '{invitation}'\n{more}"))
        };
        assert!(joins(&invitation, "").unwrap().join.is_some());
        assert!(joins(&door, "").is_err());
        let planned = joins(&invitation, "prefix_len = 60").unwrap_err();
        assert!(planned.to_string().contains("leave them out"), "{planned}");
        let damaged = joins(&invitation.replace("#B", "#?"), "").unwrap_err();
        assert!(!damaged.to_string().contains("BBBB"), "{damaged}");
    }
}
