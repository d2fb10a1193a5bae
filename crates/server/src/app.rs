//! What all handlers share.

use std::{
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};

use axum::{extract::FromRequestParts, http::request::Parts};
use hextet_api::{
    error::{ApiError, Result},
    request::Caller,
};
use hextet_types::{PortId, Time};
use tokio::sync::watch;

use crate::{
    agents::{joined::Bounds, live::Live, pace::Pace, pki::Pki, status::Reports},
    cloud::{Cloud, now},
    http::answer::{IdentityError, NetworkingError},
    identity::{attempts::Attempts, auth::Auth},
    metrics::Metrics,
    nova,
};

/// What the configuration says to handlers.
#[derive(Clone, Debug)]
pub struct Settings {
    /// How long a token counts.
    pub token_lifetime_secs: u32,
    /// How long an agent's certificate counts.
    pub certificate_days: u32,
    /// How clients reach us, without a path; else what each request says of it.
    pub public_url: Option<String>,
}

/// What all handlers share.
#[derive(Debug)]
pub struct App {
    /// The cloud.
    pub cloud: Arc<Cloud>,
    /// The configuration.
    pub settings: Settings,
    /// Failed logins.
    pub attempts: Gate,
    /// What agents have told lately.
    pub live: Live,
    /// The authority for agents.
    pub pki: Pki,
    /// Port states that wait to be written.
    pub reports: Reports,
    /// How often what is heard of workloads may change something.
    pub pace: Pace<PortId>,
    /// Likewise, of what multicast groups ports have joined; and how often that is said.
    pub joins: Bounds,
    /// Who tells Nova's servers of themselves, if not their hosts.
    pub nova_metadata: Option<nova::Metadata>,
    /// What is counted.
    pub metrics: Metrics,
    /// True once the server is to end.
    pub stopping: watch::Receiver<bool>,
}

/// Failed logins, with a clock.
#[derive(Debug)]
pub struct Gate {
    attempts: Mutex<Attempts>,
    origin: Instant,
}

impl Default for Gate {
    fn default() -> Self {
        Gate {
            attempts: Mutex::default(),
            origin: Instant::now(),
        }
    }
}

impl Gate {
    fn now(&self) -> Time {
        Time::ZERO + self.origin.elapsed()
    }

    /// # Errors
    ///
    /// 429: too many failures lately.
    pub fn check(&self, from: IpAddr, name: &str) -> Result<()> {
        let mut attempts = self.attempts.lock().unwrap_or_else(PoisonError::into_inner);
        if attempts.may_try(from, name, self.now()) {
            return Ok(());
        }
        Err(ApiError::new(
            429,
            "TooManyRequests",
            "too many failed logins from here; wait a minute",
        ))
    }

    /// Remembers a failure.
    pub fn failed(&self, from: IpAddr, name: &str) {
        let mut attempts = self.attempts.lock().unwrap_or_else(PoisonError::into_inner);
        attempts.failed(from, name, self.now());
    }
}

/// The connection that a request came by.
#[derive(Clone, Debug)]
pub struct Connection {
    /// The other end.
    pub peer: SocketAddr,
    /// Whether it is encrypted.
    pub tls: bool,
}

/// How the request reached us: scheme, host and port, without a path.
pub fn base_url(app: &App, parts: &Parts) -> String {
    if let Some(url) = &app.settings.public_url {
        return url.trim_end_matches('/').to_owned();
    }
    let tls = parts.extensions.get::<Connection>().is_some_and(|c| c.tls);
    let header = parts.headers.get("host").and_then(|h| h.to_str().ok());
    let plain = |h: &&str| {
        h.bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"[]:.-_".contains(&b))
    };
    let host = header
        .filter(plain)
        .or(parts.uri.authority().map(|a| a.as_str()));
    format!(
        "{}://{}",
        if tls { "https" } else { "http" },
        host.unwrap_or("localhost")
    )
}

fn token(parts: &Parts) -> Result<&str> {
    let header = parts
        .headers
        .get("x-auth-token")
        .and_then(|h| h.to_str().ok());
    header.ok_or_else(ApiError::unauthorized)
}

/// A request to the networking API, by somebody who may ask.
pub struct Asked {
    /// Who.
    pub caller: Caller,
    /// The networking API's URL as the client wrote it.
    pub url: String,
}

impl FromRequestParts<Arc<App>> for Asked {
    type Rejection = NetworkingError;

    async fn from_request_parts(
        parts: &mut Parts,
        app: &Arc<App>,
    ) -> Result<Self, Self::Rejection> {
        let auth = Auth::of(&app.cloud.state(), token(parts)?, now())?;
        if auth.roles.is_empty() {
            return Err(ApiError::unauthorized().into());
        }
        let caller = auth.caller();
        if caller.project.0.is_empty() && !caller.admin {
            return Err(ApiError::new(
                403,
                "PolicyNotAuthorized",
                "without the role admin, a token must be for a project: ask for one with a project \
                 scope",
            )
            .into());
        }
        let url = format!("{}/networking", base_url(app, parts));
        Ok(Asked { caller, url })
    }
}

/// A request to the identity API, by somebody who has a token.
pub struct Authenticated {
    /// What the token says.
    pub auth: Auth,
    /// See [`base_url`].
    pub base: String,
}

impl FromRequestParts<Arc<App>> for Authenticated {
    type Rejection = IdentityError;

    async fn from_request_parts(
        parts: &mut Parts,
        app: &Arc<App>,
    ) -> Result<Self, Self::Rejection> {
        let auth = Auth::of(&app.cloud.state(), token(parts)?, now())?;
        Ok(Authenticated {
            auth,
            base: base_url(app, parts),
        })
    }
}

/// A request by anybody.
pub struct Anybody {
    /// See [`base_url`].
    pub base: String,
    /// From here.
    pub from: IpAddr,
}

impl FromRequestParts<Arc<App>> for Anybody {
    type Rejection = IdentityError;

    async fn from_request_parts(
        parts: &mut Parts,
        app: &Arc<App>,
    ) -> Result<Self, Self::Rejection> {
        let connection = parts.extensions.get::<Connection>();
        let from = connection.map_or(IpAddr::from([127, 0, 0, 1]), |c| c.peer.ip());
        Ok(Anybody {
            base: base_url(app, parts),
            from,
        })
    }
}
