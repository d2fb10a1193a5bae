//! Open flows, after a change of policy: those that it no longer allows end.
//!
//! Each namespace has a table of its own. It is walked on a thread of its own, and what it shows is judged a few flows
//! at a time, so that neither keeps the next change of policy waiting. However long the table, few of its flows are in
//! memory.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    ops::Bound,
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
use hextet_model::state::{Cut, Netns};
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

/// A walk to be done.
struct Walk {
    table: Conntrack,
    addresses: Arc<BTreeSet<IpAddr>>,
}

/// A walk under way.
struct Walking {
    netns: Netns,
    addresses: Arc<BTreeSet<IpAddr>>,
    /// Where its flows are cut.
    table: Conntrack,
}

/// The check of open flows: at most one walk at a time, and what is to be checked after it.
pub struct Flows {
    walks: mpsc::SyncSender<Walk>,
    found: mpsc::Receiver<Found>,
    walking: Option<Walking>,
    /// Whose flows are to be looked at, by namespace.
    wanted: BTreeMap<Netns, BTreeSet<IpAddr>>,
    /// Where the last walk was; the next one is elsewhere, if any other is wanted.
    last: Netns,
    /// Connections that routers have translated, and that end.
    ending: BTreeSet<Cut>,
    not_before: Instant,
    cut: usize,
}

impl Flows {
    /// Starts the thread that walks.
    ///
    /// # Errors
    ///
    /// No thread can be started.
    pub fn start() -> Result<Flows> {
        let (walks, requests) = mpsc::sync_channel(1);
        let (sender, found) = mpsc::sync_channel(AHEAD);
        thread::Builder::new()
            .name("flows".to_owned())
            .spawn(move || {
                if let Err(error) = priority::lower() {
                    debug!(%error, "walks do not make way for other work");
                }
                walk_for(&requests, &sender);
            })
            .context("start the thread that walks the connection table")?;
        Ok(Flows {
            walks,
            found,
            walking: None,
            wanted: BTreeMap::new(),
            last: Netns::Main,
            ending: BTreeSet::new(),
            not_before: Instant::now(),
            cut: 0,
        })
    }

    /// Has the flows from or to these addresses checked.
    pub fn check(&mut self, ends: impl IntoIterator<Item = (Netns, IpAddr)>) {
        for (netns, addr) in ends {
            self.wanted.entry(netns).or_default().insert(addr);
        }
    }

    /// Has these connections ended.
    pub fn end_translated(&mut self, cuts: impl IntoIterator<Item = Cut>) {
        self.ending.extend(cuts);
    }

    /// Ends what is to end; gives how many there were. `open` is as for [`Flows::begin`].
    ///
    /// # Errors
    ///
    /// A table can't be read or written; it is tried again.
    pub fn end_due(
        &mut self,
        mut open: impl FnMut(&Netns) -> Result<Option<Conntrack>, Error>,
    ) -> Result<usize, Error> {
        let mut ended = 0;
        while let Some(cut) = self
            .ending
            .first()
            .filter(|_| Instant::now() >= self.not_before)
        {
            let outcome = open(&cut.netns).and_then(|table| match table {
                Some(mut table) => table.cut_translated(cut.end, cut.ports),
                None => Ok(0),
            });
            match outcome {
                Ok(cut) => ended += cut,
                Err(error) => {
                    self.not_before = Instant::now() + RETRY;
                    return Err(error);
                }
            }
            self.ending.pop_first();
        }
        Ok(ended)
    }

    /// When there may be something to do; none while nothing is to be checked.
    pub fn due(&self) -> Option<Instant> {
        match self.walking {
            Some(_) => Some(Instant::now()),
            None if self.wanted.is_empty() && self.ending.is_empty() => None,
            None => Some(self.not_before),
        }
    }

