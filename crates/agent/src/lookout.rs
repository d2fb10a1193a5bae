//! The thread that reads the whole kernel, so that the reconciler need not wait for it.

use std::{sync::mpsc, thread};

use anyhow::{Context, Result};
use hextet_kernel::{Error, Expected, Onlooker, Seen};

/// The thread, as who asks it sees it. It looks once at a time.
#[derive(Debug)]
pub struct Lookout {
    asks: mpsc::SyncSender<Expected>,
    seen: mpsc::Receiver<Result<Seen, Error>>,
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
                for expected in asked {
                    let seen = onlooker.look(&expected);
                    if sender.send(seen).is_err() {
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
    pub fn seen(&self) -> Option<Result<Seen, Error>> {
        match self.seen.try_recv() {
            Ok(seen) => Some(seen),
            Err(mpsc::TryRecvError::Empty) => None,
            Err(mpsc::TryRecvError::Disconnected) => Some(Err(Error::Lost {
                operation: "read the kernel".to_owned(),
            })),
        }
    }
}
