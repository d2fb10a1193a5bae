//! The file itself: who may open it, what a power cut leaves, what a slow or broken disk does.

use std::{
    io,
    os::unix::fs::PermissionsExt,
    sync::{Condvar, Mutex},
    time::Duration,
};

use rand::{Rng, SeedableRng, rngs::StdRng};

use super::*;
use crate::{Compare, Op, WatchItem};

fn block_on<F: Future>(future: F) -> F::Output {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap();
    let limit = Duration::from_secs(60);
    runtime
        .block_on(async { tokio::time::timeout(limit, future).await })
        .expect("in a minute")
}

fn open(path: &Path) -> Result<RedbStore> {
    RedbStore::open(path, &RedbOptions::default())
}

#[test]
fn a_second_opener_is_told_who_has_it() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("sub/store.redb");
    let store = open(&path).unwrap();
    let error = open(&path).unwrap_err().to_string();
    assert!(error.contains("sub/store.redb"), "{error}");
    assert!(
        error.contains(&format!("process {} (", std::process::id())),
        "{error}"
    );
    assert!(error.contains("stop that first"), "{error}");
    drop(store);
    open(&path).unwrap();
}

#[test]
fn the_file_is_for_its_owner_alone() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store.redb");
    drop(open(&path).unwrap());
    for name in ["store.redb", "store.redb.lock"] {
        let mode = std::fs::metadata(dir.path().join(name))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
}

#[test]
fn a_newer_schema_is_refused_with_a_way_out() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store.redb");
    drop(open(&path).unwrap());
    file::set_schema(&path, SCHEMA + 1);
    let error = open(&path).unwrap_err();
    assert!(
        matches!(
            error,
            StoreError::NewerSchema {
                found: 2,
                known: 1,
                ..
            }
        ),
        "{error}"
    );
    let error = error.to_string();
    assert!(
        error.contains("store.redb") && error.contains("run the newer hextet"),
        "{error}"
    );
    file::set_schema(&path, SCHEMA);
    open(&path).unwrap();
}

#[test]
fn what_is_no_store_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let text = dir.path().join("text");
    std::fs::write(&text, "no database\n".repeat(1000)).unwrap();
    assert!(matches!(open(&text).unwrap_err(), StoreError::Open { .. }));
    assert!(std::fs::read(&text).unwrap().starts_with(b"no database\n"));
    let foreign = dir.path().join("foreign");
    drop(redb::Database::create(&foreign).unwrap());
    assert!(matches!(
        open(&foreign).unwrap_err(),
        StoreError::Open { .. }
    ));
    let foreign = redb::Database::open(&foreign).unwrap();
    assert_eq!(
        foreign.begin_read().unwrap().list_tables().unwrap().count(),
        0
    );
}

#[test]
fn half_a_new_file_is_made_anew() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store.redb");
    std::fs::write(dir.path().join("store.redb.new"), [0; 5000]).unwrap();
    drop(open(&path).unwrap());
    assert!(!dir.path().join("store.redb.new").exists());
}

#[test]
fn all_of_it_is_there_when_it_is_opened_again() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store.redb");
    block_on(async {
        let store = open(&path).unwrap();
        let lease = store.lease_grant(Duration::from_secs(5)).await.unwrap();
        let other = store.lease_grant(Duration::from_secs(50)).await.unwrap();
        store.lease_revoke(other).await.unwrap();
        for n in 0..5 {
            store.put("k".into(), n.to_string().into()).await.unwrap();
        }
        let leased = [
            Op::put_leased("l", "", lease),
            Op::put_leased("m", "", lease),
        ];
        store.txn(Txn::of(leased)).await.unwrap();
        store.compact(3).await.unwrap();
        store.tick(Time::from_secs(1000)).await.unwrap();
        drop(store);

        let store = open(&path).unwrap();
        assert_eq!(store.revision().await.unwrap(), 6);
        assert_eq!(store.get("k".into()).await.unwrap().unwrap().version, 5);
        let error = store.watch(KeyRange::all(), 3).await.unwrap_err();
        assert!(matches!(
            error,
            StoreError::Compacted {
                compact_revision: 3
            }
        ));
        let mut watch = store.watch(KeyRange::all(), 4).await.unwrap();
        for revision in 4..=6 {
            assert_eq!(watch.next().await.unwrap().revision(), revision);
        }
        assert_eq!(
            store.tick(Time::from_secs(7)).await.unwrap(),
            [],
            "leases begin anew"
        );
        assert_eq!(store.tick(Time::from_secs(12)).await.unwrap(), [lease]);
        assert_eq!(
            store.range(KeyRange::all(), None).await.unwrap().kvs.len(),
            1
        );
        let next = store.lease_grant(Duration::from_secs(5)).await.unwrap();
        assert!(next > other, "numbers are not used again");
    });
}

