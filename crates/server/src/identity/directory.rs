//! Domains, projects, users, roles, assignments, application credentials and tokens, in memory.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use hextet_store::KeyValue;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{
    keys::IdentityTable,
    state::{
        Corrupt,
        table::{Index, Table},
    },
};

/// The identifier and the name that the first domain has everywhere.
pub const DEFAULT_DOMAIN: &str = "default";

/// A domain: a set of users and projects with names of their own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Domain {
    /// Its identifier.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Free text.
    pub description: String,
    /// Nobody of a disabled domain gets in.
    pub enabled: bool,
}

/// A project: what owns resources.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Project {
    /// Its identifier.
    pub id: String,
    /// Its name, once in the domain.
    pub name: String,
    /// The domain that it is in.
    pub domain_id: String,
    /// Free text.
    pub description: String,
    /// No token is for a disabled project.
    pub enabled: bool,
    /// Sorted.
    #[serde(default)]
    pub tags: BTreeSet<String>,
}

/// A user.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct User {
    /// Its identifier.
    pub id: String,
    /// Its name, once in the domain.
    pub name: String,
    /// The domain that it is in.
    pub domain_id: String,
    /// Free text.
    pub description: String,
    /// An address, or empty.
    pub email: String,
    /// A disabled user does not get in.
    pub enabled: bool,
    /// What an unscoped login is for.
    pub default_project_id: Option<String>,
    /// The password's hash; without one there is no login by password.
    pub password: Option<String>,
    /// Tokens from before do not count any more.
    pub tokens_since: Timestamp,
}

impl std::fmt::Debug for User {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("User")
            .field("id", &self.id)
            .field("name", &self.name)
            .finish()
    }
}

/// A role.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Role {
    /// Its identifier.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Free text.
    pub description: String,
}

/// Where a role or a token counts.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scope {
    /// Nowhere: only for learning where one could go.
    Unscoped,
    /// In a project.
    Project(String),
    /// In a domain.
    Domain(String),
    /// In the cloud itself.
    System,
}

/// A user has a role somewhere.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Assignment {
    /// Who.
    pub user: String,
    /// Where.
    pub scope: Scope,
    /// What.
    pub role: String,
}

impl Assignment {
    /// Its identifier in the store.
    pub fn id(&self) -> String {
        let scope = match &self.scope {
            Scope::Unscoped => "none".to_owned(),
            Scope::Project(id) => format!("project-{id}"),
            Scope::Domain(id) => format!("domain-{id}"),
            Scope::System => "system".to_owned(),
        };
        format!("{}/{scope}/{}", self.user, self.role)
    }
}

/// A secret with which a program acts for a user in one project.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Credential {
    /// Its identifier.
    pub id: String,
    /// Its name, once for the user.
    pub name: String,
    /// Free text.
    pub description: String,
    /// For whom.
    pub user_id: String,
    /// Where.
    pub project_id: String,
    /// With these roles at most, by identifier.
    pub roles: BTreeSet<String>,
    /// The secret's hash.
    pub secret: String,
    /// Whether its tokens may manage credentials themselves.
    pub unrestricted: bool,
    /// Until when.
    pub expires_at: Option<Timestamp>,
}

impl std::fmt::Debug for Credential {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Credential")
            .field("id", &self.id)
            .field("name", &self.name)
            .finish()
    }
}

/// A token, which the store knows by its hash alone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Token {
    /// Whose.
    pub user_id: String,
    /// Where it counts.
    pub scope: Scope,
    /// How it was got.
    pub methods: Vec<String>,
    /// From when.
    pub issued_at: Timestamp,
    /// Until when.
    pub expires_at: Timestamp,
    /// A name for it that gives nothing away.
    pub audit_id: String,
    /// Got by this application credential.
    pub credential: Option<String>,
}

/// The identity service's tables and indexes.
#[derive(Debug, Default)]
pub struct Directory {
    /// Domains.
    pub domains: Table<String, Domain>,
    /// Projects.
    pub projects: Table<String, Project>,
    /// Users.
    pub users: Table<String, User>,
    /// Roles.
    pub roles: Table<String, Role>,
    /// Assignments.
    pub assignments: Table<String, Assignment>,
    /// Application credentials.
    pub credentials: Table<String, Credential>,
    /// Tokens, by the hash of each.
    pub tokens: HashMap<String, Arc<Token>>,
    /// A user's assignments.
    pub assignments_by_user: Index<String, String>,
    /// A user's application credentials.
    pub credentials_by_user: Index<String, String>,
    /// A user's tokens, those that end first in front.
    pub tokens_by_user: HashMap<String, BTreeSet<(Timestamp, String)>>,
    /// All tokens, those that end first in front.
    pub tokens_by_end: BTreeSet<(Timestamp, String)>,
    names: HashMap<(Named, String, String), String>,
}

/// What has a name within a domain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Named {
    /// Users.
    User,
    /// Projects.
    Project,
}

