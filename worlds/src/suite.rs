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
    tenant::{self, met::Met},
};

/// Worlds that CI runs.
pub const WORLDS: u64 = 50;
/// Packets to begin with in each.
pub const PACKETS: usize = 400;
/// The same in worlds of projects, where each is several on its way.
pub const PACKETS_OF_PROJECTS: usize = 250;
/// Worlds at a time: making one waits for the kernel more than it computes. More are no faster, since hanging a program on a link
/// waits for all processors, and all other links' changes for that.
const THREADS: usize = 4;
/// After so many worlds it is said how far it is.
const EACH: u64 = 25;

/// So many worlds, each with the next seed.
pub fn run_worlds(first: u64, count: u64, packets: usize) -> (Coverage, Vec<Disagreement>) {
    several(
        first,
        count,
        &|seed| run::world(seed, packets),
        &Coverage::add,
    )
}

/// So many worlds of projects, likewise.
pub fn run_projects(first: u64, count: u64, packets: usize) -> (Met, Vec<Disagreement>) {
    several(
        first,
        count,
        &|seed| tenant::run::world(seed, packets),
        &Met::add,
    )
}

type World<'a, M> = &'a (dyn Fn(u64) -> (M, Option<Disagreement>) + Sync);

fn several<M: Default + Send>(
    first: u64,
    count: u64,
    world: World<'_, M>,
    add: &(dyn Fn(&mut M, &M) + Sync),
) -> (M, Vec<Disagreement>) {
    let next = AtomicU64::new(0);
    let all = Mutex::new((M::default(), Vec::new(), 0_u64));
    let work = || {
        loop {
            let n = next.fetch_add(1, Ordering::Relaxed);
            if n >= count {
                break;
            }
            let seed = Seed(first + n);
            let (met, found) = world(seed.0);
            let mut all = all.lock().expect("nobody panics with it");
            add(&mut all.0, &met);
            all.1.extend(found);
            all.2 += 1;
            if all.2.is_multiple_of(EACH) && all.2 < count {
                let (done, wrong) = (all.2, all.1.len());
                eprintln!("{done} of {count} worlds, {wrong} disagreements");
            }
        }
    };
    thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(work);
        }
    });
    let (met, found, _) = all.into_inner().expect("nobody panics with it");
    (met, found)
}

/// Says in which world something went wrong that is no disagreement.
struct Seed(u64);

impl Drop for Seed {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("this was the world of seed {}", self.0);
        }
    }
}