/// A disk that remembers what was asked of it, and does what it is told.
#[derive(Clone, Debug, Default)]
struct Disk(Arc<(Mutex<DiskState>, Condvar)>);

#[derive(Debug, Default)]
struct DiskState {
    octets: Vec<u8>,
    log: Vec<DiskOp>,
    syncs: usize,
    held: bool,
    broken: bool,
}

#[derive(Clone, Debug)]
enum DiskOp {
    Write(usize, Vec<u8>),
    SetLen(usize),
    Sync,
}

impl DiskOp {
    fn apply(&self, octets: &mut Vec<u8>) {
        match self {
            DiskOp::Write(at, data) => {
                octets.resize(octets.len().max(at + data.len()), 0);
                octets[*at..at + data.len()].copy_from_slice(data);
            }
            DiskOp::SetLen(len) => octets.resize(*len, 0),
            DiskOp::Sync => {}
        }
    }
}

impl Disk {
    fn with(octets: Vec<u8>) -> Self {
        let disk = Disk::default();
        disk.state().octets = octets;
        disk
    }

    fn state(&self) -> std::sync::MutexGuard<'_, DiskState> {
        self.0.0.lock().unwrap()
    }

    /// Whether syncs wait.
    fn hold(&self, held: bool) {
        self.state().held = held;
        self.0.1.notify_all();
    }

    fn push(&self, op: DiskOp) -> io::Result<()> {
        let mut state = self.state();
        if state.broken {
            return Err(io::Error::from(io::ErrorKind::StorageFull));
        }
        op.apply(&mut state.octets);
        state.log.push(op);
        Ok(())
    }

    fn store(&self) -> RedbStore {
        self.store_that_keeps(1000)
    }

    fn store_that_keeps(&self, revisions: u64) -> RedbStore {
        let file = StoreFile::over(self.clone());
        RedbStore::start(
            "test".into(),
            file,
            Retention {
                revisions,
                bytes: 1 << 20,
            },
        )
        .unwrap()
    }
}

