//! Namespaces: making those that are ours and knowing them again, and sockets into as many as are in use.
//!
//! What says that a namespace is ours is its name and the alias of its `lo`, which it has before it has a name. The
//! alias also says whose it is, since all that share `/run/netns` may run an agent each. A namespace with
//! such a name and without the alias is somebody else's: nothing is read or written there.

use std::collections::HashMap;

use hextet_model::state::{self, Key, KeyType, Netns, Object, SetName};
use hextet_types::IfName;

use super::{Kernel, Op, Standing, apply::Fate};
use crate::{
    conntrack::Conntrack,
    error::Error,
    netlink::{Batch, Socket, TableHearing},
    netns,
    route::{group, link, made},
    sysctl,
};

/// So many named namespaces are held open at a time, each by four descriptors.
const MOST_OPEN: usize = 32;

/// What links in a namespace of ours are to be like from the beginning: they make no addresses by themselves, and
/// take what comes another way than its answers go, as between two networks of a router it does.
const DEFAULTS: [(&str, &str); 4] = [
    ("net/ipv4/conf/all/rp_filter", "0"),
    ("net/ipv4/conf/default/rp_filter", "0"),
    ("net/ipv6/conf/default/addr_gen_mode", "1"),
    ("net/ipv6/conf/default/accept_ra", "0"),
];

/// Sockets into one namespace.
#[derive(Debug)]
pub(super) struct Namespace {
    pub(super) handle: netns::Handle,
    groups: group::Groups,
    pub(super) route: Socket,
    pub(super) nft: Socket,
    pub(super) xfrm: Socket,
    /// The key of each set, as far as we have seen it.
    pub(super) sets: HashMap<SetName, Vec<KeyType>>,
    /// Who would hear of our changes of the table.
    pub(super) hearing: Option<TableHearing>,
    /// Somebody else changed tables while nobody heard.
    pub(super) disturbed: bool,
    /// When it was last used, by the count of uses.
    used: u64,
}

impl Namespace {
    /// Opens sockets there. They have the same addresses as those of the main namespace, so that who hears of
    /// changes in all namespaces knows which are our own.
    pub(super) fn open(handle: netns::Handle, main: Option<&Namespace>) -> Result<Self, Error> {
        let address = |of: fn(&Namespace) -> &Socket| main.map(|main| of(main).port());
        let ports = [
            address(|main| &main.route),
            address(|main| &main.nft),
            address(|main| &main.xfrm),
        ];
        let sockets = || {
            let [route, nft, xfrm] = ports;
            let route = Socket::open_as(libc::NETLINK_ROUTE as isize, "rtnetlink", route)?;
            let nft = Socket::open_as(libc::NETLINK_NETFILTER as isize, "nf_tables", nft)?;
            let xfrm = Socket::open_as(libc::NETLINK_XFRM as isize, "xfrm", xfrm)?;
            Ok((route, nft, xfrm))
        };
        let (route, nft, xfrm) = match handle.name() {
            Netns::Main => sockets()?,
            Netns::Named(_) => handle.run(sockets)??,
        };
        Ok(Namespace {
            handle,
            groups: group::Groups::default(),
            route,
            nft,
            xfrm,
            sets: HashMap::new(),
            hearing: None,
            disturbed: false,
            used: 0,
        })
    }

    /// From now on, what others keep changing is not read.
    pub(super) fn only_undisturbed(&mut self) {
        for socket in [&mut self.route, &mut self.nft, &mut self.xfrm] {
            socket.only_undisturbed();
        }
    }

    /// Sets a link's group without telling all the kernel; false, where that can't be done.
    pub(super) fn set_group(&self, link: &IfName, group: u32) -> bool {
        self.groups.set(&self.handle, link, group)
    }

    fn used_now(&mut self, uses: u64) -> &mut Self {
        self.used = uses;
        self
    }

    /// Deletes all links that we made, by the end of a pair that says so: the other goes with it.
    fn delete_made(&mut self) -> Result<(), Error> {
        let mut request = Batch::default();
        link::request_all(&mut request, false);
        let links = self.route.dump(&mut request, link::read)?;
        let mut batch = Batch::default();
        for is in links {
            if is.group == made::OURS {
                link::delete(&mut batch, is.index);
            }
        }
        if !batch.is_empty() {
            self.route.request(&mut batch)?;
        }
        Ok(())
    }

