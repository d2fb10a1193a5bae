//! What a commit costs: CPU time and wall time for transactions of two keys of 1 KiB into a store
//! of 10,000 such keys, one at a time and 64 at a time, and the memory after that.
//!
//! `cargo run --release -p hextet-store --example commit_cost [DIRECTORY]`
#![expect(clippy::unwrap_used, reason = "a measurement, not a program")]

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use hextet_store::{Op, RedbOptions, RedbStore, Store, Txn};
use nix::sys::resource::{UsageWho, getrusage};

const TXNS: u32 = 4000;

fn cpu() -> Duration {
    let usage = getrusage(UsageWho::RUSAGE_SELF).unwrap();
    [usage.user_time(), usage.system_time()]
        .map(|time| {
            Duration::from_secs(time.tv_sec().unsigned_abs())
                + Duration::from_micros(time.tv_usec().unsigned_abs())
        })
        .iter()
        .sum()
}

fn txn(n: u32) -> Txn {
    let value = vec![b'v'; 1024];
    let key = n.wrapping_mul(2_654_435_761) % 10_000;
    Txn::of([
        Op::put(format!("ports/{key:08}"), value.clone()),
        Op::put("quota", value),
    ])
}

async fn measure(store: &Arc<RedbStore>, tasks: u32) {
    let (cpu_before, start) = (cpu(), Instant::now());
    let mut set = tokio::task::JoinSet::new();
    for task in 0..tasks {
        let store = Arc::clone(store);
        set.spawn(async move {
            for n in (task..TXNS).step_by(tasks as usize) {
                store.txn(txn(n)).await.unwrap();
            }
        });
    }
    set.join_all().await;
    println!(
        "{tasks:>3} at a time: {:?} of CPU, {:?} of time each",
        (cpu() - cpu_before) / TXNS,
        start.elapsed() / TXNS
    );
}

#[tokio::main(worker_threads = 2)]
async fn main() {
    let dir = match std::env::args_os().nth(1) {
        Some(dir) => tempfile::tempdir_in(dir).unwrap(),
        None => tempfile::tempdir().unwrap(),
    };
    let options = RedbOptions::default();
    let store = Arc::new(RedbStore::open(dir.path().join("store.redb"), &options).unwrap());
    let ports: Vec<_> = (0..10_000).map(|n| format!("ports/{n:08}")).collect();
    for some in ports.chunks(1000) {
        let put = |key: &String| Op::put(key.clone(), vec![b'v'; 1024]);
        store.txn(Txn::of(some.iter().map(put))).await.unwrap();
    }
    for tasks in [1, 64] {
        measure(&store, tasks).await;
    }
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    status
        .lines()
        .filter(|line| line.starts_with("VmRSS"))
        .for_each(|line| println!("{line}"));
    let file = std::fs::metadata(store.path()).unwrap().len();
    println!("file: {} KiB", file / 1024);
}
