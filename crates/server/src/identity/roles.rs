//! `/v3/roles`.

use std::sync::Arc;

use axum::{
    body::Bytes,
    extract::{Path, RawQuery, State as Shared},
    response::Response,
};
use hextet_api::error::{ApiError, Result};
use serde_json::json;

use super::{
    auth::{ADMIN, MEMBER, READER},
    directory::Role,
    matches, name, object,
    password::random_id,
    require_admin,
    show::{self, Urls, missing},
    text,
};
use crate::{
    app::{App, Authenticated},
    http::answer::{self, IdentityError},
    keys::{self, IdentityTable},
    networking::serve::decode,
};

type Answer = Result<Response, IdentityError>;

/// `GET /v3/roles`.
pub async fn list(
    Shared(app): Shared<Arc<App>>,
    asking: Authenticated,
    RawQuery(query): RawQuery,
) -> Answer {
    require_admin(&asking.auth, "list_roles")?;
    let query = decode(query.as_deref().unwrap_or_default());
    let urls = Urls(&asking.base);
    let state = app.cloud.state();
    let by_name: Vec<_> = query.into_iter().filter(|(k, _)| k == "name").collect();
    let all = state.identity.roles.values().map(|r| show::role(r, &urls));
    let all = all.filter(|r| matches(&by_name, r)).collect();
    Ok(answer::json(200, &show::list("roles", all, &urls, "roles")))
}

/// `GET /v3/roles/ID`.
pub async fn show(
    Shared(app): Shared<Arc<App>>,
    asking: Authenticated,
    Path(id): Path<String>,
) -> Answer {
    require_admin(&asking.auth, "get_role")?;
    let state = app.cloud.state();
    let role = state
        .identity
        .roles
        .get(&id)
        .ok_or_else(|| missing("role", &id))?;
    Ok(answer::json(
        200,
        &json!({"role": show::role(role, &Urls(&asking.base))}),
    ))
}

/// `POST /v3/roles`: a role that clients give a meaning to; here it has none.
pub async fn create(Shared(app): Shared<Arc<App>>, asking: Authenticated, body: Bytes) -> Answer {
    require_admin(&asking.auth, "create_role")?;
    let map = object(&body, "role")?;
    let role = Role {
        id: random_id(),
        name: name(&map)?.ok_or_else(|| super::bad("'name' is a required property"))?,
        description: text(&map, "description")?.unwrap_or_default(),
    };
    app.cloud
        .write(&asking.auth.caller(), |write| {
            let taken = write.state.identity.role_named(&role.name).is_some();
            let key = keys::identity_name(IdentityTable::Role, "", &role.name);
            if taken || !write.claim(key, role.id.clone()) {
                let text = format!("Duplicate entry found with name {}.", role.name);
                return Err(ApiError::conflict("Conflict", text));
            }
            write.create(keys::identity(IdentityTable::Role, &role.id), &role)
        })
        .await?;
    Ok(answer::json(
        201,
        &json!({"role": show::role(&role, &Urls(&asking.base))}),
    ))
}

/// `DELETE /v3/roles/ID`: not those that mean something.
pub async fn delete(
    Shared(app): Shared<Arc<App>>,
    asking: Authenticated,
    Path(id): Path<String>,
) -> Answer {
    require_admin(&asking.auth, "delete_role")?;
    app.cloud
        .write(&asking.auth.caller(), |write| {
            let directory = &write.state.identity;
            let row = directory
                .roles
                .row(&id)
                .ok_or_else(|| missing("role", &id))?;
            if [ADMIN, MEMBER, READER].contains(&row.value.name.as_str()) {
                return Err(super::forbidden("delete_role"));
            }
            for assignment in directory.assignments.values().filter(|a| a.role == id) {
                write.release(keys::identity(IdentityTable::Assignment, assignment.id()));
            }
            write.release(keys::identity_name(
                IdentityTable::Role,
                "",
                &row.value.name,
            ));
            write.remove(keys::identity(IdentityTable::Role, &id), row.mod_revision);
            Ok(())
        })
        .await?;
    Ok(answer::empty(204))
}

/// `GET /v3/role_inferences`: which role brings which along.
pub async fn inferences(Shared(app): Shared<Arc<App>>, asking: Authenticated) -> Answer {
    require_admin(&asking.auth, "list_implied_roles")?;
    let urls = Urls(&asking.base);
    let state = app.cloud.state();
    let named = |n| state.identity.role_named(n).map(|r| show::role(r, &urls));
    let all = [(ADMIN, MEMBER), (MEMBER, READER)]
        .map(|(above, below)| json!({"prior_role": named(above), "implies": [named(below)]}));
    Ok(answer::json(200, &json!({"role_inferences": all})))
}
