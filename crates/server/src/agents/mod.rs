//! The listener for agents: mutual TLS, one certificate for each host, and what is said on it.
//!
//! A certificate carries the host's name and its agent's identifier. Every request is checked against
//! the host's record, so that deleting the record takes the power of every certificate at once.

pub mod gateway;
pub mod heard;
pub mod join;
pub mod joined;
pub mod live;
pub mod metadata;
pub mod metered;
pub mod nat44;
pub mod pace;
pub mod pki;
pub mod status;
pub mod stream;
pub mod tunnel;

use std::sync::Arc;

use axum::{
    Router,
    extract::{DefaultBodyLimit, FromRequestParts},
    http::request::Parts,
    response::{IntoResponse, Response},
    routing::{get, post},
};
use hextet_api::{
    agent::{FORMER_INTENTS, INTENT},
    error::{ApiError, Result},
};
use hextet_types::HostId;
use uuid::Uuid;

use crate::{app::App, http::answer};

/// A report names every port of a host; 10,000 of them take about 1 MiB.
const MAX_BODY: usize = 8 * 1024 * 1024;

/// Who is at the other end, by its certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerCertificate {
    /// The host.
    pub host: HostId,
    /// Its agent.
    pub agent: Uuid,
}

/// Everything on the listener for agents.
pub fn routes() -> Router<Arc<App>> {
    let mut router = Router::new();
    for former in FORMER_INTENTS {
        router = router.route(former, get(stream::too_old));
    }
    router
        .route("/v1/join", post(join::join))
        .route("/v1/renew", post(join::renew))
        .route(INTENT, get(stream::intent))
        .route("/v1/status", post(status::report))
        .route("/v1/heard", post(heard::report))
        .route("/v1/joined", post(joined::report))
        .route("/v1/metered", post(metered::report))
        .route("/v1/metadata", post(metadata::ask))
        .layer(DefaultBodyLimit::max(MAX_BODY))
}

/// A refusal to an agent: a status and a sentence.
pub struct AgentError(pub ApiError);

impl From<ApiError> for AgentError {
    fn from(error: ApiError) -> Self {
        AgentError(error)
    }
}

impl IntoResponse for AgentError {
    fn into_response(self) -> Response {
        let mut response = answer::empty(self.0.status);
        *response.body_mut() = self.0.message.into();
        response
    }
}

/// A host that has joined, and has not been deleted since.
pub struct Joined(pub HostId);

impl FromRequestParts<Arc<App>> for Joined {
    type Rejection = AgentError;

    async fn from_request_parts(
        parts: &mut Parts,
        app: &Arc<App>,
    ) -> Result<Self, Self::Rejection> {
        let peer = parts.extensions.get::<PeerCertificate>().ok_or_else(|| {
            ApiError::new(
                401,
                "NoCertificate",
                "this needs the certificate that joining brings",
            )
        })?;
        let state = app.cloud.state();
        let record = state.hosts.get(&peer.host).filter(|r| r.id == peer.agent);
        match record {
            Some(record) => Ok(Joined(record.host.clone())),
            None => Err(ApiError::new(403, "Revoked", format!(
                "the certificate of {} does not count any more: the agent was deleted, or has joined \
                 anew; join again with a new token",
                peer.host
            ))
            .into()),
        }
    }
}
