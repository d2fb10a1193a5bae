//! `/v3/domains`.

use std::{collections::BTreeSet, sync::Arc};

use axum::{
    body::Bytes,
    extract::{Path, RawQuery, State as Shared},
    response::Response,
};
use hextet_api::error::{ApiError, Result};
use serde_json::json;

use super::{
    directory::{Domain, Scope, fold},
    locked_out, matches, name, object,
    password::random_id,
    require_admin,
    show::{self, Urls, missing},
    text, truth,
};
use crate::{
    app::{App, Authenticated},
    http::answer::{self, IdentityError},
    keys::{self, IdentityTable},
    networking::serve::decode,
    write::Write,
};

type Answer = Result<Response, IdentityError>;

/// `GET /v3/domains`.
pub async fn list(
    Shared(app): Shared<Arc<App>>,
    asking: Authenticated,
    RawQuery(query): RawQuery,
) -> Answer {
    require_admin(&asking.auth, "list_domains")?;
    let query = decode(query.as_deref().unwrap_or_default());
    let urls = Urls(&asking.base);
    let state = app.cloud.state();
    let all = state
        .identity
        .domains
        .values()
        .map(|d| show::domain(d, &urls));
    let all = all.filter(|d| matches(&query, d)).collect();
    Ok(answer::json(
        200,
        &show::list("domains", all, &urls, "domains"),
    ))
}

/// `GET /v3/auth/domains`: those that the caller has a role in.
pub async fn of_caller(Shared(app): Shared<Arc<App>>, asking: Authenticated) -> Response {
    let urls = Urls(&asking.base);
    let state = app.cloud.state();
    let theirs: BTreeSet<_> = state
        .identity
        .assignments_of(&asking.auth.user.id)
        .filter_map(|a| match &a.scope {
            Scope::Domain(id) => Some(id),
            _ => None,
        })
        .collect();
    let all = theirs
        .iter()
        .filter_map(|id| state.identity.domains.get(id));
    let all = all.map(|d| show::domain(d, &urls)).collect();
    answer::json(200, &show::list("domains", all, &urls, "auth/domains"))
}

/// `GET /v3/domains/ID`.
pub async fn show(
    Shared(app): Shared<Arc<App>>,
    asking: Authenticated,
    Path(id): Path<String>,
) -> Answer {
    if asking.auth.user.domain_id != id {
        require_admin(&asking.auth, "get_domain")?;
    }
    let state = app.cloud.state();
    let domain = state
        .identity
        .domains
        .get(&id)
        .ok_or_else(|| missing("domain", &id))?;
    Ok(answer::json(
        200,
        &json!({"domain": show::domain(domain, &Urls(&asking.base))}),
    ))
}

/// `POST /v3/domains`.
pub async fn create(Shared(app): Shared<Arc<App>>, asking: Authenticated, body: Bytes) -> Answer {
    require_admin(&asking.auth, "create_domain")?;
    let map = object(&body, "domain")?;
    let domain = Domain {
        id: random_id(),
        name: name(&map)?.ok_or_else(|| super::bad("'name' is a required property"))?,
        description: text(&map, "description")?.unwrap_or_default(),
        enabled: truth(&map, "enabled")?.unwrap_or(true),
    };
    app.cloud
        .write(&asking.auth.caller(), |write| {
            claim_name(write, &domain)?;
            write.create(keys::identity(IdentityTable::Domain, &domain.id), &domain)
        })
        .await?;
    Ok(answer::json(
        201,
        &json!({"domain": show::domain(&domain, &Urls(&asking.base))}),
    ))
}

fn claim_name(write: &mut Write<'_>, domain: &Domain) -> Result<()> {
    let taken = write
        .state
        .identity
        .domain_named(&domain.name)
        .is_some_and(|d| d.id != domain.id);
    let key = keys::identity_name(IdentityTable::Domain, "", &domain.name);
    if taken || !write.claim(key, domain.id.clone()) {
        let text = format!("Duplicate entry found with name {}.", domain.name);
        return Err(ApiError::conflict("Conflict", text));
    }
    Ok(())
}

/// `PATCH /v3/domains/ID`.
pub async fn update(
    Shared(app): Shared<Arc<App>>,
    asking: Authenticated,
    Path(id): Path<String>,
    body: Bytes,
) -> Answer {
    require_admin(&asking.auth, "update_domain")?;
    let map = object(&body, "domain")?;
    let (new_name, description) = (name(&map)?, text(&map, "description")?);
    let enabled = truth(&map, "enabled")?;
    if enabled == Some(false) && asking.auth.user.domain_id == id {
        return Err(locked_out("disable your own domain").into());
    }
    let domain = app
        .cloud
        .write(&asking.auth.caller(), |write| {
            let row = write
                .state
                .identity
                .domains
                .row(&id)
                .ok_or_else(|| missing("domain", &id))?;
            let mut domain = row.value.as_ref().clone();
            domain.description = description.clone().unwrap_or(domain.description);
            domain.enabled = enabled.unwrap_or(domain.enabled);
            if let Some(name) = new_name.clone().filter(|n| fold(n) != fold(&domain.name)) {
                write.release(keys::identity_name(IdentityTable::Domain, "", &domain.name));
                domain.name = name;
                claim_name(write, &domain)?;
            }
            write.replace(
                keys::identity(IdentityTable::Domain, &id),
                row.mod_revision,
                &domain,
            )?;
            Ok(domain)
        })
        .await?;
    Ok(answer::json(
        200,
        &json!({"domain": show::domain(&domain, &Urls(&asking.base))}),
    ))
}

/// `DELETE /v3/domains/ID`: only a disabled one that is empty.
pub async fn delete(
    Shared(app): Shared<Arc<App>>,
    asking: Authenticated,
    Path(id): Path<String>,
) -> Answer {
    require_admin(&asking.auth, "delete_domain")?;
    app.cloud
        .write(&asking.auth.caller(), |write| {
            let directory = &write.state.identity;
            let row = directory.domains.row(&id).ok_or_else(|| missing("domain", &id))?;
            let used = directory.users.values().any(|u| u.domain_id == id)
                || directory.projects.values().any(|p| p.domain_id == id);
            if row.value.enabled || used {
                return Err(ApiError::new(403, "Forbidden", format!(
                    "domain {id} cannot be deleted: disable it, and delete its users and projects \
                     first"
                )));
            }
            write.release(keys::identity_name(IdentityTable::Domain, "", &row.value.name));
            write.remove(keys::identity(IdentityTable::Domain, &id), row.mod_revision);
            Ok(())
        })
        .await?;
    Ok(answer::empty(204))
}
