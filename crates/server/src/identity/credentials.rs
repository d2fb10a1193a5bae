//! `/v3/users/USER/application_credentials`.

use std::{collections::BTreeSet, sync::Arc};

use axum::{
    body::Bytes,
    extract::{Path, RawQuery, State as Shared},
    response::Response,
};
use hextet_api::error::{ApiError, Result};
use jiff::{Timestamp, civil::DateTime, tz::TimeZone};
use serde_json::{Map, Value, json};

use super::{
    auth::Auth,
    directory::{Credential, Directory},
    forbidden, matches, name, object,
    password::{self, MAX_PASSWORD, hash_own, random_id, random_secret},
    require_admin,
    show::{self, Urls, missing},
    text, truth,
};
use crate::{
    app::{App, Authenticated},
    cloud::now,
    http::answer::{self, IdentityError},
    keys::{self, IdentityTable},
    networking::serve::decode,
    write::Write,
};

type Answer = Result<Response, IdentityError>;

/// Credentials of one user.
const MAX_CREDENTIALS: usize = 1_000;

fn require_self(auth: &Auth, user: &str, action: &str) -> Result<()> {
    if auth.user.id == user {
        Ok(())
    } else {
        require_admin(auth, action)
    }
}

/// Programs with a restricted credential do not make or delete credentials.
fn require_unrestricted(auth: &Auth, directory: &Directory, action: &str) -> Result<()> {
    let Some(id) = &auth.token.credential else {
        return Ok(());
    };
    let unrestricted = directory
        .credentials
        .get(id)
        .is_some_and(|c| c.unrestricted);
    if unrestricted {
        Ok(())
    } else {
        Err(forbidden(action))
    }
}

/// `GET …/application_credentials`.
pub async fn list(
    Shared(app): Shared<Arc<App>>,
    asking: Authenticated,
    Path(user): Path<String>,
    RawQuery(query): RawQuery,
) -> Answer {
    require_self(&asking.auth, &user, "list_application_credentials")?;
    let query = decode(query.as_deref().unwrap_or_default());
    let urls = Urls(&asking.base);
    let state = app.cloud.state();
    let directory = &state.identity;
    let theirs = directory.credentials_by_user.get(&user);
    let all = theirs.filter_map(|id| directory.credentials.get(id));
    let all = all
        .map(|c| show::credential(c, directory, &urls))
        .filter(|c| matches(&query, c));
    let path = format!("users/{user}/application_credentials");
    Ok(answer::json(
        200,
        &show::list("application_credentials", all.collect(), &urls, &path),
    ))
}

/// `GET …/application_credentials/ID`.
pub async fn show(
    Shared(app): Shared<Arc<App>>,
    asking: Authenticated,
    Path((user, id)): Path<(String, String)>,
) -> Answer {
    require_self(&asking.auth, &user, "get_application_credential")?;
    let state = app.cloud.state();
    let found = state
        .identity
        .credentials
        .get(&id)
        .filter(|c| c.user_id == user);
    let found = found.ok_or_else(|| missing("application credential", &id))?;
    let shown = show::credential(found, &state.identity, &Urls(&asking.base));
    Ok(answer::json(200, &json!({"application_credential": shown})))
}

/// `POST …/application_credentials`: the secret is shown this once.
pub async fn create(
    Shared(app): Shared<Arc<App>>,
    asking: Authenticated,
    Path(user): Path<String>,
    body: Bytes,
) -> Answer {
    if asking.auth.user.id != user {
        return Err(forbidden("create_application_credential").into());
    }
    require_unrestricted(
        &asking.auth,
        &app.cloud.state().identity,
        "create_application_credential",
    )?;
    let Some((project, _)) = asking.auth.project.clone() else {
        return Err(super::bad("an application credential needs a token for a project").into());
    };
    let map = object(&body, "application_credential")?;
    refuse_access_rules(&map)?;
    let (secret, hash) = secret(text(&map, "secret")?).await?;
    let credential = Credential {
        id: random_id(),
        name: name(&map)?.ok_or_else(|| super::bad("'name' is a required property"))?,
        description: text(&map, "description")?.unwrap_or_default(),
        user_id: user,
        project_id: project.id.clone(),
        roles: roles(&asking.auth, &map)?,
        secret: hash,
        unrestricted: truth(&map, "unrestricted")?.unwrap_or(false),
        expires_at: expiry(&map)?,
    };
    app.cloud
        .write(&asking.auth.caller(), |write| {
            let directory = &write.state.identity;
            let theirs = || directory.credentials_by_user.get(&credential.user_id);
            let mut named = theirs().filter_map(|id| directory.credentials.get(id));
            let key = keys::identity_name(
                IdentityTable::Credential,
                &credential.user_id,
                &credential.name,
            );
            let taken = named.any(|c| c.name.eq_ignore_ascii_case(&credential.name));
            if taken || !write.claim(key, credential.id.clone()) {
                return Err(ApiError::conflict(
                    "Conflict",
                    format!("Duplicate entry found with name {}.", credential.name),
                ));
            }
            if theirs().count() >= MAX_CREDENTIALS {
                return Err(forbidden("create_application_credential: too many"));
            }
            write.create(
                keys::identity(IdentityTable::Credential, &credential.id),
                &credential,
            )
        })
        .await?;
    let state = app.cloud.state();
    let mut shown = show::credential(&credential, &state.identity, &Urls(&asking.base));
    shown["secret"] = json!(secret);
    Ok(answer::json(201, &json!({"application_credential": shown})))
}

