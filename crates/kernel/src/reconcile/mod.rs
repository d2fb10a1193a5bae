//! The one way into the kernel: dump what is ours, compare it with what is desired, apply the difference.
//!
//! Reconciling twice does nothing the second time. What is not ours is not in the dump, so nothing here
//! can touch it. Policy stands before the service that it guards begins, and ends after it.

mod apply;
mod diff;
mod dump;
mod look;
mod op;
mod programs;
mod requests;
mod sources;
mod table;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, btree_map::Entry},
    path::PathBuf,
};

use hextet_model::state::{Key, KeyType, Netns, Object, RouteKind, SetName};
use hextet_types::{IfName, Mac};

pub use diff::{diff, diff_keys};
pub use look::{Expected, Look, Onlooker, Seen};
pub use op::{Op, Standing};

use crate::{
    bpf,
    error::Error,
    netlink::{Socket, TableHearing},
    netns,
    sysctl::Record,
    tc::Programs,
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
            let netns = op::netns_of_key(key);
            if !all.contains(netns) {
                all.insert(netns.clone());
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
}

/// Sockets into one namespace.
#[derive(Debug)]
struct Namespace {
    handle: netns::Handle,
    route: Socket,
    nft: Socket,
    xfrm: Socket,
    /// The key of each set, as far as we have seen it.
    sets: HashMap<SetName, Vec<KeyType>>,
    /// Who would hear of our changes of the table.
    hearing: Option<TableHearing>,
    /// Somebody else changed tables while nobody heard.
    disturbed: bool,
}

impl Namespace {
    fn open(handle: netns::Handle) -> Result<Self, Error> {
        let sockets = || {
            let route = Socket::open(libc::NETLINK_ROUTE as isize, "rtnetlink")?;
            let nft = Socket::open(libc::NETLINK_NETFILTER as isize, "nf_tables")?;
            let xfrm = Socket::open(libc::NETLINK_XFRM as isize, "xfrm")?;
            Ok((route, nft, xfrm))
        };
        let (route, nft, xfrm) = match handle.name() {
            Netns::Main => sockets()?,
            Netns::Named(_) => handle.run(sockets)??,
        };
        Ok(Namespace {
            handle,
            route,
            nft,
            xfrm,
            sets: HashMap::new(),
            hearing: None,
            disturbed: false,
        })
    }

    /// From now on, what others keep changing is not read.
    fn only_undisturbed(&mut self) {
        for socket in [&mut self.route, &mut self.nft, &mut self.xfrm] {
            socket.only_undisturbed();
        }
    }
}

/// The kernel, in as many namespaces as the desired state names.
#[derive(Debug)]
pub struct Kernel {
    config: Config,
    programs: BTreeMap<Netns, Programs>,
    places: BTreeMap<Netns, sources::Places>,
    /// Links whose programs have not got where they shall be.
    moving: BTreeMap<Netns, BTreeSet<IfName>>,
    has_tcx: bool,
    to_tcx: bool,
    record: Record,
    namespaces: BTreeMap<Netns, Namespace>,
    known: BTreeMap<Key, Standing>,
    /// What was written since a look began.
    written: Option<BTreeSet<Key>>,
    /// It only looks: namespaces that it opens are read while others write.
    onlooks: bool,
}

impl Kernel {
    /// Opens it. `Main` is the network namespace of the calling thread, from now on.
    pub fn open(config: Config) -> Result<Self, Error> {
        let record = Record::open(&config.sysctl_record)?;
        let main = Namespace::open(netns::Handle::open(&Netns::Main)?)?;
        let namespaces = BTreeMap::from([(Netns::Main, main)]);
        let has_tcx = bpf::has_tcx();
        Ok(Kernel {
            to_tcx: config.tcx && has_tcx,
            has_tcx,
            config,
            programs: BTreeMap::new(),
            places: BTreeMap::new(),
            moving: BTreeMap::new(),
            record,
            namespaces,
            known: BTreeMap::new(),
            written: None,
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
        Ok(())
    }

    /// Makes the kernel equal to what is desired, going by what it had when we last looked or changed it.
    pub fn reconcile_known(&mut self, desired: &BTreeMap<Key, Object>) -> Report {
        let ops = diff(desired, &self.known);
        self.apply(ops)
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
        let ops = diff_keys(keys, desired, &self.known);
        self.apply(ops)
    }

    /// What stood when we last looked, with what was changed since.
    pub fn known(&self) -> &BTreeMap<Key, Standing> {
        &self.known
    }

    /// Forgets what stood on these links, since they are other ones now or were down meanwhile. The keys
    /// are for [`Kernel::reconcile_keys`]. Looks at all that is known, once.
    pub fn forget_links(&mut self, netns: &Netns, links: &BTreeSet<IfName>) -> BTreeSet<Key> {
        if links.is_empty() {
            return BTreeSet::new();
        }
        let on_link = |key: &Key, standing: &Standing| {
            let link = key.link();
            if link.is_some_and(|(n, link)| n == netns && links.contains(link)) {
                return true;
            }
            match standing {
                Standing::As(Object::Route(route)) => match &route.kind {
                    RouteKind::Unicast(hops) => {
                        route.key.netns == *netns
                            && hops.iter().any(|hop| links.contains(&hop.link))
                    }
                    RouteKind::Blackhole => false,
                },
                _ => false,
            }
        };
        let gone: BTreeSet<Key> = self
            .known
            .iter()
            .filter(|(key, standing)| on_link(key, standing))
            .map(|(key, _)| key.clone())
            .collect();
        for key in &gone {
            self.known.remove(key);
            self.outdate(key);
        }
        self.forget_sources(netns, &gone);
        gone
    }

    /// Loads a namespace's programs, on first use. Each has its own, since links are known to them by index.
    fn load_programs(&mut self, netns: &Netns) -> Result<(), Error> {
        if !self.programs.contains_key(netns) {
            let programs = Programs::load(self.config.gateway_mac)?;
            self.programs.insert(netns.clone(), programs);
        }
        Ok(())
    }

    /// A namespace's sockets; none, where there is no such namespace.
    fn namespace(&mut self, netns: &Netns) -> Result<Option<&mut Namespace>, Error> {
        match self.namespaces.entry(netns.clone()) {
            Entry::Occupied(entry) => Ok(Some(entry.into_mut())),
            Entry::Vacant(entry) => match netns::Handle::open(netns) {
                Ok(handle) => {
                    let namespace = entry.insert(Namespace::open(handle)?);
                    if self.onlooks {
                        namespace.only_undisturbed();
                    }
                    Ok(Some(namespace))
                }
                Err(e) if e.errno() == Some(libc::ENOENT) => Ok(None),
                Err(e) => Err(e),
            },
        }
    }

    /// Lets go of namespaces whose name means another one by now, or none.
    fn drop_stale_namespaces(&mut self) {
        self.namespaces
            .retain(|netns, namespace| *netns == Netns::Main || namespace.handle.is_current());
        self.programs
            .retain(|netns, _| self.namespaces.contains_key(netns));
        self.moving
            .retain(|netns, _| self.namespaces.contains_key(netns));
    }
}
