//! Who has which role where: `/v3/{projects|domains}/PLACE/users/USER/roles`, `/v3/system/…`,
//! `/v3/role_assignments`.

use std::{collections::HashMap, sync::Arc};

use axum::{
    extract::{OriginalUri, Path, RawQuery, State as Shared},
    response::Response,
};
use hextet_api::error::Result;

use super::{
    directory::{Assignment, Directory, Scope},
    parameter, require_admin,
    show::{self, Urls, missing},
};
use crate::{
    app::{App, Authenticated},
    http::answer::{self, IdentityError},
    keys::{self, IdentityTable},
    networking::serve::decode,
};

type Answer = Result<Response, IdentityError>;
type Parts = HashMap<String, String>;

fn part<'p>(parts: &'p Parts, name: &str) -> &'p str {
    parts.get(name).map_or("", String::as_str)
}

/// The place that the path names, if it is there.
fn scope(directory: &Directory, uri: &OriginalUri, parts: &Parts) -> Result<Scope> {
    let id = part(parts, "place").to_owned();
    let path = uri.path();
    if path.contains("/v3/projects/") {
        directory
            .projects
            .get(&id)
            .ok_or_else(|| missing("project", &id))?;
        return Ok(Scope::Project(id));
    }
    if path.contains("/v3/domains/") {
        directory
            .domains
            .get(&id)
            .ok_or_else(|| missing("domain", &id))?;
        return Ok(Scope::Domain(id));
    }
    Ok(Scope::System)
}

fn assignment(directory: &Directory, uri: &OriginalUri, parts: &Parts) -> Result<Assignment> {
    let scope = scope(directory, uri, parts)?;
    let (user, role) = (
        part(parts, "user").to_owned(),
        part(parts, "role").to_owned(),
    );
    directory
        .users
        .get(&user)
        .ok_or_else(|| missing("user", &user))?;
    directory
        .roles
        .get(&role)
        .ok_or_else(|| missing("role", &role))?;
    Ok(Assignment { user, scope, role })
}

/// `PUT …/roles/ROLE`.
pub async fn grant(
    Shared(app): Shared<Arc<App>>,
    asking: Authenticated,
    uri: OriginalUri,
    Path(parts): Path<Parts>,
) -> Answer {
    require_admin(&asking.auth, "create_grant")?;
    app.cloud
        .write(&asking.auth.caller(), |write| {
            let granted = assignment(&write.state.identity, &uri, &parts)?;
            let id = granted.id();
            if write.state.identity.assignments.get(&id).is_some() {
                return Ok(());
            }
            write.exists(keys::identity(IdentityTable::User, &granted.user));
            write.exists(keys::identity(IdentityTable::Role, &granted.role));
            if let Scope::Project(project) = &granted.scope {
                write.exists(keys::identity(IdentityTable::Project, project));
            }
            write.create(keys::identity(IdentityTable::Assignment, id), &granted)
        })
        .await?;
    Ok(answer::empty(204))
}

/// `HEAD` and `GET …/roles/ROLE`: 204 when the user has it there.
pub async fn check(
    Shared(app): Shared<Arc<App>>,
    asking: Authenticated,
    uri: OriginalUri,
    Path(parts): Path<Parts>,
) -> Answer {
    require_admin(&asking.auth, "check_grant")?;
    let state = app.cloud.state();
    let wanted = assignment(&state.identity, &uri, &parts)?;
    match state.identity.assignments.get(&wanted.id()) {
        Some(_) => Ok(answer::empty(204)),
        None => Err(missing("role assignment", &wanted.id()).into()),
    }
}

/// `DELETE …/roles/ROLE`.
pub async fn revoke(
    Shared(app): Shared<Arc<App>>,
    asking: Authenticated,
    uri: OriginalUri,
    Path(parts): Path<Parts>,
) -> Answer {
    require_admin(&asking.auth, "revoke_grant")?;
    app.cloud
        .write(&asking.auth.caller(), |write| {
            let revoked = assignment(&write.state.identity, &uri, &parts)?;
            let row = write.state.identity.assignments.row(&revoked.id());
            let row = row.ok_or_else(|| missing("role assignment", &revoked.id()))?;
            write.remove(
                keys::identity(IdentityTable::Assignment, revoked.id()),
                row.mod_revision,
            );
            Ok(())
        })
        .await?;
    Ok(answer::empty(204))
}

/// `GET …/users/USER/roles`.
pub async fn of_user(
    Shared(app): Shared<Arc<App>>,
    asking: Authenticated,
    uri: OriginalUri,
    Path(parts): Path<Parts>,
) -> Answer {
    require_admin(&asking.auth, "list_grants")?;
    let urls = Urls(&asking.base);
    let state = app.cloud.state();
    let scope = scope(&state.identity, &uri, &parts)?;
    let theirs = state.identity.assignments_of(part(&parts, "user"));
    let roles = theirs
        .filter(|a| a.scope == scope)
        .filter_map(|a| state.identity.roles.get(&a.role))
        .map(|r| show::role(r, &urls))
        .collect();
    Ok(answer::json(
        200,
        &show::list("roles", roles, &urls, "roles"),
    ))
}

/// `GET /v3/role_assignments`.
pub async fn list(
    Shared(app): Shared<Arc<App>>,
    asking: Authenticated,
    RawQuery(query): RawQuery,
) -> Answer {
    let query = decode(query.as_deref().unwrap_or_default());
    let own = parameter(&query, "user.id") == Some(asking.auth.user.id.as_str());
    if !own {
        require_admin(&asking.auth, "list_role_assignments")?;
    }
    let urls = Urls(&asking.base);
    let names = query
        .iter()
        .any(|(k, v)| k == "include_names" && v != "0" && v != "False");
    let asked = |name: &str, actual: Option<&str>| {
        parameter(&query, name).is_none_or(|wanted| actual == Some(wanted))
    };
    let wanted = |a: &&Arc<Assignment>| {
        let (project, domain) = match &a.scope {
            Scope::Project(id) => (Some(id.as_str()), None),
            Scope::Domain(id) => (None, Some(id.as_str())),
            _ => (None, None),
        };
        asked("user.id", Some(&a.user))
            && asked("role.id", Some(&a.role))
            && asked("scope.project.id", project)
            && asked("scope.domain.id", domain)
            && (parameter(&query, "scope.system").is_none() || a.scope == Scope::System)
            && parameter(&query, "group.id").is_none()
    };
    let state = app.cloud.state();
    let directory = &state.identity;
    let all = directory.assignments.values().filter(wanted);
    let all = all
        .map(|a| show::assignment(a, directory, names, &urls))
        .collect();
    Ok(answer::json(
        200,
        &show::list("role_assignments", all, &urls, "role_assignments"),
    ))
}
