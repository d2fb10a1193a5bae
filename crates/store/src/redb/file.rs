//! Opening the file: one process at a time, a schema that is known, and never half a new file.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, Read, Seek, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use redb::{Database, DatabaseError, ReadableDatabase};

use super::tables::{META, WriteTables, write_error};
use crate::{Result, StoreError};

/// The schema version that this program writes, and the newest that it reads.
pub const SCHEMA: u64 = 1;

const SCHEMA_KEY: &str = "schema";

/// An open file, and the lock that keeps others off it.
#[derive(Debug)]
pub(super) struct StoreFile {
    // Declared in this order: the database is closed before the lock goes.
    pub(super) db: Database,
    _lock: Option<File>,
}

/// Opens a store's file or makes it, mode 0600, its directory with it.
pub(super) fn open(path: &Path, cache_bytes: usize) -> Result<StoreFile> {
    if let Some(dir) = path.parent() {
        fs::create_dir_all(dir).map_err(|error| open_error(path, error))?;
    }
    let lock = lock(path)?;
    let exists = path.try_exists().map_err(|error| open_error(path, error))?;
    if !exists {
        create(path, cache_bytes)?;
    }
    let db = database(path, path, cache_bytes)?;
    check_schema(path, &db)?;
    Ok(StoreFile {
        db,
        _lock: Some(lock),
    })
}

/// Makes the file under another name, so that a crash leaves none or a whole one.
fn create(path: &Path, cache_bytes: usize) -> Result<()> {
    let error = |error| open_error(path, error);
    let new = beside(path, ".new");
    match fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(open_error(path, error));
        }
        _ => {}
    }
    let db = database(path, &new, cache_bytes)?;
    initialise(&db, SCHEMA)?;
    drop(db);
    fs::rename(&new, path).map_err(error)?;
    let dir = path
        .parent()
        .filter(|dir| !dir.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    File::open(dir)
        .and_then(|dir| dir.sync_all())
        .map_err(error)
}

/// Makes the tables.
fn initialise(db: &Database, schema: u64) -> Result<()> {
    let txn = db.begin_write().map_err(write_error)?;
    drop(WriteTables::new(&txn)?);
    let mark = || Ok(txn.open_table(META)?.insert(SCHEMA_KEY, schema).map(drop)?);
    mark().map_err(|error: redb::Error| write_error(error))?;
    txn.commit().map_err(write_error)
}

/// `named` is what errors name.
fn database(named: &Path, path: &Path, cache_bytes: usize) -> Result<Database> {
    let mut options = OpenOptions::new();
    options
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600);
    let file = options
        .open(path)
        .map_err(|error| open_error(named, error))?;
    let mut builder = Database::builder();
    builder.set_cache_size(cache_bytes);
    let shown = named.to_owned();
    builder.set_repair_callback(move |session| {
        tracing::info!(path = %shown.display(), progress = session.progress(), "repair store");
    });
    builder.create_file(file).map_err(|error| match error {
        DatabaseError::DatabaseAlreadyOpen => locked(named, None),
        error => open_error(named, error),
    })
}

fn check_schema(path: &Path, db: &Database) -> Result<()> {
    let read = || {
        let row = db
            .begin_read()?
            .open_table(META)?
            .get(SCHEMA_KEY)?
            .map(|row| row.value());
        Ok::<_, redb::Error>(row)
    };
    match read().map_err(|error| open_error(path, error))? {
        Some(SCHEMA) => Ok(()),
        Some(found) if found > SCHEMA => {
            let path = path.to_owned();
            Err(StoreError::NewerSchema {
                path,
                found,
                known: SCHEMA,
            })
        }
        _ => Err(open_error(
            path,
            "it is not a store of hextet: name another file",
        )),
    }
}

/// Locks the file beside, which says who holds it. The kernel drops the lock with the process.
fn lock(path: &Path) -> Result<File> {
    let mut options = OpenOptions::new();
    options
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600);
    let error = |error: io::Error| open_error(path, error);
    let mut file = options.open(beside(path, ".lock")).map_err(error)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut pid = String::new();
            let _ = file.take(32).read_to_string(&mut pid);
            return Err(locked(path, pid.trim().parse().ok()));
        }
        Err(TryLockError::Error(io)) => return Err(error(io)),
    }
    file.set_len(0).map_err(error)?;
    file.rewind().map_err(error)?;
    writeln!(file, "{}", std::process::id()).map_err(error)?;
    Ok(file)
}

fn locked(path: &Path, pid: Option<u32>) -> StoreError {
    let holder = match pid {
        None => "another process".to_owned(),
        Some(pid) => match fs::read_to_string(format!("/proc/{pid}/comm")) {
            Ok(name) => format!("process {pid} ({})", name.trim()),
            Err(_) => format!("process {pid}"),
        },
    };
    StoreError::Locked {
        path: path.to_owned(),
        holder,
    }
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

fn open_error(
    path: &Path,
    error: impl Into<Box<dyn std::error::Error + Send + Sync>>,
) -> StoreError {
    StoreError::Open {
        path: path.to_owned(),
        source: Arc::from(error.into()),
    }
}

#[cfg(test)]
impl StoreFile {
    /// A store's file in something that is no file.
    pub(super) fn over(backend: impl redb::StorageBackend) -> Self {
        let db = Database::builder().create_with_backend(backend).unwrap();
        if check_schema(Path::new("test"), &db).is_err() {
            initialise(&db, SCHEMA).unwrap();
        }
        StoreFile { db, _lock: None }
    }
}

/// Marks a file as of another schema.
#[cfg(test)]
pub(super) fn set_schema(path: &Path, schema: u64) {
    initialise(&Database::open(path).unwrap(), schema).unwrap();
}
