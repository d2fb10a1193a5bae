//! `kill -9` at random points: what was answered is there after, whole; what was not answered is
//! there whole or not at all.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    io::{BufRead, BufReader, Read},
    path::Path,
    process::{Child, Command, Stdio},
    sync::Arc,
    time::Duration,
};

use hextet_store::{
    Event, KeyRange, Op, RedbOptions, RedbStore, Retention, Store, StoreError, Txn, WatchItem,
};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use rand::{Rng, SeedableRng, rngs::StdRng};

const DIR: &str = "HEXTET_STORE_CRASH_DIR";
const ROUNDS: u64 = 40;
const WRITERS: usize = 8;

fn options() -> RedbOptions {
    let retention = Retention {
        revisions: 300,
        bytes: 1 << 30,
    };
    RedbOptions {
        cache_bytes: 1 << 20,
        retention,
    }
}

fn open(dir: &Path) -> RedbStore {
    RedbStore::open(dir.join("store.redb"), &options()).unwrap()
}

/// Writes until it is killed: each writer its own sequence, two keys in one transaction, and says
/// each number once it has been answered.
#[test]
#[ignore = "the victim: started by the test below"]
fn victim() {
    let dir = std::env::var_os(DIR).expect("started by the test below");
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .build()
        .unwrap();
    runtime.block_on(async {
        let store = Arc::new(open(Path::new(&dir)));
        let mut tasks = tokio::task::JoinSet::new();
        for writer in 0..WRITERS {
            tasks.spawn(write_for_ever(Arc::clone(&store), writer));
        }
        tasks.join_all().await;
    });
}

async fn write_for_ever(store: Arc<RedbStore>, writer: usize) {
    let (left, right) = (format!("left/{writer}"), format!("right/{writer}"));
    let before = store.get(left.clone().into()).await.unwrap();
    let mut n: u64 = before.map_or(0, |kv| number(&kv.value));
    loop {
        n += 1;
        let ops = [
            Op::put(left.clone(), n.to_string()),
            Op::put(right.clone(), n.to_string()),
        ];
        store.txn(Txn::of(ops)).await.unwrap();
        println!("{writer} {n}");
    }
}

fn number(text: &[u8]) -> u64 {
    std::str::from_utf8(text).unwrap().parse().unwrap()
}

/// A child that is killed with its handle.
struct Victim(Child);

impl Victim {
    fn start(dir: &Path) -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args([
            "--exact",
            "victim",
            "--ignored",
            "--nocapture",
            "--test-threads=1",
        ]);
        Victim(
            command
                .env(DIR, dir)
                .stdout(Stdio::piped())
                .spawn()
                .unwrap(),
        )
    }

    /// Lets it answer so many times, then a little longer, kills it, and tells the last number
    /// that each writer was heard to say.
    fn kill_after(mut self, lines: usize, longer: Duration) -> [u64; WRITERS] {
        let mut heard = [0; WRITERS];
        let mut out = BufReader::new(self.0.stdout.take().unwrap());
        let mut line = String::new();
        for _ in 0..lines {
            line.clear();
            assert_ne!(
                out.read_line(&mut line).unwrap(),
                0,
                "the victim ended by itself"
            );
            hear(&line, &mut heard);
        }
        std::thread::sleep(longer);
        let pid = Pid::from_raw(i32::try_from(self.0.id()).unwrap());
        kill(pid, Signal::SIGKILL).unwrap();
        self.0.wait().unwrap();
        let mut rest = String::new();
        out.read_to_string(&mut rest).unwrap();
        // What stands before the last line end was said whole.
        rest.rsplit_once('\n')
            .map_or("", |(whole, _)| whole)
            .lines()
            .for_each(|line| hear(line, &mut heard));
        heard
    }
}

impl Drop for Victim {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The test harness says something too, and its first line may stand before the first number.
fn hear(line: &str, heard: &mut [u64; WRITERS]) {
    let mut words = line.rsplit(' ').map(|word| word.trim().parse::<u64>().ok());
    if let (Some(Some(n)), Some(Some(writer))) = (words.next(), words.next())
        && let Some(last) = heard.get_mut(usize::try_from(writer).unwrap())
    {
        *last = (*last).max(n);
    }
}

/// The number of each writer, the revision, and that data and change log agree.
async fn inspect(store: &RedbStore) -> ([u64; WRITERS], u64) {
    let mut stored = [0; WRITERS];
    for (writer, stored) in stored.iter_mut().enumerate() {
        let read = |side| store.get(format!("{side}/{writer}").into());
        let (left, right) = (read("left").await.unwrap(), read("right").await.unwrap());
        assert_eq!(
            left.as_ref()
                .map(|kv| (&kv.value, kv.version, kv.mod_revision)),
            right
                .as_ref()
                .map(|kv| (&kv.value, kv.version, kv.mod_revision)),
            "half a transaction"
        );
        if let Some(kv) = left {
            *stored = number(&kv.value);
            assert_eq!(kv.version, *stored);
        }
    }
    let revision = store.revision().await.unwrap();
    assert_eq!(
        revision,
        stored.iter().sum::<u64>(),
        "each transaction made one revision"
    );
    check_log(store, revision).await;
    (stored, revision)
}

async fn check_log(store: &RedbStore, revision: u64) {
    let from = match store.watch(KeyRange::all(), 1).await {
        Err(StoreError::Compacted { compact_revision }) => compact_revision + 1,
        _ => 1,
    };
    let mut watch = store.watch(KeyRange::all(), from).await.unwrap();
    for expected in from..=revision {
        let item = watch.next().await.unwrap();
        let WatchItem::Changes { revision, events } = item else {
            panic!("{item:?}")
        };
        assert_eq!((revision, events.len()), (expected, 2));
        assert!(events.iter().all(|event| matches!(event, Event::Put(_))));
    }
}

#[test]
fn what_was_answered_survives_kill_9() {
    let seed = std::env::var("SEED")
        .ok()
        .and_then(|seed| seed.parse().ok())
        .unwrap_or(1);
    println!("SEED={seed}");
    let mut rng = StdRng::seed_from_u64(seed);
    let dir = tempfile::tempdir().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    let mut before = ([0; WRITERS], 0);
    for round in 0..ROUNDS {
        // Some are killed while they start, the first among them: there is no file yet.
        let lines = if round % 8 == 0 {
            0
        } else {
            rng.random_range(1..120)
        };
        let longer = Duration::from_micros(rng.random_range(0..20_000));
        let heard = Victim::start(dir.path()).kill_after(lines, longer);
        let store = open(dir.path());
        let found = runtime.block_on(inspect(&store));
        for (writer, said) in heard.iter().enumerate() {
            assert!(
                found.0[writer] >= *said,
                "round {round}: writer {writer} said {said}: {found:?}"
            );
            assert!(
                found.0[writer] >= before.0[writer],
                "round {round}: writer {writer} went back"
            );
        }
        before = found;
    }
    assert!(
        before.1 > ROUNDS,
        "only {} revisions: nothing was tested",
        before.1
    );
}
