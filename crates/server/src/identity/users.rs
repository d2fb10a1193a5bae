//! `/v3/users`.

use std::sync::Arc;

use axum::{
    body::Bytes,
    extract::{Path, RawQuery, State as Shared},
    response::Response,
};
use hextet_api::error::{ApiError, Result};
use serde_json::{Map, Value, json};

use super::{
    credentials,
    directory::{DEFAULT_DOMAIN, Named, User, fold},
    locked_out, matches, name, object,
    password::{self, MAX_PASSWORD, random_id},
    require_admin,
    show::{self, Urls, missing},
    text, truth,
};
use crate::{
    app::{Anybody, App, Authenticated},
    cloud::now,
    http::answer::{self, IdentityError},
    keys::{self, IdentityTable},
    networking::serve::decode,
    write::Write,
};

type Answer = Result<Response, IdentityError>;

/// `GET /v3/users`.
pub async fn list(
    Shared(app): Shared<Arc<App>>,
    asking: Authenticated,
    RawQuery(query): RawQuery,
) -> Answer {
    require_admin(&asking.auth, "list_users")?;
    let query = decode(query.as_deref().unwrap_or_default());
    let urls = Urls(&asking.base);
    let state = app.cloud.state();
    let all = state.identity.users.values().map(|u| show::user(u, &urls));
    let all = all.filter(|u| matches(&query, u)).collect();
    Ok(answer::json(200, &show::list("users", all, &urls, "users")))
}

/// `GET /v3/users/ID`.
pub async fn show(
    Shared(app): Shared<Arc<App>>,
    asking: Authenticated,
    Path(id): Path<String>,
) -> Answer {
    if asking.auth.user.id != id {
        require_admin(&asking.auth, "get_user")?;
    }
    let state = app.cloud.state();
    let user = state
        .identity
        .users
        .get(&id)
        .ok_or_else(|| missing("user", &id))?;
    Ok(answer::json(
        200,
        &json!({"user": show::user(user, &Urls(&asking.base))}),
    ))
}

/// `GET /v3/users/ID/groups`: there are no groups of users.
pub async fn groups(asking: Authenticated, Path(id): Path<String>) -> Response {
    let path = format!("users/{id}/groups");
    answer::json(
        200,
        &show::list("groups", Vec::new(), &Urls(&asking.base), &path),
    )
}

/// `GET /v3/groups`: there are no groups of users.
pub async fn no_groups(asking: Authenticated) -> Response {
    answer::json(
        200,
        &show::list("groups", Vec::new(), &Urls(&asking.base), "groups"),
    )
}

/// The hash of the password that a body sets; `None` when it sets none.
async fn hashed(map: &Map<String, Value>) -> Result<Option<Option<String>>> {
    match map.get("password") {
        None => Ok(None),
        Some(Value::Null) => Ok(Some(None)),
        Some(Value::String(secret)) if secret.len() <= MAX_PASSWORD && !secret.is_empty() => {
            let hash = password::hash(secret.clone()).await;
            hash.map(|h| Some(Some(h)))
                .ok_or_else(|| ApiError::unavailable("hash the password"))
        }
        Some(_) => Err(super::bad(format!(
            "password must be a text of 1 to {MAX_PASSWORD} octets"
        ))),
    }
}

/// `POST /v3/users`.
pub async fn create(Shared(app): Shared<Arc<App>>, asking: Authenticated, body: Bytes) -> Answer {
    require_admin(&asking.auth, "create_user")?;
    let map = object(&body, "user")?;
    let user = User {
        id: random_id(),
        name: name(&map)?.ok_or_else(|| super::bad("'name' is a required property"))?,
        domain_id: text(&map, "domain_id")?.unwrap_or_else(|| DEFAULT_DOMAIN.to_owned()),
        description: text(&map, "description")?.unwrap_or_default(),
        email: text(&map, "email")?.unwrap_or_default(),
        enabled: truth(&map, "enabled")?.unwrap_or(true),
        default_project_id: text(&map, "default_project_id")?,
        password: hashed(&map).await?.flatten(),
        tokens_since: now(),
    };
    app.cloud
        .write(&asking.auth.caller(), |write| {
            if write.state.identity.domains.get(&user.domain_id).is_none() {
                return Err(missing("domain", &user.domain_id));
            }
            write.exists(keys::identity(IdentityTable::Domain, &user.domain_id));
            claim_name(write, &user)?;
            write.create(keys::identity(IdentityTable::User, &user.id), &user)
        })
        .await?;
    Ok(answer::json(
        201,
        &json!({"user": show::user(&user, &Urls(&asking.base))}),
    ))
}

fn claim_name(write: &mut Write<'_>, user: &User) -> Result<()> {
    let found = write
        .state
        .identity
        .find(Named::User, &user.domain_id, &user.name);
    let taken = found.is_some_and(|id| *id != user.id);
    let key = keys::identity_name(IdentityTable::User, &user.domain_id, &user.name);
    if taken || !write.claim(key, user.id.clone()) {
        return Err(ApiError::conflict(
            "Conflict",
            format!(
                "Conflict occurred attempting to store user - Duplicate entry found with name {} at \
             domain ID {}.",
                user.name, user.domain_id
            ),
        ));
    }
    Ok(())
}

