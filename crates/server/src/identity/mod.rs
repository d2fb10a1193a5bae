//! The identity API: the part of Keystone v3 that clients of the networking API ask for.

pub mod assignments;
pub mod attempts;
pub mod auth;
pub mod bootstrap;
pub mod credentials;
pub mod directory;
pub mod domains;
pub mod login;
pub mod password;
pub mod projects;
pub mod roles;
pub mod show;
pub mod sweep;
pub mod tokens;
pub mod users;

use std::sync::Arc;

use axum::{
    Router,
    routing::{get, post, put},
};
use hextet_api::error::{ApiError, Result};
use serde_json::{Map, Value, json};

use self::auth::{ADMIN, Auth};
use crate::{app::App, networking::nothing_of_identity};

/// Everything under `/identity`.
pub fn routes() -> Router<Arc<App>> {
    let v3 = Router::new()
        .route("/", get(tokens::version))
        .route(
            "/auth/tokens",
            post(tokens::create)
                .get(tokens::check)
                .head(tokens::check)
                .delete(tokens::revoke),
        )
        .route("/auth/catalog", get(tokens::catalog))
        .route("/auth/projects", get(projects::of_caller))
        .route("/auth/domains", get(domains::of_caller))
        .route("/auth/system", get(tokens::system))
        .route("/services", get(tokens::services))
        .route("/endpoints", get(tokens::endpoints))
        .route("/regions", get(tokens::regions))
        .route("/domains", get(domains::list).post(domains::create))
        .route(
            "/domains/{id}",
            get(domains::show)
                .patch(domains::update)
                .delete(domains::delete),
        )
        .route("/projects", get(projects::list).post(projects::create))
        .route(
            "/projects/{id}",
            get(projects::show)
                .patch(projects::update)
                .delete(projects::delete),
        )
        .route("/users", get(users::list).post(users::create))
        .route(
            "/users/{id}",
            get(users::show).patch(users::update).delete(users::delete),
        )
        .route("/users/{id}/password", post(users::change_password))
        .route("/users/{id}/projects", get(projects::of_user))
        .route("/users/{id}/groups", get(users::groups))
        .route("/groups", get(users::no_groups))
        .route("/roles", get(roles::list).post(roles::create))
        .route("/roles/{id}", get(roles::show).delete(roles::delete))
        .route("/role_assignments", get(assignments::list))
        .route("/role_inferences", get(roles::inferences))
        .merge(assignment_routes())
        .merge(credential_routes())
        .fallback(nothing_of_identity);
    Router::new()
        .route("/", get(tokens::versions))
        .nest("/v3", v3)
        .route("/v3/", get(tokens::version))
        .fallback(nothing_of_identity)
}

fn assignment_routes() -> Router<Arc<App>> {
    let mut routes = Router::new();
    for place in ["/projects/{place}", "/domains/{place}", "/system"] {
        let all = format!("{place}/users/{{user}}/roles");
        let one = format!("{all}/{{role}}");
        routes = routes.route(&all, get(assignments::of_user)).route(
            &one,
            put(assignments::grant)
                .head(assignments::check)
                .get(assignments::check)
                .delete(assignments::revoke),
        );
    }
    routes
}

fn credential_routes() -> Router<Arc<App>> {
    Router::new()
        .route(
            "/users/{user}/application_credentials",
            get(credentials::list).post(credentials::create),
        )
        .route(
            "/users/{user}/application_credentials/{id}",
            get(credentials::show).delete(credentials::delete),
        )
}

/// # Errors
///
/// 403: the caller is no administrator.
pub fn require_admin(auth: &Auth, action: &str) -> Result<()> {
    if auth.has(ADMIN) {
        return Ok(());
    }
    Err(forbidden(action))
}

/// 403 in the identity API's words.
pub fn forbidden(action: &str) -> ApiError {
    ApiError::new(
        403,
        "Forbidden",
        format!("You are not authorized to perform the requested action: identity:{action}."),
    )
}

/// 403 for what would take the caller's own way back.
pub fn locked_out(what: &str) -> ApiError {
    let message = format!(
        "You cannot {what}: nobody might be left to undo it. Let another administrator do it."
    );
    ApiError::new(403, "Forbidden", message)
}

/// The object under `name` of a body, with only these attributes, and others that we ignore.
///
/// # Errors
///
/// 400: there is none.
pub fn object(body: &[u8], name: &str) -> Result<Map<String, Value>> {
    let body: Value = serde_json::from_slice(body).unwrap_or_default();
    match body.get(name) {
        Some(Value::Object(map)) => Ok(map.clone()),
        _ => Err(bad(format!("'{name}' is a required property"))),
    }
}

/// 400 in the identity API's words.
pub fn bad(message: impl Into<String>) -> ApiError {
    ApiError::new(400, "BadRequest", message)
}

/// A text attribute, if it is there.
///
/// # Errors
///
/// 400: it is none, or longer than 255 characters.
pub fn text(map: &Map<String, Value>, name: &str) -> Result<Option<String>> {
    match map.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(s)) if s.chars().count() <= 255 => Ok(Some(s.clone())),
        Some(_) => Err(bad(format!(
            "{name} must be a text of at most 255 characters"
        ))),
    }
}

/// A name: not empty, not longer than 255 characters.
///
/// # Errors
///
/// 400: it is no name.
pub fn name(map: &Map<String, Value>) -> Result<Option<String>> {
    match text(map, "name")? {
        Some(name) if name.trim().is_empty() => Err(bad("name must not be empty")),
        other => Ok(other),
    }
}

/// A truth, if it is there.
///
/// # Errors
///
/// 400: it is none.
pub fn truth(map: &Map<String, Value>, name: &str) -> Result<Option<bool>> {
    match map.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::Bool(b)) => Ok(Some(*b)),
        Some(_) => Err(bad(format!("{name} must be true or false"))),
    }
}

/// The value of a parameter of a query.
pub fn parameter<'q>(query: &'q [(String, String)], name: &str) -> Option<&'q str> {
    query
        .iter()
        .find(|(k, _)| k == name)
        .map(|(_, v)| v.as_str())
}

/// Whether a thing has what the query's filters ask for, by what is shown of it.
pub fn matches(query: &[(String, String)], shown: &Value) -> bool {
    query.iter().all(|(key, wanted)| match key.as_str() {
        "name" | "domain_id" | "id" => shown[key] == json!(wanted),
        "enabled" => {
            let off = matches!(wanted.to_ascii_lowercase().as_str(), "false" | "0");
            shown[key] == json!(!off)
        }
        "tags" => tags(wanted).all(|t| has_tag(shown, t)),
        "tags-any" => tags(wanted).any(|t| has_tag(shown, t)),
        "not-tags" => !tags(wanted).all(|t| has_tag(shown, t)),
        "not-tags-any" => !tags(wanted).any(|t| has_tag(shown, t)),
        _ => true,
    })
}

fn tags(list: &str) -> impl Iterator<Item = &str> {
    list.split(',')
}

fn has_tag(shown: &Value, tag: &str) -> bool {
    let tags = shown["tags"].as_array();
    tags.is_some_and(|tags| tags.iter().any(|t| t == tag))
}
