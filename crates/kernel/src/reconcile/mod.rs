//! The one way into the kernel: dump what is ours, compare it with what is desired, apply the difference.
//!
//! Reconciling twice does nothing the second time. What is not ours is not in the dump, so nothing here
//! can touch it. Policy stands before the service that it guards begins, and ends after it.

mod apply;
mod audiences;
mod counters;
mod diff;
mod dump;
mod forget;
mod look;
mod made;
mod namespaces;
mod numbers;
mod op;
mod patches;
mod programs;
mod requests;
mod sources;
mod table;
mod uplinks;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
};

use hextet_model::state::{Key, Netns, Object};
use hextet_types::{IfName, Mac};
use namespaces::Namespace;
use numbers::Numbers;

pub use counters::{Counted, Keeper};
pub use diff::{diff, diff_keys};
pub use look::{Expected, Look, Onlooker, Seen};
pub use op::{Op, Standing};

use crate::{
    bpf,
    error::Error,
    netlink::TableHearing,
    netns,
    patch::Patches,
    route::made::FIRST_INDEX,
    sources::Entry,
    sysctl::Record,
    tc::Programs,
    uplink::{self, Uplinks},
};

/// What a kernel needs to know beforehand.
#[derive(Clone, Debug)]
pub struct Config {
    /// The Ethernet address that ports see as their gateway's, on every host the same.
    pub gateway_mac: Mac,
    /// Where the former values of sysctls are kept.
    pub sysctl_record: PathBuf,
    /// The sysctls that may be written, each a path or a beginning of paths that ends in `/`.
    pub sysctls: Vec<String>,
    /// Whether ports' programs run by TCX in time ([`Kernel::move_program`]) where the kernel has it (Linux 6.6);
    /// otherwise all run by tc, and those that did not no longer do.
    pub tcx: bool,
}

/// What a dump covers.
#[derive(Clone, Debug)]
pub struct Scope<'a> {
    /// What is desired. It tells which links and sysctls are ours, and what a chain's rules should be.
    pub expected: &'a BTreeMap<Key, Object>,
    /// Namespaces to look into beside those that the desired objects name.
    pub namespaces: BTreeSet<Netns>,
}

impl<'a> Scope<'a> {
    /// The main namespace, and those that the desired objects name.
    pub fn of(expected: &'a BTreeMap<Key, Object>) -> Self {
        Scope {
            expected,
            namespaces: BTreeSet::from([Netns::Main]),
        }
    }

    fn all(&self) -> BTreeSet<Netns> {
        let mut all = self.namespaces.clone();
        for key in self.expected.keys() {
            let netns = key.netns();
            if !all.contains(netns) {
                all.insert(netns.clone());
            }
            if let Key::Namespace(name) = key {
                all.insert(Netns::Named(name.clone()));
            }
        }
        all
    }
}

/// What came of some operations.
#[derive(Debug, Default)]
pub struct Report {
    /// How many were done.
    pub applied: usize,
    /// What was refused, or withheld for the sake of what was refused.
    pub failed: Vec<(Op, Error)>,
    /// What waits for a link or namespace that is not there yet.
    pub waiting: Vec<Key>,
    /// Whether somebody else may have changed our table unheard: it is to be looked at again.
    pub disturbed: bool,
}

impl Report {
    /// Whether nothing is left to be done.
    pub fn is_complete(&self) -> bool {
        self.failed.is_empty() && self.waiting.is_empty()
    }

    fn join(&mut self, other: Report) {
        self.applied += other.applied;
        self.failed.extend(other.failed);
        self.waiting.extend(other.waiting);
        self.disturbed |= other.disturbed;
    }
}

/// The kernel, in as many namespaces as the desired state names.
#[derive(Debug)]
pub struct Kernel {
    config: Config,
    /// Of the ports of all namespaces.
    programs: Option<Programs>,
    patches: Option<Patches>,
    places: BTreeMap<Netns, sources::Places>,
    /// Sources on links that were gone when we last looked.
    stale_sources: Vec<Entry>,
    /// Groups of networks that are not here, when we last looked.
    stale_audiences: Vec<audiences::Place>,
    /// Patched links that were gone when we last looked, by index.
    stale_patches: Vec<u32>,
    uplinks: Option<Uplinks>,
    /// Answers on links that were gone when we last looked.
    stale_answers: Vec<uplink::Place>,
    /// Links whose programs have not got where they shall be.
    moving: BTreeMap<Netns, BTreeSet<IfName>>,
    /// Likewise patches, by the workload's link.
    moving_patches: BTreeSet<IfName>,
    has_tcx: bool,
    to_tcx: bool,
    record: Record,
    namespaces: BTreeMap<Netns, Namespace>,
    numbers: Numbers,
    /// Counts how often namespaces were used.
    uses: u64,
    /// By which namespaces are known to be ours.
    mark: String,
    /// For the next link that we make.
    next_index: u32,
    known: BTreeMap<Key, Standing>,
    /// What no longer stands since a link was made anew.
    lost: BTreeSet<Key>,
    /// What may have gone with a link, or may stand on it still.
    doubtful: BTreeSet<Key>,
    /// What was written since a look began.
    written: Option<BTreeSet<Key>>,
    keeper: Keeper,
    /// It only looks: namespaces that it opens are read while others write.
    onlooks: bool,
}