    /// Begins a walk if one is wanted and none is under way; gives where the one under way is. `open` gives a table of
    /// a namespace; none, where that is gone, and its flows with it.
    ///
    /// # Errors
    ///
    /// A table can't be opened; it is tried again.
    pub fn begin(
        &mut self,
        mut open: impl FnMut(&Netns) -> Result<Option<Conntrack>, Error>,
    ) -> Result<Option<Netns>, Error> {
        if self.walking.is_none() && Instant::now() >= self.not_before {
            while let Some((netns, addresses)) = self.take_next() {
                let tables = open(&netns).and_then(|table| Ok(table.zip(open(&netns)?)));
                match tables {
                    Ok(None) => {}
                    Ok(Some(tables)) => {
                        self.walk(netns, addresses, tables);
                        break;
                    }
                    Err(error) => {
                        self.retry(netns, &addresses);
                        return Err(error);
                    }
                }
            }
        }
        Ok(self.walking.as_ref().map(|walking| walking.netns.clone()))
    }

    fn take_next(&mut self) -> Option<(Netns, BTreeSet<IpAddr>)> {
        let behind = (Bound::Excluded(self.last.clone()), Bound::Unbounded);
        let next = self.wanted.range(behind).chain(&self.wanted).next();
        let next = next.map(|(netns, _)| netns.clone())?;
        self.last = next.clone();
        self.wanted.remove_entry(&next)
    }

    fn walk(
        &mut self,
        netns: Netns,
        addresses: BTreeSet<IpAddr>,
        (walked, table): (Conntrack, Conntrack),
    ) {
        let addresses = Arc::new(addresses);
        let walk = Walk {
            table: walked,
            addresses: addresses.clone(),
        };
        match self.walks.try_send(walk) {
            Ok(()) => {
                self.walking = Some(Walking {
                    netns,
                    addresses,
                    table,
                });
            }
            Err(_) => self.retry(netns, &addresses),
        }
    }

    /// Ends those of the next flows that the walk shows that may not begin now. Gives how many it has ended, once it
    /// is over; waits for a few milliseconds at most.
    ///
    /// # Errors
    ///
    /// The table can't be read or written; it is tried again.
    pub fn next_slice(
        &mut self,
        allows: impl FnMut(&Flow) -> bool,
    ) -> Result<Option<usize>, Error> {
        let Some(walking) = &mut self.walking else {
            return Ok(None);
        };
        let outcome = match self.found.recv_timeout(Duration::from_millis(2)) {
            Err(mpsc::RecvTimeoutError::Timeout) => return Ok(None),
            Err(mpsc::RecvTimeoutError::Disconnected) => Err(Error::Lost {
                operation: "walk the connection table".to_owned(),
            }),
            Ok(Found::End(outcome)) => outcome,
            Ok(Found::Flows(entries)) => match end(&mut walking.table, entries, allows) {
                Ok(cut) => {
                    self.cut += cut;
                    return Ok(None);
                }
                // The walk goes on; what follows is judged, and all of it once more.
                Err(error) => {
                    let (netns, addresses) = (walking.netns.clone(), walking.addresses.clone());
                    self.retry(netns, &addresses);
                    return Err(error);
                }
            },
        };
        let walked = self.walking.take();
        if let Err(error) = outcome {
            if let Some(walked) = walked {
                self.retry(walked.netns, &walked.addresses);
            }
            return Err(error);
        }
        Ok(Some(std::mem::take(&mut self.cut)))
    }

    fn retry(&mut self, netns: Netns, addresses: &BTreeSet<IpAddr>) {
        self.wanted.entry(netns).or_default().extend(addresses);
        self.not_before = Instant::now() + RETRY;
    }
}

fn end(
    table: &mut Conntrack,
    found: Vec<(Entry, Flow)>,
    mut allows: impl FnMut(&Flow) -> bool,
) -> Result<usize, Error> {
    let forbidden = found.into_iter().filter(|(_, flow)| !allows(flow));
    let entries: Vec<Entry> = forbidden.map(|(entry, _)| entry).collect();
    table.delete(&entries)
}

/// Until nobody asks or hears any more.
fn walk_for(requests: &mpsc::Receiver<Walk>, found: &mpsc::SyncSender<Found>) {
    for Walk {
        mut table,
        addresses,
    } in requests
    {
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
