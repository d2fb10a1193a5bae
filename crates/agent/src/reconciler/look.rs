//! The look at everything, a slice at a time: a thread reads the kernel, the loop compares what it saw.
//!
//! It starts once a minute, and soon after somebody else changed something. Only where the thread fails
//! again and again does the loop look by itself, and everything waits for that.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use hextet_kernel::{Look, Scope};
use hextet_model::state::Key;
use hextet_types::PortId;
use tracing::{debug, error};

use super::{FULL_PASS, RETRY, Reconciler};
use crate::lookout::{Lookout, Sighting};

/// Keys compared before something else is done.
const SLICE: usize = 1024;
/// How often is asked whether the thread has looked.
const POLL: Duration = Duration::from_millis(5);
/// Looks of the thread that may fail before the loop looks by itself.
const FAILURES: u32 = 3;

/// Where a look is.
#[derive(Debug)]
enum Stage {
    Reading,
    Comparing(Look),
}

/// When everything is looked at, and how far that is.
pub(super) struct Looks {
    lookout: Lookout,
    stage: Option<Stage>,
    next: Instant,
    began: Instant,
    /// What the one under way has cost so far: the thread's CPU time, and the loop's time.
    cost: Duration,
    /// When the last one is so long ago that another may begin.
    rested: Instant,
    failed: u32,
}

impl Looks {
    pub fn new(lookout: Lookout) -> Looks {
        let now = Instant::now();
        Looks {
            lookout,
            stage: None,
            next: now + FULL_PASS,
            began: now,
            cost: Duration::ZERO,
            rested: now,
            failed: 0,
        }
    }

    /// When there may be something to do.
    pub fn due(&self) -> Instant {
        match self.stage {
            None => self.next,
            Some(Stage::Reading) => Instant::now() + POLL,
            Some(Stage::Comparing(_)) => Instant::now(),
        }
    }

    /// At once, but so that looking takes a tenth of a processor at most: others who keep the processors busy make
    /// no look rarer. What a look under way has seen already the next one looks at.
    pub fn soon(&mut self) {
        self.next = self.next.min(Instant::now().max(self.rested));
    }

    /// After something failed.
    pub fn again(&mut self) {
        self.next = self.next.min(Instant::now() + RETRY);
    }

    fn over(&mut self) {
        self.rested = Instant::now() + 10 * self.cost;
        self.next = self.next.max(self.rested);
    }
}

impl Reconciler {
    /// Does the next part of a look, if one is due.
    pub(super) fn look(&mut self) {
        match self.looks.stage.take() {
            None if Instant::now() < self.looks.next => {}
            None => self.begin_look(),
            Some(Stage::Reading) => match self.looks.lookout.seen() {
                None => self.looks.stage = Some(Stage::Reading),
                Some(sighting) => self.take_look(sighting),
            },
            Some(Stage::Comparing(mut look)) => {
                let begin = Instant::now();
                let compared = self.kernel.compare(&mut look, &self.desired, SLICE);
                self.looks.cost += begin.elapsed();
                match compared {
                    None => self.looks.stage = Some(Stage::Comparing(look)),
                    Some(differing) => self.end_look(&differing),
                }
            }
        }
    }

    fn take_look(&mut self, Sighting { seen, cost }: Sighting) {
        self.looks.cost += cost;
        match seen.and_then(|seen| self.kernel.take_look(seen, &self.desired)) {
            Ok(look) => self.looks.stage = Some(Stage::Comparing(look)),
            Err(error) => self.look_failed(&error),
        }
    }

    fn begin_look(&mut self) {
        self.looks.began = Instant::now();
        self.looks.cost = Duration::ZERO;
        self.looks.next = self.looks.began + FULL_PASS;
        if self.looks.failed >= FAILURES {
            self.look_here();
            return;
        }
        let expected = self.kernel.begin_look(&self.desired);
        match self.looks.lookout.ask(expected) {
            true => self.looks.stage = Some(Stage::Reading),
            false => self.look_failed(&"the thread that reads the kernel does not answer"),
        }
    }

    fn look_failed(&mut self, error: &dyn std::fmt::Display) {
        error!(%error, "the kernel can't be read");
        self.kernel.end_look();
        self.looks.failed += 1;
        self.looks.over();
        self.looks.again();
    }

    /// Writes what differs. What could not be written before and stands by now is no failure any more.
    fn end_look(&mut self, differing: &BTreeSet<Key>) {
        self.looks.failed = 0;
        let failed = |key: &Key| self.failures.contains_key(key);
        let retried = differing.iter().filter(|key| failed(key)).count();
        let settled = self.failures.keys().filter(|key| self.is_settled(key));
        let settled: Vec<Key> = settled.cloned().collect();
        let desired = &self.desired;
        self.waiting.retain(|_, keys| {
            keys.retain(|key| desired.contains_key(key));
            !keys.is_empty()
        });
        for key in differing.iter().chain(&settled) {
            self.failures.remove(key);
            self.touched_ports.extend(self.port_of(key));
        }
        // An interface that is another one, and of which nothing was heard: so much had happened at once.
        let ports: BTreeSet<PortId> = differing.iter().filter_map(|k| self.port_of(k)).collect();
        for port in ports {
            if self.note_link(port) {
                self.tell_responder(port);
            }
        }
        let report = self.kernel.reconcile_keys(differing, &self.desired);
        self.mended += report.applied.saturating_sub(retried) as u64;
        debug!(writes = report.applied, took = ?self.looks.began.elapsed(), "looked at everything");
        self.looks.over();
        self.note(report);
    }

    /// Whether nothing is left to be written there.
    fn is_settled(&self, key: &Key) -> bool {
        self.stands(key)
            || !self.desired.contains_key(key) && !self.kernel.known().contains_key(key)
    }

    /// Looks without the thread.
    fn look_here(&mut self) {
        let reconciled = self.kernel.reconcile(&Scope::of(&self.desired));
        self.looks.cost = self.looks.began.elapsed();
        match reconciled {
            Ok(report) => {
                self.looks.failed = 0;
                self.looks.over();
                if self.failures.is_empty() {
                    self.mended += report.applied as u64;
                }
                self.failures.clear();
                self.waiting.clear();
                self.touched_ports
                    .extend(self.planner.intent().ports.keys());
                self.note(report);
            }
            Err(error) => {
                error!(%error, "the kernel can't be read");
                self.looks.over();
                self.looks.again();
            }
        }
    }
}
