//! The store in a file, embedded: [redb](https://docs.rs/redb), one process at a time.
//!
//! Reads take a snapshot and wait for nobody; writes go through one thread (see `writer`), which
//! answers when they are on the disk. Data and change log change in the same commit.

mod file;
pub(crate) mod tables;
#[cfg(test)]
mod tests;
mod writer;

use std::{
    ops::ControlFlow,
    path::{Path, PathBuf},
    sync::{Arc, Weak},
    thread::{self, JoinHandle},
    time::Duration,
};

use bytes::Bytes;
use hextet_types::Time;
use redb::ReadableDatabase;

pub use self::file::SCHEMA;
use self::{
    file::StoreFile,
    tables::Snapshot,
    writer::{Writer, WriterThread},
};
use crate::{
    BoxFuture, Image, KeyRange, KeyValue, Lease, LeaseId, RangeResult, Result, Retention, Scan,
    ScanSource, Store, StoreError, Txn, TxnResult, Watch,
    change::Change,
    limits,
    machine::{Machine, read, read_txn},
    tables::ReadTables,
    watch::{ChangeLog, Hub, LogWatch},
};

/// Keys and octets that a scan gives at once.
const SCAN_KEYS: usize = 1024;
const SCAN_BYTES: usize = 1024 * 1024;

/// How a [`RedbStore`] is opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RedbOptions {
    /// Octets of the file that are kept in memory.
    pub cache_bytes: usize,
    /// How much of the change log is kept.
    pub retention: Retention,
}

impl Default for RedbOptions {
    /// 16 MiB of cache.
    fn default() -> Self {
        RedbOptions {
            cache_bytes: 16 * 1024 * 1024,
            retention: Retention::default(),
        }
    }
}

/// A store in a file. Dropping it waits for the commit that runs, and lets go of the file.
#[derive(Debug)]
pub struct RedbStore {
    path: PathBuf,
    file: Arc<StoreFile>,
    hub: Arc<Hub>,
    /// Gone only in `drop`.
    writer: Option<Writer>,
    thread: Option<JoinHandle<()>>,
}

impl RedbStore {
    /// Opens a store's file, or makes it with mode 0600 if it is not there; beside it a lock file
    /// is left. Reads the change log once, and mends the file if its last user was killed: not
    /// for an async task, except at start.
    ///
    /// # Errors
    ///
    /// [`StoreError::Locked`], [`StoreError::NewerSchema`], [`StoreError::Open`].
    pub fn open(path: impl AsRef<Path>, options: &RedbOptions) -> Result<Self> {
        let path = path.as_ref().to_owned();
        let file = file::open(&path, options.cache_bytes)?;
        Self::start(path, file, options.retention)
    }

    fn start(path: PathBuf, file: StoreFile, retention: Retention) -> Result<Self> {
        let file = Arc::new(file);
        let snapshot = snapshot(&file)?;
        let origin = snapshot.origin()?;
        let hub = Arc::new(Hub::new(origin.head));
        let machine = Machine::new(origin, &snapshot.leases()?, retention);
        drop(snapshot);
        let (writer, work) = Writer::new(Arc::clone(&file), machine, Arc::clone(&hub));
        let thread = spawn(&path, work)?;
        Ok(RedbStore {
            path,
            file,
            hub,
            writer: Some(writer),
            thread: Some(thread),
        })
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    async fn read<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Snapshot) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        self.hub.head()?;
        let file = Arc::clone(&self.file);
        blocking(move || work(&snapshot(&file)?)).await
    }

    fn writer(&self) -> Result<&Writer> {
        self.writer.as_ref().ok_or(StoreError::Closed)
    }
}

fn spawn(path: &Path, work: WriterThread) -> Result<JoinHandle<()>> {
    let builder = thread::Builder::new().name("hextet-store".to_owned());
    builder
        .spawn(move || work.run())
        .map_err(|error| StoreError::Open {
            path: path.to_owned(),
            source: Arc::new(error),
        })
}

fn snapshot(file: &StoreFile) -> Result<Snapshot> {
    let txn = file.db.begin_read();
    Snapshot::new(&txn.map_err(|error| StoreError::Read {
        source: Arc::new(error),
    })?)
}

/// Runs work that reads the file where it holds up no task.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => Err(StoreError::Read {
            source: Arc::new(error),
        }),
    }
}

impl Drop for RedbStore {
    fn drop(&mut self) {
        self.writer = None;
        if let Some(thread) = self.thread.take() {
            // A panic there has already been reported by the thread itself.
            let _ = thread.join();
        }
    }
}

