//! `/v3/projects`.

use std::{collections::BTreeSet, sync::Arc};

use axum::{
    body::Bytes,
    extract::{Path, RawQuery, State as Shared},
    response::Response,
};
use hextet_api::error::{ApiError, Result};
use serde_json::{Value, json};

use super::{
    auth::Auth,
    credentials,
    directory::{Directory, Named, Project, Scope, fold},
    matches, name, object,
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

fn of<'d>(directory: &'d Directory, user: &str) -> impl Iterator<Item = &'d Arc<Project>> {
    let theirs: BTreeSet<_> = directory
        .assignments_of(user)
        .filter_map(|a| match &a.scope {
            Scope::Project(id) => Some(id),
            _ => None,
        })
        .collect();
    theirs
        .into_iter()
        .filter_map(|id| directory.projects.get(id))
}

/// `GET /v3/projects`: an administrator sees all, others those that they have a role in.
pub async fn list(
    Shared(app): Shared<Arc<App>>,
    asking: Authenticated,
    RawQuery(query): RawQuery,
) -> Answer {
    require_admin(&asking.auth, "list_projects")?;
    let query = decode(query.as_deref().unwrap_or_default());
    let urls = Urls(&asking.base);
    let state = app.cloud.state();
    let all = state
        .identity
        .projects
        .values()
        .map(|p| show::project(p, &urls));
    let all = all.filter(|p| matches(&query, p)).collect();
    Ok(answer::json(
        200,
        &show::list("projects", all, &urls, "projects"),
    ))
}

/// `GET /v3/auth/projects`: those that the caller has a role in.
pub async fn of_caller(Shared(app): Shared<Arc<App>>, asking: Authenticated) -> Response {
    let urls = Urls(&asking.base);
    let state = app.cloud.state();
    let all = of(&state.identity, &asking.auth.user.id)
        .map(|p| show::project(p, &urls))
        .collect();
    answer::json(200, &show::list("projects", all, &urls, "auth/projects"))
}

/// `GET /v3/users/ID/projects`.
pub async fn of_user(
    Shared(app): Shared<Arc<App>>,
    asking: Authenticated,
    Path(user): Path<String>,
) -> Answer {
    if asking.auth.user.id != user {
        require_admin(&asking.auth, "list_user_projects")?;
    }
    let urls = Urls(&asking.base);
    let state = app.cloud.state();
    let all = of(&state.identity, &user)
        .map(|p| show::project(p, &urls))
        .collect();
    let path = format!("users/{user}/projects");
    Ok(answer::json(
        200,
        &show::list("projects", all, &urls, &path),
    ))
}

fn may_see(auth: &Auth, directory: &Directory, id: &str) -> bool {
    of(directory, &auth.user.id).any(|p| p.id == id)
}

/// `GET /v3/projects/ID`.
pub async fn show(
    Shared(app): Shared<Arc<App>>,
    asking: Authenticated,
    Path(id): Path<String>,
) -> Answer {
    let state = app.cloud.state();
    if !may_see(&asking.auth, &state.identity, &id) {
        require_admin(&asking.auth, "get_project")?;
    }
    let project = state
        .identity
        .projects
        .get(&id)
        .ok_or_else(|| missing("project", &id))?;
    Ok(answer::json(
        200,
        &json!({"project": show::project(project, &Urls(&asking.base))}),
    ))
}

fn tags(map: &serde_json::Map<String, Value>) -> Result<Option<BTreeSet<String>>> {
    let Some(value) = map.get("tags") else {
        return Ok(None);
    };
    let tags = serde_json::from_value::<BTreeSet<String>>(value.clone());
    let fits = |t: &BTreeSet<String>| t.len() <= 80 && t.iter().all(|t| t.chars().count() <= 255);
    match tags.ok().filter(fits) {
        Some(tags) => Ok(Some(tags)),
        None => Err(super::bad(
            "tags must be at most 80 texts of at most 255 characters",
        )),
    }
}

