//! Tokens: issued, checked, revoked; versions and the catalog.

use std::sync::Arc;

use axum::{
    body::Bytes,
    extract::State as Shared,
    http::{HeaderMap, HeaderValue},
    response::Response,
};
use hextet_api::error::{ApiError, Result};
use serde_json::{Value, json};

use super::{
    auth::Auth,
    directory::Scope,
    login::{Login, login},
    require_admin,
    show::{self, REGION, Urls},
};
use crate::{
    app::{Anybody, App, Authenticated},
    cloud::now,
    http::answer::{self, IdentityError},
    keys::{self, IdentityTable},
};

type Answer = Result<Response, IdentityError>;

fn v3(base: &str) -> Value {
    json!({
        "id": "v3.14",
        "status": "stable",
        "updated": "2020-04-07T00:00:00Z",
        "links": [{"rel": "self", "href": format!("{base}/identity/v3/")}],
        "media-types": [{
            "base": "application/json",
            "type": "application/vnd.openstack.identity-v3+json",
        }],
    })
}

/// `GET /identity/`.
pub async fn versions(anybody: Anybody) -> Response {
    answer::json(300, &json!({"versions": {"values": [v3(&anybody.base)]}}))
}

/// `GET /identity/v3`.
pub async fn version(anybody: Anybody) -> Response {
    answer::json(200, &json!({"version": v3(&anybody.base)}))
}

fn with_token(mut response: Response, token: &str) -> Response {
    if let Ok(mut value) = HeaderValue::from_str(token) {
        value.set_sensitive(true);
        response.headers_mut().insert("x-subject-token", value);
    }
    response
        .headers_mut()
        .insert("vary", HeaderValue::from_static("X-Auth-Token"));
    response
}

/// `POST /v3/auth/tokens`.
pub async fn create(Shared(app): Shared<Arc<App>>, anybody: Anybody, body: Bytes) -> Answer {
    let request: Login = serde_json::from_slice(&body).map_err(|_| {
        super::bad("the body must be {\"auth\": {\"identity\": {\"methods\": […], …}}}")
    })?;
    let outcome = login(&app, request, anybody.from).await;
    app.metrics.logged_in(outcome.is_ok());
    let (token, auth) = outcome?;
    let body = show::token(
        &auth,
        &app.cloud.state().identity,
        &Urls(&anybody.base),
        true,
    );
    Ok(with_token(answer::json(201, &body), &token))
}

/// The token that is asked about: one's own, or any by a service.
fn subject(app: &App, asking: &Authenticated, headers: &HeaderMap) -> Result<(String, Auth)> {
    let subject = headers.get("x-subject-token").and_then(|h| h.to_str().ok());
    let subject = subject.ok_or_else(|| super::bad("the header X-Subject-Token is missing"))?;
    let auth = Auth::of(&app.cloud.state(), subject, now())
        .map_err(|_| ApiError::new(404, "NotFound", "Could not find token."))?;
    if auth.user.id != asking.auth.user.id {
        require_admin(&asking.auth, "validate_token")?;
    }
    Ok((subject.to_owned(), auth))
}

/// `GET` and `HEAD /v3/auth/tokens`.
pub async fn check(
    Shared(app): Shared<Arc<App>>,
    asking: Authenticated,
    headers: HeaderMap,
    axum::extract::RawQuery(query): axum::extract::RawQuery,
) -> Answer {
    let (token, auth) = subject(&app, &asking, &headers)?;
    let catalog = !query.is_some_and(|q| q.split('&').any(|p| p.starts_with("nocatalog")));
    let body = show::token(
        &auth,
        &app.cloud.state().identity,
        &Urls(&asking.base),
        catalog,
    );
    Ok(with_token(answer::json(200, &body), &token))
}

/// `DELETE /v3/auth/tokens`.
pub async fn revoke(
    Shared(app): Shared<Arc<App>>,
    asking: Authenticated,
    headers: HeaderMap,
) -> Answer {
    let (_, auth) = subject(&app, &asking, &headers)?;
    app.cloud
        .write(&asking.auth.caller(), |write| {
            if write.state.identity.tokens.contains_key(&auth.hash) {
                write.release(keys::identity(IdentityTable::Token, &auth.hash));
            }
            Ok(())
        })
        .await?;
    Ok(answer::empty(204))
}

/// `GET /v3/auth/catalog`.
pub async fn catalog(asking: Authenticated) -> Response {
    let urls = Urls(&asking.base);
    let catalog = show::catalog(&urls);
    answer::json(
        200,
        &json!({"catalog": catalog, "links": {"self": urls.identity("auth/catalog")}}),
    )
}

/// `GET /v3/auth/system`.
pub async fn system(Shared(app): Shared<Arc<App>>, asking: Authenticated) -> Response {
    let state = app.cloud.state();
    let there = !state
        .identity
        .roles_of(&asking.auth.user.id, &Scope::System)
        .is_empty();
    let all: Vec<_> = there.then(|| json!({"all": true})).into_iter().collect();
    answer::json(200, &json!({"system": all}))
}

fn services_of(asking: &Authenticated) -> Vec<Value> {
    match show::catalog(&Urls(&asking.base)) {
        Value::Array(services) => services,
        _ => Vec::new(),
    }
}

/// `GET /v3/services`.
pub async fn services(asking: Authenticated) -> Answer {
    require_admin(&asking.auth, "list_services")?;
    let mut all = services_of(&asking);
    for service in &mut all {
        if let Value::Object(map) = service {
            map.remove("endpoints");
            map.insert("enabled".into(), json!(true));
            map.insert("description".into(), json!(""));
        }
    }
    Ok(answer::json(
        200,
        &show::list("services", all, &Urls(&asking.base), "services"),
    ))
}

/// `GET /v3/endpoints`.
pub async fn endpoints(asking: Authenticated) -> Answer {
    require_admin(&asking.auth, "list_endpoints")?;
    let mut all = Vec::new();
    for service in services_of(&asking) {
        let Value::Array(endpoints) = &service["endpoints"] else {
            continue;
        };
        for endpoint in endpoints {
            let mut endpoint = endpoint.clone();
            endpoint["service_id"] = service["id"].clone();
            endpoint["enabled"] = json!(true);
            all.push(endpoint);
        }
    }
    Ok(answer::json(
        200,
        &show::list("endpoints", all, &Urls(&asking.base), "endpoints"),
    ))
}

/// `GET /v3/regions`.
pub async fn regions(asking: Authenticated) -> Response {
    let urls = Urls(&asking.base);
    let region = json!({"id": REGION, "description": "", "parent_region_id": null,
                        "links": {"self": urls.identity(&format!("regions/{REGION}"))}});
    answer::json(200, &show::list("regions", vec![region], &urls, "regions"))
}