/// The secret that was asked for, or a new one, and its hash.
async fn secret(wanted: Option<String>) -> Result<(String, String)> {
    match wanted {
        None => {
            let secret = random_secret();
            let hash = hash_own(&secret);
            Ok((secret, hash))
        }
        Some(secret) if !secret.is_empty() && secret.len() <= MAX_PASSWORD => {
            let hash = password::hash(secret.clone()).await;
            let hash = hash.ok_or_else(|| ApiError::unavailable("hash the secret"))?;
            Ok((secret, hash))
        }
        Some(_) => Err(super::bad("secret must have 1 to 255 characters")),
    }
}

/// The roles that the body names, of those that the token has; all of them when it names none.
fn roles(auth: &Auth, map: &Map<String, Value>) -> Result<BTreeSet<String>> {
    let all = || auth.roles.values().map(|r| r.id.clone()).collect();
    let wanted = match map.get("roles") {
        None | Some(Value::Null) => return Ok(all()),
        Some(Value::Array(wanted)) if wanted.is_empty() => return Ok(all()),
        Some(Value::Array(wanted)) => wanted,
        Some(_) => return Err(super::bad("roles must be a list of roles")),
    };
    let find = |item: &Value| {
        let found = auth.roles.values().find(|r| {
            item["id"] == json!(r.id) || (item["id"].is_null() && item["name"] == json!(r.name))
        });
        found.map(|r| r.id.clone())
    };
    let found = wanted.iter().map(find).collect::<Option<_>>();
    found.ok_or_else(|| super::bad("roles must be some of those that the token has"))
}

fn expiry(map: &Map<String, Value>) -> Result<Option<Timestamp>> {
    let Some(text) = text(map, "expires_at")? else {
        return Ok(None);
    };
    let parsed = text.parse::<Timestamp>().ok().or_else(|| {
        let local: DateTime = text.parse().ok()?;
        Some(local.to_zoned(TimeZone::UTC).ok()?.timestamp())
    });
    let end = parsed.ok_or_else(|| super::bad(format!("expires_at: '{text}' is no moment")))?;
    if end <= now() {
        return Err(super::bad(format!("expires_at: {text} is over already")));
    }
    Ok(Some(end))
}

/// What would narrow a credential, and is not there yet, is not left out silently.
fn refuse_access_rules(map: &Map<String, Value>) -> Result<()> {
    match map.get("access_rules") {
        None | Some(Value::Null) => Ok(()),
        Some(Value::Array(rules)) if rules.is_empty() => Ok(()),
        Some(_) => Err(super::bad(
            "access_rules are not supported: narrow the credential by its roles",
        )),
    }
}

/// Deletes a credential, so that its name is free again.
pub fn remove(write: &mut Write<'_>, credential: &Credential) {
    let Credential {
        id, user_id, name, ..
    } = credential;
    write.release(keys::identity_name(
        IdentityTable::Credential,
        user_id,
        name,
    ));
    write.release(keys::identity(IdentityTable::Credential, id));
}

/// `DELETE …/application_credentials/ID`.
pub async fn delete(
    Shared(app): Shared<Arc<App>>,
    asking: Authenticated,
    Path((user, id)): Path<(String, String)>,
) -> Answer {
    require_self(&asking.auth, &user, "delete_application_credential")?;
    app.cloud
        .write(&asking.auth.caller(), |write| {
            let directory = &write.state.identity;
            require_unrestricted(&asking.auth, directory, "delete_application_credential")?;
            let row = directory
                .credentials
                .row(&id)
                .filter(|r| r.value.user_id == user);
            let row = row.ok_or_else(|| missing("application credential", &id))?;
            let key = keys::identity(IdentityTable::Credential, &id);
            write.unchanged(key, row.mod_revision);
            remove(write, &row.value);
            Ok(())
        })
        .await?;
    Ok(answer::empty(204))
}
