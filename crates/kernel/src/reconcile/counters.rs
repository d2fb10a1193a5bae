//! What counters have counted: read at any time, and a last time before they go.
//!
//! A counter goes after the rules that count at it, and is read between; so does all that a namespace holds, after its
//! links. Who keeps what was counted is told before anything is gone.

use std::{collections::BTreeSet, fmt};

use hextet_model::state::{CounterName, Key, Netns};

use super::{
    Kernel, Namespace, Op,
    apply::{Fate, all_failed},
    table::apply_table,
};
use crate::{error::Error, nft};

/// What a counter has counted since it was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Counted {
    /// Its name.
    pub name: CounterName,
    /// Of the namespace, the table and the counter itself: as long as the host runs, no other counter is ever known by
    /// these three.
    pub identity: [u64; 3],
    /// Packets.
    pub packets: u64,
    /// Octets, from the IP header on.
    pub octets: u64,
}

/// Is told of what counters have counted that are about to go.
#[derive(Default)]
pub struct Keeper(Option<Box<dyn FnMut(Vec<Counted>) + Send>>);

impl fmt::Debug for Keeper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Keeper")
    }
}

impl Keeper {
    /// One that calls this.
    pub fn new(keep: impl FnMut(Vec<Counted>) + Send + 'static) -> Keeper {
        Keeper(Some(Box::new(keep)))
    }

    /// Reads those counters that are meant, a last time.
    pub(super) fn keep(
        &mut self,
        netns: &Netns,
        namespace: &mut Namespace,
        meant: impl Fn(&CounterName) -> bool,
    ) {
        let Some(keep) = &mut self.0 else { return };
        match read(namespace) {
            Ok(mut counts) => {
                counts.retain(|counted| meant(&counted.name));
                if !counts.is_empty() {
                    keep(counts);
                }
            }
            Err(error) => tracing::warn!(%error, %netns, "counters go without a last reading"),
        }
    }
}

fn read(namespace: &mut Namespace) -> Result<Vec<Counted>, Error> {
    let counts = nft::read_counters(&mut namespace.nft)?;
    if counts.is_empty() {
        return Ok(Vec::new());
    }
    let cookie = namespace.nft.netns_cookie()?;
    let counted = counts.into_iter().map(|count| Counted {
        name: count.name,
        identity: [cookie, count.handle.0, count.handle.1],
        packets: count.packets,
        octets: count.octets,
    });
    Ok(counted.collect())
}

impl Kernel {
    /// Who is told of what counters have counted that go.
    pub fn keep_counts(&mut self, keeper: Keeper) {
        self.keeper = keeper;
    }

    /// What the counters of a namespace have counted; nothing, where there is none of ours.
    ///
    /// # Errors
    ///
    /// They can't be read.
    pub fn counted(&mut self, netns: &Netns) -> Result<Vec<Counted>, Error> {
        match self.namespace(netns)? {
            Some(namespace) => read(namespace),
            None => Ok(Vec::new()),
        }
    }

    /// Reads all counters of a namespace that goes.
    pub(super) fn keep_all(&mut self, netns: &Netns) {
        if let Some(namespace) = self.namespaces.get_mut(netns) {
            self.keeper.keep(netns, namespace, |_| true);
        }
    }

    /// No rule counts at them any more.
    pub(super) fn end_counters(&mut self, netns: &Netns, run: &[Op]) -> Vec<Fate> {
        let going = run.iter().filter_map(|op| match op {
            Op::Delete(Key::Counter(_, name)) => Some(name),
            _ => None,
        });
        let going: BTreeSet<&CounterName> = going.collect();
        if let Err(error) = self.namespace(netns) {
            return all_failed(run, error);
        }
        match self.namespaces.get_mut(netns) {
            Some(namespace) => {
                self.keeper
                    .keep(netns, namespace, |name| going.contains(name));
                apply_table(namespace, run)
            }
            None => run.iter().map(|_| Fate::Done).collect(),
        }
    }
}
