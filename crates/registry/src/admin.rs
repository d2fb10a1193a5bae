//! What administrators ask, on a Unix socket that is theirs alone.

use std::sync::Arc;

use axum::{
    Json, Router,
    extract::State as Shared,
    routing::{get, post},
};
use hextet_mesh::{certificate::NodeId, label::Label, token::RegistryUrl};
use hextet_store::dump;
use tracing::info;

use crate::{
    clock::now,
    error::{RegistryError, Result},
    http::{App, whole},
    message::{Grant, Named, Nodes, ParametersShown, TokenAnswer, TokenRequest},
    told::{Registries, RegistryShown, Removal, Removed},
};

/// The longest that a token counts: 30 days.
pub const MAX_MINUTES: u32 = 30 * 24 * 60;

/// All that administrators may ask.
pub fn router(app: Arc<App>) -> Router {
    Router::new()
        .route("/nodes", get(nodes))
        .route("/token", post(token))
        .route("/door", get(door))
        .route("/approve", post(approve))
        .route("/refuse", post(refuse))
        .route("/revoke", post(revoke))
        .route("/parameters", get(parameters).post(change_parameters))
        .route("/registries", get(registries))
        .route("/registries/remove", post(remove_registry))
        .route("/backup", get(backup))
        .with_state(app)
}

async fn nodes(Shared(app): Shared<Arc<App>>) -> Json<Nodes> {
    Json(app.book.lock().await.nodes())
}

async fn token(
    Shared(app): Shared<Arc<App>>,
    Json(request): Json<TokenRequest>,
) -> Result<Json<TokenAnswer>> {
    let invalid = |e: &dyn std::fmt::Display| RegistryError::Invalid(e.to_string());
    if !(1..=MAX_MINUTES).contains(&request.minutes) {
        return Err(invalid(&"a token is good for up to 30 days"));
    }
    let groups = request.groups.iter().map(|group| group.parse::<Label>());
    let groups = groups
        .collect::<Result<Vec<_>, _>>()
        .map_err(|e| invalid(&e))?;
    if groups.len() > hextet_mesh::certificate::MAX_GROUPS {
        return Err(invalid(&"a node is in up to 16 groups"));
    }
    let grant = Grant {
        class: request.class.parse().map_err(|e| invalid(&e))?,
        groups,
        minutes: request.minutes,
    };
    let no_mail = || RegistryError::Invalid("this registry sends no mail: configure `mail`".into());
    let mailer = match request.email {
        Some(email) => Some((app.mailer.clone().ok_or_else(no_mail)?, email)),
        None => None,
    };
    let book = Arc::clone(&app.book);
    let invitation = whole(async move { book.lock().await.invite(grant, now()).await }).await?;
    if let Some((mailer, email)) = mailer {
        mailer.send(&email, &invitation).await?;
    }
    let invitation = invitation.text();
    Ok(Json(TokenAnswer { invitation }))
}

async fn door(Shared(app): Shared<Arc<App>>) -> Json<TokenAnswer> {
    let invitation = app.book.lock().await.door().text();
    Json(TokenAnswer { invitation })
}

async fn approve(Shared(app): Shared<Arc<App>>, Json(who): Json<Named>) -> Result<Json<Named>> {
    whole(async move {
        let node = app.book.lock().await.approve(&who.name, now()).await?;
        info!(%node, "a node was approved");
        let name = node.to_string();
        Ok(Json(Named { name }))
    })
    .await
}

async fn refuse(Shared(app): Shared<Arc<App>>, Json(who): Json<Named>) -> Result<Json<()>> {
    whole(async move { Ok(Json(app.book.lock().await.refuse(&who.name).await?)) }).await
}

async fn revoke(Shared(app): Shared<Arc<App>>, Json(who): Json<Named>) -> Result<Json<()>> {
    let node: NodeId = who
        .name
        .parse()
        .map_err(|e: hextet_mesh::certificate::BadNodeId| RegistryError::Invalid(e.to_string()))?;
    whole(async move {
        app.book.lock().await.revoke(node, now()).await?;
        info!(%node, "a node was revoked");
        Ok(Json(()))
    })
    .await
}

async fn parameters(Shared(app): Shared<Arc<App>>) -> Json<ParametersShown> {
    Json(app.book.lock().await.parameters())
}

async fn change_parameters(
    Shared(app): Shared<Arc<App>>,
    Json(asked): Json<ParametersShown>,
) -> Result<Json<ParametersShown>> {
    whole(async move {
        let mut book = app.book.lock().await;
        book.change_parameters(&asked, now()).await?;
        Ok(Json(book.parameters()))
    })
    .await
}

async fn registries(Shared(app): Shared<Arc<App>>) -> Json<Registries> {
    let book = app.book.lock().await;
    let shown = book.registries().map(|(registry, is_this)| {
        let state = app.heard.of(registry);
        RegistryShown {
            url: registry.url.to_string(),
            pin: registry.pin.to_string(),
            is_this,
            holds_root: is_this.then(|| book.holds_root()),
            heard: state.heard.map(|at| at.0),
            away: state.away,
        }
    });
    Json(Registries {
        registries: shown.collect(),
    })
}

async fn remove_registry(
    Shared(app): Shared<Arc<App>>,
    Json(asked): Json<Removal>,
) -> Result<Json<Removed>> {
    let url = asked.url.parse::<RegistryUrl>();
    let url = url.map_err(|e| RegistryError::Invalid(e.to_string()))?;
    whole(async move {
        let mut book = app.book.lock().await;
        let is_closed = book.remove(&url, asked.distrust, now()).await?;
        info!(%url, is_closed, "a registry was taken out");
        Ok(Json(Removed { is_closed }))
    })
    .await
}

/// The whole store at one revision, secrets included.
async fn backup(Shared(app): Shared<Arc<App>>) -> Result<Vec<u8>> {
    let store = app.book.lock().await.store();
    let mut out = Vec::new();
    dump(&*store, &mut out)
        .await
        .map_err(|e| RegistryError::Setup(e.to_string()))?;
    Ok(out)
}
