//! `POST /v3/auth/tokens`: who says that they are who, and what for.

use std::{net::IpAddr, sync::Arc};

use hextet_api::error::{ApiError, Result};
use jiff::{SignedDuration, Timestamp};
use serde::Deserialize;
use serde_json::Value;

use super::{
    auth::Auth,
    directory::{Credential, Directory, Named, Scope, Token, User},
    password::{self, MAX_PASSWORD, random_id, random_secret, token_hash},
};
use crate::{
    app::App,
    cloud::now,
    keys::{self, IdentityTable},
    state::State,
};

/// Tokens of one user; when there are more, the one that ends first goes.
const MAX_TOKENS: usize = 5_000;

/// The body.
#[derive(Deserialize)]
pub struct Login {
    auth: AuthRequest,
}

#[derive(Deserialize)]
struct AuthRequest {
    identity: Identity,
    scope: Option<Value>,
}

#[derive(Deserialize)]
struct Identity {
    methods: Vec<String>,
    password: Option<PasswordMethod>,
    token: Option<TokenMethod>,
    application_credential: Option<CredentialMethod>,
}

#[derive(Deserialize)]
struct PasswordMethod {
    user: UserRef,
}

#[derive(Deserialize)]
struct TokenMethod {
    id: String,
}

#[derive(Deserialize)]
struct CredentialMethod {
    id: Option<String>,
    name: Option<String>,
    user: Option<UserRef>,
    secret: String,
}

#[derive(Deserialize)]
struct UserRef {
    id: Option<String>,
    name: Option<String>,
    domain: Option<NameRef>,
    #[serde(default)]
    password: String,
}

#[derive(Clone, Deserialize)]
struct NameRef {
    id: Option<String>,
    name: Option<String>,
}

#[derive(Deserialize)]
struct ProjectRef {
    id: Option<String>,
    name: Option<String>,
    domain: Option<NameRef>,
}

/// Who has been recognized, and how.
struct Recognized {
    user: Arc<User>,
    method: &'static str,
    credential: Option<Arc<Credential>>,
    /// A token got by a token ends with it.
    until: Option<Timestamp>,
}

fn refused() -> ApiError {
    ApiError::unauthorized()
}

impl UserRef {
    fn find(&self, directory: &Directory) -> Option<Arc<User>> {
        let by_name = || {
            let domain = self.domain.as_ref()?.find(directory)?;
            directory
                .find(Named::User, &domain, self.name.as_deref()?)
                .cloned()
        };
        let id = self.id.clone().or_else(by_name)?;
        let user = directory.users.get(&id)?;
        let enabled = directory
            .domains
            .get(&user.domain_id)
            .is_some_and(|d| d.enabled);
        (user.enabled && enabled).then(|| Arc::clone(user))
    }

    fn label(&self) -> &str {
        self.id
            .as_deref()
            .or(self.name.as_deref())
            .unwrap_or_default()
    }
}

impl NameRef {
    fn find(&self, directory: &Directory) -> Option<String> {
        match (&self.id, &self.name) {
            (Some(id), _) => Some(id.clone()),
            (None, Some(name)) => directory.domain_named(name).map(|d| d.id.clone()),
            (None, None) => None,
        }
    }
}

/// Recognizes, and issues a token; answers it with what it says.
///
/// # Errors
///
/// 401, without saying what was wrong; 429 after too many failures.
pub async fn login(app: &App, login: Login, from: IpAddr) -> Result<(String, Auth)> {
    let AuthRequest { identity, scope } = login.auth;
    let recognized = recognize(app, identity, from).await?;
    let scope = {
        let state = app.cloud.state();
        choose_scope(&state.identity, &recognized, scope)?
    };
    issue(app, recognized, scope).await
}

async fn recognize(app: &App, identity: Identity, from: IpAddr) -> Result<Recognized> {
    let method = match identity.methods.as_slice() {
        [one] => Some(one.clone()),
        _ => None,
    };
    match (method.as_deref(), identity) {
        (
            Some("password"),
            Identity {
                password: Some(method),
                ..
            },
        ) => by_password(app, method.user, from).await,
        (
            Some("token"),
            Identity {
                token: Some(method),
                ..
            },
        ) => by_token(app, &method.id),
        (
            Some("application_credential"),
            Identity {
                application_credential: Some(method),
                ..
            },
        ) => by_credential(app, method, from).await,
        _ => Err(ApiError::new(
            400,
            "BadRequest",
            "identity.methods must name just one of password, token and application_credential, and \
             the object of that name must be there",
        )),
    }
}

async fn by_password(app: &App, user: UserRef, from: IpAddr) -> Result<Recognized> {
    app.attempts.check(from, user.label())?;
    let found = user.find(&app.cloud.state().identity);
    let hash = found.as_ref().and_then(|u| u.password.clone());
    let label = user.label().to_owned();
    let fits = user.password.len() <= MAX_PASSWORD && password::verify(user.password, hash).await;
    match found.filter(|_| fits) {
        Some(user) => Ok(Recognized {
            user,
            method: "password",
            credential: None,
            until: None,
        }),
        None => {
            app.attempts.failed(from, &label);
            Err(refused())
        }
    }
}

fn by_token(app: &App, token: &str) -> Result<Recognized> {
    let auth = Auth::of(&app.cloud.state(), token, now())?;
    if auth.token.credential.is_some() {
        return Err(ApiError::forbidden(
            "identity:rescope_application_credential",
        ));
    }
    let until = Some(auth.token.expires_at);
    Ok(Recognized {
        user: auth.user,
        method: "token",
        credential: None,
        until,
    })
}

