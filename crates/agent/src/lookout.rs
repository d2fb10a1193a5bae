//! The thread that reads the whole kernel, so that the reconciler need not wait for it.

use std::{sync::mpsc, thread, time::Duration};

use anyhow::{Context, Result};
use hextet_kernel::{Error, Expected, Onlooker, Seen, priority};
use nix::time::{ClockId, clock_gettime};
use tracing::debug;

/// The thread, as who asks it sees it. It looks once at a time.
#[derive(Debug)]
pub struct Lookout {
    asks: mpsc::SyncSender<Expected>,
    seen: mpsc::Receiver<Sighting>,
}

/// What a look saw, or why it saw nothing.
#[derive(Debug)]
pub struct Sighting {
    /// What stands in the kernel.
    pub seen: Result<Seen, Error>,
    /// The CPU time that the look took, the kernel's part of it included.
    pub cost: Duration,
}

impl Lookout {
    /// Starts it; it ends when nobody asks any more.
    ///
    /// # Errors
    ///
    /// No thread can be started.
    pub fn start(mut onlooker: Onlooker) -> Result<Lookout> {
        let (asks, asked) = mpsc::sync_channel::<Expected>(1);
        let (sender, seen) = mpsc::sync_channel(1);
        thread::Builder::new()
            .name("lookout".to_owned())
            .spawn(move || {
                if let Err(error) = priority::lower() {
                    debug!(%error, "looks do not make way for other work");
                }
                if let Err(error) = onlooker.prepare() {
                    debug!(%error, "not ready to look; each look tries again");
                }
                for expected in asked {
                    let before = cpu_time();
                    let seen = onlooker.look(&expected);
                    let cost = cpu_time().saturating_sub(before);
                    if sender.send(Sighting { seen, cost }).is_err() {
                        return;
                    }
                }
            })
            .context("start the thread that reads the kernel")?;
        Ok(Lookout { asks, seen })
    }

    /// Has it look; whether it will.
    pub fn ask(&self, expected: Expected) -> bool {
        self.asks.try_send(expected).is_ok()
    }

    /// What it saw, once it has looked; an error also where the thread is gone.
    pub fn seen(&self) -> Option<Sighting> {
        match self.seen.try_recv() {
            Ok(sighting) => Some(sighting),
            Err(mpsc::TryRecvError::Empty) => None,
            Err(mpsc::TryRecvError::Disconnected) => Some(Sighting {
                seen: Err(Error::Lost {
                    operation: "read the kernel".to_owned(),
                }),
                cost: Duration::ZERO,
            }),
        }
    }
}

/// Of this thread. Where the kernel has no such clock, looks count as free.
fn cpu_time() -> Duration {
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).map_or(Duration::ZERO, Duration::from)
}
