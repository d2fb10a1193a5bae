//! Reading what metering labels have counted, some namespaces at a time.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use hextet_kernel::Counted;
use hextet_model::state::{CounterName, Key, Netns, SetName};
use tracing::warn;

use super::Reconciler;
use crate::meters::Ledger;

/// How often all are read.
const INTERVAL: Duration = Duration::from_secs(10);
/// Namespaces that are read before something else is done.
const SLICE: usize = 8;

/// Which are to be read yet, and what was read of the others.
pub(super) struct Meters {
    ledger: Arc<Ledger>,
    next: Instant,
    left: Vec<Netns>,
    counted: Vec<Counted>,
}

impl Meters {
    pub fn new(ledger: Arc<Ledger>) -> Meters {
        Meters {
            ledger,
            next: Instant::now(),
            left: Vec::new(),
            counted: Vec::new(),
        }
    }

    /// When there is something to do.
    pub fn due(&self) -> Instant {
        match self.left.is_empty() {
            true => self.next,
            false => Instant::now(),
        }
    }
}

impl Reconciler {
    /// Reads some, if it is time.
    pub(super) fn meter(&mut self) {
        if self.meters.left.is_empty() {
            if Instant::now() < self.meters.next {
                return;
            }
            self.meters.next = Instant::now() + INTERVAL;
            self.meters.left = self.metered_namespaces();
        }
        for _ in 0..SLICE {
            let Some(netns) = self.meters.left.pop() else {
                break;
            };
            match self.kernel.counted(&netns) {
                Ok(mut counted) => self.meters.counted.append(&mut counted),
                Err(error) => warn!(%error, %netns, "counters can't be read"),
            }
        }
        if self.meters.left.is_empty() {
            let counted = std::mem::take(&mut self.meters.counted);
            self.meters.ledger.take(counted);
        }
    }

    /// Those with counters.
    fn metered_namespaces(&self) -> Vec<Netns> {
        let first = Key::Counter(Netns::Main, CounterName(String::new()));
        let behind = Key::Set(Netns::Main, SetName(String::new()));
        let mut all: Vec<Netns> = Vec::new();
        for key in self.desired.range(first..behind).map(|(key, _)| key) {
            if all.last() != Some(key.netns()) {
                all.push(key.netns().clone());
            }
        }
        all
    }
}