impl Kernel {
    /// Opens it. `Main` is the network namespace of the calling thread, from now on.
    pub fn open(config: Config) -> Result<Self, Error> {
        let record = Record::open(&config.sysctl_record)?;
        let main = Namespace::open(netns::Handle::open(&Netns::Main)?, None)?;
        let mark = namespaces::mark(main.route.netns_cookie()?);
        let namespaces = BTreeMap::from([(Netns::Main, main)]);
        let has_tcx = bpf::has_tcx();
        Ok(Kernel {
            to_tcx: config.tcx && has_tcx,
            has_tcx,
            config,
            programs: None,
            patches: None,
            places: BTreeMap::new(),
            stale_sources: Vec::new(),
            stale_audiences: Vec::new(),
            stale_patches: Vec::new(),
            uplinks: None,
            stale_answers: Vec::new(),
            moving: BTreeMap::new(),
            moving_patches: BTreeSet::new(),
            record,
            namespaces,
            numbers: Numbers::default(),
            uses: 0,
            mark,
            next_index: FIRST_INDEX,
            known: BTreeMap::new(),
            lost: BTreeSet::new(),
            doubtful: BTreeSet::new(),
            written: None,
            keeper: Keeper::default(),
            onlooks: false,
        })
    }

    /// The addresses of our sockets in a namespace: what a [`crate::netlink::Monitor`] hears from them is
    /// our own doing.
    pub fn socket_ports(&self, netns: &Netns) -> Vec<u32> {
        let sockets = self.namespaces.get(netns);
        sockets.map_or(Vec::new(), |n| {
            vec![n.route.port(), n.nft.port(), n.xfrm.port()]
        })
    }

    /// Large changes of the main namespace's table go unheard by that monitor.
    pub fn hush(&mut self, hearing: TableHearing) {
        if let Some(main) = self.namespaces.get_mut(&Netns::Main) {
            main.hearing = Some(hearing);
        }
    }

    /// Makes the kernel equal to what is desired: looks, compares, applies. What a transaction refused is
    /// looked at and tried once more, since somebody else may have changed things meanwhile.
    pub fn reconcile(&mut self, scope: &Scope<'_>) -> Result<Report, Error> {
        let mut report = self.reconcile_once(scope)?;
        if !report.failed.is_empty() {
            let before = report.applied;
            report = self.reconcile_once(scope)?;
            report.applied += before;
        }
        Ok(report)
    }

    fn reconcile_once(&mut self, scope: &Scope<'_>) -> Result<Report, Error> {
        self.look(scope)?;
        Ok(self.reconcile_known(scope.expected))
    }

    /// Looks at everything, for [`Kernel::known`].
    pub fn look(&mut self, scope: &Scope<'_>) -> Result<(), Error> {
        self.known = self.dump(scope)?;
        self.doubtful.clear();
        Ok(())
    }

    /// Makes the kernel equal to what is desired, going by what it had when we last looked or changed it.
    pub fn reconcile_known(&mut self, desired: &BTreeMap<Key, Object>) -> Report {
        let ops = diff(desired, &self.known);
        self.apply_and_mend(ops, desired)
    }

    /// A link that was made anew takes with it what stood on it, which then comes again.
    fn apply_and_mend(&mut self, ops: Vec<Op>, desired: &BTreeMap<Key, Object>) -> Report {
        self.lost.clear();
        let mut report = self.apply(ops);
        let lost = std::mem::take(&mut self.lost);
        if !lost.is_empty() {
            let ops = diff_keys(&lost, desired, &self.known);
            report.join(self.apply(ops));
        }
        report
    }

    /// Looks at the sysctls of one namespace alone, and makes them what is desired.
    pub fn reconcile_sysctls(
        &mut self,
        netns: &Netns,
        desired: &BTreeMap<Key, Object>,
    ) -> Result<Report, Error> {
        let mut found = BTreeMap::new();
        self.dump_sysctls(netns, &Scope::of(desired), &mut found)?;
        let keys: Vec<Key> = found.keys().cloned().collect();
        self.known.extend(found);
        Ok(self.reconcile_keys(&keys, desired))
    }

    /// Makes the kernel equal to what is desired under these keys, going by what it had when we last
    /// looked or changed it.
    pub fn reconcile_keys<'a>(
        &mut self,
        keys: impl IntoIterator<Item = &'a Key>,
        desired: &BTreeMap<Key, Object>,
    ) -> Report {
        let keys: Vec<&Key> = keys.into_iter().collect();
        for key in &keys {
            // What is to be made anew is written over what may be there; the rest has to go.
            if self.doubtful.remove(*key) && !desired.contains_key(*key) {
                let maybe = || Standing::otherwise("perhaps there");
                self.known.entry((*key).clone()).or_insert_with(maybe);
            }
        }
        let ops = diff_keys(keys, desired, &self.known);
        self.apply_and_mend(ops, desired)
    }

    /// What stood when we last looked, with what was changed since.
    pub fn known(&self) -> &BTreeMap<Key, Standing> {
        &self.known
    }

    /// Loads the ports' programs, on first use. All namespaces have the same, and the same maps: links are known
    /// to them by index, and a port's is unique on the host, see [`hextet_model::state::Veth`].
    fn load_programs(&mut self) -> Result<&mut Programs, Error> {
        let programs = match self.programs.take() {
            Some(programs) => programs,
            None => Programs::load(self.config.gateway_mac)?,
        };
        Ok(self.programs.insert(programs))
    }
}