/// `POST /v3/projects`.
pub async fn create(Shared(app): Shared<Arc<App>>, asking: Authenticated, body: Bytes) -> Answer {
    require_admin(&asking.auth, "create_project")?;
    let map = object(&body, "project")?;
    let domain_id = text(&map, "domain_id")?.unwrap_or_else(|| asking.auth.user.domain_id.clone());
    if text(&map, "parent_id")?.is_some_and(|parent| parent != domain_id) {
        return Err(
            super::bad("projects cannot be nested: parent_id can only be the domain").into(),
        );
    }
    if truth(&map, "is_domain")? == Some(true) {
        return Err(super::bad("a project is no domain: make one by POST /v3/domains").into());
    }
    let project = Project {
        id: random_id(),
        name: name(&map)?.ok_or_else(|| super::bad("'name' is a required property"))?,
        domain_id,
        description: text(&map, "description")?.unwrap_or_default(),
        enabled: truth(&map, "enabled")?.unwrap_or(true),
        tags: tags(&map)?.unwrap_or_default(),
    };
    app.cloud
        .write(&asking.auth.caller(), |write| {
            if write
                .state
                .identity
                .domains
                .get(&project.domain_id)
                .is_none()
            {
                return Err(missing("domain", &project.domain_id));
            }
            write.exists(keys::identity(IdentityTable::Domain, &project.domain_id));
            claim_name(write, &project)?;
            write.create(
                keys::identity(IdentityTable::Project, &project.id),
                &project,
            )
        })
        .await?;
    Ok(answer::json(
        201,
        &json!({"project": show::project(&project, &Urls(&asking.base))}),
    ))
}

fn claim_name(write: &mut Write<'_>, project: &Project) -> Result<()> {
    let found = write
        .state
        .identity
        .find(Named::Project, &project.domain_id, &project.name);
    let taken = found.is_some_and(|id| *id != project.id);
    let key = keys::identity_name(IdentityTable::Project, &project.domain_id, &project.name);
    if taken || !write.claim(key, project.id.clone()) {
        return Err(ApiError::conflict(
            "Conflict",
            format!(
                "Conflict occurred attempting to store project - it is not permitted to have two projects \
             with the same name in the same domain : {}.",
                project.name
            ),
        ));
    }
    Ok(())
}

/// `PATCH /v3/projects/ID`.
pub async fn update(
    Shared(app): Shared<Arc<App>>,
    asking: Authenticated,
    Path(id): Path<String>,
    body: Bytes,
) -> Answer {
    require_admin(&asking.auth, "update_project")?;
    let map = object(&body, "project")?;
    let (new_name, description) = (name(&map)?, text(&map, "description")?);
    let (enabled, tags) = (truth(&map, "enabled")?, tags(&map)?);
    let project = app
        .cloud
        .write(&asking.auth.caller(), |write| {
            let row = write.state.identity.projects.row(&id);
            let row = row.ok_or_else(|| missing("project", &id))?;
            let mut project = row.value.as_ref().clone();
            project.description = description.clone().unwrap_or(project.description);
            project.enabled = enabled.unwrap_or(project.enabled);
            project.tags = tags.clone().unwrap_or(project.tags);
            if let Some(name) = new_name.clone().filter(|n| fold(n) != fold(&project.name)) {
                let domain = &project.domain_id;
                write.release(keys::identity_name(
                    IdentityTable::Project,
                    domain,
                    &project.name,
                ));
                project.name = name;
                claim_name(write, &project)?;
            }
            write.replace(
                keys::identity(IdentityTable::Project, &id),
                row.mod_revision,
                &project,
            )?;
            Ok(project)
        })
        .await?;
    Ok(answer::json(
        200,
        &json!({"project": show::project(&project, &Urls(&asking.base))}),
    ))
}

/// `DELETE /v3/projects/ID`. What it owns in the networking API stays, for an administrator to
/// clear away.
pub async fn delete(
    Shared(app): Shared<Arc<App>>,
    asking: Authenticated,
    Path(id): Path<String>,
) -> Answer {
    require_admin(&asking.auth, "delete_project")?;
    app.cloud
        .write(&asking.auth.caller(), |write| {
            let directory = &write.state.identity;
            let row = directory
                .projects
                .row(&id)
                .ok_or_else(|| missing("project", &id))?;
            let scope = Scope::Project(id.clone());
            for assignment in directory.assignments.values().filter(|a| a.scope == scope) {
                write.release(keys::identity(IdentityTable::Assignment, assignment.id()));
            }
            for credential in directory
                .credentials
                .values()
                .filter(|c| c.project_id == id)
            {
                credentials::remove(write, credential);
            }
            let project = &row.value;
            let name =
                keys::identity_name(IdentityTable::Project, &project.domain_id, &project.name);
            write.release(name);
            write.remove(
                keys::identity(IdentityTable::Project, &id),
                row.mod_revision,
            );
            Ok(())
        })
        .await?;
    Ok(answer::empty(204))
}
