//! How a host gets its certificate: once by a token, from then on by the certificate that it has.

use std::{sync::Arc, time::Duration};

use axum::{Json, extract::State as Shared};
use hextet_api::{
    agent::{JoinRequest, JoinResponse, RenewRequest},
    error::{ApiError, Result},
    request::Caller,
};
use hextet_types::{HostId, ProjectId};
use jiff::SignedDuration;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use tracing::info;
use uuid::Uuid;

use super::{AgentError, Joined};
use crate::{
    app::{Anybody, App},
    cloud::{Cloud, now},
    identity::password::{random_id, random_secret},
    keys::{self, hexadecimal},
    state::{HostRecord, JoinToken, State},
};

/// Tokens that wait for their hosts.
const MAX_TOKENS: usize = 10_000;
/// How long a token may be good for.
const MAX_LIFETIME: Duration = Duration::from_secs(30 * 86_400);

/// Who writes when nobody asked.
pub fn server() -> Caller {
    Caller {
        project: ProjectId(String::new()),
        admin: true,
        member: true,
    }
}

/// Makes a join token, `ID.SECRET.FINGERPRINT`.
///
/// # Errors
///
/// 400: a lifetime of nothing or of more than 30 days. 409: 10,000 tokens wait already.
pub async fn create_token(app: &App, host: Option<HostId>, lifetime: Duration) -> Result<String> {
    if lifetime.is_zero() || lifetime > MAX_LIFETIME {
        return Err(ApiError::invalid_input(
            "a join token is good for up to 30 days",
        ));
    }
    let (id, secret) = (random_id(), random_secret());
    let life = SignedDuration::try_from(lifetime).map_err(ApiError::invalid_input)?;
    let expires_at = now().checked_add(life).map_err(ApiError::invalid_input)?;
    let token = JoinToken {
        secret: hash(&secret),
        host,
        expires_at,
    };
    app.cloud
        .write(&server(), |write| {
            if write.state.join_tokens.len() >= MAX_TOKENS {
                return Err(ApiError::conflict(
                    "TooManyJoinTokens",
                    format!("{MAX_TOKENS} join tokens wait for their hosts already"),
                ));
            }
            write.create(keys::join_token(&id), &token)
        })
        .await?;
    Ok(format!("{id}.{secret}.{}", app.pki.fingerprint()))
}

fn hash(secret: &str) -> String {
    hexadecimal(&Sha256::digest(secret))
}

fn refused() -> ApiError {
    ApiError::new(
        401,
        "JoinTokenRefused",
        "the join token does not count: it was used, has expired, is for another host, or never was; \
         make a new one with `hextet server join-token`",
    )
}

/// The token that counts for this host.
fn check(state: &State, id: &str, secret: &str, host: &HostId) -> Result<u64> {
    let row = state.join_tokens.row(&id.to_owned()).ok_or_else(refused)?;
    let token = &row.value;
    let secret: bool = hash(secret)
        .as_bytes()
        .ct_eq(token.secret.as_bytes())
        .into();
    let for_host = match &token.host {
        Some(named) => named == host,
        // A token for anybody does not take a name that somebody has.
        None => state.hosts.get(host).is_none(),
    };
    if secret && for_host && token.expires_at > now() {
        Ok(row.mod_revision)
    } else {
        Err(refused())
    }
}

/// `POST /v1/join`.
///
/// # Errors
///
/// 401: the token does not count. 400: the request for a certificate is none.
pub async fn join(
    Shared(app): Shared<Arc<App>>,
    from: Anybody,
    Json(request): Json<JoinRequest>,
) -> Result<Json<JoinResponse>, AgentError> {
    app.attempts.check(from.from, "join")?;
    let joined = take(&app, &request).await;
    if joined.as_ref().is_err_and(|e| e.status == 401) {
        app.attempts.failed(from.from, "join");
    }
    let certificate_pem = joined?;
    info!(host = %request.host, "a host has joined");
    Ok(Json(JoinResponse {
        certificate_pem,
        ca_pem: app.pki.certificate_pem().to_owned(),
    }))
}

async fn take(app: &App, request: &JoinRequest) -> Result<String> {
    let (id, secret) = request.token.split_once('.').ok_or_else(refused)?;
    let host = &request.host;
    check(&app.cloud.state(), id, secret, host)?;
    let agent = Uuid::new_v4();
    let days = app.settings.certificate_days;
    let certificate = app.pki.issue(&request.csr_pem, host, agent, days)?;
    app.cloud
        .write(&server(), |write| {
            let read_at = check(write.state, id, secret, host)?;
            write.remove(keys::join_token(id), read_at);
            let old = write.state.hosts.row(host);
            let record = HostRecord {
                id: agent,
                host: host.clone(),
                created_at: write.now,
                description: old.map_or(String::new(), |r| r.value.description.clone()),
                admin_state_up: true,
                gateway_mac: old.and_then(|r| r.value.gateway_mac),
                gateway: old.is_none_or(|r| r.value.gateway),
                physical_networks: old
                    .map(|r| r.value.physical_networks.clone())
                    .unwrap_or_default(),
            };
            write.replace(keys::host(host), old.map_or(0, |r| r.mod_revision), &record)
        })
        .await?;
    // Whoever had the name before does not listen any more.
    app.cloud.hang_up(host);
    Ok(certificate)
}

/// `POST /v1/renew`.
///
/// # Errors
///
/// 403: the present certificate does not count any more.
pub async fn renew(
    Shared(app): Shared<Arc<App>>,
    Joined(host): Joined,
    Json(request): Json<RenewRequest>,
) -> Result<Json<JoinResponse>, AgentError> {
    let agent = app.cloud.state().hosts.get(&host).map(|r| r.id);
    let agent = agent.ok_or_else(refused)?;
    let days = app.settings.certificate_days;
    let certificate_pem = app.pki.issue(&request.csr_pem, &host, agent, days)?;
    Ok(Json(JoinResponse {
        certificate_pem,
        ca_pem: app.pki.certificate_pem().to_owned(),
    }))
}

/// Deletes tokens that have expired.
///
/// # Errors
///
/// The store fails.
pub async fn sweep(cloud: &Cloud) -> Result<()> {
    cloud
        .write(&server(), |write| {
            let state = write.state;
            for id in state.join_tokens.ids() {
                if let Some(row) = state
                    .join_tokens
                    .row(id)
                    .filter(|r| r.value.expires_at <= write.now)
                {
                    write.remove(keys::join_token(id), row.mod_revision);
                }
            }
            Ok(())
        })
        .await
}