    /// One link, by name.
    pub(super) fn link(&mut self, name: &str) -> Result<Option<link::Found>, Error> {
        let Ok(name) = name.parse() else {
            return Ok(None);
        };
        let mut request = Batch::default();
        link::request_one(&mut request, &name);
        let mut found = None;
        self.route.query(&mut request, |_, answer| {
            found = link::read(answer).or(found.take());
        })?;
        Ok(found)
    }
}

/// What the alias of `lo` says in a namespace that belongs to the one with that number.
pub(super) fn mark(main: u64) -> String {
    format!("hextet of {main}")
}

/// The namespaces that have names of ours, whosesoever they are.
pub(super) fn named_like_ours() -> Result<Vec<String>, Error> {
    let mut names = netns::list()?;
    names.retain(|name| state::Namespace::may_be_ours(name));
    Ok(names)
}

impl Kernel {
    /// A namespace's sockets; none, where there is no such namespace, or it has a name of ours and is somebody
    /// else's.
    pub(super) fn namespace(&mut self, netns: &Netns) -> Result<Option<&mut Namespace>, Error> {
        if !self.namespaces.contains_key(netns) {
            let Some(namespace) = self.open_namespace(netns)? else {
                return Ok(None);
            };
            self.learn_number(netns, &namespace)?;
            self.close_unused();
            self.namespaces.insert(netns.clone(), namespace);
        }
        self.uses += 1;
        let uses = self.uses;
        let namespace = self.namespaces.get_mut(netns);
        Ok(namespace.map(|namespace| namespace.used_now(uses)))
    }

    fn open_namespace(&self, netns: &Netns) -> Result<Option<Namespace>, Error> {
        let handle = match netns::Handle::open(netns) {
            Ok(handle) => handle,
            Err(e) if e.errno() == Some(libc::ENOENT) => return Ok(None),
            Err(e) => return Err(e),
        };
        let mut namespace = Namespace::open(handle, self.namespaces.get(&Netns::Main))?;
        if let Netns::Named(name) = netns
            && state::Namespace::may_be_ours(name)
        {
            let lo = namespace.link("lo")?;
            if lo.and_then(|lo| lo.alias).as_ref() != Some(&self.mark) {
                return Ok(None);
            }
        }
        if self.onlooks {
            namespace.only_undisturbed();
        }
        Ok(Some(namespace))
    }

    /// The connection table of a namespace; none, where it is not there, or has a name of ours and is somebody
    /// else's.
    ///
    /// # Errors
    ///
    /// It can't be opened.
    pub fn connections(&mut self, netns: &Netns) -> Result<Option<Conntrack>, Error> {
        let Some(namespace) = self.namespace(netns)? else {
            return Ok(None);
        };
        let handle = namespace.handle.another()?;
        handle.run(|| Conntrack::open(&Netns::Main))?.map(Some)
    }

    /// Closes the one that was used the longest time ago, where there are too many.
    fn close_unused(&mut self) {
        if self.namespaces.len() <= MOST_OPEN {
            return;
        }
        let named = self.namespaces.iter().filter(|(n, _)| **n != Netns::Main);
        let oldest = named.min_by_key(|(_, namespace)| namespace.used);
        if let Some(netns) = oldest.map(|(netns, _)| netns.clone()) {
            self.namespaces.remove(&netns);
        }
    }

    /// Lets go of all but the main one.
    pub(super) fn close_named(&mut self) {
        self.namespaces.retain(|netns, _| *netns == Netns::Main);
    }

    /// Lets go of namespaces whose name means another one by now, or none.
    pub(super) fn drop_stale_namespaces(&mut self) {
        let stale = |(netns, namespace): (&Netns, &Namespace)| {
            (*netns != Netns::Main && !namespace.handle.is_current()).then(|| netns.clone())
        };
        let stale: Vec<Netns> = self.namespaces.iter().filter_map(stale).collect();
        stale.iter().for_each(|netns| self.drop_stale(netns));
    }

