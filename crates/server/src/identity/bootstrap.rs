//! The first start: a domain, roles, projects, the administrator with a secret that nobody has seen
//! yet, and the `clouds.yaml` that tells it to its owner alone.

use std::{
    collections::BTreeSet,
    fs,
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use hextet_api::{error::ApiError, request::Caller};
use hextet_types::ProjectId;
use thiserror::Error;

use super::{
    auth::{ADMIN, MEMBER, READER},
    directory::{Assignment, DEFAULT_DOMAIN, Domain, Project, Role, Scope, User},
    password::{self, random_id, random_secret},
};
use crate::{
    cloud::{Cloud, now},
    keys::{self, IdentityTable},
    write::Write,
};

/// The first user, and the project that it works in.
const FIRST_USER: &str = "admin";
/// Where services that check tokens have their users.
const SERVICE_PROJECT: &str = "service";

/// Why the first start failed.
#[derive(Debug, Error)]
pub enum BootstrapError {
    /// The store does not take it.
    #[error("write the first user to the store: {0}")]
    Store(#[from] ApiError),
    /// The file cannot be written.
    #[error("write {}: {source}; the store was left empty", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The password cannot be hashed.
    #[error("hash the first user's password")]
    Hash,
}

/// What every cloud begins with.
struct Beginning {
    domain: Domain,
    roles: [Role; 4],
    projects: [Project; 2],
    user: User,
    grants: [Assignment; 3],
}

/// Makes what every cloud begins with, if there is no user yet; answers whether it did.
///
/// # Errors
///
/// The file or the store cannot be written. The file comes first: a store whose secret nobody has
/// would be of no use.
pub async fn bootstrap(cloud: &Cloud, auth_url: &str, file: &Path) -> Result<bool, BootstrapError> {
    if cloud.state().identity.users.len() > 0 {
        return Ok(false);
    }
    let secret = random_secret();
    let hash = password::hash(secret.clone())
        .await
        .ok_or(BootstrapError::Hash)?;
    write_file(file, &clouds_yaml(auth_url, &secret)).map_err(|source| BootstrapError::File {
        path: file.to_owned(),
        source,
    })?;
    let nobody = Caller {
        project: ProjectId(String::new()),
        admin: true,
        member: true,
    };
    let beginning = Beginning::new(hash);
    cloud.write(&nobody, |write| beginning.put(write)).await?;
    Ok(true)
}

impl Beginning {
    fn new(password: String) -> Self {
        let domain = Domain {
            id: DEFAULT_DOMAIN.to_owned(),
            name: "Default".to_owned(),
            description: "The default domain".to_owned(),
            enabled: true,
        };
        let roles = [ADMIN, MEMBER, READER, SERVICE_PROJECT].map(|name| Role {
            id: random_id(),
            name: name.to_owned(),
            description: String::new(),
        });
        let projects = [FIRST_USER, SERVICE_PROJECT].map(|name| Project {
            id: random_id(),
            name: name.to_owned(),
            domain_id: DEFAULT_DOMAIN.to_owned(),
            description: String::new(),
            enabled: true,
            tags: BTreeSet::new(),
        });
        let ([project, _], [admin, ..]) = (&projects, &roles);
        let user = User {
            id: random_id(),
            name: FIRST_USER.to_owned(),
            domain_id: DEFAULT_DOMAIN.to_owned(),
            description: String::new(),
            email: String::new(),
            enabled: true,
            default_project_id: Some(project.id.clone()),
            password: Some(password),
            tokens_since: now(),
        };
        let grants = [
            Scope::Project(project.id.clone()),
            Scope::System,
            Scope::Domain(domain.id.clone()),
        ]
        .map(|scope| Assignment {
            user: user.id.clone(),
            scope,
            role: admin.id.clone(),
        });
        Beginning {
            domain,
            roles,
            projects,
            user,
            grants,
        }
    }

    fn put(&self, write: &mut Write<'_>) -> hextet_api::error::Result<()> {
        use IdentityTable as Table;
        let mut named = |table, within: &str, name: &str, id: &str| {
            write.claim(keys::identity_name(table, within, name), id.to_owned());
        };
        named(Table::Domain, "", &self.domain.name, &self.domain.id);
        named(Table::User, DEFAULT_DOMAIN, &self.user.name, &self.user.id);
        for role in &self.roles {
            named(Table::Role, "", &role.name, &role.id);
        }
        for project in &self.projects {
            named(Table::Project, DEFAULT_DOMAIN, &project.name, &project.id);
        }
        write.create(keys::identity(Table::Domain, &self.domain.id), &self.domain)?;
        write.create(keys::identity(Table::User, &self.user.id), &self.user)?;
        for role in &self.roles {
            write.create(keys::identity(Table::Role, &role.id), role)?;
        }
        for project in &self.projects {
            write.create(keys::identity(Table::Project, &project.id), project)?;
        }
        for grant in &self.grants {
            write.create(keys::identity(Table::Assignment, grant.id()), grant)?;
        }
        Ok(())
    }
}

fn clouds_yaml(auth_url: &str, secret: &str) -> String {
    let entry = |name: &str, scope: &str| {
        format!(
            "  {name}:\n    auth:\n      auth_url: {auth_url}\n      username: {FIRST_USER}\n      \
         password: {secret}\n{scope}      user_domain_id: {DEFAULT_DOMAIN}\n    \
         region_name: RegionOne\n    identity_api_version: 3\n"
        )
    };
    let project =
        format!("      project_name: {FIRST_USER}\n      project_domain_id: {DEFAULT_DOMAIN}\n");
    format!(
        "# Written by hextet at its first start. Whoever reads it is the cloud's administrator.\n\
         clouds:\n{}{}",
        entry("hextet", &project),
        entry("hextet-system", "      system_scope: all\n")
    )
}

/// Puts a file with mode 0600 in place, whole or not at all.
fn write_file(path: &Path, text: &str) -> io::Result<()> {
    if let Some(directory) = path.parent().filter(|d| !d.as_os_str().is_empty()) {
        fs::create_dir_all(directory)?;
    }
    let beside = path.with_extension("new");
    match fs::remove_file(&beside) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&beside)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&beside, path)
}