async fn by_credential(app: &App, method: CredentialMethod, from: IpAddr) -> Result<Recognized> {
    let label = method
        .id
        .clone()
        .or(method.name.clone())
        .unwrap_or_default();
    app.attempts.check(from, &label)?;
    let found = {
        let state = app.cloud.state();
        find_credential(&state.identity, &method)
    };
    let hash = found.as_ref().map(|(_, c)| c.secret.clone());
    let fits = method.secret.len() <= MAX_PASSWORD && password::verify(method.secret, hash).await;
    match found.filter(|_| fits) {
        Some((user, credential)) => Ok(Recognized {
            user,
            method: "application_credential",
            until: credential.expires_at,
            credential: Some(credential),
        }),
        None => {
            app.attempts.failed(from, &label);
            Err(refused())
        }
    }
}

fn find_credential(
    directory: &Directory,
    method: &CredentialMethod,
) -> Option<(Arc<User>, Arc<Credential>)> {
    let credential = match (&method.id, &method.name, &method.user) {
        (Some(id), _, _) => directory.credentials.get(id)?,
        (None, Some(name), Some(user)) => {
            let user = user.find(directory)?;
            let ids = directory.credentials_by_user.get(&user.id);
            let mut theirs = ids.filter_map(|id| directory.credentials.get(id));
            theirs.find(|c| c.name == *name)?
        }
        _ => return None,
    };
    if credential.expires_at.is_some_and(|end| end <= now()) {
        return None;
    }
    let user = directory
        .users
        .get(&credential.user_id)
        .filter(|u| u.enabled)?;
    Some((Arc::clone(user), Arc::clone(credential)))
}

/// What the token is for: what the request says, else the user's default project, else nothing.
fn choose_scope(
    directory: &Directory,
    recognized: &Recognized,
    asked: Option<Value>,
) -> Result<Scope> {
    if let Some(credential) = &recognized.credential {
        if asked.is_some() {
            return Err(ApiError::new(
                401,
                "Unauthorized",
                "Application credentials cannot request a scope.",
            ));
        }
        return Ok(Scope::Project(credential.project_id.clone()));
    }
    let scope = match asked {
        None => match &recognized.user.default_project_id {
            Some(id) if has_role(directory, recognized, &Scope::Project(id.clone())) => {
                return Ok(Scope::Project(id.clone()));
            }
            _ => return Ok(Scope::Unscoped),
        },
        Some(Value::String(text)) if text == "unscoped" => return Ok(Scope::Unscoped),
        Some(value) => parse_scope(directory, value)?,
    };
    if has_role(directory, recognized, &scope) {
        Ok(scope)
    } else {
        Err(refused())
    }
}

fn has_role(directory: &Directory, recognized: &Recognized, scope: &Scope) -> bool {
    !directory.roles_of(&recognized.user.id, scope).is_empty()
}

fn parse_scope(directory: &Directory, value: Value) -> Result<Scope> {
    let malformed = || {
        ApiError::new(
            400,
            "BadRequest",
            "scope must be a project, a domain, system, or \"unscoped\"",
        )
    };
    let Value::Object(mut map) = value else {
        return Err(malformed());
    };
    if let Some(project) = map.remove("project") {
        let project: ProjectRef = serde_json::from_value(project).map_err(|_| malformed())?;
        let by_name = || {
            let domain = project.domain.as_ref()?.find(directory)?;
            directory
                .find(Named::Project, &domain, project.name.as_deref()?)
                .cloned()
        };
        return project
            .id
            .clone()
            .or_else(by_name)
            .map(Scope::Project)
            .ok_or_else(refused);
    }
    if let Some(domain) = map.remove("domain") {
        let domain: NameRef = serde_json::from_value(domain).map_err(|_| malformed())?;
        return domain
            .find(directory)
            .map(Scope::Domain)
            .ok_or_else(refused);
    }
    match map.remove("system") {
        Some(_) => Ok(Scope::System),
        None => Err(malformed()),
    }
}

async fn issue(app: &App, recognized: Recognized, scope: Scope) -> Result<(String, Auth)> {
    let secret = random_secret();
    let hash = token_hash(&secret);
    let issued_at = now();
    let life = SignedDuration::from_secs(i64::from(app.settings.token_lifetime_secs));
    let end = issued_at.checked_add(life).unwrap_or(issued_at);
    let token = Arc::new(Token {
        user_id: recognized.user.id.clone(),
        scope,
        methods: vec![recognized.method.to_owned()],
        issued_at,
        expires_at: recognized.until.map_or(end, |until| until.min(end)),
        audit_id: random_id(),
        credential: recognized.credential.map(|c| c.id.clone()),
    });
    let check = |state: &State| {
        Auth::check(&state.identity, Arc::clone(&token), hash.clone(), now()).ok_or_else(refused)
    };
    let auth = check(&app.cloud.state())?;
    app.cloud
        .write(&auth.caller(), |write| {
            check(write.state)?;
            let theirs = write.state.identity.tokens_by_user.get(&token.user_id);
            if let Some((_, oldest)) = theirs
                .filter(|t| t.len() >= MAX_TOKENS)
                .and_then(|t| t.first())
            {
                write.release(keys::identity(IdentityTable::Token, oldest));
            }
            write.create(keys::identity(IdentityTable::Token, &hash), token.as_ref())
        })
        .await?;
    Ok((secret, auth))
}
