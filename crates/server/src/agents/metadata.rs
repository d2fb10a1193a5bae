//! `POST /v1/metadata`: what a workload asks of itself, and Nova is to answer.

use std::sync::Arc;

use axum::{Json, extract::State as Shared};
use hextet_api::{
    agent::{MetadataAnswer, MetadataRequest},
    error::ApiError,
};

use super::{AgentError, Joined};
use crate::{
    app::App,
    nova::{Metadata, lives_on},
};

/// Octets that a question carries, and that its path has.
const MAX_BODY: usize = 4_096;
const MAX_TARGET: usize = 8_192;

/// `POST /v1/metadata`.
///
/// # Errors
///
/// 400: Nova would not be asked so. 403: the certificate does not count, or the port is on another host. 404: Nova tells
/// nobody, or not this port's workload, of himself.
pub async fn ask(
    Shared(app): Shared<Arc<App>>,
    Joined(host): Joined,
    Json(asked): Json<MetadataRequest>,
) -> Result<Json<MetadataAnswer>, AgentError> {
    let known = ["GET", "POST"].contains(&asked.method.as_str());
    let short = asked.body.len() <= MAX_BODY && asked.target.len() <= MAX_TARGET;
    if !known || !short || !Metadata::is_target(&asked.target) {
        let words = "Nova is asked by GET or POST, for a path, with at most 4,096 octets";
        return Err(ApiError::invalid_input(words).into());
    }
    let port = app.cloud.state().ports.get(&asked.port).cloned();
    let server = port.as_ref().and_then(|port| port.server());
    let (Some(nova), Some(port), Some(server)) = (&app.nova_metadata, port, server) else {
        return Err(ApiError::new(404, "NotFound", "Nova does not tell it of itself").into());
    };
    if !lives_on(&app.cloud.state(), &port, &host) {
        return Err(ApiError::new(403, "Forbidden", "the port is on another host").into());
    }
    Ok(Json(nova.ask((server, &port), asked, &app.metrics).await))
}