/// `PATCH /v3/users/ID`.
pub async fn update(
    Shared(app): Shared<Arc<App>>,
    asking: Authenticated,
    Path(id): Path<String>,
    body: Bytes,
) -> Answer {
    require_admin(&asking.auth, "update_user")?;
    let map = object(&body, "user")?;
    let (new_name, description) = (name(&map)?, text(&map, "description")?);
    let (email, enabled) = (text(&map, "email")?, truth(&map, "enabled")?);
    if enabled == Some(false) && asking.auth.user.id == id {
        return Err(locked_out("disable yourself").into());
    }
    let (project, hash) = (text(&map, "default_project_id")?, hashed(&map).await?);
    let user = app
        .cloud
        .write(&asking.auth.caller(), |write| {
            let row = write
                .state
                .identity
                .users
                .row(&id)
                .ok_or_else(|| missing("user", &id))?;
            let mut user = row.value.as_ref().clone();
            user.description = description.clone().unwrap_or(user.description);
            user.email = email.clone().unwrap_or(user.email);
            user.default_project_id = project.clone().or(user.default_project_id);
            if enabled == Some(false) && user.enabled {
                end_tokens(write, &mut user);
            }
            user.enabled = enabled.unwrap_or(user.enabled);
            if let Some(hash) = &hash {
                set_password(write, &mut user, hash.clone());
            }
            if let Some(name) = new_name.clone().filter(|n| fold(n) != fold(&user.name)) {
                write.release(keys::identity_name(
                    IdentityTable::User,
                    &user.domain_id,
                    &user.name,
                ));
                user.name = name;
                claim_name(write, &user)?;
            }
            write.replace(
                keys::identity(IdentityTable::User, &id),
                row.mod_revision,
                &user,
            )?;
            Ok(user)
        })
        .await?;
    Ok(answer::json(
        200,
        &json!({"user": show::user(&user, &Urls(&asking.base))}),
    ))
}

/// Whoever had a token by the old password has it no longer.
fn set_password(write: &mut Write<'_>, user: &mut User, hash: Option<String>) {
    user.password = hash;
    end_tokens(write, user);
}

fn end_tokens(write: &mut Write<'_>, user: &mut User) {
    user.tokens_since = write.now;
    let theirs = write.state.identity.tokens_by_user.get(&user.id);
    for (_, token) in theirs.into_iter().flatten().take(2_000) {
        write.release(keys::identity(IdentityTable::Token, token));
    }
}

/// `POST /v3/users/ID/password`: by the user, who knows the old one.
pub async fn change_password(
    Shared(app): Shared<Arc<App>>,
    anybody: Anybody,
    Path(id): Path<String>,
    body: Bytes,
) -> Answer {
    app.attempts.check(anybody.from, &id)?;
    let map = object(&body, "user")?;
    let original = text(&map, "original_password")?.unwrap_or_default();
    let present = app
        .cloud
        .state()
        .identity
        .users
        .get(&id)
        .and_then(|u| u.password.clone());
    if !password::verify(original, present).await {
        app.attempts.failed(anybody.from, &id);
        return Err(ApiError::unauthorized().into());
    }
    let hash = hashed(&map).await?.flatten();
    let hash = hash.ok_or_else(|| super::bad("'password' is a required property"))?;
    let caller = hextet_api::request::Caller {
        project: hextet_types::ProjectId(String::new()),
        admin: false,
        member: false,
    };
    app.cloud
        .write(&caller, |write| {
            let row = write
                .state
                .identity
                .users
                .row(&id)
                .ok_or_else(|| missing("user", &id))?;
            let mut user = row.value.as_ref().clone();
            set_password(write, &mut user, Some(hash.clone()));
            write.replace(
                keys::identity(IdentityTable::User, &id),
                row.mod_revision,
                &user,
            )
        })
        .await?;
    Ok(answer::empty(204))
}

/// `DELETE /v3/users/ID`.
pub async fn delete(
    Shared(app): Shared<Arc<App>>,
    asking: Authenticated,
    Path(id): Path<String>,
) -> Answer {
    require_admin(&asking.auth, "delete_user")?;
    if asking.auth.user.id == id {
        return Err(locked_out("delete yourself").into());
    }
    app.cloud
        .write(&asking.auth.caller(), |write| {
            let directory = &write.state.identity;
            let row = directory
                .users
                .row(&id)
                .ok_or_else(|| missing("user", &id))?;
            for assignment in directory.assignments_of(&id) {
                write.release(keys::identity(IdentityTable::Assignment, assignment.id()));
            }
            let theirs = directory.credentials_by_user.get(&id);
            for credential in theirs.filter_map(|id| directory.credentials.get(id)) {
                credentials::remove(write, credential);
            }
            let mut user = row.value.as_ref().clone();
            end_tokens(write, &mut user);
            write.release(keys::identity_name(
                IdentityTable::User,
                &user.domain_id,
                &user.name,
            ));
            write.remove(keys::identity(IdentityTable::User, &id), row.mod_revision);
            Ok(())
        })
        .await?;
    Ok(answer::empty(204))
}