impl Directory {
    /// Takes in a row, or that it is gone.
    ///
    /// # Errors
    ///
    /// It cannot be read.
    pub fn set(
        &mut self,
        table: IdentityTable,
        id: String,
        kv: Option<&KeyValue>,
    ) -> Result<(), Corrupt> {
        use crate::state::decode_if;
        match table {
            IdentityTable::Domain => drop(self.domains.set(id, decode_if(kv)?)),
            IdentityTable::Role => drop(self.roles.set(id, decode_if(kv)?)),
            IdentityTable::Project => {
                let row = decode_if::<Project>(kv)?;
                let new = row.as_ref().map(|r| Arc::clone(&r.value));
                let old = self.projects.set(id.clone(), row);
                let name = |p: &Arc<Project>| (Named::Project, p.domain_id.clone(), fold(&p.name));
                self.rename(old.as_ref().map(name), new.as_ref().map(name), id);
            }
            IdentityTable::User => {
                let row = decode_if::<User>(kv)?;
                let new = row.as_ref().map(|r| Arc::clone(&r.value));
                let old = self.users.set(id.clone(), row);
                let name = |u: &Arc<User>| (Named::User, u.domain_id.clone(), fold(&u.name));
                self.rename(old.as_ref().map(name), new.as_ref().map(name), id);
            }
            IdentityTable::Assignment => {
                let row = decode_if::<Assignment>(kv)?;
                let new = row.as_ref().map(|r| r.value.user.clone());
                let old = self
                    .assignments
                    .set(id.clone(), row)
                    .map(|a| a.user.clone());
                reindex(&mut self.assignments_by_user, old, new, &id);
            }
            IdentityTable::Credential => {
                let row = decode_if::<Credential>(kv)?;
                let new = row.as_ref().map(|r| r.value.user_id.clone());
                let old = self
                    .credentials
                    .set(id.clone(), row)
                    .map(|c| c.user_id.clone());
                reindex(&mut self.credentials_by_user, old, new, &id);
            }
            IdentityTable::Token => {
                let row = decode_if::<Token>(kv)?;
                self.set_token(id, row.map(|r| r.value));
            }
        }
        Ok(())
    }

    fn rename(
        &mut self,
        old: Option<(Named, String, String)>,
        new: Option<(Named, String, String)>,
        id: String,
    ) {
        if let Some(old) = old
            && self.names.get(&old) == Some(&id)
        {
            self.names.remove(&old);
        }
        if let Some(new) = new {
            self.names.insert(new, id);
        }
    }

    fn set_token(&mut self, hash: String, token: Option<Arc<Token>>) {
        let old = match &token {
            Some(token) => self.tokens.insert(hash.clone(), Arc::clone(token)),
            None => self.tokens.remove(&hash),
        };
        if let Some(old) = old {
            let end = (old.expires_at, hash.clone());
            self.tokens_by_end.remove(&end);
            if let Some(theirs) = self.tokens_by_user.get_mut(&old.user_id) {
                theirs.remove(&end);
                if theirs.is_empty() {
                    self.tokens_by_user.remove(&old.user_id);
                }
            }
        }
        if let Some(token) = token {
            let end = (token.expires_at, hash);
            self.tokens_by_end.insert(end.clone());
            self.tokens_by_user
                .entry(token.user_id.clone())
                .or_default()
                .insert(end);
        }
    }

    /// The identifier of what has that name in the domain.
    pub fn find(&self, what: Named, domain: &str, name: &str) -> Option<&String> {
        self.names.get(&(what, domain.to_owned(), fold(name)))
    }

    /// The role of that name.
    pub fn role_named(&self, name: &str) -> Option<&Arc<Role>> {
        self.roles.values().find(|r| r.name == name)
    }

    /// The domain of that name.
    pub fn domain_named(&self, name: &str) -> Option<&Arc<Domain>> {
        self.domains.values().find(|d| fold(&d.name) == fold(name))
    }

    /// A user's assignments.
    pub fn assignments_of(&self, user: &str) -> impl Iterator<Item = &Arc<Assignment>> {
        let ids = self.assignments_by_user.get(user);
        ids.filter_map(|id| self.assignments.get(id))
    }

    /// A user's roles somewhere, with those that they bring along: `admin` brings `member`, and
    /// `member` brings `reader`.
    pub fn roles_of(&self, user: &str, scope: &Scope) -> BTreeMap<String, Arc<Role>> {
        let direct = self.assignments_of(user).filter(|a| a.scope == *scope);
        self.with_implied(direct.map(|a| a.role.as_str()))
    }

    /// These roles with those that they bring along, by name.
    pub fn with_implied<'a>(
        &self,
        ids: impl Iterator<Item = &'a str>,
    ) -> BTreeMap<String, Arc<Role>> {
        let mut found: BTreeMap<_, _> = ids
            .filter_map(|id| self.roles.get(&id.to_owned()))
            .map(|r| (r.name.clone(), Arc::clone(r)))
            .collect();
        for (above, below) in [("admin", "member"), ("member", "reader")] {
            if found.contains_key(above)
                && let Some(role) = self.role_named(below)
            {
                found.insert(below.to_owned(), Arc::clone(role));
            }
        }
        found
    }
}

fn reindex(
    index: &mut Index<String, String>,
    old: Option<String>,
    new: Option<String>,
    id: &String,
) {
    if let Some(old) = old {
        index.remove(&old, id);
    }
    if let Some(new) = new {
        index.insert(new, id.clone());
    }
}

/// Names differ by more than case.
pub fn fold(name: &str) -> String {
    name.to_lowercase()
}
