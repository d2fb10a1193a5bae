//! What every back end must do: one suite, run over each.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

mod bounds;
mod leases;
mod model;
mod transactions;
mod watches;

use std::{sync::Arc, time::Duration};

use hextet_store::{MemoryStore, RedbOptions, RedbStore, Retention, Store};
use tempfile::TempDir;

/// Makes a `#[test]` for each back end out of each async function over `Arc<dyn Store>`.
macro_rules! on_each_back_end {
    ($($name:ident,)*) => {
        mod memory {
            $(#[test] fn $name() { crate::run(crate::memory(), super::$name); })*
        }
        mod redb {
            $(#[test] fn $name() { crate::run(crate::redb(), super::$name); })*
        }
    };
}
pub(crate) use on_each_back_end;

/// A store, and the directory that it may live in.
pub(crate) struct TestStore {
    pub(crate) store: Arc<dyn Store>,
    _dir: Option<TempDir>,
}

/// Small enough to be passed in a test.
pub(crate) const RETENTION: Retention = Retention {
    revisions: 200,
    bytes: 1 << 30,
};

pub(crate) fn memory() -> TestStore {
    TestStore {
        store: Arc::new(MemoryStore::new(RETENTION)),
        _dir: None,
    }
}

pub(crate) fn redb() -> TestStore {
    let dir = scratch();
    let options = RedbOptions {
        cache_bytes: 1 << 20,
        retention: RETENTION,
    };
    let store = RedbStore::open(dir.path().join("store.redb"), &options).unwrap();
    TestStore {
        store: Arc::new(store),
        _dir: Some(dir),
    }
}

/// In memory, where there is such a file system: these tests are not about disks.
fn scratch() -> TempDir {
    tempfile::tempdir_in("/dev/shm")
        .or_else(|_| tempfile::tempdir())
        .unwrap()
}

pub(crate) fn run<F: Future<Output = ()>>(test: TestStore, body: impl FnOnce(Arc<dyn Store>) -> F) {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_time()
        .build()
        .unwrap();
    let limit = Duration::from_secs(60);
    runtime
        .block_on(async { tokio::time::timeout(limit, body(Arc::clone(&test.store))).await })
        .expect("done within a minute");
}
