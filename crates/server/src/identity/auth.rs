//! From a token to who asks: the user, where the token counts, with which roles.

use std::{collections::BTreeMap, sync::Arc};

use hextet_api::{
    error::{ApiError, Result},
    request::Caller,
};
use hextet_types::ProjectId;
use jiff::Timestamp;

use super::{
    directory::{Directory, Domain, Project, Role, Scope, Token, User},
    password::token_hash,
};
use crate::state::State;

/// The role of operators.
pub const ADMIN: &str = "admin";
/// The role that may change a project's resources.
pub const MEMBER: &str = "member";
/// The role that may see them.
pub const READER: &str = "reader";

/// A token that counts, and what it says.
#[derive(Clone, Debug)]
pub struct Auth {
    /// The token.
    pub token: Arc<Token>,
    /// Its name in the store.
    pub hash: String,
    /// Whose it is.
    pub user: Arc<User>,
    /// The user's domain.
    pub user_domain: Arc<Domain>,
    /// The project that it is for.
    pub project: Option<(Arc<Project>, Arc<Domain>)>,
    /// The domain that it is for.
    pub domain: Option<Arc<Domain>>,
    /// By name.
    pub roles: BTreeMap<String, Arc<Role>>,
}

impl Auth {
    /// What a token says now: roles are looked up each time, so that taking one works at once.
    ///
    /// # Errors
    ///
    /// 401: it does not count, or no more.
    pub fn of(state: &State, token: &str, now: Timestamp) -> Result<Auth> {
        let hash = token_hash(token);
        let found = state
            .identity
            .tokens
            .get(&hash)
            .ok_or_else(ApiError::unauthorized)?;
        Auth::check(&state.identity, Arc::clone(found), hash, now)
            .ok_or_else(ApiError::unauthorized)
    }

    /// None when the token does not count.
    pub fn check(
        directory: &Directory,
        token: Arc<Token>,
        hash: String,
        now: Timestamp,
    ) -> Option<Auth> {
        let user = directory.users.get(&token.user_id)?;
        let user_domain = directory
            .domains
            .get(&user.domain_id)
            .filter(|d| d.enabled)?;
        let fresh = token.expires_at > now && token.issued_at >= user.tokens_since;
        if !fresh || !user.enabled {
            return None;
        }
        let mut roles = directory.roles_of(&user.id, &token.scope);
        if let Some(id) = &token.credential {
            let credential = directory.credentials.get(id)?;
            if credential.expires_at.is_some_and(|end| end <= now) {
                return None;
            }
            let allowed = directory.with_implied(credential.roles.iter().map(String::as_str));
            roles.retain(|name, _| allowed.contains_key(name));
        }
        let enabled = |id: &String| directory.domains.get(id).filter(|d| d.enabled).cloned();
        let (mut project, mut domain) = (None, None);
        match &token.scope {
            Scope::Project(id) => {
                let found = directory.projects.get(id).filter(|p| p.enabled)?;
                project = Some((Arc::clone(found), enabled(&found.domain_id)?));
            }
            Scope::Domain(id) => domain = Some(enabled(id)?),
            Scope::System | Scope::Unscoped => {}
        }
        if token.scope != Scope::Unscoped && roles.is_empty() {
            return None;
        }
        let (user, user_domain) = (Arc::clone(user), Arc::clone(user_domain));
        Some(Auth {
            token,
            hash,
            user,
            user_domain,
            project,
            domain,
            roles,
        })
    }

    /// Whether it has the role.
    pub fn has(&self, role: &str) -> bool {
        self.roles.contains_key(role)
    }

    /// Who asks, for the networking API.
    pub fn caller(&self) -> Caller {
        let project = self.project.as_ref().map(|(p, _)| p.id.clone());
        Caller {
            project: ProjectId(project.unwrap_or_default()),
            admin: self.has(ADMIN),
            member: self.has(MEMBER),
        }
    }
}