    /// A namespace without a name ends some time after nobody looks into it any more, and what it holds of ours is in
    /// the way of what takes its place until then.
    fn drop_stale(&mut self, netns: &Netns) {
        let Some(mut namespace) = self.namespaces.remove(netns) else {
            return;
        };
        self.forget_number(netns);
        let named_like_ours =
            matches!(netns, Netns::Named(name) if state::Namespace::may_be_ours(name));
        if named_like_ours
            && !self.onlooks
            && let Err(e) = namespace.delete_made()
        {
            tracing::warn!(error = %e, %netns, "links of a namespace that is gone stay for some time");
        }
        if named_like_ours && !self.onlooks {
            self.keeper.keep(netns, &mut namespace, |_| true);
        }
    }

    /// What stands of a namespace with a name of ours; none, where it is not ours.
    pub(super) fn dump_namespace(&mut self, name: &str) -> Result<Option<Standing>, Error> {
        let netns = Netns::Named(name.to_owned());
        let Some(namespace) = self.namespace(&netns)? else {
            return Ok(None);
        };
        let is_up = namespace.link("lo")?.is_some_and(|lo| lo.up);
        let object = Object::Namespace(state::Namespace {
            name: name.to_owned(),
        });
        Ok(Some(match is_up {
            true => object.into(),
            false => Standing::otherwise("lo is down"),
        }))
    }

    pub(super) fn apply_namespace(&mut self, op: &Op) -> Fate {
        match op.key() {
            Key::Namespace(name) if op.object().is_some() => self.make_namespace(&name).into(),
            Key::Namespace(name) => self.delete_namespace(&name).into(),
            _ => Fate::Done,
        }
    }

    fn make_namespace(&mut self, name: &str) -> Result<(), Error> {
        if !state::Namespace::may_be_ours(name) {
            return Err(Error::unfit(
                format!("create network namespace {name}"),
                "names of namespaces that are ours begin with hx- or hr-",
            ));
        }
        let netns = Netns::Named(name.to_owned());
        let mark = self.mark.clone();
        self.drop_if_stale(&netns);
        if let Some(namespace) = self.namespace(&netns)? {
            return prepare(&mut namespace.route, &mark);
        }
        let inside = || {
            let mut route = Socket::open(libc::NETLINK_ROUTE as isize, "rtnetlink")?;
            for (path, value) in DEFAULTS {
                sysctl::write(path, value)?;
            }
            prepare(&mut route, &mark)
        };
        match netns::create_with(name, inside) {
            Err(e) if e.errno() == Some(libc::EEXIST) => Err(Error::unfit(
                format!("create network namespace {name}"),
                format!(
                    "somebody else made one of that name; `ip netns delete {name}` makes way for it"
                ),
            )),
            outcome => outcome,
        }
    }

    fn drop_if_stale(&mut self, netns: &Netns) {
        let handle = self.namespaces.get(netns).map(|n| n.handle.is_current());
        if handle == Some(false) {
            self.drop_stale(netns);
        }
    }

    /// Deletes our links in it first: it ends only when nobody looks into it any more, and until then a VXLAN
    /// device there would be in the way of the next one.
    fn delete_namespace(&mut self, name: &str) -> Result<(), Error> {
        let netns = Netns::Named(name.to_owned());
        self.drop_if_stale(&netns);
        let Some(namespace) = self.namespace(&netns)? else {
            return Ok(());
        };
        namespace.delete_made()?;
        self.keep_all(&netns);
        self.namespaces.remove(&netns);
        self.forget_number(&netns);
        netns::delete(name)
    }
}

/// Gives a namespace our mark, and sets its `lo` up.
fn prepare(route: &mut Socket, mark: &str) -> Result<(), Error> {
    const LO: u32 = 1;
    let mut batch = Batch::default();
    link::mark(&mut batch, LO, mark);
    match route.request(&mut batch)?.into_iter().next() {
        Some((_, refusal)) => Err(refusal.of("set lo up in a new network namespace")),
        None => Ok(()),
    }
}
