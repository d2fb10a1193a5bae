//! Where Nova is, and as whom it is told of events.

use std::path::PathBuf;

use serde::Deserialize;

use super::{ConfigError, check_place};

/// `[nova]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NovaConfig {
    /// Its compute endpoint, as `http://nova.example:8774/v2.1`.
    pub url: String,
    /// Whether it is told of events.
    #[serde(default = "yes")]
    pub events: bool,
    /// The identity service, as `https://keystone.example/v3`; without it, this server's own.
    #[serde(default)]
    pub auth_url: Option<String>,
    /// A user with the role `admin` or `service` there.
    pub username: String,
    /// The file that holds its password alone.
    pub password_file: PathBuf,
    /// The project that its token is for.
    #[serde(default = "service")]
    pub project: String,
    /// The domain of the user.
    #[serde(default = "default_domain")]
    pub user_domain_id: String,
    /// The domain of the project.
    #[serde(default = "default_domain")]
    pub project_domain_id: String,
    /// Its metadata service, as `http://nova.example:8775`, where that is to tell servers of themselves.
    #[serde(default)]
    pub metadata_url: Option<String>,
    /// The file that holds Nova's `metadata_proxy_shared_secret` alone.
    #[serde(default)]
    pub metadata_secret_file: Option<PathBuf>,
    /// Authorities that certificates of all are checked against, in PEM; without it, this machine's.
    #[serde(default)]
    pub ca_file: Option<PathBuf>,
}

fn yes() -> bool {
    true
}

fn service() -> String {
    "service".to_owned()
}

fn default_domain() -> String {
    "default".to_owned()
}

impl NovaConfig {
    /// # Errors
    ///
    /// A URL that is none; a metadata service without a secret.
    pub fn check(&self) -> Result<(), ConfigError> {
        let urls = [
            ("nova.url", Some(&self.url), "http://nova.example:8774/v2.1"),
            (
                "nova.auth_url",
                self.auth_url.as_ref(),
                "https://keystone.example/v3",
            ),
            (
                "nova.metadata_url",
                self.metadata_url.as_ref(),
                "http://nova.example:8775",
            ),
        ];
        for (key, url, example) in urls {
            let Some(url) = url else { continue };
            if let Err(reason) = check_place(url) {
                return Err(ConfigError::Value(format!(
                    "{key} = \"{url}\": {reason}; an example is {example}"
                )));
            }
        }
        let incomplete = match (&self.metadata_url, &self.metadata_secret_file) {
            (Some(_), None) => {
                "nova.metadata_url is there, and nova.metadata_secret_file is not: name the file that holds Nova's \
                 [neutron] metadata_proxy_shared_secret, with which questions are signed"
            }
            (None, Some(_)) => {
                "nova.metadata_secret_file is there, and nova.metadata_url is not: say where Nova's metadata API is (an \
                 example is http://nova.example:8775), or leave out both, and hosts tell servers of themselves"
            }
            _ => return Ok(()),
        };
        Err(ConfigError::Value(incomplete.to_owned()))
    }

    /// Where events go.
    pub fn events_url(&self) -> String {
        let base = self.url.trim_end_matches('/');
        let base = base.strip_suffix("/v2.1").unwrap_or(base);
        format!("{base}/v2.1/os-server-external-events")
    }
}