impl redb::StorageBackend for Disk {
    fn len(&self) -> io::Result<u64> {
        Ok(self.state().octets.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let at = usize::try_from(offset).unwrap();
        let state = self.state();
        let octets = state.octets.get(at..at + out.len());
        out.copy_from_slice(octets.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.push(DiskOp::SetLen(usize::try_from(len).unwrap()))
    }

    fn sync_data(&self) -> io::Result<()> {
        self.push(DiskOp::Sync)?;
        let mut state = self.state();
        state.syncs += 1;
        while state.held {
            state = self.0.1.wait(state).unwrap();
        }
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.push(DiskOp::Write(
            usize::try_from(offset).unwrap(),
            data.to_vec(),
        ))
    }
}

async fn until(condition: impl Fn() -> bool) {
    while !condition() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

#[test]
fn what_comes_during_a_commit_is_committed_together() {
    let disk = Disk::default();
    block_on(async {
        let store = Arc::new(disk.store());
        let mut watch = store.watch(KeyRange::all(), 0).await.unwrap();
        watch.next().await.unwrap();
        let syncs = disk.state().syncs;
        store.put("k".into(), "".into()).await.unwrap();
        let alone = disk.state().syncs - syncs;

        disk.hold(true);
        let put = |key: String| {
            let store = Arc::clone(&store);
            let txn = Txn::of([Op::put(key.clone(), "")]).when(Compare::absent(key));
            tokio::spawn(async move { store.txn(txn).await.unwrap().succeeded })
        };
        let first = put("first".to_owned());
        until(|| disk.state().syncs > syncs + alone).await;
        // Every second one wants a key that another has, and each still gets its own answer.
        let others: Vec<_> = (0..100).map(|n| put((n / 2).to_string())).collect();
        until(|| store.writer().unwrap().waiting() == 100).await;
        assert_eq!(
            store.range(KeyRange::all(), None).await.unwrap().revision,
            1,
            "reads go on"
        );
        assert_eq!(store.revision().await.unwrap(), 1);
        assert!(!first.is_finished(), "not answered before it is safe");
        disk.hold(false);
        assert!(first.await.unwrap());
        let mut succeeded = 0;
        for other in others {
            succeeded += u32::from(other.await.unwrap());
        }
        assert_eq!(succeeded, 50);
        assert_eq!(disk.state().syncs, syncs + 3 * alone, "one commit for all");
        for revision in 1..=52 {
            let item = watch.next().await.unwrap();
            assert!(matches!(item, WatchItem::Changes { .. }) && item.revision() == revision);
        }
    });
}

#[test]
fn after_a_failed_write_the_store_stops() {
    let disk = Disk::default();
    block_on(async {
        let store = disk.store();
        let mut watch = store.watch(KeyRange::all(), 0).await.unwrap();
        watch.next().await.unwrap();
        store.put("k".into(), "".into()).await.unwrap();
        disk.state().broken = true;
        let error = store.put("l".into(), "".into()).await.unwrap_err();
        assert!(matches!(error, StoreError::Write { .. }), "{error}");
        assert!(error.to_string().contains("unknown"), "{error}");
        disk.state().broken = false;
        for _ in 0..2 {
            let error = store.put("m".into(), "".into()).await.unwrap_err();
            assert!(matches!(error, StoreError::Closed), "{error}");
        }
        assert!(matches!(
            store.get("k".into()).await.unwrap_err(),
            StoreError::Closed
        ));
        // The watcher may have been told of what was safe before; then it ends.
        let end = loop {
            match watch.next().await {
                Ok(item) => assert_eq!(item.revision(), 1),
                Err(error) => break error,
            }
        };
        assert!(matches!(end, StoreError::Closed), "{end}");
    });
    let after = disk.store();
    assert!(block_on(after.get("k".into())).unwrap().is_some());
}

/// What a disk may hold after a power cut behind `cut` operations: all that was synced, and of
/// what came after, any part of any write.
fn power_cut(log: &[DiskOp], cut: usize, rng: &mut StdRng) -> Vec<u8> {
    let log = &log[..cut];
    let synced = log
        .iter()
        .rposition(|op| matches!(op, DiskOp::Sync))
        .map_or(0, |at| at + 1);
    let mut octets = Vec::new();
    log[..synced].iter().for_each(|op| op.apply(&mut octets));
    for op in &log[synced..] {
        match op {
            DiskOp::Write(at, data) => {
                for (n, sector) in data.chunks(512).enumerate() {
                    if rng.random() {
                        DiskOp::Write(at + n * 512, sector.to_vec()).apply(&mut octets);
                    }
                }
            }
            op if rng.random() => op.apply(&mut octets),
            _ => {}
        }
    }
    octets
}

#[test]
fn what_was_answered_survives_a_power_cut() {
    let seed = std::env::var("SEED")
        .ok()
        .and_then(|seed| seed.parse().ok())
        .unwrap_or(1);
    println!("SEED={seed}");
    let mut rng = StdRng::seed_from_u64(seed);
    let disk = Disk::default();
    // How long the disk's log was when each revision had been answered; 0 is the new store.
    let mut answered = Vec::new();
    block_on(async {
        let store = disk.store_that_keeps(20);
        answered.push(disk.state().log.len());
        for n in 1..=60u64 {
            let value = vec![b'v'; rng.random_range(0..20_000)];
            let ops = [
                Op::put(format!("{}", n % 7), value),
                Op::put("newest", n.to_string()),
            ];
            store.txn(Txn::of(ops)).await.unwrap();
            answered.push(disk.state().log.len());
        }
    });
    let log = disk.state().log.clone();
    for _ in 0..150 {
        let cut = rng.random_range(answered[0]..=log.len());
        let safe = answered.iter().rposition(|&at| at <= cut).unwrap() as u64;
        let store = Disk::with(power_cut(&log, cut, &mut rng)).store();
        block_on(async {
            let revision = store.revision().await.unwrap();
            assert!(
                revision == safe || revision == safe + 1,
                "{revision} is not {safe}"
            );
            let newest = store.get("newest".into()).await.unwrap();
            let newest = newest.map(|kv| String::from_utf8(kv.value.to_vec()).unwrap());
            assert_eq!(newest, (revision > 0).then(|| revision.to_string()));
            for kv in store.range(KeyRange::all(), None).await.unwrap().kvs {
                assert!(kv.mod_revision <= revision);
            }
            assert_eq!(
                store.put("more".into(), "".into()).await.unwrap(),
                revision + 1
            );
        });
    }
}