impl Store for RedbStore {
    fn txn(&self, txn: Txn) -> BoxFuture<'_, Result<TxnResult>> {
        Box::pin(async move {
            txn.check()?;
            if txn.is_read_only() {
                let read =
                    move |snapshot: &Snapshot| read_txn(snapshot, &txn, snapshot.head()?.revision);
                return self.read(read).await;
            }
            let bytes = txn.size();
            self.writer()?
                .submit(bytes, move |machine, tables| machine.txn(tables, &txn))
                .await
        })
    }

    fn range(&self, range: KeyRange, limit: Option<usize>) -> BoxFuture<'_, Result<RangeResult>> {
        Box::pin(async move {
            range.check()?;
            self.read(move |snapshot| {
                let revision = snapshot.head()?.revision;
                let (kvs, more) = read(snapshot, &range, limit, &mut { limits::ANSWER_BYTES })?;
                Ok(RangeResult {
                    revision,
                    kvs,
                    more,
                })
            })
            .await
        })
    }

    fn scan(&self, range: KeyRange) -> BoxFuture<'_, Result<Scan>> {
        Box::pin(async move {
            range.check()?;
            self.hub.head()?;
            let file = Arc::clone(&self.file);
            blocking(move || {
                let snapshot = snapshot(&file)?;
                let (revision, leases) = (snapshot.head()?.revision, snapshot.leases()?);
                let rest = Some(range);
                Ok(Scan::new(
                    revision,
                    leases,
                    RedbScan {
                        snapshot: Some(snapshot),
                        rest,
                    },
                ))
            })
            .await
        })
    }

    fn watch(&self, range: KeyRange, from_revision: u64) -> BoxFuture<'_, Result<Watch>> {
        Box::pin(async move {
            range.check()?;
            let log = RedbLog(Arc::downgrade(&self.file));
            LogWatch::new(Arc::clone(&self.hub), log, range, from_revision).map(Watch::new)
        })
    }

    fn revision(&self) -> BoxFuture<'_, Result<u64>> {
        Box::pin(async move { Ok(self.hub.head()?.revision) })
    }

    fn compact(&self, revision: u64) -> BoxFuture<'_, Result<u64>> {
        Box::pin(async move {
            let work = move |machine: &mut Machine, tables: &mut tables::WriteTables<'_>| {
                machine.compact(tables, revision)
            };
            self.writer()?.submit(0, work).await
        })
    }

    fn lease_grant(&self, ttl: Duration) -> BoxFuture<'_, Result<LeaseId>> {
        Box::pin(async move {
            self.writer()?
                .submit(0, move |machine, tables| machine.grant(tables, ttl))
                .await
        })
    }

    fn lease_keep_alive(&self, id: LeaseId) -> BoxFuture<'_, Result<Duration>> {
        Box::pin(async move {
            self.writer()?
                .submit(0, move |machine, _| machine.keep_alive(id))
                .await
        })
    }

    fn lease_revoke(&self, id: LeaseId) -> BoxFuture<'_, Result<u64>> {
        Box::pin(async move {
            self.writer()?
                .submit(0, move |machine, tables| machine.revoke(tables, id))
                .await
        })
    }

    fn leases(&self) -> BoxFuture<'_, Result<Vec<Lease>>> {
        Box::pin(self.read(ReadTables::leases))
    }

    fn tick(&self, now: Time) -> BoxFuture<'_, Result<Vec<LeaseId>>> {
        Box::pin(async move {
            self.writer()?
                .submit(0, move |machine, tables| machine.tick(tables, now))
                .await
        })
    }

    fn restore(&self, image: Image, overwrite: bool) -> BoxFuture<'_, Result<u64>> {
        Box::pin(async move {
            let bytes = image.kvs.iter().map(KeyValue::size).sum();
            let writer = self.writer()?;
            writer
                .submit(bytes, move |machine, tables| {
                    machine.restore(tables, &image, overwrite)
                })
                .await
        })
    }
}

struct RedbScan {
    /// Away while a piece is being read; lost with a future that was dropped then.
    snapshot: Option<Snapshot>,
    rest: Option<KeyRange>,
}

impl ScanSource for RedbScan {
    fn next(&mut self) -> BoxFuture<'_, Result<Vec<KeyValue>>> {
        Box::pin(async move {
            let Some(range) = self.rest.clone() else {
                return Ok(Vec::new());
            };
            let snapshot = self.snapshot.take().ok_or(StoreError::Closed)?;
            let (snapshot, kvs) = blocking(move || {
                let kvs = piece(&snapshot, &range)?;
                Ok((snapshot, kvs))
            })
            .await?;
            self.rest = match (kvs.last(), self.rest.take()) {
                (Some(last), Some(range)) => Some(behind(&range, &last.key)),
                _ => None,
            };
            self.snapshot = self.rest.is_some().then_some(snapshot);
            Ok(kvs)
        })
    }
}

fn piece(snapshot: &Snapshot, range: &KeyRange) -> Result<Vec<KeyValue>> {
    let (mut kvs, mut bytes) = (Vec::new(), 0);
    snapshot.visit(range, &mut |kv| {
        bytes += kv.size();
        kvs.push(kv);
        let full = kvs.len() >= SCAN_KEYS || bytes >= SCAN_BYTES;
        if full {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    })?;
    Ok(kvs)
}

/// What of the range lies behind a key.
fn behind(range: &KeyRange, key: &[u8]) -> KeyRange {
    let start = Bytes::from([key, &[0]].concat());
    match range.end() {
        Some(end) => KeyRange::between(start, end.clone()),
        None => KeyRange::from(start),
    }
}

/// A watch does not keep the file open.
struct RedbLog(Weak<StoreFile>);

impl ChangeLog for RedbLog {
    fn read_changes(&self, from: u64) -> BoxFuture<'_, Result<Vec<Arc<Change>>>> {
        let file = self.0.clone();
        Box::pin(blocking(move || {
            let file = file.upgrade().ok_or(StoreError::Closed)?;
            snapshot(&file)?.changes(from)
        }))
    }
}
