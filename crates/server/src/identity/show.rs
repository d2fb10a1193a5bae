//! How the identity API shows things.

use hextet_api::error::ApiError;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::{
    auth::Auth,
    directory::{Assignment, Credential, Directory, Domain, Project, Role, Scope, User},
};

/// The one region.
pub const REGION: &str = "RegionOne";

/// A moment as the identity API writes it.
pub fn moment(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%S.000000Z").to_string()
}

/// The base of every URL that is shown, and what is derived from it.
pub struct Urls<'a>(pub &'a str);

impl Urls<'_> {
    /// Of a thing of the identity API.
    pub fn identity(&self, path: &str) -> String {
        format!("{}/identity/v3/{path}", self.0)
    }

    fn links(&self, path: &str) -> Value {
        json!({"self": self.identity(path)})
    }
}

/// The service catalog.
pub fn catalog(urls: &Urls<'_>) -> Value {
    let service = |id: &str, kind: &str, name: &str, path: &str| {
        let endpoints: Vec<_> = ["public", "internal", "admin"]
            .iter()
            .map(|interface| {
                json!({
                    "id": format!("{id}-{interface}"),
                    "interface": interface,
                    "region": REGION,
                    "region_id": REGION,
                    "url": format!("{}{path}", urls.0),
                })
            })
            .collect();
        json!({"id": id, "type": kind, "name": name, "endpoints": endpoints})
    };
    json!([
        service("identity", "identity", "keystone", "/identity/v3"),
        service("network", "network", "neutron", "/networking"),
    ])
}

/// What a token says.
pub fn token(auth: &Auth, directory: &Directory, urls: &Urls<'_>, with_catalog: bool) -> Value {
    let reference = |d: &Domain| json!({"id": d.id, "name": d.name});
    let mut out = json!({
        "methods": auth.token.methods,
        "user": {
            "id": auth.user.id,
            "name": auth.user.name,
            "domain": reference(&auth.user_domain),
            "password_expires_at": null,
        },
        "audit_ids": [auth.token.audit_id],
        "issued_at": moment(auth.token.issued_at),
        "expires_at": moment(auth.token.expires_at),
    });
    if let Some((project, domain)) = &auth.project {
        out["project"] =
            json!({"id": project.id, "name": project.name, "domain": reference(domain)});
        out["is_domain"] = json!(false);
    }
    if let Some(domain) = &auth.domain {
        out["domain"] = reference(domain);
    }
    if auth.token.scope == Scope::System {
        out["system"] = json!({"all": true});
    }
    if auth.token.scope != Scope::Unscoped {
        out["roles"] = auth
            .roles
            .values()
            .map(|r| json!({"id": r.id, "name": r.name}))
            .collect();
        if with_catalog {
            out["catalog"] = catalog(urls);
        }
    }
    if let Some(credential) = auth
        .token
        .credential
        .as_ref()
        .and_then(|id| directory.credentials.get(id))
    {
        out["application_credential"] = json!({
            "id": credential.id,
            "name": credential.name,
            "restricted": !credential.unrestricted,
        });
    }
    json!({"token": out})
}

/// A domain.
pub fn domain(d: &Domain, urls: &Urls<'_>) -> Value {
    json!({
        "id": d.id, "name": d.name, "description": d.description, "enabled": d.enabled,
        "options": {}, "tags": [], "links": urls.links(&format!("domains/{}", d.id)),
    })
}

/// A project.
pub fn project(p: &Project, urls: &Urls<'_>) -> Value {
    json!({
        "id": p.id, "name": p.name, "domain_id": p.domain_id, "description": p.description,
        "enabled": p.enabled, "is_domain": false, "parent_id": p.domain_id, "options": {},
        "tags": p.tags, "links": urls.links(&format!("projects/{}", p.id)),
    })
}

/// A user; never its password.
pub fn user(u: &User, urls: &Urls<'_>) -> Value {
    let mut out = json!({
        "id": u.id, "name": u.name, "domain_id": u.domain_id, "description": u.description,
        "enabled": u.enabled, "options": {}, "password_expires_at": null,
        "links": urls.links(&format!("users/{}", u.id)),
    });
    if !u.email.is_empty() {
        out["email"] = json!(u.email);
    }
    if let Some(id) = &u.default_project_id {
        out["default_project_id"] = json!(id);
    }
    out
}

/// A role.
pub fn role(r: &Role, urls: &Urls<'_>) -> Value {
    json!({
        "id": r.id, "name": r.name, "description": r.description, "domain_id": null,
        "options": {}, "links": urls.links(&format!("roles/{}", r.id)),
    })
}

/// An assignment; with names where they are asked for.
pub fn assignment(a: &Assignment, directory: &Directory, names: bool, urls: &Urls<'_>) -> Value {
    let domain = |id: &String| {
        let name = directory.domains.get(id).map(|d| d.name.clone());
        json!({"id": id, "name": name})
    };
    let mut role = json!({"id": a.role});
    let mut user = json!({"id": a.user});
    let mut project = json!({});
    if let Scope::Project(id) = &a.scope {
        project = json!({"id": id});
    }
    if names {
        if let Some(r) = directory.roles.get(&a.role) {
            role["name"] = json!(r.name);
        }
        if let Some(u) = directory.users.get(&a.user) {
            user["name"] = json!(u.name);
            user["domain"] = domain(&u.domain_id);
        }
        if let Scope::Project(id) = &a.scope
            && let Some(p) = directory.projects.get(id)
        {
            project["name"] = json!(p.name);
            project["domain"] = domain(&p.domain_id);
        }
    }
    let (scope, place) = match &a.scope {
        Scope::Project(id) => (json!({"project": project}), format!("projects/{id}")),
        Scope::Domain(id) => (json!({"domain": domain(id)}), format!("domains/{id}")),
        Scope::System | Scope::Unscoped => (json!({"system": {"all": true}}), "system".into()),
    };
    let link = urls.identity(&format!("{place}/users/{}/roles/{}", a.user, a.role));
    json!({"role": role, "user": user, "scope": scope, "links": {"assignment": link}})
}

/// An application credential; never its secret.
pub fn credential(c: &Credential, directory: &Directory, urls: &Urls<'_>) -> Value {
    let roles: Vec<_> = c
        .roles
        .iter()
        .filter_map(|id| directory.roles.get(id))
        .map(|r| json!({"id": r.id, "name": r.name, "domain_id": null}))
        .collect();
    let path = format!("users/{}/application_credentials/{}", c.user_id, c.id);
    json!({
        "id": c.id, "name": c.name, "description": c.description, "project_id": c.project_id,
        "user_id": c.user_id, "roles": roles, "unrestricted": c.unrestricted,
        "expires_at": c.expires_at.map(moment), "system": null, "access_rules": null,
        "links": urls.links(&path),
    })
}

/// A list under its name, with the links that lists have.
pub fn list(name: &str, items: Vec<Value>, urls: &Urls<'_>, path: &str) -> Value {
    json!({
        name: items,
        "links": {"self": urls.identity(path), "next": null, "previous": null},
        "truncated": false,
    })
}

/// 404 in the identity API's words.
pub fn missing(what: &str, id: &str) -> ApiError {
    ApiError::new(404, "NotFound", format!("Could not find {what}: {id}."))
}
