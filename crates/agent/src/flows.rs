//! Open flows, after a change of policy: those that it no longer allows end.
//!
//! The table is walked on a thread of its own, and what it shows is judged a few flows at a time, so that
//! neither keeps the next change of policy waiting. However long the table, few of its flows are in memory.

use std::{
    collections::BTreeSet,
    net::IpAddr,
    sync::{Arc, mpsc},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use hextet_kernel::{
    Error,
    conntrack::{Conntrack, Entry, Flow},
    priority,
};
use hextet_model::state::Netns;
use tracing::debug;

/// Flows that are handed over and judged at once.
const SLICE: usize = 512;
/// Slices that wait to be judged; the walk waits for them.
const AHEAD: usize = 16;
/// What failed is tried again after this.
const RETRY: Duration = Duration::from_secs(1);

/// What a walk shows.
enum Found {
    Flows(Vec<(Entry, Flow)>),
    End(Result<(), Error>),
}

/// The check of open flows: at most one walk at a time, and what is to be checked after it.
pub struct Flows {
    table: Conntrack,
    walks: mpsc::SyncSender<Arc<BTreeSet<IpAddr>>>,
    found: mpsc::Receiver<Found>,
    /// Whose flows are being looked at; none while there is no walk.
    walking: Option<Arc<BTreeSet<IpAddr>>>,
    wanted: BTreeSet<IpAddr>,
    not_before: Instant,
    cut: usize,
}

impl Flows {
    /// Opens the table of the calling thread's namespace, and starts the thread that walks it.
    ///
    /// # Errors
    ///
    /// The table can't be opened, or no thread started.
    pub fn open() -> Result<Flows> {
        let open = || Conntrack::open(&Netns::Main).context("open the connection table");
        let (table, walked) = (open()?, open()?);
        let (walks, requests) = mpsc::sync_channel(1);
        let (sender, found) = mpsc::sync_channel(AHEAD);
        thread::Builder::new()
            .name("flows".to_owned())
            .spawn(move || {
                if let Err(error) = priority::lower() {
                    debug!(%error, "walks do not make way for other work");
                }
                walk_for(&requests, walked, &sender);
            })
            .context("start the thread that walks the connection table")?;
        Ok(Flows {
            table,
            walks,
            found,
            walking: None,
            wanted: BTreeSet::new(),
            not_before: Instant::now(),
            cut: 0,
        })
    }

    /// Has the flows from or to these addresses checked.
    pub fn check(&mut self, addresses: impl IntoIterator<Item = IpAddr>) {
        self.wanted.extend(addresses);
    }

    /// When there may be something to do; none while nothing is to be checked.
    pub fn due(&self) -> Option<Instant> {
        match self.walking {
            Some(_) => Some(Instant::now()),
            None if self.wanted.is_empty() => None,
            None => Some(self.not_before),
        }
    }

    /// Begins a walk if one is wanted, and ends those of the next flows it shows that may not begin now. Gives
    /// how many a walk has ended, once it is over; waits for a few milliseconds at most.
    ///
    /// # Errors
    ///
    /// The table can't be read or written; it is tried again.
    pub fn next_slice(
        &mut self,
        allows: impl FnMut(&Flow) -> bool,
    ) -> Result<Option<usize>, Error> {
        self.begin();
        if self.walking.is_none() {
            return Ok(None);
        }
        let outcome = match self.found.recv_timeout(Duration::from_millis(2)) {
            Err(mpsc::RecvTimeoutError::Timeout) => return Ok(None),
            Err(mpsc::RecvTimeoutError::Disconnected) => Err(Error::Lost {
                operation: "walk the connection table".to_owned(),
            }),
            Ok(Found::End(outcome)) => outcome,
            Ok(Found::Flows(entries)) => match self.end(entries, allows) {
                Ok(()) => return Ok(None),
                // The walk goes on; what follows is judged, and all of it once more.
                Err(error) => {
                    let again = self.walking.clone();
                    self.retry(again);
                    return Err(error);
                }
            },
        };
        let walked = self.walking.take();
        if let Err(error) = outcome {
            self.retry(walked);
            return Err(error);
        }
        Ok(Some(std::mem::take(&mut self.cut)))
    }

    fn begin(&mut self) {
        if self.walking.is_some() || self.wanted.is_empty() || Instant::now() < self.not_before {
            return;
        }
        let addresses = Arc::new(std::mem::take(&mut self.wanted));
        match self.walks.try_send(addresses.clone()) {
            Ok(()) => self.walking = Some(addresses),
            Err(_) => self.retry(Some(addresses)),
        }
    }

    fn end(
        &mut self,
        found: Vec<(Entry, Flow)>,
        mut allows: impl FnMut(&Flow) -> bool,
    ) -> Result<(), Error> {
        let forbidden = found.into_iter().filter(|(_, flow)| !allows(flow));
        let entries: Vec<Entry> = forbidden.map(|(entry, _)| entry).collect();
        self.cut += self.table.delete(&entries)?;
        Ok(())
    }

    fn retry(&mut self, addresses: Option<Arc<BTreeSet<IpAddr>>>) {
        self.wanted
            .extend(addresses.iter().flat_map(|all| all.iter()));
        self.not_before = Instant::now() + RETRY;
    }
}

/// Until nobody asks or hears any more.
fn walk_for(
    requests: &mpsc::Receiver<Arc<BTreeSet<IpAddr>>>,
    mut table: Conntrack,
    found: &mpsc::SyncSender<Found>,
) {
    for addresses in requests {
        let outcome = walk(&mut table, &addresses, found);
        if found.send(Found::End(outcome)).is_err() {
            return;
        }
    }
}

fn walk(
    table: &mut Conntrack,
    addresses: &BTreeSet<IpAddr>,
    found: &mpsc::SyncSender<Found>,
) -> Result<(), Error> {
    let mut slice = Vec::with_capacity(SLICE);
    table.walk_of(addresses, |entry, flow| {
        slice.push((entry, flow));
        if slice.len() == SLICE {
            // Where nobody hears it, the end is not heard either.
            let full = std::mem::replace(&mut slice, Vec::with_capacity(SLICE));
            let _ = found.send(Found::Flows(full));
        }
    })?;
    let _ = found.send(Found::Flows(slice));
    Ok(())
}
