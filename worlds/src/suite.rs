//! Many worlds, several at a time.

use std::{
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering},
    },
    thread,
};

use crate::{
    coverage::Coverage,
    run::{self, Disagreement},
};

/// Worlds that CI runs.
pub const WORLDS: u64 = 50;
/// Packets to begin with in each.
pub const PACKETS: usize = 400;
/// Worlds at a time: making one waits for the kernel more than it computes.
const THREADS: usize = 4;

/// So many worlds, each with the next seed.
pub fn run_worlds(first: u64, count: u64, packets: usize) -> (Coverage, Vec<Disagreement>) {
    let next = AtomicU64::new(0);
    let all = Mutex::new((Coverage::default(), Vec::new()));
    let work = || {
        loop {
            let n = next.fetch_add(1, Ordering::Relaxed);
            if n >= count {
                break;
            }
            let (coverage, found) = run::world(first + n, packets);
            let mut all = all.lock().expect("nobody panics with it");
            all.0.add(&coverage);
            all.1.extend(found);
        }
    };
    thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(work);
        }
    });
    all.into_inner().expect("nobody panics with it")
}
